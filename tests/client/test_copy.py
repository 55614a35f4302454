"""COPY FROM in its formats, and large loads: every row arrives, once."""

from __future__ import annotations

import random
import re
from datetime import datetime, timedelta, timezone
from pathlib import Path

import psycopg
import pytest
from psycopg.types.json import Jsonb
from support import Api, checksum, columns, dump, millis, names, refused, requests, series, stored

START = datetime(2024, 1, 1, tzinfo=timezone.utc)
START_MS = millis("2024-01-01")
EVENT_TYPES = ["text", "timestamptz", "text", "jsonb", "int8[]"]
EVENT_COLUMNS = "external_id, start_time, description, metadata, asset_ids"


def copy_text(connection, statement: str, text: str) -> None:
    """Sends a text as it is, as a tool does that makes the file itself."""
    with connection.cursor().copy(statement) as copy:
        copy.write(text)


# ---- formats ----


def expected_events(assets: list[int]) -> dict[str, tuple]:
    return {
        "a": (START_MS + 500, 'tab\there, quote " and \\', {"k": "v"}, assets),
        "b": (None, None, None, None),
        "ü": (START_MS, "", {}, []),
    }


def found_events(cdf) -> dict[str, tuple]:
    return {
        event["externalId"]: tuple(event.get(key) for key in ("startTime", "description", "metadata", "assetIds"))
        for event in dump(cdf, "events")
    }


def test_text(session, cdf):
    assets = Api(cdf).create("assets", "p", "q")
    copy_text(
        session,
        f"COPY events ({EVENT_COLUMNS}) FROM STDIN",
        f'a\t2024-01-01 00:00:00.5+00\ttab\\there, quote " and \\\\\t{{"k": "v"}}\t{{{assets[0]},{assets[1]}}}\n'
        "b\t\\N\t\\N\t\\N\t\\N\n"
        "ü\t2024-01-01 00:00:00\t\t{}\t{}\n",
    )
    assert found_events(cdf) == expected_events(assets)


def test_csv(session, cdf):
    assets = Api(cdf).create("assets", "p", "q")
    copy_text(
        session,
        f"COPY events ({EVENT_COLUMNS}) FROM STDIN (FORMAT csv, HEADER, DELIMITER ';', NULL 'NULL')",
        "these;names;do;not;count\n"
        f'a;2024-01-01T00:00:00.5Z;"tab\there, quote "" and \\";"{{""k"": ""v""}}";"{{{assets[0]},{assets[1]}}}"\n'
        "b;NULL;NULL;NULL;NULL\n"
        "ü;2024-01-01 00:00;;{};{}\n",
    )
    assert found_events(cdf) == expected_events(assets)


def test_binary(session, cdf):
    assets = Api(cdf).create("assets", "p", "q")
    with session.cursor().copy(f"COPY events ({EVENT_COLUMNS}) FROM STDIN (FORMAT binary)") as copy:
        copy.set_types(EVENT_TYPES)
        copy.write_row(
            ("a", START + timedelta(milliseconds=500), 'tab\there, quote " and \\', Jsonb({"k": "v"}), assets)
        )
        copy.write_row(("b", None, None, None, None))
        copy.write_row(("ü", START, "", Jsonb({}), []))
    assert found_events(cdf) == expected_events(assets)


def test_all_columns_in_the_order_of_the_table(session, cdf):
    with session.cursor().copy("COPY raw_rows FROM STDIN") as copy:
        copy.write_row(("d", "t", "k", '{"x": 1.50}', None))
    assert columns(cdf, "k") == {"x": 1.5}


def test_columns_in_another_order(session, cdf):
    copy_text(session, "COPY raw_rows (key, columns, table_name, db_name) FROM STDIN (FORMAT csv)", 'k,"{}",t,d\n')
    row = stored(cdf, "raw", "k")
    assert (row["database"], row["table"], row["columns"]) == ("d", "t", {})


def test_copy_where(session, cdf):
    copy_text(session, "COPY events (external_id, type) FROM STDIN WHERE type <> 'skip'", "a\tx\nb\tskip\nc\ty\n")
    assert names(cdf, "events") == ["a", "c"]


def test_status_counts_the_rows(session, cdf):
    cursor = session.cursor()
    with cursor.copy("COPY events (external_id) FROM STDIN") as copy:
        for at in range(7):
            copy.write_row((f"e{at}",))
    assert cursor.statusmessage == "COPY 7"


def test_an_empty_copy_makes_no_request(session, cdf):
    copy_text(session, "COPY events (external_id) FROM STDIN", "")
    assert requests(cdf) == []


