"""Relationships, and the metadata of files, which CDF creates one by one."""

from __future__ import annotations

import pytest
from support import dump, names, refused, requests, stored

RELATIONSHIP = """INSERT INTO relationships (external_id, source_external_id, source_type, target_external_id, target_type, {more})
    VALUES ('r', 's', 'asset', 't', 'timeSeries', {values})"""


def test_everything_that_refers_to_each_other_in_one_transaction(session, cdf):
    with session.transaction():
        session.execute(
            RELATIONSHIP.format(more="confidence, labels, data_set_external_id, start_time", values="0.5, '{l}', 'd', '2024-01-01Z'")
        )
        session.execute("INSERT INTO files (external_id, name, asset_external_ids, labels, data_set_external_id) VALUES ('f', 'F', '{s}', '{l}', 'd')")
        session.execute("INSERT INTO assets (external_id, name) VALUES ('s', 'S')")
        session.execute("INSERT INTO labels (external_id, name) VALUES ('l', 'L')")
        session.execute("INSERT INTO data_sets (external_id) VALUES ('d')")
    data_set = stored(cdf, "datasets", "d")["id"]
    relationship, file = stored(cdf, "relationships", "r"), stored(cdf, "files", "f")
    assert relationship["confidence"] == 0.5 and relationship["dataSetId"] == file["dataSetId"] == data_set
    assert relationship["labels"] == file["labels"] == [{"externalId": "l"}]
    assert file["assetIds"] == [stored(cdf, "assets", "s")["id"]]


def test_a_relationship_is_updated(session, cdf):
    session.execute(RELATIONSHIP.format(more="confidence", values="0.5"))
    session.execute("INSERT INTO relationships (external_id, target_external_id) VALUES ('r', 'u')")
    changed = stored(cdf, "relationships", "r")
    assert (changed["sourceExternalId"], changed["targetExternalId"], changed["confidence"]) == ("s", "u", 0.5)


@pytest.mark.parametrize(
    ("column", "value", "state", "text"),
    [
        ("source_type", "'pump'", "22023", "asset, timeSeries, file, event, sequence"),
        ("target_type", "'Asset'", "22023", "asset, timeSeries"),
        ("source_external_id", "''", "22023", "empty"),
        ("confidence", "1.5", "22003", "0 to 1"),
        ("confidence", "'NaN'", "22003", "0 to 1"),
        ("start_time", "'1969-01-01'", "22003", "1970"),
        ("last_updated_time", "now()", "22023", "CDF sets"),
    ],
)
def test_relationships_that_are_refused(session, cdf, column, value, state, text):
    with refused(state, column, text):
        session.execute(f"INSERT INTO relationships (external_id, {column}) VALUES ('r', {value})")
    assert requests(cdf) == []


def test_relationships_without_what_they_need(session, cdf):
    with refused("22004", "external_id"):
        session.execute("INSERT INTO relationships (source_external_id) VALUES ('s')")
    with refused("22004", '"new"', "source_type"):
        session.execute("INSERT INTO relationships (external_id, source_external_id) VALUES ('new', 's')")
    assert dump(cdf, "relationships") == []


def test_relationships_are_read(session, cdf):
    session.execute(RELATIONSHIP.format(more="confidence, end_time", values="0.25, '2024-01-01Z'"))
    row = session.execute("SELECT source_type, target_external_id, confidence, labels FROM relationships WHERE external_id = 'r'").fetchall()
    assert row == [("asset", "t", 0.25, None)]
    assert session.execute("SELECT external_id FROM relationships").fetchall() == [("r",)]


def test_files_are_created_one_by_one_and_updated_together(session, cdf):
    load = "INSERT INTO files (external_id, name, source, metadata) SELECT 'f' || i, 'F', %s, '{\"i\": 1}' FROM generate_series(1, %s) i"
    session.execute(load, ("first", 25))
    assert len(requests(cdf, "/files")) == 25 and requests(cdf, "/files/update") == []
    session.execute(load, ("second", 30))
    assert len(requests(cdf, "/files")) == 30 and len(requests(cdf, "/files/update")) == 1
    files = dump(cdf, "files")
    assert len(files) == 30 and {file["source"] for file in files} == {"second"}
    assert session.execute("SELECT count(*) FROM files WHERE NOT uploaded AND created_time IS NOT NULL").fetchone() == (30,)


