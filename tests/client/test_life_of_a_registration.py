"""A registration's life: who may change it, what goes with it, and that a failing call leaves everything as it was."""

from __future__ import annotations

import subprocess

import psycopg
import pytest
from harness import psql_environment
from psycopg import sql
from sites import SECRET, make_registrar
from support import dump, refused, told
from test_views import create_view

COLUMNS = "username server base_url project client_id token_url scope audience schema sealed created changed".split()


def call(connection, function, *arguments, **named):
    parts = [sql.Placeholder()] * len(arguments) + [
        sql.SQL("{} => {}").format(sql.Identifier(name), sql.Literal(value)) for name, value in named.items()
    ]
    statement = sql.SQL("SELECT {}({})").format(sql.SQL(function), sql.SQL(", ").join(parts))
    return connection.execute(statement, arguments).fetchone()[0]


def names(connection) -> list[str]:
    return [row[0] for row in connection.execute("SELECT username FROM cdf_credentials ORDER BY 1").fetchall()]


def settle(site, registrar):
    """A registrar's connection with one registration, and the superuser's with another."""
    make_registrar(site)
    with site.superuser() as connection:
        site.register(connection, username="boss_etl", server="boss")
    mine = site.role(registrar)
    site.register(mine, username="etl")
    return mine


@pytest.fixture
def registrar(site):
    with settle(site, "registrar") as connection:
        yield connection


# Who sees, and who may.


def test_the_view_shows_what_was_registered_and_no_secret(site):
    with site.superuser() as connection:
        username, password, _, schema = site.register(connection, audience="aud")
        cursor = connection.execute("SELECT * FROM cdf_credentials")
        assert [column.name for column in cursor.description] == COLUMNS
        (row,) = cursor.fetchall()
        shown = dict(zip(COLUMNS, row, strict=True))
        assert (shown["username"], shown["server"], shown["schema"]) == (username, "cdf", schema)
        assert shown["base_url"] == site.emulator.url and shown["audience"] == "aud"
        for name in ("project", "client_id", "token_url", "scope"):
            assert shown[name] == site.arguments()[name]
        assert shown["sealed"] is False and shown["created"] == shown["changed"]
        assert site.emulator.client_secret not in str(row) and password not in str(row)


def test_each_sees_its_own(site, registrar):
    assert names(registrar) == ["etl"]
    with site.superuser() as connection:
        assert names(connection) == ["boss_etl", "etl"]
        connection.execute("CREATE ROLE stranger LOGIN PASSWORD 'pw'")
        password = call(connection, "cdf_reset_password", "etl")
        for setting in ("SET ROLE etl", "SET ROLE stranger"):
            connection.execute(setting)
            assert names(connection) == (["etl"] if "etl" in setting else [])
            connection.execute("RESET ROLE")
    with site.role("etl", password) as connection:
        assert connection.execute("SELECT username FROM public.cdf_credentials").fetchall() == [("etl",)]


def test_no_condition_sees_the_rows_of_others(site, registrar):
    with site.superuser() as connection:
        connection.execute("CREATE ROLE stranger LOGIN PASSWORD 'pw'")
    with site.role("stranger") as connection:
        connection.execute(
            "CREATE FUNCTION pg_temp.tell(a text) RETURNS boolean LANGUAGE plpgsql COST 0.0001 "
            "AS $$ BEGIN RAISE 'seen %', a; END $$"
        )
        assert connection.execute("SELECT * FROM public.cdf_credentials WHERE pg_temp.tell(client_id)").fetchall() == []


def test_the_table_behind_is_for_nobody_else(site, registrar):
    for statement in ("TABLE public.cdf_registrations", "DELETE FROM public.cdf_registrations"):
        with refused("42501"):
            registrar.execute(statement)


CALLS = {
    "cdf_update_credentials": {"client_id": "other"},
    "cdf_reset_password": {},
    "cdf_drop_credentials": {},
    "cdf_check_credentials": {},
    "cdf_create_raw_table": {"tablename": "t", "database": "d", "table": "t", "columns": "{}"},
    "cdf_create_view_table": {"tablename": "t", "space": "s", "external_id": "v"},
    "cdf_create_facade": {},
    "cdf_drop_facade": {},
}


@pytest.mark.parametrize("function", CALLS)
def test_who_may_call(site, registrar, function):
    before = site.objects()
    with refused("42501", "boss_etl", "postgres"):
        call(registrar, function, "boss_etl", **CALLS[function])
    for nobody in ("nobody", "registrar", "ETL", 'e"tl', "postgres"):
        with refused("42704", f'"{nobody}" is not registered'):
            call(registrar, function, nobody, **CALLS[function])
    with refused("22004", "username"):
        call(registrar, function, None, **CALLS[function])
    with site.superuser() as connection:
        connection.execute("CREATE ROLE stranger LOGIN CREATEROLE PASSWORD 'pw'")
        for role in ("etl", "stranger"):
            connection.execute(f"SET ROLE {role}")
            with refused("42501", function):
                call(connection, f"public.{function}", "etl", **CALLS[function])
            connection.execute("RESET ROLE")
        connection.execute("DROP ROLE stranger")
        with refused("42704"):
            call(connection, function, "postgres", **CALLS[function])
        # A registrar who may not change roles any more.
        connection.execute("ALTER ROLE registrar NOCREATEROLE")
        with refused("42501"):
            call(registrar, function, "etl", **CALLS[function])
        connection.execute("ALTER ROLE registrar CREATEROLE")
    assert site.objects() == before


