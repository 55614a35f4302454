"""INSERT … ON CONFLICT (key) DO UPDATE SET … WHERE …, and what names a key."""

from __future__ import annotations

import pytest
from support import columns, dump, paths, points, refused, requests, stored

UPSERT = "ON CONFLICT (external_id) DO UPDATE SET type = EXCLUDED.type"


@pytest.fixture
def filled(session, cdf):
    """The events e1 to e3, of type `old`."""
    session.execute("INSERT INTO events (external_id, type, source) SELECT 'e' || i, 'old', 's' FROM generate_series(1, 3) i")
    cdf.admin_delete("requests")
    return session


def kinds(cdf) -> dict[str, str | None]:
    return {event["externalId"]: event.get("type") for event in dump(cdf, "events")}


OLD = {"e1": "old", "e2": "old", "e3": "old"}


# ---- conditions that a row decides ----


@pytest.mark.parametrize("condition", ["true", "1 = 1", "EXCLUDED.type IS NOT NULL", "EXCLUDED.type IN ('new', 'other')"])
def test_a_condition_that_holds_updates(filled, cdf, condition):
    written = filled.execute(
        f"INSERT INTO events (external_id, type) VALUES ('e1', 'new'), ('n', 'new') {UPSERT} WHERE {condition}"
    )
    assert written.rowcount == 2
    assert kinds(cdf) == OLD | {"e1": "new", "n": "new"}


@pytest.mark.parametrize("condition", ["false", "NULL::boolean", "EXCLUDED.type = 'no'", "EXCLUDED.source <> 'x'"])
def test_a_row_that_does_not_fulfil_it_is_created_but_updates_nothing(filled, cdf, condition):
    written = filled.execute(
        f"INSERT INTO events (external_id, type) VALUES ('e1', 'new'), ('n', 'new') {UPSERT} WHERE {condition}"
    )
    assert written.rowcount == 1
    assert kinds(cdf) == OLD | {"n": "new"}


MIXED = "INSERT INTO events (external_id, type) VALUES ('e1', 'new'), ('e2', NULL), ('n1', 'new'), ('n2', NULL)"
MIXED_LEFT = {"e1": "new", "e2": "old", "e3": "old", "n1": "new", "n2": None}


def test_rows_of_both_kinds(filled, cdf):
    written = filled.execute(f"{MIXED} {UPSERT} WHERE EXCLUDED.type IS NOT NULL")
    assert written.rowcount == 3
    assert kinds(cdf) == MIXED_LEFT
    # Only what the condition leaves alone is asked for.
    assert paths(cdf)[0] == "/events/byids" and requests(cdf)[0]["items"] == 2


def test_rows_of_both_kinds_with_returning(filled, cdf):
    written = filled.execute(f"{MIXED} {UPSERT} WHERE EXCLUDED.type IS NOT NULL RETURNING external_id")
    assert [key for (key,) in written.fetchall()] == ["e1", "n1", "n2"]
    assert kinds(cdf) == MIXED_LEFT


def test_a_selection_of_thousands(filled, cdf):
    written = filled.execute(
        "INSERT INTO events (external_id, type) SELECT 'e' || i, CASE WHEN i % 2 = 0 THEN 'even' ELSE 'odd' END"
        f" FROM generate_series(1, 2500) i {UPSERT} WHERE EXCLUDED.type = 'even'"
    )
    assert written.rowcount == 2498
    found = kinds(cdf)
    assert len(found) == 2500
    assert (found["e1"], found["e2"], found["e3"]) == ("old", "even", "old")
    assert all(found[f"e{i}"] == ("even" if i % 2 == 0 else "odd") for i in range(4, 2501))


def test_one_row_asks_only_where_it_is_left_alone(filled, cdf):
    insert = f"INSERT INTO events (external_id, type) VALUES (%s, %s) {UPSERT} WHERE EXCLUDED.type <> 'no'"
    assert filled.execute(insert, ("e1", "new")).rowcount == 1
    assert paths(cdf) == ["/events", "/events/update"]
    assert filled.execute(insert, ("e2", "no")).rowcount == 0
    assert paths(cdf)[2:] == ["/events/byids"]
    assert filled.execute(insert, ("n", "no")).rowcount == 1
    assert kinds(cdf) == OLD | {"e1": "new", "n": "no"}