def test_files_without_external_id(session, cdf):
    session.execute("INSERT INTO files (name) VALUES ('a'), ('b')")
    assert sorted(file["name"] for file in dump(cdf, "files")) == ["a", "b"]


def test_the_name_of_a_file_cannot_be_changed(session, cdf):
    session.execute("INSERT INTO files (external_id, name) VALUES ('f', 'F')")
    session.execute("INSERT INTO files (external_id, name, directory) VALUES ('f', 'F', '/d')")
    session.execute("INSERT INTO files (external_id, mime_type) VALUES ('f', 'text/plain')")
    with refused("22023", '"f"', "name", '"F"'):
        session.execute("INSERT INTO files (external_id, name) VALUES ('f', 'G')")
    file = stored(cdf, "files", "f")
    assert (file["name"], file["directory"], file["mimeType"]) == ("F", "/d", "text/plain")


@pytest.mark.parametrize("end", ["2024-01-01Z", "2024-01-01 00:00:00.000999Z", "2023-12-31Z"])
def test_a_relationship_that_does_not_end_after_its_start(session, cdf, end):
    more = "start_time, end_time"
    with refused("22023", "end_time"):
        session.execute(RELATIONSHIP.format(more=more, values=f"'2024-01-01Z', '{end}'"))
    assert dump(cdf, "relationships") == []
    session.execute(RELATIONSHIP.format(more=more, values="'2024-01-01Z', '2024-01-01 00:00:00.001Z'"))
    with refused("22023", "end_time"):
        session.execute("UPDATE relationships SET start_time = end_time WHERE external_id = 'r'")
    session.execute("INSERT INTO events (external_id, start_time, end_time) VALUES ('e', '2024-01-01Z', '2024-01-01Z')")
    assert stored(cdf, "events", "e")["endTime"] == stored(cdf, "events", "e")["startTime"]


def test_what_was_created_before_a_refusal_is_told(session, cdf):
    with refused("23503", '"bad"', "nowhere", "2 of 3 files"):
        session.execute("INSERT INTO files (external_id, name, labels) VALUES ('x', 'X', NULL), ('y', 'Y', NULL), ('bad', 'B', '{nowhere}')")
    assert names(cdf, "files") == ["x", "y"]


def test_files_that_are_there_already(session, cdf):
    session.execute("INSERT INTO files (external_id, name) VALUES ('f', 'F')")
    session.execute("INSERT INTO files (external_id, name) VALUES ('f', 'Other'), ('g', 'G') ON CONFLICT DO NOTHING")
    assert names(cdf, "files") == ["f", "g"] and stored(cdf, "files", "f")["name"] == "F"


@pytest.mark.parametrize(("column", "limit"), [("name", 256), ("directory", 512), ("source", 128), ("mime_type", 256)])
def test_limits_of_files(session, cdf, column, limit):
    with refused("22001", column, str(limit)):
        session.execute(f"INSERT INTO files (external_id, {column}) VALUES ('x', repeat('ä', {limit + 1}))")
    with refused("22023", "uploaded"):
        session.execute("INSERT INTO files (external_id, uploaded) VALUES ('x', true)")
    assert requests(cdf) == []


def test_the_key_of_a_relationship_is_not_empty(session, cdf):
    with refused("22023", "external_id", "empty"):
        session.execute(RELATIONSHIP.format(more="confidence", values="0.5").replace("'r'", "''"))
    assert requests(cdf) == []


def test_a_file_without_assets(session, cdf):
    """CDF takes no empty list of assets when a file is created."""
    session.execute("INSERT INTO files (external_id, name, asset_ids, labels) VALUES ('f', 'F', '{}', '{}')")
    assert stored(cdf, "files", "f").get("assetIds", []) == []
    session.execute("INSERT INTO assets (external_id, name) VALUES ('a', 'A')")
    session.execute("INSERT INTO files (external_id, asset_external_ids) VALUES ('f', '{a}')")
    assert len(stored(cdf, "files", "f")["assetIds"]) == 1
    session.execute("INSERT INTO files (external_id, name, asset_external_ids) VALUES ('f', 'F', '{}'), ('g', 'G', '{}')")
    assert [item.get("assetIds", []) for item in dump(cdf, "files")] == [[], []]
