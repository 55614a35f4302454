"""What CDF's description refuses is refused at the row, or asked for in another way; the emulator checks requests against it."""

from __future__ import annotations

import json

import pytest
from support import refused, requests

RING = [[0, 0], [1, 0], [1, 1], [0, 0]]


def feature(kind, coordinates, **more):
    return json.dumps({"type": "Feature", "geometry": {"type": kind, "coordinates": coordinates}, **more})


@pytest.mark.parametrize(
    ("document", "why"),
    [
        (feature("Point", [1, 2, 3]), "two numbers"),
        (feature("Point", ["1", "2"]), "two numbers"),
        (feature("LineString", [[1, 2]]), "CDF needs 2"),
        (feature("Polygon", [RING[:3]]), "CDF needs 4"),
        (feature("Polygon", [[*RING[:3], [0, 1]]]), "does not end where it begins"),
        (feature("MultiPolygon", [RING]), "CDF needs 4"),
        (feature("MultiPoint", [1, 2]), "arrays of pairs of numbers"),
        (feature("GeometryCollection", []), "MultiPolygon"),
        (feature("Point", [1, 2], bbox=[1, 2, 1, 2]), "bbox"),
        (feature("Point", [1, 2], properties=[1]), "properties"),
    ],
)
def test_geometries_that_cdf_does_not_take(session, cdf, document, why):
    before = len(requests(cdf))
    with refused("22023", '"geo_location"', why):
        session.execute("INSERT INTO assets (external_id, name, geo_location) VALUES ('a', 'A', %s)", (document,))
    assert len(requests(cdf)) == before


@pytest.mark.parametrize(
    ("kind", "coordinates"),
    [
        ("Point", [1.5, -2]),
        ("MultiPoint", [[1, 2]]),
        ("LineString", [[1, 2], [3, 4]]),
        ("MultiLineString", [[[1, 2], [3, 4]]]),
        ("Polygon", [RING]),
        ("MultiPolygon", [[RING], [RING, RING]]),
    ],
)
def test_geometries_that_cdf_takes(session, cdf, kind, coordinates):
    document = feature(kind, coordinates, properties={"any": {"thing": [1]}})
    session.execute("INSERT INTO assets (external_id, name, geo_location) VALUES ('a', 'A', %s)", (document,))
    assert session.execute("SELECT geo_location FROM assets").fetchone() == (json.loads(document),)


def test_columns_of_texts(session, cdf):
    columns = lambda texts: json.dumps([{"externalId": f"c{at}", "valueType": "string"} for at in range(texts)] + [{"externalId": "n"}])
    session.execute("INSERT INTO sequences (external_id, columns) VALUES ('a', %s)", (columns(200),))
    before = len(requests(cdf))
    with refused("22001", '"columns"', "201", "200"):
        session.execute("INSERT INTO sequences (external_id, columns) VALUES ('b', %s)", (columns(201),))
    assert len(requests(cdf)) == before


@pytest.mark.parametrize("table", ["assets", "timeseries", "data_sets", "files", "sequences"])
def test_metadata_in_conditions_may_be_longer_than_in_cdf(session, cdf, table):
    more = {"assets": ", name", "files": ", name", "sequences": ", columns"}.get(table, "")
    value = {"sequences": ", '[{\"externalId\": \"c\"}]'"}.get(table, ", 'a'" if more else "")
    session.execute(f"INSERT INTO {table} (external_id, metadata{more}) VALUES ('a', '{{\"k\": \"v\"}}'{value})")
    long, pairs = "x" * 10_241, json.dumps({f"k{at}": "v" for at in range(300)})
    count = lambda condition, value: session.execute(f"SELECT count(*) FROM {table} WHERE {condition}", (value,)).fetchone()[0]
    assert count("metadata ->> 'k' = %s", "v") == 1
    assert count("metadata ->> 'k' = %s", long) == 0
    assert count("metadata @> %s::jsonb", pairs) == 0
    assert count("metadata @> %s::jsonb", json.dumps({"a": long[:6000], "b": long[:6000]})) == 0
    assert count("metadata @> %s::jsonb", json.dumps({"x" * 129: "v"})) == 0
