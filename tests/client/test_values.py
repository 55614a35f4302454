"""Values that CDF does not accept are refused by the INSERT that has them; the error names the column and the limit."""

from __future__ import annotations

import pytest
from psycopg import sql
from psycopg.types.json import Jsonb
from support import Api, dump, names, points, refused, requests, stored


def insert(table: str, **row) -> tuple[sql.Composed, list]:
    """An INSERT of one row, with its parameters."""
    statement = sql.SQL("INSERT INTO {} ({}) VALUES ({})").format(
        sql.SQL(table),
        sql.SQL(", ").join(map(sql.Identifier, row)),
        sql.SQL(", ").join([sql.Placeholder()] * len(row)),
    )
    return statement, list(row.values())


def assert_refused(session, cdf, statement, parameters, sqlstate: str, *texts: str) -> None:
    """The INSERT itself is refused, inside of a transaction that could still go on; alone, it sends nothing."""
    with session.transaction():
        session.execute("INSERT INTO events (external_id) VALUES ('beside')")
        with refused(sqlstate, *texts), session.transaction():
            session.execute(statement, parameters)
        assert requests(cdf) == [], "something was sent before COMMIT"
    assert names(cdf, "events") == ["beside"]
    sent = len(requests(cdf))
    with refused(sqlstate, *texts):
        session.execute(statement, parameters)
    assert len(requests(cdf)) == sent
    session.execute("INSERT INTO events (external_id) VALUES ('after')")
    assert names(cdf, "events") == ["after", "beside"]


# ---- texts ----

# table, column, characters, other columns of the row
TEXTS = [
    ("assets", "external_id", 255, {"name": "A"}),
    ("assets", "name", 140, {"external_id": "row"}),
    ("assets", "description", 500, {"external_id": "row", "name": "A"}),
    ("assets", "source", 128, {"external_id": "row", "name": "A"}),
    ("events", "external_id", 255, {}),
    ("events", "type", 64, {"external_id": "row"}),
    ("events", "subtype", 64, {"external_id": "row"}),
    ("events", "description", 500, {"external_id": "row"}),
    ("events", "source", 128, {"external_id": "row"}),
    ("timeseries", "external_id", 255, {}),
    ("timeseries", "name", 255, {"external_id": "row"}),
    ("timeseries", "unit", 32, {"external_id": "row"}),
    ("timeseries", "unit_external_id", 64, {"external_id": "row"}),
    ("timeseries", "description", 1000, {"external_id": "row"}),
]
IDS = [f"{table}.{column}" for table, column, _, _ in TEXTS]


@pytest.mark.parametrize("letter", ["x", "ü", "漢"], ids=["one byte", "two bytes", "three bytes"])
@pytest.mark.parametrize(("table", "column", "limit", "others"), TEXTS, ids=IDS)
def test_texts(session, cdf, table, column, limit, others, letter):
    session.execute(*insert(table, **others, **{column: letter * limit}))
    [item] = dump(cdf, table)
    assert letter * limit in item.values()
    cdf.reset()
    row = insert(table, **others, **{column: letter * (limit + 1)})
    assert_refused(session, cdf, *row, "22001", f'"{column}"', str(limit), str(limit + 1))


@pytest.mark.parametrize(
    ("table", "column", "row"),
    [
        ("assets", "parent_external_id", {"external_id": "row", "name": "A", "parent_external_id": "x" * 256}),
        ("assets", "data_set_external_id", {"external_id": "row", "name": "A", "data_set_external_id": "x" * 256}),
        ("assets", "labels", {"external_id": "row", "name": "A", "labels": ["x" * 256]}),
        ("events", "data_set_external_id", {"external_id": "row", "data_set_external_id": "x" * 256}),
        ("events", "asset_external_ids", {"external_id": "row", "asset_external_ids": ["a", "x" * 256]}),
        ("timeseries", "asset_external_id", {"external_id": "row", "asset_external_id": "x" * 256}),
        ("datapoints", "external_id", {"external_id": "x" * 256, "timestamp": "2024-01-01Z", "value": 1}),
        (
            "datapoints",
            "instance_external_id",
            {"instance_space": "s", "instance_external_id": "x" * 256, "timestamp": "2024-01-01Z", "value": 1},
        ),
    ],
)
def test_names_of_other_items(session, cdf, table, column, row):
    assert_refused(session, cdf, *insert(table, **row), "22001", f'"{column}"', "255")