def test_psql_copy_from_a_file(cluster, gateway, cdf, tmp_path):
    source = tmp_path / "events.csv"
    source.write_text('external_id,start_time,metadata\na,2024-01-01 00:00:00,"{""k"": 1}"\nb,,\n')
    cluster.psql(f"\\copy events (external_id, start_time, metadata) from '{source}' csv header\n", dsn=gateway.dsn)
    assert stored(cdf, "events", "a")["metadata"] == {"k": "1"}
    assert stored(cdf, "events", "a")["startTime"] == START_MS
    assert names(cdf, "events") == ["a", "b"]


def test_psql_copy_binary_out_of_one_table_into_another(cluster, gateway, cdf, tmp_path):
    file = tmp_path / "rows.bin"
    cluster.psql(
        "CREATE TEMP TABLE source AS SELECT 'e' || n AS external_id, 'x'::text AS type FROM generate_series(1, 50) n;\n"
        f"\\copy source to '{file}' (format binary)\n"
        f"\\copy events (external_id, type) from '{file}' (format binary)\n",
        dsn=gateway.dsn,
    )
    assert len(names(cdf, "events")) == 50


# ---- encodings ----


def test_a_client_of_another_encoding(session, cdf):
    session.execute("SET client_encoding = 'LATIN1'")
    with session.cursor().copy("COPY events (external_id, metadata) FROM STDIN") as copy:
        copy.write('æ\t{"ø": "å"}\n'.encode("latin1"))
    assert stored(cdf, "events", "æ")["metadata"] == {"ø": "å"}


def test_a_database_of_another_encoding(cluster, cdf):
    with cluster.connect() as superuser:
        superuser.execute("CREATE DATABASE latin ENCODING 'LATIN1' LOCALE 'C' TEMPLATE template0")
        try:
            with psycopg.connect(cluster.dsn("latin"), autocommit=True) as connection:
                connection.execute("CREATE EXTENSION cdf_fdw")
                options = {"project": cdf.project, "client_id": cdf.client_id, "client_secret": cdf.client_secret}
                options |= {"token_url": cdf.token_url, "scope": cdf.scope}
                listed = ", ".join(f"{name} '{value}'" for name, value in options.items())
                connection.execute(f"CREATE SERVER cdf FOREIGN DATA WRAPPER cdf_fdw OPTIONS (base_url '{cdf.url}')")
                connection.execute(f"CREATE USER MAPPING FOR CURRENT_USER SERVER cdf OPTIONS ({listed})")
                connection.execute("IMPORT FOREIGN SCHEMA cdf FROM SERVER cdf INTO public")
                connection.execute(
                    'CREATE FOREIGN TABLE typed (key text, "größe" text, list text[], doc jsonb, kind varchar)'
                    " SERVER cdf OPTIONS (resource 'raw_rows', database 'dø', \"table\" 't')"
                )
                copy_text(connection, "COPY events (external_id, type, metadata) FROM STDIN", 'æ\tü\t{"ø": "å"}\n')
                connection.execute("INSERT INTO events (external_id, type) VALUES ('limit', repeat('ü', 64))")
                with refused("22001", "64", "65"):
                    connection.execute("INSERT INTO events (external_id, type) VALUES ('limit', repeat('ü', 65))")
                connection.execute("INSERT INTO typed VALUES ('k', 'groß', '{ä,ö}', '{\"ü\": \"ß\"}', 'é')")
        finally:
            superuser.execute("DROP DATABASE latin WITH (FORCE)")
    event = stored(cdf, "events", "æ")
    assert (event["type"], event["metadata"]) == ("ü", {"ø": "å"})
    assert stored(cdf, "events", "limit")["type"] == "ü" * 64
    row = stored(cdf, "raw", "k")
    assert row["database"] == "dø"
    assert row["columns"] == {"größe": "groß", "list": ["ä", "ö"], "doc": {"ü": "ß"}, "kind": "é"}


# ---- what goes wrong on the way ----


def test_a_line_that_postgresql_refuses_sends_nothing(session, cdf):
    with refused("22007"):
        copy_text(session, "COPY events (external_id, start_time) FROM STDIN", "a\t2024-01-01\nb\tyesterday-ish\n")
    assert requests(cdf) == []
    copy_text(session, "COPY events (external_id) FROM STDIN", "c\n")
    assert names(cdf, "events") == ["c"]


def test_a_value_that_cdf_does_not_take_names_its_line(session, cdf):
    lines = "".join(f"e{at}\t{'x' * at}\n" for at in range(60, 70))
    with refused("22001", "type", "64") as caught:
        copy_text(session, "COPY events (external_id, type) FROM STDIN", lines)
    assert "line 6" in caught.value.diag.context
    assert requests(cdf) == []


