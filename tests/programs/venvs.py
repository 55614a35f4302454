"""The Python programs: where scripts/programs-python.sh has put them, and running one.

Each environment is a folder below target/programs; `python` is the one that most programs share.
"""

from __future__ import annotations

import json
import os
import subprocess
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest
from harness import TARGET, Gateway
from loads import Load, as_json
from matrix import Matrix

PLACE = TARGET / "programs"
SCRIPTS = Path(__file__).resolve().parent / "python"
# A program that runs for longer hangs.
PATIENCE = 100


@dataclass(frozen=True)
class Ran:
    """What came of a program: its exit status, and what it printed on stdout and stderr."""

    status: int
    printed: str

    def well(self) -> Ran:
        assert self.status == 0, self.printed
        return self

    def badly(self) -> Ran:
        assert self.status != 0, f"it should have failed: {self.printed}"
        return self


@cache
def versions(environment: str) -> dict[str, str]:
    """The packages of an environment, by their names in lower case, none if it is not there."""
    python = PLACE / environment / "bin" / "python"
    if not python.exists():
        return {}
    listed = subprocess.run(
        [python, "-c", "import importlib.metadata as m; [print(d.name, d.version) for d in m.distributions()]"],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return dict(line.lower().replace("_", "-").split(" ", 1) for line in listed.stdout.splitlines())


def needed(matrix: Matrix, tool: str, *packages: str, environment: str = "python") -> str:
    """The version of the first package; skips the test, in so many words, where one of them could not be had."""
    have = versions(environment)
    for package in packages:
        if package not in have:
            why = f"{package} is not here: scripts/programs-python.sh could not get it"
            matrix.skipped(tool, why)
            pytest.skip(f"{tool}: {why}")
    return have[packages[0]]


def missing(matrix: Matrix, tool: str, what: str) -> None:
    """Skips the test, as something that is no Python package is not here."""
    matrix.skipped(tool, what)
    pytest.skip(f"{tool}: {what}")


def environment_of(home: Path, more: dict[str, str] | None = None) -> dict[str, str]:
    """No settings of whoever runs the tests, and none of the outer world to report to."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PG") and "proxy" not in name.lower()}
    mute = {"RUNTIME__DLTHUB_TELEMETRY": "false", "SLING_DISABLE_TELEMETRY": "true"}
    return kept | mute | {"HOME": str(home), "PYTHONUTF8": "1", "LC_ALL": "C.UTF-8", "TZ": "America/New_York"} | (more or {})


def run(command: list, home: Path, more: dict[str, str] | None = None, given: str | None = None) -> Ran:
    """Runs a program; a time zone of its own shows what depends on one."""
    ran = subprocess.run(
        command,
        cwd=home,
        env=environment_of(home, more),
        input=given if given is not None else "",
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        errors="replace",
        timeout=PATIENCE,
    )
    return Ran(ran.returncode, ran.stdout)


def dsn(role: Gateway) -> dict:
    return {
        "host": "127.0.0.1",
        "port": role.port,
        "user": role.username,
        "password": role.password,
        "dbname": role.database,
    }


def run_script(
    script: str,
    role: Gateway,
    loaded: Load,
    how: str,
    home: Path,
    *,
    end: str = "commit",
    environment: str = "python",
    more: dict[str, str] | None = None,
    **request,
) -> Ran:
    """Runs a script of tests/programs/python with this load."""
    request = {"dsn": dsn(role), "schema": role.schema, "how": how, "end": end, "load": as_json(loaded)} | request
    path = home / "request.json"
    path.write_text(json.dumps(request), encoding="utf-8")
    return run([PLACE / environment / "bin" / "python", SCRIPTS / script, path], home, more)
