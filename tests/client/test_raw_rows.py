"""RAW: the generic table, tables with typed columns, and what JSON arrives of each type."""

from __future__ import annotations

import uuid
from datetime import date, datetime, timezone
from decimal import Decimal

import pytest
from psycopg.types.json import Json, Jsonb
from support import assert_each_key_once, columns, dump, names, paths, refused, requests

RAW = "INSERT INTO raw_rows (db_name, table_name, key, columns) VALUES (%s, %s, %s, %s)"


def rows(cdf) -> dict[tuple[str, str, str], dict]:
    return {(row["database"], row["table"], row["key"]): row["columns"] for row in dump(cdf, "raw")}


# ---- the generic table ----


def test_rows_of_several_databases_and_tables(session, cdf):
    wanted = {
        (f"db{at % 2}", f"table{at % 3}", f"key{at}"): {"at": at, "in": {"list": [1, None, "x"]}} for at in range(60)
    }
    with session.transaction():
        for (database, table, key), document in wanted.items():
            session.execute(RAW, (database, table, key, Jsonb(document)))
        assert requests(cdf) == []
    assert rows(cdf) == wanted
    assert sorted(paths(cdf)) == [f"/raw/dbs/db{d}/tables/table{t}/rows" for d in range(2) for t in range(3)]


def test_databases_and_tables_are_created(session, cdf):
    session.execute(RAW, ("new", "table", "k", Jsonb({})))
    [entry] = requests(cdf)
    assert entry["path"].endswith("?ensureParent=true")


@pytest.mark.parametrize("name", ["with space", "a/b", "ü", "a?b=c&d", "100%", "#1", "...", "a+b", '"q"'])
def test_names_of_any_letters(session, cdf, name):
    session.execute(RAW, (name, name, name, Jsonb({name: name})))
    assert rows(cdf) == {(name, name, name): {name: name}}


@pytest.mark.parametrize("key", ["a b", "ü", "/", "\n", "x" * 1024, "🛢", '"'])
def test_keys_of_any_letters(session, cdf, key):
    session.execute(RAW, ("d", "t", key, Jsonb({})))
    assert names(cdf, "raw") == [key]


def test_every_json_value_arrives_as_it_is(session, cdf):
    document = {
        "text": 'quote " ü \u2028',
        "int": 9007199254740993,
        "decimal": 1.5,
        "flag": True,
        "none": None,
        "list": [1, "a", None, [2], {"k": None}],
        "object": {"a": {"b": {}}},
        "": "empty name",
    }
    session.execute(RAW, ("d", "t", "k", Jsonb(document)))
    assert columns(cdf, "k") == document


def test_digits_of_numbers_are_kept(session, cdf):
    digits = ["123456789012345678901234567890", "0.1234567890123456789012345", "1.500"]
    session.execute(RAW, ("d", "t", "k", f"[{','.join(digits)}]".join(('{"n": ', "}"))))
    [entry] = requests(cdf)
    # Spaces after a comma or a colon are jsonb's way of printing, not values.
    rest = len('{"items":[{"key":"k","columns":{"n":[,,]}}]}')
    assert len("".join(digits)) + rest <= entry["decoded_bytes"] <= len("".join(digits)) + rest + 3


def test_no_columns(session, cdf):
    session.execute("INSERT INTO raw_rows (db_name, table_name, key) VALUES ('d', 't', 'a')")
    session.execute(RAW, ("d", "t", "b", None))
    assert rows(cdf) == {("d", "t", "a"): {}, ("d", "t", "b"): {}}


def test_a_row_replaces_what_is_there(session, cdf, api):
    api.create_raw("d", "t", k={"old": 1, "both": 1}, other={"x": 1})
    session.execute(RAW, ("d", "t", "k", Jsonb({"both": 2, "new": 2})))
    assert columns(cdf, "k") == {"both": 2, "new": 2}
    assert columns(cdf, "other") == {"x": 1}


