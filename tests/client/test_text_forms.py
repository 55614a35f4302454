"""Types that are sent as PostgreSQL prints them have the same text under all settings of the session, and are read back from it."""

from __future__ import annotations

import pytest
from support import columns, names

FOREIGN = [
    "DateStyle = 'SQL, DMY'",
    "IntervalStyle = 'sql_standard'",
    "TimeZone = 'Europe/Oslo'",
    "extra_float_digits = -15",
    "bytea_output = 'escape'",
    "quote_all_identifiers = on",
    "array_nulls = off",
    "search_path = scratch",
]

VALUES = {
    "daterange": ("'[2024-02-03,2024-03-04)'", "[2024-02-03,2024-03-04)"),
    "tstzrange": (
        "'[2024-07-01 00:30:00+02,)'",
        '["2024-06-30 22:30:00+00",)',
    ),
    "tsrange": ("'[2024-02-03 00:00,)'", '["2024-02-03 00:00:00",)'),
    "datemultirange": ("'{[2024-02-03,2024-03-04)}'", "{[2024-02-03,2024-03-04)}"),
    "interval": ("'1 day 2 hours ago'", "-1 days -02:00:00"),
    "point": ("'(0.1,1.00000000000000001)'", "(0.1,1)"),
    "scratch.pair": ("ROW(DATE '2024-02-03', 1.1::float8, 'x'::bytea)", '(2024-02-03,1.1,"\\\\x78")'),
    "scratch.period": ("'[2024-02-03,2024-03-04)'", "[2024-02-03,2024-03-04)"),
    "regclass": ("'scratch.told'::regclass", "scratch.told"),
    "regproc": ("'pg_catalog.now'::regproc", "now"),
    "daterange[]": ("ARRAY['[2024-02-03,2024-03-04)'::daterange, NULL]", ["[2024-02-03,2024-03-04)", None]),
    "interval[]": ("ARRAY['2 hours'::interval]", ["02:00:00"]),
    "text[]": ("ARRAY['a', NULL]", ["a", None]),
    "xml": ("'a<b/>'::xml", "a<b/>"),
}


@pytest.fixture
def types(scratch):
    scratch.execute("CREATE TYPE pair AS (day date, number float8, bytes bytea)")
    scratch.execute("CREATE DOMAIN period AS daterange")
    scratch.execute("CREATE TABLE told ()")
    return scratch


@pytest.mark.parametrize("kind", VALUES)
def test_values_look_the_same_in_every_session(session, types, cdf, kind):
    literal, wanted = VALUES[kind]
    table = types.table("typed", f"key text, value {kind}", "raw_rows", database="d", table="t")
    session.execute("SET xmloption = content")
    session.execute(f"INSERT INTO {table} VALUES ('plain', {literal})")
    session.execute(f"CREATE TEMP TABLE kept AS SELECT {literal}::{kind} AS value")
    session.execute(f"INSERT INTO {table} VALUES ('changed', NULL)")
    for setting in FOREIGN:
        session.execute(f"SET {setting}")
    # A literal would be read by the session's settings, as it should be.
    session.execute(f"INSERT INTO {table} SELECT 'foreign', value FROM pg_temp.kept")
    session.execute(f"UPDATE {table} t SET value = k.value FROM pg_temp.kept k WHERE t.key = 'changed'")
    assert {key: columns(cdf, key)["value"] for key in ("plain", "foreign", "changed")} == {
        "plain": wanted,
        "foreign": wanted,
        "changed": wanted,
    }
    query = f"SELECT count(*) FROM {table} t, pg_temp.kept k WHERE t.value::text = k.value::text"
    session.execute("SET xmloption = document")
    assert session.execute(query).fetchone() == (3,)
    # The session keeps its own settings.
    assert session.execute("SHOW DateStyle").fetchone() == ("SQL, DMY",)
    assert session.execute("SHOW search_path").fetchone()[0].strip('"') == "scratch"


def test_a_key_of_such_a_type_finds_its_row(session, types, cdf):
    table = types.table("keyed", "key daterange, n int", "raw_rows", database="d", table="t")
    session.execute(f"INSERT INTO {table} VALUES ('[2024-02-03,2024-03-04)', 1), ('[2024-05-06,2024-06-07)', 2)")
    session.execute("SET DateStyle = 'German'")
    assert session.execute(f"UPDATE {table} SET n = 3 WHERE n = 1").rowcount == 1
    assert session.execute(f"DELETE FROM {table} WHERE lower(key) = '06.05.2024'").rowcount == 1
    assert names(cdf, "raw") == ["[2024-02-03,2024-03-04)"]
    assert columns(cdf, "[2024-02-03,2024-03-04)")["n"] == 3


def test_money(session, types, cdf):
    table = types.table("typed", "key text, value money", "raw_rows", database="d", table="t")
    session.execute(f"INSERT INTO {table} VALUES ('k', 1234.5)")
    assert columns(cdf, "k")["value"] == "$1,234.50"
    assert session.execute(f"SELECT value::numeric FROM {table}").fetchone()[0] == 1234.5


def test_an_error_in_between_leaves_the_settings_as_they_were(session, types, cdf):
    table = types.table("typed", "key text, value daterange", "raw_rows", database="d", table="t")
    written = types.table("written", "key text, value text", "raw_rows", database="d", table="t")
    session.execute(f"INSERT INTO {written} VALUES ('k', 'no range')")
    session.execute("SET DateStyle = 'SQL, DMY'")
    with pytest.raises(Exception, match="no range"):
        session.execute(f"SELECT * FROM {table}")
    assert session.execute("SHOW DateStyle").fetchone() == ("SQL, DMY",)
    session.execute(
        "DO $$ BEGIN PERFORM * FROM scratch.typed; EXCEPTION WHEN OTHERS THEN"
        " ASSERT current_setting('DateStyle') = 'SQL, DMY'; END $$"
    )
    assert session.execute("SHOW DateStyle").fetchone() == ("SQL, DMY",)
