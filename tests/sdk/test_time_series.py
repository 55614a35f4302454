"""Time series and what refers to them."""

import pytest
from cognite.client.data_classes import AssetWrite, TimeSeriesUpdate, TimeSeriesWrite
from cognite.client.exceptions import CogniteAPIError, CogniteDuplicatedError, CogniteNotFoundError


def series(external_id, **fields):
    return TimeSeriesWrite(external_id=external_id, **fields)


def test_life_of_a_series(client):
    client.assets.create(AssetWrite("a", external_id="a"))
    asset = client.assets.retrieve(external_id="a").id
    created = client.time_series.create(series("t", name="T", unit="C", asset_id=asset, metadata={"k": "v"}))
    assert (created.is_string, created.is_step) == (False, False)
    assert client.time_series.retrieve(external_id="t").dump() == created.dump()
    changed = client.time_series.update(TimeSeriesUpdate(external_id="t").unit.set(None).is_step.set(True))
    assert (changed.unit, changed.is_step) == (None, True)
    changed = client.time_series.update(TimeSeriesUpdate(id=created.id).security_categories.add([7]))
    assert changed.security_categories == [7]
    client.time_series.delete(external_id="t")
    assert client.time_series.retrieve(external_id="t") is None


def test_upsert(client):
    client.time_series.create(series("old", description="before", unit="C"))
    client.time_series.upsert([series("old", description="after"), series("new", is_string=True)])
    found = client.time_series.retrieve(external_id="old")
    assert (found.description, found.unit) == ("after", "C")
    assert client.time_series.retrieve(external_id="new").is_string


def test_existing_external_ids_are_a_409_and_repeated_ones_a_422(client, emulator):
    client.time_series.create([series("a"), series("b")])
    with pytest.raises(CogniteDuplicatedError) as refused:
        client.time_series.create([series("a"), series("c"), series("b")])
    assert (refused.value.code, refused.value.duplicated) == (409, [{"externalId": "a"}, {"externalId": "b"}])
    with pytest.raises(CogniteAPIError) as refused:
        client.time_series.create([series("d"), series("d"), series("e")])
    assert refused.value.code == 422
    # The SDK keeps the list of a 409 only.
    repeated = {"items": [{"externalId": x} for x in "fgdfed"]}
    assert emulator.refused("/timeseries", repeated, 422)["duplicated"] == [{"externalId": "f"}, {"externalId": "d"}]
    assert {t.external_id for t in client.time_series.list()} == {"a", "b"}
    for path in ("/timeseries/byids", "/timeseries/delete"):
        error = emulator.refused(path, {"items": [{"externalId": "a"}, {"externalId": "a"}]}, 422)
        assert error["duplicated"] == [{"externalId": "a"}]
    rename = {"items": [{"externalId": "a", "update": {"externalId": {"set": "b"}}}]}
    assert emulator.refused("/timeseries/update", rename, 409)["duplicated"] == [{"externalId": "b"}]


def test_external_ids_can_be_swapped_in_one_update(client):
    a, b = client.time_series.create([series("a"), series("b")])
    client.time_series.update([TimeSeriesUpdate(a.id).external_id.set("b"), TimeSeriesUpdate(b.id).external_id.set("a")])
    assert client.time_series.retrieve(external_id="a").id == b.id
    assert client.time_series.retrieve(external_id="b").id == a.id


def test_missing(client):
    with pytest.raises(CogniteNotFoundError) as refused:
        client.time_series.retrieve_multiple(external_ids=["x"], ids=[1])
    assert sorted(map(str, refused.value.missing)) == ["{'externalId': 'x'}", "{'id': 1}"]
    with pytest.raises(CogniteAPIError) as refused:
        client.time_series.create(series("t", data_set_id=4))
    assert (refused.value.message, refused.value.missing) == ("Datasets ids not found", [{"id": 4}])
    with pytest.raises(CogniteAPIError) as refused:
        client.time_series.create(series("t", asset_id=4))
    assert (refused.value.message, refused.value.missing) == ("Asset ids not found", [{"id": 4}])


@pytest.mark.parametrize(
    "item",
    [
        {"name": "x" * 256},
        {"unit": "x" * 33},
        {"unitExternalId": "x" * 65},
        {"description": "x" * 1001},
        {"isString": "true"},
        {"isString": True, "unitExternalId": "temperature:deg_c"},
        {"metadata": {"k": "x" * 10000}},
        {"securityCategories": ["x"]},
        {"type": "numeric"},
    ],
)
def test_refused_fields(emulator, item):
    emulator.refused("/timeseries", {"items": [item]})


@pytest.mark.parametrize(
    "update",
    [
        {"isString": {"set": True}},
        {"isStep": {"setNull": True}},
        {"unit": {"setNull": False}},
        {"unit": "C"},
        {"unit": {"set": None}},
        {"metadata": {"set": {}, "add": {}}},
        {"nothing": {"set": 1}},
    ],
)
def test_refused_updates(client, emulator, update):
    client.time_series.create(series("t"))
    emulator.refused("/timeseries/update", {"items": [{"externalId": "t", "update": update}]})


def test_identities(client, emulator):
    client.time_series.create(series("t"))
    for item in [{}, {"id": 1, "externalId": "t"}, {"externalId": None}, {"name": "t"}, {"id": 0}]:
        emulator.refused("/timeseries/byids", {"items": [item]})
    emulator.refused("/timeseries/delete", {"items": [{"instanceId": {"space": "s", "externalId": "t"}}]})
    error = emulator.refused("/timeseries/byids", {"items": [{"instanceId": {"space": "s", "externalId": "t"}}]})
    assert error["missing"] == [{"instanceId": {"space": "s", "externalId": "t"}}]


def test_legacy_name_is_ignored(emulator):
    created = emulator.call("POST", "/timeseries", json={"items": [{"legacyName": "x"}]})
    assert created.status_code == 201 and "legacyName" not in created.json()["items"][0]


def test_lists(client):
    client.time_series.create([series(f"t{i:04}", is_string=i % 2 == 0) for i in range(1200)])
    assert len(client.time_series.list(limit=None)) == 1200
    assert len(client.time_series.list(is_string=True, limit=None)) == 600
    assert len(client.time_series.list(external_id_prefix="t00", limit=None)) == 100
