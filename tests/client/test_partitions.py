"""Foreign tables as partitions and as children: UPDATE, DELETE and INSERT through their parents, and what guards the rows."""

from __future__ import annotations

import pytest
from support import columns, names, refused, stored
from test_views import create_view

SERVER = "SERVER cdf OPTIONS"


@pytest.fixture
def log(scratch):
    """Row triggers that write down what they see; `watch` puts them on a table."""
    scratch.execute("CREATE TABLE log (number serial, what text)")
    scratch.execute(
        "CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
        " INSERT INTO scratch.log (what) VALUES (concat_ws(' ', TG_WHEN, TG_OP, TG_TABLE_NAME,"
        " CASE WHEN TG_OP <> 'INSERT' THEN OLD.external_id || '/' || coalesce(OLD.type, '-') END,"
        " CASE WHEN TG_OP <> 'DELETE' THEN NEW.external_id || '/' || coalesce(NEW.type, '-') END));"
        " IF TG_OP = 'DELETE' THEN RETURN OLD; END IF; RETURN NEW; END $$"
    )

    class Log:
        def watch(self, table: str, events: str = "UPDATE OR DELETE"):
            for when in ("BEFORE", "AFTER"):
                scratch.execute(
                    f"CREATE TRIGGER {when} {when} {events} ON {table} FOR EACH ROW EXECUTE FUNCTION note()"
                )

        def lines(self):
            return [line for (line,) in scratch.execute("DELETE FROM log RETURNING what").fetchall()]

    return Log()


@pytest.fixture
def parent(session, cdf, scratch):
    """Partitions by type: local ones, and foreign ones of several resources and keys, with the columns in other places,
    with dropped ones, and on two levels."""
    scratch.execute("CREATE TABLE parted (gone int, external_id text, type text, source text) PARTITION BY LIST (type)")
    scratch.execute("ALTER TABLE parted DROP COLUMN gone")
    scratch.execute("CREATE TABLE here PARTITION OF parted FOR VALUES IN ('here')")
    scratch.execute(f"CREATE FOREIGN TABLE there PARTITION OF parted FOR VALUES IN ('there') {SERVER} (resource 'events')")
    # In another order, with a column that was dropped.
    scratch.execute(
        f"CREATE FOREIGN TABLE tags (source text, lost text, type text, external_id text) {SERVER}"
        " (resource 'raw_rows', database 'db', \"table\" 'tags', primary_key 'external_id')"
    )
    scratch.execute("ALTER FOREIGN TABLE tags DROP COLUMN lost")
    scratch.execute("ALTER TABLE parted ATTACH PARTITION tags FOR VALUES IN ('tag')")
    # A level deeper.
    scratch.execute("CREATE TABLE deeper (source text, type text, external_id text) PARTITION BY LIST (source)")
    scratch.execute(
        f"CREATE FOREIGN TABLE rows (type text, external_id text, source text) {SERVER}"
        " (resource 'raw_rows', database 'db', \"table\" 'rows', primary_key 'external_id')"
    )
    scratch.execute("ALTER TABLE deeper ATTACH PARTITION rows FOR VALUES IN ('s')")
    scratch.execute("CREATE TABLE deep PARTITION OF deeper DEFAULT")
    scratch.execute("ALTER TABLE parted ATTACH PARTITION deeper FOR VALUES IN ('row')")
    session.execute(
        "INSERT INTO scratch.parted (external_id, type, source) VALUES ('h1', 'here', 's'), ('h2', 'here', 's'),"
        " ('e1', 'there', 's'), ('e2', 'there', 's'), ('t1', 'tag', 's'), ('t2', 'tag', 's'),"
        " ('r1', 'row', 's'), ('r2', 'row', 's'), ('d1', 'row', 'local'), ('d2', 'row', 'local')"
    )
    cdf.admin_delete("requests")
    return session


WHERE = {"h": "here", "e": "there", "t": "tags", "r": "rows", "d": "deep"}


def everything(session):
    """external_id -> (partition, type, source)."""
    query = "SELECT external_id, tableoid::regclass::text, type, source FROM scratch.parted"
    return {key: (name.removeprefix("scratch."), kind, source) for key, name, kind, source in session.execute(query)}


