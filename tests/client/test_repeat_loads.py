"""Loads of items that exist already: how many requests they take, and that CDF holds the same as if each row had been created
or updated by itself."""

from __future__ import annotations

import json
import random
from concurrent.futures import ThreadPoolExecutor
from math import ceil, log2

import pytest
from faults import fault, statuses, wait_for_request, wait_until
from support import dump, names, refused, requests, stored

# ---- what is loaded ----

# Each with what a row has, as SQL and as JSON; `{n}` is its number, `{v}` the version of the load.
ROWS = {
    "assets": ("name, description", "'N', '{v}'", {"name": "N", "description": "{v}"}),
    "events": ("type, metadata", "'{v}', '{{\"k\": \"{v}\"}}'", {"type": "{v}", "metadata": {"k": "{v}"}}),
    "timeseries": ("name, unit, is_string", "'N', '{v}', false", {"name": "N", "unit": "{v}", "isString": False}),
    "files": ("name, source", "'N', '{v}'", {"name": "N", "source": "{v}"}),
    "relationships": (
        "source_external_id, source_type, target_external_id, target_type, confidence",
        "'s', 'asset', 't', 'event', 0.5",
        {"sourceExternalId": "s", "sourceType": "asset", "targetExternalId": "t", "targetType": "event", "confidence": 0.5},
    ),
    "labels": ("name, description", "'N', 'fixed'", {"name": "N", "description": "fixed"}),
    "data_sets": ("name, description", "'N', '{v}'", {"name": "N", "description": "{v}"}),
    "sequences": (
        "name, columns",
        "'N', '[{{\"externalId\": \"c\", \"valueType\": \"LONG\"}}]'",
        {"name": "N", "columns": [{"externalId": "c", "valueType": "LONG"}]},
    ),
    "extraction_pipelines": ("name, source, data_set_id", "'N', '{v}', {data_set}", {"name": "N", "source": "{v}"}),
}
PATHS = {"data_sets": "datasets", "extraction_pipelines": "extpipes"}


def filled(value, version: str):
    if isinstance(value, dict):
        return {key: filled(part, version) for key, part in value.items()}
    return version if value == "{v}" else value


def path(resource: str) -> str:
    return PATHS.get(resource, resource)


def put(api, resource: str, keys: list[str], **more) -> None:
    """Creates items through CDF's own API."""
    items = [filled(ROWS[resource][2], "old") | more | {"externalId": key} for key in keys]
    size = {"data_sets": 10, "files": 1}.get(resource, 1000)
    for at in range(0, len(items), size):
        if resource == "files":
            api.send("/files", json.dumps(items[at]))
        else:
            api.post(f"/{path(resource)}", *items[at : at + size])


def load(session, resource: str, keys: list[str], table: str | None = None, data_set: int = 0) -> None:
    columns, values, _ = ROWS[resource]
    values = values.format(v="new", data_set=data_set)
    session.execute(
        f"INSERT INTO {table or resource} (external_id, {columns}) SELECT k, {values.replace('%', '%%')} FROM unnest(%s::text[]) k",
        (keys,),
    )


def sent(cdf) -> int:
    return len(requests(cdf))


def at_a_time(session, parallel: int) -> None:
    session.execute(f"SET cdf_fdw.max_concurrent_requests = {parallel}")


def before(bodies: list[list[str]], existing: set[str]) -> int:
    """How many requests bodies take that are created first, and then updated as far as they exist."""
    counts = ([key in existing for key in body] for body in bodies)
    return sum(1 if not any(body) else 2 if all(body) else 3 for body in counts)


def held(cdf, resource: str, property: str) -> dict[str, str]:
    return {item["externalId"]: item[property] for item in dump(cdf, path(resource))}


# ---- a load again ----


@pytest.mark.parametrize(
    ("resource", "rows", "most"),
    [
        ("assets", 10_000, 12),
        ("events", 10_000, 12),
        ("timeseries", 10_000, 12),
        ("relationships", 10_000, 12),
        ("labels", 10_000, 12),
        ("sequences", 10_000, 12),
        ("extraction_pipelines", 10_000, 12),
        # CDF takes ten at a time.
        ("data_sets", 1000, 104),
        # The first hundred are looked up and updated, the others by the thousand.
        ("files", 2000, 4),
    ],
)
def test_a_load_again_takes_about_a_request_per_thousand(session, cdf, api, resource, rows, most):
    at_a_time(session, 1)
    more, [data_set] = {}, api.create("datasets", "d")
    if resource == "extraction_pipelines":
        more = {"dataSetId": data_set}
    keys = [f"k{n:05}" for n in range(rows)]
    put(api, resource, keys, **more)
    first = sent(cdf)
    load(session, resource, keys, data_set=data_set)
    assert sent(cdf) - first <= most
    items = [item for item in dump(cdf, path(resource)) if item["externalId"] != "d"]
    assert sorted(item["externalId"] for item in items) == keys
    wanted = filled(ROWS[resource][2], "new")
    wanted.pop("columns", None)
    assert all(item[name] == value for item in items for name, value in wanted.items())


