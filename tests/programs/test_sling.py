"""sling, whose program is in PyPI's package `sling-linux-amd64`: files into the tables, through a staging table of its own."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from loads import AGAIN, FIRST, KEYS, REFUSAL, REFUSED, SPOILED, Load, check, check_nothing, only, write_csv
from venvs import PLACE, Ran, needed, run


class Sling:
    def __init__(self, role, staging: str, home: Path, row):
        self._role, self._staging, self._home, self.row = role, staging, home, row
        self._binary = PLACE / "python" / "bin" / "sling"

    def load(self, loaded: Load, mode: str) -> list[Ran]:
        """Each table is a run, and a transaction, of its own."""
        return [self._one(table.name, path, mode) for table, path in zip(loaded, write_csv(loaded, self._home).values())]

    def _one(self, table: str, path: Path, mode: str) -> Ran:
        role = self._role
        url = f"postgresql://{role.username}:{role.password}@127.0.0.1:{role.port}/{role.database}?sslmode=disable"
        command = [
            self._binary, "run", "--src-stream", f"file://{path}", "--src-options", json.dumps({"format": "csv", "empty_as_null": True}),
            "--tgt-conn", "GATEWAY", "--tgt-object", f"{role.schema}.{table}", "--mode", mode,
            "--tgt-options", json.dumps({"table_tmp": f"{self._staging}.{table}_tmp", "adjust_column_type": False, "add_new_columns": False}),
        ]
        if mode == "incremental":
            command += ["--primary-key", ",".join(KEYS[table])]
        return run(command, self._home, {"GATEWAY": url, "SLING_LOADED_AT_COLUMN": "false"})


@pytest.fixture
def sling(matrix, etl, staging, cdf, tmp_path) -> Sling:
    version = needed(matrix, "sling", "sling-linux-amd64")
    return Sling(etl, staging, tmp_path, matrix.row("sling", version))


def test_incremental_upserts(sling, cdf):
    with sling.row.tried("upsert", "incremental"):
        for loaded in (FIRST, AGAIN):
            for ran in sling.load(loaded, "incremental"):
                ran.well()
        check(cdf, FIRST, AGAIN)


def test_snapshot_appends(sling, cdf):
    with sling.row.tried("insert", "snapshot"):
        for loaded in (FIRST, AGAIN):
            for ran in sling.load(loaded, "snapshot"):
                ran.well()
        check(cdf, FIRST, AGAIN)


def test_what_is_refused(sling, cdf):
    with sling.row.tried("refused load"):
        [ran] = sling.load(only(REFUSED, "assets"), "incremental")
        printed = ran.badly().printed
        for text in REFUSAL:
            assert text in printed, printed
        check_nothing(cdf)
    with sling.row.tried("rollback", "of its own, where a row is refused"):
        [ran] = sling.load(only(SPOILED, "assets"), "incremental")
        assert "140" in ran.badly().printed, ran.printed
        check_nothing(cdf)


def test_progress(sling, progress, cdf):
    [ran] = sling.load(only(FIRST, "assets"), "incremental")
    sling.row.note("progress seen", "yes" if "delivered 0 of" in ran.well().printed else "no")
    check(cdf, only(FIRST, "assets"))
