"""SELECT: what comes back, and which requests it takes."""

from __future__ import annotations

from datetime import datetime, timezone
from decimal import Decimal

import pytest
from support import Api, millis, paths, refused, requests
from test_views import create_view


def moment(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=timezone.utc)


def forget(cdf) -> None:
    """Empties the request log."""
    cdf.admin_delete("requests")


@pytest.fixture
def plant(session, cdf):
    """Something of every resource, and an empty request log."""
    with session.transaction():
        session.execute(
            "INSERT INTO assets (external_id, name, parent_external_id, metadata, source) VALUES"
            " ('root', 'Root', NULL, NULL, 'sap'), ('pump', 'Pump', 'root', '{\"kW\": 5}', 'sap')"
        )
        session.execute(
            "INSERT INTO events (external_id, start_time, type, asset_external_ids) VALUES"
            " ('e1', '2024-01-01Z', 'stop', '{root,pump}'), ('e2', NULL, 'start', NULL)"
        )
        session.execute(
            "INSERT INTO timeseries (external_id, name, is_string, unit, asset_external_id) VALUES"
            " ('t', 'Temperature', false, 'C', 'pump'), ('state', 'State', true, NULL, NULL), ('empty', 'E', false, NULL, NULL)"
        )
        session.execute(
            "INSERT INTO datapoints (external_id, timestamp, value, status_symbol) VALUES"
            " ('t', '1950-06-01Z', 1, NULL), ('t', '2024-01-01Z', 2, 'Good'), ('t', '2024-01-01 00:00:00.001Z', 3, 'Uncertain'),"
            " ('t', '2024-01-02Z', NULL, 'Bad'), ('t', '2099-12-31Z', 5, NULL)"
        )
        session.execute("INSERT INTO string_datapoints (external_id, timestamp, value) VALUES ('state', '2024-01-01Z', 'on')")
        session.execute(
            "INSERT INTO raw_rows (db_name, table_name, key, columns) VALUES"
            " ('d', 't', 'k1', '{\"a\": 1, \"b\": null}'), ('d', 't', 'k2', '{\"a\": \"x\"}'), ('d2', 'u', 'k1', '{}')"
        )
    forget(cdf)
    return session


def test_assets_come_back_as_written(plant):
    rows = plant.execute(
        "SELECT external_id, name, parent_external_id, metadata, source, labels, root_id = id, created_time IS NOT NULL"
        " FROM assets ORDER BY 1"
    ).fetchall()
    assert rows == [
        ("pump", "Pump", "root", {"kW": "5"}, "sap", None, False, True),
        ("root", "Root", None, {}, "sap", None, True, True),
    ]


def test_references_are_shown_by_external_id(plant, cdf):
    assert plant.execute("SELECT external_id, asset_external_ids, start_time FROM events ORDER BY 1").fetchall() == [
        ("e1", ["root", "pump"], moment("2024-01-01")),
        ("e2", None, None),
    ]
    assert plant.execute("SELECT asset_external_id FROM timeseries WHERE external_id = 't'").fetchone() == ("pump",)
    assert "/assets/byids" in paths(cdf)
    forget(cdf)
    plant.execute("SELECT external_id FROM events").fetchall()
    assert paths(cdf) == ["/events/list"], "names nobody asked for are not looked up"


def test_every_point_is_returned(plant):
    rows = plant.execute(
        "SELECT timestamp, value, status_code, status_symbol FROM datapoints WHERE external_id = 't' ORDER BY 1"
    ).fetchall()
    assert rows == [
        (moment("1950-06-01"), 1, 0, "Good"),
        (moment("2024-01-01"), 2, 0, "Good"),
        (moment("2024-01-01T00:00:00.001"), 3, 0x40000000, "Uncertain"),
        (moment("2024-01-02"), None, 0x80000000, "Bad"),
        (moment("2099-12-31"), 5, 0, "Good"),
    ]