def test_the_last_row_of_a_key_wins_whole(session, cdf):
    with session.transaction():
        session.execute(
            "INSERT INTO raw_rows (db_name, table_name, key, columns) VALUES"
            " ('d', 't', 'k', '{\"a\": 1, \"b\": 1}'), ('d', 't', 'k', '{\"b\": 2}'), ('d', 'u', 'k', '{\"a\": 3}')"
        )
        session.execute("SAVEPOINT undone")
        session.execute(RAW, ("d", "t", "k", Jsonb({"lost": True})))
        session.execute("ROLLBACK TO undone")
        session.execute(RAW, ("d", "t", "k", Jsonb({"c": 4})))
    assert rows(cdf) == {("d", "t", "k"): {"c": 4}, ("d", "u", "k"): {"a": 3}}
    assert_each_key_once(requests(cdf))


@pytest.mark.parametrize("gap", [0, 999, 4999, 5000, 9999, 10_001])
def test_a_key_again_on_either_side_of_the_limit_of_a_request(session, cdf, gap):
    with session.transaction():
        session.execute(RAW, ("d", "t", "k", Jsonb({"first": 1})))
        session.execute(
            "INSERT INTO raw_rows (db_name, table_name, key)"
            " SELECT 'd', 't', 'x' || n FROM generate_series(1, %s::int) AS n",
            (gap,),
        )
        session.execute(RAW, ("d", "t", "k", Jsonb({"last": 1})))
    assert columns(cdf, "k") == {"last": 1}
    assert all(entry["items"] <= 10_000 for entry in requests(cdf))


def test_the_same_table_by_two_ways(session, cdf, scratch):
    table = scratch.table("typed", "key text, n int", "raw_rows", database="d", table="t")
    with session.transaction():
        session.execute(RAW, ("d", "t", "k", Jsonb({"generic": 1})))
        session.execute(f"INSERT INTO {table} VALUES ('k', 1)")
        session.execute(f"INSERT INTO {table} VALUES ('l', 1)")
        session.execute(RAW, ("d", "t", "l", Jsonb({"generic": 1})))
    assert columns(cdf, "k") == {"n": 1}
    assert columns(cdf, "l") == {"generic": 1}
    assert_each_key_once(requests(cdf))


# ---- tables with typed columns ----


@pytest.fixture
def typed(scratch):
    """Makes a RAW table with a key column and one column `value` of a type."""

    def make(kind: str, **options: str) -> str:
        return scratch.table("typed", f"key text, value {kind}", "raw_rows", database="d", table="t", **options)

    return make


MOMENT = datetime(2024, 1, 31, 12, 30, 15, 123456, timezone.utc)
IDENTIFIER = "6f9619ff-8b86-d011-b42d-00cf4fc964ff"
VALUES = [
    ("text", 'ü " \\ \n', 'ü " \\ \n'),
    ("text", "", ""),
    ("varchar(10)", "abc", "abc"),
    ("varchar", "abc", "abc"),
    ("char(5)", "abc", "abc  "),
    ("boolean", True, True),
    ("boolean", False, False),
    ("smallint", -32768, -32768),
    ("int", 2147483647, 2147483647),
    ("bigint", 9223372036854775807, 9223372036854775807),
    ("real", 0.1, 0.1),
    ("real", 16777216.0, 16777216.0),
    ("double precision", 0.1, 0.1),
    ("double precision", 1.7976931348623157e308, 1.7976931348623157e308),
    ("double precision", 5e-324, 5e-324),
    ("double precision", 3.0, 3.0),
    ("numeric", Decimal("12345678.875"), 12345678.875),
    ("numeric(10,2)", Decimal("-0.5"), -0.5),
    ("numeric", Decimal("7"), 7),
    ("json", Json({"a": [1, None, {"b": "x"}]}), {"a": [1, None, {"b": "x"}]}),
    ("json", Json(None), None),
    ("jsonb", Jsonb([1, "a", None]), [1, "a", None]),
    ("jsonb", Jsonb("text"), "text"),
    ("uuid", uuid.UUID(IDENTIFIER), IDENTIFIER),
    ("bytea", b"\x00\xff\x10binary", "AP8QYmluYXJ5"),
    ("bytea", b"", ""),
    ("text[]", ["a", None, "", 'q"', "{}"], ["a", None, "", 'q"', "{}"]),
    ("text[]", [], []),
    ("varchar[]", ["a"], ["a"]),
    ("boolean[]", [True, False, None], [True, False, None]),
    ("smallint[]", [1, -2], [1, -2]),
    ("int[]", [1, None, 3], [1, None, 3]),
    ("bigint[]", [2**53 + 1], [2**53 + 1]),
    ("real[]", [0.1, 2.5], [0.1, 2.5]),
    ("double precision[]", [0.1, None], [0.1, None]),
    ("numeric[]", [Decimal("1.25")], [1.25]),
    ("jsonb[]", [Jsonb({"a": 1}), Jsonb([None])], [{"a": 1}, [None]]),
    ("uuid[]", [uuid.UUID(IDENTIFIER)], [IDENTIFIER]),
    ("bytea[]", [b"\xff", b"a"], ["/w==", "YQ=="]),
]


