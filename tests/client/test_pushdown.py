"""Conditions that go to CDF leave the same rows as PostgreSQL's own check of them does."""

from __future__ import annotations

import pytest
from support import Api, api, paths, requests, scratch, session  # noqa: F401


@pytest.fixture
def filled(session, cdf):
    """Items that differ in everything that conditions ask about, and an empty request log."""
    with session.transaction():
        session.execute("INSERT INTO data_sets (external_id, name, write_protected, metadata) VALUES"
                        " ('d1', 'One', false, '{\"k\": \"v\"}'), ('d2', 'Two', true, NULL), ('ø', 'Three', false, NULL)")
        session.execute("INSERT INTO labels (external_id, name, data_set_external_id) VALUES"
                        " ('l1', 'A', 'd1'), ('l2', 'B', NULL), ('l3', 'A', 'd2')")
        session.execute(
            "INSERT INTO assets (external_id, name, parent_external_id, source, metadata, labels, data_set_external_id) VALUES"
            " ('root', 'Root', NULL, 'sap', '{\"k\": \"v\", \"n\": \"1\"}', '{l1}', 'd1'),"
            " ('rå%t', 'Root', NULL, '', '{}', '{l1,l2}', 'ø'),"
            " ('r_1', 'A', 'root', 'SAP', '{\"k\": \"\"}', '{l2,l3}', 'd2'),"
            " ('r21', 'B', 'root', NULL, '{\"k\": \"v\"}', NULL, NULL),"
            " ('R3', 'B', 'r21', 'sap', NULL, '{l1,l2,l3}', 'd1')"
        )
        session.execute("INSERT INTO assets (name, source) VALUES ('Nameless', 'sap')")
        session.execute(
            "INSERT INTO events (external_id, start_time, end_time, type, subtype, source, metadata, asset_external_ids,"
            " data_set_external_id) VALUES"
            " ('e1', '2024-01-01Z', '2024-01-02Z', 'stop', 'a', 'x', '{\"k\": \"v\"}', '{root}', 'd1'),"
            " ('e2', '2024-01-01 00:00:00.001Z', NULL, 'start', '', NULL, NULL, '{root,r21}', 'd2'),"
            " ('e_3', NULL, '1970-01-01Z', 'stop', NULL, 'x', '{\"k\": \"w\", \"é\": \"ß\"}', NULL, NULL),"
            " (NULL, '2030-06-01Z', '2031-01-01Z', NULL, 'a', '', '{}', '{R3}', 'd1')"
        )
        session.execute(
            "INSERT INTO timeseries (external_id, name, is_string, is_step, unit, unit_external_id, metadata,"
            " asset_external_id, data_set_external_id) VALUES"
            " ('t1', 'T', false, false, 'C', 'temperature:deg_c', '{\"k\": \"v\"}', 'root', 'd1'),"
            " ('t2', 'T', true, false, NULL, NULL, NULL, 'r21', 'd2'),"
            " ('t3', '', false, true, '', NULL, '{\"k\": \"\"}', NULL, NULL),"
            " ('u', NULL, true, true, 'bar', NULL, NULL, 'root', 'd1')"
        )
        session.execute(
            "INSERT INTO raw_rows (db_name, table_name, key, columns) VALUES"
            " ('d', 't', 'k1', '{\"a\": 1}'), ('d', 't', 'ø/2', '{}'), ('d', 't', 'k 3', NULL), ('d', 'u', 'k1', '{}')"
        )
    cdf.admin_delete("requests")
    return session


