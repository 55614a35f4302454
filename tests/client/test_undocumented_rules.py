"""The extension sends no request whose effect CDF's documentation leaves open."""

from __future__ import annotations

import json

from support import requests, stored

ITEMS = {
    "assets": ("name, parent_external_id", lambda n, turn: f"'n{turn}', {'NULL' if n == 9 else repr(f'k{n + 1}')}"),
    "events": ("type", lambda n, turn: f"'t{turn}'"),
    "timeseries": ("name", lambda n, turn: f"'n{turn}'"),
    "data_sets": ("name", lambda n, turn: f"'n{turn}'"),
    "labels": ("name", lambda n, turn: f"'n{n}'"),
    "sequences": ("columns", lambda n, turn: """'[{"externalId": "a"}]'"""),
    "files": ("name, source", lambda n, turn: f"'n', 's{turn}'"),
    "relationships": (
        "source_external_id, source_type, target_external_id, target_type, confidence",
        lambda n, turn: f"'a', 'asset', 'b', 'asset', 0.{turn}",
    ),
}


def write(session):
    """Rows of every resource, each key several times, children before their parents."""
    with session.transaction():
        for turn in range(3):
            for table, (columns, values) in ITEMS.items():
                rows = ", ".join(f"('k{n}', {values(n, turn)})" for n in range(10))
                session.execute(f"INSERT INTO {table} (external_id, {columns}) VALUES {rows}")
            rows = ", ".join(f"""('d', 't', 'k{n}', '{{"a": {turn}, "b": null}}')""" for n in range(10))
            session.execute(f"INSERT INTO raw_rows (db_name, table_name, key, columns) VALUES {rows}")
            rows = ", ".join(f"""('k{n}', {n}, '{{"a": {turn}}}')""" for n in range(10))
            session.execute(f"INSERT INTO sequence_rows (external_id, row_number, columns) VALUES {rows}")
            rows = ", ".join(f"('k{n}', '2024-01-01T00:00:{n:02}Z', {turn})" for n in range(10))
            session.execute(f"INSERT INTO datapoints (external_id, timestamp, value) VALUES {rows}")


def test_requests_name_everything_once_and_parents_first(session, cdf):
    write(session)
    write(session)
    sent = [(entry["path"].split("?")[0], entry["body"]) for entry in requests(cdf) if isinstance(entry.get("body"), dict)]
    assert len(sent) > 20
    seen = set()
    for path, body in sent:
        keys = [json.dumps([item.get("id"), item.get("externalId"), item.get("key")]) for item in body.get("items", [])]
        # Nothing says what a key means that a request has twice.
        assert len(keys) == len(set(keys)), (path, keys)
        if not path.endswith(("/list", "/data", "/rows")):
            # Nor what a null means, for every resource.
            assert "null" not in json.dumps(body), (path, body)
        if path == "/assets":
            for item in body["items"]:
                # A parent is in CDF, or stands before its children.
                assert item.get("parentExternalId") in seen | {None}
                seen.add(item["externalId"])
        # No database and no table is created but by a write of rows, which says that it may: it is no error where they exist.
        assert not path.startswith("/raw/dbs") or path.endswith("/rows")
    assert {stored(cdf, "raw", f"k{n}")["columns"]["a"] for n in range(10)} == {2}
    assert cdf.admin_get("datapoints/summary")["count"] == 10
    # The last value of each timestamp is the only one that was sent.
    assert cdf.admin_get("datapoints/summary")["received"] == 20


def test_answers_in_another_order_are_understood(session, cdf):
    """What CDF answers is found by its key, never by its place."""
    session.execute("INSERT INTO timeseries (external_id, name) SELECT 'k' || n, 'n' || n FROM generate_series(1, 30) n")
    rows = session.execute("SELECT external_id, name FROM timeseries WHERE external_id = ANY (%s)", ([f"k{n}" for n in range(40, 0, -1)],)).fetchall()
    assert sorted(rows) == sorted((f"k{n}", f"n{n}") for n in range(1, 31))
    session.execute("UPDATE timeseries SET name = name || '!' WHERE external_id LIKE 'k%%'")
    assert stored(cdf, "timeseries", "k17")["name"] == "n17!"
