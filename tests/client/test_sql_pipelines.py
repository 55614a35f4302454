"""The pipeline of docs/sql-pipelines.md, as it stands there, with a historian behind it: its runs, its failures, a restart."""

from __future__ import annotations

import re

import psycopg
import pytest
from faults import fault, register, wait_for_request, wait_until
from harness import cluster_script, own_cluster
from support import Api, dump, millis, paths, points, refused
from test_docs import blocks
from test_shared_preload import HAS_PG_CRON

HISTORIAN = "historian"
PAGE = [block for block in blocks("docs/sql-pipelines.md") if block.language == "sql"]


def block(part: str) -> str:
    """The block of the page with this in it."""
    [found] = [block.text for block in PAGE if part in block.text]
    return found


class Pipeline:
    """The gateway's cluster, the historian beside it in a database of its own, and the sessions of both."""

    def __init__(self, cluster, gateway):
        self.cluster, self.gateway = cluster, gateway
        self.connect()

    def connect(self) -> None:
        self.administrator = self.cluster.connect()
        self.historian = psycopg.connect(self.cluster.dsn(HISTORIAN), autocommit=True)
        self.role = self.gateway.connect(autocommit=True)

    def close(self) -> None:
        for connection in (self.administrator, self.historian, self.role):
            connection.close()

    def filled(self, text: str) -> str:
        return text.replace("<role>", self.gateway.username).replace("<schema>", self.gateway.schema)

    def measured(self, tag: str, at: str, value: float, changed: str) -> None:
        self.historian.execute("INSERT INTO readings VALUES (%s, %s, %s, %s)", [tag, at, value, changed])

    def load(self) -> int:
        return self.role.execute("SELECT pipeline.load_readings()").fetchone()[0]

    def watermark(self) -> str:
        return self.role.execute("SELECT up_to AT TIME ZONE 'UTC' FROM pipeline.watermark").fetchone()[0].isoformat(" ")


@pytest.fixture(scope="module")
def server(emulator):
    libraries = "cdf_fdw, pg_cron" if HAS_PG_CRON else "cdf_fdw"
    settings = ["max_worker_processes=20", "synchronous_commit=on"]
    settings += ["cron.database_name=postgres", "cron.use_background_workers=on"] if HAS_PG_CRON else []
    with own_cluster(f"shared_preload_libraries={libraries}", "session_preload_libraries=", *settings) as cluster:
        with cluster.connect() as connection:
            if not connection.execute("SELECT FROM pg_available_extensions WHERE name = 'postgres_fdw'").rowcount:
                pytest.skip("this PostgreSQL has no postgres_fdw (package postgresql-contrib)")
            connection.execute("CREATE ROLE reader LOGIN PASSWORD 'reads'")
        yield cluster, register(cluster, emulator)


@pytest.fixture
def pipeline(server, cdf):
    """The pipeline, made as the page says, with CDF empty but for what the page puts there."""
    cluster, gateway = server
    with cluster.connect() as connection:
        connection.execute(f"DROP DATABASE IF EXISTS {HISTORIAN} WITH (FORCE)")
        connection.execute(f"CREATE DATABASE {HISTORIAN}")
    with psycopg.connect(cluster.dsn(HISTORIAN), autocommit=True) as historian:
        historian.execute("CREATE TABLE readings (tag text, at timestamptz, value float8, changed timestamptz)")
        historian.execute("GRANT SELECT ON readings TO reader")
    made = Pipeline(cluster, gateway)
    try:
        source = made.filled(block("postgres_fdw")).replace("'…'", "'reads'")
        made.administrator.execute(source)
        made.administrator.execute(
            f"ALTER SERVER historian OPTIONS (SET host '127.0.0.1', ADD port '{cluster.port}', SET dbname '{HISTORIAN}')"
        )
        for part in ("CREATE TABLE pipeline.watermark", "FUNCTION pipeline.load_readings", "FUNCTION pipeline.report_failures"):
            made.role.execute(made.filled(block(part)))
        cdf.admin_delete("requests")
        yield made
    finally:
        made.close()
        with cluster.connect() as connection:
            connection.execute("DROP SCHEMA IF EXISTS pipeline CASCADE")
            connection.execute("DROP SCHEMA IF EXISTS plant CASCADE")
            connection.execute("DROP SERVER IF EXISTS historian CASCADE")


