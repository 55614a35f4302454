"""A series, a sequence or an item that a transaction names in more than one way is one."""

from __future__ import annotations

import pytest
from random_writes import all_kinds, run, transactions
from support import dump, points, refused, requests, stored


@pytest.mark.timeout(120 + transactions())
def test_random_identities(session, scratch, cdf):
    run(session, cdf, all_kinds(scratch, by_id=True), transactions())


def put(session, column: str, value, second: int, number: float) -> None:
    session.execute(
        f'INSERT INTO datapoints ({column}, "timestamp", value) VALUES (%s, to_timestamp(%s), %s)', (value, second, number)
    )


def test_a_point_written_by_name_and_by_id_is_one(session, api, cdf):
    (number,) = api.create("timeseries", "s")
    with session.transaction():
        put(session, "external_id", "s", 1, 1)
        put(session, "id", number, 1, 2)
        for condition, value in (("external_id = %s", "s"), ("id = %s", number), ("%s::text IS NOT NULL", "all")):
            seen = session.execute(f"SELECT external_id, id, value FROM datapoints WHERE {condition}", (value,)).fetchall()
            assert seen == [("s", number, 2)], condition
        put(session, "external_id", "s", 1, 3)
        assert session.execute("SELECT value FROM datapoints WHERE id = %s", (number,)).fetchall() == [(3,)]
        assert requests(cdf, "/timeseries/byids") == []
    assert points(cdf, "s") == [(1000, 3, None)]


def test_a_delete_by_one_name_takes_what_was_written_by_the_other(session, api, cdf):
    (number,) = api.create("timeseries", "s")
    api.create("timeseries", "t")
    with session.transaction():
        for second in (1, 2, 3):
            put(session, "id", number, second, second)
            put(session, "external_id", "t", second, second)
        assert session.execute('DELETE FROM datapoints WHERE external_id = \'s\' AND "timestamp" <= to_timestamp(2)').rowcount == 2
        assert session.execute("SELECT external_id, value FROM datapoints WHERE id = %s", (number,)).fetchall() == [("s", 3)]
        put(session, "external_id", "s", 5, 5)
        assert session.execute("DELETE FROM datapoints WHERE id = %s", (number,)).rowcount == 2
        assert session.execute("SELECT count(*) FROM datapoints WHERE external_id = 's'").fetchone() == (0,)
        assert session.execute("SELECT count(*) FROM datapoints").fetchone() == (3,)
    assert points(cdf, "s") == [] and len(points(cdf, "t")) == 3


def test_points_of_a_series_that_the_transaction_creates(session, cdf):
    with session.transaction():
        session.execute("INSERT INTO timeseries (external_id) VALUES ('new'), ('other')")
        put(session, "external_id", "new", 1, 1)
        put(session, "external_id", "other", 1, 1)
        assert session.execute("DELETE FROM datapoints WHERE external_id = 'other'").rowcount == 1
        assert session.execute("SELECT external_id, id, value FROM datapoints").fetchall() == [("new", None, 1)]
    assert points(cdf, "new") == [(1000, 1, None)]


def test_do_nothing_leaves_the_point_that_is_there(session, api, cdf):
    (number,) = api.create("timeseries", "s")
    put(session, "external_id", "s", 1, 1)
    insert = 'INSERT INTO datapoints ({0}, "timestamp", value) VALUES (%s, to_timestamp(%s), %s) ON CONFLICT ({0}, "timestamp") DO NOTHING'
    with session.transaction():
        session.execute(insert.format("id"), (number, 1, 9))
        session.execute(insert.format("external_id"), ("s", 2, 2))
        session.execute(insert.format("id"), (number, 2, 9))
        assert session.execute('SELECT value FROM datapoints ORDER BY "timestamp"').fetchall() == [(1,), (2,)]
    assert [value for _, value, _ in points(cdf, "s")] == [1, 2]


