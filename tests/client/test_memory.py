"""A transaction of any size takes bounded memory: the rest waits in PostgreSQL's temporary files."""

from __future__ import annotations

from contextlib import contextmanager, suppress
from pathlib import Path

import psycopg
import pytest
from faults import create_missing_series, fault, register, temporary_files
from harness import own_cluster
from psycopg import errors, sql
from psycopg.pq import TransactionStatus
from support import checksum, dump, names, refused, requests, series


@pytest.fixture
def session(loading):
    """The session of the module's own loader."""
    return loading

MB = 1 << 20
# Streamed: a set-returning function in FROM would fill a temporary file of PostgreSQL's own.
NUMBERS = "(SELECT generate_series({}, {}) AS i) AS numbers"


@pytest.fixture
def small(session):
    """A session that may keep 1 MB of rows in memory."""
    session.execute("SET cdf_fdw.buffer_memory = '1MB'")
    return session


@contextmanager
def no_leaks(cluster):
    """PostgreSQL warns when a transaction commits without closing its files."""
    before = len(cluster.log())
    yield
    assert "leak" not in cluster.log()[before:]


def points(session, first: int, last: int) -> None:
    """Points of ten series, one for each number; its timestamp is so many seconds after 1970, its value the number."""
    session.execute(
        f"""INSERT INTO datapoints (external_id, "timestamp", value)
            SELECT 's' || i % 10, to_timestamp(i), i FROM {NUMBERS.format(first, last)}"""
    )


def peak(session) -> int:
    """The most bytes that the session's process has had in memory so far."""
    status = Path(f"/proc/{session.info.backend_pid}/status").read_text()
    (kilobytes,) = [line.split()[1] for line in status.splitlines() if line.startswith("VmHWM")]
    return int(kilobytes) * 1024


reads_proc = pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="memory is read from /proc")


@reads_proc
def test_three_million_points_in_four_megabytes(cluster, session, cdf):
    session.execute("SET cdf_fdw.buffer_memory = '4MB'")
    session.execute("SET cdf_fdw.max_concurrent_requests = 2")
    # What a session takes for its first load, whatever the size.
    points(session, 1, 100_000)
    before = peak(session)
    with no_leaks(cluster):
        session.execute("BEGIN")
        points(session, 1, 3_000_000)
        assert peak(session) - before < 16 * MB
        assert temporary_files(cluster) > 0
        session.execute("COMMIT")
    # Besides the buffer there are the requests under way.
    assert peak(session) - before < 32 * MB
    assert temporary_files(cluster) == 0
    summary = cdf.admin_get("datapoints/summary")
    assert (summary["series"], summary["count"]) == (10, 3_000_000)
    # Nothing was sent twice.
    assert summary["received"] == 3_100_000
    for digit in range(10):
        numbers = range(digit or 10, 3_000_001, 10)
        assert series(cdf, f"s{digit}")["checksum"] == checksum((n * 1000 for n in numbers), numbers)


def moment(second: int) -> str:
    return f"2024-01-{second // 86400 + 1:02} {second // 3600 % 24:02}:{second // 60 % 60:02}:{second % 60:02}"


def copy(session, count: int) -> None:
    with session.cursor().copy('COPY datapoints (external_id, "timestamp", value) FROM STDIN') as rows:
        for first in range(0, count, 10_000):
            numbers = range(first, first + 10_000)
            rows.write("".join(f"s{n % 10}\t{moment(n)}\t{n}\n" for n in numbers))


def single_inserts(session, count: int) -> None:
    session.execute(
        f"""DO $$ BEGIN FOR i IN 1..{count} LOOP
              INSERT INTO datapoints (external_id, "timestamp", value) VALUES ('s' || i % 10, to_timestamp(i), i);
            END LOOP; END $$"""
    )


def savepoints(session, count: int) -> None:
    session.execute(
        f"""DO $$ BEGIN FOR i IN 1..{count} LOOP
              BEGIN
                INSERT INTO datapoints (external_id, "timestamp", value) VALUES ('s' || i % 10, to_timestamp(i), i);
              EXCEPTION WHEN division_by_zero THEN NULL; END;
            END LOOP; END $$"""
    )


@reads_proc
@pytest.mark.parametrize(
    ("load", "count"),
    [(copy, 500_000), (single_inserts, 120_000), (savepoints, 80_000)],
    ids=["COPY", "INSERTs", "savepoints"],
)
def test_memory_does_not_grow_with_the_number_of_rows(small, cdf, load, count):
    small.execute("BEGIN")
    load(small, 20_000)
    before = peak(small)
    load(small, count)
    assert peak(small) - before < 10 * MB
    small.execute("ROLLBACK")
    assert requests(cdf) == []


