"""Runs what stands in docs/clients, in the programs that the pages are about, and compares what they print.

Each page has a database of its own with a registered role, in which its blocks run in their order. Blocks of SQL are run by a
superuser; `python` is run by the environment of the page, `console` by bash, with the commands of that environment at hand. What a
block needs beyond its text stands in comments in front of it, as in tests/client/test_docs.py, and:

    <!-- test: fails -->              the program ends with an error
    <!-- test: file: NAME: line -->   a line of a file that it reads
    <!-- test: as: NAME -->           in front of a `json` block: it is this file
    <!-- test: printed -->            in front of a `text` block: the last program has printed these lines, … is anything
"""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest
from harness import ROOT
from test_docs import Block, Reader, blocks
from venvs import PLACE, Ran, missing, needed, run

DRIVERS = {
    "PSQLODBC": ("/usr/lib/x86_64-linux-gnu/odbc/psqlodbcw.so", "/usr/lib/aarch64-linux-gnu/odbc/psqlodbcw.so"),
    "PGJDBC": ("/usr/share/java/postgresql.jar",),
    "JAVA": ("/usr/bin/java",),
}
# What the pages need: the environment, and packages in it, or drivers.
PAGES = {
    "psycopg.md": ("python", "psycopg"),
    "psycopg2.md": ("python", "psycopg2-binary"),
    "asyncpg.md": ("python", "asyncpg"),
    "sqlalchemy.md": ("python", "sqlalchemy", "psycopg"),
    "pandas.md": ("python", "pandas", "sqlalchemy", "psycopg"),
    "adbc.md": ("python", "adbc-driver-postgresql", "pyarrow"),
    "polars.md": ("python", "polars", "adbc-driver-postgresql", "sqlalchemy", "psycopg"),
    "duckdb.md": ("python", "duckdb", "duckdb-extension-postgres-scanner"),
    "dlt.md": ("python", "dlt"),
    "meltano.md": ("target-postgres", "meltanolabs-target-postgres"),
    "petl.md": ("python", "petl", "psycopg2-binary"),
    "django.md": ("python", "django", "psycopg"),
    "odbc.md": ("python", "pyodbc", "PSQLODBC"),
    "spark.md": ("python", "pyspark", "PGJDBC", "JAVA"),
    "sling.md": ("python", "sling-linux-amd64"),
}
FOLDER = ROOT / "docs" / "clients"


class Follower(Reader):
    """Somebody who goes through a page of a tool and does what it says."""

    def __init__(self, server, cdf, directory: Path, environment: str, drivers: dict[str, str]):
        super().__init__(server, cdf, directory)
        self.bin, self.drivers, self.printed = PLACE / environment / "bin", drivers, ""

    def filled(self, text: str) -> str:
        text = super().filled(text)
        for found, put in [
            (r"gateway\.example\.com(:\d+)?", f"127.0.0.1:{self.role.port}" if "gateway.example.com:" in text else "127.0.0.1"),
            (r"\b5432\b", str(self.role.port)),
            ("<password>", self.role.password),
            (r"sslmode=require", "sslmode=prefer"),
            (r"/path/to/(psqlodbcw\.so)", self.drivers.get("PSQLODBC", "")),
            (r"/path/to/postgresql\.jar", self.drivers.get("PGJDBC", "")),
        ]:
            text = re.sub(found, lambda _, put=put: put, text)
        # What INSTALL has got before, elsewhere.
        extension = next(self.bin.parent.glob("lib/python*/site-packages/duckdb_extension_*/extensions/*/*.duckdb_extension"), None)
        return text.replace("LOAD postgres", f"LOAD '{extension}'")

    def follow(self, block: Block) -> None:
        for file in block.note("file"):
            name, _, line = file.partition(": ")
            with (self.directory / name).open("a", encoding="utf-8") as file:
                file.write(self.filled(line) + "\n")
        if not block.is_ours:
            for statement in block.note("first"):
                self.run(self.filled(statement))
        match block.language:
            case "python":
                program = self.directory / "program.py"
                program.write_text(self.filled(block.text), encoding="utf-8")
                self.ended(block, self.start([self.bin / "python", program]))
            case "console" if not block.is_ours:
                for command in re.split(r"^\$ ", self.filled(block.text), flags=re.M)[1:]:
                    self.ended(block, self.start(["bash", "-euo", "pipefail", "-c", command]))
            case "json":
                [name] = block.note("as")
                (self.directory / name).write_text(self.filled(block.text), encoding="utf-8")
            case "text":
                if block.note("printed"):
                    for line in filter(None, self.filled(block.text).splitlines()):
                        pattern = ".*".join(map(re.escape, line.strip().split("…")))
                        assert re.search(pattern, self.printed), f"{line}\nis not in\n{self.printed}"
            case _:
                super().follow(block)
                return
        for query in block.note("then"):
            assert self.run_as_role(query).strip() == "t", query

    def start(self, command: list) -> Ran:
        path = f"{self.bin}:{self.server.bindir}:{os.environ['PATH']}"
        return run(command, self.directory, {"PATH": path, "PGPORT": str(self.role.port)})

    def ended(self, block: Block, ran: Ran) -> None:
        self.printed = (ran.badly() if block.note("fails") else ran.well()).printed


@pytest.mark.parametrize("page", PAGES)
def test_the_blocks_of_a_page_run(cluster, cdf, matrix, page, tmp_path):
    environment, *wanted = PAGES[page]
    tool = f"docs/clients/{page}"
    needed(matrix, tool, *(name for name in wanted if name not in DRIVERS), environment=environment)
    drivers = {}
    for name in wanted:
        if name in DRIVERS:
            there = [place for place in DRIVERS[name] if os.path.exists(place)]
            if not there:
                missing(matrix, tool, f"{DRIVERS[name][0]} is not here")
            drivers[name] = there[0]
    follower = Follower(cluster, cdf, tmp_path, environment, drivers)
    try:
        for block in blocks(f"docs/clients/{page}"):
            try:
                follower.follow(block)
            except AssertionError as error:
                pytest.fail(f"{page}:{block.line}: {error}")
    finally:
        follower.close()


def test_every_page_is_in_the_index():
    index = (FOLDER / "README.md").read_text()
    for page in FOLDER.glob("*.md"):
        assert page.name == "README.md" or f"({page.name})" in index, page.name
