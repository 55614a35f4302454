"""Datapoints: series by any of their names, times and values as CDF counts them, requests within its limits."""

from __future__ import annotations

import random
from datetime import datetime, timedelta, timezone

import pytest
from support import checksum, dump, millis, names, paths, points, refused, requests, series, stored

POINT = "INSERT INTO datapoints (external_id, timestamp, value) VALUES (%s, %s, %s)"
START = datetime(2024, 1, 1, tzinfo=timezone.utc)
START_MS = millis("2024-01-01")


# ---- the series ----


def test_numeric_and_text(session, cdf, api):
    api.create("timeseries", "n")
    api.create("timeseries", "t", isString=True)
    session.execute(POINT, ("n", START, 1.25))
    session.execute("INSERT INTO string_datapoints (external_id, timestamp, value) VALUES ('t', %s, 'ü on')", (START,))
    assert points(cdf, "n") == [(START_MS, 1.25, None)]
    assert points(cdf, "t") == [(START_MS, "ü on", None)]


def test_by_id(session, cdf, api):
    [one, two] = api.create("timeseries", "one", "two")
    session.execute(
        "INSERT INTO datapoints (id, timestamp, value) VALUES (%s, %s, 1), (%s, %s, 2)", (one, START, two, START)
    )
    assert [points(cdf, name) for name in ("one", "two")] == [[(START_MS, 1.0, None)], [(START_MS, 2.0, None)]]


def test_by_instance(session, cdf):
    instances = [{"space": space, "externalId": f"x-{space}"} for space in ("a", "b")]
    cdf.admin_post("timeseries_instances", {"items": [*instances, {"space": "a", "externalId": "t", "isString": True}]})
    session.execute(
        "INSERT INTO datapoints (instance_space, instance_external_id, timestamp, value)"
        " VALUES ('a', 'x-a', %s, 1), ('b', 'x-b', %s, 2)",
        (START, START),
    )
    session.execute(
        "INSERT INTO string_datapoints (instance_space, instance_external_id, timestamp, value)"
        " VALUES ('a', 't', %s, 'x')",
        (START,),
    )
    assert points(cdf, "x-a") == [(START_MS, 1.0, None)]
    assert points(cdf, "x-b") == [(START_MS, 2.0, None)]
    assert points(cdf, "t") == [(START_MS, "x", None)]


def test_by_all_names_in_one_load(session, cdf, api):
    [by_id] = api.create("timeseries", "by-id")
    api.create("timeseries", "by-name")
    cdf.admin_post("timeseries_instances", {"items": [{"space": "s", "externalId": "by-instance"}]})
    with session.cursor().copy(
        "COPY datapoints (id, external_id, instance_space, instance_external_id, timestamp, value) FROM STDIN"
    ) as copy:
        for at in range(300):
            naming = [(by_id, None, None, None), (None, "by-name", None, None), (None, None, "s", "by-instance")][
                at % 3
            ]
            copy.write_row((*naming, START + timedelta(seconds=at), at))
    for at, name in enumerate(("by-id", "by-name", "by-instance")):
        assert points(cdf, name) == [(START_MS + 1000 * second, second, None) for second in range(at, 300, 3)]


def test_one_series_by_two_names(session, cdf, api):
    [made] = api.create("timeseries", "s")
    with session.transaction():
        for at in range(4):
            session.execute(POINT, ("s", START + timedelta(seconds=2 * at), at))
            session.execute(
                "INSERT INTO datapoints (id, timestamp, value) VALUES (%s, %s, %s)",
                (made, START + timedelta(seconds=2 * at + 1), -at),
            )
    assert [value for _, value, _ in points(cdf, "s")] == [0, 0, 1, -1, 2, -2, 3, -3]


