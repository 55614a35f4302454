"""A client hears of the progress while a delivery to CDF or a read from it lasts."""

from __future__ import annotations

import fcntl
import re
import termios
import time
from array import array
from contextlib import closing, contextmanager
from queue import Queue

import psycopg
import pytest
from faults import SOON, TOKEN, fault, wait_for_request, wait_until
from psycopg import sql
from support import names, requests
from test_waiting import in_background

INTERVAL = "200ms"
# Longer than an interval: enough for some notices, whatever the machine does.
DELAY = 1500


class Notices(Queue):
    """The NOTICEs of a connection, as they come."""

    def __init__(self, connection: psycopg.Connection):
        super().__init__()
        connection.add_notice_handler(lambda diag: self.put((diag.severity_nonlocalized, diag.message_primary)))

    def next(self, pattern: str) -> str:
        """Waits for a NOTICE that matches."""
        while True:
            severity, message = self.get(timeout=SOON)
            if severity == "NOTICE" and re.search(pattern, message):
                return message

    def all(self) -> list[str]:
        """Those that have come and were not taken."""
        return [self.get()[1] for _ in range(self.qsize())]


@contextmanager
def hearing(session):
    """The session's notices, one each interval."""
    session.execute(f"SET cdf_fdw.progress_interval = '{INTERVAL}'")
    yield Notices(session)


def write_points(session, count: int) -> None:
    session.execute("INSERT INTO timeseries (external_id, name) VALUES ('s', 's')")
    session.execute("BEGIN")
    session.execute(
        "INSERT INTO datapoints (external_id, timestamp, value)"
        " SELECT 's', '2024-01-01'::timestamptz + i * interval '1 s', i FROM generate_series(1, %s) i",
        [count],
    )


# Deliveries.


def test_commit_tells_how_much_is_delivered(session, cdf):
    fault(cdf, "/timeseries/data", "delay", delay_ms=DELAY)
    with hearing(session) as notices:
        session.execute("SET cdf_fdw.max_concurrent_requests = 1")
        write_points(session, 250_000)
        assert not notices.all(), "nothing is told while rows are collected"
        session.execute("COMMIT")
        told = [message for message in notices.all() if message.startswith("delivered")]
    assert told
    counts = []
    for message in told:
        match = re.fullmatch(
            r"delivered ([\d,]+) of 250,000 datapoints in (?:\d+\.\d|\d+) s(, about \d+ s left)?", message
        )
        assert match, message
        counts.append(int(match[1].replace(",", "")))
        # Without progress, no remaining time can be told.
        assert (match[2] is not None) == (counts[-1] > 0), message
    assert counts[0] == 0 and counts == sorted(counts)
    # The sum of whole requests.
    sizes = {entry["points"] for entry in requests(cdf, "/timeseries/data")}
    assert set(counts) - {0} <= {n * max(sizes) for n in range(1, 10)}, (counts, sizes)
    assert len(set(counts)) > 1, counts


def test_notices_come_while_commit_waits(session, cdf):
    """The client has them before the COMMIT is over, not only at its end."""
    fault(cdf, "/events", "stall")
    with hearing(session) as notices:
        session.execute("BEGIN")
        session.execute("INSERT INTO events (external_id) VALUES ('e')")
        with in_background(session, "COMMIT") as commit:
            assert notices.next("delivered").startswith("delivered 0 of 1 events in ")
            assert notices.next("delivered")
            assert not commit.done()


@pytest.mark.parametrize("how", ["insert", "copy", "procedure", "function"])
def test_every_kind_of_statement_that_delivers_tells(session, scratch, cdf, how):
    fault(cdf, "/events", "delay", delay_ms=DELAY)
    scratch.execute(
        "CREATE FUNCTION load() RETURNS void LANGUAGE sql AS $$ INSERT INTO events (external_id) VALUES ('f') $$"
    )
    scratch.execute(
        "CREATE PROCEDURE load_and_commit() LANGUAGE plpgsql AS"
        " $$ BEGIN INSERT INTO events (external_id) VALUES ('p'); COMMIT; END $$"
    )
    with hearing(session) as notices:
        match how:
            case "insert":
                session.execute("INSERT INTO events (external_id) VALUES ('i')")
            case "copy":
                with session.cursor().copy("COPY events (external_id) FROM STDIN") as copy:
                    copy.write_row(["c"])
            case "procedure":
                session.execute("CALL scratch.load_and_commit()")
            case "function":
                session.execute("SELECT scratch.load()")
        assert notices.next("delivered").startswith("delivered 0 of 1 events in ")
    assert len(names(cdf, "events")) == 1