COMMON = [
    "external_id LIKE 'r%'", "external_id LIKE 'r\\_%'", "external_id LIKE '%1'", "external_id LIKE 'rå\\%t'",
    "external_id LIKE ''", "external_id LIKE NULL", "external_id ^@ 'r'", "starts_with(external_id, 'e')",
    "external_id LIKE 't_'", "external_id NOT LIKE 'r%'", "external_id IS NULL",
]
DATA_SET = [
    "data_set_external_id = 'd1'", "data_set_external_id IN ('d1', 'ø')", "data_set_external_id = 'nobody'",
    "data_set_external_id IN ('d1', 'nobody')", "data_set_external_id = ANY ('{}')", "data_set_external_id IS NULL",
    "data_set_id = (SELECT id FROM data_sets WHERE external_id = 'd2')", "data_set_id = -1", "data_set_id = 7::int2",
    "data_set_id = ANY (ARRAY(SELECT id FROM data_sets WHERE external_id LIKE 'd%'))", "data_set_id <> 5",
]
METADATA = [
    "metadata ->> 'k' = 'v'", "'v' = metadata ->> 'k'", "metadata ->> 'k' = ''", "metadata ->> 'none' = 'v'",
    "metadata @> '{\"k\": \"v\"}'", "metadata @> '{}'", "metadata @> '{\"k\": \"v\", \"n\": \"1\"}'",
    "metadata @> '{\"n\": 1}'", "metadata ->> 'é' = 'ß'", "metadata ->> 'k' <> 'v'", "metadata @> '[]'",
    "metadata ->> 'k' = NULL", "metadata ->> 'k' = 'v' AND metadata ->> 'n' = '1'",
]
TIMES = [
    "created_time > '2020-01-01Z'", "created_time < '2020-01-01Z'", "last_updated_time >= now() - interval '1 h'",
    "created_time = '2020-01-01Z'", "created_time > 'infinity'", "created_time < '-infinity'", "created_time >= date '2024-01-01'",
    "created_time < timestamp '2024-01-01'", "created_time BETWEEN '1900-01-01Z' AND '2200-01-01Z'", "created_time > date '5000000-01-01'",
]
CONDITIONS = {
    "assets": COMMON + DATA_SET + METADATA + TIMES + [
        "name = 'Root'", "name = ''", "name IN ('A', 'B', 'nobody', NULL)", "name = 'root'", "source = 'sap'", "source = ''",
        "source IS NULL", "source = repeat('x', 200)", "name = 'Root' AND source = 'sap'", "name = 'A' OR source = 'sap'",
        "name IN ('A', 'B') AND source IN ('sap', 'SAP')", "name = 'B' AND name = (SELECT 'B')",
        "parent_external_id = 'root'", "parent_external_id IN ('root', 'r21')", "parent_external_id = 'nobody'",
        "parent_external_id IN ('root', 'nobody')", "parent_external_id IS NULL", "parent_id IS NULL", "parent_id IS NOT NULL",
        "parent_id IS NULL AND parent_external_id IS NULL", "parent_id = (SELECT id FROM assets WHERE external_id = 'r21')",
        "labels @> '{l1}'", "labels @> '{l1,l2}'", "labels && '{l2,l3}'", "labels @> '{}'", "labels && '{}'",
        "labels @> '{nobody}'", "labels && '{nobody,l1}'", "'l2' = ANY (labels)", "labels <@ '{l1,l2}'", "labels @> '{l1,NULL}'",
        "labels = '{l1}'", "labels @> '{l1}' AND labels && '{l3}'", "'{l1}' <@ labels", "name COLLATE \"C\" = 'Root'",
    ],
    "events": COMMON + DATA_SET + METADATA + TIMES + [
        "type = 'stop'", "type IN ('stop', 'start')", "type IS NULL", "subtype = 'a'", "subtype = ''", "source = 'x'", "source = ''",
        "type = 'stop' AND subtype = 'a'", "end_time IS NULL", "end_time IS NOT NULL", "start_time IS NULL",
        "start_time = '2024-01-01Z'", "start_time > '2024-01-01Z'", "start_time >= '2024-01-01 00:00:00.0005Z'",
        "start_time < '2024-01-01 00:00:00.0005Z'", "start_time <= '2024-01-01Z'", "start_time < '2024-01-01 00:00:00.001Z'",
        "start_time = '2024-01-01 00:00:00.0005Z'", "end_time <= '1970-01-01Z'", "end_time < '1970-01-01Z'", "end_time > '1969-01-01Z'",
        "start_time >= date '2024-01-01' AND start_time < date '2024-01-02'", "start_time <= timestamp '2024-01-01'",
        "end_time IS NULL AND end_time > '2024-01-01Z'", "start_time = date '2024-01-01'", "timestamp '2024-01-01' < start_time",
        "asset_external_ids @> '{root}'", "asset_external_ids @> '{root,r21}'", "asset_external_ids && '{r21,R3}'",
        "asset_external_ids && '{nobody}'", "'root' = ANY (asset_external_ids)", "asset_external_ids IS NULL",
        "asset_ids @> ARRAY(SELECT id FROM assets WHERE external_id = 'root')",
        "asset_ids && ARRAY(SELECT id FROM assets)", "(SELECT id FROM assets WHERE external_id = 'r21') = ANY (asset_ids)",
        "asset_ids @> '{-1}'", "asset_ids @> '{}'", "asset_ids && '{}'", "5::int4 = ANY (asset_ids)",
    ],
    "timeseries": COMMON + DATA_SET + METADATA + TIMES + [
        "name = 'T'", "name = ''", "name IN ('T', '')", "is_string", "NOT is_string", "is_string = true", "is_string IS TRUE",
        "is_string IS NOT TRUE", "is_step IS FALSE", "is_string AND NOT is_step", "is_string = is_step", "is_step = (SELECT true)",
        "unit = 'C'", "unit IN ('C', 'bar')", "unit = ''", "unit_external_id = 'temperature:deg_c'",
        "asset_external_id = 'root'", "asset_external_id IN ('root', 'r21', 'nobody')", "asset_external_id IS NULL",
        "asset_id = (SELECT id FROM assets WHERE external_id = 'root')", "asset_id IS NULL", "asset_id > 5",
    ],
    "data_sets": COMMON + METADATA + TIMES + ["write_protected", "NOT write_protected", "name = 'One'"],
    "labels": COMMON + DATA_SET + TIMES[:2] + ["name = 'A'", "name IN ('A', 'B')", "name = ''"],
    "raw_rows": [
        "db_name = 'd'", "db_name = 'd' AND table_name = 't'", "key = 'k1'", "key IN ('k1', 'ø/2', 'nobody')", "key = ''",
        "db_name = 'd' AND table_name = 't' AND key IN ('k 3', 'k1', 'k1', '')", "key = ANY ('{}')",
        "key = ANY (ARRAY(SELECT 'k' || i FROM generate_series(1, 50) i))", "last_updated_time > '2020-01-01Z'",
        "last_updated_time < '2020-01-01Z'", "last_updated_time <= now() AND key = 'k1'", "last_updated_time = '2020-01-01Z'",
    ],
}
KEY = {"raw_rows": "table_name || ' ' || key", "labels": "external_id"}


