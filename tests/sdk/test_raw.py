"""RAW: databases, tables, rows."""

import pytest
from cognite.client.data_classes import RowWrite
from cognite.client.exceptions import CogniteAPIError


def test_rows(client):
    columns = {"n": 1, "s": "x", "null": None, "list": [1, {"a": None}], "object": {"b": 1.5}}
    client.raw.rows.insert("db", "t", {"k1": columns, "k/2?": {}}, ensure_parent=True)
    assert [db.name for db in client.raw.databases.list()] == ["db"]
    assert [t.name for t in client.raw.tables.list("db")] == ["t"]
    assert client.raw.rows.retrieve("db", "t", "k1").columns == columns
    assert client.raw.rows.retrieve("db", "t", "k/2?").columns == {}
    assert client.raw.rows.retrieve("db", "t", "none") is None
    client.raw.rows.delete("db", "t", ["k1", "none"])
    assert [row.key for row in client.raw.rows.list("db", "t")] == ["k/2?"]


def test_a_row_is_replaced_whole_and_its_time_moves_only_with_its_contents(client):
    insert = lambda columns: client.raw.rows.insert("db", "t", RowWrite("k", columns), ensure_parent=True)
    row = lambda: client.raw.rows.retrieve("db", "t", "k")
    insert({"a": 1, "b": 2})
    first = row().last_updated_time
    insert({"a": 1, "b": 2})
    assert row().last_updated_time == first
    insert({"c": 3})
    assert row().columns == {"c": 3}


def test_numbers_keep_their_digits(client, emulator):
    body = '{"items": [{"key": "k", "columns": {"n": 123456789012345678901234567890.1234567890}}]}'
    inserted = emulator.call(
        "POST", "/raw/dbs/d/tables/t/rows?ensureParent=true", data=body, headers={"content-type": "application/json"}
    )
    assert inserted.json() == {}
    assert "123456789012345678901234567890.1234567890" in emulator.call("GET", "/raw/dbs/d/tables/t/rows/k").text


def test_many_rows(client):
    rows = {f"k{i:05}": {"i": i, "j": -i} for i in range(12_000)}
    client.raw.rows.insert("db", "t", rows, ensure_parent=True)
    listed = client.raw.rows.list("db", "t", limit=None)
    assert {row.key: row.columns for row in listed} == rows
    in_parallel = client.raw.rows.list("db", "t", limit=None, partitions=5)
    assert sorted(row.key for row in in_parallel) == sorted(rows)
    only_i = client.raw.rows.list("db", "t", columns=["i"], limit=3)
    assert [list(row.columns) for row in only_i] == [["i"]] * 3


def test_cursors_and_columns(emulator):
    items = [{"key": f"k{i}", "columns": {"a": i, "b": i}} for i in range(10)]
    emulator.call("POST", "/raw/dbs/d/tables/t/rows?ensureParent=true", json={"items": items})
    path = "/raw/dbs/d/tables/t"
    cursors = emulator.call("GET", f"{path}/cursors?numberOfCursors=3").json()["items"]
    keys = []
    for cursor in cursors:
        while cursor:
            page = emulator.call("GET", f"{path}/rows", params={"cursor": cursor, "limit": 2, "columns": ","}).json()
            assert all(row["columns"] == {} for row in page["items"])
            keys += [row["key"] for row in page["items"]]
            cursor = page.get("nextCursor")
    assert len(cursors) == 3 and sorted(keys) == [f"k{i}" for i in range(10)]
    last = emulator.call("GET", f"{path}/rows").json()["items"][0]["lastUpdatedTime"]
    assert emulator.call("GET", f"{path}/rows", params={"minLastUpdatedTime": last}).json()["items"] == []
    assert len(emulator.call("GET", f"{path}/rows", params={"maxLastUpdatedTime": last}).json()["items"]) == 10
    assert emulator.call("GET", f"{path}/rows", params={"cursor": "made-up"}).status_code == 400
    assert emulator.call("GET", f"{path}/rows", params={"limit": 10001}).status_code == 400


def test_databases_and_tables(client):
    client.raw.databases.create(["a", "b"])
    client.raw.tables.create("a", ["t", "u"])
    with pytest.raises(CogniteAPIError) as refused:
        client.raw.databases.create("a")
    assert refused.value.code == 409
    with pytest.raises(CogniteAPIError) as refused:
        client.raw.databases.delete("a")
    assert refused.value.code == 400
    client.raw.tables.delete("a", "t")
    assert [t.name for t in client.raw.tables.list("a")] == ["u"]
    client.raw.databases.delete("a", recursive=True)
    assert [db.name for db in client.raw.databases.list(limit=None)] == ["b"]


def test_unknown_places(client):
    with pytest.raises(CogniteAPIError) as refused:
        client.raw.rows.insert("nowhere", "t", {"k": {}})
    assert (refused.value.code, refused.value.message) == (400, "Following databases not found: nowhere.")
    client.raw.databases.create("db")
    with pytest.raises(CogniteAPIError) as refused:
        client.raw.rows.list("db", "t")
    assert refused.value.code == 400


@pytest.mark.parametrize(
    "row",
    [
        {"key": "", "columns": {}},
        {"key": "x" * 1025, "columns": {}},
        {"key": "x"},
        {"columns": {}},
        {"key": "x", "columns": []},
        {"key": "x", "columns": {}, "extra": 1},
        {"key": "x", "columns": {"c": "x" * 2_621_441}},
        {"key": "x", "columns": {"a": "x" * 2_600_000, "b": "x" * 2_600_000, "c": "x" * 100_000}},
    ],
)
def test_refused_rows(emulator, row):
    emulator.refused("/raw/dbs/d/tables/t/rows?ensureParent=true", {"items": [row]})


def test_request_sizes(emulator):
    rows = [{"key": str(i), "columns": {}} for i in range(10_001)]
    emulator.refused("/raw/dbs/d/tables/t/rows?ensureParent=true", {"items": rows})
    emulator.refused(f"/raw/dbs/{'d' * 33}/tables/t/rows?ensureParent=true", {"items": rows[:1]})
    emulator.refused(f"/raw/dbs/d/tables/{'t' * 65}/rows?ensureParent=true", {"items": rows[:1]})