@pytest.mark.parametrize(("kind", "value", "found"), VALUES, ids=lambda value: str(value)[:20])
def test_types(session, cdf, typed, kind, value, found):
    table = typed(kind)
    session.execute(f"INSERT INTO {table} VALUES ('k', %s)", (value,))
    arrived = columns(cdf, "k")
    assert arrived == {"value": found}
    assert type(arrived["value"]) is type(found)


MOMENTS = [
    ("timestamptz", MOMENT, "2024-01-31T12:30:15.123456Z"),
    ("timestamptz", "2024-01-31 12:00:00-05", "2024-01-31T17:00:00Z"),
    ("timestamptz", "0044-03-15 12:00:00Z", "0044-03-15T12:00:00Z"),
    ("timestamp", "2024-01-31 12:30:15.5", "2024-01-31T12:30:15.5Z"),
    ("timestamp", datetime(2024, 1, 31, 12), "2024-01-31T12:00:00Z"),
]


@pytest.mark.parametrize(("kind", "value", "found"), MOMENTS, ids=lambda value: str(value)[:20])
def test_moments_are_iso_8601_in_utc(session, cdf, typed, kind, value, found):
    session.execute("SET TimeZone = 'America/New_York'")
    session.execute("SET DateStyle = 'German'")
    session.execute(f"INSERT INTO {typed(kind)} VALUES ('k', %s)", (value,))
    text = columns(cdf, "k")["value"]
    assert text.endswith("Z") and text[10] == "T"
    assert datetime.fromisoformat(text) == datetime.fromisoformat(found)


def test_arrays_of_moments(session, cdf, typed):
    session.execute(f"INSERT INTO {typed('timestamptz[]')} VALUES ('k', %s)", ([MOMENT, None],))
    moment, nothing = columns(cdf, "k")["value"]
    assert datetime.fromisoformat(moment) == MOMENT and nothing is None


@pytest.mark.parametrize("zone", ["UTC", "America/New_York", "Asia/Tokyo"])
def test_dates_are_the_same_day_in_every_time_zone(session, cdf, typed, zone):
    session.execute(f"SET TimeZone = '{zone}'")
    session.execute(f"INSERT INTO {typed('date')} VALUES ('k', %s)", (date(2024, 1, 31),))
    assert columns(cdf, "k")["value"].startswith("2024-01-31")


def test_digits_of_numeric_are_kept(session, cdf, typed):
    digits = "123456789012345678901234567890.123456789"
    session.execute(f"INSERT INTO {typed('numeric')} VALUES ('k', '{digits}')")
    [entry] = requests(cdf)
    assert entry["decoded_bytes"] == len('{"items":[{"key":"k","columns":{"value":}}]}') + len(digits)