def test_several_resources_are_told_one_by_one(session, cdf):
    fault(cdf, "/timeseries", "delay", delay_ms=DELAY)
    fault(cdf, "/timeseries/data", "delay", delay_ms=DELAY)
    with hearing(session) as notices:
        session.execute("BEGIN")
        session.execute("INSERT INTO timeseries (external_id, name) VALUES ('s', 's'), ('t', 't')")
        session.execute("INSERT INTO datapoints (external_id, timestamp, value) VALUES ('s', now(), 1)")
        session.execute("COMMIT")
        told = [re.sub(r" in .*", "", message) for message in notices.all()]
    assert "delivered 0 of 2 timeseries and 0 of 1 datapoints" in told
    assert "delivered 2 of 2 timeseries and 0 of 1 datapoints" in told


def test_repeats_are_told_with_their_reason(session, cdf):
    fault(cdf, "/events", "status", status=429, times=2)
    fault(cdf, "/events", "status", status=503, after=2, times=1)
    fault(cdf, "/events", "delay", delay_ms=DELAY)
    with hearing(session) as notices:
        session.execute("INSERT INTO events (external_id) VALUES ('e')")
        message = notices.next("3 requests repeated")
    assert "3 requests repeated (2 × 429 Too Many Requests, 1 × 503 Service Unavailable)" in message


def test_a_pause_is_told_as_one(session, cdf):
    fault(cdf, "/events", "status", status=429, headers={"retry-after": "300"})
    with hearing(session) as notices:
        with in_background(session, "INSERT INTO events (external_id) VALUES ('e')"):
            message = notices.next("waiting")
    assert re.fullmatch(
        r"delivered 0 of 1 events in \d+\.\d s, waiting 4 min \d+ s until the next attempt"
        r" \(429 Too Many Requests, Retry-After\)",
        message,
    ), message


def test_a_wait_for_a_token_is_told_as_one(gateway, cdf):
    fault(cdf, TOKEN, "stall")
    with gateway.connect(autocommit=True) as session, hearing(session) as notices:
        with in_background(session, "INSERT INTO events (external_id) VALUES ('e')"):
            message = notices.next("waiting")
    assert message.endswith(", waiting for a token from the identity provider"), message


def test_psql_shows_the_progress_of_a_commit(cluster, gateway, cdf):
    fault(cdf, "/events", "delay", delay_ms=DELAY)
    script = f"""
SET cdf_fdw.progress_interval = '{INTERVAL}';
BEGIN;
INSERT INTO events (external_id) VALUES ('e');
COMMIT;
"""
    result = cluster.psql(script, dsn=gateway.dsn, args=(), merge_stderr=True)
    lines = result.stdout.splitlines()
    assert [line for line in lines if not line.startswith("NOTICE:")] == ["SET", "BEGIN", "INSERT 0 1", "COMMIT"]
    assert lines[-1] == "COMMIT"
    assert re.fullmatch(r"NOTICE:  delivered 0 of 1 events in \d\.\d s", lines[3]), lines


# Clients that hear nothing.


@pytest.mark.parametrize("setting", ["cdf_fdw.progress_interval = 0", "client_min_messages = warning"])
def test_who_wants_to_hear_nothing_hears_nothing(session, cdf, setting):
    fault(cdf, "/events", "delay", delay_ms=DELAY)
    with hearing(session) as notices:
        session.execute(f"SET {setting}")
        session.execute("INSERT INTO events (external_id) VALUES ('e')")
        assert notices.all() == []


def test_a_short_delivery_tells_nothing(session, cdf):
    with hearing(session) as notices:
        session.execute("SET cdf_fdw.progress_interval = DEFAULT")
        session.execute("INSERT INTO events (external_id) VALUES ('e')")
        assert notices.all() == []


def test_a_client_that_reads_nothing_can_still_be_cancelled(cluster, gateway, cdf):
    """Its connection is full, so that a further NOTICE would wait for it."""
    fault(cdf, "/events", "stall")
    # A unix socket holds little.
    session = psycopg.connect(gateway.dsn, host=cluster.socket_dir, autocommit=True)
    with closing(session), cluster.connect() as other:
        session.execute("SET cdf_fdw.progress_interval = '1ms'")
        session.pgconn.send_query(b"INSERT INTO events (external_id) VALUES ('e')")
        session.pgconn.flush()

        def unread() -> int:
            count = array("i", [0])
            fcntl.ioctl(session.fileno(), termios.FIONREAD, count)
            return count[0]

        def is_full() -> bool:
            before = unread()
            time.sleep(0.3)
            return 0 < before == unread()

        wait_until(is_full, "a full connection")
        pid = session.info.backend_pid
        other.execute("SELECT pg_cancel_backend(%s)", [pid])
        waits = "SELECT wait_event FROM pg_stat_activity WHERE pid = %s"
        # It has left the wait for CDF, to tell the client of that.
        wait_until(lambda: other.execute(waits, [pid]).fetchone() != ("Extension",), "the end of the wait")
        log = "canceling statement due to user request: CDF had acknowledged none of 1 events"
        wait_until(lambda: log in cluster.log(), "the error in the log")


