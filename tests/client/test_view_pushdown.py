"""Conditions on data-model views: what is sent to CDF, and that it selects the same rows as PostgreSQL's own check."""

from __future__ import annotations

import pytest
from support import paths, requests
from test_pushdown import differences, many, times
from test_views import PUMP, TYPES, create_view

EDGE_PARTS = "type_space, type_external_id, start_node_space, start_node_external_id, end_node_space, end_node_external_id"


@pytest.fixture
def filled(session, cdf, api, scratch):
    """Nodes and edges that differ in everything that conditions ask about, and an empty request log."""
    create_view(api, "Pump", TYPES | {"ref": "timeseries"})
    create_view(api, "Flow", {"rate": "float64", "kind": "text"}, used_for="edge")
    api.post("/models/spaces", {"space": "other"})
    parts = PUMP.replace("parent jsonb", "parent_space text, parent_external_id text") + ", type_space text, type_external_id text, ref text"
    scratch.table("pump", parts, "view", space="sp", external_id="Pump", version="v1")
    flow = f"space text, external_id text, {EDGE_PARTS.replace(',', ' text,')} text, rate float8, kind text"
    scratch.table("flow", flow, "view", space="sp", external_id="Flow", version="v1")
    with session.transaction():
        session.execute(
            "INSERT INTO scratch.pump (space, external_id, name, tags, flag, count, total, level, pressure, samples, seen, built, info,"
            " parent_space, parent_external_id, type_space, type_external_id, ref) VALUES"
            " ('sp', 'p1', 'A', '{a,b}', true, 1, 9007199254740993, 0.1, 0.1, '{1.5,-2}', '2024-01-01Z', '2024-01-01', '{}', 'sp', 'p2', 'sp', 't', 't1'),"
            " ('sp', 'p_2', 'a', '{c}', false, -2147483648, -9223372036854775808, -3e38, -1e308, '{0}', '2024-01-01 00:00:00.001Z', '2024-01-02', '[{}]', 'other', 'p2', 'sp', 'u', 'T1'),"
            " ('other', 'p1', '', '{A}', NULL, 0, 0, 0, 0, '{0}', '1970-01-01Z', '1969-12-31', 'null', 'sp', 'P2', 'other', 't', NULL),"
            " ('other', 'é''\"\\', 'it''s \"é\" \\ 50%_', '{\"it''s \\\"é\\\" \\\\\",b}', true, 2147483647, 9223372036854775807, 3e38, 5e-324, NULL,"
            "  '1900-06-01Z', '9999-12-31', NULL, NULL, NULL, NULL, NULL, ''),"
            " ('sp', 'nulls', NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, '1', NULL, NULL, NULL, NULL, NULL),"
            " ('sp', 'p3', 'it', '{b}', false, 7, 7, 16777217, 0.30000000000000004, '{0.30000000000000004}', '9999-12-31 23:59:59.999Z', '0001-01-01', '{}', 'sp', 'p2', NULL, NULL, NULL)"
        )
        session.execute("INSERT INTO scratch.pump (space, external_id, name) VALUES ('sp', 'e1', 'E'), ('sp', 'e2', 'E')")
        session.execute(
            f"INSERT INTO scratch.flow (space, external_id, {EDGE_PARTS}, rate, kind) VALUES"
            " ('sp', 'f1', 'sp', 'flows', 'sp', 'e1', 'sp', 'e2', 1.5, 'x'), ('sp', 'f2', 'sp', 'flows', 'sp', 'e2', 'sp', 'e1', NULL, 'X'),"
            " ('other', 'f1', 'other', 'flows', 'sp', 'e1', 'sp', 'e1', -1, '')"
        )
    cdf.admin_delete("requests")
    return session


