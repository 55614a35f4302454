"""CDF may not find yet what a transaction has just created: references to it wait. What is really missing is an error at once."""

from __future__ import annotations

import pytest
from faults import create_missing_series, register
from support import dump, names, points, refused, requests, stored

LAG = 700
SERIES = "INSERT INTO timeseries (external_id, is_string) VALUES ('n', false), ('t', true)"
POINTS = "INSERT INTO datapoints (external_id, \"timestamp\", value) VALUES ('n', '2024-01-01', 1)"
TEXTS = "INSERT INTO string_datapoints (external_id, \"timestamp\", value) VALUES ('t', '2024-01-01', 'on')"
ASSETS = "INSERT INTO assets (external_id, name) VALUES ('pump', 'P'), ('tank', 'T')"


@pytest.fixture
def slow(session, cdf):
    """A session with a CDF that finds new items only after a while."""
    cdf.admin_post("lag", {"ms": LAG})
    return session


def refusals(cdf, path: str) -> list[int]:
    return [entry["status"] for entry in requests(cdf, path) if entry["status"] >= 400]


def test_series_and_their_points(slow, cdf):
    with slow.transaction():
        for statement in (SERIES, POINTS, TEXTS):
            slow.execute(statement)
    assert len(points(cdf, "n")) == len(points(cdf, "t")) == 1
    assert 400 in refusals(cdf, "/timeseries/data"), "CDF did not lag"


def test_series_that_are_created_for_their_points(cluster, emulator, cdf):
    loader = register(cluster, emulator)
    create_missing_series(cluster, loader)
    cdf.admin_post("lag", {"ms": LAG})
    with loader.connect(autocommit=True) as session:
        session.execute(POINTS)
        session.execute(TEXTS.replace("'t'", "'u'"))
    assert names(cdf, "timeseries") == ["n", "u"]
    assert len(points(cdf, "n")) == len(points(cdf, "u")) == 1


def test_parents_and_their_children(slow, cdf):
    with slow.transaction():
        slow.execute(
            "INSERT INTO assets (external_id, name, parent_external_id)"
            " SELECT 'a' || i, 'A', CASE WHEN i > 0 THEN 'a' || (i - 1) / 1500 END FROM generate_series(0, 3000) i"
        )
    assets = {asset["externalId"]: asset for asset in dump(cdf, "assets")}
    assert len(assets) == 3001 and assets["a3000"]["parentId"] == assets["a1"]["id"]
    assert 400 in refusals(cdf, "/assets"), "CDF did not lag"


REFERRING = {
    "events": ("events", "INSERT INTO events (external_id, asset_external_ids) VALUES ('x', '{pump,tank}')", "assetIds"),
    "files": ("files", "INSERT INTO files (external_id, name, asset_external_ids) VALUES ('x', 'X', '{pump,tank}')", "assetIds"),
    "timeseries": ("timeseries", "INSERT INTO timeseries (external_id, asset_external_id) VALUES ('x', 'pump')", "assetId"),
    "sequences": (
        "sequences",
        "INSERT INTO sequences (external_id, columns, asset_external_id) VALUES ('x', '[{\"externalId\": \"a\"}]', 'pump')",
        "assetId",
    ),
}


@pytest.mark.parametrize(("resource", "statement", "property"), REFERRING.values(), ids=REFERRING)
def test_references_to_assets(slow, cdf, resource, statement, property):
    with slow.transaction():
        slow.execute(statement)
        slow.execute(ASSETS)
    ids = {asset["externalId"]: asset["id"] for asset in dump(cdf, "assets")}
    found = stored(cdf, resource, "x")[property]
    assert found == ids["pump"] or sorted(found) == sorted(ids.values())
    assert len(requests(cdf, "/assets/byids")) > 1, "CDF did not lag"


def test_data_sets_and_labels(slow, cdf):
    with slow.transaction():
        slow.execute("INSERT INTO data_sets (external_id, name) VALUES ('d', 'D')")
        slow.execute("INSERT INTO labels (external_id, name, data_set_external_id) VALUES ('l', 'L', 'd')")
        slow.execute("INSERT INTO assets (external_id, name, data_set_external_id, labels) VALUES ('a', 'A', 'd', '{l}')")
        slow.execute(
            "INSERT INTO relationships (external_id, source_external_id, source_type, target_external_id, target_type,"
            " data_set_external_id, labels) VALUES ('r', 'a', 'asset', 'b', 'asset', 'd', '{l}')"
        )
    (data_set,) = dump(cdf, "datasets")
    for resource, external_id in (("assets", "a"), ("relationships", "r"), ("labels", "l")):
        assert stored(cdf, resource, external_id)["dataSetId"] == data_set["id"]
    assert stored(cdf, "assets", "a")["labels"] == [{"externalId": "l"}]
    assert 400 in refusals(cdf, "/assets"), "CDF did not lag"


