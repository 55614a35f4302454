"""The settings: names, units, bounds, who may change them, and how."""

from __future__ import annotations

import psycopg
import pytest
from faults import register
from harness import own_cluster
from psycopg import errors

# name: unit, default, smallest value, who may set it
SETTINGS = {
    "cdf_fdw.allow_http": (None, "off", None, "superuser"),
    "cdf_fdw.buffer_memory": ("kB", "65536", "64", "user"),
    "cdf_fdw.flush_timeout": ("ms", "600000", "1", "user"),
    "cdf_fdw.log_min_flush_duration": ("ms", "-1", "-1", "superuser"),
    "cdf_fdw.max_concurrent_requests": (None, "8", "1", "user"),
    "cdf_fdw.max_retries": (None, "10", "0", "user"),
    "cdf_fdw.progress_interval": ("ms", "10000", "0", "user"),
    "cdf_fdw.request_timeout": ("ms", "60000", "1", "user"),
}
SHOWN = {"buffer_memory": "64MB", "flush_timeout": "10min", "request_timeout": "1min", "progress_interval": "10s"}


@pytest.fixture
def role(gateway):
    with gateway.connect(autocommit=True) as connection:
        yield connection


def test_settings_are_listed(role):
    listed = role.execute(
        "SELECT name, unit, boot_val, min_val, context FROM pg_settings WHERE name LIKE 'cdf_fdw.%' ORDER BY name"
    ).fetchall()
    assert {name: tuple(rest) for name, *rest in listed} == SETTINGS


def test_settings_are_described(role):
    for name, short, extra in role.execute(
        "SELECT name, short_desc, extra_desc FROM pg_settings WHERE name LIKE 'cdf_fdw.%'"
    ):
        assert short.endswith("."), name
        assert extra, name


@pytest.mark.parametrize(("name", "value"), SHOWN.items())
def test_defaults_are_shown_with_units(role, name, value):
    assert role.execute(f"SHOW cdf_fdw.{name}").fetchone() == (value,)


@pytest.mark.parametrize(
    ("name", "value", "shown"),
    [
        ("buffer_memory", "1GB", "1GB"),
        ("buffer_memory", "100", "100kB"),
        ("flush_timeout", "1h", "1h"),
        ("flush_timeout", "1500", "1500ms"),
        ("request_timeout", "90s", "90s"),
        ("max_retries", "0", "0"),
        ("max_concurrent_requests", "1", "1"),
    ],
)
def test_values_are_taken_with_units(role, name, value, shown):
    role.execute(f"SET cdf_fdw.{name} = '{value}'")
    assert role.execute(f"SHOW cdf_fdw.{name}").fetchone() == (shown,)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("buffer_memory", "63"),
        ("buffer_memory", "-1"),
        ("buffer_memory", "1h"),
        ("flush_timeout", "0"),
        ("flush_timeout", "-1"),
        ("flush_timeout", "1GB"),
        ("request_timeout", "0"),
        ("max_retries", "-1"),
        ("max_retries", "many"),
        ("max_concurrent_requests", "0"),
        ("max_concurrent_requests", "100000"),
    ],
)
def test_values_that_are_refused(role, name, value):
    before = role.execute(f"SHOW cdf_fdw.{name}").fetchone()
    with pytest.raises(errors.InvalidParameterValue):
        role.execute(f"SET cdf_fdw.{name} = '{value}'")
    assert role.execute(f"SHOW cdf_fdw.{name}").fetchone() == before


def test_only_a_superuser_allows_http(role, cluster, gateway):
    with pytest.raises(errors.InsufficientPrivilege):
        role.execute("SET cdf_fdw.allow_http = on")
    with pytest.raises(errors.InsufficientPrivilege):
        role.execute("SELECT set_config('cdf_fdw.allow_http', 'on', true)")
    with pytest.raises(errors.InsufficientPrivilege):
        role.execute("ALTER ROLE CURRENT_USER SET cdf_fdw.allow_http = on")
    # PostgreSQL takes a connection's options before it loads the library, which then does not.
    with psycopg.connect(gateway.dsn, options="-c cdf_fdw.allow_http=on -c cdf_fdw.max_retries=3") as connection:
        assert connection.execute("SHOW cdf_fdw.max_retries").fetchone() == ("3",)
        assert connection.execute("SHOW cdf_fdw.allow_http").fetchone() == ("off",)


SERVER = "CREATE SERVER plain FOREIGN DATA WRAPPER cdf_fdw OPTIONS (base_url '{}')"


@pytest.mark.parametrize("host", ["127.0.0.1:80", "127.9.9.9", "[::1]:80", "localhost"])
def test_http_is_for_this_machine(cluster, gateway, host):
    with cluster.connect(autocommit=False) as connection:
        connection.execute(SERVER.format(f"http://{host}"))
        connection.rollback()