def test_an_empty_asset_name(session, cdf):
    assert_refused(session, cdf, *insert("assets", external_id="row", name=""), "22023", '"name"')


def test_empty_texts_elsewhere_are_values(session, cdf):
    session.execute(*insert("events", external_id="e", type="", description=""))
    event = stored(cdf, "events", "e")
    assert (event["type"], event["description"]) == ("", "")


def test_the_error_names_the_row(session, cdf):
    statement, row = insert("events", external_id="the-row", type="x" * 65)
    with refused("22001", "the-row"):
        session.execute(statement, row)


# ---- metadata ----

METADATA = [("assets", 10_240, 10_240), ("events", 128_000, 200_000), ("timeseries", None, 10_000)]


def with_metadata(table: str, metadata: dict) -> tuple[sql.Composed, list]:
    name = {"name": "A"} if table == "assets" else {}
    return insert(table, external_id="row", metadata=Jsonb(metadata), **name)


def size(metadata: dict) -> int:
    return sum(len(part.encode()) for pair in metadata.items() for part in pair)


def assert_limit(session, cdf, table: str, good: dict, bad: dict, *texts: str) -> None:
    session.execute(*with_metadata(table, good))
    assert stored(cdf, table, "row")["metadata"] == good
    cdf.reset()
    assert_refused(session, cdf, *with_metadata(table, bad), "22001", '"metadata"', *texts)


@pytest.mark.parametrize("table", ["assets", "events", "timeseries"])
def test_metadata_pairs(session, cdf, table):
    good = {f"k{at}": "v" for at in range(256)}
    assert_limit(session, cdf, table, good, good | {"more": "v"}, "256", "257")


@pytest.mark.parametrize("table", ["assets", "events", "timeseries"])
def test_metadata_keys_are_counted_in_bytes(session, cdf, table):
    assert_limit(session, cdf, table, {"ü" * 64: "v"}, {"ü" * 64 + "x": "v"}, "128", "129")


