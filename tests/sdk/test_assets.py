"""Assets: the life of one, hierarchies, references, refusals."""

import pytest
from cognite.client.data_classes import (
    AssetHierarchy,
    AssetUpdate,
    AssetWrite,
    GeoLocation,
    Geometry,
    LabelDefinitionWrite,
)
from cognite.client.exceptions import CogniteAPIError, CogniteDuplicatedError, CogniteNotFoundError


def asset(external_id, **fields):
    return AssetWrite(external_id=external_id, name=fields.pop("name", external_id), **fields)


def test_life_of_an_asset(client):
    created = client.assets.create(asset("a", description="one", metadata={"k": "v"}, source="s"))
    assert created.id and created.root_id == created.id and created.parent_id is None
    assert client.assets.retrieve(external_id="a").dump() == created.dump()
    assert client.assets.retrieve(id=created.id).metadata == {"k": "v"}
    changed = client.assets.update(AssetUpdate(external_id="a").description.set("two").source.set(None))
    assert (changed.description, changed.source) == ("two", None)
    assert client.assets.update(AssetUpdate(id=created.id).metadata.add({"l": "w"})).metadata == {"k": "v", "l": "w"}
    assert client.assets.update(AssetUpdate(id=created.id).metadata.remove(["k"])).metadata == {"l": "w"}
    assert client.assets.update(AssetUpdate(id=created.id).metadata.set({})).metadata == {}
    assert client.assets.update(AssetUpdate(id=created.id).external_id.set("b")).external_id == "b"
    assert client.assets.retrieve(external_id="a") is None
    client.assets.delete(external_id="b")
    assert client.assets.retrieve(id=created.id) is None


def test_labels_and_geo_location(client):
    client.labels.create(LabelDefinitionWrite("l1", "one"))
    client.labels.create(LabelDefinitionWrite("l2", "two"))
    point = GeoLocation("Feature", Geometry("Point", [10.5, 59.9]), properties={"none": None})
    client.assets.create(asset("a", labels=["l1"], geo_location=point))
    found = client.assets.retrieve(external_id="a")
    assert [label.external_id for label in found.labels] == ["l1"]
    assert found.geo_location.dump() == point.dump()
    changed = client.assets.update(AssetUpdate(external_id="a").labels.add(["l2"]))
    assert [label.external_id for label in changed.labels] == ["l1", "l2"]
    changed = client.assets.update(AssetUpdate(external_id="a").labels.remove(["l1"]))
    assert [label.external_id for label in changed.labels] == ["l2"]
    with pytest.raises(CogniteAPIError) as refused:
        client.assets.create(asset("b", labels=["l2", "l3", "l4"]))
    assert refused.value.message == "Label ids not found"
    assert refused.value.missing == [{"externalId": "l3"}, {"externalId": "l4"}]


def test_upsert_creates_and_updates(client):
    client.assets.create(asset("old", description="before"))
    items = [asset("old", description="after"), asset("new", description="fresh")]
    assert {a.external_id: a.description for a in client.assets.upsert(items)} == {"old": "after", "new": "fresh"}
    client.assets.upsert(asset("old"), mode="replace")
    assert client.assets.retrieve(external_id="old").description is None


def test_hierarchy_by_the_sdk(client):
    items = [asset("root")] + [asset(f"n{i}", parent_external_id="root" if i < 5 else f"n{i // 5}") for i in range(1, 60)]
    AssetHierarchy(items).validate(on_error="raise")
    created = client.assets.create_hierarchy(list(reversed(items)))
    assert len(created) == 60
    root = client.assets.retrieve(external_id="root")
    assert {a.root_id for a in created} == {root.id}
    subtree = client.assets.retrieve_subtree(external_id="root")
    assert {a.external_id for a in subtree} == {a.external_id for a in items}
    again = client.assets.create_hierarchy(items, upsert=True)
    assert {a.id for a in again} == {a.id for a in created}


def test_parents_in_one_request_in_any_order(client):
    created = client.assets.create([asset("c", parent_external_id="b"), asset("b", parent_external_id="a"), asset("a")])
    by_name = {a.external_id: a for a in created}
    assert by_name["c"].parent_id == by_name["b"].id and by_name["c"].parent_external_id == "b"
    assert {a.root_id for a in created} == {by_name["a"].id}
    deep = client.assets.list(aggregated_properties=["child_count", "depth", "path"], external_id_prefix="c")[0]
    assert deep.aggregates.depth == 2 and deep.aggregates.child_count == 0
    assert [step["id"] for step in deep.aggregates.path] == [by_name[x].id for x in "abc"]


