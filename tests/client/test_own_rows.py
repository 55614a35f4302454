"""Rows that a transaction has written are visible to its own SELECT, UPDATE and DELETE."""

from __future__ import annotations

from support import columns, dump, names, points, refused, stored


def test_inserted_rows_are_seen_by_key_and_by_scan(session, cdf):
    session.execute("INSERT INTO events (external_id, type) VALUES ('old', 'stop')")
    with session.transaction():
        session.execute("INSERT INTO events (external_id, type, metadata, start_time) VALUES ('new', 'go', '{\"n\": 1}', '2024-01-01')")
        session.execute("INSERT INTO events (type) VALUES ('unnamed')")
        assert session.execute("SELECT type, metadata, start_time::text FROM events WHERE external_id = 'new'").fetchall() == [
            ("go", {"n": "1"}, "2024-01-01 00:00:00+00")
        ]
        assert session.execute("SELECT type FROM events ORDER BY type").fetchall() == [("go",), ("stop",), ("unnamed",)]
        assert session.execute("SELECT count(*) FROM events WHERE external_id = ANY ('{old,new,none}')").fetchone() == (2,)
    assert session.execute("SELECT count(*) FROM events").fetchone() == (3,)


def test_changes_go_over_what_cdf_has(session, cdf):
    session.execute("INSERT INTO events (external_id, type, subtype) VALUES ('e', 'a', 'b')")
    with session.transaction():
        session.execute("INSERT INTO events (external_id, subtype) VALUES ('e', 'c')")
        assert session.execute("SELECT type, subtype FROM events WHERE external_id = 'e'").fetchone() == ("a", "c")
        session.execute("UPDATE events SET type = NULL WHERE external_id = 'e'")
        assert session.execute("SELECT type, subtype FROM events").fetchone() == (None, "c")
        session.execute("DELETE FROM events WHERE external_id = 'e'")
        assert session.execute("SELECT * FROM events").fetchall() == []
        assert session.execute("DELETE FROM events WHERE external_id = 'e'").rowcount == 0
        session.execute("INSERT INTO events (external_id, source) VALUES ('e', 's')")
        assert session.execute("SELECT type, subtype, source FROM events").fetchone() == (None, None, "s")
    e = stored(cdf, "events", "e")
    assert e["source"] == "s" and "subtype" not in e


def test_savepoints(session, cdf):
    with session.transaction():
        session.execute("INSERT INTO events (external_id, type) VALUES ('e', 'a')")
        with session.transaction(force_rollback=True):
            session.execute("UPDATE events SET type = 'b' WHERE external_id = 'e'")
            assert session.execute("SELECT type FROM events").fetchone() == ("b",)
        assert session.execute("SELECT type FROM events").fetchone() == ("a",)


def test_staging_patterns(session, cdf):
    session.execute("INSERT INTO assets (external_id, name) SELECT 'a' || i, 'A' FROM generate_series(1, 3) i")
    session.execute("CREATE TEMP TABLE staging AS SELECT 'a' || i AS key, 'N' || i AS name FROM generate_series(2, 6) i")
    with session.transaction():
        missing = (
            "INSERT INTO assets (external_id, name) SELECT s.key, s.name FROM staging s"
            " LEFT JOIN assets a ON a.external_id = s.key WHERE a.external_id IS NULL"
        )
        assert session.execute(missing).rowcount == 3
        assert session.execute(missing).rowcount == 0
        assert session.execute("UPDATE assets a SET description = s.name FROM staging s WHERE s.key = a.external_id").rowcount == 5
        assert session.execute("DELETE FROM assets a WHERE EXISTS (SELECT FROM staging s WHERE s.key = a.external_id AND s.name > 'N4')").rowcount == 2
        assert session.execute("SELECT count(*) FROM assets").fetchone() == (4,)
    assert names(cdf, "assets") == ["a1", "a2", "a3", "a4"]
    assert stored(cdf, "assets", "a4")["description"] == "N4"


def test_references_show_as_written(session, cdf):
    with session.transaction(force_rollback=True):
        session.execute("INSERT INTO data_sets (external_id, name) VALUES ('d', 'D')")
        session.execute("INSERT INTO assets (external_id, name, data_set_external_id, parent_external_id, labels) VALUES ('a', 'A', 'd', 'p', '{l}')")
        assert session.execute("SELECT data_set_external_id, parent_external_id, labels FROM assets").fetchone() == ("d", "p", ["l"])


def test_raw_rows_and_new_tables(session, scratch, cdf):
    table = scratch.table("t", "key text, n int", "raw_rows", database="d", table="t")
    with session.transaction():
        session.execute(f"INSERT INTO {table} VALUES ('a', 1), ('b', 2)")
        assert session.execute(f"SELECT * FROM {table} ORDER BY key").fetchall() == [("a", 1), ("b", 2)]
        assert session.execute(f"SELECT n FROM {table} WHERE key = 'b'").fetchall() == [(2,)]
        assert session.execute("SELECT db_name, table_name, key, columns FROM raw_rows WHERE key = 'a'").fetchall() == [("d", "t", "a", {"n": 1})]
        session.execute(f"DELETE FROM {table} WHERE key = 'a'")
        assert session.execute(f"SELECT count(*) FROM {table}").fetchone() == (1,)


