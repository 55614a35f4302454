"""Fixtures of the tests through real connections.

api        CDF's own API, for what a test needs to find there
session    a connection of the registered role, autocommit
scratch    a schema for tables of the test's own
mapped     the same, where the superuser has the registered role's user mapping
loader     a role of the module's own; `loading` is its session
ways       several ways to one project
readable   a directory whose files the server can read
authority  a private certificate authority, whose files are there
proxy      a proxy that only records requests
site       a database of its own
key_file   a file of keys for its sessions
npgsql     the .NET driver; `net` is a connection through it
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from secrets import token_hex

import psycopg
import pytest
from connections import SECOND, Ways
from faults import create_missing_series, register
from fronts import Authority, Proxy
from npgsql import PLACE, Connection, Npgsql
from psycopg import sql
from sites import KeyFile, Site
from support import Api, Scratch


@pytest.fixture
def api(cdf) -> Api:
    return Api(cdf)


@pytest.fixture
def session(gateway, cdf) -> Iterator[psycopg.Connection]:
    """A connection of the registered role over TCP, autocommit, with CDF empty."""
    with gateway.connect(autocommit=True) as connection:
        yield connection


@pytest.fixture
def scratch(cluster, gateway) -> Iterator[Scratch]:
    with cluster.connect() as connection:
        schemas = sql.SQL("scratch, {}").format(sql.Identifier(gateway.schema))
        connection.execute("SET client_min_messages = warning")
        connection.execute("DROP SCHEMA IF EXISTS scratch CASCADE")
        connection.execute("CREATE SCHEMA scratch")
        connection.execute(
            sql.SQL("GRANT USAGE, CREATE ON SCHEMA scratch TO {}").format(sql.Identifier(gateway.username))
        )
        connection.execute(sql.SQL("SET search_path = {}").format(schemas))
        for what in ("TABLES", "SEQUENCES", "FUNCTIONS", "TYPES"):
            connection.execute(
                sql.SQL("ALTER DEFAULT PRIVILEGES IN SCHEMA scratch GRANT ALL ON {} TO {}").format(
                    sql.SQL(what), sql.Identifier(gateway.username)
                )
            )
        yield Scratch(connection, gateway)
        connection.execute("DROP SCHEMA scratch CASCADE")


@pytest.fixture(scope="module")
def loader(cluster, gateway, emulator):
    """A role of the module's own, whose points create their series."""
    loader = register(cluster, emulator)
    create_missing_series(cluster, loader)
    return loader


@pytest.fixture
def loading(loader, cdf):
    """The loader's session. Autocommit: transactions begin where a test says BEGIN."""
    with loader.connect(autocommit=True) as connection:
        yield connection



@pytest.fixture
def ways(cluster, gateway, cdf, scratch) -> Iterator[Ways]:
    cdf.admin_post("clients", SECOND)
    user, schema = sql.Identifier(gateway.username), sql.Identifier(gateway.schema)
    first = {"client_id": cdf.client_id, "client_secret": cdf.client_secret}
    more = {"project": cdf.project, "token_url": cdf.token_url, "scope": cdf.scope}

    def listed(options: dict, word: str = "") -> sql.Composable:
        pairs = (sql.SQL(word + "{} {}").format(sql.Identifier(k), sql.Literal(v)) for k, v in options.items())
        return sql.SQL(", ").join(pairs)

    def altered(options: dict) -> str:
        change = sql.SQL("ALTER USER MAPPING FOR {} SERVER cdf OPTIONS ({})").format(user, listed(options, "SET "))
        return change.as_string()

    def run(statement: str, *parts) -> None:
        scratch.execute(sql.SQL(statement).format(*parts).as_string())

    run("CREATE ROLE beside")
    run("CREATE USER MAPPING FOR beside SERVER cdf OPTIONS ({})", listed(SECOND | more))
    run("CREATE SERVER cdf_beside FOREIGN DATA WRAPPER cdf_fdw OPTIONS (base_url {})", sql.Literal(cdf.url.replace("http", "HTTP") + "/"))
    run("CREATE USER MAPPING FOR beside SERVER cdf_beside OPTIONS ({})", listed(SECOND | more))
    run("CREATE USER MAPPING FOR {} SERVER cdf_beside OPTIONS ({})", user, listed(first | more))
    run("GRANT beside TO {}", user)
    run("GRANT USAGE ON SCHEMA {}, scratch TO beside", schema)
    run("GRANT ALL ON ALL TABLES IN SCHEMA {} TO beside", schema)
    run("ALTER DEFAULT PRIVILEGES IN SCHEMA scratch GRANT ALL ON TABLES TO beside")
    run("CREATE TABLE turned (second boolean)")
    run("INSERT INTO turned VALUES (false)")
    run(
        "CREATE FUNCTION turn() RETURNS void LANGUAGE plpgsql SECURITY DEFINER SET search_path = scratch AS {}",
        sql.Literal(
            "BEGIN UPDATE turned SET second = NOT second; IF (SELECT second FROM turned) THEN "
            f"EXECUTE {sql.Literal(altered(SECOND)).as_string()}; ELSE EXECUTE {sql.Literal(altered(first)).as_string()}; END IF; END"
        ),
    )
    try:
        yield Ways(scratch, "beside", "cdf_beside")
    finally:
        scratch.execute(altered(first))
        run("ALTER DEFAULT PRIVILEGES IN SCHEMA scratch REVOKE ALL ON TABLES FROM beside")
        run("REVOKE beside FROM {}", user)
        run("DROP SERVER cdf_beside CASCADE")
        run("DROP USER MAPPING FOR beside SERVER cdf")
        run("DROP OWNED BY beside CASCADE")
        run("DROP ROLE beside")



