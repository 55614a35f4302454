"""IMPORT FOREIGN SCHEMA "space:…" and "raw:…": typed tables of what CDF holds."""

from __future__ import annotations

import pytest
from support import columns, refused
from support import api, scratch, session  # noqa: F401  (fixtures)
from test_views import TYPES, create_view


@pytest.fixture
def mapped(scratch, gateway):
    """The superuser who imports has the registered role's credentials."""
    options = "project, token_url, client_id, client_secret, scope".split(", ")
    listed = scratch.execute(
        "SELECT o.option_name, o.option_value FROM pg_user_mappings m, pg_options_to_table(m.umoptions) o"
        f" WHERE m.usename = '{gateway.username}' AND m.srvname = 'cdf'"
    ).fetchall()
    assert {name for name, _ in listed} >= set(options)
    pairs = ", ".join(f"{name} '{value}'" for name, value in listed)
    scratch.execute("DROP USER MAPPING IF EXISTS FOR CURRENT_USER SERVER cdf")
    scratch.execute(f"CREATE USER MAPPING FOR CURRENT_USER SERVER cdf OPTIONS ({pairs})")
    yield scratch
    scratch.execute("DROP USER MAPPING FOR CURRENT_USER SERVER cdf")


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
        "mixed": "jsonb",
        "doc": "jsonb",
        "key_": "text",
        "text": "text",
    }
    row = session.execute("SELECT n, x, mixed, key_ FROM scratch.\"Some table\" WHERE key = 'a'").fetchone()
    assert row == (1, 1.0, 1, "inner")
    session.execute("INSERT INTO scratch.\"Some table\" (key, key_, n) VALUES ('c', 'mine', 3)")
    assert columns(cdf, "c") == {"key": "mine", "n": 3}
    other = list(types(mapped, "other"))
    assert len(other) == 4 and all(len(name.encode()) <= 63 for name in other)
    assert session.execute("SELECT * FROM scratch.other").fetchone() == ("k", 1, "x", "y")
