"""Staging tables merged into CDF: joins ask for the keys of the other side, a thousand with each request, and give the rows
that PostgreSQL's own joins over local copies give."""

from __future__ import annotations

import random

import psycopg
import pytest
from support import dump, names, paths, requests, stored

STAGED, MISSING, HELD = 2200, 200, 2500
SEEDS = [random.randrange(1 << 32) for _ in range(3)]


def explain(session, query: str, options: str = "") -> dict:
    (plan,) = session.execute(f"EXPLAIN (FORMAT json, COSTS off{options}) {query}").fetchone()[0]
    return plan["Plan"]


def nodes(plan: dict) -> list[dict]:
    return [plan, *(node for child in plan.get("Plans", ()) for node in nodes(child))]


def key_join(session, query: str) -> dict:
    """The one node of the plan that joins by key."""
    [node] = [node for node in nodes(explain(session, query)) if node.get("Custom Plan Provider") == "CDF Key Join"]
    return node


def count(cdf, path: str) -> int:
    return len([asked for asked in paths(cdf) if asked == path])


# ---- each pattern on each resource ----


# What makes HELD items of a resource, and a column that can be changed.
RESOURCES = {
    "assets": ("INSERT INTO assets (external_id, name) SELECT 'k' || i, 'old' FROM generate_series(1, {}) i", "description"),
    "events": ("INSERT INTO events (external_id, type) SELECT 'k' || i, 'old' FROM generate_series(1, {}) i", "description"),
    "timeseries": ("INSERT INTO timeseries (external_id, name) SELECT 'k' || i, 'old' FROM generate_series(1, {}) i", "description"),
    "sequences": (
        "INSERT INTO sequences (external_id, columns)"
        """ SELECT 'k' || i, '[{{"externalId": "c", "valueType": "LONG"}}]' FROM generate_series(1, {}) i""",
        "description",
    ),
    "files": ("INSERT INTO files (external_id, name) SELECT 'k' || i, 'old' FROM generate_series(1, 100) i", "source"),
    "relationships": (
        "INSERT INTO relationships (external_id, source_external_id, source_type, target_external_id, target_type)"
        " SELECT 'k' || i, 'a', 'asset', 'b', 'asset' FROM generate_series(1, {}) i",
        "confidence",
    ),
}
VALUE = {"relationships": "0.5"}


@pytest.fixture
def staging(session):
    """STAGED keys, of which MISSING are not in CDF, with their note."""
    first = HELD - (STAGED - MISSING) + 1
    session.execute("CREATE TEMP TABLE staging (key text, note text)")
    session.execute(
        "INSERT INTO staging SELECT 'k' || i, 'new ' || i FROM generate_series(%s::int, %s) i", (first, first + STAGED - 1)
    )
    return "staging"


@pytest.mark.parametrize("resource", RESOURCES)
def test_one_request_per_thousand_keys(session, cdf, staging, resource):
    make, column = RESOURCES[resource]
    session.execute(make.format(HELD))
    held = 100 if resource == "files" else HELD
    found = max(0, held - (HELD - (STAGED - MISSING)))
    if resource == "files":
        session.execute("UPDATE staging SET key = 'k' || substr(key, 2)::int - 500")
        found = 100
    if resource == "relationships":
        session.execute("UPDATE staging SET note = 0.5")
    value = "s.note::float8" if resource == "relationships" else "s.note"
    by_ids = f"/{resource}/byids"
    with session.transaction(force_rollback=True):
        for statement, expected in [
            (f"UPDATE {resource} t SET {column} = {value} FROM staging s WHERE t.external_id = s.key", found),
            (f"SELECT FROM staging s JOIN {resource} t ON s.key = t.external_id WHERE t.{column} = {value}", found),
            (f"SELECT FROM staging s LEFT JOIN {resource} t ON t.external_id = s.key WHERE t.external_id IS NULL", STAGED - found),
            (f"SELECT FROM staging s WHERE NOT EXISTS (SELECT FROM {resource} t WHERE t.external_id = s.key)", STAGED - found),
            (f"SELECT FROM staging s WHERE EXISTS (SELECT FROM {resource} t WHERE t.external_id = s.key)", found),
            (f"SELECT FROM staging s WHERE key IN (SELECT external_id FROM {resource})", found),
            (f"SELECT FROM staging s LEFT JOIN {resource} t ON t.external_id = s.key", STAGED),
            (f"SELECT FROM {resource} WHERE external_id IN (SELECT key FROM staging)", found),
            (f"DELETE FROM {resource} t USING staging s WHERE t.external_id = s.key AND right(s.key, 1) = '7'", None),
            (f"DELETE FROM {resource} WHERE external_id IN (SELECT key FROM staging)", None),
        ]:
            cdf.admin_delete("requests")
            given = session.execute(statement)
            if expected is not None:
                assert given.rowcount == expected, statement
            else:
                assert 0 < given.rowcount <= found
            # What is asked for of the staged keys alone, where a condition leaves some of them out.
            most = 1 if "right(" in statement else 3
            assert paths(cdf) == [by_ids] * most, statement