@reads_proc
def test_large_rows_in_four_megabytes(cluster, session, cdf):
    """RAW rows of 100 kB: a request of as many as CDF takes would have half a gigabyte."""
    session.execute("SET cdf_fdw.buffer_memory = '4MB'")
    session.execute("SET cdf_fdw.max_concurrent_requests = 2")
    insert = f"""INSERT INTO raw_rows (db_name, table_name, key, columns)
                 SELECT 'd', 't', i::text, jsonb_build_object('text', repeat('x', 100000))
                 FROM {NUMBERS.format(1, "{}")}"""
    session.execute(insert.format(40))
    before = peak(session)
    session.execute(insert.format(1000))
    assert peak(session) - before < 48 * MB
    assert len(dump(cdf, "raw")) == 1000


HUGE = 48 * MB
# Control characters, of which escaping makes six each.
HUGE_VALUES = {
    "RAW, typed text": ("typed (key, t) SELECT 'k', t", "t"),
    "RAW, typed key": ("typed (key) SELECT t", "key"),
    "RAW, typed json": ("typed (key, j) SELECT 'k', j", "j"),
    "RAW, typed jsonb": ("typed (key, b) SELECT 'k', b", "b"),
    "RAW, typed array": ("typed (key, a) SELECT 'k', a", "a"),
    "RAW, typed bytes": ("typed (key, y) SELECT 'k', convert_to(t, 'UTF8')", "y"),
    "RAW, columns": ("raw_rows (db_name, table_name, key, columns) SELECT 'd', 't', 'k', b", "columns"),
    "RAW, small members": ("raw_rows (db_name, table_name, key, columns) SELECT 'd', 't', 'k', many", "columns"),
    "RAW, database": ("raw_rows (db_name, table_name, key) SELECT t, 't', 'k'", "db_name"),
    "key": ("events (external_id) SELECT t", "external_id"),
    "text": ("assets (external_id, name) SELECT 'a', t", "name"),
    "one of some": ("relationships (external_id, source_type) SELECT 'r', t", "source_type"),
    "flat metadata": ("events (external_id, metadata) SELECT 'e', b", "metadata"),
    "nested metadata": ("events (external_id, metadata) SELECT 'e', nested", "metadata"),
    "geo location": ("assets (external_id, name, geo_location) SELECT 'a', 'a', b", "geo_location"),
    "label": ("assets (external_id, name, labels) SELECT 'a', 'a', a", "labels"),
    "sequence columns": ("sequences (external_id, columns) SELECT 's', nested", "columns"),
    "sequence row": ("sequence_rows (external_id, row_number, columns) SELECT 's', 1, b", "columns"),
    "string point": ("string_datapoints (external_id, \"timestamp\", value) SELECT 's', now(), t", "value"),
    "series": ("datapoints (external_id, \"timestamp\", value) SELECT t, now(), 1", "external_id"),
    "status": ("datapoints (external_id, \"timestamp\", value, status_symbol) SELECT 's', now(), 1, good", "status_symbol"),
}


