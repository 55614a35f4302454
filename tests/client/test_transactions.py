"""COMMIT means delivered, ROLLBACK means that nothing was sent, and savepoints take their rows with them."""

from __future__ import annotations

import random
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import datetime, timezone

import psycopg
import pytest
from faults import fault, register, register_apart, temporary_files, wait_for_request
from harness import own_cluster
from psycopg import errors, sql
from psycopg.pq import TransactionStatus
from support import checksum, dump, names, refused, requests, series


@pytest.fixture
def session(loading):
    """The session of the module's own loader."""
    return loading


@pytest.fixture
def local(cluster, loader):
    """The name of an ordinary table `local` (id int) that the role can write."""
    name = sql.Identifier(loader.schema, "local")
    with cluster.connect() as connection:
        connection.execute(sql.SQL("CREATE TABLE {} (id int)").format(name))
        connection.execute(sql.SQL("GRANT ALL ON {} TO {}").format(name, sql.Identifier(loader.username)))
        yield "local"
        connection.execute(sql.SQL("DROP TABLE {} CASCADE").format(name))


def script(cluster, loader, text: str) -> None:
    """Runs SQL as the superuser, in the role's schema, for what the role may not create."""
    with cluster.connect() as connection:
        connection.execute(sql.SQL("SET search_path = {}").format(sql.Identifier(loader.schema)))
        connection.execute(text)


def event(session, external_id: str, **columns) -> None:
    columns = {"external_id": external_id, **columns}
    targets = sql.SQL(", ").join(map(sql.Identifier, columns))
    values = sql.SQL(", ").join(map(sql.Placeholder, columns))
    session.execute(sql.SQL("INSERT INTO events ({}) VALUES ({})").format(targets, values), columns)


# Nothing leaves before COMMIT.

ONE_ROW_EACH = (
    "INSERT INTO assets (external_id, name) VALUES ('a', 'a')",
    "INSERT INTO events (external_id) VALUES ('e')",
    "INSERT INTO timeseries (external_id, is_string) VALUES ('t', false), ('u', true)",
    """INSERT INTO datapoints (external_id, "timestamp", value) VALUES ('t', '2024-01-01', 1)""",
    """INSERT INTO string_datapoints (external_id, "timestamp", value) VALUES ('u', '2024-01-01', 'x')""",
    "INSERT INTO raw_rows (db_name, table_name, key, columns) VALUES ('d', 't', 'k', '{}')",
)


def delivered(cdf) -> dict[str, int]:
    return {name: len(dump(cdf, name)) for name in ("assets", "events", "timeseries", "datapoints", "raw")}


def test_nothing_is_sent_before_commit(session, cdf):
    session.execute("BEGIN")
    for statement in ONE_ROW_EACH:
        session.execute(statement)
    assert requests(cdf) == []
    session.execute("COMMIT")
    assert delivered(cdf) == {"assets": 1, "events": 1, "timeseries": 2, "datapoints": 2, "raw": 1}


def test_rollback_sends_nothing(session, cdf):
    session.execute("BEGIN")
    for statement in ONE_ROW_EACH:
        session.execute(statement)
    session.execute("ROLLBACK")
    session.execute("BEGIN")
    session.execute("COMMIT")
    assert requests(cdf) == []


def test_error_in_a_statement_sends_nothing(session, cdf):
    session.execute("BEGIN")
    event(session, "before")
    with pytest.raises(errors.DivisionByZero):
        session.execute("INSERT INTO events (external_id) SELECT 'e' || 1 / (3 - i) FROM generate_series(1, 3) i")
    # PostgreSQL answers ROLLBACK to a COMMIT of an aborted transaction.
    assert session.execute("COMMIT").statusmessage == "ROLLBACK"
    with pytest.raises(errors.DivisionByZero):
        session.execute("INSERT INTO events (external_id) SELECT 'e' || 1 / (3 - i) FROM generate_series(1, 3) i")
    assert requests(cdf) == []


def test_client_that_leaves_sends_nothing(loader, cdf):
    connection = loader.connect()
    event(connection, "e")
    connection.close()
    assert requests(cdf) == []


def test_copy_that_the_client_ends_with_an_error_sends_nothing(session, cdf):
    # psycopg tells the server that the COPY has failed.
    with pytest.raises(EOFError), session.cursor().copy("COPY events (external_id) FROM STDIN") as copy:
        copy.write_row(["e"])
        raise EOFError("the source has ended too early")
    assert requests(cdf) == []
    event(session, "next")
    assert names(cdf, "events") == ["next"]


