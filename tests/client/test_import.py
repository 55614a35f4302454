"""IMPORT FOREIGN SCHEMA "space:…" and "raw:…": typed tables of what CDF holds."""

from __future__ import annotations

from contextlib import contextmanager

import psycopg
import pytest
from psycopg import sql
from support import columns, refused, stored
from test_views import TYPES, create_view

SYSTEM = ["tableoid", "cmax", "xmax", "cmin", "xmin", "ctid"]


@contextmanager
def warnings(connection):
    """The WARNINGs that a connection gets meanwhile."""
    told: list[str] = []
    handler = lambda notice: told.append("\n".join(filter(None, (notice.message_primary, notice.message_detail))))
    connection.add_notice_handler(handler)
    yield told
    connection.remove_notice_handler(handler)


def types(scratch, table: str) -> dict[str, str]:
    rows = scratch.execute(
        "SELECT attname, format_type(atttypid, atttypmod) FROM pg_attribute"
        f" WHERE attrelid = 'scratch.\"{table}\"'::regclass AND attnum > 0 ORDER BY attnum"
    ).fetchall()
    return dict(rows)


def test_the_views_of_a_space(session, cdf, api, mapped):
    create_view(api, "Pump", TYPES | {"space_": "text"})
    create_view(api, "Flow", {"rate": "float64"}, used_for="edge")
    create_view(api, "Odd Name".replace(" ", "_"), {"type_space": "text"})
    mapped.execute('IMPORT FOREIGN SCHEMA "space:sp" FROM SERVER cdf INTO scratch')
    pump = types(mapped, "Pump")
    assert pump | {
        "space": "text",
        "external_id": "text",
        "tags": "text[]",
        "flag": "boolean",
        "count": "integer",
        "total": "bigint",
        "level": "real",
        "pressure": "double precision",
        "seen": "timestamp with time zone",
        "built": "date",
        "info": "jsonb",
        "parent": "jsonb",
        "others": "jsonb[]",
    } == pump
    assert "start_node_space" in types(mapped, "Flow") and "start_node_space" not in pump
    assert "type_space_" in types(mapped, "Odd_Name")
    session.execute("INSERT INTO scratch.\"Pump\" (space, external_id, name) VALUES ('sp', 'p', 'x')")
    session.execute("INSERT INTO scratch.\"Odd_Name\" (space, external_id, type_space_) VALUES ('sp', 'o', 'y')")
    assert session.execute('SELECT external_id, name FROM scratch."Pump"').fetchall() == [("p", "x")]
    assert session.execute('SELECT type_space_ FROM scratch."Odd_Name"').fetchall() == [("y",)]


def test_an_enumeration_is_a_text(api, session, mapped):
    create_view(api, "Valve", {"state": {"type": "enum", "values": {"on": {}, "off": {}}}})
    mapped.execute('IMPORT FOREIGN SCHEMA "space:sp" FROM SERVER cdf INTO scratch')
    assert types(mapped, "Valve")["state"] == "text"


def test_the_newest_version(api, session, mapped):
    create_view(api, "Pump", {"old": "text"}, version="v2")
    create_view(api, "Pump", {"new": "text"}, version="v1")
    mapped.execute('IMPORT FOREIGN SCHEMA "space:sp" FROM SERVER cdf INTO scratch')
    assert "new" in types(mapped, "Pump")


def test_limit_and_except(api, session, mapped):
    for name in "ABC":
        create_view(api, name, {"x": "text"})
    mapped.execute('IMPORT FOREIGN SCHEMA "space:sp" LIMIT TO ("A") FROM SERVER cdf INTO scratch')
    mapped.execute('IMPORT FOREIGN SCHEMA "space:sp" EXCEPT ("A", "B") FROM SERVER cdf INTO scratch')
    tables = mapped.execute("SELECT relname FROM pg_class WHERE relnamespace = 'scratch'::regnamespace ORDER BY 1")
    assert tables.fetchall() == [("A",), ("C",)]
    with refused("HV00R", '"D"', "A, B, C"):
        mapped.execute('IMPORT FOREIGN SCHEMA "space:sp" LIMIT TO ("D") FROM SERVER cdf INTO scratch')


@pytest.mark.parametrize("schema", ["space:none", "raw:none", "none"])
def test_unknown_schemas(api, session, mapped, schema):
    with refused("HV00Q", "none"):
        mapped.execute(f'IMPORT FOREIGN SCHEMA "{schema}" FROM SERVER cdf INTO scratch')


