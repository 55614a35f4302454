"""Random transactions against a model: what CDF must hold after each, and what the transaction must see of itself.

The model is the contract in its simplest form: rows count as applied one after another, at once. A `Kind` is a resource
with its statements; `run` makes transactions of them, and compares. Each round starts with an empty CDF and is made by its
seed and the choice of kinds. CDF_RANDOM_TRANSACTIONS says how many transactions a test makes, CDF_RANDOM_SEED with which
seed it begins, CDF_RANDOM_KINDS (names, separated by commas) of which kinds.
"""

from __future__ import annotations

import copy
import os
import random
from dataclasses import dataclass, field

import psycopg
from psycopg.types.json import Jsonb
from support import Api, dump

PER_ROUND = 20


def transactions(default: int = 300) -> int:
    return int(os.environ.get("CDF_RANDOM_TRANSACTIONS", default))


@dataclass
class Session:
    """Sends the statements, and keeps them for the message of a failure."""

    connection: psycopg.Connection
    random: random.Random
    log: list = field(default_factory=list)

    def run(self, statement: str, parameters=()) -> psycopg.Cursor:
        self.log.append((statement, parameters))
        return self.connection.execute(statement, parameters)


class Kind:
    """Rows known by a key. The model: key → what CDF holds of it, without None, and `_id` where it has one."""

    name: str
    # A choice of keys that is small enough for several writes of one.
    keys = ("k1", "k2", "k3", "k4")

    def prepare(self, api: Api, cdf) -> None:
        """Whatever must be in CDF before."""

    def held(self, cdf) -> dict:
        """What CDF holds, in the form of the model."""
        raise NotImplementedError

    def seen(self, session: Session, model: dict) -> tuple[dict, dict]:
        """What a SELECT of the transaction gives, and what it must."""
        raise NotImplementedError

    def write(self, session: Session, model: dict) -> None:
        """A random statement, and what it does to the model."""
        raise NotImplementedError


def same(got, wanted, what: str, session: Session, seed) -> None:
    if got != wanted:
        statements = "\n".join(f"  {statement}  {list(parameters)}" for statement, parameters in session.log)
        raise AssertionError(f"seed {seed}: {what}:\n got    {got}\n wanted {wanted}\n after\n{statements}")


def without_ids(model: dict) -> dict:
    return {key: {name: value for name, value in row.items() if name != "_id"} for key, row in model.items()}


def copied(models: dict) -> dict:
    return {kind: copy.deepcopy(model) for kind, model in models.items()}


def transaction(session: Session, kinds: list[Kind], models: dict, seed, before) -> dict:
    """Runs a random transaction; returns the models after it. `models`: by kind."""
    chance = session.random.random
    unchanged = copied(models)
    saved: list[dict] = []
    session.run("BEGIN")
    for _ in range(session.random.randint(1, 9)):
        if before:
            before(session)
        roll = chance()
        kind = session.random.choice(kinds)
        if roll < 0.07:
            session.run(f"SAVEPOINT s{len(saved)}")
            saved.append(copied(models))
        elif roll < 0.12 and saved:
            session.run(f"ROLLBACK TO s{len(saved) - 1}")
            models = copied(saved[-1])
        elif roll < 0.16 and saved:
            saved.pop()
            session.run(f"RELEASE s{len(saved)}")
        elif roll < 0.32:
            got, wanted = kind.seen(session, models[kind])
            same(got, wanted, f"the transaction's own view of {kind.name}", session, seed)
        else:
            kind.write(session, models[kind])
    if chance() < 0.06:
        session.run("ROLLBACK")
        return unchanged
    session.run("COMMIT")
    return models