def test_points_of_all_series(plant):
    assert plant.execute("SELECT external_id, count(*) FROM datapoints GROUP BY 1").fetchall() == [("t", 5)]
    assert plant.execute("SELECT external_id, value FROM string_datapoints").fetchall() == [("state", "on")]


@pytest.mark.parametrize(
    ("condition", "values"),
    [
        ("timestamp = '2024-01-01Z'", [2]),
        ("timestamp >= '2024-01-01Z'", [2, 3, None, 5]),
        ("timestamp > '2024-01-01Z'", [3, None, 5]),
        ("timestamp < '2024-01-01 00:00:00.001Z'", [1, 2]),
        ("timestamp <= '2024-01-01 00:00:00.001Z'", [1, 2, 3]),
        ("timestamp > '2024-01-01 00:00:00.0005Z' AND timestamp < '2024-01-02Z'", [3]),
        ("'2024-01-02Z' < timestamp", [5]),
        ("timestamp BETWEEN '2024-01-01Z' AND '2024-01-02Z'", [2, 3, None]),
        ("timestamp > 'infinity'", []),
        ("timestamp > '-infinity' AND value < 3", [1, 2]),
    ],
)
def test_conditions_on_the_time(plant, cdf, condition, values):
    rows = plant.execute(
        f"SELECT value FROM datapoints WHERE external_id = 't' AND {condition} ORDER BY timestamp"
    ).fetchall()
    assert [value for (value,) in rows] == values
    for request in requests(cdf, "/timeseries/data/list"):
        body = request["body"]
        assert body["items"][0]["externalId"] == "t"
        assert (body["start"], body["end"]) != (-2208988800000, 4102444800000) or "infinity" in condition


def test_a_time_range_is_pushed_down(plant, cdf):
    plant.execute(
        "SELECT * FROM datapoints WHERE external_id = 't' AND timestamp >= '2024-01-01Z' AND timestamp < '2024-01-02Z'"
    ).fetchall()
    (request,) = requests(cdf)
    assert request["body"]["start"] == millis("2024-01-01") and request["body"]["end"] == millis("2024-01-02")


def test_a_range_without_moments_makes_no_request(plant, cdf):
    query = "SELECT * FROM datapoints WHERE external_id = 't' AND timestamp > '2024-01-02Z' AND timestamp < '2024-01-01Z'"
    assert plant.execute(query).fetchall() == []
    assert requests(cdf) == []


@pytest.mark.parametrize("table", ["assets", "events", "timeseries"])
def test_one_item_is_asked_for_by_its_key(plant, cdf, table):
    key = {"assets": "pump", "events": "e1", "timeseries": "t"}[table]
    (row,) = plant.execute(f"SELECT id, external_id FROM {table} WHERE external_id = %s", (key,)).fetchall()
    assert row[1] == key
    assert plant.execute(f"SELECT external_id FROM {table} WHERE id = %s", (row[0],)).fetchall() == [(key,)]
    assert plant.execute(f"SELECT 1 FROM {table} WHERE external_id = 'nobody'").fetchall() == []
    assert plant.execute(f"SELECT 1 FROM {table} WHERE id = -1").fetchall() == []
    assert plant.execute(f"SELECT 1 FROM {table} WHERE external_id = %s::text", (None,)).fetchall() == []
    assert paths(cdf) == [f"/{table}/byids"] * 3


@pytest.mark.parametrize(
    ("condition", "found"),
    [
        ("external_id IN ('pump', 'root', 'nobody')", ["pump", "root"]),
        ("external_id = ANY ('{root,root,NULL}')", ["root"]),
        ("external_id = ANY ('{}'::text[])", []),
        ("external_id IN ('pump', 'root') AND name = 'Root'", ["root"]),
    ],
)
def test_a_list_of_keys(plant, cdf, condition, found):
    rows = plant.execute(f"SELECT external_id FROM assets WHERE {condition} ORDER BY 1").fetchall()
    assert [key for (key,) in rows] == found
    assert set(paths(cdf)) <= {"/assets/byids"}