def test_the_tables_of_a_raw_database(session, cdf, api, mapped):
    api.create_raw(
        "d",
        "Some table",
        a={"flag": True, "n": 1, "x": 1, "at": "2024-01-01T00:00:00Z", "mixed": 1, "doc": {"a": 1}, "key": "inner"},
        b={"flag": None, "n": 2, "x": 1.5, "at": "2024-01-01T00:00:00+02:00", "mixed": "a", "text": "2024-01-01"},
    )
    api.create_raw("d", "other", k={"ü" * 40 + "1": 1, "ü" * 40 + "2": "x", 'q"uote\'s': "y"})
    mapped.execute('IMPORT FOREIGN SCHEMA "raw:d" FROM SERVER cdf INTO scratch')
    found = types(mapped, "Some table")
    assert found == {
        "key": "text",
        "flag": "boolean",
        "n": "bigint",
        "x": "double precision",
        "at": "timestamp with time zone",
        "mixed": "text",
        "doc": "jsonb",
        "key_": "text",
        "text": "text",
    }
    row = session.execute("SELECT n, x, mixed, key_ FROM scratch.\"Some table\" WHERE key = 'a'").fetchone()
    assert row == (1, 1.0, "1", "inner")
    session.execute("INSERT INTO scratch.\"Some table\" (key, key_, n) VALUES ('c', 'mine', 3)")
    assert columns(cdf, "c") == {"key": "mine", "n": 3}
    other = list(types(mapped, "other"))
    assert len(other) == 4 and all(len(name.encode()) <= 63 for name in other)
    assert session.execute("SELECT * FROM scratch.other").fetchone() == ("k", 1, "x", "y")


def test_columns_called_like_those_of_the_system(session, cdf, api, mapped):
    api.create_raw("d", "odd", o={name: name for name in [*SYSTEM, "xmin_", "CTID", "oid", "select", "", "n\0l"]})
    api.create_raw("d", "plain", k={"a": 1})
    create_view(api, "Odd", {name: "text" for name in [*SYSTEM, "ctid_"]})
    create_view(api, "Plain", {"a": "text"})
    with warnings(mapped._connection) as told:
        mapped.execute('IMPORT FOREIGN SCHEMA "raw:d" FROM SERVER cdf INTO scratch')
        mapped.execute('IMPORT FOREIGN SCHEMA "space:sp" LIMIT TO ("Odd", "Plain") FROM SERVER cdf INTO scratch')
    assert len(told) == 2 and all('RAW table "odd"' in text for text in told)
    assert "empty" in told[0] and "NUL" in told[1] and '"n\\0l"' in told[1]
    odd = {name: f"{name}_" for name in SYSTEM} | {"xmin": "xmin_2"}
    assert list(types(mapped, "odd")) == ["key", *odd.values(), "xmin_", "CTID", "oid", "select"]
    assert set(types(mapped, "plain")) == {"key", "a"} and "a" in types(mapped, "Plain")
    listed = ", ".join(f'"{name}"' for name in odd.values())
    assert session.execute(f"SELECT {listed}, xmin_ FROM scratch.odd").fetchone() == (*SYSTEM, "xmin_")
    session.execute("""UPDATE scratch.odd SET ctid_ = 'new' WHERE key = 'o'""")
    assert columns(cdf, "o")["ctid"] == "new"
    session.execute("""INSERT INTO scratch."Odd" (space, external_id, ctid_2, ctid_) VALUES ('sp', 'o', 'a', 'b')""")
    assert stored(cdf, "instances", "o")["properties"] == {"ctid": "a", "ctid_0": "b"}


