"""The key column of a typed RAW table is RAW's key, whatever the column of the same name holds, and rows are found by it."""

from __future__ import annotations

from datetime import datetime, timezone
from decimal import Decimal

import pytest
from support import columns, names, refused, requests


def raw_table(scratch, key: str, **options: str) -> str:
    options = {"truncatable": "true"} | options
    definition = f"tag {key}, v bigint, w text"
    return scratch.table("t", definition, "raw_rows", database="d", table="t", primary_key="tag", **options)


@pytest.fixture
def crossed(api):
    """Each row's column says another row's key."""
    api.create_raw("d", "t", A1={"tag": "B2", "v": 1}, B2={"tag": "C3", "v": 2}, C3={"v": 3}, D4={"tag": 4, "v": 4})


def test_the_key_is_shown(session, crossed, scratch):
    table = raw_table(scratch, "text")
    rows = session.execute(f"SELECT tag, v FROM {table} ORDER BY 1").fetchall()
    assert rows == [("A1", 1), ("B2", 2), ("C3", 3), ("D4", 4)]
    assert session.execute(f"SELECT tag FROM {table} WHERE v = 4").fetchall() == [("D4",)]
    assert session.execute(f"SELECT v FROM {table} WHERE tag LIKE 'B%'").fetchall() == [(2,)]


def test_statistics_are_of_the_keys(session, crossed, mapped):
    table = raw_table(mapped, "text")
    mapped.execute(f"ANALYZE {table}")
    bounds = mapped.execute("SELECT histogram_bounds::text FROM pg_stats WHERE tablename = 't' AND attname = 'tag'")
    assert bounds.fetchone() == ("{A1,B2,C3,D4}",)


def test_a_key_is_asked_for(session, cdf, crossed, scratch):
    table = raw_table(scratch, "text")
    assert session.execute(f"SELECT tag, v FROM {table} WHERE tag = 'A1'").fetchall() == [("A1", 1)]
    [entry] = requests(cdf)
    assert entry["path"].endswith("/rows/A1")
    found = session.execute(f"SELECT v FROM {table} WHERE tag IN ('A1', 'C3', 'none') ORDER BY 1").fetchall()
    assert found == [(1,), (3,)]
    session.execute("CREATE TEMP TABLE wanted AS SELECT 'B2'::text AS tag")
    assert session.execute(f"SELECT v FROM wanted JOIN {table} USING (tag)").fetchall() == [(2,)]


def test_a_row_is_deleted_by_its_key(session, cdf, crossed, scratch):
    table = raw_table(scratch, "text")
    assert session.execute(f"DELETE FROM {table} WHERE v = 1 RETURNING tag, v").fetchall() == [("A1", 1)]
    assert names(cdf, "raw") == ["B2", "C3", "D4"]
    assert session.execute(f"DELETE FROM {table} WHERE tag = 'B2'").rowcount == 1
    assert names(cdf, "raw") == ["C3", "D4"]


def test_a_row_is_updated_by_its_key(session, cdf, crossed, scratch):
    table = raw_table(scratch, "text")
    with session.transaction():
        found = session.execute(f"UPDATE {table} SET v = 10 WHERE v = 1 RETURNING tag, v").fetchall()
        assert found == [("A1", 10)]
        session.execute(f"UPDATE {table} SET w = 'x', tag = tag WHERE tag = 'B2'")
        rows = session.execute(f"SELECT tag, v, w FROM {table} ORDER BY tag LIMIT 2").fetchall()
        assert rows == [("A1", 10, None), ("B2", 2, "x")]
    assert columns(cdf, "A1") == {"tag": "B2", "v": 10}
    assert columns(cdf, "B2") == {"tag": "C3", "v": 2, "w": "x"}
    assert columns(cdf, "D4") == {"tag": 4, "v": 4}
    with refused("0A000", "key"):
        session.execute(f"UPDATE {table} SET tag = 'E5' WHERE v = 4")


# ---- keys that are no texts ----