def test_autocommit_delivers_each_statement(session, cdf):
    for n in range(3):
        event(session, f"e{n}")
        assert names(cdf, "events") == [f"e{i}" for i in range(n + 1)]


def test_statements_of_one_message_are_one_transaction(session, cdf):
    session.execute("INSERT INTO events (external_id) VALUES ('a'); INSERT INTO events (external_id) VALUES ('b')")
    assert [entry["items"] for entry in requests(cdf, "/events")] == [2]
    with pytest.raises(errors.DivisionByZero):
        session.execute("INSERT INTO events (external_id) VALUES ('c'); SELECT 1 / 0")
    assert names(cdf, "events") == ["a", "b"]


def test_commit_and_chain(session, cdf):
    session.execute("BEGIN")
    event(session, "a")
    session.execute("COMMIT AND CHAIN")
    assert names(cdf, "events") == ["a"]
    event(session, "b")
    session.execute("ROLLBACK AND CHAIN")
    event(session, "c")
    assert names(cdf, "events") == ["a"]
    session.execute("COMMIT")
    assert names(cdf, "events") == ["a", "c"]


def test_commit_and_chain_that_fails(session, cdf):
    fault(cdf, "/events", status=400)
    session.execute("BEGIN")
    event(session, "a")
    with pytest.raises(errors.InvalidParameterValue):
        session.execute("COMMIT AND CHAIN")
    assert session.info.transaction_status == TransactionStatus.IDLE
    cdf.admin_delete("faults")
    event(session, "b")
    assert names(cdf, "events") == ["b"]


def test_procedure_that_commits_and_rolls_back(cluster, loader, session, cdf):
    script(
        cluster,
        loader,
        """
        CREATE OR REPLACE PROCEDURE load() LANGUAGE plpgsql AS $$
        BEGIN
          INSERT INTO events (external_id) VALUES ('first');
          COMMIT;
          INSERT INTO events (external_id) VALUES ('second');
          ROLLBACK;
          INSERT INTO events (external_id) VALUES ('third');
        END $$
        """,
    )
    session.execute("CALL load()")
    assert names(cdf, "events") == ["first", "third"]
    assert [entry["external_ids"] for entry in requests(cdf, "/events")] == [["first"], ["third"]]


def test_procedure_sees_the_error_of_its_commit(cluster, loader, session, cdf):
    script(
        cluster,
        loader,
        """
        CREATE OR REPLACE PROCEDURE failing_load() LANGUAGE plpgsql AS $$
        BEGIN
          INSERT INTO events (external_id) VALUES ('first');
          COMMIT;
          INSERT INTO events (external_id) VALUES ('never');
        END $$
        """,
    )
    fault(cdf, "/events", status=403, times=1)
    with pytest.raises(errors.InsufficientPrivilege):
        session.execute("CALL failing_load()")
    event(session, "next")
    assert names(cdf, "events") == ["next"]


def test_explain_writes_nothing_and_explain_analyze_does(session, cdf):
    session.execute("EXPLAIN INSERT INTO events (external_id) VALUES ('planned')")
    assert requests(cdf) == []
    session.execute("EXPLAIN ANALYZE INSERT INTO events (external_id) VALUES ('run')")
    assert names(cdf, "events") == ["run"]


def test_two_sessions_that_write_the_same_keys_at_once(loader, cdf):
    statement = "INSERT INTO events (external_id, type) SELECT 'e' || i, %s FROM generate_series(1, 6000) i"

    def load(name: str) -> None:
        with loader.connect(autocommit=True) as connection:
            connection.execute(statement, [name])

    with ThreadPoolExecutor(2) as pool:
        for loading in [pool.submit(load, name) for name in ("left", "right")]:
            loading.result()
    found = dump(cdf, "events")
    assert sorted(item["externalId"] for item in found) == sorted(f"e{i}" for i in range(1, 6001))
    # Some keys were written by both, so that there are requests that were refused first.
    assert {item["type"] for item in found} <= {"left", "right"}


# Savepoints. A step is `a=1` (write the key a with the value 1 to three resources), or the beginning of a command.

