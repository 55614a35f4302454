"""While a session waits for CDF, everything that should end the wait does, and the session is usable afterwards."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest
from faults import (
    SOON,
    TOKEN,
    alter,
    fault,
    register,
    register_apart,
    statuses,
    token_requests,
    wait_for_request,
    wait_until,
)
from harness import cluster_script, own_cluster, psql_environment
from psycopg import errors
from psycopg.pq import ExecStatus, TransactionStatus
from support import names, refused, requests

INSERT = "INSERT INTO events (external_id) VALUES ('e')"


@pytest.fixture(scope="module")
def mortal(emulator):
    """A cluster that may be stopped and killed, running for each test that asks for it."""
    with own_cluster() as cluster:
        yield cluster, register(cluster, emulator)


@contextmanager
def in_background(session, statement, *parameters):
    """Executes it in a thread; gives the future of the result."""
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(session.execute, statement, *parameters)
        try:
            yield running
        finally:
            # A test that has failed does not wait for the statement.
            if not running.done():
                session.cancel_safe()


@contextmanager
def stalled_commit(session, cdf, path="/events"):
    """A COMMIT that waits for CDF, which does not answer. Gives the future of the COMMIT."""
    fault(cdf, path, "stall")
    session.execute("BEGIN")
    session.execute(INSERT)
    with in_background(session, "COMMIT") as commit:
        wait_for_request(cdf)
        yield commit


def assert_usable(session, cdf):
    assert session.info.transaction_status == TransactionStatus.IDLE
    cdf.admin_delete("faults")
    session.execute("INSERT INTO events (external_id) VALUES ('next')")
    assert names(cdf, "events") == ["next"]


def backend(cluster, pid: int) -> tuple | None:
    """What pg_stat_activity says about a backend: state and wait event; None if there is no such backend."""
    with cluster.connect() as connection:
        query = "SELECT state, wait_event_type, wait_event FROM pg_stat_activity WHERE pid = %s"
        return connection.execute(query, [pid]).fetchone()


# Cancelling.


@pytest.mark.parametrize("path", ["/events", TOKEN])
def test_pg_cancel_backend_ends_the_wait(cluster, gateway, cdf, path):
    with gateway.connect(autocommit=True) as session, cluster.connect() as other:
        with stalled_commit(session, cdf, path) as commit:
            assert backend(cluster, session.info.backend_pid) == ("active", "Extension", "Extension")
            other.execute("SELECT pg_cancel_backend(%s)", [session.info.backend_pid])
            with pytest.raises(errors.QueryCanceled):
                commit.result(SOON)
        assert_usable(session, cdf)


def test_cancel_request_of_the_client_ends_the_wait(gateway, cdf):
    with gateway.connect(autocommit=True) as session:
        with stalled_commit(session, cdf) as commit:
            session.cancel_safe()
            with pytest.raises(errors.QueryCanceled):
                commit.result(SOON)
        # The request is given up as well, and not left to CDF.
        wait_until(lambda: statuses(cdf, "/events") == [0], "the end of the request")
        assert_usable(session, cdf)


def test_cancel_ends_a_wait_that_has_written_much(gateway, cdf):
    """Many requests are under way, or wait for their turn."""
    fault(cdf, "/events", "stall", after=2)
    with gateway.connect(autocommit=True) as session:
        statement = "INSERT INTO events (external_id) SELECT 'e' || i FROM generate_series(1, 20000) i"
        with in_background(session, statement) as insert:
            wait_until(lambda: cdf.admin_get("stats")["in_flight"] == 8, "8 requests under way")
            session.cancel_safe()
            with pytest.raises(errors.QueryCanceled):
                insert.result(SOON)
        wait_until(lambda: not cdf.admin_get("stats")["in_flight"], "the end of the requests")
        sent = len(requests(cdf, "/events"))
        cdf.admin_delete("faults")
        session.execute("INSERT INTO events (external_id) VALUES ('next')")
        # Nothing of what was left has been sent since.
        assert len(requests(cdf, "/events")) == sent + 1


def test_cancel_ends_the_pause_between_two_attempts(gateway, cdf):
    fault(cdf, "/events", status=429, headers={"retry-after": "300"})
    with gateway.connect(autocommit=True) as session:
        with in_background(session, INSERT) as insert:
            wait_until(lambda: statuses(cdf, "/events"), "an answer")
            session.cancel_safe()
            with pytest.raises(errors.QueryCanceled):
                insert.result(SOON)
        assert_usable(session, cdf)


def test_cancel_while_connecting(cluster, emulator, cdf):
    """A host that does not answer at all: its queue of connections is full."""
    gateway, server = register_apart(cluster, emulator)
    with socket.socket() as listener, socket.socket() as first, socket.socket() as second:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        for waiting in (first, second):
            waiting.setblocking(False)
            waiting.connect_ex(listener.getsockname())
        alter(cluster, "SERVER {}", server, base_url=f"http://127.0.0.1:{listener.getsockname()[1]}")
        with gateway.connect(autocommit=True) as session:
            with in_background(session, INSERT) as insert:
                wait_until(lambda: backend(cluster, session.info.backend_pid)[1] == "Extension", "the wait")
                session.cancel_safe()
                with pytest.raises(errors.QueryCanceled):
                    insert.result(SOON)
            assert session.execute("SELECT 1").fetchone() == (1,)


def psql(cluster, gateway, statement: str) -> subprocess.Popen:
    """psql with a terminal's signal handling, running a statement as the registered role."""
    return subprocess.Popen(
        [cluster.bindir / "psql", "-X", "-v", "VERBOSITY=sqlstate", "-c", statement, gateway.dsn],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=psql_environment(),
    )


