"""The cases of the benchmark. Each is a function that takes the rig and returns results; CASES names them."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from statistics import median

import psycopg
from cognite.client import ClientConfig, CogniteClient, global_config
from cognite.client.credentials import OAuthClientCredentials
from cognite.client.data_classes import AssetWrite, EventWrite, RowWrite
from rig import (
    ASSET_PAIRS,
    COLUMNS,
    EVENT_PAIRS,
    RAW_COLUMNS,
    SERIES_PAIRS,
    Rig,
    Timing,
    peak_memory,
    points_query,
)

LOCAL = "against an UNLOGGED table of the same server"
PEER = "against Cognite's Python SDK"
SESSION = "of a session"
ROWS_PER_STATEMENT = 1000
SMALL_INSERTS = 300
COLD_SESSIONS = 30
BACKENDS = 16
MB = 1 << 20


@dataclass
class Cost:
    """What a million rows take: seconds of the statements and of COMMIT, CPU seconds of the session's process and of the
    sink; and the bytes of a row."""

    statements: float
    commit: float
    backend_cpu: float
    sink_cpu: float
    plain_bytes: float
    wire_bytes: float

    @classmethod
    def of(cls, runs: list[Timing], rows: int) -> Cost:
        def middle(name: str) -> float:
            return median(getattr(run, name) for run in runs) / rows

        commit = middle("commit") * 1e6
        return cls(
            statements=middle("seconds") * 1e6 - commit,
            commit=commit,
            backend_cpu=middle("backend_cpu") * 1e6,
            sink_cpu=middle("sink_cpu") * 1e6,
            plain_bytes=middle("plain_bytes"),
            wire_bytes=middle("wire_bytes"),
        )


@dataclass
class Result:
    """A line of the table. `ratio` and `goal` are there if the line has a bar in the chart."""

    group: str
    work: str
    baseline: str
    measured: str
    figure: str
    target: str
    met: bool | None
    ratio: float | None = None
    goal: float | None = None
    cost: Cost | None = None


@dataclass
class Series:
    """The runs of both sides, round by round."""

    baseline: list[Timing] = field(default_factory=list)
    measured: list[Timing] = field(default_factory=list)

    def result(self, group: str, work: str, rows: int, goal: float, target: str) -> Result:
        """The ratio of the medians, and the smallest and largest ratio of a round."""
        ours, theirs = ([run.seconds for run in runs] for runs in (self.measured, self.baseline))
        ratio = median(theirs) / median(ours)
        ratios = [base / own for base, own in zip(theirs, ours)]
        return Result(
            group=group,
            work=work,
            baseline=throughput(rows, median(theirs)),
            measured=throughput(rows, median(ours)),
            figure=f"**{ratio:.2f}** ({min(ratios):.2f} – {max(ratios):.2f})",
            target=target,
            met=ratio >= goal,
            ratio=ratio,
            goal=goal,
            cost=Cost.of(self.measured, rows),
        )


def throughput(rows: int, seconds: float) -> str:
    rate = rows / seconds
    per_second = f"{rate / 1e6:.2f} M/s" if rate >= 1e6 else f"{rate / 1e3:.0f} k/s"
    return f"{seconds:.3f} s, {per_second}" if seconds < 10 else f"{seconds:.1f} s, {per_second}"


def alternate(rig: Rig, measured: Callable[[], Timing], baseline: Callable[[], Timing]) -> Series:
    """Both in every round, in changing order; the first round only warms up."""
    series = Series()
    for number in range(rig.rounds + 1):
        sides = [(series.measured, measured), (series.baseline, baseline)]
        for runs, side in sides if number % 2 else reversed(sides):
            timing = side()
            if number:
                runs.append(timing)
    return series


def against_local(
    rig: Rig,
    work: str,
    table: str,
    load: Callable[[str], Callable[[psycopg.Connection], object]],
    rows: int,
    goal: float,
    expected: dict[str, int],
    latency: int = 0,
) -> Result:
    """The same statements on the foreign table and on the local one. `load` makes them for a schema."""
    resource = "raw_rows" if table == "readings" else table
    foreign, local = load(rig.foreign), load("local")
    with rig.gateway.connect() as session:
        def into_cdf() -> Timing:
            rig.sink.reset()
            return rig.verify(rig.run(session, foreign), resource, **expected)

        def into_local() -> Timing:
            session.execute(f"TRUNCATE local.{table}")
            session.commit()
            return rig.run(session, local)

        rig.sink.latency(latency)
        try:
            series = alternate(rig, into_cdf, into_local)
        finally:
            rig.sink.latency(0)
    return series.result(LOCAL, work, rows, goal, f"≥ {goal:g}")


def copy(rig: Rig, table: str, file: str, options: str) -> Callable[[str], Callable[[psycopg.Connection], object]]:
    """COPY of a file that the server itself reads, so that no client takes part."""
    return lambda schema: lambda session: session.execute(
        f"COPY {schema}.{table} ({COLUMNS[table]}) FROM '{rig.files / file}' ({options})", prepare=False
    )


def points(rig: Rig, source: str) -> dict[str, int]:
    return rig.points_in(f"SELECT * FROM source.{source}")


def copy_points(rig: Rig, work: str, file: str, options: str, goal: float, source="datapoints", latency=0) -> Result:
    load = copy(rig, "datapoints", file, options)
    return against_local(rig, work, "datapoints", load, rig.points, goal, points(rig, source), latency)


def number(count: int) -> str:
    """A round number in short form: 1 M, 100 k."""
    return f"{count / 1e6:g} M" if count >= 1_000_000 else f"{count / 1e3:g} k"


def copy_csv(rig: Rig) -> list[Result]:
    work = f"`COPY` csv, {number(rig.points)} datapoints of 100 series"
    return [copy_points(rig, work, "datapoints.csv", "FORMAT csv", 1.0)]


def copy_scattered(rig: Rig) -> list[Result]:
    work = f"the same of {rig.series:,} series in random order"
    return [copy_points(rig, work, "scattered.csv", "FORMAT csv", 0.9, source="scattered")]


def copy_far(rig: Rig) -> list[Result]:
    return [copy_points(rig, "the first with 50 ms per request", "datapoints.csv", "FORMAT csv", 0.9, latency=50)]


def copy_text(rig: Rig) -> list[Result]:
    return [copy_points(rig, "`COPY` text, the same points", "datapoints.txt", "FORMAT text", 1.0)]


def copy_binary(rig: Rig) -> list[Result]:
    return [copy_points(rig, "`COPY` binary, the same points", "datapoints.bin", "FORMAT binary", 1.0)]


def copy_client(rig: Rig) -> list[Result]:
    """psql reads the file and sends it; the time includes its start and log-in."""
    expected = points(rig, "datapoints")

    def load(schema: str) -> Timing:
        command = f"\\copy {schema}.datapoints ({COLUMNS['datapoints']}) FROM '{rig.files}/datapoints.csv' (FORMAT csv)"
        start = time.perf_counter()
        rig.cluster.psql(command, dsn=rig.gateway.dsn, timeout=600)
        return Timing(time.perf_counter() - start)

    def into_cdf() -> Timing:
        rig.sink.reset()
        return rig.verify(load(rig.foreign), "datapoints", **expected)

    def into_local() -> Timing:
        with rig.administrator() as connection:
            connection.execute("TRUNCATE local.datapoints")
        return load("local")

    series = alternate(rig, into_cdf, into_local)
    result = series.result(LOCAL, "`psql \\copy` csv, the same points, new session", rig.points, 0.9, "≥ 0.9")
    result.cost = None
    return [result]


def insert_select(rig: Rig) -> list[Result]:
    columns = COLUMNS["datapoints"]

    def load(schema: str):
        statement = f"INSERT INTO {schema}.datapoints ({columns}) SELECT {columns} FROM source.datapoints"
        return lambda session: session.execute(statement, prepare=False)

    work = f"`INSERT … SELECT`, {number(rig.points)} datapoints"
    return [against_local(rig, work, "datapoints", load, rig.points, 1.0, points(rig, "datapoints"))]


def statements(rig: Rig, table: str, schema: str, literals: str, count: int) -> list[bytes]:
    """INSERT statements of many rows each, written before the clock starts."""
    with rig.administrator() as connection:
        connection.execute("SET TimeZone = 'UTC'")
        rows = connection.execute(
            f"""SELECT string_agg({literals}, ',') FROM
                  (SELECT *, (row_number() OVER () - 1) / {ROWS_PER_STATEMENT} AS part
                   FROM source.{table} LIMIT {count}) AS rows
                GROUP BY part ORDER BY part"""
        ).fetchall()
    return [f"INSERT INTO {schema}.{table} ({COLUMNS[table]}) VALUES {values}".encode() for (values,) in rows]


def insert_rows(rig: Rig, table: str, literals: str, what: str, expected: dict[str, int], count: int) -> list[Result]:
    def load(schema: str):
        prepared = statements(rig, table, schema, literals, count)

        def run(session: psycopg.Connection) -> None:
            cursor = session.cursor()
            for statement in prepared:
                cursor.execute(statement, prepare=False)

        return run

    parts = count // ROWS_PER_STATEMENT
    work = f"`INSERT` of {ROWS_PER_STATEMENT:,} {what}, {parts} statements in a transaction"
    return [against_local(rig, work, table, load, count, 0.9, expected)]


def insert_points(rig: Rig) -> list[Result]:
    count = rig.items
    expected = rig.points_in(f"SELECT * FROM source.datapoints LIMIT {count}")
    literals = """format('(%L,%L,%s)', external_id, "timestamp", value)"""
    return insert_rows(rig, "datapoints", literals, "datapoints", expected, count)


def items(rig: Rig, pairs: int) -> dict[str, int]:
    return {"items": rig.items, "distinct": rig.items, "parts": rig.items * pairs}


def insert_events(rig: Rig) -> list[Result]:
    literals = "format('(%L,%L,%L,%L,%L,%L,%L,%L)', " + COLUMNS["events"] + ")"
    return insert_rows(rig, "events", literals, "events", items(rig, EVENT_PAIRS), rig.items)


def copy_items(rig: Rig, table: str, what: str, expected: dict[str, int]) -> list[Result]:
    load = copy(rig, table, f"{table}.csv", "FORMAT csv")
    work = f"`COPY` csv, {number(rig.items)} {what}"
    return [against_local(rig, work, table, load, rig.items, 0.7, expected)]


def copy_events(rig: Rig) -> list[Result]:
    return copy_items(rig, "events", "events with metadata", items(rig, EVENT_PAIRS))


def copy_assets(rig: Rig) -> list[Result]:
    return copy_items(rig, "assets", "assets of a tree in random order", items(rig, ASSET_PAIRS))


def copy_raw(rig: Rig) -> list[Result]:
    return copy_items(rig, "readings", "RAW rows of 10 columns", items(rig, RAW_COLUMNS))


def repeat(rig: Rig, table: str, what: str, pairs: int) -> list[Result]:
    """The same items twice: the second time all of them are there already. Each time in a session of its own, which has
    learnt nothing, but has sent a row before."""
    load = copy(rig, table, f"{table}.csv", "FORMAT csv")(rig.foreign)
    series = Series()
    most = 0
    for turn in range(rig.rounds + 1):
        rig.sink.reset()
        with warm(rig) as session:
            created = rig.verify(rig.run(session, load), table, **items(rig, pairs))
        requests = rig.sink.counts()[table]["requests"]
        with warm(rig) as session:
            updated = rig.run(session, load)
        counts = rig.sink.counts()[table]
        both = items(rig, pairs) | {"parts": 2 * rig.items * pairs}
        rig.verify(updated, table, **both, updated=rig.items, refused=counts["refused"])
        most = max(most, counts["requests"] - requests)
        if turn:
            series.baseline.append(created)
            series.measured.append(updated)
    work = f"`COPY` of {number(rig.items)} {what} that exist already, against creating them"
    result = series.result(SESSION, work, rig.items, 0.9, "≥ 0.9; ≤ 1.2 requests per 1,000")
    per_thousand = most * 1000 / rig.items
    result.measured += f", {per_thousand:.2f} requests per 1,000"
    result.met = bool(result.met) and per_thousand <= 1.2
    return [result]


def warm(rig: Rig) -> psycopg.Connection:
    """A new session that has its connections to CDF and a token."""
    session = rig.gateway.connect()
    session.execute(INSERT_ONE.format(rig.foreign), prepare=False)
    session.commit()
    return session


def repeat_assets(rig: Rig) -> list[Result]:
    return repeat(rig, "assets", "assets of a tree", ASSET_PAIRS)


def repeat_events(rig: Rig) -> list[Result]:
    return repeat(rig, "events", "events", EVENT_PAIRS)


def repeat_series(rig: Rig) -> list[Result]:
    return repeat(rig, "timeseries", "time series", SERIES_PAIRS)


def make_facades(connection: psycopg.Connection) -> None:
    connection.execute("SELECT cdf_create_facade('fronted')")


def facade(rig: Rig) -> list[Result]:
    """The same statements on foreign tables, and on the facades of another role, which the rig's role may use."""
    names = ", ".join(f"{name} => %({name})s" for name in rig.sink.access)
    with rig.administrator() as connection:
        connection.execute(f"SELECT FROM cdf_register_credentials({names}, username => 'fronted')", rig.sink.access)
        make_facades(connection)
        connection.execute(f'GRANT USAGE ON SCHEMA fronted TO "{rig.gateway.username}"')
        connection.execute(f'GRANT INSERT ON ALL TABLES IN SCHEMA fronted TO "{rig.gateway.username}"')

    def compared(work: str, table: str, load: Callable, rows: int, expected: dict[str, int]) -> Result:
        def into(schema: str, session: psycopg.Connection) -> Timing:
            rig.sink.reset()
            return rig.verify(rig.run(session, load(schema)), table, **expected)

        with rig.gateway.connect() as session:
            series = alternate(rig, lambda: into("fronted", session), lambda: into(rig.foreign, session))
        # PostgreSQL itself takes about 30 ns to find a row's partition, a tenth of the cheapest row.
        return series.result(SESSION, f"{work} through a facade, against the foreign table", rows, 0.85, "≥ 0.85")

    def selected(table: str) -> Callable[[str], Callable[[psycopg.Connection], object]]:
        columns = COLUMNS[table]
        return lambda schema: lambda session: session.execute(
            f"INSERT INTO {schema}.{table} ({columns}) SELECT {columns} FROM source.{table}", prepare=False
        )

    results = []
    for table, what, rows, expected in (
        ("datapoints", "datapoints", rig.points, points(rig, "datapoints")),
        ("events", "events", rig.items, items(rig, EVENT_PAIRS)),
    ):
        count = f"{number(rows)} {what}"
        results.append(compared(f"`COPY` csv, {count},", table, copy(rig, table, f"{table}.csv", "FORMAT csv"), rows, expected))
        results.append(compared(f"`INSERT … SELECT`, {count},", table, selected(table), rows, expected))
    return results