def test_parent_rules(client, emulator):
    client.assets.create([asset("a"), asset("b"), asset("c", parent_external_id="a")])
    error = emulator.refused("/assets", {"items": [
        {"name": "x", "parentExternalId": "nobody"}, {"name": "y", "parentExternalId": "none"},
    ]})
    assert error["message"] == "Reference to unknown parent with externalId nobody"
    assert error["missing"] == [{"externalId": "nobody"}, {"externalId": "none"}]
    error = emulator.refused("/assets", {"items": [{"name": "x", "parentId": 1}, {"name": "y", "parentId": 2}]})
    assert error["message"] == "The given parent ids do not exist: 1, 2"
    emulator.refused("/assets", {"items": [{"name": "x", "parentId": 1, "parentExternalId": "a"}]})
    emulator.refused("/assets", {"items": [
        {"externalId": "x", "name": "x", "parentExternalId": "y"},
        {"externalId": "y", "name": "y", "parentExternalId": "x"},
    ]})
    move = lambda who, to: {"items": [{"externalId": who, "update": {"parentExternalId": {"set": to}}}]}
    assert "another root" in emulator.refused("/assets/update", move("c", "b"))["message"]
    assert "cycle" in emulator.refused("/assets/update", move("a", "c"))["message"]
    emulator.refused("/assets/update", {"items": [{"externalId": "c", "update": {"parentExternalId": {"setNull": True}}}]})
    assert len(client.assets.list()) == 3


def test_moving_within_a_tree(client):
    client.assets.create([asset("r"), asset("x", parent_external_id="r"), asset("y", parent_external_id="r")])
    moved = client.assets.update(AssetUpdate(external_id="y").parent_external_id.set("x"))
    assert moved.parent_external_id == "x"
    client.assets.update(AssetUpdate(external_id="x").external_id.set("z"))
    assert client.assets.retrieve(external_id="y").parent_external_id == "z"


def test_deleting_parents(client):
    client.assets.create([asset("a"), asset("b", parent_external_id="a"), asset("c", parent_external_id="b")])
    with pytest.raises(CogniteAPIError) as refused:
        client.assets.delete(external_id="b")
    assert refused.value.code == 400
    client.assets.delete(external_id=["c", "b"])
    assert [a.external_id for a in client.assets.list()] == ["a"]
    client.assets.create(asset("b", parent_external_id="a"))
    client.assets.delete(external_id="a", recursive=True)
    assert len(client.assets.list()) == 0


def test_duplicates_are_listed_completely(client):
    client.assets.create([asset("a"), asset("b")])
    with pytest.raises(CogniteDuplicatedError) as refused:
        client.assets.create([asset("b"), asset("new"), asset("a")])
    assert refused.value.code == 409
    assert refused.value.duplicated == [{"externalId": "b"}, {"externalId": "a"}]
    assert client.assets.retrieve(external_id="new") is None, "a refused request leaves nothing behind"
    with pytest.raises(CogniteDuplicatedError) as refused:
        client.assets.create([asset("c"), asset("c")])
    assert (refused.value.code, refused.value.duplicated) == (409, [{"externalId": "c"}])


def test_missing_are_listed_completely(client):
    known = client.assets.create(asset("a"))
    with pytest.raises(CogniteNotFoundError) as refused:
        client.assets.retrieve_multiple(external_ids=["x", "a", "y"])
    assert sorted(map(str, refused.value.missing)) == ["{'externalId': 'x'}", "{'externalId': 'y'}"]
    assert [a.id for a in client.assets.retrieve_multiple(external_ids=["x", "a"], ignore_unknown_ids=True)] == [known.id]
    with pytest.raises(CogniteNotFoundError) as refused:
        client.assets.update([AssetUpdate(external_id="a").name.set("z"), AssetUpdate(id=17).name.set("z")])
    assert refused.value.missing == [{"id": 17}]
    assert client.assets.retrieve(external_id="a").name == "a", "a refused update changes nothing"
    client.assets.delete(external_id=["a", "x"], ignore_unknown_ids=True)
    assert client.assets.retrieve(external_id="a") is None


