"""pandas: DataFrame.to_sql."""

import json

import pandas
from given import request
from sqlalchemy import create_engine
from sqlalchemy.dialects.postgresql import JSONB

engine = create_engine(request.uri.replace("postgresql", "postgresql+psycopg"))


def copy(table, connection, keys, rows) -> None:
    """COPY, as pandas' own documentation has it, for psycopg 3."""
    names = ", ".join(f'"{key}"' for key in keys)
    with connection.connection.cursor().copy(f"COPY {table.name} ({names}) FROM STDIN") as writer:
        for row in rows:
            writer.write_row(row)


METHODS = {"to_sql": None, "multi": "multi", "copy": copy}


class RolledBack(Exception):
    pass


try:
    with engine.begin() as connection:
        for table in request.tables:
            # A COPY sends JSON as it is.
            rows = table.mappings(str if request.how == "copy" else json.loads)
            frame = pandas.DataFrame(rows, columns=table.columns, dtype=object)
            for column, kind in zip(table.columns, table.types):
                if kind == "timestamptz":
                    frame[column] = pandas.to_datetime(frame[column], utc=True)
                if kind == "bigint":
                    frame[column] = frame[column].astype("Int64")
            kinds = {column: JSONB(none_as_null=True) for column, kind in zip(table.columns, table.types) if kind == "jsonb"}
            frame.to_sql(
                table.name, connection, if_exists="append", index=False, chunksize=1000, method=METHODS[request.how], dtype=kinds
            )
        if request.rolls_back:
            raise RolledBack
except RolledBack:
    pass