def test_what_an_update_of_all_partitions_changes(parent, cdf):
    before = everything(parent)
    assert {key: name for key, (name, *_) in before.items()} == {f"{k}{n}": WHERE[k] for k in WHERE for n in (1, 2)}
    assert parent.execute("UPDATE scratch.parted SET source = source || '!' WHERE type <> 'row' AND external_id LIKE '%1'").rowcount == 3
    after = everything(parent)
    assert after == before | {key: (WHERE[key[0]], before[key][1], "s!") for key in ("h1", "e1", "t1")}
    assert stored(cdf, "events", "e1")["source"] == "s!" and stored(cdf, "events", "e2")["source"] == "s"
    assert columns(cdf, "t1") == {"external_id": "t1", "type": "tag", "source": "s!"}


def test_what_an_update_returns(parent, cdf):
    rows = parent.execute(
        "UPDATE scratch.parted SET source = source WHERE external_id LIKE '%2' RETURNING tableoid::regclass::text, *"
    ).fetchall()
    assert sorted(rows) == sorted(
        (f"scratch.{WHERE[key[0]]}", key, kind, source)
        for key, kind, source in (("h2", "here", "s"), ("e2", "there", "s"), ("t2", "tag", "s"), ("r2", "row", "s"), ("d2", "row", "local"))
    )


def test_what_a_delete_returns(parent, cdf):
    rows = parent.execute("DELETE FROM scratch.parted WHERE external_id LIKE '%1' RETURNING source, type, external_id, tableoid::regclass::text").fetchall()
    assert sorted(rows) == [
        ("local", "row", "d1", "scratch.deep"),
        ("s", "here", "h1", "scratch.here"),
        ("s", "row", "r1", "scratch.rows"),
        ("s", "tag", "t1", "scratch.tags"),
        ("s", "there", "e1", "scratch.there"),
    ]
    assert names(cdf, "events") == ["e2"] and names(cdf, "raw") == ["r2", "t2"]
    (row,) = parent.execute("DELETE FROM scratch.parted p WHERE external_id = 't2' RETURNING p").fetchone()
    assert row == "(t2,tag,s)"
    assert parent.execute("DELETE FROM scratch.parted WHERE external_id IS NOT NULL").rowcount == 4
    assert names(cdf, "events") == [] and names(cdf, "raw") == []


@pytest.mark.parametrize("watched", [["there"], ["tags"], ["there", "rows"], ["there", "tags", "rows", "here"], ["here"]])
@pytest.mark.parametrize("returning", ["", " RETURNING external_id"])
def test_row_triggers_of_partitions(parent, cdf, log, watched, returning):
    for name in watched:
        log.watch(name)
    letters = {letter for letter, name in WHERE.items() if name in watched}
    kinds = {"h": "here", "e": "there", "t": "tag", "r": "row", "d": "row"}
    cursor = parent.execute(f"UPDATE scratch.parted SET source = source WHERE external_id LIKE '%1'{returning}")
    assert cursor.rowcount == 5
    expected = [
        f"{when} UPDATE {WHERE[k]} {k}1/{kinds[k]} {k}1/{kinds[k]}" for k in letters for when in ("BEFORE", "AFTER")
    ]
    assert sorted(log.lines()) == sorted(expected)
    cursor = parent.execute(f"DELETE FROM scratch.parted WHERE external_id LIKE '%1'{returning}")
    assert cursor.rowcount == 5
    expected = [f"{when} DELETE {WHERE[k]} {k}1/{kinds[k]}" for k in letters for when in ("BEFORE", "AFTER")]
    assert sorted(log.lines()) == sorted(expected)
    assert names(cdf, "events") == ["e2"] and names(cdf, "raw") == ["r2", "t2"]


def test_triggers_of_the_parent(parent, cdf, log):
    log.watch("parted")
    assert parent.execute("UPDATE scratch.parted SET source = source WHERE external_id IN ('e1', 'h1')").rowcount == 2
    assert len(log.lines()) == 4
    assert parent.execute("DELETE FROM scratch.parted WHERE external_id IN ('e1', 'h1', 't1', 'r1') RETURNING *").rowcount == 4
    assert len(log.lines()) == 8