def test_ctrl_c_in_psql(cluster, gateway, cdf):
    fault(cdf, "/events", "stall")
    with psql(cluster, gateway, INSERT) as client:
        wait_for_request(cdf)
        client.send_signal(signal.SIGINT)
        _, error = client.communicate(timeout=SOON)
    assert "57014" in error
    assert client.returncode == 1


def test_cancelled_registration_leaves_nothing(cluster, cdf):
    fault(cdf, TOKEN, "stall")
    with cluster.connect() as session:
        session.execute("CREATE EXTENSION IF NOT EXISTS cdf_fdw")
        call = (
            "SELECT cdf_register_credentials(%s, %s, %s, %s, %s, username => 'never_registered', server => 'never')",
            [cdf.token_url, cdf.client_id, cdf.client_secret, cdf.scope, cdf.project],
        )
        with in_background(session, *call) as registration:
            wait_for_request(cdf)
            session.cancel_safe()
            with pytest.raises(errors.QueryCanceled):
                registration.result(SOON)
        for made in (
            "SELECT FROM pg_roles WHERE rolname = 'never_registered'",
            "SELECT FROM pg_foreign_server WHERE srvname = 'never'",
            "SELECT FROM pg_namespace WHERE nspname = 'never_registered'",
        ):
            assert session.execute(made).rowcount == 0


# Limits of time.


def test_statement_timeout_does_not_apply_at_commit(gateway, cdf):
    fault(cdf, "/events", "delay", delay_ms=1200)
    with gateway.connect(autocommit=True) as session:
        session.execute("SET statement_timeout = '300ms'")
        session.execute("BEGIN")
        session.execute(INSERT)
        session.execute("COMMIT")
        assert names(cdf, "events") == ["e"]


@pytest.mark.parametrize("path", ["/events", TOKEN])
def test_flush_timeout_applies_at_commit(gateway, cdf, path):
    fault(cdf, path, "stall")
    with gateway.connect(autocommit=True) as session:
        session.execute("BEGIN")
        session.execute("SET LOCAL cdf_fdw.flush_timeout = '700ms'")
        session.execute(INSERT)
        with refused("57014", "cdf_fdw.flush_timeout", "700ms"):
            session.execute("COMMIT")
        assert_usable(session, cdf)


