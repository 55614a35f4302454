"""ctid, xmin, xmax, cmin and cmax of foreign tables, which CDF's rows do not have: refused, or NULL where they are only shown."""

from __future__ import annotations

import pytest
from psycopg import sql
from support import names, refused, requests, stored


@pytest.fixture
def plant(session, cdf):
    session.execute(
        "INSERT INTO events (external_id, type, subtype)"
        " SELECT 'e' || i, 'stop', 's' || i % 2 FROM generate_series(1, 10) i"
    )
    session.execute("CREATE TEMP TABLE here AS SELECT 'e' || i AS key, i AS number FROM generate_series(1, 10) i")
    cdf.admin_delete("requests")
    return session


@pytest.fixture
def parents(plant, scratch):
    """A partitioned table and one that is inherited from, each with a local and a foreign part."""
    scratch.execute("CREATE TABLE parted (external_id text, type text) PARTITION BY LIST (type)")
    scratch.execute("CREATE TABLE parted_here PARTITION OF parted FOR VALUES IN ('here')")
    scratch.execute("CREATE FOREIGN TABLE parted_there PARTITION OF parted DEFAULT SERVER cdf OPTIONS (resource 'events')")
    scratch.execute("CREATE TABLE parent (external_id text, type text)")
    scratch.execute("CREATE FOREIGN TABLE child () INHERITS (parent) SERVER cdf OPTIONS (resource 'events')")
    for name in ("parted", "parent"):
        plant.execute(f"INSERT INTO scratch.{name} VALUES ('local', 'here')")
    return plant


def unchanged(cdf):
    """Nothing was written to CDF."""
    assert len(names(cdf, "events")) == 10
    assert not [r for r in requests(cdf) if r["path"].endswith(("/delete", "/update", "/events"))]