@pytest.mark.parametrize("function", sorted(set(CALLS) - {"cdf_check_credentials"}))
def test_read_only_transactions(site, function):
    with site.superuser() as connection:
        site.register(connection, username="etl")
        connection.execute("SET default_transaction_read_only = on")
        with refused("25006", function):
            call(connection, function, "etl", **CALLS[function])


def test_registrars_keep_to_their_own(site, registrar):
    with site.superuser() as connection:
        connection.execute("CREATE ROLE second LOGIN CREATEROLE PASSWORD 'pw'")
        connection.execute("GRANT CREATE ON DATABASE credentials_test TO second")
        connection.execute("GRANT USAGE ON FOREIGN DATA WRAPPER cdf_fdw TO second")
        connection.execute("GRANT EXECUTE ON FUNCTION cdf_register_credentials TO second")
        if connection.info.server_version >= 160000:
            connection.execute("GRANT etl TO second WITH ADMIN OPTION")
        before = site.objects()
        with site.role("second") as other:
            # Nor by registering the role again.
            with refused("42501", "registrar"):
                site.register(other, username="etl", server="mine", schema="another")
        assert site.objects() == before
        # A superuser may, and the registration stays its registrar's.
        site.register(connection, username="boss_etl", server="boss")
        connection.execute("ALTER ROLE registrar SUPERUSER")
        site.register(registrar, username="boss_etl", server="boss")
        connection.execute("ALTER ROLE registrar NOSUPERUSER")
        assert names(registrar) == ["etl"]


def test_a_registrar_with_usage_maps_roles_on_a_superusers_server(site, registrar):
    before = site.objects()
    with refused("42501", 'server "boss"', "GRANT USAGE ON FOREIGN SERVER boss TO registrar"):
        site.register(registrar, username="more", server="boss")
    assert site.objects() == before
    with site.superuser() as connection:
        connection.execute("GRANT USAGE ON FOREIGN SERVER boss TO registrar")
    assert site.register(registrar, username="more", server="boss")[1] is not None
    assert registrar.execute("SELECT current_user").fetchone() == ("registrar",)
    call(registrar, "cdf_update_credentials", "more", client_secret=site.emulator.client_secret)
    with refused("42501", "must be owner"):
        registrar.execute("ALTER SERVER boss OPTIONS (SET base_url 'https://mallory.example.com')")
    call(registrar, "cdf_drop_credentials", "more")
    assert site.objects() == before


# Roles that are renamed or dropped by hand.


def test_a_role_that_is_renamed_keeps_its_registration(site):
    with site.superuser() as connection:
        site.register(connection, username="etl")
        connection.execute("ALTER ROLE etl RENAME TO etl2")
        assert names(connection) == ["etl2"]
        with refused("42704"):
            call(connection, "cdf_drop_credentials", "etl")
        call(connection, "cdf_drop_credentials", "etl2")
        assert connection.execute("SELECT count(*) FROM pg_roles WHERE rolname ~ '^etl'").fetchone() == (0,)


def test_a_new_role_of_an_old_name_is_not_registered(site):
    with site.superuser() as connection:
        site.register(connection, username="etl")
        connection.execute("DROP OWNED BY etl")
        connection.execute("DROP ROLE etl")
        connection.execute("CREATE ROLE etl LOGIN")
        assert names(connection) == []
        with refused("42704"):
            call(connection, "cdf_reset_password", "etl")
        site.register(connection, username="etl")
        # The schema was there by then, and so was the role.
        call(connection, "cdf_drop_credentials", "etl")
        assert connection.execute("SELECT count(*) FROM pg_roles WHERE rolname = 'etl'").fetchone() == (1,)


def test_a_dump_has_the_registrations(site, registrar, tmp_path):
    restored = "credentials_restored"
    dump = tmp_path / "dump"
    run = {"check": True, "capture_output": True, "text": True, "env": psql_environment()}
    bindir = site.cluster.bindir
    with site.superuser() as connection:
        connection.execute("DROP OWNED BY boss_etl")
        connection.execute("DROP ROLE boss_etl")
        before = connection.execute("SELECT * FROM cdf_credentials").fetchall()
        assert len(before) == 1
    subprocess.run([bindir / "pg_dump", "-F", "custom", "-f", dump, "-d", site.cluster.dsn(site.database)], **run)
    text = subprocess.run([bindir / "pg_restore", "-f", "-", "--data-only", dump], **run).stdout
    assert "registrar" in text and site.emulator.client_secret not in text
    with site.cluster.connect() as connection:
        connection.execute(f"DROP DATABASE IF EXISTS {restored} WITH (FORCE)")
        connection.execute(f"CREATE DATABASE {restored}")
    try:
        subprocess.run([bindir / "pg_restore", "--exit-on-error", "-d", site.cluster.dsn(restored), dump], **run)
        with psycopg.connect(site.cluster.dsn(restored), autocommit=True) as connection:
            assert connection.execute("SELECT * FROM cdf_credentials").fetchall() == before
            connection.execute("SET ROLE registrar")
            assert call(connection, "cdf_reset_password", "etl")
    finally:
        with site.cluster.connect() as connection:
            connection.execute(f"DROP DATABASE {restored} WITH (FORCE)")