def test_all_types_in_one_row(session, cdf, scratch):
    kinds = ["text", "boolean", "int", "double precision", "numeric", "timestamptz", "jsonb", "uuid", "bytea", "text[]"]
    definition = ", ".join(["key text", *(f"c{at} {kind}" for at, kind in enumerate(kinds))])
    table = scratch.table("all_types", definition, "raw_rows", database="d", table="t")
    session.execute(
        f"INSERT INTO {table} VALUES"
        f" ('k', 'a', true, 1, 1.5, 2.5, '2024-01-01Z', '{{}}', '{IDENTIFIER}', 'a', '{{x}}'),"
        " ('nulls', NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL)"
    )
    row = columns(cdf, "k")
    moment = row.pop("c5")
    assert datetime.fromisoformat(moment) == datetime(2024, 1, 1, tzinfo=timezone.utc)
    assert row == {
        "c0": "a",
        "c1": True,
        "c2": 1,
        "c3": 1.5,
        "c4": 2.5,
        "c6": {},
        "c7": IDENTIFIER,
        "c8": "YQ==",
        "c9": ["x"],
    }
    assert columns(cdf, "nulls") == {}


def test_typed_tables_through_binary_copy(session, cdf, scratch):
    table = scratch.table(
        "typed",
        "key text, n int, x numeric, at timestamptz, doc jsonb, tags text[]",
        "raw_rows",
        database="d",
        table="t",
    )
    with session.cursor().copy(f"COPY {table} FROM STDIN (FORMAT binary)") as copy:
        copy.set_types(["text", "int4", "numeric", "timestamptz", "jsonb", "text[]"])
        copy.write_row(("k", 7, Decimal("1.25"), MOMENT, Jsonb({"a": 1}), ["x", None]))
        copy.write_row(("nulls", None, None, None, None, None))
    row = columns(cdf, "k")
    assert datetime.fromisoformat(row.pop("at")) == MOMENT
    assert row == {"n": 7, "x": 1.25, "doc": {"a": 1}, "tags": ["x", None]}
    assert columns(cdf, "nulls") == {}


# ---- keys ----


def test_a_key_column_called_key_is_not_written_as_a_column(session, cdf, scratch):
    table = scratch.table("typed", "n int, key text", "raw_rows", database="d", table="t")
    session.execute(f"INSERT INTO {table} VALUES (1, 'k')")
    assert rows(cdf) == {("d", "t", "k"): {"n": 1}}


def test_another_key_column_is_also_written(session, cdf, scratch):
    table = scratch.table(
        "movies", "title text, year timestamptz, stars int", "raw_rows", database="d", table="t", primary_key="title"
    )
    session.execute(f"INSERT INTO {table} (title, stars) VALUES ('Alien', 5), ('Brazil', NULL)")
    assert rows(cdf) == {
        ("d", "t", "Alien"): {"title": "Alien", "stars": 5},
        ("d", "t", "Brazil"): {"title": "Brazil"},
    }


def test_a_column_called_key_beside_another_primary_key(session, cdf, scratch):
    table = scratch.table("typed", "id text, key text", "raw_rows", database="d", table="t", primary_key="id")
    session.execute(f"INSERT INTO {table} VALUES ('a', 'b')")
    assert rows(cdf) == {("d", "t", "a"): {"id": "a", "key": "b"}}


def test_names_of_raw_columns(session, cdf, scratch):
    table = scratch.table(
        "typed",
        "tag text OPTIONS (name 'Tag No.'), \"kW\" float8, note text OPTIONS (name 'ü \"note\"')",
        "raw_rows",
        database="d",
        table="t",
        primary_key="tag",
    )
    session.execute(f"INSERT INTO {table} VALUES ('p', 7.5, 'x')")
    assert rows(cdf) == {("d", "t", "p"): {"Tag No.": "p", "kW": 7.5, 'ü "note"': "x"}}


