"""Two roles in one database have two projects of CDF, and neighbours have many rights: none reads, writes, describes, redirects or
times what is another's."""

from __future__ import annotations

from contextlib import contextmanager

import psycopg
import pytest
from faults import fault
from psycopg import sql
from sites import make_registrar
from support import Api, dump, names, refused, told
from test_views import create_view

FAR = {"client_id": "far", "client_secret": "far-secret", "project": "far-project"}
EVIL = "https://mallory.example.com"


class Far:
    """The emulator, as whoever has the other project sees it."""

    def __init__(self, emulator):
        self.url, self.token_url, self.scope = emulator.url, emulator.token_url, emulator.scope
        self.client_id, self.client_secret, self.project = FAR.values()


class World:
    """Role a has the emulator's first project, role b another. Both projects have an event and a view of the same names."""

    def __init__(self, site):
        self.site, self.cdf = site, site.emulator
        self.cdf.admin_post("clients", {"client_id": "far", "client_secret": "far-secret", "projects": ["far-project"]})
        self.admin = site.superuser()
        self.passwords = {}
        for role, changes in (("a", {}), ("b", FAR)):
            _, self.passwords[role], _, _ = site.register(self.admin, username=role, **changes)
        for api, mark in ((Api(self.cdf), "a"), (Api(Far(self.cdf)), "b")):
            api.create("events", "both", f"of-{mark}", type="open", source=f"hush-{mark}")
            create_view(api, "Pump", {"name": "text", f"only_{mark}": "text"})
        self.admin.execute("CREATE SCHEMA shared; GRANT ALL ON SCHEMA shared TO a; GRANT USAGE ON SCHEMA shared TO b")

    def connect(self, role: str) -> psycopg.Connection:
        return self.site.role(role, self.passwords.get(role, "pw"))

    def neighbour(self, *grants: str, name: str = "n") -> None:
        self.admin.execute(f"CREATE ROLE {name} LOGIN PASSWORD 'pw'; CREATE SCHEMA {name} AUTHORIZATION {name}")
        for grant in grants:
            self.admin.execute(grant.format(name))

    def state(self) -> tuple:
        """All that an attack might change."""
        catalogs = (
            "SELECT srvname, srvowner, srvoptions FROM pg_foreign_server ORDER BY 1",
            "SELECT * FROM pg_user_mapping ORDER BY 1",
            "SELECT ftrelid, ftoptions, relowner, relacl FROM pg_foreign_table JOIN pg_class c ON c.oid = ftrelid ORDER BY 1",
            "SELECT * FROM cdf_registrations ORDER BY 1",
            "SELECT rolname, rolpassword FROM pg_authid WHERE rolname IN ('a', 'b') ORDER BY 1",
            "SELECT tgrelid, tgname FROM pg_trigger ORDER BY 1, 2",
            "SELECT * FROM pg_auth_members WHERE roleid IN ('a'::regrole, 'b'::regrole)",
        )
        held = [dump(self.cdf, "events", project=project) for project in ("test-project", "far-project")]
        return tuple(self.admin.execute(query).fetchall() for query in catalogs), held

    @contextmanager
    def untouched(self, *projects: str):
        """Nothing changes, and CDF gets no request for these projects (all, without), nor any for a token."""
        before = self.state()
        self.cdf.admin_delete("requests")
        yield
        asked = self.cdf.admin_get("requests")["items"]
        assert [entry for entry in asked if not projects or entry["project"] in projects] == []
        assert self.state() == before

    def asked(self) -> set[str]:
        """The projects that requests went to since the last look."""
        asked = {entry["project"] for entry in self.cdf.admin_get("requests")["items"] if entry["project"]}
        self.cdf.admin_delete("requests")
        return asked


@pytest.fixture
def world(site):
    world = World(site)
    yield world
    world.admin.close()


# Neighbours with rights of their own.

NEIGHBOURS = {
    "nobody": [],
    "creator": ["GRANT CREATE ON DATABASE credentials_test TO {}"],
    "wrapper": ["GRANT USAGE ON FOREIGN DATA WRAPPER cdf_fdw TO {}", "GRANT CREATE ON DATABASE credentials_test TO {}"],
    "all data": ["GRANT pg_read_all_data, pg_write_all_data TO {}"],
    "monitor": ["GRANT pg_monitor, pg_signal_backend TO {}"],
    "createrole": ["ALTER ROLE {} CREATEROLE"],
    "registrar": [
        "ALTER ROLE {} CREATEROLE",
        "GRANT CREATE ON DATABASE credentials_test TO {}",
        "GRANT USAGE ON FOREIGN DATA WRAPPER cdf_fdw TO {}",
        "GRANT USAGE ON FOREIGN SERVER cdf TO {}",
        "GRANT EXECUTE ON FUNCTION cdf_register_credentials, cdf_reset_password, cdf_update_credentials, cdf_drop_credentials,"
        " cdf_check_credentials, cdf_create_raw_table, cdf_create_view_table TO {}",
    ],
}

