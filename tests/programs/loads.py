"""What every program loads, and whether it has arrived: assets, events, time series with points, and RAW rows.

The values are plain texts, numbers and booleans, as they would stand in a file: moments in ISO 8601 with their zone, metadata
and RAW columns as JSON. Each program turns them into types of its own where it has some.

    FIRST      the first load
    AGAIN      a second one on top of it: rows that change, rows that stay as they are, rows that are new
    REFUSED    as FIRST, with assets in a data set that does not exist: CDF refuses them at COMMIT, and has accepted nothing
    SPOILED    as FIRST, with one asset in it that is refused as soon as it is inserted: its name is too long

    check(cdf, FIRST)             CDF holds the rows of FIRST, all of them and nothing else
    check(cdf, FIRST, AGAIN)      and after both
    check_nothing(cdf)            CDF holds nothing
    write_csv(load, directory)    a file for each table, with a header; gives their paths by table
    statements(load)              an INSERT for each table

A program that loads some of the tables only checks `only(FIRST, "assets")`.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from pathlib import Path

from support import dump, millis

# Series before their points: for programs that send each table in a transaction of its own.
COLUMNS = {
    "assets": ("external_id", "name", "parent_external_id", "description", "metadata"),
    "events": ("external_id", "start_time", "end_time", "type", "description", "metadata"),
    "timeseries": ("external_id", "name", "unit", "is_step", "metadata"),
    "datapoints": ("external_id", "timestamp", "value"),
    "raw_rows": ("db_name", "table_name", "key", "columns"),
}
KEYS = {
    "assets": ("external_id",),
    "events": ("external_id",),
    "timeseries": ("external_id",),
    "datapoints": ("external_id", "timestamp"),
    "raw_rows": ("db_name", "table_name", "key"),
}
# Which columns hold what is more than a text, for programs that need to be told.
TYPES = {
    "metadata": "jsonb",
    "columns": "jsonb",
    "start_time": "timestamptz",
    "end_time": "timestamptz",
    "timestamp": "timestamptz",
    "value": "float8",
    "is_step": "boolean",
    "data_set_id": "bigint",
}
# No data set has this id: CDF refuses it.
NO_DATA_SET = 77
TOO_LONG = "n" * 141
RAW = {"database": "plant", "table": "pumps"}

Rows = list[tuple]


@dataclass(frozen=True)
class Table:
    """Rows of one table, and their columns."""

    name: str
    columns: tuple[str, ...]
    rows: Rows

    def mappings(self) -> Iterator[dict]:
        for row in self.rows:
            yield dict(zip(self.columns, row, strict=True))


Load = tuple[Table, ...]


def moment(at: timedelta) -> str:
    """In milliseconds, and in several zones: what counts is the moment."""
    zone = timezone(timedelta(hours=at.seconds % 3))
    return (datetime(2026, 3, 28, 23, 59, 59, 123000, tzinfo=timezone.utc) + at).astimezone(zone).isoformat(timespec="milliseconds")


def compact(value: dict) -> str:
    return json.dumps(value, ensure_ascii=False)


# What goes wrong where quoting, encoding or empty values are not taken as they are.
TEXTS = ("plain", "Größe 日本 🌡", "it's \"quoted\", with\tcommas", "two\nlines \\N \\ end", "{}", "%s $1 :name ?")


ROOT = 23


def assets(start: int, stop: int, edition: int) -> Rows:
    rows = []
    for at in range(start, stop):
        # The parent comes after its children: within a transaction the order does not matter.
        parent = None if at == ROOT else f"pump-{ROOT}"
        metadata = {"edition": str(edition), "text": TEXTS[at % len(TEXTS)]}
        rows.append((f"pump-{at}", f"Pump {at}", parent, TEXTS[at % len(TEXTS)] if at % 4 else None, compact(metadata)))
    return rows


def events(start: int, stop: int, edition: int) -> Rows:
    rows = []
    for at in range(start, stop):
        begin = timedelta(hours=at, milliseconds=at)
        end = moment(begin + timedelta(minutes=edition)) if at % 3 else None
        metadata = compact({"edition": str(edition)}) if at % 5 else None
        rows.append((f"alarm-{at}", moment(begin), end, "alarm", TEXTS[at % len(TEXTS)], metadata))
    return rows


def series(edition: int) -> Rows:
    return [(f"level-{at}", f"Level {at}", "m" if at else None, at == 1, compact({"edition": str(edition)})) for at in range(3)]


def points(start: int, stop: int, edition: int) -> Rows:
    return [
        (f"level-{which}", moment(timedelta(seconds=at, milliseconds=at)), at / 8 - 10 * edition)
        for which in range(3)
        for at in range(start, stop)
    ]


def raw(start: int, stop: int, edition: int) -> Rows:
    rows = []
    for at in range(start, stop):
        columns = {"edition": edition, "power": at / 4, "text": TEXTS[at % len(TEXTS)], "nothing": None, "list": [at, {"a": "b"}]}
        rows.append((RAW["database"], RAW["table"], f"{at} ä", compact(columns)))
    return rows


def load(**tables: Rows) -> Load:
    return tuple(Table(name, COLUMNS[name], rows) for name, rows in tables.items())


def only(loaded: Load, *names: str) -> Load:
    """The part of a load that goes into these tables."""
    return tuple(table for table in loaded if table.name in names)


FIRST = load(
    assets=assets(0, 24, 1), events=events(0, 24, 1), timeseries=series(1), datapoints=points(0, 120, 1), raw_rows=raw(0, 24, 1)
)
# Columns are NULL in the same rows as in FIRST: programs that update row by row clear what is NULL, the others leave it.
AGAIN = load(
    assets=assets(10, 30, 2),
    events=events(10, 30, 2),
    timeseries=series(2),
    datapoints=points(80, 150, 2),
    raw_rows=raw(10, 30, 2),
)


def in_no_data_set(loaded: Load) -> Load:
    """All of its assets: of a request that CDF refuses, the rows that are not to blame go to CDF on their own."""
    table = loaded[0]
    return (Table("assets", (*table.columns, "data_set_id"), [(*row, NO_DATA_SET) for row in table.rows]), *loaded[1:])


def with_a_long_name(loaded: Load, at: int) -> Load:
    table = loaded[0]
    rows = [(row[0], TOO_LONG, *row[2:]) if which == at else row for which, row in enumerate(table.rows)]
    return (Table("assets", table.columns, rows), *loaded[1:])


REFUSED = in_no_data_set(FIRST)
SPOILED = with_a_long_name(FIRST, 20)
# What everyone is told of REFUSED: what CDF said, and the first row. And of SPOILED: the column and its limit.
REFUSAL = ("CDF refused", "/assets", str(NO_DATA_SET), f"pump-{ROOT}")
AT_ONCE = ("name", "140")


# ---- whether it has arrived ----

PROPERTIES = {
    "assets": {
        "external_id": "externalId",
        "name": "name",
        "parent_external_id": "parentExternalId",
        "description": "description",
        "metadata": "metadata",
    },
    "events": {
        "external_id": "externalId",
        "start_time": "startTime",
        "end_time": "endTime",
        "type": "type",
        "description": "description",
        "metadata": "metadata",
    },
    "timeseries": {"external_id": "externalId", "name": "name", "unit": "unit", "is_step": "isStep", "metadata": "metadata"},
}


def in_cdf(column: str, value):
    kind = TYPES.get(column)
    if kind == "jsonb":
        return json.loads(value)
    return millis(value) if kind == "timestamptz" else value


def expected(name: str, loads: tuple[Load, ...]) -> dict:
    """What CDF holds of a table after loads, by key. NULL columns of the later ones change nothing, except RAW's."""
    kept: dict = {}
    for table in (table for each in loads for table in each if table.name == name):
        for row in table.mappings():
            key = tuple(in_cdf(column, row[column]) for column in KEYS[name])
            if name == "datapoints":
                kept[key] = row["value"]
            elif name == "raw_rows":
                kept[key] = json.loads(row["columns"])
            else:
                sent = {column: in_cdf(column, value) for column, value in row.items() if value is not None}
                kept[key] = kept.get(key, {}) | {PROPERTIES[name][column]: value for column, value in sent.items()}
    return kept