def test_one_moment_of_one_series_by_two_names(session, cdf, api):
    [made] = api.create("timeseries", "s")
    by_name = (
        "INSERT INTO datapoints (external_id, timestamp, value) SELECT 's', %s::timestamptz + n * interval '1 s', %s"
    )
    by_id = f"INSERT INTO datapoints (id, timestamp, value) SELECT {made}, %s::timestamptz + n * interval '1 s', %s"
    hundred = " FROM generate_series(0, 99) AS n"
    with session.transaction():
        session.execute(by_name + hundred, ("2024-01-01Z", 1))
        session.execute(by_id + hundred, ("2024-01-01Z", 2))
        session.execute(by_id + hundred, ("2024-01-02Z", 1))
        session.execute(by_name + hundred, ("2024-01-02Z", 2))
    assert [value for _, value, _ in points(cdf, "s")] == [2] * 200


def test_series_and_points_of_one_transaction(session, cdf):
    with session.transaction():
        session.execute(
            "INSERT INTO datapoints (external_id, timestamp, value)"
            " SELECT 's' || n, %s, n FROM generate_series(0, 2) AS n",
            (START,),
        )
        session.execute(
            "INSERT INTO timeseries (external_id, name) SELECT 's' || n, 'S' FROM generate_series(0, 2) AS n"
        )
    assert [points(cdf, f"s{n}") for n in range(3)] == [[(START_MS, n, None)] for n in range(3)]
    assert paths(cdf) == ["/timeseries", "/timeseries/data"]


def test_a_series_that_does_not_exist_is_named(session, cdf, api):
    api.create("timeseries", "good")
    with refused("23503", '"nowhere"', "create_missing") as caught:
        session.execute(
            "INSERT INTO datapoints (external_id, timestamp, value) VALUES ('good', %s, 1), ('nowhere', %s, 1)",
            (START, START),
        )
    assert '"good"' not in caught.value.diag.message_detail.split("\n")[0]
    assert names(cdf, "timeseries") == ["good"]


@pytest.mark.parametrize(
    ("naming", "told"),
    [("id", "4711"), ("instance_space, instance_external_id", "nowhere")],
)
def test_an_id_or_instance_that_does_not_exist_is_named(session, cdf, naming, told):
    value = "4711" if naming == "id" else "'space', 'nowhere'"
    with refused("23503", told):
        session.execute(f"INSERT INTO datapoints ({naming}, timestamp, value) VALUES ({value}, now(), 1)")


@pytest.mark.parametrize(("table", "is_string"), [("datapoints", True), ("string_datapoints", False)])
def test_a_series_of_the_other_kind_is_named(session, cdf, api, table, is_string):
    api.create("timeseries", "good", isString=not is_string)
    api.create("timeseries", "other", isString=is_string)
    with refused("22023", '"other"') as caught:
        session.execute(
            f"INSERT INTO {table} (external_id, timestamp, value) VALUES ('good', now(), '1'), ('other', now(), '1')"
        )
    assert '"good"' not in caught.value.diag.message_detail.split("\n")[0]


# ---- create_missing ----


@pytest.mark.parametrize(
    ("resource", "value", "is_string"), [("datapoints", "1.5", False), ("string_datapoints", "x", True)]
)
def test_create_missing(session, cdf, api, scratch, resource, value, is_string):
    api.create("timeseries", "old", isString=is_string)
    kind = "text" if is_string else "float8"
    table = scratch.table(
        "creating", f'external_id text, "timestamp" timestamptz, value {kind}', resource, create_missing="true"
    )
    session.execute(
        f"INSERT INTO {table} SELECT t, %s, %s FROM unnest(ARRAY['old', 'new', 'new2']) AS t", (START, value)
    )
    assert names(cdf, "timeseries") == ["new", "new2", "old"]
    new = stored(cdf, "timeseries", "new")
    assert (new["name"], new["isString"]) == ("new", is_string)
    wanted = value if is_string else float(value)
    assert [points(cdf, name)[0][1] for name in ("old", "new", "new2")] == [wanted] * 3


