"""petl over psycopg 2."""

import petl
import psycopg2
from given import request

connection = psycopg2.connect(**request.dsn)
try:
    for table in request.tables:
        rows = petl.wrap([table.columns, *table.typed()])
        petl.appenddb(rows, connection, table.name, commit=False)
    if request.rolls_back:
        connection.rollback()
    else:
        connection.commit()
finally:
    print(*connection.notices, sep="")
