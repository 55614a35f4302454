"""Data sets and labels: what other rows refer to, also in the same transaction."""

from __future__ import annotations

import pytest
from support import dump, names, refused, requests, stored


def test_everything_that_refers_to_each_other_in_one_transaction(session, cdf):
    with session.transaction():
        session.execute("INSERT INTO events (external_id, data_set_external_id, asset_external_ids) VALUES ('e', 'plant', '{pump}')")
        session.execute(
            "INSERT INTO assets (external_id, name, labels, data_set_external_id) VALUES ('pump', 'Pump', '{critical,old}', 'plant')"
        )
        session.execute("INSERT INTO labels (external_id, name, data_set_external_id) VALUES ('critical', 'Critical', 'plant'), ('old', 'Old', NULL)")
        session.execute("INSERT INTO data_sets (external_id, name, metadata) VALUES ('plant', 'Plant', '{\"site\": 1}')")
        assert requests(cdf) == []
    plant = stored(cdf, "datasets", "plant")
    assert plant["metadata"] == {"site": "1"} and plant["writeProtected"] is False
    assert stored(cdf, "labels", "critical")["dataSetId"] == plant["id"]
    pump = stored(cdf, "assets", "pump")
    assert pump["dataSetId"] == plant["id"]
    assert sorted(label["externalId"] for label in pump["labels"]) == ["critical", "old"]
    assert stored(cdf, "events", "e")["dataSetId"] == plant["id"]
    assert stored(cdf, "events", "e")["assetIds"] == [pump["id"]]


def test_data_sets_go_ten_at_a_time(session, cdf):
    session.execute("INSERT INTO data_sets (external_id, name) SELECT 'd' || i, 'D' FROM generate_series(1, 25) i")
    assert sorted(entry["items"] for entry in requests(cdf, "/datasets")) == [5, 10, 10]
    session.execute("INSERT INTO data_sets (external_id, description) SELECT 'd' || i, 'changed' FROM generate_series(1, 30) i")
    stored_sets = dump(cdf, "datasets")
    assert len(stored_sets) == 30 and {item["description"] for item in stored_sets} == {"changed"}
    assert stored(cdf, "datasets", "d1")["name"] == "D"


def test_a_label_written_again_as_it_is(session, cdf):
    label = "INSERT INTO labels (external_id, name, description) VALUES ('l', 'L', %s)"
    session.execute(label, ("as it is",))
    session.execute(label, ("as it is",))
    session.execute("INSERT INTO labels (external_id, name) VALUES ('l', 'L'), ('new', 'New')")
    assert names(cdf, "labels") == ["l", "new"]
    assert stored(cdf, "labels", "l")["description"] == "as it is"


def test_a_label_cannot_be_changed(session, cdf):
    session.execute("INSERT INTO labels (external_id, name) VALUES ('l', 'L'), ('m', 'M')")
    with refused("0A000", '"l"', "label"):
        session.execute("INSERT INTO labels (external_id, name) VALUES ('l', 'Other'), ('m', 'M')")
    assert stored(cdf, "labels", "l")["name"] == "L"
    session.execute("INSERT INTO labels (external_id, name) VALUES ('l', 'Other') ON CONFLICT DO NOTHING")
    assert stored(cdf, "labels", "l")["name"] == "L"


def test_labels_without_what_they_need(session, cdf):
    with refused("22004", "external_id"):
        session.execute("INSERT INTO labels (name) VALUES ('L')")
    with refused("22004", '"new"', "name"):
        session.execute("INSERT INTO labels (external_id) VALUES ('new')")
    assert dump(cdf, "labels") == []


@pytest.mark.parametrize(
    ("table", "column", "limit"),
    [("data_sets", "name", 50), ("data_sets", "description", 500), ("labels", "name", 140), ("labels", "description", 500)],
)
def test_limits(session, cdf, table, column, limit):
    with refused("22001", column, str(limit)):
        session.execute(f"INSERT INTO {table} (external_id, {column}) VALUES ('x', repeat('ä', {limit + 1}))")
    assert requests(cdf) == []


def test_an_unknown_label_is_named(session, cdf):
    with refused("23503", '"a"', "nowhere"):
        session.execute("INSERT INTO assets (external_id, name, labels) VALUES ('a', 'A', '{nowhere}'), ('b', 'B', NULL)")
    assert dump(cdf, "assets") == []


def test_reading(session, cdf):
    with session.transaction():
        session.execute("INSERT INTO data_sets (external_id, name, write_protected) VALUES ('d', 'D', false)")
        session.execute("INSERT INTO labels (external_id, name, data_set_external_id) VALUES ('l', 'L', 'd'), ('m', 'M', NULL)")
    assert session.execute("SELECT external_id, name, write_protected FROM data_sets").fetchall() == [("d", "D", False)]
    assert session.execute("SELECT external_id, data_set_external_id FROM labels ORDER BY 1").fetchall() == [
        ("l", "d"),
        ("m", None),
    ]
    assert session.execute("SELECT name FROM labels WHERE external_id = 'm'").fetchall() == [("M",)]
    assert requests(cdf)[-1]["path"] == "/labels/byids"