USES = [
    # The statement that emptied a project.
    "DELETE FROM events WHERE ctid IN (SELECT ctid FROM events LIMIT 2)",
    "DELETE FROM events WHERE ctid IN (SELECT min(ctid) FROM events GROUP BY subtype)",
    "DELETE FROM events WHERE ctid = '(0,1)'",
    "DELETE FROM events WHERE ctid = ANY ('{\"(0,1)\",\"(4294967295,0)\"}'::tid[])",
    "DELETE FROM events WHERE xmin = '0'",
    "DELETE FROM events WHERE ctid IS NOT NULL",
    "DELETE FROM events WHERE xmin = xmin",
    "DELETE FROM events WHERE ctid IS NOT NULL OR external_id = 'e1'",
    "UPDATE events SET type = 'x' FROM here WHERE external_id = key AND events.cmax IS NOT NULL",
    "SELECT external_id FROM (SELECT external_id, ctid AS at FROM events) x WHERE at IS NOT NULL",
    "DELETE FROM events WHERE cmin = '0' AND external_id = 'e1'",
    "UPDATE events SET type = 'x' WHERE xmax = '0'",
    "UPDATE events SET type = 'x' WHERE external_id = 'e1' AND xmin::text = '0'",
    "UPDATE events SET description = ctid::text",
    "UPDATE events SET type = 'x' FROM here WHERE events.ctid::text = here.key",
    # Removal of duplicates, as it is found everywhere.
    "DELETE FROM events a USING events b WHERE a.ctid < b.ctid AND a.subtype = b.subtype",
    "DELETE FROM events WHERE ctid IN (SELECT ctid FROM (SELECT ctid, row_number() OVER (PARTITION BY subtype ORDER BY ctid)"
    " AS n FROM events) numbered WHERE n > 1)",
    "WITH numbered AS (SELECT ctid AS at, row_number() OVER (PARTITION BY subtype) AS n FROM events)"
    " DELETE FROM events USING numbered WHERE events.ctid = numbered.at AND n > 1",
    "DELETE FROM events e WHERE EXISTS (SELECT FROM events o WHERE o.subtype = e.subtype AND o.ctid > e.ctid)",
    "DELETE FROM events e WHERE ctid <> (SELECT max(o.ctid) FROM events o WHERE o.subtype = e.subtype)",
    # What is returned.
    "INSERT INTO events (external_id) VALUES ('new') RETURNING ctid",
    "UPDATE events SET type = 'x' WHERE external_id = 'e1' RETURNING external_id, xmin",
    "DELETE FROM events WHERE external_id = 'e1' RETURNING ctid::text",
    "UPDATE here SET number = 0 FROM events WHERE external_id = key RETURNING events.ctid",
    # Other tables get it.
    "INSERT INTO here SELECT ctid::text, 1 FROM events",
    "UPDATE here SET key = events.ctid::text FROM events WHERE external_id = key",
    "CREATE TABLE pg_temp.copied AS SELECT ctid::text FROM events",
    # A reader's conditions, order, groups and expressions.
    "SELECT * FROM events WHERE ctid BETWEEN '(0,0)' AND '(4294967295,0)'",
    "COPY (SELECT external_id FROM events WHERE ctid BETWEEN '(0,0)'::tid AND '(4294967295,0)'::tid) TO STDOUT (FORMAT binary)",
    "SELECT external_id FROM events ORDER BY ctid",
    "SELECT external_id FROM events ORDER BY subtype, xmin::text",
    "SELECT ctid FROM events ORDER BY 1",
    "SELECT DISTINCT ctid FROM events",
    "SELECT DISTINCT ON (ctid) external_id FROM events",
    "SELECT ctid, count(*) FROM events GROUP BY ctid",
    "SELECT subtype FROM events GROUP BY subtype HAVING max(ctid) > '(0,0)'",
    "SELECT count(ctid) FROM events",
    "SELECT max(ctid) FROM events",
    "SELECT ctid::text FROM events",
    "SELECT (ctid, external_id) FROM events",
    "SELECT external_id, ctid = '(0,1)' FROM events",
    "SELECT row_number() OVER (ORDER BY ctid) FROM events",
    "SELECT lag(ctid) OVER () FROM events",
    "SELECT CASE WHEN number > 1 THEN events.ctid END FROM events, here WHERE external_id = key",
    "SELECT (events).ctid::text FROM events",
    "SELECT ctid FROM events UNION ALL SELECT ctid FROM here",
    "SELECT ctid FROM events UNION SELECT NULL",
    "SELECT ctid FROM events FOR UPDATE",
    "SELECT ctid, external_id FROM events WHERE external_id = 'e1' FOR SHARE",
    # Joins and sub-selects.
    "SELECT 1 FROM events JOIN here ON events.ctid = here.ctid",
    "SELECT 1 FROM here LEFT JOIN events ON events.ctid = here.ctid",
    "SELECT 1 FROM here WHERE here.ctid IN (SELECT ctid FROM events)",
    "SELECT 1 FROM here WHERE here.ctid NOT IN (SELECT ctid FROM events)",
    "SELECT 1 FROM here, LATERAL (SELECT 1 FROM events WHERE events.ctid > here.ctid) x",
    "SELECT 1 FROM events, LATERAL (SELECT 1 FROM here WHERE here.ctid > events.ctid LIMIT 1) x",
    "SELECT 1 FROM events, LATERAL unnest(ARRAY[events.ctid]) x",
    "SELECT (SELECT ctid FROM events LIMIT 1)",
    "SELECT at FROM (SELECT ctid AS at FROM events LIMIT 5) x",
    "SELECT (SELECT key FROM here WHERE here.ctid > events.ctid LIMIT 1) FROM events",
    "SELECT array(SELECT ctid FROM events)",
    "WITH x AS MATERIALIZED (SELECT ctid AS at FROM events) SELECT * FROM x",
    "WITH x AS (SELECT ctid AS at, external_id FROM events) SELECT a.at FROM x a JOIN x b USING (external_id)",
    "WITH x AS (DELETE FROM events WHERE ctid = '(0,1)' RETURNING 1) SELECT * FROM x",
    "WITH x AS (INSERT INTO events (external_id) VALUES ('new') RETURNING ctid) SELECT * FROM x",
    "WITH RECURSIVE x AS (SELECT ctid AS at FROM events UNION SELECT at FROM x) SELECT * FROM x",
]


@pytest.mark.parametrize("statement", USES)
def test_what_uses_a_system_column_is_refused_when_it_is_planned(plant, cdf, statement):
    with refused("0A000", "system column", 'foreign table "events"', "external_id", "id"):
        plant.execute(f"EXPLAIN {statement}" if not statement.startswith("COPY") else statement)
    with refused("0A000", "system column"):
        plant.execute(statement)
    assert requests(cdf) == []
    unchanged(cdf)


