"""ADBC's PostgreSQL driver."""

from adbc_driver_postgresql import dbapi
from frames import arrow
from given import request

with dbapi.connect(request.uri) as connection:
    with connection.cursor() as cursor:
        for table in request.tables:
            match request.how:
                case "adbc_ingest":
                    cursor.adbc_ingest(f"{table.name}_json", arrow(table), mode="append")
                case "executemany":
                    places = ", ".join(f"${at + 1}" for at in range(len(table.columns)))
                    cursor.executemany(f"INSERT INTO {table.name} ({table.listed}) VALUES ({places})", arrow(table))
                case "on conflict":
                    places = ", ".join(f"${at + 1}" for at in range(len(table.columns)))
                    insert = f"INSERT INTO {table.name} ({table.listed}) VALUES ({places}) {table.on_conflict}"
                    cursor.executemany(insert, arrow(table))
    if request.rolls_back:
        connection.rollback()
    else:
        connection.commit()
