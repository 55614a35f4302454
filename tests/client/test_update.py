"""UPDATE, DELETE and TRUNCATE: read when the statement runs, written at COMMIT, in the order written."""

from __future__ import annotations

import pytest
from support import columns, dump, names, paths, points, refused, requests, stored


@pytest.fixture
def plant(session, cdf):
    session.execute("INSERT INTO data_sets (external_id, name) VALUES ('d1', 'D1'), ('d2', 'D2')")
    session.execute(
        "INSERT INTO events (external_id, type, description, metadata, data_set_external_id, start_time, end_time)"
        " SELECT 'e' || i, 'stop', 'number ' || i, '{\"k\": \"v\"}', 'd1', '2024-01-01', '2024-01-02'"
        " FROM generate_series(1, 5) i"
    )
    cdf.admin_delete("requests")
    return session


def test_update_by_key_changes_what_is_set(plant, cdf):
    assert plant.execute("UPDATE events SET description = 'new', metadata = NULL WHERE external_id = 'e1'").rowcount == 1
    assert paths(cdf).count("/events/byids") == 1 and "/events/update" in paths(cdf)
    e1 = stored(cdf, "events", "e1")
    assert e1["description"] == "new" and not e1.get("metadata") and e1["type"] == "stop"
    update = requests(cdf, "/events/update")[0]["body"]["items"][0]["update"]
    assert set(update) == {"description", "metadata"}


def test_update_of_an_unknown_key_counts_nothing(plant, cdf):
    assert plant.execute("UPDATE events SET description = 'new' WHERE external_id = 'nobody'").rowcount == 0
    assert "/events/update" not in paths(cdf)


def test_null_always_clears(plant, cdf):
    plant.execute("UPDATE events SET description = NULL, data_set_external_id = NULL, end_time = NULL WHERE external_id = 'e2'")
    e2 = stored(cdf, "events", "e2")
    assert not {"description", "dataSetId", "endTime"} & set(e2)


def test_update_of_a_reference(plant, cdf):
    plant.execute("UPDATE events SET data_set_external_id = 'd2' WHERE external_id IN ('e1', 'e2')")
    d2 = stored(cdf, "datasets", "d2")["id"]
    assert {stored(cdf, "events", e)["dataSetId"] for e in ("e1", "e2")} == {d2}
    with refused("23503", "nowhere", '"e1"'):
        plant.execute("UPDATE events SET data_set_external_id = 'nowhere' WHERE external_id = 'e1'")


def test_update_by_other_conditions_and_from(plant, cdf):
    assert plant.execute("UPDATE events SET subtype = 'x' || external_id WHERE description LIKE 'number%'").rowcount == 5
    assert stored(cdf, "events", "e3")["subtype"] == "xe3"
    plant.execute("CREATE TEMP TABLE staging AS SELECT 'e' || i AS key, 'from ' || i AS text FROM generate_series(4, 8) i")
    assert plant.execute("UPDATE events e SET description = s.text FROM staging s WHERE s.key = e.external_id").rowcount == 2
    assert stored(cdf, "events", "e4")["description"] == "from 4"
    assert plant.execute("DELETE FROM events e USING staging s WHERE s.key = e.external_id").rowcount == 2
    assert names(cdf, "events") == ["e1", "e2", "e3"]


def test_a_row_that_matches_twice_counts_once(plant, cdf):
    plant.execute("CREATE TEMP TABLE twice AS SELECT 'e1' AS key FROM generate_series(1, 3)")
    assert plant.execute("UPDATE events e SET description = 'once' FROM twice t WHERE t.key = e.external_id").rowcount == 1
    assert plant.execute("DELETE FROM events e USING twice t WHERE t.key = e.external_id").rowcount == 1


def test_returning(plant, cdf):
    assert plant.execute("UPDATE events SET type = 'go' WHERE external_id = 'e1' RETURNING external_id, type, description").fetchall() == [
        ("e1", "go", "number 1")
    ]
    assert plant.execute("DELETE FROM events WHERE external_id = 'e2' RETURNING external_id, description, metadata").fetchall() == [
        ("e2", "number 2", {"k": "v"})
    ]