@pytest.mark.parametrize("parent", ["parted", "parent"])
@pytest.mark.parametrize(
    "statement",
    [
        "DELETE FROM {} WHERE ctid = '(0,1)'",
        "DELETE FROM {} WHERE (tableoid, ctid) IN (SELECT tableoid, ctid FROM {} LIMIT 1)",
        "UPDATE {} SET external_id = 'x' WHERE xmin IS NOT NULL",
        "DELETE FROM {} WHERE ctid = ctid",
        "UPDATE {} SET external_id = ctid::text",
        "DELETE FROM {} RETURNING ctid",
        "UPDATE {} SET external_id = external_id RETURNING tableoid, ctid",
        "SELECT external_id FROM {} ORDER BY ctid",
        "SELECT DISTINCT ctid FROM {}",
        "SELECT ctid FROM {} FOR UPDATE",
        "SELECT count(ctid) FROM {}",
        "SELECT ctid::text FROM {}",
        "SELECT 1 FROM {} p JOIN here ON p.ctid = here.ctid",
        "INSERT INTO here SELECT ctid::text, 1 FROM {}",
        "SELECT at FROM (SELECT ctid AS at FROM {} LIMIT 5) x",
        "SELECT ctid FROM {} UNION ALL SELECT ctid FROM here",
    ],
)
def test_nor_is_a_parent_of_foreign_tables_another_way(parents, cdf, parent, statement):
    with refused("0A000", "system column", "external_id"):
        parents.execute(statement.replace("{}", f"scratch.{parent}"))
    unchanged(cdf)


def test_rows_that_are_routed_return_none(parents, cdf):
    with refused("0A000", "ctid"):
        parents.execute("INSERT INTO scratch.parted VALUES ('new', 'there') RETURNING ctid")
    with refused("0A000", "xmin"):
        parents.execute("WITH x AS (INSERT INTO scratch.parted VALUES ('new', 'there') RETURNING xmin) TABLE x")
    unchanged(cdf)


SHOWN = [
    ("SELECT ctid, xmin, cmin, xmax, cmax, external_id FROM events WHERE external_id = 'e1'", (None,) * 5 + ("e1",)),
    ("SELECT external_id, ctid FROM events ORDER BY external_id LIMIT 1", ("e1", None)),
    ("SELECT events.*, ctid AS at, ctid FROM events LIMIT 1", None),
    ("SELECT here.ctid::text, events.ctid FROM events JOIN here ON key = external_id WHERE external_id = 'e3'", ("(0,3)", None)),
    ("SELECT key, e.ctid FROM here LEFT JOIN events e ON e.external_id = key WHERE number = 4", ("e4", None)),
    ("SELECT at FROM (SELECT ctid AS at, external_id FROM events) x WHERE external_id = 'e2'", (None,)),
    ("SELECT ctid, row_number() OVER (ORDER BY external_id) FROM events LIMIT 1", (None, 1)),
    ("SELECT ctid, external_id FROM scratch.seen WHERE external_id = 'e5'", (None, "e5")),
]


@pytest.mark.parametrize("statement, row", SHOWN)
def test_what_only_shows_one_shows_null(plant, scratch, statement, row):
    scratch.view("seen", "SELECT external_id, ctid FROM events")
    shown = plant.execute(statement).fetchone()
    assert shown is not None and (row is None or shown == row)
    if row is None:
        assert shown[-2:] == (None, None)


def test_a_column_of_a_view_is_refused_as_the_table_s(plant, cdf, scratch):
    scratch.view("seen", "SELECT external_id, type, ctid AS at FROM events")
    for statement in (
        "SELECT external_id FROM scratch.seen WHERE at = '(0,1)'",
        "SELECT external_id FROM scratch.seen ORDER BY at",
        "UPDATE scratch.seen SET type = 'x' WHERE at = '(0,1)'",
        "DELETE FROM scratch.seen WHERE at = '(0,1)'",
        "UPDATE scratch.seen SET type = 'x' RETURNING at",
        "INSERT INTO scratch.seen (external_id) VALUES ('new') RETURNING at",
    ):
        with refused("0A000", 'system column "ctid"', "external_id"):
            plant.execute(statement)
    unchanged(cdf)


def test_a_parent_with_foreign_parts_shows_null_for_all_rows(parents):
    for parent in ("parted", "parent"):
        rows = parents.execute(f"SELECT tableoid::regclass::text, external_id, ctid FROM scratch.{parent}").fetchall()
        assert len(rows) == 11 and {at for *_, at in rows} == {None}
        assert parents.execute(f"SELECT ctid, * FROM scratch.{parent} WHERE external_id = 'e1'").fetchall() == [
            (None, "e1", "stop")
        ]
        for setting in ("on", "off"):
            parents.execute(f"SET enable_partitionwise_join = {setting}")
            joined = f"SELECT p.ctid, q.xmin, external_id FROM scratch.{parent} p JOIN scratch.{parent} q USING (external_id, type)"
            assert {row[:2] for row in parents.execute(joined).fetchall()} == {(None, None)}


