"""What Azure Data Factory does with a sink, as far as it is documented, through its driver: Npgsql.

Data Factory itself cannot be reached from here, and Microsoft documents no SQL of it. `Sink` does what a Copy activity does
around its rows: it tests the connection, lists tables, imports the schema, runs the pre-copy script, and writes batches, each
a transaction of its own, by one of its write methods. Of *Upsert* it has each of the three ways that its documentation
leaves open.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import count

import pytest
from faults import fault
from harness import Gateway
from npgsql import Connection, Npgsql, NpgsqlError
from sites import Site
from support import Api, dump, millis, names, points, requests, stored

# Data Factory's own default is 1,000,000 rows.
BATCH = 400
WRITE_METHODS = ["copy text", "copy binary", "bulk insert", "upsert by conflict", "upsert by staging", "upsert by update"]
MOVIES = '{"title": {"type": "TEXT"}, "year": {"type": "BIGINT"}, "rating": {"type": "DOUBLE PRECISION"}, "seen": {"type": "BOOL"}}'


@dataclass(frozen=True)
class Place:
    """A linked service's database, and the schema of a dataset."""

    gateway: Gateway
    schema: str
    naming: str

    def column(self, name: str) -> str:
        first, *others = name.split("_")
        return name if self.naming == "snake_case" else first + "".join(part.capitalize() for part in others)


@pytest.fixture(scope="module")
def places(cluster, emulator):
    """`public`: as with Cognite's hosted gateway; `facade`: a schema of the role's own, with partitioned tables."""
    emulator.reset()
    name = "data_factory_test"
    with cluster.connect() as connection:
        connection.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")
        connection.execute(f"CREATE DATABASE {name}")
    site = Site(cluster, emulator, name)
    made = {}
    with site.superuser() as connection:
        connection.execute("CREATE EXTENSION cdf_fdw")
        for place, more in (("public", {"schema": "public", "naming": "camelCase"}), ("facade", {})):
            username, password, database, schema = site.register(connection, username=f"adf_{place}", **more)
            movies = [username, "movies", "films", "movies", MOVIES, "title"]
            connection.execute("SELECT cdf_create_raw_table(%s, %s, %s, %s, %s, %s)", movies)
            gateway = Gateway(username, password, database, schema, port=cluster.port)
            made[place] = Place(gateway, schema, more.get("naming", "snake_case"))
        connection.execute("SELECT cdf_create_facade('adf_facade')")
    yield made
    with cluster.connect() as connection:
        connection.execute(f"DROP DATABASE {name} WITH (FORCE)")
        connection.execute("DROP ROLE adf_public, adf_facade")


@pytest.fixture(params=["public", "facade"])
def place(request, places) -> Place:
    return places[request.param]


@pytest.fixture
def administrator(cluster):
    with Site(cluster, None, "data_factory_test").superuser() as connection:
        yield connection


