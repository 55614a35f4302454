"""INSERT is an upsert: by key, column by column, parents first, references by their names."""

from __future__ import annotations

import random
from concurrent.futures import ThreadPoolExecutor

import pytest
from psycopg.types.json import Jsonb
from support import assert_each_key_once, dump, keys_sent, names, paths, points, refused, requests, stored

# ---- the same load again ----


def snapshot(cdf) -> dict:
    """All that CDF holds, but when it was last written."""
    resources = ("assets", "events", "timeseries", "datapoints", "raw")
    return {
        name: sorted(str({k: v for k, v in item.items() if k != "lastUpdatedTime"}) for item in dump(cdf, name))
        for name in resources
    }


def load(session) -> None:
    with session.transaction():
        session.execute(
            "INSERT INTO assets (external_id, name, parent_external_id, metadata) VALUES"
            " ('pump', 'Pump', 'hall', '{\"kW\": 7}'), ('hall', 'Hall', NULL, NULL)"
        )
        session.execute("INSERT INTO timeseries (external_id, name, asset_external_id) VALUES ('s', 'S', 'pump')")
        session.execute("INSERT INTO events (external_id, asset_external_ids) VALUES ('e', '{pump,hall}')")
        session.execute("INSERT INTO datapoints (external_id, timestamp, value) VALUES ('s', '2024-01-01Z', 1)")
        session.execute("INSERT INTO raw_rows (db_name, table_name, key, columns) VALUES ('d', 't', 'k', '{\"n\": 1}')")


def test_the_same_load_twice_ends_in_the_same_state(session, cdf):
    load(session)
    first = snapshot(cdf)
    assert [len(items) for items in first.values()] == [2, 1, 1, 1, 1]
    load(session)
    assert snapshot(cdf) == first


def test_an_existing_item_is_updated_and_a_new_one_created(session, cdf):
    session.execute("INSERT INTO events (external_id, type, source) VALUES ('old', 'x', 'kept')")
    before = stored(cdf, "events", "old")
    session.execute("INSERT INTO events (external_id, type) VALUES ('old', 'y'), ('new', 'z')")
    after = stored(cdf, "events", "old")
    assert (after["id"], after["type"], after["source"]) == (before["id"], "y", "kept")
    assert stored(cdf, "events", "new")["type"] == "z"


@pytest.mark.parametrize("existing", [1, 999, 1000, 1001, 2500])
def test_existing_and_new_in_one_load(session, cdf, existing):
    insert = "INSERT INTO events (external_id, type) SELECT 'e' || n, %s FROM generate_series(1, %s::int) AS n"
    session.execute(insert, ("old", existing))
    ids = {event["externalId"]: event["id"] for event in dump(cdf, "events")}
    session.execute(insert, ("new", 2500))
    found = dump(cdf, "events")
    assert len(found) == 2500 and {event["type"] for event in found} == {"new"}
    assert {event["externalId"]: event["id"] for event in found if event["externalId"] in ids} == ids


def test_a_row_that_only_names_an_existing_item_changes_nothing(session, cdf):
    session.execute("INSERT INTO events (external_id, type) VALUES ('e', 'x')")
    before = stored(cdf, "events", "e")
    session.execute("INSERT INTO events (external_id) VALUES ('e'), ('new')")
    assert stored(cdf, "events", "e") == before
    assert names(cdf, "events") == ["e", "new"]


# ---- the last write of a key wins ----


def test_the_last_write_wins_within_a_statement(session, cdf):
    session.execute(
        "INSERT INTO events (external_id, type, source, description) VALUES"
        " ('e', 'first', 'a', NULL), ('e', 'second', NULL, 'b'), ('e', NULL, NULL, 'c')"
    )
    event = stored(cdf, "events", "e")
    assert (event["type"], event["source"], event["description"]) == ("second", "a", "c")
    assert [entry["items"] for entry in requests(cdf, "/events")] == [1]


def test_the_last_write_wins_across_statements(session, cdf):
    with session.transaction():
        session.execute(
            "INSERT INTO events (external_id, type, metadata) VALUES ('e', 'first', '{\"a\": 1, \"b\": 1}')"
        )
        session.execute("INSERT INTO events (external_id, source) VALUES ('e', 'x')")
        session.execute("INSERT INTO events (external_id, metadata) VALUES ('e', '{\"b\": 2}')")
        session.execute("INSERT INTO events (external_id, type) VALUES ('e', 'last')")
    event = stored(cdf, "events", "e")
    assert (event["type"], event["source"], event["metadata"]) == ("last", "x", {"b": "2"})
    assert_each_key_once(requests(cdf))


def test_the_last_write_wins_on_what_exists(session, cdf):
    session.execute("INSERT INTO events (external_id, type, subtype) VALUES ('e', 'old', 'old')")
    with session.transaction():
        session.execute("INSERT INTO events (external_id, type, source) VALUES ('e', '1', 'a')")
        session.execute("INSERT INTO events (external_id, type) VALUES ('e', '2')")
    event = stored(cdf, "events", "e")
    assert (event["type"], event["source"], event["subtype"]) == ("2", "a", "old")


@pytest.mark.parametrize("exists", [False, True])
@pytest.mark.parametrize("gap", [0, 1, 998, 999, 1000, 1001, 2500])
def test_a_key_again_on_either_side_of_the_limit_of_a_request(session, cdf, gap, exists):
    if exists:
        session.execute(
            "INSERT INTO events (external_id, type) SELECT 'e' || n, 'old' FROM generate_series(0, 2600, 3) n"
        )
    with session.transaction():
        session.execute("INSERT INTO events (external_id, type, source) VALUES ('e0', 'first', 'kept')")
        session.execute(
            "INSERT INTO events (external_id, type) SELECT 'e' || n, 'x' FROM generate_series(1, %s::int) AS n", (gap,)
        )
        session.execute("INSERT INTO events (external_id, type) VALUES ('e0', 'last')")
    event = stored(cdf, "events", "e0")
    assert (event["type"], event["source"]) == ("last", "kept")
    assert_each_key_once(requests(cdf))
    assert all(entry["items"] <= 1000 for entry in requests(cdf))


def test_many_keys_again_and_again(session, cdf):
    order = [at % 1500 for at in range(6000)]
    random.Random(3).shuffle(order)
    with session.transaction():
        session.cursor().executemany(
            "INSERT INTO events (external_id, type) VALUES (%s, %s)",
            [(f"e{at}", str(version)) for version, at in enumerate(order)],
        )
    last = {f"e{at}": str(version) for version, at in enumerate(order)}
    assert {event["externalId"]: event["type"] for event in dump(cdf, "events")} == last
    assert_each_key_once(requests(cdf))


