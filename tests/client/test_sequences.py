"""Sequences and their rows: columns that are added, cells that are merged, pages, refusals."""

from __future__ import annotations

import json

import pytest
from support import api, dump, paths, refused, requests, scratch, session, stored  # noqa: F401

COLUMNS = json.dumps([
    {"externalId": "a"},
    {"externalId": "n", "valueType": "LONG", "metadata": {"unit": "mm", "rank": 1}},
    {"externalId": "s", "valueType": "String", "name": None},
])


def create(session, external_id="seq"):
    session.execute("INSERT INTO sequences (external_id, columns) VALUES (%s, %s)", (external_id, COLUMNS))


def types(cdf, external_id="seq"):
    return {column["externalId"]: column["valueType"] for column in stored(cdf, "sequences", external_id)["columns"]}


def cells(cdf, external_id="seq"):
    return {row["rowNumber"]: row["columns"] for row in dump(cdf, "sequence_rows", external_id=external_id)}


def test_a_sequence_and_its_rows_in_one_transaction(session, cdf):
    with session.transaction():
        session.execute("INSERT INTO sequence_rows (external_id, row_number, columns) VALUES ('seq', 0, '{\"a\": 1.5, \"s\": \"x\"}')")
        session.execute(
            "INSERT INTO sequences (external_id, name, columns, asset_external_id, data_set_external_id) VALUES ('seq', 'S', %s, 'pump', 'plant')",
            (COLUMNS,),
        )
        session.execute("INSERT INTO assets (external_id, name) VALUES ('pump', 'Pump')")
        session.execute("INSERT INTO data_sets (external_id) VALUES ('plant')")
        assert requests(cdf) == []
    sequence = stored(cdf, "sequences", "seq")
    assert sequence["assetId"] == stored(cdf, "assets", "pump")["id"]
    assert sequence["dataSetId"] == stored(cdf, "datasets", "plant")["id"]
    assert types(cdf) == {"a": "DOUBLE", "n": "LONG", "s": "STRING"}
    assert sequence["columns"][1]["metadata"] == {"unit": "mm", "rank": "1"}
    assert cells(cdf) == {0: {"a": 1.5, "s": "x"}}


def test_new_columns_are_added_and_others_stay(session, cdf):
    create(session)
    session.execute(
        """INSERT INTO sequences (external_id, name, columns) VALUES ('seq', 'S', '[{"externalId": "a"}, {"externalId": "b"}]')"""
    )
    assert types(cdf) == {"a": "DOUBLE", "n": "LONG", "s": "STRING", "b": "DOUBLE"}
    assert stored(cdf, "sequences", "seq")["name"] == "S"
    session.execute("INSERT INTO sequences (external_id, name) VALUES ('seq', 'T')")
    session.execute("""INSERT INTO sequences (external_id, columns) VALUES ('seq', '[{"externalId": "c"}]')""")
    assert stored(cdf, "sequences", "seq")["name"] == "T" and len(types(cdf)) == 5


def test_columns_written_twice_in_a_transaction(session, cdf):
    with session.transaction():
        create(session)
        session.execute("""INSERT INTO sequences (external_id, columns) VALUES ('seq', '[{"externalId": "b"}]')""")
    assert list(types(cdf)) == ["a", "n", "s", "b"]


def test_the_type_of_a_column_cannot_be_changed(session, cdf):
    create(session)
    with refused("22023", '"seq"', '"n"', "LONG"):
        session.execute("""INSERT INTO sequences (external_id, columns) VALUES ('seq', '[{"externalId": "n", "valueType": "STRING"}]')""")
    assert types(cdf)["n"] == "LONG"


@pytest.mark.parametrize(
    ("columns", "state", "text"),
    [
        ("[]", "22023", "at least one"),
        ("{}", "22023", "array"),
        ('[{"name": "x"}]', "22023", "externalId"),
        ('[{"externalId": "x"}, {"externalId": "x"}]', "22023", "twice"),
        ('[{"externalId": "x", "valueType": "INT"}]', "22023", "STRING, DOUBLE, LONG"),
        ('[{"externalId": "x", "colour": "red"}]', "22023", "colour"),
        (json.dumps([{"externalId": str(i)} for i in range(401)]), "22001", "400"),
        (json.dumps([{"externalId": "x" * 256}]), "22001", "255"),
    ],
)
def test_definitions_that_are_refused(session, cdf, columns, state, text):
    with refused(state, "columns", text):
        session.execute("INSERT INTO sequences (external_id, columns) VALUES ('x', %s)", (columns,))
    assert requests(cdf) == []


def test_a_new_sequence_needs_columns(session, cdf):
    with refused("22004", "columns"):
        session.execute("INSERT INTO sequences (external_id, name) VALUES ('new', 'N')")
    assert dump(cdf, "sequences") == []


def test_rows_are_merged_cell_by_cell(session, cdf):
    create(session)
    row = "INSERT INTO sequence_rows (external_id, row_number, columns) VALUES ('seq', %s, %s)"
    with session.transaction():
        session.execute(row, (1, '{"a": 1, "s": "first"}'))
        session.execute(row, (1, '{"s": "second", "n": 3}'))
        session.execute(row, (2, '{"a": 2, "s": null}'))
    assert cells(cdf) == {1: {"a": 1, "s": "second", "n": 3}, 2: {"a": 2, "s": None}}
    assert len(requests(cdf, "/sequences/data")) == 1
    session.execute(row, (1, '{"a": null}'))
    assert cells(cdf)[1] == {"a": None, "s": "second", "n": 3}


