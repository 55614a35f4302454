"""The library in shared_preload_libraries: what the postmaster loads once is there in every process that it forks, in
background workers too, which session_preload_libraries does not reach."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

import psycopg
import pytest
from faults import SOON, fault, register, statuses, wait_for_request, wait_until
from harness import own_cluster
from psycopg import sql
from support import names, stored

UPSERT = """
INSERT INTO {schema}.events (external_id, description) VALUES ({key}, {value})
ON CONFLICT (external_id) DO UPDATE SET description = EXCLUDED.description
"""


def has_library(name: str) -> bool:
    """Whether the PostgreSQL that is tested has a library."""
    pg_config = os.environ.get("PG_CONFIG", "pg_config")
    directory = subprocess.run([pg_config, "--pkglibdir"], capture_output=True, text=True, check=True).stdout.strip()
    return (Path(directory) / f"{name}.so").exists()


HAS_PG_CRON = has_library("pg_cron")


@pytest.fixture(scope="module")
def shared(emulator):
    """A cluster whose postmaster has the library, and a role that is registered there."""
    libraries = "cdf_fdw, pg_cron" if HAS_PG_CRON else "cdf_fdw"
    # What is committed must survive a crash of a process here.
    settings = ["synchronous_commit=on", "wal_level=logical", "max_worker_processes=20", "cron.database_name=postgres"]
    settings += ["cron.use_background_workers=on", "wal_retrieve_retry_interval=200ms"]
    settings = [setting for setting in settings if HAS_PG_CRON or not setting.startswith("cron.")]
    with own_cluster(f"shared_preload_libraries={libraries}", "session_preload_libraries=", *settings) as cluster:
        yield cluster, register(cluster, emulator)


def upsert(gateway, key: str, value: str) -> str:
    """An INSERT … ON CONFLICT of an event, which only a session with the library can plan."""
    return UPSERT.format(schema=f'"{gateway.schema}"', key=key, value=value)


def postmaster(cluster) -> int:
    return int((cluster.data_dir / "postmaster.pid").read_text().split()[0])


def sockets(pid: int) -> set[str]:
    """The sockets of a process, by inode."""
    links = (os.readlink(path) for path in Path(f"/proc/{pid}/fd").iterdir())
    return {link for link in links if link.startswith("socket:")}


def test_the_postmaster_starts_no_thread_and_no_connection(shared, cdf):
    """What a forked process would inherit without its threads, or share with all others."""
    cluster, gateway = shared
    pid = postmaster(cluster)
    before = sockets(pid)
    with gateway.connect(autocommit=True) as session:
        session.execute(upsert(gateway, "'e'", "'first'"))
        own = session.info.backend_pid
        assert len(list(Path(f"/proc/{own}/task").iterdir())) > 1, "the session has no I/O thread"
    assert names(cdf, "events") == ["e"]
    assert len(list(Path(f"/proc/{pid}/task").iterdir())) == 1
    assert sockets(pid) == before


def test_registration_sets_nothing_to_preload(shared):
    cluster, gateway = shared
    with cluster.connect() as connection:
        query = "SELECT setconfig FROM pg_db_role_setting WHERE setrole = %s::regrole"
        [[settings]] = connection.execute(query, [f'"{gateway.username}"']).fetchall()
    assert not [setting for setting in settings if setting.startswith("session_preload_libraries")]


def test_sessions_of_their_own_work_side_by_side(shared, cdf):
    """Processes that are forked from one that has the library share neither connections nor tokens with it."""
    cluster, gateway = shared
    sessions = [gateway.connect(autocommit=True) for _ in range(4)]
    try:
        for turn in range(3):
            for number, session in enumerate(sessions):
                session.execute(upsert(gateway, f"'e{number}'", f"'{turn}'"))
    finally:
        for session in sessions:
            session.close()
    assert names(cdf, "events") == ["e0", "e1", "e2", "e3"]
    assert {stored(cdf, "events", f"e{number}")["description"] for number in range(4)} == {"2"}


def test_a_crash_of_a_session_leaves_a_server_that_works(shared, cdf):
    """All processes end when one crashes, and the postmaster, with the library in it, starts them anew."""
    cluster, gateway = shared
    pid = postmaster(cluster)
    fault(cdf, "/events", "stall")
    session = gateway.connect(autocommit=True)
    session.execute("BEGIN")
    session.execute(upsert(gateway, "'lost'", "'lost'"))
    session.pgconn.send_query(b"COMMIT")
    wait_for_request(cdf)
    os.kill(session.info.backend_pid, signal.SIGKILL)
    with pytest.raises(psycopg.OperationalError):
        session.execute("SELECT 1")

    def connects():
        try:
            return gateway.connect(autocommit=True)
        except psycopg.OperationalError:
            return None

    cdf.admin_delete("faults")
    with wait_until(connects, "the end of the recovery") as session:
        session.execute(upsert(gateway, "'after'", "'the crash'"))
        assert session.execute("SELECT description FROM events WHERE external_id = 'after'").fetchone() == ("the crash",)
    assert postmaster(cluster) == pid
    assert names(cdf, "events") == ["after"]
    assert len(list(Path(f"/proc/{pid}/task").iterdir())) == 1


def test_a_crash_while_nothing_is_sent_loses_nothing_of_others(shared, cdf):
    """Temporary files of a crashed session are removed, and what it had buffered is not in CDF."""
    cluster, gateway = shared
    session = gateway.connect(autocommit=True)
    session.execute("SET cdf_fdw.buffer_memory = '64kB'")
    session.execute("BEGIN")
    session.execute("INSERT INTO events (external_id) SELECT 'e' || i FROM generate_series(1, 20000) i")
    os.kill(session.info.backend_pid, signal.SIGKILL)

    def files():
        try:
            with cluster.connect() as connection:
                return [connection.execute("SELECT count(*) FROM pg_ls_tmpdir()").fetchone()[0]]
        except psycopg.OperationalError:
            return None

    assert wait_until(files, "the end of the recovery") == [0]
    assert names(cdf, "events") == []


@pytest.mark.skipif(not HAS_PG_CRON, reason="PostgreSQL has no pg_cron here (package postgresql-<major>-cron)")
def test_pg_cron_writes_from_background_workers(shared, cdf):
    """A job succeeds when CDF has its rows, and otherwise fails with CDF's words."""
    cluster, gateway = shared
    fault(cdf, "/assets", "status", status=403)
    taken = upsert(gateway, "'cron'", "'written by a job'")
    refused = f"""INSERT INTO "{gateway.schema}".assets (external_id, name) VALUES ('a', 'a')"""
    with cluster.connect() as connection:
        connection.execute("CREATE EXTENSION IF NOT EXISTS pg_cron")
        connection.execute(sql.SQL("GRANT USAGE ON SCHEMA cron TO {}").format(sql.Identifier(gateway.username)))
        schedule = (
            "INSERT INTO cron.job (schedule, command, nodename, nodeport, database, username) "
            "VALUES ('* * * * *', %s, 'localhost', %s, 'postgres', %s) RETURNING jobid"
        )
        jobs = [
            connection.execute(schedule, [command, cluster.port, gateway.username]).fetchone()[0]
            for command in (taken, refused)
        ]
        query = "SELECT status, return_message FROM cron.job_run_details WHERE jobid = %s ORDER BY runid LIMIT 1"

        def run(job, status):
            """The job's first run, once it is so. pg_cron says `succeeded` at the end of the statement, before its COMMIT."""
            found = connection.execute(query, [job]).fetchone()
            return found if found and found[0] == status else None

        try:
            # pg_cron begins at the next full minute.
            refusal = wait_until(lambda: run(jobs[1], "failed"), "the end of the refused job", timeout=100)
            wait_until(lambda: names(cdf, "events") == ["cron"], "the delivery of the other job")
            assert run(jobs[0], "succeeded") == ("succeeded", "INSERT 0 1")
        finally:
            for job in jobs:
                connection.execute("SELECT cron.unschedule(%s)", [job])
    assert "assets" in refusal[1], refusal
    assert stored(cdf, "events", "cron")["description"] == "written by a job"
    assert names(cdf, "assets") == []


