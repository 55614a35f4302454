"""Numbers keep their digits, and documents their depth: what is read, and what an UPDATE leaves alone."""

from __future__ import annotations

import json
from decimal import Decimal

import pytest
from support import refused, requests, stored
from test_views import create_view

# JSON as writers have it: no double holds these, or prints them so.
SPELLINGS = [
    "89314404000123456789",
    "0.1234567890123456789012345",
    "1.10",
    "1.0",
    "-0",
    "1E5",
    "1e400",
    "-1.5e-400",
    "9223372036854775807",
]
DEEP = "[" * 5000 + "]" * 5000


def raw_table(scratch, definition: str, **options: str) -> str:
    return scratch.table("t", definition, "raw_rows", database="d", table="t", **options)


@pytest.mark.parametrize("null_handling", ["ignore", "set_null"])
def test_an_update_leaves_alone_what_it_does_not_set(session, api, scratch, null_handling):
    kept = ",".join(f'"n{at}":{spelling}' for at, spelling in enumerate(SPELLINGS))
    kept += r',"doc":{"b":1.10,"a":[1E5,{"b":1}]},"text":"\u00e9\ud83d\ude00","half":"\ud800","deep":' + DEEP
    table = raw_table(scratch, "key text, site bigint, n0 float8, doc jsonb", null_handling=null_handling)
    api.write_raw("d", "t", k=f'{{"site":1,{kept}}}', other='{"site":5}')
    assert session.execute(f"UPDATE {table} SET site = 2 WHERE key = 'k'").rowcount == 1
    assert f'"columns":{{"site":2,{kept}}}' in api.read_raw("d", "t", "k")
    # Many rows are read by the page.
    api.write_raw("d", "t", **{f"k{at}": f'{{"site":1,{kept}}}' for at in range(60)})
    assert session.execute(f"UPDATE {table} SET site = 7 WHERE key LIKE 'k_%'").rowcount == 60
    assert f'"columns":{{"site":7,{kept}}}' in api.read_raw("d", "t", "k59")


def test_conflicts_leave_alone_what_they_do_not_set(session, api, scratch):
    table = raw_table(scratch, "key text, site bigint, n text")
    api.write_raw("d", "t", k='{"n":89314404000123456789,"site":1}')
    session.execute(f"INSERT INTO {table} VALUES ('k', 2, 'x') ON CONFLICT (key) DO UPDATE SET site = EXCLUDED.site")
    assert '"columns":{"n":89314404000123456789,"site":2}' in api.read_raw("d", "t", "k")


def test_numbers_are_read_with_all_digits(session, api, scratch):
    columns = ",".join(f"n{at} numeric" for at in range(len(SPELLINGS)))
    table = raw_table(scratch, f"key text, {columns}")
    api.write_raw("d", "t", k="{" + ",".join(f'"n{at}":{s}' for at, s in enumerate(SPELLINGS)) + "}")
    row = session.execute(f"SELECT * FROM {table}").fetchone()
    wanted = [session.execute("SELECT %s::text::numeric", (spelling,)).fetchone()[0] for spelling in SPELLINGS]
    assert [str(value) for value in row[1:]] == [str(value) for value in wanted]
    assert str(row[3]) == "1.10" and row[1] == Decimal("89314404000123456789")


def test_numbers_of_every_type(session, api, scratch):
    table = raw_table(
        scratch,
        "key text, big bigint, whole int, small smallint, f float8, r real, t text, j jsonb, js json, a numeric[], i int[]",
    )
    api.write_raw(
        "d",
        "t",
        k='{"big":9223372036854775807,"whole":3.0,"small":1e3,"f":0.1234567890123456789,"r":16777217.0,"t":1.10,'
        '"j":{"a":1.10,"b":[89314404000123456789,1e400]},"js":1.10,"a":[1.10,89314404000123456789,null],"i":[1.0,2e1]}',
    )
    row = session.execute(f"SELECT big, whole, small, f, r, t, j::text, js::text, a::text, i FROM {table}").fetchone()
    assert row[:6] == (9223372036854775807, 3, 1000, 0.1234567890123456789, 16777216.0, "1.10")
    zeros = "0" * 400
    assert row[6] == f'{{"a": 1.10, "b": [89314404000123456789, 1{zeros}]}}'
    assert row[7:] == ("1.10", "{1.10,89314404000123456789,NULL}", [1, 20])