# A type, a value of it, and the text that is its key.
TYPED = [
    ("numeric", Decimal("1.50"), "1.50"),
    ("numeric(10,3)", Decimal("7.000"), "7.000"),
    ("bigint", 9223372036854775807, "9223372036854775807"),
    ("int", -5, "-5"),
    ("float8", 0.1, "0.1"),
    ("real", 0.5, "0.5"),
    ("boolean", True, "true"),
    ("timestamptz", datetime(2024, 1, 1, 12, tzinfo=timezone.utc), "2024-01-01T12:00:00.000000Z"),
    ("uuid", "0a1b2c3d-0000-4000-8000-000000000001", "0a1b2c3d-0000-4000-8000-000000000001"),
]


@pytest.mark.parametrize("sql_type, value, key", TYPED, ids=[sql_type for sql_type, *_ in TYPED])
def test_typed_keys_come_and_go(session, cdf, scratch, sql_type, value, key):
    table = raw_table(scratch, sql_type)
    session.execute(f"INSERT INTO {table} VALUES (%s::{sql_type}, 1, 'x')", (value,))
    assert names(cdf, "raw") == [key]
    shown = session.execute(f"SELECT tag::text, %s::{sql_type}::text FROM {table}", (value,)).fetchone()
    assert shown[0] == shown[1]
    where = f"WHERE tag = %s::{sql_type}"
    assert session.execute(f"UPDATE {table} SET v = 2 {where}", (value,)).rowcount == 1
    assert columns(cdf, key)["v"] == 2 and names(cdf, "raw") == [key]
    with session.transaction():
        assert session.execute(f"UPDATE {table} SET v = v + 1 {where} RETURNING v", (value,)).fetchall() == [(3,)]
        assert session.execute(f"DELETE FROM {table} {where} AND v = 3", (value,)).rowcount == 1
        assert session.execute(f"SELECT * FROM {table}").fetchall() == []
    assert names(cdf, "raw") == []


# Keys that others have written, and which PostgreSQL shows as one value.
OTHERS = [
    ("numeric", ["1.5", "1.50", "15e-1", "01.5", " 1.5"], "1.5"),
    ("int", ["7", "07", " 7", "+7"], "7"),
    ("float8", ["0.1", "0.10", "1e-1", ".1"], "0.1"),
    ("boolean", ["true", "t", "yes", "1", "on"], "true"),
    ("uuid", ["0a1b2c3d-0000-4000-8000-000000000001", "0A1B2C3D000040008000000000000001"], None),
    ("timestamptz", ["2024-01-01T00:00:00.000000Z", "2024-01-01T00:00:00Z", "2024-01-01 01:00+01"], None),
    ("date", ["2024-01-01T00:00:00.000000Z", "2024-01-01", "20240101"], None),
]


@pytest.mark.parametrize("sql_type, keys, value", OTHERS, ids=[sql_type for sql_type, *_ in OTHERS])
def test_rows_of_one_value_are_told_apart(session, cdf, api, scratch, sql_type, keys, value):
    table = raw_table(scratch, sql_type)
    api.create_raw("d", "t", **{key: {"v": at, "kept": key} for at, key in enumerate(keys)})
    assert session.execute(f"SELECT count(*), count(DISTINCT tag) FROM {table}").fetchone() == (len(keys), 1)
    assert session.execute(f"SELECT count(*) FROM {table} WHERE tag = '{value or keys[0]}'").fetchone() == (len(keys),)
    # One by one, also where rows were joined and sorted on their way.
    for at, key in enumerate(keys):
        updated = session.execute(
            f"UPDATE {table} t SET w = o.w FROM (SELECT %s::int AS v, %s AS w ORDER BY 1) o WHERE o.v = t.v",
            (at, f"new {at}"),
        )
        assert updated.rowcount == 1
        assert columns(cdf, key) == {"v": at, "kept": key, "w": f"new {at}"}
    assert sorted(names(cdf, "raw")) == sorted(keys)
    with session.transaction():
        assert session.execute(f"UPDATE {table} SET v = v + 10").rowcount == len(keys)
        assert session.execute(f"UPDATE {table} SET v = v + 10 WHERE v = 11").rowcount == 1
        assert session.execute(f"SELECT min(v), max(v) FROM {table}").fetchone() == (10, 21)
    assert columns(cdf, keys[1]) == {"v": 21, "kept": keys[1], "w": "new 1"}
    assert session.execute(f"DELETE FROM {table} WHERE v = 21").rowcount == 1
    assert sorted(names(cdf, "raw")) == sorted(keys[:1] + keys[2:])
    assert session.execute(f"DELETE FROM {table}").rowcount == len(keys) - 1
    assert names(cdf, "raw") == []


