"""Moments are UTC whatever the session's TimeZone: written to a column of another type, by defaults, and read back."""

from __future__ import annotations

from datetime import date, datetime, time, timezone

import pytest
from support import columns, dump, millis, refused, requests, stored

# Later than midnight in Oslo, still the day before in UTC.
MOMENT = datetime(2024, 6, 30, 22, 30, tzinfo=timezone.utc)
LITERAL = "timestamptz '2024-07-01 00:30:00+02'"
IN_UTC = {
    "timestamp": datetime(2024, 6, 30, 22, 30),
    "timestamp(0)": datetime(2024, 6, 30, 22, 30),
    "date": date(2024, 6, 30),
    "time": time(22, 30),
    "timetz": time(22, 30, tzinfo=timezone.utc),
    "timestamptz": MOMENT,
    "timestamp[]": [datetime(2024, 6, 30, 22, 30)],
    "date[]": [date(2024, 6, 30)],
    "scratch.moment": datetime(2024, 6, 30, 22, 30),
}


@pytest.fixture
def abroad(session, scratch):
    scratch.execute("CREATE DOMAIN moment AS timestamp")
    session.execute("SET TimeZone = 'Europe/Oslo'")
    return session


@pytest.fixture
def typed(scratch):
    def make(kind: str, default: str = "", name: str = "typed") -> str:
        definition = f"key text, value {kind} {default}"
        return scratch.table(name, definition, "raw_rows", database="d", table="t")

    return make


def shown(kind: str) -> str:
    """What stands in RAW."""
    text = {
        "date": "2024-06-30T00:00:00.000000Z",
        "time": "22:30:00",
        "timetz": "22:30:00+00",
    }.get(kind.removesuffix("[]"), "2024-06-30T22:30:00.000000Z")
    return [text] if kind.endswith("[]") else text


@pytest.mark.parametrize("kind", IN_UTC)
def test_a_moment_into_a_column_of_another_type(abroad, cdf, typed, kind):
    table = typed(kind)
    array = kind.endswith("[]")
    value = f"ARRAY[{LITERAL}]" if array else LITERAL
    bound = "%s::timestamptz[]" if array else "%s"
    parameter = [MOMENT] if array else MOMENT
    abroad.execute(f"INSERT INTO {table} VALUES ('literal', {value})")
    abroad.execute(f"INSERT INTO {table} VALUES ('first', {value}), ('second', {value})")
    abroad.execute(f"INSERT INTO {table} VALUES ('bound', {bound})", (parameter,))
    abroad.execute(f"INSERT INTO {table} SELECT 'selected', m FROM (VALUES ({value})) v (m)")
    abroad.execute(f"INSERT INTO {table} VALUES ('updated', NULL), ('joined', NULL)")
    abroad.execute(f"UPDATE {table} SET value = {value} WHERE key = 'updated'")
    abroad.execute(f"UPDATE {table} t SET value = v.m FROM (VALUES ({value})) v (m) WHERE t.key = 'joined'")
    abroad.execute(
        f"INSERT INTO {table} VALUES ('literal', {value}) ON CONFLICT (key) DO UPDATE SET value = EXCLUDED.value"
    )
    keys = ("literal", "first", "second", "bound", "selected", "updated", "joined")
    assert {key: columns(cdf, key)["value"] for key in keys} == {key: shown(kind) for key in keys}
    if kind != "timetz":
        rows = abroad.execute(f"SELECT DISTINCT value FROM {table}").fetchall()
        assert rows == [(IN_UTC[kind],)]


@pytest.mark.parametrize("kind", ["timestamp", "date", "time", "timestamptz", "scratch.moment"])
def test_defaults(abroad, cdf, typed, kind):
    table = typed(kind, f"DEFAULT {LITERAL}")
    abroad.execute(f"INSERT INTO {table} (key) VALUES ('insert')")
    abroad.execute(f"INSERT INTO {table} VALUES ('a', DEFAULT), ('b', DEFAULT)")
    abroad.execute(f"INSERT INTO {table} VALUES ('set', NULL)")
    abroad.execute(f"UPDATE {table} SET value = DEFAULT WHERE key = 'set'")
    with abroad.cursor().copy(f"COPY {table} (key) FROM STDIN") as copy:
        copy.write_row(("copy",))
        copy.write_row(("again",))
    keys = ("insert", "a", "b", "set", "copy", "again")
    assert {key: columns(cdf, key)["value"] for key in keys} == {key: shown(kind) for key in keys}