def test_parameters_functions_and_subqueries(filled, cdf):
    filled.execute("CREATE TEMP TABLE taken (type text)")
    filled.execute("INSERT INTO taken VALUES ('new')")
    insert = "INSERT INTO events (external_id, type, start_time) VALUES (%s, %s, %s) "
    for key, kind, condition, holds in [
        ("e1", "new", "length(EXCLUDED.type) < %s AND EXCLUDED.start_time < now()", True),
        ("e2", "far too long", "length(EXCLUDED.type) < %s AND EXCLUDED.start_time < now()", False),
        ("e3", "new", "EXCLUDED.type IN (SELECT type FROM taken) AND 5 = %s", True),
    ]:
        written = filled.execute(f"{insert} {UPSERT} WHERE {condition}", (key, kind, "2024-01-01Z", 5), prepare=True)
        assert written.rowcount == (1 if holds else 0)
    assert kinds(cdf) == {"e1": "new", "e2": "old", "e3": "new"}


def test_a_prepared_statement_again_and_again(filled, cdf):
    filled.execute("SET plan_cache_mode = force_generic_plan")
    filled.execute(
        "PREPARE put (text, text, text) AS INSERT INTO events (external_id, type) VALUES ($1, $2)"
        f" {UPSERT} WHERE EXCLUDED.type <> $3"
    )
    for key, kind, other in [("e1", "a", "b"), ("e2", "a", "a"), ("e3", "c", "a"), ("n", "a", "a")] * 2:
        filled.execute(f"EXECUTE put ('{key}', '{kind}', '{other}')")
    assert kinds(cdf) == {"e1": "a", "e2": "old", "e3": "c", "n": "a"}
    filled.execute("DEALLOCATE put")


def test_only_the_columns_of_set_reach_an_existing_row(filled, cdf):
    filled.execute(
        "INSERT INTO events (external_id, type, source) VALUES ('e1', 'new', 'x'), ('e2', 'no', 'x'), ('n', 'no', 'x')"
        f" {UPSERT} WHERE EXCLUDED.type = 'new'"
    )
    found = {event["externalId"]: (event["type"], event["source"]) for event in dump(cdf, "events")}
    assert found == {"e1": ("new", "s"), "e2": ("old", "s"), "e3": ("old", "s"), "n": ("no", "x")}


# ---- the order of a transaction ----


@pytest.mark.parametrize("exists", [True, False])
def test_several_writes_of_a_key_count_one_after_another(session, api, cdf, exists):
    if exists:
        api.create("events", "e", type="old", source="kept")
    put = f"INSERT INTO events (external_id, type) VALUES ('e', %s) {UPSERT} WHERE EXCLUDED.type LIKE 'yes%%'"
    with session.transaction():
        session.execute(put, ("no 1",))
        seen = session.execute("SELECT type FROM events WHERE external_id = 'e'").fetchone()
        assert seen == ("old" if exists else "no 1",)
        session.execute(put, ("yes 2",))
        session.execute(put, ("no 3",))
        session.execute("INSERT INTO events (external_id, subtype) VALUES ('e', 'sub')")
        session.execute(put, ("no 4",))
        assert session.execute("SELECT type, subtype FROM events").fetchone() == ("yes 2", "sub")
    event = stored(cdf, "events", "e")
    assert (event["type"], event["subtype"], event.get("source")) == ("yes 2", "sub", "kept" if exists else None)


def test_a_key_twice_in_a_statement(filled, cdf):
    written = filled.execute(
        "INSERT INTO events (external_id, type) VALUES ('e1', 'no'), ('e1', 'yes'), ('e1', 'no'), ('n', 'no'), ('n', 'no 2')"
        f" {UPSERT} WHERE EXCLUDED.type = 'yes'"
    )
    assert written.rowcount == 2
    assert kinds(cdf) == OLD | {"e1": "yes", "n": "no"}