def test_the_last_write_wins_across_savepoints(session, cdf):
    insert = "INSERT INTO events (external_id, type, source) VALUES ('e', %s, %s)"
    with session.transaction():
        session.execute(insert, ("outer", "outer"))
        session.execute("SAVEPOINT kept")
        session.execute(insert, ("inner", None))
        session.execute("RELEASE kept")
        session.execute("SAVEPOINT undone")
        session.execute(insert, ("lost", "lost"))
        session.execute("ROLLBACK TO undone")
        session.execute(insert, (None, "after"))
    event = stored(cdf, "events", "e")
    assert (event["type"], event["source"]) == ("inner", "after")
    assert_each_key_once(requests(cdf))


def test_a_rolled_back_savepoint_gives_the_value_before_it_back(session, cdf):
    with session.transaction():
        session.execute(
            "INSERT INTO events (external_id, type) SELECT 'e' || n, 'before' FROM generate_series(1, 1500) n"
        )
        session.execute("SAVEPOINT undone")
        session.execute(
            "INSERT INTO events (external_id, type) SELECT 'e' || n, 'lost' FROM generate_series(1, 2000) n"
        )
        session.execute("ROLLBACK TO undone")
        session.execute(
            "INSERT INTO events (external_id, source) SELECT 'e' || n, 'after' FROM generate_series(1, 10) n"
        )
    found = dump(cdf, "events")
    assert len(found) == 1500 and {event["type"] for event in found} == {"before"}
    assert {event["externalId"] for event in found if event.get("source")} == {f"e{n}" for n in range(1, 11)}


def test_two_tables_of_one_resource_write_one_after_another(session, cdf, scratch):
    table = scratch.table("mine", "tag text OPTIONS (name 'external_id'), type text", "events")
    with session.transaction():
        session.execute("INSERT INTO events (external_id, type, source) VALUES ('e', 'first', 'kept')")
        session.execute(f"INSERT INTO {table} VALUES ('e', 'second')")
        session.execute("INSERT INTO events (external_id, description) VALUES ('e', 'third')")
    event = stored(cdf, "events", "e")
    assert (event["type"], event["source"], event["description"]) == ("second", "kept", "third")
    assert_each_key_once(requests(cdf))


def test_keys_are_told_apart_by_case_and_spaces(session, cdf):
    keys = ["a", "A", " a", "a ", "ä", "a\u0308", ""]
    session.cursor().executemany("INSERT INTO events (external_id) VALUES (%s)", [(key,) for key in keys])
    assert names(cdf, "events") == sorted(keys)


def test_sessions_that_write_the_same_keys_at_once(gateway, cdf):
    insert = (
        "INSERT INTO events (external_id, type, source) SELECT 'e' || n, %s, 'all' FROM generate_series(1, 3000) AS n"
    )

    def write(name: str) -> None:
        with gateway.connect() as connection:
            for _ in range(2):
                connection.execute(insert, (name,))
                connection.commit()

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(write, ["one", "two", "three", "four"]))
    found = dump(cdf, "events")
    assert len(found) == len({event["externalId"] for event in found}) == 3000
    assert {event["source"] for event in found} == {"all"}


# ---- NULL ----


def test_null_columns_are_left_as_they_are(session, cdf):
    session.execute("INSERT INTO events (external_id, type, metadata) VALUES ('e', 'x', '{\"k\": \"v\"}')")
    session.execute("INSERT INTO events (external_id, type, metadata, source) VALUES ('e', NULL, NULL, 's')")
    event = stored(cdf, "events", "e")
    assert (event["type"], event["metadata"], event["source"]) == ("x", {"k": "v"}, "s")


@pytest.fixture
def clearing(scratch):
    return scratch.table(
        "clearing",
        "external_id text, type text, metadata jsonb, source text, start_time timestamptz, asset_ids int8[],"
        " data_set_id int8, data_set_external_id text",
        "events",
        null_handling="set_null",
    )


def test_set_null_clears_what_exists(session, cdf, clearing, api):
    [asset] = api.create("assets", "a")
    [data_set] = api.create("datasets", "d")
    session.execute(
        f"INSERT INTO {clearing} VALUES ('e', 'x', '{{\"k\": \"v\"}}', 's', '2024-01-01Z', %s, %s)", ([asset], data_set)
    )
    session.execute(f"INSERT INTO {clearing} (external_id, source) VALUES ('e', 'changed')")
    event = stored(cdf, "events", "e")
    assert event["source"] == "changed"
    cleared = ("type", "startTime", "assetIds", "dataSetId")
    assert not any(event.get(key) for key in (*cleared, "metadata")), event


def test_set_null_creates_without_nulls(session, cdf, clearing):
    session.execute(f"INSERT INTO {clearing} (external_id, type) VALUES ('e', 'x'), ('f', NULL)")
    assert stored(cdf, "events", "e")["type"] == "x"
    assert "type" not in stored(cdf, "events", "f")


def test_set_null_of_existing_and_new_in_one_load(session, cdf, clearing):
    session.execute(
        "INSERT INTO events (external_id, type, source) SELECT 'e' || n, 'x', 'y' FROM generate_series(1, 5) n"
    )
    session.execute(f"INSERT INTO {clearing} (external_id, type) SELECT 'e' || n, 'z' FROM generate_series(1, 10) n")
    found = dump(cdf, "events")
    assert len(found) == 10
    assert {(event["type"], event.get("source")) for event in found} == {("z", None)}


def test_set_null_within_a_transaction_counts_as_a_write(session, cdf, clearing):
    session.execute("INSERT INTO events (external_id, type, source) VALUES ('e', 'old', 'old')")
    with session.transaction():
        session.execute(f"INSERT INTO {clearing} (external_id, type, source) VALUES ('e', 'x', 'y')")
        session.execute(f"INSERT INTO {clearing} (external_id, type) VALUES ('e', NULL)")
        session.execute("INSERT INTO events (external_id, source) VALUES ('e', 'after')")
    event = stored(cdf, "events", "e")
    assert (event.get("type"), event["source"]) == (None, "after")


def test_set_null_leaves_what_cannot_be_cleared(session, cdf, scratch):
    table = scratch.table(
        "clearing_assets",
        "external_id text, name text, parent_external_id text, description text",
        "assets",
        null_handling="set_null",
    )
    session.execute(f"INSERT INTO {table} VALUES ('root', 'Root', NULL, 'x'), ('child', 'Child', 'root', 'x')")
    session.execute(f"INSERT INTO {table} (external_id) VALUES ('child')")
    child = stored(cdf, "assets", "child")
    assert (child["name"], child["parentExternalId"], child.get("description")) == ("Child", "root", None)