def test_delete_by_key(plant, cdf):
    assert plant.execute("DELETE FROM events WHERE external_id = ANY (%s)", (["e1", "e3", "nobody"],)).rowcount == 2
    assert names(cdf, "events") == ["e2", "e4", "e5"]
    assert [p for p in paths(cdf) if p != "/datasets/byids"] == ["/events/byids", "/events/delete"]


def test_rollback_and_savepoints(plant, cdf):
    with plant.transaction(force_rollback=True):
        plant.execute("UPDATE events SET description = 'gone' WHERE type = 'stop'")
        plant.execute("DELETE FROM events WHERE external_id = 'e1'")
    assert "/events/update" not in paths(cdf) and len(names(cdf, "events")) == 5
    with plant.transaction():
        plant.execute("UPDATE events SET description = 'kept' WHERE external_id = 'e1'")
        with plant.transaction(force_rollback=True):
            plant.execute("DELETE FROM events WHERE external_id = 'e1'")
            plant.execute("UPDATE events SET description = 'lost' WHERE external_id = 'e2'")
    assert stored(cdf, "events", "e1")["description"] == "kept"
    assert stored(cdf, "events", "e2")["description"] == "number 2"


def test_in_the_order_written(plant, cdf):
    with plant.transaction():
        plant.execute("DELETE FROM events WHERE external_id = 'e1'")
        plant.execute("INSERT INTO events (external_id, type) VALUES ('e1', 'afresh'), ('e9', 'new')")
        plant.execute("UPDATE events SET subtype = 'u' WHERE external_id IN ('e1', 'e9', 'e2')")
        plant.execute("INSERT INTO events (external_id, source) VALUES ('e2', 's')")
        plant.execute("DELETE FROM events WHERE external_id IN ('e3', 'e9')")
    e1, e2 = stored(cdf, "events", "e1"), stored(cdf, "events", "e2")
    assert (e1["type"], e1["subtype"]) == ("afresh", "u") and "description" not in e1
    assert (e2["subtype"], e2["source"], e2["description"]) == ("u", "s", "number 2")
    assert names(cdf, "events") == ["e1", "e2", "e4", "e5"]


def test_many_rows_alternating_share_requests(plant, cdf):
    with plant.transaction():
        for i in range(200):
            plant.execute("DELETE FROM events WHERE external_id = %s", (f"e{i}",))
            plant.execute("INSERT INTO events (external_id, type) VALUES (%s, 'again')", (f"e{i}",))
    assert paths(cdf).count("/events/delete") <= 1 and paths(cdf).count("/events") == 2
    assert len(names(cdf, "events")) == 200


def test_renaming(plant, cdf):
    before = stored(cdf, "events", "e1")["id"]
    with plant.transaction():
        assert plant.execute("UPDATE events SET external_id = 'renamed' WHERE external_id = 'e1'").rowcount == 1
        assert plant.execute("SELECT id, type FROM events WHERE external_id = 'renamed'").fetchone() == (before, "stop")
        assert plant.execute("SELECT count(*) FROM events WHERE external_id = 'e1'").fetchone() == (0,)
        plant.execute("UPDATE events SET type = 'later' WHERE external_id = 'renamed'")
    renamed = stored(cdf, "events", "renamed")
    assert (renamed["id"], renamed["type"]) == (before, "later")


def test_what_cannot_be_cleared_or_changed(plant, cdf):
    plant.execute("INSERT INTO assets (external_id, name) VALUES ('a', 'A')")
    with refused("22004", "name"):
        plant.execute("UPDATE assets SET name = NULL WHERE external_id = 'a'")
    with refused("22023", "id"):
        plant.execute("UPDATE assets SET id = 5 WHERE external_id = 'a'")
    with refused("22001", "description", "500"):
        plant.execute("UPDATE assets SET description = repeat('x', 501) WHERE external_id = 'a'")
    with refused("22023", "created_time"):
        plant.execute("UPDATE assets SET created_time = now() WHERE external_id = 'a'")


