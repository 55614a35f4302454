"""What the suites run against: the emulator, a throw-away PostgreSQL cluster, and a registered role.

CDF_EMULATOR names the emulator's binary (default target/release/cdf-emulator), PG_CONFIG the PostgreSQL to test, into
which `make install` has put the extension.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import psycopg
import requests

ROOT = Path(__file__).resolve().parent.parent
TARGET = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))


class Emulator:
    """A running cdf-emulator with its defaults: one client, one project, everything allowed."""

    client_id = "test-client"
    client_secret = "test-secret"
    project = "test-project"

    def __init__(self, binary: Path, directory: Path):
        port_file = directory / "port"
        self.log_path = directory / "log"
        with self.log_path.open("wb") as log:
            self._process = subprocess.Popen(
                [binary, "--listen", "127.0.0.1:0", "--port-file", port_file],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        deadline = time.monotonic() + 10
        while not (port_file.exists() and port_file.read_text().strip()):
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.stop()
                raise RuntimeError(f"the emulator did not start: {self.log_path.read_text()}")
            time.sleep(0.02)
        self.port = int(port_file.read_text())
        self.url = f"http://127.0.0.1:{self.port}"
        self.token_url = f"{self.url}/oauth2/v2.0/token"
        self.scope = f"{self.url}/.default"
        self._http = requests.Session()
        # The emulator is on this machine, whatever proxy the environment names.
        self._http.trust_env = False

    @property
    def access(self) -> dict[str, str]:
        """What cdf_register_credentials and user mappings need to reach it: a copy that the caller may change."""
        names = ("token_url", "client_id", "client_secret", "scope", "project")
        return {name: getattr(self, name) for name in names}

    def admin_get(self, path: str, **params):
        """GET /admin/…; the answer's JSON."""
        return self._admin("GET", path, params=params)

    def admin_post(self, path: str, json=None):
        """POST /admin/…; the answer's JSON, None if it has no body."""
        return self._admin("POST", path, json=json)

    def admin_delete(self, path: str):
        """DELETE /admin/…, e.g. faults, limits, requests."""
        return self._admin("DELETE", path)

    def _admin(self, method: str, path: str, **kwargs):
        path = "/" + path.removeprefix("/").removeprefix("admin/")
        answer = self._http.request(method, f"{self.url}/admin{path}", timeout=30, **kwargs)
        if not answer.ok:
            raise RuntimeError(f"{method} /admin{path}: {answer.status_code} {answer.text}")
        return answer.json() if answer.content else None

    def reset(self):
        """Empties it: no data, no faults, no limits, no tokens; its default client and project again."""
        self.admin_post("reset")

    def stop(self):
        self._process.terminate()
        try:
            self._process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


@dataclass
class Cluster:
    """A running cluster of scripts/cluster.sh."""

    port: int
    socket_dir: str
    bindir: Path
    data_dir: Path
    log_path: Path
    superuser: str = "postgres"
    database: str = "postgres"

    def dsn(self, database: str) -> str:
        """The superuser's way into a database, over the unix socket."""
        return f"host={self.socket_dir} port={self.port} user={self.superuser} dbname={database}"

    @property
    def superuser_dsn(self) -> str:
        return self.dsn(self.database)

    def connect(self, **kwargs) -> psycopg.Connection:
        """A connection of the superuser, with autocommit by default."""
        return psycopg.connect(self.superuser_dsn, **{"autocommit": True, **kwargs})

    def psql(
        self,
        sql: str | None = None,
        *,
        file: Path | None = None,
        dsn: str | None = None,
        args: tuple[str, ...] = ("-q", "-A", "-t"),
        variables: dict[str, str] | None = None,
        check: bool = True,
        env: dict[str, str] | None = None,
        merge_stderr: bool = False,
        timeout: float = 60,
    ) -> subprocess.CompletedProcess:
        """Runs SQL text or a file in psql, as the superuser unless `dsn` says otherwise.

        The result has stdout, stderr and returncode; merge_stderr puts both into stdout, in their order. With check
        (the default) psql stops at the first error, which is raised here with its text.
        """
        command = [self.bindir / "psql", "-X", *args, "-d", dsn or self.superuser_dsn]
        if check:
            command += ["-v", "ON_ERROR_STOP=1"]
        for name, value in (variables or {}).items():
            command += ["-v", f"{name}={value}"]
        if file is not None:
            command += ["-f", file]
        result = subprocess.run(
            command,
            input=sql if file is None else "",
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT if merge_stderr else subprocess.PIPE,
            text=True,
            timeout=timeout,
            env=psql_environment() | (env or {}),
        )
        if check and result.returncode != 0:
            raise RuntimeError(f"psql ended with {result.returncode}: {result.stderr or result.stdout}")
        return result

    def log(self) -> str:
        """What the server has logged so far."""
        return self.log_path.read_text(errors="replace")


@dataclass
class Gateway:
    """A registered role: everything that an ETL tool needs to connect."""

    username: str
    password: str = field(repr=False)
    database: str
    schema: str
    port: int

    @property
    def dsn(self) -> str:
        return (
            f"host=127.0.0.1 port={self.port} user={self.username} password={self.password} dbname={self.database}"
        )

    def connect(self, **kwargs) -> psycopg.Connection:
        """A connection over TCP. As usual in psycopg, a transaction begins with the first statement."""
        return psycopg.connect(self.dsn, **kwargs)


def psql_environment() -> dict[str, str]:
    """The environment without the caller's PostgreSQL settings, with fixed formats for output."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PG") or name == "PG_CONFIG"}
    return kept | {"LC_ALL": "C", "PGTZ": "UTC", "PGDATESTYLE": "ISO, YMD", "PGCLIENTENCODING": "UTF8"}


def cluster_script(*args) -> None:
    result = subprocess.run(
        [ROOT / "scripts" / "cluster.sh", *args],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    if result.returncode != 0:
        raise RuntimeError(f"scripts/cluster.sh {args[0]}: {result.stdout}")


@contextmanager
def own_cluster(*settings: str):
    """A cluster with the extension preloaded, which the caller may stop or kill."""
    # Short, because the path of a unix socket must be, and in /tmp, where the cluster's owner gets at it.
    directory = Path(tempfile.mkdtemp(prefix="cdf-pg-", dir="/tmp"))
    try:
        cluster_script("start", directory, "session_preload_libraries=cdf_fdw", *settings)
        env = dict(line.split("=", 1) for line in (directory / "env").read_text().splitlines())
        yield Cluster(
            port=int(env["PGPORT"]),
            socket_dir=env["PGHOST"],
            bindir=Path(env["BINDIR"]),
            data_dir=Path(env["CLUSTER_DATA"]),
            log_path=Path(env["CLUSTER_LOG"]),
        )
    finally:
        cluster_script("stop", directory)
        shutil.rmtree(directory, ignore_errors=True)


REGISTER = """
SELECT username, password, database, schema FROM cdf_register_credentials(
  token_url => %(token_url)s, client_id => %(client_id)s, client_secret => %(client_secret)s,
  scope => %(scope)s, project => %(project)s)
"""
