"""What drivers and tools literally send: typed parameters, times without a zone, batches, savepoints, procedures."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date, datetime, timedelta, timezone
from decimal import Decimal

import psycopg
import pytest
from psycopg import pq
from psycopg.types.json import Jsonb
from psycopg.types.string import StrDumper, StrDumperVarchar
from support import columns, dump, millis, names, points, refused, requests, stored

UNSPECIFIED, BOOL, INT8, INT4, TEXT, FLOAT8, VARCHAR = 0, 16, 20, 23, 25, 701, 1043


def run(connection: psycopg.Connection, statement: str) -> None:
    """The simple protocol: one text, which may hold several statements."""
    checked(connection, connection.pgconn.exec_(statement.encode()))


def checked(connection: psycopg.Connection, result: pq.abc.PGresult) -> pq.abc.PGresult:
    if result.status not in (pq.ExecStatus.COMMAND_OK, pq.ExecStatus.TUPLES_OK):
        raise psycopg.errors.error_from_result(result, encoding="utf-8")
    return result


def prepare(connection: psycopg.Connection, name: str, statement: str, types: list[int]) -> None:
    checked(connection, connection.pgconn.prepare(name.encode(), statement.encode(), types))


def execute(connection: psycopg.Connection, name: str, *values: str | None) -> pq.abc.PGresult:
    """Bind and Execute of a prepared statement, parameters as text."""
    encoded = [None if value is None else value.encode() for value in values]
    return checked(connection, connection.pgconn.exec_prepared(name.encode(), encoded))


def placeholders(rows: int, width: int) -> str:
    """`($1,$2),($3,$4)…`"""
    return ",".join(f"({','.join(f'${row * width + at + 1}' for at in range(width))})" for row in range(rows))


# ---- with and without the library preloaded ----


@pytest.fixture(params=["preloaded", "loaded on demand"])
def fresh(request, gateway, cluster, cdf) -> Iterator[psycopg.Connection]:
    """A session that has not used the extension yet, with and without the library in session_preload_libraries."""
    preloaded = request.param == "preloaded"
    # Another library takes the place, since ALTER ROLE cannot store an empty list.
    change = f"ALTER ROLE {gateway.username} SET session_preload_libraries = plpgsql"
    with cluster.connect() as superuser:
        if not preloaded:
            superuser.execute(change)
        try:
            with gateway.connect(autocommit=True, options="-c timezone=America/New_York") as connection:
                loaded = (
                    connection.execute("SELECT count(*) FROM pg_settings WHERE name ~ '^cdf_fdw'").fetchone()[0] > 0
                )
                assert loaded == preloaded
                yield connection
        finally:
            superuser.execute(f"ALTER ROLE {gateway.username} RESET session_preload_libraries")


# ---- text parameters of jsonb columns ----


@pytest.mark.parametrize("dumper", [StrDumper, StrDumperVarchar], ids=["text", "varchar"])
def test_text_parameters_of_json_columns(fresh, cdf, dumper):
    fresh.adapters.register_dumper(str, dumper)
    event = "INSERT INTO events (external_id, metadata) VALUES (%s, %s)"
    fresh.execute(event, ("first", '{"k": 1}'))
    for at in range(7):
        fresh.execute(event, (f"prepared {at}", '{"k": 1}'), prepare=True)
    fresh.execute(event + ", (%s, %s), (%s, %s)", ("a", '{"k": 1}', "b", '{"k": 1}', "c", None))
    fresh.execute("INSERT INTO events (external_id, metadata) SELECT %s, %s", ("selected", '{"k": 1}'))
    found = {event["externalId"]: event.get("metadata") for event in dump(cdf, "events")}
    assert len(found) == 12
    assert found.pop("c") is None
    assert set(map(str, found.values())) == {str({"k": "1"})}
    fresh.execute(
        "INSERT INTO raw_rows (db_name, table_name, key, columns) VALUES ('d', 't', %s, %s)", ("k", '{"x": 1}')
    )
    assert columns(cdf, "k") == {"x": 1}


def test_text_parameters_of_a_json_column_of_a_typed_table(fresh, cdf, scratch):
    table = scratch.table("typed", "key text, a json, b jsonb", "raw_rows", database="d", table="t")
    fresh.adapters.register_dumper(str, StrDumperVarchar)
    fresh.execute(f"INSERT INTO {table} VALUES (%s, %s, %s)", ("k", "[1]", '{"x": null}'))
    assert columns(cdf, "k") == {"a": [1], "b": {"x": None}}


def test_text_that_is_no_json_is_refused(fresh, cdf):
    fresh.adapters.register_dumper(str, StrDumperVarchar)
    with refused("22P02", "json"):
        fresh.execute("INSERT INTO events (external_id, metadata) VALUES (%s, %s)", ("e", "{nope"))
    assert requests(cdf) == []


def test_numbers_of_other_types(session, cdf, api):
    [asset] = api.create("assets", "a")
    api.create("timeseries", "s")
    session.execute("INSERT INTO timeseries (external_id, asset_id) VALUES ('t', %s)", (Decimal(asset),))
    session.execute(
        "INSERT INTO datapoints (external_id, timestamp, value) VALUES ('s', %s, %s)", (date(2024, 1, 1), 7)
    )
    session.execute(
        "INSERT INTO datapoints (external_id, timestamp, value) VALUES ('s', %s, %s)",
        (date(2024, 1, 2), Decimal("2.5")),
    )
    assert stored(cdf, "timeseries", "t")["assetId"] == asset
    assert points(cdf, "s") == [(millis("2024-01-01"), 7.0, None), (millis("2024-01-02"), 2.5, None)]


# ---- times without a zone are UTC, whatever the session's zone is ----

NAIVE, DAY = datetime(2024, 1, 31, 12), date(2024, 1, 31)
NOON, MIDNIGHT = millis("2024-01-31T12:00:00"), millis("2024-01-31")


def starts(cdf) -> dict[str, int]:
    return {event["externalId"]: event["startTime"] for event in dump(cdf, "events")}


SOURCES = {
    "values": "VALUES ('a', %(t)s)",
    "several rows": "VALUES ('a', %(t)s), ('b', %(t)s), ('c', NULL), ('d', %(t)s)",
    "coalesce": "VALUES ('a', coalesce(NULL, %(t)s::{kind}))",
    "do nothing": "VALUES ('a', %(t)s) ON CONFLICT DO NOTHING",
    "select": "SELECT 'a', %(t)s",
    "select of a cast": "SELECT 'a', %(t)s::text::{kind}",
    "from a table": "SELECT tag, {kind} FROM scratch.staging",
    "from a subquery": "SELECT * FROM (SELECT tag, {kind} FROM scratch.staging OFFSET 0) AS s",
    "from two tables": "SELECT s.tag, l.t FROM scratch.staging AS s, LATERAL (SELECT s.{kind} AS t) AS l",
    "union all": "SELECT 'a', %(t)s::{kind} UNION ALL SELECT tag || 2, {kind} FROM scratch.staging",
    "union": "SELECT 'a', %(t)s::{kind} UNION SELECT tag || 2, {kind} FROM scratch.staging",
    "limit": "SELECT tag, {kind} FROM scratch.staging LIMIT 1",
    "order by": "SELECT tag, {kind} FROM scratch.staging ORDER BY {kind} DESC, tag LIMIT 5",
    "distinct": "SELECT DISTINCT tag, {kind} FROM scratch.staging",
    "group by": "SELECT tag, max({kind}) FROM scratch.staging GROUP BY tag",
    "window": "SELECT tag, first_value({kind}) OVER () FROM scratch.staging",
    "set function": "SELECT 'a' || generate_series(1, 2), {kind} FROM scratch.staging",
    "with": "WITH chosen AS MATERIALIZED (SELECT tag, {kind} FROM scratch.staging) SELECT * FROM chosen",
    "unnest": "SELECT 'a', t FROM unnest(ARRAY[%(t)s::{kind}]) AS t",
}
INTO_EVENTS = "INSERT INTO events (external_id, start_time) "
STATEMENTS = {name: INTO_EVENTS + source for name, source in SOURCES.items()} | {
    "in a with": f"WITH made AS ({INTO_EVENTS} VALUES ('a', %(t)s) RETURNING 1) SELECT * FROM made",
    "two withs": f"WITH one AS ({INTO_EVENTS} VALUES ('a', %(t)s)), two AS ({INTO_EVENTS} SELECT 'b', %(t)s::{{kind}})"
    " SELECT 1",
    "view": "INSERT INTO scratch.shown VALUES ('a', %(t)s), ('b', %(t)s)",
    "partitioned": "INSERT INTO scratch.parent VALUES ('a', %(t)s), ('b', %(t)s)",
    "partitioned select": "INSERT INTO scratch.parent SELECT tag, {kind} FROM scratch.staging",
    "domain": "INSERT INTO scratch.with_domain VALUES ('a', %(t)s)",
    "domain rows": "INSERT INTO scratch.with_domain VALUES ('a', %(t)s), ('b', %(t)s)",
    "sql function": "SELECT scratch.put_sql('a', %(t)s::{kind})",
    "plpgsql function": "SELECT scratch.put_plpgsql('a', %(t)s::{kind})",
}


@pytest.fixture
def shelf(scratch, gateway):
    """What the statements above use, besides `events`."""
    scratch.execute("CREATE TABLE staging (tag text, timestamp timestamp, date date)")
    scratch.execute(f"INSERT INTO staging VALUES ('a', '{NAIVE}', '{DAY}'), ('b', '{NAIVE}', '{DAY}')")
    scratch.execute("CREATE DOMAIN moment AS timestamptz CHECK (VALUE > '2000-01-01Z')")
    scratch.table("with_domain", "external_id text, start_time moment", "events")
    scratch.view("shown", "SELECT external_id, start_time FROM events")
    scratch.execute("CREATE TABLE parent (external_id text, start_time timestamptz) PARTITION BY LIST (external_id)")
    scratch.execute("CREATE FOREIGN TABLE child PARTITION OF parent DEFAULT SERVER cdf OPTIONS (resource 'events')")
    insert = f"INSERT INTO {gateway.schema}.events (external_id, start_time) VALUES (tag, t)"
    for kind in ("timestamp", "date"):
        scratch.execute(f"CREATE FUNCTION put_sql(tag text, t {kind}) RETURNS void LANGUAGE sql AS $$ {insert} $$")
        scratch.execute(
            f"CREATE FUNCTION put_plpgsql(tag text, t {kind}) RETURNS void LANGUAGE plpgsql"
            f" AS $$ BEGIN {insert}; END $$"
        )


@pytest.mark.parametrize("kind", ["timestamp", "date"])
@pytest.mark.parametrize("statement", STATEMENTS.values(), ids=STATEMENTS.keys())
def test_times_without_zone(fresh, cdf, shelf, statement, kind, request):
    statement = statement.format(kind=kind)
    value, wanted = (NAIVE, NOON) if kind == "timestamp" else (DAY, MIDNIGHT)
    if "loaded on demand-partitioned" in request.node.name:
        # Nothing loads the library before the partition's turn, when the plan is made: better no row than a wrong one.
        with refused("0A000", "session_preload_libraries"):
            fresh.execute(statement, {"t": value} if "%(t)s" in statement else None)
        assert requests(cdf) == []
    # As the first statement of the session, again, and as a prepared one with a plan of any kind.
    for prepared in (False, False, True, True):
        if prepared:
            fresh.execute("SET plan_cache_mode = force_generic_plan")
        parameters = {"t": value} if "%(t)s" in statement else None
        fresh.execute(statement, parameters, prepare=prepared)
        found = {event.get("startTime") for event in dump(cdf, "events") if event["externalId"] != "c"}
        assert found == {wanted}
        cdf.reset()


@pytest.mark.parametrize("kind", ["timestamp", "date"])
def test_executed_often_without_zone(fresh, cdf, kind):
    value, wanted = (NAIVE, NOON) if kind == "timestamp" else (DAY, MIDNIGHT)
    for at in range(12):
        fresh.execute("INSERT INTO events (external_id, start_time) VALUES (%s, %s)", (f"e{at}", value), prepare=True)
    assert starts(cdf) == {f"e{at}": wanted for at in range(12)}


def test_rows_of_one_statement_with_and_without_a_zone(fresh, cdf):
    """The first row does not tell what the others are like: it may have no time, or one with a zone."""
    zoned = NAIVE.replace(tzinfo=timezone.utc)
    for first in (None, zoned):
        fresh.execute(
            "INSERT INTO events (external_id, type, start_time, end_time)"
            " VALUES ('a', 'x', %(first)s, DEFAULT), ('b', DEFAULT, %(t)s, %(t)s), ('c', NULL, %(zoned)s, NULL)",
            {"first": first, "t": NAIVE, "zoned": zoned},
        )
        moments = {
            event["externalId"]: (event.get("startTime"), event.get("endTime")) for event in dump(cdf, "events")
        }
        assert moments == {"a": (first and NOON, None), "b": (NOON, NOON), "c": (NOON, None)}
        cdf.reset()


def test_update_without_zone(fresh, cdf):
    fresh.execute("INSERT INTO events (external_id, type) VALUES ('a', 'x'), ('b', 'y')")
    fresh.execute("UPDATE events SET start_time = %s WHERE external_id = 'a'", (NAIVE,))
    fresh.execute(
        "UPDATE events e SET start_time = m.at FROM (VALUES ('b', %s::timestamp)) m (key, at) WHERE e.external_id = m.key", (NAIVE,)
    )
    assert starts(cdf) == {"a": NOON, "b": NOON}


def test_arrays_of_times_without_zone(fresh, cdf, scratch):
    table = scratch.table("typed", "key text, moments timestamptz[]", "raw_rows", database="d", table="t")
    fresh.execute(f"INSERT INTO {table} VALUES ('k', %s)", ([NAIVE, NAIVE + timedelta(days=1)],))
    found = [datetime.fromisoformat(text) for text in columns(cdf, "k")["moments"]]
    assert found == [moment.replace(tzinfo=timezone.utc) for moment in (NAIVE, NAIVE + timedelta(days=1))]


def test_returning_agrees_with_what_was_sent(fresh, cdf):
    returned = fresh.execute(
        "INSERT INTO events (external_id, start_time) VALUES ('a', %s) RETURNING start_time", (NAIVE,)
    ).fetchone()[0]
    assert returned == NAIVE.replace(tzinfo=timezone.utc)
    assert starts(cdf) == {"a": NOON}


def test_times_with_a_zone_are_what_they_say(fresh, cdf):
    moment = datetime(2024, 1, 31, 12, tzinfo=timezone(timedelta(hours=5)))
    fresh.execute("INSERT INTO events (external_id, start_time) VALUES ('a', %s)", (moment,))
    fresh.execute("INSERT INTO events (external_id, start_time) VALUES ('b', '2024-01-31 07:00:00Z')")
    assert starts(cdf) == {"a": millis("2024-01-31T07:00:00"), "b": millis("2024-01-31T07:00:00")}


def test_a_cast_of_the_users_own_is_postgresqls(fresh, cdf):
    fresh.execute("INSERT INTO events (external_id, start_time) VALUES ('a', %s::timestamp::timestamptz)", (NAIVE,))
    fresh.execute("INSERT INTO events (external_id, start_time) SELECT 'b', CAST(%s AS timestamptz)", (NAIVE,))
    assert starts(cdf) == {key: millis("2024-01-31T17:00:00") for key in "ab"}


def test_other_tables_are_left_alone(fresh, cdf, scratch):
    scratch.execute("CREATE TABLE own (n int, t timestamptz)")
    fresh.execute("INSERT INTO events (external_id, start_time) VALUES ('a', %s)", (NAIVE,))
    fresh.execute("INSERT INTO scratch.own VALUES (1, %s), (2, %s)", (NAIVE, NAIVE))
    fresh.execute("INSERT INTO scratch.own SELECT 3, %s::timestamp", (NAIVE,))
    fresh.execute(
        "WITH made AS (INSERT INTO events (external_id, start_time) VALUES ('b', %(t)s))"
        " INSERT INTO scratch.own VALUES (4, %(t)s)",
        {"t": NAIVE},
    )
    assert starts(cdf) == {"a": NOON, "b": NOON}
    found = fresh.execute("SELECT DISTINCT t FROM scratch.own").fetchall()
    assert [moment.timestamp() * 1000 for [moment] in found] == [millis("2024-01-31T17:00:00")]


def test_points_without_zone(fresh, cdf, api):
    api.create("timeseries", "s")
    insert = "INSERT INTO datapoints (external_id, timestamp, value) VALUES ('s', %s, 1), ('s', %s, 2)"
    fresh.execute(insert, (NAIVE, NAIVE + timedelta(milliseconds=1)))
    assert points(cdf, "s") == [(NOON, 1.0, None), (NOON + 1, 2.0, None)]


def test_text_without_zone_is_in_the_zone_of_the_session(fresh, cdf):
    fresh.execute("INSERT INTO events (external_id, start_time) VALUES ('a', '2024-01-31 12:00:00')")
    with fresh.cursor().copy("COPY events (external_id, start_time) FROM STDIN") as copy:
        copy.write_row(("b", "2024-01-31 12:00:00"))
    assert starts(cdf) == {key: millis("2024-01-31T17:00:00") for key in "ab"}


# ---- Npgsql, which Azure Data Factory is built on ----


def test_npgsql_binary_import(session, cdf):
    types = ["text", "timestamptz", "text", "jsonb", "int8[]"]
    for batch in range(3):
        copy_command = (
            'COPY "events" ("external_id","start_time","type","metadata","asset_ids") FROM STDIN (FORMAT BINARY)'
        )
        with session.cursor().copy(copy_command) as copy:
            copy.set_types(types)
            for at in range(1500):
                copy.write_row((f"e{batch}-{at}", NAIVE.replace(tzinfo=timezone.utc), "alarm", Jsonb({"n": at}), []))
        # What the pool sends when a connection is returned to it.
        session.execute("DISCARD ALL")
    assert len(dump(cdf, "events")) == 4500
    assert stored(cdf, "events", "e2-1499")["metadata"] == {"n": "1499"}


def test_npgsql_import_that_is_not_completed(session, cdf):
    session.pgconn.exec_(b'COPY "events" ("external_id") FROM STDIN (FORMAT BINARY)')
    session.pgconn.put_copy_data(b"PGCOPY\n\xff\r\n\0" + bytes(8) + b"\0\1\0\0\0\1a")
    session.pgconn.put_copy_end(b"Import was not completed")
    assert session.pgconn.get_result().error_field(pq.DiagnosticField.SQLSTATE) == b"57014"
    assert session.pgconn.get_result() is None
    assert requests(cdf) == []


def test_as_many_parameters_as_the_protocol_takes(session, cdf):
    rows = 65_535 // 4
    statement = f"INSERT INTO events (external_id, type, start_time, metadata) VALUES {placeholders(rows, 4)}"
    values = [value for at in range(rows) for value in (f"e{at}", "bulk", "2024-01-31 12:00:00+00", '{"k": "v"}')]
    result = session.pgconn.exec_params(
        statement.encode(), [value.encode() for value in values], [TEXT, TEXT, UNSPECIFIED, TEXT] * rows
    )
    checked(session, result)
    found = dump(cdf, "events")
    assert len(found) == rows
    assert {(event["type"], event["startTime"], event["metadata"]["k"]) for event in found} == {("bulk", NOON, "v")}


def test_a_batch_before_one_sync_is_one_transaction(session, cdf):
    with refused("22001", "type"), session.pipeline():
        session.execute("INSERT INTO events (external_id) VALUES ('a')")
        session.execute("INSERT INTO events (external_id, type) VALUES ('b', %s)", ("x" * 65,))
        session.execute("INSERT INTO events (external_id) VALUES ('c')")
    assert requests(cdf) == []


def test_several_statements_in_one_text_are_one_transaction(session, cdf):
    insert = "INSERT INTO events (external_id, type) VALUES ('{}', '{}');"
    run(session, insert.format("a", "x") + insert.format("b", "x"))
    assert len(requests(cdf, "/events")) == 1
    with refused("22001", "type"):
        run(session, insert.format("c", "x") + insert.format("d", "x" * 65))
    assert names(cdf, "events") == ["a", "b"]


# ---- pgjdbc ----


def test_pgjdbc_server_prepared_batches(session, cdf):
    prepare(
        session,
        "S_1",
        "insert into events (external_id, start_time, type, metadata, data_set_id) values ($1,$2,$3,$4,$5)",
        [VARCHAR, UNSPECIFIED, VARCHAR, VARCHAR, INT8],
    )
    run(session, "BEGIN")
    for at in range(1200):
        execute(session, "S_1", f"e{at}", "2024-01-31 13:00:00+01", "x", '{"k": "v"}', None)
    assert requests(cdf) == []
    run(session, "COMMIT")
    assert len(dump(cdf, "events")) == 1200
    assert len(requests(cdf, "/events")) == 2
    assert stored(cdf, "events", "e1199")["startTime"] == NOON


def test_pgjdbc_rewritten_batches_in_powers_of_two(session, cdf):
    width = 3
    for size in (128, 64, 32, 16, 8, 4, 2, 1):
        prepare(
            session,
            f"S_{size}",
            f"insert into events (external_id, metadata, start_time) values {placeholders(size, width)}",
            [VARCHAR, VARCHAR, UNSPECIFIED] * size,
        )
    run(session, "BEGIN")
    left, sent = 1000, 0
    while left:
        size = min(128, 1 << (left.bit_length() - 1))
        values = [v for at in range(sent, sent + size) for v in (f"e{at}", '{"k": 1}', "2024-01-31 12:00:00Z")]
        assert execute(session, f"S_{size}", *values).command_status == f"INSERT 0 {size}".encode()
        left, sent = left - size, sent + size
    run(session, "COMMIT")
    assert names(cdf, "events") == sorted(f"e{at}" for at in range(1000))
    assert len(requests(cdf, "/events")) == 1


def test_pgjdbc_generated_keys(session, cdf):
    prepare(session, "S_1", "insert into events (external_id, type) values ($1,$2)\nRETURNING *", [VARCHAR, VARCHAR])
    result = execute(session, "S_1", "e", "x")
    assert result.ntuples == 1
    by_name = {result.fname(at).decode(): result.get_value(0, at) for at in range(result.nfields)}
    assert (by_name["external_id"], by_name["type"], by_name["id"]) == (b"e", b"x", None)
    assert names(cdf, "events") == ["e"]


def test_kafka_connect_casts_in_the_statement(session, cdf):
    prepare(
        session,
        "S_1",
        'INSERT INTO "events" ("external_id","metadata","start_time","asset_ids") VALUES ($1,$2::jsonb,$3,$4)',
        [VARCHAR, VARCHAR, UNSPECIFIED, UNSPECIFIED],
    )
    for at in range(10):
        execute(session, "S_1", f"e{at}", '{"n": 1}', "2024-01-31 12:00:00+00", "{}")
    assert starts(cdf) == {f"e{at}": NOON for at in range(10)}


# ---- psqlODBC: a savepoint around every statement ----


def test_psqlodbc_savepoints_around_every_statement(session, cdf):
    prepare(session, "_PLAN", "insert into events (external_id, metadata, type) values ($1,$2,$3)", [UNSPECIFIED] * 3)
    run(session, "BEGIN;SAVEPOINT _EXEC_SVP_0")
    for at in range(1000):
        execute(session, "_PLAN", f"e{at}", '{"k": 1}', "x")
        run(session, "RELEASE _EXEC_SVP_0;SAVEPOINT _EXEC_SVP_0")
    assert requests(cdf) == []
    run(session, "COMMIT")
    assert len(dump(cdf, "events")) == 1000
    assert len(requests(cdf, "/events")) == 1


def test_psqlodbc_statements_that_fail_are_rolled_back_alone(session, cdf):
    prepare(session, "_PLAN", "insert into events (external_id, type) values ($1,$2)", [UNSPECIFIED] * 2)
    run(session, "BEGIN")
    for at in range(300):
        run(session, "SAVEPOINT _EXEC_SVP_0")
        if at % 3:
            execute(session, "_PLAN", f"e{at}", "x")
        else:
            with refused("22001", "type"):
                execute(session, "_PLAN", f"e{at}", "x" * 65)
            run(session, "ROLLBACK TO _EXEC_SVP_0")
        run(session, "RELEASE _EXEC_SVP_0")
    run(session, "COMMIT")
    assert names(cdf, "events") == sorted(f"e{at}" for at in range(300) if at % 3)
    assert len(requests(cdf, "/events")) == 1


def test_savepoints_around_points_and_raw_rows(session, cdf, api):
    api.create("timeseries", "s")
    prepare(
        session, "_P", "insert into datapoints (external_id, timestamp, value) values ($1,$2,$3)", [UNSPECIFIED] * 3
    )
    prepare(
        session,
        "_R",
        "insert into raw_rows (db_name, table_name, key, columns) values ('d','t',$1,$2)",
        [UNSPECIFIED] * 2,
    )
    run(session, "BEGIN")
    for at in range(500):
        run(session, "SAVEPOINT point")
        execute(session, "_P", "s", f"2024-01-01 00:{at // 60:02}:{at % 60:02}Z", str(at))
        run(session, "RELEASE point;SAVEPOINT row")
        execute(session, "_R", f"k{at}", f'{{"n": {at}}}')
        run(session, "ROLLBACK TO row;RELEASE row" if at % 2 else "RELEASE row")
    run(session, "COMMIT")
    assert [value for _, value, _ in points(cdf, "s")] == list(range(500))
    assert names(cdf, "raw") == sorted(f"k{at}" for at in range(0, 500, 2))
    assert len(requests(cdf)) == 2


def test_the_keys_of_rows_written_under_savepoints_are_sent_once(session, cdf):
    prepare(session, "_PLAN", "insert into events (external_id, type) values ($1,$2)", [UNSPECIFIED] * 2)
    run(session, "BEGIN")
    for at in range(600):
        run(session, "SAVEPOINT _EXEC_SVP_0")
        execute(session, "_PLAN", f"e{at % 200}", str(at))
        run(session, "RELEASE _EXEC_SVP_0")
    run(session, "COMMIT")
    assert {event["externalId"]: event["type"] for event in dump(cdf, "events")} == {
        f"e{at}": str(at + 400) for at in range(200)
    }
    assert [entry["items"] for entry in requests(cdf, "/events")] == [200]


# ---- other tools ----


def test_unnest_of_arrays(session, cdf):
    count = 2000
    statement = (
        "INSERT INTO events (external_id, start_time, metadata) SELECT * FROM"
        " UNNEST(%s::text[], %s::timestamptz[], %s::text[]::jsonb[]) AS t(external_id, start_time, metadata)"
    )
    moments = [datetime(2024, 1, 1, tzinfo=timezone.utc) + timedelta(seconds=at) for at in range(count)]
    session.execute(statement, ([f"e{at}" for at in range(count)], moments, ['{"k": 1}'] * count))
    assert starts(cdf) == {f"e{at}": millis("2024-01-01") + 1000 * at for at in range(count)}
    assert len(requests(cdf, "/events")) == 2


def test_pgx_copy_under_a_savepoint_for_each_table(session, cdf, api):
    api.create("timeseries", "s")
    with session.transaction():
        with (
            session.transaction(),
            session.cursor().copy(
                'copy "datapoints" ( "external_id", "timestamp", "value" ) from stdin binary;'
            ) as copy,
        ):
            copy.set_types(["text", "timestamptz", "float8"])
            for at in range(100):
                copy.write_row(("s", datetime(2024, 1, 1, tzinfo=timezone.utc) + timedelta(seconds=at), float(at)))
        with (
            refused("22001"),
            session.transaction(),
            session.cursor().copy('copy "events" ( "external_id", "type" ) from stdin binary;') as copy,
        ):
            copy.set_types(["text", "text"])
            copy.write_row(("e", "x" * 65))
    assert len(points(cdf, "s")) == 100
    assert dump(cdf, "events") == []


def test_a_staging_table_then_insert_of_what_is_new(session, cdf):
    with session.transaction():
        session.execute(
            'CREATE TEMP TABLE "tmp" (external_id text, start_time timestamp, metadata text) ON COMMIT DROP'
        )
        with session.cursor().copy('COPY "tmp" FROM STDIN WITH CSV') as copy:
            copy.write('a,2024-01-31 12:00:00,"{""k"": 1}"\nb,2024-01-31 12:00:00,\n')
        session.execute(
            "INSERT INTO events (external_id, start_time, metadata)"
            " SELECT external_id, start_time, nullif(metadata, '')::jsonb FROM tmp"
        )
    assert starts(cdf) == {"a": NOON, "b": NOON}


# ---- procedures ----

BATCHES = (
    "CREATE PROCEDURE load(batches int, bad int DEFAULT NULL) LANGUAGE plpgsql AS $$ BEGIN"
    " FOR batch IN 1..batches LOOP"
    "  INSERT INTO {schema}.events (external_id, data_set_id)"
    "   SELECT 'b' || batch || '-' || n, CASE WHEN batch = bad AND n = 2 THEN 99 END FROM generate_series(1, 3) AS n;"
    "  COMMIT;"
    " END LOOP; END $$"
)


def test_a_procedure_that_commits(session, cdf, scratch, gateway):
    scratch.execute(BATCHES.format(schema=gateway.schema))
    session.execute("CALL scratch.load(4)")
    assert len(dump(cdf, "events")) == 12
    assert [entry["items"] for entry in requests(cdf, "/events")] == [3, 3, 3, 3]


def test_a_procedure_whose_commit_is_refused_stops_there(session, cdf, scratch, gateway):
    scratch.execute(BATCHES.format(schema=gateway.schema))
    with refused("23503", '"b2-2"'):
        session.execute("CALL scratch.load(4, 2)")
    assert names(cdf, "events")[:3] == ["b1-1", "b1-2", "b1-3"]
    assert not any(name.startswith(("b3", "b4")) for name in names(cdf, "events"))
    session.execute("CALL scratch.load(1)")


def test_a_block_that_rolls_back_and_commits(session, cdf):
    session.execute(
        "DO $$ BEGIN"
        " INSERT INTO events (external_id) VALUES ('lost'); ROLLBACK;"
        " INSERT INTO events (external_id) VALUES ('a'); COMMIT;"
        " INSERT INTO events (external_id) VALUES ('b'); END $$"
    )
    assert names(cdf, "events") == ["a", "b"]
    assert len(requests(cdf, "/events")) == 2