def test_null_handling_of_the_server_and_of_the_table(session, cdf, scratch):
    scratch.execute("ALTER SERVER cdf OPTIONS (ADD null_handling 'set_null')")
    try:
        keeping = scratch.table("keeping", "external_id text, type text", "events", null_handling="ignore")
        session.execute("INSERT INTO events (external_id, type, source) VALUES ('a', 'x', 'y'), ('b', 'x', 'y')")
        session.execute(f"INSERT INTO {keeping} VALUES ('a', NULL)")
        session.execute("INSERT INTO events (external_id) VALUES ('b')")
        assert stored(cdf, "events", "a")["type"] == "x"
        assert "type" not in stored(cdf, "events", "b")
    finally:
        scratch.execute("ALTER SERVER cdf OPTIONS (DROP null_handling)")


# ---- on_conflict ----


@pytest.fixture
def strict(scratch):
    return scratch.table("strict", "external_id text, type text, id int8", "events", on_conflict="error")


@pytest.fixture
def keeping(scratch):
    return scratch.table("keeping", "external_id text, type text, id int8", "events", on_conflict="ignore")


def test_on_conflict_error_refuses_what_exists(session, cdf, strict):
    session.execute(f"INSERT INTO {strict} VALUES ('a', 'x')")
    with refused("23505", '"a"', "on_conflict"):
        session.execute(f"INSERT INTO {strict} VALUES ('a', 'y')")
    assert stored(cdf, "events", "a")["type"] == "x"


def test_on_conflict_error_creates_nothing_of_the_request(session, cdf, strict):
    session.execute(f"INSERT INTO {strict} (external_id, type) VALUES ('old', 'first')")
    with refused("23505", '"old"', "x-request-id", "accepted nothing"):
        session.execute(f"INSERT INTO {strict} (external_id, type) VALUES ('new', 'x'), ('old', 'x')")
    assert names(cdf, "events") == ["old"]


def test_on_conflict_error_is_not_raised_for_rows_of_its_own(session, cdf, strict):
    # CDF applies the request and its answer is lost: sent again, the row would be refused because of itself.
    cdf.admin_post("faults", {"path": "/events", "match": "exact", "mode": "drop_after", "times": 1})
    with refused("08006", '"a"', "may have"):
        session.execute(f"INSERT INTO {strict} (external_id, type) VALUES ('a', 'x')")
    assert names(cdf, "events") == ["a"]


def test_on_conflict_error_names_all_rows_and_counts_them(session, cdf, strict):
    session.execute(
        "INSERT INTO events (external_id) SELECT 'e' || lpad(n::text, 2, '0') FROM generate_series(1, 15) n"
    )
    with refused("23505", '"e01"', '"e10"', "15 in all") as caught:
        session.execute(f"INSERT INTO {strict} SELECT 'e' || lpad(n::text, 2, '0') FROM generate_series(1, 15) n")
    assert '"e11"' not in caught.value.diag.message_detail


def test_on_conflict_error_refuses_a_key_twice_in_a_transaction(session, cdf, strict):
    with refused("23505", '"a"'), session.transaction():
        session.execute(f"INSERT INTO {strict} VALUES ('a', 'x'), ('b', 'x')")
        session.execute(f"INSERT INTO {strict} VALUES ('a', 'y')")
    assert dump(cdf, "events") == []


def test_on_conflict_error_refuses_a_key_twice_in_a_statement(session, cdf, strict):
    with refused("23505", '"a"'):
        session.execute(f"INSERT INTO {strict} VALUES ('a', 'x'), ('a', 'y')")
    assert dump(cdf, "events") == []


def test_on_conflict_error_takes_a_key_again_whose_row_was_rolled_back(session, cdf, strict):
    with session.transaction():
        session.execute("SAVEPOINT undone")
        session.execute(f"INSERT INTO {strict} VALUES ('a', 'x')")
        session.execute("ROLLBACK TO undone")
        session.execute(f"INSERT INTO {strict} VALUES ('a', 'y')")
    assert stored(cdf, "events", "a")["type"] == "y"


def test_on_conflict_ignore_leaves_what_exists(session, cdf, keeping):
    session.execute("INSERT INTO events (external_id, type) VALUES ('a', 'x')")
    before = stored(cdf, "events", "a")
    cursor = session.execute(f"INSERT INTO {keeping} VALUES ('a', 'y'), ('b', 'y'), ('b', 'z')")
    assert cursor.rowcount == 3
    assert stored(cdf, "events", "a") == before
    assert stored(cdf, "events", "b")["type"] == "y"


def test_a_row_with_an_id_is_an_existing_one(session, cdf, strict, keeping):
    session.execute("INSERT INTO events (external_id, type) VALUES ('a', 'x')")
    key = stored(cdf, "events", "a")["id"]
    session.execute(f"INSERT INTO {keeping} (id, type) VALUES ({key}, 'y')")
    session.execute(f"INSERT INTO events (id, type) VALUES ({key}, 'y') ON CONFLICT DO NOTHING")
    with refused("23505", str(key)):
        session.execute(f"INSERT INTO {strict} (id, type) VALUES ({key}, 'y')")
    assert stored(cdf, "events", "a")["type"] == "x"
    for table in (keeping, strict):
        with refused("23503", "12345"):
            session.execute(f"INSERT INTO {table} (id, type) VALUES (12345, 'y')")


def test_on_conflict_ignore_over_several_requests(session, cdf, keeping):
    session.execute("INSERT INTO events (external_id, type) SELECT 'e' || n, 'old' FROM generate_series(1, 2500, 2) n")
    session.execute(f"INSERT INTO {keeping} SELECT 'e' || n, 'new' FROM generate_series(1, 2500) n")
    found = {event["externalId"]: event["type"] for event in dump(cdf, "events")}
    assert found == {f"e{n}": "old" if n % 2 else "new" for n in range(1, 2501)}
    assert requests(cdf, "/events/update") == []


def test_on_conflict_ignore_does_not_clear(session, cdf, scratch):
    table = scratch.table(
        "both", "external_id text, type text, source text", "events", on_conflict="ignore", null_handling="set_null"
    )
    session.execute(f"INSERT INTO {table} VALUES ('a', 'x', 'y')")
    session.execute(f"INSERT INTO {table} VALUES ('a', 'z', NULL), ('b', NULL, 'y')")
    assert [stored(cdf, "events", "a")[key] for key in ("type", "source")] == ["x", "y"]
    assert stored(cdf, "events", "b")["source"] == "y"


@pytest.mark.parametrize("conflict", ["ignore", "error"])
def test_assets_without_a_name_under_another_on_conflict(session, cdf, scratch, api, conflict):
    api.create("assets", "old")
    table = scratch.table("other", "external_id text, name text, description text", "assets", on_conflict=conflict)
    with refused("22004", "name", '"new"'):
        session.execute(f"INSERT INTO {table} (external_id, description) VALUES ('new', 'x')")
    insert = f"INSERT INTO {table} (external_id, description) VALUES ('old', 'x')"
    if conflict == "error":
        with refused("23505", '"old"'):
            session.execute(insert)
    else:
        session.execute(insert)
    assert "description" not in stored(cdf, "assets", "old")
    assert names(cdf, "assets") == ["old"]


