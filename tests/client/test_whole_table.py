"""UPDATE and DELETE without a condition would go over a whole resource in CDF: as TRUNCATE, they need `truncatable`."""

from __future__ import annotations

import pytest
from support import columns, dump, names, refused, requests

HINT = "truncatable"


@pytest.fixture
def filled(session, cdf):
    session.execute("INSERT INTO events (external_id, type) SELECT 'e' || i, 't' FROM generate_series(1, 5) i")
    session.execute("CREATE TEMP TABLE IF NOT EXISTS staging (key text)")
    session.execute("TRUNCATE staging")
    session.execute("INSERT INTO staging VALUES ('e1'), ('e2')")
    cdf.admin_delete("requests")
    return session


def untouched(cdf) -> None:
    """Nothing was asked of CDF, let alone changed."""
    assert requests(cdf) == []
    assert [event["type"] for event in dump(cdf, "events")] == ["t"] * 5


UNCONDITIONAL = [
    "",
    "WHERE true",
    "WHERE 1 = 1",
    "WHERE NOT false",
    "WHERE external_id = 'e1' OR true",
    "WHERE 'a' IN ('a', 'b')",
    "WHERE 2 > (SELECT 1)",
    "WHERE EXISTS (SELECT FROM staging)",
    "WHERE now() > '2020-01-01'",
    "WHERE tableoid = 'events'::regclass",
]


@pytest.mark.parametrize("condition", UNCONDITIONAL)
@pytest.mark.parametrize("statement", ["DELETE FROM events", "UPDATE events SET type = 'x'"])
def test_a_statement_without_a_condition_is_refused(filled, cdf, statement, condition):
    with refused("0A000", HINT, statement.split()[0], "events"):
        filled.execute(f"{statement} {condition}")
    assert [event["type"] for event in dump(cdf, "events")] == ["t"] * 5
    if "SELECT" not in condition and "now" not in condition:
        untouched(cdf)


@pytest.mark.parametrize(
    "statement",
    [
        "DELETE FROM events USING staging",
        "DELETE FROM events USING staging WHERE staging.key = 'e1'",
        "UPDATE events SET type = s.key FROM staging s",
        "UPDATE events SET type = 'x' FROM staging s JOIN staging u ON s.key = u.key",
        "WITH gone AS (DELETE FROM events RETURNING external_id) SELECT count(*) FROM gone",
        "WITH s AS (SELECT key FROM staging) UPDATE events SET type = 'x' FROM s",
        "DELETE FROM events RETURNING external_id",
    ],
)
def test_joins_that_say_nothing_of_the_table_are_no_condition(filled, cdf, statement):
    with refused("0A000", HINT):
        filled.execute(statement)
    untouched(cdf)


@pytest.mark.parametrize(
    ("statement", "rows"),
    [
        ("DELETE FROM events WHERE external_id IN (SELECT key FROM staging)", 2),
        ("DELETE FROM events WHERE external_id NOT IN (SELECT key FROM staging)", 3),
        ("DELETE FROM events e WHERE NOT EXISTS (SELECT FROM staging s WHERE s.key = e.external_id)", 3),
        ("DELETE FROM events e USING staging s WHERE s.key = e.external_id", 2),
        ("DELETE FROM events e USING staging s WHERE e.external_id > s.key AND s.key = 'e2'", 3),
        ("UPDATE events e SET type = 'x' FROM staging s WHERE s.key = e.external_id", 2),
        ("UPDATE events e SET type = 'x' FROM staging s WHERE e.external_id = 'e4'", 1),
        ("UPDATE events SET type = 'x' WHERE external_id IS NOT NULL", 5),
        ("UPDATE events SET type = 'x' WHERE events IS DISTINCT FROM NULL", 5),
        ("DELETE FROM events WHERE length(external_id) = 2", 5),
    ],
)
def test_what_has_a_condition_runs(filled, cdf, statement, rows):
    assert filled.execute(statement).rowcount == rows


@pytest.mark.parametrize("statement", ["DELETE FROM events", "UPDATE events SET type = 'x'", "DELETE FROM events USING staging"])
@pytest.mark.parametrize("never", ["false", "1 = 0", "NULL", "external_id = 'e1' AND false"])
def test_a_condition_that_never_holds_makes_no_request(filled, cdf, statement, never):
    assert filled.execute(f"{statement} WHERE {never}").rowcount == 0
    untouched(cdf)