@pytest.mark.parametrize(
    "host", ["cdf.example", "192.168.0.1", "0.0.0.0", "127.0.0.1.example", "localhost.example", "[::2]"]
)
def test_http_elsewhere_must_be_allowed(cluster, gateway, host):
    with cluster.connect() as connection:
        with pytest.raises(psycopg.Error) as caught:
            connection.execute(SERVER.format(f"http://{host}"))
        assert caught.value.sqlstate == "HV00J"
        assert "https" in str(caught.value)


def test_http_elsewhere_is_taken_when_it_is_allowed(cluster, gateway):
    with cluster.connect(autocommit=False) as connection:
        connection.execute("SET LOCAL cdf_fdw.allow_http = on")
        connection.execute(SERVER.format("http://cdf.example"))
        connection.rollback()


def test_http_that_is_not_allowed_any_longer_is_not_used(cluster, gateway):
    """The server was made while it was allowed; a session in which it is not must not send a secret there."""
    with cluster.connect(autocommit=False) as connection:
        connection.execute("SET LOCAL cdf_fdw.allow_http = on")
        connection.execute(SERVER.format("http://cdf.example"))
        connection.execute(
            "CREATE USER MAPPING FOR CURRENT_USER SERVER plain OPTIONS (project 'p', client_id 'c', client_secret 's',"
            " token_url 'https://login.example/token', scope 'x');"
            "CREATE FOREIGN TABLE pg_temp.plain_events (external_id text) SERVER plain OPTIONS (resource 'events')"
        )
        connection.execute("SET LOCAL cdf_fdw.allow_http = off")
        with pytest.raises(psycopg.Error) as caught:
            connection.execute("INSERT INTO pg_temp.plain_events VALUES ('e')")
        assert caught.value.sqlstate == "HV00J"
        connection.rollback()


def skip_before_15(connection) -> None:
    if connection.info.server_version < 150000:
        pytest.skip("PostgreSQL 14 only warns of unknown settings")


def test_unknown_setting_is_refused(role):
    skip_before_15(role)
    with pytest.raises(errors.InvalidName, match="cdf_fdw.no_such_setting"):
        role.execute("SET cdf_fdw.no_such_setting = 1")
    with pytest.raises(errors.InvalidName):
        role.execute("SELECT set_config('cdf_fdw.flush_timeuot', '1', false)")


def test_settings_of_role_and_database(cluster, gateway):
    name = gateway.username
    with cluster.connect() as connection:
        connection.execute(f'ALTER ROLE "{name}" SET cdf_fdw.max_retries = 3')
        try:
            with gateway.connect() as session:
                assert session.execute("SHOW cdf_fdw.max_retries").fetchone() == ("3",)
        finally:
            connection.execute(f'ALTER ROLE "{name}" RESET cdf_fdw.max_retries')


@pytest.fixture(scope="module")
def unprepared(emulator):
    """A cluster whose sessions do not have the library before they use a table, and a registered role."""
    with own_cluster("session_preload_libraries=") as cluster:
        registered = register(cluster, emulator)
        with cluster.connect() as connection:
            connection.execute(f"ALTER ROLE {registered.username} IN DATABASE postgres RESET session_preload_libraries")
        yield registered


def test_registration_has_the_library_preloaded(emulator, cdf):
    with own_cluster("session_preload_libraries=plpgsql") as cluster:
        registered = register(cluster, emulator)
        with cluster.connect() as connection:
            (settings,) = connection.execute(
                "SELECT setconfig FROM pg_db_role_setting WHERE setrole = %s::regrole", (registered.username,)
            ).fetchone()
            assert "session_preload_libraries=plpgsql, cdf_fdw" in settings
        with registered.connect(autocommit=True) as session:
            session.execute("INSERT INTO events (external_id) VALUES ('e') ON CONFLICT (external_id) DO NOTHING")


def test_library_that_is_loaded_late_takes_what_was_set_before(unprepared, cdf):
    with unprepared.connect() as session:
        session.execute("SET cdf_fdw.max_retries = 7")
        # Before the library is there, anybody can set anything.
        session.execute("SET cdf_fdw.allow_http = on")
        session.execute("INSERT INTO events (external_id) VALUES ('e')")
        assert session.execute("SHOW cdf_fdw.max_retries").fetchone() == ("7",)
        assert session.execute("SHOW cdf_fdw.allow_http").fetchone() == ("off",)
        session.rollback()


def test_library_that_is_loaded_late_drops_unknown_settings(unprepared, cdf):
    with unprepared.connect(autocommit=True) as session:
        skip_before_15(session)
        session.execute("SET cdf_fdw.mistaken = 7")
        session.execute("INSERT INTO events (external_id) VALUES ('e')")
        with pytest.raises(errors.UndefinedObject):
            session.execute("SHOW cdf_fdw.mistaken")


@pytest.mark.parametrize("library", ["session_preload_libraries", "shared_preload_libraries"])
def test_settings_in_the_configuration_file(emulator, library):
    with own_cluster(f"{library}=cdf_fdw", "cdf_fdw.buffer_memory=8MB") as cluster, cluster.connect() as connection:
        assert connection.execute("SHOW cdf_fdw.buffer_memory").fetchone() == ("8MB",)