NUMBERS = ["=", "<", "<=", ">", ">="]
KEYS = [
    "space = 'sp'", "space = 'SP'", "space = ''", "space IN ('sp', 'other', 'no such', NULL)", "external_id = 'p1'", "external_id = 'P1'",
    "external_id IN ('p1', '', 'p3', NULL)", "external_id = ''", "external_id = repeat('x', 300)", f"external_id = ANY ({many('{p1,p3,f1}', 2500)})",
    "space = 'sp' AND external_id = 'p1'", "space IN ('sp', 'other') AND external_id IN ('p1', 'p3')", "external_id = 'é''\"\\'", "external_id = ANY ('{}')",
    "external_id LIKE 'p%'", "external_id LIKE 'p\\_%'", "space <> 'sp'", f"space = ANY ({many('{sp}', 20)})", "external_id IS NULL",
]
CONDITIONS = {
    "scratch.pump": KEYS + times("seen") + [
        "name = 'A'", "name = 'a'", "name = ''", "name IN ('A', '', NULL)", "name = ANY ('{}')", f"name = ANY ({many('{A,a}', 900)})", f"name = ANY ({many('{A,a}', 1500)})",
        "name IS NULL", "name IS NOT NULL", "name = NULL", "name <> 'A'", "name = 'it''s \"é\" \\ 50%_'", "name = repeat('x', 200000)", "name > 'A'",
        "name LIKE 'it%'", "name LIKE 'it''s \"é\" \\\\ 50\\%\\_'", "name LIKE '%t'", "name LIKE '_'", "name LIKE ''", "name LIKE '%'", "name ^@ 'it''s \"é\" \\'",
        "starts_with(name, 'IT')", "name ^@ ''", "name NOT LIKE 'it%'", "name ILIKE 'IT%'", "name LIKE NULL", "name COLLATE \"C\" = 'A'", "lower(name) = 'a'",
        "name LIKE 'it%' AND name LIKE 'it''s%'", "name = 'A' AND name = 'a'", "name = 'A' OR flag",
        "tags @> '{a}'", "tags @> '{a,b}'", "tags @> '{A}'", "tags @> '{}'", "tags @> '{NULL}'", "tags @> '{b,NULL}'", "tags && '{a,A}'", "tags && '{}'",
        "tags && '{nobody,NULL}'", "'b' = ANY (tags)", "'B' = ANY (tags)", "tags IS NULL", "tags IS NOT NULL", "tags = '{}'", "tags = '{a,b}'", "tags <@ '{a,b}'",
        "'it''s \"é\" \\' = ANY (tags)", f"tags && ({many('{b}', 1500)})", f"tags @> ({many('{b}', 1500)})", "NULL = ANY (tags)", "'b' = ALL (tags)",
        "flag", "NOT flag", "flag IS TRUE", "flag IS NOT TRUE", "flag IS FALSE", "flag IS NULL", "flag = true", "flag = (SELECT false)", "flag <> true", "flag IS UNKNOWN",
        *(f"count {operator} {value}" for operator in NUMBERS for value in (0, 1, -2147483648, 2147483647, "2147483648::bigint", "-2147483649::bigint", "7::int2")),
        "count IN (0, 1, NULL)", "count = ANY ('{}')", "count IN (1, 4294967297)", "count = ANY (ARRAY(SELECT generate_series(1, 2000)))", "count IS NULL", "count <> 1",
        "count BETWEEN 0 AND 1", "count > 0 AND count > 1 AND count < 100", "count > 5 AND count < 5", "5 > count", "count = 1.0", "abs(count / 2) = 3",
        *(f"total {operator} {value}" for operator in NUMBERS for value in (0, 9007199254740992, 9007199254740993, 9223372036854775807, "(-9223372036854775808)", "7::int")),
        "total IN (9007199254740993, 7)", "total IS NULL", "total = ANY (ARRAY[7, NULL]::int[])",
        *(f"level {operator} {value}" for operator in NUMBERS for value in ("0.1", "0.1::real", "0", "16777216::real", "16777217::float8", "3e38", "'NaN'", "'Infinity'", "'-Infinity'")),
        "level IN (0.1, 0)", "level IN (0.1::real)", "level IS NULL", "level BETWEEN 0.1::real AND 0.1::real",
        *(f"pressure {operator} {value}" for operator in NUMBERS for value in ("0.1", "0", "0.3", "0.30000000000000004", "5e-324", "'-1e308'", "'NaN'", "'Infinity'", "'-0'", "0.1::real", "1")),
        "pressure IN (0.1, 0, 'NaN')", "pressure IN (0.1, 0, NULL)", "pressure IS NOT NULL", "pressure > 0 AND pressure < 1", "pressure = 0::numeric",
        "samples @> '{1.5}'", "samples && '{0,1.5}'", "0.30000000000000004 = ANY (samples)", "-2 = ANY (samples)", "samples && '{NaN}'", "samples @> '{}'", "samples IS NULL",
        *(f"seen {operator} '{edge}'" for operator in NUMBERS for edge in ("1900-06-01Z", "9999-12-31 23:59:59.999Z", "9999-12-31 23:59:59.9995Z", "12000-01-01Z", "0044-01-01 BC", "1969-12-31 23:59:59.9999Z")),
        "seen IN ('2024-01-01Z', '1970-01-01Z')",
        *(f"built {operator} {value}" for operator in NUMBERS for value in ("'2024-01-01'", "'1969-12-31'", "'9999-12-31'", "'10000-01-01'", "'0001-01-01'", "'0001-12-31 BC'", "'infinity'", "'-infinity'", "timestamp '2024-01-01 12:00'", "timestamptz '2024-01-01 12:00Z'")),
        "built IS NULL", "built IN ('2024-01-01', '1969-12-31')", "built BETWEEN '2024-01-01' AND '2024-01-02'", "built = (SELECT date '2024-01-01')",
        "info IS NULL", "info IS NOT NULL", "info @> '{}'", "info = '{}'", "others IS NULL", "moments IS NOT NULL",
        "parent_space = 'sp' AND parent_external_id = 'p2'", "parent_space = 'sp'", "parent_external_id = 'p2'", "parent_space = 'sp' AND parent_external_id IN ('p2', 'P2', NULL)",
        "parent_space IN ('sp', 'other') AND parent_external_id = 'p2'", "parent_space = 'no such' AND parent_external_id = 'p2'", "parent_space = 'sp' AND parent_external_id = ''",
        "parent_space IS NULL", "parent_external_id IS NOT NULL", "parent_space = 'sp' AND parent_external_id IS NULL", "parent_space IN ('sp', 'no such') AND parent_external_id = 'P2'",
        f"parent_space = 'sp' AND parent_external_id = ANY ({many('{p2}', 150)})", "parent_external_id LIKE 'p%'",
        "type_space = 'sp' AND type_external_id = 't'", "type_space = 'sp' AND type_external_id IN ('t', 'u')", "type_external_id = 't'", "type_space IS NULL", "type_external_id IS NOT NULL",
        "type_space IN ('sp', 'other') AND type_external_id = 't' AND name = 'A'", "ref = 't1'", "ref = ''", "ref IN ('t1', 'T1')", "ref IS NULL", "ref LIKE 't%'",
        "version = 1", "created_time > '2020-01-01Z'", "last_updated_time IS NULL", "flag AND count > 0 AND name = 'A' AND 'a' = ANY (tags)", "space = 'sp' AND flag",
        "external_id = 'p1' AND flag", "space = 'sp' AND external_id IN ('p1', 'p3') AND NOT flag",
    ],
    "scratch.flow": KEYS + [
        "type_space = 'sp' AND type_external_id = 'flows'", "start_node_space = 'sp' AND start_node_external_id = 'e1'", "start_node_external_id = 'e1'",
        "start_node_space = 'sp' AND start_node_external_id IN ('e1', 'e2') AND end_node_space = 'sp' AND end_node_external_id = 'e1'",
        "end_node_space IN ('sp', 'other') AND end_node_external_id = 'E1'", "start_node_space IS NULL", "end_node_space IS NOT NULL",
        "start_node_external_id = end_node_external_id", "rate > 1", "rate IS NULL", "rate = -1", "kind = 'x'", "kind = ''", "kind LIKE 'x%'",
        "kind = 'x' AND start_node_space = 'sp' AND start_node_external_id = 'e1'", "start_node_space = 'sp' AND end_node_external_id = 'e1'",
    ],
}


