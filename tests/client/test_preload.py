"""The library among those that a registered role's sessions load, and how to get rid of it."""

from __future__ import annotations

import re

import psycopg
import pytest
from harness import ROOT, own_cluster
from psycopg import sql
from sites import Site

# Lists as they may stand in the configuration, with what a registered role must load.
LISTS = {
    "plpgsql": ["plpgsql", "cdf_fdw"],
    "$libdir/plpgsql": ["$libdir/plpgsql", "cdf_fdw"],
    " plpgsql ,  $libdir/plpgsql": ["plpgsql", "$libdir/plpgsql", "cdf_fdw"],
    '"plpgsql", "$libdir/plpgsql"': ["plpgsql", "$libdir/plpgsql", "cdf_fdw"],
    "$libdir/plpgsql.so": ["$libdir/plpgsql.so", "cdf_fdw"],
    "": ["cdf_fdw"],
    # PostgreSQL does not load from a list that it cannot parse.
    'plpgsql, "open': ["cdf_fdw"],
}


@pytest.fixture
def administered(emulator):
    """A cluster whose configuration the test may change. Nothing is preloaded."""
    emulator.reset()
    with own_cluster("session_preload_libraries=") as cluster:
        with cluster.connect() as connection:
            connection.execute("CREATE EXTENSION cdf_fdw")
        yield Site(cluster, emulator, "postgres")


def configure(site: Site, **settings) -> None:
    with site.superuser() as connection:
        for name, value in settings.items():
            # An element of a list must not be quoted again.
            path = site.cluster.data_dir / "postgresql.auto.conf"
            text = path.read_text() if path.exists() else ""
            path.write_text(text + f"{name} = '{value}'\n")
        connection.execute("SELECT pg_reload_conf()")


def preloaded(site: Site, role: str, everywhere: bool = False) -> str:
    """What the role's sessions load, as it is set for this database, or for all."""
    # Whatever the database preloads.
    with site.superuser(options="-c session_preload_libraries=") as connection:
        settings = connection.execute(
            "SELECT unnest(setconfig) FROM pg_db_role_setting WHERE setrole = %s::regrole AND (setdatabase = 0) = %s",
            [role, everywhere],
        ).fetchall()
    return next((setting for (setting,) in settings if setting.startswith("session_preload_libraries=")), "")


def works(site: Site, username: str, password: str) -> None:
    """The role logs in, and its first statement is one that needs the library."""
    with site.role(username, password) as connection:
        connection.execute(
            "INSERT INTO assets (external_id, name) VALUES ('a', 'a') ON CONFLICT (external_id) DO NOTHING"
        )


def elements(setting: str) -> list[str]:
    return [name.strip().strip('"') for name in setting.partition("=")[2].split(",")]


@pytest.mark.parametrize("libraries", LISTS)
def test_list_of_the_configuration_is_kept(administered, libraries):
    configure(administered, session_preload_libraries=libraries)
    with administered.superuser() as connection:
        while connection.execute("SHOW session_preload_libraries").fetchone()[0] != libraries:
            connection.execute("SELECT pg_sleep(0.01)")
        username, password, *_ = administered.register(connection)
    assert elements(preloaded(administered, username)) == LISTS[libraries]
    works(administered, username, password)


@pytest.mark.parametrize("name", ["with space", "Upper", 'quo"te', "com,ma", "$libdir/x y", "quo'te"])
def test_any_name_of_a_library_is_kept(site, name):
    """There is no such library, so nobody can log in afterwards; but the list is the same."""
    with site.superuser() as connection:
        connection.execute(sql.SQL("ALTER DATABASE {} SET session_preload_libraries = {}").format(
            sql.Identifier(site.database), sql.Literal(name)
        ))
        (before,) = connection.execute(
            "SELECT unnest(setconfig) FROM pg_db_role_setting s JOIN pg_database d ON d.oid = setdatabase "
            "WHERE datname = %s AND setrole = 0", [site.database]
        ).fetchone()
        connection.execute("CREATE ROLE quiet")
        assert site.register(connection, username="quiet")[1] is None
    assert preloaded(site, "quiet") == f"{before}, cdf_fdw"


