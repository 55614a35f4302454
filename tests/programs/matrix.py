"""What came of each program: a table that is written to target/programs.md when the run ends.

    def test_psql(matrix):
        row = matrix.row("psql", "15.20")
        with row.tried("copy"):
            …                             # "yes", or "FAILED" if it raises
        row.note("progress seen", "as a NOTICE on stderr")
        matrix.skipped("sling", "the package cannot be had here")
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

COLUMNS = ("insert", "copy", "upsert", "rollback", "refused load", "progress seen")


class Row:
    """One tool, in one version."""

    def __init__(self):
        self.version = ""
        self.cells: dict[str, list[str]] = {column: [] for column in COLUMNS}

    def note(self, column: str, outcome: str) -> None:
        """Puts a word into a cell: several different ones stand beside each other."""
        if outcome not in self.cells[column]:
            self.cells[column].append(outcome)

    @contextmanager
    def tried(self, column: str, how: str | None = None) -> Iterator[None]:
        """`yes`, or `how` it was done, if the block ends well."""
        try:
            yield
        except BaseException:
            self.note(column, f"FAILED ({how})" if how else "FAILED")
            raise
        self.note(column, how or "yes")


class Matrix:
    def __init__(self):
        self._rows: dict[str, Row] = {}
        self._skipped: dict[str, str] = {}

    def row(self, tool: str, version: str | None = None) -> Row:
        row = self._rows.setdefault(tool, Row())
        row.version = version or row.version
        return row

    def skipped(self, tool: str, why: str) -> None:
        self._skipped[tool] = why

    def write(self, path: Path) -> None:
        if not self._rows and not self._skipped:
            return
        lines = [f"| tool | version | {' | '.join(COLUMNS)} |", "|---" * (len(COLUMNS) + 2) + "|"]
        for tool, row in sorted(self._rows.items(), key=lambda pair: pair[0].lower()):
            cells = (", ".join(row.cells[column]) or "–" for column in COLUMNS)
            lines.append(f"| {tool} | {row.version} | {' | '.join(cells)} |")
        lines += [f"| {tool} | skipped: {why} |{' |' * len(COLUMNS)}" for tool, why in sorted(self._skipped.items())]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")
