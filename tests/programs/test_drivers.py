"""Drivers and libraries of other languages than Python: what each of them sends arrives, is rolled back, and is refused, as it
should be. The program of each is in the folder of its language, and is called with METHOD commit|rollback FILE."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from debian import JARS, NODE, built, debian_version, node_version, pg_environment
from harness import ROOT, TARGET
from loads import AGAIN, AT_ONCE, FIRST, REFUSAL, REFUSED, SPOILED, Load, as_json, check, check_nothing, only
from venvs import missing, run

HERE = Path(__file__).resolve().parent


@dataclass(frozen=True)
class Driver:
    """A program: what starts it, the version of what it is about (None: not here), and its ways of loading."""

    command: Callable[[], list]
    version: Callable[[], str | None]
    where: str
    insert: tuple[str, ...] = ()
    copy: tuple[str, ...] = ()
    upsert: tuple[str, ...] = ()
    # Whether its user sees NOTICEs, and the SQLSTATE of an error.
    notices: bool = True
    sqlstate: bool = True
    # Ways that do not tell of a row that is refused in the middle of them, or hang then, as they do with any table.
    mute: tuple[str, ...] = ()
    hanging: tuple[str, ...] = ()
    environment: dict[str, str] = field(default_factory=dict)

    @property
    def ways(self) -> list[tuple[str, str]]:
        return [(column, how) for column in ("insert", "copy", "upsert") for how in getattr(self, column)]


def node(script: str, package: str, **more) -> Driver:
    return Driver(
        lambda: ["node", HERE / "node" / script],
        lambda: node_version(package),
        "scripts/programs-node.sh could not get it",
        environment={"NODE_PATH": str(NODE / "node_modules")},
        **more,
    )


def debian(command: Callable[[], list], package: str, **more) -> Driver:
    return Driver(command, lambda: debian_version(package), f"scripts/programs-debian.sh could not get {package}", **more)


def java() -> list:
    classes = built("java", [HERE / "java" / "Load.java"], lambda to: ["javac", "-d", to, "-cp", JARS, HERE / "java" / "Load.java"])
    return ["java", "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-cp", f"{classes}:{JARS}", "Load"]


def go(name: str) -> list:
    # Debian's libraries are in the form from before Go had modules.
    environment = {"GO111MODULE": "off", "GOPATH": "/usr/share/gocode", "GOFLAGS": "", "CGO_ENABLED": "0"}
    source = HERE / "go" / name / "main.go"
    return [built(f"go-{name}", [source], lambda to: ["go", "build", "-o", to / name, source], environment) / name]


def rust_version() -> str | None:
    if not (TARGET / "release" / "cdf-copy-program").exists():
        return None
    return re.search(r'name = "tokio-postgres"\nversion = "(.*)"', (ROOT / "Cargo.lock").read_text())[1]


DRIVERS = {
    "node-postgres": node(
        "pg.js", "pg", insert=("prepared", "rows"), copy=("copy",), upsert=("upsert",)
    ),
    "Postgres.js": node("postgres.js", "postgres", insert=("rows",), copy=("copy",), upsert=("upsert",), hanging=("copy",)),
    "knex": node("knex.js", "knex", insert=("batch",), upsert=("upsert",)),
    "Sequelize": node("sequelize.js", "sequelize", insert=("bulk", "single"), upsert=("upsert",)),
    "TypeORM": node("typeorm.js", "typeorm", insert=("insert", "save"), upsert=("upsert",)),
    "Prisma": node("prisma.js", ".prisma/client", insert=("many",), notices=False),
    "pgjdbc": debian(
        java, "libpostgresql-jdbc-java", insert=("batch", "keys", "savepoints"), copy=("copy",), upsert=("upsert",)
    ),
    "pgjdbc, reWriteBatchedInserts": debian(
        java,
        "libpostgresql-jdbc-java",
        insert=("batch",),
        upsert=("upsert",),
        environment={"JDBC_OPTIONS": "reWriteBatchedInserts=true"},
    ),
    "pgjdbc, autosave": debian(
        java, "libpostgresql-jdbc-java", insert=("batch",), copy=("copy",), environment={"JDBC_OPTIONS": "autosave=always"}
    ),
    "HikariCP": debian(java, "libhikaricp-java", insert=("pooled batch",), copy=("pooled copy",), upsert=("pooled upsert",)),
    "tokio-postgres": Driver(
        lambda: [TARGET / "release" / "cdf-copy-program"],
        rust_version,
        "scripts/build.sh programs has not built it",
        insert=("prepared",),
        copy=("copy",),
        upsert=("upsert",),
    ),
    "lib/pq": debian(
        lambda: go("pq"), "golang-github-lib-pq-dev", insert=("prepared",), copy=("copy",), upsert=("upsert",)
    ),
    "pgx": debian(
        lambda: go("pgx"),
        "golang-github-jackc-pgx-v4-dev",
        insert=("prepared", "batch"),
        copy=("copy",),
        upsert=("upsert",),
    ),
    "DBD::Pg": debian(
        lambda: ["perl", HERE / "perl" / "load.pl"],
        "libdbd-pg-perl",
        insert=("prepared", "array"),
        copy=("copy",),
        upsert=("upsert",),
        # It goes on after a row that is refused, and tells the last of its errors.
        mute=("array",),
    ),
    "Ruby pg": debian(
        lambda: ["ruby", HERE / "ruby" / "load.rb"],
        "ruby-pg",
        insert=("prepared", "pipeline"),
        copy=("copy",),
        upsert=("upsert",),
    ),
    "RPostgreSQL": debian(
        lambda: ["Rscript", "--vanilla", HERE / "r" / "load.R"],
        "r-cran-rpostgresql",
        insert=("parameters",),
        copy=("copy",),
        upsert=("upsert",),
        mute=("copy",),
        notices=False,
        sqlstate=False,
    ),
}


class Program:
    """A driver, ready to be run."""

    def __init__(self, name: str, version: str, role, home: Path, matrix, options: dict[str, str] | None = None):
        self.driver, self.row = DRIVERS[name], matrix.row(name, version)
        self._home, self._command = home, self.driver.command()
        self._environment = pg_environment(role) | self.driver.environment | (options or {})

    def load(self, loaded: Load, how: str, end: str = "commit") -> list[list[str]]:
        """The lines that it prints, each as its words. Its connection has to work afterwards."""
        path = self._home / "load.json"
        path.write_text(json.dumps(as_json(loaded)), encoding="utf-8")
        printed = run([*self._command, how, end, path], self._home, self._environment).well().printed
        lines = [line.split("\t") for line in printed.splitlines()]
        assert lines[-1] == ["alive"], printed
        return lines

    def ended(self, lines: list[list[str]], how: str) -> None:
        assert [how] in lines, lines

    def refusal(self, lines: list[list[str]]) -> tuple[str, str]:
        """The SQLSTATE and the text of the error that ended it."""
        [[_, code, *text]] = [line for line in lines if line[0] == "refused"]
        return code, " ".join(text)


@pytest.fixture(params=DRIVERS)
def program(request, matrix, etl, tmp_path) -> Program:
    driver = DRIVERS[request.param]
    version = driver.version()
    if version is None:
        missing(matrix, request.param, driver.where)
    return Program(request.param, version, etl, tmp_path, matrix)


def test_loads_arrive(program, cdf):
    for column, how in program.driver.ways:
        cdf.reset()
        with program.row.tried(column, how):
            program.ended(program.load(FIRST, how), "committed")
            check(cdf, FIRST)
            program.ended(program.load(AGAIN, how), "committed")
            check(cdf, FIRST, AGAIN)


def test_rollback_sends_nothing(program, cdf):
    with program.row.tried("rollback"):
        for _, how in program.driver.ways:
            program.ended(program.load(FIRST, how, "rollback"), "rolled back")
            check_nothing(cdf)


def test_a_row_that_is_refused_at_once_sends_nothing(program, cdf):
    driver = program.driver
    for _, how in driver.ways:
        if how in driver.hanging:
            continue
        code, text = program.refusal(program.load(SPOILED, how))
        if how not in driver.mute:
            assert code == ("22001" if driver.sqlstate else ""), text
            assert all(part in text for part in AT_ONCE), text
        check_nothing(cdf)


def test_what_cdf_refuses_is_told(program, cdf):
    with program.row.tried("refused load"):
        for _, how in program.driver.ways:
            code, text = program.refusal(program.load(only(REFUSED, "assets", "events", "timeseries", "datapoints"), how))
            assert code == ("23503" if program.driver.sqlstate else ""), text
            assert all(part in text for part in REFUSAL), text
            check_nothing(cdf)


def test_who_hears_of_the_progress(program, progress, cdf):
    _, how = program.driver.ways[0]
    lines = program.load(only(FIRST, "assets"), how)
    seen = any("delivered 0 of 24 assets" in " ".join(line) for line in lines if line[0] == "notice")
    program.row.note("progress seen", "yes" if seen else "no")
    assert seen == program.driver.notices, lines
    check(cdf, only(FIRST, "assets"))


def test_notices_keep_pgjdbc_waiting(progress, superuser, cdf, matrix, tmp_path):
    """A socketTimeout ends a wait without an answer, and each NOTICE of the progress is one."""
    version = DRIVERS["pgjdbc"].version()
    if version is None:
        missing(matrix, "pgjdbc", DRIVERS["pgjdbc"].where)
    program = Program("pgjdbc", version, progress, tmp_path, matrix, {"JDBC_OPTIONS": "socketTimeout=1"})
    program.ended(program.load(only(FIRST, "assets"), "batch"), "committed")
    check(cdf, only(FIRST, "assets"))
    superuser.execute(f'ALTER ROLE "{progress.username}" SET cdf_fdw.progress_interval = 0')
    with pytest.raises(AssertionError, match="Read timed out|I/O error"):
        program.load(only(FIRST, "assets"), "batch")
