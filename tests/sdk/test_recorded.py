"""What the real API was recorded to answer, request by request: the emulator answers the same."""

import time
from datetime import datetime

import pytest

SERIES = {"externalId": "t"}
RELATION = {"sourceExternalId": "s", "sourceType": "asset", "targetExternalId": "t", "targetType": "asset"}


def post(emulator, path, body, status=200):
    answer = emulator.call("POST", path, json=body)
    assert answer.status_code == status, f"POST {path} {body}: {answer.text}"
    return answer.json()


def items(*names, by="externalId"):
    return {"items": [{by: name} for name in names]}


def create(emulator, path, *objects):
    """Creates objects, and returns them as the answer shows them."""
    if path == "/files":
        return [post(emulator, path, one, 201) for one in objects]
    return post(emulator, path, {"items": list(objects)}, 200 if path == "/datasets" else 201)["items"]


# ---- names that do not exist, or occur twice ----

UNKNOWN = [
    # path, request, status, message, list, its entries
    ("/assets/byids", items("a", "a"), 400, "External id not found", "missing", [{"externalId": "a"}]),
    ("/assets/byids", items(7, 7, by="id"), 400, "Asset id not found", "missing", [{"id": 7}]),
    ("/assets/delete", items("a", "a"), 400, "External id not found", "missing", [{"externalId": "a"}]),
    ("/assets/delete", items(7, 7, by="id"), 409, "Asset id duplicated", "duplicated", [{"id": 7}]),
    ("/events/byids", items("a", "a", "b"), 409, "Event id duplicated", "duplicated", [{"externalId": "a"}]),
    ("/events/byids", items(7, 7, by="id"), 409, "Event id duplicated", "duplicated", [{"id": 7}]),
    ("/files/byids", items("a", "a", "b"), 409, "Duplicate external ids: a", "duplicated", [{"externalId": "a"}]),
    ("/files/byids", items(1, 1, by="id"), 409, "Duplicate ids: 1", "duplicated", [{"id": 1}]),
    ("/files/delete", items(1, 1, by="id"), 409, "Duplicate ids: 1", "duplicated", [{"id": 1}]),
    ("/timeseries/byids", items("a", "a"), 422, "Duplicate time series references", "duplicated", [{"externalId": "a"}]),
    ("/timeseries/delete", items("a", "a"), 422, "Duplicate time series references", "duplicated", [{"externalId": "a"}]),
    ("/timeseries/byids", items("a"), 400, "Time series not found", "missing", [{"externalId": "a"}]),
    ("/events/byids", items("a"), 400, "Event id not found", "missing", [{"externalId": "a"}]),
    ("/files/byids", items(1, 2, by="id"), 400, "File ids not found: 1, 2", "missing", [{"id": 1}, {"id": 2}]),
    ("/files/byids", items("a", "b"), 400, "Files ids not found: a, b", "missing", [{"externalId": "a"}, {"externalId": "b"}]),
    (
        "/raw/dbs/delete",
        items("a", "b", "a", by="name"),
        404,
        "Following databases not found: a, b, a",
        "missing",
        [{"name": "a"}, {"name": "b"}, {"name": "a"}],
    ),
]


@pytest.mark.parametrize(("path", "request_", "status", "message", "kind", "entries"), UNKNOWN)
def test_names_that_do_not_exist(emulator, path, request_, status, message, kind, entries):
    error = emulator.refused(path, request_, status)
    assert (error["message"], error[kind]) == (message, entries)


@pytest.mark.parametrize(
    ("path", "as_requested"),
    [("/timeseries/byids", True), ("/files/byids", True), ("/assets/byids", False), ("/events/delete", False), ("/files/delete", False)],
)
def test_order_of_what_is_missing(emulator, path, as_requested):
    names = [f"n{i}" for i in range(50)]
    missing = [entry["externalId"] for entry in emulator.refused(path, items(*names))["missing"]]
    assert sorted(missing) == sorted(names)
    assert (missing == names) is as_requested