def test_a_list_of_ids(plant, cdf):
    ids = [row[0] for row in plant.execute("SELECT id FROM assets").fetchall()]
    forget(cdf)
    for kind in ("int8", "int4"):
        wanted = [*ids, -1] if kind == "int8" else [1, 2]
        rows = plant.execute(f"SELECT external_id FROM assets WHERE id = ANY (%s::{kind}[])", (wanted,)).fetchall()
        assert len(rows) == (2 if kind == "int8" else 0)
    assert paths(cdf) == ["/assets/byids"] * 2


def test_a_long_list_of_keys(session, cdf):
    session.execute("INSERT INTO events (external_id) SELECT 'e' || i FROM generate_series(1, 2500) i")
    forget(cdf)
    keys = [f"e{at}" for at in range(1, 5000, 2)]
    (count,) = session.execute("SELECT count(*) FROM events WHERE external_id = ANY (%s)", (keys,)).fetchone()
    assert count == 1250
    assert sorted(request["items"] for request in requests(cdf)) == [500, 1000, 1000]


def test_a_list_of_series(plant, cdf):
    rows = plant.execute(
        "SELECT external_id, count(*) FROM datapoints WHERE external_id IN ('t', 'empty', 'nobody') GROUP BY 1"
    ).fetchall()
    assert rows == [("t", 5)]
    (request,) = requests(cdf)
    assert request["path"] == "/timeseries/data/list" and request["items"] == 3


def test_not_in_is_checked_locally(plant, cdf):
    assert plant.execute("SELECT external_id FROM assets WHERE external_id NOT IN ('pump')").fetchall() == [("root",)]
    assert paths(cdf) == ["/assets/list"]


def test_other_conditions_are_checked_locally(plant, cdf):
    assert plant.execute("SELECT external_id FROM assets WHERE external_id = 'pump' AND name = 'Root'").fetchall() == []
    assert plant.execute("SELECT external_id FROM assets WHERE name LIKE 'P%'").fetchall() == [("pump",)]
    assert plant.execute("SELECT count(*) FROM assets a JOIN timeseries t ON t.asset_id = a.id").fetchone() == (1,)


def test_a_key_that_comes_at_execution(plant, cdf):
    for _ in range(8):
        row = plant.execute("SELECT name FROM assets WHERE external_id = %s", ("pump",), prepare=True).fetchone()
        assert row == ("Pump",)
    plant.execute("SELECT name FROM assets WHERE external_id = (SELECT 'ro' || 'ot')").fetchall()
    assert set(paths(cdf)) == {"/assets/byids"}


@pytest.mark.parametrize("query", ["SELECT * FROM assets WHERE false", "SELECT * FROM assets LIMIT 0"])
def test_nothing_asked_for_makes_no_request(plant, cdf, query):
    assert plant.execute(query).fetchall() == []
    assert requests(cdf) == []


def test_explain_makes_no_request(plant, cdf):
    plant.execute("EXPLAIN SELECT * FROM assets WHERE external_id = 'pump'").fetchall()
    assert requests(cdf) == []


def test_a_limit_is_passed_on(plant, cdf):
    assert len(plant.execute("SELECT * FROM assets LIMIT 1").fetchall()) == 1
    (request,) = requests(cdf)
    assert request["body"]["limit"] == 1


def test_a_limit_is_not_passed_on_past_a_local_condition(plant, cdf):
    assert plant.execute("SELECT external_id FROM assets WHERE lower(name) = 'root' LIMIT 1").fetchall() == [("root",)]
    assert plant.execute("SELECT external_id FROM assets ORDER BY name DESC LIMIT 1").fetchall() == [("root",)]
    assert {request["body"]["limit"] for request in requests(cdf)} == {1000}


