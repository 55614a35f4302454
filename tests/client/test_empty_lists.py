"""Conditions with empty lists, on every table: CDF takes no empty list in a filter, and none of keys."""

from __future__ import annotations

import pytest

NOTHING = {
    "assets": ["id", "external_id", "name", "source", "parent_id", "parent_external_id", "data_set_id", "data_set_external_id"],
    "events": ["id", "external_id", "type", "subtype", "source", "data_set_id", "data_set_external_id"],
    "timeseries": ["id", "external_id", "name", "unit", "unit_external_id", "asset_id", "asset_external_id", "data_set_id"],
    "sequences": ["id", "external_id", "name", "asset_id", "data_set_id"],
    "files": ["id", "external_id", "name", "source", "mime_type", "data_set_id"],
    "relationships": ["external_id", "source_external_id", "target_external_id", "data_set_id"],
    "labels": ["external_id", "name", "data_set_id"],
    "data_sets": ["id", "external_id"],
    "datapoints": ["id", "external_id"],
    "string_datapoints": ["id", "external_id"],
    "sequence_rows": ["id", "external_id"],
    "raw_rows": ["db_name", "table_name", "key"],
}

SETUP = [
    "INSERT INTO labels (external_id, name) VALUES ('l', 'L')",
    "INSERT INTO assets (external_id, name, labels) VALUES ('x', 'X', '{l}')",
    "INSERT INTO events (external_id, asset_external_ids) VALUES ('x', '{x}')",
    "INSERT INTO files (external_id, name, asset_external_ids, labels) VALUES ('x', 'X', '{x}', '{l}')",
    "INSERT INTO timeseries (external_id) VALUES ('x')",
    "INSERT INTO timeseries (external_id, is_string) VALUES ('s', true)",
    "INSERT INTO datapoints (external_id, timestamp, value) VALUES ('x', '2024-01-01Z', 1)",
    "INSERT INTO string_datapoints (external_id, timestamp, value) VALUES ('s', '2024-01-01Z', 'v')",
    """INSERT INTO sequences (external_id, columns) VALUES ('x', '[{"externalId": "a"}]')""",
    """INSERT INTO sequence_rows (external_id, row_number, columns) VALUES ('x', 0, '{"a": 1}')""",
    "INSERT INTO relationships (external_id, source_external_id, source_type, target_external_id, target_type, labels)"
    " VALUES ('x', 'a', 'asset', 'b', 'asset', '{l}')",
    "INSERT INTO data_sets (external_id) VALUES ('x')",
    """INSERT INTO raw_rows (db_name, table_name, key, columns) VALUES ('d', 't', 'x', '{"a": 1}')""",
]


@pytest.mark.parametrize("table", NOTHING)
def test_no_value_of_an_empty_list(session, cdf, table):
    for statement in SETUP:
        session.execute(statement)
    for column in NOTHING[table]:
        where = f"{column} = ANY ('{{}}')"
        assert session.execute(f"SELECT count(*) FROM {table} WHERE {where}").fetchone() == (0,), column
        assert session.execute(f"DELETE FROM {table} WHERE {where}").rowcount == 0 if table != "data_sets" else True
    assert session.execute(f"SELECT count(*) FROM {table}").fetchone()[0] >= 1


@pytest.mark.parametrize(
    ("table", "column"),
    [
        ("assets", "labels"),
        ("files", "labels"),
        ("relationships", "labels"),
        ("events", "asset_ids"),
        ("events", "asset_external_ids"),
        ("files", "asset_ids"),
        ("files", "asset_external_ids"),
    ],
)
def test_lists_compared_with_an_empty_one(session, cdf, table, column):
    for statement in SETUP:
        session.execute(statement)
    count = lambda operator: session.execute(f"SELECT count(*) FROM {table} WHERE {column} {operator} '{{}}'").fetchone()[0]
    assert (count("@>"), count("&&"), count("=")) == (1, 0, 0)