def test_own_rows_keep_digits_and_order(session, api, scratch):
    table = raw_table(scratch, "key text, n numeric, j json, site bigint")
    api.write_raw("d", "t", k='{"j":{"z":1.10,"a":2},"n":89314404000123456789,"site":1}')
    with session.transaction():
        session.execute(f"UPDATE {table} SET site = 2 WHERE key = 'k'")
        session.execute(f"INSERT INTO {table} VALUES ('new', 0.10, '{{\"b\": 1.10, \"a\": 1e400}}', 3)")
        rows = session.execute(f"SELECT key, n::text, j::text, site FROM {table} ORDER BY key").fetchall()
    assert rows[0] == ("k", "89314404000123456789", '{"z":1.10,"a":2}', 2)
    assert rows[1][:2] == ("new", "0.10") and json.loads(rows[1][2], parse_float=str)["b"] == "1.10"
    assert '"columns":{"j":{"z":1.10,"a":2},"n":89314404000123456789,"site":2}' in api.read_raw("d", "t", "k")


def test_the_generic_table_reads_all_digits(session, api):
    api.write_raw("d", "t", k='{"n":89314404000123456789,"f":1.10,"e":1e400}')
    row = session.execute("SELECT columns->>'n', columns->>'f', columns->>'e' FROM raw_rows").fetchone()
    assert row == ("89314404000123456789", "1.10", "1" + "0" * 400)


def test_geo_locations_keep_digits(session, cdf, api):
    point = '{"type": "Feature", "geometry": {"type": "Point", "coordinates": [10.12345678901234567890, 59.10]}}'
    session.execute("INSERT INTO assets (external_id, name, geo_location) VALUES ('a', 'a', %s)", (point,))
    [entry] = requests(cdf, "/assets")
    # What the emulator's dump prints went through Python's floats.
    assert entry["decoded_bytes"] == len('{"items":[{"externalId":"a","name":"a","geoLocation":}]}') + len(point) - 7
    row = session.execute("SELECT geo_location #>> '{geometry,coordinates}' FROM assets").fetchone()
    assert row == ("[10.12345678901234567890, 59.10]",)
    session.execute("UPDATE assets SET description = 'x' WHERE external_id = 'a'")
    row = session.execute("SELECT geo_location #>> '{geometry,coordinates}', description FROM assets").fetchone()
    assert row == ("[10.12345678901234567890, 59.10]", "x")


def test_view_documents_keep_digits(session, cdf, api, scratch):
    create_view(api, "Pump", {"info": "json", "level": "float64", "levels": ["float64"]})
    table = scratch.table(
        "pumps",
        "space text, external_id text, info jsonb, level numeric, levels jsonb",
        "view",
        space="sp",
        external_id="Pump",
        version="v1",
    )
    session.execute(
        f"INSERT INTO {table} VALUES ('sp', 'p', '{{\"a\": 89314404000123456789, \"b\": 1.10}}',"
        " 0.12345678901234567890, '[0.12345678901234567890, 1.10]')"
    )
    row = session.execute(f"SELECT info::text, level::text, levels::text FROM {table}").fetchone()
    assert row == (
        '{"a": 89314404000123456789, "b": 1.10}',
        "0.12345678901234567890",
        "[0.12345678901234567890, 1.10]",
    )


# ---- depth ----


def nested(levels: int) -> str:
    return "[" * levels + "1" + "]" * levels


def test_deep_documents_are_read(session, api, scratch):
    table = raw_table(scratch, "key text, n bigint, j jsonb, t text")
    api.write_raw("d", "t", a=f'{{"n":1,"j":{nested(1000)},"t":{nested(1000)}}}', b='{"n":2}')
    rows = session.execute(f"SELECT key, n, j::text, t FROM {table} ORDER BY key").fetchall()
    assert rows == [("a", 1, nested(1000), nested(1000)), ("b", 2, None, None)]
    assert session.execute("SELECT length((columns->'j')::text) FROM raw_rows WHERE key = 'a'").fetchone() == (2001,)
    assert session.execute(f"DELETE FROM {table} WHERE n = 1").rowcount == 1


