"""Connections to CDF and PostgreSQL's own files share the descriptors that a process may have."""

from __future__ import annotations

import subprocess
from getpass import getuser
from pathlib import Path

import pytest
from faults import fault, register, wait_until
from harness import own_cluster
from support import dump

FILES = 150


def restart_with(cluster, descriptors: int) -> None:
    """Restarts the server as a process that may have so many files open."""
    command = f"ulimit -n {descriptors} && {cluster.bindir}/pg_ctl -D {cluster.data_dir} -l {cluster.log_path} -w restart"
    owner = cluster.data_dir.owner()
    other = ["runuser", "-u", owner, "--"] if owner != getuser() else []
    subprocess.run([*other, "bash", "-c", command], check=True, stdout=subprocess.DEVNULL, cwd="/")


@pytest.fixture(scope="module", params=["ulimit", "max_files_per_process"])
def narrow(request, emulator):
    """A role with more local tables than the processes of its cluster may have files open, and the most requests that
    the descriptors are surely enough for."""
    settings = ("max_connections=20", "autovacuum=off", "shared_buffers=16MB")
    few = ("max_files_per_process=64",) if request.param == "max_files_per_process" else ()
    with own_cluster(*few, *settings) as cluster:
        if not few:
            restart_with(cluster, 110)
        yield with_tables(cluster, emulator), 1 if few else 4


def with_tables(cluster, emulator):
    loader = register(cluster, emulator)
    with cluster.connect() as superuser:
        superuser.execute(f'CREATE SCHEMA local; GRANT USAGE ON SCHEMA local TO "{loader.username}"')
        for at in range(FILES):
            superuser.execute(f"CREATE TABLE local.t{at} (i int); INSERT INTO local.t{at} VALUES ({at})")
        superuser.execute(f'GRANT SELECT ON ALL TABLES IN SCHEMA local TO "{loader.username}"')
    return loader


def open_files(session) -> int:
    return sum(1 for _ in Path(f"/proc/{session.info.backend_pid}/fd").iterdir())


def read_all(session) -> None:
    """Opens as many files as PostgreSQL keeps open."""
    for at in range(FILES):
        assert session.execute(f"SELECT i FROM local.t{at}").fetchone() == (at,)


def test_commit_of_many_requests_with_few_descriptors(narrow, cdf):
    # Slow enough for all requests that may go at a time to be under way at once.
    fault(cdf, "/events", "delay", delay_ms=30)
    loader, at_once = narrow
    with loader.connect(autocommit=True) as session:
        session.execute("SET cdf_fdw.max_concurrent_requests = 32")
        for round in range(2):
            session.execute("BEGIN")
            session.execute(
                f"INSERT INTO events (external_id) SELECT 'e' || {round} || '-' || i FROM generate_series(1, 60000) i"
            )
            read_all(session)
            cdf.admin_delete("requests")
            session.execute("COMMIT")
            stats = cdf.admin_get("stats")
            assert stats["paths"]["POST /events"] == 60
            assert at_once <= stats["max_in_flight"] < 32
            # Nothing is left without a descriptor, and sockets that are not needed are closed.
            read_all(session)
        assert session.execute("SELECT count(*) FROM events").fetchone() == (120_000,)
        wait_until(lambda: open_files(session) <= 100, "idle connections are closed")
    assert len(dump(cdf, "events")) == 120_000


def test_sessions_with_enough_descriptors_use_them(gateway, cdf):
    fault(cdf, "/events", "delay", delay_ms=50)
    with gateway.connect(autocommit=True) as session:
        session.execute("SET cdf_fdw.max_concurrent_requests = 32")
        session.execute("INSERT INTO events (external_id) SELECT 'e' || i FROM generate_series(1, 64000) i")
    assert cdf.admin_get("stats")["max_in_flight"] == 32
