"""EXPLAIN names the requests that a statement makes, and makes none."""

from __future__ import annotations

import re

import pytest
from support import paths, requests, scratch, session  # noqa: F401


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