def runs(cdf) -> list[tuple[str, str]]:
    found = dump(cdf, "extpipes/runs")
    return [(run["status"], run.get("message", "")) for run in found]


def test_each_run_loads_what_is_new(pipeline, cdf):
    assert pipeline.load() == 0
    assert runs(cdf) == [("seen", "0 points")]
    pipeline.measured("pump-1", "2026-01-01 00:00Z", 1.5, "2026-01-01 00:00Z")
    pipeline.measured("pump-2", "2026-01-01 00:00Z", 2.5, "2026-01-01 00:00Z")
    assert pipeline.load() == 2
    assert pipeline.watermark() == "2026-01-01 00:00:00"
    pipeline.measured("pump-1", "2026-01-01 01:00Z", 1.75, "2026-01-01 01:00Z")
    # One that is late, and one that has been changed.
    pipeline.measured("pump-2", "2025-12-31 23:58Z", 2.25, "2026-01-01 00:59Z")
    pipeline.historian.execute("UPDATE readings SET value = 9, changed = '2026-01-01 00:58Z' WHERE tag = 'pump-2' AND value = 2.5")
    cdf.admin_delete("requests")
    # With what lies in the overlap.
    assert pipeline.load() == 4
    assert pipeline.watermark() == "2026-01-01 01:00:00"
    assert points(cdf, "pump-1") == [(millis("2026-01-01"), 1.5, None), (millis("2026-01-01 01:00"), 1.75, None)]
    assert points(cdf, "pump-2") == [(millis("2025-12-31 23:58"), 2.25, None), (millis("2026-01-01"), 9.0, None)]
    # The status goes last.
    assert paths(cdf)[-1].endswith("/extpipes/runs")
    assert runs(cdf) == [("seen", "0 points"), ("success", "2 points"), ("success", "4 points")]


def test_rows_that_the_source_committed_late_are_not_missed(pipeline, cdf):
    pipeline.measured("pump-1", "2026-01-01 00:10Z", 1, "2026-01-01 00:10Z")
    pipeline.load()
    pipeline.measured("pump-1", "2026-01-01 00:07Z", 2, "2026-01-01 00:07Z")
    assert pipeline.load() == 0
    pipeline.measured("pump-1", "2026-01-01 00:11Z", 3, "2026-01-01 00:11Z")
    assert pipeline.load() == 3
    assert [value for _, value, _ in points(cdf, "pump-1")] == [2.0, 1.0, 3.0]


def test_a_run_that_cdf_refuses_leaves_nothing_and_is_repeated(pipeline, cdf):
    pipeline.measured("pump-1", "2026-01-01 00:00Z", 1, "2026-01-01 00:00Z")
    pipeline.load()
    before = pipeline.watermark()
    pipeline.measured("unknown", "2026-01-01 01:00Z", 1, "2026-01-01 01:00Z")
    pipeline.measured("pump-1", "2026-01-01 01:00Z", 2, "2026-01-01 01:00Z")
    for _ in range(2):
        with refused("23503", "unknown"):
            pipeline.load()
        assert pipeline.watermark() == before
        assert runs(cdf) == [("success", "1 points")]
    pipeline.role.execute("INSERT INTO timeseries (external_id, name) VALUES ('unknown', 'Now it is known')")
    assert pipeline.load() == 3
    assert pipeline.watermark() == "2026-01-01 01:00:00"
    assert [value for _, value, _ in points(cdf, "pump-1")] == [1.0, 2.0]
    assert [status for status, _ in runs(cdf)] == ["success", "success"]


def test_a_source_that_does_not_answer_fails_the_run(pipeline, cdf):
    pipeline.measured("pump-1", "2026-01-01 00:00Z", 1, "2026-01-01 00:00Z")
    pipeline.administrator.execute("ALTER SERVER historian OPTIONS (SET dbname 'nowhere')")
    with refused("08001"):
        pipeline.load()
    assert runs(cdf) == [] and points(cdf, "pump-1") == []
    pipeline.administrator.execute(f"ALTER SERVER historian OPTIONS (SET dbname '{HISTORIAN}')")
    assert pipeline.load() == 1


