"""Programs that run on and on: rsyslog, which writes what it is told, and PgBouncer, through which others write."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import psycopg
import pytest
from debian import unpacked
from faults import fault, statuses, wait_until
from loads import AGAIN, FIRST, REFUSAL, REFUSED, check, check_nothing, only, statements
from support import dump, names, refused
from test_docs import blocks
from test_drivers import DRIVERS, Program
from test_postgresql import CLIENTS, LOAD_SCRIPT, TRANSACTIONS, UPSERT, pgbench, psql
from venvs import missing


def free_port() -> int:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        return listening.getsockname()[1]


def listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@contextmanager
def started(command: list, port: int, log: Path, environment: dict[str, str] | None = None, user: str | None = None):
    """A process that listens on a port, until the end of the block."""
    more = {} if user is None else {"user": user, "group": pwd.getpwnam(user).pw_gid, "extra_groups": []}
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, env=os.environ | (environment or {}), **more
        )
    try:
        wait_until(lambda: process.poll() is not None or listens(port), f"{command[0]} listens")
        assert process.poll() is None, log.read_text()
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@pytest.fixture
def place():
    """A folder that a server which is not root gets at."""
    directory = Path(tempfile.mkdtemp(prefix="cdf-programs-", dir="/tmp"))
    directory.chmod(0o755)
    yield directory
    shutil.rmtree(directory)


def from_page(page: str, name: str, role) -> str:
    """A file that stands in a page of docs/clients, filled in."""
    [text] = [block.text for block in blocks(f"docs/clients/{page}") if name in block.note("saved as")]
    for found, put in [
        ("gateway.example.com", "127.0.0.1"),
        ("5432", str(role.port)),
        ("<username>", role.username),
        ("<role>", f'"{role.username}"'),
        ("<password>", role.password),
        ("<database>", role.database),
    ]:
        text = text.replace(found, put)
    return text


def libraries(unpacked: Path) -> dict[str, str]:
    return {"LD_LIBRARY_PATH": ":".join(str(path) for path in (unpacked / "usr" / "lib").glob("*-linux-gnu"))}


# ---- rsyslog ----

# Beside what stands in docs/clients/rsyslog.md: where messages come from, and where rsyslog speaks of itself.
AROUND = """
global(workDirectory="{place}" processInternalMessages="on")
module(load="imtcp")
input(type="imtcp" address="127.0.0.1" port="{port}")
*.* action(type="omfile" file="{place}/internal.log")
"""


@contextmanager
def rsyslog(role, place: Path, matrix, retries: int = -1, into: str = "events"):
    """A rsyslogd of our own; gives how to log a message, and what it says of itself."""
    there = unpacked("rsyslog")
    if there is None:
        missing(matrix, "rsyslog ompgsql", "scripts/programs-debian.sh could not get rsyslog")
    [modules] = (there / "usr" / "lib").glob("*/rsyslog")
    port = free_port()
    config = place / "rsyslog.conf"
    text = from_page("rsyslog.md", "rsyslog.conf", role).replace('resumeRetryCount="-1"', f'resumeRetryCount="{retries}"')
    text = text.replace("INSERT INTO events", f"INSERT INTO {into}")
    config.write_text(AROUND.format(place=place, port=port) + text)
    command = [there / "usr" / "sbin" / "rsyslogd", "-n", "-f", config, "-i", place / "pid", "-M", modules]
    with started(command, port, place / "log", libraries(there)):
        with socket.create_connection(("127.0.0.1", port)) as connection:

            def log(number: int, message: str) -> None:
                text = f"<134>1 2026-03-28T23:59:59.{number:03}+01:00 pump-house plc 1 m{number} - {message}\n"
                connection.sendall(text.encode())

            yield log, lambda: (place / "internal.log").read_text() if (place / "internal.log").exists() else ""


def rsyslog_row(matrix):
    there = unpacked("rsyslog")
    if there is None:
        missing(matrix, "rsyslog ompgsql", "scripts/programs-debian.sh could not get rsyslog")
    return matrix.row("rsyslog ompgsql", (there / "unpacked").read_text().split()[0])


def test_rsyslog_writes_messages(etl, cdf, matrix, place):
    row = rsyslog_row(matrix)
    with rsyslog(etl, place, matrix) as (log, _):
        with row.tried("insert", "each message"):
            for number in range(20):
                log(number, f"it's \\ \"{number}\" Größe")
            wanted = sorted(f"pump-house/m{number}" for number in range(20))
            wait_until(lambda: names(cdf, "events") == wanted, "all messages")
            [event] = dump(cdf, "events", external_id="pump-house/m7")
            assert event["description"].strip() == "it's \\ \"7\" Größe"
            assert (event["startTime"], event["type"], event["subtype"]) == (1774738799007, "syslog", "plc")


def test_rsyslog_goes_on_after_a_message_that_is_refused(etl, cdf, matrix, place):
    """What is refused at the row is tried again as often as the settings say, and then left out."""
    row = rsyslog_row(matrix)
    with rsyslog(etl, place, matrix, retries=1) as (log, _):
        with row.tried("refused load", "at the row: left out after its retries"):
            log(1, "x" * 600)
            log(2, "second")
            wait_until(lambda: names(cdf, "events") == ["pump-house/m2"], "the other message", timeout=60)


def test_rsyslog_loses_what_cdf_refuses_at_commit(etl, cdf, matrix, place):
    """rsyslog repeats a COMMIT that has failed, and takes the second one, of nothing, for a success: docs/clients/rsyslog.md
    says so."""
    row = rsyslog_row(matrix)
    with rsyslog(etl, place, matrix) as (log, _):
        fault(cdf, "/events", "status", status=403)
        log(1, "first")
        wait_until(lambda: statuses(cdf, "/events") == [403], "the refusal")
        cdf.admin_delete("faults")
        log(2, "second")
        wait_until(lambda: names(cdf, "events") == ["pump-house/m2"], "the other message", timeout=60)
    row.note("refused load", "at COMMIT: lost, and nothing is said")


def test_rsyslog_through_a_staging_table(etl, cdf, superuser, staging, matrix, place):
    """The way that loses nothing: messages go into a local table, and from there to CDF in a transaction of one's own."""
    row = rsyslog_row(matrix)
    for statement in from_page("rsyslog.md", "messages.sql", etl).split(";\n"):
        superuser.execute(statement.replace("etl_staging", staging)) if statement.strip() else None
    with rsyslog(etl, place, matrix, into=f"{staging}.messages") as (log, _):
        for number in range(3):
            log(number, "kept")
        with etl.connect(autocommit=True) as session:
            count = f"SELECT count(*) FROM {staging}.messages"
            wait_until(lambda: session.execute(count).fetchone() == (3,), "all messages")
            move = from_page("rsyslog.md", "move.sql", etl).replace("etl_staging", staging)
            fault(cdf, "/events", "status", status=403)
            with refused("42501", REFUSAL[0]):
                session.execute(move)
            assert session.execute(count).fetchone() == (3,)
            cdf.admin_delete("faults")
            with row.tried("insert", "or by way of a local table"):
                session.execute(move)
                assert names(cdf, "events") == [f"pump-house/m{number}" for number in range(3)]
            assert session.execute(count).fetchone() == (0,)