def test_many_pages(session, cdf):
    with session.transaction():
        session.execute("INSERT INTO events (external_id, type) SELECT 'e' || i, 'x' FROM generate_series(1, 2500) i")
        session.execute("INSERT INTO timeseries (external_id) SELECT 's' || i FROM generate_series(1, 250) i")
        session.execute(
            "INSERT INTO datapoints (external_id, timestamp, value)"
            " SELECT 's' || i % 250 + 1, '2024-01-01Z'::timestamptz + i * interval '1 s', i FROM generate_series(1, 30000) i"
        )
        session.execute(
            "INSERT INTO datapoints (external_id, timestamp, value)"
            " SELECT 's1', '2020-01-01Z'::timestamptz + i * interval '1 s', i FROM generate_series(1, 120000) i"
        )
        session.execute(
            "INSERT INTO raw_rows (db_name, table_name, key, columns)"
            " SELECT 'd', 't', i::text, jsonb_build_object('i', i) FROM generate_series(1, 12000) i"
        )
    forget(cdf)
    assert session.execute("SELECT count(*), count(DISTINCT external_id) FROM events").fetchone() == (2500, 2500)
    assert paths(cdf) == ["/events/list"] * 3
    assert session.execute("SELECT count(*), sum(value) FROM datapoints WHERE external_id = 's1'").fetchone() == (
        120120,
        sum(range(1, 120001)) + sum(range(250, 30001, 250)),
    )
    assert session.execute("SELECT count(*), count(DISTINCT external_id) FROM datapoints").fetchone() == (150000, 250)
    assert session.execute("SELECT count(*), sum((columns ->> 'i')::int) FROM raw_rows").fetchone() == (
        12000,
        sum(range(1, 12001)),
    )
    with session.transaction():
        cursor = session.cursor("slow")
        cursor.execute("SELECT external_id FROM events")
        assert len(cursor.fetchmany(1500)) == 1500


def test_raw_rows(plant, cdf):
    everything = plant.execute("SELECT db_name, table_name, key, columns FROM raw_rows ORDER BY 1, 2, 3").fetchall()
    assert everything == [
        ("d", "t", "k1", {"a": 1, "b": None}),
        ("d", "t", "k2", {"a": "x"}),
        ("d2", "u", "k1", {}),
    ]
    forget(cdf)
    one = "SELECT columns FROM raw_rows WHERE db_name = 'd' AND table_name = 't' AND key = %s"
    assert plant.execute(one, ("k2",)).fetchall() == [({"a": "x"},)]
    assert plant.execute(one, ("nobody",)).fetchall() == []
    assert paths(cdf) == ["/raw/dbs/d/tables/t/rows/k2", "/raw/dbs/d/tables/t/rows/nobody"]
    forget(cdf)
    keys = plant.execute("SELECT key FROM raw_rows WHERE db_name = 'd' AND table_name = 't' ORDER BY 1").fetchall()
    assert keys == [("k1",), ("k2",)]
    (request,) = requests(cdf)
    assert "columns=%2C" in request["path"], "only the keys are asked for"
    assert plant.execute("SELECT * FROM raw_rows WHERE db_name = 'no' AND table_name = 't'").fetchall() == []


def test_typed_raw_table(session, cdf, scratch, api: Api):
    table = scratch.table(
        "m",
        "title text, year timestamptz, day date, n int, big numeric, f float8, ok bool, tags text[], nums int[],"
        " j jsonb, u uuid, b bytea, plain timestamp, v varchar(5), other text OPTIONS (name 'Other Name')",
        "raw_rows",
        database="db",
        table="t",
        primary_key="title",
    )
    assert session.execute(f"SELECT * FROM {table}").fetchall() == [], "a table that is not there yet is empty"
    session.execute(
        f"INSERT INTO {table} VALUES ('A', '2024-05-01 12:00Z', '2024-05-02', 7, 12345678901234567890.5, 0.1, true,"
        " '{a,\"b \\\"c\"}', '{1,NULL}', '{\"x\": [1]}', '6e0c8a63-2a8b-4c0a-9d43-1f2e3d4c5b6a', '\\x00ff',"
        " '2024-05-01 12:00', 'five5', 'o')"
    )
    row = session.execute(f"SELECT * FROM {table}").fetchone()
    assert row[:9] == (
        "A",
        moment("2024-05-01T12:00"),
        datetime(2024, 5, 2).date(),
        7,
        row[4],
        0.1,
        True,
        ["a", 'b "c'],
        [1, None],
    )
    assert row[4] == pytest.approx(Decimal("12345678901234567890.5"))
    assert row[9] == {"x": [1]} and str(row[10]) == "6e0c8a63-2a8b-4c0a-9d43-1f2e3d4c5b6a" and row[11] == b"\x00\xff"
    assert row[12:] == (datetime(2024, 5, 1, 12), "five5", "o")
    forget(cdf)
    assert session.execute(f"SELECT n FROM {table} WHERE title = 'A'").fetchall() == [(7,)]
    assert session.execute(f"SELECT n, other FROM {table}").fetchall() == [(7, "o")]
    by_key, listed = requests(cdf)
    assert by_key["path"].endswith("/rows/A")
    assert "columns=n%2COther%20Name" in listed["path"]

    api.create_raw("db", "t", B={"title": "B", "n": "many"})
    with refused("22P02", "many"):
        session.execute(f"SELECT n FROM {table}").fetchall()