@pytest.fixture
def site(cluster, cdf):
    """A database of its own, and no role left behind. Sessions do not have the library before they call it."""
    name = "credentials_test"
    with cluster.connect() as connection:
        roles = {row[0] for row in connection.execute("SELECT rolname FROM pg_roles")}
        connection.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")
        connection.execute(f"CREATE DATABASE {name}")
        # An empty list would be taken for a library without a name.
        connection.execute(f"ALTER DATABASE {name} SET session_preload_libraries = 'plpgsql'")
        site = Site(cluster, cdf, name)
        with site.superuser() as inside:
            inside.execute("CREATE EXTENSION cdf_fdw")
        yield site
        connection.execute(f"DROP DATABASE {name} WITH (FORCE)")
        for (role,) in connection.execute("SELECT rolname FROM pg_roles").fetchall():
            if role not in roles:
                connection.execute(sql.SQL("DROP ROLE {}").format(sql.Identifier(role)))


@pytest.fixture
def readable() -> Iterator[Path]:
    """A directory for files that the server reads, which runs as another user.

    It is not one of pytest's: each start of pytest takes away other users' access to the directory of all of them.
    """
    with tempfile.TemporaryDirectory(prefix="cdf-files-", dir="/tmp") as directory:
        path = Path(directory)
        path.chmod(0o755)
        yield path


@pytest.fixture
def authority(readable) -> Authority:
    return Authority(readable)


@pytest.fixture
def proxy() -> Iterator[Proxy]:
    running = Proxy()
    yield running
    running.close()


@pytest.fixture
def key_file(site, readable):
    file = KeyFile(site, readable)
    file.write(token_hex(32))
    file.use(file.path)
    before = len(site.cluster.log())
    yield file
    # Whatever went wrong: no key is in the server log.
    log = site.cluster.log()[before:]
    assert not any(key[:16] in log for key in file.keys)


@pytest.fixture(scope="module")
def npgsql() -> Iterator[Npgsql]:
    if not (PLACE / "requirements.installed").exists():
        pytest.skip("Npgsql is not here: scripts/npgsql.sh could not get the packages that carry it")
    running = Npgsql()
    yield running
    running.stop()


@pytest.fixture
def net(npgsql, gateway, cdf) -> Connection:
    """A connection of the registered role, with CDF empty. From a pool of its own, so that it is new."""
    connection = npgsql.open(gateway, Pooling="false")
    yield connection
    connection.close()



@pytest.fixture
def mapped(scratch, gateway):
    """The superuser who imports has the registered role's credentials."""
    options = "project, token_url, client_id, client_secret, scope".split(", ")
    listed = scratch.execute(
        "SELECT o.option_name, o.option_value FROM pg_user_mappings m, pg_options_to_table(m.umoptions) o"
        f" WHERE m.usename = '{gateway.username}' AND m.srvname = 'cdf'"
    ).fetchall()
    assert {name for name, _ in listed} >= set(options)
    pairs = ", ".join(f"{name} '{value}'" for name, value in listed)
    scratch.execute("DROP USER MAPPING IF EXISTS FOR CURRENT_USER SERVER cdf")
    scratch.execute(f"CREATE USER MAPPING FOR CURRENT_USER SERVER cdf OPTIONS ({pairs})")
    yield scratch
    scratch.execute("DROP USER MAPPING FOR CURRENT_USER SERVER cdf")