@dataclass
class Sink:
    """A Copy activity's sink. The mapping: columns by their names in CDF's SQL, and the driver's types."""

    npgsql: Npgsql
    place: Place
    table: str
    mapping: dict[str, str]
    write_method: str = "bulk insert"
    keys: tuple[str, ...] = ()
    pre_copy_script: str = ""
    settings: dict = field(default_factory=dict)
    written: int = 0

    def open(self) -> Connection:
        return self.npgsql.open(self.place.gateway, **{"Pooling": "false", "Command_Timeout": 900} | self.settings)

    @property
    def name(self) -> str:
        return f'"{self.place.schema}"."{self.table}"'

    @property
    def columns(self) -> list[str]:
        return [f'"{self.place.column(name)}"' for name in self.mapping]

    def run(self, rows: list[list], batch: int = BATCH) -> int:
        """Writes all rows in batches. What is left when it fails are the batches before."""
        connection = self.open()
        self.written = 0
        try:
            if self.pre_copy_script:
                connection.execute(self.pre_copy_script)
            for part in (rows[at : at + batch] for at in range(0, len(rows), batch)):
                connection.begin()
                try:
                    self.write(connection, part)
                except NpgsqlError:
                    connection.rollback()
                    raise
                connection.commit()
                self.written += len(part)
            return self.written
        finally:
            connection.close()

    def write(self, connection: Connection, rows: list[list]) -> None:
        method, _, how = self.write_method.partition(" ")
        if method == "copy":
            self.copy(connection, self.name, self.columns, rows, binary=how == "binary")
        elif method == "bulk":
            self.insert(connection, rows)
        elif how == "by conflict":
            self.insert(connection, rows, self.on_conflict())
        elif how == "by staging":
            listed = ", ".join(self.columns)
            connection.execute(f"CREATE TEMP TABLE staging ON COMMIT DROP AS SELECT {listed} FROM {self.name} LIMIT 0")
            self.copy(connection, "staging", self.columns, rows, binary=True)
            connection.execute(f"INSERT INTO {self.name} ({listed}) SELECT {listed} FROM staging {self.on_conflict()}")
        else:
            self.update_or_insert(connection, rows)

    def copy(self, connection: Connection, table: str, columns: list[str], rows: list[list], binary: bool) -> None:
        statement = f"COPY {table} ({', '.join(columns)}) FROM STDIN"
        if binary:
            kinds = list(self.mapping.values())
            connection.do("copy_binary", sql=f"{statement} (FORMAT BINARY)", kinds=kinds, rows=rows)
        else:
            shown = lambda value: "\\N" if value is None else str(value).lower() if isinstance(value, bool) else str(value)  # noqa: E731
            text = "".join("\t".join(shown(value) for value in row) + "\n" for row in rows)
            connection.do("copy_text", sql=statement, text=text)

    def insert(self, connection: Connection, rows: list[list], clause: str = "") -> None:
        numbers = count()
        values = ",".join(f"({','.join(f'@p{next(numbers)}' for _ in row)})" for row in rows)
        parameters = [(kind, value) for row in rows for kind, value in zip(self.mapping.values(), row, strict=True)]
        connection.execute(f"INSERT INTO {self.name} ({', '.join(self.columns)}) VALUES {values} {clause}", parameters)

    def on_conflict(self) -> str:
        key = [f'"{self.place.column(name)}"' for name in self.keys]
        sets = ", ".join(f"{column} = EXCLUDED.{column}" for column in self.columns if column not in key)
        return f"ON CONFLICT ({', '.join(key)}) DO UPDATE SET {sets}"

    def update_or_insert(self, connection: Connection, rows: list[list]) -> None:
        key = [f'"{self.place.column(name)}"' for name in self.keys]
        listed = list(zip(self.columns, self.mapping.values(), strict=True))
        for row in rows:
            sets = ", ".join(f"{column} = @p{at}" for at, (column, _) in enumerate(listed) if column not in key)
            where = " AND ".join(f"{column} = @p{at}" for at, (column, _) in enumerate(listed) if column in key)
            parameters = [(kind, value) for (_, kind), value in zip(listed, row, strict=True)]
            if connection.execute(f"UPDATE {self.name} SET {sets} WHERE {where}", parameters) == 0:
                self.insert(connection, [row])


EVENTS = {"external_id": "Text", "start_time": "TimestampTz", "type": "Text", "description": "Text"}


def events(first: int, last: int, kind: str = "x") -> list[list]:
    """Of the first half of them the description is not known."""
    return [
        [f"e{at:04}", f"2026-01-01T{at // 3600:02}:{at // 60 % 60:02}:{at % 60:02}Z", kind, None if at < 500 else f"number {at}"]
        for at in range(first, last)
    ]


def kinds(cdf) -> dict[str, str]:
    return {event["externalId"]: event["type"] for event in dump(cdf, "events")}


# ---- the linked service, the dataset, the mapping ----


LINKED_SERVICES = {
    # Version 1.0: a connection string.
    "1.0": "Server=127.0.0.1;Database={database};Port={port};UID={username};Password={password};Pooling=false",
    # Version 2.0: properties, called as the driver calls them.
    "2.0": "Host=127.0.0.1;Port={port};Database={database};Username={username};Password={password};SSL Mode=Prefer;"
    "Timeout=15;Command Timeout=900;Search Path={schema};Encoding=UTF8;Read Buffer Size=8192;Pooling=true;Trust Server Certificate=true",
}


