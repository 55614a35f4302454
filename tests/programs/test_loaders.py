"""Programs that load files: pgloader and ogr2ogr. Each table is a run of its own, which the program commits."""

from __future__ import annotations

from pathlib import Path

import pytest
from debian import debian_version
from loads import AGAIN, AT_ONCE, FIRST, REFUSAL, REFUSED, SPOILED, Load, Table, check, check_nothing, only, write_csv
from venvs import Ran, missing, run

# Series before their points.
IN_TURN = ("timeseries", "assets", "events", "datapoints", "raw_rows")


def each_table(loaded: Load) -> list[Table]:
    return sorted(loaded, key=lambda table: IN_TURN.index(table.name))


# ---- pgloader ----

LOAD_FILE = """
LOAD CSV
  FROM '{path}' WITH ENCODING UTF-8 HAVING FIELDS ({fields})
  INTO postgresql://{user}:{password}@127.0.0.1:{port}/{database}?tablename={schema}.{table}
  TARGET COLUMNS ({columns})
  WITH skip header = 1, fields terminated by ',', fields optionally enclosed by '"', fields escaped by double-quote,
       on error stop{settings};
"""
QUIET = "\n  SET client_min_messages to 'warning'"


def pgloader(role, table: Table, home: Path, settings: str = QUIET) -> Ran:
    path = write_csv((table,), home)[table.name]
    command = home / "load.pgloader"
    command.write_text(
        LOAD_FILE.format(
            path=path,
            settings=settings,
            fields=", ".join(f'"{column}" [null if blanks]' for column in table.columns),
            columns=", ".join(f'"{column}"' for column in table.columns),
            user=role.username,
            password=role.password,
            port=role.port,
            database=role.database,
            schema=role.schema,
            table=table.name,
        )
    )
    return run(["pgloader", "--root-dir", home, command], home)


@pytest.fixture
def row(matrix):
    version = debian_version("pgloader")
    if version is None:
        missing(matrix, "pgloader", "scripts/programs-debian.sh could not get it")
    return matrix.row("pgloader", version)


def test_pgloader_loads(etl, cdf, row, tmp_path):
    with row.tried("copy", "on error stop"):
        for loaded in (FIRST, AGAIN):
            for table in each_table(loaded):
                printed = pgloader(etl, table, tmp_path).well().printed
                assert f"{len(table.rows)}" in printed, printed
        check(cdf, FIRST, AGAIN)


def test_pgloader_and_a_refused_row(etl, cdf, row, tmp_path):
    printed = pgloader(etl, only(SPOILED, "assets")[0], tmp_path).printed
    assert all(text in printed for text in AT_ONCE), printed
    check_nothing(cdf)


def test_pgloader_and_a_refused_load(etl, cdf, row, tmp_path):
    with row.tried("refused load"):
        printed = pgloader(etl, only(REFUSED, "assets")[0], tmp_path).printed
        assert all(text in printed for text in REFUSAL), printed
        check_nothing(cdf)
    row.note("rollback", "each table is committed by the program")


def test_pgloader_and_the_progress(progress, cdf, row, tmp_path):
    """A NOTICE in the middle of COMMIT makes pgloader give the connection up: docs/clients/pgloader.md says how none comes."""
    [assets] = only(FIRST, "assets")
    assert "Connection to database server lost" in pgloader(progress, assets, tmp_path, "").printed
    check_nothing(cdf)
    assert "PostgreSQL warning" not in pgloader(progress, assets, tmp_path).well().printed
    row.note("progress seen", "it breaks: client_min_messages must be 'warning'")
    check(cdf, only(FIRST, "assets"))


# ---- ogr2ogr ----


def ogr2ogr(role, table: Table, home: Path, use_copy: str, *more: str) -> Ran:
    path = write_csv((table,), home)[table.name]
    target = (
        f"PG:host=127.0.0.1 port={role.port} dbname={role.database} user={role.username} password={role.password}"
        f" active_schema={role.schema}"
    )
    options = ["-append", "-nln", table.name, "-gt", "unlimited", "-oo", "EMPTY_STRING_AS_NULL=YES", "-oo", "AUTODETECT_TYPE=YES", "--config", "PG_USE_COPY", use_copy]
    return run(["ogr2ogr", "-f", "PostgreSQL", target, path, *options, *more], home)


@pytest.fixture
def ogr(matrix):
    version = debian_version("gdal-bin")
    if version is None:
        missing(matrix, "ogr2ogr", "scripts/programs-debian.sh could not get gdal-bin")
    return matrix.row("ogr2ogr", version)


@pytest.mark.parametrize("use_copy", ["YES", "NO"])
def test_ogr2ogr(etl, cdf, ogr, tmp_path, use_copy):
    with ogr.tried("copy" if use_copy == "YES" else "insert", f"PG_USE_COPY {use_copy}"):
        for loaded in (FIRST, AGAIN):
            for table in each_table(loaded):
                ogr2ogr(etl, table, tmp_path, use_copy).well()
        check(cdf, FIRST, AGAIN)


@pytest.mark.parametrize("use_copy", ["YES", "NO"])
def test_ogr2ogr_and_a_refused_load(etl, cdf, ogr, tmp_path, use_copy):
    printed = ogr2ogr(etl, only(SPOILED, "assets")[0], tmp_path, use_copy).badly().printed
    assert all(text in printed for text in AT_ONCE), printed
    check_nothing(cdf)
    with ogr.tried("refused load"):
        printed = ogr2ogr(etl, only(REFUSED, "assets")[0], tmp_path, use_copy).badly().printed
        assert all(text in printed for text in REFUSAL), printed
        check_nothing(cdf)
    ogr.note("rollback", "each table is committed by the program")


def test_ogr2ogr_and_the_progress(progress, cdf, ogr, tmp_path):
    seen = "delivered 0 of 24 assets" in ogr2ogr(progress, only(FIRST, "assets")[0], tmp_path, "YES").well().printed
    ogr.note("progress seen", "yes" if seen else "no")
    check(cdf, only(FIRST, "assets"))
    assert not seen, "docs/clients/ogr2ogr.md says something else"