@pytest.fixture(scope="module")
def huge(cluster, loader):
    """A local table with values far longer than any that CDF takes, and a typed RAW table."""
    with cluster.connect() as superuser:
        superuser.execute(f'SET search_path = "{loader.schema}"')
        columns = {"t": "text", "good": "text", "a": "text[]", "j": "json", "b": "jsonb", "nested": "jsonb", "many": "jsonb"}
        superuser.execute("CREATE TABLE huge (" + ", ".join(map(" ".join, columns.items())) + ")")
        # Computed in advance, and not compressed, so that the statements take as little memory as possible.
        superuser.execute("ALTER TABLE huge " + ", ".join(f"ALTER {c} SET STORAGE EXTERNAL" for c in columns))
        superuser.execute("INSERT INTO huge (t, j) SELECT repeat(chr(1), %s), to_json(repeat(chr(1), %s))", (HUGE, HUGE // 6))
        superuser.execute("UPDATE huge SET b = jsonb_build_object('text', t), good = 'Good, ' || t, a = ARRAY[t]")
        superuser.execute("UPDATE huge SET nested = jsonb_build_array(b)")
        superuser.execute("UPDATE huge SET many = (SELECT jsonb_object_agg(i, i) FROM generate_series(1, 1000000) i)")
        superuser.execute(
            """CREATE FOREIGN TABLE typed (key text, t text, j json, b jsonb, a text[], y bytea) SERVER cdf
               OPTIONS (resource 'raw_rows', database 'd', "table" 't')"""
        )
        superuser.execute(f'GRANT SELECT, INSERT, UPDATE, DELETE ON huge, typed TO "{loader.username}"')
        yield
        superuser.execute("DROP TABLE huge; DROP FOREIGN TABLE typed")


@reads_proc
@pytest.mark.parametrize("statement", HUGE_VALUES)
def test_value_that_is_too_long_is_not_made_longer(session, cdf, huge, statement):
    insert, column = HUGE_VALUES[statement]
    session.execute("INSERT INTO events (external_id) VALUES ('e')")
    before = peak(session)
    with pytest.raises(psycopg.Error) as caught:
        session.execute(f"INSERT INTO {insert} FROM huge")
    assert caught.value.sqlstate in ("22001", "22023"), caught.value
    assert f'"{column}"' in str(caught.value) and len(str(caught.value)) < 5000
    # The statement's own copies of the value: what it reads, what it computes, what it hands over.
    assert peak(session) - before < 4 * HUGE
    assert names(cdf, "events") == ["e"]


@reads_proc
@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE typed SET t = (SELECT huge.t FROM huge) WHERE key = 'k'",
        "UPDATE events SET description = (SELECT t FROM huge) WHERE external_id = 'e'",
        "UPDATE events SET metadata = (SELECT b FROM huge) WHERE external_id = 'e'",
        "DELETE FROM typed WHERE key = (SELECT t FROM huge)",
        "DELETE FROM events WHERE external_id = (SELECT t FROM huge)",
        "DELETE FROM string_datapoints WHERE external_id = (SELECT t FROM huge)",
    ],
)
def test_update_and_delete_with_a_value_that_is_too_long(session, cdf, huge, statement):
    session.execute("INSERT INTO typed (key, t) VALUES ('k', 'x')")
    session.execute("INSERT INTO events (external_id) VALUES ('e')")
    before = peak(session)
    if statement.startswith("UPDATE"):
        with refused("22001"):
            session.execute(statement)
    else:
        assert session.execute(statement).rowcount == 0
    # The value of a condition is also part of the request.
    assert peak(session) - before < 6 * HUGE


@pytest.mark.parametrize("end", ["COMMIT", "ROLLBACK"])
def test_temporary_files_end_with_the_transaction(cluster, small, cdf, end):
    with no_leaks(cluster):
        small.execute("BEGIN")
        points(small, 1, 300_000)
        assert temporary_files(cluster) > 0
        small.execute(end)
        assert temporary_files(cluster) == 0
    assert cdf.admin_get("datapoints/summary")["count"] == (300_000 if end == "COMMIT" else 0)


def test_temporary_files_end_with_an_error_of_a_statement(cluster, small, cdf):
    small.execute("BEGIN")
    points(small, 1, 300_000)
    assert temporary_files(cluster) > 0
    with pytest.raises(errors.DivisionByZero):
        small.execute("SELECT 1 / 0")
    small.execute("ROLLBACK")
    assert temporary_files(cluster) == 0


def test_temporary_files_end_with_an_error_of_the_delivery(cluster, small, cdf):
    fault(cdf, "/timeseries/data", status=403, after=1)
    with no_leaks(cluster):
        small.execute("BEGIN")
        points(small, 1, 300_000)
        with refused("42501"):
            small.execute("COMMIT")
        assert temporary_files(cluster) == 0
    cdf.admin_delete("faults")
    points(small, 1, 300_000)
    assert cdf.admin_get("datapoints/summary")["count"] == 300_000


def test_temporary_files_end_with_a_cancelled_delivery(cluster, small, cdf):
    fault(cdf, "/timeseries/data", "stall")
    with no_leaks(cluster):
        small.execute("SET cdf_fdw.flush_timeout = '500ms'")
        small.execute("BEGIN")
        points(small, 1, 300_000)
        with refused("57014"):
            small.execute("COMMIT")
        assert temporary_files(cluster) == 0


def test_rows_in_temporary_files_go_back_with_their_savepoint(cluster, small, cdf):
    with no_leaks(cluster):
        small.execute("BEGIN")
        points(small, 1, 150_000)
        small.execute("SAVEPOINT s")
        # The first to write to the file is a savepoint that is rolled back; later ones go on with it.
        points(small, 100_001, 300_000)
        small.execute("ROLLBACK TO s")
        points(small, 300_001, 450_000)
        small.execute("COMMIT")
    assert temporary_files(cluster) == 0
    assert cdf.admin_get("datapoints/summary")["count"] == 300_000


