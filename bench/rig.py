"""What the benchmark runs on: a cluster, the sink in CDF's place, the data, and clocks."""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psycopg

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests"))

from harness import REGISTER, TARGET, Cluster, Emulator, Gateway, own_cluster  # noqa: E402

MODULUS = 1 << 64


def cpu_seconds(pid: int) -> float:
    """The CPU time that a process has used so far, in user and kernel mode."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def peak_memory(pid: int) -> int:
    """The most bytes that a process has had in memory so far (VmHWM)."""
    (line,) = [line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("VmHWM")]
    return int(line.split()[1]) * 1024


class Sink(Emulator):
    """A running cdf-sink. It starts and is administrated as the emulator is."""

    @property
    def pid(self) -> int:
        return self._process.pid

    def counts(self) -> dict:
        return self.admin_get("counts")

    def latency(self, milliseconds: int) -> None:
        """How long every answer of the API waits from now on."""
        self.admin_post("latency", json={"ms": milliseconds})


@dataclass
class Timing:
    """One run: seconds from the first statement to the end of COMMIT, the CPU seconds it took, and what it sent."""

    seconds: float
    # What of it COMMIT took.
    commit: float = 0
    backend_cpu: float = 0
    sink_cpu: float = 0
    plain_bytes: int = 0
    wire_bytes: int = 0


@dataclass
class Rig:
    """A cluster with a registered role and the sink, and the sizes of the loads."""

    cluster: Cluster
    sink: Sink
    gateway: Gateway
    rounds: int
    points: int
    items: int
    series: int
    huge: bool

    @property
    def foreign(self) -> str:
        """The schema of the foreign tables, quoted."""
        return f'"{self.gateway.schema}"'

    @property
    def files(self) -> Path:
        """Where the server writes and reads files."""
        return self.cluster.data_dir.parent

    def administrator(self) -> psycopg.Connection:
        return self.cluster.connect()

    def run(self, session: psycopg.Connection, work: Callable[[psycopg.Connection], object]) -> Timing:
        """Runs statements and the COMMIT behind them."""
        pid = session.info.backend_pid
        backend, sink = cpu_seconds(pid), cpu_seconds(self.sink.pid)
        start = time.perf_counter()
        work(session)
        collected = time.perf_counter()
        session.commit()
        end = time.perf_counter()
        return Timing(end - start, end - collected, cpu_seconds(pid) - backend, cpu_seconds(self.sink.pid) - sink)

    def verify(self, timing: Timing, resource: str, **expected: int) -> Timing:
        """Compares what the sink has counted since it was reset. A difference ends the benchmark."""
        counts = self.sink.counts()
        expected = {"refused": 0, "updated": 0} | expected
        seen = {name: counts[resource][name] for name in expected}
        if seen != expected or counts["unknown"]:
            raise RuntimeError(f"the sink has counted {counts}, but expected of {resource} was {expected}")
        timing.plain_bytes, timing.wire_bytes = (counts[resource][name] for name in ("plain_bytes", "wire_bytes"))
        return timing

    def points_in(self, query: str) -> dict[str, int]:
        """What the sink must count of the points of a query (external_id, "timestamp", value)."""
        with self.administrator() as connection:
            row = connection.execute(
                f"""SELECT sum(points), count(*), sum(timestamps), sum("values") FROM (
                      SELECT count(*) AS points, sum((extract(epoch FROM "timestamp") * 1000)::bigint) AS timestamps,
                             sum(('x' || encode(float8send(value), 'hex'))::bit(64)::bigint) AS "values"
                      FROM ({query}) AS points GROUP BY external_id) AS series"""
            ).fetchone()
        return {
            "items": int(row[0]),
            "distinct": row[1],
            "timestamps": int(row[2]) % MODULUS,
            "values": int(row[3]) % MODULUS,
        }


def points_query(first: int, count: int, series: int) -> str:
    """Points of so many series, one second apart, all series of a second before the next, as a historian exports them."""
    return f"""
        SELECT 'plant-4/sensor-' || lpad((i % {series})::text, 5, '0') AS external_id,
               timestamptz '2026-01-01 00:00:00+00' + (i / {series}) * interval '1 second' AS "timestamp",
               (50000 + 20000 * sin(i / 5000.0) + abs(hashint8(i)) % 997)::bigint / 1000.0::float8 AS value
        FROM (SELECT generate_series({first}::bigint, {first + count - 1}) AS i) AS numbers"""


# Foreign tables and local ones have the same columns; these are the ones that are loaded.
COLUMNS = {
    "datapoints": 'external_id, "timestamp", value',
    "events": "external_id, start_time, end_time, type, subtype, description, source, metadata",
    "assets": "external_id, name, parent_external_id, description, source, metadata",
    "timeseries": "external_id, name, unit, description, is_string, is_step, metadata",
    "readings": "key, site, tag, unit, quality, measured, received, value, low, high, counter",
}

READINGS = """(
    key text NOT NULL, site text, tag text, unit text, quality text, measured timestamptz, received timestamptz,
    value double precision, low double precision, high double precision, counter bigint)"""

EVENTS = """
    SELECT 'event-' || lpad(i::text, 9, '0') AS external_id,
           timestamptz '2026-01-01 00:00:00+00' + i * interval '7 seconds' AS start_time,
           timestamptz '2026-01-01 00:00:00+00' + i * interval '7 seconds' + interval '90 seconds' AS end_time,
           (ARRAY['alarm', 'workorder', 'inspection'])[1 + i % 3] AS type,
           'priority-' || i % 5 AS subtype,
           'Pump ' || i % 977 || ' reported a deviation of ' || abs(hashint8(i)) % 100 || ' percent' AS description,
           'maintenance' AS source,
           jsonb_build_object('unit', 'U' || i % 40, 'operator', 'operator-' || abs(hashint8(i)) % 60,
               'batch', to_hex(hashint8(i * 31)), 'shift', (ARRAY['day', 'night'])[1 + i % 2],
               'comment', 'checked on site, see protocol ' || i) AS metadata
    FROM generate_series(1::bigint, {items}) AS i"""
EVENT_PAIRS = 5

# A tree in which everyone but the leaves has ten children, in an order that knows nothing of it.
ASSETS = """
    SELECT 'asset-' || i AS external_id, 'Asset ' || i AS name,
           CASE WHEN i > 1 THEN 'asset-' || (i + 8) / 10 END AS parent_external_id,
           'Made in ' || 1990 + i % 35 || ', inspected every ' || 3 + i % 9 || ' months' AS description,
           'register' AS source,
           jsonb_build_object('vendor', 'vendor-' || i % 50, 'serial', to_hex(hashint8(i)), 'class',
               'C' || i % 12) AS metadata
    FROM generate_series(1::bigint, {items}) AS i ORDER BY hashint8(i), i"""
ASSET_PAIRS = 3

SERIES = """
    SELECT 'series-' || lpad(i::text, 9, '0') AS external_id, 'Series ' || i AS name,
           (ARRAY['bar', 'degC', 'm3/h'])[1 + i % 3] AS unit,
           'Sensor ' || i % 977 || ' of line ' || i % 40 || ', calibrated in ' || 1990 + i % 35 AS description,
           false AS is_string, i % 2 = 0 AS is_step,
           jsonb_build_object('vendor', 'vendor-' || i % 50, 'serial', to_hex(hashint8(i)), 'tag', 'T' || i) AS metadata
    FROM generate_series(1::bigint, {items}) AS i"""
SERIES_PAIRS = 3

RAW_ROWS = """
    SELECT 'row-' || lpad(i::text, 9, '0') AS key, 'site-' || i % 7 AS site, 'TAG-' || i % 5000 AS tag,
           (ARRAY['bar', 'degC', 'm3/h'])[1 + i % 3] AS unit, (ARRAY['good', 'uncertain'])[1 + i % 2] AS quality,
           timestamptz '2026-01-01 00:00:00+00' + i * interval '1 second' AS measured,
           timestamptz '2026-01-01 00:00:02+00' + i * interval '1 second' AS received,
           (abs(hashint8(i)) % 100000) / 1000.0::float8 AS value, 0.5::float8 AS low, 99.5::float8 AS high,
           i * 3 AS counter
    FROM generate_series(1::bigint, {items}) AS i"""
RAW_COLUMNS = 10


def prepare(rig: Rig) -> None:
    """Makes local tables, source tables and files. The same every time."""
    with rig.administrator() as connection:
        execute = connection.execute
        execute("SET TimeZone = 'UTC'")
        execute(
            f"""CREATE FOREIGN TABLE {rig.foreign}.readings {READINGS}
                SERVER cdf OPTIONS (resource 'raw_rows', database 'bench', "table" 'readings')"""
        )
        execute("CREATE SCHEMA local")
        execute("CREATE SCHEMA source")
        for table in COLUMNS:
            execute(f"CREATE UNLOGGED TABLE local.{table} (LIKE {rig.foreign}.{table})")
        sources = {
            "datapoints": points_query(0, rig.points, 100),
            "scattered": points_query(0, rig.points, rig.series) + " ORDER BY hashint8(i * 7919), i",
            "events": EVENTS.format(items=rig.items),
            "assets": ASSETS.format(items=rig.items),
            "timeseries": SERIES.format(items=rig.items),
            "readings": RAW_ROWS.format(items=rig.items),
        }
        for table, query in sources.items():
            execute(f"CREATE UNLOGGED TABLE source.{table} AS {query}")
            execute(f"COPY source.{table} TO '{rig.files}/{table}.csv' (FORMAT csv)")
        execute(f"COPY source.datapoints TO '{rig.files}/datapoints.txt'")
        execute(f"COPY source.datapoints TO '{rig.files}/datapoints.bin' (FORMAT binary)")
        quarter = f"SELECT * FROM source.datapoints LIMIT {rig.points // 4}"
        execute(f"COPY ({quarter}) TO '{rig.files}/quarter.csv' (FORMAT csv)")
        role = f'"{rig.gateway.username}"'
        execute(f"GRANT pg_read_server_files TO {role}")
        execute(f"GRANT USAGE ON SCHEMA local, source TO {role}")
        execute(f"GRANT SELECT ON ALL TABLES IN SCHEMA source TO {role}")
        execute(f"GRANT SELECT, INSERT, TRUNCATE ON ALL TABLES IN SCHEMA local TO {role}")
        execute(f"GRANT INSERT ON {rig.foreign}.readings TO {role}")
        execute("VACUUM ANALYZE")


@contextmanager
def rig(*, rounds: int, quick: bool, huge: bool) -> Iterator[Rig]:
    """Everything up and running, with data. `quick`: a tenth of the sizes."""
    binary = Path(os.environ.get("CDF_SINK", TARGET / "release" / "cdf-sink"))
    if not binary.exists():
        raise SystemExit(f"{binary} is missing: run scripts/build.sh sink, or name one with CDF_SINK")
    scale = 10 if quick else 1
    # Loading unlogged tables is not to be held up by checkpoints or by a small cache.
    settings = ("shared_buffers=512MB", "max_wal_size=4GB", "max_connections=50")
    with tempfile.TemporaryDirectory(prefix="cdf-sink-") as directory, own_cluster(*settings) as cluster:
        sink = Sink(binary, Path(directory))
        try:
            with cluster.connect() as connection:
                connection.execute("CREATE EXTENSION cdf_fdw")
                row = connection.execute(REGISTER, sink.access).fetchone()
            running = Rig(
                cluster=cluster,
                sink=sink,
                gateway=Gateway(*row, port=cluster.port),
                rounds=rounds,
                points=1_000_000 // scale,
                items=100_000 // scale,
                series=10_000 // scale,
                huge=huge,
            )
            prepare(running)
            yield running
        finally:
            sink.stop()
