"""CDF's lists lag behind: they lack what was just created, and still show what was deleted, or what a changed item was before.
Requests by key see all of it at once, and the extension's writes rely on them."""

from __future__ import annotations

import pytest
from support import dump, names, paths, points, refused, stored
from test_views import create_view

FOREVER = 3_600_000


@pytest.fixture
def behind(session, cdf):
    """Makes lists stop where they are."""

    def stop() -> None:
        cdf.admin_post("lag", {"lists_ms": FOREVER})
        cdf.admin_delete("requests")

    return stop


def one(session, query: str):
    return session.execute(query).fetchone()[0]


# ---- the transaction's own rows ----

OWN = {
    "assets": ("INSERT INTO assets (external_id, name, source) VALUES ('x', 'X', 's')", "description"),
    "events": ("INSERT INTO events (external_id, type, source) VALUES ('x', 't', 's')", "description"),
    "timeseries": ("INSERT INTO timeseries (external_id, name, unit) VALUES ('x', 'X', 's')", "description"),
    "sequences": (
        "INSERT INTO sequences (external_id, name, columns) VALUES ('x', 's', '[{\"externalId\": \"a\"}]')",
        "description",
    ),
    "files": ("INSERT INTO files (external_id, name, source) VALUES ('x', 'X', 's')", "directory"),
    "data_sets": ("INSERT INTO data_sets (external_id, name) VALUES ('x', 's')", "description"),
    "relationships": (
        "INSERT INTO relationships (external_id, source_external_id, source_type, target_external_id, target_type)"
        " VALUES ('x', 's', 'asset', 'b', 'asset')",
        "confidence",
    ),
}
KEPT = {"timeseries": "unit", "sequences": "name", "data_sets": "name", "relationships": "source_external_id"}


@pytest.mark.parametrize("table", OWN)
def test_an_update_of_what_the_list_does_not_show_is_seen_whole(session, behind, table):
    """What is not in a list may exist all the same: the rows written to are asked for by their keys."""
    behind()
    create, column = OWN[table]
    session.execute(create)
    kept, value = KEPT.get(table, "source"), "0.5" if column == "confidence" else "'new'"
    query = f"SELECT {kept}, {column}::text FROM {table}"
    assert session.execute(query).fetchall() == [], "the list did not lag"
    with session.transaction():
        assert session.execute(f"UPDATE {table} SET {column} = {value} WHERE external_id = 'x'").rowcount == 1
        assert session.execute(query).fetchall() == [("s", value.strip("'"))]
        assert session.execute(f"UPDATE {table} SET {column} = NULL WHERE {kept} = 's' AND {column} IS NOT NULL").rowcount == 1
        assert session.execute(query).fetchall() == [("s", None)]


@pytest.mark.parametrize("table", OWN)
def test_an_insert_over_what_the_list_does_not_show_is_seen_whole(session, behind, scratch, table):
    behind()
    create, column = OWN[table]
    session.execute(create)
    kept, value = KEPT.get(table, "source"), 0.5 if column == "confidence" else "new"
    with session.transaction():
        session.execute(f"INSERT INTO {table} (external_id, {column}) VALUES ('x', %s)", (value,))
        assert session.execute(f"SELECT {kept}, {column} FROM {table}").fetchall() == [("s", value)]


def test_a_delete_of_what_the_list_still_shows_is_seen(session, behind, cdf):
    session.execute("INSERT INTO events (external_id) VALUES ('x'), ('y')")
    behind()
    with session.transaction():
        session.execute("DELETE FROM events WHERE external_id = 'x'")
        assert session.execute("SELECT external_id FROM events").fetchall() == [("y",)]
    assert names(cdf, "events") == ["y"]


# ---- UPDATE and DELETE by other conditions than the key ----


def test_an_update_rests_on_what_is_and_not_on_what_the_list_shows(session, behind, cdf):
    session.execute("INSERT INTO events (external_id, type, description) VALUES ('a', 't', 'old'), ('b', 't', 'old')")
    behind()
    session.execute("UPDATE events SET description = 'new' WHERE external_id = 'a'")
    assert one(session, "SELECT count(*) FROM events WHERE description = 'old'") == 2, "the list did not lag"
    assert session.execute("UPDATE events SET description = description || '!' WHERE type = 't'").rowcount == 2
    assert {event["externalId"]: event["description"] for event in dump(cdf, "events")} == {"a": "new!", "b": "old!"}