# A new password.


def test_a_new_password_replaces_the_old_one(site, registrar):
    first = call(registrar, "cdf_reset_password", "etl")
    second = call(registrar, "cdf_reset_password", "etl")
    assert len(first) >= 32 and first != second
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        site.role("etl", first)
    with site.role("etl", second) as connection:
        assert connection.execute("SELECT current_schema").fetchone() == ("etl",)
    with site.superuser() as connection:
        (stored,) = connection.execute("SELECT rolpassword FROM pg_authid WHERE rolname = 'etl'").fetchone()
        assert stored.startswith("SCRAM-SHA-256$")


def test_a_new_password_is_not_logged(site):
    with site.superuser() as connection:
        site.register(connection, username="etl")
        connection.execute("SET log_statement = 'all'")
        connection.execute("SET log_min_duration_statement = 0")
        with site.logged() as log:
            password = call(connection, "cdf_reset_password", "etl")
        (stored,) = connection.execute("SELECT rolpassword FROM pg_authid WHERE rolname = 'etl'").fetchone()
    assert password not in log[0] and stored not in log[0]


# Other credentials.


def test_changed_credentials_are_tried_first(site, registrar):
    password = call(registrar, "cdf_reset_password", "etl")
    insert = "INSERT INTO assets (external_id, name) VALUES (%s, 'a')"
    options = "SELECT umoptions, changed FROM pg_user_mappings, cdf_credentials WHERE usename = 'etl' AND username = 'etl'"
    with site.superuser() as superuser, site.role("etl", password) as session:
        session.execute(insert, ["a"])
        before = superuser.execute(options).fetchone()
        for changes, words in (
            ({"client_secret": SECRET}, "refuses the credentials"),
            ({"client_id": "nobody"}, "refuses the credentials"),
            ({"project": "other"}, 'no access to the CDF project "other"'),
        ):
            with refused("28000", words) as raised:
                call(registrar, "cdf_update_credentials", "etl", **changes)
            assert SECRET not in told(raised.value)
            assert superuser.execute(options).fetchone() == before
        with refused("HV00J", "token_url"):
            call(
                registrar,
                "cdf_update_credentials",
                "etl",
                token_url="http://example.com/token",
                client_secret=site.emulator.client_secret,
            )
        for nothing in ({}, {"client_secret": None}, {"client_secret": ""}):
            with refused("22004", "needs a value to change"):
                call(registrar, "cdf_update_credentials", "etl", **nothing)
        assert superuser.execute(options).fetchone() == before
        # One that was broken by hand is made good, and an open session goes on with it.
        superuser.execute(f"ALTER USER MAPPING FOR etl SERVER cdf OPTIONS (SET client_secret '{SECRET}')")
        with refused("28000"):
            session.execute(insert, ["b"])
        call(registrar, "cdf_update_credentials", "etl", client_secret=site.emulator.client_secret, audience="aud")
        session.execute(insert, ["c"])
        after, changed = superuser.execute(options).fetchone()
        assert sorted(after) == sorted([*before[0], "audience=aud"]) and changed > before[1]


def test_where_a_secret_is_sent_takes_the_secret(site, registrar):
    with site.superuser() as connection:
        before = connection.execute("SELECT umoptions FROM pg_user_mappings WHERE usename = 'etl'").fetchone()
        site.emulator.admin_delete("requests")
        with refused("42501", "token_url", "client_secret"):
            call(registrar, "cdf_update_credentials", "etl", token_url="https://mallory.example.com/token")
        assert site.emulator.admin_get("requests")["items"] == []
        assert connection.execute("SELECT umoptions FROM pg_user_mappings WHERE usename = 'etl'").fetchone() == before
        # The same address is no change.
        call(registrar, "cdf_update_credentials", "etl", token_url=site.emulator.token_url)


def test_credentials_of_a_server_that_went_to_a_neighbour(site):
    with site.superuser() as connection:
        site.register(connection, username="etl")
        connection.execute("CREATE ROLE mallory")
        connection.execute("GRANT USAGE ON FOREIGN DATA WRAPPER cdf_fdw TO mallory")
        connection.execute("ALTER SERVER cdf OWNER TO mallory")
        site.emulator.admin_delete("requests")
        with refused("42501", "mallory"):
            call(connection, "cdf_update_credentials", "etl", client_secret=SECRET)
        assert site.emulator.admin_get("requests")["items"] == []