CONFLICTS = {
    "/assets": ("Asset id duplicated", lambda made: [{"id": made["id"]}]),
    "/events": ("Event id duplicated", lambda made: [{"id": made["id"]}]),
    "/timeseries": ("Conflicting time series references", lambda made: [{"id": made["id"], "externalId": "x"}]),
}


@pytest.mark.parametrize("path", CONFLICTS)
def test_one_object_under_two_names(emulator, path):
    [made] = create(emulator, path, {"externalId": "x"} | ({"name": "X"} if path == "/assets" else {}))
    both = [{"id": made["id"]}, {"externalId": "x"}, {"externalId": "unknown"}]
    error = emulator.refused(f"{path}/delete", {"items": both, "ignoreUnknownIds": True}, 409)
    message, duplicated = CONFLICTS[path]
    assert (error["message"], error["duplicated"]) == (message, duplicated(made))
    assert post(emulator, f"{path}/byids", items("x"))["items"], "nothing was deleted"


# ---- nulls ----

NULLS = {
    "/assets": ({"name": "n"}, ["externalId", "parentId", "parentExternalId", "description", "dataSetId", "metadata", "source", "labels", "geoLocation"]),
    "/events": ({}, ["externalId", "dataSetId", "startTime", "endTime", "type", "subtype", "description", "metadata", "assetIds", "source"]),
    "/timeseries": (
        {},
        ["externalId", "name", "isString", "metadata", "unit", "unitExternalId", "assetId", "isStep", "description", "securityCategories", "dataSetId"],
    ),
    "/labels": ({"externalId": "l", "name": "n"}, ["description", "dataSetId"]),
    "/files": (
        {"name": "n"},
        ["externalId", "directory", "source", "mimeType", "metadata", "assetIds", "dataSetId", "sourceCreatedTime", "sourceModifiedTime", "labels", "geoLocation"],
    ),
}


@pytest.mark.parametrize("path", NULLS)
def test_nulls_in_a_create_are_as_if_absent(emulator, path):
    required, optional = NULLS[path]
    [made] = create(emulator, path, required | dict.fromkeys(optional))
    [without] = create(emulator, path, required | ({"externalId": "other"} if path == "/labels" else {}))
    own = ("id", "rootId", "externalId", "createdTime", "lastUpdatedTime")
    plain = lambda item: {name: value for name, value in item.items() if name not in own}
    assert plain(made) == plain(without) and None not in made.values()


@pytest.mark.parametrize("path", ["/sequences", "/relationships", "/datasets"])
def test_nulls_elsewhere_are_refused(emulator, path):
    """Nothing is recorded of these: the stricter answer."""
    item = {
        "/sequences": {"columns": [{"externalId": "a"}], "name": None},
        "/relationships": {"externalId": "r", **RELATION, "confidence": None},
        "/datasets": {"name": None},
    }[path]
    emulator.refused(path, {"items": [item]})


# ---- RAW ----


def rows(emulator, *keys, **columns):
    body = {"items": [{"key": key, "columns": columns} for key in keys]}
    assert post(emulator, "/raw/dbs/d/tables/t/rows?ensureParent=true", body) == {}


def get(emulator, path):
    answer = emulator.call("GET", path)
    assert answer.status_code == 200, answer.text
    return answer.json()


def test_a_raw_row_may_say_that_it_has_no_time(emulator):
    row = {"key": "k", "columns": {}, "lastUpdatedTime": None}
    assert post(emulator, "/raw/dbs/d/tables/t/rows?ensureParent=true", {"items": [row]}) == {}
    emulator.refused("/raw/dbs/d/tables/t/rows", {"items": [{**row, "lastUpdatedTime": 5}]})