def test_nothing_to_clear_is_no_change(plant, cdf, scratch):
    """As tools set every column of their staging table."""
    plant.execute("INSERT INTO assets (external_id, name, parent_external_id) VALUES ('root', 'Root', NULL), ('child', 'Child', 'root')")
    scratch.execute("CREATE TABLE staged (external_id text, name text, parent_external_id text)")
    scratch.execute("INSERT INTO staged VALUES ('root', 'New root', NULL), ('child', 'New child', 'root')")
    update = (
        "UPDATE assets a SET name = s.name, parent_external_id = s.parent_external_id, parent_id = NULL FROM scratch.staged s"
        " WHERE a.external_id = s.external_id"
    )
    with refused("22004", "parent", "child"):
        plant.execute(update)
    update = update.replace(", parent_id = NULL", "")
    assert plant.execute(update).rowcount == 2
    assert {key: stored(cdf, "assets", key)["name"] for key in ("root", "child")} == {"root": "New root", "child": "New child"}
    before = len(requests(cdf, "/assets/update"))
    assert plant.execute("UPDATE assets SET parent_external_id = NULL WHERE external_id = 'root'").rowcount == 1
    assert len(requests(cdf, "/assets/update")) == before
    with refused("22004", "parent_external_id"):
        plant.execute("UPDATE assets SET parent_external_id = NULL WHERE external_id IN ('root', 'child')")
    with plant.transaction():
        # Rows of the transaction's own count as well, and what a statement before has set.
        plant.execute("INSERT INTO assets (external_id, name) VALUES ('own', 'Own')")
        plant.execute("UPDATE assets SET name = 'Own one', parent_external_id = NULL WHERE external_id = 'own'")
    assert stored(cdf, "assets", "own")["name"] == "Own one"
    with refused("22004", "parent_external_id"):
        with plant.transaction():
            plant.execute("UPDATE assets SET parent_external_id = 'root' WHERE external_id = 'own'")
            plant.execute("UPDATE assets SET parent_external_id = NULL WHERE external_id = 'own'")
    assert "parentExternalId" not in stored(cdf, "assets", "own")


def test_nothing_to_clear_where_a_trigger_or_a_partition_is_in_between(plant, cdf, scratch):
    table = scratch.table("triggered", "external_id text, name text, parent_external_id text", "assets")
    scratch.execute("CREATE FUNCTION orphan() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN NEW.parent_external_id := NULL; RETURN NEW; END $$")
    scratch.execute("CREATE TRIGGER orphan BEFORE UPDATE ON triggered FOR EACH ROW EXECUTE FUNCTION orphan()")
    plant.execute("INSERT INTO assets (external_id, name, parent_external_id) VALUES ('root', 'Root', NULL), ('child', 'Child', 'root')")
    plant.execute(f"UPDATE {table} SET name = 'R' WHERE external_id = 'root'")
    assert stored(cdf, "assets", "root")["name"] == "R"
    with refused("22004", "parent_external_id"):
        plant.execute(f"UPDATE {table} SET name = 'C' WHERE external_id = 'child'")
    scratch.execute("CREATE TABLE parted (parent_external_id text, note text, name text, external_id text) PARTITION BY LIST (external_id)")
    scratch.execute("ALTER TABLE parted DROP COLUMN note")
    scratch.execute("CREATE FOREIGN TABLE parted_cdf (external_id text, name text, parent_external_id text) SERVER cdf OPTIONS (resource 'assets')")
    scratch.execute("ALTER TABLE parted ATTACH PARTITION parted_cdf DEFAULT")
    plant.execute("UPDATE scratch.parted SET parent_external_id = NULL, name = 'P' WHERE external_id = 'root'")
    assert stored(cdf, "assets", "root")["name"] == "P"
    with refused("22004", "parent_external_id"):
        plant.execute("UPDATE scratch.parted SET parent_external_id = NULL, name = 'P' WHERE external_id = 'child'")