# ---- PgBouncer ----

@contextmanager
def pgbouncer(role, place: Path, matrix, mode: str):
    """The role's way through a PgBouncer that has one connection to the server, and the version."""
    there = unpacked("pgbouncer")
    if there is None:
        missing(matrix, "PgBouncer", "scripts/programs-debian.sh could not get pgbouncer")
    port = free_port()
    config = place / "pgbouncer.ini"
    text = from_page("pgbouncer.md", "pgbouncer.ini", role)
    for found, put in [
        ("6432", f"{port}\nunix_socket_dir =\ndefault_pool_size = 1"),
        ("pool_mode = transaction", f"pool_mode = {mode}"),
        ("sslmode = require", "sslmode = disable"),
        ("users.txt", f"{place}/users.txt"),
    ]:
        assert found in text
        text = text.replace(found, put)
    config.write_text(text)
    (place / "users.txt").write_text(from_page("pgbouncer.md", "users.txt", role))
    # PgBouncer does not run as root.
    user = "nobody" if os.getuid() == 0 else None
    with started([there / "usr" / "sbin" / "pgbouncer", config], port, place / "log", libraries(there), user):
        yield replace(role, port=port)


def bouncer_row(matrix, mode: str):
    there = unpacked("pgbouncer")
    if there is None:
        missing(matrix, "PgBouncer", "scripts/programs-debian.sh could not get pgbouncer")
    return matrix.row(f"PgBouncer, {mode} mode", (there / "unpacked").read_text().split()[0])