@pytest.mark.parametrize("version", LINKED_SERVICES)
def test_the_connection_of_a_linked_service(npgsql, place, cdf, version):
    gateway = place.gateway
    parts = {"username": gateway.username, "password": gateway.password, "database": gateway.database, "port": gateway.port}
    connection = Connection(npgsql, 10_000 + len(version) + hash(place.schema) % 1000)
    connection.do("open", string=LINKED_SERVICES[version].format(schema=place.schema, **parts))
    try:
        assert connection.query("SELECT 1") == [[1]]
        # The role's own setting holds where the linked service names no zone.
        assert connection.query("SHOW timezone") == [["UTC"]]
    finally:
        connection.close()


def test_a_wrong_password_is_told(npgsql, place, cdf):
    with pytest.raises(NpgsqlError) as caught:
        npgsql.open(place.gateway, Password="wrong", Pooling="false")
    assert caught.value.sqlstate == "28P01"


def test_the_list_of_tables_and_the_import_of_a_schema(npgsql, place, cdf):
    sink = Sink(npgsql, place, "events", EVENTS)
    connection = sink.open()
    try:
        listed = {row["table_name"] for row in connection.do("schema", collection="Tables", restrictions=[None, place.schema])}
        everything = "SELECT table_name FROM information_schema.tables WHERE table_schema = @p0"
        found = {name for (name,) in connection.query(everything, [("Text", place.schema)])}
        assert {"assets", "events", "datapoints", "movies", "extraction_pipeline_runs"} <= found
        # A list of base tables only has them if they are partitioned ones.
        assert ("events" in listed) == (place.schema != "public")
        shape = {row["ColumnName"]: row["DataTypeName"] for row in connection.do("columns", sql=f"SELECT * FROM {sink.name}")}
        assert shape[place.column("external_id")] == "text"
        assert shape[place.column("start_time")] == "timestamp with time zone"
        assert shape["metadata"] == "jsonb" and shape[place.column("asset_ids")] == "bigint[]"
        assert requests(cdf) == []
        # What previews do.
        assert connection.query(f"SELECT * FROM {sink.name} LIMIT 0") == []
        assert requests(cdf) == []
    finally:
        connection.close()


# ---- the write methods ----


@pytest.mark.parametrize("write_method", WRITE_METHODS)
def test_events_by_each_write_method(npgsql, place, cdf, write_method):
    sink = Sink(npgsql, place, "events", EVENTS, write_method, keys=("external_id",))
    # One request for each row is what UPDATE and INSERT of single rows come to.
    rows = events(0, 1000) if write_method != "upsert by update" else events(480, 520)
    assert sink.run(rows) == len(rows)
    expected = [(key, millis(at.rstrip("Z")), kind, text) for key, at, kind, text in rows]
    found = [(e["externalId"], e["startTime"], e["type"], e.get("description")) for e in dump(cdf, "events")]
    assert sorted(found) == expected
    # The same again, with other values: no event is there twice.
    again = [[*row[:2], "y", None] for row in rows[10:30]]
    assert sink.run(again) == 20
    assert len(kinds(cdf)) == len(rows) and sum(kind == "y" for kind in kinds(cdf).values()) == 20


@pytest.mark.parametrize("write_method", WRITE_METHODS[:5])
def test_points_by_each_write_method(npgsql, place, cdf, api, write_method):
    api.create("timeseries", "s")
    mapping = {"external_id": "Text", "timestamp": "TimestampTz", "value": "Double"}
    sink = Sink(npgsql, place, "datapoints", mapping, write_method, keys=("external_id", "timestamp"))
    rows = [["s", f"2026-01-01T00:{at // 60:02}:{at % 60:02}Z", at / 4] for at in range(1000)]
    assert sink.run(rows) == 1000 and sink.run(rows[:5]) == 5
    start = millis("2026-01-01")
    assert points(cdf, "s") == [(start + at * 1000, at / 4, None) for at in range(1000)]


@pytest.mark.parametrize("write_method", WRITE_METHODS)
def test_rows_of_a_table_of_raw_by_each_write_method(npgsql, place, cdf, write_method):
    mapping = {"title": "Text", "year": "Bigint", "rating": "Double", "seen": "Boolean"}
    sink = Sink(npgsql, place, "movies", mapping, write_method, keys=("title",))
    assert sink.run([["Alien", 1979, 8.5, True], ["Solaris", 1972, None, False]]) == 2
    assert sink.run([["Alien", 1979, 9.0, True]]) == 1
    assert stored(cdf, "raw", "Alien")["columns"] == {"title": "Alien", "year": 1979, "rating": 9.0, "seen": True}
    assert names(cdf, "raw") == ["Alien", "Solaris"]