def test_a_parent_with_no_foreign_part_left_is_any_table(parents, cdf):
    (at,) = parents.execute("SELECT ctid FROM scratch.parted WHERE type = 'here'").fetchone()
    changed = "UPDATE scratch.parted SET external_id = 'changed' WHERE type = 'here' AND ctid = %s RETURNING ctid"
    assert parents.execute(changed, (at,)).fetchone() == ("(0,2)",)
    assert parents.execute("DELETE FROM scratch.parted WHERE type = 'here' AND ctid = '(0,2)'").rowcount == 1
    unchanged(cdf)


def test_rows_of_a_parent_can_be_locked(parents):
    for parent in ("parted", "parent"):
        locked = parents.execute(f"SELECT external_id FROM scratch.{parent} FOR UPDATE").fetchall()
        assert len(locked) == 11
        parents.execute(f"UPDATE here SET number = -1 FROM scratch.{parent} p WHERE p.external_id = key")
        assert parents.execute("SELECT count(*) FROM here WHERE number = -1").fetchone() == (10,)
        joined = f"SELECT count(*) FROM (SELECT FROM scratch.{parent} p JOIN here ON p.external_id = key FOR UPDATE OF p) x"
        assert parents.execute(joined).fetchone() == (10,)


def test_tableoid_works_everywhere(plant):
    (oid,) = plant.execute("SELECT 'events'::regclass::oid").fetchone()
    assert plant.execute("SELECT DISTINCT tableoid FROM events").fetchall() == [(oid,)]
    assert plant.execute("SELECT count(*) FROM events WHERE tableoid = 'events'::regclass").fetchone() == (10,)
    query = "SELECT tableoid::regclass::text, count(*) FROM events GROUP BY tableoid ORDER BY tableoid"
    assert plant.execute(query).fetchall() == [("events", 10)]
    statement = "UPDATE events SET type = 'x' WHERE external_id = 'e1' AND tableoid = 'events'::regclass RETURNING tableoid"
    assert plant.execute(statement).fetchall() == [(oid,)]
    assert plant.execute("DELETE FROM events WHERE external_id = 'e1' RETURNING tableoid").fetchall() == [(oid,)]
    assert plant.execute("INSERT INTO events (external_id) VALUES ('n') RETURNING tableoid").fetchall() == [(oid,)]


def test_system_columns_of_other_tables_keep_working(plant):
    query = "SELECT h.ctid, h.xmin IS NULL FROM here h JOIN events e ON e.external_id = h.key WHERE h.ctid = '(0,2)'"
    assert plant.execute(query).fetchall() == [("(0,2)", False)]
    statement = "UPDATE here SET number = 0 FROM events WHERE external_id = key AND here.ctid < '(0,3)' RETURNING here.ctid"
    assert len(plant.execute(statement).fetchall()) == 2
    statement = "DELETE FROM here USING events WHERE external_id = key AND here.ctid IN (SELECT ctid FROM here LIMIT 3)"
    assert plant.execute(statement).rowcount == 3
    statement = "DELETE FROM events USING here WHERE external_id = key AND here.ctid = '(0,6)' RETURNING here.ctid"
    assert plant.execute(statement).fetchall() == [("(0,6)",)]


def test_prepared_statements_and_functions(plant, cdf, scratch):
    plant.execute("PREPARE by_ctid (tid) AS DELETE FROM events WHERE ctid = $1")
    with refused("0A000", "ctid"):
        plant.execute("EXECUTE by_ctid ('(0,1)')")
    with refused("0A000", "ctid"):
        plant.execute("DELETE FROM events WHERE ctid = %s", ("(0,1)",), prepare=True)
    body = "DELETE FROM events WHERE ctid = at"
    scratch.execute(f"CREATE FUNCTION remove(at tid) RETURNS void LANGUAGE sql SECURITY DEFINER AS '{body}'")
    scratch.execute("CREATE FUNCTION remove_each() RETURNS void LANGUAGE plpgsql AS $$ DECLARE r record; BEGIN"
                    " FOR r IN SELECT ctid, * FROM events LOOP DELETE FROM events WHERE ctid = r.ctid; END LOOP; END $$")
    scratch.execute("GRANT ALL ON ALL FUNCTIONS IN SCHEMA scratch TO PUBLIC")
    with refused("0A000", "ctid"):
        plant.execute("SELECT scratch.remove('(0,1)')")
    with refused("0A000", "ctid"):
        plant.execute("SELECT scratch.remove_each()")
    unchanged(cdf)


