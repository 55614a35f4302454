"""cdf_register_credentials: who may call it, what it leaves behind, and that its secrets stay secret."""

from __future__ import annotations

import psycopg
import pytest
from psycopg import errors, sql
from sites import RIGHTS, SECRET, literal, make_registrar, statement

# Who may call it.


def test_new_role_connects_and_finds_its_tables(site):
    with site.superuser() as connection:
        username, password, database, schema = site.register(connection)
    assert (database, schema) == (site.database, username)
    assert len(password) >= 32
    with site.role(username, password) as connection:
        assert connection.execute("SHOW search_path").fetchone()[0] == f"{username}, public"
        assert connection.execute("SHOW TimeZone").fetchone()[0] == "UTC"
        assert connection.execute("SELECT to_regclass('assets')").fetchone()[0] == "assets"
        with pytest.raises(errors.InsufficientPrivilege):
            connection.execute("CREATE TABLE mine (a int)")
        with pytest.raises(errors.InsufficientPrivilege):
            connection.execute("CREATE FOREIGN TABLE pg_temp.t (id bigint) SERVER cdf OPTIONS (resource 'assets')")
        with pytest.raises(errors.InsufficientPrivilege):
            connection.execute("CREATE USER MAPPING FOR CURRENT_USER SERVER cdf")
        with pytest.raises(errors.InsufficientPrivilege):
            connection.execute("ALTER USER MAPPING FOR CURRENT_USER SERVER cdf OPTIONS (SET project 'p')")
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        site.role(username, "another")


def test_passwords_and_names_are_not_repeated(site):
    with site.superuser() as connection:
        made = [site.register(connection) for _ in range(3)]
    assert len({row[0] for row in made}) == len({row[1] for row in made}) == 3


def test_password_is_scram_whatever_the_setting(site):
    with site.superuser() as connection:
        connection.execute("SET password_encryption = md5")
        username, *_ = site.register(connection)
        (stored,) = connection.execute("SELECT rolpassword FROM pg_authid WHERE rolname = %s", [username]).fetchone()
    assert stored.startswith("SCRAM-SHA-256$")


def test_caller_without_superuser(site):
    make_registrar(site)
    with site.role("registrar") as connection:
        username, password, _, schema = site.register(connection)
        owners = connection.execute(
            "SELECT DISTINCT relowner::regrole::text FROM pg_class WHERE relnamespace = %s::regnamespace", [schema]
        ).fetchall()
        assert owners == [("registrar",)]
        assert connection.execute("SELECT srvowner::regrole::text FROM pg_foreign_server").fetchone()[0] == "registrar"
        # The caller knows the secret, but whoever comes by the role later must not.
        assert connection.execute("SELECT umoptions FROM pg_user_mappings").fetchall() == [(None,)]
        # Its own roles may be registered again, and others be made on the same server.
        assert site.register(connection, username=username)[1] is None
        assert site.register(connection, username="registered_2")[1] is not None
    with site.role(username, password) as connection:
        assert connection.execute("SELECT current_schema").fetchone()[0] == schema


@pytest.mark.parametrize("without", RIGHTS)
def test_caller_without_one_of_the_rights(site, without):
    make_registrar(site, without)
    before = site.objects()
    with site.role("registrar") as connection, pytest.raises(errors.InsufficientPrivilege):
        site.register(connection)
    assert site.objects() == before


def test_caller_may_not_register_a_superuser(site):
    make_registrar(site)
    before = site.objects()
    with site.role("registrar") as connection, pytest.raises(errors.InsufficientPrivilege):
        site.register(connection, username="postgres")
    assert site.objects() == before


def test_caller_registers_roles_that_it_may_administer(site):
    make_registrar(site)
    with site.superuser() as connection:
        connection.execute("CREATE ROLE other LOGIN PASSWORD 'pw'")
        before = site.objects()
        with site.role("registrar") as registrar:
            if registrar.info.server_version >= 160000:
                # Since 16, CREATEROLE is about the roles that one has the ADMIN option of.
                with pytest.raises(errors.InsufficientPrivilege, match="other"):
                    site.register(registrar, username="other")
                assert site.objects() == before
                connection.execute("GRANT other TO registrar WITH ADMIN OPTION")
            assert site.register(registrar, username="other")[1] is None
    with site.role("other") as connection:
        assert connection.execute("SELECT current_schema").fetchone()[0] == "other"


def test_caller_needs_the_existing_server(site):
    make_registrar(site)
    with site.superuser() as connection:
        site.register(connection)
    before = site.objects()
    with site.role("registrar") as connection:
        with pytest.raises(errors.InsufficientPrivilege):
            site.register(connection)
        assert site.objects() == before
        assert site.register(connection, server="registrars")[1] is not None


