"""Sequences and their rows: the life of one, changes of columns, pages, refusals."""

import pytest
from cognite.client.data_classes import AssetWrite, SequenceColumnUpdate, SequenceColumnWrite, SequenceUpdate, SequenceWrite
from cognite.client.exceptions import CogniteAPIError, CogniteDuplicatedError, CogniteNotFoundError

COLUMNS = [
    SequenceColumnWrite("a"),
    SequenceColumnWrite("n", value_type="Long", metadata={"k": "v"}),
    SequenceColumnWrite("s", value_type="String", name="S"),
]


def create(client, external_id="seq", columns=None, **properties):
    return client.sequences.create(SequenceWrite(columns or COLUMNS, external_id=external_id, **properties))


def numbers(rows):
    return [row.row_number for row in rows.rows]


def test_life_of_a_sequence(client):
    asset = client.assets.create(AssetWrite("a"))
    created = create(client, name="N", asset_id=asset.id, metadata={"k": "v"})
    assert [column.value_type for column in created.columns] == ["DOUBLE", "LONG", "STRING"]
    assert client.sequences.retrieve(external_id="seq").dump() == created.dump()
    changed = client.sequences.update(SequenceUpdate(external_id="seq").name.set(None).metadata.add({"l": "w"}))
    assert changed.name is None and changed.metadata == {"k": "v", "l": "w"}
    client.sequences.delete(external_id="seq")
    assert client.sequences.retrieve(id=created.id) is None


def test_columns_change(client):
    create(client)
    client.sequences.data.insert(rows=[(0, [1.5, 2, "x"])], columns=["a", "n", "s"], external_id="seq")
    change = SequenceUpdate(external_id="seq").columns.add(SequenceColumnWrite("new")).columns.remove(["n"])
    change = change.columns.modify([SequenceColumnUpdate(external_id="s").external_id.set("t")])
    client.sequences.update(change)
    rows = client.sequences.data.retrieve(external_id="seq")
    assert rows.column_external_ids == ["a", "t", "new"]
    assert rows.values == [[1.5, "x", None]]


def test_every_part_of_a_column_but_its_type_changes(client, emulator):
    create(client)
    column = lambda name: next(c for c in client.sequences.retrieve(external_id="seq").columns if c.external_id == name)
    update = SequenceColumnUpdate(external_id="n").name.set("N").description.set("d").metadata.set({"a": "b"})
    client.sequences.update(SequenceUpdate(external_id="seq").columns.modify([update]))
    assert (column("n").name, column("n").description, column("n").metadata) == ("N", "d", {"a": "b"})
    clear = SequenceColumnUpdate(external_id="n").name.set(None).metadata.add({"c": "d"})
    client.sequences.update(SequenceUpdate(external_id="seq").columns.modify([clear]))
    assert (column("n").name, column("n").metadata) == (None, {"a": "b", "c": "d"})
    patch = lambda columns: {"items": [{"externalId": "seq", "update": {"columns": columns}}]}
    for wrong in [
        {"modify": [{"externalId": "n", "update": {"valueType": {"set": "STRING"}}}]},
        {"modify": [{"externalId": "n", "update": {"externalId": {"setNull": True}}}]},
        {"modify": [{"externalId": "n", "update": {"externalId": {"set": "a"}}}]},
        {"modify": [{"externalId": "n"}]},
        {"modify": [{"externalId": "none", "update": {"name": {"set": "x"}}}]},
        {"remove": [{"externalId": "none"}]},
        {"remove": ["n"]},
        {"remove": [{"externalId": "n", "name": "N"}]},
        {"remove": [{"externalId": name} for name in "ans"]},
        {"add": [{"externalId": "n"}]},
        {"add": [{"externalId": f"c{i}"} for i in range(398)]},
        {"set": [{"externalId": "n"}]},
    ]:
        emulator.refused("/sequences/update", patch(wrong))
    assert [c.external_id for c in client.sequences.retrieve(external_id="seq").columns] == ["a", "n", "s"]