# Reads.


def test_a_read_tells_what_it_has_read(session, api, cdf):
    for at in range(0, 3000, 1000):
        api.create("events", *(f"e{i}" for i in range(at, at + 1000)))
    fault(cdf, "/events/list", "delay", delay_ms=DELAY)
    with hearing(session) as notices:
        assert session.execute("SELECT count(*) FROM events").fetchone() == (3000,)
        told = notices.all()
    counts = [re.fullmatch(r"read ([\d,]+) events in [\d.]+ s", message)[1] for message in told]
    assert counts[0] == "0" and "1,000" in counts, counts


def test_a_read_tells_why_it_takes_long(session, api, cdf):
    fault(cdf, "/events/list", "status", status=503, times=1)
    fault(cdf, "/events/list", "delay", delay_ms=DELAY)
    with hearing(session) as notices:
        session.execute("SELECT * FROM events")
        assert notices.next(r"^read 0 events in .* s, 1 request repeated \(503 Service Unavailable\)$")


def test_an_interval_lasts_over_many_short_requests(session, api, cdf):
    """None of them is as long as the interval."""
    api.create("events", *(f"e{at}" for at in range(20)))
    fault(cdf, "/events/byids", "delay", delay_ms=60)
    with hearing(session) as notices:
        session.execute("SET enable_hashjoin = off")
        session.execute("SET enable_mergejoin = off")
        session.execute("SET enable_material = off")
        session.execute("SELECT count(*) FROM generate_series(0, 19) i, LATERAL (SELECT * FROM events"
                        " WHERE external_id = 'e' || i OFFSET 0) e")
        assert notices.next(r"^read \d+ events in ")


@pytest.mark.parametrize("statement", [
    "UPDATE events SET description = 'x' WHERE type = 'a'",
    "DELETE FROM events WHERE type = 'a'",
])  # fmt: skip
def test_a_statement_that_reads_before_it_writes_tells(session, api, cdf, statement):
    api.create("events", "e", type="a")
    fault(cdf, "/events/list", "delay", delay_ms=DELAY)
    with hearing(session) as notices:
        session.execute(statement)
        assert notices.next("^read 0 events in ")


def test_a_look_up_tells(session, api, cdf):
    api.create("events", "e")
    fault(cdf, "/events/byids", "delay", delay_ms=DELAY)
    with hearing(session) as notices:
        done = session.execute("INSERT INTO events (external_id) VALUES ('e'), ('f') ON CONFLICT DO NOTHING")
        assert done.rowcount == 1
        message = notices.next("asking")
    assert re.fullmatch(r"asking CDF which of \d events exist, \d\.\d s so far", message), message


def test_raw_tables_are_told_by_their_place(session, scratch, api, cdf):
    api.create_raw("db", "t", k={"a": 1})
    table = scratch.table("typed", "key text, a int", "raw_rows", database="db", table="t")
    fault(cdf, "/raw/dbs/db/tables/t/rows", "delay", delay_ms=DELAY)
    with hearing(session) as notices:
        session.execute(f"SELECT * FROM {table}")
        assert notices.next(r"^read 0 raw_rows \(db\.t\) in ")
        session.execute(f"INSERT INTO {table} VALUES ('l', 2)")
        assert notices.next(r"^delivered 0 of 1 raw_rows \(db\.t\) in ")


def test_registration_tells(cluster, cdf):
    fault(cdf, "/token/inspect", "delay", delay_ms=DELAY)
    with cluster.connect() as session:
        session.execute("LOAD 'cdf_fdw'")
        with hearing(session) as notices:
            call = sql.SQL("SELECT cdf_register_credentials({}, {}, {}, {}, {}, username => 'hears')").format(
                cdf.token_url, cdf.client_id, cdf.client_secret, cdf.scope, cdf.project
            )
            session.execute("BEGIN")
            session.execute(call)
            session.execute("ROLLBACK")
            assert notices.next("^asking CDF what the client may do, ")