def test_do_nothing(session, cdf):
    session.execute("INSERT INTO events (external_id, type) VALUES ('a', 'x')")
    session.execute("INSERT INTO events (external_id, type) VALUES ('a', 'y'), ('b', 'y') ON CONFLICT DO NOTHING")
    assert {event["externalId"]: event["type"] for event in dump(cdf, "events")} == {"a": "x", "b": "y"}


def test_do_nothing_is_about_its_statement_only(session, cdf):
    session.execute("INSERT INTO events (external_id, type) VALUES ('a', 'x'), ('b', 'x')")
    with session.transaction():
        session.execute("INSERT INTO events (external_id, type) VALUES ('a', 'y') ON CONFLICT DO NOTHING")
        session.execute("INSERT INTO events (external_id, type) VALUES ('b', 'y')")
        session.execute("INSERT INTO events (external_id, type) VALUES ('c', 'y')")
        session.execute("INSERT INTO events (external_id, type) VALUES ('c', 'z') ON CONFLICT DO NOTHING")
    assert {event["externalId"]: event["type"] for event in dump(cdf, "events")} == {"a": "x", "b": "y", "c": "y"}


def test_do_nothing_then_update_of_the_same_key(session, cdf):
    session.execute("INSERT INTO events (external_id, type, source) VALUES ('a', 'old', 'old')")
    with session.transaction():
        for external_id in ("a", "new"):
            session.execute(
                "INSERT INTO events (external_id, type, source) VALUES (%s, '1', '1') ON CONFLICT DO NOTHING",
                (external_id,),
            )
            session.execute("INSERT INTO events (external_id, type) VALUES (%s, '2')", (external_id,))
    assert [stored(cdf, "events", "a")[key] for key in ("type", "source")] == ["2", "old"]
    assert [stored(cdf, "events", "new")[key] for key in ("type", "source")] == ["2", "1"]


def test_do_nothing_on_a_strict_table(session, cdf, strict):
    session.execute(f"INSERT INTO {strict} VALUES ('a', 'x')")
    session.execute(f"INSERT INTO {strict} VALUES ('a', 'y') ON CONFLICT DO NOTHING")
    assert stored(cdf, "events", "a")["type"] == "x"


def test_points_that_must_be_new_are_refused(session, cdf, scratch):
    table = scratch.table("strict_points", "external_id text, timestamp timestamptz, value float8", "datapoints", on_conflict="error")
    session.execute("INSERT INTO timeseries (external_id) VALUES ('s')")
    session.execute(f"INSERT INTO {table} VALUES ('s', to_timestamp(1), 1), ('s', to_timestamp(3), 3)")
    with refused("23505", '"s" at 1000 ms', "3000 ms", "on_conflict"):
        session.execute(f"INSERT INTO {table} SELECT 's', to_timestamp(i), 9 FROM generate_series(1, 3) i")
    with refused("23505", "1 datapoints are written twice"):
        session.execute(f"INSERT INTO {table} VALUES ('s', to_timestamp(4), 1), ('s', to_timestamp(5), 1), ('s', to_timestamp(4), 2)")
    session.execute(f"INSERT INTO {table} VALUES ('s', to_timestamp(2), 2)")
    assert points(cdf, "s") == [(1000, 1.0, None), (2000, 2.0, None), (3000, 3.0, None)]


def test_on_conflict_of_the_server(session, cdf, scratch):
    scratch.execute("ALTER SERVER cdf OPTIONS (ADD on_conflict 'ignore')")
    try:
        session.execute("INSERT INTO events (external_id, type) VALUES ('a', 'x')")
        session.execute("INSERT INTO events (external_id, type) VALUES ('a', 'y')")
    finally:
        scratch.execute("ALTER SERVER cdf OPTIONS (DROP on_conflict)")
    assert stored(cdf, "events", "a")["type"] == "x"


MODES = {
    "update": {},
    "clear": {"null_handling": "set_null"},
    "ignore": {"on_conflict": "ignore"},
}
COLUMNS = ("type", "source", "description")


def apply(state: dict[str, dict], mode: str, key: str, row: dict) -> None:
    """What one row does to the events that there are."""
    if mode == "ignore" and key in state:
        return
    event = state.setdefault(key, {})
    event |= {name: value for name, value in row.items() if value is not None}
    if mode == "clear":
        for name in COLUMNS:
            if row[name] is None:
                event.pop(name, None)


@pytest.mark.parametrize("keys", [5, 40, 3000])
@pytest.mark.parametrize("seed", range(6))
def test_rows_of_all_modes_count_one_after_another(session, cdf, scratch, seed, keys):
    definition = "external_id text, type text, source text, description text"
    tables = {mode: scratch.table(mode, definition, "events", **options) for mode, options in MODES.items()}
    chance = random.Random(seed * 1000 + keys)
    expected = {}
    for _ in range(3):
        with session.transaction():
            saved = []
            for _ in range(30):
                mode = chance.choice(list(MODES))
                numbers = chance.sample(range(keys), min(keys, chance.choice([1, 1, 2, 1100])))
                rows = [
                    (f"e{at}", {name: chance.choice([None, f"{name} {chance.random()}"]) for name in COLUMNS})
                    for at in numbers
                ]
                with session.cursor().copy(f"COPY {tables[mode]} FROM STDIN") as copy:
                    for key, row in rows:
                        copy.write_row((key, *row.values()))
                        apply(expected, mode, key, row)
                match chance.choice(["go on", "go on", "save", "release", "undo"]):
                    case "save":
                        session.execute("SAVEPOINT s")
                        saved.append({key: dict(event) for key, event in expected.items()})
                    case "release" if saved:
                        session.execute("RELEASE s")
                        saved.pop()
                    case "undo" if saved:
                        session.execute("ROLLBACK TO s; RELEASE s")
                        expected = saved.pop()
        found = {
            event["externalId"]: {name: event[name] for name in COLUMNS if name in event}
            for event in dump(cdf, "events")
        }
        assert found == expected


# ---- rows by id, rows without a key ----


def test_an_id_addresses_an_existing_item(session, cdf):
    session.execute("INSERT INTO events (external_id, type) VALUES ('a', 'x')")
    made = stored(cdf, "events", "a")["id"]
    session.execute("INSERT INTO events (id, type) VALUES (%s, 'y')", (made,))
    assert stored(cdf, "events", "a")["type"] == "y"


def test_an_id_gives_an_item_another_external_id(session, cdf):
    session.execute("INSERT INTO events (external_id, type) VALUES ('a', 'x')")
    made = stored(cdf, "events", "a")["id"]
    session.execute("INSERT INTO events (id, external_id) VALUES (%s, 'b')", (made,))
    assert names(cdf, "events") == ["b"]
    assert stored(cdf, "events", "b")["id"] == made