# Each driver with what docs/clients/pgbouncer.md says of it, so that it names no prepared statement that outlives its transaction.
THROUGH = {
    "node-postgres": ("insert", "rows", {}),
    "Postgres.js": ("insert", "rows", {}),
    "knex": ("insert", "batch", {}),
    "Sequelize": ("upsert", "upsert", {}),
    "TypeORM": ("upsert", "upsert", {}),
    "Prisma": ("insert", "many", {}),
    "pgjdbc": ("insert", "batch", {"JDBC_OPTIONS": "prepareThreshold=0"}),
    "HikariCP": ("upsert", "pooled upsert", {"JDBC_OPTIONS": "prepareThreshold=0"}),
    "tokio-postgres": ("copy", "copy", {}),
    "lib/pq": ("insert", "prepared", {}),
    "pgx": ("insert", "batch", {"PGX_OPTIONS": "statement_cache_mode=describe"}),
    "DBD::Pg": ("insert", "prepared", {}),
    "Ruby pg": ("insert", "pipeline", {}),
    "RPostgreSQL": ("copy", "copy", {}),
}


@pytest.mark.parametrize("name", THROUGH)
def test_drivers_through_pgbouncer(etl, cdf, matrix, place, tmp_path, name):
    driver = DRIVERS[name]
    if driver.version() is None:
        missing(matrix, name, driver.where)
    column, how, options = THROUGH[name]
    # What the driver sends is the same in both modes, so one program is enough for the other.
    for mode in ("transaction", "session") if name == "pgjdbc" else ("transaction",):
        row = bouncer_row(matrix, mode)
        cdf.reset()
        with pgbouncer(etl, place, matrix, mode) as way:
            program = Program(name, driver.version(), way, tmp_path, matrix, options)
            with row.tried("rollback"):
                program.ended(program.load(FIRST, how, "rollback"), "rolled back")
                check_nothing(cdf)
            with row.tried("refused load"):
                code, text = program.refusal(program.load(only(REFUSED, "assets", "events", "timeseries", "datapoints"), how))
                assert code == ("23503" if driver.sqlstate else "") and all(part in text for part in REFUSAL)
                check_nothing(cdf)
            with row.tried(column, name):
                program.ended(program.load(FIRST, how), "committed")
                program.ended(program.load(AGAIN, how), "committed")
                check(cdf, FIRST, AGAIN)


@pytest.mark.parametrize("mode", ["simple", "extended"])
def test_pgbench_through_pgbouncer(etl, cluster, cdf, matrix, place, tmp_path, mode):
    script = LOAD_SCRIPT.format(upsert=UPSERT, end="COMMIT")
    with pgbouncer(etl, place, matrix, "transaction") as way, bouncer_row(matrix, "transaction").tried("insert", f"pgbench -M {mode}"):
        pgbench(cluster, way, mode, tmp_path, script).well()
        assert len(names(cdf, "assets")) == len(names(cdf, "raw")) == CLIENTS * TRANSACTIONS