def test_inserting_what_is_missing(session, cdf, staging):
    session.execute("INSERT INTO events (external_id) SELECT 'k' || i FROM generate_series(1, %s) i", (HELD,))
    for statement in (
        "INSERT INTO events (external_id, description) SELECT s.key, s.note FROM staging s"
        " LEFT JOIN events e ON e.external_id = s.key WHERE e.external_id IS NULL",
        "INSERT INTO events (external_id, description) SELECT s.key, s.note FROM staging s"
        " WHERE NOT EXISTS (SELECT FROM events e WHERE e.external_id = s.key)",
    ):
        with session.transaction(force_rollback=True):
            cdf.admin_delete("requests")
            assert session.execute(statement).rowcount == MISSING
            assert paths(cdf) == ["/events/byids"] * 3
            # What the transaction has written is found as well.
            assert session.execute(statement).rowcount == 0
            assert paths(cdf) == ["/events/byids"] * 6
    session.execute(statement)
    assert len(names(cdf, "events")) == HELD + MISSING


def test_ten_thousand_rows_take_ten_requests(session, cdf):
    """However many items there are: the number of requests is that of the staged rows."""
    session.execute("INSERT INTO events (external_id) SELECT 'k' || i FROM generate_series(1, 20000) i")
    session.execute("CREATE TEMP TABLE staging AS SELECT 'k' || i * 2 AS key, i AS n FROM generate_series(1, 10000) i")
    cdf.admin_delete("requests")
    with session.transaction(force_rollback=True):
        updated = session.execute("UPDATE events e SET description = 'new ' || n FROM staging WHERE external_id = key")
        assert updated.rowcount == 10000
        assert paths(cdf) == ["/events/byids"] * 10
    session.execute("ANALYZE staging")
    cdf.admin_delete("requests")
    query = "SELECT count(*), sum(n) FROM staging JOIN assets ON external_id = key"
    assert session.execute(query).fetchone() == (0, None)
    assert paths(cdf) == ["/assets/byids"] * 10


def test_a_few_items_and_many_rows_are_read_whole(session, cdf, scratch):
    """Where the resource is known to be smaller than what is joined with it, it is read as a whole."""
    session.execute("INSERT INTO events (external_id) SELECT 'k' || i FROM generate_series(1, 300) i")
    table = scratch.table("few", "external_id text, type text", "events")
    session.execute("CREATE TEMP TABLE staging AS SELECT 'k' || i AS key FROM generate_series(1, 5000) i")
    session.execute("ANALYZE staging")
    cdf.admin_delete("requests")
    query = f"SELECT count(*) FROM staging JOIN {table} ON external_id = key"
    assert session.execute(query).fetchone() == (300,)
    assert paths(cdf) == ["/events/byids"] * 5
    scratch.execute("UPDATE pg_class SET reltuples = 300 WHERE oid = 'scratch.few'::regclass")
    cdf.admin_delete("requests")
    assert session.execute(query).fetchone() == (300,)
    assert paths(cdf) == ["/events/list"]


# ---- keys ----


def test_internal_ids_of_several_types(session, api, cdf):
    ids = api.create("events", *(f"e{i}" for i in range(30)))
    session.execute("CREATE TEMP TABLE staging (id bigint, small int, whole numeric, n int)")
    with session.cursor() as cursor:
        cursor.executemany(
            "INSERT INTO staging VALUES (%s, %s, %s, %s)",
            [(key, key if key < 1 << 31 else None, key, n) for n, key in enumerate(ids)] + [(None, None, None, -1), (17, 17, 17, -2)],
        )
    cdf.admin_delete("requests")
    updated = session.execute("UPDATE events e SET description = n::text FROM staging s WHERE e.id = s.id")
    assert updated.rowcount == 30
    assert count(cdf, "/events/list") == 0 and stored(cdf, "events", "e7")["description"] == "7"
    cdf.admin_delete("requests")
    rows = session.execute("SELECT n FROM staging s LEFT JOIN events e ON e.id = s.small WHERE e.id IS NULL AND s.small IS NOT NULL")
    assert rows.fetchall() == [(-2,)]
    assert paths(cdf) == ["/events/byids"]
    # Compared as numerics: no key.
    assert session.execute("SELECT count(*) FROM staging s JOIN events e ON e.id = s.whole").fetchone() == (30,)


def test_keys_that_are_null_repeated_or_impossible(session, cdf):
    session.execute("INSERT INTO events (external_id, type) VALUES ('a', 'x'), ('b', 'y'), ('ü \"\\', 'z'), (NULL, 'none')")
    session.execute("CREATE TEMP TABLE staging (key text, n int)")
    rows = [("a", 1), ("a", 2), (None, 3), ("", 4), ("x" * 300, 5), ('ü "\\', 6), ("A", 7), ("b ", 8), (None, 9)]
    with session.cursor() as cursor:
        cursor.executemany("INSERT INTO staging VALUES (%s, %s)", rows)
    cdf.admin_delete("requests")
    joined = session.execute("SELECT n, type FROM staging LEFT JOIN events ON external_id = key ORDER BY n").fetchall()
    assert joined == [(1, "x"), (2, "x"), (3, None), (4, None), (5, None), (6, "z"), (7, None), (8, None), (9, None)]
    assert paths(cdf) == ["/events/byids"]
    sent = [item["externalId"] for item in requests(cdf)[0]["body"]["items"]]
    assert len(sent) == len(set(sent))
    cdf.admin_delete("requests")
    assert session.execute("SELECT count(*) FROM staging JOIN events ON external_id = key WHERE key IS NULL").fetchone() == (0,)
    session.execute("DELETE FROM staging WHERE key IS NOT NULL")
    assert session.execute("SELECT n FROM staging LEFT JOIN events ON external_id = key ORDER BY 1").fetchall() == [(3,), (9,)]
    assert paths(cdf) == []