def test_a_client_that_gives_up_sends_nothing(session, cdf):
    with pytest.raises(ZeroDivisionError), session.cursor().copy("COPY events (external_id) FROM STDIN") as copy:
        for at in range(2500):
            copy.write_row((f"e{at}",))
        raise ZeroDivisionError
    assert requests(cdf) == []
    copy_text(session, "COPY events (external_id) FROM STDIN", "c\n")
    assert names(cdf, "events") == ["c"]


def test_several_copies_and_inserts_of_one_transaction_share_requests(session, cdf):
    with session.transaction():
        for part in range(4):
            copy_text(session, "COPY events (external_id) FROM STDIN", f"c{part}\n")
            session.execute("INSERT INTO events (external_id) VALUES (%s)", (f"i{part}",))
    assert len(names(cdf, "events")) == 8
    assert len(requests(cdf, "/events")) == 1


# ---- many rows ----


def test_100_000_events(session, cdf):
    with session.cursor().copy("COPY events (external_id, start_time, type) FROM STDIN (FORMAT binary)") as copy:
        copy.set_types(["text", "timestamptz", "text"])
        for at in range(100_000):
            copy.write_row((f"event-{at}", START + timedelta(seconds=at), "load"))
    entries = requests(cdf, "/events")
    assert len(entries) == 100
    assert all(entry["items"] == 1000 and entry["status"] == 201 for entry in entries)
    found = {event["externalId"]: event["startTime"] for event in dump(cdf, "events")}
    assert found == {f"event-{at}": START_MS + 1000 * at for at in range(100_000)}


def test_100_000_raw_rows(session, cdf):
    with session.cursor().copy("COPY raw_rows (db_name, table_name, key, columns) FROM STDIN") as copy:
        for at in range(100_000):
            copy.write_row(("plant", f"t{at % 2}", f"key-{at}", f'{{"at": {at}}}'))
    entries = requests(cdf)
    assert {entry["path"].split("?")[0] for entry in entries} == {
        "/raw/dbs/plant/tables/t0/rows",
        "/raw/dbs/plant/tables/t1/rows",
    }
    assert all(entry["items"] <= 10_000 and entry["status"] == 200 for entry in entries)
    assert sum(entry["items"] for entry in entries) == 100_000
    found = {(row["table"], row["key"]): row["columns"] for row in dump(cdf, "raw")}
    assert found == {(f"t{at % 2}", f"key-{at}"): {"at": at} for at in range(100_000)}


def make_series(cdf, count: int) -> list[str]:
    external_ids = [f"s{at}" for at in range(count)]
    api = Api(cdf)
    for start in range(0, count, 1000):
        api.create("timeseries", *external_ids[start : start + 1000])
    return external_ids


def assert_requests_within_limits(cdf, rows: int) -> None:
    entries = requests(cdf, "/timeseries/data")
    assert sum(entry["points"] for entry in entries) == rows
    for entry in entries:
        assert entry["status"] == 200
        assert entry["points"] <= 100_000 and entry["items"] <= 10_000
        assert entry["content_type"] == "application/protobuf"
        if entry["decoded_bytes"] > 10_000:
            # What is near is compressed only before that is known.
            compressed = entry["content_encoding"] == "gzip"
            assert compressed == (entry["body_bytes"] < entry["decoded_bytes"])


def load_points(connection, rows: int, series_count: int) -> None:
    """Row n is point n / series_count of series n % series_count, made by the server and sent by the client."""
    with connection.cursor().copy('COPY datapoints (external_id, "timestamp", value) FROM STDIN') as copy:
        for start in range(0, rows, 10_000):
            copy.write(
                "".join(
                    f"s{n % series_count}\t{START + timedelta(seconds=n // series_count)}\t{n * 0.25}\n"
                    for n in range(start, min(start + 10_000, rows))
                )
            )