def test_points_of_series_old_and_new(session, cdf):
    session.execute("INSERT INTO timeseries (external_id) VALUES ('old')")
    session.execute("INSERT INTO datapoints (external_id, timestamp, value) SELECT 'old', to_timestamp(i), i FROM generate_series(1, 5) i")
    query = "SELECT extract(epoch FROM timestamp)::int, value, status_symbol FROM datapoints WHERE external_id = %s ORDER BY 1"
    with session.transaction():
        session.execute("INSERT INTO datapoints (external_id, timestamp, value, status_symbol) VALUES ('old', to_timestamp(2), 22, 'Uncertain'), ('old', to_timestamp(9), 9, NULL), ('new', to_timestamp(1), 1, NULL)")
        session.execute("DELETE FROM datapoints WHERE external_id = 'old' AND timestamp BETWEEN to_timestamp(3) AND to_timestamp(4)")
        assert session.execute(query, ("old",)).fetchall() == [(1, 1.0, "Good"), (2, 22.0, "Uncertain"), (5, 5.0, "Good"), (9, 9.0, "Good")]
        assert session.execute(query, ("new",)).fetchall() == [(1, 1.0, "Good")]
        assert session.execute("SELECT count(*) FROM datapoints").fetchone() == (5,)
        session.execute("INSERT INTO timeseries (external_id) VALUES ('new')")
    assert [t for t, *_ in points(cdf, "old")] == [1000, 2000, 5000, 9000]


def test_rows_in_temporary_files_are_seen(session, cdf):
    session.execute("SET cdf_fdw.buffer_memory = '1MB'")
    with session.transaction():
        session.execute("INSERT INTO events (external_id, description) SELECT 'e' || i, repeat('x', 400) FROM generate_series(1, 20000) i")
        assert session.execute("SELECT count(*), sum(length(description)) FROM events").fetchone() == (20000, 8_000_000)
        assert session.execute("SELECT count(*) FROM events WHERE external_id IN ('e7', 'e19999', 'e20001')").fetchone() == (2,)
        session.execute("DELETE FROM events WHERE external_id IS NOT NULL")
        assert session.execute("SELECT count(*) FROM events").fetchone() == (0,)
    assert dump(cdf, "events") == []


# ---- ON CONFLICT with columns ----


def test_on_conflict_do_update_of_some_columns(session, cdf):
    session.execute("INSERT INTO events (external_id, type, subtype) VALUES ('e', 'a', 'b')")
    statement = (
        "INSERT INTO events (external_id, type, subtype) VALUES ('e', 'new', 'new'), ('f', 'fresh', 'fresh')"
        " ON CONFLICT (external_id) DO UPDATE SET type = EXCLUDED.type"
    )
    for _ in range(2):
        session.execute(statement)
    e, f = stored(cdf, "events", "e"), stored(cdf, "events", "f")
    assert (e["type"], e["subtype"], f["type"], f["subtype"]) == ("new", "b", "fresh", "fresh")
    with session.transaction():
        session.execute("INSERT INTO events (external_id, type, subtype) VALUES ('g', '1', '1')")
        session.execute(
            "INSERT INTO events (external_id, type, subtype) VALUES ('g', '2', '2') ON CONFLICT (external_id) DO UPDATE SET subtype = EXCLUDED.subtype"
        )
        assert session.execute("SELECT type, subtype FROM events WHERE external_id = 'g'").fetchone() == ("1", "2")
    g = stored(cdf, "events", "g")
    assert (g["type"], g["subtype"]) == ("1", "2")


def test_on_conflict_do_nothing_with_the_key(session, cdf):
    session.execute("INSERT INTO events (external_id, type) VALUES ('e', 'a')")
    session.execute("INSERT INTO events (external_id, type) VALUES ('e', 'b'), ('f', 'b') ON CONFLICT (external_id) DO NOTHING")
    assert stored(cdf, "events", "e")["type"] == "a" and stored(cdf, "events", "f")["type"] == "b"


def test_on_conflict_of_references(session, cdf):
    session.execute("INSERT INTO data_sets (external_id, name) VALUES ('d1', 'D'), ('d2', 'D')")
    session.execute("INSERT INTO events (external_id, type, data_set_external_id) VALUES ('e', 'a', 'd1')")
    session.execute(
        "INSERT INTO events (external_id, type, data_set_external_id) VALUES ('e', 'b', 'd2')"
        " ON CONFLICT (external_id) DO UPDATE SET data_set_external_id = EXCLUDED.data_set_external_id"
    )
    e = stored(cdf, "events", "e")
    assert e["type"] == "a" and e["dataSetId"] == stored(cdf, "datasets", "d2")["id"]


