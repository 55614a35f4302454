"""Data points: values, statuses, times, reading in pages, refusals."""

import math

import pytest
from cognite.client.data_classes import DatapointsQuery, StatusCode, TimeSeriesWrite
from cognite.client.data_classes.data_modeling import NodeId
from cognite.client.exceptions import CogniteAPIError, CogniteNotFoundError

MIN, MAX = -2208988800000, 4102444799999
EVERYTHING = {"start": MIN, "end": MAX + 1}


@pytest.fixture
def series(client):
    client.time_series.create([TimeSeriesWrite(external_id="n"), TimeSeriesWrite(external_id="s", is_string=True)])
    return client.time_series


def checksum(points):
    """The admin interface's checksum, computed anew."""
    import struct

    total = 0
    for timestamp, value in points:
        bits = struct.unpack("<Q", struct.pack("<d", value))[0]
        x = ((timestamp * 0x9E3779B97F4A7C15 + bits) * 0xBF58476D1CE4E5B9) % 2**64
        total += x ^ (x >> 32)
    return f"{total % 2**64:016x}"


def test_numbers(client, series, emulator):
    points = [(MIN, -1e100), (-1, 0.1), (0, 0.0), (1, 5e-324), (2, -0.0), (MAX, 1e100)]
    client.time_series.data.insert(points, external_id="n")
    found = client.time_series.data.retrieve(external_id="n", **EVERYTHING)
    assert list(zip(found.timestamp, found.value)) == points
    state = emulator.admin("GET", "/datapoints", params={"external_id": "n"})
    assert state == {"count": 6, "received": 6, "checksum": checksum(points), "min_timestamp": MIN, "max_timestamp": MAX}


def test_strings(client, series):
    points = [(0, ""), (1, "å" * 511 + "x"), (2, "NaN"), (3, "\U0001f600")]
    client.time_series.data.insert(points, external_id="s")
    found = client.time_series.data.retrieve(external_id="s", **EVERYTHING)
    assert found.is_string and list(zip(found.timestamp, found.value)) == points


def test_the_same_timestamp_again_overwrites(client, series, emulator):
    client.time_series.data.insert([(1, 1.0), (2, 2.0)], external_id="n")
    client.time_series.data.insert([(1, 3.0)], external_id="n")
    found = client.time_series.data.retrieve(external_id="n")
    assert list(zip(found.timestamp, found.value)) == [(1, 3.0), (2, 2.0)]
    state = emulator.admin("GET", "/datapoints", params={"external_id": "n"})
    assert (state["count"], state["received"]) == (2, 3)
    assert emulator.admin("GET", "/datapoints/summary") == {
        "series": 2, "count": 2, "received": 3, "checksum": checksum([(1, 3.0), (2, 2.0)])
    }


def test_statuses(client, series):
    client.time_series.data.insert(
        [
            {"timestamp": 0, "value": 1.0},
            {"timestamp": 1, "value": 2.0, "status": {"symbol": "Uncertain"}},
            {"timestamp": 2, "value": math.nan, "status": {"code": StatusCode.Bad}},
            {"timestamp": 3, "value": None, "status": {"symbol": "BadSensorFailure"}},
            {"timestamp": 4, "value": -math.inf, "status": {"code": StatusCode.Bad, "symbol": "Bad"}},
        ],
        external_id="n",
    )
    read = client.time_series.data.retrieve
    assert read(external_id="n").timestamp == [0]
    assert read(external_id="n", treat_uncertain_as_bad=False).timestamp == [0, 1]
    found = read(external_id="n", ignore_bad_datapoints=False, include_status=True)
    assert found.timestamp == [0, 1, 2, 3, 4]
    assert found.value[:2] == [1.0, 2.0] and math.isnan(found.value[2])
    assert found.value[3:] == [None, -math.inf]
    assert found.status_code == [0, 0x40000000, 0x80000000, 0x808C0000, 0x80000000]
    assert found.status_symbol == ["Good", "Uncertain", "Bad", "BadSensorFailure", "Bad"]


def test_times_relative_to_now(client, series):
    import time

    now = int(time.time() * 1000)
    day = 86400000
    client.time_series.data.insert([(now - 3 * day, 1), (now - day, 2), (now + day, 3), (-day, 0)], external_id="n")
    read = lambda **window: client.time_series.data.retrieve(external_id="n", **window).value
    assert read(start="2d-ago") == [2]
    assert read() == [1, 2]
    assert read(start=-2 * day, end="2d-ahead") == [0, 1, 2, 3]
    raw = {"items": [{"externalId": "n", "start": "100h-ago", "end": "2d-ago"}]}
    assert client.post("/api/v1/projects/test-project/timeseries/data/list", json=raw).json()["items"][0]["datapoints"] == [
        {"timestamp": now - 3 * day, "value": 1.0}
    ]