@pytest.mark.parametrize("table", CONDITIONS)
@pytest.mark.parametrize("zone", ["UTC", "Asia/Kolkata"])
def test_views_give_the_same_rows_either_way(filled, table, zone):
    filled.execute(f"SET TimeZone = '{zone}'")
    assert differences(filled, table, "space || ' ' || external_id", CONDITIONS[table]) == []


@pytest.mark.parametrize("table", CONDITIONS)
def test_views_in_a_transaction_give_the_same_rows_either_way(filled, table):
    with filled.transaction(force_rollback=True):
        if table == "scratch.pump":
            filled.execute("UPDATE scratch.pump SET name = CASE name WHEN 'A' THEN NULL ELSE 'A' END, count = 7 - count / 2, flag = NOT flag, tags = '{z}' WHERE external_id IN ('p1', 'p_2')")
            filled.execute("UPDATE scratch.pump SET name = 'it', count = 1, flag = true, level = 0.1, pressure = 0.1, tags = '{a}', seen = '2024-01-01Z', built = '2024-01-01', parent_space = 'sp', parent_external_id = 'p2' WHERE external_id = 'nulls'")
            filled.execute("DELETE FROM scratch.pump WHERE external_id = 'p3'")
            filled.execute("INSERT INTO scratch.pump (space, external_id, name, tags, count, type_space, type_external_id) VALUES ('other', 'new', 'A', '{a,b}', 0, 'sp', 't')")
        else:
            filled.execute("UPDATE scratch.flow SET rate = 2, kind = 'x', end_node_external_id = 'e1' WHERE external_id = 'f1'")
            filled.execute("DELETE FROM scratch.flow WHERE external_id = 'f2'")
            filled.execute(f"INSERT INTO scratch.flow (space, external_id, {EDGE_PARTS}, kind) VALUES ('sp', 'f3', 'sp', 'flows', 'sp', 'e2', 'sp', 'e1', 'x')")
        assert differences(filled, table, "space || ' ' || external_id", CONDITIONS[table]) == []


