"""polars: DataFrame.write_database, which commits each table by itself."""

import polars
from frames import arrow
from given import request
from sqlalchemy import create_engine

for table in request.tables:
    frame = polars.from_arrow(arrow(table))
    match request.how:
        case "adbc":
            frame.write_database(f"{table.name}_json", request.uri, engine="adbc", if_table_exists="append")
        case "sqlalchemy":
            engine = create_engine(request.uri.replace("postgresql", "postgresql+psycopg"))
            frame.write_database(table.name, engine, engine="sqlalchemy", if_table_exists="append")