@pytest.mark.parametrize("wanted", [1, 15, 20, 10_000])
def test_as_many_cursors_as_were_asked_for(emulator, wanted):
    rows(emulator, "a", "b")
    cursors = get(emulator, f"/raw/dbs/d/tables/t/cursors?numberOfCursors={wanted}")["items"]
    assert len(cursors) == wanted
    if wanted <= 20:
        pages = [get(emulator, f"/raw/dbs/d/tables/t/rows?cursor={cursor}")["items"] for cursor in cursors]
        assert sorted(row["key"] for page in pages for row in page) == ["a", "b"]
        assert sum(not page for page in pages) >= wanted - 2


def test_cursors_part_all_rows(emulator):
    keys = [f"k{i}" for i in range(1000)]
    rows(emulator, *keys)
    found = []
    for cursor in get(emulator, "/raw/dbs/d/tables/t/cursors?numberOfCursors=7")["items"]:
        while cursor:
            page = get(emulator, f"/raw/dbs/d/tables/t/rows?limit=50&cursor={cursor}")
            found += [row["key"] for row in page["items"]]
            cursor = page.get("nextCursor")
    assert sorted(found) == sorted(keys)


def test_rows_are_not_in_the_order_of_their_keys(emulator):
    keys = [f"k{i:02}" for i in range(50)]
    rows(emulator, *keys)
    found = [row["key"] for row in get(emulator, "/raw/dbs/d/tables/t/rows?limit=100")["items"]]
    assert sorted(found) == keys and found != keys


def test_columns_that_are_null_can_be_left_out(emulator):
    rows(emulator, "k", a=None, b=1)
    [row] = get(emulator, "/raw/dbs/d/tables/t/rows?filterNullFields=true")["items"]
    assert row["columns"] == {"b": 1}
    [row] = get(emulator, "/raw/dbs/d/tables/t/rows")["items"]
    assert row["columns"] == {"a": None, "b": 1}


def test_databases_and_tables_have_a_time(emulator):
    for path in ("/raw/dbs", "/raw/dbs/d/tables"):
        [made] = post(emulator, path, items("d", by="name"), 201)["items"]
        assert made["name"] == "d" and made["createdTime"] > 0
        assert get(emulator, path)["items"] == [made]
    assert post(emulator, "/raw/dbs/d/tables/delete", items("d", by="name")) == {}
    assert post(emulator, "/raw/dbs/delete", items("d", by="name")) == {}


# ---- fields that answers have, whatever was sent ----


def test_assets_have_metadata_and_a_root_and_no_labels(emulator):
    [made] = create(emulator, "/assets", {"externalId": "a", "name": "A"})
    [read] = post(emulator, "/assets/byids", items("a"))["items"]
    [listed] = post(emulator, "/assets/list", {})["items"]
    assert made == read == listed
    assert made["metadata"] == {} and made["rootId"] == made["id"] and "labels" not in made


def test_series_have_categories_and_types(emulator):
    [made] = create(emulator, "/timeseries", SERIES)
    [read] = post(emulator, "/timeseries/byids", items("t"))["items"]
    assert made == read
    expected = {"metadata": {}, "securityCategories": [], "accessCategories": [], "type": "numeric", "isString": False, "isStep": False}
    assert made | expected == made


def test_events_have_metadata_once_it_was_set(emulator):
    [made] = create(emulator, "/events", {"externalId": "e"})
    assert "metadata" not in made
    change = {"items": [{"externalId": "e", "update": {"metadata": {"set": {}}}}]}
    assert post(emulator, "/events/update", change)["items"][0]["metadata"] == {}
    assert post(emulator, "/events/byids", items("e"))["items"][0]["metadata"] == {}


def test_data_sets_have_metadata_and_protection(emulator):
    [made] = create(emulator, "/datasets", {"externalId": "d"})
    assert (made["metadata"], made["writeProtected"]) == ({}, False)


def test_files_have_other_fields_in_each_answer(emulator):
    [made] = create(emulator, "/files", {"externalId": "f", "name": "F"})
    assert made["labels"] == [] and "metadata" not in made
    for read in (post(emulator, "/files/byids", items("f")), post(emulator, "/files/list", {})):
        assert not {"labels", "metadata"} & read["items"][0].keys()
    change = {"items": [{"externalId": "f", "update": {"source": {"set": "s"}}}]}
    [changed] = post(emulator, "/files/update", change)["items"]
    assert changed["metadata"] == {} and "labels" not in changed