@pytest.mark.parametrize("write_method", ["copy text", "bulk insert"])
def test_a_hierarchy_in_any_order(npgsql, place, cdf, write_method):
    mapping = {"external_id": "Text", "name": "Text", "parent_external_id": "Text"}
    sink = Sink(npgsql, place, "assets", mapping, write_method)
    assert sink.run([["leaf", "l", "middle"], ["middle", "m", "root"], ["root", "r", None]]) == 3
    found = {asset["externalId"]: asset.get("parentExternalId") for asset in dump(cdf, "assets")}
    assert found == {"leaf": "middle", "middle": "root", "root": None}


def test_strings_for_documents(npgsql, place, cdf):
    mapping = {"external_id": "Text", "metadata": "Text"}
    for method, key in (("bulk insert", "a"), ("copy text", "b")):
        Sink(npgsql, place, "events", mapping, method).run([[key, '{"k": "v"}']])
        assert stored(cdf, "events", key)["metadata"] == {"k": "v"}
    with pytest.raises(NpgsqlError, match="jsonb version"):
        Sink(npgsql, place, "events", mapping, "copy binary").run([["c", '{"k": "v"}']])


def test_a_batch_of_more_parameters_than_the_protocol_takes(npgsql, place, cdf):
    rows = [[f"e{at}", None, "x", None] for at in range(20_000)]
    sink = Sink(npgsql, place, "events", EVENTS)
    with pytest.raises(NpgsqlError, match="65535"):
        sink.run(rows, batch=20_000)
    assert requests(cdf) == []
    assert sink.run(rows[:7500], batch=7500) == 7500


# ---- times ----


@pytest.mark.parametrize("write_method", ["copy text", "copy binary", "bulk insert"])
@pytest.mark.parametrize("zone", ["", "Asia/Tokyo"])
def test_a_time_without_a_zone_in_a_table_for_it(npgsql, place, cdf, administrator, write_method, zone):
    name = place.column("start_time")
    administrator.execute(
        f'CREATE FOREIGN TABLE "{place.schema}".events_utc ("{place.column("external_id")}" text, "{name}" timestamp)'
        " SERVER cdf OPTIONS (resource 'events')"
    )
    try:
        administrator.execute(f'GRANT SELECT, INSERT ON "{place.schema}".events_utc TO {place.gateway.username}')
        mapping = {"external_id": "Text", "start_time": "Timestamp"}
        settings = {"Timezone": zone} if zone else {}
        sink = Sink(npgsql, place, "events_utc", mapping, write_method, settings=settings)
        sink.run([["e", "2026-07-01T12:00:00"]])
        assert stored(cdf, "events", "e")["startTime"] == millis("2026-07-01 12:00")
    finally:
        administrator.execute(f'DROP FOREIGN TABLE "{place.schema}".events_utc')


def test_a_time_with_an_offset(npgsql, place, cdf):
    mapping = {"external_id": "Text", "start_time": "Offset"}
    Sink(npgsql, place, "events", mapping).run([["e", "2026-07-01T12:00:00+02:00"]])
    assert stored(cdf, "events", "e")["startTime"] == millis("2026-07-01 10:00")


# ---- batches, retries, the pre-copy script ----


@pytest.mark.parametrize("write_method", ["copy binary", "bulk insert", "upsert by staging"])
def test_a_batch_that_is_refused_leaves_those_before_it_and_a_retry_ends_alike(npgsql, place, cdf, write_method):
    mapping = EVENTS | {"data_set_id": "Bigint"}
    sink = Sink(npgsql, place, "events", mapping, write_method, keys=("external_id",))
    rows = [[*row, None] for row in events(0, 1000)]
    rows[900][4] = 77
    with pytest.raises(NpgsqlError) as caught:
        sink.run(rows)
    # Data Factory shows the message only.
    assert caught.value.sqlstate == "23503"
    assert all(text in caught.value.message for text in ("events", "77", "x-request-id")), caught.value.message
    # The batches before it are there, and of its own rows what CDF has accepted.
    assert sink.written == 800
    assert {row[0] for row in rows[:800]} <= kinds(cdf).keys() and "e0900" not in kinds(cdf)
    rows[900][4] = None
    assert sink.run(rows) == 1000
    assert kinds(cdf) == {row[0]: "x" for row in rows}