def test_file_that_a_rolled_back_savepoint_opened(cluster, small, cdf):
    """It outlives the savepoint, the statement and the exception block that happened to open it."""
    with no_leaks(cluster):
        small.execute("BEGIN")
        small.execute("SAVEPOINT s")
        points(small, 1, 200_000)
        assert temporary_files(cluster) > 0
        small.execute("ROLLBACK TO s")
        points(small, 200_001, 400_000)
        small.execute("COMMIT")
    assert cdf.admin_get("datapoints/summary")["count"] == 200_000


def test_items_and_raw_rows_wait_in_files_too(cluster, small, cdf):
    with no_leaks(cluster):
        small.execute("BEGIN")
        small.execute(
            f"""INSERT INTO events (external_id, description)
                SELECT 'e' || i, rpad(i::text, 400, 'x') FROM {NUMBERS.format(1, 5000)}"""
        )
        assert temporary_files(cluster) > 0
        small.execute(
            f"""INSERT INTO assets (external_id, name, parent_external_id, description)
                SELECT 'a' || i, i, CASE WHEN i > 1 THEN 'a' || i / 3 + 1 END, rpad(i::text, 400, 'x')
                FROM {NUMBERS.format(2, 5000)}"""
        )
        small.execute("INSERT INTO assets (external_id, name) VALUES ('a1', 'root')")
        small.execute(
            f"""INSERT INTO raw_rows (db_name, table_name, key, columns)
                SELECT 'd', 't' || i % 3, i::text, jsonb_build_object('n', i, 'text', repeat('x', 400))
                FROM {NUMBERS.format(1, 10000)}"""
        )
        assert requests(cdf) == []
        small.execute("COMMIT")
    assert {item["externalId"]: item["description"] for item in dump(cdf, "events")} == {
        f"e{i}": str(i).ljust(400, "x") for i in range(1, 5001)
    }
    assert names(cdf, "assets") == sorted(f"a{i}" for i in range(1, 5001))
    assert {(row["table"], row["key"], row["columns"]["n"]) for row in dump(cdf, "raw")} == {
        (f"t{i % 3}", str(i), i) for i in range(1, 10001)
    }


def test_rows_written_again_after_they_went_to_a_file(small, cdf):
    small.execute("BEGIN")
    for text in ("first", "second", "third"):
        small.execute(
            f"""INSERT INTO events (external_id, description)
                SELECT 'e' || i, rpad('{text}', 400, '.') FROM {NUMBERS.format(1, 4000)}"""
        )
        points(small, 1, 100_000)
    small.execute("COMMIT")
    assert {item["description"].rstrip(".") for item in dump(cdf, "events")} == {"third"}
    assert len(dump(cdf, "events")) == 4000
    assert cdf.admin_get("datapoints/summary")["count"] == 100_000


ENDS = {
    "COMMIT": ("BEGIN", "ROWS", "COMMIT"),
    "COMMIT of nothing": ("BEGIN", "SAVEPOINT s", "ROWS", "ROLLBACK TO s", "COMMIT"),
    "ROLLBACK": ("BEGIN", "ROWS", "ROLLBACK"),
    "RELEASE": ("BEGIN", "SAVEPOINT s", "ROWS", "RELEASE s", "ROWS", "COMMIT"),
    "ROLLBACK TO, twice": ("BEGIN", "SAVEPOINT s", "ROWS", "ROLLBACK TO s", "ROWS", "ROLLBACK TO s", "ROWS", "COMMIT"),
    "savepoint in a savepoint": (
        "BEGIN", "SAVEPOINT s", "SAVEPOINT t", "ROWS", "RELEASE t", "ROLLBACK TO s", "ROWS", "COMMIT",
    ),
    "error in a savepoint": ("BEGIN", "SAVEPOINT s", "ROWS", "SELECT 1 / 0", "ROLLBACK TO s", "ROWS", "COMMIT"),
    "error": ("BEGIN", "ROWS", "SELECT 1 / 0", "COMMIT"),
    "AND CHAIN": ("BEGIN", "ROWS", "COMMIT AND CHAIN", "ROWS", "ROLLBACK AND CHAIN", "ROWS", "COMMIT"),
    "PREPARE TRANSACTION": ("BEGIN", "SAVEPOINT s", "ROWS", "ROLLBACK TO s", "PREPARE TRANSACTION 'p'", "ROLLBACK PREPARED 'p'"),
    "PREPARE TRANSACTION after an exception": ("BEGIN", "CAUGHT", "PREPARE TRANSACTION 'p'", "COMMIT PREPARED 'p'"),
    "PREPARE TRANSACTION refused": ("BEGIN", "ROWS", "PREPARE TRANSACTION 'p'"),
    "exception": ("BEGIN", "CAUGHT", "ROWS", "COMMIT"),
    "procedure": ("CALL commits()", "ROWS"),
    "cursor": ("BEGIN", "DECLARE c CURSOR FOR SELECT external_id FROM timeseries", "FETCH c", "ROWS", "FETCH c", "COMMIT"),
    "cursor of a savepoint": (
        "BEGIN", "SAVEPOINT s", "ROWS", "DECLARE c CURSOR FOR SELECT external_id FROM datapoints", "FETCH c",
        "ROLLBACK TO s", "ROWS", "COMMIT",
    ),
    "held cursor": ("BEGIN", "ROWS", "DECLARE c CURSOR WITH HOLD FOR SELECT external_id FROM datapoints LIMIT 7", "COMMIT", "FETCH c"),
    "own rows": ("BEGIN", "ROWS", "SELECT count(*) FROM datapoints", "ROLLBACK"),
    "own rows, not all": ("BEGIN", "ROWS", "SELECT external_id FROM datapoints LIMIT 3", "COMMIT"),
    "refused delivery": ("FAULT", "BEGIN", "ROWS", "COMMIT", "ROWS"),
}


