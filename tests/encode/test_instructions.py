"""How many instructions a row takes from its cells into a finished request.

callgrind counts them exactly, so that a regression shows on any machine, however busy it is. The bounds are what was
counted when they were set, and a tenth more. A change that needs more than that should say why, and change them.
"""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
TARGET = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
PROGRAM = TARGET / "release" / "examples" / "encode_path"

# Rows, and the instructions that one may take.
BOUNDS = {
    "points": (250_000, 740),
    "scattered": (250_000, 1000),
    "events": (20_000, 4300),
    "assets": (20_000, 2100),
    "raw": (20_000, 4180),
}


def instructions(work: str, rows: int, directory: Path) -> int:
    """What callgrind counts inside of the two functions that a row, and the end of a load, go through."""
    result = subprocess.run(
        [
            "valgrind",
            "--tool=callgrind",
            f"--callgrind-out-file={directory / 'callgrind'}",
            "--toggle-collect=encode_path::insert",
            "--toggle-collect=encode_path::finish",
            PROGRAM,
            work,
            str(rows),
        ],
        capture_output=True,
        text=True,
        check=True,
    )
    assert f"{rows} rows of" in result.stdout, result.stdout
    return int(re.search(r"Collected : (\d+)", result.stderr).group(1))


@pytest.mark.parametrize("work", BOUNDS)
def test_a_row_takes_no_more_instructions_than_it_did(work, tmp_path):
    assert PROGRAM.exists(), f"{PROGRAM} is missing: run scripts/build.sh encode"
    rows, most = BOUNDS[work]
    each = instructions(work, rows, tmp_path) / rows
    # Far fewer would mean that something else was counted.
    assert most / 2 < each <= most, f"{each:.0f} instructions for each row of {work}"