def test_own_changes_and_conditions(filled, cdf):
    query = "SELECT space, external_id FROM scratch.pump WHERE name = 'A' AND count < 100 ORDER BY 1, 2"
    with filled.transaction(force_rollback=True):
        filled.execute("UPDATE scratch.pump SET name = 'B' WHERE space = 'sp' AND external_id = 'p1'")
        assert filled.execute(query).fetchall() == []
        filled.execute("UPDATE scratch.pump SET name = 'A' WHERE space = 'sp' AND external_id = 'p_2'")
        filled.execute("INSERT INTO scratch.pump (space, external_id, name, count) VALUES ('sp', 'new', 'A', 5)")
        assert filled.execute(query).fetchall() == [("sp", "new"), ("sp", "p_2")]
        assert filled.execute("DELETE FROM scratch.pump WHERE name = 'A'").rowcount == 2
        assert filled.execute(query).fetchall() == []
    assert filled.execute(query).fetchall() == [("sp", "p1")]


def property_of(name: str) -> list[str]:
    return ["sp", "Pump/v1", name]


@pytest.mark.parametrize(
    ("condition", "parts"),
    [
        ("name = 'A'", [{"equals": {"property": property_of("name"), "value": "A"}}]),
        ("name IN ('A', 'a')", [{"in": {"property": property_of("name"), "values": ["A", "a"]}}]),
        ("name LIKE 'it%' AND name ^@ 'x'", [{"prefix": {"property": property_of("name"), "value": "it"}}, {"prefix": {"property": property_of("name"), "value": "x"}}]),
        ("name IS NULL", [{"not": {"exists": {"property": property_of("name")}}}]),
        ("name IS NOT NULL", [{"exists": {"property": property_of("name")}}]),
        ("tags @> '{a,b}'", [{"containsAll": {"property": property_of("tags"), "values": ["a", "b"]}}]),
        ("tags && '{a,b}'", [{"containsAny": {"property": property_of("tags"), "values": ["a", "b"]}}]),
        ("'a' = ANY (tags)", [{"containsAll": {"property": property_of("tags"), "values": ["a"]}}]),
        ("NOT flag", [{"equals": {"property": property_of("flag"), "value": False}}]),
        ("count >= 1 AND count < 5", [{"range": {"property": property_of("count"), "gte": 1, "lt": 5}}]),
        ("total = 9007199254740993", [{"equals": {"property": property_of("total"), "value": 9007199254740993}}]),
        ("pressure > 0.1", [{"range": {"property": property_of("pressure"), "gt": 0.1}}]),
        ("pressure IN (0.1, 2)", [{"in": {"property": property_of("pressure"), "values": [0.1, 2.0]}}]),
        ("seen < '2024-01-01 00:00:00.0005Z'", [{"range": {"property": property_of("seen"), "lte": "2024-01-01T00:00:00.000+00:00"}}]),
        ("built > '2024-02-28'", [{"range": {"property": property_of("built"), "gte": "2024-02-29"}}]),
        ("parent_space = 'sp' AND parent_external_id = 'p2'", [{"equals": {"property": property_of("parent"), "value": {"space": "sp", "externalId": "p2"}}}]),
        ("type_space = 'sp' AND type_external_id = 't'", [{"equals": {"property": ["node", "type"], "value": {"space": "sp", "externalId": "t"}}}]),
        ("space = 'sp' AND flag", [{"equals": {"property": property_of("flag"), "value": True}}, {"equals": {"property": ["node", "space"], "value": "sp"}}]),
        ("parent_space = 'sp'", []),
        ("info = '{}'", []),
        ("name > 'A'", []),
        ("ref = 'x'", []),
    ],
)
def test_what_goes_to_cdf_of_a_view(filled, cdf, condition, parts):
    filled.execute(f"SELECT 1 FROM scratch.pump WHERE {condition}").fetchall()
    [request] = requests(cdf, "/models/instances/list")
    has_data = {"hasData": [{"type": "view", "space": "sp", "externalId": "Pump", "version": "v1"}]}
    assert request["body"]["filter"] == ({"and": [has_data, *parts]} if parts else has_data)