@pytest.fixture
def replicated(shared, cdf):
    """A table of another database that is replicated into one whose trigger writes to CDF. Gives connections to both."""
    cluster, gateway = shared
    with cluster.connect() as connection:
        for statement in ("DROP DATABASE IF EXISTS plant", "CREATE DATABASE plant"):
            connection.execute(statement)
    plant = psycopg.connect(cluster.dsn("plant"), autocommit=True)
    here = cluster.connect()
    try:
        plant.execute("CREATE TABLE orders (number text PRIMARY KEY, state text)")
        plant.execute("INSERT INTO orders VALUES ('o1', 'copied')")
        plant.execute("CREATE PUBLICATION orders FOR TABLE orders")
        plant.execute("SELECT pg_create_logical_replication_slot('orders', 'pgoutput')")
        here.execute("CREATE TABLE orders (number text PRIMARY KEY, state text)")
        # The worker writes as the subscription's owner, who has no user mapping: the function is the role's.
        body = upsert(gateway, "NEW.number", "NEW.state")
        here.execute(
            "CREATE FUNCTION order_to_cdf() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER "
            f"SET search_path = pg_catalog, pg_temp AS $$ BEGIN {body}; RETURN NULL; END $$"
        )
        here.execute(sql.SQL("GRANT CREATE ON SCHEMA public TO {}").format(sql.Identifier(gateway.username)))
        here.execute(sql.SQL("ALTER FUNCTION order_to_cdf() OWNER TO {}").format(sql.Identifier(gateway.username)))
        here.execute(
            "CREATE TRIGGER to_cdf AFTER INSERT OR UPDATE ON orders FOR EACH ROW EXECUTE FUNCTION order_to_cdf()"
        )
        here.execute("ALTER TABLE orders ENABLE ALWAYS TRIGGER to_cdf")
        here.execute(
            sql.SQL(
                "CREATE SUBSCRIPTION orders CONNECTION {} PUBLICATION orders WITH (create_slot = false, slot_name = 'orders')"
            ).format(sql.Literal(cluster.dsn("plant")))
        )
        yield plant, here
    finally:
        here.execute("DROP SUBSCRIPTION IF EXISTS orders")
        here.execute("DROP TABLE IF EXISTS orders")
        here.execute("DROP FUNCTION IF EXISTS order_to_cdf()")
        here.execute(sql.SQL("REVOKE CREATE ON SCHEMA public FROM {}").format(sql.Identifier(gateway.username)))
        here.close()
        plant.close()
        with cluster.connect() as connection:
            connection.execute("DROP DATABASE plant WITH (FORCE)")


