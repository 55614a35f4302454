"""The real Npgsql, the driver of Azure Data Factory, Power BI and .NET, compared with what CDF holds afterwards."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from faults import fault, wait_until
from harness import Gateway
from npgsql import Connection, NpgsqlError
from support import columns, dump, millis, names, points, requests, stored

# What the protocol takes in one statement.
MOST_PARAMETERS = 65_535


def values(rows: int, width: int) -> str:
    """`(@p0,@p1),(@p2,@p3)…`"""
    return ",".join(f"({','.join(f'@p{row * width + at}' for at in range(width))})" for row in range(rows))


def insert(connection: Connection, key: str) -> int:
    return connection.execute("INSERT INTO events (external_id) VALUES (@p0)", [("Text", key)])


def refusal(sqlstate: str, *texts: str):
    """Expects an error of this class whose MESSAGE alone has all the texts in it."""
    return _Refusal(sqlstate, texts)


class _Refusal:
    def __init__(self, sqlstate: str, texts: tuple[str, ...]):
        self._sqlstate, self._texts = sqlstate, texts

    def __enter__(self):
        self._caught = pytest.raises(NpgsqlError)
        self._info = self._caught.__enter__()
        return self._info

    def __exit__(self, *exception):
        passed = self._caught.__exit__(*exception)
        error = self._info.value
        assert error.kind == "PostgresException", error
        assert error.sqlstate == self._sqlstate, error
        for text in self._texts:
            assert text in error.message, error
        return passed


# ---- connections ----


def test_it_is_npgsql(npgsql):
    assert npgsql.do("version") == "4.0.9.0"


def test_a_pooled_connection_comes_back_as_new(npgsql, gateway, cdf):
    # One physical connection, which Npgsql resets with DISCARD ALL when it is taken from the pool again.
    pool = {"Maximum_Pool_Size": 1, "Application_Name": "pool of one"}
    first = npgsql.open(gateway, **pool)
    process = first.do("process")
    first.begin()
    insert(first, "rolled back")
    first.execute("SET cdf_fdw.flush_timeout = '7s'")
    first.execute("CREATE TEMP TABLE staging (external_id text)")
    first.close()
    again = npgsql.open(gateway, **pool)
    try:
        assert again.do("process") == process
        assert again.query("SHOW cdf_fdw.flush_timeout") == [["10min"]]
        assert again.query("SELECT to_regclass('pg_temp.staging')::text") == [[None]]
        assert names(cdf, "events") == []
        assert insert(again, "after the reset") == 1
        assert names(cdf, "events") == ["after the reset"]
    finally:
        again.close()


def test_connections_of_a_pool_write_side_by_side(npgsql, gateway, cdf):
    pool = [npgsql.open(gateway, Application_Name="pool of three") for _ in range(3)]
    for at, connection in enumerate(pool):
        connection.begin()
        insert(connection, f"e{at}")
    assert len({connection.do("process") for connection in pool}) == 3
    for connection in pool:
        connection.commit()
        connection.close()
    assert names(cdf, "events") == ["e0", "e1", "e2"]


# ---- bound INSERTs ----


def test_an_insert_of_as_many_parameters_as_the_protocol_takes(net, cdf, api):
    api.create("timeseries", "s")
    rows = MOST_PARAMETERS // 3
    parameters = []
    for at in range(rows):
        parameters += [("Text", "s"), ("TimestampTz", f"2024-01-01T{at // 3600:02}:{at // 60 % 60:02}:{at % 60:02}Z")]
        parameters.append(("Double", at / 4))
    assert len(parameters) == MOST_PARAMETERS
    written = net.execute(
        f'INSERT INTO datapoints (external_id, "timestamp", value) VALUES {values(rows, 3)}', parameters
    )
    assert written == rows
    start = millis("2024-01-01")
    assert points(cdf, "s") == [(start + at * 1000, at / 4, None) for at in range(rows)]


def test_one_parameter_more_is_refused_by_the_driver(net, cdf):
    parameters = [("Text", str(at)) for at in range(MOST_PARAMETERS + 1)]
    with pytest.raises(NpgsqlError, match="65535"):
        net.execute(f"INSERT INTO events (external_id) VALUES {values(len(parameters), 1)}", parameters)
    assert requests(cdf) == []
    assert net.state == "Open"


ALL_KINDS = [
    ("Text", "e"),
    ("TimestampTz", "2024-02-03T04:05:06.789Z"),
    ("Offset", "2024-02-03T10:05:06.789+02:00"),
    ("Jsonb", '{"a": "1", "b": "x"}'),
    ("Text[]", ["pump", "valve"]),
    ("Text", None),
]
KINDS_SQL = (
    "INSERT INTO events (external_id, start_time, end_time, metadata, asset_external_ids, description)"
    " VALUES (@p0, @p1, @p2, @p3, @p4, @p5)"
)


def assert_all_kinds(cdf, assets: list[int]) -> None:
    event = stored(cdf, "events", "e")
    assert event["startTime"] == millis("2024-02-03T04:05:06.789")
    assert event["endTime"] == millis("2024-02-03T08:05:06.789")
    assert event["metadata"] == {"a": "1", "b": "x"}
    assert sorted(event["assetIds"]) == sorted(assets)
    assert "description" not in event


def test_parameters_of_every_kind(net, cdf, api):
    assets = api.create("assets", "pump", "valve")
    assert net.execute(KINDS_SQL, ALL_KINDS) == 1
    assert_all_kinds(cdf, assets)


def test_a_prepared_command_with_parameters_of_every_kind(net, cdf, api):
    assets = api.create("assets", "pump", "valve")
    net.do("prepare", name="event", sql=KINDS_SQL, parameters=ALL_KINDS)
    for _ in range(7):
        assert net.do("run", name="event", values=ALL_KINDS) == 1
    assert_all_kinds(cdf, assets)


def test_a_prepared_command_again_and_again_in_one_transaction(net, cdf):
    first = [("Text", "e0"), ("Text", "x")]
    net.do(
        "prepare", name="event", sql="INSERT INTO events (external_id, type) VALUES (@p0, @p1)", parameters=first
    )
    net.begin()
    for at in range(50):
        net.do("run", name="event", values=[("Text", f"e{at}"), ("Text", None if at % 2 else "x")])
    assert names(cdf, "events") == []
    net.commit()
    assert {event["externalId"]: event.get("type") for event in dump(cdf, "events")} == {
        f"e{at}": None if at % 2 else "x" for at in range(50)
    }


def test_a_string_goes_into_a_jsonb_column(net, cdf):
    net.execute(
        "INSERT INTO events (external_id, metadata) VALUES (@p0, @p1)", [("Text", "e"), ("Text", '{"k": "v"}')]
    )
    assert stored(cdf, "events", "e")["metadata"] == {"k": "v"}


def test_a_time_without_a_zone_is_utc_whatever_the_session_says(npgsql, gateway, cdf):
    connection = npgsql.open(gateway, Pooling="false", Timezone="America/New_York")
    try:
        assert connection.query("SHOW timezone") == [["America/New_York"]]
        connection.execute(
            "INSERT INTO events (external_id, start_time) VALUES (@p0, @p1)",
            [("Text", "e"), ("Timestamp", "2024-02-03T04:05:06")],
        )
    finally:
        connection.close()
    assert stored(cdf, "events", "e")["startTime"] == millis("2024-02-03T04:05:06")


def test_typed_columns_of_a_raw_table(net, cdf, scratch):
    table = scratch.table(
        "pumps",
        "tag text, vendor varchar, kw float8, count bigint, at timestamptz, id uuid, price numeric, ok bool, info jsonb",
        "raw_rows",
        database="plant",
        table="pumps",
        primary_key="tag",
    )
    row = [
        ("Text", "p-1"),
        ("Varchar", "Ødegård"),
        ("Double", 7.5),
        ("Bigint", 2**53 + 1),
        ("TimestampTz", "2024-02-03T04:05:06Z"),
        ("Uuid", "0f8fad5b-d9cb-469f-a165-70867728950e"),
        ("Numeric", "12.50"),
        ("Boolean", True),
        ("Json", '{"a": [1, 2]}'),
    ]
    assert net.execute(f"INSERT INTO {table} VALUES {values(1, len(row))}", row) == 1
    found = columns(cdf, "p-1")
    assert found["at"].startswith("2024-02-03T04:05:06")
    assert {name: found[name] for name in ("vendor", "kw", "count", "id", "price", "ok", "info")} == {
        "vendor": "Ødegård",
        "kw": 7.5,
        "count": 2**53 + 1,
        "id": "0f8fad5b-d9cb-469f-a165-70867728950e",
        "price": 12.5,
        "ok": True,
        "info": {"a": [1, 2]},
    }
    [read] = net.query(f"SELECT tag, kw, count, price::text, ok, id FROM {table} WHERE tag = @p0", [("Text", "p-1")])
    assert read == ["p-1", 7.5, 2**53 + 1, "12.50", True, "0f8fad5b-d9cb-469f-a165-70867728950e"]


# ---- COPY ----

ROWS = 5000


def test_text_copy(net, cdf, api):
    api.create("timeseries", "s")
    text = "".join(f"s\t2024-01-01 {at // 3600:02}:{at // 60 % 60:02}:{at % 60:02}\t{at}\n" for at in range(ROWS))
    net.do("copy_text", sql='COPY datapoints (external_id, "timestamp", value) FROM STDIN', text=text)
    start = millis("2024-01-01")
    assert points(cdf, "s") == [(start + at * 1000, float(at), None) for at in range(ROWS)]


def test_csv_copy(net, cdf):
    text = 'external_id,description\na,"with, comma"\nb,\n'
    net.do("copy_text", sql="COPY events (external_id, description) FROM STDIN (FORMAT csv, HEADER)", text=text)
    assert {event["externalId"]: event.get("description") for event in dump(cdf, "events")} == {
        "a": "with, comma",
        "b": None,
    }


def test_binary_copy(net, cdf, api):
    api.create("timeseries", "s")
    rows = [["s", f"2024-01-01T{at // 3600:02}:{at // 60 % 60:02}:{at % 60:02}Z", at / 2] for at in range(ROWS)]
    net.do(
        "copy_binary",
        sql='COPY datapoints (external_id, "timestamp", value) FROM STDIN (FORMAT BINARY)',
        kinds=["Text", "TimestampTz", "Double"],
        rows=rows,
    )
    start = millis("2024-01-01")
    assert points(cdf, "s") == [(start + at * 1000, at / 2, None) for at in range(ROWS)]


def test_binary_copy_of_documents_lists_and_nulls(net, cdf, api):
    [pump] = api.create("assets", "pump")
    net.do(
        "copy_binary",
        sql="COPY events (external_id, metadata, asset_external_ids, description) FROM STDIN (FORMAT BINARY)",
        kinds=["Text", "Jsonb", "Text[]", "Text"],
        rows=[["a", '{"k": "v"}', ["pump"], None], ["b", None, None, "x"]],
    )
    first, second = stored(cdf, "events", "a"), stored(cdf, "events", "b")
    assert (first["metadata"], first["assetIds"], first.get("description")) == ({"k": "v"}, [pump], None)
    assert (second.get("metadata"), second.get("assetIds"), second["description"]) == (None, None, "x")


COPY_DOCUMENTS = {
    "sql": "COPY {} (external_id, metadata) FROM STDIN (FORMAT BINARY)",
    "kinds": ["Text", "Text"],
    "rows": [["e", '{"k": "v"}']],
}


def test_a_string_in_a_binary_copy_of_a_jsonb_column_is_refused_by_postgresql(net, cdf):
    # No cast is asked in a binary COPY: the bytes have to be those of the column's own type.
    with refusal("XX000", "jsonb version"):
        net.do("copy_binary", **COPY_DOCUMENTS | {"sql": COPY_DOCUMENTS["sql"].format("events")})
    assert requests(cdf) == []
    assert insert(net, "after") == 1


@pytest.mark.parametrize("kind", ["json", "text"])
def test_a_string_in_a_binary_copy_of_a_json_or_text_column(net, cdf, scratch, kind):
    table = scratch.table("documents", f"external_id text, metadata {kind}", "events")
    net.do("copy_binary", **COPY_DOCUMENTS | {"sql": COPY_DOCUMENTS["sql"].format(table)})
    assert stored(cdf, "events", "e")["metadata"] == {"k": "v"}


def test_a_copy_that_is_given_up_sends_nothing(net, cdf):
    with pytest.raises(NpgsqlError):
        net.do(
            "copy_binary",
            sql="COPY events (external_id, start_time) FROM STDIN (FORMAT BINARY)",
            kinds=["Text", "TimestampTz"],
            rows=[["a", "2024-01-01T00:00:00Z"], ["b", "not a time"]],
        )
    assert requests(cdf) == []


def test_a_copy_in_a_transaction_goes_with_it(net, cdf):
    copy = {"sql": "COPY events (external_id) FROM STDIN", "text": "a\nb\n"}
    net.begin()
    net.do("copy_text", **copy)
    net.rollback()
    assert requests(cdf) == []
    net.begin()
    net.do("copy_text", **copy)
    assert names(cdf, "events") == []
    net.commit()
    assert names(cdf, "events") == ["a", "b"]


def test_copy_out_of_what_was_written(net, cdf):
    net.execute("INSERT INTO events (external_id, type) VALUES ('a', 'x'), ('b', NULL)")
    out = net.do("copy_out", sql="COPY (SELECT external_id, type FROM events ORDER BY 1) TO STDOUT")
    assert out.replace("\r\n", "\n") == "a\tx\nb\t\\N\n"


# ---- staging and upsert ----


def test_a_staging_table_then_insert_on_conflict(net, cdf, api):
    api.create("assets", "old", description="kept", source="before")
    net.begin()
    net.execute("CREATE TEMP TABLE staging (LIKE assets) ON COMMIT DROP")
    net.do(
        "copy_binary",
        sql="COPY staging (external_id, name, source) FROM STDIN (FORMAT BINARY)",
        kinds=["Text", "Text", "Text"],
        rows=[["old", "Old", "after"], ["new", "New", "after"]],
    )
    written = net.execute(
        "INSERT INTO assets (external_id, name, source) SELECT external_id, name, source FROM staging"
        " ON CONFLICT (external_id) DO UPDATE SET name = EXCLUDED.name, source = EXCLUDED.source"
    )
    assert written == 2
    net.commit()
    found = {asset["externalId"]: asset for asset in dump(cdf, "assets")}
    assert {key: (asset["name"], asset["source"], asset.get("description")) for key, asset in found.items()} == {
        "old": ("Old", "after", "kept"),
        "new": ("New", "after", None),
    }


def test_update_and_delete_by_key_report_what_they_found(net, cdf):
    net.execute("INSERT INTO events (external_id, type) VALUES ('a', 'x'), ('b', 'x')")
    change = "UPDATE events SET type = @p0 WHERE external_id = @p1"
    assert net.execute(change, [("Text", "y"), ("Text", "a")]) == 1
    assert net.execute(change, [("Text", "y"), ("Text", "nobody")]) == 0
    assert net.execute("DELETE FROM events WHERE external_id = ANY (@p0)", [("Text[]", ["b", "c"])]) == 1
    assert [(event["externalId"], event["type"]) for event in dump(cdf, "events")] == [("a", "y")]


# ---- transactions ----


def test_savepoints(net, cdf):
    net.begin()
    insert(net, "kept")
    net.do("savepoint", method="Save", name="s")
    insert(net, "lost")
    net.do("savepoint", method="Rollback", name="s")
    net.do("savepoint", method="Save", name="t")
    insert(net, "released")
    net.do("savepoint", method="Release", name="t")
    net.commit()
    assert names(cdf, "events") == ["kept", "released"]


def test_a_statement_that_fails_in_a_transaction_is_undone_by_its_savepoint(net, cdf):
    net.begin()
    insert(net, "kept")
    net.do("savepoint", method="Save", name="s")
    with refusal("22001", "external_id"):
        insert(net, "x" * 300)
    net.do("savepoint", method="Rollback", name="s")
    net.commit()
    assert names(cdf, "events") == ["kept"]


def test_a_rollback_sends_nothing(net, cdf):
    net.begin()
    insert(net, "e")
    net.rollback()
    assert requests(cdf) == []


# ---- what goes wrong ----


@pytest.fixture
def impatient(npgsql, gateway, cdf) -> Iterator[Connection]:
    """A connection whose driver waits two seconds for an answer, also for that to a COMMIT."""
    connection = npgsql.open(gateway, Pooling="false", Command_Timeout=2)
    yield connection
    connection.close()


def test_a_commit_that_is_refused_says_why_in_its_message(net, cdf):
    net.begin()
    # CDF takes no labels that do not exist: told at COMMIT, since only CDF knows.
    net.execute("INSERT INTO assets (external_id, name, labels) VALUES ('a', 'A', '{nowhere}')")
    with refusal("23503", "assets", "Label ids not found", '"a"', "nothing accepted", "x-request-id") as caught:
        net.commit()
    assert "\n" not in caught.value.message and len(caught.value.message) <= 400
    assert dump(cdf, "assets") == []
    assert net.state == "Open"
    assert insert(net, "after") == 1
    assert names(cdf, "events") == ["after"]


ERRORS = {
    "22001": "INSERT INTO events (external_id) VALUES (repeat('x', 300))",
    "22003": "INSERT INTO datapoints (external_id, timestamp, value) VALUES ('s', '1800-01-01Z', 1)",
    "0A000": "DELETE FROM data_sets WHERE external_id = 'd'",
    "42P10": "INSERT INTO events (external_id, type) VALUES ('e', 'a') ON CONFLICT (type) DO NOTHING",
    "23514": "INSERT INTO scratch.checked (external_id) VALUES ('not this one')",
}


@pytest.mark.parametrize("sqlstate", ERRORS)
def test_the_connection_is_usable_after_an_error(net, cdf, scratch, sqlstate):
    scratch.table("checked", "external_id text CHECK (external_id = 'this one')", "events")
    with refusal(sqlstate):
        net.execute(ERRORS[sqlstate])
    assert net.state == "Open"
    assert insert(net, "after") == 1
    net.begin()
    with refusal(sqlstate):
        net.execute(ERRORS[sqlstate])
    net.rollback()
    assert insert(net, "again") == 1
    assert names(cdf, "events") == ["after", "again"]


# Answers of CDF, or of what stands before it, and the class of error that becomes of each.
ANSWERS = {
    "400": ({"status": 400, "body": {"error": {"code": 400, "message": "type is reserved"}}}, "22023", "type is reserved", "nothing accepted"),
    "403": ({"status": 403, "body": {"error": {"code": 403, "message": "no rights"}}}, "42501", "no rights", "nothing accepted"),
    # Npgsql 6 and later would break the connection, drop the pool, and hide the error for the classes 53 and 58.
    "429": ({"status": 429, "body": {"error": {"code": 429, "message": "slow down"}}}, "08006", "slow down", "nothing accepted"),
    "500": ({"status": 500, "body": {"error": {"code": 500, "message": "out of order"}}}, "08006", "out of order", "may have been accepted"),
    "503": ({"status": 503, "body": "<html>busy</html>"}, "08006"),
    "a page of something else": ({"status": 200, "body": "<html>Sign in</html>"}, "08006", "may have been accepted"),
}


@pytest.mark.parametrize("answer", ANSWERS)
def test_a_failed_commit_leaves_the_connection_as_it_was(net, cdf, answer):
    how, sqlstate, *texts = ANSWERS[answer]
    net.execute("SET cdf_fdw.max_retries = 0")
    fault(cdf, "/events", **how)
    net.begin()
    insert(net, "e")
    with refusal(sqlstate, "events", "POST /events", 'row "e"', *texts) as caught:
        net.commit()
    assert "\n" not in caught.value.message and len(caught.value.message) <= 400
    assert net.state == "Open"
    cdf.admin_delete("faults")
    assert insert(net, "after") == 1
    assert "after" in names(cdf, "events")


def test_a_commit_longer_than_the_drivers_patience_ends_the_connection(impatient, cdf):
    impatient.execute("SET cdf_fdw.progress_interval = 0")
    fault(cdf, "/events", "delay", delay_ms=6000)
    impatient.begin()
    insert(impatient, "e")
    with pytest.raises(NpgsqlError) as caught:
        impatient.commit()
    assert caught.value.sqlstate is None, caught.value
    assert impatient.state != "Open"
    # The request is not to be seen by the next test.
    wait_until(lambda: not cdf.admin_get("stats")["in_flight"], "the request to end")


def test_notices_keep_the_driver_waiting_for_a_long_commit(impatient, cdf):
    impatient.execute("SET cdf_fdw.progress_interval = '1s'")
    fault(cdf, "/events", "delay", delay_ms=6000)
    impatient.begin()
    insert(impatient, "e")
    impatient.commit()
    assert names(cdf, "events") == ["e"]
    told = [notice for notice in impatient.notices() if notice["severity"] == "NOTICE"]
    assert len(told) >= 3, told
    assert insert(impatient, "next") == 1


# ---- what tools ask before they write ----


def test_the_schema_as_tools_ask_for_it(net, gateway: Gateway, scratch, cdf):
    # Npgsql 4 lists what is no foreign table, such as a partitioned table that has one as its part.
    scratch.execute("CREATE TABLE facade (external_id text, type text) PARTITION BY LIST (external_id)")
    scratch.execute(
        "CREATE FOREIGN TABLE facade_cdf PARTITION OF facade DEFAULT SERVER cdf OPTIONS (resource 'events')"
    )
    assert net.do("schema", collection="Tables", restrictions=[None, gateway.schema]) == []
    [facade] = net.do("schema", collection="Tables", restrictions=[None, "scratch"])
    assert facade["table_name"] == "facade"
    listed = net.do("schema", collection="Columns", restrictions=[None, gateway.schema, "events"])
    assert {"external_id", "start_time", "metadata"} <= {row["column_name"] for row in listed}
    assert requests(cdf) == []
    assert net.execute("INSERT INTO scratch.facade VALUES (@p0, @p1)", [("Text", "e"), ("Text", "x")]) == 1
    assert stored(cdf, "events", "e")["type"] == "x"


def test_the_columns_of_a_result_that_is_not_fetched(net, cdf):
    found = {row["ColumnName"]: row["DataTypeName"] for row in net.do("columns", sql="SELECT * FROM events")}
    assert found["external_id"] == "text"
    assert found["start_time"] == "timestamp with time zone"
    assert found["metadata"] == "jsonb"
    assert requests(cdf) == []


def test_a_cancelled_command_leaves_the_connection_open(npgsql, gateway, cluster, cdf):
    connection = npgsql.open(gateway, Pooling="false")
    try:
        fault(cdf, "/events", "stall")
        with ThreadPoolExecutor(1) as pool, cluster.connect() as superuser:
            process = connection.do("process")
            running = pool.submit(insert, connection, "e")
            wait_until(lambda: cdf.admin_get("stats")["in_flight"], "a request under way")
            superuser.execute("SELECT pg_cancel_backend(%s)", [process])
            with pytest.raises(NpgsqlError) as caught:
                running.result(timeout=30)
        assert caught.value.sqlstate == "57014"
        cdf.admin_delete("faults")
        assert connection.state == "Open"
        assert insert(connection, "after") == 1
    finally:
        connection.close()