def test_writes_by_id_count_one_after_another(session, cdf):
    session.execute("INSERT INTO events (external_id) VALUES ('a')")
    made = stored(cdf, "events", "a")["id"]
    with session.transaction():
        session.execute("INSERT INTO events (id, type, source) VALUES (%s, '1', 's')", (made,))
        session.execute("INSERT INTO events (id, type) VALUES (%s, '2')", (made,))
    assert [stored(cdf, "events", "a")[key] for key in ("type", "source")] == ["2", "s"]
    assert_each_key_once(requests(cdf))


def test_writes_by_external_id_and_by_id_count_one_after_another(session, cdf):
    session.execute("INSERT INTO events (external_id) SELECT 'e' || n FROM generate_series(1, 50) AS n")
    ids = {event["externalId"]: event["id"] for event in dump(cdf, "events")}
    by_name = "INSERT INTO events (external_id, type, source) VALUES (%s, %s, %s)"
    by_id = "INSERT INTO events (id, type, source) VALUES (%s, %s, %s)"
    with session.transaction():
        for at in range(1, 26):
            session.execute(by_name, (f"e{at}", "first", "first"))
            session.execute(by_id, (ids[f"e{at}"], "last", None))
        for at in range(26, 51):
            session.execute(by_id, (ids[f"e{at}"], "first", "first"))
            session.execute(by_name, (f"e{at}", "last", None))
    assert {(event["type"], event["source"]) for event in dump(cdf, "events")} == {("last", "first")}


def test_an_unknown_id_is_refused_by_name(session, cdf):
    session.execute("INSERT INTO events (external_id, type) VALUES ('a', 'x')")
    made = stored(cdf, "events", "a")["id"]
    with refused("23503", "4711", "4712") as caught:
        session.execute("INSERT INTO events (id, type) VALUES (4711, 'y'), (%s, 'y'), (4712, 'y')", (made,))
    assert f"{made}" not in caught.value.diag.message_detail.split("\n")[0]


def test_rows_without_a_key_are_created_each_time(session, cdf):
    for _ in range(2):
        session.execute("INSERT INTO events (type) VALUES ('x'), ('x')")
        session.execute("INSERT INTO assets (name) VALUES ('same')")
        session.execute("INSERT INTO timeseries (name) VALUES ('same')")
    assert [len(dump(cdf, resource)) for resource in ("events", "assets", "timeseries")] == [4, 2, 2]


def test_rows_with_and_without_a_key_in_one_load(session, cdf):
    session.execute(
        "INSERT INTO events (external_id, type) SELECT CASE WHEN n % 2 = 0 THEN 'e' || n END, n::text"
        " FROM generate_series(1, 3000) AS n"
    )
    found = dump(cdf, "events")
    assert sorted(int(event["type"]) for event in found) == list(range(1, 3001))
    assert all((event.get("externalId") is not None) == (int(event["type"]) % 2 == 0) for event in found)


# ---- assets: names and hierarchies ----


def test_an_asset_without_a_name_updates_an_existing_one(session, cdf, api):
    api.create("assets", "a")
    session.execute("INSERT INTO assets (external_id, description) VALUES ('a', 'x')")
    asset = stored(cdf, "assets", "a")
    assert (asset["name"], asset["description"]) == ("a", "x")


def test_a_new_asset_without_a_name_is_refused_by_name(session, cdf, api):
    api.create("assets", "a")
    with refused("22004", "name", '"new"') as caught:
        session.execute("INSERT INTO assets (external_id, description) VALUES ('a', 'x'), ('new', 'y')")
    assert '"a"' not in caught.value.diag.message_detail.split("\n")[0]


def test_an_asset_without_any_key_and_name_is_refused_at_the_insert(session, cdf):
    with session.transaction(), refused("22004", "name"), session.transaction():
        session.execute("INSERT INTO assets (description) VALUES ('x')")
    assert requests(cdf) == []


def test_a_name_may_come_later_in_the_transaction(session, cdf):
    with session.transaction():
        session.execute("INSERT INTO assets (external_id, description) VALUES ('a', 'x')")
        session.execute("INSERT INTO assets (external_id, name) VALUES ('a', 'A')")
    assert [stored(cdf, "assets", "a")[key] for key in ("name", "description")] == ["A", "x"]


def tree(depth: int, width: int) -> list[tuple[str, str | None]]:
    """(external id, parent) of a tree, `width` children below each asset."""
    level, rows = [None], []
    for at in range(depth):
        level = [f"{parent or 'n'}.{child}" for parent in level for child in range(width if at else 1)]
        rows += [(name, name.rpartition(".")[0] if at else None) for name in level]
    return rows


def insert_assets(session, rows: list[tuple[str, str | None]]) -> None:
    with session.cursor().copy("COPY assets (external_id, name, parent_external_id) FROM STDIN") as copy:
        for external_id, parent in rows:
            copy.write_row((external_id, external_id, parent))


def assert_tree(cdf, rows: list[tuple[str, str | None]]) -> None:
    assert {item["externalId"]: item.get("parentExternalId") for item in dump(cdf, "assets")} == dict(rows)


@pytest.mark.parametrize("order", ["parents first", "children first", "shuffled"])
@pytest.mark.parametrize("depth", [1, 2, 3, 6])
def test_hierarchies_in_any_order(session, cdf, depth, order):
    rows = tree(depth, 3)
    if order == "children first":
        rows.reverse()
    elif order == "shuffled":
        random.Random(depth).shuffle(rows)
    insert_assets(session, rows)
    assert_tree(cdf, rows)
    assert len(requests(cdf, "/assets")) == 1


@pytest.mark.parametrize("memory", ["1MB", "64MB"])
def test_a_hierarchy_over_several_requests(session, cdf, memory):
    session.execute(f"SET cdf_fdw.buffer_memory = '{memory}'")
    rows = tree(6, 5)[:3000]
    random.Random(1).shuffle(rows)
    insert_assets(session, rows)
    assert_tree(cdf, rows)
    entries = requests(cdf, "/assets")
    assert sum(entry["items"] for entry in entries) == 3000
    assert all(entry["items"] <= 1000 and entry["status"] == 201 for entry in entries)
    insert_assets(session, rows)
    assert_tree(cdf, rows)


def test_a_chain_longer_than_a_request(session, cdf):
    rows = [(f"a{at}", f"a{at - 1}" if at else None) for at in range(1200)]
    insert_assets(session, rows[::-1])
    assert_tree(cdf, rows)


def test_parents_that_are_in_cdf_already(session, cdf, api):
    api.create("assets", "old")
    rows = [("leaf", "twig"), ("twig", "branch"), ("branch", "old")]
    insert_assets(session, rows)
    assert_tree(cdf, [("old", None), *rows])


def test_parents_by_id(session, cdf, api):
    [root] = api.create("assets", "root")
    session.execute("INSERT INTO assets (external_id, name, parent_id) VALUES ('child', 'C', %s)", (root,))
    assert stored(cdf, "assets", "child")["parentId"] == root