def test_a_retry_after_an_unknown_outcome_makes_nothing_twice(npgsql, place, cdf, administrator):
    administrator.execute(f"ALTER ROLE {place.gateway.username} SET cdf_fdw.max_retries = 0")
    try:
        fault(cdf, "/events", status=503, times=1)
        sink = Sink(npgsql, place, "events", EVENTS)
        with pytest.raises(NpgsqlError) as caught:
            sink.run(events(0, 100))
        assert caught.value.sqlstate == "08006"
        assert sink.run(events(0, 100)) == 100
        assert len(dump(cdf, "events")) == 100
    finally:
        administrator.execute(f"ALTER ROLE {place.gateway.username} RESET cdf_fdw.max_retries")


def test_parallel_copies(npgsql, place, cdf):
    """Each has a connection of its own. The host runs one at a time; the transactions are open side by side."""
    sink = Sink(npgsql, place, "events", EVENTS)
    opened = [sink.open() for _ in range(4)]
    try:
        for at, connection in enumerate(opened):
            connection.begin()
            sink.write(connection, events(at * 100, at * 100 + 100))
        for connection in opened:
            connection.commit()
    finally:
        for connection in opened:
            connection.close()
    assert len(kinds(cdf)) == 400


def test_pre_copy_scripts(npgsql, place, cdf, administrator):
    rows, key = events(0, 10), f'"{place.column("external_id")}"'
    plain = Sink(npgsql, place, "events", EVENTS)
    plain.run(rows)
    some = Sink(npgsql, place, "events", EVENTS, pre_copy_script=f"DELETE FROM {plain.name} WHERE {key} < 'e0005'")
    assert some.run(events(20, 22)) == 2
    assert sorted(kinds(cdf)) == [f"e{at:04}" for at in (5, 6, 7, 8, 9, 20, 21)]
    # All of a resource: not without being asked for. Nothing is written then.
    for script in (f"DELETE FROM {plain.name}", f"TRUNCATE TABLE {plain.name}"):
        with pytest.raises(NpgsqlError) as caught:
            Sink(npgsql, place, "events", EVENTS, pre_copy_script=script).run(events(30, 31))
        assert caught.value.sqlstate == ("0A000" if "DELETE" in script else "42501")
    assert "e0030" not in kinds(cdf)
    # Options are the foreign table's, rights those of what stands before it.
    behind = place.schema if place.schema == "public" else f"{place.schema}_foreign"
    administrator.execute(f"ALTER FOREIGN TABLE {behind}.events OPTIONS (ADD truncatable 'true')")
    administrator.execute(f"GRANT TRUNCATE ON {place.schema}.events TO {place.gateway.username}")
    try:
        script = f"TRUNCATE TABLE {plain.name}"
        assert Sink(npgsql, place, "events", EVENTS, pre_copy_script=script).run(events(30, 32)) == 2
        assert sorted(kinds(cdf)) == ["e0030", "e0031"]
    finally:
        administrator.execute(f"ALTER FOREIGN TABLE {behind}.events OPTIONS (DROP truncatable)")
        administrator.execute(f"REVOKE TRUNCATE ON {place.schema}.events FROM {place.gateway.username}")


# ---- the status ----


def test_a_copy_activity_reports_the_status(npgsql, place, cdf):
    """One after the load, for each of its two outcomes, as with Cognite's hosted gateway."""
    (data_set,) = Api(cdf).create("datasets", "set")
    Api(cdf).create("extpipes", "nightly", dataSetId=data_set)
    load = Sink(npgsql, place, "events", EVENTS | {"data_set_id": "Bigint"})
    report = Sink(npgsql, place, "extraction_pipeline_runs", {"external_id": "Text", "status": "Text", "message": "Text"}, "copy text")

    def pipeline(rows: list[list]) -> None:
        try:
            load.run(rows)
        except NpgsqlError as error:
            report.run([["nightly", "failure", error.message]])
        else:
            report.run([["nightly", "success", f"{load.written} rows"]])

    pipeline([[*row, None] for row in events(0, 5)])
    pipeline([[*row, 77] for row in events(5, 6)])
    (first, second) = dump(cdf, "extpipes/runs")
    assert (first["status"], first["message"]) == ("success", "5 rows")
    assert second["status"] == "failure" and "77" in second["message"]