def test_what_a_savepoint_undoes_does_not_count(filled, cdf):
    put = f"INSERT INTO events (external_id, type) VALUES (%s, %s) {UPSERT} WHERE EXCLUDED.type = 'yes'"
    with filled.transaction():
        filled.execute("SAVEPOINT s")
        filled.execute(put, ("n", "yes"))
        filled.execute(put, ("e1", "yes"))
        filled.execute("ROLLBACK TO s")
        assert filled.execute(put, ("n", "no")).rowcount == 1
        assert filled.execute(put, ("e1", "no")).rowcount == 0
    assert kinds(cdf) == OLD | {"n": "no"}


# ---- other resources ----


def test_raw_rows(session, scratch, api, cdf):
    table = scratch.table("r", "key text, a int, b text", "raw_rows", database="d", table="t")
    api.create_raw("d", "t", old={"a": 1, "b": "kept"}, kept={"a": 1})
    written = session.execute(
        f"INSERT INTO {table} VALUES ('old', 7, 'x'), ('kept', -1, 'x'), ('new', -1, 'x')"
        " ON CONFLICT (key) DO UPDATE SET a = EXCLUDED.a WHERE EXCLUDED.a > 0"
    )
    assert written.rowcount == 2
    assert columns(cdf, "old") == {"a": 7, "b": "kept"}
    assert columns(cdf, "kept") == {"a": 1}
    assert columns(cdf, "new") == {"a": -1, "b": "x"}


def test_datapoints(session, api, cdf):
    api.create("timeseries", "s")
    session.execute("INSERT INTO datapoints (external_id, timestamp, value) VALUES ('s', to_timestamp(1), 1), ('s', to_timestamp(2), 1)")
    written = session.execute(
        "INSERT INTO datapoints (external_id, timestamp, value)"
        " VALUES ('s', to_timestamp(1), 5), ('s', to_timestamp(2), -5), ('s', to_timestamp(3), -5)"
        ' ON CONFLICT (external_id, "timestamp") DO UPDATE SET value = EXCLUDED.value WHERE EXCLUDED.value > 0'
    )
    assert written.rowcount == 2
    assert points(cdf, "s") == [(1000, 5.0, None), (2000, 1.0, None), (3000, -5.0, None)]


def test_through_a_view(filled, scratch, cdf):
    scratch.view("v", "SELECT external_id AS key, type AS kind FROM events")
    written = filled.execute(
        "INSERT INTO scratch.v (key, kind) VALUES ('e1', 'new'), ('e2', 'no')"
        " ON CONFLICT (key) DO UPDATE SET kind = EXCLUDED.kind WHERE EXCLUDED.kind = 'new'"
    )
    assert written.rowcount == 1
    assert kinds(cdf) == OLD | {"e1": "new"}


# ---- conditions that keep an update from changing nothing ----

SAME = [
    "events.type IS DISTINCT FROM EXCLUDED.type",
    "EXCLUDED.type IS DISTINCT FROM events.type",
    "events.type IS DISTINCT FROM EXCLUDED.type OR events.source IS DISTINCT FROM EXCLUDED.source",
    "(events.type, events.source) IS DISTINCT FROM (EXCLUDED.type, EXCLUDED.source)",
    "(events.*) IS DISTINCT FROM (EXCLUDED.*)",
    "events.type IS DISTINCT FROM EXCLUDED.type AND EXCLUDED.type <> 'no'",
    "events.type IS DISTINCT FROM EXCLUDED.type OR events.start_time < EXCLUDED.start_time",
]


@pytest.mark.parametrize("condition", SAME)
def test_a_condition_that_a_change_fulfils_is_left_out(filled, cdf, condition):
    written = filled.execute(
        f"INSERT INTO events (external_id, type) VALUES ('e1', 'new'), ('e2', 'old'), ('n', 'new') {UPSERT} WHERE {condition}"
    )
    assert written.rowcount == 3
    assert kinds(cdf) == OLD | {"e1": "new", "n": "new"}