@pytest.mark.parametrize("plans", ["force_custom_plan", "force_generic_plan"])
def test_prepared_statements(filled, cdf, plans):
    filled.execute(f"SET plan_cache_mode = {plans}")
    filled.execute("PREPARE every (boolean) AS DELETE FROM events WHERE $1")
    filled.execute("PREPARE one (text) AS DELETE FROM events WHERE external_id = $1")
    assert filled.execute("EXECUTE every (false)").rowcount == 0
    assert filled.execute("EXECUTE every (NULL)").rowcount == 0
    with refused("0A000", HINT):
        filled.execute("EXECUTE every (true)")
    assert filled.execute("EXECUTE one ('e1')").rowcount == 1
    assert len(names(cdf, "events")) == 4
    filled.execute("DEALLOCATE ALL")


def test_views_hand_on_what_they_have(filled, scratch, cdf):
    scratch.view("bare", "SELECT external_id, type FROM events")
    scratch.view("some", "SELECT external_id, type FROM events WHERE external_id > 'e3'")
    for statement in ("DELETE FROM scratch.bare", "UPDATE scratch.bare SET type = 'x'"):
        with refused("0A000", HINT):
            filled.execute(statement)
    assert filled.execute("DELETE FROM scratch.bare WHERE external_id = 'e1'").rowcount == 1
    assert filled.execute("DELETE FROM scratch.some").rowcount == 2
    assert names(cdf, "events") == ["e2", "e3"]


def test_parents_hand_on_what_they_have(filled, scratch, cdf):
    scratch.execute("CREATE TABLE parted (external_id text, type text) PARTITION BY LIST (type)")
    scratch.execute(
        "CREATE FOREIGN TABLE parted_t PARTITION OF parted FOR VALUES IN ('t') SERVER cdf OPTIONS (resource 'events')"
    )
    scratch.execute("CREATE TABLE parted_x PARTITION OF parted FOR VALUES IN ('x')")
    with refused("0A000", HINT):
        filled.execute("DELETE FROM scratch.parted")
    assert filled.execute("DELETE FROM scratch.parted WHERE type = 'x'").rowcount == 0
    untouched(cdf)
    assert filled.execute("DELETE FROM scratch.parted WHERE external_id = 'e1'").rowcount == 1
    scratch.execute("CREATE TABLE parent (external_id text, type text)")
    scratch.execute("CREATE FOREIGN TABLE child () INHERITS (parent) SERVER cdf OPTIONS (resource 'events')")
    with refused("0A000", HINT):
        filled.execute("UPDATE scratch.parent SET type = 'x'")
    assert filled.execute("UPDATE scratch.parent SET type = 'x' WHERE external_id = 'e2'").rowcount == 1
    assert len(names(cdf, "events")) == 4


def test_points_and_rows_of_every_shape(session, scratch, cdf):
    session.execute("INSERT INTO timeseries (external_id) VALUES ('s')")
    session.execute("INSERT INTO datapoints (external_id, timestamp, value) VALUES ('s', '2024-01-01Z', 1)")
    session.execute("INSERT INTO raw_rows (db_name, table_name, key, columns) VALUES ('d', 't', 'k', '{\"n\": 1}')")
    typed = scratch.table("typed", "key text, n int", "raw_rows", database="d", table="t")
    for statement in (
        "DELETE FROM datapoints",
        "UPDATE datapoints SET value = 2",
        "DELETE FROM timeseries",
        "DELETE FROM raw_rows",
        f"DELETE FROM {typed}",
        f"UPDATE {typed} SET n = 2",
    ):
        with refused("0A000", HINT):
            session.execute(statement)
    assert session.execute("DELETE FROM datapoints WHERE external_id = 's'").rowcount == 1
    assert columns(cdf, "k") == {"n": 1}


def test_the_option_allows_it(session, scratch, cdf, api):
    api.create_raw("d", "t", a={"n": 1}, b={"n": 2})
    api.create_raw("d", "other", c={"n": 1})
    typed = scratch.table("typed", "key text, n int", "raw_rows", database="d", table="t", truncatable="true")
    assert session.execute(f"UPDATE {typed} SET n = 7").rowcount == 2
    assert columns(cdf, "a") == {"n": 7}
    assert session.execute(f"DELETE FROM {typed}").rowcount == 2
    assert names(cdf, "raw") == ["c"]
    # The option counts where the statement runs, whenever it was planned.
    session.execute(f"PREPARE all_rows AS DELETE FROM {typed}")
    session.execute("EXECUTE all_rows")
    scratch.execute("ALTER FOREIGN TABLE typed OPTIONS (SET truncatable 'false')")
    with refused("0A000", HINT):
        session.execute("EXECUTE all_rows")
    session.execute("DEALLOCATE all_rows")


def test_explain_shows_it_without_a_request(filled, cdf):
    lines = filled.execute("EXPLAIN (COSTS off) DELETE FROM events").fetchall()
    assert any("/events/delete" in line for (line,) in lines)
    untouched(cdf)