SAVEPOINTS = {
    "rollback to": ("a=1 | S x | a=2 b=2 | R x | c=3", {"a": 1, "c": 3}),
    "release": ("a=1 | S x | a=2 b=2 | L x | c=3", {"a": 2, "b": 2, "c": 3}),
    "rollback to, and on in the same savepoint": ("S x | a=1 | R x | a=2 | L x", {"a": 2}),
    "twice back to the same savepoint": ("S x | a=1 | R x | b=2 | R x | c=3", {"c": 3}),
    "released, then the outer one back": ("a=1 | S x | b=2 | S y | a=3 c=3 | L y | R x", {"a": 1}),
    "inner back, outer released": ("a=1 | S x | a=2 | S y | a=3 b=3 | R y | L x", {"a": 2}),
    "outer back takes the inner one": ("S x | a=1 | S y | b=2 | S z | c=3 | R x | d=4", {"d": 4}),
    "re-used name, inner back": ("S x | a=1 | S x | a=2 b=2 | R x", {"a": 1}),
    "re-used name, inner released, outer back": ("c=0 | S x | a=1 | S x | b=2 | L x | R x", {"c": 0}),
    "key before, inside and after": ("a=1 | S x | a=2 | R x | a=3", {"a": 3}),
    "key inside only, written again later": ("S x | a=1 | R x | b=1 | S y | a=2 | L y", {"a": 2, "b": 1}),
    "key of a released savepoint, overwritten, back": ("S x | a=1 | L x | S y | a=2 | R y", {"a": 1}),
    "everything back": ("S x | a=1 b=1 | R x", {}),
    "back to an empty savepoint": ("a=1 | S x | R x | L x | b=2", {"a": 1, "b": 2}),
}


def key_time(key: str) -> datetime:
    return datetime.fromtimestamp(ord(key), timezone.utc)


def write(session, key: str, value: int) -> None:
    """One row for each way of buffering: items, points (two series) and RAW."""
    event(session, key, description=str(value))
    for name in ("s", "t"):
        session.execute(
            'INSERT INTO datapoints (external_id, "timestamp", value) VALUES (%s, %s, %s)',
            [name, key_time(key), value],
        )
    session.execute(
        "INSERT INTO raw_rows (db_name, table_name, key, columns) VALUES ('d', 't', %s, jsonb_build_object('n', %s))",
        [key, value],
    )