def test_parents_and_children_of_several_statements(session, cdf):
    with session.transaction():
        session.execute("INSERT INTO assets (external_id, name, parent_external_id) VALUES ('c', 'C', 'b')")
        session.execute("SAVEPOINT undone")
        session.execute("INSERT INTO assets (external_id, name, parent_external_id) VALUES ('x', 'X', 'nowhere')")
        session.execute("ROLLBACK TO undone")
        session.execute("INSERT INTO assets (external_id, name, parent_external_id) VALUES ('b', 'B', 'a')")
        session.execute("INSERT INTO assets (external_id, name) VALUES ('a', 'A')")
    assert_tree(cdf, [("a", None), ("b", "a"), ("c", "b")])


def test_a_new_child_below_an_existing_asset_that_is_written_too(session, cdf, api):
    api.create("assets", "root")
    session.execute(
        "INSERT INTO assets (external_id, name, parent_external_id)"
        " VALUES ('child', 'C', 'root'), ('root', 'Root!', NULL)"
    )
    assert stored(cdf, "assets", "root")["name"] == "Root!"
    assert stored(cdf, "assets", "child")["parentExternalId"] == "root"


def test_an_existing_asset_moves_below_a_new_one(session, cdf, api):
    api.create("assets", "root")
    insert_assets(session, [("a", "root"), ("leaf", "a")])
    insert_assets(session, [("leaf", "b"), ("b", "root")])
    assert stored(cdf, "assets", "leaf")["parentExternalId"] == "b"


def test_an_asset_addressed_by_id_moves_below_a_new_one(session, cdf, api):
    [_root] = api.create("assets", "root")
    [leaf] = api.create("assets", "leaf", parentExternalId="root")
    with session.transaction():
        session.execute("INSERT INTO assets (id, parent_external_id) VALUES (%s, 'new')", (leaf,))
        session.execute("INSERT INTO assets (external_id, name, parent_external_id) VALUES ('new', 'N', 'root')")
    assert stored(cdf, "assets", "leaf")["parentExternalId"] == "new"


def test_assets_without_a_key_below_new_ones(session, cdf):
    with session.transaction():
        session.execute(
            "INSERT INTO assets (name, parent_external_id) SELECT 'leaf', 'b' || n FROM generate_series(1, 1500) AS n"
        )
        session.execute(
            "INSERT INTO assets (external_id, name, parent_external_id)"
            " SELECT 'b' || n, 'branch', 'root' FROM generate_series(1, 1500) AS n"
        )
        session.execute("INSERT INTO assets (external_id, name) VALUES ('root', 'root')")
    leaves = [asset for asset in dump(cdf, "assets") if asset["name"] == "leaf"]
    assert sorted(asset["parentExternalId"] for asset in leaves) == sorted(f"b{n}" for n in range(1, 1501))


def test_an_unknown_parent_names_the_rows(session, cdf, api):
    api.create("assets", "root")
    with refused("23503", "nowhere", '"orphan"') as caught:
        insert_assets(session, [("good", "root"), ("orphan", "nowhere"), ("other", "root")])
    assert '"good"' not in caught.value.diag.message_detail.split("\n")[0]
    assert names(cdf, "assets") == ["root"]


@pytest.mark.parametrize("length", [1, 2, 3, 8])
def test_a_cycle_names_its_members_and_sends_nothing(session, cdf, length):
    cycle = [(f"c{at}", f"c{(at + 1) % length}") for at in range(length)]
    members = [f'"c{at}"' for at in range(length)]
    with refused("22023", "cycle", *members) as caught:
        insert_assets(session, [("root", None), *cycle, ("hanging", "c0"), ("leaf", "root")])
    assert "hanging" not in caught.value.diag.message_detail
    assert requests(cdf) == []
    insert_assets(session, [("root", None)])
    assert_tree(cdf, [("root", None)])


# ---- what is replaced whole, and what cannot change ----


def test_metadata_is_replaced_whole(session, cdf):
    insert = "INSERT INTO assets (external_id, name, metadata) VALUES ('a', 'A', %s)"
    session.execute(insert, (Jsonb({"a": "1", "b": "1"}),))
    session.execute(insert, (Jsonb({"b": "2"}),))
    assert stored(cdf, "assets", "a")["metadata"] == {"b": "2"}
    session.execute(insert, (Jsonb({}),))
    assert stored(cdf, "assets", "a")["metadata"] == {}


def test_metadata_values_become_text(session, cdf):
    session.execute(
        "INSERT INTO events (external_id, metadata) VALUES ('e', %s)",
        (
            '{"text": "x", "int": 1, "decimal": 1.50, "big": 12345678901234567890, "flag": true, "none": null,'
            ' "list": [1, "a"], "object": {"k": null}, "empty": ""}',
        ),
    )
    found = stored(cdf, "events", "e")["metadata"]
    assert found.pop("list").replace(" ", "") == '[1,"a"]'
    assert found.pop("object").replace(" ", "") == '{"k":null}'
    assert found == {
        "text": "x",
        "int": "1",
        "decimal": "1.50",
        "big": "12345678901234567890",
        "flag": "true",
        "empty": "",
    }


@pytest.mark.parametrize("document", ["[]", "1", '"text"', "null", "true"])
def test_metadata_must_be_an_object(session, cdf, document):
    with refused("22023", "metadata"):
        session.execute("INSERT INTO events (external_id, metadata) VALUES ('e', %s)", (document,))
    assert requests(cdf) == []


def test_labels_of_assets_are_replaced_whole(session, cdf, api):
    api.create("labels", "pump", "critical")
    insert = "INSERT INTO assets (external_id, name, labels) VALUES ('a', 'A', %s)"
    for labels in (["pump"], ["critical"], ["pump", "critical"], []):
        session.execute(insert, (labels,))
        assert [label["externalId"] for label in stored(cdf, "assets", "a").get("labels", [])] == labels


def test_unknown_labels_name_the_rows(session, cdf, api):
    api.create("labels", "pump")
    with refused("23503", "valve", '"b"') as caught:
        session.execute(
            "INSERT INTO assets (external_id, name, labels) VALUES ('a', 'A', '{pump}'), ('b', 'B', '{pump,valve}')"
        )
    assert '"a"' not in caught.value.diag.message_detail.split("\n")[0]


def test_geo_location_is_replaced_whole_and_without_nulls(session, cdf):
    insert = "INSERT INTO assets (external_id, name, geo_location) VALUES ('a', 'A', %s)"
    for x in (1.5, 2.5):
        feature = {"type": "Feature", "geometry": {"type": "Point", "coordinates": [x, 2]}, "properties": {"n": None}}
        session.execute(insert, (Jsonb(feature),))
        assert stored(cdf, "assets", "a")["geoLocation"] == feature | {"properties": {}}