@pytest.mark.parametrize("table", CONDITIONS)
@pytest.mark.parametrize("zone", ["UTC", "Asia/Kolkata"])
def test_the_same_rows_either_way(filled, table, zone):
    filled.execute(f"SET TimeZone = '{zone}'")
    key = KEY.get(table, "id::text")
    for condition in CONDITIONS[table]:
        pushed = filled.execute(f"SELECT {key} FROM {table} WHERE {condition} ORDER BY 1").fetchall()
        local = filled.execute(
            f"SELECT {key} FROM (SELECT * FROM {table} OFFSET 0) s WHERE {condition} ORDER BY 1"
        ).fetchall()
        assert pushed == local, condition
        limited = filled.execute(f"SELECT {key} FROM {table} WHERE {condition} LIMIT 2").fetchall()
        assert len(limited) == min(2, len(local)) and set(limited) <= set(local), condition


@pytest.mark.parametrize(
    ("table", "condition", "filters"),
    [
        ("assets", "name = 'Root' AND source = 'sap'", [{"name": "Root", "source": "sap"}]),
        ("assets", "name IN ('A', 'B')", [{"name": "A"}, {"name": "B"}]),
        ("assets", "external_id LIKE 'r\\_%'", [{"externalIdPrefix": "r_"}]),
        ("assets", "starts_with(external_id, 'ro')", [{"externalIdPrefix": "ro"}]),
        ("assets", "external_id ^@ 'ro'", [{"externalIdPrefix": "ro"}]),
        ("assets", "metadata ->> 'k' = 'v' AND metadata @> '{\"n\": \"1\"}'", [{"metadata": {"k": "v", "n": "1"}}]),
        ("assets", "labels @> '{l1,l2}'", [{"labels": {"containsAll": [{"externalId": "l1"}, {"externalId": "l2"}]}}]),
        ("assets", "labels && '{l1,l2}'", [{"labels": {"containsAny": [{"externalId": "l1"}, {"externalId": "l2"}]}}]),
        ("assets", "'l1' = ANY (labels)", [{"labels": {"containsAll": [{"externalId": "l1"}]}}]),
        ("assets", "parent_external_id IN ('root', 'r21')", [{"parentExternalIds": ["root", "r21"]}]),
        ("assets", "parent_id IN (5, 6)", [{"parentIds": [5, 6]}]),
        ("assets", "parent_id IS NULL AND parent_external_id IS NULL", [{"root": True}]),
        ("assets", "parent_id IS NOT NULL", [{"root": False}]),
        ("assets", "data_set_external_id IN ('d1', 'd2')", [{"dataSetIds": [{"externalId": "d1"}, {"externalId": "d2"}]}]),
        ("assets", "data_set_id = 5", [{"dataSetIds": [{"id": 5}]}]),
        ("events", "end_time IS NULL", [{"endTime": {"isNull": True}}]),
        ("events", "start_time > '1970-01-01 00:00:00.005Z' AND start_time < '1970-01-01 00:00:01Z'", [{"startTime": {"min": 6, "max": 999}}]),
        ("events", "created_time <= '1970-01-01 00:00:01Z'", [{"createdTime": {"max": 1000}}]),
        ("events", "last_updated_time >= date '1970-01-02'", [{"lastUpdatedTime": {"min": 86_400_000}}]),
        ("events", "asset_ids && '{5,6}'", [{"assetIds": [5, 6]}]),
        ("events", "asset_ids @> '{5,6}'", [{"assetIds": [5]}]),
        ("events", "5 = ANY (asset_ids)", [{"assetIds": [5]}]),
        ("events", "asset_external_ids && '{root,r21}'", [{"assetExternalIds": ["root", "r21"]}]),
        ("events", "type = 'stop' AND subtype = 'a'", [{"type": "stop", "subtype": "a"}]),
        ("timeseries", "is_string AND NOT is_step", [{"isString": True, "isStep": False}]),
        ("timeseries", "unit = 'C' AND unit_external_id = 'u'", [{"unit": "C", "unitExternalId": "u"}]),
        ("timeseries", "asset_id = 5", [{"assetIds": [5]}]),
        ("data_sets", "write_protected", [{"writeProtected": True}]),
        ("labels", "name = 'A'", [{"name": "A"}]),
    ],
)
def test_what_goes_to_cdf(filled, cdf, table, condition, filters):
    filled.execute(f"SELECT 1 FROM {table} WHERE {condition}").fetchall()
    path = "/datasets/list" if table == "data_sets" else f"/{table}/list"
    assert [request["body"].get("filter") for request in requests(cdf, path)] == filters