MAPPING = "(project 'test-project', token_url 'https://x.example.com/t', client_id 'test-client', client_secret 'x')"

# By default 42501. What a neighbour has by himself may lead further, and then to another error, or to nothing (None).
ATTACKS = {
    "SELECT * FROM a.events": {"all data": "28000"},
    "SELECT count(*) FROM a.events": {"all data": "28000"},
    "INSERT INTO a.events (external_id) VALUES ('x')": {"all data": "28000"},
    "UPDATE a.events SET type = 'x'": {"all data": "28000"},
    "DELETE FROM a.events WHERE external_id = 'both'": {"all data": "28000"},
    "TRUNCATE a.events": {},
    "EXPLAIN SELECT * FROM a.events": {"all data": None},
    "EXPLAIN ANALYZE SELECT * FROM a.events": {"all data": "28000"},
    "COPY (SELECT * FROM a.events) TO STDOUT": {"all data": "28000"},
    "BEGIN; LOCK TABLE a.events": {"all data": "42809"},
    "ALTER SERVER cdf OPTIONS (SET base_url 'https://mallory.example.com')": {},
    "ALTER SERVER cdf OPTIONS (ADD proxy 'https://mallory.example.com')": {},
    "ALTER SERVER cdf OWNER TO n": {},
    "ALTER SERVER cdf RENAME TO other": {},
    "DROP SERVER cdf CASCADE": {},
    "ALTER USER MAPPING FOR a SERVER cdf OPTIONS (SET project 'far-project')": {},
    f"ALTER USER MAPPING FOR a SERVER cdf OPTIONS (SET token_url '{EVIL}', SET client_secret 'own')": {},
    "DROP USER MAPPING FOR a SERVER cdf": {},
    f"CREATE USER MAPPING FOR PUBLIC SERVER cdf OPTIONS {MAPPING}": {},
    "IMPORT FOREIGN SCHEMA cdf FROM SERVER cdf INTO n": {"registrar": None},
    "CREATE FOREIGN TABLE n.t (external_id text) SERVER cdf OPTIONS (resource 'events')": {"registrar": None},
    "ALTER FOREIGN TABLE a.events OPTIONS (SET resource 'assets')": {},
    "ALTER FOREIGN TABLE a.events OWNER TO n": {},
    "ALTER FOREIGN TABLE a.events ALTER external_id SET DEFAULT 'x'": {},
    "DROP FOREIGN TABLE a.events": {},
    "CREATE TRIGGER t BEFORE INSERT ON a.events FOR EACH ROW EXECUTE FUNCTION suppress_redundant_updates_trigger()": {},
    "CREATE TRIGGER t BEFORE UPDATE ON a.events FOR EACH ROW EXECUTE FUNCTION suppress_redundant_updates_trigger()": {},
    "CREATE TABLE n.child () INHERITS (a.events)": {},
    "CREATE STATISTICS n.s ON external_id, type FROM a.events": {},
    "COMMENT ON FOREIGN TABLE a.events IS 'x'": {},
    # Who has the right, but not to give it, is only warned.
    "GRANT SELECT ON a.events TO n": {"all data": None},
    "SELECT * FROM cdf_registrations": {"all data": None},
    "UPDATE cdf_registrations SET registrar = 'n'::regrole": {"all data": None},
    "DELETE FROM cdf_registrations": {"all data": None},
    "INSERT INTO cdf_registrations VALUES ('b', 'cdf', 'x', 'n', true, true, '{}', now(), now())": {},
    "INSERT INTO cdf_facades VALUES ('a.events'::regclass, 'a.events'::regclass, '{}')": {},
    "SELECT cdf_create_facade('a')": {},
    "SELECT cdf_drop_facade('a')": {},
    "SELECT * FROM cdf_check_credentials('a')": {},
    "SELECT cdf_reset_password('a')": {},
    "SELECT cdf_update_credentials('a', client_id => 'x')": {},
    "SELECT cdf_drop_credentials('a', force => true)": {},
    """SELECT cdf_create_raw_table('a', 't', 'd', 't', '{}')""": {},
    "SELECT cdf_create_view_table('a', 't', 'sp', 'Pump')": {},
    "SELECT cdf_seal_secrets()": {},
    "SELECT * FROM cdf_register_session('1', 'k', 'p', 'https://cdf.example.com')": {"registrar": None},
    "SELECT cdf_update_session('a', '1', 'k')": {},
    "SET ROLE a": {},
    "SET SESSION AUTHORIZATION a": {},
    "CREATE EVENT TRIGGER e ON ddl_command_end EXECUTE FUNCTION n.f()": {},
    "SELECT cdf_fdw_validator('{}', 0); SET cdf_fdw.allow_http = on": {},
    "SELECT cdf_fdw_validator('{}', 0); SET cdf_fdw.secret_key_file = '/tmp/x'": {},
    "SELECT cdf_fdw_validator('{}', 0); SET cdf_fdw.log_min_flush_duration = 0": {},
    "ALTER EXTENSION cdf_fdw UPDATE": {},
    "ALTER FOREIGN DATA WRAPPER cdf_fdw OPTIONS (ADD x 'y')": {},
    # Who reads all data reads every catalog.
    "SELECT umoptions FROM pg_user_mapping": {"all data": None},
    "SELECT rolpassword FROM pg_authid": {"all data": None},
}


