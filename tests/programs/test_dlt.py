"""dlt: a dataset is a schema of the role's own, in which foreign tables stand beside dlt's own tables."""

from __future__ import annotations

import pytest
from loads import AGAIN, FIRST, REFUSAL, REFUSED, SPOILED, Load, check, check_nothing, only
from venvs import Ran, needed, run_script

DATASET = "dlt_plant"
COLUMNS = {
    "assets": "external_id text, name text, parent_external_id text, description text, metadata jsonb, data_set_id bigint",
    "events": "external_id text, start_time timestamptz, end_time timestamptz, type text, description text, metadata jsonb",
    "timeseries": "external_id text, name text, unit text, is_step boolean, metadata jsonb",
    "datapoints": 'external_id text, "timestamp" timestamptz, value float8',
    "raw_rows": "db_name text, table_name text, key text, columns jsonb",
}


class Pipeline:
    def __init__(self, role, home, row):
        self._role, self._home, self.row = role, home, row

    def load(self, loaded: Load, how: str) -> Ran:
        """Each table is a load, and a transaction, of its own."""
        return run_script("with_dlt.py", self._role, loaded, how, self._home, more={"DATASET": DATASET})


@pytest.fixture
def pipeline(matrix, etl, cdf, superuser, tmp_path):
    version = needed(matrix, "dlt", "dlt", "pyarrow")
    for schema in (DATASET, f"{DATASET}_staging"):
        superuser.execute(f"DROP SCHEMA IF EXISTS {schema} CASCADE")
        superuser.execute(f'CREATE SCHEMA {schema} AUTHORIZATION "{etl.username}"')
    for name, definition in COLUMNS.items():
        options = f"resource '{name}'" + (", create_missing 'true'" if name == "datapoints" else "")
        options += ", truncatable 'true'" if name == "events" else ""
        superuser.execute(f"CREATE FOREIGN TABLE {DATASET}.{name} ({definition}) SERVER cdf OPTIONS ({options})")
        superuser.execute(f'GRANT ALL ON {DATASET}.{name} TO "{etl.username}"')
    yield Pipeline(etl, tmp_path, matrix.row("dlt", version))
    for schema in (DATASET, f"{DATASET}_staging"):
        superuser.execute(f"DROP SCHEMA {schema} CASCADE")


def test_append_is_an_upsert(pipeline, cdf):
    with pipeline.row.tried("insert", "append"):
        pipeline.load(FIRST, "append, arrow").well()
        pipeline.load(AGAIN, "append, arrow").well()
        check(cdf, FIRST, AGAIN)


def test_merge_by_delete_and_insert(pipeline, cdf):
    """Not of what other rows in CDF depend on: assets with children, series with points."""
    with pipeline.row.tried("upsert", "delete-insert"):
        first, again = (only(loaded, "events", "raw_rows") for loaded in (FIRST, AGAIN))
        pipeline.load(first, "delete-insert, arrow").well()
        pipeline.load(again, "delete-insert, arrow").well()
        check(cdf, first, again)


def test_merge_of_a_parent_is_refused(pipeline, cdf):
    pipeline.load(only(FIRST, "assets"), "append, arrow").well()
    printed = pipeline.load(only(AGAIN, "assets"), "delete-insert, arrow").badly().printed
    assert "An asset that has children can be deleted only together with them" in printed, printed


def test_replace_of_a_table_that_may_be_truncated(pipeline, cdf):
    with pipeline.row.tried("insert", "replace"):
        pipeline.load(only(FIRST, "events"), "append, arrow").well()
        pipeline.load(only(AGAIN, "events"), "replace, arrow").well()
        check(cdf, only(AGAIN, "events"))


def test_merge_by_upsert_is_refused_by_postgresql(pipeline, cdf):
    printed = pipeline.load(only(FIRST, "events"), "upsert, arrow").badly().printed
    pipeline.row.note("upsert", "upsert: no, MERGE")
    assert 'cannot execute MERGE on relation "events"' in printed, printed
    check_nothing(cdf)


def test_what_is_refused(pipeline, cdf):
    with pipeline.row.tried("refused load"):
        printed = pipeline.load(only(REFUSED, "assets"), "append, arrow").badly().printed
        for text in REFUSAL:
            assert text in printed, printed
        check_nothing(cdf)
    with pipeline.row.tried("rollback", "of its own, where a row is refused"):
        assert "140" in (ran := pipeline.load(only(SPOILED, "assets"), "append, arrow").badly()).printed, ran.printed
        check_nothing(cdf)


def test_progress(pipeline, progress, cdf):
    printed = pipeline.load(only(FIRST, "assets"), "append, arrow").well().printed
    pipeline.row.note("progress seen", "yes" if "delivered 0 of" in printed else "no")
    check(cdf, only(FIRST, "assets"))