EXISTING = [
    "events.type = 'old'",
    "events.start_time < EXCLUDED.start_time",
    # Where the two types are the same, another column of SET may differ.
    "events.source IS DISTINCT FROM EXCLUDED.source",
    "events.type <> EXCLUDED.type",
    "events.type IS NOT DISTINCT FROM EXCLUDED.type",
    "events.type IS DISTINCT FROM EXCLUDED.source",
    "events.type IS DISTINCT FROM EXCLUDED.type AND events.type = 'old'",
    "EXISTS (SELECT 1 FROM generate_series(1, 2) i WHERE i::text = events.type)",
    "events.external_id = 'e'",
]


@pytest.mark.parametrize("condition", EXISTING)
def test_conditions_on_the_existing_row_are_refused(filled, cdf, condition):
    with refused("0A000") as caught:
        filled.execute(f"INSERT INTO events (external_id, type) VALUES ('e1', 'new') {UPSERT} WHERE {condition}")
    assert "the row that exists" in caught.value.diag.message_primary
    assert "IS DISTINCT FROM EXCLUDED" in caught.value.diag.message_hint
    assert requests(cdf) == []


def test_part_of_what_is_set_is_not_enough(filled, cdf):
    insert = "INSERT INTO events (external_id, type, source) VALUES ('e1', 'old', 'x') ON CONFLICT (external_id) DO UPDATE SET {} WHERE {}"
    both = "type = EXCLUDED.type, source = EXCLUDED.source, external_id = EXCLUDED.external_id"
    with refused("0A000", "the row that exists"):
        filled.execute(insert.format(both, "events.type IS DISTINCT FROM EXCLUDED.type"))
    # The key is the same anyway.
    filled.execute(insert.format(both, "(events.source, events.type) IS DISTINCT FROM (EXCLUDED.source, EXCLUDED.type)"))
    assert stored(cdf, "events", "e1")["source"] == "x"


def test_volatile_conditions_are_refused(filled, cdf):
    with refused("0A000", "volatile"):
        filled.execute(f"INSERT INTO events (external_id, type) VALUES ('e1', 'new') {UPSERT} WHERE random() < 2")
    assert requests(cdf) == []


def test_a_condition_that_fails_leaves_the_transaction_as_it_was(filled, cdf):
    with filled.transaction():
        filled.execute("INSERT INTO events (external_id) VALUES ('kept')")
        with refused("22012"), filled.transaction():
            filled.execute(
                f"INSERT INTO events (external_id, type) VALUES ('lost', 'x'), ('e1', '') {UPSERT} WHERE 1 / length(EXCLUDED.type) > 0"
            )
    assert kinds(cdf) == OLD | {"kept": None}


def test_explain_names_the_condition(filled, cdf):
    plan = "\n".join(
        line
        for (line,) in filled.execute(
            f"EXPLAIN (COSTS off) INSERT INTO events (external_id, type) VALUES ('e1', 'new'), ('e2', 'x') {UPSERT}"
            " WHERE EXCLUDED.type = 'new' AND events.type IS DISTINCT FROM EXCLUDED.type"
        )
    )
    assert "Conflict Filter: (excluded.type = 'new'::text)" in plan
    assert "Existing Rows: update some columns where the condition holds, else ignore, not counted" in plan
    assert requests(cdf) == []


# ---- partitions ----


@pytest.fixture
def parted(scratch):
    """A partitioned table whose parts are foreign tables with their columns in another order."""
    scratch.execute("CREATE TABLE parted (source text, external_id text, type text) PARTITION BY LIST (source)")
    scratch.table("part_s", "type text, external_id text, source text", "events")
    scratch.table("part_rest", "external_id text, source text, type text", "events")
    scratch.execute("ALTER TABLE parted ATTACH PARTITION part_s FOR VALUES IN ('s')")
    scratch.execute("ALTER TABLE parted ATTACH PARTITION part_rest DEFAULT")
    return "scratch.parted"