@pytest.mark.parametrize("neighbour", NEIGHBOURS)
def test_what_neighbours_try(world, neighbour):
    world.neighbour(*NEIGHBOURS[neighbour])
    with world.site.role("n") as connection:
        connection.execute("CREATE FUNCTION n.f() RETURNS event_trigger LANGUAGE plpgsql AS 'BEGIN END'")
    for attack, otherwise in ATTACKS.items():
        expected = otherwise.get(neighbour, "42501")
        if expected is None:
            continue
        # A session of its own, which may not have the library yet.
        with world.untouched(), world.site.role("n") as connection:
            try:
                connection.execute(attack)
            except psycopg.Error as error:
                assert error.sqlstate == expected, (attack, told(error))
                assert "hush" not in told(error) and world.cdf.client_secret not in told(error), attack
            else:
                pytest.fail(f"not refused: {attack}")


def test_all_data_does_not_have_the_registrations(world):
    world.neighbour(*NEIGHBOURS["all data"])
    with world.untouched(), world.site.role("n") as connection:
        assert connection.execute("SELECT * FROM cdf_registrations").fetchall() == []
        connection.execute("EXPLAIN SELECT * FROM a.events")
        for change in ("UPDATE cdf_registrations SET registrar = 'n'::regrole", "DELETE FROM cdf_registrations"):
            assert connection.execute(change).rowcount == 0
        assert connection.execute("SELECT * FROM cdf_credentials").fetchall() == []
    with world.connect("b") as connection:
        assert connection.execute("SELECT username FROM cdf_credentials").fetchall() == [("b",)]


def test_settings_of_superusers_given_before_the_library_is_there(world):
    world.neighbour(*NEIGHBOURS["wrapper"])
    with world.site.role("n") as connection:
        connection.execute("SET cdf_fdw.allow_http = on")
        with world.untouched(), refused("HV00J", "base_url"):
            connection.execute("CREATE SERVER mine FOREIGN DATA WRAPPER cdf_fdw OPTIONS (base_url 'http://mallory.example.com')")
        assert connection.execute("SHOW cdf_fdw.allow_http").fetchone() == ("off",)


def test_createrole(world):
    """Up to PostgreSQL 15 it is as good as any role that is no superuser; from 16 on it takes more."""
    world.neighbour(*NEIGHBOURS["createrole"])
    with world.site.role("n") as connection:
        if connection.info.server_version < 160000:
            connection.execute("GRANT a TO n; SET ROLE a")
            assert ("of-a",) in connection.execute("SELECT external_id FROM a.events").fetchall()
            connection.execute("RESET ROLE")
            # The secret is not shown to him, even so.
            query = "SELECT umoptions FROM pg_user_mappings WHERE usename = 'a'"
            assert connection.execute(query).fetchall() == [(None,)]
        else:
            with world.untouched():
                for attack in ("GRANT a TO n", "ALTER ROLE a PASSWORD 'x'", "ALTER ROLE a SET search_path = n"):
                    with refused("42501"):
                        connection.execute(attack)


def test_a_mapping_that_was_made_by_hand_is_not_replaced(world):
    """Who may register on a superuser's server would otherwise have another's rows sent to a project of his own."""
    world.neighbour(*NEIGHBOURS["registrar"])
    world.admin.execute("CREATE ROLE hand LOGIN PASSWORD 'pw'")
    options = sql.SQL(", ").join(
        sql.SQL("{} {}").format(sql.Identifier(name), sql.Literal(value)) for name, value in world.site.arguments().items()
    )
    world.admin.execute(sql.SQL("CREATE USER MAPPING FOR hand SERVER cdf OPTIONS ({})").format(options))
    if world.admin.info.server_version >= 160000:
        world.admin.execute("GRANT hand TO n WITH ADMIN OPTION")
    with world.site.role("n") as connection:
        with world.untouched(), refused("42501", "hand", "user mapping"):
            world.site.register(connection, username="hand", **FAR)
        # Without one he may, as often as he likes.
        world.admin.execute("DROP USER MAPPING FOR hand SERVER cdf")
        for _ in range(2):
            world.site.register(connection, username="hand", **FAR)


