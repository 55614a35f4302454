"""Sequences and their rows: columns that are added, cells that are merged, pages, refusals."""

from __future__ import annotations

import json

import pytest
from support import dump, paths, refused, requests, stored

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


def definitions(cdf, external_id="seq"):
    """What CDF has of each column, without what it sets itself."""
    made = ("createdTime", "lastUpdatedTime", "id")
    columns = stored(cdf, "sequences", external_id)["columns"]
    return [{name: value for name, value in column.items() if name not in made and value != {}} for column in columns]


UPDATES = {
    "UPDATE": "UPDATE sequences SET columns = %(columns)s WHERE external_id = 'seq'",
    "UPDATE all": "UPDATE sequences SET columns = %(columns)s, name = 'N' WHERE name IS NULL OR name <> 'x'",
    "INSERT": "INSERT INTO sequences (external_id, columns) VALUES ('seq', %(columns)s)",
    "DO UPDATE": """INSERT INTO sequences (external_id, name, columns) VALUES ('seq', 'other', %(columns)s)
        ON CONFLICT (external_id) DO UPDATE SET columns = EXCLUDED.columns""",
    "by id": "INSERT INTO sequences (id, columns) SELECT id, %(columns)s FROM sequences WHERE external_id = 'seq'",
}


@pytest.mark.parametrize("statement", UPDATES.values(), ids=UPDATES)
def test_an_update_makes_the_columns_what_it_says(session, cdf, statement):
    create(session)
    create(session, "other")
    session.execute("""INSERT INTO sequence_rows (external_id, row_number, columns) VALUES ('seq', 0, '{"a": 1.5, "n": 2, "s": "x"}')""")
    wanted = [
        {"externalId": "s", "name": "S", "description": "text", "metadata": {"k": "v"}},
        {"externalId": "n", "valueType": "LONG"},
        {"externalId": "new", "valueType": "STRING", "name": "New"},
    ]
    if statement == UPDATES["UPDATE all"]:
        session.execute("DELETE FROM sequences WHERE external_id = 'other'")
    seen = len(requests(cdf))
    assert session.execute(statement, {"columns": json.dumps(wanted)}).rowcount == 1
    assert definitions(cdf) == [
        {"externalId": "n", "valueType": "LONG"},
        {"externalId": "s", "valueType": "STRING", "name": "S", "description": "text", "metadata": {"k": "v"}},
        {"externalId": "new", "valueType": "STRING", "name": "New"},
    ]
    assert cells(cdf) == {0: {"n": 2, "s": "x"}}
    assert stored(cdf, "sequences", "seq").get("name") == ("N" if "name = 'N'" in statement else None)
    # One request updates, and one before it has asked which columns there are.
    made = [entry["path"] for entry in requests(cdf)[seen:]]
    assert made[-2:] == ["/sequences/byids", "/sequences/update"] and made.count("/sequences/update") == 1
    seen = len(requests(cdf))
    session.execute(statement, {"columns": json.dumps(wanted)})
    if statement != UPDATES["UPDATE all"]:
        assert "/sequences/update" not in [entry["path"] for entry in requests(cdf)[seen:]]


def test_columns_that_were_read_can_be_written_again(session, cdf):
    create(session)
    before = definitions(cdf)
    session.execute("UPDATE sequences SET columns = columns WHERE external_id = 'seq'")
    assert "/sequences/update" not in paths(cdf) and definitions(cdf) == before
    session.execute("""UPDATE sequences SET columns = columns || '[{"externalId": "z"}]' WHERE external_id = 'seq'""")
    assert definitions(cdf) == before + [{"externalId": "z", "valueType": "DOUBLE"}]
    session.execute("UPDATE sequences SET columns = columns - 0 WHERE external_id = 'seq'")
    assert definitions(cdf) == before[1:] + [{"externalId": "z", "valueType": "DOUBLE"}]


def test_explain_names_the_request_that_compares_columns(session, cdf):
    explained = lambda what: "\n".join(line for (line,) in session.execute(f"EXPLAIN UPDATE sequences SET {what}"))
    assert "POST /sequences/byids, POST /sequences/update at COMMIT" in explained("columns = columns, name = 'N'")
    assert "CDF Requests: POST /sequences/update at COMMIT" in explained("name = 'N'")


def test_columns_stay_where_a_statement_does_not_set_them(session, cdf):
    create(session)
    before = definitions(cdf)
    session.execute("INSERT INTO sequences (external_id, name) VALUES ('seq', 'T')")
    session.execute(
        """INSERT INTO sequences (external_id, name, columns) VALUES ('seq', 'U', '[{"externalId": "b"}]')
           ON CONFLICT (external_id) DO UPDATE SET name = EXCLUDED.name"""
    )
    session.execute("""INSERT INTO sequences (external_id, columns) VALUES ('seq', '[{"externalId": "b"}]') ON CONFLICT DO NOTHING""")
    assert definitions(cdf) == before and stored(cdf, "sequences", "seq")["name"] == "U"


