"""Relationships and the metadata of files."""

import pytest
from cognite.client.data_classes import (
    AssetWrite,
    FileMetadataUpdate,
    FileMetadataWrite,
    LabelDefinitionWrite,
    LabelFilter,
    RelationshipUpdate,
    RelationshipWrite,
)
from cognite.client.exceptions import CogniteAPIError, CogniteDuplicatedError, CogniteNotFoundError


def relationship(external_id, source="s", target="t", **more):
    more = {"source_type": "asset", "target_type": "event", **more}
    return RelationshipWrite(external_id, source, target_external_id=target, **more)


def test_life_of_a_relationship(client, emulator):
    created = client.relationships.create(relationship("r", confidence=0.5, start_time=1, end_time=2))
    assert client.relationships.retrieve("r").dump() == created.dump()
    assert "id" not in emulator.call("POST", "/relationships/list", json={}).json()["items"][0]
    changed = client.relationships.update(RelationshipUpdate("r").confidence.set(None).target_external_id.set("u"))
    assert changed.confidence is None and changed.target_external_id == "u"
    client.relationships.delete("r")
    assert client.relationships.retrieve("r") is None
    client.relationships.delete("r", ignore_unknown_ids=True)
    with pytest.raises(CogniteNotFoundError):
        client.relationships.delete("r")


def test_what_a_relationship_connects(client):
    client.assets.create(AssetWrite("A", external_id="s"))
    client.relationships.create(relationship("r"))
    found = client.relationships.retrieve("r", fetch_resources=True)
    assert found.source.name == "A" and found.target is None


def test_relationship_filters(client):
    client.labels.create(LabelDefinitionWrite("l", "L"))
    client.relationships.create([
        relationship("x", source="1", confidence=0.1, start_time=10),
        relationship("y", source="2", target="1", target_type="file", labels=["l"], end_time=5),
    ])
    names = lambda **query: {r.external_id for r in client.relationships.list(**query)}
    assert names(source_external_ids=["1"]) == names(target_types=["event"]) == {"x"}
    assert names(confidence={"min": 0.05, "max": 0.2}) == names(active_at_time={"min": 20, "max": 30}) == {"x"}
    assert names(labels=LabelFilter(contains_all=["l"])) == {"y"}
    assert names(active_at_time={"min": 0, "max": 3}) == {"y"}


def test_relationship_refusals(client, emulator):
    client.relationships.create(relationship("r"))
    with pytest.raises(CogniteDuplicatedError):
        client.relationships.create([relationship("r"), relationship("new")])
    item = {
        "externalId": "x",
        "sourceExternalId": "s",
        "sourceType": "asset",
        "targetExternalId": "t",
        "targetType": "file",
    }
    assert emulator.refused("/relationships", {"items": [item, item]}, 409)["duplicated"] == [{"externalId": "x"}]
    wrong = [{name: None} for name in item]
    wrong += [{"sourceType": "pump"}, {"confidence": 1.5}, {"externalId": ""}, {"startTime": 2, "endTime": 1}]
    for change in wrong:
        changed = {name: value for name, value in {**item, **change}.items() if value is not None}
        emulator.refused("/relationships", {"items": [changed]})
    emulator.refused("/relationships", {"items": [{**item, "labels": [{"externalId": "nowhere"}]}]})


def test_life_of_a_file(client, emulator):
    asset = client.assets.create(AssetWrite("a"))
    created, upload_url = client.files.create(
        FileMetadataWrite(name="F", external_id="f", mime_type="text/plain", asset_ids=[asset.id], metadata={"k": "v"})
    )
    assert created.uploaded is False and upload_url.startswith("http")
    assert client.files.retrieve(external_id="f").dump() == created.dump()
    changed = client.files.update(FileMetadataUpdate(external_id="f").directory.set("/d").asset_ids.set([]))
    assert changed.directory == "/d" and changed.asset_ids == []
    emulator.refused("/files/update", {"items": [{"externalId": "f", "update": {"name": {"set": "G"}}}]})
    client.files.create(FileMetadataWrite(name="G", external_id="f"), overwrite=True)
    again = client.files.retrieve(id=created.id)
    assert again.name == "G" and again.directory == "/d"
    client.files.delete(external_id="f")
    assert client.files.retrieve(id=created.id) is None


def test_files_are_created_one_at_a_time(client, emulator):
    client.files.create(FileMetadataWrite(name="F", external_id="f"))
    with pytest.raises(CogniteDuplicatedError):
        client.files.create(FileMetadataWrite(name="F", external_id="f"))
    emulator.refused("/files", {"items": [{"name": "x"}]})
    for wrong in [{}, {"name": ""}, {"name": "x" * 257}, {"name": "x", "directory": "d" * 513}, {"name": None}]:
        emulator.refused("/files", wrong)
    with pytest.raises(CogniteAPIError):
        client.files.create(FileMetadataWrite(name="x", asset_ids=[77]))


def test_file_filters(client):
    for name, directory in [("a", "/one/two"), ("b", "/two")]:
        client.files.create(FileMetadataWrite(name=name, external_id=name, directory=directory, source=name))
    names = lambda **query: {f.external_id for f in client.files.list(**query)}
    assert names(directory_prefix="/one") == names(name="a") == names(source="a") == {"a"}
    assert names(uploaded=False) == {"a", "b"} and names(uploaded=True) == set()
