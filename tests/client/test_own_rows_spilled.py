"""A transaction reads its own rows in bounded memory, and finds the same rows wherever they wait."""

from __future__ import annotations

import random

import pytest
from test_memory import MB, NUMBERS, peak, reads_proc
from test_views import create_view


@pytest.fixture
def session(loading):
    """The session of the module's own loader."""
    return loading

# By table, columns, values and rows. An index of what is where takes 32 bytes for each series of each request, and requests
# of many series are small where there is little memory for them.
LOADS = {
    "RAW": ("raw_rows", "(db_name, table_name, key, columns)", "'d', 't' || i % 2, i::text, jsonb_build_object('n', i)", 300_000),
    "events": ("events", "(external_id, type, metadata)", "'e' || i, 't', '{\"a\": \"b\"}'::jsonb", 300_000),
    "events without keys": ("events", "(type)", "'t' || i", 200_000),
    "datapoints": ("datapoints", '(external_id, "timestamp", value)', "'s' || i % 3, to_timestamp(i), i", 1_000_000),
    "datapoints of many series": ("datapoints", '(external_id, "timestamp", value)', "'s' || i % 5000, to_timestamp(i), i", 1_000_000),
    "datapoints in no order": ("datapoints", '(external_id, "timestamp", value)', "'s', to_timestamp(i::bigint * 7919 % 500009), i", 500_000),
    "texts at moments": ("string_datapoints", '(external_id, "timestamp", value)', "'t' || i % 3, to_timestamp(i), 'value ' || i", 500_000),
    "sequence rows": ("sequence_rows", "(external_id, row_number, columns)", "'q', i, jsonb_build_object('c', i)", 200_000),
}


@reads_proc
@pytest.mark.parametrize("load", LOADS)
def test_own_rows_are_read_in_bounded_memory(session, cdf, load):
    table, columns, values, count = LOADS[load]
    session.execute("SET cdf_fdw.buffer_memory = '1MB'")
    # What a session takes for its first read, whatever the size.
    session.execute(f"SELECT count(*) FROM {table}")
    session.execute("BEGIN")
    session.execute(f"INSERT INTO {table} {columns} SELECT {values} FROM {NUMBERS.format(1, count)}")
    before = peak(session)
    for _ in range(2):
        assert session.execute(f"SELECT count(*) FROM {table}").fetchone() == (count,)
    assert peak(session) - before < (48 if load == "datapoints of many series" else 16) * MB
    session.execute("ROLLBACK")
    cdf.admin_delete("requests")


@reads_proc
def test_own_rows_over_those_of_cdf_are_read_in_bounded_memory(session, cdf):
    """Each of CDF's rows is written to twice, in other orders than CDF gives them."""
    session.execute("SET cdf_fdw.buffer_memory = '1MB'")
    insert = "INSERT INTO events (external_id, type, description) SELECT 'e' || i, {}, 'd' FROM (SELECT generate_series({}) AS i) n"
    session.execute(insert.format("'CDF'", "1, 30000"))
    assert session.execute("SELECT count(*) FROM events").fetchone() == (30_000,)
    session.execute("BEGIN")
    session.execute(insert.format("'first'", "60000, 1, -1"))
    session.execute(insert.format("'second'", "20001, 50000"))
    before = peak(session)
    found = session.execute("SELECT type, count(*), count(DISTINCT external_id) FROM events GROUP BY 1 ORDER BY 1").fetchall()
    assert found == [("first", 30_000, 30_000), ("second", 30_000, 30_000)]
    # Sorting the distinct values takes work_mem.
    assert peak(session) - before < 24 * MB
    session.execute("ROLLBACK")