def test_transactions_of_two_clients_through_one_connection(etl, cdf, matrix, place):
    """Nothing of one client's transaction is left on the connection for the next one, however it ended."""
    insert = "INSERT INTO events (external_id, description) VALUES (%s, %s)"
    with pgbouncer(etl, place, matrix, "transaction") as way:
        with way.connect(prepare_threshold=None) as one, way.connect(prepare_threshold=None, autocommit=True) as other:
            backends = [connection.execute("SELECT pg_backend_pid()").fetchone() for connection in (other, one)]
            one.commit()
            assert backends[0] == backends[1]
            one.execute(insert, ("one", "rolled back"))
            one.rollback()
            other.execute(insert, ("other", "autocommit"))
            one.execute(insert, ("one", "refused"))
            one.execute("INSERT INTO assets (external_id, name, data_set_id) VALUES ('pump-7', 'p', 77)")
            with refused("23503", REFUSAL[0]):
                one.commit()
            one.rollback()
            other.execute(insert, ("after", "the refusal"))
            one.execute(insert, ("one", "committed"))
            one.commit()
        assert names(cdf, "events") == ["after", "one", "other"]
        assert names(cdf, "assets") == []


def test_a_client_that_vanishes_from_a_transaction(etl, cdf, matrix, place):
    with pgbouncer(etl, place, matrix, "transaction") as way:
        gone = way.connect(prepare_threshold=None)
        gone.execute("INSERT INTO events (external_id) VALUES ('gone')")
        gone.pgconn.finish()
        with way.connect(prepare_threshold=None) as next_one:
            next_one.execute("INSERT INTO events (external_id) VALUES ('next')")
        assert names(cdf, "events") == ["next"]


def test_prepared_statements_in_transaction_mode(etl, cdf, matrix, place):
    """A statement that was prepared through another connection is not there: PostgreSQL's own error, and nothing is sent."""
    row = bouncer_row(matrix, "transaction")
    with pgbouncer(etl, place, matrix, "transaction") as way:
        with way.connect(prepare_threshold=0, autocommit=True) as one, way.connect(prepare_threshold=0, autocommit=True) as other:
            one.execute("INSERT INTO events (external_id) VALUES (%s)", ("one",))
            with pytest.raises(psycopg.errors.DuplicatePreparedStatement):
                other.execute("INSERT INTO events (external_id, description) VALUES (%s, %s)", ("other", "x"))
        assert names(cdf, "events") == ["one"]
    row.note("insert", "no prepared statements by name")


def test_session_mode_discards_everything_between_clients(etl, cdf, matrix, place):
    row = bouncer_row(matrix, "session")
    with pgbouncer(etl, place, matrix, "session") as way:
        with row.tried("insert", "DISCARD ALL between clients"):
            with way.connect(prepare_threshold=0, autocommit=True) as one:
                backend = one.execute("SELECT pg_backend_pid()").fetchone()
                one.execute("SET cdf_fdw.max_retries = 3")
                one.execute("CREATE TEMP TABLE staged (external_id text)")
                for at in range(7):
                    one.execute("INSERT INTO events (external_id) VALUES (%s)", (f"one {at}",))
            with way.connect(prepare_threshold=0, autocommit=True) as other:
                assert other.execute("SELECT pg_backend_pid()").fetchone() == backend
                assert other.execute("SHOW cdf_fdw.max_retries").fetchone() == ("10",)
                assert other.execute("SELECT to_regclass('pg_temp.staged')").fetchone() == (None,)
                for at in range(7):
                    other.execute("INSERT INTO events (external_id) VALUES (%s)", (f"other {at}",))
                with other.transaction():
                    for statement in statements(FIRST):
                        other.execute(statement)
        assert len(names(cdf, "events")) == 14 + 24


def test_the_progress_through_pgbouncer(progress, cluster, cdf, matrix, place, tmp_path):
    for mode in ("transaction", "session"):
        with pgbouncer(progress, place, matrix, mode) as way, bouncer_row(matrix, mode).tried("progress seen"):
            printed = psql(cluster, way, f"BEGIN; {statements(only(AGAIN, 'assets'))[0]}; COMMIT;", tmp_path).well().printed
            assert "delivered 0 of 20 assets" in printed


@pytest.mark.parametrize("tool", ["Fluent Bit", "Telegraf", "Vector"])
def test_what_cannot_be_had(matrix, tool):
    missing(matrix, tool, "no package of it in Debian, npm, PyPI or crates.io; docs/clients/not-run.md says what of it is tested")