def test_flush_timeout_is_for_all_requests_together(gateway, cdf):
    fault(cdf, "/events", "delay", delay_ms=400)
    with gateway.connect(autocommit=True) as session:
        session.execute("SET cdf_fdw.max_concurrent_requests = 1")
        session.execute("SET cdf_fdw.flush_timeout = '1s'")
        with refused("57014", "cdf_fdw.flush_timeout", "1s", "accepted", "of 9000 events"):
            session.execute("INSERT INTO events (external_id) SELECT 'e' || i FROM generate_series(1, 9000) i")


def test_request_timeout_gives_up_one_request_and_sends_it_again(gateway, cdf):
    fault(cdf, "/events", "stall", times=1)
    with gateway.connect(autocommit=True) as session:
        session.execute("SET cdf_fdw.request_timeout = '2s'")
        session.execute(INSERT)
        assert names(cdf, "events") == ["e"]
        assert sorted(statuses(cdf, "/events")) == [0, 201]


# Ends of the session, of the client and of the server.


def test_pg_terminate_backend_ends_the_session(cluster, gateway, cdf):
    session = gateway.connect(autocommit=True)
    with stalled_commit(session, cdf) as commit, cluster.connect() as other:
        other.execute("SELECT pg_terminate_backend(%s)", [session.info.backend_pid])
        with pytest.raises(errors.AdminShutdown):
            commit.result(SOON)
    wait_until(lambda: backend(cluster, session.info.backend_pid) is None, "the end of the backend")
    assert session.closed


@pytest.mark.parametrize("how", ["killed", "connection closed"])
def test_vanished_client_ends_the_wait(cluster, gateway, cdf, how):
    with cluster.connect() as connection:
        assert connection.execute("SHOW client_connection_check_interval").fetchone() == ("0",)
    fault(cdf, "/events", "stall")
    if how == "killed":
        client = psql(cluster, gateway, INSERT)
        wait_for_request(cdf)
        client.kill()
        client.communicate()
    else:
        session = gateway.connect(autocommit=True)
        session.pgconn.send_query(INSERT.encode())
        session.pgconn.flush()
        wait_for_request(cdf)
        session.pgconn.finish()

    def left() -> int:
        with cluster.connect() as connection:
            query = "SELECT count(*) FROM pg_stat_activity WHERE usename = %s"
            return connection.execute(query, [gateway.username]).fetchone()[0]

    wait_until(lambda: left() == 0, "the end of the backend")
    wait_until(lambda: statuses(cdf, "/events") == [0], "the end of the request")


def test_client_that_has_sent_its_next_statement_has_not_vanished(gateway, cdf):
    fault(cdf, "/events", "delay", delay_ms=1500)
    with gateway.connect(autocommit=True) as session:
        connection = session.pgconn
        connection.enter_pipeline_mode()
        for statement in (INSERT, "SELECT 1"):
            connection.send_query_params(statement.encode(), None)
            connection.pipeline_sync()
        connection.flush()
        results = [connection.get_result() for _ in range(6)]
        assert [ExecStatus(result.status).name for result in results if result] == [
            "COMMAND_OK",
            "PIPELINE_SYNC",
            "TUPLES_OK",
            "PIPELINE_SYNC",
        ]
        connection.exit_pipeline_mode()
    assert names(cdf, "events") == ["e"]


def test_fast_shutdown_ends_the_wait(mortal, cdf):
    cluster, gateway = mortal
    session = gateway.connect(autocommit=True)
    with stalled_commit(session, cdf) as commit:
        cluster_script("stop", cluster.data_dir.parent)
        with pytest.raises(errors.AdminShutdown):
            commit.result(SOON)
    assert "received fast shutdown request" in cluster.log()
    assert "received immediate shutdown request" not in cluster.log()
    cluster_script("restart", cluster.data_dir.parent)


def test_death_of_the_postmaster_ends_the_backend(emulator, cdf):
    with own_cluster() as cluster:
        session = register(cluster, emulator).connect(autocommit=True)
        process = Path(f"/proc/{session.info.backend_pid}")
        postmaster = cluster.data_dir / "postmaster.pid"
        with stalled_commit(session, cdf) as commit:
            os.kill(int(postmaster.read_text().split()[0]), signal.SIGKILL)
            # It says that there is a server to be stopped.
            postmaster.unlink()
            with pytest.raises(psycopg.OperationalError):
                commit.result(SOON)
        wait_until(lambda: not process.exists() or "\tZ" in (process / "status").read_text(), "the end of the process")


