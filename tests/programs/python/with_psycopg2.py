"""psycopg 2."""

import csv
import io

import psycopg2
from given import request
from psycopg2.extras import execute_batch, execute_values

connection = psycopg2.connect(**request.dsn)
try:
    with connection, connection.cursor() as cursor:
        for table in request.tables:
            insert = f"INSERT INTO {table.name} ({table.listed}) VALUES "
            one = f"({', '.join(['%s'] * len(table.columns))})"
            match request.how:
                case "executemany":
                    cursor.executemany(insert + one, table.typed())
                case "execute_batch":
                    execute_batch(cursor, insert + one, table.typed())
                case "execute_values":
                    execute_values(cursor, insert + "%s", table.typed(), page_size=10_000)
                case "on conflict":
                    execute_values(cursor, f"{insert} %s {table.on_conflict}", table.typed())
                case "copy_expert":
                    file = io.StringIO()
                    for row in table.rows:
                        csv.writer(file).writerow(row)
                    file.seek(0)
                    cursor.copy_expert(f"COPY {table.name} ({table.listed}) FROM STDIN (FORMAT csv)", file)
        if request.rolls_back:
            connection.rollback()
finally:
    print(*connection.notices, sep="")
