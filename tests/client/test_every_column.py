"""UPDATE of every column of every table: CDF has afterwards what the statement reports as changed."""

from __future__ import annotations

import pytest
from support import dump, refused
from test_views import create_view

DUMPS = {
    "data_sets": "datasets",
    "raw_rows": "raw",
    "string_datapoints": "datapoints",
    "extraction_pipelines": "extpipes",
    "extraction_pipeline_runs": "extpipes/runs",
}

SETUP = """
INSERT INTO data_sets (external_id, name) VALUES ('d1', 'D'), ('d2', 'D');
INSERT INTO labels (external_id, name) VALUES ('l1', 'L'), ('l2', 'L');
INSERT INTO assets (external_id, name) VALUES ('root', 'R');
INSERT INTO assets (external_id, name, parent_external_id, description, metadata, source, data_set_external_id, labels)
  VALUES ('x', 'X', 'root', 'old', '{"k": "v"}', 'old', 'd1', '{l1}'), ('y', 'Y', 'root', NULL, NULL, NULL, NULL, NULL);
INSERT INTO events (external_id, start_time, end_time, type, subtype, description, metadata, asset_external_ids, source, data_set_external_id)
  VALUES ('x', '2024-01-01Z', '2024-01-02Z', 'old', 'old', 'old', '{"k": "v"}', '{x}', 'old', 'd1');
INSERT INTO timeseries (external_id, name, is_step, unit, unit_external_id, description, metadata, asset_external_id, data_set_external_id)
  VALUES ('x', 'X', false, 'old', 'old', 'old', '{"k": "v"}', 'x', 'd1'), ('y', 'Y', false, NULL, NULL, NULL, NULL, NULL, NULL);
INSERT INTO timeseries (external_id, is_string) VALUES ('sx', true), ('sy', true);
INSERT INTO datapoints (external_id, timestamp, value) VALUES ('x', '2024-01-01Z', 1);
INSERT INTO string_datapoints (external_id, timestamp, value) VALUES ('sx', '2024-01-01Z', 'old');
INSERT INTO raw_rows (db_name, table_name, key, columns) VALUES ('db', 't', 'x', '{"old": 1}');
INSERT INTO sequences (external_id, name, description, asset_external_id, metadata, columns, data_set_external_id)
  VALUES ('x', 'X', 'old', 'x', '{"k": "v"}', '[{"externalId": "a"}]', 'd1'),
         ('y', 'Y', NULL, NULL, NULL, '[{"externalId": "a"}]', NULL);
INSERT INTO sequence_rows (external_id, row_number, columns) VALUES ('x', 0, '{"a": 1}');
INSERT INTO relationships (external_id, source_external_id, source_type, target_external_id, target_type, start_time, end_time, confidence, labels, data_set_external_id)
  VALUES ('x', 'a', 'asset', 'b', 'asset', '2024-01-01Z', '2024-01-02Z', 0.5, '{l1}', 'd1');
INSERT INTO files (external_id, name, directory, source, mime_type, metadata, asset_external_ids, labels, source_created_time, source_modified_time, data_set_external_id)
  VALUES ('x', 'X', '/old', 'old', 'text/plain', '{"k": "v"}', '{x}', '{l1}', '2024-01-01Z', '2024-01-01Z', 'd1');
INSERT INTO extraction_pipelines (external_id, name, description, data_set_external_id, schedule, metadata, source, documentation, raw_tables, contacts, notification_config, created_by)
  VALUES ('x', 'X', 'old', 'd1', 'On trigger', '{"k": "v"}', 'old', 'old', '[{"dbName": "d", "tableName": "t"}]', '[{"name": "old"}]', '{"allowedNotSeenRangeInMinutes": 5}', 'old');
INSERT INTO extraction_pipeline_runs (external_id, status) VALUES ('x', 'seen');
"""


def of(table: str) -> str:
    """The id of the other item of a table."""
    other = {"data_sets": "d2"}.get(table, "y")
    return f"(SELECT id FROM {table} WHERE external_id = '{other}')"


TEXT = "'new'"
TIME = "'2024-01-01 12:00Z'"
PAIRS = """'{"other": "w"}'"""
READ_ONLY = dict.fromkeys(("created_time", "last_updated_time"), ("now()", "22023"))
DATA_SET = {"data_set_id": of("data_sets"), "data_set_external_id": "'d2'"}
ITEM = {"id": ("5", "22023"), "external_id": TEXT, "name": TEXT, "description": TEXT, "metadata": PAIRS} | READ_ONLY
LABEL = {"labels": "'{l2}'"}
ASSET = {"asset_id": of("assets"), "asset_external_id": "'y'"}
ASSETS = {"asset_ids": f"ARRAY[{of('assets')}]", "asset_external_ids": "'{y}'"}
POINT = {
    "timestamp": TIME,
    "status_code": "1073741824",
    "status_symbol": "'Uncertain'",
    ("instance_space", "instance_external_id"): ("'sp', 'instance'", None),
}

