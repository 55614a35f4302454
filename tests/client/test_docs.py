"""Runs the documents: every block of SQL, and what is typed into psql.

Each page has a database of its own with a registered role, in which its blocks run in their order, as a superuser. What a page or a block needs
beyond its own text is said in one of two visible places: here (PAGES, PLACEHOLDERS), or in comments of the page, in front of
the block:

    <!-- test: as role -->                   the registered role runs it
    <!-- test: in a new database -->         in which the extension is, and nothing else
    <!-- test: in an empty database -->      in which not even that is
    <!-- test: first: CREATE SCHEMA raw -->  SQL that a superuser runs before
    <!-- test: data: a,2024-01-01,1 -->      a line for a COPY … FROM STDIN of the block, or of the file that it copies from
    <!-- test: then: SELECT … -->            a query of the registered role's that gives `t` afterwards
    <!-- test: not run: why -->              there is a reason why it cannot be run here

Blocks that are not for psql (`make`, `docker`) are not run.
"""

from __future__ import annotations

import os
import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

import psycopg
import pytest
from harness import REGISTER, ROOT, Cluster, Emulator, Gateway, own_cluster, psql_environment
from psycopg import sql
from support import Api
from test_views import create_view

SITES = ["README.md", *sorted(str(page.relative_to(ROOT)) for page in (ROOT / "docs").glob("*.md"))]
# So many blocks may be marked as not to be run, in all pages.
MOST_NOT_RUN = 2


def plant(api: Api) -> None:
    """What the tables of docs/tables.md read in CDF."""
    api.create_raw("plant", "pumps", p1={"tag": "p1", "power_kw": 7.5})
    types = {"name": "text", "pressure": "float64", "tags": ["text"], "info": "json", "seen": "timestamp"}
    create_view(api, "Pump", types | {"parent": "direct"}, space="plant")


def series(api: Api) -> None:
    api.create("timeseries", "s")


# What is in CDF before the blocks of a page run.
PAGES = {"docs/tables.md": plant, "docs/connect-your-tool.md": series}


def placeholders(cdf: Emulator, role: Gateway | None) -> list[tuple[str, str]]:
    """The placeholders that a reader replaces, as pairs of an expression and its value."""
    pairs = [(rf"\b{name}(\s*=>\s*|\s+)'…'", rf"{name}\g<1>'{value}'") for name, value in cdf.access.items()]
    pairs += [
        (r"https://login\.microsoftonline\.com/<tenant>/oauth2/v2\.0/token", cdf.token_url),
        (r"https://westeurope-1\.cognitedata\.com", cdf.url),
        (r"\bmy-project\b", cdf.project),
        ("<application id>", cdf.client_id),
        ("<secret>", cdf.client_secret),
    ]
    if role is not None:
        conninfo = f"host=127.0.0.1 port={role.port} user={role.username} dbname={role.database}"
        pairs += [
            (r"host=gateway\.example\.com user=<username> dbname=<database> sslmode=require", conninfo),
            ("<role>|<username>", role.username),
            ("<schema>", role.schema),
            ("<database>", role.database),
        ]
    return pairs


@dataclass
class Block:
    """A fenced block of a page, and what the comments before it say."""

    page: str
    line: int
    language: str
    text: str
    notes: list[str]

    def note(self, name: str) -> list[str]:
        """What is said under a name; one without a text is said as an empty one."""
        return [note[len(name) :].removeprefix(":").strip() for note in self.notes if re.match(rf"{name}(:|$)", note)]

    @property
    def is_ours(self) -> bool:
        """Whether it is SQL, or psql is run by it."""
        return self.language == "sql" or (self.language == "console" and re.search(r"^(\$ )?psql ", self.text, re.M))


BLOCK = re.compile(
    r"(?P<notes>(?:^[ ]*<!-- test: .*?-->\n)*)^(?P<indent>[ ]*)```(?P<language>\w+)\n(?P<text>.*?)^[ ]*```$", re.M | re.S
)


def blocks(page: str) -> list[Block]:
    text = (ROOT / page).read_text()
    found = []
    for match in BLOCK.finditer(text):
        indent = match["indent"]
        lines = [line.removeprefix(indent) for line in match["text"].splitlines()]
        notes = [note.strip() for note in re.findall(r"<!-- test: (.*?)-->", match["notes"], re.S)]
        line = text.count("\n", 0, match.start("language")) + 1
        found.append(Block(page, line, match["language"], "\n".join(lines) + "\n", notes))
    return found


@pytest.fixture(scope="module")
def server():
    """A cluster of the module's own, as roles and their settings are the whole cluster's. There are the roles that the pages
    speak of as there already."""
    with own_cluster() as cluster:
        with cluster.connect() as connection:
            connection.execute("CREATE ROLE etl LOGIN")
        yield cluster