def test_the_owner_of_a_server_does_not_put_a_proxy_before_others(world, proxy):
    """A proxy sees when and how much others load."""
    world.neighbour(*NEIGHBOURS["wrapper"])
    with world.site.role("n") as connection:
        connection.execute(f"CREATE SERVER mine FOREIGN DATA WRAPPER cdf_fdw OPTIONS (base_url '{EVIL}', proxy '{proxy.url}')")
        world.admin.execute(f"CREATE USER MAPPING FOR a SERVER mine OPTIONS {MAPPING}")
        with world.untouched():
            for change in (
                f"SET proxy '{EVIL}'",
                "DROP proxy",
                f"DROP proxy, ADD proxy '{EVIL}'",
                "SET base_url 'https://other.example.com'",
            ):
                with refused("42501", "a has credentials"):
                    connection.execute(f"ALTER SERVER mine OPTIONS ({change})")
        world.admin.execute("DROP USER MAPPING FOR a SERVER mine")
        connection.execute("ALTER SERVER mine OPTIONS (DROP proxy)")
        # Nor one that is talked to unencrypted.
        with refused("HV00J", "proxy", "http://", "allow_http"):
            connection.execute("ALTER SERVER mine OPTIONS (ADD proxy 'http://proxy.example.com:3128')")
    assert proxy.requests == []


# What the catalogs and the server's views show.


@pytest.mark.parametrize("neighbour", ["nobody", "all data", "monitor", "registrar"])
def test_no_catalog_tells_of_another(world, key_file, neighbour):
    world.neighbour(*NEIGHBOURS[neighbour])
    all_data = neighbour == "all data"
    if all_data:
        # Who reads all data reads pg_user_mapping: sealed, its secrets are none.
        world.admin.execute(sql.SQL("SET cdf_fdw.secret_key_file = {}").format(sql.Literal(str(key_file.path))))
        assert world.admin.execute("SELECT cdf_seal_secrets()").fetchone() == (2,)
    with world.connect("a") as session:
        session.execute("SELECT external_id FROM events WHERE source = 'hush-a'")
        with world.site.role("n") as connection:
            relations = connection.execute(
                "SELECT oid::regclass::text FROM pg_class WHERE relkind IN ('r', 'v') AND relnamespace IN ('pg_catalog'::regnamespace,"
                " 'information_schema'::regnamespace) AND has_table_privilege(oid, 'SELECT')"
            ).fetchall()
            shown = []
            for (relation,) in relations:
                try:
                    shown += [(relation, row[0]) for row in connection.execute(f"SELECT x::text FROM {relation} x").fetchall()]
                except psycopg.Error as error:
                    assert error.sqlstate in ("42501", "55000", "0A000"), relation
    secrets = [world.cdf.client_secret, FAR["client_secret"], *world.passwords.values()]
    # The text of a statement is shown to those who may see all statements; a project and a client to nobody.
    texts = [] if neighbour == "monitor" else ["hush-a"]
    names = [] if all_data else ["test-project", "far-project", "test-client"]
    for text in (*secrets, *texts, *names):
        assert [place for place, row in shown if text in row] == [], text


def test_a_role_sees_its_own_registration_only(world):
    for role, other in (("a", "b"), ("b", "a")):
        with world.connect(role) as connection:
            assert connection.execute("SELECT username FROM cdf_credentials").fetchall() == [(role,)]
            assert connection.execute("SELECT umoptions FROM pg_user_mappings WHERE umoptions IS NOT NULL").fetchall() == []
            with world.untouched(), refused("42501"):
                connection.execute(f"SELECT * FROM {other}.events")


# Statistics show values to whoever may read the table.


@contextmanager
def shared_events(world, owner="a"):
    """A table that both may read, each with its own credentials; its owner has some of its own."""
    options = sql.SQL(", ").join(
        sql.SQL("{} {}").format(sql.Identifier(name), sql.Literal(value)) for name, value in world.site.arguments().items()
    )
    world.admin.execute("CREATE FOREIGN TABLE shared.events (external_id text, source text) SERVER cdf OPTIONS (resource 'events')")
    world.admin.execute(f"ALTER FOREIGN TABLE shared.events OWNER TO {owner}; GRANT SELECT, INSERT ON shared.events TO b")
    world.admin.execute(sql.SQL("CREATE USER MAPPING FOR CURRENT_USER SERVER cdf OPTIONS ({})").format(options))
    yield "shared.events"