def test_no_end_of_a_transaction_leaves_a_file(emulator, cdf):
    """PostgreSQL warns of a temporary file that is left at the end of a transaction that did not fail."""
    rows = f"""INSERT INTO datapoints (external_id, "timestamp", value)
               SELECT 's' || i % 10, to_timestamp(i), i FROM {NUMBERS.format(1, 30_000)}"""
    caught = f"DO $$ BEGIN {rows}; PERFORM 1 / 0; EXCEPTION WHEN division_by_zero THEN NULL; END $$"
    with own_cluster("max_prepared_transactions=2") as cluster:
        loader = register(cluster, emulator)
        create_missing_series(cluster, loader)
        with cluster.connect() as superuser:
            superuser.execute(
                f"""CREATE PROCEDURE public.commits() LANGUAGE plpgsql AS $$ BEGIN
                      {rows}; COMMIT; {rows}; ROLLBACK; {rows}; COMMIT;
                    END $$"""
            )
        for end, steps in ENDS.items():
            cdf.admin_delete("faults")
            before = len(cluster.log())
            with loader.connect(autocommit=True) as session:
                session.execute("SET search_path = \"$user\", public")
                session.execute("SET cdf_fdw.buffer_memory = '64kB'")
                for step in steps:
                    if step == "FAULT":
                        fault(cdf, "/timeseries/data", status=403, after=1)
                        continue
                    with suppress(psycopg.Error):
                        session.execute({"ROWS": rows, "CAUGHT": caught}.get(step, step))
                    if step == "ROWS" and session.info.transaction_status == TransactionStatus.INTRANS:
                        assert temporary_files(cluster) > 0, f"{end}: nothing has to wait in a file"
                assert session.info.transaction_status == TransactionStatus.IDLE, end
                assert temporary_files(cluster) == 0, end
            told = cluster.log()[before:]
            assert "leak" not in told and "temporary file" not in told, f"{end}: {told}"


@pytest.fixture
def limited(cluster, loader, cdf):
    """A session that may have 2 MB of temporary files."""
    name = sql.Identifier(loader.username)
    with cluster.connect() as superuser:
        superuser.execute(sql.SQL("ALTER ROLE {} SET temp_file_limit = '2MB'").format(name))
        with loader.connect(autocommit=True) as session:
            session.execute("SET cdf_fdw.buffer_memory = '1MB'")
            yield session
        superuser.execute(sql.SQL("ALTER ROLE {} RESET temp_file_limit").format(name))


def test_temp_file_limit(cluster, limited, cdf):
    with no_leaks(cluster):
        limited.execute("BEGIN")
        with refused("53400", "temp_file_limit"):
            points(limited, 1, 1_000_000)
        assert limited.execute("COMMIT").statusmessage == "ROLLBACK"
        assert limited.info.transaction_status == TransactionStatus.IDLE
        assert temporary_files(cluster) == 0
        assert requests(cdf) == []
        points(limited, 1, 20_000)
    assert cdf.admin_get("datapoints/summary")["count"] == 20_000


def test_temp_file_limit_in_a_savepoint(cluster, limited, cdf):
    """The rows of before the savepoint are still there, and still delivered."""
    with no_leaks(cluster):
        limited.execute("BEGIN")
        points(limited, 1, 50_000)
        limited.execute("SAVEPOINT s")
        with refused("53400"):
            points(limited, 1, 1_000_000)
        limited.execute("ROLLBACK TO s")
        limited.execute("COMMIT")
    assert cdf.admin_get("datapoints/summary")["count"] == 50_000
