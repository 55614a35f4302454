"""Fixtures that the suites share. Nothing starts before a test asks for it.

emulator   the CDF emulator, one per session
cluster    a throw-away PostgreSQL cluster with the extension preloaded, one per session
gateway    a role registered with cdf_register_credentials on that cluster, one per session
cdf        the emulator, emptied for this test
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import pytest
from harness import REGISTER, TARGET, Emulator, Gateway, own_cluster


@pytest.fixture(scope="session")
def emulator():
    binary = Path(os.environ.get("CDF_EMULATOR", TARGET / "release" / "cdf-emulator"))
    if not binary.exists():
        pytest.fail(f"{binary} is missing: run scripts/build.sh emulator, or name one with CDF_EMULATOR")
    with tempfile.TemporaryDirectory(prefix="cdf-emulator-") as directory:
        running = Emulator(binary, Path(directory))
        yield running
        running.stop()


@pytest.fixture(scope="session")
def cluster():
    with own_cluster("max_connections=50") as running:
        yield running


@pytest.fixture(scope="session")
def gateway(cluster, emulator) -> Gateway:
    emulator.reset()
    with cluster.connect() as connection:
        connection.execute("CREATE EXTENSION IF NOT EXISTS cdf_fdw")
        row = connection.execute(REGISTER, emulator.access).fetchone()
    return Gateway(*row, port=cluster.port)


@pytest.fixture
def cdf(emulator) -> Emulator:
    """The emulator, emptied. Sessions that hold a token from before get one 401 and fetch a new one."""
    emulator.reset()
    return emulator