@pytest.mark.parametrize("statement", ["UPDATE events SET source = 's'", "DELETE FROM events"])
def test_what_fits_no_more_is_left_alone(session, behind, cdf, statement):
    session.execute("INSERT INTO events (external_id, type) VALUES ('a', 't'), ('b', 't'), ('c', 't')")
    behind()
    session.execute("UPDATE events SET type = 'other' WHERE external_id = 'a'")
    session.execute("DELETE FROM events WHERE external_id = 'b'")
    assert session.execute(f"{statement} WHERE type = 't'").rowcount == 1
    left = {event["externalId"]: (event["type"], event.get("source")) for event in dump(cdf, "events")}
    assert left == ({"a": ("other", None)} | ({"c": ("t", "s")} if "UPDATE" in statement else {}))


@pytest.mark.parametrize("table", ["labels", "relationships"])
def test_what_has_no_id_is_asked_for_by_its_name(session, behind, cdf, table):
    values = "('a', 'x'), ('b', 'x')"
    if table == "labels":
        session.execute(f"INSERT INTO labels (external_id, name) VALUES {values}")
        column = "name"
    else:
        session.execute(
            "INSERT INTO relationships (external_id, source_external_id, source_type, target_external_id, target_type)"
            f" SELECT id, name, 'asset', 'b', 'asset' FROM (VALUES {values}) AS v (id, name)"
        )
        column = "source_external_id"
    behind()
    session.execute(f"DELETE FROM {table} WHERE external_id = 'a'")
    assert session.execute(f"DELETE FROM {table} WHERE {column} = 'x'").rowcount == 1
    assert dump(cdf, table) == []
    assert f"/{table}/byids" in paths(cdf)


def test_a_join_changes_what_is(session, behind, cdf, scratch):
    scratch.execute("CREATE TABLE wanted (type text, note text)")
    scratch.execute("INSERT INTO wanted VALUES ('t', 'n'), ('u', 'm')")
    scratch.execute("GRANT SELECT ON wanted TO public")
    session.execute("INSERT INTO events (external_id, type) VALUES ('a', 't'), ('b', 't')")
    behind()
    session.execute("UPDATE events SET type = 'u' WHERE external_id = 'a'")
    changed = session.execute("UPDATE events e SET source = w.note FROM scratch.wanted w WHERE e.type = w.type")
    assert changed.rowcount == 2
    assert {event["externalId"]: event["source"] for event in dump(cdf, "events")} == {"a": "m", "b": "n"}


def test_instances_are_changed_as_they_are(session, behind, cdf, api, scratch):
    create_view(api, "Pump", {"name": "text", "note": "text"})
    pump = scratch.table("pump", "external_id text, name text, note text", "view", space="sp", external_id="Pump", version="v1")
    session.execute(f"INSERT INTO {pump} VALUES ('a', 'n', 'old'), ('b', 'n', 'old'), ('c', 'n', 'old')")
    behind()
    session.execute(f"UPDATE {pump} SET note = 'new' WHERE external_id = 'a'")
    session.execute(f"DELETE FROM {pump} WHERE external_id = 'b'")
    assert one(session, f"SELECT count(*) FROM {pump} WHERE note = 'old'") == 3, "the list did not lag"
    assert session.execute(f"UPDATE {pump} SET note = note || '!' WHERE name = 'n'").rowcount == 2
    notes = {item["externalId"]: item["properties"]["note"] for item in dump(cdf, "instances")}
    assert notes == {"a": "new!", "c": "old!"}
    assert session.execute(f"DELETE FROM {pump} WHERE note = 'old'").rowcount == 0
    assert names(cdf, "instances") == ["a", "c"]


def test_explain_names_the_request_for_what_is(session):
    def requested(statement):
        return str(session.execute(f"EXPLAIN (COSTS off) {statement}").fetchall())

    for statement in ("UPDATE events SET source = 's' WHERE type = 't'", "DELETE FROM events WHERE type = 't'"):
        assert "POST /events/list, POST /events/byids" in requested(statement)
    assert "byids" not in requested("SELECT external_id FROM events WHERE type = 't'")