def test_the_conditions_go_to_the_source(pipeline, cdf):
    pipeline.administrator.execute("ALTER ROLE reader SET log_statement = 'all'")
    try:
        before = len(pipeline.cluster.log())
        pipeline.measured("pump-1", "2026-01-01 00:00Z", 1, "2026-01-01 00:00Z")
        pipeline.load()
        sent = re.findall(r"SELECT .* FROM public.readings.*", pipeline.cluster.log()[before:])
    finally:
        pipeline.administrator.execute("ALTER ROLE reader RESET log_statement")
    assert len(sent) == 2
    assert all("changed >" in query for query in sent), sent


def test_two_runs_at_once_load_one_after_the_other(pipeline, cdf):
    pipeline.measured("pump-1", "2026-01-01 00:00Z", 1, "2026-01-01 00:00Z")
    pipeline.role.execute("BEGIN")
    pipeline.load()
    with pipeline.gateway.connect(autocommit=True) as second:
        second.execute("SET lock_timeout = '200ms'")
        with refused("55P03"):
            second.execute("SELECT pipeline.load_readings()")
        pipeline.role.execute("COMMIT")
        assert second.execute("SELECT pipeline.load_readings()").fetchone() == (0,)
    assert [status for status, _ in runs(cdf)] == ["success", "seen"]


def test_a_server_that_stops_in_a_run_repeats_it(pipeline, cdf):
    pipeline.measured("pump-1", "2026-01-01 00:00Z", 1, "2026-01-01 00:00Z")
    pipeline.load()
    pipeline.measured("pump-1", "2026-01-01 01:00Z", 2, "2026-01-01 01:00Z")
    fault(cdf, "/timeseries/data", "stall")
    pipeline.role.pgconn.send_query(b"SELECT pipeline.load_readings()")
    wait_for_request(cdf)
    cluster_script("restart", pipeline.cluster.data_dir.parent)
    cdf.admin_delete("faults")
    pipeline.close()
    pipeline.connect()
    assert pipeline.watermark() == "2026-01-01 00:00:00"
    assert pipeline.load() == 2
    assert [value for _, value, _ in points(cdf, "pump-1")] == [1.0, 2.0]
    assert [status for status, _ in runs(cdf)] == ["success", "success"]


@pytest.mark.skipif(not HAS_PG_CRON, reason="PostgreSQL has no pg_cron here (package postgresql-<major>-cron)")
def test_pg_cron_runs_it_and_reports_what_fails(pipeline, cdf):
    """A run fails at the next full minute. What pg_cron has kept of it is reported once, also after a restart."""
    administrator, role = pipeline.administrator, pipeline.role
    administrator.execute("CREATE EXTENSION IF NOT EXISTS pg_cron")
    administrator.execute(pipeline.filled("GRANT USAGE ON SCHEMA cron TO <role>"))
    schedule = re.sub(r"\*/5", "*", block("cron.schedule"))
    try:
        role.execute(schedule)
        # CDF does not know the series of a point.
        pipeline.measured("unknown", "2026-01-01 00:00Z", 1, "2026-01-01 00:00Z")
        query = "SELECT count(*) FROM cron.job_run_details JOIN cron.job USING (jobid) WHERE jobname = 'load-readings' AND status = 'failed'"
        wait_until(lambda: role.execute(query).fetchone()[0], "the end of the failing run", timeout=100)
        role.execute("SELECT cron.unschedule('report-readings')")
        assert runs(cdf) == [] or {status for status, _ in runs(cdf)} == {"failure"}
        role.execute("SELECT pipeline.report_failures()")
        reported = runs(cdf)
        assert {status for status, _ in reported} == {"failure"} and "unknown" in reported[0][1]
        Api(cdf).create("timeseries", "unknown")
        cluster_script("restart", pipeline.cluster.data_dir.parent)
        pipeline.close()
        pipeline.connect()
        role = pipeline.role
        assert role.execute("SELECT pipeline.report_failures()").fetchone() == (0,)
        assert runs(cdf) == reported
        assert pipeline.load() == 1 and runs(cdf)[-1][0] == "success"
    finally:
        pipeline.administrator.execute("DELETE FROM cron.job")