def test_schema_of_somebody_else(site):
    make_registrar(site)
    with site.superuser() as connection:
        connection.execute("CREATE SCHEMA trap")
        connection.execute("GRANT ALL ON SCHEMA trap TO registrar")
    before = site.objects()
    with site.role("registrar") as connection, pytest.raises(errors.InsufficientPrivilege, match="trap"):
        site.register(connection, username="trap")
    assert site.objects() == before


# What is refused, without a trace.


@pytest.mark.parametrize(
    ("changes", "error", "words"),
    [
        ({"client_secret": SECRET}, errors.InvalidAuthorizationSpecification, "refuses the credentials"),
        ({"client_id": "nobody"}, errors.InvalidAuthorizationSpecification, "refuses the credentials"),
        ({"project": "other"}, errors.InvalidAuthorizationSpecification, 'no access to the CDF project "other"'),
        ({"token_url": "http://example.com/token"}, errors.FdwOptionNameNotFound, "token_url"),
        ({"scope": "http://10.0.0.1/.default"}, errors.FdwOptionNameNotFound, "base_url"),
        ({"base_url": "http://example.com"}, errors.FdwOptionNameNotFound, "base_url"),
        ({"base_url": "example.com"}, errors.FdwOptionNameNotFound, "base_url"),
        ({"client_secret": None}, errors.NullValueNotAllowed, "client_secret"),
        ({"token_url": "http://127.0.0.1:1/token"}, errors.SqlclientUnableToEstablishSqlconnection, "127.0.0.1:1"),
        ({"base_url": "http://127.0.0.1:1"}, errors.SqlclientUnableToEstablishSqlconnection, "127.0.0.1:1"),
        ({"server": "taken"}, errors.DuplicateObject, "another base_url"),
    ],
)
def test_refusals(site, changes, error, words):
    with site.superuser() as connection:
        connection.execute("CREATE SERVER taken FOREIGN DATA WRAPPER cdf_fdw OPTIONS (base_url 'https://example.com')")
        before = site.objects()
        with pytest.raises(error, match=words) as raised:
            site.register(connection, **changes)
        assert SECRET not in str(raised.value.diag.message_detail) + str(raised.value)
        assert connection.execute("SELECT 1").fetchone() == (1,)
    assert site.objects() == before


def test_failure_after_the_role_was_made(site):
    """The relation in the way is found last."""
    with site.superuser() as connection:
        connection.execute("CREATE SCHEMA occupied CREATE TABLE events (id bigint)")
        before = site.objects()
        with pytest.raises(errors.DuplicateTable, match="events"):
            site.register(connection, username="occupied", server="new")
    assert site.objects() == before


# Registering again.


def test_registering_again_renews_the_credentials(site):
    with site.superuser() as connection:
        connection.execute("CREATE ROLE etl LOGIN PASSWORD 'pw'")
        assert site.register(connection, username="etl")[1] is None
        connection.execute(f"ALTER USER MAPPING FOR etl SERVER cdf OPTIONS (SET client_secret {repr(SECRET)})")
        connection.execute("CREATE FOREIGN TABLE etl.more (key text) SERVER cdf OPTIONS (resource 'raw_rows')")
        connection.execute("DROP FOREIGN TABLE etl.assets")
        connection.execute("ALTER ROLE etl IN DATABASE credentials_test SET TimeZone = 'Europe/Oslo'")
        assert site.register(connection, username="etl") == ("etl", None, site.database, "etl")
        (options,) = connection.execute("SELECT umoptions FROM pg_user_mappings WHERE usename = 'etl'").fetchone()
        assert f"client_secret={site.emulator.client_secret}" in options
    with site.role("etl") as connection:
        assert connection.execute("SHOW TimeZone").fetchone()[0] == "Europe/Oslo"
        assert connection.execute("SELECT has_table_privilege('assets', 'INSERT')").fetchone()[0]
        assert connection.execute("SELECT to_regclass('more')").fetchone()[0] == "more"


def test_mapping_by_hand_becomes_a_registration(site):
    """A role that has a mapping but no schema gets the rest."""
    with site.superuser() as connection:
        connection.execute("CREATE ROLE etl LOGIN PASSWORD 'pw'")
        connection.execute(f"CREATE SERVER cdf FOREIGN DATA WRAPPER cdf_fdw OPTIONS (base_url '{site.emulator.url}')")
        connection.execute(
            "CREATE USER MAPPING FOR etl SERVER cdf OPTIONS (project 'p', token_url 'https://example.com/token', "
            "client_id 'x', client_secret 'y', audience 'z')"
        )
        site.register(connection, username="etl")
        (options,) = connection.execute("SELECT umoptions FROM pg_user_mappings WHERE usename = 'etl'").fetchone()
        assert not any(option.startswith("audience=") for option in options)
    with site.role("etl") as connection:
        assert connection.execute("SELECT to_regclass('assets')").fetchone()[0] == "assets"