def test_rows_of_a_sequence_by_name_and_by_id_are_one(session, api, cdf):
    columns = [{"externalId": "a"}, {"externalId": "b"}]
    (sequence,) = api.post("/sequences", {"externalId": "s", "columns": columns})
    insert = "INSERT INTO sequence_rows ({}, row_number, columns) VALUES (%s, 0, %s)"
    with session.transaction():
        session.execute(insert.format("external_id"), ("s", '{"a": 1}'))
        session.execute(insert.format("id"), (sequence["id"], '{"b": 2}'))
        for condition, value in (("external_id = %s", "s"), ("id = %s", sequence["id"]), ("%s::text IS NOT NULL", "all")):
            seen = session.execute(f"SELECT external_id, id, columns FROM sequence_rows WHERE {condition}", (value,)).fetchall()
            assert seen == [("s", sequence["id"], {"a": 1, "b": 2})], condition
        assert session.execute("DELETE FROM sequence_rows WHERE external_id = 's'").rowcount == 1
        assert session.execute("SELECT * FROM sequence_rows").fetchall() == []
    assert dump(cdf, "sequence_rows") == []


def test_an_item_that_is_asked_for_by_two_names_comes_once(session, api, cdf):
    (number,) = api.create("events", "e", type="old")
    with session.transaction():
        session.execute("INSERT INTO events (external_id, source) VALUES ('e', 'by name')")
        session.execute("INSERT INTO events (id, subtype) VALUES (%s, 'by id')", (number,))
        # CDF is asked for neither: both are needed to know that it fits.
        seen = session.execute("SELECT external_id, type, source FROM events WHERE subtype = 'by id'").fetchall()
        assert seen == [("e", "old", "by name")]


def test_a_name_that_passes_from_one_item_to_another(session, api, cdf):
    (number,) = api.create("events", "e", type="old")
    with session.transaction():
        session.execute("UPDATE events SET external_id = 'f' WHERE id = %s", (number,))
        session.execute("INSERT INTO events (external_id, type) VALUES ('e', 'new')")
        session.execute("UPDATE events SET source = 's' WHERE external_id = 'f'")
        everything = [("e", "new", None), ("f", "old", "s")]
        assert session.execute("SELECT external_id, type, source FROM events ORDER BY 1").fetchall() == everything
        for row in everything:
            assert session.execute("SELECT external_id, type, source FROM events WHERE external_id = %s", (row[0],)).fetchall() == [row]
            assert session.execute("SELECT external_id, type, source FROM events WHERE type = %s", (row[1],)).fetchall() == [row]
        assert session.execute("SELECT external_id FROM events WHERE id = %s", (number,)).fetchall() == [("f",)]
    assert stored(cdf, "events", "f")["id"] == number and stored(cdf, "events", "e")["type"] == "new"


@pytest.mark.parametrize("named", ["id", "external_id"])
def test_the_first_of_rows_that_give_way_stays(session, api, cdf, named):
    columns = [{"externalId": "a"}, {"externalId": "b"}]
    (sequence,) = api.post("/sequences", {"externalId": "s", "columns": columns})
    sequence = {"id": sequence["id"], "external_id": "s"}[named]
    insert = f"INSERT INTO sequence_rows ({named}, row_number, columns) VALUES (%s, 0, %s) ON CONFLICT ({named}, row_number) DO NOTHING"
    with session.transaction():
        session.execute(insert, (sequence, '{"a": 1}'))
        session.execute(insert, (sequence, '{"a": 2, "b": 2}'))
        assert session.execute("SELECT columns FROM sequence_rows").fetchall() == [({"a": 1},)]
    assert [row["columns"] for row in dump(cdf, "sequence_rows")] == [{"a": 1}]


@pytest.mark.parametrize("named", ["id", "external_id"])
def test_a_row_written_twice_where_none_may_be_is_an_error(session, scratch, api, named):
    (sequence,) = api.post("/sequences", {"externalId": "s", "columns": [{"externalId": "a"}]})
    sequence = {"id": sequence["id"], "external_id": "s"}[named]
    definition = "id bigint, external_id text, row_number bigint, columns jsonb"
    table = scratch.table("once", definition, "sequence_rows", on_conflict="error")
    with refused("23505"), session.transaction():
        for value in (1, 2):
            session.execute(f"INSERT INTO {table} ({named}, row_number, columns) VALUES (%s, 0, %s)", (sequence, f'{{"a": {value}}}'))
