"""Shared by tests of failures: faults of the emulator, waiting, separate roles and servers."""

from __future__ import annotations

import time
from contextlib import contextmanager
from uuid import uuid4

import psycopg
import pytest
from harness import REGISTER, Cluster, Emulator, Gateway
from psycopg import sql
from support import refused, requests

TOKEN = "/oauth2/v2.0/token"
# Far longer than a wait that has been ended takes, far shorter than one that has not: that lasts as long as
# cdf_fdw.request_timeout, a minute.
SOON = 20


def fault(cdf: Emulator, path: str, mode: str = "status", **fields) -> None:
    """Adds a fault for requests to exactly this path; the fields are those of the emulator."""
    cdf.admin_post("faults", {"path": path, "match": "exact", "mode": mode} | fields)


def statuses(cdf: Emulator, path: str) -> list[int]:
    """How the requests to this path were answered, in their order; 0: not at all."""
    return [entry["status"] for entry in requests(cdf, path)]


def token_requests(cdf: Emulator) -> list[dict]:
    return [entry for entry in cdf.admin_get("requests")["items"] if entry["path"] == TOKEN]


@contextmanager
def refusal(sqlstate: str, *texts: str):
    """As `refused`; yields the error, as pytest.raises does."""
    with pytest.raises(psycopg.Error) as caught:
        yield caught
    with refused(sqlstate, *texts):
        raise caught.value


def wait_until(condition, what: str, timeout: float = SOON):
    """Returns the first true value of the condition."""
    deadline = time.monotonic() + timeout
    while not (value := condition()):
        assert time.monotonic() < deadline, f"not within {timeout} s: {what}"
        time.sleep(0.02)
    return value


def wait_for_request(cdf: Emulator) -> None:
    """Returns once a request is under way, and held up by a fault."""
    wait_until(lambda: cdf.admin_get("stats")["in_flight"], "a request under way")


def temporary_files(cluster: Cluster) -> int:
    """How many temporary files there are on the server."""
    with cluster.connect() as connection:
        return connection.execute("SELECT count(*) FROM pg_ls_tmpdir()").fetchone()[0]


def register(cluster: Cluster, emulator: Emulator, server: str = "cdf", **changes) -> Gateway:
    """A role of its own, with a mapping and with tables. They stay, as the cluster does not."""
    arguments = emulator.access | changes
    statement = REGISTER.rstrip().removesuffix(")") + ", server => %(server)s, base_url => %(base_url)s)"
    with cluster.connect() as connection:
        connection.execute("CREATE EXTENSION IF NOT EXISTS cdf_fdw")
        row = connection.execute(statement, {"base_url": None} | arguments | {"server": server}).fetchone()
    return Gateway(*row, port=cluster.port)


def register_apart(cluster: Cluster, emulator: Emulator, **changes) -> tuple[Gateway, str]:
    """As `register`, on a server of its own, which can be altered; its name is the second value."""
    server = f"cdf_{uuid4().hex[:8]}"
    return register(cluster, emulator, server, **changes), server


def alter(cluster: Cluster, what: str, *names: str, **options: str) -> None:
    """Sets options that are set already: ALTER <what> OPTIONS (SET …), with names for the braces."""
    assignments = sql.SQL(", ").join(
        sql.SQL("SET {} {}").format(sql.Identifier(name), sql.Literal(value)) for name, value in options.items()
    )
    with cluster.connect() as connection:
        target = sql.SQL(what).format(*map(sql.Identifier, names))
        connection.execute(sql.SQL("ALTER {} OPTIONS ({})").format(target, assignments))


def create_missing_series(cluster: Cluster, gateway: Gateway) -> None:
    """Lets the role's points create their series."""
    with cluster.connect() as connection:
        for table in ("datapoints", "string_datapoints"):
            name = sql.Identifier(gateway.schema, table)
            connection.execute(sql.SQL("ALTER FOREIGN TABLE {} OPTIONS (ADD create_missing 'true')").format(name))