# What is told about a wait that was ended.


@contextmanager
def stalled_load(session, cdf):
    """A load of 3000 events, of which the first 1000 are accepted, and the next are under way. Gives its future."""
    fault(cdf, "/events", "stall", after=1)
    session.execute("SET cdf_fdw.max_concurrent_requests = 1")
    load = "INSERT INTO events (external_id) SELECT 'e' || i FROM generate_series(1, 3000) i"
    with in_background(session, load) as running:
        wait_until(lambda: statuses(cdf, "/events") == [201] and cdf.admin_get("stats")["in_flight"], "the second request")
        yield running
    # Its end would otherwise be found among the requests of the next test.
    wait_until(lambda: not cdf.admin_get("stats")["in_flight"], "the end of the requests")


ACCOUNT = (
    "CDF had accepted 1000 of 3000 events, and may have accepted up to 1000 more that were under way;"
    " CDF's last answer to POST /events was 201 Created (x-request-id "
)


def test_a_cancelled_delivery_tells_what_was_accepted(cluster, gateway, cdf):
    with gateway.connect(autocommit=True) as session:
        before = len(cluster.log())
        with stalled_load(session, cdf) as load:
            session.cancel_safe()
            with refused("57014", "2 requests had been made", "ends in the same state") as error:
                load.result(SOON)
        message = error.value.diag.message_primary
        [accepted] = [entry for entry in requests(cdf, "/events") if entry["status"] == 201]
        assert message == f"canceling statement due to user request: {ACCOUNT}{accepted['request_id']})"
        assert f"ERROR:  {message}" in cluster.log()[before:]
        assert_usable_again(session, cdf)


def assert_usable_again(session, cdf):
    cdf.admin_delete("faults")
    session.execute("INSERT INTO events (external_id) VALUES ('next')")
    assert "next" in names(cdf, "events")


def test_a_terminated_delivery_tells_what_was_accepted(cluster, gateway, cdf):
    session = gateway.connect(autocommit=True)
    before = len(cluster.log())
    with stalled_load(session, cdf) as load, cluster.connect() as other:
        other.execute("SELECT pg_terminate_backend(%s)", [session.info.backend_pid])
        with refused("57P01", "terminating connection due to administrator command: " + ACCOUNT) as error:
            load.result(SOON)
    assert error.value.diag.severity_nonlocalized == "FATAL"
    assert f"FATAL:  {error.value.diag.message_primary}" in cluster.log()[before:]


def test_a_shutdown_tells_what_was_accepted(mortal, cdf):
    cluster, gateway = mortal
    session = gateway.connect(autocommit=True)
    with stalled_load(session, cdf) as load:
        cluster_script("stop", cluster.data_dir.parent)
        with refused("57P01", ACCOUNT):
            load.result(SOON)
    assert f"FATAL:  terminating connection due to administrator command: {ACCOUNT}" in cluster.log()
    cluster_script("restart", cluster.data_dir.parent)


@pytest.mark.parametrize("interval", ["10min", "20ms"])
def test_a_vanished_client_leaves_the_account_in_the_log(cluster, gateway, cdf, interval):
    """Also one that is found to be gone when it is told of the progress."""
    session = gateway.connect(autocommit=True)
    session.execute(f"SET cdf_fdw.progress_interval = '{interval}'")
    before = len(cluster.log())
    with stalled_load(session, cdf):
        os.dup2(os.open(os.devnull, os.O_RDWR), session.fileno())
        gone = f"FATAL:  connection to client lost: {ACCOUNT}"
        wait_until(lambda: gone in cluster.log()[before:], "the account in the log")
        session.cancel = session.cancel_safe = lambda: None