# Which credentials a session uses.


def test_session_follows_its_mapping(site):
    """A session does not keep using its token after its credentials were changed."""
    with site.superuser() as connection:
        username, password, *_ = site.register(connection)
        change = sql.SQL("ALTER USER MAPPING FOR {} SERVER cdf OPTIONS (SET client_secret {})")

        def rotate(secret):
            connection.execute(change.format(sql.Identifier(username), sql.Literal(secret)))

        with site.role(username, password) as session:
            session.execute("INSERT INTO assets (external_id, name) VALUES ('a', 'a')")
            rotate(SECRET)
            with pytest.raises(errors.InvalidAuthorizationSpecification):
                session.execute("INSERT INTO assets (external_id, name) VALUES ('b', 'b')")
            rotate(site.emulator.client_secret)
            session.execute("INSERT INTO assets (external_id, name) VALUES ('c', 'c')")


def test_role_without_a_mapping(site):
    with site.superuser() as connection:
        username, *_ = site.register(connection)
        insert = sql.SQL("INSERT INTO {}.assets (external_id, name) VALUES ('a', 'a')").format(
            sql.Identifier(username)
        )
        with pytest.raises(errors.InvalidAuthorizationSpecification, match="no user mapping") as raised:
            connection.execute(insert)
        assert "CREATE USER MAPPING FOR postgres SERVER cdf" in raised.value.diag.message_hint
        # One for everybody will do.
        options = sql.SQL(", ").join(
            sql.SQL("{} {}").format(sql.Identifier(name), sql.Literal(value))
            for name, value in site.arguments().items()
        )
        connection.execute(sql.SQL("CREATE USER MAPPING FOR PUBLIC SERVER cdf OPTIONS ({})").format(options))
        connection.execute(insert)


# Secrets stay secret.


def with_text(connection, arguments):
    connection.execute(literal(connection, arguments))


def with_parameters(connection, arguments):
    connection.execute(*statement(arguments))


def with_execute(connection, arguments):
    names = list(arguments)
    placeholders = ", ".join(f"{name} => ${at}" for at, name in enumerate(names, 1))
    connection.execute(
        f"PREPARE registration ({', '.join('text' for _ in names)}) AS "
        f"SELECT * FROM cdf_register_credentials({placeholders})"
    )
    values = sql.SQL(", ").join(sql.Literal(value) for value in arguments.values())
    connection.execute(sql.SQL("EXECUTE registration ({})").format(values))


def in_block(connection, arguments):
    connection.execute(f"DO $block$ BEGIN PERFORM * FROM ({literal(connection, arguments)}) x; END $block$")


def in_function(connection, arguments):
    text = literal(connection, arguments).replace("'", "''")
    connection.execute(
        f"CREATE FUNCTION pg_temp.set_up() RETURNS void LANGUAGE plpgsql AS 'BEGIN EXECUTE $x${text}$x$; END'"
    )
    connection.execute("SELECT pg_temp.set_up()")


WAYS = [with_text, with_parameters, with_execute, in_block, in_function]


@pytest.mark.parametrize("way", WAYS)
def test_failing_call_is_not_logged(site, way):
    with site.logged() as log, site.superuser() as connection:
        connection.execute("SET log_parameter_max_length_on_error = -1")
        with pytest.raises(errors.InvalidAuthorizationSpecification):
            way(connection, site.arguments(client_secret=SECRET))
    assert "refuses the credentials" in log[0]
    assert SECRET not in log[0]


@pytest.mark.parametrize("way", WAYS)
def test_forbidden_call_is_not_logged(site, way):
    """Refused before the function runs, in a session that does not have the library yet."""
    with site.superuser() as connection:
        connection.execute("CREATE ROLE anybody LOGIN PASSWORD 'pw'")
    with site.logged() as log, site.role("anybody") as connection:
        with pytest.raises(errors.InsufficientPrivilege, match="cdf_register_credentials"):
            way(connection, site.arguments(client_secret=SECRET))
    assert "permission denied for function cdf_register_credentials" in log[0]
    assert SECRET not in log[0]


@pytest.mark.parametrize("way", WAYS)
def test_the_secret_is_not_logged_once_the_library_is_loaded(site, way):
    with site.superuser() as connection:
        connection.execute("LOAD 'cdf_fdw'")
        for setting in (
            "log_statement = 'all'",
            "log_min_duration_statement = 0",
            "log_parameter_max_length = -1",
        ):
            connection.execute(f"SET {setting}")
        with site.logged() as log:
            way(connection, site.arguments(username="quiet"))
        (stored,) = connection.execute("SELECT rolpassword FROM pg_authid WHERE rolname = 'quiet'").fetchone()
    assert site.emulator.client_secret not in log[0]
    assert stored not in log[0]
    assert site.arguments()["token_url"] in log[0]
    assert "*" * len(site.emulator.client_secret) in log[0]
    assert "duration: " in log[0]