def test_the_depth_of_what_is_written_has_a_limit(session, cdf, api, scratch):
    table = raw_table(scratch, "key text, j jsonb")
    deep, deeper = nested(100), nested(101)
    session.execute(f"INSERT INTO {table} VALUES ('a', %s)", (deep,))
    assert session.execute(f"SELECT j::text FROM {table}").fetchone() == (deep,)
    with session.transaction(force_rollback=True):
        with refused("22023", '"j"', "101", "100"), session.transaction():
            session.execute(f"INSERT INTO {table} VALUES ('b', %s)", (deeper,))
    before = len(requests(cdf))
    with refused("22023", '"columns"', "101", "100"):
        session.execute("INSERT INTO raw_rows VALUES ('d', 't', 'c', %s)", ('{"a":' + nested(100) + "}",))
    feature = '{"type": "Feature", "geometry": {"type": "Point", "coordinates": ' + nested(99) + "}}"
    with refused("22023", '"geo_location"', "101", "100"):
        session.execute("INSERT INTO assets (external_id, name, geo_location) VALUES ('a', 'a', %s)", (feature,))
    with refused("22003", '"columns"', "1e100"):
        session.execute("INSERT INTO sequence_rows (external_id, row_number, columns) VALUES ('s', 1, '{\"a\": 1e400}')")
    with refused("22023", '"columns"', "numbers, texts and null"):
        session.execute(
            "INSERT INTO sequence_rows (external_id, row_number, columns) VALUES ('s', 1, %s)", ('{"a":' + nested(300) + "}",)
        )
    assert len(requests(cdf)) == before


def test_the_depth_of_a_view_document(session, api, scratch):
    create_view(api, "Pump", {"info": "json"})
    table = scratch.table(
        "pumps", "space text, external_id text, info jsonb", "view", space="sp", external_id="Pump", version="v1"
    )
    session.execute(f"INSERT INTO {table} VALUES ('sp', 'a', %s)", (nested(100),))
    assert session.execute(f"SELECT info::text FROM {table}").fetchone() == (nested(100),)
    with refused("22023", '"info"', "101"):
        session.execute(f"INSERT INTO {table} VALUES ('sp', 'b', %s)", (nested(101),))


# ---- conditions ----


@pytest.mark.parametrize("document", ['{"a":1e400}', '{"a":"1","b":1e400}', f'{{"a":{nested(1000)}}}', "[1e400]"])
def test_conditions_that_cannot_be_sent(session, cdf, document):
    session.execute("INSERT INTO assets (external_id, name, metadata) VALUES ('a', 'a', '{\"a\": \"1\"}')")
    rows = session.execute("SELECT external_id FROM assets WHERE metadata @> %s::jsonb", (document,)).fetchall()
    assert rows == []
    session.execute("SELECT external_id FROM assets WHERE NOT metadata @> %s::jsonb", (document,))
    entry = requests(cdf, "/assets/list")[0]
    wanted = {"metadata": {"a": "1"}} if '"1"' in document else None
    assert entry["body"].get("filter") == wanted


def test_an_upsert_beside_a_document_that_no_double_holds(session, cdf, api):
    feature = '{"type":"Feature","geometry":{"type":"Point","coordinates":[1.5,2.5]},"properties":{"x":1e400}}'
    api.send("/assets", f'{{"items":[{{"externalId":"a","name":"a","geoLocation":{feature}}}]}}')
    session.execute("INSERT INTO assets (external_id, name, source) VALUES ('a', 'a', 's')")
    session.execute("INSERT INTO assets (external_id) VALUES ('a')")
    assert session.execute("SELECT source FROM assets").fetchall() == [("s",)]
    assert stored(cdf, "assets", "a")["source"] == "s"
