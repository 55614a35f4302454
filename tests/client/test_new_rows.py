"""INSERT … ON CONFLICT … DO NOTHING counts and returns the rows that are new, and asks for them by the thousand."""

from __future__ import annotations

import pytest
from support import columns, dump, names, paths, points, refused, requests, stored
from test_views import create_view

NOTHING = "ON CONFLICT DO NOTHING"


@pytest.fixture
def filled(session, cdf):
    session.execute("INSERT INTO events (external_id, type) SELECT 'e' || i, 'old' FROM generate_series(1, 3) i")
    cdf.admin_delete("requests")
    return session


def kinds(cdf) -> dict[str, str]:
    return {event["externalId"]: event["type"] for event in dump(cdf, "events")}


def test_one_row(filled, cdf):
    insert = "INSERT INTO events (external_id, type) VALUES (%s, 'new') ON CONFLICT (external_id) DO NOTHING"
    assert filled.execute(insert, ("e1",)).rowcount == 0
    assert paths(cdf) == ["/events/byids"]
    assert filled.execute(insert, ("e4",)).rowcount == 1
    assert paths(cdf)[1:] == ["/events/byids", "/events"]
    assert filled.execute(f"{insert} RETURNING external_id, type", ("e1",)).fetchall() == []
    assert filled.execute(f"{insert} RETURNING external_id, type", ("e5",)).fetchall() == [("e5", "new")]
    assert kinds(cdf) == {"e1": "old", "e2": "old", "e3": "old", "e4": "new", "e5": "new"}


def test_several_rows(filled, cdf):
    insert = f"INSERT INTO events (external_id, type) VALUES ('e1', 'new'), ('e9', 'new'), ('e9', 'twice'), ('e2', 'new') {NOTHING}"
    assert filled.execute(insert).rowcount == 1
    assert paths(cdf) == ["/events/byids", "/events"]
    assert kinds(cdf) == {"e1": "old", "e2": "old", "e3": "old", "e9": "new"}


def test_values_with_returning_ask_once(filled, cdf):
    insert = f"INSERT INTO events (external_id, type) VALUES ('e1', 'a'), (%s, upper(%s)), ('n1', 'c'), ('n2', 'd'), ('e3', 'e') {NOTHING} RETURNING external_id, type"
    assert filled.execute(insert, ("n1", "b")).fetchall() == [("n1", "B"), ("n2", "d")]
    assert paths(cdf) == ["/events/byids", "/events"]
    assert kinds(cdf) == {"e1": "old", "e2": "old", "e3": "old", "n1": "B", "n2": "d"}
    assert filled.execute(insert, ("n1", "b")).fetchall() == []


def test_prepared_values_with_returning(filled, cdf):
    filled.execute("SET plan_cache_mode = force_generic_plan")
    filled.execute(f"PREPARE put (text, text) AS INSERT INTO events (external_id) VALUES ($1), ($2) {NOTHING} RETURNING external_id")
    for keys, wanted in ((("e1", "x"), ["x"]), (("x", "y"), ["y"]), (("z", "z"), ["z"])):
        assert [key for (key,) in filled.execute("EXECUTE put ('{}', '{}')".format(*keys)).fetchall()] == wanted
    filled.execute("DEALLOCATE put")


def test_thousands_of_rows_take_a_request_for_each_thousand(filled, cdf):
    insert = f"INSERT INTO events (external_id, type) SELECT 'e' || i, 'new' FROM generate_series(1, 4500) i {NOTHING}"
    assert filled.execute(insert).rowcount == 4497
    asked = requests(cdf, "/events/byids")
    assert len(asked) == 5 and sum(entry["items"] for entry in asked) == 4500
    assert sum(kind == "old" for kind in kinds(cdf).values()) == 3
    assert filled.execute(insert).rowcount == 0