def test_a_trigger_s_change_is_written(parent, cdf, scratch):
    scratch.execute(
        "CREATE FUNCTION mark() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN NEW.source := 'by trigger'; RETURN NEW; END $$"
    )
    scratch.execute("CREATE TRIGGER b BEFORE UPDATE ON tags FOR EACH ROW EXECUTE FUNCTION mark()")
    rows = parent.execute("UPDATE scratch.parted SET external_id = external_id WHERE external_id IN ('t1', 'e1') RETURNING source")
    assert sorted(rows.fetchall()) == [("by trigger",), ("s",)]
    assert columns(cdf, "t1")["source"] == "by trigger"


def test_joined_statements(parent, cdf):
    parent.execute("CREATE TEMP TABLE wanted AS SELECT k || '1' AS key, 'new ' || k AS value FROM unnest(ARRAY['h','e','t','r','d','x']) k")
    parent.execute("INSERT INTO wanted SELECT key, value FROM wanted WHERE key = 'e1'")
    rows = parent.execute(
        "UPDATE scratch.parted p SET source = value FROM wanted WHERE external_id = key AND type <> 'row'"
        " RETURNING external_id, source, key, p.tableoid::regclass::text"
    ).fetchall()
    assert sorted(rows) == [(f"{k}1", f"new {k}", f"{k}1", f"scratch.{WHERE[k]}") for k in "eht"]
    assert stored(cdf, "events", "e1")["source"] == "new e" and columns(cdf, "t1")["source"] == "new t"
    rows = parent.execute(
        "DELETE FROM scratch.parted USING wanted WHERE external_id = key RETURNING external_id, source, value, key"
    ).fetchall()
    assert sorted(rows) == [
        (f"{k}1", {"r": "s", "d": "local"}.get(k, f"new {k}"), f"new {k}", f"{k}1") for k in "dehrt"
    ]
    assert names(cdf, "events") == ["e2"] and names(cdf, "raw") == ["r2", "t2"]


def test_a_local_row_moves_to_a_foreign_partition(parent, cdf):
    rows = parent.execute(
        "UPDATE scratch.parted SET type = 'there' WHERE external_id = 'h1' AND type = 'here' RETURNING external_id, type, tableoid::regclass::text"
    ).fetchall()
    assert rows == [("h1", "there", "scratch.there")]
    assert names(cdf, "events") == ["e1", "e2", "h1"]
    # With the foreign partition among those that are changed.
    assert parent.execute("UPDATE scratch.parted SET type = 'tag' WHERE external_id = 'h2'").rowcount == 1
    assert names(cdf, "raw") == ["h2", "r1", "r2", "t1", "t2"]
    assert parent.execute("SELECT count(*) FROM scratch.here").fetchone() == (0,)


@pytest.mark.parametrize("target", ["parted", "there"])
def test_a_foreign_row_does_not_leave_its_partition(parent, cdf, target):
    for kind in ("here", "tag", "nowhere"):
        with refused("23514", "there", "partition"):
            parent.execute(f"UPDATE scratch.{target} SET type = %s WHERE external_id = 'e1'", (kind,))
    with refused("23514", "rows"):
        parent.execute("UPDATE scratch.parted SET source = 'local' WHERE external_id = 'r1'")
    with refused("23514", "there"), parent.transaction():
        parent.execute(f"UPDATE scratch.{target} SET source = 'x' WHERE external_id = 'e2'")
        parent.execute(f"UPDATE scratch.{target} SET type = NULL WHERE external_id = 'e1'")
    assert stored(cdf, "events", "e1")["type"] == "there" and stored(cdf, "events", "e2")["source"] == "s"
    # The effect of the partition's trigger is checked.
    assert parent.execute(f"UPDATE scratch.{target} SET type = 'there' WHERE external_id = 'e1'").rowcount == 1


def test_a_trigger_that_moves_a_row_away_is_noticed(parent, cdf, scratch):
    scratch.execute("CREATE FUNCTION move() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN NEW.type := 'here'; RETURN NEW; END $$")
    scratch.execute("CREATE TRIGGER b BEFORE UPDATE ON there FOR EACH ROW EXECUTE FUNCTION move()")
    for target in ("parted", "there"):
        with refused("23514", "there"):
            parent.execute(f"UPDATE scratch.{target} SET source = 'x' WHERE external_id = 'e1'")
    assert stored(cdf, "events", "e1")["type"] == "there"