def test_names_that_are_long_quoted_or_alike(session, cdf, api, mapped):
    long = "日" * 22
    api.create_raw("d", 'a "quoted" table\'s \\ name', k={'"': 1, "'": 2, "\\": 3, " ": 4, "a.b": 5, "%s": 6, "$1": 7, ";--": 8})
    api.create_raw("d", long[:21], k={long: 1, long + "x": 2, long[:21]: 3, long[:20] + "_": 4})
    api.create_raw("d", long, k={"a": 1})
    mapped.execute('IMPORT FOREIGN SCHEMA "raw:d" FROM SERVER cdf INTO scratch')
    tables = [name for (name,) in mapped.execute("SELECT relname FROM pg_class WHERE relnamespace = 'scratch'::regnamespace")]
    assert len(tables) == 3 and all(len(name.encode()) <= 63 for name in tables)
    quoted = session.execute(sql.SQL("SELECT * FROM scratch.{}").format(sql.Identifier("a \"quoted\" table's \\ name")))
    assert quoted.fetchone() == ("k", 1, 2, 3, 4, 5, 6, 7, 8)
    assert session.execute(sql.SQL("SELECT * FROM scratch.{}").format(sql.Identifier(long[:21]))).fetchone() == ("k", 1, 2, 3, 4)
    mapped.execute("DROP SCHEMA scratch CASCADE; CREATE SCHEMA scratch")
    # A name in the statement is cut by PostgreSQL as those of tables are.
    mapped.execute(f'IMPORT FOREIGN SCHEMA "raw:d" LIMIT TO ("{long[:21]}") FROM SERVER cdf INTO scratch')
    assert len(types(mapped, long[:21])) == 5


def test_more_columns_than_a_table_can_have(session, cdf, api, mapped):
    api.create_raw("d", "wide", k={f"c{i:04}": i for i in range(1700)})
    api.create_raw("d", "plain", k={"a": 1})
    with warnings(mapped._connection) as told:
        mapped.execute('IMPORT FOREIGN SCHEMA "raw:d" FROM SERVER cdf INTO scratch')
    assert len(types(mapped, "wide")) == 1600 and len(types(mapped, "plain")) == 2
    assert len(told) == 1 and '101 columns of RAW table "wide"' in told[0] and '"c1599"' in told[0] and "1600" in told[0]
    assert session.execute("SELECT c0000, c1598 FROM scratch.wide").fetchone() == (0, 1598)
    with warnings(mapped._connection) as told:
        mapped.execute("DROP SCHEMA scratch CASCADE; CREATE SCHEMA scratch")
        mapped.execute('IMPORT FOREIGN SCHEMA "raw:d" EXCEPT (wide) FROM SERVER cdf INTO scratch')
    assert told == [] and len(types(mapped, "plain")) == 2


def test_a_table_that_cannot_be_read(session, cdf, api, mapped):
    for name in ("first", "middle", "last"):
        api.create_raw("d", name, k={"a": 1})
    fault = {"path": "/raw/dbs/d/tables/middle/rows", "mode": "status", "status": 403}
    cdf.admin_post("faults", fault)
    with warnings(mapped._connection) as told:
        mapped.execute('IMPORT FOREIGN SCHEMA "raw:d" FROM SERVER cdf INTO scratch')
    assert len(told) == 1 and 'RAW table "middle"' in told[0] and "left out" in told[0]
    tables = mapped.execute("SELECT relname FROM pg_class WHERE relnamespace = 'scratch'::regnamespace ORDER BY 1")
    assert tables.fetchall() == [("first",), ("last",)]


def test_a_database_without_the_characters(cluster, cdf, api, emulator):
    api.create_raw("d", "plain", k={"a": 1, "é": 2, "日": 3})
    api.create_raw("d", "日本", k={"a": 1})
    with cluster.connect() as connection:
        connection.execute("DROP DATABASE IF EXISTS latin")
        connection.execute("CREATE DATABASE latin TEMPLATE template0 ENCODING 'LATIN1' LC_COLLATE 'C' LC_CTYPE 'C'")
    with psycopg.connect(cluster.dsn("latin"), autocommit=True, client_encoding="utf8") as connection:
        connection.execute("CREATE EXTENSION cdf_fdw")
        connection.execute(f"CREATE SERVER cdf FOREIGN DATA WRAPPER cdf_fdw OPTIONS (base_url '{emulator.url}')")
        connection.execute(
            f"CREATE USER MAPPING FOR CURRENT_USER SERVER cdf OPTIONS (project '{emulator.project}', token_url '{emulator.token_url}',"
            f" client_id '{emulator.client_id}', client_secret '{emulator.client_secret}', scope '{emulator.scope}')"
        )
        with warnings(connection) as told:
            connection.execute('IMPORT FOREIGN SCHEMA "raw:d" FROM SERVER cdf INTO public')
        assert len(told) == 2 and all("encoding" in text for text in told)
        assert connection.execute('SELECT key, a, "é" FROM plain').fetchall() == [("k", 1, 2)]
        tables = connection.execute("SELECT count(*) FROM pg_foreign_table").fetchone()
        assert tables == (1,)
    with cluster.connect() as connection:
        connection.execute("DROP DATABASE latin")