@pytest.mark.parametrize(("path", "kept"), [("/events", True), ("/timeseries", True), ("/assets", False)])
def test_an_update_that_changes_nothing(emulator, path, kept):
    [made] = create(emulator, path, {"externalId": "x", "description": "d"} | ({"name": "X"} if path == "/assets" else {}))
    time.sleep(0.005)
    change = {"items": [{"externalId": "x", "update": {"description": {"set": "d"}}}]}
    [same] = post(emulator, f"{path}/update", change)["items"]
    assert (same["lastUpdatedTime"] == made["lastUpdatedTime"]) is kept
    change["items"][0]["update"]["description"]["set"] = "other"
    [changed] = post(emulator, f"{path}/update", change)["items"]
    assert changed["lastUpdatedTime"] > made["lastUpdatedTime"]


@pytest.mark.parametrize("path", ["/assets/list", "/assets/byids", "/nowhere", "/models/instances"])
def test_every_answer_has_a_request_id(emulator, path):
    assert emulator.call("POST", path, json={}).headers["x-request-id"]


def test_a_relationship_ends_after_its_start(emulator):
    relation = {"externalId": "r", **RELATION, "startTime": 5}
    for end in (4, 5):
        emulator.refused("/relationships", {"items": [{**relation, "endTime": end}]})
    create(emulator, "/relationships", {**relation, "endTime": 6})
    change = {"items": [{"externalId": "r", "update": {"startTime": {"set": 6}}}]}
    emulator.refused("/relationships/update", change)


# ---- points ----


def test_times_of_points_may_be_digits_and_settings_null(emulator):
    create(emulator, "/timeseries", SERIES)
    points = [{"timestamp": at, "value": at} for at in (1, 2, 3)]
    post(emulator, "/timeseries/data", {"items": [{**SERIES, "datapoints": points}]})
    item = {**SERIES, "start": "2", "end": "3", "granularity": None, "aggregates": None}
    for body in ({"items": [item]}, {"items": [SERIES], **{name: value for name, value in item.items() if name != "externalId"}}):
        [found] = post(emulator, "/timeseries/data/list", body)["items"]
        assert [point["timestamp"] for point in found["datapoints"]] == [2]


# ---- data models ----

VIEW = {"type": "view", "space": "sp", "externalId": "Pump", "version": "v1"}
CONTAINER = {"type": "container", "space": "sp", "externalId": "Pump"}
PROPERTIES = {
    "name": {"type": {"type": "text"}, "nullable": False},
    "total": {"type": {"type": "int64"}},
    "seen": {"type": {"type": "timestamp"}},
    "moments": {"type": {"type": "timestamp", "list": True}},
    "parent": {"type": {"type": "direct"}},
    "others": {"type": {"type": "direct", "list": True}},
}


def mapped(*names, container="Pump"):
    container = {**CONTAINER, "externalId": container}
    return {name: {"container": container, "containerPropertyIdentifier": name} for name in names}


def view(name, *properties, container="Pump"):
    return {"space": "sp", "externalId": name, "version": "v1", "properties": mapped(*properties, container=container)}


def node(_name, _view="Pump", **properties):
    source = {"source": {**VIEW, "externalId": _view}, "properties": properties or None}
    return {"instanceType": "node", "space": "sp", "externalId": _name, "sources": [source]}


def reference(name):
    return {"space": "sp", "externalId": name}


@pytest.fixture
def models(emulator):
    post(emulator, "/models/spaces", {"items": [{"space": "sp"}]})
    container = {"space": "sp", "externalId": "Pump", "properties": PROPERTIES}
    link = {"space": "sp", "externalId": "Link", "usedFor": "edge", "properties": {"weight": {"type": {"type": "float64"}}}}
    emulator.containers = post(emulator, "/models/containers", {"items": [container, link]})["items"]
    views = [view("Pump", *PROPERTIES), view("Link", "weight", container="Link"), view("Part", "total")]
    emulator.views = post(emulator, "/models/views", {"items": views})["items"]
    return emulator