def test_a_key_again_in_another_batch(filled, cdf):
    insert = f"INSERT INTO events (external_id, type) SELECT 'k' || i % 1500, 'n' || i FROM generate_series(0, 3999) i {NOTHING}"
    assert filled.execute(insert).rowcount == 1500
    assert kinds(cdf)["k0"] == "n0" and kinds(cdf)["k1499"] == "n1499"


def test_what_the_transaction_has_written_counts(filled, cdf):
    with filled.transaction():
        filled.execute("INSERT INTO events (external_id, type) VALUES ('mine', 'first')")
        filled.execute("DELETE FROM events WHERE external_id = 'e1'")
        insert = f"INSERT INTO events (external_id, type) VALUES ('mine', 'again'), ('e1', 'afresh'), ('e2', 'again') {NOTHING}"
        assert filled.execute(insert).rowcount == 1
        assert filled.execute(insert + " RETURNING external_id").fetchall() == []
        with filled.transaction(force_rollback=True):
            assert filled.execute(f"INSERT INTO events (external_id) VALUES ('gone') {NOTHING}").rowcount == 1
        assert filled.execute(f"INSERT INTO events (external_id, type) VALUES ('gone', 'kept') {NOTHING}").rowcount == 1
    assert kinds(cdf) == {"mine": "first", "e1": "afresh", "e2": "old", "e3": "old", "gone": "kept"}


def test_what_others_have_written_since_stays(filled, cdf, api):
    with filled.transaction():
        assert filled.execute(f"INSERT INTO events (external_id, type) VALUES ('race', 'mine') {NOTHING}").rowcount == 1
        api.create("events", "race", type="theirs")
    assert kinds(cdf)["race"] == "theirs"


def test_rows_without_a_key_are_new(filled, cdf):
    assert filled.execute(f"INSERT INTO events (type) VALUES ('a'), ('a') {NOTHING}").rowcount == 2
    assert "/events/byids" not in paths(cdf)


def test_rows_by_id(filled, cdf):
    known = stored(cdf, "events", "e1")["id"]
    assert filled.execute(f"INSERT INTO events (id, type) VALUES (%s, 'new') {NOTHING}", (known,)).rowcount == 0
    assert filled.execute(f"INSERT INTO events (id, type) VALUES (%s, 'new'), (%s, 'new') {NOTHING}", (known, known)).rowcount == 0
    assert kinds(cdf)["e1"] == "old"


def test_points(session, cdf, api):
    api.create("timeseries", "a", "b")
    session.execute("INSERT INTO datapoints (external_id, timestamp, value) SELECT 'a', to_timestamp(i), 0 FROM generate_series(1, 10) i")
    insert = "INSERT INTO datapoints (external_id, timestamp, value) VALUES"
    assert session.execute(f"{insert} ('a', to_timestamp(3), 9) {NOTHING}").rowcount == 0
    assert session.execute(f"{insert} ('a', to_timestamp(11), 9) ON CONFLICT (external_id, timestamp) DO NOTHING").rowcount == 1
    cdf.admin_delete("requests")
    many = (
        "INSERT INTO datapoints (external_id, timestamp, value)"
        f" SELECT s, to_timestamp(i), 9 FROM generate_series(1, 2000) i, unnest('{{a,b}}'::text[]) s {NOTHING}"
    )
    assert session.execute(many).rowcount == 3989
    assert len(requests(cdf, "/timeseries/data/list")) <= 4 + 1
    assert [value for _, value, _ in points(cdf, "a")][:12] == [0] * 10 + [9, 9]
    assert session.execute(many).rowcount == 0