def test_hierarchies_are_deleted_children_first(session, cdf):
    session.execute("INSERT INTO assets (external_id, name) VALUES ('root', 'Root')")
    session.execute(
        "INSERT INTO assets (external_id, name, parent_external_id)"
        " SELECT 'a' || i, 'A', CASE WHEN i = 1 THEN 'root' ELSE 'a' || i / 2 END FROM generate_series(1, 2500) i"
    )
    assert session.execute("DELETE FROM assets WHERE external_id <> 'root'").rowcount == 2500
    assert names(cdf, "assets") == ["root"]


def test_a_parent_is_not_deleted_from_under_its_children(session, cdf):
    session.execute("INSERT INTO assets (external_id, name, parent_external_id) VALUES ('p', 'P', NULL), ('c', 'C', 'p')")
    with refused("22023", '"p"', "children"):
        session.execute("DELETE FROM assets WHERE external_id = 'p'")
    with session.transaction():
        session.execute("INSERT INTO assets (external_id, name) VALUES ('root', 'Root')")
        session.execute("DELETE FROM assets WHERE external_id IN ('p', 'c')")
    assert names(cdf, "assets") == ["root"]


def test_delete_and_the_series_with_its_points(session, cdf):
    session.execute("INSERT INTO timeseries (external_id) VALUES ('t'), ('u')")
    session.execute("INSERT INTO datapoints (external_id, timestamp, value) SELECT 't', to_timestamp(i), i FROM generate_series(1, 10) i")
    with session.transaction():
        session.execute("INSERT INTO datapoints (external_id, timestamp, value) VALUES ('t', '2024-01-01', 1)")
        session.execute("DELETE FROM datapoints WHERE external_id = 't'")
        assert session.execute("DELETE FROM timeseries WHERE external_id = 't'").rowcount == 1
    assert names(cdf, "timeseries") == ["u"]


def test_points(session, cdf):
    session.execute("INSERT INTO timeseries (external_id) VALUES ('t')")
    session.execute("INSERT INTO datapoints (external_id, timestamp, value) SELECT 't', to_timestamp(i), i FROM generate_series(1, 10) i")
    assert session.execute("DELETE FROM datapoints WHERE external_id = 't' AND timestamp >= to_timestamp(3) AND timestamp < to_timestamp(6)").rowcount == 3
    assert [t for t, *_ in points(cdf, "t")] == [1000, 2000, 6000, 7000, 8000, 9000, 10000]
    assert session.execute("UPDATE datapoints SET value = -value WHERE external_id = 't' AND value > 8").rowcount == 2
    assert points(cdf, "t")[-2:] == [(9000, -9.0, None), (10000, -10.0, None)]
    assert session.execute("UPDATE datapoints SET timestamp = to_timestamp(20) WHERE external_id = 't' AND timestamp = to_timestamp(1)").rowcount == 1
    assert [t for t, *_ in points(cdf, "t")] == [2000, 6000, 7000, 8000, 9000, 10000, 20000]
    with session.transaction():
        session.execute("DELETE FROM datapoints WHERE external_id = 't'")
        session.execute("INSERT INTO datapoints (external_id, timestamp, value) VALUES ('t', to_timestamp(7), 77)")
        assert session.execute("SELECT value FROM datapoints WHERE external_id = 't'").fetchall() == [(77.0,)]
    assert points(cdf, "t") == [(7000, 77.0, None)]


def test_a_stretch_of_points_is_deleted_as_a_range(session, cdf):
    session.execute("INSERT INTO timeseries (external_id) VALUES ('t')")
    session.execute("INSERT INTO datapoints (external_id, timestamp, value) SELECT 't', to_timestamp(i), i FROM generate_series(1, 1000) i")
    statement = "DELETE FROM datapoints WHERE external_id = 't' AND timestamp >= to_timestamp(100) AND timestamp < to_timestamp(600)"
    assert session.execute(statement).rowcount == 500
    (entry,) = requests(cdf, "/timeseries/data/delete")
    assert entry["body"]["items"] == [{"externalId": "t", "inclusiveBegin": 100_000, "exclusiveEnd": 600_000}]
    assert len(points(cdf, "t")) == 500
    assert session.execute(statement).rowcount == 0