def test_a_real_is_asked_for_with_its_neighbours(filled, cdf):
    assert filled.execute("SELECT external_id FROM scratch.pump WHERE level = 0.1::real").fetchall() == [("p1",)]
    [request] = requests(cdf, "/models/instances/list")
    bounds = request["body"]["filter"]["and"][1]["range"]
    assert bounds["gte"] < 0.1 < bounds["lte"] < 0.1000001


def test_edges_by_their_nodes(filled, cdf):
    query = "SELECT space, external_id FROM scratch.flow WHERE start_node_space = 'sp' AND start_node_external_id IN ('e1', 'none') ORDER BY 1"
    assert filled.execute(query).fetchall() == [("other", "f1"), ("sp", "f1")]
    [request] = requests(cdf, "/models/instances/list")
    values = [{"space": "sp", "externalId": "e1"}, {"space": "sp", "externalId": "none"}]
    assert request["body"]["filter"]["and"][1] == {"in": {"property": ["edge", "startNode"], "values": values}}


def test_many_keys_in_any_space(filled, cdf):
    rows = filled.execute(f"SELECT space, external_id FROM scratch.pump WHERE external_id = ANY ({many('{p1,p3}', 2500)}) ORDER BY 1, 2").fetchall()
    assert rows == [("other", "p1"), ("sp", "p1"), ("sp", "p3")]
    sizes = [len(request["body"]["filter"]["and"][1]["in"]["values"]) for request in requests(cdf, "/models/instances/list")]
    assert sizes == [1000, 1000, 502]


def plan_of(session, query: str) -> dict:
    (plan,) = session.execute(f"EXPLAIN (FORMAT json, COSTS off) {query}").fetchone()[0]
    return plan["Plan"]


def test_explain_names_conditions_on_properties(filled):
    plan = plan_of(filled, "SELECT 1 FROM scratch.pump WHERE flag AND count >= 1 AND name LIKE 'A%' AND parent_space = 'sp' AND info IS NULL")
    assert plan["CDF Requests"] == "POST /models/instances/list"
    assert sorted(plan["CDF Filter"].split(" AND ")) == ["(count >= 1)", "(flag = true)", "(name ~~ 'A%'::text)"]
    plan = plan_of(filled, "SELECT 1 FROM scratch.pump WHERE flag AND parent_space = 'sp' AND parent_external_id = 'a'")
    assert "parent_space = 'sp'" in plan["CDF Filter"] and "parent_external_id = 'a'" in plan["CDF Filter"]
    plan = plan_of(filled, "SELECT 1 FROM scratch.pump WHERE space = 'sp' AND external_id = 'p1' AND flag")
    assert plan["CDF Requests"] == "POST /models/instances/byids"
    assert plan["CDF Filter"] == "(space = 'sp'::text) AND (external_id = 'p1'::text)"


@pytest.mark.parametrize("columns", ["space text, external_id text, name text", "external_id text, name text"])
def test_joins_with_a_view_ask_by_key(filled, cdf, scratch, columns):
    scratch.table("joined", columns, "view", space="sp", external_id="Pump", version="v1")
    filled.execute("CREATE TEMP TABLE wanted (key text, space text)")
    filled.execute("INSERT INTO wanted VALUES ('p1', 'sp'), ('p3', 'sp'), ('nobody', 'sp')")
    filled.execute("ANALYZE wanted")
    fixed = "space" in columns.split(", ")[0]
    queries = ["SELECT p.name FROM wanted w JOIN scratch.joined p ON p.external_id = w.key"]
    if fixed:
        queries.append("SELECT p.name FROM wanted w JOIN scratch.joined p ON (p.space, p.external_id) = (w.space, w.key)")
    for query in queries:
        plan = plan_of(filled, query)
        assert plan["Custom Plan Provider"] == "CDF Key Join"
        [scan] = [child for child in plan["Plans"] if child["Node Type"] == "Foreign Scan"]
        assert "external_id = ANY (keys of the join)" in scan["CDF Filter"]
        by_key = not fixed or "space" in query
        assert scan["CDF Requests"] == f"POST /models/instances/{'byids' if by_key else 'list'}"
        cdf.admin_delete("requests")
        rows = sorted(filled.execute(query).fetchall())
        assert rows == ([("",), ("A",), ("it",)] if not by_key else [("A",), ("it",)])
        assert paths(cdf) == [scan["CDF Requests"].split()[1]]