def test_raw_rows(session, scratch, cdf, api):
    api.create_raw("d", "t", a={"n": 1}, b={"n": 2})
    api.create_raw("d", "other", c={"n": 1})
    table = scratch.table("typed", "key text, n int", "raw_rows", database="d", table="t")
    cdf.admin_delete("requests")
    assert session.execute(f"INSERT INTO {table} VALUES ('a', 9) {NOTHING}").rowcount == 0
    assert session.execute(f"INSERT INTO {table} VALUES ('c', 9) {NOTHING}").rowcount == 1
    cdf.admin_delete("requests")
    assert session.execute(f"INSERT INTO {table} SELECT unnest('{{a,b,c,x,y,y}}'::text[]), 9 {NOTHING}").rowcount == 2
    assert [entry["method"] for entry in requests(cdf)][0] == "GET" and len([p for p in paths(cdf) if p.endswith("/rows")]) <= 3
    rows = "('d', 't', 'a', '{}'), ('d', 'other', 'c', '{}'), ('d', 'other', 'a', '{}'), ('e', 't', 'a', '{}')"
    insert = f"INSERT INTO raw_rows (db_name, table_name, key, columns) VALUES {rows} {NOTHING}"
    assert session.execute(insert).rowcount == 2
    assert session.execute(insert + " RETURNING key").fetchall() == []
    assert columns(cdf, "x") == {"n": 9} and len(names(cdf, "raw")) == 8


def test_many_raw_rows(session, scratch, cdf):
    table = scratch.table("typed", "key text, n int", "raw_rows", database="d", table="t")
    session.execute(f"INSERT INTO {table} SELECT 'k' || i, 1 FROM generate_series(1, 25000) i")
    cdf.admin_delete("requests")
    insert = f"INSERT INTO {table} SELECT 'k' || i, 2 FROM generate_series(24991, 25010) i {NOTHING}"
    with session.transaction(force_rollback=True):
        assert session.execute(insert).rowcount == 10
        # Not row by row, unless that is less than the rest of the table.
        assert len(requests(cdf)) <= 2 + 20


def test_sequence_rows(session, cdf):
    session.execute("INSERT INTO sequences (external_id, columns) VALUES ('s', '[{\"externalId\": \"a\"}]'), ('t', '[{\"externalId\": \"a\"}]')")
    session.execute("INSERT INTO sequence_rows (external_id, row_number, columns) SELECT 's', i, '{\"a\": 1}' FROM generate_series(0, 4) i")
    insert = "INSERT INTO sequence_rows (external_id, row_number, columns) VALUES"
    assert session.execute(f"{insert} ('s', 4, '{{\"a\": 2}}') {NOTHING}").rowcount == 0
    rows = "('s', 3, '{\"a\": 2}'), ('s', 9, '{\"a\": 2}'), ('t', 3, '{\"a\": 2}'), ('t', 3, '{\"a\": 3}')"
    assert session.execute(f"{insert} {rows} {NOTHING} RETURNING external_id, row_number").fetchall() == [("s", 9), ("t", 3)]
    assert session.execute(f"{insert} {rows} {NOTHING}").rowcount == 0


def test_labels_relationships_and_assets(session, cdf):
    for table, listed, values in [
        ("labels", "external_id, name", "('%s', 'x')"),
        ("assets", "external_id, name", "('%s', 'x')"),
        ("timeseries", "external_id, name", "('%s', 'x')"),
        ("data_sets", "external_id, name", "('%s', 'x')"),
        ("files", "external_id, name", "('%s', 'x')"),
        ("sequences", "external_id, columns", "('%s', '[{\"externalId\": \"a\"}]')"),
        (
            "relationships",
            "external_id, source_external_id, source_type, target_external_id, target_type",
            "('%s', 'a', 'asset', 'b', 'asset')",
        ),
    ]:
        insert = f"INSERT INTO {table} ({listed}) VALUES {values % 'one'}, {values % 'two'} {NOTHING}"
        assert session.execute(f"INSERT INTO {table} ({listed}) VALUES {values % 'one'} {NOTHING}").rowcount == 1, table
        assert session.execute(insert).rowcount == 1, table
        assert session.execute(insert).rowcount == 0, table
        assert session.execute(f"{insert} RETURNING external_id").fetchall() == [], table