@pytest.fixture
def pumps(session, scratch, cdf, api):
    api.create_raw("db", "pumps", p1={"tag": "p1", "power": 1, "hidden": True}, p2={"tag": "p2", "power": 2})
    return scratch.table("pumps", "tag text, power int, vendor text", "raw_rows", database="db", table="pumps", primary_key="tag")


def test_raw_updates_keep_the_rest(session, pumps, cdf):
    assert session.execute(f"UPDATE {pumps} SET power = power + 10, vendor = 'v' WHERE tag = 'p1'").rowcount == 1
    assert columns(cdf, "p1") == {"tag": "p1", "power": 11, "hidden": True, "vendor": "v"}
    session.execute(f"UPDATE {pumps} SET vendor = NULL WHERE tag IS NOT NULL")
    assert columns(cdf, "p1") == {"tag": "p1", "power": 11, "hidden": True}
    with refused("0A000", "key"):
        session.execute(f"UPDATE {pumps} SET tag = 'p3' WHERE tag = 'p1'")
    assert session.execute(f"DELETE FROM {pumps} WHERE power > 10").rowcount == 1
    assert names(cdf, "raw") == ["p2"]


def test_raw_within_a_transaction(session, pumps, cdf):
    with session.transaction():
        session.execute(f"INSERT INTO {pumps} VALUES ('p3', 3, 'x')")
        assert session.execute(f"UPDATE {pumps} SET power = 30 WHERE tag = 'p3'").rowcount == 1
        assert session.execute(f"UPDATE {pumps} SET vendor = 'y' WHERE tag = 'p3'").rowcount == 1
        session.execute(f"DELETE FROM {pumps} WHERE tag = 'p1'")
        assert session.execute(f"SELECT * FROM {pumps} ORDER BY tag").fetchall() == [("p2", 2, None), ("p3", 30, "y")]
    assert columns(cdf, "p3") == {"tag": "p3", "power": 30, "vendor": "y"}
    assert names(cdf, "raw") == ["p2", "p3"]


def test_generic_raw_rows(session, cdf, api):
    api.create_raw("db", "t", a={"x": 1}, b={"x": 2})
    assert session.execute("UPDATE raw_rows SET columns = '{\"y\": 5}' WHERE db_name = 'db' AND table_name = 't' AND key = 'a'").rowcount == 1
    assert session.execute("UPDATE raw_rows SET key = 'c' WHERE db_name = 'db' AND key = 'b'").rowcount == 1
    assert names(cdf, "raw") == ["a", "c"] and columns(cdf, "a") == {"y": 5} and columns(cdf, "c") == {"x": 2}
    assert session.execute("DELETE FROM raw_rows WHERE db_name = 'db'").rowcount == 2
    assert names(cdf, "raw") == []


def test_insert_only_tables_and_resources(session, scratch, cdf):
    table = scratch.table("fixed", "external_id text, type text", "events", updatable="false")
    session.execute(f"INSERT INTO {table} VALUES ('e', 't')")
    for statement in (f"UPDATE {table} SET type = 'x'", f"DELETE FROM {table}"):
        with refused("0A000", "updatable"):
            session.execute(statement)
    with refused("0A000", "data sets"):
        session.execute("DELETE FROM data_sets")
    with refused("0A000", "labels"):
        session.execute("UPDATE labels SET name = 'x'")


def test_truncate(session, scratch, cdf):
    session.execute("INSERT INTO events (external_id) SELECT 'e' || i FROM generate_series(1, 2100) i")
    with scratch._connection.cursor() as superuser:
        superuser.execute("GRANT TRUNCATE ON events TO PUBLIC")
    with refused("0A000", "truncatable"):
        session.execute("TRUNCATE events")
    table = scratch.table("all_events", "id bigint, external_id text", "events", truncatable="true")
    with session.transaction(force_rollback=True):
        session.execute(f"TRUNCATE {table}")
        assert session.execute("SELECT count(*) FROM events").fetchone() == (0,)
    assert len(names(cdf, "events")) == 2100
    with session.transaction():
        session.execute("INSERT INTO events (external_id) VALUES ('before')")
        session.execute(f"TRUNCATE {table}")
        session.execute("INSERT INTO events (external_id) VALUES ('after')")
    assert names(cdf, "events") == ["after"]