@reads_proc
def test_own_rows_by_id_are_read_in_bounded_memory(session, cdf):
    """Each of CDF's rows is written to by id and by external id, in turns, and some of CDF's rows have no external id."""
    session.execute("SET cdf_fdw.buffer_memory = '1MB'")
    numbers = "(SELECT generate_series(1, 20000) AS i) n"
    session.execute(f"INSERT INTO events (external_id, type, subtype) SELECT nullif('e' || i, 'e' || i / 10 * 10), 'CDF', i::text FROM {numbers}")
    assert session.execute("SELECT count(*), count(external_id) FROM events").fetchone() == (20_000, 18_000)
    session.execute("CREATE TEMP TABLE known AS SELECT id, external_id, subtype::int AS i FROM events")
    session.execute("BEGIN")
    write = "INSERT INTO events ({0}, type, description) SELECT {0}, {1}, rpad({0}::text, 400, '.') FROM known WHERE {2}"
    session.execute(write.format("id", "'first'", "i % 2 = 0"))
    session.execute(write.format("external_id", "'second'", "i % 3 = 0 AND external_id IS NOT NULL"))
    session.execute(write.format("id", "'third'", "i % 5 = 0"))
    session.execute("INSERT INTO events (external_id, type) SELECT 'new' || i, 'new' FROM generate_series(1, 100) i")
    before = peak(session)
    read = "SELECT type, count(*), count(DISTINCT id), count(description) FROM events GROUP BY 1 ORDER BY 1"
    found = session.execute(read).fetchall()
    last = {i: "third" if i % 5 == 0 else "second" if i % 3 == 0 else "first" if i % 2 == 0 else "CDF" for i in range(1, 20_001)}
    expected = {name: list(last.values()).count(name) for name in ("CDF", "first", "second", "third")} | {"new": 100}
    assert {name: count for name, count, *_ in found} == expected
    assert {name: row for name, _, *row in found}["second"] == [expected["second"]] * 2
    assert peak(session) - before < 24 * MB
    # Rows that CDF's filter leaves out, but that fit after what was written.
    assert session.execute("SELECT count(*) FROM events WHERE type = 'second'").fetchone() == (expected["second"],)
    session.execute("COMMIT")
    assert {name: count for name, count, *_ in session.execute(read).fetchall()} == expected


@reads_proc
def test_own_points_over_those_of_cdf_are_read_in_bounded_memory(session, cdf):
    """Half of CDF's points are replaced, a quarter is deleted, and the series' own moments lie between them."""
    session.execute("SET cdf_fdw.buffer_memory = '1MB'")
    session.execute("INSERT INTO timeseries (external_id) VALUES ('s'), ('without')")
    insert = """INSERT INTO datapoints (external_id, "timestamp", value) SELECT '{}', to_timestamp(i), {} FROM (SELECT generate_series({}) AS i) n"""
    session.execute(insert.format("s", 0, "1, 400000"))
    assert session.execute("SELECT count(*) FROM datapoints").fetchone() == (400_000,)
    session.execute("BEGIN")
    session.execute(insert.format("s", 1, "600000, 200001, -1"))
    session.execute("""DELETE FROM datapoints WHERE external_id = 's' AND "timestamp" <= to_timestamp(100000)""")
    session.execute(insert.format("without", 2, "1, 300000"))
    before = peak(session)
    read = "SELECT external_id, value, count(*), count(DISTINCT \"timestamp\") FROM datapoints GROUP BY 1, 2 ORDER BY 1, 2"
    found = session.execute(read).fetchall()
    assert found == [("s", 0.0, 100_000, 100_000), ("s", 1.0, 400_000, 400_000), ("without", 2.0, 300_000, 300_000)]
    # A page of CDF's has 100,000 points.
    assert peak(session) - before < 96 * MB
    session.execute("ROLLBACK")


# What random transactions do: statements with the numbers of some rows, and what they read.

KEYS = 40
PAD = "rpad(i::text, 450, 'x')"
SOME = "(SELECT unnest(%(some)s::int[]) AS i) AS chosen"