@pytest.mark.parametrize(("first", "then"), [(True, False), (False, True), (None, True)])
def test_the_kind_of_a_series_cannot_change(session, cdf, first, then):
    insert = "INSERT INTO timeseries (external_id, is_string, unit) VALUES ('s', %s, 'bar')"
    session.execute(insert, (first,))
    with refused("22023", "is_string", '"s"'):
        session.execute(insert, (then,))
    assert stored(cdf, "timeseries", "s")["isString"] is bool(first)


@pytest.mark.parametrize("is_string", [True, False])
def test_the_kind_of_a_series_may_be_repeated(session, cdf, is_string):
    for unit in ("bar", "psi"):
        session.execute("INSERT INTO timeseries (external_id, is_string, unit) VALUES ('s', %s, %s)", (is_string, unit))
    session.execute("INSERT INTO timeseries (external_id, is_string) VALUES ('s', %s)", (is_string,))
    assert stored(cdf, "timeseries", "s")["unit"] == "psi"


# ---- references by external id ----


def test_data_sets_by_external_id(session, cdf, api):
    [plant, lab] = api.create("datasets", "plant", "lab")
    session.execute("INSERT INTO assets (external_id, name, data_set_external_id) VALUES ('a', 'A', 'plant')")
    session.execute("INSERT INTO timeseries (external_id, data_set_external_id) VALUES ('s', 'lab')")
    session.execute("INSERT INTO events (external_id, data_set_external_id) VALUES ('e', 'lab'), ('f', 'plant')")
    assert stored(cdf, "assets", "a")["dataSetId"] == plant
    assert stored(cdf, "timeseries", "s")["dataSetId"] == lab
    assert [stored(cdf, "events", key)["dataSetId"] for key in "ef"] == [lab, plant]
    session.execute("INSERT INTO events (external_id, data_set_external_id) VALUES ('e', 'plant')")
    assert stored(cdf, "events", "e")["dataSetId"] == plant


def test_assets_by_external_id(session, cdf, api):
    ids = dict(zip("abc", api.create("assets", "a", "b", "c"), strict=True))
    session.execute("INSERT INTO timeseries (external_id, asset_external_id) VALUES ('s', 'b')")
    session.execute("INSERT INTO events (external_id, asset_external_ids) VALUES ('e', '{c,a}'), ('f', '{}')")
    assert stored(cdf, "timeseries", "s")["assetId"] == ids["b"]
    assert sorted(stored(cdf, "events", "e")["assetIds"]) == sorted([ids["a"], ids["c"]])
    assert not stored(cdf, "events", "f").get("assetIds")


def test_assets_of_the_same_transaction(session, cdf):
    with session.transaction():
        session.execute("INSERT INTO events (external_id, asset_external_ids) VALUES ('e', '{a,b}')")
        session.execute("INSERT INTO timeseries (external_id, asset_external_id) VALUES ('s', 'b')")
        insert_assets(session, [("b", "a"), ("a", None)])
    ids = {asset["externalId"]: asset["id"] for asset in dump(cdf, "assets")}
    assert sorted(stored(cdf, "events", "e")["assetIds"]) == sorted(ids.values())
    assert stored(cdf, "timeseries", "s")["assetId"] == ids["b"]


def test_references_are_resolved_in_batches(session, cdf, api):
    external_ids = [f"a{at}" for at in range(1500)]
    made = api.create("assets", *external_ids[:1000]) + api.create("assets", *external_ids[1000:])
    session.execute(
        "INSERT INTO events (external_id, asset_external_ids)"
        " SELECT 'e' || n, ARRAY['a' || n % 1500, 'a' || (n + 1) % 1500] FROM generate_series(1, 2000) AS n"
    )
    assert {event["externalId"]: sorted(event["assetIds"]) for event in dump(cdf, "events")} == {
        f"e{n}": sorted([made[n % 1500], made[(n + 1) % 1500]]) for n in range(1, 2001)
    }
    lookups = requests(cdf, "/assets/byids")
    assert all(entry["items"] <= 1000 for entry in lookups)
    assert len(lookups) <= 4


@pytest.mark.parametrize(
    ("statement", "noun"),
    [
        ("INSERT INTO assets (external_id, name, data_set_external_id) VALUES ('row', 'R', 'nowhere')", "data set"),
        ("INSERT INTO timeseries (external_id, data_set_external_id) VALUES ('row', 'nowhere')", "data set"),
        ("INSERT INTO events (external_id, data_set_external_id) VALUES ('row', 'nowhere')", "data set"),
        ("INSERT INTO timeseries (external_id, asset_external_id) VALUES ('row', 'nowhere')", "asset"),
        ("INSERT INTO events (external_id, asset_external_ids) VALUES ('row', '{nowhere}')", "asset"),
        ("INSERT INTO assets (external_id, name, parent_external_id) VALUES ('row', 'R', 'nowhere')", "parent"),
    ],
)
def test_an_unknown_reference_is_named_with_its_row(session, cdf, statement, noun):
    with refused("23503", noun, "nowhere", '"row"'):
        session.execute(statement)
    assert [dump(cdf, resource) for resource in ("assets", "events", "timeseries")] == [[], [], []]


@pytest.mark.parametrize(
    "statement",
    [
        "INSERT INTO assets (external_id, name, data_set_id) VALUES ('row', 'R', 99)",
        "INSERT INTO assets (external_id, name, parent_id) VALUES ('row', 'R', 99)",
        "INSERT INTO timeseries (external_id, asset_id) VALUES ('row', 99)",
        "INSERT INTO timeseries (external_id, data_set_id) VALUES ('row', 99)",
        "INSERT INTO events (external_id, asset_ids) VALUES ('row', '{99}')",
        "INSERT INTO events (external_id, data_set_id) VALUES ('row', 99)",
    ],
)
def test_an_unknown_id_of_a_reference_names_the_row(session, cdf, statement):
    with refused("23503", "99", '"row"'):
        session.execute(statement)
    assert paths(cdf) and [dump(cdf, resource) for resource in ("assets", "events", "timeseries")] == [[], [], []]


def test_an_unknown_reference_among_many_rows_is_found(session, cdf, api):
    api.create("datasets", "plant")
    with refused("23503", '"e777"') as caught:
        session.execute(
            "INSERT INTO events (external_id, data_set_id) SELECT 'e' || n, CASE n WHEN 777 THEN 99 END"
            " FROM generate_series(1, 1000) AS n"
        )
    assert '"e1"' not in caught.value.diag.message_detail