@pytest.mark.parametrize("owner", ["a", "postgres"])
def test_statistics_have_no_value_that_a_reader_could_not_read(world, owner):
    stats = "SELECT most_common_vals::text, histogram_bounds::text FROM pg_stats WHERE tablename = 'events' AND schemaname = 'shared'"
    Api(world.cdf).create("events", *(f"e{at}" for at in range(50)), source="hush-a")
    with shared_events(world, owner), world.connect("b") as reader:
        notices = []
        world.admin.add_notice_handler(lambda notice: notices.append(notice.message_primary))
        world.admin.execute("ANALYZE shared.events")
        assert reader.execute(stats).fetchall() == [] and "rows only" in notices[0], notices
        assert reader.execute("SELECT reltuples FROM pg_class WHERE oid = 'shared.events'::regclass").fetchone() == (52,)
        # By a column, by a role that it is a member of, by the table's parent, and by all data.
        for grant, revoke in (
            ("GRANT SELECT (source) ON shared.events TO b", "REVOKE SELECT (source) ON shared.events FROM b"),
            (
                "CREATE ROLE team; GRANT SELECT ON shared.events TO team; GRANT team TO b; ALTER ROLE b NOINHERIT",
                "DROP OWNED BY team; DROP ROLE team; ALTER ROLE b INHERIT",
            ),
            (
                "CREATE TABLE shared.parent (external_id text, source text);"
                " ALTER FOREIGN TABLE shared.events INHERIT shared.parent; GRANT SELECT ON shared.parent TO b",
                "ALTER FOREIGN TABLE shared.events NO INHERIT shared.parent; DROP TABLE shared.parent",
            ),
            ("GRANT pg_read_all_data TO b", "REVOKE pg_read_all_data FROM b"),
        ):
            world.admin.execute("REVOKE ALL ON shared.events FROM b")
            # What is kept while nobody else may read goes with the next sample.
            world.admin.execute("ANALYZE shared.events")
            assert len(world.admin.execute(stats).fetchall()) == 2
            world.admin.execute(grant)
            world.admin.execute("ANALYZE shared.events")
            if "parent" in grant:
                world.admin.execute("ANALYZE shared.parent")
                assert world.admin.execute("SELECT count(*) FROM pg_stats WHERE tablename = 'parent'").fetchone() == (0,)
            assert world.admin.execute(stats).fetchall() == [], grant
            world.admin.execute(revoke)
        # Who has the same credentials reads the same.
        world.admin.execute("GRANT SELECT ON shared.events TO b; DROP USER MAPPING FOR b SERVER cdf")
        options = ", ".join(f"{name} '{value}'" for name, value in world.site.arguments().items())
        world.admin.execute(f"CREATE USER MAPPING FOR b SERVER cdf OPTIONS ({options})")
        world.admin.execute("ANALYZE shared.events")
        assert ("{hush-a}", None) in reader.execute(stats).fetchall()


# Views, functions, triggers and rules.


@pytest.fixture
def pumps(world):
    """Role a's table of a data-model view, and a view of it in SQL that is its own."""
    world.admin.execute("SELECT cdf_create_view_table('a', 'pumps', 'sp', 'Pump')")
    with world.connect("a") as owner:
        owner.execute("CREATE VIEW shared.pumps AS SELECT space, external_id, name, only_a FROM a.pumps")
        owner.execute("INSERT INTO pumps (space, external_id, name) VALUES ('sp', 'p', 'of a')")
    return "shared.pumps"


DENIED = [
    "SELECT * FROM shared.pumps",
    "EXPLAIN SELECT * FROM shared.pumps",
    "SELECT 1 FROM (SELECT name FROM shared.pumps OFFSET 0) x",
    "SELECT EXISTS (SELECT FROM shared.pumps)",
    "WITH x AS MATERIALIZED (SELECT * FROM shared.pumps) SELECT * FROM x",
    "SELECT * FROM b.tells()",
    "INSERT INTO shared.pumps (space, external_id) VALUES ('sp', 'x')",
    "INSERT INTO shared.pumps (space, external_id) VALUES ('sp', 'x') ON CONFLICT (space, external_id) DO NOTHING",
    "INSERT INTO shared.pumps (space, external_id) VALUES ('sp', 'x') RETURNING name",
    "UPDATE shared.pumps SET name = 'x'",
    "DELETE FROM shared.pumps WHERE space = 'sp' AND external_id = 'p'",
    "PREPARE x AS SELECT * FROM shared.pumps; EXECUTE x",
    "DECLARE c CURSOR WITH HOLD FOR SELECT * FROM shared.pumps",
    "DO $$ BEGIN PERFORM * FROM shared.pumps; END $$",
    "COPY (SELECT * FROM shared.pumps) TO STDOUT",
    "SELECT * FROM (VALUES ('p'), ('q')) keys (k) JOIN shared.pumps ON external_id = k",
    "SELECT * FROM events LEFT JOIN shared.pumps USING (external_id)",
]


def test_who_may_not_read_a_view_has_nobodys_credentials_used(world, pumps):
    """To plan a query CDF is asked for the definition of a view: not for those who may not run it."""
    world.admin.execute("GRANT CREATE ON SCHEMA b TO b")
    with world.connect("b") as connection:
        connection.execute("CREATE FUNCTION b.tells() RETURNS SETOF text LANGUAGE sql STABLE AS 'SELECT name FROM shared.pumps'")
    for statement in DENIED:
        with world.untouched(), world.connect("b") as connection, refused("42501", "permission denied for view pumps"):
            connection.execute(statement)
    # The rights on some columns are enough for these, and for no others.
    world.admin.execute("GRANT SELECT (external_id, name) ON shared.pumps TO b")
    with world.connect("b") as connection:
        assert connection.execute("SELECT name FROM shared.pumps").fetchall() == [("of a",)]
        assert connection.execute("SELECT count(*) FROM shared.pumps").fetchone() == (1,)
        assert world.asked() == {"test-project"}
    for statement in ("SELECT only_a FROM shared.pumps", "SELECT x FROM shared.pumps x", "SELECT name FROM shared.pumps WHERE only_a IS NULL"):
        with world.untouched(), world.connect("b") as connection, refused("42501"):
            connection.execute(statement)
    # And those on the table behind it are the owner's.
    world.admin.execute("REVOKE ALL ON a.pumps FROM a; GRANT SELECT ON shared.pumps TO b")
    with world.untouched(), world.connect("b") as connection, refused("42501", "pumps"):
        connection.execute("SELECT * FROM shared.pumps")


