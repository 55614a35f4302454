"""Golden tests: each sql/NAME.sql runs in psql, in a database of its own, and must print expected/NAME.out.

Variables for the SQL files: :emulator (its URL), :token_url, :scope, :client_id, :client_secret, :project, :database.
What differs from run to run is replaced before the comparison, see NORMALISE. Where PostgreSQL's majors differ, any
expected/NAME_<n>.out may match. What was printed is kept in target/regress/NAME.out.

REGRESS_UPDATE=1 writes the expected files instead; read the difference before committing it.
"""

from __future__ import annotations

import difflib
import os
import re
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent
RESULTS = Path(os.environ.get("CARGO_TARGET_DIR", HERE.parent.parent / "target")) / "regress"
CASES = sorted(path.stem for path in (HERE / "sql").glob("*.sql"))

NORMALISE = [
    (re.compile(r"127\.0\.0\.1:\d+"), "127.0.0.1:PORT"),
    (re.compile(r"\b[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}\b"), "UUID"),
    (re.compile(r"[ \t]+$", re.M), ""),
]


def normalise(text: str) -> str:
    for pattern, replacement in NORMALISE:
        text = pattern.sub(replacement, text)
    return text


def difference(expected: str, printed: str, name: str) -> str:
    return "\n".join(
        difflib.unified_diff(
            expected.splitlines(), printed.splitlines(), f"expected/{name}.out", "printed", lineterm=""
        )
    )


@pytest.fixture
def database(cluster, request):
    """A database for one case, dropped afterwards."""
    name = f"regress_{request.param}"
    drop = f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)'
    with cluster.connect() as connection:
        connection.execute(drop)
        connection.execute(f'CREATE DATABASE "{name}"')
        yield name
        connection.execute(drop)


@pytest.mark.parametrize(("case", "database"), [(case, case) for case in CASES], indirect=["database"], ids=CASES)
def test_case(case, database, cluster, cdf):
    variables = cdf.access | {"emulator": cdf.url, "database": database}
    # Errors in the same stream as results, so that the output reads as a session does.
    run = cluster.psql(
        (HERE / "sql" / f"{case}.sql").read_text(),
        dsn=cluster.dsn(database),
        args=("-q", "-a"),
        variables=variables,
        check=False,
        merge_stderr=True,
        timeout=100,
    )
    printed = normalise(run.stdout)

    RESULTS.mkdir(parents=True, exist_ok=True)
    (RESULTS / f"{case}.out").write_text(printed)
    expected = HERE / "expected" / f"{case}.out"
    if os.environ.get("REGRESS_UPDATE"):
        expected.write_text(printed)
        return

    accepted = [expected, *sorted(expected.parent.glob(f"{case}_[0-9].out"))]
    accepted = [path.read_text() for path in accepted if path.exists()]
    assert accepted, f"{expected} is missing; what was printed is in {RESULTS / case}.out"
    if printed not in accepted:
        closest = min((difference(text, printed, case) for text in accepted), key=len)
        pytest.fail(f"{case} printed something else:\n{closest}", pytrace=False)