@pytest.mark.parametrize(("parallel", "most"), [(2, 104), (4, 104), (8, 108)])
def test_requests_at_a_time_learn_from_each_other(session, cdf, api, parallel, most):
    at_a_time(session, parallel)
    keys = [f"k{n:04}" for n in range(1000)]
    put(api, "data_sets", keys)
    load(session, "data_sets", keys)
    assert sent(cdf) <= most
    assert set(held(cdf, "data_sets", "description").values()) == {"new"}
    # The next transaction starts from there.
    first = sent(cdf)
    load(session, "data_sets", keys)
    assert sent(cdf) - first == 100


def test_transactions_of_a_session_learn_from_each_other(session, cdf, api):
    put(api, "events", [f"e{n}" for n in range(10)])
    for n in range(10):
        load(session, "events", [f"e{n}"])
    assert sent(cdf) == 2 + 9
    assert len(requests(cdf, "/events")) == 1
    # What is new meets that once.
    for n in range(10, 20):
        load(session, "events", [f"e{n}"])
    assert sent(cdf) == 2 + 9 + 2 + 9
    assert len(names(cdf, "events")) == 20


def test_the_evidence_doubles_where_existing_and_new_take_turns(session, cdf, api):
    put(api, "events", [f"old{n}" for n in range(10)])
    for n in range(10):
        load(session, "events", [f"old{n}"])
        load(session, "events", [f"new{n}"])
    # Once the trial of a new one failed.
    assert sent(cdf) <= 10 * (2 + 1) + 1
    assert len(names(cdf, "events")) == 20


def test_resources_learn_by_themselves(session, cdf, api):
    put(api, "events", ["e1", "e2", "e3"])
    for key in ("e1", "e2", "e3"):
        load(session, "events", [key])
    load(session, "assets", ["a"])
    assert [entry["status"] for entry in requests(cdf, "/assets")] == [201] and requests(cdf, "/assets/update") == []


# ---- existing and new in one load ----