def written(cdf) -> tuple[dict, dict, dict]:
    """What `write` has brought to CDF: the values by key, in events, in points, and in RAW."""
    events = {item["externalId"]: int(item["description"]) for item in dump(cdf, "events")}
    points = {(p["externalId"], chr(p["timestamp"] // 1000)): p["value"] for p in dump(cdf, "datapoints")}
    rows = {row["key"]: row["columns"]["n"] for row in dump(cdf, "raw")}
    return events, points, rows


def in_all(values: dict[str, int]) -> tuple[dict, dict, dict]:
    points = {(series, key): value for key, value in values.items() for series in ("s", "t")}
    return values, points, values


@pytest.mark.parametrize(("steps", "expected"), SAVEPOINTS.values(), ids=SAVEPOINTS)
def test_savepoints(session, cdf, steps, expected):
    commands = {"S": "SAVEPOINT", "R": "ROLLBACK TO", "L": "RELEASE"}
    session.execute("BEGIN")
    for step in steps.split(" | "):
        if step[0] in commands:
            session.execute(f"{commands[step[0]]} {step[2:]}")
        else:
            for assignment in step.split():
                key, value = assignment.split("=")
                write(session, key, int(value))
    assert requests(cdf) == []
    session.execute("COMMIT")
    assert written(cdf) == in_all(expected)


def test_each_key_is_in_a_request_once(session, cdf):
    session.execute("BEGIN")
    for value in range(3):
        session.execute("SAVEPOINT s")
        write(session, "a", value)
        session.execute("RELEASE s")
    session.execute("COMMIT")
    assert written(cdf) == in_all({"a": 2})
    assert [entry["items"] for entry in requests(cdf, "/events")] == [1]
    assert [entry["points"] for entry in requests(cdf, "/timeseries/data") if entry["status"] == 200] == [2]
    assert [entry["items"] for entry in requests(cdf, "/raw/dbs/d/tables/t/rows")] == [1]


def test_statement_that_fails_in_a_savepoint_takes_only_its_own_rows(session, cdf):
    """What psqlODBC, and psql with ON_ERROR_ROLLBACK, do around each statement."""
    session.execute("BEGIN")
    write(session, "a", 1)
    session.execute("SAVEPOINT statement")
    with pytest.raises(errors.DivisionByZero):
        session.execute(
            "INSERT INTO events (external_id, description) SELECT 'a', 1 / (3 - i) FROM generate_series(1, 3) i"
        )
    session.execute("ROLLBACK TO statement")
    write(session, "b", 2)
    session.execute("COMMIT")
    assert written(cdf) == in_all({"a": 1, "b": 2})


def test_exception_blocks(session, cdf):
    session.execute(
        """
        DO $$
        BEGIN
          INSERT INTO events (external_id) VALUES ('outer');
          FOR i IN 1..20 LOOP
            BEGIN
              INSERT INTO events (external_id) VALUES ('e' || i);
              BEGIN
                INSERT INTO events (external_id) VALUES ('inner' || i);
                PERFORM 1 / (i % 5);
              EXCEPTION WHEN division_by_zero THEN
                INSERT INTO events (external_id) VALUES ('handler' || i);
              END;
              PERFORM 1 / (i % 2);
            EXCEPTION WHEN division_by_zero THEN
              NULL;
            END;
          END LOOP;
        END $$
        """
    )
    kept = [i for i in range(1, 21) if i % 2]
    expected = [f"e{i}" for i in kept] + [f"{'inner' if i % 5 else 'handler'}{i}" for i in kept]
    assert names(cdf, "events") == sorted(expected + ["outer"])


@pytest.mark.parametrize("nested", [False, True], ids=["one after another", "nested"])
def test_five_hundred_savepoints(session, cdf, nested):
    session.execute("BEGIN")
    for n in range(500):
        session.execute(f"SAVEPOINT s{n}")
        session.execute("INSERT INTO events (external_id, description) VALUES (%s, %s), ('same', %s)", [f"e{n}", n, n])
        if not nested:
            session.execute(f"{'RELEASE' if n % 2 else 'ROLLBACK TO'} s{n}")
    if nested:
        session.execute("ROLLBACK TO s250")
    session.execute("COMMIT")
    kept = range(250) if nested else range(1, 500, 2)
    events = {item["externalId"]: item["description"] for item in dump(cdf, "events")}
    assert events == {f"e{n}": str(n) for n in kept} | {"same": str(kept[-1])}


def test_portal_that_outlives_a_savepoint(session, cdf):
    """A statement that begins before a savepoint and goes on after it: its rows belong to where they are written."""
    session.execute("BEGIN")
    session.execute("DECLARE numbers CURSOR FOR SELECT i FROM generate_series(1, 10) i")
    session.execute("SAVEPOINT s")
    (number,) = session.execute("FETCH numbers").fetchone()
    event(session, f"e{number}")
    session.execute("ROLLBACK TO s")
    (number,) = session.execute("FETCH numbers").fetchone()
    event(session, f"e{number}")
    session.execute("COMMIT")
    assert names(cdf, "events") == [f"e{number}"]


@pytest.mark.parametrize("memory", ["64MB", "1MB"])
def test_savepoint_over_several_requests_of_points(session, cdf, memory):
    def insert(series: str, count: int, value: int) -> None:
        session.execute(
            'INSERT INTO datapoints (external_id, "timestamp", value)'
            " SELECT %s, to_timestamp(i), %s FROM generate_series(1, %s) i",
            [series, value, count],
        )

    session.execute("SELECT set_config('cdf_fdw.buffer_memory', %s, false)", [memory])
    session.execute("BEGIN")
    insert("s", 150_000, 1)
    session.execute("SAVEPOINT s")
    insert("s", 120_000, 2)
    insert("undone", 1000, 2)
    session.execute("ROLLBACK TO s")
    insert("s", 10, 3)
    session.execute("COMMIT")
    values = [3] * 10 + [1] * 149_990
    assert series(cdf, "s")["checksum"] == checksum(range(1000, 150_001_000, 1000), values)
    assert [item["externalId"] for item in dump(cdf, "timeseries")] == ["s"]


# Random transactions, compared with PostgreSQL's own tables.


@dataclass
class Model:
    """Writes the same to CDF and to ordinary tables, in the same transactions."""

    session: psycopg.Connection
    random: random.Random
    padding: int
    writes: int = 0
    savepoints: list[str] = field(default_factory=list)

    TABLES = """
        CREATE TEMPORARY TABLE model_events (key text PRIMARY KEY, type text, description text);
        CREATE TEMPORARY TABLE model_points (series text, ms bigint, value float8, PRIMARY KEY (series, ms));
        CREATE TEMPORARY TABLE model_raw (key text PRIMARY KEY, columns jsonb);
    """
    # Each makes a row of the foreign table and of the model from the same expressions.
    EVENTS = """
        INSERT INTO events (external_id, type, description) SELECT 'e' || i, {type}, {text} FROM {numbers};
        INSERT INTO model_events SELECT 'e' || i, {type}, {text} FROM {numbers}
          ON CONFLICT (key) DO UPDATE SET type = coalesce(excluded.type, model_events.type),
            description = coalesce(excluded.description, model_events.description)
    """
    POINTS = """
        INSERT INTO datapoints (external_id, "timestamp", value)
          SELECT 's' || i % 7, to_timestamp(i), {n} FROM {numbers};
        INSERT INTO model_points SELECT 's' || i % 7, i * 1000, {n} FROM {numbers}
          ON CONFLICT (series, ms) DO UPDATE SET value = excluded.value
    """
    RAW = """
        INSERT INTO raw_rows (db_name, table_name, key, columns)
          SELECT 'd', 't', 'r' || i, {document} FROM {numbers};
        INSERT INTO model_raw SELECT 'r' || i, {document} FROM {numbers}
          ON CONFLICT (key) DO UPDATE SET columns = excluded.columns
    """

    def transaction(self) -> None:
        self.session.execute("BEGIN")
        self.savepoints = []
        for _ in range(self.random.randint(5, 16)):
            steps = [self.write, self.write, self.write, self.savepoint, self.back, self.release, self.exception_block]
            self.random.choice(steps)()

    def write(self) -> None:
        self.session.execute(self.statements())

    def statements(self) -> str:
        self.writes += 1
        first = self.random.randint(1, 3000)
        # More than one request of items now and then, often only a few rows.
        numbers = f"generate_series({first}, {first + self.random.choice([0, 5, 1200, 2500])}) i"
        text = f"rpad('{self.writes}', {5 + self.padding}, '{self.writes} ')"
        return self.random.choice([self.EVENTS, self.EVENTS, self.POINTS, self.RAW]).format(
            numbers=numbers,
            n=self.writes,
            type=self.random.choice(["NULL", f"'type {self.writes}'"]),
            text=self.random.choice(["NULL", text, text]),
            document=f"""jsonb_build_object('n', {self.writes}, 'text', {text})""",
        )

    def savepoint(self) -> None:
        self.savepoints.append(self.random.choice("xyz"))
        self.session.execute(f"SAVEPOINT {self.savepoints[-1]}")

    def back(self) -> None:
        if at := self.chosen():
            self.session.execute(f"ROLLBACK TO {self.savepoints[at - 1]}")
            del self.savepoints[at:]

    def release(self) -> None:
        if at := self.chosen():
            self.session.execute(f"RELEASE {self.savepoints[at - 1]}")
            del self.savepoints[at - 1 :]

    def chosen(self) -> int:
        """How many savepoints there are up to the one that a random name means: the last of that name. 0: none."""
        if not self.savepoints:
            return 0
        name = self.random.choice(self.savepoints)
        return len(self.savepoints) - self.savepoints[::-1].index(name)

    def exception_block(self) -> None:
        failing = self.random.choice(["", "PERFORM 1 / 0;"])
        self.session.execute(
            f"DO $$ BEGIN {self.statements()}; {failing} EXCEPTION WHEN division_by_zero THEN NULL; END $$"
        )

    def expected(self) -> tuple[dict, dict, dict]:
        query = self.session.execute
        return (
            {key: (type, text) for key, type, text in query("SELECT * FROM model_events")},
            {(series, ms): value for series, ms, value in query("SELECT * FROM model_points")},
            dict(query("SELECT * FROM model_raw").fetchall()),
        )


def in_cdf(cdf) -> tuple[dict, dict, dict]:
    return (
        {item["externalId"]: (item.get("type"), item.get("description")) for item in dump(cdf, "events")},
        {(p["externalId"], p["timestamp"]): p["value"] for p in dump(cdf, "datapoints")},
        {row["key"]: row["columns"] for row in dump(cdf, "raw")},
    )


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize(("memory", "padding"), [("64MB", 0), ("1MB", 450)], ids=["in memory", "spilling"])
def test_random_transactions(cluster, loader, cdf, memory, padding, seed):
    with loader.connect(autocommit=True) as session:
        session.execute(Model.TABLES)
        session.execute("SELECT set_config('cdf_fdw.buffer_memory', %s, false)", [memory])
        model = Model(session, random.Random(seed), padding)
        spilled = 0
        for _ in range(5):
            model.transaction()
            spilled += temporary_files(cluster)
            session.execute(model.random.choice(["COMMIT", "COMMIT", "COMMIT", "ROLLBACK"]))
            assert in_cdf(cdf) == model.expected()
        assert model.expected() != ({}, {}, {})
        assert (spilled > 0) == (padding > 0)


# What belongs to the same transaction.


def test_rows_of_a_deferred_trigger_are_delivered(cluster, loader, session, cdf, local):
    script(
        cluster,
        loader,
        """
        CREATE FUNCTION forward() RETURNS trigger LANGUAGE plpgsql AS $$
          BEGIN INSERT INTO events (external_id) VALUES ('e' || NEW.id); RETURN NULL; END $$;
        CREATE CONSTRAINT TRIGGER forward AFTER INSERT ON local DEFERRABLE INITIALLY DEFERRED
          FOR EACH ROW EXECUTE FUNCTION forward();
        """,
    )
    session.execute("BEGIN")
    session.execute("INSERT INTO local SELECT generate_series(1, 3)")
    session.execute("COMMIT")
    assert names(cdf, "events") == ["e1", "e2", "e3"]
    script(cluster, loader, "DROP FUNCTION forward() CASCADE")


def test_rows_of_a_cursor_that_is_held_are_delivered(cluster, loader, session, cdf):
    """COMMIT runs its query to the end, and with it what its function writes."""
    script(
        cluster,
        loader,
        """
        CREATE OR REPLACE FUNCTION note(i int) RETURNS int VOLATILE LANGUAGE sql AS $$
          INSERT INTO events (external_id) VALUES ('e' || i); SELECT i $$
        """,
    )
    session.execute("BEGIN")
    session.execute("DECLARE noted CURSOR WITH HOLD FOR SELECT note(i) FROM generate_series(1, 5) i")
    session.execute("FETCH 2 FROM noted")
    session.execute("COMMIT")
    assert names(cdf, "events") == [f"e{i}" for i in range(1, 6)]
    assert len(session.execute("FETCH ALL FROM noted").fetchall()) == 3


@pytest.mark.parametrize(
    "drop", ["FOREIGN TABLE {schema}.events", "USER MAPPING FOR {user} SERVER {server}", "SERVER {server} CASCADE"]
)
def test_what_is_dropped_later_in_the_transaction_still_delivers(cluster, emulator, cdf, drop):
    """The rows were written while it was there."""
    other, server = register_apart(cluster, emulator)
    objects = {"schema": other.schema, "user": other.username, "server": server}
    with cluster.connect(autocommit=False) as connection:
        connection.execute(sql.SQL("SET ROLE {}").format(sql.Identifier(other.username)))
        connection.execute(f"INSERT INTO {other.schema}.events (external_id) VALUES ('e')")
        connection.execute("RESET ROLE")
        connection.execute(f"DROP {drop.format(**objects)}")
        connection.commit()
    assert names(cdf, "events") == ["e"]


def test_deferred_constraint_that_fails_sends_nothing(cluster, loader, session, cdf, local):
    script(cluster, loader, "ALTER TABLE local ADD UNIQUE (id) DEFERRABLE INITIALLY DEFERRED")
    session.execute("BEGIN")
    event(session, "e")
    session.execute("INSERT INTO local VALUES (1), (1)")
    with pytest.raises(errors.UniqueViolation):
        session.execute("COMMIT")
    assert requests(cdf) == []


def test_refusal_rolls_back_the_local_tables_and_leaves_a_clean_session(session, cdf, local):
    fault(cdf, "/events", status=400, times=1)
    session.execute("BEGIN")
    session.execute("INSERT INTO local VALUES (1)")
    event(session, "refused")
    with pytest.raises(errors.InvalidParameterValue):
        session.execute("COMMIT")
    assert session.info.transaction_status == TransactionStatus.IDLE
    assert session.execute("SELECT count(*) FROM local").fetchone() == (0,)
    session.execute("BEGIN")
    session.execute("INSERT INTO local VALUES (2)")
    event(session, "next")
    session.execute("COMMIT")
    assert session.execute("SELECT id FROM local").fetchall() == [(2,)]
    assert names(cdf, "events") == ["next"]


@pytest.mark.parametrize("begin", ["BEGIN READ ONLY", "BEGIN; SET TRANSACTION READ ONLY"])
def test_read_only_transaction_writes_nothing(session, cdf, begin):
    session.execute(begin)
    with pytest.raises(errors.ReadOnlySqlTransaction):
        event(session, "e")
    session.execute("COMMIT")
    assert requests(cdf) == []


def test_transaction_that_becomes_read_only_still_delivers(session, cdf):
    session.execute("BEGIN")
    event(session, "e")
    session.execute("SET TRANSACTION READ ONLY")
    session.execute("COMMIT")
    assert names(cdf, "events") == ["e"]


def test_prepare_transaction_is_refused_once_rows_are_buffered(emulator, cdf):
    with own_cluster("max_prepared_transactions=5") as cluster:
        loader = register(cluster, emulator)
        cdf.admin_delete("requests")
        with loader.connect(autocommit=True) as session:
            session.execute("BEGIN")
            event(session, "refused")
            with pytest.raises(errors.FeatureNotSupported, match="PREPARE"):
                session.execute("PREPARE TRANSACTION 'with rows'")
            assert session.info.transaction_status == TransactionStatus.IDLE
            assert session.execute("SELECT count(*) FROM pg_prepared_xacts").fetchone() == (0,)

            session.execute("BEGIN")
            session.execute("SELECT 1")
            session.execute("PREPARE TRANSACTION 'without'")
            session.execute("COMMIT PREPARED 'without'")

            session.execute("BEGIN")
            session.execute("SAVEPOINT s")
            event(session, "rolled back")
            session.execute("ROLLBACK TO s")
            session.execute("PREPARE TRANSACTION 'none left'")
            session.execute("ROLLBACK PREPARED 'none left'")
            assert requests(cdf) == []

            event(session, "next")
            assert names(cdf, "events") == ["next"]


def write_skew(loader, session, other):
    """Two transactions that have each read what the other is to write."""
    for each in (session, other):
        each.execute("BEGIN ISOLATION LEVEL SERIALIZABLE")
        each.execute("SELECT count(*) FROM local")


@pytest.mark.parametrize("deferred", [False, True], ids=["statement", "deferred trigger"])
def test_serialization_failure_comes_before_anything_is_sent(cluster, loader, session, cdf, local, deferred):
    if deferred:
        script(
            cluster,
            loader,
            """CREATE FUNCTION to_cdf() RETURNS trigger LANGUAGE plpgsql AS
               $$ BEGIN INSERT INTO events (external_id) VALUES ('t' || NEW.id); RETURN NULL; END $$;
               CREATE CONSTRAINT TRIGGER late AFTER INSERT ON local DEFERRABLE INITIALLY DEFERRED
               FOR EACH ROW EXECUTE FUNCTION to_cdf()""",
        )
    try:
        with loader.connect(autocommit=True) as other:
            write_skew(loader, session, other)
            for each, number in ((session, 1), (other, 2)):
                each.execute("INSERT INTO local VALUES (%s)", (number,))
                if not deferred:
                    event(each, f"t{number}")
            session.execute("COMMIT")
            with refused("40001"):
                other.execute("COMMIT")
            assert other.info.transaction_status == TransactionStatus.IDLE
            assert names(cdf, "events") == ["t1"]
            assert len(requests(cdf)) == 1
            event(other, "later")
    finally:
        if deferred:
            script(cluster, loader, "DROP FUNCTION to_cdf() CASCADE")
    assert names(cdf, "events") == ["later", "t1"]


def test_transaction_that_delivers_is_not_the_victim_of_a_later_conflict(loader, session, cdf, local):
    fault(cdf, "/events", "delay", delay_ms=1500, times=1)
    with loader.connect(autocommit=True) as other, ThreadPoolExecutor() as pool:
        write_skew(loader, session, other)
        session.execute("INSERT INTO local VALUES (1)")
        event(session, "first")
        commit = pool.submit(session.execute, "COMMIT")
        wait_for_request(cdf)
        # While the rows of the one are under way, the other would have to come before it, and after it.
        with refused("40001"):
            other.execute("INSERT INTO local VALUES (2)")
            event(other, "second")
            other.execute("COMMIT")
        other.execute("ROLLBACK")
        assert commit.result().statusmessage == "COMMIT"
    assert names(cdf, "events") == ["first"]
    assert session.execute("SELECT id FROM local").fetchall() == [(1,)]


def test_two_servers_and_two_roles_in_one_transaction(cluster, loader, session, emulator, cdf):
    cdf.admin_post("clients", {"client_id": "second", "client_secret": "s", "projects": ["second-project"]})
    other, _ = register_apart(cluster, emulator, client_id="second", client_secret="s", project="second-project")
    cdf.admin_delete("requests")
    with cluster.connect() as connection:
        # Through a view its owner's mapping counts: here that of another role, on another server.
        connection.execute(
            sql.SQL(
                "GRANT USAGE ON SCHEMA {schema} TO {user};"
                " CREATE VIEW {view} AS SELECT external_id FROM {table}; ALTER VIEW {view} OWNER TO {owner};"
                " GRANT INSERT ON {view} TO {user}"
            ).format(
                schema=sql.Identifier(other.schema),
                view=sql.Identifier(other.schema, "their_events"),
                table=sql.Identifier(other.schema, "events"),
                owner=sql.Identifier(other.username),
                user=sql.Identifier(loader.username),
            )
        )
    session.execute("BEGIN")
    event(session, "mine")
    session.execute(f"INSERT INTO {other.schema}.their_events VALUES ('theirs')")
    session.execute("COMMIT")
    sent = [(entry["client_id"], entry["project"], entry["external_ids"]) for entry in requests(cdf, "/events")]
    assert sorted(sent) == [
        ("second", "second-project", ["theirs"]),
        (cdf.client_id, cdf.project, ["mine"]),
    ]


# The order of requests.


def test_resources_go_in_the_order_of_their_dependencies(session, cdf):
    # Long enough to tell one after another from at the same time.
    for path in ("/assets", "/timeseries", "/events", "/timeseries/data", "/raw/dbs/d/tables/t/rows"):
        fault(cdf, path, "delay", delay_ms=150)
    session.execute("BEGIN")
    session.execute(
        """INSERT INTO datapoints (external_id, "timestamp", value)
           SELECT 's' || i % 2, to_timestamp(i), i FROM generate_series(1, 150000) i"""
    )
    event(session, "e", asset_external_ids=["child 7"])
    session.execute("INSERT INTO timeseries (external_id, asset_external_id) VALUES ('s0', 'root'), ('s1', 'child 8')")
    session.execute(
        "INSERT INTO assets (external_id, name, parent_external_id)"
        " SELECT 'child ' || i, i, 'root' FROM generate_series(1, 1100) i"
    )
    session.execute("INSERT INTO assets (external_id, name) VALUES ('root', 'root')")
    session.execute("INSERT INTO raw_rows (db_name, table_name, key, columns) VALUES ('d', 't', 'k', '{}')")
    session.execute("COMMIT")

    def span(path: str) -> tuple[int, int]:
        entries = requests(cdf, path)
        assert {entry["status"] for entry in entries} <= {200, 201}, entries
        return min(entry["started_ms"] for entry in entries), max(entry["ended_ms"] for entry in entries)

    assets, series, events, points = map(span, ("/assets", "/timeseries", "/events", "/timeseries/data"))
    assert assets[1] <= series[0] and series[1] <= points[0]
    assert assets[1] <= events[0]
    # RAW refers to nothing and waits for nobody.
    assert span("/raw/dbs/d/tables/t/rows")[0] < assets[1]


def test_parents_go_before_children_across_requests(session, cdf):
    # A chain, children first, over more rows than a request takes.
    session.execute(
        "INSERT INTO assets (external_id, name, parent_external_id)"
        " SELECT 'a' || i, i, CASE WHEN i > 1 THEN 'a' || i / 2 END FROM generate_series(2500, 1, -1) i"
    )
    assets = {item["externalId"]: item for item in dump(cdf, "assets")}
    assert len(assets) == 2500
    root = assets["a1"]["id"]
    assert {item["rootId"] for item in assets.values()} == {root}
    assert assets["a2500"]["parentExternalId"] == "a1250"
    assert {entry["status"] for entry in requests(cdf, "/assets")} == {201}


def test_cycle_of_parents_is_refused_before_anything_is_sent(session, cdf):
    with refused("22023", '"north"', '"south"', "cycle"):
        session.execute(
            "INSERT INTO assets (external_id, name, parent_external_id)"
            " VALUES ('north', 'n', 'south'), ('south', 's', 'north'), ('apart', 'a', NULL)"
        )
    assert requests(cdf) == []


# Settings of a transaction.


@pytest.mark.parametrize("at_once", [1, 3])
def test_set_local_counts_at_commit(session, cdf, at_once):
    event(session, "first")
    for path in ("/events", "/raw/dbs/d/tables/t/rows"):
        fault(cdf, path, "delay", delay_ms=150)
    before = session.execute("SHOW cdf_fdw.max_concurrent_requests").fetchone()
    session.execute("BEGIN")
    session.execute(f"SET LOCAL cdf_fdw.max_concurrent_requests = {at_once}")
    session.execute("INSERT INTO events (external_id) SELECT 'e' || i FROM generate_series(1, 4000) i")
    session.execute(
        "INSERT INTO raw_rows (db_name, table_name, key) SELECT 'd', 't', i::text FROM generate_series(1, 15000) i"
    )
    session.execute("COMMIT")
    # For all of the session's requests together.
    assert cdf.admin_get("stats")["max_in_flight"] == at_once
    assert len(requests(cdf, "/events")) == 5 and len(requests(cdf, "/raw/dbs/d/tables/t/rows")) == 3
    assert session.execute("SHOW cdf_fdw.max_concurrent_requests").fetchone() == before
