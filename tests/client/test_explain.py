"""EXPLAIN names the requests that a statement makes, and makes none."""

from __future__ import annotations

import re
from concurrent.futures import ThreadPoolExecutor

import pytest
from faults import wait_for_request
from psycopg import errors
from support import paths, requests


def explain(session, query: str) -> dict:
    """The innermost node of the plan."""
    (plan,) = session.execute(f"EXPLAIN (FORMAT json, COSTS off) {query}").fetchone()[0]
    node = plan["Plan"]
    while "CDF Requests" not in node:
        (node,) = node["Plans"]
    return node


@pytest.fixture
def filled(session, cdf):
    with session.transaction():
        session.execute("INSERT INTO data_sets (external_id, name) VALUES ('d', 'D')")
        session.execute("INSERT INTO assets (external_id, name, data_set_external_id) VALUES ('a', 'A', 'd')")
        session.execute("INSERT INTO events (external_id, asset_external_ids) VALUES ('e', '{a}')")
        session.execute("INSERT INTO timeseries (external_id, asset_external_id, data_set_external_id) VALUES ('t', 'a', 'd')")
        session.execute("INSERT INTO datapoints (external_id, timestamp, value) VALUES ('t', '2024-01-01Z', 1)")
        session.execute("INSERT INTO raw_rows (db_name, table_name, key) VALUES ('db', 'tab', 'k')")
    cdf.admin_delete("requests")
    return session


@pytest.mark.parametrize(
    "query",
    [
        "SELECT external_id FROM assets",
        "SELECT * FROM assets WHERE external_id = 'a' AND name = 'A'",
        "SELECT asset_external_ids FROM events LIMIT 1",
        "SELECT * FROM timeseries WHERE id > 5",
        "SELECT * FROM datapoints WHERE external_id = 't' AND timestamp >= '2024-01-01Z'",
        "SELECT * FROM datapoints",
        "SELECT * FROM raw_rows",
        "SELECT * FROM raw_rows WHERE db_name = 'db' AND table_name = 'tab' AND key = 'k'",
    ],
)
def test_the_requests_that_are_named_are_made(filled, cdf, query):
    named = explain(filled, query)["CDF Requests"].split(", ")
    assert requests(cdf) == []
    filled.execute(query).fetchall()
    # Names that are only known when the statement runs stand in braces.
    patterns = [re.sub(r"\\\{\w+\\\}", "[^/]+", re.escape(path.split()[1])) for path in named]
    made = list(dict.fromkeys(paths(cdf)))
    assert len(made) == len(patterns)
    assert all(re.fullmatch(pattern, path) for pattern, path in zip(patterns, made, strict=True)), (named, made)


def test_what_is_pushed_down_and_what_is_not(filled):
    node = explain(filled, "SELECT * FROM assets WHERE 'a' = external_id AND name LIKE 'A%'")
    assert node["CDF Filter"] == "(external_id = 'a'::text)"
    assert "name ~~ 'A%'" in node["Filter"]
    assert explain(filled, "SELECT * FROM assets LIMIT 7")["CDF Limit"] == "7"
    assert "CDF Filter" not in explain(filled, "SELECT * FROM assets WHERE description = 'A'")


def test_writing(filled, cdf, scratch):
    node = explain(filled, "INSERT INTO datapoints (external_id, timestamp, value) VALUES ('t', now(), 1)")
    assert node["CDF Requests"] == "POST /timeseries/data at COMMIT"
    assert node["Rows per Request"] == "100000"
    table = scratch.table("kept", "external_id text", "events", on_conflict="ignore")
    assert explain(filled, f"INSERT INTO {table} VALUES ('x')")["Existing Rows"] == "ignore"
    assert requests(cdf) == []


def test_analyze_counts_what_there_is(session, scratch, gateway, cdf):
    session.execute("INSERT INTO events (external_id, type) SELECT 'e' || i, 'type ' || i % 10 FROM generate_series(1, 2500) i")
    table = scratch.table("analysed", "external_id text, type text, description text", "events")
    superuser = scratch._connection
    notices = []
    superuser.add_notice_handler(lambda notice: notices.append(notice.message_primary))
    superuser.execute("RESET client_min_messages")
    superuser.execute(f"ANALYZE {table}")
    assert any("cannot analyze" in notice for notice in notices), "the owner has no credentials"
    superuser.execute(f"ALTER FOREIGN TABLE {table} OWNER TO {gateway.username}")
    superuser.execute(f"ANALYZE {table}")
    rows = superuser.execute("SELECT reltuples FROM pg_class WHERE oid = %s::regclass", (table,)).fetchone()
    kinds = superuser.execute("SELECT n_distinct FROM pg_stats WHERE tablename = 'analysed' AND attname = 'type'").fetchone()
    assert (rows, kinds) == ((2500.0,), (10.0,))
    plan = session.execute(f"EXPLAIN (FORMAT json) SELECT * FROM {table} WHERE description = 'x' OR type = 'type 1'").fetchone()[0]
    assert 200 <= plan[0]["Plan"]["Plan Rows"] <= 300


@pytest.fixture
def analysed(session, scratch, gateway, cdf):
    """The superuser's connection, with its notices, and two tables that were analysed: of events and of assets."""
    session.execute("INSERT INTO events (external_id, type) SELECT 'e' || i, 'type ' || i % 10 FROM generate_series(1, 1000) i")
    session.execute("INSERT INTO assets (external_id, name) SELECT 'a' || i, 'name ' || i % 5 FROM generate_series(1, 50) i")
    superuser = scratch._connection
    for name, column in (("events", "type"), ("assets", "name")):
        scratch.table(f"some {name}", f"external_id text, {column} text", name)
        superuser.execute(f'ALTER FOREIGN TABLE scratch."some {name}" OWNER TO {gateway.username}')
        superuser.execute(f'ANALYZE scratch."some {name}"')
    superuser.execute("RESET client_min_messages")
    return superuser