ACTIONS = {
    "events": [
        f"INSERT INTO events (external_id, type, description) SELECT 'e' || i, 'insert', {PAD} FROM {SOME}",
        f"INSERT INTO events (external_id, subtype) SELECT 'e' || i, 'sub' || i FROM {SOME}",
        f"INSERT INTO events (type, description) SELECT 'blind', {PAD} FROM {SOME}",
        f"INSERT INTO events (external_id, type, subtype) SELECT 'e' || i, 'kept', 'not' FROM {SOME} "
        "ON CONFLICT (external_id) DO UPDATE SET subtype = EXCLUDED.subtype",
        "UPDATE events SET type = 'updated', source = 's' WHERE external_id = ANY(SELECT 'e' || unnest(%(some)s::int[]))",
        "UPDATE events SET description = NULL WHERE type = 'insert'",
        "UPDATE events SET external_id = 'r' || external_id WHERE external_id = (SELECT 'e' || (%(some)s::int[])[1]) AND id IS NOT NULL",
        "DELETE FROM events WHERE external_id = ANY(SELECT 'e' || unnest(%(some)s::int[]))",
        "DELETE FROM events WHERE subtype = 'sub1'",
        "INSERT INTO events (id, source) SELECT id, 'by id' FROM events WHERE external_id = ANY(SELECT 'e' || unnest(%(some)s::int[])) AND id IS NOT NULL",
    ],
    "raw_rows": [
        f"INSERT INTO raw_rows (db_name, table_name, key, columns) SELECT 'd', 't' || i %% 2, i::text, jsonb_build_object('i', i, 'p', {PAD}) FROM {SOME}",
        f"INSERT INTO raw_rows (db_name, table_name, key, columns) SELECT 'd', 'new', i::text, '{{}}' FROM {SOME}",
        "UPDATE raw_rows SET columns = jsonb_build_object('u', 1) WHERE key = ANY(SELECT unnest(%(some)s::int[])::text)",
        "DELETE FROM raw_rows WHERE db_name = 'd' AND table_name = 't1' AND key = ANY(SELECT unnest(%(some)s::int[])::text)",
    ],
    "datapoints": [
        f"""INSERT INTO datapoints (external_id, "timestamp", value) SELECT 's' || i %% 3, to_timestamp(i * 1000 + g), i
            FROM {SOME}, generate_series(1, 300) g""",
        f"""INSERT INTO datapoints (external_id, "timestamp", value) SELECT 's' || i %% 3, to_timestamp(i * 1000 + 7), -i FROM {SOME}""",
        """DELETE FROM datapoints WHERE external_id = 's1' AND "timestamp" < to_timestamp((%(some)s::int[])[1] * 1000)""",
        """DELETE FROM datapoints WHERE external_id IN ('s0', 's2') AND value < 0""",
        """UPDATE datapoints SET value = 0.5 WHERE external_id = 's2' AND value = (%(some)s::int[])[1]""",
    ],
    "sequence_rows": [
        f"INSERT INTO sequence_rows (external_id, row_number, columns) SELECT 'q', i, jsonb_build_object('c', i, 't', left({PAD}, 250)) FROM {SOME}",
        f"INSERT INTO sequence_rows (external_id, row_number, columns) SELECT 'q', i, jsonb_build_object('c', -i) FROM {SOME}",
        "UPDATE sequence_rows SET columns = '{\"c\": 0}' WHERE row_number = ANY(%(some)s::int[])",
        "DELETE FROM sequence_rows WHERE external_id = 'q' AND row_number = (%(some)s::int[])[1]",
    ],
}
READS = {
    "events": [
        "SELECT external_id, type, subtype, description, source FROM events",
        "SELECT external_id, type FROM events WHERE type = 'updated'",
        "SELECT external_id, type, subtype FROM events WHERE external_id = ANY(SELECT 'e' || unnest(%(some)s::int[]))",
    ],
    "raw_rows": [
        "SELECT table_name, key, columns FROM raw_rows",
        "SELECT key, columns FROM raw_rows WHERE db_name = 'd' AND table_name = 't0'",
        "SELECT key, columns FROM raw_rows WHERE db_name = 'd' AND table_name = 't1' AND key = (%(some)s::int[])[1]::text",
    ],
    "datapoints": [
        'SELECT external_id, "timestamp", value FROM datapoints',
        'SELECT "timestamp", value FROM datapoints WHERE external_id = \'s1\' AND "timestamp" > to_timestamp((%(some)s::int[])[1] * 1000)',
    ],
    "sequence_rows": ["SELECT external_id, row_number, columns FROM sequence_rows"],
}


def prepare(session, table: str) -> None:
    """What CDF has before the transaction."""
    session.execute("INSERT INTO sequences (external_id, columns) VALUES ('q', '[{\"externalId\": \"c\", \"valueType\": \"LONG\"}, {\"externalId\": \"t\", \"valueType\": \"STRING\"}]')")
    session.execute("INSERT INTO timeseries (external_id) SELECT 's' || i FROM generate_series(0, 2) i")
    some = {"some": list(range(0, KEYS, 2))}
    session.execute(ACTIONS[table][0], some)
    if table == "events":
        session.execute(ACTIONS[table][2], some)


def run(session, table: str, memory: str, seed: int) -> list:
    """Returns what a random transaction reads at each step."""
    chance = random.Random(seed)
    found = []
    session.execute(f"SET cdf_fdw.buffer_memory = '{memory}'")
    session.execute("BEGIN")
    depth = 0
    for step in range(25):
        some = {"some": chance.sample(range(KEYS), chance.randint(1, 15))}
        what = chance.random()
        if what < 0.1:
            session.execute(f"SAVEPOINT s{depth}")
            depth += 1
        elif what < 0.2 and depth:
            depth -= 1
            session.execute(f"{chance.choice(('RELEASE', 'ROLLBACK TO'))} s{depth}")
        else:
            cursor = session.execute(chance.choice(ACTIONS[table]), some)
            found.append((step, cursor.statusmessage))
        if chance.random() < 0.6:
            read = chance.choice(READS[table])
            found.append((step, read, sorted(session.execute(read, some).fetchall(), key=repr)))
    found.append(sorted(session.execute(READS[table][0]).fetchall(), key=repr))
    session.execute("ROLLBACK")
    return found


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("table", ACTIONS)
def test_rows_in_files_are_the_same_as_in_memory(session, cdf, table, seed):
    prepare(session, table)
    in_memory = run(session, table, "64MB", seed)
    in_files = run(session, table, "64kB", seed)
    for remembered, found in zip(in_memory, in_files, strict=True):
        assert found == remembered, f"seed {seed}"


