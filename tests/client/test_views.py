"""Data-model views: nodes and edges, what arrives of each type, and what comes back."""

from __future__ import annotations

import uuid
from datetime import date, datetime, timezone

import pytest
from psycopg.types.json import Jsonb
from support import dump, paths, refused, requests, stored

TYPES = {
    "name": "text",
    "tags": ["text"],
    "flag": "boolean",
    "count": "int32",
    "total": "int64",
    "level": "float32",
    "pressure": "float64",
    "samples": ["float64"],
    "seen": "timestamp",
    "moments": ["timestamp"],
    "built": "date",
    "info": "json",
    "parent": "direct",
    "others": ["direct"],
}

PUMP = """space text, external_id text, name text, tags text[], flag boolean, count int, total bigint, level real,
    pressure float8, samples float8[], seen timestamptz, moments timestamptz[], built date, info jsonb, parent jsonb,
    others jsonb[], created_time timestamptz, last_updated_time timestamptz, version bigint"""


def create_view(api, external_id: str, types: dict, used_for: str = "node", space: str = "sp", version: str = "v1"):
    api.post("/models/spaces", {"space": space})
    properties = {}
    for name, kind in types.items():
        nullable = not (isinstance(kind, str) and kind.endswith("!"))
        is_list = isinstance(kind, list)
        kind = kind[0] if is_list else kind if isinstance(kind, dict) else kind.rstrip("!")
        kind = kind if isinstance(kind, dict) else {"type": kind, "list": is_list}
        properties[f"{name}0" if name.endswith("_") else name] = {"type": kind, "nullable": nullable}
    api.post(
        "/models/containers",
        {"space": space, "externalId": external_id, "usedFor": used_for, "properties": properties},
    )
    container = {"type": "container", "space": space, "externalId": external_id}
    # A property of a view may end in _, one of a container may not.
    behind = lambda name: f"{name}0" if name.endswith("_") else name
    mapped = {name: {"container": container, "containerPropertyIdentifier": behind(name)} for name in types}
    view = {"space": space, "externalId": external_id, "version": version, "properties": mapped}
    api.post("/models/views", view)


@pytest.fixture
def pump(api, scratch, session) -> str:
    create_view(api, "Pump", TYPES)
    return scratch.table("pump", PUMP, "view", space="sp", external_id="Pump", version="v1")


def instance(cdf, external_id: str) -> dict:
    return stored(cdf, "instances", external_id)


def test_every_type_there_and_back(session, cdf, pump):
    seen = datetime(2024, 1, 31, 12, 0, 0, 123000, tzinfo=timezone.utc)
    parent = {"space": "sp", "externalId": "other"}
    values = {
        "name": 'quote " ü',
        "tags": ["a,b", 'c"d', "{}"],
        "flag": True,
        "count": 7,
        "total": 9007199254740993,
        "level": 0.5,
        "pressure": 0.1,
        "samples": [1.5, -2.0],
        "seen": seen,
        "moments": [seen],
        "built": date(2020, 2, 29),
        "info": {"a": [1, None, "x"]},
        "parent": parent,
        "others": [parent],
    }
    sent = values | {"info": Jsonb(values["info"]), "parent": Jsonb(parent), "others": [Jsonb(parent)]}
    names = ", ".join(values)
    marks = ", ".join(["%s"] * len(values))
    session.execute(f"INSERT INTO {pump} (space, external_id, {names}) VALUES ('sp', 'p1', {marks})", list(sent.values()))
    written = instance(cdf, "p1")["properties"]
    assert written["seen"] == "2024-01-31T12:00:00.123+00:00"
    assert written["built"] == "2020-02-29"
    assert written["total"] == 9007199254740993
    assert written["parent"] == parent
    row = session.execute(f"SELECT {names} FROM {pump} WHERE space = 'sp' AND external_id = 'p1'").fetchone()
    assert dict(zip(values, row)) == values
    [row] = session.execute(f"SELECT version, created_time IS NULL, external_id FROM {pump}").fetchall()
    assert row == (1, False, "p1")