def found(cdf, name: str) -> dict:
    """What CDF holds of a table, by key, in the same form."""
    if name == "raw_rows":
        return {(row["database"], row["table"], row["key"]): row["columns"] for row in dump(cdf, "raw")}
    if name == "datapoints":
        return {(point["externalId"], point["timestamp"]): point["value"] for point in dump(cdf, "datapoints")}
    wanted = PROPERTIES[name].values()
    # Metadata that is cleared is an empty object.
    held = lambda item: {key: item[key] for key in wanted if item.get(key) not in (None, {})}
    return {(item["externalId"],): held(item) for item in dump(cdf, name)}


def check(cdf, *loads: Load) -> None:
    """CDF holds what these loads bring, one after the other, in each of its tables, and nothing else."""
    mentioned = {table.name for each in loads for table in each}
    for name in COLUMNS:
        wanted = expected(name, loads) if name in mentioned else {}
        have = found(cdf, name)
        assert have.keys() == wanted.keys(), f"{name}: {len(have)} instead of {len(wanted)} rows in CDF"
        for key, value in wanted.items():
            assert have[key] == value, f"{name} {key}"


def check_nothing(cdf) -> None:
    check(cdf)


# ---- as files and statements ----


def write_csv(loaded: Load, directory: Path, null: str = "") -> dict[str, Path]:
    """A file for each table, with a header. NULL is `null` without quotation marks, every text stands in some."""
    paths = {}
    for table in loaded:
        paths[table.name] = directory / f"{table.name}.csv"
        with paths[table.name].open("w", newline="", encoding="utf-8") as file:
            file.write(",".join(table.columns) + "\n")
            for row in table.rows:
                file.write(",".join(null if value is None else _quoted(value) for value in row) + "\n")
    return paths