def test_conditions_that_leave_no_partition(parent):
    for statement in ("UPDATE {} SET source = 'x' WHERE type = 'nowhere'", "DELETE FROM {} WHERE false", "DELETE FROM {} WHERE type = 'nowhere'"):
        for returning in ("", " RETURNING *"):
            assert parent.execute(statement.format("scratch.parted") + returning).rowcount == 0


def test_prepared_statements(parent, cdf):
    parent.execute("SET plan_cache_mode = force_generic_plan")
    parent.execute("PREPARE change (text, text) AS UPDATE scratch.parted SET source = $1 WHERE type = 'there' AND external_id = $2 RETURNING source")
    parent.execute("PREPARE remove (text, text) AS DELETE FROM scratch.parted WHERE type = $1 AND external_id = $2 RETURNING source")
    assert parent.execute("EXECUTE change ('p', 'e1')").fetchall() == [("p",)]
    for kind, key, source in (("there", "e1", "p"), ("tag", "t1", "s"), ("here", "h1", "s")):
        assert parent.execute(f"EXECUTE remove ('{kind}', '{key}')").fetchall() == [(source,)]
    assert names(cdf, "events") == ["e2"]


@pytest.fixture
def family(session, cdf, scratch):
    """A local table that foreign ones inherit from, and one of those has a child of its own. Keys are the children's own
    columns too."""
    scratch.execute("CREATE TABLE parent (type text, external_id text)")
    scratch.execute(f"CREATE FOREIGN TABLE child (id bigint, description text) INHERITS (parent) {SERVER} (resource 'events')")
    scratch.execute(
        f"CREATE FOREIGN TABLE cousin (more int, key text) INHERITS (parent) {SERVER} (resource 'raw_rows', database 'db', \"table\" 'c')"
    )
    scratch.execute("ALTER FOREIGN TABLE cousin DROP COLUMN more")
    scratch.execute("CREATE TABLE grandchild (extra int) INHERITS (cousin)")
    session.execute("INSERT INTO scratch.parent VALUES ('p', 'p1'), ('p', 'p2')")
    session.execute("INSERT INTO scratch.child (external_id, type) VALUES ('c1', 'c'), ('c2', 'c')")
    session.execute("INSERT INTO scratch.cousin (key, external_id, type) VALUES ('k1', 'q1', 'q'), ('k2', 'q2', 'q')")
    session.execute("INSERT INTO scratch.grandchild (key, external_id, type) VALUES ('g1', 'g1', 'g'), ('g2', 'g2', 'g')")
    return session


@pytest.mark.parametrize("watched", [[], ["child"], ["cousin", "grandchild"]])
def test_inheritance(family, cdf, log, watched):
    for name in watched:
        log.watch(name)
    rows = family.execute(
        "UPDATE scratch.parent SET type = type || '!' WHERE external_id LIKE '%1' RETURNING external_id, type, tableoid::regclass::text"
    ).fetchall()
    assert sorted(rows) == [
        ("c1", "c!", "scratch.child"),
        ("g1", "g!", "scratch.grandchild"),
        ("p1", "p!", "scratch.parent"),
        ("q1", "q!", "scratch.cousin"),
    ]
    assert stored(cdf, "events", "c1")["type"] == "c!" and stored(cdf, "events", "c2")["type"] == "c"
    assert columns(cdf, "k1") == {"external_id": "q1", "type": "q!"}
    assert len(log.lines()) == 2 * len(watched)
    rows = family.execute("DELETE FROM scratch.parent WHERE external_id LIKE '%1' RETURNING *").fetchall()
    assert sorted(rows) == [("c!", "c1"), ("g!", "g1"), ("p!", "p1"), ("q!", "q1")]
    assert len(log.lines()) == 2 * len(watched)
    assert names(cdf, "events") == ["c2"] and names(cdf, "raw") == ["k2"]
    # A foreign table that is inherited from itself.
    rows = family.execute("UPDATE scratch.cousin SET type = 'x' WHERE key IS NOT NULL RETURNING key, type").fetchall()
    assert sorted(rows) == [("g2", "x"), ("k2", "x")]
    assert sorted(family.execute("DELETE FROM scratch.cousin WHERE key IS NOT NULL RETURNING key").fetchall()) == [("g2",), ("k2",)]
    assert names(cdf, "raw") == []