class Reader:
    """A reader who goes through a page and does what it says."""

    def __init__(self, server: Cluster, cdf: Emulator, directory: Path):
        self.server, self.cdf, self.directory = server, cdf, directory
        self.role: Gateway | None = None
        self.databases: list[str] = []
        self.new_database()
        self.run("CREATE EXTENSION cdf_fdw")
        self.register()

    def new_database(self) -> None:
        self.role = None
        self.database = f"page_{os.getpid()}_{len(self.databases)}"
        self.databases.append(self.database)
        with self.server.connect() as connection:
            connection.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(self.database)))
            connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(self.database)))

    def close(self) -> None:
        for name in self.databases:
            with self.server.connect() as connection:
                connection.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))

    def register(self) -> None:
        with psycopg.connect(self.server.dsn(self.database), autocommit=True) as connection:
            row = connection.execute(REGISTER, self.cdf.access).fetchone()
        self.role = Gateway(*row, port=self.server.port)

    def filled(self, text: str) -> str:
        for expression, value in placeholders(self.cdf, self.role):
            text = re.sub(expression, value, text)
        return text

    def psql(self, text: str, dsn: str) -> str:
        command = [self.server.bindir / "psql", "-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-d", dsn, "-f", "-"]
        return self._done(command, text)

    def _done(self, command: list, text: str = "") -> str:
        environment = psql_environment() | {"PATH": f"{self.server.bindir}:{os.environ['PATH']}"}
        if self.role is not None:
            environment["PGPASSWORD"] = self.role.password
        done = subprocess.run(
            command, input=text, capture_output=True, text=True, timeout=60, env=environment, cwd=self.directory
        )
        assert done.returncode == 0, f"{text}\n{done.stdout}{done.stderr}"
        return done.stdout

    def run(self, text: str) -> str:
        return self.psql(text, self.server.dsn(self.database))

    def run_as_role(self, text: str) -> str:
        assert self.role is not None, "no role is registered on this page yet"
        return self.psql(text, self.role.dsn)

    def follow(self, block: Block) -> None:
        if block.note("in a new database") or block.note("in an empty database"):
            self.new_database()
        if block.note("in a new database"):
            self.run("CREATE EXTENSION cdf_fdw")
        for statement in block.note("first"):
            self.run(self.filled(statement))
        text = self.filled(block.text)
        if block.language == "console":
            self.follow_console(block, text)
        else:
            self.follow_sql(block, text)
        for query in block.note("then"):
            assert self.run_as_role(query).strip() == "t", query

    def follow_sql(self, block: Block, text: str) -> None:
        if data := block.note("data"):
            text = re.sub(r"(FROM STDIN[^;]*;\n)", lambda match: match[1] + "\n".join([*data, "\\.", ""]), text)
        registers = re.search(r"FROM cdf_register_credentials\(", text)
        if block.note("as role"):
            self.run_as_role(text)
        elif registers:
            [row] = [line for line in self.run(text).splitlines() if line.count("|") == 3]
            self.role = Gateway(*row.split("|"), port=self.server.port)
        else:
            self.run(text)

    def follow_console(self, block: Block, text: str) -> None:
        for file in re.findall(r"\bfrom '([\w.]+)'", text):
            (self.directory / file).write_text("".join(f"{line}\n" for line in block.note("data")))
        command, *typed = re.sub(r"\\\n\s*", "", text).removeprefix("$ ").splitlines()
        if not command.startswith("psql "):
            pytest.fail(f"{block.page}:{block.line}: psql is not what the block begins with")
        # What is typed at psql's prompt, and the data of a \copy after it.
        typed = [re.sub(r"^\w*[=-]> ", "", line) for line in typed]
        strict = command.replace("psql ", "psql -X -v ON_ERROR_STOP=1 ", 1)
        self._done(["bash", "-c", strict], "".join(f"{line}\n" for line in typed))


@pytest.mark.parametrize("page", SITES)
def test_the_blocks_of_a_page_run(server, cdf, page, tmp_path):
    ours = [block for block in blocks(page) if block.is_ours and not block.note("not run")]
    if not ours:
        return
    if page in PAGES:
        PAGES[page](Api(cdf))
    reader = Reader(server, cdf, tmp_path)
    try:
        for block in ours:
            try:
                reader.follow(block)
            except (AssertionError, psycopg.Error) as error:
                pytest.fail(f"{page}:{block.line}: {error}")
    finally:
        reader.close()


def test_blocks_that_are_not_run_say_why_and_are_few():
    left = [block for page in SITES for block in blocks(page) if block.is_ours and block.note("not run")]
    assert all(why for block in left for why in block.note("not run"))
    assert len(left) <= MOST_NOT_RUN, [f"{block.page}:{block.line}" for block in left]


def test_every_block_is_found():
    for page in SITES:
        fences = re.findall(r"^ *```(\w+)$", (ROOT / page).read_text(), re.M)
        assert [block.language for block in blocks(page)] == fences, page


def test_every_note_is_understood():
    known = ("as role", "in a new database", "in an empty database", "first", "data", "then", "not run")
    for page in SITES:
        text = (ROOT / page).read_text()
        notes = [note for block in blocks(page) for note in block.notes]
        assert len(notes) == len(re.findall("<!-- test:", text)), f"{page}: a note that stands before no block"
        assert all(re.match(rf"({'|'.join(known)})(:|$)", note) for note in notes), notes


LINK = re.compile(r"\]\(([^)#\s]*)(?:#([\w-]+))?\)")


def anchors(page: Path) -> set[str]:
    headings = re.findall(r"^#+ (.*)$", page.read_text(), re.M)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", SITES)
def test_links_within_the_documents_lead_somewhere(page):
    for file, anchor in LINK.findall((ROOT / page).read_text()):
        if "://" in file:
            continue
        target = (ROOT / page).parent / file if file else ROOT / page
        assert target.exists(), f"{page}: {file}"
        if anchor:
            assert anchor in anchors(target), f"{page}: {file}#{anchor}"