@pytest.mark.parametrize(
    ("kind", "literal", "key"),
    [
        ("varchar(10)", "'abc'", "abc"),
        ("int", "7", "7"),
        ("bigint", "-9223372036854775808", "-9223372036854775808"),
        ("numeric(5,2)", "1.5", "1.50"),
        ("uuid", f"'{IDENTIFIER}'", IDENTIFIER),
    ],
)
def test_keys_of_other_types(session, cdf, scratch, kind, literal, key):
    table = scratch.table("typed", f"id {kind}, n int", "raw_rows", database="d", table="t", primary_key="id")
    session.execute(f"INSERT INTO {table} VALUES ({literal}, 1), ({literal}, 2)")
    assert names(cdf, "raw") == [key]
    assert columns(cdf, key)["n"] == 2


def test_a_table_without_its_key_column_is_refused(session, cdf, scratch):
    table = scratch.table("typed", "tag text", "raw_rows", database="d", table="t")
    with refused("HV00J", "key", "primary_key"):
        session.execute(f"INSERT INTO {table} VALUES ('a')")


# ---- NULL ----


def test_null_columns_are_left_out(session, cdf, scratch, api):
    table = scratch.table("typed", "key text, a int, b text, c jsonb", "raw_rows", database="d", table="t")
    api.create_raw("d", "t", k={"a": 1, "b": "old", "other": 1})
    session.execute(f"INSERT INTO {table} VALUES ('k', 2, NULL, NULL)")
    assert columns(cdf, "k") == {"a": 2}


def test_null_columns_are_json_null_under_set_null(session, cdf, scratch):
    table = scratch.table(
        "typed",
        "key text, a int, b text, c jsonb, d text[]",
        "raw_rows",
        database="d",
        table="t",
        null_handling="set_null",
    )
    session.execute(f"INSERT INTO {table} VALUES ('k', 2, NULL), ('l', NULL, 'x')")
    assert columns(cdf, "k") == {"a": 2, "b": None, "c": None, "d": None}
    assert columns(cdf, "l") == {"a": None, "b": "x", "c": None, "d": None}


def test_the_last_row_of_a_typed_table_wins_whole(session, cdf, typed):
    table = typed("int")
    session.execute(f"INSERT INTO {table} VALUES ('k', 1), ('k', NULL), ('l', NULL), ('l', 2)")
    assert rows(cdf) == {("d", "t", "k"): {}, ("d", "t", "l"): {"value": 2}}


# ---- tables whose names hold anything ----


def test_databases_and_tables_of_any_name(session, cdf, scratch):
    table = scratch.table("typed", "key text, n int", "raw_rows", database="a b/ü", table="x?y")
    session.execute(f"INSERT INTO {table} VALUES ('k', 1)")
    assert rows(cdf) == {("a b/ü", "x?y", "k"): {"n": 1}}


def test_several_typed_tables_in_one_transaction(session, cdf, scratch):
    tables = [scratch.table(f"t{at}", "key text, n int", "raw_rows", database="d", table=f"t{at}") for at in range(5)]
    with session.transaction():
        for at, table in enumerate(tables):
            session.execute(f"INSERT INTO {table} SELECT 'k' || n, %s::int FROM generate_series(1, 10) AS n", (at,))
    assert rows(cdf) == {("d", f"t{at}", f"k{n}"): {"n": at} for at in range(5) for n in range(1, 11)}
    assert len(requests(cdf)) == 5


def test_large_rows_are_spread_over_requests(session, cdf):
    session.execute(
        "INSERT INTO raw_rows (db_name, table_name, key, columns)"
        " SELECT 'd', 't', 'k' || n, jsonb_build_object('text', repeat('x', 1000000)) FROM generate_series(1, 12) AS n"
    )
    assert len(names(cdf, "raw")) == 12
    assert all(entry["decoded_bytes"] < 8_000_000 for entry in requests(cdf))