def test_many_points_in_pages(client, series, emulator):
    points = [(i * 1000, float(i)) for i in range(250_001)]
    client.time_series.data.insert(points, external_id="n")
    found = client.time_series.data.retrieve(external_id="n", limit=None, **EVERYTHING)
    assert list(zip(found.timestamp, found.value)) == points
    inserts = [r for r in emulator.requests("/timeseries/data", method="POST") if r["path"] == "/timeseries/data"]
    assert sum(r["points"] for r in inserts) == 250_001 and max(r["points"] for r in inserts) == 100_000
    assert all(r["content_encoding"] == "gzip" and r["body_bytes"] < r["decoded_bytes"] for r in inserts)


def test_several_series_at_once(client, series):
    client.time_series.data.insert_multiple([
        {"external_id": "n", "datapoints": [(1, 1), (2, 2)]},
        {"external_id": "s", "datapoints": [(1, "x")]},
    ])
    found = client.time_series.data.retrieve(external_id=["n", "s"])
    assert [f.value for f in found] == [[1, 2], ["x"]]
    limited = client.time_series.data.retrieve(external_id=DatapointsQuery(external_id="n", limit=1))
    assert limited.value == [1]


def test_latest(client, series):
    client.time_series.data.insert([(1, 1), (2, 2), (3, 3)], external_id="n")
    latest = client.time_series.data.retrieve_latest
    assert latest(external_id="n").value == 3
    assert latest(external_id="n", before=3).value == 2
    assert latest(external_id="n", before=1).value is None
    assert latest(external_id="missing", ignore_unknown_ids=True) is None
    client.time_series.data.insert([{"timestamp": 4, "value": 4, "status": {"symbol": "Bad"}}], external_id="n")
    assert latest(external_id="n").value == 3
    assert latest(external_id="n", ignore_bad_datapoints=False).value == 4


def test_delete_ranges(client, series, emulator):
    client.time_series.data.insert([(i, i) for i in range(10)], external_id="n")
    client.time_series.data.delete_range(start=2, end=5, external_id="n")
    assert client.time_series.data.retrieve(external_id="n").timestamp == [0, 1, 5, 6, 7, 8, 9]
    client.time_series.data.delete_ranges([
        {"external_id": "n", "start": 0, "end": 1}, {"external_id": "n", "start": 8, "end": 10}
    ])
    assert client.time_series.data.retrieve(external_id="n").timestamp == [1, 5, 6, 7]
    single = {"items": [{"externalId": "n", "inclusiveBegin": 6}]}
    assert emulator.call("POST", "/timeseries/data/delete", json=single).json() == {}
    assert client.time_series.data.retrieve(external_id="n").timestamp == [1, 5, 7]
    emulator.refused("/timeseries/data/delete", {"items": [{"externalId": "n", "inclusiveBegin": 6, "exclusiveEnd": 6}]})
    error = emulator.refused("/timeseries/data/delete", {"items": [{"externalId": "x", "inclusiveBegin": 6}]})
    assert error["missing"] == [{"externalId": "x"}]


def test_deleting_a_series_deletes_its_points(client, series):
    client.time_series.data.insert([(1, 1)], external_id="n")
    client.time_series.delete(external_id="n")
    client.time_series.create(TimeSeriesWrite(external_id="n"))
    assert client.time_series.data.retrieve(external_id="n").value == []


def test_missing_series_are_listed_completely_and_nothing_is_written(client, series, emulator):
    point = [{"timestamp": 1, "value": 1}]
    body = {"items": [
        {"externalId": "n", "datapoints": point},
        {"externalId": "x", "datapoints": point},
        {"id": 5, "datapoints": point},
        {"instanceId": {"space": "s", "externalId": "y"}, "datapoints": point},
    ]}
    error = emulator.refused("/timeseries/data", body)
    assert error["missing"] == [{"externalId": "x"}, {"id": 5}, {"instanceId": {"space": "s", "externalId": "y"}}]
    assert client.time_series.data.retrieve(external_id="n").value == []
    with pytest.raises(CogniteNotFoundError) as refused:
        client.time_series.data.insert([(1, 1)], external_id="x")
    assert refused.value.missing == [{"externalId": "x"}]
    with pytest.raises(CogniteNotFoundError):
        client.time_series.data.retrieve_latest(external_id="x")