def merge(rig: Rig) -> list[Result]:
    """A staging table merged into a hundred times as many events: they are found by their keys, a thousand with each
    request. The sink has no request for a list."""
    held, staged = 10 * rig.items, rig.items // 10
    update = "UPDATE events SET description = note FROM staging WHERE external_id = key"
    runs: list[Timing] = []
    with rig.gateway.connect() as session:
        rig.sink.reset()
        session.execute(f"INSERT INTO events (external_id) SELECT 'item ' || i FROM generate_series(1, {held}) i")
        session.execute(
            f"CREATE TEMP TABLE staging AS SELECT 'item ' || i * 97 AS key, 'note ' || i AS note FROM generate_series(1, {staged}) i"
        )
        session.commit()
        for turn in range(rig.rounds + 1):
            before = rig.sink.counts()["events"]
            timing = rig.run(session, lambda session: session.execute(update))
            after = rig.sink.counts()["events"]
            if after["updated"] - before["updated"] != staged or after["refused"] != before["refused"]:
                raise RuntimeError(f"the sink has counted {after} after {before}, but {staged} events were staged")
            if turn:
                runs.append(timing)
    written = -(-staged // 1000)
    found = after["requests"] - before["requests"] - written
    return [
        Result(
            group=SESSION,
            work=f"`UPDATE … FROM` {number(staged)} staged rows: requests that find them among {number(held)} events",
            baseline=f"{held // 1000} to list all",
            measured=f"{found} by keys; in all {median(run.seconds for run in runs):.2f} s",
            figure=f"**{found / (held // 1000):.2f}**",
            target=f"≤ {written + 1} requests",
            met=found <= written + 1,
        )
    ]


def client(rig: Rig) -> CogniteClient:
    global_config.disable_pypi_version_check = True
    credentials = OAuthClientCredentials(
        token_url=rig.sink.token_url,
        client_id=rig.sink.client_id,
        client_secret=rig.sink.client_secret,
        scopes=[rig.sink.scope],
    )
    return CogniteClient(
        ClientConfig(client_name="bench", project=rig.sink.project, base_url=rig.sink.url, credentials=credentials)
    )


def against_sdk(
    rig: Rig, work: str, table: str, call: Callable[[], object], rows: int, goal: float, expected: dict[str, int]
) -> list[Result]:
    """COPY of the same rows in csv against a call of the SDK, which has them as objects already."""
    resource = "raw_rows" if table == "readings" else table
    load = copy(rig, table, f"{table}.csv", "FORMAT csv")(rig.foreign)
    with rig.gateway.connect() as session:
        def verified(run: Callable[[], Timing]) -> Callable[[], Timing]:
            def verify() -> Timing:
                rig.sink.reset()
                return rig.verify(run(), resource, **expected)

            return verify

        def by_sdk() -> Timing:
            start = time.perf_counter()
            call()
            return Timing(time.perf_counter() - start)

        series = alternate(rig, verified(lambda: rig.run(session, load)), verified(by_sdk))
    result = series.result(PEER, work, rows, goal, f"≥ {goal:g}")
    result.cost = None
    return [result]


def source_rows(rig: Rig, query: str) -> list[tuple]:
    with rig.administrator() as connection:
        return connection.execute(query).fetchall()


MILLISECONDS = "(extract(epoch FROM {}) * 1000)::bigint"


def sdk_points(rig: Rig) -> list[Result]:
    time_ = MILLISECONDS.format('"timestamp"')
    series: dict[str, list] = {}
    for name, timestamp, value in source_rows(rig, f"SELECT external_id, {time_}, value FROM source.datapoints"):
        series.setdefault(name, []).append((timestamp, value))
    data = [{"external_id": name, "datapoints": list_} for name, list_ in series.items()]
    insert = client(rig).time_series.data.insert_multiple
    work = f"{number(rig.points)} datapoints, `time_series.data.insert_multiple`"
    return against_sdk(
        rig, work, "datapoints", lambda: insert(data), rig.points, 10, points(rig, "datapoints")
    )


def sdk_events(rig: Rig) -> list[Result]:
    start, end = (MILLISECONDS.format(name) for name in ("start_time", "end_time"))
    rows = source_rows(
        rig, f"SELECT external_id, {start}, {end}, type, subtype, description, source, metadata FROM source.events"
    )
    names = ("external_id", "start_time", "end_time", "type", "subtype", "description", "source", "metadata")
    data = [EventWrite(**dict(zip(names, row))) for row in rows]
    create = client(rig).events.create
    work = f"{number(rig.items)} events, `events.create`"
    return against_sdk(rig, work, "events", lambda: create(data), rig.items, 5, items(rig, EVENT_PAIRS))


def sdk_assets(rig: Rig) -> list[Result]:
    names = COLUMNS["assets"].split(", ")
    rows = source_rows(rig, f"SELECT {COLUMNS['assets']} FROM source.assets")
    data = [AssetWrite(**dict(zip(names, row))) for row in rows]
    create = client(rig).assets.create_hierarchy
    work = f"{number(rig.items)} assets of a tree, `assets.create_hierarchy`"
    return against_sdk(rig, work, "assets", lambda: create(data), rig.items, 5, items(rig, ASSET_PAIRS))


def sdk_raw(rig: Rig) -> list[Result]:
    rows = source_rows(rig, "SELECT key, to_jsonb(readings) - 'key' FROM source.readings")
    data = [RowWrite(key=key, columns=columns) for key, columns in rows]
    insert = client(rig).raw.rows.insert
    work = f"{number(rig.items)} RAW rows, `raw.rows.insert`"

    def call() -> None:
        insert("bench", "readings", data, ensure_parent=True)

    return against_sdk(rig, work, "readings", call, rig.items, 5, items(rig, RAW_COLUMNS))


def memory(rig: Rig) -> list[Result]:
    """Peak memory of a fresh session for one COPY, default settings. Rows are made and sent as a stream."""
    sizes = [rig.points, 10 * rig.points] + ([100 * rig.points] if rig.huge else [])
    results = []
    for size in sizes:
        query = points_query(0, size, 100)
        expected = rig.points_in(query)
        rig.sink.reset()
        with rig.administrator() as producer, rig.gateway.connect() as session:
            producer.execute("SET TimeZone = 'UTC'")
            start = time.perf_counter()
            into = f"COPY {rig.foreign}.datapoints ({COLUMNS['datapoints']}) FROM STDIN"
            with producer.cursor().copy(f"COPY ({query}) TO STDOUT") as rows:
                with session.cursor().copy(into) as copying:
                    for block in rows:
                        copying.write(block)
            session.commit()
            seconds = time.perf_counter() - start
            peak = peak_memory(session.info.backend_pid) / MB
        rig.verify(Timing(seconds), "datapoints", **expected)
        results.append(
            Result(
                group=SESSION,
                work=f"peak memory of a session, {number(size)} datapoints in one transaction",
                baseline="",
                measured=f"{peak:.0f} MiB",
                figure=f"loaded in {seconds:.1f} s",
                target="≤ 256 MiB",
                met=peak <= 256,
            )
        )
    return results


def spread(seconds: list[float]) -> str:
    return f"{median(seconds) * 1e3:.2f} ms ({min(seconds) * 1e3:.2f} – {max(seconds) * 1e3:.2f})"


INSERT_ONE = (
    """INSERT INTO {}.datapoints (external_id, "timestamp", value) VALUES ('one', '2026-01-01 00:00:00+00', 1.5)"""
)


def small_insert(rig: Rig) -> list[Result]:
    """An INSERT in its own transaction, in a session that has loaded rows before."""
    rig.sink.reset()
    times: dict[str, list[float]] = {rig.foreign: [], "local": []}
    with rig.gateway.connect(autocommit=True) as session:
        for turn in range(SMALL_INSERTS + 10):
            for schema, seconds in times.items():
                start = time.perf_counter()
                session.execute(INSERT_ONE.format(schema), prepare=False)
                if turn >= 10:
                    seconds.append(time.perf_counter() - start)
    sent = SMALL_INSERTS + 10
    rig.verify(Timing(sum(times[rig.foreign])), "datapoints", items=sent, requests=sent)
    return [difference("`INSERT` of one row, autocommit, warm session", times[rig.foreign], times["local"], 1.0)]


def difference(work: str, ours: list[float], theirs: list[float], most: float | None) -> Result:
    apart = (median(ours) - median(theirs)) * 1e3
    return Result(
        group=SESSION,
        work=work,
        baseline=spread(theirs),
        measured=spread(ours),
        figure=f"**{apart:+.2f} ms**",
        target="" if most is None else f"≤ +{most:g} ms",
        met=None if most is None else apart <= most,
    )


def cold_session(rig: Rig) -> list[Result]:
    """A new connection and its first INSERT: the library is loaded, CDF is connected to, and a token fetched."""
    rig.sink.reset()
    times: dict[str, list[float]] = {rig.foreign: [], "local": []}
    for turn in range(COLD_SESSIONS + 1):
        for schema, seconds in times.items():
            start = time.perf_counter()
            with rig.gateway.connect(autocommit=True) as session:
                session.execute(INSERT_ONE.format(schema), prepare=False)
                elapsed = time.perf_counter() - start
            if turn:
                seconds.append(elapsed)
    rig.verify(Timing(sum(times[rig.foreign])), "datapoints", items=COLD_SESSIONS + 1)
    work = "log-in and `INSERT` of one row, new session without a token"
    return [difference(work, times[rig.foreign], times["local"], None)]


def backends(rig: Rig) -> list[Result]:
    """Many sessions at once, compared with what they could do if the sink had its own core: the other cores divided by the
    CPU time that a point takes in one session without latency. The share of all cores counts the sink's time too."""
    rows = rig.points // 4
    expected = rig.points_in(f"SELECT * FROM source.datapoints LIMIT {rows}")
    load = copy(rig, "datapoints", "quarter.csv", "FORMAT csv")(rig.foreign)
    sessions = [rig.gateway.connect() for _ in range(BACKENDS)]
    try:
        alone = []
        for turn in range(rig.rounds + 1):
            rig.sink.reset()
            timing = rig.verify(rig.run(sessions[0], load), "datapoints", **expected)
            if turn:
                alone.append(timing)
        cost = Cost.of(alone, rows)
        cores = len(os.sched_getaffinity(0))
        ceiling = max(cores - 1, 1) * 1e6 / cost.backend_cpu
        everything = cores * 1e6 / (cost.backend_cpu + cost.sink_cpu)
        rig.sink.latency(50)
        rates = []
        for turn in range(rig.rounds + 1):
            rig.sink.reset()
            seconds = together(sessions, load)
            all_ = {name: value * BACKENDS % (1 << 64) for name, value in expected.items()}
            rig.verify(Timing(seconds), "datapoints", **all_ | {"distinct": expected["distinct"]})
            if turn:
                rates.append(BACKENDS * rows / seconds)
    finally:
        rig.sink.latency(0)
        for session in sessions:
            session.close()
    rate = median(rates)
    shares = [rate_ / ceiling for rate_ in rates]
    return [
        Result(
            group=SESSION,
            work=f"{BACKENDS} sessions at once, 50 ms per request, {number(rows)} datapoints each, "
            "against all cores but one for the sink",
            baseline=f"{ceiling / 1e6:.2f} M/s",
            measured=f"{rate / 1e6:.2f} M/s, {rate / BACKENDS / 1e3:.0f} k/s each, {rate / everything:.2f} of all cores",
            figure=f"**{rate / ceiling:.2f}** ({min(shares):.2f} – {max(shares):.2f})",
            target="≥ 0.9",
            met=rate >= 0.9 * ceiling,
        )
    ]


def together(sessions: list[psycopg.Connection], load: Callable[[psycopg.Connection], object]) -> float:
    """Returns the seconds until the last session has committed. Raises an error of any of them."""
    barrier = threading.Barrier(len(sessions) + 1)
    errors: list[Exception] = []

    def work(session: psycopg.Connection) -> None:
        barrier.wait()
        try:
            load(session)
            session.commit()
        except psycopg.Error as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(session,)) for session in sessions]
    for thread in threads:
        thread.start()
    barrier.wait()
    start = time.perf_counter()
    for thread in threads:
        thread.join()
    seconds = time.perf_counter() - start
    if errors:
        raise errors[0]
    return seconds


CASES: dict[str, Callable[[Rig], list[Result]]] = {
    "copy-csv": copy_csv,
    "copy-scattered": copy_scattered,
    "copy-latency": copy_far,
    "copy-text": copy_text,
    "copy-binary": copy_binary,
    "copy-psql": copy_client,
    "insert-select": insert_select,
    "insert-points": insert_points,
    "insert-events": insert_events,
    "copy-events": copy_events,
    "copy-assets": copy_assets,
    "copy-raw": copy_raw,
    "sdk-points": sdk_points,
    "sdk-events": sdk_events,
    "sdk-assets": sdk_assets,
    "sdk-raw": sdk_raw,
    "repeat-assets": repeat_assets,
    "repeat-events": repeat_events,
    "repeat-series": repeat_series,
    "facade": facade,
    "merge": merge,
    "small-insert": small_insert,
    "cold-session": cold_session,
    "backends": backends,
    "memory": memory,
}