def test_the_end_of_the_postmaster_is_told(emulator, cdf):
    with own_cluster() as cluster:
        session = register(cluster, emulator).connect(autocommit=True)
        postmaster = cluster.data_dir / "postmaster.pid"
        with stalled_load(session, cdf) as load:
            os.kill(int(postmaster.read_text().split()[0]), signal.SIGKILL)
            postmaster.unlink()
            with refused("57P01", "terminating connection due to unexpected postmaster exit: " + ACCOUNT):
                load.result(SOON)


def test_a_cancelled_pause_tells_what_it_waited_for(gateway, cdf):
    fault(cdf, "/events", status=429, headers={"retry-after": "300"})
    with gateway.connect(autocommit=True) as session:
        with in_background(session, INSERT) as insert:
            wait_until(lambda: statuses(cdf, "/events"), "an answer")
            session.cancel_safe()
            last = "CDF had accepted none of 1 events; CDF's last answer to POST /events was 429 Too Many Requests"
            with refused("57014", last):
                insert.result(SOON)


def test_a_delivery_that_may_have_been_accepted_is_not_told_as_nothing(gateway, cdf):
    with gateway.connect(autocommit=True) as session:
        with stalled_commit(session, cdf) as commit:
            session.cancel_safe()
            told = "CDF had acknowledged none of 1 events, and may have accepted 1 that was under way"
            with refused("57014", told, "CDF has not answered yet"):
                commit.result(SOON)


def test_a_delivery_that_has_sent_nothing_is_told_as_nothing(gateway, cdf):
    with gateway.connect(autocommit=True) as session:
        with stalled_commit(session, cdf, TOKEN) as commit:
            session.cancel_safe()
            with refused("57014", "CDF had accepted none of 1 events; CDF has not answered yet"):
                commit.result(SOON)


@pytest.mark.parametrize("how", ["cancel", "statement_timeout", "terminate"])
def test_a_read_that_is_ended_tells_what_it_had_read(cluster, gateway, api, cdf, how):
    for at in (0, 1000):
        api.create("events", *(f"e{i}" for i in range(at, at + 1000)))
    fault(cdf, "/events/list", "stall", after=1)
    session = gateway.connect(autocommit=True)
    if how == "statement_timeout":
        session.execute("SET statement_timeout = '2s'")
    why, sqlstate = {
        "cancel": ("canceling statement due to user request", "57014"),
        "statement_timeout": ("canceling statement due to statement timeout", "57014"),
        "terminate": ("terminating connection due to administrator command", "57P01"),
    }[how]
    before = len(cluster.log())
    with in_background(session, "SELECT count(*) FROM events") as select, cluster.connect() as other:
        wait_until(lambda: statuses(cdf, "/events/list") and cdf.admin_get("stats")["in_flight"], "the second request")
        if how != "statement_timeout":
            other.execute(f"SELECT pg_{how}_backend(%s)", [session.info.backend_pid])
        message = f"{why}: 1000 events had been read; CDF's last answer to POST /events/list was 200 OK"
        with refused(sqlstate, message):
            select.result(SOON)
    assert message in cluster.log()[before:]
    session.close()


def test_a_delivery_out_of_time_tells_what_cdf_said_last(gateway, cdf):
    fault(cdf, "/events", "stall", after=1)
    with gateway.connect(autocommit=True) as session:
        session.execute("SET cdf_fdw.max_concurrent_requests = 1")
        session.execute("SET cdf_fdw.flush_timeout = '2s'")
        load = "INSERT INTO events (external_id) SELECT 'e' || i FROM generate_series(1, 3000) i"
        last = "CDF's last answer to POST /events was 201 Created"
        with refused("57014", "1000 of 3000 events") as error:
            session.execute(load)
        message = error.value.diag.message_primary
        assert "cdf_fdw.flush_timeout (2s) passed" in message and last in message, message


def test_a_read_out_of_time_tells_what_it_had_read(gateway, api, cdf):
    for at in (0, 1000):
        api.create("events", *(f"e{i}" for i in range(at, at + 1000)))
    fault(cdf, "/events/list", "stall", after=1)
    with gateway.connect(autocommit=True) as session:
        session.execute("SET cdf_fdw.flush_timeout = '2s'")
        with refused("57014") as error:
            session.execute("SELECT count(*) FROM events")
        told = "1000 events had been read; CDF's last answer to POST /events/list was 200 OK"
        assert told in error.value.diag.message_primary