def test_cursor_sees_what_was_there_when_it_began(session, cdf):
    session.execute("INSERT INTO events (external_id, type) SELECT 'c' || i, 'CDF' FROM generate_series(1, 1500) i")
    for memory in ("64kB", "64MB"):
        session.execute(f"SET cdf_fdw.buffer_memory = '{memory}'")
        session.execute("BEGIN")
        session.execute("INSERT INTO events (external_id, type, description) SELECT 'o' || i, 'own', rpad('own', 400, '.') FROM generate_series(1, 3000) i")
        session.execute("DECLARE c CURSOR FOR SELECT external_id, left(type, 3) FROM events")
        rows = session.execute("FETCH 1 c").fetchall()
        session.execute("SAVEPOINT s")
        session.execute("INSERT INTO events (external_id, type) SELECT 'later' || i, 'later' FROM generate_series(1, 3000) i")
        session.execute("UPDATE events SET type = 'changed' WHERE external_id IN ('o2500', 'c1400', 'o7')")
        session.execute("ROLLBACK TO s")
        session.execute("SAVEPOINT t")
        session.execute("DELETE FROM events WHERE external_id IN ('o2501', 'c1401')")
        session.execute("RELEASE t")
        rows += session.execute("FETCH ALL c").fetchall()
        expected = {(f"c{i}", "CDF") for i in range(1, 1501)} | {(f"o{i}", "own") for i in range(1, 3001)}
        assert len(rows) == 4500 and set(rows) == expected, memory
        session.execute("ROLLBACK")


ODD = ["a\"b", "a\\b", "\x01", "\t", "\x7f", "\u2028", "é", "e\u0301", "😀", "/", "{\"a\":1}", "<&>", "a,b}", " "]


@pytest.mark.parametrize("memory", ["64kB", "64MB"])
def test_odd_keys_are_found_again(session, cdf, memory):
    session.execute(f"SET cdf_fdw.buffer_memory = '{memory}'")
    for table, columns, values in (
        ("events", "(external_id, type)", "k, {}"),
        ("raw_rows", "(db_name, table_name, key, columns)", "'d', 't', k, jsonb_build_object('type', {})"),
    ):
        insert = f"INSERT INTO {table} {columns} SELECT {values} FROM unnest(%(odd)s::text[]) k"
        session.execute(insert.format("'CDF'"), {"odd": ODD})
        session.execute("BEGIN")
        session.execute(insert.format("'own'"), {"odd": ODD})
        session.execute("INSERT INTO events (external_id, description) SELECT 'pad' || i, repeat('.', 400) FROM generate_series(1, 400) i")
        name, value = ("external_id", "type") if table == "events" else ("key", "columns ->> 'type'")
        found = session.execute(f"SELECT {name}, {value} FROM {table} WHERE {name} NOT LIKE 'pad%'").fetchall()
        assert sorted(found) == sorted((key, "own") for key in ODD)
        session.execute("ROLLBACK")


def test_own_instances_are_the_same_as_in_memory(api, scratch, session, gateway, cdf):
    """Through two views of one node, and rows that CDF has, that it has not, and that are deleted."""
    create_view(api, "Big", {"name": "text", "pad": "text"})
    table = scratch.table("big", "space text, external_id text, name text, pad text", "view", space="sp", external_id="Big", version="v1")
    with gateway.connect(autocommit=True) as session:
        insert = f"INSERT INTO {table} SELECT 'sp', 'n' || i, {{}}, repeat('x', 300) FROM generate_series({{}}) i"
        session.execute(insert.format("'CDF'", "1, 1500"))
        found = []
        for memory in ("64kB", "64MB"):
            session.execute(f"SET cdf_fdw.buffer_memory = '{memory}'")
            session.execute("BEGIN")
            session.execute(insert.format("'own'", "1000, 3000"))
            session.execute(f"UPDATE {table} SET name = 'two' WHERE name = 'own' AND external_id LIKE 'n1_0_'")
            session.execute(f"DELETE FROM {table} WHERE external_id LIKE 'n%5'")
            session.execute(insert.format("'again'", "1205, 1205"))
            found.append(
                [
                    sorted(session.execute(f"SELECT * FROM {table} {where}").fetchall())
                    for where in ("", "WHERE name = 'two'", "WHERE space = 'sp' AND name > 'CDG'")
                ]
            )
            session.execute("ROLLBACK")
        assert found[0] == found[1]
        names = [row[2] for row in found[0][0]]
        assert {name: names.count(name) for name in set(names)} == {"CDF": 899, "own": 1711, "two": 90, "again": 1}
