"""Extraction pipelines and their runs: their lives, what runs tell of a pipeline, refusals."""

import pytest
from cognite.client.data_classes import (
    DataSetWrite,
    ExtractionPipelineRunWrite,
    ExtractionPipelineUpdate,
    ExtractionPipelineWrite,
)
from cognite.client.data_classes.extractionpipelines import (
    ExtractionPipelineContact,
    ExtractionPipelineNotificationConfiguration,
)
from cognite.client.exceptions import CogniteAPIError, CogniteDuplicatedError, CogniteNotFoundError


@pytest.fixture
def data_set(client):
    return client.data_sets.create(DataSetWrite(external_id="set", name="set")).id


def make(client, data_set, external_id="p", **more):
    return client.extraction_pipelines.create(
        ExtractionPipelineWrite(external_id=external_id, name=external_id, data_set_id=data_set, **more)
    )


def report(client, status, pipeline="p", **more):
    run = ExtractionPipelineRunWrite(extpipe_external_id=pipeline, status=status, **more)
    return client.extraction_pipelines.runs.create(run)


def test_life_of_a_pipeline(client, data_set):
    made = make(
        client,
        data_set,
        description="d",
        raw_tables=[{"dbName": "a", "tableName": "b"}],
        schedule="Continuous",
        contacts=[ExtractionPipelineContact(name="n", email="e@x.no", role="owner", send_notification=False)],
        metadata={"k": "v"},
        source="s",
        documentation="x",
        created_by="me",
        notification_config=ExtractionPipelineNotificationConfiguration(allowed_not_seen_range_in_minutes=10),
    )
    api = client.extraction_pipelines
    assert api.retrieve(id=made.id).dump() == api.retrieve(external_id="p").dump() == made.dump() == api.list()[0].dump()
    changed = api.update(
        ExtractionPipelineUpdate(id=made.id).metadata.set({}).raw_tables.add([{"dbName": "a", "tableName": "c"}]).name.set("q")
    )
    assert changed.metadata is None and len(changed.raw_tables) == 2 and changed.name == "q"
    assert api.update(ExtractionPipelineUpdate(external_id="p").description.set("")).description in (None, "")
    api.delete(external_id="p")
    assert api.retrieve(external_id="p") is None


def test_runs_tell_of_their_pipeline(client, data_set):
    made = make(client, data_set)
    assert (made.last_success, made.last_failure, made.last_seen, made.last_message) == (0, 0, 0, None)
    report(client, "success", created_time=1000)
    report(client, "failure", created_time=2000, message="Oh no!")
    report(client, "seen", created_time=3000)
    told = client.extraction_pipelines.retrieve(external_id="p")
    assert (told.last_success, told.last_failure, told.last_seen, told.last_message) == (1000, 2000, 3000, "Oh no!")


def test_runs_are_listed_by_pipeline_the_latest_first(client, data_set):
    make(client, data_set)
    make(client, data_set, "q")
    runs = client.extraction_pipelines.runs
    for number in range(5):
        report(client, "success" if number % 2 else "failure", created_time=number, message=f"m{number}")
    report(client, "seen", "q")
    assert [run.created_time for run in runs.list("p", limit=None)] == [4, 3, 2, 1, 0]
    assert [run.message for run in runs.list("p", statuses="success")] == ["m3", "m1"]
    assert [run.message for run in runs.list("p", message_substring="2")] == ["m2"]
    assert [run.message for run in runs.list("p", created_time={"min": 3})] == ["m4", "m3"]
    assert runs.list("q")[0].extpipe_external_id == "q" and len(runs.list("q")) == 1


def test_pages_of_runs(client, data_set):
    make(client, data_set)
    for number in range(7):
        report(client, "seen", created_time=number)
    pages, cursor = [], None
    while True:
        body = {"filter": {"externalId": "p"}, "limit": 3, "cursor": cursor}
        answer = client.post(f"/api/v1/projects/{client.config.project}/extpipes/runs/list", json=body).json()
        # A list does not repeat the pipeline.
        assert all("externalId" not in run for run in answer["items"])
        pages.append([run["createdTime"] for run in answer["items"]])
        cursor = answer.get("nextCursor")
        if cursor is None:
            break
    assert pages == [[6, 5, 4], [3, 2, 1], [0]]


def test_a_pipeline_takes_its_runs_with_it(client, data_set):
    make(client, data_set)
    report(client, "seen")
    client.extraction_pipelines.delete(external_id="p")
    make(client, data_set)
    assert len(client.extraction_pipelines.runs.list("p")) == 0


def test_refusals(client, emulator, data_set):
    make(client, data_set)
    with pytest.raises(CogniteDuplicatedError):
        make(client, data_set)
    with pytest.raises(CogniteAPIError, match="Data sets not found"):
        make(client, 4711, "q")
    with pytest.raises(CogniteNotFoundError) as missing:
        report(client, "seen", "none")
    assert missing.value.not_found == [{"externalId": "none"}]
    run = {"externalId": "p", "status": "seen"}
    assert "between 1 and 1" in emulator.refused("/extpipes/runs", {"items": [run, run]})["message"]
    for change in ({"status": "done"}, {"message": "x" * 1001}, {"createdTime": -1}, {"id": 5}, {"message": None}):
        emulator.refused("/extpipes/runs", {"items": [run | change]})
    update = {"externalId": "p", "update": {"description": {"setNull": True}}}
    emulator.refused("/extpipes/update", {"items": [update]})
    emulator.refused("/extpipes/runs/list", {"filter": {}})
    emulator.refused("/extpipes", {"items": [{"externalId": "q", "name": "q"}]})
    emulator.refused("/extpipes", {"items": [{"externalId": "q", "name": "q", "dataSetId": data_set, "contacts": [{"mail": "x"}]}]})