def test_raw_rows(filled, cdf):
    one_table = "SELECT * FROM raw_rows WHERE db_name = 'd' AND table_name = 't'"
    assert len(filled.execute(f"{one_table} AND key IN ('k1', 'k 3', 'nobody')").fetchall()) == 2
    assert sorted(path.rsplit("/", 1)[1] for path in paths(cdf)) == ["k%203", "k1", "nobody"]
    cdf.admin_delete("requests")
    filled.execute(f"{one_table} AND last_updated_time > '1970-01-01 00:00:00.005Z' AND last_updated_time <= '2000-01-01Z'").fetchall()
    (request,) = requests(cdf)
    assert "minLastUpdatedTime=5" in request["path"] and "maxLastUpdatedTime=946684800000" in request["path"]


def test_a_name_that_cdf_does_not_know_is_no_error(filled, cdf):
    fault = {"path": "/events/list", "mode": "status", "status": 400, "times": 1,
             "body": {"error": {"code": 400, "message": "Invalid dataSetIds: nobody"}}}
    cdf.admin_post("faults", fault)
    query = "SELECT external_id FROM events WHERE data_set_external_id = ANY (%s) ORDER BY 1"
    assert filled.execute(query, (["nobody"],)).fetchall() == []
    assert paths(cdf) == ["/events/list", "/datasets/byids"]
    cdf.admin_delete("faults")
    cdf.admin_post("faults", fault)
    assert filled.execute(query, (["d2", "nobody"],)).fetchall() == [("e2",)]