def test_defaults_of_a_copy_into_a_partition(abroad, scratch, cdf, gateway):
    scratch.execute(f"CREATE TABLE parted (key text, value timestamp DEFAULT {LITERAL}, kind text) PARTITION BY LIST (kind)")
    scratch.execute(
        "CREATE FOREIGN TABLE part (kind text, value timestamp, key text) SERVER cdf"
        " OPTIONS (resource 'raw_rows', database 'd', \"table\" 't')"
    )
    scratch.execute("ALTER TABLE parted ATTACH PARTITION part FOR VALUES IN ('x')")
    with abroad.cursor().copy("COPY scratch.parted (key, kind) FROM STDIN") as copy:
        copy.write_row(("k", "x"))
    assert columns(cdf, "k") == {"kind": "x", "value": "2024-06-30T22:30:00.000000Z"}


def test_a_copy_whose_default_a_trigger_would_see(abroad, scratch, cdf, typed):
    table = typed("timestamp", "DEFAULT now()")
    scratch.execute("CREATE FUNCTION keep() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NEW; END $$")
    scratch.execute("CREATE TRIGGER keep BEFORE INSERT ON typed FOR EACH ROW EXECUTE FUNCTION keep()")
    with refused("0A000", "value", "AT TIME ZONE"):
        with abroad.cursor().copy(f"COPY {table} (key) FROM STDIN") as copy:
            copy.write_row(("k",))
    assert requests(cdf) == []


def test_built_in_columns_declared_without_a_zone(abroad, scratch, cdf):
    table = scratch.table("local", "external_id text, start_time timestamp, end_time date", "events")
    abroad.execute(f"INSERT INTO {table} SELECT 'e', {LITERAL}, {LITERAL} + interval '2 days'")
    event = stored(cdf, "events", "e")
    assert (event["startTime"], event["endTime"]) == (millis("2024-06-30T22:30"), millis("2024-07-02"))
    assert abroad.execute(f"SELECT start_time, end_time FROM {table}").fetchall() == [
        (datetime(2024, 6, 30, 22, 30), date(2024, 7, 2))
    ]


def test_a_cast_that_the_user_writes_stays(abroad, cdf, typed):
    abroad.execute(f"INSERT INTO {typed('timestamp')} VALUES ('k', ({LITERAL})::timestamp)")
    assert columns(cdf, "k")["value"] == "2024-07-01T00:30:00.000000Z"


READ = {
    "2024-07-01T00:30:00+02:00": MOMENT,
    "2024-07-01 00:30:00.000+0200": MOMENT,
    "2024-06-30T22:30:00Z": MOMENT,
    "2024-06-30T22:30:00": MOMENT,
    "2024-06-30 22:30": MOMENT,
}


@pytest.mark.parametrize("text", READ)
@pytest.mark.parametrize("kind", ["timestamptz", "timestamp", "date", "timestamp[]", "timestamptz[]", "scratch.moment"])
def test_what_others_have_written_is_read_in_utc(abroad, cdf, typed, kind, text):
    value = [text] if kind.endswith("[]") else text
    table = typed("jsonb", name="written")
    abroad.execute(f"INSERT INTO {table} VALUES ('k', to_jsonb(%s{'::text[]' if kind.endswith('[]') else '::text'}))", (value,))
    found = abroad.execute(f"SELECT value FROM {typed(kind)}").fetchone()[0]
    moment = found[0] if kind.endswith("[]") else found
    if kind == "date":
        assert moment == date(2024, 6, 30)
    elif moment.tzinfo is None:
        assert moment == datetime(2024, 6, 30, 22, 30)
    else:
        assert moment == MOMENT


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        ("date", "586578-09-09"),
        ("date", "5874897-12-31"),
        ("date", "294277-01-01"),
        ("date", "10000-01-01"),
        ("date", "0044-03-15 BC"),
        ("date", "infinity"),
        ("timestamp", "294276-12-31 23:59:59"),
        ("timestamp", "4713-01-01 BC"),
        ("timestamptz", "10000-01-01Z"),
        ("timestamptz", "-infinity"),
        ("date[]", "{586578-09-09}"),
    ],
)
def test_moments_beyond_all_that_can_be_written_are_refused(abroad, cdf, typed, kind, value):
    with refused("22003", 'column "value"'):
        abroad.execute(f"INSERT INTO {typed(kind)} VALUES ('k', %s)", (value,))
    assert requests(cdf) == []


def test_a_date_far_away_in_an_event(abroad, scratch, cdf):
    table = scratch.table("days", "external_id text, start_time date", "events")
    for day in ("586578-09-09", "5874897-12-31", "4000-01-01 BC"):
        with refused("22003", 'column "start_time"'):
            abroad.execute(f"INSERT INTO {table} VALUES ('e', %s)", (day,))
    assert dump(cdf, "events") == []
