"""Runs what stands in docs/clients of the programs that are no Python, as test_pages.py does, and with more languages:

`javascript`, `java`, `go`, `perl`, `ruby`, `r` are run by what their tests are run by. Besides the comments of test_pages.py:

    <!-- test: example: NAME WORD… --> the block stands in tests/programs/rust/examples, whose program is run with these words
    <!-- test: series: NAME -->        this series is in CDF before
    <!-- test: server file: NAME: line -->  a line of a file of the server, which the page has in /srv
    <!-- test: refused: TEXT -->       SQL that the registered role runs, and that fails with this text
"""

from __future__ import annotations

import os
import re

import pytest
from debian import JARS, NODE, PLACE, debian_version, node_version
from harness import ROOT, TARGET
from support import Api
from test_docs import LINK, Block, anchors, blocks
from test_drivers import DRIVERS
from test_pages import FOLDER, Follower
from venvs import Ran, missing, run

# What each page needs.
PAGES = {
    "psql.md": lambda: True,
    "node-postgres.md": lambda: node_version("pg"),
    "knex.md": lambda: node_version("knex"),
    "sequelize.md": lambda: node_version("sequelize"),
    "typeorm.md": lambda: node_version("typeorm"),
    "prisma.md": DRIVERS["Prisma"].version,
    "jdbc.md": lambda: debian_version("libpostgresql-jdbc-java"),
    "go.md": lambda: debian_version("golang-github-lib-pq-dev") and debian_version("golang-github-jackc-pgx-v4-dev"),
    "perl.md": lambda: debian_version("libdbd-pg-perl"),
    "ruby.md": lambda: debian_version("ruby-pg"),
    "r.md": lambda: debian_version("r-cran-rpostgresql"),
    "tokio-postgres.md": DRIVERS["tokio-postgres"].version,
    "pgloader.md": lambda: debian_version("pgloader"),
    "ogr2ogr.md": lambda: debian_version("gdal-bin"),
    "inside-postgresql.md": lambda: True,
}
# The name of a program in each language, what runs it, and its environment.
LANGUAGES = {
    "javascript": ("program.js", ["node"], {"NODE_PATH": str(NODE / "node_modules")}),
    "java": ("Load.java", ["java", "-XX:TieredStopAtLevel=1", "-cp", JARS], {}),
    "go": (
        "main.go",
        ["go", "run"],
        {"GO111MODULE": "off", "GOPATH": "/usr/share/gocode", "GOFLAGS": "", "CGO_ENABLED": "0", "GOCACHE": str(PLACE / "go-cache")},
    ),
    "perl": ("program.pl", ["perl"], {}),
    "ruby": ("program.rb", ["ruby"], {}),
    "r": ("program.R", ["Rscript", "--vanilla"], {}),
}
# The test server has no TLS, and none of these drivers does without it by itself.
WITHOUT_TLS = {
    "javascript": [("ssl: true", "ssl: false"), ('ssl: "require"', 'ssl: "prefer"'), ("?sslmode=verify-full", "")],
    "go": [("sslmode=prefer", "sslmode=disable")],
    "ruby": [('sslmode: "require"', 'sslmode: "prefer"')],
}


class Guest(Follower):
    """Somebody who goes through a page of a tool that is no Python."""

    def __init__(self, server, cdf, directory):
        super().__init__(server, cdf, directory, "python", {})

    def follow(self, block: Block) -> None:
        for series in block.note("series"):
            Api(self.cdf).create("timeseries", series)
        for note in block.note("server file"):
            name, _, line = note.partition(": ")
            with (self.server.data_dir.parent / name).open("a", encoding="utf-8") as file:
                os.chmod(file.name, 0o644)
                file.write(line + "\n")
        block.text = block.text.replace("/srv/", f"{self.server.data_dir.parent}/")
        if texts := block.note("refused"):
            with pytest.raises(AssertionError, match=re.escape(texts[0])):
                self.run_as_role(self.filled(block.text))
        elif saved := block.note("saved as"):
            (self.directory / saved[0]).write_text(self.filled(block.text), encoding="utf-8")
        elif block.note("example"):
            self.follow_example(block)
        elif block.language in LANGUAGES:
            name, command, environment = LANGUAGES[block.language]
            text = self.filled(block.text)
            for found, put in WITHOUT_TLS.get(block.language, []):
                text = text.replace(found, put)
            program = self.directory / name
            program.write_text(text, encoding="utf-8")
            self.ended(block, run([*command, program], self.directory, environment))
        elif block.language == "console":
            self.follow_commands(block)
        else:
            super().follow(block)
            return
        for query in block.note("then"):
            assert self.run_as_role(query).strip() == "t", query

    def follow_commands(self, block: Block) -> None:
        self.write_files(block)
        for command in re.split(r"^\$ ", self.filled(block.text), flags=re.M)[1:]:
            self.ended(block, self.start(["bash", "-euo", "pipefail", "-c", command]))

    def write_files(self, block: Block) -> None:
        for note in block.note("file"):
            name, _, line = note.partition(": ")
            with (self.directory / name).open("a", encoding="utf-8") as file:
                file.write(line + "\n")

    def follow_example(self, block: Block) -> None:
        name, *words = block.note("example")[0].split()
        if block.language == "rust":
            assert block.text.strip() in (ROOT / "tests" / "programs" / "rust" / "examples" / f"{name}.rs").read_text()
        ran = self.example(name, *words)
        self.ended(block, ran)
        if block.language == "text":
            block.notes = ["printed"]
            super().follow(block)

    def example(self, name: str, *words: str) -> Ran:
        return run([TARGET / "release" / "examples" / name, self.role.dsn, *words], self.directory)


@pytest.mark.parametrize("page", PAGES)
def test_the_blocks_of_a_page_run(cluster, cdf, matrix, page, tmp_path):
    if not PAGES[page]():
        missing(matrix, page.removesuffix(".md"), "it is not here")
    guest = Guest(cluster, cdf, tmp_path)
    try:
        for block in blocks(f"docs/clients/{page}"):
            try:
                guest.follow(block)
            except AssertionError as error:
                pytest.fail(f"{page}:{block.line}: {error}")
    finally:
        guest.close()


def test_links_within_the_pages_lead_somewhere():
    for page in FOLDER.glob("*.md"):
        for file, anchor in LINK.findall(page.read_text()):
            if "://" in file:
                continue
            target = page.parent / file if file else page
            assert target.exists(), f"{page.name}: {file}"
            assert not anchor or anchor in anchors(target), f"{page.name}: {file}#{anchor}"
