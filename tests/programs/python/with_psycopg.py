"""psycopg 3."""

import json

import psycopg
from given import request
from psycopg.types.json import Jsonb

jsonb = lambda text: Jsonb(json.loads(text))

with psycopg.connect(**request.dsn) as connection:
    connection.add_notice_handler(lambda notice: print(f"{notice.severity}: {notice.message_primary}"))
    cursor = connection.cursor()
    for table in request.tables:
        insert = f"INSERT INTO {table.name} ({table.listed}) VALUES ({', '.join(['%s'] * len(table.columns))})"
        match request.how:
            case "executemany":
                cursor.executemany(insert, table.typed(jsonb))
            case "pipeline":
                with connection.pipeline():
                    for row in table.typed(jsonb):
                        cursor.execute(insert, row)
            case "on conflict":
                cursor.executemany(f"{insert} {table.on_conflict}", table.typed(jsonb))
            case "copy text":
                with cursor.copy(f"COPY {table.name} ({table.listed}) FROM STDIN") as copy:
                    for row in table.typed():
                        copy.write_row(row)
            case "copy binary":
                with cursor.copy(f"COPY {table.name} ({table.listed}) FROM STDIN (FORMAT binary)") as copy:
                    copy.set_types(table.types)
                    for row in table.typed(jsonb):
                        copy.write_row(row)
    if request.rolls_back:
        connection.rollback()