def test_a_view_over_a_parent(parent, cdf, scratch):
    scratch.view("some", "SELECT external_id, type, source FROM scratch.parted WHERE source = 's' WITH CHECK OPTION")
    assert parent.execute("UPDATE scratch.some SET type = type WHERE external_id = 'e1' RETURNING external_id").fetchall() == [("e1",)]
    for key in ("e1", "t1", "h1"):
        with refused("44000", "some"):
            parent.execute("UPDATE scratch.some SET source = 'x' WHERE external_id = %s", (key,))
    with refused("44000", "some"):
        parent.execute("INSERT INTO scratch.some VALUES ('e9', 'there', 'x')")
    assert stored(cdf, "events", "e1")["source"] == "s" and names(cdf, "events") == ["e1", "e2"]
    assert parent.execute("DELETE FROM scratch.some WHERE external_id IN ('e1', 't1', 'h1')").rowcount == 3


@pytest.fixture
def guarded(parent, scratch, gateway):
    """Row security on the parent: rows are seen and written only with a source other than `secret`."""
    scratch.execute("ALTER TABLE parted ENABLE ROW LEVEL SECURITY")
    scratch.execute("CREATE POLICY readers ON parted FOR SELECT USING (source <> 'hidden')")
    scratch.execute("CREATE POLICY inserters ON parted FOR INSERT WITH CHECK (source IN ('s', 'local'))")
    scratch.execute("CREATE POLICY updaters ON parted FOR UPDATE USING (external_id <> 'e2') WITH CHECK (source IN ('s', 'u', 'local'))")
    scratch.execute("CREATE POLICY removers ON parted FOR DELETE USING (external_id <> 'e2')")
    return parent


@pytest.mark.parametrize("kind, key", [("there", "e"), ("tag", "t"), ("here", "h")])
def test_row_security_of_a_parent(guarded, cdf, kind, key):
    insert = "INSERT INTO scratch.parted (external_id, type, source) VALUES (%s, %s, %s)"
    with refused("42501", "row-level security", "parted"):
        guarded.execute(insert, (f"{key}3", kind, "u"))
    with refused("42501", "row-level security"):
        guarded.execute(insert + " RETURNING external_id", (f"{key}3", kind, "u"))
    with refused("42501", "row-level security"):
        guarded.execute("INSERT INTO scratch.parted SELECT %s || i, %s, CASE i WHEN 5 THEN 'x' ELSE 's' END FROM generate_series(3, 6) i", (key, kind))
    guarded.execute(insert, (f"{key}3", kind, "s"))
    with refused("42501", "row-level security"):
        guarded.execute("UPDATE scratch.parted SET source = 'x' WHERE external_id = %s", (f"{key}1",))
    with refused("42501", "row-level security"), guarded.transaction():
        guarded.execute("UPDATE scratch.parted SET source = 'u' WHERE external_id = %s", (f"{key}3",))
        guarded.execute("UPDATE scratch.parted SET source = 'x' WHERE external_id = %s", (f"{key}1",))
    found = everything(guarded)
    assert found[f"{key}1"][2] == "s" and found[f"{key}3"][2] == "s"
    assert guarded.execute("UPDATE scratch.parted SET source = 'u' WHERE external_id = %s", (f"{key}1",)).rowcount == 1
    # Rows that a policy hides are neither changed nor deleted.
    assert guarded.execute("UPDATE scratch.parted SET source = 'u' WHERE external_id = 'e2'").rowcount == 0
    assert guarded.execute("DELETE FROM scratch.parted WHERE type = 'there' AND external_id = 'e2'").rowcount == 0
    # PostgreSQL itself takes no COPY then.
    with refused("0A000", "row-level security"), guarded.cursor().copy("COPY scratch.parted FROM STDIN") as stream:
        stream.write("e9\tthere\tx\n")
    assert "e9" not in names(cdf, "events")