def test_joins_ask_by_key(filled, cdf):
    filled.execute("CREATE TEMP TABLE wanted (key text)")
    filled.execute("INSERT INTO wanted VALUES ('t1'), ('u'), ('nobody')")
    filled.execute("ANALYZE wanted")
    query = "SELECT t.external_id FROM wanted w JOIN timeseries t ON t.external_id = w.key ORDER BY 1"
    assert filled.execute(query).fetchall() == [("t1",), ("u",)]
    assert set(paths(cdf)) == {"/timeseries/byids"}
    cdf.admin_delete("requests")
    filled.execute("INSERT INTO wanted SELECT 'x' || i FROM generate_series(1, 5000) i")
    filled.execute("ANALYZE wanted")
    assert filled.execute(query).fetchall() == [("t1",), ("u",)]
    assert paths(cdf) == ["/timeseries/list"]


def test_explain(filled, cdf):
    def node(query, options=""):
        (plan,) = filled.execute(f"EXPLAIN (FORMAT json, COSTS off{options}) {query}").fetchone()[0]
        plan = plan["Plan"]
        return plan if "CDF Requests" in plan else plan["Plans"][0]

    query = "SELECT external_id FROM events WHERE metadata ->> 'k' = 'v' AND end_time IS NOT NULL AND description IS NULL"
    plan = node(query)
    assert plan["CDF Filter"] == "(end_time IS NOT NULL) AND ((metadata ->> 'k'::text) = 'v'::text)"
    assert "CDF Requests Made" not in plan and requests(cdf) == []
    plan = node(query, ", ANALYZE, TIMING off")
    assert (plan["CDF Requests Made"], plan["CDF Pages Received"], plan["CDF Rows Received"]) == (1, 1, 1)
    assert "CDF Limit" in node("SELECT 1 FROM events WHERE external_id LIKE 'e%' LIMIT 3")
    assert "CDF Limit" not in node("SELECT 1 FROM events WHERE external_id LIKE 'e_' LIMIT 3")
    assert node("SELECT 1 FROM assets WHERE name = 'A' AND external_id = 'a'")["CDF Filter"] == "(external_id = 'a'::text)"


def test_prepared_statements(filled):
    for at in range(8):
        unit = ["C", "bar", None][at % 3]
        rows = filled.execute("SELECT external_id FROM timeseries WHERE unit = %s", (unit,), prepare=True).fetchall()
        assert rows == {"C": [("t1",)], "bar": [("u",)], None: []}[unit]