def test_credentials_of_a_mapping_that_is_gone(site):
    with site.superuser() as connection:
        site.register(connection, username="etl")
        connection.execute("DROP USER MAPPING FOR etl SERVER cdf")
        with refused("42704", "no user mapping", "cdf_register_credentials"):
            call(connection, "cdf_update_credentials", "etl", client_secret=site.emulator.client_secret)
        site.register(connection, username="etl")
        call(connection, "cdf_update_credentials", "etl", client_secret=site.emulator.client_secret)
        connection.execute("ALTER SERVER cdf RENAME TO other")
        with refused("42704", 'server "cdf"'):
            call(connection, "cdf_update_credentials", "etl", client_secret=site.emulator.client_secret)


@pytest.mark.parametrize("named", [True, False])
@pytest.mark.parametrize("who", ["boss", "stranger"])
def test_a_failing_change_is_not_logged(site, who, named):
    with site.superuser() as connection:
        site.register(connection, username="etl")
        connection.execute("CREATE ROLE boss SUPERUSER LOGIN PASSWORD 'pw'")
        connection.execute("CREATE ROLE stranger LOGIN PASSWORD 'pw'")
    arguments = f"'etl', client_secret => '{SECRET}'" if named else f"'etl', '{SECRET}'"
    with site.logged() as log, site.role(who) as connection:
        with refused("28000" if who == "boss" else "42501"):
            connection.execute(f"SELECT cdf_update_credentials({arguments})")
    assert "cdf_update_credentials" in log[0]
    assert SECRET not in log[0]


# The end.


def test_everything_goes(site):
    with site.superuser() as connection:
        connection.execute(f"CREATE SERVER cdf FOREIGN DATA WRAPPER cdf_fdw OPTIONS (base_url '{site.emulator.url}')")
        before = site.objects()
        username, *_ = site.register(connection)
        connection.execute(
            sql.SQL("CREATE FOREIGN TABLE {}.movies (key text) SERVER cdf OPTIONS (resource 'raw_rows')").format(
                sql.Identifier(username)
            )
        )
        call(connection, "cdf_drop_credentials", username)
        assert site.objects() == before
        assert names(connection) == []
        with refused("42704"):
            call(connection, "cdf_drop_credentials", username)


def test_a_registrar_drops_his_own(site, registrar):
    with site.superuser() as connection:
        call(registrar, "cdf_drop_credentials", "etl")
        assert names(connection) == ["boss_etl"]
        assert connection.execute("SELECT count(*) FROM pg_roles WHERE rolname = 'etl'").fetchone() == (0,)
        assert connection.execute("SELECT to_regnamespace('etl')").fetchone() == (None,)


def test_a_role_that_was_there_keeps_its_name(site):
    with site.superuser() as connection:
        connection.execute("CREATE ROLE etl LOGIN PASSWORD 'pw'")
        connection.execute("CREATE SCHEMA own AUTHORIZATION etl")
        connection.execute(f"CREATE SERVER cdf FOREIGN DATA WRAPPER cdf_fdw OPTIONS (base_url '{site.emulator.url}')")
        connection.execute("ALTER ROLE etl IN DATABASE credentials_test SET work_mem = '5MB'")
        before = site.objects()
        site.register(connection, username="etl")
        assert site.objects() != before
        call(connection, "cdf_drop_credentials", "etl")
        assert site.objects() == before
    site.role("etl").close()


def test_a_schema_that_was_there_stays_with_what_is_in_it(site):
    with site.superuser() as connection:
        connection.execute("CREATE TABLE public.more (a int)")
        site.register(connection, username="etl", schema="public", server="cdf")
        connection.execute("CREATE FOREIGN TABLE public.by_hand (key text) SERVER cdf OPTIONS (resource 'raw_rows')")
        call(connection, "cdf_drop_credentials", "etl")
        tables = connection.execute("SELECT ftrelid::regclass::text FROM pg_foreign_table").fetchall()
        assert tables == [("by_hand",)]
        assert connection.execute("SELECT to_regclass('public.more')").fetchone() == ("more",)


@pytest.mark.parametrize("schema", ["public", "own"])
@pytest.mark.parametrize("first", ["a", "b"])
def test_tables_of_two_roles_stay_until_the_last(site, schema, first):
    with site.superuser() as connection:
        connection.execute(f"CREATE SERVER cdf FOREIGN DATA WRAPPER cdf_fdw OPTIONS (base_url '{site.emulator.url}')")
        before = site.objects()
        for username in ("a", "b"):
            site.register(connection, username=username, schema=schema)
        call(connection, "cdf_drop_credentials", first)
        last = "b" if first == "a" else "a"
        password = call(connection, "cdf_reset_password", last)
        with site.role(last, password) as session:
            session.execute("INSERT INTO assets (external_id, name) VALUES ('a', 'a')")
        call(connection, "cdf_drop_credentials", last)
        assert site.objects() == before