def test_logical_replication_writes_through_a_trigger(replicated, cdf):
    """One worker makes the first copy of the table, another one applies the changes."""
    plant, _ = replicated
    wait_until(lambda: names(cdf, "events") == ["o1"], "the first copy", timeout=60)
    plant.execute("INSERT INTO orders VALUES ('o2', 'new')")
    plant.execute("UPDATE orders SET state = 'changed' WHERE number = 'o1'")

    def state(key):
        return [event.get("description") for event in cdf.admin_get("dump", resource="events", external_id=key)["items"]]

    wait_until(lambda: state("o1") == ["changed"] and state("o2") == ["new"], "the changes", timeout=60)


def test_logical_replication_goes_on_where_cdf_refused(replicated, cdf):
    """A transaction that CDF refuses is applied again until CDF accepts it."""
    plant, _ = replicated
    wait_until(lambda: names(cdf, "events") == ["o1"], "the first copy", timeout=60)
    fault(cdf, "/events", "status", status=403)
    fault(cdf, "/events/update", "status", status=403)
    plant.execute("INSERT INTO orders VALUES ('o2', 'new')")
    wait_until(lambda: statuses(cdf, "/events").count(403) >= 2, "two attempts", timeout=60)
    assert names(cdf, "events") == ["o1"]
    cdf.admin_delete("faults")
    wait_until(lambda: names(cdf, "events") == ["o1", "o2"], "the delivery", timeout=60)


def test_a_replication_worker_that_waits_for_cdf_can_be_terminated(replicated, cdf):
    plant, here = replicated
    wait_until(lambda: names(cdf, "events") == ["o1"], "the first copy", timeout=60)
    fault(cdf, "/events", "stall")
    plant.execute("INSERT INTO orders VALUES ('o2', 'new')")
    wait_for_request(cdf)
    [pid] = here.execute("SELECT pid FROM pg_stat_subscription WHERE subname = 'orders'").fetchone()
    assert here.execute("SELECT pg_terminate_backend(%s)", [pid]).fetchone() == (True,)
    query = "SELECT count(*) FROM pg_stat_activity WHERE pid = %s"
    wait_until(lambda: here.execute(query, [pid]).fetchone() == (0,), "the end of the worker", timeout=SOON)
    cdf.admin_delete("faults")
    # PostgreSQL starts another one, which applies the same transaction again.
    wait_until(lambda: names(cdf, "events") == ["o1", "o2"], "the delivery", timeout=60)


def test_the_server_stops_while_a_session_waits(emulator):
    """A fast shutdown ends a wait, and the postmaster ends with its last process."""
    with own_cluster("shared_preload_libraries=cdf_fdw", "session_preload_libraries=") as cluster:
        gateway = register(cluster, emulator)
        emulator.reset()
        fault(emulator, "/events", "stall")
        pid = postmaster(cluster)
        session = gateway.connect(autocommit=True)
        session.execute("BEGIN")
        session.execute(upsert(gateway, "'e'", "'e'"))
        session.pgconn.send_query(b"COMMIT")
        wait_for_request(emulator)
        os.kill(pid, signal.SIGINT)
        wait_until(lambda: not Path(f"/proc/{pid}").exists(), "the end of the server")
        session.close()
        emulator.admin_delete("faults")