def test_views_of_data_models(session, scratch, cdf, api):
    create_view(api, "Pump", {"name": "text", "pressure": "float64"})
    table = scratch.table("pump", "space text, external_id text, name text", "view", space="sp", external_id="Pump", version="v1")
    own = scratch.table("own", "external_id text, name text", "view", space="sp", external_id="Pump", version="v1")
    session.execute(f"INSERT INTO {own} VALUES ('p1', 'old'), ('p2', 'old')")
    cdf.admin_delete("requests")
    assert session.execute(f"INSERT INTO {own} VALUES ('p1', 'new') {NOTHING}").rowcount == 0
    assert paths(cdf) == ["/models/instances/byids"]
    insert = f"INSERT INTO {table} VALUES ('sp', 'p2', 'new'), ('sp', 'p3', 'new'), ('sp', 'p3', 'twice') {NOTHING}"
    assert session.execute(insert).rowcount == 1
    assert session.execute(f"{insert} RETURNING external_id").fetchall() == []
    query = f"SELECT external_id, name FROM {own} ORDER BY 1"
    assert session.execute(query).fetchall() == [("p1", "old"), ("p2", "old"), ("p3", "new")]


def test_partitions(filled, scratch, cdf):
    scratch.execute("CREATE TABLE parted (external_id text, type text) PARTITION BY LIST (type)")
    scratch.execute("CREATE FOREIGN TABLE parted_x PARTITION OF parted FOR VALUES IN ('x') SERVER cdf OPTIONS (resource 'events')")
    scratch.execute("CREATE TABLE parted_y PARTITION OF parted FOR VALUES IN ('y')")
    insert = f"INSERT INTO scratch.parted VALUES ('e1', 'x'), ('e1', 'y'), ('n', 'x'), ('n', 'x') {NOTHING}"
    assert filled.execute(insert).rowcount == 2
    assert kinds(cdf)["e1"] == "old" and kinds(cdf)["n"] == "x"


def test_constraints_and_refusals_come_first(filled, scratch, cdf):
    table = scratch.table("checked", "external_id text, type text NOT NULL", "events")
    with refused("23502", "type"):
        filled.execute(f"INSERT INTO {table} VALUES ('e1', 'x'), ('e2', NULL) {NOTHING}")
    with refused("22001", "type", "64"):
        filled.execute(f"INSERT INTO events (external_id, type) VALUES ('e1', 'x'), ('e7', repeat('x', 65)) {NOTHING}")
    assert requests(cdf) == []


def test_views_of_postgresql_and_common_tables(filled, scratch, cdf):
    scratch.view("through", "SELECT external_id, type FROM events")
    assert filled.execute(f"INSERT INTO scratch.through VALUES ('e1', 'x'), ('v', 'x') {NOTHING}").rowcount == 1
    query = (
        f"WITH made AS (INSERT INTO events (external_id) VALUES ('e1'), ('w1'), ('w2') {NOTHING} RETURNING external_id)"
        " SELECT count(*) FROM made"
    )
    assert filled.execute(query).fetchone() == (2,)


def shown(session, statement: str) -> dict:
    plan = session.execute(f"EXPLAIN (FORMAT json) {statement}").fetchone()[0]
    return plan[0]["Plan"]


def test_explain_says_what_counts(filled, scratch, cdf):
    one = shown(filled, f"INSERT INTO events (external_id) VALUES ('a') {NOTHING}")
    assert one["Existing Rows"] == "ignore, not counted"
    assert one["CDF Requests"] == "POST /events/byids, POST /events at COMMIT"
    many = f"INSERT INTO events (external_id) SELECT 'a' {NOTHING}"
    assert shown(filled, many)["Existing Rows"] == "ignore, not counted"
    selected = f"INSERT INTO events (external_id) SELECT g::text FROM generate_series(1, 2) g {NOTHING} RETURNING external_id"
    assert "count as inserted" in shown(filled, selected)["Existing Rows"]
    volatile = f"INSERT INTO events (external_id) VALUES ('a'), (random()::text) {NOTHING} RETURNING external_id"
    assert "count as inserted" in shown(filled, volatile)["Existing Rows"]
    assert requests(cdf) == []