IN_THE_WAY = {
    "CREATE VIEW public.v AS SELECT name FROM etl.assets": "view public.v",
    "CREATE TABLE etl.local (a int)": "table etl.local",
    "CREATE FUNCTION etl.f() RETURNS int LANGUAGE sql AS 'SELECT 1'": "function etl.f()",
    "CREATE TYPE etl.mood AS ENUM ('ok')": "type etl.mood",
    "CREATE SCHEMA owned AUTHORIZATION etl": "schema owned",
    "CREATE TABLE public.t (a int); ALTER TABLE public.t OWNER TO etl": "table public.t",
    "CREATE TABLE public.t (a int); GRANT SELECT ON public.t TO etl": "table public.t",
    "CREATE FUNCTION public.f(etl.assets) RETURNS int LANGUAGE sql AS 'SELECT 1'": "f(",
}


@pytest.mark.parametrize("made", IN_THE_WAY)
@pytest.mark.parametrize("force", [False, True])
def test_what_others_rely_on_is_in_the_way(site, made, force):
    with site.superuser() as connection:
        _, password, *_ = site.register(connection, username="etl")
        connection.execute(made)
        before = site.objects()
        with site.role("etl", password) as session:
            with refused("2BP01", IN_THE_WAY[made]) as raised:
                call(connection, "cdf_drop_credentials", "etl", force=force)
            assert "CASCADE" not in told(raised.value)
            # The session was not ended needlessly.
            session.execute("INSERT INTO assets (external_id, name) VALUES ('a', 'a')")
        assert site.objects() == before
        assert names(connection) == ["etl"]


def test_objects_in_another_database_are_in_the_way(site):
    other = "credentials_other"
    with site.superuser() as connection:
        site.register(connection, username="etl")
        connection.execute(f"DROP DATABASE IF EXISTS {other} WITH (FORCE)")
        connection.execute(f"CREATE DATABASE {other}")
        try:
            with psycopg.connect(site.cluster.dsn(other), autocommit=True) as there:
                there.execute("CREATE SCHEMA s AUTHORIZATION etl")
            with refused("2BP01", f"1 object in database {other}"):
                call(connection, "cdf_drop_credentials", "etl")
        finally:
            connection.execute(f"DROP DATABASE {other} WITH (FORCE)")
        call(connection, "cdf_drop_credentials", "etl")


def test_open_sessions_are_in_the_way_unless_they_are_ended(site, registrar):
    password = call(registrar, "cdf_reset_password", "etl")
    sessions = [site.role("etl", password) for _ in range(2)]
    elsewhere = psycopg.connect(site.cluster.dsn("postgres"), user="etl", password=password, autocommit=True)
    sessions[0].execute("BEGIN")
    sessions[0].execute("SELECT FROM assets")
    before = site.objects()
    with refused("55006", '"etl" has 3 open sessions', "force"):
        call(registrar, "cdf_drop_credentials", "etl")
    with refused("55006", "3 open sessions"):
        call(registrar, "cdf_drop_credentials", "etl", force=None)
    assert site.objects() == before
    call(registrar, "cdf_drop_credentials", "etl", force=True)
    for session in [*sessions, elsewhere]:
        with pytest.raises(psycopg.OperationalError):
            session.execute("SELECT 1")
    assert names(registrar) == []


def test_sessions_elsewhere_of_a_role_that_stays_do_not_matter(site):
    with site.superuser() as connection:
        connection.execute("CREATE ROLE etl LOGIN PASSWORD 'pw'")
        site.register(connection, username="etl")
        dsn = f"host=127.0.0.1 port={site.cluster.port} dbname=postgres user=etl password=pw"
        with psycopg.connect(dsn, autocommit=True) as elsewhere:
            with site.role("etl"), refused("55006", "1 open session"):
                call(connection, "cdf_drop_credentials", "etl")
            call(connection, "cdf_drop_credentials", "etl", force=True)
            elsewhere.execute("SELECT 1")


@pytest.mark.parametrize("name", ['q"uo\'te', "søk 🦀", "x" * 63, "%s/../.", "Select", "public.etl"])
def test_names_are_taken_as_they_are(site, name):
    with site.superuser() as connection:
        connection.execute(f"CREATE SERVER cdf FOREIGN DATA WRAPPER cdf_fdw OPTIONS (base_url '{site.emulator.url}')")
        before = site.objects()
        site.register(connection, username=name)
        assert names(connection) == [name]
        password = call(connection, "cdf_reset_password", name)
        site.role(name, password).close()
        call(connection, "cdf_update_credentials", name, client_secret=site.emulator.client_secret)
        call(connection, "cdf_drop_credentials", name, force=True)
        assert site.objects() == before


def test_nothing_is_half_done(site):
    """The last command fails, because of an event trigger."""
    with site.superuser() as connection:
        site.register(connection, username="etl")
        connection.execute(
            "CREATE FUNCTION public.stop() RETURNS event_trigger LANGUAGE plpgsql AS $$ BEGIN "
            "RAISE 'not now'; END $$"
        )
        connection.execute("CREATE EVENT TRIGGER stop ON sql_drop WHEN TAG IN ('DROP USER MAPPING') EXECUTE FUNCTION public.stop()")
        before = site.objects()
        with pytest.raises(psycopg.errors.RaiseException, match="not now"):
            call(connection, "cdf_drop_credentials", "etl")
        assert site.objects() == before and names(connection) == ["etl"]
        assert connection.execute("SELECT current_user").fetchone() == ("postgres",)


