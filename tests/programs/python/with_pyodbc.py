"""psqlODBC, through pyodbc. Its savepoint around each statement is on by default."""

import os

import pyodbc
from given import request

dsn = request.dsn
how, _, settings = request.how.partition("; ")
connection = pyodbc.connect(
    f"DRIVER={os.environ['PSQLODBC']};SERVER={dsn['host']};PORT={dsn['port']};UID={dsn['user']};PWD={dsn['password']}"
    f";DATABASE={dsn['dbname']};SSLMODE=disable;{settings}",
    autocommit=False,
)
cursor = connection.cursor()
for table in request.tables:
    insert = f"INSERT INTO {table.name} ({table.listed}) VALUES ({', '.join('?' * len(table.columns))})"
    if how == "on conflict":
        insert += f" {table.on_conflict}"
    cursor.executemany(insert, table.rows)
for _, message in cursor.messages or ():
    print(message)
if request.rolls_back:
    connection.rollback()
else:
    connection.commit()