def test_a_view_and_a_function_read_as_their_owner(world):
    with world.connect("a") as owner, world.connect("b") as connection:
        owner.execute("CREATE VIEW shared.v AS SELECT external_id FROM a.events")
        owner.execute(
            "CREATE FUNCTION shared.f() RETURNS SETOF text LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp"
            " AS 'SELECT external_id FROM a.events'; REVOKE ALL ON FUNCTION shared.f FROM PUBLIC"
        )
        for query in ("SELECT * FROM shared.v", "SELECT * FROM shared.f()"):
            with world.untouched(), refused("42501"):
                connection.execute(query)
        owner.execute("GRANT SELECT ON shared.v TO b; GRANT EXECUTE ON FUNCTION shared.f TO b")
        for query in ("SELECT * FROM shared.v", "SELECT * FROM shared.f()"):
            assert sorted(connection.execute(query).fetchall()) == [("both",), ("of-a",)]
            assert world.asked() == {"test-project"}
        # Whose view it is that reads as whoever asks, asks as that.
        if connection.info.server_version >= 150000:
            owner.execute("CREATE VIEW shared.i WITH (security_invoker) AS SELECT external_id FROM a.events")
            owner.execute("GRANT SELECT ON shared.i TO b")
            with world.untouched(), refused("42501"):
                connection.execute("SELECT * FROM shared.i")
            world.admin.execute("GRANT USAGE ON SCHEMA a TO b; GRANT SELECT ON a.events TO b")
            assert sorted(connection.execute("SELECT * FROM shared.i").fetchall()) == [("both",), ("of-b",)]
            assert world.asked() == {"far-project"}


def test_a_condition_of_the_reader_does_not_see_what_the_view_hides(world):
    Api(world.cdf).create("events", "hidden", type="closed", source="hush-a")
    with world.connect("a") as owner, world.connect("b") as connection:
        owner.execute(
            "CREATE VIEW shared.v WITH (security_barrier) AS SELECT external_id, source FROM a.events WHERE type = 'open'"
        )
        owner.execute("GRANT SELECT ON shared.v TO b")
        connection.execute(
            "CREATE FUNCTION pg_temp.tell(a text) RETURNS boolean LANGUAGE plpgsql COST 0.0001 AS"
            " $$ BEGIN IF a = 'hidden' THEN RAISE 'seen %', a; END IF; RETURN true; END $$"
        )
        for condition in ("pg_temp.tell(external_id)", "external_id = 'hidden'", "pg_temp.tell(external_id) AND source = 'hush-a'"):
            found = connection.execute(f"SELECT external_id FROM shared.v WHERE {condition}").fetchall()
            assert ("hidden",) not in found


def test_triggers_rules_and_defaults_run_with_the_rights_they_have(world):
    """Code that others have put before a table writes with the rights of whoever runs it, or of whose it is, and with no others."""
    world.admin.execute("GRANT CREATE ON SCHEMA shared TO b")
    with world.connect("b") as other, world.connect("a") as victim:
        other.execute("CREATE TABLE shared.bait (x text)")
        other.execute(
            "CREATE FUNCTION shared.steal() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS"
            " $$ BEGIN INSERT INTO b.events (external_id) SELECT external_id || '!' FROM a.events; RETURN NEW; END $$"
        )
        other.execute("CREATE TRIGGER t BEFORE INSERT ON shared.bait FOR EACH ROW EXECUTE FUNCTION shared.steal()")
        other.execute("CREATE VIEW shared.ruled AS SELECT external_id FROM b.events")
        rule = "CREATE RULE r AS ON INSERT TO shared.ruled DO INSTEAD INSERT INTO a.events (external_id) VALUES (NEW.external_id)"
        with world.untouched(), refused("42501", "schema a"):
            other.execute(rule)
        # Also where the names are his to use, the rule has no right of whoever it is run by.
        world.admin.execute("GRANT USAGE ON SCHEMA a TO b")
        other.execute(rule)
        world.admin.execute("REVOKE USAGE ON SCHEMA a FROM b")
        other.execute("GRANT INSERT ON shared.bait, shared.ruled TO a")
        # As its owner: who may not read a's.
        with world.untouched(), refused("42501", "schema a"):
            victim.execute("INSERT INTO shared.bait VALUES ('x')")
        # As the rule's owner: who may not write a's.
        with world.untouched(), refused("42501", "events"):
            victim.execute("INSERT INTO shared.ruled VALUES ('x')")
        # Through what is b's, b's credentials write to b's project.
        other.execute("CREATE VIEW shared.lent AS SELECT external_id FROM b.events; GRANT INSERT ON shared.lent TO a")
        victim.execute("INSERT INTO shared.lent VALUES ('lent')")
    assert "lent" in names(world.cdf, "events", project="far-project") and "lent" not in names(world.cdf, "events")


