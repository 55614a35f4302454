"""SQLAlchemy's Core: tables are declared by hand."""

import json
import logging

from given import request
from sqlalchemy import BigInteger, Boolean, Column, DateTime, Double, MetaData, Table, Text, create_engine, insert
from sqlalchemy.dialects import postgresql
from sqlalchemy.dialects.postgresql import JSONB

KINDS = {"text": Text, "jsonb": JSONB(none_as_null=True), "timestamptz": DateTime(timezone=True), "float8": Double, "boolean": Boolean, "bigint": BigInteger}

driver, how = request.how.split(": ")
# Of psycopg2's notices SQLAlchemy makes log messages.
logging.basicConfig(format="%(message)s")
logging.getLogger("sqlalchemy.dialects.postgresql").setLevel(logging.INFO)
engine = create_engine(request.uri.replace("postgresql", f"postgresql+{driver}"))
tables = MetaData()
with engine.connect() as connection:
    transaction = connection.begin()
    for given in request.tables:
        columns = (Column(name, KINDS[kind]) for name, kind in zip(given.columns, given.types))
        table = Table(given.name, tables, *columns)
        rows = given.mappings(json.loads)
        match how:
            case "insert":
                connection.execute(insert(table), rows)
            case "on conflict":
                statement = postgresql.insert(table)
                changes = {name: statement.excluded[name] for name in given.rest}
                connection.execute(statement.on_conflict_do_update(index_elements=given.keys, set_=changes), rows)
    if request.rolls_back:
        transaction.rollback()
    else:
        transaction.commit()