def test_columns_of_many_sequences_are_compared_in_one_request(session, cdf):
    session.execute("INSERT INTO sequences (external_id, columns) SELECT 's' || i, %s FROM generate_series(1, 900) i", (COLUMNS,))
    seen = len(requests(cdf))
    updated = session.execute("""UPDATE sequences SET columns = columns || '[{"externalId": "z"}]' WHERE external_id LIKE 's%'""")
    assert updated.rowcount == 900
    made = [entry["path"] for entry in requests(cdf)[seen:]]
    assert made.count("/sequences/byids") <= 2 and made.count("/sequences/update") == 1
    assert all("z" in types(cdf, f"s{i}") for i in (1, 450, 900))


def test_columns_written_twice_in_a_transaction(session, cdf):
    with session.transaction():
        create(session)
        session.execute("""INSERT INTO sequences (external_id, columns) VALUES ('seq', '[{"externalId": "b"}]')""")
        session.execute("""UPDATE sequences SET columns = columns || '[{"externalId": "c"}]' WHERE external_id IS NOT NULL""")
    assert list(types(cdf)) == ["b", "c"]


def test_the_type_of_a_column_cannot_be_changed(session, cdf):
    create(session)
    for statement in UPDATES.values():
        with refused("22023", "cannot change its valueType", '"n"', "LONG", "never updates"):
            session.execute(statement.replace(", name = 'N'", ""), {"columns": '[{"externalId": "n", "valueType": "STRING"}]'})
    assert types(cdf) == {"a": "DOUBLE", "n": "LONG", "s": "STRING"}


def test_columns_cannot_be_cleared(session, cdf):
    create(session)
    with refused("22004", '"columns"', "cannot clear"):
        session.execute("UPDATE sequences SET columns = NULL WHERE external_id IS NOT NULL")
    with refused("22023", '"columns"', "at least one"):
        session.execute("UPDATE sequences SET columns = '[]' WHERE external_id IS NOT NULL")
    assert len(types(cdf)) == 3


@pytest.mark.parametrize("mode", ["drop_before", "drop_after"])
def test_an_update_of_columns_whose_answer_is_lost(session, cdf, mode):
    create(session)
    cdf.admin_post("faults", {"path": "/sequences/update", "mode": mode, "times": 1})
    session.execute("""UPDATE sequences SET columns = columns || '[{"externalId": "z"}]', name = 'N' WHERE external_id = 'seq'""")
    assert list(types(cdf)) == ["a", "n", "s", "z"] and stored(cdf, "sequences", "seq")["name"] == "N"


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
    assert len(requests(cdf, "/sequences/data")) == 2
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


def test_a_request_names_each_sequence_once(session, cdf):
    """Rows with other columns, and rows of more columns than an item may have, go in requests of their own."""
    many = json.dumps([{"externalId": f"c{i:03}"} for i in range(350)])
    session.execute("INSERT INTO sequences (external_id, columns) SELECT 'q' || i, %s FROM generate_series(1, 3) i", (many,))
    with session.transaction():
        session.execute(
            """INSERT INTO sequence_rows (external_id, row_number, columns)
               SELECT 'q' || s, r, (SELECT jsonb_object_agg('c' || lpad(c::text, 3, '0'), c + r)
                                    FROM generate_series(0, 349) c WHERE r = 0 OR c % (r + 1) = 0)
               FROM generate_series(1, 3) s, generate_series(0, 9) r"""
        )
        session.execute("""INSERT INTO sequence_rows (external_id, row_number, columns) VALUES ('q1', 5, '{"c001": null, "c006": -1}')""")
    sent = requests(cdf, "/sequences/data")
    for entry in sent:
        if "body" in entry:
            named = [item["externalId"] for item in entry["body"]["items"]]
            assert len(named) == len(set(named))
    for s in (1, 2, 3):
        expected = {r: {f"c{c:03}": c + r for c in range(350) if r == 0 or c % (r + 1) == 0} for r in range(10)}
        if s == 1:
            expected[5] |= {"c001": None, "c006": -1}
        assert cells(cdf, f"q{s}") == expected
    assert len(sent) <= 15


def test_a_row_that_is_refused_among_rows_with_other_columns(session, cdf):
    create(session)
    values = """('seq', 0, '{"a": 1}'), ('seq', 1, '{"n": 2}'), ('seq', 2, '{"a": 1, "n": 1.5}'), ('seq', 3, '{"s": "x"}'),
        ('seq', 4, '{"a": 4}')"""
    with refused("22023", '"seq" row 2', "expected a LONG"):
        session.execute(f"INSERT INTO sequence_rows (external_id, row_number, columns) VALUES {values}")
    assert set(cells(cdf)) == {0, 1, 3, 4}
    assert cells(cdf)[4] == {"a": 4}


def test_rows_of_many_sequences_are_deleted(session, cdf):
    one = json.dumps([{"externalId": "a"}])
    session.execute("INSERT INTO sequences (external_id, columns) SELECT 'm' || i, %s FROM generate_series(1, 2100) i", (one,))
    session.execute("""INSERT INTO sequence_rows (external_id, row_number, columns) SELECT 'm' || i, 0, '{"a": 1}' FROM generate_series(1, 2100) i""")
    assert session.execute("DELETE FROM sequence_rows WHERE row_number = 0").rowcount == 2100
    assert dump(cdf, "sequence_rows") == []
    assert max(entry["items"] for entry in requests(cdf, "/sequences/data/delete")) <= 1000


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