# What each column is set to; with a SQLSTATE, why it cannot be. Columns that go together are a tuple.
CASES = {
    "assets": ITEM
    | DATA_SET
    | LABEL
    | {
        "parent_id": of("assets"),
        "parent_external_id": "'y'",
        "source": TEXT,
        "geo_location": """'{"type": "Feature", "geometry": {"type": "Point", "coordinates": [1, 2]}, "properties": {}}'""",
        "root_id": ("5", "22023"),
    },
    "events": {name: value for name, value in ITEM.items() if name != "name"}
    | DATA_SET
    | ASSETS
    | {"start_time": TIME, "end_time": TIME, "type": TEXT, "subtype": TEXT, "source": TEXT},
    "timeseries": ITEM
    | DATA_SET
    | ASSET
    | {
        "is_string": ("true", "22023"),
        "is_step": "true",
        "unit": TEXT,
        "unit_external_id": TEXT,
        "security_categories": "'{7}'",
    },
    "datapoints": POINT | {"id": of("timeseries"), "external_id": "'y'", "value": "2"},
    "string_datapoints": POINT
    | {"id": of("timeseries").replace("'y'", "'sy'"), "external_id": "'sy'", "value": TEXT},
    "raw_rows": {
        "db_name": TEXT,
        "table_name": TEXT,
        "key": TEXT,
        "columns": """'{"new": 2}'""",
        "last_updated_time": ("now()", "22023"),
    },
    "sequences": ITEM | DATA_SET | ASSET | {"columns": """'[{"externalId": "new"}]'"""},
    "sequence_rows": {
        "id": of("sequences"),
        "external_id": "'y'",
        "row_number": "7",
        "columns": """'{"a": 2}'""",
    },
    "relationships": {name: value for name, value in ITEM.items() if name not in ("id", "name", "description", "metadata")}
    | DATA_SET
    | LABEL
    | {
        "external_id": ("'new'", "0A000"),
        "source_external_id": TEXT,
        "source_type": "'event'",
        "target_external_id": TEXT,
        "target_type": "'event'",
        "start_time": TIME,
        "end_time": TIME,
        "confidence": "0.75",
    },
    "labels": dict.fromkeys(
        ("external_id", "name", "description", "data_set_id", "data_set_external_id", "created_time"), (TEXT, "0A000")
    )
    | {"data_set_id": ("5", "0A000"), "created_time": ("now()", "0A000")},
    "files": {name: value for name, value in ITEM.items() if name != "description"}
    | DATA_SET
    | ASSETS
    | LABEL
    | {
        "name": (TEXT, "22023"),
        "directory": "'/new'",
        "source": TEXT,
        "mime_type": TEXT,
        "source_created_time": TIME,
        "source_modified_time": TIME,
        "uploaded": ("true", "22023"),
    },
    "data_sets": ITEM | {"write_protected": "true"},
    "extraction_pipelines": ITEM
    | DATA_SET
    | dict.fromkeys(("last_success", "last_failure", "last_seen"), ("now()", "22023"))
    | {
        "schedule": "'Continuous'",
        "source": TEXT,
        "documentation": TEXT,
        "raw_tables": """'[{"dbName": "d", "tableName": "new"}]'""",
        "contacts": """'[{"name": "new"}]'""",
        "notification_config": """'{"allowedNotSeenRangeInMinutes": 10}'""",
        "created_by": (TEXT, "22023"),
        "last_message": (TEXT, "22023"),
    },
    "extraction_pipeline_runs": {
        "id": ("5", "0A000"),
        "external_id": (TEXT, "0A000"),
        "status": ("'success'", "0A000"),
        "message": (TEXT, "0A000"),
        "created_time": (TIME, "0A000"),
    },
}

KEYS = {
    "datapoints": "external_id = 'x'",
    "string_datapoints": "external_id = 'sx'",
    "raw_rows": "key = 'x'",
    "labels": "external_id = 'l1'",
    "data_sets": "external_id = 'd1'",
}


def state(cdf, resource: str) -> list[dict]:
    without = ("lastUpdatedTime",)
    items = dump(cdf, resource)
    return [{name: value for name, value in item.items() if name not in without} for item in items]


def test_no_column_is_left_out(session):
    """A column that is new in a table needs a case here."""
    rows = session.execute(
        "SELECT ftrelid::regclass::text, attname FROM pg_foreign_table JOIN pg_attribute ON attrelid = ftrelid"
        " WHERE attnum > 0 AND ftrelid IN (SELECT oid FROM pg_class WHERE relnamespace = current_schema()::regnamespace)"
    ).fetchall()
    tables: dict[str, set[str]] = {}
    for table, column in rows:
        tables.setdefault(table, set()).add(column)
    for table, columns in tables.items():
        cases = {column for key in CASES[table] for column in ((key,) if isinstance(key, str) else key)}
        assert cases == columns, table