def test_types_and_expressions_of_keys(session, cdf, scratch):
    session.execute("INSERT INTO events (external_id, type) SELECT 'k' || i, i::text FROM generate_series(1, 40) i")
    scratch.execute("CREATE DOMAIN tag AS varchar(20)")
    session.execute("CREATE TEMP TABLE staging (number int, key varchar(30), tag scratch.tag, fixed char(5))")
    session.execute("INSERT INTO staging SELECT i, 'k' || i, 'k' || i, 'k' || i FROM generate_series(31, 50) i")
    for value in ("s.key", "s.tag", "'k' || s.number", "concat_ws('', 'k', number)", "trim(s.fixed)", "s.fixed::text"):
        cdf.admin_delete("requests")
        rows = session.execute(f"SELECT e.type FROM staging s JOIN events e ON e.external_id = {value}").fetchall()
        assert sorted(rows) == [(str(i),) for i in range(31, 41)], value
        # concat_ws() is only stable, which is enough.
        assert paths(cdf) == ["/events/byids"], value
    # Padded with blanks, a char is compared otherwise than a text.
    assert session.execute("SELECT count(*) FROM staging s JOIN events e ON e.external_id = s.fixed").fetchone() == (10,)
    if session.execute("SELECT count(*) FROM pg_collation WHERE collprovider = 'i'").fetchone()[0]:
        scratch.execute("CREATE COLLATION anycase (provider = icu, locale = 'und-u-ks-level2', deterministic = false)")
        query = "SELECT count(*) FROM staging s JOIN events e ON e.external_id = upper(s.key) COLLATE scratch.anycase"
        assert session.execute(query).fetchone() == (10,)


def test_both_sides_are_tables_of_cdf(session, cdf):
    session.execute("INSERT INTO events (external_id, type) SELECT 'k' || i, 'a' FROM generate_series(1, 5) i")
    session.execute("INSERT INTO assets (external_id, name) SELECT 'k' || i, 'A' || i FROM generate_series(3, 9) i")
    session.execute("CREATE TEMP TABLE staging AS SELECT 'k' || i AS key FROM generate_series(1, 20) i")
    cdf.admin_delete("requests")
    rows = session.execute(
        "SELECT key, type, name FROM staging JOIN events e ON e.external_id = key LEFT JOIN assets a ON a.external_id = e.external_id"
    )
    expected = [(f"k{i}", "a", f"A{i}" if i > 2 else None) for i in range(1, 6)]
    assert sorted(rows.fetchall()) == expected
    assert paths(cdf) == ["/events/byids", "/assets/byids"]
    updated = session.execute("UPDATE assets a SET description = e.type FROM events e, staging WHERE a.external_id = e.external_id AND e.external_id = key")
    assert updated.rowcount == 3
    assert sorted(item["externalId"] for item in dump(cdf, "assets") if item.get("description") == "a") == ["k3", "k4", "k5"]


# ---- EXPLAIN ----


def test_explain_shows_the_join(session, cdf):
    session.execute("CREATE TEMP TABLE staging (key text, n int)")
    query = "SELECT s.n, e.type FROM staging s LEFT JOIN events e ON e.external_id = s.key AND e.start_time > '2024-01-01' AND s.n > 3"
    node = key_join(session, query)
    assert node["Join Type"] == "Left" and node["Keys per Request"] == "1000"
    assert node["Key Cond"] == "(e.external_id = s.key)" and node["Join Filter"] == "(s.n > 3)"
    staged, scan = node["Plans"]
    assert staged["Relation Name"] == "staging"
    assert scan["CDF Requests"] == "POST /events/byids" and scan["CDF Filter"] == "(external_id = ANY (keys of the join))"
    assert "Batches" not in node
    text = "\n".join(line for (line,) in session.execute(f"EXPLAIN (COSTS off) {query}").fetchall())
    assert "Custom Scan (CDF Key Join)" in text
    assert paths(cdf) == []
    session.execute("INSERT INTO staging SELECT 'k' || i, i FROM generate_series(1, 2500) i")
    plan = explain(session, query, ", ANALYZE, TIMING off, SUMMARY off")
    [node] = [node for node in nodes(plan) if node.get("Custom Plan Provider")]
    assert node["Batches"] == 3 and node["Actual Rows"] == 2500
    assert node["Plans"][1]["CDF Requests Made"] == 3
    for query, kind in [
        ("SELECT FROM staging JOIN events ON external_id = key", "Inner"),
        ("SELECT FROM staging WHERE EXISTS (SELECT FROM events WHERE external_id = key)", "Semi"),
        ("SELECT FROM staging WHERE NOT EXISTS (SELECT FROM events WHERE external_id = key)", "Anti"),
        ("SELECT FROM staging LEFT JOIN events ON external_id = key WHERE external_id IS NULL", "Anti"),
        ("UPDATE events SET type = 'x' FROM staging WHERE external_id = key", "Inner"),
        ("DELETE FROM events USING staging WHERE external_id = key", "Inner"),
        ("INSERT INTO events (external_id) SELECT key FROM staging LEFT JOIN events ON external_id = key WHERE external_id IS NULL", "Anti"),
    ]:
        assert key_join(session, query)["Join Type"] == kind, query
    verbose = "\n".join(line for (line,) in session.execute("EXPLAIN (VERBOSE) UPDATE events SET type = key FROM staging WHERE external_id = key").fetchall())
    assert "Output: staging.key, events.external_id" in verbose or "Output:" in verbose