def test_many_rows_of_one_value(session, cdf, api, scratch):
    table = raw_table(scratch, "int")
    api.create_raw("d", "t", **{"0" * at + "7": {"v": at} for at in range(200)})
    session.execute("CREATE TEMP TABLE odd AS SELECT generate_series(1, 199, 2) AS v")
    assert session.execute(f"UPDATE {table} t SET w = 'odd' FROM odd WHERE odd.v = t.v").rowcount == 100
    for at in range(200):
        wanted = {"v": at} | ({"w": "odd"} if at % 2 else {})
        assert columns(cdf, "0" * at + "7") == wanted
    assert session.execute(f"DELETE FROM {table} USING odd WHERE odd.v = {table.split('.')[1]}.v").rowcount == 100
    assert len(names(cdf, "raw")) == 100


def test_a_key_that_does_not_fit(session, cdf, api, scratch):
    table = raw_table(scratch, "int")
    api.create_raw("d", "t", **{"7": {"v": 1}, "x": {"v": 2}, "99999999999": {"v": 3}})
    with refused("22P02", '"tag"', '"x"'):
        session.execute(f"SELECT * FROM {table} WHERE v < 3")
    assert session.execute(f"SELECT tag FROM {table} WHERE v = 1").fetchall() == [(7,)]
    scratch.execute("ALTER FOREIGN TABLE t OPTIONS (ADD on_unfit 'null')")
    assert session.execute(f"SELECT tag, v FROM {table} ORDER BY v").fetchall() == [(7, 1), (None, 2), (None, 3)]
    assert session.execute(f"DELETE FROM {table} WHERE v = 3").rowcount == 1
    assert session.execute(f"UPDATE {table} SET w = 'y' WHERE v = 2").rowcount == 1
    assert columns(cdf, "x") == {"v": 2, "w": "y"} and names(cdf, "raw") == ["7", "x"]


def test_keys_are_told_apart_through_a_parent(session, cdf, api, scratch):
    scratch.execute("CREATE TABLE parent (tag int, v bigint, w text) PARTITION BY RANGE (v)")
    scratch.execute("CREATE TABLE own PARTITION OF parent FOR VALUES FROM (100) TO (200)")
    for name, first in (("t", 0), ("u", 10)):
        raw_options = f"resource 'raw_rows', database 'd', \"table\" '{name}', primary_key 'tag'"
        scratch.execute(
            f"CREATE FOREIGN TABLE {name} PARTITION OF parent FOR VALUES FROM ({first}) TO ({first + 10})"
            f" SERVER cdf OPTIONS ({raw_options})"
        )
        api.create_raw("d", name, **{"7": {"v": first}, "07": {"v": first + 1}, "8": {"v": first + 2}})
    scratch.execute("INSERT INTO own VALUES (7, 100, 'a')")
    assert session.execute("UPDATE scratch.parent SET w = 'x' WHERE v IN (1, 10, 12, 100)").rowcount == 4
    rows = session.execute("SELECT v FROM scratch.parent WHERE w = 'x' ORDER BY v").fetchall()
    assert rows == [(1,), (10,), (12,), (100,)]
    deleted = session.execute("DELETE FROM scratch.parent WHERE v IN (1, 10, 100) RETURNING tag, v").fetchall()
    assert sorted(deleted) == [(7, 1), (7, 10), (7, 100)]
    assert names(cdf, "raw") == ["07", "7", "8", "8"]
    with refused("0A000", "ctid"):
        session.execute("DELETE FROM scratch.t WHERE ctid = '(0,1)'")
    with refused("0A000", "ctid"):
        session.execute("UPDATE scratch.t SET w = ctid::text")
    assert session.execute("SELECT ctid, tag FROM scratch.t WHERE v = 0").fetchall() == [(None, 7)]