def test_ids_that_cdf_gives_and_does_not_find(slow, cdf, api):
    """An id comes from a look-up, and the request that names it is refused all the same."""
    refusal = {"error": {"code": 400, "message": "Invalid dataSetIds: 0"}}
    cdf.admin_post("lag", {"ms": 0})
    with slow.transaction():
        slow.execute("INSERT INTO data_sets (external_id, name) VALUES ('d', 'D')")
        slow.execute("INSERT INTO events (external_id, data_set_external_id) VALUES ('e', 'd')")
    (data_set,) = dump(cdf, "datasets")
    refusal["error"]["message"] = f"Invalid dataSetIds: {data_set['id']}"
    # Of a data set that was there before: refused at once.
    cdf.admin_post("faults", {"path": "/events", "match": "exact", "mode": "status", "status": 400, "body": refusal})
    with refused("23503", "Invalid dataSetIds"):
        slow.execute("INSERT INTO events (external_id, data_set_external_id) VALUES ('f', 'd')")
    assert refusals(cdf, "/events") == [400]


def test_sequences_and_their_rows(slow, cdf):
    with slow.transaction():
        slow.execute("INSERT INTO sequences (external_id, columns) VALUES ('s', '[{\"externalId\": \"a\"}]')")
        slow.execute("INSERT INTO sequence_rows (external_id, row_number, columns) VALUES ('s', 1, '{\"a\": 1}')")
    assert len(dump(cdf, "sequence_rows")) == 1


def test_item_that_is_written_twice(slow, cdf):
    """The second write is an update of what CDF says it has, and does not find."""
    with slow.transaction():
        slow.execute("INSERT INTO assets (external_id, name) VALUES ('a', 'A')")
        slow.execute("INSERT INTO events (external_id, type) VALUES ('e', 'one')")
        slow.execute("INSERT INTO events (external_id, type) VALUES ('e', 'two') ON CONFLICT (external_id) DO UPDATE SET type = EXCLUDED.type")
    assert stored(cdf, "events", "e")["type"] == "two"


MISSING = {
    "points": (
        "/timeseries/data",
        [SERIES, POINTS.replace("'n'", "'none'")],
        "none",
    ),
    "children": (
        "/assets",
        [ASSETS, "INSERT INTO assets (external_id, name, parent_external_id) VALUES ('child', 'C', 'none')"],
        "none",
    ),
    "assets of events": (
        "/assets/byids",
        [ASSETS, "INSERT INTO events (external_id, asset_external_ids) VALUES ('e', '{none}')"],
        "none",
    ),
    "rows": (
        "/sequences/data",
        [ASSETS, "INSERT INTO sequence_rows (external_id, row_number, columns) VALUES ('none', 1, '{\"a\": 1}')"],
        "none",
    ),
    "labels": ("/files", [ASSETS, "INSERT INTO files (external_id, name, labels) VALUES ('f', 'F', '{none}')"], "none"),
    "series named like an asset": ("/timeseries/data", [ASSETS, POINTS.replace("'n'", "'pump'")], "pump"),
}


@pytest.mark.parametrize(("path", "statements", "name"), MISSING.values(), ids=MISSING)
def test_what_nobody_has_written_is_missing_at_once(session, cdf, path, statements, name):
    with refused("23503", name):
        with session.transaction():
            for statement in statements:
                session.execute(statement)
    answers = [entry["status"] for entry in requests(cdf, path)]
    # A refused request of several rows is halved until its culprits are found; none is sent twice.
    bodies = [str(entry.get("body")) for entry in requests(cdf, path) if entry["status"] >= 400 or path.endswith("byids")]
    assert answers and len(bodies) == len(set(bodies)) or len(answers) == 1


def test_patience_ends_with_the_time_of_the_flush(slow, cdf):
    cdf.admin_post("lag", {"ms": 3_600_000})
    slow.execute("SET cdf_fdw.flush_timeout = '2s'")
    with refused("23503", "n"):
        with slow.transaction():
            slow.execute(SERIES)
            slow.execute(POINTS)
    assert len(refusals(cdf, "/timeseries/data")) > 1
    slow.execute("RESET cdf_fdw.flush_timeout")
    cdf.admin_post("lag", {"ms": 0})
    slow.execute("SELECT 1")