def test_planted_operators_and_functions(world):
    """Names are those of pg_catalog, whatever a search_path puts before it; an operator is known by what it is."""
    world.neighbour(*NEIGHBOURS["creator"])
    with world.site.role("n") as connection:
        connection.execute("CREATE FUNCTION n.yes(text, text) RETURNS boolean LANGUAGE sql IMMUTABLE AS 'SELECT true'")
        connection.execute("CREATE OPERATOR n.= (LEFTARG = text, RIGHTARG = text, FUNCTION = n.yes)")
        raises = "LANGUAGE plpgsql AS $$ BEGIN RAISE 'planted'; END $$"
        for signature, result in (
            ("now()", "timestamptz"),
            ("convert_from(bytea, name)", "text"),
            ("convert_to(text, name)", "bytea"),
            ("format(text, VARIADIC text[])", "text"),
            ("unnest(anyarray)", "SETOF anyelement"),
            ("quote_ident(text)", "text"),
            ("array_to_json(anyarray)", "json"),
            ("has_server_privilege(text, text)", "boolean"),
            ("pg_options_to_table(text[])", "text"),
            ("string_agg(text, text)", "text"),
        ):
            connection.execute(f"CREATE FUNCTION n.{signature} RETURNS {result} {raises}")
        connection.execute("CREATE DOMAIN n.text AS pg_catalog.text CHECK (VALUE IS NULL); CREATE DOMAIN n.int8 AS pg_catalog.int8")
        connection.execute("GRANT USAGE ON SCHEMA n TO PUBLIC")
    world.admin.execute("SET search_path = n, pg_catalog, public")
    _, password, *_ = world.site.register(world.admin, username="fresh")
    assert world.admin.execute("SELECT ok FROM public.cdf_check_credentials('fresh') LIMIT 1").fetchone() == (True,)
    world.admin.execute("SELECT public.cdf_create_raw_table('fresh', 'raw', 'd', 't', '{\"x\": {\"type\": \"TEXT\"}}')")
    kinds = "SELECT DISTINCT atttypid::regtype::pg_catalog.text FROM pg_attribute WHERE attrelid OPERATOR(pg_catalog.=) 'fresh.raw'::regclass AND attnum > 0"
    assert world.admin.execute(kinds).fetchall() == [("pg_catalog.text",)]
    assert world.admin.execute("SELECT count(*) FROM public.cdf_credentials").fetchone() == (3,)
    with world.site.role("fresh", password) as session:
        session.execute("SET search_path = n, pg_catalog")
        world.cdf.admin_delete("requests")
        found = session.execute("SELECT external_id FROM fresh.events WHERE external_id = 'of-a'").fetchall()
        assert sorted(found) == [("both",), ("of-a",)]
        (entry,) = [item for item in world.cdf.admin_get("requests", bodies=1)["items"] if item["path"].endswith("/events/list")]
        assert "of-a" not in str(entry["body"])
    world.admin.execute("SELECT public.cdf_drop_credentials('fresh', force => true)")


# One backend for several roles, as a pool of connections has it.


def test_a_pooled_connection_keeps_nothing_of_the_role_before(world):
    Api(world.cdf).create("datasets", "extra", "d")
    Api(Far(world.cdf)).create("datasets", "d")
    with shared_events(world):
        world.admin.execute(
            "CREATE FOREIGN TABLE shared.pumps (space text, external_id text, name text) SERVER cdf"
            " OPTIONS (resource 'view', space 'sp', external_id 'Pump');"
            "CREATE FOREIGN TABLE shared.sets (external_id text, data_set_external_id text) SERVER cdf OPTIONS (resource 'events');"
            "GRANT ALL ON shared.pumps, shared.sets TO a, b"
        )
        with world.site.superuser() as pooled:
            for turn in range(2):
                for role, project in (("a", "test-project"), ("b", "far-project")):
                    pooled.execute(f"SET SESSION AUTHORIZATION {role}")
                    world.asked()
                    rows = pooled.execute(
                        "SELECT external_id, source FROM shared.events WHERE external_id LIKE '%o%'", prepare=True
                    ).fetchall()
                    assert {row[1] for row in rows if row[1]} == {f"hush-{role}"}
                    pooled.execute(f"INSERT INTO shared.sets VALUES ('set {role} {turn}', 'd')")
                    pooled.execute(f"INSERT INTO shared.pumps VALUES ('sp', 'of {role}', 'x')")
                    joined = "SELECT e.source FROM unnest(%s::text[]) k JOIN shared.events e ON e.external_id = k"
                    assert pooled.execute(joined, [["of-a", "of-b", "both"]], prepare=True).fetchall() == [(f"hush-{role}",)] * 2
                    shown = pooled.execute("SELECT external_id FROM shared.pumps").fetchall()
                    assert shown == [(f"of {role}",)]
                    explained = str(pooled.execute("EXPLAIN (VERBOSE) SELECT * FROM shared.pumps").fetchall())
                    assert "of a" not in explained and "test-client" not in explained
                    assert world.asked() == {project}
                    # What is b's alone is not in a's definition.
                    pooled.execute("BEGIN; DECLARE c CURSOR FOR SELECT external_id FROM shared.events; COMMIT")
                    pooled.execute("DISCARD ALL")
                    with refused("34000"):
                        pooled.execute("FETCH c")
    for role, project in (("a", "test-project"), ("b", "far-project")):
        (data_set,) = dump(world.cdf, "datasets", external_id="d", project=project)
        for turn in range(2):
            (event,) = dump(world.cdf, "events", external_id=f"set {role} {turn}", project=project)
            assert event["dataSetId"] == data_set["id"]