@pytest.mark.parametrize(
    "item",
    [
        {},
        {"name": ""},
        {"name": "x" * 141},
        {"name": 1},
        {"name": "x", "description": "x" * 501},
        {"name": "x", "source": "x" * 129},
        {"name": "x", "externalId": "x" * 256},
        {"name": "x", "unknown": 1},
        {"name": "x", "id": 1},
        {"name": "x", "metadata": {"k": 1}},
        {"name": "x", "metadata": {"å" * 65: ""}},
        {"name": "x", "metadata": {"k": "å" * 5121}},
        {"name": "x", "metadata": {str(i): "" for i in range(257)}},
        {"name": "x", "metadata": {"a": "x" * 6000, "b": "x" * 6000}},
        {"name": "x", "dataSetId": 0},
        {"name": "x", "dataSetId": 9007199254740992},
        {"name": "x", "labels": ["l"]},
        {"name": "x", "geoLocation": {"type": "Point"}},
    ],
)
def test_refused_fields(emulator, item):
    emulator.refused("/assets", {"items": [item]})


def test_limits_are_inclusive(client):
    longest = asset("å" * 255, name="å" * 140, description="å" * 500, source="å" * 128, metadata={"k" * 128: "v" * 10112})
    assert client.assets.create(longest).name == "å" * 140


def test_nulls_are_refused(emulator):
    for item in [{"name": None}, {"name": "x", "metadata": {"k": None}}]:
        assert emulator.refused("/assets", {"items": [item]})["message"] == "`null` values aren't allowed."
    emulator.call("POST", "/assets", json={"items": [{"externalId": "a", "name": "x"}]})
    emulator.refused("/assets/update", {"items": [{"externalId": "a", "update": {"source": {"set": None}}}]})


def test_request_sizes(emulator):
    emulator.refused("/assets", {"items": []})
    emulator.refused("/assets", {"items": [{"name": "x"}] * 1001})
    emulator.refused("/assets/byids", {"items": [{"id": i + 1} for i in range(1001)]})
    assert emulator.call("POST", "/assets", json={"items": [{"name": "x"}] * 1000}).status_code == 201


def test_unknown_data_sets(emulator):
    error = emulator.refused("/assets", {"items": [{"name": "x", "dataSetId": 1}, {"name": "y", "dataSetId": 2}]})
    assert error["message"] == "Invalid dataSetIds: 1, 2" and "missing" not in error


def test_paging_and_filters(client, emulator):
    client.assets.create([asset(f"a{i:04}", source=f"s{i % 3}", metadata={"even": str(i % 2)}) for i in range(2500)])
    everything = client.assets.list(limit=None)
    assert len(everything) == 2500 and len({a.id for a in everything}) == 2500
    assert len(client.assets.list(limit=None, partitions=4)) == 2500
    assert len(client.assets.list(source="s1", metadata={"even": "0"}, limit=None)) == 416
    assert len(client.assets.list(external_id_prefix="a01", limit=None)) == 100
    assert len(list(client.assets(chunk_size=700, limit=1500))) == 3
    first = emulator.call("POST", "/assets/list", json={"limit": 10}).json()
    error = emulator.refused("/assets/list", {"cursor": first["nextCursor"], "filter": {"source": "s1"}})
    assert "cursor" in error["message"]
    emulator.refused("/assets/list", {"cursor": "made-up"})
    emulator.refused("/assets/list", {"limit": 1001})
    emulator.refused("/assets/list", {"partition": "1/11"})
    emulator.refused("/assets/list", {"aggregatedProperties": ["size"]})
    for criteria in [{"nme": "x"}, {"name": 1}, {"parentIds": []}, {"parentIds": list(range(1, 102))}, {"root": 1}]:
        emulator.refused("/assets/list", {"filter": criteria})
    by_query = emulator.call("GET", "/assets", params={"limit": 5000, "source": "s1"}).json()
    assert len(by_query["items"]) == 833


def test_get_by_id(client, emulator):
    created = client.assets.create(asset("x"))
    assert emulator.call("GET", f"/assets/{created.id}").json()["id"] == created.id
    missing = emulator.call("GET", "/assets/1")
    assert (missing.status_code, missing.json()["error"]["missing"]) == (400, [{"id": 1}])