def test_the_position_of_a_cursor(plant, cdf):
    with plant.transaction():
        plant.execute("DECLARE c CURSOR FOR SELECT external_id, ctid FROM events")
        assert plant.execute("FETCH 1 FROM c").fetchone()[1] is None
        with refused("0A000", "cursor", "external_id"), plant.transaction():
            plant.execute("DELETE FROM events WHERE CURRENT OF c")
    unchanged(cdf)


def test_before_the_library_is_loaded(gateway, cluster, cdf, plant):
    """The first statement of a session that loads the library by itself is planned without its hooks."""
    for statement in (
        "DELETE FROM events WHERE ctid = '(0,1)'",
        "SELECT external_id FROM events ORDER BY ctid",
        "INSERT INTO events (external_id) VALUES ('new') RETURNING ctid",
    ):
        with cluster.connect() as superuser:
            superuser.execute(f'ALTER ROLE "{gateway.username}" SET session_preload_libraries = plpgsql')
            try:
                with gateway.connect(autocommit=True) as fresh, refused("0A000", "ctid"):
                    fresh.execute(statement)
            finally:
                superuser.execute(f'ALTER ROLE "{gateway.username}" RESET session_preload_libraries')
    unchanged(cdf)


def test_what_another_server_sends(plant, cdf, scratch, cluster, gateway):
    """postgres_fdw finds the rows that it changes by ctid, unless the whole statement can be sent."""
    with cluster.connect() as superuser:
        if not superuser.execute("SELECT FROM pg_available_extensions WHERE name = 'postgres_fdw'").rowcount:
            pytest.skip("this PostgreSQL has no postgres_fdw")
        superuser.execute("CREATE EXTENSION IF NOT EXISTS postgres_fdw")
        superuser.execute(
            sql.SQL("CREATE SERVER loop FOREIGN DATA WRAPPER postgres_fdw OPTIONS (host '127.0.0.1', port {}, dbname {})").format(
                sql.Literal(str(gateway.port)), sql.Literal(gateway.database)
            )
        )
        try:
            superuser.execute(
                sql.SQL("CREATE USER MAPPING FOR CURRENT_USER SERVER loop OPTIONS (user {}, password {})").format(
                    sql.Literal(gateway.username), sql.Literal(gateway.password)
                )
            )
            superuser.execute(
                sql.SQL(
                    "CREATE FOREIGN TABLE scratch.far (external_id text, type text, subtype text) SERVER loop"
                    " OPTIONS (schema_name {}, table_name 'events')"
                ).format(sql.Literal(gateway.schema))
            )
            superuser.execute("CREATE TEMP TABLE here AS SELECT 'e' || i AS key FROM generate_series(1, 2) i")
            for statement in (
                "UPDATE scratch.far SET type = h.key FROM here h WHERE h.key = external_id",
                "DELETE FROM scratch.far USING here h WHERE h.key = external_id",
                "DELETE FROM scratch.far WHERE external_id IN (SELECT key FROM here LIMIT 1)",
                "UPDATE scratch.far SET type = 'x' WHERE external_id = 'e1' AND random() >= 0",
                "SELECT ctid FROM scratch.far WHERE ctid = '(0,1)'",
            ):
                with refused("0A000", "system column", "external_id"):
                    superuser.execute(statement)
            unchanged(cdf)
            # What needs no ctid works.
            assert superuser.execute("SELECT count(*) FROM scratch.far").fetchone() == (10,)
            superuser.execute("INSERT INTO scratch.far VALUES ('e11', 'stop', 's')")
            assert len(names(cdf, "events")) == 11
            assert superuser.execute("UPDATE scratch.far SET type = 'go' WHERE external_id = 'e1'").rowcount == 1
            assert stored(cdf, "events", "e1")["type"] == "go"
            assert superuser.execute("DELETE FROM scratch.far WHERE external_id = 'e2'").rowcount == 1
            assert len(names(cdf, "events")) == 10
        finally:
            superuser.execute("DROP SERVER loop CASCADE")


def test_an_analysed_table_is_not_one_to_read_by_parts(plant, cluster, gateway, scratch):
    """DuckDB reads tables that have pages by ranges of ctid."""
    scratch.table("analysed", "external_id text", "events")
    with cluster.connect() as superuser:
        superuser.execute(f"ALTER FOREIGN TABLE scratch.analysed OWNER TO {gateway.username}")
        superuser.execute("ANALYZE scratch.analysed")
        found = superuser.execute(
            "SELECT relpages, reltuples FROM pg_class WHERE oid = 'scratch.analysed'::regclass"
        ).fetchone()
    assert found == (0, 10)