def test_a_failure_within_a_block_gives_the_caller_his_rights_back(site, registrar):
    with site.superuser() as connection:
        connection.execute("GRANT USAGE ON FOREIGN SERVER boss TO registrar")
        connection.execute(
            "CREATE FUNCTION public.stop() RETURNS event_trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'not now'; END $$"
        )
        connection.execute("CREATE EVENT TRIGGER stop ON ddl_command_end WHEN TAG IN ('CREATE USER MAPPING') EXECUTE FUNCTION public.stop()")
    arguments = site.arguments(username="more", server="boss")
    listed = ", ".join(f"{name} => '{value}'" for name, value in arguments.items())
    registrar.execute(
        f"DO $$ BEGIN PERFORM * FROM cdf_register_credentials({listed}); "
        "EXCEPTION WHEN raise_exception THEN PERFORM set_config('my.user', current_user, false); END $$"
    )
    assert registrar.execute("SELECT current_setting('my.user'), current_user").fetchone() == ("registrar", "registrar")


# What a role may do in CDF.


def check(connection, username="etl") -> list[tuple]:
    return connection.execute("SELECT * FROM cdf_check_credentials(%s)", [username]).fetchall()


def set_client(cdf, **settings) -> None:
    cdf.admin_post("clients", {"client_id": cdf.client_id, "client_secret": cdf.client_secret} | settings)


def test_a_check_tells_each_right_of_each_table(site, registrar):
    cursor = registrar.execute("SELECT * FROM cdf_check_credentials('etl')")
    assert [column.name for column in cursor.description] == ["subject", "item", "needed", "ok", "message"]
    rows = cursor.fetchall()
    assert rows[0][:4] == ("token", site.emulator.client_id, None, True)
    assert rows[1][:4] == ("project", site.emulator.project, None, True)
    assert all(row[0] == "capability" and row[3:] == (True, "scope: all") for row in rows[2:])
    needed = {(row[1], row[2]) for row in rows[2:]}
    tables = {table for table, _ in needed}
    with site.superuser() as connection:
        there = connection.execute("SELECT relname FROM pg_class WHERE relnamespace = 'etl'::regnamespace AND relkind = 'f'")
        assert tables == {name for (name,) in there.fetchall()}
    assert {("assets", "assetsAcl:READ"), ("assets", "assetsAcl:WRITE"), ("raw_rows", "rawAcl:WRITE")} <= needed
    assert ("extraction_pipeline_runs", "extractionPipelinesAcl:READ") in needed


def test_a_check_tells_what_is_missing_and_where_it_holds(site):
    with site.superuser() as connection:
        site.register(connection, username="etl")
        connection.execute(
            "CREATE FOREIGN TABLE etl.mine (key text) SERVER cdf OPTIONS (resource 'raw_rows', database 'd', \"table\" 't')"
        )
        connection.execute(
            "CREATE FOREIGN TABLE etl.other (key text) SERVER cdf OPTIONS (resource 'raw_rows', database 'd', \"table\" 'o')"
        )
        scopes = [
            {"acl": "assetsAcl", "actions": ["READ"]},
            {"acl": "eventsAcl", "actions": ["READ", "WRITE"], "scope": {"datasetScope": {"ids": [1, 2]}}},
            {"acl": "filesAcl", "actions": ["READ"], "scope": {"idScope": {"ids": ["7"]}}},
            {"acl": "rawAcl", "actions": ["READ"], "scope": {"tableScope": {"dbsToTables": {"d": ["t"]}}}},
        ]
        set_client(site.emulator, capabilities=scopes)
        told_of = {(item, needed): (ok, message) for _, item, needed, ok, message in check(connection)}
        assert told_of["assets", "assetsAcl:READ"] == (True, "scope: all")
        ok, message = told_of["assets", "assetsAcl:WRITE"]
        assert not ok and "grant assetsAcl:WRITE" in message and site.emulator.client_id in message
        assert told_of["events", "eventsAcl:WRITE"] == (True, "scope: data sets 1, 2")
        assert told_of["files", "filesAcl:READ"] == (True, "scope: ids 7")
        assert told_of["mine", "rawAcl:READ"] == (True, "scope: RAW databases d")
        assert told_of["other", "rawAcl:READ"][0] is False
        assert told_of["labels", "labelsAcl:READ"][0] is False


