"""Data sets and labels: what other resources refer to."""

import pytest
from cognite.client.data_classes import (
    AssetWrite,
    DataSetUpdate,
    DataSetWrite,
    EventWrite,
    LabelDefinitionWrite,
    TimeSeriesWrite,
)
from cognite.client.exceptions import CogniteDuplicatedError, CogniteNotFoundError


def test_data_sets(client, emulator):
    created = client.data_sets.create(DataSetWrite(external_id="d", name="D", metadata={"k": "v"}))
    assert created.write_protected is False
    assert client.data_sets.retrieve(external_id="d").dump() == created.dump()
    assert client.data_sets.update(DataSetUpdate(id=created.id).description.set("x")).description == "x"
    assert [d.id for d in client.data_sets.list(metadata={"k": "v"})] == [created.id]
    asset = client.assets.create(AssetWrite("a", data_set_id=created.id))
    event = client.events.create(EventWrite(data_set_id=created.id))
    series = client.time_series.create(TimeSeriesWrite(external_id="t", data_set_id=created.id))
    assert {asset.data_set_id, event.data_set_id, series.data_set_id} == {created.id}
    assert [a.id for a in client.assets.list(data_set_external_ids=["d"])] == [asset.id]
    assert len(client.events.list(data_set_ids=[created.id])) == 1
    assert emulator.call("POST", "/datasets/delete", json={"items": [{"externalId": "d"}]}).status_code == 404


def test_data_set_rules(client, emulator):
    client.data_sets.create(DataSetWrite(external_id="d"))
    with pytest.raises(CogniteDuplicatedError) as refused:
        client.data_sets.create([DataSetWrite(external_id="e"), DataSetWrite(external_id="d")])
    assert refused.value.duplicated == [{"externalId": "d"}]
    with pytest.raises(CogniteNotFoundError):
        client.data_sets.retrieve_multiple(external_ids=["x"])
    emulator.refused("/datasets", {"items": [{"externalId": str(i)} for i in range(11)]})
    for item in [{"name": "x" * 51}, {"name": ""}, {"description": "x" * 501}, {"writeProtected": 1}]:
        emulator.refused("/datasets", {"items": [item]})


def test_labels(client, emulator):
    client.labels.create([LabelDefinitionWrite("a", "A", description="x"), LabelDefinitionWrite("b", "B")])
    assert [label.external_id for label in client.labels.list(name="B")] == ["b"]
    assert client.labels.retrieve("a").description == "x"
    listed = emulator.call("POST", "/labels/list", json={}).json()["items"][0]
    assert set(listed) == {"externalId", "name", "description", "createdTime"}
    # The SDK stumbles over its own label while it reports this one.
    again = {"items": [{"externalId": "a", "name": "other"}]}
    assert emulator.refused("/labels", again, 409)["duplicated"] == [{"externalId": "a"}]
    client.labels.delete("a")
    assert client.labels.retrieve("a", ignore_unknown_ids=True) is None
    with pytest.raises(CogniteNotFoundError) as refused:
        client.labels.delete(["a", "b"])
    assert refused.value.missing == [{"externalId": "a"}]
    assert emulator.call("POST", "/labels/update", json={"items": []}).status_code == 404
    emulator.refused("/labels", {"items": [{"externalId": "x"}]})
    emulator.refused("/labels", {"items": [{"name": "x"}]})