def test_a_row_that_moves_is_checked_as_one_that_is_updated(guarded, cdf):
    with refused("42501", "row-level security"):
        guarded.execute("UPDATE scratch.parted SET type = 'there', source = 'x' WHERE external_id = 'h1' AND type = 'here'")
    moved = "UPDATE scratch.parted SET type = 'there', source = 'u' WHERE external_id = 'h1' AND type = 'here'"
    assert guarded.execute(moved).rowcount == 1
    assert stored(cdf, "events", "h1")["source"] == "u"


def test_constraints_of_an_updated_row(session, cdf, scratch):
    scratch.execute("CREATE TABLE parted (external_id text NOT NULL, type text, source text CHECK (source <> 'BAD')) PARTITION BY LIST (type)")
    scratch.execute(f"CREATE FOREIGN TABLE there PARTITION OF parted FOR VALUES IN ('there') {SERVER} (resource 'events')")
    scratch.execute(
        "CREATE FUNCTION shout() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN NEW.source := upper(NEW.source); RETURN NEW; END $$"
    )
    scratch.execute("CREATE TRIGGER b BEFORE UPDATE ON there FOR EACH ROW EXECUTE FUNCTION shout()")
    session.execute("INSERT INTO scratch.parted VALUES ('e1', 'there', 'fine')")
    with refused("23514", "parted_source_check"):
        session.execute("UPDATE scratch.parted SET source = 'bad' WHERE external_id IS NOT NULL")
    with refused("23502", "external_id"):
        session.execute("UPDATE scratch.parted SET external_id = NULL WHERE external_id IS NOT NULL")
    assert session.execute("UPDATE scratch.parted SET source = 'good' WHERE external_id IS NOT NULL RETURNING source").fetchall() == [("GOOD",)]
    assert stored(cdf, "events", "e1")["source"] == "GOOD"


def test_partitions_of_wrappers_that_are_none_of_ours(session, cdf, scratch):
    """One without a handler does not matter as long as no row goes there."""
    scratch.execute("CREATE FOREIGN DATA WRAPPER nothing")
    try:
        scratch.execute("CREATE SERVER nowhere FOREIGN DATA WRAPPER nothing")
        scratch.execute("CREATE TABLE parted (external_id text, type text) PARTITION BY LIST (type)")
        scratch.execute("CREATE TABLE here PARTITION OF parted FOR VALUES IN ('here')")
        scratch.execute("CREATE FOREIGN TABLE lost PARTITION OF parted FOR VALUES IN ('lost') SERVER nowhere")
        session.execute("INSERT INTO scratch.parted VALUES ('a', 'here')")
        session.execute("UPDATE scratch.parted SET external_id = 'b' WHERE type = 'here'")
        scratch.execute(f"CREATE FOREIGN TABLE there PARTITION OF parted FOR VALUES IN ('there') {SERVER} (resource 'events')")
        session.execute("INSERT INTO scratch.parted VALUES ('c', 'there') RETURNING external_id")
        assert names(cdf, "events") == ["c"]
        with refused("55000", "handler"):
            session.execute("INSERT INTO scratch.parted VALUES ('d', 'lost')")
    finally:
        scratch.execute("DROP FOREIGN DATA WRAPPER nothing CASCADE")


@pytest.fixture
def tenant(scratch, cluster):
    """A session of a role without credentials, which may use what is in the schema `scratch`."""
    scratch.execute("DROP ROLE IF EXISTS tenant")
    scratch.execute("CREATE ROLE tenant")
    scratch.execute("GRANT USAGE ON SCHEMA scratch TO tenant")
    try:
        with cluster.connect() as connection:
            connection.execute("SET ROLE tenant")
            yield connection
    finally:
        scratch.execute("DROP OWNED BY tenant")
        scratch.execute("DROP ROLE tenant")