def test_what_is_no_join_by_key(session, cdf):
    """Rows of the table that have no partner are wanted, or the rows are compared otherwise."""
    session.execute("INSERT INTO events (external_id, type) VALUES ('a', '1'), ('b', '2')")
    session.execute("CREATE TEMP TABLE staging AS SELECT * FROM (VALUES ('a', 1), ('c', 3)) v (key, n)")
    for query, expected in [
        ("SELECT external_id, n FROM events LEFT JOIN staging ON external_id = key", [("a", 1), ("b", None)]),
        ("SELECT external_id, key FROM events FULL JOIN staging ON external_id = key", [("a", "a"), ("b", None), (None, "c")]),
        ("SELECT external_id, n FROM staging RIGHT JOIN events ON external_id = key", [("a", 1), ("b", None)]),
        ("SELECT external_id FROM events WHERE NOT EXISTS (SELECT FROM staging WHERE external_id = key)", [("b",)]),
        ("SELECT external_id, n FROM events JOIN staging ON external_id <= key", [("a", 1), ("a", 3), ("b", 3)]),
        ("SELECT external_id, n FROM events JOIN staging ON upper(external_id) = upper(key)", [("a", 1)]),
        ("SELECT external_id, n FROM events JOIN staging ON external_id IS NOT DISTINCT FROM key", [("a", 1)]),
        ("SELECT external_id, n FROM events JOIN staging ON external_id = key OR n = 3", [("a", 1), ("a", 3), ("b", 3)]),
        ("SELECT external_id, n FROM events JOIN staging ON type = n::text", [("a", 1)]),
    ]:
        cdf.admin_delete("requests")
        rows = session.execute(query).fetchall()
        assert sorted(rows, key=repr) == sorted(expected, key=repr), query
        assert paths(cdf) == ["/events/list"], query


# ---- how statements run ----


@pytest.fixture
def pair(session, cdf):
    """2,500 staged rows, of which the even ones are events."""
    session.execute("INSERT INTO events (external_id, type) SELECT 'k' || i, (i % 7)::text FROM generate_series(2, 2500, 2) i")
    session.execute("CREATE TEMP TABLE staging AS SELECT 'k' || i AS key, i AS n FROM generate_series(1, 2500) i")
    cdf.admin_delete("requests")
    return session


def test_prepared_statements(pair, cdf):
    pair.execute("PREPARE found (int, text) AS SELECT count(*) FROM staging JOIN events ON external_id = key AND n > $1 WHERE type <> $2")
    for turn in range(8):
        [(found,)] = pair.execute(f"EXECUTE found ({turn}, '0')").fetchall()
        assert found == len([n for n in range(2, 2501, 2) if n > turn and n % 7])
    assert paths(cdf) == ["/events/byids"] * 24
    pair.execute("PREPARE change (text) AS UPDATE events SET description = $1 FROM staging WHERE external_id = key AND n <= 10")
    for turn in range(8):
        assert pair.execute(f"EXECUTE change ('turn {turn}')").rowcount == 5
    assert stored(cdf, "events", "k10")["description"] == "turn 7"


def test_cursors(pair, cdf):
    query = "SELECT n FROM staging LEFT JOIN events ON external_id = key WHERE external_id IS NULL"
    with pair.transaction():
        pair.execute(f"DECLARE c NO SCROLL CURSOR FOR {query}")
        assert len(pair.execute("FETCH 10 FROM c").fetchall()) == 10
        assert paths(cdf) == ["/events/byids"]
        assert len(pair.execute("FETCH ALL FROM c").fetchall()) == 1240
        pair.execute(f"DECLARE s SCROLL CURSOR WITH HOLD FOR {query}")
        first = pair.execute("FETCH 5 FROM s").fetchall()
        pair.execute("MOVE ABSOLUTE 0 FROM s")
        assert pair.execute("FETCH 5 FROM s").fetchall() == first
        assert pair.execute("FETCH BACKWARD 2 FROM s").fetchall() == first[2:4][::-1]
    assert len(pair.execute("FETCH ALL FROM s").fetchall()) == 1250 - 3
    pair.execute("CLOSE s")


