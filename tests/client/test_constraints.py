"""Constraints, defaults, generated columns, partitions, triggers and views work on INSERT and COPY as on a table."""

from __future__ import annotations

import psycopg
import pytest
from support import columns, dump, names, refused, requests, stored


def copy(session, target: str, *lines: str) -> None:
    with session.cursor().copy(f"COPY {target} FROM STDIN") as stream:
        for line in lines:
            stream.write(line + "\n")


def insert_rows(session, target: str, *lines: str) -> None:
    for line in lines:
        values = [None if value == "\\N" else value for value in line.split("\t")]
        session.execute(f"INSERT INTO {target} VALUES ({', '.join(['%s'] * len(values))})", values)


both = pytest.mark.parametrize("write", [insert_rows, copy], ids=["insert", "copy"])


@both
def test_not_null_and_check(session, cdf, scratch, write):
    table = scratch.table(
        "checked", "external_id text NOT NULL, name text CHECK (length(name) > 2), source text", "assets"
    )
    with refused("23502", "external_id"):
        write(session, f"{table} (external_id, name)", "\\N\tlong")
    with refused("23514", "checked_name_check"):
        write(session, f"{table} (external_id, name)", "a\tx")
    assert not names(cdf, "assets")
    write(session, f"{table} (external_id, name)", "a\tlong")
    assert names(cdf, "assets") == ["a"]


@both
def test_defaults_and_generated_columns(session, cdf, scratch, write):
    table = scratch.table(
        "made",
        "external_id text, name text DEFAULT 'unnamed', source text GENERATED ALWAYS AS (upper(name)) STORED",
        "assets",
    )
    write(session, f"{table} (external_id)", "a")
    write(session, f"{table} (external_id, name)", "b\tpump")
    assert (stored(cdf, "assets", "a")["name"], stored(cdf, "assets", "a")["source"]) == ("unnamed", "UNNAMED")
    assert stored(cdf, "assets", "b")["source"] == "PUMP"


@pytest.fixture
def virtual(session, scratch, api):
    """A table with virtual generated columns, one of which has the name of a property in CDF and one has not."""
    if session.info.server_version < 180000:
        pytest.skip("virtual generated columns came with PostgreSQL 18")
    api.create("assets", "old", source="kept", description="kept")
    return scratch.table(
        "made",
        "external_id text, name text, source text GENERATED ALWAYS AS (upper(name)) VIRTUAL,"
        " shout text GENERATED ALWAYS AS (name || '!'), description text GENERATED ALWAYS AS (lower(name)) STORED",
        "assets",
        null_handling="set_null",
    )


@both
def test_virtual_generated_columns_are_not_written(session, cdf, virtual, write):
    write(session, f"{virtual} (external_id, name)", "new\tPump", "old\tValve")
    assert "source" not in stored(cdf, "assets", "new") and stored(cdf, "assets", "new")["description"] == "pump"
    assert stored(cdf, "assets", "old")["source"] == "kept"
    rows = session.execute(f"SELECT external_id, source, shout, description FROM {virtual} WHERE shout = 'Pump!'").fetchall()
    assert rows == [("new", "PUMP", "Pump!", "pump")]


def test_an_update_leaves_virtual_generated_columns_alone(session, cdf, virtual):
    row = session.execute(f"UPDATE {virtual} SET name = 'Valve' WHERE external_id = 'old' RETURNING source, shout").fetchone()
    assert row == ("VALVE", "Valve!")
    old = stored(cdf, "assets", "old")
    assert (old["name"], old["source"], old["description"]) == ("Valve", "kept", "valve")
    assert session.execute(f"DELETE FROM {virtual} WHERE source = 'VALVE' RETURNING shout").fetchall() == [("Valve!",)]


def test_virtual_generated_columns_of_raw_rows(session, cdf, virtual, scratch, api):
    api.create_raw("db", "t", k1={"v": 1, "double": "kept"})
    table = scratch.table("raw", "key text, v int, double int GENERATED ALWAYS AS (v * 2)", "raw_rows", database="db", table="t")
    assert session.execute(f"SELECT * FROM {table}").fetchall() == [("k1", 1, 2)]
    assert session.execute(f"UPDATE {table} SET v = 5 WHERE key IS NOT NULL RETURNING double").fetchall() == [(10,)]
    assert columns(cdf, "k1") == {"v": 5, "double": "kept"}


def test_a_generated_column_takes_no_value(session, scratch):
    table = scratch.table("made", "external_id text, source text GENERATED ALWAYS AS (external_id) STORED", "events")
    with refused("428C9", "source"):
        session.execute(f"INSERT INTO {table} VALUES ('a', 'x')")


@both
def test_dropped_columns(session, cdf, scratch, write):
    table = scratch.table("dropped", "source text, external_id text, description text, name text", "assets")
    scratch.execute("ALTER FOREIGN TABLE dropped DROP COLUMN source, DROP COLUMN description")
    write(session, table, "a\tPump")
    scratch.execute("ALTER FOREIGN TABLE dropped ADD COLUMN metadata jsonb")
    write(session, table, 'b\tValve\t{"k": "v"}')
    assert stored(cdf, "assets", "b")["metadata"] == {"k": "v"}
    rows = session.execute(f"SELECT * FROM {table} WHERE metadata ->> 'k' = 'v'").fetchall()
    assert rows == [("b", "Valve", {"k": "v"})]
    assert session.execute(f"SELECT external_id FROM {table} WHERE name = 'Pump'").fetchall() == [("a",)]