def test_truncate_of_points_takes_one_range_per_series(session, scratch, cdf):
    session.execute("INSERT INTO timeseries (external_id, is_string) VALUES ('a', false), ('b', false), ('s', true)")
    session.execute("INSERT INTO datapoints (external_id, timestamp, value) SELECT s, to_timestamp(i), i FROM generate_series(1, 50) i, unnest('{a,b}'::text[]) s")
    session.execute("INSERT INTO string_datapoints (external_id, timestamp, value) VALUES ('s', '1950-01-01', 'x')")
    table = scratch.table("numbers", 'external_id text, "timestamp" timestamptz, value float8', "datapoints", truncatable="true")
    session.execute(f"TRUNCATE {table}")
    assert points(cdf, "a") == points(cdf, "b") == [] and len(points(cdf, "s")) == 1
    (entry,) = requests(cdf, "/timeseries/data/delete")
    assert entry["items"] == 2


def test_an_update_that_moves_rows_between_partitions(session, scratch, cdf):
    scratch.execute("CREATE TABLE parted (external_id text, type text) PARTITION BY LIST (type)")
    for kind in ("a", "b"):
        scratch.execute(
            f"CREATE FOREIGN TABLE parted_{kind} PARTITION OF parted FOR VALUES IN ('{kind}')"
            " SERVER cdf OPTIONS (resource 'events')"
        )
    session.execute("INSERT INTO scratch.parted VALUES ('e1', 'a'), ('e2', 'a')")
    statement = "UPDATE scratch.parted_a SET external_id = external_id WHERE external_id = 'e1'"
    assert session.execute(statement).rowcount == 1
    assert session.execute("DELETE FROM scratch.parted_a WHERE external_id = 'e1' AND type = 'a'").rowcount == 1
    assert names(cdf, "events") == ["e2"]


def test_a_hierarchy_of_100_000_in_any_order(session, cdf):
    """Written in random order, parents in CDF already and in the same transaction, then moved and deleted."""
    session.execute("INSERT INTO assets (external_id, name) VALUES ('root', 'Root')")
    rows = session.execute(
        "INSERT INTO assets (external_id, name, parent_external_id)"
        " SELECT 'a' || i, 'A', CASE WHEN i <= 10 THEN 'root' ELSE 'a' || i / 10 END"
        " FROM generate_series(1, 100000) i ORDER BY hashint4(i)"
    )
    assert rows.rowcount == 100_000
    stored_assets = {item["externalId"]: item for item in dump(cdf, "assets")}
    assert len(stored_assets) == 100_001
    assert {item["rootId"] for item in stored_assets.values()} == {stored_assets["root"]["id"]}
    assert all(stored_assets[f"a{i}"]["parentExternalId"] == f"a{i // 10}" for i in range(11, 100_001, 997))
    assert session.execute("DELETE FROM assets WHERE name IS NOT NULL").rowcount == 100_001
    assert names(cdf, "assets") == []


def test_sequences_and_their_rows(session, cdf):
    session.execute(
        "INSERT INTO sequences (external_id, name, columns) VALUES"
        ' (\'s\', \'S\', \'[{"externalId": "a", "valueType": "LONG"}, {"externalId": "b", "valueType": "STRING"}]\')'
    )
    session.execute("INSERT INTO sequence_rows (external_id, row_number, columns) SELECT 's', i, jsonb_build_object('a', i, 'b', 'x') FROM generate_series(0, 9) i")
    assert session.execute("UPDATE sequence_rows SET columns = '{\"a\": 77}' WHERE external_id = 's' AND row_number = 3").rowcount == 1
    assert session.execute("DELETE FROM sequence_rows WHERE external_id = 's' AND row_number >= 5").rowcount == 5
    rows = session.execute("SELECT row_number, columns FROM sequence_rows WHERE external_id = 's' ORDER BY row_number").fetchall()
    assert [number for number, _ in rows] == [0, 1, 2, 3, 4]
    assert rows[3][1]["a"] == 77 and rows[3][1].get("b") is None
    with session.transaction():
        session.execute("DELETE FROM sequence_rows WHERE row_number = 0")
        session.execute("INSERT INTO sequence_rows (external_id, row_number, columns) VALUES ('s', 1, '{\"b\": \"y\"}'), ('s', 20, '{\"a\": 20}')")
        seen = dict(session.execute("SELECT row_number, columns FROM sequence_rows").fetchall())
        assert set(seen) == {1, 2, 3, 4, 20} and seen[1] == {"a": 1, "b": "y"}
    assert session.execute("UPDATE sequences SET description = 'd' WHERE external_id = 's'").rowcount == 1
    assert session.execute("DELETE FROM sequences WHERE external_id = 's'").rowcount == 1
    assert session.execute("SELECT count(*) FROM sequence_rows").fetchone() == (0,)