def test_rescans(pair, cdf):
    # The join is a subquery's, which runs once for each outer row, with a parameter in its outer side and in its conditions.
    query = (
        "SELECT g, x.n, x.found FROM generate_series(1, 4) g, LATERAL (SELECT count(*) AS n, count(e.external_id) AS found"
        " FROM staging s LEFT JOIN events e ON e.external_id = s.key AND e.type <> g::text WHERE s.n % 4 = g - 1 OFFSET 0) x"
    )
    expected = []
    for g in range(1, 5):
        rows = [n for n in range(1, 2501) if n % 4 == g - 1]
        expected.append((g, len(rows), len([n for n in rows if n % 2 == 0 and n % 7 != g])))
    assert sorted(pair.execute(query).fetchall()) == expected
    assert set(paths(cdf)) == {"/events/byids"} and len(paths(cdf)) == 4
    # A rescan without a change, under a nested loop.
    pair.execute("SET enable_material = off; SET enable_hashjoin = off; SET enable_mergejoin = off")
    query = "SELECT count(*) FROM generate_series(1, 3) g LEFT JOIN (staging s JOIN events e ON e.external_id = s.key) ON s.n < 10 * g"
    assert pair.execute(query).fetchone() == (4 + 9 + 14,)


def test_limit_and_order(pair, cdf):
    rows = pair.execute("SELECT n, type FROM staging JOIN events ON external_id = key ORDER BY n DESC LIMIT 3").fetchall()
    assert rows == [(n, str(n % 7)) for n in (2500, 2498, 2496)]
    cdf.admin_delete("requests")
    assert len(pair.execute("SELECT n FROM staging JOIN events ON external_id = key LIMIT 3").fetchall()) == 3
    assert paths(cdf) == ["/events/byids"]


def test_whole_rows_and_returning(pair, cdf):
    rows = pair.execute("SELECT e FROM staging JOIN events e ON external_id = key WHERE n = 14").fetchall()
    assert len(rows) == 1 and "k14" in str(rows)
    rows = pair.execute("SELECT to_jsonb(e) FROM staging LEFT JOIN events e ON external_id = key WHERE n IN (14, 15) ORDER BY n").fetchall()
    assert rows[0][0]["external_id"] == "k14" and rows[1][0] is None
    rows = pair.execute("UPDATE events e SET description = 'd' FROM staging s WHERE external_id = key AND n < 5 RETURNING e.external_id, s.n, s").fetchall()
    assert sorted(rows)[0][:2] == ("k2", 2) and len(rows) == 2
    rows = pair.execute("DELETE FROM events USING staging s WHERE external_id = key AND n < 5 RETURNING type, description, n").fetchall()
    assert sorted(rows) == [("2", "d", 2), ("4", "d", 4)]
    assert len(names(cdf, "events")) == 1248


def test_locked_rows_that_change_meanwhile(gateway, pair, cdf, cluster, scratch):
    """The row of another table is joined again as it has become."""
    scratch.execute("CREATE TABLE shared AS SELECT 'k' || i AS key, i AS n, 'old' AS note FROM generate_series(1, 6) i")
    scratch.execute("GRANT ALL ON shared TO PUBLIC")
    with gateway.connect() as other:
        other.execute("UPDATE scratch.shared SET note = 'new', key = CASE n WHEN 4 THEN 'nobody' ELSE key END WHERE n IN (2, 4)")
        import threading

        result = []
        query = "SELECT n, note, type FROM scratch.shared s JOIN events ON external_id = key FOR UPDATE OF s"
        thread = threading.Thread(target=lambda: result.extend(pair.execute(query).fetchall()))
        thread.start()
        blocked = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
        while scratch.execute(blocked).fetchone() == (0,):
            scratch.execute("SELECT pg_sleep(0.05)")
        other.commit()
        thread.join()
    assert sorted(result) == [(2, "new", "2"), (6, "old", "6")]


def test_rows_of_the_transaction(pair, cdf):
    with pair.transaction(force_rollback=True):
        pair.execute("UPDATE events SET type = 'changed' WHERE external_id = 'k10'")
        pair.execute("DELETE FROM events WHERE external_id = 'k12'")
        pair.execute("INSERT INTO events (external_id, type) VALUES ('k13', 'fresh')")
        rows = pair.execute("SELECT n, type FROM staging LEFT JOIN events ON external_id = key WHERE n BETWEEN 10 AND 14 ORDER BY n")
        assert rows.fetchall() == [(10, "changed"), (11, None), (12, None), (13, "fresh"), (14, "0")]
        # A statement does not see what it writes itself, in whichever batch.
        inserted = pair.execute(
            "INSERT INTO events (external_id, type) SELECT 'k' || n + 1000, 'twin' FROM staging JOIN events ON external_id = key WHERE n % 2 = 0"
        )
        assert inserted.rowcount == 1249
        pair.execute("UPDATE events SET type = 'twice' FROM (SELECT * FROM staging UNION ALL SELECT * FROM staging) s WHERE external_id = key")
        assert pair.execute("SELECT count(*) FROM staging JOIN events ON external_id = key WHERE type = 'twice'").fetchone() == (1250,)