def apply(emulator, *instances, status=200, **settings):
    return post(emulator, "/models/instances", {"items": list(instances), **settings}, status)


def listed(emulator, **query):
    query = {"sources": [{"source": VIEW}], **query}
    return post(emulator, "/models/instances/list", query)["items"]


def values(item, _view="Pump"):
    return item["properties"]["sp"][f"{_view}/v1"]


def test_containers_and_views_have_all_their_members(models):
    container, _ = models.containers
    assert (container["constraints"], container["indexes"], container["isGlobal"]) == ({}, {}, False)
    name = container["properties"]["name"]
    assert name["type"] == {"type": "text", "list": False, "collation": "ucs_basic"}
    assert {"immutable", "autoIncrement", "constraintState"} <= name.keys()
    pump, link, part = models.views
    assert (pump["writable"], pump["queryable"], pump["usedFor"], pump["implements"]) == (True, True, "node", [])
    assert pump["mappedContainers"] == [CONTAINER] and link["usedFor"] == "edge"
    assert part["writable"] is False, "it leaves out what needs a value"


def test_nulls_of_instances(models):
    settings = dict.fromkeys(("autoCreateDirectRelations", "autoCreateStartNodes", "autoCreateEndNodes", "skipOnVersionConflict"))
    answer = apply(models, {**node("n"), "type": None}, **settings)
    assert answer["deleted"] == [] and answer["items"][0]["wasModified"] is True
    everything = post(models, "/models/instances/list", {"cursor": None, "limit": None, "sort": None})["items"]
    assert [item["externalId"] for item in everything] == ["n"] and "type" not in everything[0]
    for refused in ({**node("n"), "existingVersion": None}, {**node("n"), "sources": None}):
        models.refused("/models/instances", {"items": [refused]})
    error = models.refused("/models/instances", {"items": [node("n", name=None)]})
    assert error["message"] == "Invalid value for non-nullable property 'name'. Value cannot be null."


def test_relations_to_nothing(models):
    item = node("n", name="N", parent=reference("p"))
    error = models.refused("/models/instances", {"items": [item], "autoCreateDirectRelations": False})
    assert error["message"] == "Node with external id 'p' was referenced as the target of a direct relation, but it does not exist."
    assert listed(models) == [], "nothing was applied"
    answer = apply(models, item, autoCreateDirectRelations=True)
    assert [made["externalId"] for made in answer["items"]] == ["n"]
    nodes = post(models, "/models/instances/list", {})["items"]
    assert sorted(made["externalId"] for made in nodes) == ["n", "p"]


def test_values_come_back_as_recorded(models):
    relations = [reference("p"), reference("p")]
    apply(models, node("n", name="N", total=9223372036854775807, seen="2024-05-06T09:08:09.000+02:00", moments=["2024-05-06T07:08:09.12Z"], parent=None, others=relations))
    [item] = listed(models)
    assert values(item) == {
        "name": "N",
        "total": 9223372036854775807,
        "seen": "2024-05-06T07:08:09+00:00",
        "moments": ["2024-05-06T07:08:09.120+00:00"],
        "others": relations,
    }
    again = apply(models, node("n", seen="2024-05-06T07:08:09Z"))["items"][0]
    assert again["wasModified"] is False


def test_typing_is_given_where_it_is_asked_for(models):
    apply(models, node("n", name="N"))
    by_key = {"items": [{"instanceType": "node", **reference("n")}]}
    for path, body in (("/models/instances/list", {}), ("/models/instances/byids", by_key)):
        body["sources"] = [{"source": VIEW}]
        assert "typing" not in post(models, path, body)
        typing = post(models, path, {**body, "includeTyping": True})["typing"]["sp"]["Pump/v1"]
        assert typing.keys() == PROPERTIES.keys()
        assert typing["name"]["type"]["type"] == "text" and typing["name"]["nullable"] is False