def test_on_conflict_of_raw_rows(session, scratch, cdf, api):
    api.create_raw("d", "t", a={"n": 1, "m": 1, "hidden": 1})
    table = scratch.table("t", "key text, n int, m int", "raw_rows", database="d", table="t")
    session.execute(f"INSERT INTO {table} VALUES ('a', 2, 2), ('b', 2, 2) ON CONFLICT (key) DO UPDATE SET n = EXCLUDED.n")
    assert columns(cdf, "a") == {"n": 2, "m": 1, "hidden": 1} and columns(cdf, "b") == {"n": 2, "m": 2}
    session.execute(f"INSERT INTO {table} VALUES ('a', 3, 3), ('c', 3, 3) ON CONFLICT (key) DO NOTHING")
    assert columns(cdf, "a") == {"n": 2, "m": 1, "hidden": 1} and columns(cdf, "c") == {"n": 3, "m": 3}
    strict = scratch.table("strict", "key text, n int", "raw_rows", database="d", table="t", on_conflict="error")
    with refused("23505", '"a"'):
        session.execute(f"INSERT INTO {strict} VALUES ('a', 4), ('d', 4)")
    session.execute(f"INSERT INTO {strict} VALUES ('e', 4)")
    assert names(cdf, "raw") == ["a", "b", "c", "e"]


def test_on_conflict_of_points(session, cdf):
    session.execute("INSERT INTO timeseries (external_id) VALUES ('t')")
    session.execute("INSERT INTO datapoints (external_id, timestamp, value) VALUES ('t', to_timestamp(1), 1)")
    session.execute(
        "INSERT INTO datapoints (external_id, timestamp, value) VALUES ('t', to_timestamp(1), 2), ('t', to_timestamp(2), 2)"
        ' ON CONFLICT (external_id, "timestamp") DO UPDATE SET value = EXCLUDED.value'
    )
    assert points(cdf, "t") == [(1000, 2.0, None), (2000, 2.0, None)]
    session.execute(
        "INSERT INTO datapoints (external_id, timestamp, value) VALUES ('t', to_timestamp(1), 3), ('t', to_timestamp(3), 3)"
        ' ON CONFLICT (external_id, "timestamp") DO NOTHING'
    )
    assert points(cdf, "t") == [(1000, 2.0, None), (2000, 2.0, None), (3000, 3.0, None)]


def test_other_targets_and_expressions_are_refused(session, cdf):
    with refused("42P10"):
        session.execute("INSERT INTO events (external_id, type) VALUES ('e', 'a') ON CONFLICT (type) DO NOTHING")
    with refused("0A000", "EXCLUDED"):
        session.execute("INSERT INTO events (external_id, type) VALUES ('e', 'a') ON CONFLICT (external_id) DO UPDATE SET type = upper(EXCLUDED.type)")
    with refused("0A000", "WHERE"):
        session.execute(
            "INSERT INTO events (external_id, type) VALUES ('e', 'a') ON CONFLICT (external_id) DO UPDATE SET type = EXCLUDED.type WHERE events.type = 'b'"
        )
    assert dump(cdf, "events") == []


def test_a_statement_does_not_see_what_it_writes(session, cdf):
    """The last row of a key wins, whether PostgreSQL looks the keys up one by one or reads the table once."""
    session.execute("CREATE TEMP TABLE twice AS SELECT 'e' || i % 3 AS key, 't' || i AS type FROM generate_series(0, 5) i")
    missing = (
        "INSERT INTO events (external_id, type) SELECT s.key, s.type FROM twice s"
        " LEFT JOIN LATERAL (SELECT external_id FROM events WHERE external_id = s.key OFFSET 0) e ON true WHERE e.external_id IS NULL"
    )
    for before in (False, True):
        with session.transaction():
            if before:
                session.execute("INSERT INTO events (external_id, type) VALUES ('e1', 'old'), ('f', 'old')")
            assert session.execute(missing).rowcount == (4 if before else 6)
            session.execute("UPDATE events SET subtype = 's' WHERE external_id = 'e2'")
            found = dict(session.execute("SELECT external_id, type FROM events").fetchall())
            assert found == {"e0": "t3", "e1": "old" if before else "t4", "e2": "t5"} | ({"f": "old"} if before else {})
        assert {e["externalId"]: e["type"] for e in dump(cdf, "events")} == found
        session.execute("DELETE FROM events WHERE external_id IS NOT NULL")


def test_many_look_ups_by_key_in_what_was_written(session, cdf):
    with session.transaction():
        session.execute("INSERT INTO events (external_id, type) SELECT 'e' || i, 't' || i FROM generate_series(1, 5000) i")
        session.execute("SAVEPOINT s")
        session.execute("INSERT INTO events (external_id, type) SELECT 'e' || i, 'u' || i FROM generate_series(4000, 7000) i")
        for at, kind in ((1, "t"), (999, "t"), (3999, "t"), (4000, "u"), (7000, "u")):
            assert session.execute("SELECT type FROM events WHERE external_id = %s", (f"e{at}",)).fetchall() == [(f"{kind}{at}",)]
        assert session.execute("SELECT type FROM events WHERE external_id = 'e7001'").fetchall() == []