def test_a_series_twice_in_a_request(client, series, emulator):
    point = [{"timestamp": 1, "value": 1}]
    number = client.time_series.retrieve(external_id="n").id
    same = [{"externalId": "n", "datapoints": point}, {"externalId": "n", "datapoints": point}]
    assert emulator.refused("/timeseries/data", {"items": same}, 422)["duplicated"] == [{"externalId": "n"}]
    other = [{"externalId": "n", "datapoints": point}, {"id": number, "datapoints": point}]
    assert emulator.refused("/timeseries/data", {"items": other}, 422)["duplicated"] == [{"id": number}]
    with pytest.raises(CogniteAPIError) as refused:
        client.post("/api/v1/projects/test-project/timeseries/data", json={"items": same})
    assert (refused.value.code, refused.value.duplicated) == (422, [{"externalId": "n"}])


def test_types(client, series):
    with pytest.raises(CogniteAPIError) as refused:
        client.time_series.data.insert([(1, "text")], external_id="n")
    assert refused.value.message == "Expected numeric value for datapoint"
    with pytest.raises(CogniteAPIError) as refused:
        client.time_series.data.insert([(1, 1.0)], external_id="s")
    assert refused.value.message == "Expected string value for datapoint"


@pytest.mark.parametrize(
    "name, point",
    [
        ("n", {"timestamp": MIN - 1, "value": 1}),
        ("n", {"timestamp": MAX + 1, "value": 1}),
        ("n", {"timestamp": 1.5, "value": 1}),
        ("n", {"value": 1}),
        ("n", {"timestamp": 1}),
        ("n", {"timestamp": 1, "value": None}),
        ("n", {"timestamp": 1, "value": 1.01e100}),
        ("n", {"timestamp": 1, "value": "NaN"}),
        ("n", {"timestamp": 1, "value": 1, "status": {"code": 0, "symbol": "Bad"}}),
        ("n", {"timestamp": 1, "value": 1, "status": {"symbol": "Awful"}}),
        ("n", {"timestamp": 1, "value": 1, "status": {"code": 3221225472}}),
        ("n", {"timestamp": 1, "value": 1, "quality": 1}),
        ("s", {"timestamp": 1, "value": "å" * 512}),
        ("s", {"timestamp": 1, "value": 1}),
    ],
)
def test_refused_points(series, emulator, name, point):
    good = {"timestamp": 0, "value": "x" if name == "s" else 1}
    emulator.refused("/timeseries/data", {"items": [{"externalId": name, "datapoints": [good, point]}]})
    assert emulator.admin("GET", "/datapoints", params={"external_id": name})["count"] == 0


def test_request_sizes(series, emulator):
    points = [{"timestamp": i, "value": i} for i in range(50_001)]
    both = [{"externalId": "n", "datapoints": points}, {"externalId": "s", "datapoints": points}]
    assert "100000" in emulator.refused("/timeseries/data", {"items": both})["message"]
    emulator.refused("/timeseries/data", {"items": []})
    emulator.refused("/timeseries/data", {"items": [{"id": i + 1, "datapoints": []} for i in range(10_001)]})
    emulator.refused("/timeseries/data/list", {"items": [{"externalId": "n"}] * 101})
    emulator.refused("/timeseries/data/list", {"items": [{"externalId": "n", "limit": 100_001}]})


def test_cursors_belong_to_their_query(client, series, emulator):
    client.time_series.data.insert([(i, i) for i in range(10)], external_id="n")
    query = {"externalId": "n", "limit": 4, "end": 100}
    pages = []
    while True:
        page = emulator.call("POST", "/timeseries/data/list", json={"items": [query]}).json()["items"][0]
        pages.append([p["timestamp"] for p in page["datapoints"]])
        if "nextCursor" not in page:
            break
        query["cursor"] = page["nextCursor"]
    assert pages == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]
    emulator.refused("/timeseries/data/list", {"items": [{**query, "externalId": "s"}]})
    emulator.refused("/timeseries/data/list", {"items": [{**query, "cursor": "made-up"}]})


def test_outside_points(client, series):
    client.time_series.data.insert([(i, i) for i in range(10)], external_id="n")
    found = client.time_series.data.retrieve(external_id="n", start=3, end=6, include_outside_points=True)
    assert found.timestamp == [2, 3, 4, 5, 6]


def test_series_behind_instances(client, emulator):
    emulator.admin("POST", "/timeseries_instances", json={"items": [{"space": "sp", "externalId": "ts"}]})
    client.time_series.data.insert([(1, 1.5)], instance_id=NodeId("sp", "ts"))
    found = client.time_series.data.retrieve(instance_id=NodeId("sp", "ts"))
    assert found.value == [1.5] and found.instance_id == NodeId("sp", "ts")
    assert emulator.admin("GET", "/datapoints", params={"external_id": "ts"})["count"] == 1