def test_only_instances_with_data_in_all_sources(models):
    apply(models, node("n", name="N"), {**node("bare"), "sources": []} | {"sources": [{"source": VIEW, "properties": None}]})
    assert [item["externalId"] for item in listed(models)] == ["n"]
    keys = [{"instanceType": "node", **reference(name)} for name in ("n", "bare")]
    found = lambda **more: [item["externalId"] for item in post(models, "/models/instances/byids", {"items": keys, **more})["items"]]
    assert found() == ["n", "bare"] and found(sources=[{"source": VIEW}]) == ["n"]
    both = [{"source": VIEW}, {"source": {**VIEW, "externalId": "Link"}}]
    assert found(sources=both) == [] == listed(models, sources=both)
    for path, body in (("/models/instances/list", {}), ("/models/instances/byids", {"items": keys})):
        models.refused(path, {**body, "sources": [{"source": CONTAINER}]})


def test_lists_are_sorted_as_asked(models):
    totals = {"a": 3, "b": None, "c": 1, "d": 3, "e": 2}
    apply(models, *(node(name, name=name, total=total) for name, total in totals.items()))

    def order(*sort):
        found, cursor = [], None
        while True:
            page = post(models, "/models/instances/list", {"sort": list(sort), "limit": 2, "cursor": cursor})
            found += [item["externalId"] for item in page["items"]]
            cursor = page.get("nextCursor")
            if cursor is None:
                return "".join(found)

    total = {"property": ["sp", "Pump/v1", "total"]}
    assert order(total) == "ceadb"
    assert order({**total, "nullsFirst": True}) == "bcead"
    assert order({**total, "direction": "descending"}) == "adecb"
    last = {"property": ["node", "externalId"], "direction": "descending"}
    assert order(total, last) == "cedab" and order(last) == "edcba"
    for wrong in [{"property": ["sp", "Pump/v1", "none"]}, {**total, "direction": "up"}, {"property": ["sp", "Pump/v1", "parent"]}]:
        models.refused("/models/instances/list", {"sort": [wrong]})


@pytest.mark.parametrize(
    "filter",
    [
        {"nested": {"scope": ["sp", "Pump/v1", "parent"], "filter": {"matchAll": {}}}},
        {"overlaps": {"startProperty": ["node", "createdTime"], "endProperty": ["node", "lastUpdatedTime"], "gt": 1}},
    ],
)
def test_what_is_not_emulated_says_so(models, filter):
    models.refused("/models/instances/list", {"filter": filter}, 501)
    models.refused("/models/instances/query", {}, 501)


def test_views_are_written_as_they_are_used(models):
    edge = {"instanceType": "edge", **reference("e"), "type": reference("t"), "startNode": reference("n"), "endNode": reference("n")}
    apply(models, node("n", name="N"))
    apply(models, {**edge, "sources": [{"source": {**VIEW, "externalId": "Link"}, "properties": {"weight": 1}}]})
    models.refused("/models/instances", {"items": [node("m", "Link", weight=1)]})
    models.refused("/models/instances", {"items": [{**edge, "sources": node("m", name="N")["sources"]}]})
    error = models.refused("/models/instances", {"items": [node("m", "Part", total=1)]})
    assert "name" in error["message"], "a required property is missing"


def test_edges_go_with_their_node(models):
    edge = {"instanceType": "edge", "type": reference("t"), "startNode": reference("a"), "endNode": reference("b")}
    apply(models, node("a", name="A"), node("b", name="B"), node("c", name="C"))
    apply(models, {**edge, **reference("ab")}, {**edge, **reference("ac"), "endNode": reference("c")})
    gone = {"instanceType": "node", **reference("b")}
    answer = apply(models, delete=[gone, {**gone, "externalId": "never"}])
    assert answer == {"items": [], "deleted": [gone]}
    edges = post(models, "/models/instances/list", {"instanceType": "edge"})["items"]
    assert [item["externalId"] for item in edges] == ["ac"]
    nowhere = [{"instanceType": "node", **reference("a")}, {"instanceType": "node", "space": "none", "externalId": "a"}]
    models.refused("/models/instances/delete", {"items": nowhere})
    models.refused("/models/instances", {"items": [node("d", name="D")], "delete": nowhere})
    assert [item["externalId"] for item in listed(models)] == ["a", "c"], "what was refused changed nothing"