def test_a_check_is_no_error_whatever_cdf_says(site):
    with site.superuser() as connection:
        site.register(connection, username="etl")

        def fails(words, project_words="not known without a token"):
            rows = check(connection)
            assert [row[0] for row in rows[:2]] == ["token", "project"]
            assert words in str(rows[0 if "without a token" in project_words else 1][4])
            assert project_words in rows[1][4] and rows[1][3] is False
            assert SECRET not in str(rows) and site.emulator.client_secret not in str(rows)
            return rows

        set_client(site.emulator, token_status=401, token_error="invalid_client")
        rows = fails("refuses the credentials")
        assert not any(row[3] for row in rows)
        set_client(site.emulator, projects=["elsewhere"])
        rows = fails("no access to the CDF project", "it has access to elsewhere")
        assert rows[0][3] is True
        set_client(site.emulator)
        assert all(row[3] for row in check(connection))
        connection.execute(f"ALTER USER MAPPING FOR etl SERVER cdf OPTIONS (SET client_secret '{SECRET}')")
        fails("refuses the credentials")
        connection.execute("ALTER USER MAPPING FOR etl SERVER cdf OPTIONS (SET token_url 'http://127.0.0.1:1/token')")
        fails("127.0.0.1:1")


# Tables of one's own.


def test_a_raw_table_is_made_for_the_role(site, registrar):
    columns = '{"title": {"type": "TEXT"}, "Year": {"type": "bigint"}, "tags": {"type": "TEXT[]"}}'
    made = call(
        registrar, "cdf_create_raw_table", "etl", tablename="movies", database="d", table="t", columns=columns,
        primary_key="title",
    )  # fmt: skip
    assert made == "etl.movies"
    shape = (
        "SELECT a.attname, format_type(a.atttypid, a.atttypmod) FROM pg_attribute a WHERE a.attrelid = %s::regclass "
        "AND a.attnum > 0 ORDER BY a.attnum"
    )
    assert registrar.execute(shape, ["etl.movies"]).fetchall() == [("title", "text"), ("Year", "bigint"), ("tags", "text[]")]
    password = call(registrar, "cdf_reset_password", "etl")
    with site.role("etl", password) as session:
        session.execute("INSERT INTO movies (title, \"Year\", tags) VALUES ('a', 1999, '{x}')")
        (row,) = dump(site.emulator, "raw")
        assert row["key"] == "a" and row["columns"]["Year"] == 1999
        assert session.execute('SELECT title, "Year" FROM movies').fetchall() == [("a", 1999)]
    # Without a column that is the key, there is one.
    for at, key in enumerate(["key", "nothing"]):
        name = f"keyed{at}"
        call(registrar, "cdf_create_raw_table", "etl", name, "d", "t", '{"v": {"type": "REAL"}}', primary_key=key)
        assert registrar.execute(shape, [f"etl.{name}"]).fetchall() == [("key", "text"), ("v", "real")]
    with refused("42P07"):
        call(registrar, "cdf_create_raw_table", "etl", "movies", "d", "t", "{}")
    call(registrar, "cdf_drop_credentials", "etl", force=True)


@pytest.mark.parametrize(
    ("changes", "state", "words"),
    [
        ({"columns": '{"a": {"type": "INT; DROP TABLE x"}}'}, "22023", "unknown type"),
        ({"columns": '{"a": {}}'}, "22023", "has no type"),
        ({"columns": '[{"a": {"type": "TEXT"}}]'}, "22023", "not an object of columns"),
        ({"columns": '{"ctid": {"type": "TEXT"}}'}, "22023", "ctid"),
        ({"columns": '{"": {"type": "TEXT"}}'}, "22023", "usable name"),
        ({"columns": '{"%s": {"type": "TEXT"}}' % ("x" * 64)}, "22023", "too long"),
        ({"columns": None}, "22004", "columns"),
        ({"tablename": "x" * 64}, "22023", "too long"),
        ({"tablename": ""}, "22004", "tablename"),
        ({"database": "x" * 33}, "HV00J", "database"),
    ],
)
def test_raw_tables_that_cannot_be(site, changes, state, words):
    with site.superuser() as connection:
        site.register(connection, username="etl")
        before = site.objects()
        arguments = {"tablename": "t", "database": "d", "table": "t", "columns": "{}"} | changes
        with refused(state, words):
            call(connection, "cdf_create_raw_table", "etl", **arguments)
        assert site.objects() == before


def test_names_of_tables_and_columns_are_taken_as_they_are(site):
    odd = 'o"dd\'; DROP ROLE etl; -- %s 🦀'
    with site.superuser() as connection:
        _, password, *_ = site.register(connection, username="etl")
        columns = '{"o\\"dd\'; --": {"type": "TEXT"}}'
        call(connection, "cdf_create_raw_table", "etl", odd, "d'b\"", "t'a/ø", columns)
        with site.role("etl", password) as session:
            table = sql.Identifier(odd)
            session.execute(sql.SQL("INSERT INTO {} VALUES ('k', 'v')").format(table))
            assert session.execute(sql.SQL("SELECT * FROM {}").format(table)).fetchall() == [("k", "v")]
        call(connection, "cdf_drop_credentials", "etl", force=True)


def test_a_table_that_a_superuser_makes_is_the_registrars(site, registrar):
    with site.superuser() as connection:
        call(connection, "cdf_create_raw_table", "etl", "more", "d", "t", "{}")
        owner = connection.execute("SELECT relowner::regrole::text FROM pg_class WHERE oid = 'etl.more'::regclass")
        assert owner.fetchone() == ("registrar",)
    call(registrar, "cdf_drop_credentials", "etl")