def test_list_of_the_role_itself_is_kept(site):
    with site.superuser() as connection:
        connection.execute("CREATE ROLE etl LOGIN PASSWORD 'pw'")
        connection.execute("ALTER ROLE etl SET session_preload_libraries = '$libdir/plpgsql'")
        site.register(connection, username="etl")
    assert elements(preloaded(site, "etl", everywhere=True)) == ["$libdir/plpgsql"]
    assert elements(preloaded(site, "etl")) == ["$libdir/plpgsql", "cdf_fdw"]
    works(site, "etl", "pw")


def test_list_of_the_caller_is_not_the_roles(site):
    with site.superuser() as connection:
        connection.execute("CREATE ROLE boss SUPERUSER LOGIN PASSWORD 'pw'")
        connection.execute("ALTER ROLE boss SET session_preload_libraries = 'cdf_fdw'")
    with site.role("boss") as connection:
        username, password, *_ = site.register(connection)
    assert elements(preloaded(site, username)) == ["plpgsql", "cdf_fdw"]
    works(site, username, password)


@pytest.mark.parametrize("name", ["cdf_fdw", "$libdir/cdf_fdw"])
def test_library_that_is_preloaded_already(site, name):
    with site.superuser() as connection:
        connection.execute(f"ALTER DATABASE {site.database} SET session_preload_libraries = '{name}'")
        username, password, *_ = site.register(connection)
    assert preloaded(site, username) == ""
    works(site, username, password)


def test_library_of_a_similar_name_is_another(site):
    with site.superuser() as connection:
        connection.execute(f"ALTER DATABASE {site.database} SET session_preload_libraries = 'my_cdf_fdw'")
        connection.execute("CREATE ROLE etl")
        site.register(connection, username="etl")
    assert elements(preloaded(site, "etl")) == ["my_cdf_fdw", "cdf_fdw"]


def test_removal_as_documented(administered):
    """Without the library, the roles that preload it cannot log in, unless what the documentation says was run."""
    page = (ROOT / "docs" / "install.md").read_text().partition("## Remove")[2]
    drop, reset = re.findall(r"```sql\n(.*?)```", page, re.S)
    (options,) = re.findall(r"PGOPTIONS='(.*?)'", page)
    site = administered
    with site.superuser() as connection:
        connection.execute("CREATE ROLE plain LOGIN PASSWORD 'pw'")
        connection.execute('CREATE ROLE "Odd name" LOGIN PASSWORD \'pw\'')
        connection.execute('ALTER ROLE "Odd name" SET session_preload_libraries = \'cdf_fdw\'')
        connection.execute("ALTER DATABASE template1 SET session_preload_libraries = 'cdf_fdw'")
        username, password, *_ = site.register(connection)
        connection.execute(drop)
    # As if the file were gone.
    configure(site, dynamic_library_path="/nowhere")
    for name, word in ((username, password), ("Odd name", "pw")):
        with pytest.raises(psycopg.OperationalError, match="could not access file"):
            while True:
                site.role(name, word).close()
    site.role("plain").close()
    with pytest.raises(psycopg.OperationalError, match="could not access file"):
        psycopg.connect(site.cluster.dsn("template1"))
    with psycopg.connect(site.cluster.dsn("template1"), options=options, autocommit=True) as connection:
        connection.execute(reset)
        left = connection.execute("SELECT * FROM pg_db_role_setting WHERE setconfig::text LIKE '%cdf_fdw%'").fetchall()
        assert left == []
        assert connection.execute("SELECT count(*) FROM pg_db_role_setting").fetchone()[0] > 0
    for name, word in ((username, password), ("Odd name", "pw"), ("plain", "pw")):
        site.role(name, word).close()