def test_relationships_and_files(session, cdf):
    session.execute(
        "INSERT INTO relationships (external_id, source_external_id, source_type, target_external_id, target_type, confidence)"
        " VALUES ('r1', 'a', 'asset', 'b', 'asset', 0.5), ('r2', 'a', 'asset', 'c', 'asset', 0.5)"
    )
    assert session.execute("UPDATE relationships SET confidence = NULL WHERE external_id = 'r1'").rowcount == 1
    assert "confidence" not in stored(cdf, "relationships", "r1")
    assert session.execute("DELETE FROM relationships WHERE external_id = 'r2'").rowcount == 1
    session.execute("INSERT INTO files (external_id, name) VALUES ('f1', 'F'), ('f2', 'F')")
    assert session.execute("UPDATE files SET source = 's' WHERE name = 'F'").rowcount == 2
    with refused("22023", "name"):
        session.execute("UPDATE files SET name = 'other' WHERE external_id = 'f1'")
    assert session.execute("DELETE FROM files WHERE external_id = 'f1'").rowcount == 1
    assert names(cdf, "files") == ["f2"] and names(cdf, "relationships") == ["r1"]
@pytest.mark.parametrize("change", ["UPDATE {} SET power = 2 FROM matching WHERE", "DELETE FROM {} USING matching WHERE"])
def test_rows_that_match_often_are_known_exactly_within_the_memory(session, scratch, api, cdf, gateway, cluster, change):
    """What a joining statement has changed is in the buffer's memory, and beyond its part of that in a temporary file."""
    count = 2000
    keys = [f"{i:05}" + "x" * 200 for i in range(count)]
    api.create_raw("db", "t", **{key: {"power": 1} for key in keys})
    table = scratch.table("rows", "key text, power int", "raw_rows", database="db", table="t")
    session.execute(f"CREATE TEMP TABLE matching AS SELECT key, n FROM {table}, generate_series(1, 3) n")
    session.execute("SET cdf_fdw.buffer_memory = '1MB'")
    notices = []
    session.add_notice_handler(lambda notice: notices.append(notice.message_primary))
    statement = change.format(f"{table} r") + " r.key = matching.key"
    with cluster.connect() as superuser:
        superuser.execute(f"ALTER ROLE {gateway.username} SET temp_file_limit = 0")
        try:
            with gateway.connect(autocommit=True) as limited:
                limited.execute("SET work_mem = '64MB'")
                limited.execute("SET cdf_fdw.buffer_memory = '1MB'")
                limited.execute(f"CREATE TEMP TABLE matching AS SELECT key, n FROM {table}, generate_series(1, 3) n")
                with refused("53400", "temp_file_limit"):
                    limited.execute(statement)
        finally:
            superuser.execute(f"ALTER ROLE {gateway.username} RESET temp_file_limit")
    with session.transaction():
        # One that ends with an error leaves nothing behind.
        with refused("22012"), session.transaction():
            session.execute(statement + " AND 1 / (1500 - (substr(r.key, 1, 5))::int) < 2")
        assert session.execute(statement).rowcount == count
        assert session.execute(statement).rowcount == (count if change.startswith("UPDATE") else 0)
    left = [row["columns"].get("power") for row in dump(cdf, "raw")]
    assert left == ([2] * count if change.startswith("UPDATE") else [])
    assert notices == []