def _quoted(value) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return '"' + value.replace('"', '""') + '"' if isinstance(value, str) else repr(value)


def read_csv(path: Path) -> list[list[str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.reader(file))


def _literal(value) -> str:
    if value is None:
        return "NULL"
    if isinstance(value, str):
        # Right whatever standard_conforming_strings says.
        escaped = value.replace("\\", "\\\\").replace("'", "''")
        return f" E'{escaped}'" if "\\" in value else f"'{escaped}'"
    return str(value).lower() if isinstance(value, bool) else repr(value)


def statements(loaded: Load, upsert: bool = False) -> list[str]:
    """An INSERT of several rows for each table; with `upsert` it says ON CONFLICT DO UPDATE."""
    made = []
    for table in loaded:
        names = ", ".join(f'"{column}"' for column in table.columns)
        rows = ", ".join(f"({', '.join(map(_literal, row))})" for row in table.rows)
        made.append(f"INSERT INTO {table.name} ({names}) VALUES {rows}" + (on_conflict(table) if upsert else ""))
    return made


def on_conflict(table: Table) -> str:
    """What makes an INSERT of a table an upsert in PostgreSQL's words."""
    keys = KEYS[table.name]
    rest = ", ".join(f'"{column}" = EXCLUDED."{column}"' for column in table.columns if column not in keys)
    listed = ", ".join(f'"{key}"' for key in keys)
    return f" ON CONFLICT ({listed}) DO UPDATE SET {rest}"


def as_json(loaded: Load) -> list[dict]:
    """For a program in another process: [{name, columns, keys, types, rows}]."""
    return [
        {
            "name": table.name,
            "columns": table.columns,
            "keys": KEYS[table.name],
            "types": [TYPES.get(column, "text") for column in table.columns],
            "rows": table.rows,
        }
        for table in loaded
    ]