def test_a_table_by_hand_with_some_columns(session, plant, scratch):
    table = scratch.table("some", "label text OPTIONS (name 'name'), external_id varchar, metadata text", "assets")
    assert session.execute(f"SELECT * FROM {table} WHERE external_id = 'pump'").fetchall() == [
        ("Pump", "pump", '{"kW":"5"}')
    ]


def test_a_rescan_asks_again(plant):
    rows = plant.execute(
        "SELECT a.external_id, s.n FROM assets a CROSS JOIN LATERAL (SELECT count(*) AS n FROM events WHERE a.id > 0) s"
    ).fetchall()
    assert sorted(rows) == [("pump", 2), ("root", 2)]


def test_what_cdf_refuses_is_an_error(plant, cdf):
    cdf.admin_post("faults", {"path": "/assets/list", "mode": "status", "status": 403, "body": {"error": {"code": 403, "message": "Forbidden"}}})
    with refused("42501", "assetsAcl:READ", "Forbidden"):
        plant.execute("SELECT * FROM assets").fetchall()
    cdf.admin_delete("faults")
    assert len(plant.execute("SELECT * FROM assets").fetchall()) == 2


def test_doubles_come_back_as_they_were(session, scratch, api):
    create_view(api, "Number", {"x": "float64", "xs": ["float64"]})
    view = scratch.table("number", "external_id text, x float8, xs float8[]", "view", space="sp", external_id="Number", version="v1")
    raw = scratch.table("raw_number", "key text, x float8", "raw_rows", database="d", table="t")
    session.execute("CREATE TEMP TABLE numbers AS SELECT i, i::text AS key, exp(sin(i) * 30) AS x FROM generate_series(1, 2000) i")
    with session.transaction():
        session.execute(f"INSERT INTO {view} SELECT key, x, ARRAY[x] FROM numbers")
        session.execute(f"INSERT INTO {raw} SELECT key, x FROM numbers")
        session.execute("INSERT INTO sequences (external_id, columns) VALUES ('s', '[{\"externalId\": \"x\"}]')")
        session.execute("INSERT INTO sequence_rows (external_id, row_number, columns) SELECT 's', i, jsonb_build_object('x', x) FROM numbers")
    for same in (
        f"SELECT count(*) FROM {view} t JOIN numbers n ON n.key = t.external_id AND n.x = t.x AND t.xs = ARRAY[n.x]",
        f"SELECT count(*) FROM {raw} t JOIN numbers n ON n.key = t.key AND n.x = t.x",
        "SELECT count(*) FROM sequence_rows t JOIN numbers n ON n.i = t.row_number AND n.x = (t.columns ->> 'x')::float8",
    ):
        assert session.execute(same).fetchone() == (2000,), same
    [value] = session.execute("SELECT x FROM numbers WHERE i = 7").fetchone()
    assert session.execute(f"SELECT external_id FROM {view} WHERE x = %s", (value,)).fetchall() == [("7",)]