def test_made_tables_go_from_a_schema_that_stays(site):
    with site.superuser() as connection:
        site.register(connection, username="etl", schema="public")
        call(connection, "cdf_create_raw_table", "etl", "more", "d", "t", "{}")
        call(connection, "cdf_drop_credentials", "etl")
        assert connection.execute("SELECT count(*) FROM pg_foreign_table").fetchone() == (0,)


@pytest.mark.parametrize("naming", ["snake_case", "camelCase"])
@pytest.mark.parametrize("version", [None, "v1"])
def test_a_view_table_is_made_for_the_role(site, api, naming, version):
    create_view(api, "Pump", {"name": "text", "pressure": "float64"})
    with site.superuser() as connection:
        _, password, *_ = site.register(connection, username="etl", naming=naming)
        made = call(connection, "cdf_create_view_table", "etl", "pumps", "sp", "Pump", version=version)
        assert made == "etl.pumps"
        (options,) = connection.execute("SELECT ftoptions FROM pg_foreign_table WHERE ftrelid = 'etl.pumps'::regclass").fetchone()
        assert (f"version={version}" in options) == (version is not None) and len(options) == (4 if version else 3)
        key = "external_id" if naming == "snake_case" else '"externalId"'
        with site.role("etl", password) as session:
            session.execute(f"INSERT INTO pumps (space, {key}, name, pressure) VALUES ('sp', 'p', 'P', 1.5)")
            assert session.execute("SELECT name, pressure FROM pumps").fetchall() == [("P", 1.5)]
        told_of = {(row[1], row[2]): row[3] for row in check(connection)}
        assert told_of["pumps", "dataModelInstancesAcl:WRITE"] and told_of["pumps", "dataModelsAcl:READ"]
        before = site.objects()
        with refused("HV00R", "no view sp:Other"):
            call(connection, "cdf_create_view_table", "etl", "other", "sp", "Other")
        assert site.objects() == before


# Where a role finds what is made for it.


@pytest.mark.parametrize("schema", ["tools", "Odd, \"name"])
def test_the_extensions_schema_follows_the_roles_own(site, schema):
    with site.superuser() as connection:
        connection.execute("DROP EXTENSION cdf_fdw CASCADE")
        connection.execute(sql.SQL("CREATE SCHEMA {0}; GRANT USAGE ON SCHEMA {0} TO PUBLIC").format(sql.Identifier(schema)))
        connection.execute(sql.SQL("CREATE EXTENSION cdf_fdw SCHEMA {}").format(sql.Identifier(schema)))
        connection.execute(sql.SQL("SET search_path = {}").format(sql.Identifier(schema)))
        _, password, _, _ = site.register(connection, username="etl")
        # Into the extension's own schema: it is named once.
        site.register(connection, username="other", schema=schema)
        query = "SELECT array_to_string(setconfig, '|') FROM pg_db_role_setting WHERE setrole = 'other'::regrole"
        assert connection.execute(query).fetchone()[0].count("name" if "name" in schema else "tools") == 1
    with site.role("etl", password) as session:
        assert session.execute("SELECT current_schemas(false)").fetchone()[0] == ["etl", schema]
        # Without a prefix: the tables, and what the extension has for roles.
        assert session.execute("SELECT username FROM cdf_credentials").fetchall() == [("etl",)]
        assert session.execute("SELECT count(*) FROM events").fetchone() == (0,)


# A role on several servers.


def test_a_role_on_several_servers_is_changed_on_the_last_one(site):
    with site.superuser() as connection:
        told = []
        connection.add_notice_handler(lambda notice: told.append(notice.message_primary))
        site.register(connection, username="etl")
        # A mapping that was made by hand is no registration.
        connection.execute(f"CREATE SERVER hand FOREIGN DATA WRAPPER cdf_fdw OPTIONS (base_url '{site.emulator.url}')")
        connection.execute(
            f"CREATE USER MAPPING FOR etl SERVER hand OPTIONS (project 'p', token_url '{site.emulator.token_url}',"
            " client_id 'by hand', client_secret 'x')"
        )
        call(connection, "cdf_update_credentials", "etl", client_secret=site.emulator.client_secret)
        assert told == []
        site.register(connection, username="etl", server="second", schema="second")

        def audiences() -> dict:
            return dict(connection.execute("SELECT server, audience FROM cdf_credentials").fetchall())

        call(connection, "cdf_update_credentials", "etl", audience="a")
        assert audiences() == {"cdf": None, "second": "a"}
        (notice,) = told
        assert "server cdf as well" in notice and "second" in notice
        table = call(connection, "cdf_create_raw_table", "etl", "movies", "d", "t", "{}")
        assert table == "second.movies"
        # Registering it on the first one again makes that the last one.
        site.register(connection, username="etl")
        call(connection, "cdf_update_credentials", "etl", audience="b")
        assert audiences() == {"cdf": "b", "second": "a"}