def test_many_rows_are_asked_for_in_requests_of_a_thousand(session, cdf):
    session.execute("INSERT INTO events (external_id, type) SELECT 'e' || n, 't' FROM generate_series(1, 2500) n")
    cdf.admin_delete("requests")
    assert session.execute("UPDATE events SET source = 's' WHERE type = 't'").rowcount == 2500
    assert paths(cdf).count("/events/list") == paths(cdf).count("/events/byids") == 3


# ---- hierarchies ----


def test_a_parent_whose_children_the_list_does_not_show_yet(session, behind, cdf):
    """Nothing is half done: CDF refuses to delete the parent, and the error says why."""
    session.execute("INSERT INTO assets (external_id, name) VALUES ('root', 'R')")
    behind()
    session.execute("INSERT INTO assets (external_id, name, parent_external_id) VALUES ('leaf', 'L', 'root')")
    with refused("22023", "children"):
        session.execute("DELETE FROM assets WHERE name IN ('R', 'L')")
    assert names(cdf, "assets") == ["leaf", "root"]
    assert session.execute("DELETE FROM assets WHERE external_id IN ('root', 'leaf')").rowcount == 2
    assert dump(cdf, "assets") == []


def test_children_are_put_below_a_parent_that_the_list_does_not_show_yet(session, behind, cdf):
    behind()
    session.execute("INSERT INTO assets (external_id, name) VALUES ('root', 'R')")
    session.execute("INSERT INTO assets (external_id, name, parent_external_id) VALUES ('leaf', 'L', 'root')")
    session.execute("UPDATE assets SET description = 'd' WHERE external_id IN ('root', 'leaf')")
    assert {asset.get("description") for asset in dump(cdf, "assets")} == {"d"}


# ---- on_conflict, references ----


def test_what_exists_is_found_by_its_key(session, behind, cdf, scratch):
    behind()
    strict = scratch.table("strict", "external_id text, type text", "events", on_conflict="error")
    lenient = scratch.table("lenient", "external_id text, type text", "events", on_conflict="ignore")
    session.execute("INSERT INTO events (external_id, type, source) VALUES ('x', 'one', 's')")
    with refused("23505", "x"):
        session.execute(f"INSERT INTO {strict} VALUES ('x', 'two')")
    session.execute(f"INSERT INTO {lenient} VALUES ('x', 'three')")
    counted = session.execute("INSERT INTO events (external_id, type) VALUES ('x', 'four'), ('y', 'new') ON CONFLICT DO NOTHING")
    assert counted.rowcount == 1
    session.execute(
        "INSERT INTO events (external_id, type, source) VALUES ('x', 'five', 'other')"
        " ON CONFLICT (external_id) DO UPDATE SET type = EXCLUDED.type"
    )
    event = stored(cdf, "events", "x")
    assert (event["type"], event["source"]) == ("five", "s")
    session.execute("DELETE FROM events WHERE external_id = 'x'")
    session.execute(f"INSERT INTO {strict} VALUES ('x', 'six')")
    assert stored(cdf, "events", "x")["type"] == "six" and "source" not in stored(cdf, "events", "x")


def test_labels_data_sets_and_files_are_written_again(session, behind, cdf):
    behind()
    for _ in range(2):
        session.execute("INSERT INTO labels (external_id, name) VALUES ('l', 'L')")
        session.execute("INSERT INTO data_sets (external_id, name) VALUES ('d', 'D')")
        session.execute("INSERT INTO files (external_id, name, labels, data_set_external_id) VALUES ('f', 'F', '{l}', 'd')")
        session.execute("INSERT INTO events (external_id, data_set_external_id) VALUES ('e', 'd')")
    with refused("0A000", "label"):
        session.execute("INSERT INTO labels (external_id, name) VALUES ('l', 'other')")
    assert [len(dump(cdf, resource)) for resource in ("labels", "datasets", "files", "events")] == [1, 1, 1, 1]