def test_a_definition_is_each_roles_own(world):
    """The same table is another view to each of them, also in a statement that was prepared for the other one."""
    for column in ("only_a", "only_b"):
        world.admin.execute(
            f"CREATE FOREIGN TABLE shared.{column} (space text, external_id text, {column} text) SERVER cdf"
            f" OPTIONS (resource 'view', space 'sp', external_id 'Pump', version 'v1'); GRANT ALL ON shared.{column} TO a, b"
        )
    with world.site.superuser() as pooled:
        pooled.execute("PREPARE one AS SELECT only_a FROM shared.only_a; PREPARE other AS SELECT only_b FROM shared.only_b")
        pooled.execute("SET plan_cache_mode = force_generic_plan")
        for role, mine, others in (("a", "one", "other"), ("b", "other", "one")) * 3:
            pooled.execute(f"SET ROLE {role}")
            assert pooled.execute(f"EXECUTE {mine}").fetchall() == []
            with pytest.raises(psycopg.Error) as caught:
                pooled.execute(f"EXECUTE {others}")
            assert "only_" in told(caught.value), told(caught.value)


def test_a_transaction_of_two_roles(world):
    with shared_events(world), world.site.superuser() as session:
        with session.transaction():
            for role in ("a", "b"):
                session.execute(f"SET LOCAL ROLE {role}")
                session.execute(f"INSERT INTO shared.events VALUES ('new of {role}')")
            seen = session.execute("SELECT external_id FROM shared.events WHERE external_id LIKE 'new%'").fetchall()
            assert seen == [("new of b",)]
            # A cursor goes on reading as whoever has opened it, as PostgreSQL's own do.
            session.execute("DECLARE c CURSOR FOR SELECT external_id FROM shared.events WHERE external_id LIKE 'of%'")
            session.execute("SET LOCAL ROLE a")
            assert session.execute("FETCH ALL c").fetchall() == [("of-b",)]
            assert session.execute("SELECT external_id FROM shared.events WHERE external_id LIKE 'of%'").fetchall() == [("of-a",)]
        for project, own, other in (("test-project", "new of a", "new of b"), ("far-project", "new of b", "new of a")):
            there = names(world.cdf, "events", project=project)
            assert own in there and other not in there


def test_a_temporary_table_of_the_same_name_is_the_sessions_own(world):
    with world.connect("a") as session, world.connect("b") as other:
        other.execute("CREATE TEMP TABLE events (external_id text)")
        session.execute("INSERT INTO events (external_id) VALUES ('here')")
        assert "here" in names(world.cdf, "events")
        assert other.execute("SELECT * FROM events").fetchall() == []


def test_what_a_server_says_is_said_to_its_own_role(world):
    """Errors and the log of b have nothing of a, also in one backend after a's failure."""
    with shared_events(world), world.site.superuser() as pooled:
        pooled.execute("SET SESSION AUTHORIZATION a")
        fault(world.cdf, "/events", status=400, body="of a: geheim")
        with pytest.raises(psycopg.Error) as caught:
            pooled.execute("INSERT INTO shared.events VALUES ('key of a')")
        assert "geheim" in told(caught.value)
        world.cdf.admin_delete("faults")
        pooled.execute("DISCARD ALL")
        pooled.execute("SET SESSION AUTHORIZATION b")
        with world.site.logged() as log, pytest.raises(psycopg.Error) as caught:
            pooled.execute("INSERT INTO shared.events VALUES (%s)", ["x" * 300])
        for text in (told(caught.value), log[0]):
            assert "geheim" not in text and "key of a" not in text and "test-client" not in text


def test_registrars_act_on_their_own_only(world):
    make_registrar(world.site)
    with world.site.role("registrar") as connection:
        world.site.register(connection, username="c", server="own")
        assert connection.execute("SELECT username FROM cdf_credentials").fetchall() == [("c",)]
        with world.untouched():
            for call in ("cdf_check_credentials('a')", "cdf_reset_password('a')", "cdf_drop_credentials('a')"):
                with refused("42501", "a", "postgres"):
                    connection.execute(f"SELECT {call}")