def test_a_table_with_instances_of_several_spaces(session, api, cdf, scratch):
    spaces = [f"sp{i}" for i in range(3)]
    api.post("/models/spaces", *({"space": space} for space in spaces))
    view = make_view(api, spaces[0])
    table = scratch.table("things", "space text, external_id text, name text", "view", space=spaces[0], external_id=view, version="v1")
    fixed = scratch.table("own", "external_id text, name text", "view", space=spaces[0], external_id=view, version="v1")
    session.execute(f"INSERT INTO {table} SELECT 'sp' || i % 3, 'x' || i, 'old' FROM generate_series(1, 600) i")
    session.execute("CREATE TEMP TABLE staging AS SELECT 'sp' || i % 3 AS space, 'x' || i AS key, 'n' || i AS note FROM generate_series(301, 900) i")
    by_ids = "/models/instances/byids"
    with session.transaction(force_rollback=True):
        for statement, rows, requests_ in [
            (f"UPDATE {table} t SET name = note FROM staging s WHERE t.space = s.space AND t.external_id = s.key", 300, 1),
            (f"SELECT FROM staging s LEFT JOIN {table} t ON (t.space, t.external_id) = (s.space, s.key) WHERE t.external_id IS NULL", 300, 1),
            (f"SELECT FROM staging s JOIN {table} t ON t.external_id = s.key WHERE t.space = 'sp1'", 100, 1),
            (f"SELECT FROM staging s JOIN {fixed} t ON t.external_id = s.key", 100, 1),
            (f"DELETE FROM {fixed} USING staging s WHERE external_id = key", 100, 1),
            (f"DELETE FROM {table} WHERE (space, external_id) IN (SELECT space, key FROM staging)", 200, 1),
        ]:
            cdf.admin_delete("requests")
            assert session.execute(statement).rowcount == rows, statement
            assert set(paths(cdf)) == {by_ids}, statement
            assert len(paths(cdf)) <= requests_, statement
    cdf.admin_delete("requests")
    assert session.execute(f"SELECT FROM staging s JOIN {table} t ON t.external_id = s.key").rowcount == 300
    assert paths(cdf)[-1:] == ["/models/instances/list"] and by_ids not in paths(cdf)


def make_view(api, space: str) -> str:
    text = {"type": {"type": "text"}, "nullable": True}
    api.post("/models/containers", {"space": space, "externalId": "Thing", "usedFor": "node", "properties": {"name": text}})
    source = {"type": "container", "space": space, "externalId": "Thing"}
    properties = {"name": {"container": source, "containerPropertyIdentifier": "name"}}
    api.post("/models/views", {"space": space, "externalId": "Thing", "version": "v1", "properties": properties})
    return "Thing"


def test_raw_rows(session, cdf, scratch):
    table = scratch.table("tags", "key text, a text", "raw_rows", database="db", table="tags", primary_key="key")
    session.execute(f"INSERT INTO {table} SELECT 'k' || i, 'old' FROM generate_series(1, 100) i")
    session.execute("CREATE TEMP TABLE staging AS SELECT 'k' || i AS key, 'n' || i AS note FROM generate_series(91, 110) i")
    rows = "/raw/dbs/db/tables/tags/rows"
    with session.transaction(force_rollback=True):
        for statement, expected in [
            (f"SELECT FROM staging s LEFT JOIN {table} t USING (key) WHERE t.key IS NULL", 10),
            (f"UPDATE {table} t SET a = note FROM staging s WHERE t.key = s.key", 10),
            (f"DELETE FROM {table} WHERE key IN (SELECT key FROM staging)", 10),
        ]:
            cdf.admin_delete("requests")
            assert session.execute(statement).rowcount == expected, statement
            assert paths(cdf) == [rows] or set(paths(cdf)) <= {f"{rows}/k{i}" for i in range(91, 111)}, statement
    session.execute("INSERT INTO staging SELECT 'k' || i FROM generate_series(111, 3000) i")
    cdf.admin_delete("requests")
    assert session.execute(f"SELECT FROM staging s JOIN {table} t USING (key)").rowcount == 10
    # RAW has no request for several keys: all rows are listed, once.
    assert paths(cdf) == [rows]


def test_partitioned_parents(session, cdf, scratch):
    """What is behind a partitioned parent is joined by key, too."""
    scratch.execute("CREATE TABLE parent (external_id text, type text, description text) PARTITION BY LIST (type)")
    scratch.execute("CREATE FOREIGN TABLE child PARTITION OF parent DEFAULT SERVER cdf OPTIONS (resource 'events')")
    session.execute("INSERT INTO scratch.parent SELECT 'k' || i, 'old' FROM generate_series(1, 1500) i")
    session.execute("CREATE TEMP TABLE staging AS SELECT 'k' || i AS key, i AS n FROM generate_series(1001, 2500) i")
    with session.transaction(force_rollback=True):
        for statement, rows in [
            ("UPDATE scratch.parent p SET description = n::text FROM staging WHERE external_id = key", 500),
            ("SELECT FROM staging LEFT JOIN scratch.parent ON external_id = key WHERE external_id IS NULL", 1000),
            ("DELETE FROM scratch.parent USING staging WHERE external_id = key", 500),
        ]:
            cdf.admin_delete("requests")
            assert session.execute(statement).rowcount == rows, statement
            assert paths(cdf) == ["/events/byids"] * 2, statement
    scratch.execute("CREATE TABLE here PARTITION OF parent FOR VALUES IN ('here')")
    session.execute("INSERT INTO scratch.parent SELECT 'k' || i, 'here' FROM generate_series(1990, 2010) i")
    cdf.admin_delete("requests")
    rows = session.execute("SELECT type, count(*) FROM staging JOIN scratch.parent ON external_id = key GROUP BY 1 ORDER BY 1")
    assert rows.fetchall() == [("here", 21), ("old", 500)]
    assert paths(cdf) == ["/events/byids"] * 2