def test_the_definition_is_asked_for_once(session, cdf, pump):
    for at in range(3):
        session.execute(f"INSERT INTO {pump} (space, external_id, name) VALUES ('sp', %s, 'x')", (f"p{at}",))
    assert paths(cdf) == ["/models/views/byids"] + ["/models/instances"] * 3
    [first, *_] = requests(cdf, "/models/instances")
    [item] = first["body"]["items"]
    assert item["sources"][0]["source"]["version"] == "v1"
    assert item["sources"][0]["properties"] == {"name": "x"}


def test_an_insert_is_an_upsert_and_the_last_write_wins_column_by_column(session, cdf, pump):
    with session.transaction():
        session.execute(f"INSERT INTO {pump} (space, external_id, name, count) VALUES ('sp', 'p', 'a', 1)")
        session.execute(f"INSERT INTO {pump} (space, external_id, count) VALUES ('sp', 'p', 2)")
    session.execute(f"INSERT INTO {pump} (space, external_id, flag) VALUES ('sp', 'p', true)")
    assert instance(cdf, "p")["properties"] == {"name": "a", "count": 2, "flag": True}


def test_many_rows_in_requests_of_a_thousand(session, cdf, pump):
    session.execute(f"INSERT INTO {pump} (space, external_id, count) SELECT 'sp', 'p' || n, n FROM generate_series(1, 2500) n")
    assert sorted(entry["items"] for entry in requests(cdf, "/models/instances")) == [500, 1000, 1000]
    assert session.execute(f"SELECT count(*), sum(count) FROM {pump}").fetchone() == (2500, 2500 * 2501 // 2)


def test_set_null_clears(session, cdf, api, scratch):
    create_view(api, "Thing", {"name": "text", "note": "text"})
    options = {"space": "sp", "external_id": "Thing", "version": "v1"}
    table = scratch.table(
        "thing", "space text, external_id text, name text, note text", "view", null_handling="set_null", **options
    )
    session.execute(f"INSERT INTO {table} VALUES ('sp', 't', 'a', 'b')")
    session.execute(f"INSERT INTO {table} VALUES ('sp', 't', NULL, 'c')")
    assert instance(cdf, "t")["properties"] == {"note": "c"}


@pytest.mark.parametrize("mode", ["error", "ignore"])
def test_existing_instances(session, cdf, api, scratch, mode):
    create_view(api, "Thing", {"name": "text"})
    options = {"space": "sp", "external_id": "Thing", "version": "v1", "on_conflict": mode}
    table = scratch.table("thing", "space text, external_id text, name text", "view", **options)
    session.execute(f"INSERT INTO {table} VALUES ('sp', 't', 'a')")
    again = f"INSERT INTO {table} VALUES ('sp', 't', 'b'), ('sp', 'u', 'b')"
    if mode == "error":
        with refused("23505", '("sp", "t")', "exists"):
            session.execute(again)
        assert len(dump(cdf, "instances")) == 1
    else:
        session.execute(again)
        assert instance(cdf, "u")["properties"] == {"name": "b"}
    assert instance(cdf, "t")["properties"] == {"name": "a"}


def test_a_relation_in_two_columns_and_no_space_column(session, cdf, api, scratch):
    create_view(api, "Part", {"parent": "direct", "name": "text"})
    options = {"space": "sp", "external_id": "Part", "version": "v1"}
    definition = "external_id text, name text, parent_space text, parent_external_id text"
    table = scratch.table("part", definition, "view", **options)
    session.execute(f"INSERT INTO {table} VALUES ('a', 'n', 'sp', 'b'), ('c', 'm', NULL, NULL)")
    assert instance(cdf, "a")["properties"]["parent"] == {"space": "sp", "externalId": "b"}
    rows = session.execute(f"SELECT * FROM {table} ORDER BY external_id").fetchall()
    assert rows == [("a", "n", "sp", "b"), ("c", "m", None, None)]
    assert session.execute(f"SELECT name FROM {table} WHERE external_id = 'c'").fetchall() == [("m",)]
    assert paths(cdf)[-1] == "/models/instances/byids"
    with refused("22004", "parent_external_id", "both or neither"):
        session.execute(f"INSERT INTO {table} VALUES ('d', 'n', 'sp', NULL)")


def nodes_and_edges(api, scratch) -> tuple[str, str]:
    """The tables of a view of nodes and of one of edges."""
    create_view(api, "Node", {"name": "text"})
    create_view(api, "Flow", {"rate": "float64"}, used_for="edge")
    options = {"space": "sp", "version": "v1"}
    node = scratch.table("node", "space text, external_id text, name text", "view", external_id="Node", **options)
    definition = (
        "space text, external_id text, type_space text, type_external_id text, start_node_space text,"
        "start_node_external_id text, end_node_space text, end_node_external_id text, rate float8"
    )
    return node, scratch.table("flow", definition, "view", external_id="Flow", **options)


def test_edges_after_nodes(session, cdf, api, scratch):
    node, flow = nodes_and_edges(api, scratch)
    edge = ("sp", "e", "sp", "flows", "sp", "a", "sp", "b", 1.5)
    with session.transaction():
        session.execute(f"INSERT INTO {flow} VALUES ({', '.join(['%s'] * 9)})", edge)
        session.execute(f"INSERT INTO {node} VALUES ('sp', 'a', 'A'), ('sp', 'b', 'B')")
    assert session.execute(f"SELECT * FROM {flow}").fetchall() == [edge]
    assert instance(cdf, "e")["startNode"] == {"space": "sp", "externalId": "a"}
    with refused("22004", "end_node_external_id"):
        session.execute(f"INSERT INTO {flow} (space, external_id, type_space, type_external_id, start_node_space, start_node_external_id) VALUES ('sp', 'f', 'sp', 't', 'sp', 'a')")
    with refused("22023", '("sp", "f")', "does not exist"):
        session.execute(f"INSERT INTO {flow} VALUES ('sp', 'f', 'sp', 'flows', 'sp', 'a', 'sp', 'none', 1)")


@pytest.mark.parametrize(
    ("column", "value", "sqlstate", "text"),
    [
        ("name", "x" * 128_001, "22001", "128000"),
        ("info", Jsonb("x" * 40_960), "22001", "40960"),
        ("tags", ["x"] * 1001, "22001", "1000"),
        ("pressure", float("nan"), "22003", "NaN"),
        ("parent", Jsonb({"space": "sp"}), "22023", "externalId"),
        ("version", 1, "22023", "cannot be written"),
    ],
)
def test_refused_at_the_row(session, cdf, pump, column, value, sqlstate, text):
    with refused(sqlstate, f'"{column}"', text):
        session.execute(f"INSERT INTO {pump} (space, external_id, {column}) VALUES ('sp', 'p', %s)", (value,))
    assert "/models/instances" not in paths(cdf)


RELATION = {"space": "sp", "externalId": "x"}


@pytest.mark.parametrize(
    ("column", "value", "sqlstate", "text"),
    [
        ("tags", [], "22023", "1 to 1000"),
        ("samples", [], "22023", "1 to 1000"),
        ("others", [], "22023", "1 to 100"),
        ("others", [Jsonb(RELATION)] * 101, "22001", "101 elements; CDF takes 100"),
        ("tags", ["x" * 64_001] * 2, "22001", "128000"),
        ("info", Jsonb({"a": {"k" * 129: 1}}), "22001", "129 characters"),
        ("info", Jsonb([{f"k{i}": i for i in range(257)}]), "22001", "256 keys"),
        ("info", Jsonb({"a": {"b": "x" * 10_241}}), "22001", '"b"'),
        ("info", Jsonb({"k": ["x" * 5_117, "y" * 5_117]}), "22001", "10241 bytes"),
        ("info", Jsonb([{"k": "x" * 10_000}] * 5), "22001", "40960"),
        ("info", Jsonb([]), "22023", "empty array"),
        ("info", Jsonb([1] * 1001), "22001", "1001 elements"),
    ],
)
def test_what_cdf_forbids_is_refused_at_the_row(session, cdf, pump, column, value, sqlstate, text):
    """The first write is refused, whole; so is the same by UPDATE and in an upsert."""
    session.execute(f"INSERT INTO {pump} (space, external_id, name) VALUES ('sp', 'p', 'x')")
    written = paths(cdf).count("/models/instances")
    for statement in (
        f"INSERT INTO {pump} (space, external_id, {column}) VALUES ('sp', 'p', %s)",
        f"UPDATE {pump} SET {column} = %s WHERE external_id = 'p'",
        f"INSERT INTO {pump} (space, external_id, {column}) VALUES ('sp', 'p', %s)"
        f" ON CONFLICT (space, external_id) DO UPDATE SET {column} = EXCLUDED.{column}",
    ):
        with session.transaction(force_rollback=True):
            with refused(sqlstate, f'"{column}"', text):
                session.execute(statement, (value,))
    assert paths(cdf).count("/models/instances") == written
    assert instance(cdf, "p")["properties"] == {"name": "x"}


def test_what_cdf_just_takes_arrives(session, cdf, pump):
    others = [{"space": "sp", "externalId": f"x{i}"} for i in range(100)]
    documents = [
        {"k" * 128: 1, "ü" * 128: None},
        {f"k{i}": {f"k{j}": j for j in range(15)} for i in range(256)},
        {"k": "x" * 10_240, "l": ["y" * 10_236], "m": "ü" * 5_120, "n": "\\" * 5_000},
        "x" * 40_958,
        [1] * 1000,
        {},
        None,
    ]
    for document in documents:
        session.execute(
            f"INSERT INTO {pump} (space, external_id, others, tags, info) VALUES ('sp', 'p', %s, %s, %s)",
            ([Jsonb(other) for other in others], ["x" * 128] * 1000, Jsonb(document)),
        )
        written = instance(cdf, "p")["properties"]
        assert (written["others"], len(written["tags"]), written.get("info")) == (others, 1000, document)
        assert session.execute(f"SELECT info FROM {pump} WHERE external_id = 'p'").fetchone() == (document,)


def test_the_limits_of_the_property_go_before_those_of_its_type(session, cdf, api, scratch):
    types = {
        "few": {"type": "text", "list": True, "maxListSize": 2},
        "many": {"type": "direct", "list": True, "maxListSize": 2000},
        "short": {"type": "text", "maxTextSize": 5},
    }
    create_view(api, "Own", types)
    table = scratch.table(
        "own", "external_id text, few text[], many jsonb, short text", "view", space="sp", external_id="Own", version="v1"
    )
    insert = f"INSERT INTO {table} VALUES ('x', %s, %s, %s)"
    session.execute(insert, (["a", "b"], Jsonb([RELATION] * 2000), "ü1ü"))
    assert len(instance(cdf, "x")["properties"]["many"]) == 2000
    with refused("22001", '"few"', "CDF takes 2"):
        session.execute(insert, (["a", "b", "c"], None, None))
    with refused("22001", '"many"', "CDF takes 2000"):
        session.execute(insert, (None, Jsonb([RELATION] * 2001), None))
    with refused("22001", '"short"', "CDF takes 5"):
        session.execute(insert, (None, None, "üüü"))
    with refused("22023", '"many"', "1 to 2000"):
        session.execute(insert, (None, Jsonb([]), None))


STATE = {"type": "enum", "values": {"on": {"name": "On"}, "off": {}, "other": {}}, "unknownValue": "other"}


def test_an_enumeration(session, cdf, api, scratch):
    create_view(api, "Valve", {"state": STATE, "name": "text"})
    options = {"space": "sp", "external_id": "Valve", "version": "v1"}
    table = scratch.table("valve", "external_id text, state text, name text", "view", **options)
    session.execute(f"INSERT INTO {table} VALUES ('v', 'on', 'V')")
    session.execute(f"UPDATE {table} SET state = 'off' WHERE external_id = 'v'")
    assert instance(cdf, "v")["properties"] == {"state": "off", "name": "V"}
    for value in ("On", "broken", "other", ""):
        with refused("22023", '"state"', "on, off"):
            session.execute(f"INSERT INTO {table} VALUES ('v', %s, 'W')", (value,))
    assert session.execute(f"SELECT state FROM {table} WHERE state = 'off' AND state IS NOT NULL").fetchall() == [("off",)]
    session.execute(f"UPDATE {table} SET state = NULL WHERE external_id = 'v'")
    assert instance(cdf, "v")["properties"] == {"name": "V"}
    # A value that is new in the enumeration is known after a transaction that has failed.
    create_view(api, "Valve", {"state": STATE | {"values": STATE["values"] | {"broken": {}}}, "name": "text"})
    with refused("22023"):
        session.execute(f"INSERT INTO {table} VALUES ('v', 'broken', 'W')")
    session.execute(f"INSERT INTO {table} VALUES ('v', 'broken', 'W')")
    assert instance(cdf, "v")["properties"] == {"state": "broken", "name": "W"}


def test_a_row_with_nothing_but_its_keys(session, cdf, api, scratch, pump):
    """It makes a node, which has no data in the view, and leaves one that exists as it is."""
    insert = f"INSERT INTO {pump} (space, external_id) VALUES ('sp', %s)"
    assert session.execute(insert, ("bare",)).rowcount == 1
    assert instance(cdf, "bare")["properties"] == {}
    session.execute(f"INSERT INTO {pump} (space, external_id, name) VALUES ('sp', 'full', 'x')")
    session.execute(insert, ("full",))
    assert instance(cdf, "full")["properties"] == {"name": "x"}
    assert session.execute(f"SELECT external_id FROM {pump}").fetchall() == [("full",)]
    with session.transaction():
        session.execute(insert, ("both",))
        session.execute(insert, ("more",))
        session.execute(f"INSERT INTO {pump} (space, external_id, name) VALUES ('sp', 'both', 'y')")
    assert instance(cdf, "both")["properties"] == {"name": "y"} and instance(cdf, "more")["properties"] == {}
    # An upsert that sets something else of a row that exists has nothing to write.
    session.execute(
        f"INSERT INTO {pump} (space, external_id, name) VALUES ('sp', 'full', 'z')"
        " ON CONFLICT (space, external_id) DO UPDATE SET flag = EXCLUDED.flag"
    )
    assert instance(cdf, "full")["properties"] == {"name": "x"}
    for entry in requests(cdf, "/models/instances"):
        for item in entry["body"]["items"]:
            assert "sources" not in item or item["sources"][0]["properties"]


def test_an_edge_with_nothing_but_its_ends(session, cdf, api, scratch):
    node, flow = nodes_and_edges(api, scratch)
    with session.transaction():
        session.execute(f"INSERT INTO {node} (space, external_id) VALUES ('sp', 'a'), ('sp', 'b')")
        session.execute(f"INSERT INTO {flow} VALUES ('sp', 'e', 'sp', 't', 'sp', 'a', 'sp', 'b', NULL)")
    assert instance(cdf, "e")["endNode"] == {"space": "sp", "externalId": "b"}
    assert instance(cdf, "e")["properties"] == {}
    assert session.execute(f"UPDATE {flow} SET rate = 1 WHERE external_id = 'e'").rowcount == 0


def test_a_value_that_a_property_needs_cannot_be_cleared(session, cdf, api, scratch):
    create_view(api, "Must", {"name": "text!", "note": "text"})
    options = {"space": "sp", "external_id": "Must", "version": "v1"}
    table = scratch.table("must", "external_id text, name text, note text", "view", **options)
    session.execute(f"INSERT INTO {table} VALUES ('x', 'N', 'n')")
    with refused("22004", '"name"', "needs one"):
        session.execute(f"UPDATE {table} SET name = NULL WHERE external_id = 'x'")
    session.execute(f"UPDATE {table} SET note = NULL WHERE external_id = 'x'")
    assert instance(cdf, "x")["properties"] == {"name": "N"}


def test_conditions_that_hold_for_nothing_ask_for_nothing(session, cdf, pump):
    session.execute(f"INSERT INTO {pump} (space, external_id, name, tags, parent) VALUES ('sp', 'p', 'x', '{{a}}', %s)", (Jsonb(RELATION),))
    seen = len(requests(cdf))
    for condition in ("external_id = ANY ('{}')", "space = ANY ('{}')", "name = ANY ('{}')", "tags && '{}'", "space = '1'"):
        assert session.execute(f"SELECT count(*) FROM {pump} WHERE {condition}").fetchone() == (0,), condition
    assert len(requests(cdf)) == seen
    assert session.execute(f"SELECT count(*) FROM {pump} WHERE tags @> '{{}}'").fetchone() == (1,)


@pytest.mark.parametrize("key", [("1sp", "x"), ("sp", "x" * 257), ("sp", None), (None, "x")])
def test_refused_keys(session, pump, key):
    sqlstate = "22004" if None in key else "22023" if key[0] == "1sp" else "22001"
    with refused(sqlstate):
        session.execute(f"INSERT INTO {pump} (space, external_id, name) VALUES (%s, %s, 'x')", key)


def test_cdf_names_what_it_refuses(session, cdf, api, scratch):
    create_view(api, "Must", {"name": "text!", "note": "text"})
    options = {"space": "sp", "external_id": "Must", "version": "v1"}
    table = scratch.table("must", "space text, external_id text, name text, note text", "view", **options)
    with refused("22023", "Missing required property 'name'", '("sp", "b")'):
        session.execute(f"INSERT INTO {table} VALUES ('sp', 'a', 'x', 'x'), ('sp', 'b', NULL, 'x')")


def test_unknown_properties_views_and_options(session, api, scratch, pump):
    options = {"space": "sp", "external_id": "Pump", "version": "v1"}
    table = scratch.table("wrong", "space text, external_id text, colour text", "view", **options)
    with refused("HV00J", 'no property "colour"', "pressure"):
        session.execute(f"SELECT * FROM {table}")
    table = scratch.table("none", "external_id text", "view", **(options | {"external_id": "Nothing"}))
    with refused("HV00J", "sp:Nothing/v1"):
        session.execute(f"INSERT INTO {table} VALUES ('x')")
    with refused("HV00J", "external_id"):
        scratch.table("short", "external_id text", "view", space="sp", version="v1")
    with refused("HV00D", "a table of view"):
        scratch.table("other", "external_id text", "assets", space="sp")


def test_a_new_property_is_found(session, cdf, api, scratch):
    create_view(api, "Grow", {"name": "text"})
    options = {"space": "sp", "external_id": "Grow", "version": "v1"}
    table = scratch.table("grow", "external_id text, name text", "view", **options)
    session.execute(f"INSERT INTO {table} VALUES ('x', 'a')")
    create_view(api, "Grow", {"name": "text", "more": "text"})
    scratch.execute("ALTER FOREIGN TABLE scratch.grow ADD COLUMN more text")
    session.execute(f"INSERT INTO {table} VALUES ('x', 'a', 'b')")
    assert instance(cdf, "x")["properties"] == {"name": "a", "more": "b"}


def test_conflicts_with_other_writers_are_tried_again(session, cdf, pump):
    body = {"error": {"code": 409, "message": "Conflict"}}
    fault = {"path": "/models/instances", "match": "exact", "mode": "status", "status": 409, "body": body, "times": 2}
    cdf.admin_post("faults", fault)
    session.execute(f"INSERT INTO {pump} (space, external_id, name) VALUES ('sp', 'p', 'x')")
    assert instance(cdf, "p")["properties"] == {"name": "x"}


def test_explain(session, cdf, pump):
    lines = "\n".join(row[0] for row in session.execute(f"EXPLAIN SELECT name FROM {pump}"))
    assert "POST /models/instances/list" in lines
    lines = "\n".join(
        row[0] for row in session.execute(f"EXPLAIN SELECT name FROM {pump} WHERE space = 'sp' AND external_id = 'x'")
    )
    assert "POST /models/instances/byids" in lines
    lines = "\n".join(row[0] for row in session.execute(f"EXPLAIN INSERT INTO {pump} (external_id) VALUES ('x')"))
    assert "POST /models/instances at COMMIT" in lines
    assert set(paths(cdf)) == {"/models/views/byids"}


def test_more_sql_types(session, cdf, api, scratch):
    create_view(api, "Types", {"u": "text", "b": "text", "n": "float64", "t": "timestamp", "v": "text", "j": "json"})
    options = {"space": "sp", "external_id": "Types", "version": "v1"}
    definition = "external_id text, u uuid, b bytea, n numeric, t timestamp, v varchar(10), j json"
    table = scratch.table("types", definition, "view", **options)
    row = ("x", uuid.UUID(int=5), b"\x00\xff", 1.25, datetime(2024, 1, 1, 12), "abc", [1])
    sent = row[:-1] + (Jsonb([1]),)
    session.execute(f"INSERT INTO {table} VALUES (%s, %s, %s, %s, %s, %s, %s)", sent)
    assert instance(cdf, "x")["properties"]["b"] == "AP8="
    assert instance(cdf, "x")["properties"]["t"] == "2024-01-01T12:00:00+00:00"
    read = session.execute(f"SELECT * FROM {table}").fetchone()
    assert (read[0], read[1], bytes(read[2]), float(read[3]), *read[4:]) == row


def test_arrays_of_documents_and_of_bytes(session, cdf, api, scratch):
    create_view(api, "Lists", {"docs": ["json"], "blobs": ["text"], "days": ["date"]})
    options = {"space": "sp", "external_id": "Lists", "version": "v1"}
    table = scratch.table("lists", "external_id text, docs jsonb[], blobs bytea[], days date[]", "view", **options)
    docs = ["text", [1, "a"], {"b": None}, 2]
    values = ("x", [Jsonb(doc) for doc in docs], [b"\x00\xff", b""], [date(2024, 2, 29)])
    session.execute(f"INSERT INTO {table} VALUES (%s, %s, %s, %s)", values)
    assert instance(cdf, "x")["properties"] == {"docs": docs, "blobs": ["AP8=", ""], "days": ["2024-02-29"]}
    row = session.execute(f"SELECT * FROM {table}").fetchone()
    assert row == ("x", docs, [b"\x00\xff", b""], [date(2024, 2, 29)])


# ---- the newest version ----


@pytest.fixture
def newest(api, scratch, session) -> str:
    """A table that names no version, of a view that has one."""
    create_view(api, "Grow", {"name": "text"}, version="v9")
    return scratch.table("grow", "external_id text, name text", "view", space="sp", external_id="Grow")


def versions(cdf, path: str = "/models/instances") -> list[str]:
    """The versions that requests name, in their order."""
    bodies = [entry["body"] for entry in requests(cdf, path)]
    named = [item for body in bodies for item in ([body] if "sources" in body else body["items"])]
    return [source["source"]["version"] for item in named for source in item["sources"]]


def test_a_table_without_a_version_means_the_newest(session, cdf, api, newest):
    session.execute(f"INSERT INTO {newest} VALUES ('a', 'A')")
    create_view(api, "Grow", {"name": "text"}, version="v1")
    session.execute(f"INSERT INTO {newest} VALUES ('b', 'B')")
    assert versions(cdf) == ["v9", "v1"]
    assert session.execute(f"SELECT name FROM {newest} ORDER BY 1").fetchall() == [("A",), ("B",)]
    assert session.execute(f"UPDATE {newest} SET name = 'C' WHERE external_id = 'a'").rowcount == 1
    assert versions(cdf)[2:] == ["v1"] and versions(cdf, "/models/instances/list") == ["v1"]
    # Writing a version again makes it no newer.
    create_view(api, "Grow", {"name": "text"}, version="v9")
    session.execute(f"INSERT INTO {newest} VALUES ('d', 'D')")
    assert versions(cdf)[-1] == "v1"


def test_a_transaction_means_one_version(session, cdf, api, newest):
    with session.transaction():
        session.execute(f"INSERT INTO {newest} VALUES ('a', 'A')")
        create_view(api, "Grow", {"name": "text"}, version="v10")
        session.execute(f"INSERT INTO {newest} VALUES ('b', 'B')")
        assert session.execute(f"SELECT count(*) FROM {newest}").fetchone() == (2,)
    assert paths(cdf).count("/models/views/byids") == 1 and versions(cdf) == ["v9", "v9"]
    session.execute(f"SELECT * FROM {newest}")
    assert versions(cdf, "/models/instances/list")[-1] == "v10"


def test_the_newest_version_has_other_properties(session, cdf, api, scratch, newest):
    session.execute(f"INSERT INTO {newest} VALUES ('a', 'A')")
    create_view(api, "Grow", {"name": "text", "more": "text"}, version="v10")
    scratch.execute("ALTER FOREIGN TABLE scratch.grow ADD COLUMN more text")
    session.execute(f"INSERT INTO {newest} VALUES ('a', 'A', 'B')")
    assert instance(cdf, "a")["properties"] == {"name": "A", "more": "B"}
    create_view(api, "Grow", {"more": "text"}, version="v11")
    with refused("HV00J", "sp:Grow/v11", '"name"'):
        session.execute(f"SELECT * FROM {newest}")


def test_errors_name_the_version_that_was_meant(session, cdf, api, scratch, newest):
    create_view(api, "Must", {"name": "text!", "note": "text"}, version="v3")
    table = scratch.table("must", "external_id text, name text, note text", "view", space="sp", external_id="Must")
    with refused("22023", "sp:Must/v3", '("sp", "x")'):
        session.execute(f"INSERT INTO {table} (external_id, note) VALUES ('x', 'N')")
    table = scratch.table("none", "external_id text", "view", space="sp", external_id="Nothing")
    for statement in (f"SELECT * FROM {table}", f"INSERT INTO {table} VALUES ('x')", f"EXPLAIN SELECT * FROM {table}"):
        with refused("HV00J", "there is no view sp:Nothing in CDF"):
            session.execute(statement)


def test_explain_names_the_request_for_the_newest_version(session, cdf, newest):
    explained = lambda statement: "\n".join(line for (line,) in session.execute(f"EXPLAIN (COSTS off) {statement}"))
    scan = explained(f"SELECT * FROM {newest}")
    assert "CDF Requests: POST /models/views/byids, POST /models/instances/list" in scan
    assert "CDF View: sp:Grow/v9" in scan
    insert = explained(f"INSERT INTO {newest} VALUES ('a', 'A')")
    assert "CDF Requests: POST /models/views/byids, POST /models/instances at COMMIT" in insert
    assert set(paths(cdf)) == {"/models/views/byids"}


def test_a_prepared_statement_means_the_newest_version(session, cdf, api, newest):
    session.execute(f"PREPARE add AS INSERT INTO {newest} VALUES ($1, $2)")
    session.execute(f"PREPARE find AS SELECT name FROM {newest} WHERE external_id = $1")
    for round, version in enumerate(["v10", "v11", "v12", "v13", "v14", "v15", "v16", "v17"]):
        create_view(api, "Grow", {"name": "text"}, version=version)
        session.execute(f"EXECUTE add('p{round}', 'P')")
        assert session.execute(f"EXECUTE find('p{round}')").fetchall() == [("P",)]
        assert versions(cdf)[-1] == version and versions(cdf, "/models/instances/byids")[-1] == version
