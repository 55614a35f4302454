"""DuckDB with its extension `postgres`."""

from pathlib import Path

import duckdb
import duckdb_extension_postgres_scanner
from given import request

connection = duckdb.connect()
# The package carries the extension, which INSTALL would get from the network.
[extension] = Path(duckdb_extension_postgres_scanner.__file__).parent.glob("extensions/*/postgres_scanner.duckdb_extension")
connection.execute(f"LOAD '{extension}'")
connection.execute(f"ATTACH '{request.conninfo}' AS gateway (TYPE postgres, SCHEMA '{request.schema}')")
if request.how == "text copy":
    connection.execute("SET pg_use_binary_copy = false")
KINDS = {"text": "VARCHAR", "jsonb": "JSON", "timestamptz": "TIMESTAMPTZ", "float8": "DOUBLE", "boolean": "BOOLEAN", "bigint": "BIGINT"}
connection.execute("BEGIN")
for table in request.tables:
    kinds = ", ".join(f'"{name}" {KINDS[kind]}' for name, kind in zip(table.columns, table.types))
    connection.execute(f"CREATE TEMP TABLE {table.name}_rows ({kinds})")
    connection.executemany(f"INSERT INTO {table.name}_rows VALUES ({', '.join(['?'] * len(table.columns))})", table.rows)
    connection.execute(f"INSERT INTO gateway.{table.name} ({table.listed}) SELECT * FROM {table.name}_rows")
connection.execute("ROLLBACK" if request.rolls_back else "COMMIT")