def test_memory_is_bounded(session, cdf):
    """A batch ends early where its rows are large."""
    session.execute("INSERT INTO events (external_id) SELECT 'k' || i FROM generate_series(1, 100) i")
    session.execute("CREATE TEMP TABLE staging AS SELECT 'k' || i AS key, repeat('x', 7000) AS wide FROM generate_series(1, 100) i")
    session.execute("SET work_mem = '64kB'")
    cdf.admin_delete("requests")
    query = "SELECT count(*), sum(length(wide || key)) FROM (SELECT key, wide || '' AS wide FROM staging OFFSET 0) s JOIN events ON external_id = key"
    assert session.execute(query).fetchone() == (100, 700_000 + 292)
    assert 3 < count(cdf, "/events/byids") < 60


def test_errors_of_cdf_are_those_of_the_table(session, cdf):
    session.execute("CREATE TEMP TABLE staging AS SELECT 'k1' AS key")
    cdf.admin_post("faults", {"path": "/events/byids", "mode": "status", "status": 403, "times": 1, "body": {"error": {"code": 403, "message": "no"}}})
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        session.execute("SELECT FROM staging JOIN events ON external_id = key")
    assert session.execute("SELECT FROM staging JOIN events ON external_id = key").rowcount == 0


# ---- random joins ----


def random_query(choose: random.Random, target: str) -> str:
    """A join of staged rows with `target`, over columns that both sides of the comparison have."""
    extra = ["", " AND t.type <> s.note", " AND s.n < 40", " AND t.type IN ('a', 'b')", " AND coalesce(t.description, s.note) > 'm'"]
    key = choose.choice(["s.key", "s.key || ''", "lower(s.key)", "s.other"])
    on = f"t.external_id = {key}{choose.choice(extra)}{choose.choice(extra)}"
    source = choose.choice(["staging", "(SELECT * FROM staging WHERE n % 3 > 0)", "(SELECT DISTINCT key, other, note, n % 10 AS n FROM staging)"])
    where = choose.choice(["", " WHERE s.n > 5", " WHERE t.type IS DISTINCT FROM 'a'", " WHERE t.external_id IS NULL", " WHERE s.note IS NOT NULL"])
    output = choose.choice(["s.n, s.key, t.external_id, t.type", "s.*, t.description", "t.type, s.n + 1", "count(*), min(t.type), max(s.n)", "t IS NULL, s.n"])
    alone = choose.choice(["s.n, s.key", "count(*), sum(s.n)", "s.note"])
    both = f" LEFT JOIN {target} u ON u.external_id = s.other AND u.type = t.type"
    return choose.choice(
        [
            f"SELECT {output} FROM {source} s JOIN {target} t ON {on}{where}",
            f"SELECT {output} FROM {source} s LEFT JOIN {target} t ON {on}{where}",
            f"SELECT {output} FROM {target} t JOIN {source} s ON {on}{where}",
            f"SELECT {output} FROM {source} s LEFT JOIN {target} t ON {on}{both}{where}",
            f"SELECT {output} FROM {source} s LEFT JOIN (SELECT external_id, type, description, 'here' AS x FROM {target}) t ON {on}{where}",
            f"SELECT {alone} FROM {source} s WHERE EXISTS (SELECT FROM {target} t WHERE {on})",
            f"SELECT {alone} FROM {source} s WHERE NOT EXISTS (SELECT FROM {target} t WHERE {on})",
            f"SELECT {alone} FROM {source} s WHERE {key} IN (SELECT external_id FROM {target} t WHERE type = 'a')",
            f"SELECT external_id, type FROM {target} t WHERE external_id IN (SELECT {key} FROM {source} s)",
            f"SELECT external_id, type FROM {target} t WHERE EXISTS (SELECT FROM {source} s WHERE {on})",
            f"SELECT g, x.* FROM generate_series(1, 3) g, LATERAL (SELECT count(*), min(t.type) FROM {source} s LEFT JOIN {target} t ON {on} AND s.n > g * 10) x",
        ]
    )