@pytest.mark.parametrize(
    ("table", "column"), [(table, column) for table, cases in CASES.items() for column in cases]
)
def test_what_an_update_reports_cdf_has(session, cdf, api, table, column):
    cdf.admin_post(
        "timeseries_instances",
        {"items": [{"space": "sp", "externalId": "instance", "isString": table == "string_datapoints"}]},
    )
    for statement in SETUP.strip().split(";\n"):
        session.execute(statement)
    case = CASES[table][column]
    value, sqlstate = case if isinstance(case, tuple) else (case, None)
    resource = DUMPS.get(table, table)
    where = KEYS.get(table, "external_id = 'x'")
    if isinstance(column, tuple):
        assignment = f"({', '.join(column)}) = ROW({value})"
    else:
        assignment = f'"{column}" = {value}'
    before = state(cdf, resource)
    statement = f"UPDATE {table} SET {assignment} WHERE {where}"
    if sqlstate:
        with refused(sqlstate):
            session.execute(statement)
        assert state(cdf, resource) == before
        return
    assert session.execute(statement).rowcount == 1
    assert state(cdf, resource) != before
    assert len(state(cdf, resource)) == len(before)
    assert session.execute(f"SELECT count(*) FROM {table} WHERE {matches(column, value)}").fetchone() == (1,)


def matches(column, value: str) -> str:
    """The condition that a column has a value, as it reads."""
    if isinstance(column, tuple):
        return f"({', '.join(column)}) = ({value})"
    if column == "columns" and value.startswith("'["):
        return "(columns -> 0 ->> 'externalId') = 'new' AND jsonb_array_length(columns) = 1"
    return f'"{column}" = {value}'


VIEW = {
    "name": ("text", "'new'"),
    "tags": (["text"], "'{new}'"),
    "flag": ("boolean", "true"),
    "count": ("int32", "7"),
    "total": ("int64", "7"),
    "level": ("float32", "0.5"),
    "pressure": ("float64", "0.5"),
    "seen": ("timestamp", "'2024-01-01 12:00Z'"),
    "built": ("date", "'2024-01-01'"),
    "info": ("json", """'{"a": 1}'"""),
    "parent": ("direct", """'{"space": "sp", "externalId": "y"}'"""),
}


@pytest.mark.parametrize("edges", [False, True], ids=["nodes", "edges"])
def test_what_an_update_of_a_view_reports_cdf_has(session, cdf, api, scratch, edges):
    create_view(api, "Thing", {name: kind for name, (kind, _) in VIEW.items()}, used_for="edge" if edges else "node")
    create_view(api, "Node", {"name": "text"})
    nodes = scratch.table("nodes", "external_id text, name text", "view", space="sp", external_id="Node", version="v1")
    session.execute(f"INSERT INTO {nodes} VALUES ('x', 'X'), ('y', 'Y')")
    ends = "type_space text, type_external_id text"
    if edges:
        ends += ", start_node_space text, start_node_external_id text, end_node_space text, end_node_external_id text"
    definition = f"""space text, external_id text, {ends}, name text, tags text[], flag boolean, count int, total bigint,
        level real, pressure float8, seen timestamptz, built date, info jsonb, parent jsonb, version bigint,
        created_time timestamptz, last_updated_time timestamptz"""
    table = scratch.table("thing", definition, "view", space="sp", external_id="Thing", version="v1")
    given = "space, external_id, type_space, type_external_id, name"
    values = "'sp', 't', 'sp', 'x', 'old'"
    if edges:
        given += ", start_node_space, start_node_external_id, end_node_space, end_node_external_id"
        values += ", 'sp', 'x', 'sp', 'x'"
    session.execute(f"INSERT INTO {table} ({given}) VALUES ({values})")
    pairs = ["type"] + (["start_node", "end_node"] if edges else [])
    changes = {name: value for name, (_, value) in VIEW.items()} | {f"{end}_external_id": "'y'" for end in pairs}
    for column, value in changes.items():
        before = dump(cdf, "instances", external_id="t")
        assert session.execute(f"UPDATE {table} SET {column} = {value} WHERE external_id = 't'").rowcount == 1
        assert dump(cdf, "instances", external_id="t") != before, column
        assert session.execute(f"SELECT count(*) FROM {table} WHERE {column} = {value}").fetchone() == (1,), column
    before = dump(cdf, "instances", external_id="t")
    for column, value, sqlstate in [
        ("external_id", "'new'", "0A000"),
        ("space", "'new'", "0A000"),
        ("version", "7", "22023"),
        ("created_time", "now()", "22023"),
        ("last_updated_time", "now()", "22023"),
    ]:
        with refused(sqlstate):
            session.execute(f"UPDATE {table} SET {column} = {value} WHERE external_id = 't'")
    assert dump(cdf, "instances", external_id="t") == before