# The definition of a data-model view is asked for while a statement is planned, too.
@pytest.mark.parametrize("resource", ["resource 'events'", "resource 'view', space 'sp', external_id 'Kind'"])
def test_rights_are_those_of_who_owns_the_view(session, cdf, scratch, api, gateway, tenant, resource):
    """A partition that is reached through a view is planned, read and written with the rights of the view's owner."""
    create_view(api, "Kind", {"type": "text"})
    space = ", space text DEFAULT 'sp'" if "view" in resource else ""
    scratch.execute(f"CREATE TABLE parted (external_id text, type text{space}) PARTITION BY LIST (type)")
    scratch.execute(f"CREATE FOREIGN TABLE there PARTITION OF parted FOR VALUES IN ('there') {SERVER} ({resource})")
    scratch.execute("CREATE TABLE here PARTITION OF parted FOR VALUES IN ('here')")
    scratch.execute(f'ALTER TABLE parted OWNER TO "{gateway.username}"')
    scratch.view("rented", "SELECT * FROM scratch.parted")
    scratch.execute("GRANT ALL ON rented TO tenant")
    kind = "instances" if space else "events"
    tenant.execute("INSERT INTO scratch.rented VALUES ('e1', 'there'), ('e2', 'there'), ('h1', 'here')")
    assert names(cdf, kind) == ["e1", "e2"]
    assert tenant.execute("UPDATE scratch.rented SET type = type WHERE external_id IS NOT NULL RETURNING external_id").rowcount == 3
    assert tenant.execute("SELECT count(*) FROM scratch.rented").fetchone() == (3,)
    removed = "DELETE FROM scratch.rented WHERE external_id = 'e1' RETURNING external_id, type"
    assert tenant.execute(removed).fetchall() == [("e1", "there")]
    assert tenant.execute("DELETE FROM scratch.rented WHERE external_id IS NOT NULL").rowcount == 2
    assert names(cdf, kind) == []
    # Without the view the rights are the tenant's own. They are checked before the definition of a view in CDF is asked for.
    with refused("42501"):
        tenant.execute("DELETE FROM scratch.parted WHERE external_id IS NOT NULL")


def test_beside_partitions_of_another_wrapper(session, cdf, scratch, gateway, log):
    if not scratch.execute("SELECT FROM pg_available_extensions WHERE name = 'postgres_fdw'").rowcount:
        pytest.skip("this PostgreSQL has no postgres_fdw")
    scratch.execute("CREATE EXTENSION IF NOT EXISTS postgres_fdw SCHEMA public")
    scratch.execute(
        f"CREATE SERVER beside FOREIGN DATA WRAPPER postgres_fdw"
        f" OPTIONS (host '127.0.0.1', port '{gateway.port}', dbname '{gateway.database}')"
    )
    try:
        scratch.execute(
            f"CREATE USER MAPPING FOR \"{gateway.username}\" SERVER beside"
            f" OPTIONS (user '{gateway.username}', password '{gateway.password}')"
        )
        scratch.execute("CREATE TABLE target (external_id text, type text)")
        scratch.execute("CREATE TABLE parted (external_id text, type text) PARTITION BY LIST (type)")
        scratch.execute("CREATE FOREIGN TABLE away PARTITION OF parted FOR VALUES IN ('away') SERVER beside OPTIONS (schema_name 'scratch', table_name 'target')")
        scratch.execute(f"CREATE FOREIGN TABLE there PARTITION OF parted FOR VALUES IN ('there') {SERVER} (resource 'events')")
        scratch.execute("CREATE TABLE here PARTITION OF parted FOR VALUES IN ('here')")
        rows = [(f"{kind[0]}{n}", kind) for kind in ("away", "here", "there") for n in (1, 2, 3)]
        for row in rows:
            session.execute("INSERT INTO scratch.parted VALUES (%s, %s)", row)
        session.execute("CREATE TEMP TABLE wanted AS SELECT external_id AS key FROM scratch.parted WHERE external_id LIKE '%1'")
        returning = "RETURNING external_id, type"
        assert sorted(session.execute(f"UPDATE scratch.parted SET external_id = external_id WHERE type <> '' {returning}").fetchall()) == rows
        removed = session.execute(f"DELETE FROM scratch.parted USING wanted WHERE external_id = key {returning}").fetchall()
        assert sorted(removed) == [row for row in rows if row[0].endswith("1")]
        # Without triggers, then with some of the other wrapper's table, for which each table has to bring its old row.
        assert session.execute("DELETE FROM scratch.parted WHERE external_id LIKE '%2'").rowcount == 3
        log.watch("away")
        assert session.execute("DELETE FROM scratch.parted WHERE external_id LIKE '%3'").rowcount == 3
        assert log.lines() == ["BEFORE DELETE away a3/away", "AFTER DELETE away a3/away"]
        assert names(cdf, "events") == []
    finally:
        scratch.execute("DROP SERVER beside CASCADE")