def test_plans_are_not_logged_once_the_library_is_loaded(site):
    with site.superuser() as connection:
        try:
            connection.execute("LOAD 'auto_explain'")
        except errors.UndefinedFile:
            pytest.skip("auto_explain is not installed")
        connection.execute("LOAD 'cdf_fdw'")
        connection.execute("SET auto_explain.log_min_duration = 0")
        connection.execute("SET auto_explain.log_nested_statements = on")
        with site.logged() as log:
            in_function(connection, site.arguments())
    assert "duration: " in log[0]
    assert site.emulator.client_secret not in log[0]


def test_parse_trees_are_not_logged_once_the_library_is_loaded(site):
    with site.superuser() as connection:
        connection.execute("LOAD 'cdf_fdw'")
        connection.execute("SET debug_print_parse = on")
        with site.logged() as log:
            with_text(connection, site.arguments())
    # A constant in a tree is a list of its bytes, broken into lines.
    assert " ".join(str(byte) for byte in site.emulator.client_secret.encode()) not in " ".join(log[0].split())


def test_first_call_with_parameters_is_not_logged(site):
    """Parameters come after planning, and with it the library, also in a fresh session."""
    with site.superuser() as connection:
        connection.execute("SET log_statement = 'all'")
        connection.execute("SET log_min_duration_statement = 0")
        with site.logged() as log:
            site.register(connection)
    assert site.emulator.client_secret not in log[0]


def test_syntax_error_is_not_logged_once_the_library_is_loaded(site):
    with site.superuser() as connection:
        connection.execute("LOAD 'cdf_fdw'")
        with site.logged() as log, pytest.raises(errors.SyntaxError):
            connection.execute(literal(connection, site.arguments(client_secret=SECRET)) + " 'unterminated " + SECRET)
    assert SECRET not in log[0]


def test_failing_user_mapping_is_not_logged(site):
    with site.superuser() as connection:
        connection.execute("CREATE SERVER s FOREIGN DATA WRAPPER cdf_fdw OPTIONS (base_url 'https://example.com')")
    with site.logged() as log, site.superuser() as connection, pytest.raises(errors.FdwInvalidOptionName):
        connection.execute(f"CREATE USER MAPPING FOR PUBLIC SERVER s OPTIONS (password '', client_secret '{SECRET}')")
    assert 'invalid option "password"' in log[0]
    assert SECRET not in log[0]


def test_other_statements_are_logged_as_ever(site):
    with site.superuser() as connection:
        connection.execute("LOAD 'cdf_fdw'")
        connection.execute("SET log_statement = 'all'")
        with site.logged() as log:
            site.register(connection)
            connection.execute("SELECT 4711")
            with pytest.raises(errors.DivisionByZero):
                connection.execute("SELECT 4712 / 0")
    assert "statement: SELECT 4711" in log[0]
    assert "STATEMENT:  SELECT 4712 / 0" in log[0]


def test_activity_does_not_show_the_secret(site):
    with site.superuser() as connection, site.superuser() as other:
        with_text(connection, site.arguments())
        (shown,) = other.execute(
            "SELECT query FROM pg_stat_activity WHERE pid = %s", [connection.info.backend_pid]
        ).fetchone()
        text = literal(connection, site.arguments())
    assert shown == text.replace(site.emulator.client_secret, "*" * len(site.emulator.client_secret))


def test_errors_have_no_secret_for_the_client_either(site):
    with site.superuser() as connection:
        with pytest.raises(psycopg.Error) as raised:
            with_parameters(connection, site.arguments(client_secret=SECRET))
    diag = raised.value.diag
    shown = [diag.message_primary, diag.message_detail, diag.message_hint, diag.context, diag.internal_query]
    assert not any(SECRET in text for text in shown if text)


def test_no_catalog_shows_the_secret_to_others(site):
    """Everything of pg_catalog and information_schema that a new role can read."""
    with site.superuser() as connection:
        username, password, *_ = site.register(connection)
    with site.role(username, password) as connection:
        relations = connection.execute(
            "SELECT oid::regclass::text FROM pg_class WHERE relkind IN ('r', 'v') AND relnamespace IN "
            "('pg_catalog'::regnamespace, 'information_schema'::regnamespace) AND has_table_privilege(oid, 'SELECT')"
        ).fetchall()
        assert len(relations) > 100
        for (relation,) in relations:
            try:
                rows = connection.execute(f"SELECT x::text FROM {relation} x").fetchall()
            except errors.InsufficientPrivilege:
                continue
            for (row,) in rows:
                assert site.emulator.client_secret not in row, relation
                assert password not in row, relation