def test_a_request_names_a_sequence_once(client, emulator):
    number = create(client).id
    rows = lambda name, column: name | {"columns": [column], "rows": [{"rowNumber": 0, "values": [1]}]}
    for other in ({"externalId": "seq"}, {"id": number}):
        emulator.refused("/sequences/data", {"items": [rows({"externalId": "seq"}, "a"), rows(other, "n")]})
        emulator.refused("/sequences/data/delete", {"items": [{"externalId": "seq", "rows": [0]}, other | {"rows": [1]}]})
    assert numbers(client.sequences.data.retrieve(external_id="seq")) == []


def test_rows_are_written_cell_by_cell(client, emulator):
    create(client)
    insert = client.sequences.data.insert
    insert(rows=[(0, [1.0, "x"]), (5, [2.0, None])], columns=["a", "s"], external_id="seq")
    insert(rows=[(5, [7])], columns=["n"], external_id="seq")
    rows = client.sequences.data.retrieve(external_id="seq")
    assert numbers(rows) == [0, 5] and rows.values == [[1.0, None, "x"], [2.0, 7, None]]
    assert client.sequences.data.retrieve(external_id="seq", start=1, end=6, columns=["n"]).values == [[7]]
    client.sequences.data.delete(external_id="seq", rows=[0, 99])
    assert numbers(client.sequences.data.retrieve(external_id="seq")) == [5]
    dumped = emulator.admin("GET", "/dump", params={"resource": "sequence_rows", "external_id": "seq"})["items"]
    assert [(row["rowNumber"], row["columns"]) for row in dumped] == [(5, {"a": 2.0, "n": 7, "s": None})]


def test_pages(client):
    create(client)
    client.sequences.data.insert(rows=[(i, [i]) for i in range(25_000)], columns=["n"], external_id="seq")
    rows = client.sequences.data.retrieve(external_id="seq", columns=["n"])
    assert numbers(rows) == list(range(25_000))
    assert numbers(client.sequences.data.retrieve(external_id="seq", start=3, end=20_000, limit=15_000))[-1] == 15_002


def test_filters(client):
    asset = client.assets.create(AssetWrite("a", external_id="root"))
    create(client, "x1", name="X", metadata={"k": "v"})
    create(client, "y1", asset_id=asset.id)
    names = lambda **query: {s.external_id for s in client.sequences.list(**query)}
    assert names() == {"x1", "y1"}
    assert names(name="X") == names(metadata={"k": "v"}) == {"x1"}
    assert names(asset_ids=[asset.id]) == names(asset_subtree_external_ids=["root"]) == {"y1"}


def test_refusals(client, emulator):
    create(client)
    with pytest.raises(CogniteDuplicatedError):
        create(client)
    with pytest.raises(CogniteNotFoundError):
        client.sequences.delete(external_id="nowhere")
    with pytest.raises(CogniteAPIError) as refused:
        client.sequences.data.insert(rows=[(0, [1])], columns=["a"], external_id="nowhere")
    assert refused.value.code == 400
    with pytest.raises(CogniteAPIError) as refused:
        client.sequences.data.insert(rows=[(0, [1])], columns=["zzz"], external_id="seq")
    assert refused.value.code == 404
    body = lambda columns, *values, row=0: {
        "items": [{"externalId": "seq", "columns": columns, "rows": [{"rowNumber": row, "values": list(values)}]}]
    }
    for wrong in [
        body(["a"], "text"),
        body(["n"], 1.5),
        body(["s"], 1),
        body(["s"], "x" * 257),
        body(["a"], 1e101),
        body(["a"], 1, 2),
        body(["a"], 1, row=-1),
        body(["a", "a"], 1, 2),
    ]:
        emulator.refused("/sequences/data", wrong)
    for columns in [[], [{"externalId": "a"}] * 2, [{"name": "n"}], [{"externalId": "a", "valueType": "X"}]]:
        emulator.refused("/sequences", {"items": [{"columns": columns}]})
    emulator.refused("/sequences", {"items": [{"externalId": "n"}]})
