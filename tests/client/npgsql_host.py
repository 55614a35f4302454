"""Runs Npgsql, the .NET driver, and does what it is told: a JSON object per line on standard input, an answer per line.

A process of its own (npgsql.py starts it), since a .NET runtime takes signal handlers and threads of whatever hosts it.

    {"do": "execute", "connection": 1, "sql": "INSERT …", "parameters": [["Bigint", 7]], …}
    {"value": …}  or  {"error": {"kind": "PostgresException", "sqlstate": "23505", "message": …, "text": …, …}}
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

place = Path(sys.argv[1])
answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
# Whatever else prints does not get between the answers.
os.dup2(2, 1)

os.environ["DOTNET_SYSTEM_GLOBALIZATION_INVARIANT"] = "1"
from clr_loader import get_coreclr  # noqa: E402
from pythonnet import set_runtime  # noqa: E402

version = next((place / "dotnet/shared/Microsoft.NETCore.App").iterdir()).name
config = Path(sys.argv[2]) / "runtimeconfig.json"
config.write_text(
    json.dumps({"runtimeOptions": {"framework": {"name": "Microsoft.NETCore.App", "version": version}}})
)
set_runtime(get_coreclr(runtime_config=str(config), dotnet_root=str(place / "dotnet")))

import clr  # noqa: E402

sys.path.append(str(place))
npgsql = clr.AddReference("Npgsql")
clr.AddReference("System.Data.Common")

import System  # noqa: E402
from Npgsql import NpgsqlCommand, NpgsqlConnection, NpgsqlParameter  # noqa: E402
from NpgsqlTypes import NpgsqlDbType  # noqa: E402
from System import (  # noqa: E402
    Array,
    Boolean,
    DateTime,
    DateTimeOffset,
    DBNull,
    Decimal,
    Double,
    Guid,
    Int32,
    Int64,
    Object,
    String,
)
from System.Data import CommandBehavior  # noqa: E402
from System.Globalization import CultureInfo, DateTimeStyles  # noqa: E402

INVARIANT = CultureInfo.InvariantCulture
# The .NET type, and what makes one of a JSON value, for each type of a parameter.
KINDS = {
    "Text": (String, str),
    "Varchar": (String, str),
    "Json": (String, str),
    "Jsonb": (String, str),
    "Integer": (Int32, Int32),
    "Bigint": (Int64, Int64),
    "Double": (Double, Double),
    "Boolean": (Boolean, bool),
    "Numeric": (Decimal, lambda text: Decimal.Parse(text, INVARIANT)),
    "Uuid": (Guid, Guid.Parse),
    "Timestamp": (DateTime, lambda text: DateTime.Parse(text, INVARIANT, DateTimeStyles.RoundtripKind)),
    "TimestampTz": (DateTime, lambda text: DateTime.Parse(text, INVARIANT, DateTimeStyles.RoundtripKind)),
    # Not a name of Npgsql's: a TimestampTz that .NET holds with its offset.
    "Offset": (DateTimeOffset, lambda text: DateTimeOffset.Parse(text, INVARIANT)),
}


def db_type(kind: str):
    """NpgsqlDbType by its name; `Text[]` is an array of it."""
    name = "TimestampTz" if kind == "Offset" else kind.removesuffix("[]")
    number = int(getattr(NpgsqlDbType, name)) | (int(NpgsqlDbType.Array) if kind.endswith("[]") else 0)
    return System.Enum.ToObject(clr.GetClrType(NpgsqlDbType), Int32(number))


def to_net(kind: str, value):
    if value is None:
        return DBNull.Value
    net, make = KINDS[kind.removesuffix("[]")]
    if kind.endswith("[]"):
        return Array[net]([make(one) for one in value])
    return make(value)


def to_json(value):
    if value is None or isinstance(value, (str, bool, int, float)):
        return value
    if isinstance(value, DBNull):
        return None
    if isinstance(value, System.Array):
        return [to_json(one) for one in value]
    if isinstance(value, (DateTime, DateTimeOffset)):
        return value.ToString("o", INVARIANT)
    return value.ToString()


connections: dict[int, NpgsqlConnection] = {}
transactions: dict[int, object] = {}
commands: dict[tuple[int, str], NpgsqlCommand] = {}
notices: dict[int, list[dict]] = {}


def opened(connection: int, string: str) -> None:
    one = NpgsqlConnection(string)
    told = notices.setdefault(connection, [])

    def take(_sender, event):
        notice = event.Notice
        told.append({"severity": notice.Severity, "sqlstate": notice.SqlState, "message": notice.MessageText})

    one.Notice += take
    one.Open()
    connections[connection] = one


def command(connection: int, sql: str, parameters: list, timeout: int | None) -> NpgsqlCommand:
    made = NpgsqlCommand(sql, connections[connection])
    if connection in transactions:
        made.Transaction = transactions[connection]
    if timeout is not None:
        made.CommandTimeout = timeout
    add_parameters(made, parameters)
    return made


def add_parameters(made: NpgsqlCommand, parameters: list) -> None:
    for at, (kind, value) in enumerate(parameters):
        parameter = NpgsqlParameter(f"p{at}", db_type(kind))
        parameter.Value = to_net(kind, value)
        made.Parameters.Add(parameter)


def execute(connection: int, sql: str, parameters: list = (), timeout: int | None = None) -> int:
    return command(connection, sql, parameters, timeout).ExecuteNonQuery()


def query(connection: int, sql: str, parameters: list = (), timeout: int | None = None) -> list:
    reader = command(connection, sql, parameters, timeout).ExecuteReader()
    try:
        rows = []
        while reader.Read():
            rows.append([to_json(reader.GetValue(at)) for at in range(reader.FieldCount)])
        return rows
    finally:
        reader.Dispose()


def prepare(connection: int, name: str, sql: str, parameters: list) -> None:
    """A command that stays; its parameters are the first ones it runs with."""
    made = command(connection, sql, parameters, None)
    made.Prepare()
    commands[connection, name] = made


def run(connection: int, name: str, values: list) -> int:
    made = commands[connection, name]
    if connection in transactions:
        made.Transaction = transactions[connection]
    for at, (kind, value) in enumerate(values):
        made.Parameters[at].Value = to_net(kind, value)
    return made.ExecuteNonQuery()


def begin(connection: int) -> None:
    transactions[connection] = connections[connection].BeginTransaction()


def commit(connection: int) -> None:
    # Whatever comes of it, the transaction is over.
    transactions.pop(connection).Commit()


def rollback(connection: int) -> None:
    transactions.pop(connection).Rollback()


def savepoint(connection: int, method: str, name: str) -> None:
    """Save, Rollback or Release."""
    getattr(transactions[connection], method)(name)


def copy_text(connection: int, sql: str, text: str) -> None:
    writer = connections[connection].BeginTextImport(sql)
    try:
        writer.Write(text)
    finally:
        writer.Dispose()


def copy_binary(connection: int, sql: str, kinds: list, rows: list) -> None:
    importer = connections[connection].BeginBinaryImport(sql)
    try:
        writes = [importer.Write[KINDS[kind][0]] if kind in KINDS else importer.Write[Object] for kind in kinds]
        types = [db_type(kind) for kind in kinds]
        for row in rows:
            importer.StartRow()
            for kind, write, type_, value in zip(kinds, writes, types, row, strict=True):
                if value is None:
                    importer.WriteNull()
                else:
                    write(to_net(kind, value), type_)
        importer.Complete()
    finally:
        importer.Dispose()


def copy_out(connection: int, sql: str) -> str:
    reader = connections[connection].BeginTextExport(sql)
    try:
        return reader.ReadToEnd()
    finally:
        reader.Dispose()


def table_rows(table) -> list[dict]:
    names = [column.ColumnName for column in table.Columns]
    return [{name: to_json(row[name]) for name in names} for row in table.Rows]


def schema(connection: int, collection: str, restrictions: list) -> list[dict]:
    return table_rows(connections[connection].GetSchema(collection, Array[String](restrictions)))


def columns(connection: int, sql: str) -> list[dict]:
    """What a tool learns of a table before it maps columns: IDataReader.GetSchemaTable."""
    reader = NpgsqlCommand(sql, connections[connection]).ExecuteReader(CommandBehavior.SchemaOnly)
    try:
        return table_rows(reader.GetSchemaTable())
    finally:
        reader.Dispose()


def keys(connection: int, sql: str) -> list[dict]:
    """The same, asking for keys: what command builders and some designers do."""
    behaviour = System.Enum.ToObject(
        clr.GetClrType(CommandBehavior), int(CommandBehavior.SchemaOnly) | int(CommandBehavior.KeyInfo)
    )
    reader = NpgsqlCommand(sql, connections[connection]).ExecuteReader(behaviour)
    try:
        return table_rows(reader.GetSchemaTable())
    finally:
        reader.Dispose()


def taken(connection: int) -> list[dict]:
    told, notices[connection][:] = list(notices[connection]), []
    return told


def state(connection: int) -> str:
    return connections[connection].FullState.ToString()


def process(connection: int) -> int:
    return connections[connection].ProcessID


def close(connection: int) -> None:
    transactions.pop(connection, None)
    for key in [key for key in commands if key[0] == connection]:
        del commands[key]
    connections.pop(connection).Dispose()


def version_() -> str:
    return npgsql.GetName().Version.ToString()


DOES = {
    "open": opened, "execute": execute, "query": query, "prepare": prepare, "run": run, "begin": begin, "commit": commit,
    "rollback": rollback, "savepoint": savepoint, "copy_text": copy_text, "copy_binary": copy_binary, "copy_out": copy_out,
    "schema": schema, "columns": columns, "keys": keys, "notices": taken, "state": state, "process": process, "close": close,
    "version": version_,
}


def told(error: System.Exception) -> dict:
    """What the driver says: its own kind of error, and PostgreSQL's parts where it has them."""
    inner = error
    while inner is not None and inner.GetType().Name != "PostgresException":
        inner = inner.InnerException
    answer = {"kind": error.GetType().Name, "text": error.Message}
    if error.InnerException is not None:
        answer["text"] += f" ({error.InnerException.GetType().Name}: {error.InnerException.Message})"
    if inner is not None:
        answer |= {
            "sqlstate": inner.SqlState,
            "message": inner.MessageText,
            "detail": inner.Detail,
            "hint": inner.Hint,
        }
    return answer


for line in sys.stdin:
    request = json.loads(line)
    try:
        answer = {"value": DOES[request.pop("do")](**request)}
    except System.Exception as error:
        answer = {"error": told(error)}
    answers.write(json.dumps(answer) + "\n")
    answers.flush()
