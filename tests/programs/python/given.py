"""What the programs of this folder are given: python with_….py request.json

The request has `dsn` (host, port, user, password, dbname), `schema`, `how` to load, how the transaction is to `end` (`commit` or
`rollback`), and the tables of `loads.as_json`. What a program prints is what its user sees.
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path


@dataclass(frozen=True)
class Table:
    name: str
    columns: list[str]
    keys: list[str]
    types: list[str]
    rows: list[list]

    @property
    def rest(self) -> list[str]:
        """The columns that are not in the key."""
        return [column for column in self.columns if column not in self.keys]

    @property
    def listed(self) -> str:
        return ", ".join(f'"{column}"' for column in self.columns)

    @property
    def on_conflict(self) -> str:
        keys = ", ".join(f'"{key}"' for key in self.keys)
        return f"ON CONFLICT ({keys}) DO UPDATE SET " + ", ".join(f'"{name}" = EXCLUDED."{name}"' for name in self.rest)

    def typed(self, jsonb=lambda text: text) -> list[list]:
        """The rows with moments as `datetime`, and JSON as the driver wants it."""
        make = [
            datetime.fromisoformat if kind == "timestamptz" else jsonb if kind == "jsonb" else lambda value: value
            for kind in self.types
        ]
        return [[None if value is None else of(value) for of, value in zip(make, row)] for row in self.rows]

    def mappings(self, jsonb=lambda text: text) -> list[dict]:
        return [dict(zip(self.columns, row)) for row in self.typed(jsonb)]


class Request:
    def __init__(self, path: str):
        given = json.loads(Path(path).read_text(encoding="utf-8"))
        self.dsn: dict = given["dsn"]
        self.schema: str = given["schema"]
        self.staging: str = given.get("staging", "")
        self.how: str = given["how"]
        self.rolls_back: bool = given["end"] == "rollback"
        self.tables = [Table(**table) for table in given["load"]]

    @property
    def uri(self) -> str:
        dsn = self.dsn
        return f"postgresql://{dsn['user']}:{dsn['password']}@{dsn['host']}:{dsn['port']}/{dsn['dbname']}"

    @property
    def conninfo(self) -> str:
        return " ".join(f"{name}={value}" for name, value in self.dsn.items())


request = Request(sys.argv[1])
