"""The programs that are no Python: which of them are here, in which version, and what they are started with.

scripts/programs-debian.sh and scripts/programs-node.sh have got them.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
from collections.abc import Callable
from functools import cache
from pathlib import Path

from harness import TARGET, Gateway

PLACE = TARGET / "programs"
NODE = PLACE / "node"
JARS = ":".join(f"/usr/share/java/{name}.jar" for name in ("postgresql", "HikariCP", "slf4j-api", "slf4j-nop", "gson"))


@cache
def debian_version(package: str) -> str | None:
    """None if the package is not installed."""
    if not shutil.which("dpkg-query"):
        return None
    command = ["dpkg-query", "-W", "-f", "${db:Status-Status} ${Version}", package]
    status, _, version = subprocess.run(command, capture_output=True, text=True).stdout.partition(" ")
    # Without the epoch, and without Debian's own revision.
    return version.split(":")[-1].split("-")[0].split("+")[0] if status == "installed" else None


@cache
def node_version(package: str) -> str | None:
    """None if it has not been installed under the build directory. What Prisma generates has the version of its client."""
    manifest = NODE / "node_modules" / package / "package.json"
    if not shutil.which("node") or not manifest.exists():
        return None
    if package.startswith("."):
        return node_version("@prisma/client")
    return json.loads(manifest.read_text())["version"]


def unpacked(name: str) -> Path | None:
    """Where a program of Debian's has been unpacked."""
    place = PLACE / "debian" / name
    return place if (place / "unpacked").exists() else None


def built(name: str, sources: list[Path], command: Callable[[Path], list], environment: dict[str, str] | None = None) -> Path:
    """The folder into which a compiler has put a program, once for each state of its sources."""
    state = hashlib.sha256(b"".join(source.read_bytes() for source in sources)).hexdigest()[:12]
    place = PLACE / "built" / f"{name}-{state}"
    if not place.exists():
        work = place.with_suffix(".new")
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir(parents=True)
        ran = subprocess.run(
            command(work),
            env=os.environ | (environment or {}),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        assert ran.returncode == 0, ran.stdout
        work.rename(place)
    return place


def pg_environment(role: Gateway) -> dict[str, str]:
    """What libpq, and most drivers, take a connection from."""
    return {
        "PGHOST": "127.0.0.1",
        "PGPORT": str(role.port),
        "PGUSER": role.username,
        "PGPASSWORD": role.password,
        "PGDATABASE": role.database,
        # For those that want to be told.
        "SCHEMA": role.schema,
    }
