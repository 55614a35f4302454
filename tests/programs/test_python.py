"""Python's drivers and libraries: what each of them sends arrives, is rolled back, and is refused, as it should be."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import pytest
from loads import AGAIN, AT_ONCE, FIRST, REFUSAL, REFUSED, SPOILED, Load, check, check_nothing, only
from test_pages import DRIVERS
from venvs import Ran, missing, needed, run_script

IN_ONE = ("assets", "events", "timeseries", "datapoints")


@dataclass(frozen=True)
class Tool:
    """A program: its script, the packages that it takes, and its ways of loading."""

    script: str
    packages: tuple[str, ...]
    insert: tuple[str, ...] = ()
    copy: tuple[str, ...] = ()
    upsert: tuple[str, ...] = ()
    # Whether the whole load is one transaction, which the program can also roll back; else each table is one of its own.
    one: bool = True
    # Whether its user sees NOTICEs.
    notices: bool = False
    # Files that it takes beside its packages: the name of a variable that the script reads, and where the file may be.
    files: tuple[tuple[str, tuple[str, ...], str], ...] = ()


TOOLS = {
    "psycopg 3": Tool(
        "with_psycopg.py",
        ("psycopg",),
        insert=("executemany", "pipeline"),
        copy=("copy text", "copy binary"),
        upsert=("on conflict",),
        notices=True,
    ),
    "psycopg 2": Tool(
        "with_psycopg2.py",
        ("psycopg2-binary",),
        insert=("executemany", "execute_batch", "execute_values"),
        copy=("copy_expert",),
        upsert=("on conflict",),
        notices=True,
    ),
    "asyncpg": Tool(
        "with_asyncpg.py",
        ("asyncpg",),
        insert=("executemany",),
        copy=("copy_records_to_table",),
        upsert=("on conflict",),
        notices=True,
    ),
    "SQLAlchemy, psycopg": Tool(
        "with_sqlalchemy.py",
        ("sqlalchemy", "psycopg"),
        insert=("psycopg: insert",),
        upsert=("psycopg: on conflict",),
        notices=True,
    ),
    "SQLAlchemy, psycopg2": Tool(
        "with_sqlalchemy.py",
        ("sqlalchemy", "psycopg2-binary"),
        insert=("psycopg2: insert",),
        upsert=("psycopg2: on conflict",),
    ),
    "pandas to_sql": Tool("with_pandas.py", ("pandas", "sqlalchemy", "psycopg"), insert=("to_sql", "multi"), copy=("copy",)),
    "ADBC": Tool(
        "with_adbc.py",
        ("adbc-driver-postgresql", "pyarrow"),
        insert=("executemany",),
        copy=("adbc_ingest",),
        upsert=("on conflict",),
    ),
    "polars": Tool(
        "with_polars.py",
        ("polars", "adbc-driver-postgresql", "pyarrow", "sqlalchemy", "psycopg"),
        insert=("sqlalchemy",),
        copy=("adbc",),
        one=False,
    ),
    "DuckDB": Tool(
        "with_duckdb.py",
        ("duckdb", "duckdb-extension-postgres-scanner"),
        copy=("binary copy", "text copy"),
    ),
    "petl": Tool("with_petl.py", ("petl", "psycopg2-binary"), insert=("appenddb",), notices=True),
    "Django": Tool(
        "with_django.py",
        ("django", "psycopg"),
        insert=("bulk_create", "save"),
        upsert=("update_conflicts", "update_or_create"),
        notices=True,
    ),
    "psqlODBC through pyodbc": Tool(
        "with_pyodbc.py",
        ("pyodbc",),
        insert=("executemany", "executemany; UseDeclareFetch=1;UseServerSidePrepare=0"),
        upsert=("on conflict",),
        files=(("PSQLODBC", DRIVERS["PSQLODBC"], "Debian's odbc-postgresql"),),
    ),
    "Spark JDBC": Tool(
        "with_pyspark.py",
        ("pyspark",),
        insert=("append",),
        one=False,
        files=(("PGJDBC", DRIVERS["PGJDBC"], "Debian's libpostgresql-jdbc-java"), ("JAVA", DRIVERS["JAVA"], "Java")),
    ),
}


class Program:
    """One of TOOLS, ready to be run."""

    def __init__(self, name: str, version: str, files: dict[str, str], role, home: Path, matrix):
        self.tool, self.row = TOOLS[name], matrix.row(name, version)
        self._files, self._role, self._home = files, role, home

    def load(self, loaded: Load, how: str, end: str = "commit") -> Ran:
        return run_script(self.tool.script, self._role, loaded, how, self._home, end=end, more=self._files)

    @property
    def ways(self) -> list[tuple[str, str]]:
        """Its ways of loading, and the column of the table of results that each stands in."""
        return [(column, how) for column in ("insert", "copy", "upsert") for how in getattr(self.tool, column)]

    @property
    def one_of_each(self) -> list[tuple[str, str]]:
        """The first way of each column."""
        return [way for way in self.ways if way[1] == getattr(self.tool, way[0])[0]]


@pytest.fixture(params=TOOLS)
def program(request, matrix, etl, json_tables, tmp_path) -> Program:
    name = request.param
    tool = TOOLS[name]
    version = needed(matrix, name, *tool.packages)
    files = {}
    for variable, places, what in tool.files:
        there = [place for place in places if os.path.exists(place)]
        if not there:
            missing(matrix, name, f"{what} is not here")
        files[variable] = there[0]
    return Program(name, version, files, etl, tmp_path, matrix)


@pytest.fixture(scope="module")
def json_tables(registered, cluster):
    """Tables whose JSON columns are `json`: a binary COPY that sends texts is refused by `jsonb`."""
    columns = {
        "assets": "external_id text, name text, parent_external_id text, description text, metadata json, data_set_id bigint",
        "events": "external_id text, start_time timestamptz, end_time timestamptz, type text, description text, metadata json",
        "timeseries": "external_id text, name text, unit text, is_step boolean, metadata json",
        "datapoints": 'external_id text, "timestamp" timestamptz, value float8',
        "raw_rows": "db_name text, table_name text, key text, columns json",
    }
    with cluster.connect() as connection:
        for name, definition in columns.items():
            table = f'"{registered.schema}".{name}_json'
            connection.execute(f"CREATE FOREIGN TABLE {table} ({definition}) SERVER cdf OPTIONS (resource '{name}')")
            connection.execute(f'GRANT ALL ON {table} TO "{registered.username}"')


def test_loads_arrive(program, cdf):
    for column, how in program.ways:
        cdf.reset()
        with program.row.tried(column, how):
            program.load(FIRST, how).well()
            check(cdf, FIRST)
            program.load(AGAIN, how).well()
            check(cdf, FIRST, AGAIN)


def test_rollback_sends_nothing(program, cdf):
    if not program.tool.one:
        program.row.note("rollback", "each table is committed by the program")
        pytest.skip("the program commits by itself")
    with program.row.tried("rollback"):
        for _, how in program.one_of_each:
            program.load(FIRST, how, end="rollback").well()
            check_nothing(cdf)


def test_a_row_that_is_refused_at_once_sends_nothing(program, cdf):
    for _, how in program.one_of_each:
        printed = program.load(SPOILED if program.tool.one else only(SPOILED, "assets"), how).badly().printed
        for text in AT_ONCE:
            assert text in printed, printed
        check_nothing(cdf)


def test_what_cdf_refuses_is_told(program, cdf):
    with program.row.tried("refused load"):
        for _, how in program.one_of_each:
            printed = program.load(only(REFUSED, *(IN_ONE if program.tool.one else ["assets"])), how).badly().printed
            for text in REFUSAL:
                assert text in printed, printed
            check_nothing(cdf)


def test_who_hears_of_the_progress(program, progress, cdf):
    column, how = program.ways[0]
    printed = program.load(only(FIRST, "assets"), how).well().printed
    seen = "delivered 0 of 24 assets" in printed
    program.row.note("progress seen", "yes" if seen else "no")
    assert seen == program.tool.notices, printed
    check(cdf, only(FIRST, "assets"))