def test_points_and_rows_of_what_the_list_does_not_show_yet(session, behind, cdf):
    behind()
    session.execute("INSERT INTO timeseries (external_id) VALUES ('t')")
    session.execute("INSERT INTO datapoints (external_id, timestamp, value) VALUES ('t', '2024-01-01Z', 1), ('t', '2024-01-02Z', 2)")
    assert one(session, "SELECT count(*) FROM datapoints WHERE external_id = 't'") == 2
    assert session.execute("DELETE FROM datapoints WHERE external_id = 't' AND timestamp < '2024-01-02Z'").rowcount == 1
    assert session.execute("UPDATE datapoints SET value = 3 WHERE external_id = 't'").rowcount == 1
    assert [value for _, value, _ in points(cdf, "t")] == [3]
    session.execute("INSERT INTO sequences (external_id, columns) VALUES ('s', '[{\"externalId\": \"a\"}]')")
    session.execute("INSERT INTO sequence_rows (external_id, row_number, columns) VALUES ('s', 1, '{\"a\": 1}')")
    assert session.execute("UPDATE sequence_rows SET columns = '{\"a\": 2}' WHERE external_id = 's'").rowcount == 1
    assert session.execute("DELETE FROM sequence_rows WHERE external_id = 's'").rowcount == 1


def test_rows_of_raw_that_the_list_does_not_show_at_commit(session, cdf, scratch):
    """They were read moments ago, so they are asked for by their keys before they count as gone."""
    table = scratch.table("typed", "key text, a int, b int", "raw_rows", database="d", table="t")
    session.execute(f"INSERT INTO {table} SELECT 'k' || n, n, 0 FROM generate_series(1, 60) n")
    empty = {"path": "/raw/dbs/d/tables/t/rows", "match": "exact", "method": "GET", "mode": "status", "status": 200}
    cdf.admin_post("faults", {**empty, "body": {"items": []}, "after": 1})
    assert session.execute(f"UPDATE {table} SET b = 1 WHERE b = 0").rowcount == 60
    rows = {row["key"]: row["columns"] for row in dump(cdf, "raw")}
    assert rows == {f"k{n}": {"a": n, "b": 1} for n in range(1, 61)}


# ---- what a list that lags cannot show: docs/tables.md says so ----


def test_what_the_list_does_not_show_is_not_among_the_rows(session, behind, cdf):
    session.execute("INSERT INTO events (external_id, type) VALUES ('old', 't')")
    behind()
    session.execute("INSERT INTO events (external_id, type) VALUES ('new', 't')")
    assert session.execute("UPDATE events SET source = 's' WHERE type = 't'").rowcount == 1
    assert session.execute("UPDATE events SET source = 's' WHERE external_id = 'new'").rowcount == 1


def test_truncate_deletes_what_the_list_shows(session, behind, cdf, scratch):
    whole = scratch.table("whole", "external_id text", "events", truncatable="true")
    scratch.execute("GRANT TRUNCATE ON whole TO public")
    session.execute("INSERT INTO events (external_id) VALUES ('old'), ('gone')")
    behind()
    session.execute("INSERT INTO events (external_id) VALUES ('new')")
    session.execute("DELETE FROM events WHERE external_id = 'gone'")
    session.execute(f"TRUNCATE {whole}")
    assert names(cdf, "events") == ["new"]
    cdf.admin_post("lag", {})
    session.execute(f"TRUNCATE {whole}")
    assert dump(cdf, "events") == []


def test_lists_that_catch_up_while_they_are_read(session, cdf):
    """Whatever a list shows from one page to the next, no row is returned twice, and every row has existed."""
    session.execute("INSERT INTO events (external_id) SELECT 'old' || n FROM generate_series(1, 2500) n")
    cdf.admin_post("lag", {"lists_ms": 600})
    session.execute("DELETE FROM events WHERE external_id IN (SELECT 'old' || n FROM generate_series(1, 1250) n)")
    session.execute("INSERT INTO events (external_id) SELECT 'new' || n FROM generate_series(1, 1250) n")
    for _ in range(20):
        found = [row[0] for row in session.execute("SELECT external_id FROM events").fetchall()]
        assert len(found) == len(set(found))
        assert {f"old{n}" for n in range(1251, 2501)} <= set(found)
    cdf.admin_post("lag", {})
    assert one(session, "SELECT count(*) FROM events") == 2500