def test_an_answer_of_the_identity_provider_is_told_as_that(gateway, cdf):
    fault(cdf, TOKEN, status=503)
    with gateway.connect(autocommit=True) as session:
        session.execute("SET cdf_fdw.max_retries = 1000")
        with in_background(session, INSERT) as insert:
            wait_until(lambda: len(token_requests(cdf)) > 1, "a second request for a token")
            session.cancel_safe()
            with refused("57014", "the last answer to the request for a token was 503 Service Unavailable"):
                insert.result(SOON)


# Signals and threads.


def test_interrupts_are_served_during_the_wait(mortal, cdf):
    """SIGHUP and SIGUSR1 do not end the wait, but are served: other sessions wait for barriers to be passed."""
    cluster, gateway = mortal
    fault(cdf, "/events", "delay", delay_ms=3000)
    with gateway.connect(autocommit=True) as session, cluster.connect() as other:
        pid = session.info.backend_pid
        with in_background(session, INSERT) as insert:
            wait_for_request(cdf)
            other.execute("SELECT pg_log_backend_memory_contexts(%s)", [pid])
            wait_until(lambda: f"logging memory contexts of PID {pid}" in cluster.log(), "the memory contexts")
            other.execute("CREATE DATABASE barrier")
            other.execute("DROP DATABASE barrier")
            other.execute("ALTER SYSTEM SET work_mem = '7MB'")
            other.execute("SELECT pg_reload_conf()")
            assert not insert.done()
            insert.result(SOON)
        wait_until(lambda: session.execute("SHOW work_mem").fetchone() == ("7MB",), "the new setting")
        assert names(cdf, "events") == ["e"]
        assert len(requests(cdf, "/events")) == 1


def blocked_signals(pid: int) -> dict[str, set[int]]:
    """The signals that each thread of a process blocks, by the thread's id."""
    blocked = {}
    for task in Path(f"/proc/{pid}/task").iterdir():
        fields = dict(line.split(":\t", 1) for line in (task / "status").read_text().splitlines())
        mask = int(fields["SigBlk"], 16)
        blocked[task.name] = {number for number in range(1, 65) if mask >> number - 1 & 1}
    return blocked


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="the threads of a process are read from /proc")
def test_only_the_main_thread_takes_signals(cluster, emulator, cdf):
    # A host's name is looked up by a thread of its own.
    gateway, _ = register_apart(
        cluster,
        emulator,
        base_url=f"http://localhost:{emulator.port}",
        token_url=emulator.token_url.replace("127.0.0.1", "localhost"),
    )
    with gateway.connect(autocommit=True) as session:
        with stalled_commit(session, cdf) as commit:
            pid = session.info.backend_pid
            blocked = blocked_signals(pid)
            main = blocked.pop(str(pid))
            assert len(blocked) >= 2
            # Neither can be blocked; glibc keeps the first two real-time signals to itself.
            never = {signal.SIGKILL, signal.SIGSTOP, 32, 33}
            assert all(signals >= set(range(1, 65)) - never for signals in blocked.values()), blocked
            heard = {signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGALRM}
            assert not main & heard
            session.cancel_safe()
            with pytest.raises(errors.QueryCanceled):
                commit.result(SOON)


def test_a_session_has_no_thread_before_it_needs_one(cluster, gateway, cdf):
    """Neither loading the library nor inserting starts one: only the delivery does."""
    with gateway.connect(autocommit=True) as session:
        tasks = Path(f"/proc/{session.info.backend_pid}/task")
        session.execute("BEGIN")
        session.execute(INSERT)
        assert len(list(tasks.iterdir())) == 1
        session.execute("COMMIT")
        assert len(list(tasks.iterdir())) > 1


def test_no_session_has_crashed(cluster):
    """In the log of all tests so far: a crash of one session ends the others, and may pass for what they asked for."""
    assert not re.search(r"terminated by signal|PANIC|panicked|TRAP:|exited with exit code", cluster.log())