@pytest.mark.parametrize("seed", SEEDS)
def test_random_joins_give_what_local_ones_give(session, cdf, seed):
    choose = random.Random(seed)
    print("seed", seed)
    session.execute("CREATE TEMP TABLE staging (key text, other text, note text, n int)")
    session.execute("CREATE TEMP TABLE local (external_id text, type text, description text)")
    word = lambda: choose.choice(["a", "b", "m", "x", None])  # noqa: E731
    held = [(f"k{i}", word(), word()) for i in choose.sample(range(100), 50)]
    own = [(f"k{i}", word(), word()) for i in choose.sample(range(100, 120), 8)]
    name = lambda: choose.choice([None, f"k{choose.randrange(120)}", f"K{choose.randrange(120)}", ""])  # noqa: E731
    staged = [(name(), name(), word(), n) for n in range(80)]
    with session.cursor() as cursor:
        cursor.executemany("INSERT INTO events (external_id, type, description) VALUES (%s, %s, %s)", held)
        cursor.executemany("INSERT INTO staging VALUES (%s, %s, %s, %s)", staged)
        cursor.executemany("INSERT INTO local VALUES (%s, %s, %s)", held + own)
    session.execute("ANALYZE staging")
    by_key = 0
    with session.transaction(force_rollback=True):
        with session.cursor() as cursor:
            cursor.executemany("INSERT INTO events (external_id, type, description) VALUES (%s, %s, %s)", own)
        gone = [key for key, *_ in held[:5]]
        session.execute("DELETE FROM events WHERE external_id = ANY (%s)", (gone,))
        session.execute("DELETE FROM local WHERE external_id = ANY (%s)", (gone,))
        for _ in range(60):
            at = choose.getrandbits(32)
            query, expected = (random_query(random.Random(at), target) for target in ("events", "local"))
            by_key += "CDF Key Join" in str(session.execute(f"EXPLAIN {query}").fetchall())
            ours, theirs = (sorted(session.execute(q).fetchall(), key=repr) for q in (query, expected))
            assert ours == theirs, f"seed {seed}: {query}"
    assert by_key > 30


# ---- rows that belong to something else ----


def test_points_are_read_of_the_staged_series_and_times(session, cdf):
    session.execute("INSERT INTO timeseries (external_id) SELECT 's' || i FROM generate_series(1, 150) i")
    session.execute(
        """INSERT INTO datapoints (external_id, "timestamp", value)
           SELECT 's' || i, '2024-01-01Z'::timestamptz + j * interval '1 hour', j FROM generate_series(1, 150) i, generate_series(0, 9) j"""
    )
    session.execute(
        """CREATE TEMP TABLE staging AS SELECT 's' || i AS key, '2024-01-01Z'::timestamptz + j * interval '1 hour' AS at
           FROM generate_series(141, 160) i, generate_series(3, 5) j"""
    )
    session.execute("INSERT INTO staging VALUES ('s1', NULL), (NULL, '2024-01-01Z')")
    query = """FROM datapoints d JOIN staging s ON d.external_id = s.key AND d."timestamp" = s.at"""
    plan = key_join(session, f"SELECT {query}")
    assert plan["Key Cond"] == "(d.external_id = s.key)" and plan["Keys per Request"] == "100"
    bounds = '(external_id = ANY (keys of the join)) AND (timestamp >= least of the join) AND (timestamp <= greatest of the join)'
    assert plan["Plans"][1]["CDF Filter"] == bounds
    cdf.admin_delete("requests")
    assert session.execute(f"SELECT count(*), sum(value) {query}").fetchone() == (30, 120.0)
    [asked] = requests(cdf)
    assert asked["path"] == "/timeseries/data/list" and len(asked["body"]["items"]) == 20
    assert {(item["start"], item["end"]) for item in [asked["body"] | item for item in asked["body"]["items"]]} == {
        (1704078000000, 1704085200001)
    }
    cdf.admin_delete("requests")
    left = """SELECT count(*) FROM staging s LEFT JOIN datapoints d ON d.external_id = s.key AND d."timestamp" = s.at WHERE d.value IS NULL"""
    assert session.execute(left).fetchone() == (32,)
    assert session.execute("SELECT count(*) FROM datapoints WHERE external_id IN (SELECT key FROM staging)").fetchone() == (110,)
    with session.transaction():
        deleted = session.execute("""DELETE FROM datapoints d USING staging s WHERE d.external_id = s.key AND d."timestamp" = s.at""")
        assert deleted.rowcount == 30
        assert session.execute(f"SELECT count(*) {query}").fetchone() == (0,)
        assert "/timeseries/list" not in paths(cdf)
    assert session.execute("SELECT count(*) FROM datapoints").fetchone() == (1470,)


def test_rows_of_staged_sequences(session, cdf):
    session.execute(
        "INSERT INTO sequences (external_id, columns)"
        """ SELECT 'q' || i, '[{"externalId": "c", "valueType": "LONG"}]' FROM generate_series(1, 6) i"""
    )
    session.execute(
        """INSERT INTO sequence_rows (external_id, row_number, columns)
           SELECT 'q' || i, j, jsonb_build_object('c', i * j) FROM generate_series(1, 6) i, generate_series(0, 9) j"""
    )
    session.execute("CREATE TEMP TABLE staging AS SELECT 'q' || i AS key, j AS n FROM generate_series(5, 7) i, generate_series(2, 4) j")
    cdf.admin_delete("requests")
    query = "SELECT count(*) FROM sequence_rows r JOIN staging s ON r.external_id = s.key AND r.row_number = s.n"
    assert session.execute(query).fetchone() == (6,)
    assert "/sequences/list" not in paths(cdf) and count(cdf, "/sequences/data/list") == 3
    assert {(asked["body"]["start"], asked["body"]["end"]) for asked in requests(cdf, "/sequences/data/list")} == {(2, 5)}
    with session.transaction():
        assert session.execute("DELETE FROM sequence_rows r USING staging s WHERE r.external_id = s.key AND r.row_number = s.n").rowcount == 6
    assert session.execute("SELECT count(*) FROM sequence_rows").fetchone() == (54,)