def test_a_partitioned_parent_of_foreign_tables(filled, parted, cdf):
    rows = "VALUES ('s', 'e1', 'new'), ('x', 'n1', 'new'), ('s', 'e2', 'no'), ('x', 'e3', 'no'), ('x', 'n2', 'no')"
    filled.execute(f"INSERT INTO {parted} {rows} {UPSERT} WHERE EXCLUDED.type = 'new'")
    found = {event["externalId"]: (event["type"], event["source"]) for event in dump(cdf, "events")}
    assert found == {"e1": ("new", "s"), "e2": ("old", "s"), "e3": ("old", "s"), "n1": ("new", "x"), "n2": ("no", "x")}
    filled.execute(f"INSERT INTO {parted} VALUES ('y', 'e2', 'other'), ('y', 'n3', 'other') {UPSERT}")
    found = {event["externalId"]: (event["type"], event["source"]) for event in dump(cdf, "events")}
    assert (found["e2"], found["n3"]) == (("other", "s"), ("other", "y"))
    filled.execute(f"INSERT INTO {parted} VALUES ('x', 'e1', 'lost'), ('x', 'n4', 'x') ON CONFLICT (external_id) DO NOTHING")
    assert kinds(cdf) == {"e1": "new", "e2": "other", "e3": "old", "n1": "new", "n2": "no", "n3": "other", "n4": "x"}


def test_a_partitioned_parent_names_the_key_of_its_part(session, parted):
    with refused("42P10", "(type)", '"part_', "(external_id)"):
        session.execute(f"INSERT INTO {parted} VALUES ('s', 'e', 'x') ON CONFLICT (type) DO NOTHING")


def test_a_parent_with_a_local_part_has_no_key(session, scratch, parted):
    scratch.execute("CREATE TABLE part_local PARTITION OF parted FOR VALUES IN ('local')")
    with refused("42P10", "unique or exclusion constraint"):
        session.execute(f"INSERT INTO {parted} VALUES ('s', 'e', 'x') ON CONFLICT (external_id) DO NOTHING")


# ---- what names a key ----


def test_a_target_that_is_no_key_names_the_keys(session, scratch, cdf):
    plain = scratch.table("plain", "key text, a int", "raw_rows", database="d", table="t")
    for statement, *texts in [
        ("events (external_id) VALUES ('e') ON CONFLICT (type)", "(type)", '"events"', "(external_id), (id)"),
        ("events (external_id) VALUES ('e') ON CONFLICT (external_id, type)", "(external_id, type)", "(external_id), (id)"),
        ("events (external_id) VALUES ('e') ON CONFLICT (lower(external_id))", "expression", "(external_id), (id)"),
        ("labels (external_id) VALUES ('e') ON CONFLICT (name)", '"labels", which is (external_id)'),
        (
            "datapoints (external_id) VALUES ('e') ON CONFLICT (external_id)",
            '(external_id, "timestamp"), (id, "timestamp"), (instance_space, instance_external_id, "timestamp")',
        ),
        ("raw_rows (key) VALUES ('e') ON CONFLICT (key)", "(db_name, table_name, key)"),
        (f"{plain} VALUES ('e', 1) ON CONFLICT (a)", '"plain", which is (key)'),
    ]:
        for action in ("DO NOTHING", "DO UPDATE SET "):
            column = "a" if "plain" in statement else "name" if statement.startswith("labels") else "external_id"
            column = "key" if statement.startswith("raw_rows") else column
            end = f"{column} = EXCLUDED.{column}" if action.endswith("SET ") else ""
            with refused("42P10") as caught:
                session.execute(f"INSERT INTO {statement} {action}{end}")
            for text in texts:
                assert text in caught.value.diag.message_primary
            assert "ON CONFLICT (" in caught.value.diag.message_hint
    assert requests(cdf) == []


def test_a_table_without_its_key_says_so(session, scratch, cdf):
    table = scratch.table("keyless", "type text", "events")
    with refused("42P10", '"keyless" has no column of its key'):
        session.execute(f"INSERT INTO {table} VALUES ('a') ON CONFLICT (type) DO NOTHING")


def test_the_order_of_key_columns_and_an_index_predicate_do_not_matter(session, api, cdf):
    api.create("timeseries", "s")
    for target in ('("timestamp", external_id)', '(external_id, "timestamp") WHERE value > 0'):
        session.execute(
            "INSERT INTO datapoints (external_id, timestamp, value) VALUES ('s', to_timestamp(1), 2)"
            f" ON CONFLICT {target} DO UPDATE SET value = EXCLUDED.value"
        )
    assert points(cdf, "s") == [(1000, 2.0, None)]