def assert_all_points(cdf, rows: int, series_count: int) -> None:
    """Every point of `load_points` is there, and was sent exactly once."""
    for at in range(series_count):
        found = series(cdf, f"s{at}")
        of_series = range(at, rows, series_count)
        timestamps = [START_MS + 1000 * (n // series_count) for n in of_series]
        assert found["count"] == found["received"] == len(of_series), f"series s{at}"
        assert found["checksum"] == checksum(timestamps, [n * 0.25 for n in of_series]), f"series s{at}"
    total = cdf.admin_get("datapoints/summary")
    assert total["series"] == series_count
    assert total["count"] == total["received"] == rows


@pytest.mark.parametrize("memory", ["64MB", "1MB"], ids=["in memory", "spilled"])
def test_a_million_points_over_a_hundred_series(gateway, cluster, cdf, memory):
    make_series(cdf, 100)
    with gateway.connect() as connection, cluster.connect() as observer:
        spilled = "SELECT coalesce(sum(size), 0)::bigint FROM pg_ls_tmpdir()"
        connection.execute(f"SET cdf_fdw.buffer_memory = '{memory}'")
        load_points(connection, 1_000_000, 100)
        assert requests(cdf) == []
        assert (observer.execute(spilled).fetchone()[0] > 1_000_000) == (memory == "1MB")
        connection.commit()
        assert observer.execute(spilled).fetchone()[0] == 0
    assert_all_points(cdf, 1_000_000, 100)
    assert_requests_within_limits(cdf, 1_000_000)
    assert len(requests(cdf, "/timeseries/data")) <= 40


@pytest.mark.parametrize("memory", ["1MB", "64MB"])
def test_ten_thousand_series_in_random_order(gateway, cdf, memory):
    external_ids = make_series(cdf, 10_000)
    rows = [(external_ids[at % 10_000], at // 10_000) for at in range(60_000)]
    random.Random(7).shuffle(rows)
    with gateway.connect() as connection:
        connection.execute(f"SET cdf_fdw.buffer_memory = '{memory}'")
        with connection.cursor().copy('COPY datapoints (external_id, "timestamp", value) FROM STDIN') as copy:
            for name, second in rows:
                copy.write_row((name, START + timedelta(seconds=second), float(second)))
    total = cdf.admin_get("datapoints/summary")
    assert (total["series"], total["count"], total["received"]) == (10_000, 60_000, 60_000)
    one = checksum([START_MS + 1000 * second for second in range(6)], [float(second) for second in range(6)])
    assert total["checksum"] == f"{int(one, 16) * 10_000 % 2**64:016x}"
    assert {series(cdf, name)["checksum"] for name in random.Random(8).sample(external_ids, 50)} == {one}
    assert_requests_within_limits(cdf, 60_000)


def test_events_that_do_not_fit_into_memory(gateway, cdf):
    with gateway.connect() as connection:
        connection.execute("SET cdf_fdw.buffer_memory = '1MB'")
        connection.execute(
            "INSERT INTO events (external_id, description)"
            " SELECT 'e' || n, repeat('x', 300) || n FROM generate_series(1, 20000) AS n"
        )
        # Written again, after their first write has gone to a file.
        connection.execute(
            "INSERT INTO events (external_id, type) SELECT 'e' || n, 't' FROM generate_series(1, 20000, 7) AS n"
        )
        assert requests(cdf) == []
    found = {event["externalId"]: (event["description"], event.get("type")) for event in dump(cdf, "events")}
    assert found == {f"e{n}": ("x" * 300 + str(n), "t" if n % 7 == 1 else None) for n in range(1, 20_001)}


def heap_of(connection) -> int:
    """Bytes of memory that only this session's server process has."""
    status = Path(f"/proc/{connection.info.backend_pid}/status").read_text()
    return 1024 * int(re.search(r"^RssAnon:\s*(\d+) kB$", status, re.M).group(1))


def test_the_memory_of_a_session_is_bounded(gateway, cdf):
    with gateway.connect() as connection:
        connection.execute("SET cdf_fdw.buffer_memory = '2MB'")
        connection.execute("INSERT INTO events (external_id) VALUES ('first')")
        connection.commit()
        before = heap_of(connection)
        connection.execute(
            "INSERT INTO events (external_id, metadata)"
            " SELECT 'e' || n, jsonb_build_object('text', repeat('x', 1000) || n) FROM generate_series(1, 50000) AS n"
        )
        assert heap_of(connection) - before < 20_000_000
        connection.commit()
    entries = requests(cdf, "/events")
    assert sum(entry["items"] for entry in entries) == 50_001
    assert sum(entry["decoded_bytes"] for entry in entries) > 50_000_000


def test_large_events_are_spread_over_requests(session, cdf):
    session.execute(
        "INSERT INTO events (external_id, metadata)"
        " SELECT 'e' || n, jsonb_build_object('text', repeat('x', 100000)) FROM generate_series(1, 200) AS n"
    )
    assert len(names(cdf, "events")) == 200
    assert max(entry["decoded_bytes"] for entry in requests(cdf, "/events")) < 8_000_000


def test_raw_rows_that_do_not_fit_into_memory(gateway, cdf):
    with gateway.connect() as connection:
        connection.execute("SET cdf_fdw.buffer_memory = '1MB'")
        for version in (1, 2):
            connection.execute(
                "INSERT INTO raw_rows (db_name, table_name, key, columns) SELECT 'd', 't' || n %% 3, 'k' || n,"
                " jsonb_build_object('version', %s::int, 'text', repeat('y', 200))"
                " FROM generate_series(1, 9000) AS n WHERE %s::int = 1 OR n %% 2 = 0",
                (version, version),
            )
        assert requests(cdf) == []
    versions = {row["key"]: row["columns"]["version"] for row in dump(cdf, "raw")}
    assert versions == {f"k{n}": 2 if n % 2 == 0 else 1 for n in range(1, 9001)}
