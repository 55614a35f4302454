"""The comparison that all of these tests rest on: it sees what is missing, what is wrong, and what is too much."""

from __future__ import annotations

import json

import pytest
from loads import (
    AGAIN,
    AT_ONCE,
    COLUMNS,
    FIRST,
    REFUSAL,
    REFUSED,
    SPOILED,
    Table,
    check,
    check_nothing,
    only,
    statements,
    write_csv,
)
from support import refused


@pytest.fixture
def session(etl):
    with etl.connect(autocommit=True) as connection:
        yield connection


def put(session, loaded, upsert=False):
    with session.transaction():
        for statement in statements(loaded, upsert):
            session.execute(statement)


@pytest.mark.parametrize("upsert", [False, True])
def test_what_was_loaded_is_there(session, cdf, upsert):
    check_nothing(cdf)
    put(session, FIRST, upsert)
    check(cdf, FIRST)
    put(session, AGAIN, upsert)
    check(cdf, FIRST, AGAIN)


@pytest.mark.parametrize("table", FIRST, ids=lambda table: table.name)
def test_a_difference_is_seen(session, cdf, table):
    put(session, FIRST)
    column = len(table.columns) - 1
    value = table.rows[3 % len(table.rows)][column]
    if isinstance(value, str):
        other = json.dumps(json.loads(value) | {"edition": "9"})
    else:
        other = value + 1
    rows = list(table.rows)
    at = 3 % len(rows)
    rows[at] = (*rows[at][:column], other)
    changed = Table(table.name, table.columns, rows)
    put(session, (changed,))
    with pytest.raises(AssertionError, match=table.name):
        check(cdf, FIRST)


def test_rows_that_are_missing_or_too_many_are_seen(session, cdf):
    put(session, only(FIRST, "assets"))
    check(cdf, only(FIRST, "assets"))
    with pytest.raises(AssertionError, match="events"):
        check(cdf, FIRST)
    with pytest.raises(AssertionError, match="assets"):
        check_nothing(cdf)


def test_a_refused_and_a_spoiled_load_leave_nothing(session, cdf):
    with refused("23503", *REFUSAL):
        put(session, only(REFUSED, "assets", "events", "timeseries", "datapoints"))
    check_nothing(cdf)
    with refused("22001", *AT_ONCE):
        put(session, SPOILED)
    check_nothing(cdf)


def test_files_hold_the_same(session, cdf, tmp_path):
    for name, path in write_csv(FIRST, tmp_path).items():
        names = ", ".join(f'"{column}"' for column in COLUMNS[name])
        with session.cursor().copy(f"COPY {name} ({names}) FROM STDIN (FORMAT csv, HEADER)") as copy:
            copy.write(path.read_bytes())
    check(cdf, FIRST)