def test_a_locked_schema(emulator):
    emulator.admin("POST", "/models", json={"schema_locks": 1})
    post(emulator, "/models/spaces", {"items": [{"space": "sp"}]})
    container = {"items": [{"space": "sp", "externalId": "C", "properties": {"a": {"type": {"type": "text"}}}}]}
    refused = emulator.call("POST", "/models/containers", json=container)
    assert refused.status_code == 409 and refused.headers["cdf-is-auto-retryable"] == "true"
    error = refused.json()["error"]
    assert error["isAutoRetryable"] is True and error["message"].startswith("Schema lock conflict occurred.")
    post(emulator, "/models/containers", container)


def test_a_list_that_takes_too_long(models):
    models.admin("POST", "/models", json={"list_ms": 1000})
    query = {"sources": [{"source": VIEW}], "debug": {"emitResults": False, "timeout": 500}}
    error = models.refused("/models/instances/list", query, 408)
    assert error["message"] == "Graph query timed out. Reduce load or contention, or optimise your query."
    assert error["notices"][0]["category"] == "indexing"
    post(models, "/models/instances/list", {**query, "debug": {"timeout": 2000}})


# ---- lists that lag behind ----


def test_lists_lag_behind_and_catch_up_object_by_object(emulator):
    lag = 1500
    create(emulator, "/assets", *({"externalId": f"old{i}", "name": "A"} for i in range(20)))
    emulator.admin("POST", "/lag", json={"lists_ms": lag})
    begun = datetime.now()
    create(emulator, "/assets", *({"externalId": f"new{i}", "name": "A"} for i in range(20)))
    post(emulator, "/assets/delete", items(*(f"old{i}" for i in range(20))))
    assert len(post(emulator, "/assets/byids", items(*(f"new{i}" for i in range(20))))["items"]) == 20
    emulator.refused("/assets/byids", items("old0"))
    seen = []
    while (datetime.now() - begun).total_seconds() * 1000 < lag * 2:
        seen.append({item["externalId"][:3] for item in post(emulator, "/assets/list", {})["items"]})
        counts = [len([1 for item in post(emulator, "/assets/list", {})["items"] if item["externalId"].startswith("new")]) for _ in range(2)]
        seen.append(tuple(counts))
    assert seen[0] == {"old"}, "at first lists show what was"
    assert seen[-2] == {"new"}, "in the end what is"
    halves = [counts for counts in seen[1::2] if any(0 < count < 20 for count in counts)]
    assert halves, "in between half of it"
    assert any(first > second for first, second in halves), "and sometimes less than a moment before"


def test_lists_of_instances_lag_behind_too(models):
    apply(models, node("kept", name="before"), node("gone", name="G"))
    models.admin("POST", "/lag", json={"lists_ms": 3_600_000})
    apply(models, node("kept", name="after"), node("fresh", name="F"), delete=[{"instanceType": "node", **reference("gone")}])
    assert {item["externalId"]: values(item)["name"] for item in listed(models)} == {"gone": "G", "kept": "before"}
    keys = [{"instanceType": "node", **reference(name)} for name in ("kept", "gone", "fresh")]
    found = post(models, "/models/instances/byids", {"items": keys, "sources": [{"source": VIEW}]})["items"]
    assert {item["externalId"]: values(item)["name"] for item in found} == {"kept": "after", "fresh": "F"}
    models.admin("POST", "/lag", json={})
    assert [item["externalId"] for item in listed(models)] == ["fresh", "kept"]
