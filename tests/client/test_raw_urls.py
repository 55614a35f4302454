"""RAW names rows, tables and databases in URLs: names that URLs cannot hold, and the length of URLs."""

from __future__ import annotations

import pytest
from support import columns, dump, names, refused, requests

KEYS = [
    ".",
    "..",
    "...",
    "/",
    "//",
    "./",
    "../x",
    "a/b",
    "a%2Fb",
    "%2e",
    "%2E%2E",
    "%",
    "%00",
    " ",
    ". ",
    "a b",
    "\x01",
    "\x7f",
    "\r\n",
    "\t",
    "\\",
    "?",
    "#",
    "a?limit=1&b=c#d",
    "+",
    ":",
    ";",
    "é",
    "\u0301",
    "🛢",
    "x" * 1024,
    "🛢" * 1024,
    " " * 1024,
]
EACH_KEY = pytest.mark.parametrize("key", KEYS, ids=lambda key: ascii(key)[:20])
# Enough rows for a list of several pages, and for an update that reads the table.
OTHERS = 25


@pytest.fixture
def things(api, scratch, cdf):
    """A table of typed columns, which has some rows."""
    api.create_raw("d", "t", **{f"other-{at}": {"v": at, "w": "w"} for at in range(OTHERS)})
    scratch.table("things", "key text, v bigint", "raw_rows", database="d", table="t")
    for mode in ("ignore", "error"):
        scratch.table(f"things_{mode}", "key text, v bigint", "raw_rows", database="d", table="t", on_conflict=mode)
    return "scratch.things"


def longest_url(cdf) -> int:
    return max(len(cdf.url) + len("/api/v1/projects/") + len(cdf.project) + len(entry["path"]) for entry in requests(cdf))


@EACH_KEY
def test_row_with_any_key_is_written_read_changed_and_deleted(session, cdf, things, key):
    one = f"FROM {things} WHERE key = %s"
    assert session.execute(f"SELECT v {one}", [key]).fetchall() == []
    session.execute(f"INSERT INTO {things} VALUES (%s, 1)", [key])
    assert session.execute(f"SELECT v {one}", [key]).fetchall() == [(1,)]
    assert session.execute(f"SELECT v {one} LIMIT 1", [key]).fetchall() == [(1,)]
    wanted = [key, "other-3", "none"]
    assert session.execute(f"SELECT count(*) FROM {things} WHERE key = ANY(%s)", [wanted]).fetchone() == (2,)
    generic = "FROM raw_rows WHERE db_name = 'd' AND table_name = 't' AND key = %s"
    assert session.execute(f"SELECT columns {generic}", [key]).fetchall() == [({"v": 1},)]
    assert session.execute("SELECT count(*) FROM raw_rows WHERE key = %s", [key]).fetchone() == (1,)
    assert session.execute(f"UPDATE {things} SET v = v + 1 WHERE key = %s", [key]).rowcount == 1
    assert columns(cdf, key) == {"v": 2}
    assert session.execute("UPDATE raw_rows SET columns = '{\"v\": 3}' WHERE db_name = 'd' AND table_name = 't' AND key = %s", [key]).rowcount == 1
    assert columns(cdf, key) == {"v": 3}
    assert session.execute(f"DELETE {one}", [key]).rowcount == 1
    assert session.execute(f"DELETE {one}", [key]).rowcount == 0
    assert len(dump(cdf, "raw")) == OTHERS
    assert longest_url(cdf) <= 4096


@EACH_KEY
def test_existing_row_with_any_key_is_left_as_it_is(session, cdf, things, key):
    session.execute(f"INSERT INTO {things} VALUES (%s, 1)", [key])
    session.execute(f"INSERT INTO {things}_ignore VALUES (%s, 2), ('new', 2)", [key])
    assert columns(cdf, key) == {"v": 1} and columns(cdf, "new") == {"v": 2}
    with refused("23505", "exists"):
        session.execute(f"INSERT INTO {things}_error VALUES (%s, 2)", [key])
    session.execute(f"INSERT INTO {things} VALUES (%s, 2) ON CONFLICT (key) DO NOTHING", [key])
    assert columns(cdf, key) == {"v": 1}
    session.execute(f"INSERT INTO {things} VALUES (%s, 2) ON CONFLICT (key) DO UPDATE SET v = EXCLUDED.v", [key])
    assert columns(cdf, key) == {"v": 2}
    assert longest_url(cdf) <= 4096


def test_update_keeps_the_columns_of_rows_with_any_key(session, cdf, things, api):
    api.create_raw("d", "t", **{key: {"v": 1, "kept": key} for key in KEYS})
    assert session.execute(f"UPDATE {things} SET v = 7 WHERE key = ANY(%s)", [KEYS]).rowcount == len(KEYS)
    assert session.execute(f"UPDATE {things} SET v = 8 WHERE key IN ('.', '..')").rowcount == 2
    for key in KEYS:
        assert columns(cdf, key) == {"v": 8 if key in (".", "..") else 7, "kept": key}