def run(connection: psycopg.Connection, cdf, kinds: list[Kind], count: int, reset=None, before=None) -> None:
    """Runs this many transactions, in several rounds. Calls `reset(cdf)` after CDF was emptied, and `before(session)` before
    each statement."""
    first = int(os.environ.get("CDF_RANDOM_SEED", 1))
    if wanted := os.environ.get("CDF_RANDOM_KINDS"):
        kinds = [kind for kind in kinds if kind.name in wanted.split(",")]
    rounds = -(-count // PER_ROUND)
    print(f"{count} random transactions, seeds {first} to {first + rounds - 1}")
    for seed in range(first, first + rounds):
        cdf.reset()
        if reset:
            reset(cdf)
        api = Api(cdf)
        for kind in kinds:
            kind.prepare(api, cdf)
        models: dict[Kind, dict] = {kind: kind.held(cdf) for kind in kinds}
        session = Session(connection, random.Random(seed))
        for at in range(last := min(PER_ROUND, count - (seed - first) * PER_ROUND)):
            session.log.clear()
            some = session.random.sample(kinds, k=min(len(kinds), session.random.choice((1, 1, 1, 2))))
            try:
                models = transaction(session, some, models, seed, before)
            except Exception as error:
                if not str(error).startswith("seed"):
                    same(repr(error), None, "a failure", session, seed)
                raise
            finally:
                # After a failure others wait for what the transaction has locked.
                if connection.info.transaction_status != psycopg.pq.TransactionStatus.IDLE:
                    connection.execute("ROLLBACK")
            for kind in kinds if at == last - 1 else some:
                held = kind.held(cdf)
                same(without_ids(held), without_ids(models[kind]), f"what CDF holds of {kind.name}", session, seed)
                models[kind] = held


# ---- items, RAW rows, instances ----


@dataclass(eq=False)
class Rows(Kind):
    """Rows of columns, of which an upsert merges, or replaces whole, what is there."""

    name: str
    # Tables of the same rows: name, and whether NULL clears.
    tables: list[tuple[str, bool]]
    # Name of the key's column.
    key: str
    # Columns with text, and CDF's names of them.
    columns: dict[str, str]
    required: tuple[str, ...] = ()
    # What every row is inserted with.
    constants: dict = field(default_factory=dict)
    # RAW: the last row of a key wins whole, and CDF stores nulls.
    whole: bool = False
    by_id: bool = False
    deletable: bool = True
    # Columns that keep their value.
    fixed: tuple[str, ...] = ()
    renames: int = 0

    def held(self, cdf) -> dict:
        held = {}
        for item in dump(cdf, self.name):
            if not item.get("externalId", "").startswith(("k", "r")):
                continue
            row = {column: item[name] for column, name in self.columns.items() if name in item}
            if "id" in item:
                row["_id"] = item["id"]
            held[item["externalId"]] = row
        return held

    def seen(self, session, model):
        table, _ = session.random.choice(self.tables)
        names = ", ".join([self.key, *self.columns])
        shown = {key: {c: v for c, v in row.items() if v is not None and c != "_id"} for key, row in model.items()}
        roll = session.random.random()
        if roll < 0.4:
            condition, parameters = "", ()
        elif roll < 0.6 and self.by_id:
            known = [key for key, row in model.items() if row.get("_id")]
            if not known:
                return {}, {}
            key = session.random.choice(known)
            condition, parameters = " WHERE id = %s", (model[key]["_id"],)
            shown = {key: shown[key]}
        elif roll < 0.75:
            column, value = session.random.choice(list(self.columns)), self.value(session)
            condition, parameters = f" WHERE {column} = %s", (value,)
            shown = {key: row for key, row in shown.items() if row.get(column) == value}
        else:
            key = session.random.choice([*self.keys, *model])
            condition, parameters = f" WHERE {self.key} = %s", (key,)
            shown = {name: row for name, row in shown.items() if name == key}
        rows = session.run(f"SELECT {names} FROM {table}{condition}", parameters).fetchall()
        got = {}
        for key, *values in rows:
            # There are others, which points and rows of sequences belong to.
            if (key or " ")[0] not in "kre":
                continue
            assert key not in got, f"{key} is there twice: {rows}, {session.log}"
            got[key] = {c: v for c, v in zip(self.columns, values, strict=True) if v is not None}
        return got, shown

    def value(self, session) -> str:
        return session.random.choice(("a", "b", "c", "quote \" \\", "ü"))

    def row(self, session) -> dict:
        """Random values of some columns; None for NULL."""
        columns = [c for c in self.columns if c in self.required or session.random.random() < 0.75]
        none = lambda c: c not in self.required and session.random.random() < 0.35
        return {c: None if none(c) else self.value(session) for c in columns}

    # What the statements mean.

    def insert(self, model, key, row, set_null) -> None:
        item = model.get(key)
        if item is None or self.whole:
            item = model[key] = {"_id": item["_id"]} if item and "_id" in item else {}
        for column, value in row.items():
            self.put(item, column, value, set_null)
        if self.whole and set_null:
            item.update({c: None for c in self.columns if row.get(c) is None})
        elif set_null:
            # A column that the statement does not name is NULL.
            for column in self.columns:
                if row.get(column) is None and column not in self.fixed:
                    item.pop(column, None)

    def put(self, item, column, value, set_null) -> None:
        if value is not None:
            item[column] = value
        elif set_null:
            if self.whole:
                item[column] = None
            else:
                item.pop(column, None)

    def write(self, session, model) -> None:
        table, set_null = session.random.choice(self.tables)
        roll = session.random.random()
        known = [key for key, item in model.items() if item.get("_id")]
        if self.by_id and known and session.random.random() < 0.35:
            self.write_by_id(session, model, table, set_null, roll, session.random.choice(known))
        elif roll < 0.62:
            self.write_rows(session, model, table, set_null, roll)
        elif roll < 0.82:
            key = session.random.choice([*self.keys, *model])
            self.update(session, model, table, set_null, key, self.key, key)
        elif self.deletable:
            key = session.random.choice([*self.keys, *model])
            deleted = session.run(f"DELETE FROM {table} WHERE {self.key} = %s", (key,)).rowcount
            assert deleted == (key in model), f"DELETE {deleted}"
            model.pop(key, None)

    def conflict(self, session, roll, target, row) -> tuple[str, list | None]:
        """A clause, and the columns that an existing row gets; None: as the table's options say."""
        if roll < 0.2:
            return "", None
        if roll < 0.3:
            return f" ON CONFLICT ({target}) DO NOTHING", []
        columns = [c for c in self.columns if c not in self.fixed]
        some = session.random.sample(columns, k=session.random.randint(1, len(columns)))
        listed = ", ".join(f"{c} = EXCLUDED.{c}" for c in some)
        # A RAW row of which every column is set is replaced whole.
        every = self.whole and len(some) == len(self.columns)
        return f" ON CONFLICT ({target}) DO UPDATE SET {listed}", None if every else some

    def write_rows(self, session, model, table, set_null, roll) -> None:
        count = session.random.choice((1, 1, 1, 2, 3))
        keys = [session.random.choice(self.keys) for _ in range(count)]
        first = self.row(session)
        rows = [first] + [{c: self.row(session).get(c, self.value(session)) for c in first} for _ in keys[1:]]
        clause, listed = self.conflict(session, roll, self.key, first)
        names = [self.key, *self.constants, *first]
        marks = ", ".join(["(" + ", ".join(["%s"] * len(names)) + ")"] * count)
        values = [v for key, row in zip(keys, rows) for v in (key, *self.constants.values(), *row.values())]
        session.run(f"INSERT INTO {table} ({', '.join(names)}) VALUES {marks}{clause}", values)
        for key, row in zip(keys, rows):
            if listed is None or key not in model:
                self.insert(model, key, row, set_null)
            else:
                for column in listed:
                    self.put(model[key], column, row.get(column), set_null)

    def update(self, session, model, table, set_null, key, column, value) -> None:
        columns = [c for c in self.columns if c not in self.fixed]
        some = session.random.sample(columns, k=session.random.randint(1, len(columns)))
        none = lambda c: c not in self.required and session.random.random() < 0.3
        new = {c: None if none(c) else self.value(session) for c in some}
        listed = ", ".join(f"{c} = %s" for c in new)
        changed = session.run(f"UPDATE {table} SET {listed} WHERE {column} = %s", [*new.values(), value]).rowcount
        assert changed == (key in model), f"UPDATE {changed}"
        for c, v in new.items() if key in model else ():
            if v is not None or self.whole and set_null:
                model[key][c] = v
            else:
                model[key].pop(c, None)

    def write_by_id(self, session, model, table, set_null, roll, key) -> None:
        number = model[key]["_id"]
        if roll < 0.5:
            row = {c: v for c, v in self.row(session).items() if c not in self.fixed}
            if not row:
                return
            clause, listed = self.conflict(session, roll, "id", row)
            names = ["id", *row]
            marks = ", ".join(["%s"] * len(names))
            session.run(f"INSERT INTO {table} ({', '.join(names)}) VALUES ({marks}){clause}", [number, *row.values()])
            if listed is None:
                self.insert(model, key, row, set_null)
            else:
                for column in listed:
                    self.put(model[key], column, row.get(column), set_null)
        elif roll < 0.6:
            self.renames += 1
            new = f"r{self.renames}"
            assert session.run(f"UPDATE {table} SET {self.key} = %s WHERE id = %s", (new, number)).rowcount == 1
            model[new] = model.pop(key)
        elif roll < 0.85:
            self.update(session, model, table, set_null, key, "id", number)
        elif self.deletable:
            assert session.run(f"DELETE FROM {table} WHERE id = %s", (number,)).rowcount == 1
            del model[key]


@dataclass(eq=False)
class RawRows(Rows):
    def held(self, cdf) -> dict:
        return {
            row["key"]: {c: row["columns"][name] for c, name in self.columns.items() if name in row["columns"]}
            for row in dump(cdf, "raw")
        }


@dataclass(eq=False)
class Instances(Rows):
    kind: str = "node"

    def prepare(self, api, cdf) -> None:
        create_views(api)

    def held(self, cdf) -> dict:
        held = {}
        for item in dump(cdf, "instances"):
            if item["instanceType"] == self.kind and item["externalId"] in self.keys:
                values = dict(item["properties"])
                if self.kind == "edge":
                    values["start"] = item["startNode"]["externalId"]
                held[item["externalId"]] = {
                    c: values[name] for c, name in self.columns.items() if values.get(name) is not None
                }
        return held


# ---- rows of sequences, points ----


@dataclass(eq=False)
class Cells(Kind):
    """Rows of sequences, which are named by external id and, where they exist before, by id."""

    name: str = "sequence_rows"
    sequences: tuple[str, ...] = ("s1", "s2")
    by_id: bool = False
    ids: dict = field(default_factory=dict)

    def prepare(self, api, cdf) -> None:
        columns = [{"externalId": name} for name in "abc"]
        for name in self.sequences:
            api.post("/sequences", {"externalId": name, "columns": columns})
        self.ids = {item["externalId"]: item["id"] for item in dump(cdf, "sequences")}

    def held(self, cdf) -> dict:
        return {
            (row["externalId"], row["rowNumber"]): {c: v for c, v in row["columns"].items() if v is not None}
            for row in dump(cdf, "sequence_rows")
        }

    def named(self, session, sequence) -> tuple[str, object]:
        if self.by_id and session.random.random() < 0.5:
            return "id", self.ids[sequence]
        return "external_id", sequence

    def seen(self, session, model):
        roll = session.random.random()
        condition, parameters, shown = "", (), model
        if roll < 0.6:
            sequence = session.random.choice(self.sequences)
            column, value = self.named(session, sequence)
            condition, parameters = f" WHERE {column} = %s", (value,)
            shown = {key: row for key, row in model.items() if key[0] == sequence}
        rows = session.run(f"SELECT external_id, id, row_number, columns FROM sequence_rows{condition}", parameters).fetchall()
        got = {}
        for name, number, row, cells in rows:
            assert number in (None, self.ids[name]) and (name, row) not in got, f"twice: {rows}"
            got[name, row] = {c: v for c, v in cells.items() if v is not None}
        return got, shown

    def write(self, session, model) -> None:
        sequence, number = session.random.choice(self.sequences), session.random.randint(0, 2)
        key, roll = (sequence, number), session.random.random()
        column, value = self.named(session, sequence)
        cells = {c: session.random.randint(0, 9) for c in session.random.sample("abc", k=session.random.randint(1, 3))}
        if roll < 0.55:
            clause = session.random.choice(("", "", f" ON CONFLICT ({column}, row_number) DO NOTHING"))
            session.run(
                f"INSERT INTO sequence_rows ({column}, row_number, columns) VALUES (%s, %s, %s){clause}",
                (value, number, Jsonb(cells)),
            )
            if not (clause and key in model):
                model[key] = {**model.get(key, {}), **cells}
        elif roll < 0.8:
            changed = session.run(
                f"UPDATE sequence_rows SET columns = %s WHERE {column} = %s AND row_number = %s",
                (Jsonb(cells), value, number),
            ).rowcount
            assert changed == (key in model), f"UPDATE {changed}"
            if key in model:
                model[key] = cells
        elif roll < 0.9:
            deleted = session.run(f"DELETE FROM sequence_rows WHERE {column} = %s AND row_number = %s", (value, number)).rowcount
            assert deleted == (key in model), f"DELETE {deleted}"
            model.pop(key, None)
        else:
            deleted = session.run(f"DELETE FROM sequence_rows WHERE {column} = %s", (value,)).rowcount
            gone = [key for key in model if key[0] == sequence]
            assert deleted == len(gone), f"DELETE {deleted} of {len(gone)}"
            for key in gone:
                del model[key]


@dataclass(eq=False)
class Points(Kind):
    """Points, their series named by external id and, where they exist before, by id and by instance."""

    name: str = "datapoints"
    string: bool = False
    by_id: bool = False
    names: dict = field(default_factory=dict)

    @property
    def series(self) -> tuple[str, ...]:
        return ("t1", "t2", "t3") if self.string else ("p1", "p2", "p3")

    def prepare(self, api, cdf) -> None:
        for name in self.series[1:]:
            api.post("/timeseries", {"externalId": name, "name": name, "isString": self.string})
        cdf.admin_post(
            "timeseries_instances",
            {"items": [{"space": "sp", "externalId": self.series[0], "isString": self.string}]},
        )
        self.names = {}
        for item in dump(cdf, "timeseries"):
            instance = item.get("instanceId")
            name = item.get("externalId") or instance["externalId"]
            if name in self.series:
                self.names[name] = (item.get("externalId"), item["id"], instance)

    def held(self, cdf) -> dict:
        series = {name: name for name in self.series}
        points = dump(cdf, "datapoints")
        return {
            (series[point["externalId"]], point["timestamp"]): {"value": point["value"]}
            for point in points
            if point["externalId"] in series
        }

    def named(self, session, series) -> dict:
        external_id, number, instance = self.names[series]
        ways = [{"external_id": external_id}] if external_id else []
        if self.by_id or not ways:
            ways.append({"id": number})
            if instance:
                ways.append({"instance_space": instance["space"], "instance_external_id": instance["externalId"]})
        return session.random.choice(ways)

    def value(self, session):
        value = session.random.randint(0, 9)
        return f"v{value}" if self.string else float(value)

    def seen(self, session, model):
        conditions, parameters, shown = [], [], model
        if session.random.random() < 0.6:
            series = session.random.choice(self.series)
            for column, value in self.named(session, series).items():
                conditions.append(f"{column} = %s")
                parameters.append(value)
            shown = {key: row for key, row in shown.items() if key[0] == series}
        if session.random.random() < 0.3:
            start = session.random.randint(0, 4)
            conditions.append('"timestamp" >= to_timestamp(%s)')
            parameters.append(start)
            shown = {key: row for key, row in shown.items() if key[1] >= start * 1000}
        where = f" WHERE {' AND '.join(conditions)}" if conditions else ""
        columns = 'external_id, id, instance_external_id, extract(epoch FROM "timestamp")::int8 * 1000, value'
        rows = session.run(f"SELECT {columns} FROM {self.name}{where}", parameters).fetchall()
        got = {}
        by_id = {number: name for name, (_, number, _) in self.names.items()}
        for external_id, number, instance, moment, value in rows:
            name = external_id or instance or by_id[number]
            assert (name, moment) not in got, f"{name} at {moment} is there twice: {rows}"
            got[name, moment] = {"value": value}
        return got, shown

    def write(self, session, model) -> None:
        series, second = session.random.choice(self.series), session.random.randint(0, 4)
        key, roll = (series, second * 1000), session.random.random()
        names = self.named(session, series)
        named = " AND ".join(f"{column} = %s" for column in names)
        at = '"timestamp" = to_timestamp(%s)'
        value = self.value(session)
        if roll < 0.5:
            columns = ", ".join(names)
            clause = session.random.choice(("", "", f' ON CONFLICT ({columns}, "timestamp") DO NOTHING'))
            marks = ", ".join(["%s"] * len(names))
            session.run(
                f'INSERT INTO {self.name} ({columns}, "timestamp", value) VALUES ({marks}, to_timestamp(%s), %s){clause}',
                [*names.values(), second, value],
            )
            if not (clause and key in model):
                model[key] = {"value": value}
        elif roll < 0.7:
            changed = session.run(f"UPDATE {self.name} SET value = %s WHERE {named} AND {at}", [value, *names.values(), second]).rowcount
            assert changed == (key in model), f"UPDATE {changed}"
            if key in model:
                model[key] = {"value": value}
        elif roll < 0.85:
            deleted = session.run(f"DELETE FROM {self.name} WHERE {named} AND {at}", [*names.values(), second]).rowcount
            assert deleted == (key in model), f"DELETE {deleted}"
            model.pop(key, None)
        else:
            deleted = session.run(f'DELETE FROM {self.name} WHERE {named} AND "timestamp" >= to_timestamp(%s)', [*names.values(), second]).rowcount
            gone = [other for other in model if other[0] == series and other[1] >= second * 1000]
            assert deleted == len(gone), f"DELETE {deleted} of {len(gone)}"
            for other in gone:
                del model[other]


# ---- all of them ----


def tables_of(scratch, name: str, definition: str, resource: str, **options) -> list[tuple[str, bool]]:
    """A table in which NULL is left out, and one in which it clears."""
    return [
        (scratch.table(f"{name}_{handling}", definition, resource, null_handling=handling, **options), handling == "set_null")
        for handling in ("ignore", "set_null")
    ]


def all_kinds(scratch, by_id: bool = False) -> list[Kind]:
    texts = {"type": "type", "subtype": "subtype", "description": "description", "source": "source"}
    number = "id bigint, "

    def items(name: str, columns: dict, more: str = "", by_id: bool = by_id, **how) -> Rows:
        definition = (number if by_id else "") + "external_id text, " + ", ".join(f"{c} text" for c in columns) + more
        return Rows(how.pop("held_as", name), tables_of(scratch, name, definition, name), "external_id", columns, by_id=by_id, **how)

    plain = {"name": "name", "description": "description"}
    sequence = '[{"externalId": "a"}]'
    related = ", source_type text, target_external_id text, target_type text"
    constants = {"source_type": "asset", "target_external_id": "t", "target_type": "asset"}
    kinds = [
        items("events", texts),
        items("assets", {**plain, "source": "source"}, required=("name",)),
        items("timeseries", {**plain, "unit": "unit"}),
        items("sequences", plain, ", columns jsonb", constants={"columns": sequence}),
        items("files", {"name": "name", "directory": "directory", "source": "source"}, required=("name",), fixed=("name",)),
        items("data_sets", plain, held_as="datasets", deletable=False),
    ]
    # A file's name cannot be changed.
    kinds[4].value = lambda session: "f"
    relation = {"source_external_id": "sourceExternalId"}
    kinds.append(
        items("relationships", relation, related, by_id=False, required=("source_external_id",), constants=constants)
    )
    raw = tables_of(scratch, "raw", "key text, a text, b text, c text", "raw_rows", database="d", table="t")
    kinds.append(RawRows("raw", raw, "key", {c: c for c in "abc"}, whole=True))
    return kinds + [Cells(by_id=by_id), Points(by_id=by_id), Points("string_datapoints", string=True, by_id=by_id)]


def instances(scratch, api) -> list[Kind]:
    """Nodes and edges. Their views must be there before their tables."""
    columns = {"name": "name", "note": "note", "more": "more"}
    ends = ", ".join(f"{end}_{part} text" for end in ("type", "start_node", "end_node") for part in ("space", "external_id"))
    named = {f"{end}_space": "sp" for end in ("type", "start_node", "end_node")}
    named |= {"type_external_id": "ty", "end_node_external_id": "end"}
    create_views(api)

    def of_view(name: str, view: str, more: str = "") -> list[tuple[str, bool]]:
        definition = f"external_id text, name text, note text, more text{more}"
        return tables_of(scratch, name, definition, "view", space="sp", external_id=view, version="v1")

    edges = Instances(
        "edges",
        of_view("edges", "Edge", f", {ends}"),
        "external_id",
        {**columns, "start_node_external_id": "start"},
        required=("name", "start_node_external_id"),
        constants=named,
    )
    edges.kind, edges.keys = "edge", ("e1", "e2", "e3")
    edges.value = lambda session: session.random.choice("xyz")
    return [Instances("nodes", of_view("nodes", "Node"), "external_id", columns, ("name",)), edges]


def create_views(api: Api) -> None:
    api.post("/models/spaces", {"space": "sp"})
    for name, used_for in (("Node", "node"), ("Edge", "edge")):
        source = {"space": "sp", "externalId": name}
        properties = {c: {"type": {"type": "text"}, "nullable": True} for c in ("name", "note", "more")}
        api.post("/models/containers", {**source, "usedFor": used_for, "properties": properties})
        container = {"type": "container", **source}
        mapped = {c: {"container": container, "containerPropertyIdentifier": c} for c in properties}
        api.post("/models/views", {**source, "version": "v1", "properties": mapped})
    nodes = [{"instanceType": "node", "space": "sp", "externalId": name} for name in ("ty", "end", "x", "y", "z")]
    api.post("/models/instances", *nodes)