@pytest.mark.parametrize(
    "statement",
    [
        "INSERT INTO assets (external_id, name, parent_id, parent_external_id) VALUES ('row', 'R', 1, 'x')",
        "INSERT INTO assets (external_id, name, data_set_id, data_set_external_id) VALUES ('row', 'R', 1, 'x')",
        "INSERT INTO timeseries (external_id, asset_id, asset_external_id) VALUES ('row', 1, 'x')",
        "INSERT INTO events (external_id, asset_ids, asset_external_ids) VALUES ('row', '{1}', '{x}')",
    ],
)
def test_a_reference_by_both_names_is_refused_at_the_insert(session, cdf, statement):
    with refused("22023", "not both"):
        session.execute(statement)
    assert requests(cdf) == []


def test_a_reference_by_one_name_then_by_the_other(session, cdf, api):
    [plant, lab] = api.create("datasets", "plant", "lab")
    with session.transaction():
        session.execute("INSERT INTO events (external_id, data_set_external_id) VALUES ('e', 'plant')")
        session.execute("INSERT INTO events (external_id, data_set_id) VALUES ('e', %s)", (lab,))
        session.execute("INSERT INTO events (external_id, data_set_id) VALUES ('f', %s)", (lab,))
        session.execute("INSERT INTO events (external_id, data_set_external_id) VALUES ('f', 'plant')")
    assert [stored(cdf, "events", key)["dataSetId"] for key in "ef"] == [lab, plant]


def test_a_parent_by_one_name_then_by_the_other(session, cdf, api):
    [one, _two] = api.create("assets", "one", "two")
    with session.transaction():
        session.execute("INSERT INTO assets (external_id, name, parent_external_id) VALUES ('a', 'A', 'two')")
        session.execute("INSERT INTO assets (external_id, parent_id) VALUES ('a', %s)", (one,))
    assert stored(cdf, "assets", "a")["parentExternalId"] == "one"


def test_sent_items_hold_no_null_and_nothing_that_was_not_written(session, cdf):
    session.execute("INSERT INTO events (external_id, type, metadata) VALUES ('e', 'x', '{\"k\": null}')")
    [entry] = requests(cdf, "/events")
    assert entry["body"] == {"items": [{"externalId": "e", "type": "x", "metadata": {}}]}
    assert keys_sent(entry) == ["e"]


# ---- what a new row gets, and what an existing one gets ----

FIRST = (
    "INSERT INTO {} (external_id, type, description, source) VALUES ('e', 't1', 'not to be written', 'nor this')"
    " ON CONFLICT (external_id) DO UPDATE SET type = EXCLUDED.type"
)
SECOND = (
    "INSERT INTO {} (external_id, description, source) VALUES ('e', NULL, NULL)"
    " ON CONFLICT (external_id) DO UPDATE SET description = EXCLUDED.description, source = EXCLUDED.source"
)


@pytest.mark.parametrize("handling", ["ignore", "set_null"])
@pytest.mark.parametrize("exists", [True, False])
def test_values_for_a_new_row_do_not_reach_an_existing_one(session, scratch, api, cdf, handling, exists):
    table = scratch.table("e", "external_id text, type text, description text, source text", "events", null_handling=handling)
    if exists:
        api.create("events", "e", description="old", source="old")
    with session.transaction():
        session.execute(FIRST.format(table))
        session.execute(SECOND.format(table))
        seen = session.execute(f"SELECT type, description, source FROM {table}").fetchone()
    left = {True: ("old", "old"), False: ("not to be written", "nor this")}[exists]
    wanted = ("t1", None, None) if handling == "set_null" else ("t1", *left)
    e = stored(cdf, "events", "e")
    assert seen == wanted == (e.get("type"), e.get("description"), e.get("source"))


def test_raw_values_for_a_new_row_do_not_reach_an_existing_one(session, scratch, api, cdf):
    table = scratch.table("r", "key text, a text, b text", "raw_rows", database="d", table="t")
    api.create_raw("d", "t", old={"b": "kept", "hidden": 1})
    with session.transaction():
        for b in ("'not for the old'", "NULL"):
            set_ = "a" if b != "NULL" else "b"
            session.execute(
                f"INSERT INTO {table} VALUES ('old', '1', {b}), ('new', '1', {b}) ON CONFLICT (key) DO UPDATE SET {set_} = EXCLUDED.{set_}"
            )
    assert stored(cdf, "raw", "old")["columns"] == {"a": "1", "b": "kept", "hidden": 1}
    assert stored(cdf, "raw", "new")["columns"] == {"a": "1", "b": "not for the old"}


def test_a_row_with_an_id_sets_only_what_the_statement_says(session, api, cdf):
    (number,) = api.create("events", "e", type="old", source="old")
    session.execute(
        "INSERT INTO events (id, type, source) VALUES (%s, 'new', 'new') ON CONFLICT (id) DO UPDATE SET type = EXCLUDED.type",
        (number,),
    )
    e = stored(cdf, "events", "e")
    assert (e["type"], e["source"]) == ("new", "old")


def test_a_reference_is_set_only_by_the_column_that_the_statement_names(session, api, cdf):
    (first,) = api.create("datasets", "first")
    (second,) = api.create("datasets", "second")
    api.create("events", "e", dataSetId=first)
    session.execute(
        "INSERT INTO events (external_id, type, data_set_external_id) VALUES ('e', 't', 'second')"
        " ON CONFLICT (external_id) DO UPDATE SET type = EXCLUDED.type, data_set_id = EXCLUDED.data_set_id"
    )
    assert (stored(cdf, "events", "e")["dataSetId"], stored(cdf, "events", "e")["type"]) == (first, "t")
    session.execute(
        "INSERT INTO events (external_id, data_set_external_id) VALUES ('e', 'second')"
        " ON CONFLICT (external_id) DO UPDATE SET data_set_external_id = EXCLUDED.data_set_external_id"
    )
    assert stored(cdf, "events", "e")["dataSetId"] == second


def test_a_parent_that_is_only_meant_for_a_new_asset_does_not_order_the_rows(session, cdf):
    row = "INSERT INTO assets (external_id, name, parent_external_id) VALUES ({}) ON CONFLICT (external_id) DO UPDATE SET name = EXCLUDED.name"
    with session.transaction():
        session.execute(row.format("'child', 'C', 'parent'"))
        session.execute(row.format("'parent', 'P', NULL"))
        # The asset that exists by now keeps its parent.
        session.execute(row.format("'child', 'C2', 'child'"))
    child = stored(cdf, "assets", "child")
    assert (child["name"], child["parentExternalId"]) == ("C2", "parent")


def test_what_cannot_be_updated_may_be_written_again_as_far_as_the_statement_sets_it(session, api, cdf):
    api.create("labels", "l", description="old")
    session.execute(
        "INSERT INTO labels (external_id, name, description) VALUES ('l', 'l', 'other') ON CONFLICT (external_id) DO UPDATE SET name = EXCLUDED.name"
    )
    with refused("0A000"):
        session.execute(
            "INSERT INTO labels (external_id, name) VALUES ('l', 'other') ON CONFLICT (external_id) DO UPDATE SET name = EXCLUDED.name"
        )