def test_own_rows_with_any_key(session, cdf, things):
    with session.transaction():
        for key in KEYS:
            session.execute(f"INSERT INTO {things} VALUES (%s, 1)", [key])
            assert session.execute(f"SELECT v FROM {things} WHERE key = %s", [key]).fetchall() == [(1,)]
        session.execute(f"DELETE FROM {things} WHERE key = '.'")
        assert session.execute(f"SELECT count(*) FROM {things}").fetchone() == (OTHERS + len(KEYS) - 1,)
    assert set(KEYS) - set(names(cdf, "raw")) == {"."}


@pytest.mark.parametrize("name", [".", ".."])
def test_names_that_no_url_can_hold_are_refused(session, cdf, scratch, name):
    reason = "URLs"
    insert = "INSERT INTO raw_rows (db_name, table_name, key) VALUES (%s, %s, 'k')"
    with refused("22023", f'"{name}"', reason, "db_name"):
        session.execute(insert, [name, "t"])
    with refused("22023", f'"{name}"', reason, "table_name"):
        session.execute(insert, ["d", name])
    for where in (f"db_name = '{name}'", f"db_name = '{name}' AND table_name = 't'", f"db_name = 'd' AND table_name = '{name}'"):
        with refused("22023", reason):
            session.execute(f"SELECT * FROM raw_rows WHERE {where}")
        with refused("22023", reason):
            session.execute(f"DELETE FROM raw_rows WHERE {where} AND key = 'k'")
    for database, table in ((name, "t"), ("d", name)):
        place = scratch.table(f"odd_{database.replace('.', '_')}", "key text, v bigint", "raw_rows", database=database, table=table)
        for statement in (f"SELECT * FROM {place}", f"INSERT INTO {place} VALUES ('k', 1)", f"DELETE FROM {place} WHERE key = 'k'"):
            with refused("22023", reason):
                session.execute(statement)
        scratch.execute(f"DROP FOREIGN TABLE {place}")
    assert requests(cdf) == []
    session.execute("SELECT 1")


def test_names_that_cannot_be_have_no_rows(session, cdf, api):
    api.create_raw("d", "t", k={})
    for where in ("db_name = ''", "db_name = 'd' AND table_name = ''", f"db_name = '{'x' * 33}'", "db_name = 'd' AND key = ''"):
        assert session.execute(f"SELECT * FROM raw_rows WHERE {where}").fetchall() == []


# Columns in URLs.


def wide(scratch, name: str, count: int, length: int) -> list[str]:
    """A table of so many columns, whose names in RAW have so many characters."""
    named = [f"{at:03}" + "ö" * (length - 3) for at in range(count)]
    definitions = ", ".join(f"c{at} bigint OPTIONS (name '{column}')" for at, column in enumerate(named))
    scratch.table(name, f"key text, {definitions}", "raw_rows", database="d", table="t")
    return named


@pytest.mark.parametrize(("count", "length"), [(400, 20), (1200, 60), (1, 1500), (60, 4)])
def test_url_stays_short_whatever_the_columns(session, cdf, api, scratch, count, length):
    named = wide(scratch, "wide", count, length)
    rows = {f"r{at}": {column: at for column in named} | {"else": "x"} for at in range(3)}
    api.create_raw("d", "t", **rows)
    found = session.execute("SELECT * FROM scratch.wide ORDER BY key").fetchall()
    assert found == [(f"r{at}", *[at] * count) for at in range(3)]
    assert longest_url(cdf) <= 4096 - 1024
    assert session.execute("UPDATE scratch.wide SET c0 = 9 WHERE c0 > 1").rowcount == 1
    assert columns(cdf, "r2") == rows["r2"] | {named[0]: 9}
    assert longest_url(cdf) <= 4096


def test_few_columns_are_asked_for_by_name(session, cdf, api, scratch):
    named = wide(scratch, "wide", 400, 20)
    api.create_raw("d", "t", r={named[7]: 7, named[8]: 8})
    assert session.execute("SELECT c7 FROM scratch.wide").fetchall() == [(7,)]
    [entry] = requests(cdf, "/raw/dbs/d/tables/t/rows")
    assert "&columns=007" in entry["path"]


def test_cursor_has_room_in_the_url(session, cdf, api, scratch):
    named = wide(scratch, "wide", 60, 4)
    keys = [f"{at:05}" + "k" * 500 for at in range(10_001)]
    api.create_raw("d", "t", **{key: {named[0]: 1} for key in keys[:10_000]})
    api.create_raw("d", "t", **{keys[-1]: {named[0]: 1}})
    wanted = ", ".join(f"count(c{at})" for at in range(60))
    assert session.execute(f"SELECT count(*), {wanted} FROM scratch.wide").fetchone() == (10_001, 10_001, *[0] * 59)
    assert [bool("cursor=" in entry["path"]) for entry in requests(cdf)] == [False, True]
    assert longest_url(cdf) <= 4096