def test_the_tables_option_and_copy_ask_nothing(filled, scratch, cdf):
    table = scratch.table("ignoring", "external_id text, type text", "events", on_conflict="ignore")
    assert filled.execute(f"INSERT INTO {table} VALUES ('e1', 'x'), ('o', 'x')").rowcount == 2
    with filled.cursor() as cursor:
        with cursor.copy(f"COPY {table} FROM STDIN") as copy:
            copy.write_row(("e2", "x"))
        assert cursor.rowcount == 1
    assert "/events/byids" not in paths(cdf)
    assert kinds(cdf)["e1"] == "old" and kinds(cdf)["e2"] == "old"


@pytest.mark.parametrize("memory", ["64MB", "64kB"])
def test_what_the_transaction_has_deleted_is_new_again(session, cdf, memory):
    """However the series and sequences are named, and wherever the written rows wait."""
    session.execute(f"SET cdf_fdw.buffer_memory = '{memory}'")
    session.execute("INSERT INTO timeseries (external_id) VALUES ('s'), ('pad')")
    session.execute("INSERT INTO sequences (external_id, columns) VALUES ('q', '[{\"externalId\": \"c\", \"valueType\": \"LONG\"}]')")
    session.execute("""INSERT INTO datapoints (external_id, "timestamp", value) SELECT 's', to_timestamp(i), 1 FROM generate_series(1, 9) i""")
    session.execute("INSERT INTO sequence_rows (external_id, row_number, columns) SELECT 'q', i, '{\"c\": 1}' FROM generate_series(1, 9) i")
    (series,) = session.execute("SELECT id FROM timeseries WHERE external_id = 's'").fetchone()
    (sequence,) = session.execute("SELECT id FROM sequences WHERE external_id = 'q'").fetchone()
    session.execute("BEGIN")
    session.execute("""INSERT INTO datapoints (external_id, "timestamp", value) SELECT 'pad', to_timestamp(i), i FROM generate_series(1, 30000) i""")
    session.execute("""DELETE FROM datapoints WHERE external_id = 's' AND "timestamp" >= to_timestamp(4) AND "timestamp" < to_timestamp(7)""")
    session.execute("DELETE FROM sequence_rows WHERE external_id = 'q' AND row_number IN (4, 5, 6)")
    put = f"""INSERT INTO datapoints ({{}}, "timestamp", value) SELECT %s, to_timestamp(i), 2 FROM generate_series(%s::int, %s::int) i {NOTHING}"""
    assert session.execute(put.format("id"), (series, 3, 5)).rowcount == 2
    assert session.execute(put.format("external_id"), ("s", 5, 10)).rowcount == 2
    put = f"INSERT INTO sequence_rows ({{}}, row_number, columns) SELECT %s, i, '{{{{\"c\": 2}}}}' FROM generate_series(%s::int, %s::int) i {NOTHING}"
    assert session.execute(put.format("id"), (sequence, 3, 5)).rowcount == 2
    assert session.execute(put.format("external_id"), ("q", 5, 10)).rowcount == 2
    read = "SELECT extract(epoch FROM \"timestamp\")::int FROM datapoints WHERE external_id = 's' AND value = 2 ORDER BY 1"
    assert [moment for (moment,) in session.execute(read).fetchall()] == [4, 5, 6, 10]
    session.execute("COMMIT")
    assert [moment for (moment,) in session.execute(read).fetchall()] == [4, 5, 6, 10]
    numbers = "SELECT row_number FROM sequence_rows WHERE columns ->> 'c' = '2' ORDER BY 1"
    assert [number for (number,) in session.execute(numbers).fetchall()] == [4, 5, 6, 10]