# The log.


def log_lines(cluster, before: int) -> list[str]:
    return [line for line in cluster.log()[before:].splitlines() if "delivery to CDF took" in line]


@pytest.fixture
def logging(cluster, session):
    """All deliveries of the session's role are logged. Gives its next session, and how to get the new lines."""
    name = session.info.user
    with cluster.connect() as admin:
        admin.execute(sql.SQL("ALTER ROLE {} SET cdf_fdw.log_min_flush_duration = 0").format(sql.Identifier(name)))
        before = len(cluster.log())
        yield lambda: log_lines(cluster, before)
        admin.execute(sql.SQL("ALTER ROLE {} RESET cdf_fdw.log_min_flush_duration").format(sql.Identifier(name)))


LINE = re.compile(
    r"LOG:  delivery to CDF took [\d.]+ ms: acknowledged (?P<rows>.*); (?P<requests>\d+) requests?,"
    r" (?P<repeats>.*); (?P<bytes>\d+) bytes sent; (?P<sending>[\d.]+) ms with requests under way,"
    r" (?P<waiting>[\d.]+) ms waiting for the next attempt or a token; (?P<ended>.*)"
)


def test_a_delivery_is_logged_in_one_line(logging, gateway, cdf):
    fault(cdf, "/events", "status", status=429, times=2)
    with gateway.connect(autocommit=True) as session:
        session.execute("BEGIN")
        session.execute("INSERT INTO events (external_id) VALUES ('e'), ('f')")
        session.execute("INSERT INTO assets (external_id, name) VALUES ('a', 'a')")
        session.execute("COMMIT")
    [line] = logging()
    told = LINE.search(line)
    assert told, line
    assert sorted(told["rows"].split(", ")) == ["1 of 1 assets", "2 of 2 events"]
    assert told["repeats"] == "2 requests repeated (429 Too Many Requests)"
    sent = requests(cdf)
    assert int(told["requests"]) == len(sent) == 4
    assert int(told["bytes"]) == sum(entry["body_bytes"] for entry in sent)
    assert float(told["sending"]) > 0 and float(told["waiting"]) > 0
    assert told["ended"] == "delivered"
    assert cdf.client_secret not in line


def test_a_refused_delivery_is_logged(logging, gateway, cdf):
    fault(cdf, "/events", "status", status=403)
    with gateway.connect(autocommit=True) as session, pytest.raises(psycopg.Error):
        session.execute("INSERT INTO events (external_id) VALUES ('e')")
    [line] = logging()
    told = LINE.search(line)
    assert (told["rows"], told["ended"]) == ("0 of 1 events", "ended with SQLSTATE 42501")


@pytest.mark.parametrize("how, sqlstate", [("cancel", "57014"), ("terminate", "57P01")])
def test_a_delivery_that_is_ended_is_logged(logging, cluster, gateway, cdf, how, sqlstate):
    fault(cdf, "/events", "stall")
    with gateway.connect(autocommit=True) as session, cluster.connect() as other:
        with in_background(session, "INSERT INTO events (external_id) VALUES ('e')") as insert:
            wait_for_request(cdf)
            other.execute(f"SELECT pg_{how}_backend(%s)", [session.info.backend_pid])
            with pytest.raises(psycopg.Error) as error:
                insert.result(SOON)
        assert error.value.sqlstate == sqlstate
    wait_until(logging, "the line")
    [line] = logging()
    assert LINE.search(line)["ended"] == f"ended from outside with SQLSTATE {sqlstate}"


def test_short_deliveries_and_reads_are_not_logged(logging, gateway, cluster, cdf):
    with gateway.connect(autocommit=True) as session:
        session.execute("SELECT * FROM events")
        session.execute("SELECT 1")
    assert logging() == []
    before = len(cluster.log())
    with gateway.connect(autocommit=True) as session, cluster.connect() as admin:
        setting = "SELECT current_setting('cdf_fdw.log_min_flush_duration')"
        assert session.execute(setting).fetchone() == ("0",)
        name = sql.Identifier(gateway.username)
        admin.execute(sql.SQL("ALTER ROLE {} SET cdf_fdw.log_min_flush_duration = '1h'").format(name))
    with gateway.connect(autocommit=True) as session:
        session.execute("INSERT INTO events (external_id) VALUES ('e')")
    assert log_lines(cluster, before) == []


def test_only_superusers_log_deliveries(session):
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        session.execute("SET cdf_fdw.log_min_flush_duration = 0")