def test_create_missing_of_many_series_over_several_requests(session, cdf, scratch):
    table = scratch.table(
        "creating", 'external_id text, "timestamp" timestamptz, value float8', "datapoints", create_missing="true"
    )
    # Each series in more than one request, which find it missing at the same time.
    with session.cursor().copy(f"COPY {table} FROM STDIN") as copy:
        for at in range(250_000):
            copy.write_row((f"s{at % 2500}", START + timedelta(seconds=at // 2500), at))
    assert len(names(cdf, "timeseries")) == 2500
    total = cdf.admin_get("datapoints/summary")
    assert (total["series"], total["count"]) == (2500, 250_000)
    assert all(entry["items"] <= 1000 for entry in requests(cdf, "/timeseries"))


def test_create_missing_does_not_create_by_id(session, cdf, scratch):
    table = scratch.table(
        "creating",
        'id int8, external_id text, "timestamp" timestamptz, value float8',
        "datapoints",
        create_missing="true",
    )
    with refused("23503", "4711"):
        session.execute(f"INSERT INTO {table} VALUES (4711, NULL, now(), 1)")
    assert dump(cdf, "timeseries") == []


def test_create_missing_beside_a_series_written_in_the_transaction(session, cdf, scratch):
    table = scratch.table(
        "creating", 'external_id text, "timestamp" timestamptz, value float8', "datapoints", create_missing="true"
    )
    with session.transaction():
        session.execute(f"INSERT INTO {table} VALUES ('a', %s, 1), ('b', %s, 2)", (START, START))
        session.execute("INSERT INTO timeseries (external_id, name, unit) VALUES ('a', 'A', 'bar')")
    assert [stored(cdf, "timeseries", key)["name"] for key in "ab"] == ["A", "b"]


# ---- times ----


@pytest.mark.parametrize(
    ("moment", "found"),
    [
        ("2024-01-01 00:00:00.0009Z", START_MS),
        ("2024-01-01 00:00:00.001Z", START_MS + 1),
        ("2024-01-01 00:00:00.999999Z", START_MS + 999),
        ("1969-12-31 23:59:59.9995Z", -1),
        ("1969-12-31 23:59:59.998001Z", -2),
        ("2024-01-01 05:00:00+05", START_MS),
    ],
)
def test_times_are_cut_to_milliseconds(session, cdf, api, moment, found):
    api.create("timeseries", "s")
    session.execute(POINT, ("s", moment, 1))
    assert points(cdf, "s") == [(found, 1.0, None)]


def test_times_in_any_order(session, cdf, api):
    api.create("timeseries", "a", "b")
    rows = [(name, second) for name in "ab" for second in range(2000)]
    random.Random(5).shuffle(rows)
    with session.cursor().copy("COPY datapoints (external_id, timestamp, value) FROM STDIN") as copy:
        for name, second in rows:
            copy.write_row((name, START + timedelta(seconds=second), second))
    wanted = checksum([START_MS + 1000 * second for second in range(2000)], [float(second) for second in range(2000)])
    for name in "ab":
        found = series(cdf, name)
        assert (found["count"], found["received"], found["checksum"]) == (2000, 2000, wanted)


def test_the_last_value_of_a_moment_wins_within_a_statement(session, cdf, api):
    api.create("timeseries", "s")
    session.execute(
        "INSERT INTO datapoints (external_id, timestamp, value, status_symbol) VALUES"
        " ('s', %(t)s, 1, 'Bad'), ('s', %(u)s, 9, NULL), ('s', %(t)s, 2, 'Uncertain'), ('s', %(t)s, 3, NULL)",
        {"t": START, "u": START - timedelta(hours=1)},
    )
    assert points(cdf, "s") == [(START_MS - 3_600_000, 9.0, None), (START_MS, 3.0, None)]
    assert series(cdf, "s")["received"] == 2


def test_moments_that_are_the_same_millisecond_are_the_same(session, cdf, api):
    api.create("timeseries", "s")
    session.execute(
        "INSERT INTO datapoints (external_id, timestamp, value)"
        " SELECT 's', timestamptz '2024-01-01Z' + n * interval '1 us', n FROM generate_series(0, 2999) AS n"
    )
    assert points(cdf, "s") == [(START_MS, 999.0, None), (START_MS + 1, 1999.0, None), (START_MS + 2, 2999.0, None)]


def test_the_last_value_of_a_moment_wins_across_statements_and_savepoints(session, cdf, api):
    api.create("timeseries", "s", "t")
    with session.transaction():
        session.execute(POINT, ("s", START, 1))
        session.execute(POINT, ("t", START, 1))
        session.execute("SAVEPOINT kept")
        session.execute(POINT, ("s", START, 2))
        session.execute("RELEASE kept")
        session.execute("SAVEPOINT undone")
        session.execute(POINT, ("s", START, 3))
        session.execute(POINT, ("t", START, 3))
        session.execute("ROLLBACK TO undone")
        session.execute("SAVEPOINT last")
        session.execute(POINT, ("t", START, 4))
    assert points(cdf, "s") == [(START_MS, 2.0, None)]
    assert points(cdf, "t") == [(START_MS, 4.0, None)]


@pytest.mark.parametrize("memory", ["1MB", "64MB"])
def test_the_last_value_of_a_moment_wins_across_requests(gateway, cdf, api, memory):
    names_ = [f"s{at}" for at in range(20)]
    api.create("timeseries", *names_)
    rows = 150_000
    with gateway.connect() as connection:
        connection.execute(f"SET cdf_fdw.buffer_memory = '{memory}'")
        for version in (1, 2):
            with connection.cursor().copy("COPY datapoints (external_id, timestamp, value) FROM STDIN") as copy:
                for at in range(rows):
                    if version == 1 or at % 3 == 0:
                        copy.write_row((f"s{at % 20}", START + timedelta(seconds=at // 20), version * 1_000_000 + at))
    for at, name in enumerate(names_):
        of_series = range(at, rows, 20)
        wanted = checksum(
            [START_MS + 1000 * (n // 20) for n in of_series],
            [float((2 if n % 3 == 0 else 1) * 1_000_000 + n) for n in of_series],
        )
        found = series(cdf, name)
        assert (found["count"], found["checksum"]) == (len(of_series), wanted), name


def test_a_point_again_in_another_transaction_replaces_it(session, cdf, api):
    api.create("timeseries", "s")
    session.execute(
        "INSERT INTO datapoints (external_id, timestamp, value, status_symbol) VALUES ('s', %s, 1, 'Bad')", (START,)
    )
    session.execute(POINT, ("s", START, 2))
    assert points(cdf, "s") == [(START_MS, 2.0, None)]


# ---- requests ----


@pytest.mark.parametrize("count", [100_000, 100_001, 250_000])
def test_points_per_request(session, cdf, api, count):
    api.create("timeseries", "s")
    session.execute(
        "INSERT INTO datapoints (external_id, timestamp, value)"
        " SELECT 's', timestamptz '2024-01-01Z' + n * interval '1 s', n FROM generate_series(0, %s::int) AS n",
        (count - 1,),
    )
    entries = requests(cdf, "/timeseries/data")
    assert sum(entry["points"] for entry in entries) == count
    assert max(entry["points"] for entry in entries) <= 100_000
    assert len(entries) == -(-count // 100_000)
    assert series(cdf, "s")["checksum"] == checksum(
        [START_MS + 1000 * n for n in range(count)], [float(n) for n in range(count)]
    )


def test_series_per_request(session, cdf, scratch):
    table = scratch.table(
        "creating", 'external_id text, "timestamp" timestamptz, value float8', "datapoints", create_missing="true"
    )
    session.execute(f"INSERT INTO {table} SELECT 's' || n, '2024-01-01Z', n FROM generate_series(1, 10050) AS n")
    accepted = [entry for entry in requests(cdf, "/timeseries/data") if entry["status"] == 200]
    assert sorted(entry["items"] for entry in accepted) == [50, 10_000]
    assert cdf.admin_get("datapoints/summary")["count"] == 10_050


def test_requests_are_protobuf_and_large_ones_compressed(session, cdf, api):
    api.create("timeseries", "s")
    session.execute(POINT, ("s", START, 1))
    session.execute(
        "INSERT INTO datapoints (external_id, timestamp, value)"
        " SELECT 's', timestamptz '2024-01-01Z' + n * interval '1 s', n FROM generate_series(1, 50000) AS n"
    )
    small, large = requests(cdf, "/timeseries/data")
    assert {small["content_type"], large["content_type"]} == {"application/protobuf"}
    assert (small["content_encoding"], large["content_encoding"]) == ("", "gzip")
    assert large["body_bytes"] < large["decoded_bytes"] / 2


def test_large_json_is_compressed_too(session, cdf):
    session.execute(
        "INSERT INTO events (external_id, type) SELECT 'e' || n, 'alarm' FROM generate_series(1, 1000) AS n"
    )
    [entry] = requests(cdf, "/events")
    assert entry["content_encoding"] == "gzip" and entry["body_bytes"] < entry["decoded_bytes"] / 2


def test_long_texts_do_not_make_requests_of_any_size(session, cdf, api):
    api.create("timeseries", "t", isString=True)
    session.execute(
        "INSERT INTO string_datapoints (external_id, timestamp, value)"
        " SELECT 't', timestamptz '2024-01-01Z' + n * interval '1 s', repeat('x', 1000) || n"
        " FROM generate_series(1, 20000) AS n"
    )
    assert series(cdf, "t")["count"] == 20_000
    assert max(entry["decoded_bytes"] for entry in requests(cdf, "/timeseries/data")) < 10_000_000


# ---- tables declared by hand ----


def test_without_time_zone_is_utc(session, cdf, api, scratch):
    api.create("timeseries", "s")
    table = scratch.table("utc", 'external_id text, "timestamp" timestamp, value float8', "datapoints")
    session.execute("SET TimeZone = 'America/New_York'")
    session.execute(f"INSERT INTO {table} VALUES ('s', '2024-01-01 00:00:00', 1)")
    with session.cursor().copy(f"COPY {table} FROM STDIN") as copy:
        copy.write_row(("s", "2024-01-01 00:00:01", 2))
    with session.cursor().copy(f"COPY {table} FROM STDIN (FORMAT binary)") as copy:
        copy.set_types(["text", "timestamp", "float8"])
        copy.write_row(("s", datetime(2024, 1, 1, 0, 0, 2), 3.0))
    assert points(cdf, "s") == [(START_MS, 1.0, None), (START_MS + 1000, 2.0, None), (START_MS + 2000, 3.0, None)]


def test_numbers_as_text_of_a_text_series(session, cdf, api, scratch):
    api.create("timeseries", "t", isString=True)
    table = scratch.table("codes", 'external_id text, "timestamp" timestamptz, value numeric', "string_datapoints")
    session.execute(f"INSERT INTO {table} VALUES ('t', %s, 1.50)", (START,))
    assert points(cdf, "t") == [(START_MS, "1.50", None)]


@pytest.mark.parametrize("missing", ["timestamp", "value"])
def test_a_table_without_what_a_point_needs(session, cdf, scratch, missing):
    definition = {"external_id": "text", "timestamp": "timestamptz", "value": "float8"}
    del definition[missing]
    table = scratch.table("partial", ", ".join(f'"{name}" {kind}' for name, kind in definition.items()), "datapoints")
    with refused("HV00J", missing):
        session.execute(f"INSERT INTO {table} (external_id) VALUES ('s')")
    assert requests(cdf) == []


def test_either_of_a_status_code_and_its_symbol_may_be_updated(session, cdf):
    session.execute("INSERT INTO timeseries (external_id) VALUES ('t')")
    session.execute("INSERT INTO datapoints (external_id, timestamp, value, status_symbol) VALUES ('t', to_timestamp(1), 1, 'Bad')")
    update = "UPDATE datapoints SET {} WHERE external_id = 't'"
    for change, code in [("status_code = 1073741824", 1073741824), ("status_symbol = 'Bad'", 2147483648), ("status_code = NULL", None)]:
        assert session.execute(update.format(change)).rowcount == 1
        assert points(cdf, "t") == [(1000, 1.0, code)]
    with refused("22023", "does not match"):
        session.execute(update.format("status_code = 1073741824, status_symbol = 'Bad'"))
