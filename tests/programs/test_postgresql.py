"""PostgreSQL's own programs, psql and pgbench, and what writes to CDF from inside the server."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from debian import pg_environment
from harness import psql_environment
from loads import (
    AGAIN,
    AT_ONCE,
    COLUMNS,
    FIRST,
    REFUSAL,
    REFUSED,
    SPOILED,
    TYPES,
    Load,
    check,
    check_nothing,
    only,
    statements,
    write_csv,
)
from psycopg import sql
from support import dump, names, points, refused
from venvs import Ran, run

IN_ONE = ("assets", "events", "timeseries", "datapoints")


def version(cluster, program: str) -> str:
    ran = subprocess.run([cluster.bindir / program, "--version"], capture_output=True, text=True, check=True)
    return ran.stdout.split()[2]


# ---- psql ----


def psql(cluster, role, script: str, home: Path) -> Ran:
    """psql runs a script, in one transaction that ends as the script says."""
    path = home / "script.sql"
    path.write_text(script, encoding="utf-8")
    settings = {name: value for name, value in psql_environment().items() if name.startswith("PG")}
    return run([cluster.bindir / "psql", "-X", "-v", "ON_ERROR_STOP=1", "-f", path], home, settings | pg_environment(role))


def typed_columns(columns) -> str:
    return ", ".join(f'"{column}" {TYPES.get(column, "text")}' for column in columns)


def copy_text(loaded: Load, home: Path) -> str:
    escaped = str.maketrans({"\\": "\\\\", "\n": "\\n", "\t": "\\t", "\r": "\\r"})
    lines = []
    for table in loaded:
        path = home / f"{table.name}.txt"
        rows = ("\t".join("\\N" if it is None else str(it).translate(escaped) for it in row) for row in table.rows)
        path.write_text("".join(f"{row}\n" for row in rows), encoding="utf-8")
        lines.append(f"\\copy {table.name} ({quoted(table.columns)}) from '{path}'")
    return "\n".join(lines)


def copy_csv(loaded: Load, home: Path) -> str:
    paths = write_csv(loaded, home)
    return "\n".join(
        f"\\copy {table.name} ({quoted(table.columns)}) from '{paths[table.name]}' with (format csv, header)" for table in loaded
    )


def copy_binary(loaded: Load, home: Path) -> str:
    """From files that psql has made of a table."""
    lines = []
    for table in loaded:
        csv, binary = write_csv((table,), home)[table.name], home / f"{table.name}.bin"
        lines += [
            f"CREATE TEMP TABLE of_{table.name} ({typed_columns(table.columns)});",
            f"\\copy of_{table.name} from '{csv}' with (format csv, header)",
            f"\\copy of_{table.name} to '{binary}' with (format binary)",
            f"\\copy {table.name} ({quoted(table.columns)}) from '{binary}' with (format binary)",
        ]
    return "\n".join(lines)


def quoted(columns) -> str:
    return ", ".join(f'"{column}"' for column in columns)


WAYS = {
    ("insert", "INSERT"): lambda loaded, home: "".join(f"{text};\n" for text in statements(loaded)),
    ("copy", "text"): copy_text,
    ("copy", "csv"): copy_csv,
    ("copy", "binary"): copy_binary,
    ("upsert", "ON CONFLICT"): lambda loaded, home: "".join(f"{text};\n" for text in statements(loaded, upsert=True)),
}


@pytest.mark.parametrize(("column", "how"), WAYS)
def test_psql(etl, cluster, cdf, matrix, tmp_path, column, how):
    row = matrix.row("psql", version(cluster, "psql"))

    def load(loaded: Load, end: str = "COMMIT") -> Ran:
        return psql(cluster, etl, f"BEGIN;\n{WAYS[column, how](loaded, tmp_path)}\n{end};\n", tmp_path)

    with row.tried("rollback"):
        load(FIRST, "ROLLBACK").well()
        check_nothing(cdf)
    printed = load(SPOILED).badly().printed
    assert all(text in printed for text in AT_ONCE), printed
    check_nothing(cdf)
    with row.tried("refused load"):
        printed = load(only(REFUSED, *IN_ONE)).badly().printed
        assert all(text in printed for text in REFUSAL), printed
        check_nothing(cdf)
    with row.tried(column, how):
        load(FIRST).well()
        check(cdf, FIRST)
        load(AGAIN).well()
        check(cdf, FIRST, AGAIN)


def test_psql_hears_of_the_progress(progress, cluster, cdf, matrix, tmp_path):
    printed = psql(cluster, progress, f"BEGIN; {statements(FIRST)[0]}; COMMIT;", tmp_path).well().printed
    with matrix.row("psql").tried("progress seen"):
        assert "NOTICE:" in printed and "delivered 0 of 24 assets" in printed


# ---- pgbench ----

# A client's transactions are numbered by n, which lasts as long as the client.
LOAD_SCRIPT = r"""
\set n :n + 1
BEGIN;
INSERT INTO assets (external_id, name) VALUES ('pump-' || :client_id || '-' || :n, 'Pump ' || :n);
INSERT INTO events (external_id, start_time) VALUES ('alarm-' || :client_id || '-' || :n, to_timestamp(1774000000 + :n)) {upsert};
INSERT INTO timeseries (external_id, name) VALUES ('level-' || :client_id, 'Level ' || :client_id);
INSERT INTO datapoints (external_id, "timestamp", value) VALUES ('level-' || :client_id, to_timestamp(1774000000 + :n), :n);
INSERT INTO raw_rows (db_name, table_name, key, columns)
  VALUES ('plant', 'pumps', :client_id || '-' || :n, jsonb_build_object('n', :n::int));
{end};
"""
UPSERT = "ON CONFLICT (external_id) DO UPDATE SET start_time = EXCLUDED.start_time"
CLIENTS, TRANSACTIONS = 4, 10


def pgbench(cluster, role, mode: str, home: Path, script: str, clients: int = CLIENTS, transactions: int = TRANSACTIONS) -> Ran:
    path = home / "load.sql"
    path.write_text(script)
    command = [cluster.bindir / "pgbench", "-n", "-M", mode, "-c", clients, "-t", transactions, "-D", "n=0", "-f", path]
    return run(list(map(str, command)), home, pg_environment(role))


@pytest.mark.parametrize("mode", ["simple", "extended", "prepared"])
def test_pgbench(etl, cluster, cdf, matrix, tmp_path, mode):
    row = matrix.row("pgbench", version(cluster, "pgbench"))
    with row.tried("rollback"):
        pgbench(cluster, etl, mode, tmp_path, LOAD_SCRIPT.format(upsert="", end="ROLLBACK")).well()
        check_nothing(cdf)
    for column, upsert in (("insert", ""), ("upsert", UPSERT)):
        cdf.reset()
        with row.tried(column, f"-M {mode}"):
            pgbench(cluster, etl, mode, tmp_path, LOAD_SCRIPT.format(upsert=upsert, end="COMMIT")).well()
            each = sorted(f"{client}-{n}" for client in range(CLIENTS) for n in range(1, TRANSACTIONS + 1))
            assert names(cdf, "assets") == [f"pump-{it}" for it in each]
            assert names(cdf, "events") == [f"alarm-{it}" for it in each]
            assert names(cdf, "raw") == each
            for client in range(CLIENTS):
                wanted = [(1000 * (1774000000 + n), float(n), None) for n in range(1, TRANSACTIONS + 1)]
                assert points(cdf, f"level-{client}") == wanted
    cdf.reset()
    with row.tried("refused load"):
        refused = "INSERT INTO assets (external_id, name, data_set_id) VALUES ('pump-23', 'Pump', 77);"
        printed = pgbench(cluster, etl, mode, tmp_path, refused).badly().printed
        assert all(text in printed for text in REFUSAL), printed
        check_nothing(cdf)


def test_pgbench_shows_the_progress(progress, cluster, cdf, matrix, tmp_path):
    script = f"BEGIN;\n{statements(FIRST)[0]};\nCOMMIT;".replace(":name", "name")
    printed = pgbench(cluster, progress, "simple", tmp_path, script, clients=1, transactions=1).well().printed
    with matrix.row("pgbench").tried("progress seen"):
        assert "delivered 0 of 24 assets" in printed, printed


# ---- from inside the server ----


def definition(name: str) -> str:
    return typed_columns(COLUMNS[name])


def insert_all(session, source: str, tables=tuple(COLUMNS), upsert: bool = False) -> None:
    """INSERT … SELECT from a schema with the same tables."""
    for name in tables:
        session.execute(f"INSERT INTO {name} ({quoted(COLUMNS[name])}) SELECT * FROM {source}.{name}")


@pytest.fixture
def file_source(cluster, etl, superuser):
    """file_fdw over files of the server; gives how to fill them."""
    superuser.execute("CREATE EXTENSION IF NOT EXISTS file_fdw")
    superuser.execute("CREATE SERVER files FOREIGN DATA WRAPPER file_fdw")
    superuser.execute("CREATE SCHEMA files")
    directory = cluster.data_dir.parent / "files"
    directory.mkdir()
    directory.chmod(0o755)
    for name in COLUMNS:
        superuser.execute(
            f"CREATE FOREIGN TABLE files.{name} ({definition(name)}) SERVER files"
            f" OPTIONS (filename '{directory / name}.csv', format 'csv', header 'true')"
        )
    user = sql.Identifier(etl.username)
    superuser.execute(sql.SQL("GRANT USAGE ON SCHEMA files TO {0}").format(user))
    superuser.execute(sql.SQL("GRANT SELECT ON ALL TABLES IN SCHEMA files TO {0}").format(user))
    yield lambda loaded: [path.chmod(0o644) for path in write_csv(loaded, directory).values()]
    superuser.execute("DROP SCHEMA files CASCADE")
    superuser.execute("DROP SERVER files CASCADE")
    for path in directory.iterdir():
        path.unlink()
    directory.rmdir()


@pytest.fixture
def historian(cluster, etl, superuser):
    """Another database with the tables in it, read through postgres_fdw; gives how to fill them."""
    superuser.execute("CREATE DATABASE historian")
    user = sql.Identifier(etl.username)
    with cluster.connect(dbname="historian") as there:
        for name in COLUMNS:
            there.execute(f"CREATE TABLE {name} ({definition(name)})")
        there.execute("CREATE ROLE reader LOGIN PASSWORD 'reader'")
        there.execute("GRANT SELECT ON ALL TABLES IN SCHEMA public TO reader")

        def fill(loaded: Load) -> None:
            for table in loaded:
                there.execute(f"TRUNCATE {table.name}")
            for statement in statements(loaded):
                there.execute(statement)

        superuser.execute("CREATE EXTENSION IF NOT EXISTS postgres_fdw")
        superuser.execute(
            "CREATE SERVER historian FOREIGN DATA WRAPPER postgres_fdw"
            f" OPTIONS (host '127.0.0.1', port '{cluster.port}', dbname 'historian')"
        )
        mapping = "CREATE USER MAPPING FOR {} SERVER historian OPTIONS (user 'reader', password 'reader')"
        for who in (user, sql.SQL("CURRENT_USER")):
            superuser.execute(sql.SQL(mapping).format(who))
        superuser.execute("CREATE SCHEMA historian")
        superuser.execute("IMPORT FOREIGN SCHEMA public FROM SERVER historian INTO historian")
        superuser.execute(sql.SQL("GRANT USAGE ON SCHEMA historian TO {0}").format(user))
        superuser.execute(sql.SQL("GRANT SELECT ON ALL TABLES IN SCHEMA historian TO {0}").format(user))
        yield fill
        superuser.execute("DROP SCHEMA historian CASCADE")
        superuser.execute("DROP SERVER historian CASCADE")
        there.execute("DROP OWNED BY reader")
        there.execute("DROP ROLE reader")
    superuser.execute("DROP DATABASE historian WITH (FORCE)")


@pytest.mark.parametrize("source", ["files", "historian"])
def test_sources(etl, cluster, cdf, matrix, source, request):
    fill = request.getfixturevalue({"files": "file_source", "historian": "historian"}[source])
    tool = {"files": "file_fdw", "historian": "postgres_fdw"}[source]
    row = matrix.row(f"{tool} as a source", version(cluster, "postgres"))
    with etl.connect(autocommit=True) as session:
        fill(FIRST)
        with row.tried("rollback"):
            session.execute("BEGIN")
            insert_all(session, source)
            session.execute("ROLLBACK")
            check_nothing(cdf)
        with row.tried("insert", "INSERT … SELECT"):
            with session.transaction():
                insert_all(session, source)
            check(cdf, FIRST)
            fill(AGAIN)
            with session.transaction():
                insert_all(session, source)
            check(cdf, FIRST, AGAIN)
        cdf.reset()
        fill(SPOILED)
        with refused("22001", *AT_ONCE):
            insert_all(session, source)
        check_nothing(cdf)
        fill(FIRST)
        with row.tried("refused load"):
            with refused("23503", *REFUSAL[:3], "pump-0"):
                session.execute(
                    "INSERT INTO assets (external_id, name, data_set_id)"
                    f" SELECT external_id, name, 77 FROM {source}.assets"
                )
            check_nothing(cdf)


@pytest.mark.parametrize("level", ["row", "statement"])
def test_triggers_on_local_tables(etl, superuser, staging, cluster, cdf, matrix, level):
    """What is written to a local table goes to CDF with its transaction, and what CDF refuses is not in the table either."""
    row = matrix.row("trigger on a local table", version(cluster, "postgres"))
    with etl.connect(autocommit=True) as session:
        for name in COLUMNS:
            columns = quoted(COLUMNS[name])
            extra = ", data_set_id bigint" if name == "assets" else ""
            listed = columns + (", data_set_id" if extra else "")
            session.execute(f"CREATE TABLE {staging}.{name} ({definition(name)}{extra})")
            if level == "row":
                source, each = "SELECT (NEW).*", "FOR EACH ROW"
            else:
                source, each = "SELECT * FROM written", "REFERENCING NEW TABLE AS written FOR EACH STATEMENT"
            session.execute(
                f"CREATE FUNCTION {staging}.send_{name}() RETURNS trigger LANGUAGE plpgsql AS"
                f" $$ BEGIN INSERT INTO {etl.schema}.{name} ({listed}) {source}; RETURN NULL; END $$"
            )
            session.execute(
                f"CREATE TRIGGER send AFTER INSERT ON {staging}.{name} {each} EXECUTE FUNCTION {staging}.send_{name}()"
            )
        session.execute(f"SET search_path = {staging}")
        with row.tried("rollback"):
            session.execute("BEGIN")
            for statement in statements(FIRST):
                session.execute(statement)
            session.execute("ROLLBACK")
            check_nothing(cdf)
        with row.tried("refused load"):
            with refused("23503", *REFUSAL):
                session.execute(statements(only(REFUSED, "assets"))[0])
            check_nothing(cdf)
            assert session.execute("SELECT count(*) FROM assets").fetchone() == (0,)
        with row.tried("insert", f"FOR EACH {level.upper()}"):
            for loaded in (FIRST, AGAIN):
                with session.transaction():
                    for statement in statements(loaded):
                        session.execute(statement)
            check(cdf, FIRST, AGAIN)
    assert len(dump(cdf, "assets")) == 30