@both
def test_partitions(session, cdf, scratch, write):
    scratch.execute("CREATE TABLE parted (external_id text, type text, subtype text DEFAULT 'd') PARTITION BY LIST (type)")
    scratch.execute("CREATE TABLE here PARTITION OF parted FOR VALUES IN ('here')")
    scratch.execute(
        "CREATE FOREIGN TABLE there PARTITION OF parted (CHECK (external_id <> 'bad')) FOR VALUES IN ('there')"
        " SERVER cdf OPTIONS (resource 'events')"
    )
    write(session, "scratch.parted (external_id, type)", "a\there", "b\tthere")
    assert names(cdf, "events") == ["b"] and stored(cdf, "events", "b")["subtype"] == "d"
    with refused("23514", "there"):
        write(session, "scratch.parted (external_id, type)", "bad\tthere")
    with refused("23514", "no partition"):
        write(session, "scratch.parted (external_id, type)", "c\tnowhere")
    with refused("23514", "there"):
        write(session, "scratch.there (external_id, type)", "c\there")
    assert session.execute("SELECT external_id FROM scratch.parted ORDER BY 1").fetchall() == [("a",), ("b",)]
    cdf.admin_delete("requests")
    assert session.execute("SELECT external_id FROM scratch.parted WHERE type = 'here'").fetchall() == [("a",)]
    assert requests(cdf) == []


@both
def test_row_triggers(session, cdf, scratch, write):
    table = scratch.table("watched", "external_id text, name text", "assets")
    scratch.execute("CREATE TABLE log (what text)")
    scratch.execute(
        "CREATE FUNCTION before_row() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
        " IF NEW.name = 'skip' THEN RETURN NULL; END IF; NEW.name := upper(NEW.name); RETURN NEW; END $$"
    )
    scratch.execute(
        "CREATE FUNCTION after_row() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
        " INSERT INTO scratch.log VALUES (TG_OP || ' ' || NEW.external_id || ' ' || NEW.name); RETURN NULL; END $$"
    )
    scratch.execute("CREATE TRIGGER b BEFORE INSERT ON watched FOR EACH ROW EXECUTE FUNCTION before_row()")
    scratch.execute("CREATE TRIGGER a AFTER INSERT ON watched FOR EACH ROW EXECUTE FUNCTION after_row()")
    write(session, table, "a\tpump", "b\tskip", "c\tvalve")
    assert names(cdf, "assets") == ["a", "c"] and stored(cdf, "assets", "a")["name"] == "PUMP"
    logged = session.execute("SELECT what FROM scratch.log ORDER BY 1").fetchall()
    assert logged == [("INSERT a PUMP",), ("INSERT c VALVE",)]


@both
def test_a_row_that_a_trigger_moves_out_of_its_partition(session, cdf, scratch, write):
    scratch.execute("CREATE TABLE parted (external_id text, type text) PARTITION BY LIST (type)")
    scratch.execute(
        "CREATE FOREIGN TABLE there PARTITION OF parted FOR VALUES IN ('there') SERVER cdf OPTIONS (resource 'events')"
    )
    scratch.execute(
        "CREATE FUNCTION move() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN NEW.type := 'here'; RETURN NEW; END $$"
    )
    scratch.execute("CREATE TRIGGER b BEFORE INSERT ON there FOR EACH ROW EXECUTE FUNCTION move()")
    with pytest.raises(psycopg.Error):
        write(session, "scratch.parted", "a\tthere")
    assert not dump(cdf, "events")


def test_a_trigger_s_row_is_checked(session, cdf, scratch):
    table = scratch.table("watched", "external_id text, name text CHECK (name <> 'BAD')", "assets")
    scratch.execute(
        "CREATE FUNCTION before_row() RETURNS trigger LANGUAGE plpgsql AS"
        " $$ BEGIN NEW.name := upper(NEW.name); RETURN NEW; END $$"
    )
    scratch.execute("CREATE TRIGGER b BEFORE INSERT ON watched FOR EACH ROW EXECUTE FUNCTION before_row()")
    for write in (insert_rows, copy):
        with refused("23514", "watched_name_check"):
            write(session, table, "a\tbad")
    assert not dump(cdf, "assets")


@pytest.mark.parametrize("option", ["CHECK OPTION", "LOCAL CHECK OPTION", "CASCADED CHECK OPTION"])
def test_check_options_of_views(session, cdf, scratch, option):
    scratch.view("narrow", "SELECT external_id, type, subtype FROM events WHERE type = 'stop'")
    scratch.view("narrower", f"SELECT * FROM scratch.narrow WHERE subtype = 'a' WITH {option}")
    with refused("44000", "narrower"):
        session.execute("INSERT INTO scratch.narrower VALUES ('a', 'stop', 'b')")
    if "LOCAL" not in option:
        with refused("44000", "narrow"):
            session.execute("INSERT INTO scratch.narrower VALUES ('a', 'start', 'a')")
    assert not dump(cdf, "events")
    with refused("44000"), session.transaction():
        session.execute("INSERT INTO scratch.narrower VALUES ('a', 'stop', 'a')")
        session.execute("INSERT INTO scratch.narrower VALUES ('c', 'stop', 'a'), ('b', 'stop', NULL)")
    assert not dump(cdf, "events")
    session.execute("INSERT INTO scratch.narrower VALUES ('a', 'stop', 'a')")
    assert session.execute("SELECT external_id FROM scratch.narrower").fetchall() == [("a",)]
