"""Events: the life of one, times, references, refusals."""

import pytest
from cognite.client.data_classes import AssetWrite, EventUpdate, EventWrite
from cognite.client.data_classes.shared import TimestampRange
from cognite.client.exceptions import CogniteAPIError, CogniteDuplicatedError, CogniteNotFoundError


def test_life_of_an_event(client):
    client.assets.create([AssetWrite("a", external_id="a"), AssetWrite("b", external_id="b")])
    ids = [client.assets.retrieve(external_id=name).id for name in "ab"]
    created = client.events.create(
        EventWrite(external_id="e", start_time=10, end_time=20, type="t", subtype="s", asset_ids=[ids[0]], metadata={"k": "v"})
    )
    assert client.events.retrieve(external_id="e").dump() == created.dump()
    changed = client.events.update(EventUpdate(external_id="e").end_time.set(None).asset_ids.add([ids[1]]))
    assert changed.end_time is None and changed.asset_ids == ids
    assert client.events.update(EventUpdate(id=created.id).asset_ids.remove([ids[0]])).asset_ids == [ids[1]]
    client.events.delete(external_id="e")
    assert client.events.retrieve(id=created.id) is None


def test_events_without_external_id_are_never_duplicates(client):
    first, second = client.events.create([EventWrite(type="t"), EventWrite(type="t")])
    assert first.id != second.id
    assert len(client.events.list(type="t")) == 2


def test_upsert(client):
    client.events.create(EventWrite(external_id="old", description="before"))
    client.events.upsert([EventWrite(external_id="old", description="after"), EventWrite(external_id="new")])
    assert client.events.retrieve(external_id="old").description == "after"
    assert client.events.retrieve(external_id="new") is not None
    client.events.upsert(EventWrite(external_id="old"), mode="replace")
    assert client.events.retrieve(external_id="old").description is None


def test_order_of_the_answer_is_that_of_the_request(client):
    names = [f"e{i}" for i in range(1000)]
    assert [e.external_id for e in client.events.create([EventWrite(external_id=n) for n in names])] == names
    names.reverse()
    assert [e.external_id for e in client.events.retrieve_multiple(external_ids=names)] == names


def test_filters(client):
    client.assets.create([AssetWrite("r", external_id="r"), AssetWrite("c", external_id="c", parent_external_id="r")])
    child = client.assets.retrieve(external_id="c").id
    client.events.create([
        EventWrite(external_id="x", start_time=0, end_time=10, asset_ids=[child]),
        EventWrite(external_id="y", start_time=10, source="s"),
        EventWrite(external_id="z", start_time=20, end_time=30),
    ])
    names = lambda **query: {e.external_id for e in client.events.list(**query)}
    assert names(start_time=TimestampRange(min=10)) == {"y", "z"}
    assert names(start_time=TimestampRange(max=10)) == {"x", "y"}
    assert names(end_time={"isNull": True}) == {"y"}
    assert names(active_at_time=TimestampRange(min=15, max=15)) == {"y"}
    assert names(asset_ids=[child]) == {"x"}
    assert names(asset_subtree_external_ids=["r"]) == {"x"}
    assert names(asset_external_ids=["r"]) == set()
    assert names(source="s") == {"y"}


def test_duplicates(client, emulator):
    client.events.create([EventWrite(external_id="a"), EventWrite(external_id="b")])
    with pytest.raises(CogniteDuplicatedError) as refused:
        client.events.create([EventWrite(external_id="b"), EventWrite(external_id="c"), EventWrite(external_id="a")])
    assert refused.value.duplicated == [{"externalId": "b"}, {"externalId": "a"}]
    assert client.events.retrieve(external_id="c") is None
    update = {"update": {"source": {"set": "x"}}}
    both = [{"externalId": "a", **update}, {"id": client.events.retrieve(external_id="a").id, **update}]
    assert emulator.refused("/events/update", {"items": both}, 409)["duplicated"]


def test_missing(client):
    with pytest.raises(CogniteNotFoundError) as refused:
        client.events.delete(external_id=["x", "y"])
    assert sorted(map(str, refused.value.missing)) == ["{'externalId': 'x'}", "{'externalId': 'y'}"]
    with pytest.raises(CogniteAPIError) as refused:
        client.events.create([EventWrite(asset_ids=[5]), EventWrite(asset_ids=[6, 5])])
    assert refused.value.message == "Asset ids not found"
    assert refused.value.missing == [{"id": 5}, {"id": 6}]


@pytest.mark.parametrize(
    "item",
    [
        {"startTime": -1},
        {"startTime": 1.5},
        {"startTime": "2020-01-01"},
        {"startTime": 2, "endTime": 1},
        {"type": "x" * 65},
        {"subtype": "x" * 65},
        {"source": "x" * 129},
        {"description": "x" * 501},
        {"assetIds": [1, 1]},
        {"assetIds": 1},
        {"metadata": {"k": "x" * 128001}},
        {"metadata": {"a": "x" * 120000, "b": "x" * 120000}},
        {"metadata": None, "type": 5},
        {"name": "x"},
    ],
)
def test_refused_fields(emulator, item):
    emulator.refused("/events", {"items": [item]})


def test_an_update_keeps_start_before_end(client, emulator):
    client.events.create(EventWrite(external_id="e", start_time=10, end_time=20))
    emulator.refused("/events/update", {"items": [{"externalId": "e", "update": {"endTime": {"set": 5}}}]})
    emulator.refused("/events/update", {"items": [{"externalId": "e", "update": {"metadata": {"setNull": True}}}]})
    assert client.events.retrieve(external_id="e").end_time == 20
