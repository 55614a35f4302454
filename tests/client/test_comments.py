"""Comments on the built-in tables and columns, as IMPORT and registration make them."""

from __future__ import annotations

import pytest

COMMENTS = """
SELECT c.relname, a.attname, col_description(c.oid, a.attnum), obj_description(c.oid, 'pg_class')
FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0
WHERE c.relkind = 'f' AND c.relnamespace = %s::regnamespace
"""


@pytest.mark.parametrize("naming", ["snake_case", "camelCase"])
def test_every_table_and_column_has_one(site, naming):
    with site.superuser() as connection:
        *_, schema = site.register(connection, schema="made", naming=naming)
        rows = connection.execute(COMMENTS, [schema]).fetchall()
    # In a session of its own, in which IMPORT itself loads the library.
    with site.superuser() as connection:
        connection.execute("CREATE SCHEMA imported")
        connection.execute(f"IMPORT FOREIGN SCHEMA cdf FROM SERVER cdf INTO imported OPTIONS (naming '{naming}')")
        assert connection.execute(COMMENTS, ["imported"]).fetchall() == rows
    assert all(column and table for _, _, column, table in rows)
    said = {(table, column): comment for table, column, comment, _ in rows}
    assert "140" in said["assets", "name"] and "500" in said["assets", "description"]
    assert "read-only" in said["assets", "created_time" if naming == "snake_case" else "createdTime"]
    assert "1900" in said["datapoints", "timestamp"] and "1023 bytes" in said["string_datapoints", "value"]
    assert "1024" in said["raw_rows", "key"] and not any("docs/" in comment for comment in said.values())
    assert "success, failure, seen" in said["extraction_pipeline_runs", "status"]


def test_tables_by_hand_have_none(site):
    with site.superuser() as connection:
        site.register(connection)
        connection.execute("CREATE SCHEMA hand")
        connection.execute("CREATE FOREIGN TABLE hand.mine (name text) SERVER cdf OPTIONS (resource 'assets')")
        assert connection.execute(COMMENTS, ["hand"]).fetchall() == [("mine", "name", None, None)]