def mixture(keys: list[str], percent: int, order: str, seed: int) -> tuple[list[str], set[str]]:
    """The keys in an order, and those of them that exist."""
    existing = set(keys[: len(keys) * percent // 100])
    match order:
        case "existing first":
            return keys, existing
        case "new first":
            return [*keys[len(existing) :], *keys[: len(existing)]], existing
    keys = keys.copy()
    random.Random(seed).shuffle(keys)
    return keys, existing


@pytest.mark.parametrize("parallel", [1, 4, 8])
@pytest.mark.parametrize("order", ["existing first", "new first", "random"])
@pytest.mark.parametrize("percent", [0, 10, 50, 90, 100])
def test_a_mixed_load_takes_no_more_requests_than_before(session, cdf, api, percent, order, parallel):
    at_a_time(session, parallel)
    keys, existing = mixture([f"k{n:03}" for n in range(300)], percent, order, percent)
    put(api, "data_sets", sorted(existing))
    load(session, "data_sets", keys)
    bodies = [keys[at : at + 10] for at in range(0, len(keys), 10)]
    assert sent(cdf) <= before(bodies, existing)
    assert held(cdf, "data_sets", "description") == dict.fromkeys(keys, "new")


def tree(rows: int) -> dict[str, str | None]:
    """Assets and their parents, of which everyone has ten children."""
    return {f"a{n}": f"a{(n - 1) // 10}" if n else None for n in range(rows)}


@pytest.mark.parametrize("parallel", [1, 8])
@pytest.mark.parametrize("order", ["existing first", "random"])
@pytest.mark.parametrize("percent", [0, 10, 50, 90, 100])
def test_a_mixed_hierarchy_takes_no_more_requests_than_before(session, cdf, api, percent, order, parallel):
    at_a_time(session, parallel)
    assets = tree(6111)
    chance = random.Random(percent)
    all_ = list(assets)
    if order == "existing first":
        existing = set(all_[: len(all_) * percent // 100])
    else:
        # Whoever exists has a parent that exists.
        existing = {key for key in all_ if chance.random() * 100 < percent}
        for key in reversed(all_):
            if key in existing and assets[key]:
                existing.add(assets[key])
    for level in (all_[:1], all_[1:11], all_[11:111], all_[111:1111], all_[1111:]):
        items = [{"externalId": key, "name": "N", "description": "old"} for key in level if key in existing]
        for item in items:
            if assets[item["externalId"]]:
                item["parentExternalId"] = assets[item["externalId"]]
        for at in range(0, len(items), 1000):
            api.post("/assets", *items[at : at + 1000])
    arriving = all_.copy()
    chance.shuffle(arriving)
    session.execute(
        "INSERT INTO assets (external_id, name, description, parent_external_id)"
        " SELECT k, 'N', 'new', p FROM unnest(%s::text[], %s::text[]) AS rows (k, p)",
        (arriving, [assets[key] for key in arriving]),
    )
    leaves = [key for key in arriving if int(key[1:]) >= 1111]
    bodies = [all_[:111], all_[111:1111], *(leaves[at : at + 1000] for at in range(0, len(leaves), 1000))]
    assert sent(cdf) <= before(bodies, existing)
    if percent == 100:
        # The first of seven finds that all exist; as many again are found to before the first trial.
        assert sent(cdf) <= 8
    found = {item["externalId"]: (item.get("parentExternalId"), item["description"]) for item in dump(cdf, "assets")}
    assert found == {key: (parent, "new") for key, parent in assets.items()}


# ---- the other modes ----


def test_what_must_be_new_is_never_updated(session, cdf, api, scratch):
    table = scratch.table("strict", "external_id text, type text, metadata jsonb", "events", on_conflict="error")
    put(api, "events", ["e1", "e2", "e3"])
    for key in ("e1", "e2", "e3"):
        load(session, "events", [key])
    first = sent(cdf)
    with refused("23505", '"e1"', "on_conflict"):
        load(session, "events", ["e1"], table)
    load(session, "events", ["new"], table)
    assert sent(cdf) - first == 2 and len(requests(cdf, "/events")) == 3


@pytest.mark.parametrize("percent", [0, 10, 50, 90, 100])
@pytest.mark.parametrize("order", ["existing first", "random"])
def test_ignoring_what_exists_takes_no_more_than_it_did(session, cdf, api, scratch, percent, order):
    table = scratch.table("keeping", "external_id text, name text, description text", "data_sets", on_conflict="ignore")
    keys, existing = mixture([f"k{n:04}" for n in range(1000)], percent, order, percent)
    put(api, "data_sets", sorted(existing))
    load(session, "data_sets", keys, table)
    # A refusal names what exists. The others of the request are sent again.
    bodies = [[key in existing for key in keys[at : at + 10]] for at in range(0, len(keys), 10)]
    assert sent(cdf) == sum(1 if all(body) or not any(body) else 2 for body in bodies)
    assert requests(cdf, "/datasets/update") == []
    wanted = {key: "old" if key in existing else "new" for key in keys}
    assert held(cdf, "data_sets", "description") == wanted


def test_a_part_of_the_columns_is_updated_and_all_of_them_created(session, cdf, api):
    put(api, "events", ["e0", "e1", "e2", "e3"])
    insert = "INSERT INTO events (external_id, type, source) VALUES (%s, 'new', 'new') ON CONFLICT (external_id) DO UPDATE SET source = EXCLUDED.source"
    for n in range(6):
        session.execute(insert, (f"e{n}",))
    found = {event["externalId"]: (event["type"], event["source"]) for event in dump(cdf, "events")}
    assert found == {f"e{n}": ("old" if n < 4 else "new", "new") for n in range(6)}
    # e4 is the trial that fails.
    assert sent(cdf) == 2 + 3 + 2 + 1


def test_an_asset_without_a_name_is_told_after_an_update_that_does_not_find_it(session, cdf, api):
    put(api, "assets", ["a", "b"])
    load(session, "assets", ["a"])
    load(session, "assets", ["b"])
    with refused("22004", "name", '"new"'):
        session.execute("INSERT INTO assets (external_id, name, description) VALUES ('a', NULL, 'x'), ('new', NULL, 'y'), ('other', 'O', NULL)")


def test_another_label_of_the_same_name_is_refused_as_ever(session, cdf, api):
    put(api, "labels", ["a", "b"])
    load(session, "labels", ["a"])
    load(session, "labels", ["b", "new"])
    with refused("0A000", '"a"', "cannot change"):
        session.execute("INSERT INTO labels (external_id, name, description) VALUES ('a', 'N', 'other')")
    assert names(cdf, "labels") == ["a", "b", "new"]


def test_what_an_update_cannot_set_is_compared(session, cdf, api):
    put(api, "timeseries", ["a", "b"])
    load(session, "timeseries", ["a"])
    load(session, "timeseries", ["b"])
    with refused("22023", '"a"', "is_string"):
        session.execute("INSERT INTO timeseries (external_id, is_string, unit) VALUES ('a', true, 'x')")


# ---- a hierarchy in which something moves ----


def test_an_asset_moves_below_a_new_one_of_the_same_request(session, cdf, api):
    insert = "INSERT INTO assets (external_id, name, parent_external_id) VALUES ('root', 'R', NULL), ('x', 'X', 'root')"
    for _ in range(3):
        session.execute(insert)
    session.execute(
        "INSERT INTO assets (external_id, name, parent_external_id) VALUES"
        " ('root', 'R', NULL), ('new', 'N', 'root'), ('x', 'X', 'new')"
    )
    assert [entry["status"] for entry in requests(cdf, "/assets/update")][-2:] == [400, 200]
    assert stored(cdf, "assets", "x")["parentExternalId"] == "new"


# ---- faults while it learns ----


@pytest.fixture
def learnt(session, cdf, api):
    """A session that updates events first."""
    put(api, "events", ["w1", "w2", "e1", "e2"])
    load(session, "events", ["w1"])
    load(session, "events", ["w2"])
    assert statuses(cdf, "/events/update")[-1:] == [200] and len(requests(cdf, "/events")) == 1
    return session


@pytest.mark.parametrize("status", [429, 503])
@pytest.mark.parametrize("where", ["/events", "/events/update"])
def test_a_throttled_or_failing_request_is_repeated(learnt, cdf, status, where):
    fault(cdf, where, status=status, times=2, headers={"retry-after": "0"})
    load(learnt, "events", ["e1", "new"])
    assert statuses(cdf, where).count(status) == 2
    assert held(cdf, "events", "type") == {"w1": "new", "w2": "new", "e1": "new", "e2": "old", "new": "new"}


@pytest.mark.parametrize("where", ["/events", "/events/update"])
@pytest.mark.parametrize("mode", ["drop_before", "drop_after"])
def test_a_lost_answer_leaves_nothing_undone(learnt, cdf, where, mode):
    fault(cdf, where, mode, times=1)
    load(learnt, "events", ["e1", "new"])
    assert held(cdf, "events", "type") == {"w1": "new", "w2": "new", "e1": "new", "e2": "old", "new": "new"}


def test_a_refused_update_is_told_as_ever(learnt, cdf):
    fault(cdf, "/events/update", status=403, body={"error": {"code": 403, "message": "Forbidden"}})
    with refused("42501", "events", "nothing accepted"):
        load(learnt, "events", ["e1", "e2"])
    cdf.admin_delete("faults")
    assert stored(cdf, "events", "e1")["type"] == "old"


def test_the_rows_to_blame_are_found_in_an_update(learnt, cdf, api):
    with refused("23503", '"bad"', "987654"):
        learnt.execute(
            "INSERT INTO events (external_id, type, asset_ids) VALUES ('e1', 'new', NULL), ('bad', 'new', '{987654}'), ('e2', 'new', NULL)"
        )


def test_an_item_deleted_between_its_refusal_and_its_update(session, cdf, api):
    put(api, "events", ["e"])
    fault(cdf, "/events/update", "delay", delay_ms=1500, times=1)
    with ThreadPoolExecutor(1) as pool:
        loading = pool.submit(load, session, "events", ["e", "f"])
        wait_until(lambda: statuses(cdf, "/events") == [409, 201], "the creation of what is new")
        wait_for_request(cdf)
        api.post("/events/delete", {"externalId": "e"})
        loading.result()
    assert held(cdf, "events", "type") == {"e": "new", "f": "new"}


def test_an_item_deleted_before_it_is_tried(learnt, cdf, api):
    fault(cdf, "/events/update", "delay", delay_ms=1500, times=1)
    with ThreadPoolExecutor(1) as pool:
        loading = pool.submit(load, learnt, "events", ["e1", "e2"])
        wait_for_request(cdf)
        api.post("/events/delete", {"externalId": "e1"})
        loading.result()
    assert held(cdf, "events", "type") == {"w1": "new", "w2": "new", "e1": "new", "e2": "new"}


def test_an_item_created_between_its_trial_and_its_creation(learnt, cdf, api):
    fault(cdf, "/events", "delay", delay_ms=1500, times=1)
    with ThreadPoolExecutor(1) as pool:
        loading = pool.submit(load, learnt, "events", ["new", "e2"])
        wait_until(lambda: statuses(cdf, "/events/update")[-1] == 400, "the refusal of the update")
        wait_for_request(cdf)
        # The fault is spent on the load's request, which waits.
        api.post("/events", {"externalId": "new", "type": "between"})
        loading.result()
    assert held(cdf, "events", "type") == {"w1": "new", "w2": "new", "e1": "old", "e2": "new", "new": "new"}


# ---- at random ----


def apply(state: dict, mode: str, key: str, row: dict) -> None:
    """What one row does to what there is."""
    if mode == "ignore" and key in state:
        return
    item = state.setdefault(key, {})
    item |= {name: value for name, value in row.items() if value is not None}
    if mode == "clear":
        for name in [name for name, value in row.items() if value is None]:
            item.pop(name, None)


@pytest.mark.parametrize("seed", range(12))
def test_loads_at_random_end_as_the_model(session, cdf, api, scratch, seed):
    print(f"seed {seed}")
    chance = random.Random(seed)
    definition = "external_id text, name text, description text, source text, parent_external_id text"
    modes = {"update": {}, "clear": {"null_handling": "set_null"}, "ignore": {"on_conflict": "ignore"}}
    tables = {mode: scratch.table(mode, definition, "assets", **options) for mode, options in modes.items()}
    api.post("/assets", {"externalId": "root", "name": "root"})
    state: dict[str, dict] = {}
    rows_sent = 0
    at_a_time(session, chance.choice([1, 2, 8]))
    for _ in range(25):
        if chance.random() < 0.2 and state:
            # Someone else deletes some.
            gone = chance.sample(sorted(state), min(len(state), chance.choice([1, 5, len(state)])))
            api.post("/assets/delete", *({"externalId": key} for key in gone))
            for key in gone:
                del state[key]
        if chance.random() < 0.3:
            where = chance.choice(["/assets", "/assets/update"])
            mode = chance.choice(["status", "drop_before", "drop_after"])
            more = {"status": chance.choice([429, 503]), "headers": {"retry-after": "0"}} if mode == "status" else {}
            fault(cdf, where, mode, times=1, **more)
        first = chance.randrange(40)
        keys = [f"k{n}" for n in range(first, first + chance.choice([1, 3, 20]))]
        chance.shuffle(keys)
        mode = chance.choice(list(modes))
        with session.cursor().copy(f"COPY {tables[mode]} FROM STDIN") as copy:
            for key in keys:
                row = {
                    "name": chance.choice(["A", "B"]),
                    "description": chance.choice([None, str(chance.random())]),
                    "source": chance.choice([None, "s"]),
                }
                copy.write_row((key, *row.values(), "root"))
                apply(state, mode, key, row)
        rows_sent += len(keys)
        found = {
            item["externalId"]: {name: item[name] for name in ("name", "description", "source") if name in item}
            for item in dump(cdf, "assets")
            if item["externalId"] != "root"
        }
        assert found == state, f"seed {seed}"


@pytest.mark.parametrize("seed", range(6))
def test_loads_at_random_take_no_more_than_the_evidence_doubles(session, cdf, api, seed):
    print(f"seed {seed}")
    chance = random.Random(seed)
    state: set[str] = set()
    allowed = requests_made = bodies_sent = 0
    at_a_time(session, chance.choice([1, 3, 8]))
    for _ in range(12):
        pool = [f"k{n:04}" for n in range(chance.choice([100, 2000]))]
        start = chance.randrange(len(pool))
        keys = pool[start : start + chance.choice([1, 10, 150])]
        if chance.random() < 0.5:
            chance.shuffle(keys)
        before_load = sent(cdf)
        load(session, "data_sets", keys)
        requests_made += sent(cdf) - before_load
        bodies = [keys[at : at + 10] for at in range(0, len(keys), 10)]
        allowed += before(bodies, state)
        bodies_sent += len(bodies)
        state |= set(keys)
    assert requests_made <= allowed + ceil(log2(bodies_sent + 1)), f"seed {seed}"
    assert held(cdf, "data_sets", "description") == dict.fromkeys(state, "new")