def statistics(superuser, *tables: str) -> list[tuple]:
    return superuser.execute(
        """SELECT c.relname, c.reltuples, s.attname, s.null_frac, s.n_distinct, s.most_common_freqs
           FROM pg_class c LEFT JOIN pg_stats s ON s.tablename = c.relname AND s.schemaname = 'scratch'
           WHERE c.relname = ANY(%s) ORDER BY 1, 3""",
        (list(tables),),
    ).fetchall()


@pytest.fixture
def warnings(analysed):
    """What the superuser's statements tell: severity, SQLSTATE and message."""
    notices = []
    # psycopg clears what it passes to a handler afterwards.
    analysed.add_notice_handler(lambda notice: notices.append((notice.severity, notice.sqlstate, notice.message_primary)))
    return notices


@pytest.mark.parametrize(
    ("fault", "sqlstate", "reason"),
    [
        ({"mode": "status", "status": 403}, "42501", "/events/list"),
        ({"mode": "status", "status": 400, "body": {"error": {"code": 400, "message": "no such filter"}}}, "22023", "no such filter"),
        ({"mode": "stall"}, "57014", "flush_timeout"),
        # The second page, when rows were sampled already.
        ({"mode": "status", "status": 403, "after": 1}, "42501", "/events/list"),
    ],
    ids=["403", "400", "timeout", "second page"],
)
def test_table_that_cannot_be_read_does_not_end_analyze(session, analysed, warnings, cdf, fault, sqlstate, reason):
    if "after" in fault:
        session.execute("INSERT INTO events (external_id) SELECT 'more' || i FROM generate_series(1, 1000) i")
    before = statistics(analysed, "some events")
    assert len(before) == 2 and before[0][1] == 1000
    session.execute("INSERT INTO assets (external_id, name) SELECT 'b' || i, 'name ' || i % 5 FROM generate_series(1, 50) i")
    cdf.admin_post("faults", {"path": "/events/list", "match": "exact"} | fault)
    analysed.execute("SET cdf_fdw.flush_timeout = '1s'")
    analysed.execute('ANALYZE scratch."some events", scratch."some assets"')
    told = [notice for notice in warnings if "some events" in notice[2]]
    assert [notice[:2] for notice in told] == [("WARNING", sqlstate)]
    assert 'scratch."some events"' in told[0][2] and reason in told[0][2], told
    assert not any("leak" in message for _, _, message in warnings)
    # What was known of it is still known, and the others are analysed.
    assert statistics(analysed, "some events") == before
    assert statistics(analysed, "some assets")[0][1] == 100


# A whole database's foreign tables are analysed as parts of their parents only.
@pytest.mark.parametrize("statement", ["ANALYZE parts, parent", "ANALYZE", "VACUUM ANALYZE"])
def test_analyze_of_parents_goes_on_without_a_table_that_cannot_be_read(scratch, analysed, warnings, cdf, statement):
    for kind, clause in (("parts", "PARTITION BY LIST (external_id)"), ("parent", "")):
        scratch.execute(f"CREATE TABLE {kind} (external_id text, type text) {clause}")
    scratch.execute("ALTER TABLE parts ATTACH PARTITION \"some events\" DEFAULT")
    scratch.execute("CREATE TABLE here PARTITION OF parts FOR VALUES IN ('x')")
    scratch.execute("INSERT INTO here SELECT 'x', 'local' FROM generate_series(1, 30)")
    scratch.execute("ALTER FOREIGN TABLE \"some assets\" RENAME name TO type")
    scratch.execute("ALTER FOREIGN TABLE \"some assets\" ALTER type OPTIONS (name 'name')")
    scratch.execute("ALTER FOREIGN TABLE \"some assets\" INHERIT parent")
    scratch.execute("INSERT INTO parent SELECT 'y', 'local' FROM generate_series(1, 40)")
    for resource in ("events", "assets"):
        cdf.admin_post("faults", {"path": f"/{resource}/list", "match": "exact", "mode": "status", "status": 403})
    analysed.execute(statement)
    told = [notice for notice in warnings if "skipping it" in notice[2]]
    assert {notice[:2] for notice in told} == {("WARNING", "42501")}
    assert all(any(f"some {name}" in notice[2] for notice in told) for name in ("events", "assets"))
    found = analysed.execute(
        """SELECT tablename, inherited, most_common_vals::text FROM pg_stats
           WHERE schemaname = 'scratch' AND tablename IN ('parts', 'parent', 'here') AND attname = 'type' ORDER BY 1, 2"""
    ).fetchall()
    assert ("here", False, "{local}") in found and ("parent", False, "{local}") in found


def test_analyze_can_be_cancelled(analysed, warnings, cdf):
    cdf.admin_post("faults", {"path": "/events/list", "match": "exact", "mode": "stall"})
    with ThreadPoolExecutor() as pool:
        analyze = pool.submit(analysed.execute, 'ANALYZE scratch."some events"')
        wait_for_request(cdf)
        analysed.cancel()
        with pytest.raises(errors.QueryCanceled):
            analyze.result()
    assert warnings == []