def test_many_rows_share_requests(session, cdf):
    create(session)
    session.execute(
        """INSERT INTO sequence_rows (external_id, row_number, columns)
           SELECT 'seq', i, jsonb_build_object('a', i, 'n', i) FROM generate_series(0, 24999) i"""
    )
    assert len(requests(cdf, "/sequences/data")) == 3
    assert session.execute("SELECT count(*), sum((columns->>'n')::int) FROM sequence_rows").fetchone() == (25000, 312487500)


def test_too_many_values_for_one_request(session, cdf):
    columns = json.dumps([{"externalId": f"c{i}"} for i in range(300)])
    session.execute("INSERT INTO sequences (external_id, columns) VALUES ('wide', %s)", (columns,))
    session.execute(
        """INSERT INTO sequence_rows (external_id, row_number, columns)
           SELECT 'wide', r, (SELECT jsonb_object_agg('c' || c, c) FROM generate_series(0, 299) c) FROM generate_series(1, 700) r"""
    )
    assert len(cells(cdf, "wide")) == 700 and len(cells(cdf, "wide")[700]) == 300
    assert len(requests(cdf, "/sequences/data")) >= 3


@pytest.mark.parametrize(
    ("number", "columns", "state", "text"),
    [
        (-1, '{"a": 1}', "22003", "row_number"),
        (None, '{"a": 1}', "22004", "row_number"),
        (0, None, "22004", "columns"),
        (0, "{}", "22023", "at least one"),
        (0, "[1]", "22023", "object"),
        (0, '{"a": {"b": 1}}', "22023", '"a"'),
        (0, '{"a": true}', "22023", '"a"'),
        (0, '{"a": 1e101}', "22003", "1e100"),
        (0, json.dumps({"s": "ä" * 257}), "22001", "256"),
    ],
)
def test_rows_that_are_refused(session, cdf, number, columns, state, text):
    with refused(state, text, "seq"):
        session.execute("INSERT INTO sequence_rows (external_id, row_number, columns) VALUES ('seq', %s, %s)", (number, columns))
    assert requests(cdf) == []


def test_what_rows_need_is_named(session, cdf):
    create(session)
    with refused("23503", '"nowhere"'):
        session.execute(
            """INSERT INTO sequence_rows (external_id, row_number, columns) VALUES ('seq', 0, '{"a": 1}'), ('nowhere', 7, '{"a": 1}')"""
        )
    with refused("22023", '"seq" row 7', "zzz"):
        session.execute(
            """INSERT INTO sequence_rows (external_id, row_number, columns) VALUES ('seq', 0, '{"a": 1}'), ('seq', 7, '{"zzz": 1}')"""
        )
    with refused("22004", "external_id"):
        session.execute("""INSERT INTO sequence_rows (row_number, columns) VALUES (0, '{"a": 1}')""")


def test_reading(session, cdf):
    create(session)
    create(session, "other")
    (number,) = session.execute("SELECT id FROM sequences WHERE external_id = 'other'").fetchone()
    session.execute(
        """INSERT INTO sequence_rows (external_id, row_number, columns)
           SELECT 'seq', i, jsonb_build_object('a', i) FROM generate_series(0, 9) i"""
    )
    session.execute("""INSERT INTO sequence_rows (id, row_number, columns) VALUES (%s, 5, '{"s": "x"}')""", (number,))
    read = lambda where: session.execute(f"SELECT external_id, row_number FROM sequence_rows WHERE {where} ORDER BY 1, 2").fetchall()
    cdf_calls = len(paths(cdf))
    assert read("external_id = 'seq' AND row_number >= 3 AND row_number < 5") == [("seq", 3), ("seq", 4)]
    (call,) = requests(cdf)[cdf_calls:]
    assert call["path"] == "/sequences/data/list"
    assert (call["body"]["start"], call["body"]["end"]) == (3, 5)
    assert read("row_number = 5") == [("other", 5), ("seq", 5)]
    assert read(f"id = {number}") == [("other", 5)]
    assert read("external_id IN ('other', 'nowhere')") == [("other", 5)]
    assert read("external_id = 'seq' AND row_number > 9") == read("row_number < 0") == []
    assert session.execute("SELECT columns FROM sequence_rows WHERE external_id = 'other'").fetchall() == [
        ({"a": None, "n": None, "s": "x"},)
    ]


def test_on_conflict_of_rows(session, cdf, scratch):
    create(session)
    kinds = {kind: scratch.table(kind, "external_id text, row_number int8, columns jsonb", "sequence_rows", on_conflict=kind) for kind in ("error", "ignore")}
    session.execute(f"INSERT INTO {kinds['error']} SELECT 'seq', i, '{{\"a\": 1}}' FROM generate_series(0, 4, 2) i")
    with refused("23505", '"seq" row 2, "seq" row 4', "on_conflict"):
        session.execute(f"INSERT INTO {kinds['error']} SELECT 'seq', i, '{{\"a\": 2}}' FROM generate_series(1, 4) i")
    with refused("23505", "twice"):
        session.execute(f"INSERT INTO {kinds['error']} SELECT 'seq', 7, '{{\"a\": 2}}' FROM generate_series(1, 2)")
    session.execute(f"INSERT INTO {kinds['ignore']} SELECT 'seq', i, '{{\"a\": 3}}' FROM generate_series(1, 4) i")
    assert {number: row["a"] for number, row in cells(cdf).items()} == {0: 1, 1: 3, 2: 1, 3: 3, 4: 1}
    session.execute(f"INSERT INTO {kinds['ignore']} SELECT 'seq', i, '{{\"a\": 4}}' FROM generate_series(1, 4) i")
    with refused("23503", "none"):
        session.execute(f"INSERT INTO {kinds['ignore']} VALUES ('none', 1, '{{\"a\": 1}}')")
