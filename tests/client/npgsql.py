"""Npgsql from a test: starts npgsql_host.py and speaks to it.

`npgsql` is the driver, one process per test module; it is skipped where scripts/npgsql.sh could not get it. `net` is a
connection of the registered role.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from itertools import count
from pathlib import Path

from harness import TARGET, Gateway

PLACE = TARGET / "npgsql"


class NpgsqlError(Exception):
    """An exception of the driver. `kind` is its .NET name; the rest is None where PostgreSQL has not said it."""

    def __init__(self, kind: str, text: str, sqlstate=None, message=None, detail=None, hint=None):
        super().__init__(f"{kind}: {text}")
        self.kind, self.text, self.sqlstate = kind, text, sqlstate
        self.message, self.detail, self.hint = message, detail, hint


class Npgsql:
    """The process that runs the driver."""

    def __init__(self):
        self._place = tempfile.TemporaryDirectory(prefix="npgsql-")
        self._process = subprocess.Popen(
            [sys.executable, Path(__file__).with_name("npgsql_host.py"), PLACE, self._place.name],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            encoding="utf-8",
            env={"PYTHONPATH": str(PLACE / "python"), "PATH": "/usr/bin:/bin", "LC_ALL": "C.UTF-8"},
        )
        self._numbers = count(1)

    def do(self, what: str, **arguments):
        """Sends a request to the process and returns the result. Raises what the driver has thrown."""
        self._process.stdin.write(json.dumps({"do": what} | arguments) + "\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        assert answer, f"the process that runs Npgsql ended with {self._process.wait()}"
        answer = json.loads(answer)
        if "error" in answer:
            raise NpgsqlError(**answer["error"])
        return answer["value"]

    def open(self, gateway: Gateway, **settings) -> Connection:
        """A connection of the role; settings are those of Npgsql's connection strings, with _ for a space."""
        settings = {
            "Host": "127.0.0.1",
            "Port": gateway.port,
            "Username": gateway.username,
            "Password": gateway.password,
            "Database": gateway.database,
            "SSL_Mode": "Disable",
        } | settings
        string = ";".join(f"{name.replace('_', ' ')}={value}" for name, value in settings.items())
        connection = Connection(self, next(self._numbers))
        connection.do("open", string=string)
        return connection

    def stop(self) -> None:
        self._process.stdin.close()
        try:
            self._process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()
        self._place.cleanup()


class Connection:
    """An NpgsqlConnection. Parameters are pairs of a type, by Npgsql's name for it, and a value."""

    def __init__(self, npgsql: Npgsql, number: int):
        self._npgsql, self._number = npgsql, number

    def do(self, what: str, **arguments):
        return self._npgsql.do(what, connection=self._number, **arguments)

    def execute(self, sql: str, parameters: Iterable = (), timeout: int | None = None) -> int:
        """The number of rows that the driver reports."""
        return self.do("execute", sql=sql, parameters=list(parameters), timeout=timeout)

    def query(self, sql: str, parameters: Iterable = (), timeout: int | None = None) -> list[list]:
        return self.do("query", sql=sql, parameters=list(parameters), timeout=timeout)

    def begin(self) -> None:
        self.do("begin")

    def commit(self) -> None:
        self.do("commit")

    def rollback(self) -> None:
        self.do("rollback")

    def notices(self) -> list[dict]:
        """Those since the last call."""
        return self.do("notices")

    @property
    def state(self) -> str:
        """`Open`, `Closed`, or `Broken`."""
        return self.do("state")

    def close(self) -> None:
        """Gives it back to the pool."""
        self.do("close")