@pytest.mark.parametrize(("table", "value", "total"), METADATA)
def test_metadata_total_is_counted_in_bytes(session, cdf, table, value, total):
    good = {f"k{at}": "ü" * (total // 20) for at in range(9)}
    rest = total - size(good) - 1
    good["z"] = "x" * rest
    assert size(good) == total
    assert_limit(session, cdf, table, good, good | {"z": "x" * (rest + 1)}, str(total), str(total + 1))


def test_metadata_values_of_events_are_counted_in_bytes(session, cdf):
    assert_limit(session, cdf, "events", {"k": "ü" * 64_000}, {"k": "ü" * 64_000 + "x"}, "128000", "128001")


def test_metadata_counts_what_is_written(session, cdf):
    # Nulls are left out, so they do not count; numbers count as their text.
    metadata = {f"null {at}": None for at in range(300)} | {"n": 1.5}
    session.execute(*with_metadata("events", metadata))
    assert stored(cdf, "events", "row")["metadata"] == {"n": "1.5"}


def test_metadata_that_is_no_json_is_refused_by_postgresql(session, cdf):
    assert_refused(session, cdf, "INSERT INTO events (external_id, metadata) VALUES ('e', '{')", None, "22P02", "json")


# ---- arrays, objects ----


@pytest.mark.parametrize(
    ("table", "column", "value", "limit"),
    [
        ("assets", "labels", [f"l{at}" for at in range(11)], 10),
        ("events", "asset_ids", list(range(1, 10_002)), 10_000),
        ("events", "asset_external_ids", [f"a{at}" for at in range(10_001)], 10_000),
    ],
)
def test_too_many_elements(session, cdf, table, column, value, limit):
    row = insert(table, external_id="row", **{column: value}, **({"name": "A"} if table == "assets" else {}))
    assert_refused(session, cdf, *row, "22001", f'"{column}"', str(limit), str(limit + 1))


@pytest.mark.parametrize(
    ("table", "column", "value"),
    [
        ("assets", "labels", ["a", None]),
        ("events", "asset_ids", [1, None]),
        ("events", "asset_external_ids", [None]),
        ("timeseries", "security_categories", [1, None]),
    ],
)
def test_null_elements(session, cdf, table, column, value):
    row = insert(table, external_id="row", **{column: value}, **({"name": "A"} if table == "assets" else {}))
    assert_refused(session, cdf, *row, "22004", f'"{column}"')


@pytest.mark.parametrize(
    ("table", "column", "value"),
    [
        ("assets", "labels", ["a", "b", "a"]),
        ("events", "asset_ids", [5, 5]),
        ("events", "asset_external_ids", ["a", "b", "a"]),
    ],
)
def test_an_array_with_an_element_twice(session, cdf, table, column, value):
    row = insert(table, external_id="row", **{column: value}, **({"name": "A"} if table == "assets" else {}))
    assert_refused(session, cdf, *row, "22023", f'"{column}"')


def test_arrays_of_arrays(session, cdf):
    row = insert("events", external_id="row", asset_ids=[[1, 2], [3, 4]])
    assert_refused(session, cdf, *row, "22023", '"asset_ids"')


@pytest.mark.parametrize("document", ["[1]", '"x"', "7", "{}", '{"type": "Feature"}', '{"geometry": {}}'])
def test_geo_locations_that_are_none(session, cdf, document):
    row = insert("assets", external_id="row", name="A", geo_location=document)
    assert_refused(session, cdf, *row, "22023", '"geo_location"')


# ---- ids and read-only columns ----


@pytest.mark.parametrize("number", [0, -1, 9_007_199_254_740_992, -(2**63), 2**63 - 1])
@pytest.mark.parametrize(
    ("table", "column"),
    [
        ("events", "id"),
        ("assets", "parent_id"),
        ("assets", "data_set_id"),
        ("timeseries", "asset_id"),
        ("datapoints", "id"),
    ],
)
def test_ids_out_of_range(session, cdf, table, column, number):
    others = {
        "events": {"type": "x"},
        "assets": {"external_id": "row", "name": "A"},
        "timeseries": {"external_id": "row"},
        "datapoints": {"timestamp": "2024-01-01Z", "value": 1},
    }
    row = insert(table, **others[table], **{column: number})
    assert_refused(session, cdf, *row, "22003", f'"{column}"', str(number), "9007199254740991")


def test_ids_in_an_array_out_of_range(session, cdf):
    row = insert("events", external_id="row", asset_ids=[1, 0])
    assert_refused(session, cdf, *row, "22003", '"asset_ids"')


@pytest.mark.parametrize(
    ("table", "column", "value"),
    [
        ("assets", "root_id", 1),
        ("assets", "created_time", "2024-01-01Z"),
        ("assets", "last_updated_time", "2024-01-01Z"),
        ("events", "created_time", "2024-01-01Z"),
        ("events", "last_updated_time", "2024-01-01Z"),
        ("timeseries", "created_time", "2024-01-01Z"),
        ("timeseries", "last_updated_time", "2024-01-01Z"),
        ("raw_rows", "last_updated_time", "2024-01-01Z"),
    ],
)
def test_read_only_columns(session, cdf, table, column, value):
    others = {
        "assets": {"external_id": "row", "name": "A"},
        "events": {"external_id": "row"},
        "timeseries": {"external_id": "row"},
        "raw_rows": {"db_name": "d", "table_name": "t", "key": "row", "columns": "{}"},
    }
    assert_refused(session, cdf, *insert(table, **others[table], **{column: value}), "22023", f'"{column}"')
    session.execute(*insert(table, **others[table], **{column: None}))


# ---- times ----


@pytest.mark.parametrize("column", ["start_time", "end_time"])
@pytest.mark.parametrize(
    "moment", ["1969-12-31 23:59:59.999Z", "1900-01-01Z", "4713-01-01 BC", "infinity", "-infinity"]
)
def test_times_of_events_out_of_range(session, cdf, column, moment):
    row = insert("events", external_id="row", **{column: moment})
    assert_refused(session, cdf, *row, "22003", f'"{column}"', *(["1970"] if moment[0] in "14" else ["infinite"]))


def test_the_first_moment_of_an_event(session, cdf):
    session.execute("INSERT INTO events (external_id, start_time) VALUES ('e', '1970-01-01Z')")
    assert stored(cdf, "events", "e")["startTime"] == 0


def test_the_last_moment_of_postgresql(session, cdf):
    session.execute("INSERT INTO events (external_id, start_time) VALUES ('e', '294276-12-31 23:59:59.999Z')")
    assert stored(cdf, "events", "e")["startTime"] == 9_224_318_015_999_999


def test_an_event_that_ends_before_it_starts(session, cdf):
    row = insert("events", external_id="row", start_time="2024-01-02Z", end_time="2024-01-01Z")
    assert_refused(session, cdf, *row, "22023", '"end_time"')


@pytest.fixture
def numeric(cdf) -> str:
    """A numeric series."""
    Api(cdf).create("timeseries", "s")
    return "s"


@pytest.fixture
def textual(cdf) -> str:
    """A series of text."""
    Api(cdf).create("timeseries", "t", isString=True)
    return "t"


@pytest.mark.parametrize(
    "moment",
    [
        "1899-12-31 23:59:59.999Z",
        "1899-12-31 23:59:59.999999Z",
        "2100-01-01Z",
        "4713-01-01 BC",
        "infinity",
        "-infinity",
    ],
)
@pytest.mark.parametrize("table", ["datapoints", "string_datapoints"])
def test_times_of_points_out_of_range(session, cdf, table, moment):
    row = insert(table, external_id="row", timestamp=moment, value="1")
    years = [] if "infinity" in moment else ["1900", "2099"]
    assert_refused(session, cdf, *row, "22003", '"timestamp"', *years)


def test_the_first_and_last_moment_of_a_point(session, cdf, numeric):
    session.execute(
        "INSERT INTO datapoints (external_id, timestamp, value) VALUES ('s', '1900-01-01Z', 1),"
        " ('s', '2099-12-31 23:59:59.999Z', 2), ('s', '1969-12-31 23:59:59.999Z', 3)"
    )
    assert [timestamp for timestamp, _, _ in points(cdf, numeric)] == [-2208988800000, -1, 4102444799999]


@pytest.mark.parametrize("table", ["datapoints", "string_datapoints"])
def test_a_point_needs_a_time(session, cdf, table):
    assert_refused(session, cdf, *insert(table, external_id="s", value="1"), "22004", '"timestamp"')


# ---- values of points ----


@pytest.mark.parametrize("value", ["NaN", "Infinity", "-Infinity", "1.0000000000000002e100", "-1e101", "1e308"])
def test_numbers_out_of_range(session, cdf, value):
    row = insert("datapoints", external_id="s", timestamp="2024-01-01Z", value=value)
    assert_refused(session, cdf, *row, "22003", '"value"', "1e100")


@pytest.mark.parametrize("value", [1e100, -1e100, 5e-324, 0.0, 2.0**53 + 2])
def test_numbers_at_the_border(session, cdf, numeric, value):
    session.execute(*insert("datapoints", external_id=numeric, timestamp="2024-01-01Z", value=value))
    [(_, found, _)] = points(cdf, numeric)
    assert found == value and str(found) == str(value)


@pytest.mark.parametrize("value", ["NaN", "1e101", "1e400"])
def test_numerics_out_of_range(session, cdf, scratch, value):
    table = scratch.table("exact", 'external_id text, "timestamp" timestamptz, value numeric', "datapoints")
    row = insert(table, external_id="s", timestamp="2024-01-01Z", value=value)
    assert_refused(session, cdf, *row, "22003", '"value"')


@pytest.mark.parametrize("letter", ["x", "ü", "漢"], ids=["one byte", "two bytes", "three bytes"])
def test_text_values_are_counted_in_bytes(session, cdf, textual, letter):
    width = len(letter.encode())
    longest = letter * (1023 // width) + "x" * (1023 % width)
    session.execute(*insert("string_datapoints", external_id=textual, timestamp="2024-01-01Z", value=longest))
    assert points(cdf, textual)[0][1] == longest
    cdf.reset()
    row = insert("string_datapoints", external_id=textual, timestamp="2024-01-01Z", value=longest + "x")
    assert_refused(session, cdf, *row, "22001", '"value"', "1023", "1024")


def test_an_empty_text_is_a_value(session, cdf, textual):
    session.execute(*insert("string_datapoints", external_id=textual, timestamp="2024-01-01Z", value=""))
    assert points(cdf, textual)[0][1] == ""


@pytest.mark.parametrize("table", ["datapoints", "string_datapoints"])
@pytest.mark.parametrize(
    "status", [{}, {"status_code": 0}, {"status_symbol": "Uncertain"}, {"status_symbol": "GoodClamped"}]
)
def test_a_point_needs_a_value_unless_it_is_bad(session, cdf, table, status):
    row = insert(table, external_id="s", timestamp="2024-01-01Z", **status)
    assert_refused(session, cdf, *row, "22004", '"value"', "Bad")


# ---- the series of a point ----


@pytest.mark.parametrize("table", ["datapoints", "string_datapoints"])
def test_a_point_without_a_series(session, cdf, table):
    assert_refused(session, cdf, *insert(table, timestamp="2024-01-01Z", value="1"), "22004", "series", "external_id")


@pytest.mark.parametrize(
    "naming",
    [
        {"id": 1, "external_id": "s"},
        {"external_id": "s", "instance_space": "sp", "instance_external_id": "x"},
        {"id": 1, "instance_space": "sp", "instance_external_id": "x"},
        {"instance_space": "sp"},
        {"instance_external_id": "x"},
        {"external_id": "s", "instance_space": "sp"},
    ],
    ids=lambda naming: "+".join(naming),
)
def test_a_series_named_twice_or_by_half(session, cdf, naming):
    row = insert("datapoints", timestamp="2024-01-01Z", value=1, **naming)
    assert_refused(session, cdf, *row, "22023", "series", "instance_space")


# ---- status ----

GOOD, UNCERTAIN, BAD = 0, 0x4000_0000, 0x8000_0000


@pytest.mark.parametrize(
    ("status", "value", "code"),
    [
        ({"status_code": GOOD}, 1.5, None),
        ({"status_symbol": "Good"}, 1.5, None),
        ({"status_code": UNCERTAIN}, 1.5, UNCERTAIN),
        ({"status_symbol": "Uncertain"}, 1.5, UNCERTAIN),
        ({"status_symbol": "UncertainLastUsableValue"}, 1.5, 0x4090_0000),
        ({"status_code": 0x8002_0000}, 1.5, 0x8002_0000),
        ({"status_code": 0x8002_0000, "status_symbol": "BadInternalError"}, 1.5, 0x8002_0000),
        ({"status_code": BAD}, None, BAD),
        ({"status_symbol": "Bad"}, None, BAD),
        ({"status_symbol": "BadSensorFailure"}, None, 0x808C_0000),
        ({"status_symbol": "Bad"}, "NaN", BAD),
        ({"status_code": BAD}, "Infinity", BAD),
        ({"status_code": BAD}, "-Infinity", BAD),
        ({"status_code": BAD}, 1e200, BAD),
    ],
)
def test_statuses(session, cdf, numeric, status, value, code):
    session.execute(*insert("datapoints", external_id=numeric, timestamp="2024-01-01Z", value=value, **status))
    [(_, found, found_code)] = points(cdf, numeric)
    assert (found, found_code) == (value, code)


@pytest.mark.parametrize(("value", "found"), [(None, None), ("", ""), ("text", "text")])
def test_bad_points_of_text(session, cdf, textual, value, found):
    session.execute(
        *insert("string_datapoints", external_id=textual, timestamp="2024-01-01Z", value=value, status_symbol="Bad")
    )
    assert [point[1:] for point in points(cdf, textual)] == [(found, BAD)]


@pytest.mark.parametrize("code", [-1, 2**32, 2**40])
def test_status_codes_out_of_range(session, cdf, code):
    row = insert("datapoints", external_id="s", timestamp="2024-01-01Z", value=1, status_code=code)
    assert_refused(session, cdf, *row, "22003", '"status_code"', str(code))


@pytest.mark.parametrize(
    ("status", "column"),
    [
        ({"status_symbol": "Ugly"}, "status_symbol"),
        ({"status_symbol": ""}, "status_symbol"),
        ({"status_symbol": "bad"}, "status_symbol"),
        ({"status_symbol": "BadlyMisspelt"}, "status_symbol"),
        ({"status_code": BAD, "status_symbol": "Good"}, "status_code"),
        ({"status_code": GOOD, "status_symbol": "Bad"}, "status_code"),
        ({"status_code": 0xC000_0000}, "status_code"),
    ],
)
def test_statuses_that_do_not_exist_or_fit(session, cdf, status, column):
    row = insert("datapoints", external_id="s", timestamp="2024-01-01Z", value=1, **status)
    assert_refused(session, cdf, *row, "22023", f'"{column}"')


# ---- RAW ----


def raw(**changes) -> tuple[sql.Composed, list]:
    return insert("raw_rows", **{"db_name": "d", "table_name": "t", "key": "row", "columns": Jsonb({"x": 1})} | changes)


@pytest.mark.parametrize("letter", ["x", "ü"])
@pytest.mark.parametrize(("column", "limit"), [("db_name", 32), ("table_name", 64), ("key", 1024)])
def test_raw_names(session, cdf, column, limit, letter):
    session.execute(*raw(**{column: letter * limit}))
    assert len(dump(cdf, "raw")) == 1
    cdf.reset()
    limits = ("22001", f'"{column}"', str(limit), str(limit + 1))
    assert_refused(session, cdf, *raw(**{column: letter * (limit + 1)}), *limits)


@pytest.mark.parametrize("column", ["db_name", "table_name", "key"])
def test_raw_names_are_needed(session, cdf, column):
    assert_refused(session, cdf, *raw(**{column: None}), "22004", f'"{column}"')


@pytest.mark.parametrize("column", ["db_name", "table_name", "key"])
def test_raw_names_are_not_empty(session, cdf, column):
    assert_refused(session, cdf, *raw(**{column: ""}), "22023", f'"{column}"')


@pytest.mark.parametrize("name", [".", ".."])
@pytest.mark.parametrize("column", ["db_name", "table_name"])
def test_raw_names_that_no_url_can_hold(session, cdf, column, name):
    assert_refused(session, cdf, *raw(**{column: name}), "22023", f'"{column}"')


@pytest.mark.parametrize("document", ["[]", "1", '"x"', "null", "true"])
def test_raw_columns_must_be_an_object(session, cdf, document):
    assert_refused(session, cdf, *raw(columns=document), "22023", '"columns"')


def test_a_raw_row_that_is_too_large(session, cdf):
    # Two values, since a single one may not be as long either.
    half = "x" * 2_621_000
    session.execute(*raw(columns=Jsonb({"a": half, "b": half[:-1000]})))
    assert len(dump(cdf, "raw")) == 1
    cdf.reset()
    assert_refused(session, cdf, *raw(columns=Jsonb({"a": half, "b": half, "c": "x" * 2000})), "22001", "5242880")


@pytest.mark.parametrize("document", [{"a": "x" * 2_621_441}, {"x" * 2_621_441: "a"}], ids=["value", "name"])
def test_a_raw_column_that_is_too_long(session, cdf, document):
    assert_refused(session, cdf, *raw(columns=Jsonb(document)), "22001", '"columns"', "2621440")


@pytest.mark.parametrize(
    ("kind", "literal"),
    [
        ("double precision", "'NaN'"),
        ("double precision", "'Infinity'"),
        ("real", "'-Infinity'"),
        ("numeric", "'NaN'"),
        ("numeric", "'Infinity'"),
        ("timestamptz", "'infinity'"),
        ("date", "'-infinity'"),
        ("float8[]", "'{1,NaN}'"),
    ],
)
def test_what_json_has_no_form_for(session, cdf, scratch, kind, literal):
    table = scratch.table("typed", f"key text, value {kind}", "raw_rows", database="d", table="t")
    statement = f"INSERT INTO {table} VALUES ('row', {literal})"
    assert_refused(session, cdf, statement, None, "22003", '"value"')


@pytest.mark.parametrize("key", [None, "", "x" * 1025])
def test_keys_of_typed_raw_tables(session, cdf, scratch, key):
    table = scratch.table("typed", "tag text, n int", "raw_rows", database="d", table="t", primary_key="tag")
    sqlstate = {None: "22004", "": "22023"}.get(key, "22001")
    assert_refused(session, cdf, *insert(table, tag=key, n=1), sqlstate, '"tag"')


# ---- every form of writing checks ----


def test_rows_before_the_refused_one_are_not_sent(session, cdf):
    with refused("22001", '"type"'):
        session.execute(
            "INSERT INTO events (external_id, type)"
            " SELECT 'e' || n, repeat('x', n / 50) FROM generate_series(1, 4000) AS n"
        )
    assert requests(cdf) == []


def test_a_refused_row_leaves_the_others_of_its_transaction(session, cdf):
    with session.transaction():
        session.execute("INSERT INTO events (external_id, type) VALUES ('a', 'x')")
        for column, value in (("type", "x" * 65), ("description", "x" * 501)):
            with refused("22001", column), session.transaction():
                session.execute(
                    f"INSERT INTO events (external_id, source, {column}) VALUES ('a', 'lost', %s)", (value,)
                )
        session.execute("INSERT INTO events (external_id, subtype) VALUES ('a', 'y')")
    event = stored(cdf, "events", "a")
    assert (event["type"], event.get("source"), event["subtype"]) == ("x", None, "y")


def test_a_refused_point_leaves_the_others_of_its_transaction(session, cdf, numeric):
    with session.transaction():
        session.execute("INSERT INTO datapoints (external_id, timestamp, value) VALUES ('s', '2024-01-01Z', 1)")
        with refused("22003"), session.transaction():
            session.execute("INSERT INTO datapoints (external_id, timestamp, value) VALUES ('s', '2024-01-02Z', 'NaN')")
        session.execute("INSERT INTO datapoints (external_id, timestamp, value) VALUES ('s', '2024-01-03Z', 3)")
    assert [value for _, value, _ in points(cdf, numeric)] == [1, 3]


def test_a_refused_row_in_a_block_that_catches_it(session, cdf):
    session.execute(
        "DO $$ DECLARE kind text; BEGIN"
        " FOREACH kind IN ARRAY ARRAY['good', repeat('x', 65), 'fine'] LOOP BEGIN"
        " INSERT INTO events (external_id, type) VALUES (left(kind, 4), kind);"
        " EXCEPTION WHEN string_data_right_truncation THEN NULL; END; END LOOP; END $$"
    )
    assert names(cdf, "events") == ["fine", "good"]
