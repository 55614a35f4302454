"""Fixtures of the tests that run the programs themselves. `make test-clients` runs them, `make test` does not.

matrix      the table of what came of each program, written to target/programs.md
etl         a registered role whom the programs log in as, with CDF empty
progress    the same role, told how far a delivery is every 200 ms, while each request takes more than a second
staging     the name of a schema of the role's own, empty
superuser   a superuser's connection, autocommit, with the role's schema in its search_path
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from harness import TARGET, Gateway
from psycopg import sql

# The helpers that look at CDF.
sys.path.append(str(Path(__file__).resolve().parents[1] / "client"))

from faults import create_missing_series, register  # noqa: E402
from matrix import Matrix  # noqa: E402

RESULTS = pytest.StashKey[Matrix]()


def pytest_configure(config):
    config.stash[RESULTS] = Matrix()


def pytest_unconfigure(config):
    config.stash[RESULTS].write(Path(os.environ.get("CDF_PROGRAMS_RESULT", TARGET / "programs.md")))


@pytest.fixture(scope="session")
def matrix(request) -> Matrix:
    return request.config.stash[RESULTS]


@pytest.fixture(scope="session")
def registered(cluster, emulator) -> Gateway:
    emulator.reset()
    role = register(cluster, emulator)
    create_missing_series(cluster, role)
    return role


@pytest.fixture
def etl(registered, cdf) -> Gateway:
    return registered


@pytest.fixture
def superuser(registered, cluster) -> Iterator[psycopg.Connection]:
    with cluster.connect() as connection:
        connection.execute(sql.SQL("SET search_path = {}").format(sql.Identifier(registered.schema)))
        yield connection


@pytest.fixture
def staging(registered, cluster) -> Iterator[str]:
    user = sql.Identifier(registered.username)
    with cluster.connect() as connection:
        connection.execute("SET client_min_messages = warning")
        connection.execute("DROP SCHEMA IF EXISTS etl_staging CASCADE")
        connection.execute(sql.SQL("CREATE SCHEMA etl_staging AUTHORIZATION {}").format(user))
        yield "etl_staging"
        connection.execute("DROP SCHEMA IF EXISTS etl_staging CASCADE")


@pytest.fixture
def progress(etl, cluster, cdf) -> Iterator[Gateway]:
    user = sql.Identifier(etl.username)
    with cluster.connect() as connection:
        connection.execute(sql.SQL("ALTER ROLE {} SET cdf_fdw.progress_interval = '200ms'").format(user))
        try:
            cdf.admin_post("faults", {"path": "/", "method": "POST", "mode": "delay", "delay_ms": 1200})
            yield etl
        finally:
            cdf.admin_delete("faults")
            connection.execute(sql.SQL("ALTER ROLE {} RESET cdf_fdw.progress_interval").format(user))
