"""Values that a column cannot hold: the error that names them, the option on_unfit, and rows that the query does not want."""

from __future__ import annotations

import json

import pytest
from support import columns, refused
from test_import import types

# A column's type, what RAW holds, the SQLSTATE of PostgreSQL's refusal, and what the error shows of the value.
UNFIT = [
    ("int", "1e10", "22003", "1e10"),
    ("int", "1.5", "22P02", "1.5"),
    ("smallint", "40000", "22003", "40000"),
    ("bigint", "9223372036854775808", "22003", "9223372036854775808"),
    ("bigint", '"n/a"', "22P02", '"n/a"'),
    ("bigint", '{"a": 1}', "22P02", '{"a":1}'),
    ("real", "1e39", "22003", "1e39"),
    ("float8", "1e400", "22003", "1e400"),
    ("numeric(4,1)", "12345", "22003", "12345"),
    ("boolean", '"maybe"', "22P02", '"maybe"'),
    ("timestamptz", '"yesterday-ish"', "22007", '"yesterday-ish"'),
    ("timestamptz", '"2024-13-01T00:00:00Z"', "22008", "2024-13"),
    ("date", '"2024-02-30"', "22008", "2024-02-30"),
    ("uuid", '"x"', "22P02", '"x"'),
    ("text", r'"a\u0000b"', "22P05", r"a\u0000b"),
    ("text", r'"\ud800"', "22P05", r"\ud800"),
    ("varchar(3)", '"abcd"', "22001", "abcd"),
    ("varchar(3)", r'"a\u0000"', "22P05", r"a\u0000"),
    ("jsonb", r'{"a": "\u0000"}', "22P05", r"\u0000"),
    ("jsonb", r'{"a": "\ud800"}', "22P02", r"\ud800"),
    ("jsonb", "[" * 100_000 + "]" * 100_000, "54001", "[[["),
    ("bytea", '"%%"', "22P02", "%%"),
    ("int[]", "[1, 1e10]", "22003", "[1,1e10]"),
    ("text[]", r'["a", "\u0000"]', "22P05", r"\u0000"),
    ("bytea[]", '["%%"]', "22P02", "%%"),
    ("int[]", "7", "22P02", "7"),
    ("int[]", "[[[[[[[[1]]]]]]]]", "54000", "[[[[[[[[1]]]]]]]]"),
    ("scratch.colour", '"green"', "22P02", '"green"'),
    ("scratch.positive", "-1", "23514", "-1"),
    ("scratch.checked", '"bad"', "P0001", '"bad"'),
    ("scratch.positive[]", "[1, -1]", "23514", "[1,-1]"),
]


@pytest.fixture
def unfit(session, api, scratch):
    """Makes the table t of RAW rows: `bad` holds what does not fit, `good` nothing."""
    scratch.execute("CREATE TYPE colour AS ENUM ('red', 'blue')")
    scratch.execute("CREATE DOMAIN positive AS int CHECK (VALUE > 0)")
    scratch.execute(
        "CREATE FUNCTION check_it(text) RETURNS boolean LANGUAGE plpgsql AS"
        " $$ BEGIN PERFORM 1; IF $1 = 'bad' THEN RAISE 'that is bad'; END IF; RETURN true; END $$"
    )
    scratch.execute("CREATE DOMAIN checked AS text CHECK (scratch.check_it(VALUE))")

    def make(sql_type: str, value: str, **options: str) -> str:
        api.write_raw("d", "t", bad=f'{{"n":1,"x":{value}}}', good='{"n":2}')
        options = {"truncatable": "true"} | options
        return scratch.table("t", f"key text, n int, x {sql_type}", "raw_rows", database="d", table="t", **options)

    return make


def warnings(session, statement: str, *parameters) -> tuple[list, list[str]]:
    """The rows of a statement, and the warnings that came with it."""
    heard: list[str] = []
    handler = lambda diagnostic: heard.append(diagnostic.message_primary)  # noqa: E731
    session.add_notice_handler(handler)
    try:
        cursor = session.execute(statement, parameters or None)
        rows = cursor.fetchall() if cursor.description else [cursor.rowcount]
        return rows, heard
    finally:
        session.remove_notice_handler(handler)


IDS = [f"{sql_type} {value[:20]}" for sql_type, value, *_ in UNFIT]


@pytest.mark.parametrize("sql_type, value, sqlstate, shown", UNFIT, ids=IDS)
def test_the_error_names_table_column_key_and_value(session, unfit, sql_type, value, sqlstate, shown):
    table = unfit(sql_type, value)
    with refused(sqlstate) as caught:
        session.execute(f"SELECT * FROM {table}")
    message = caught.value.diag.message_primary
    for part in ('table "t"', 'column "x"', '"bad"', shown):
        assert part in message, message
    assert "on_unfit" in caught.value.diag.message_hint
    # The session goes on, and rows that other conditions exclude do no harm.
    assert session.execute(f"SELECT * FROM {table} WHERE n = 2").fetchall() == [("good", 2, None)]
    assert session.execute(f"SELECT * FROM {table} WHERE x IS NULL AND n > 1").fetchall() == [("good", 2, None)]
    assert session.execute(f"SELECT key, n FROM {table} ORDER BY n").fetchall() == [("bad", 1), ("good", 2)]


@pytest.mark.parametrize("sql_type, value, sqlstate, shown", UNFIT, ids=IDS)
def test_null_and_a_warning(session, unfit, sql_type, value, sqlstate, shown):
    table = unfit(sql_type, value, on_unfit="null")
    rows, heard = warnings(session, f"SELECT key, x FROM {table} ORDER BY key")
    assert rows == [("bad", None), ("good", None)]
    assert len(heard) == 1 and heard[0].startswith("1 value ") and '"x"' in heard[0] and '"t"' in heard[0], heard
    assert warnings(session, f"SELECT key FROM {table} WHERE n = 2 OR n > 5") == ([("good",)], [])


def test_a_nul_in_a_text_is_not_told_to_become_text(session, unfit):
    table = unfit("text", r'"a\u0000b"')
    with refused("22P05", "NUL") as caught:
        session.execute(f"SELECT * FROM {table}")
    assert "as text" not in caught.value.diag.message_hint and "json" in caught.value.diag.message_hint


def test_one_warning_counts_all(session, api, scratch):
    api.write_raw("d", "t", **{f"k{at}": f'{{"n":{at},"a":"x","b":{at}.5}}' for at in range(2500)})
    table = scratch.table(
        "t", "key text, n int, a int, b int", "raw_rows", database="d", table="t", on_unfit="null"
    )
    rows, heard = warnings(session, f"SELECT a, b FROM {table}")
    assert len(rows) == 2500
    assert len(heard) == 1 and heard[0].startswith("5000 ") and heard[0].count("2500") == 2, heard
    # Rows that another condition excludes do not count.
    rows, heard = warnings(session, f"SELECT a FROM {table} WHERE n < 7")
    assert len(rows) == 7 and len(heard) == 1 and heard[0].startswith("7 "), heard
    # Two scans of one statement.
    rows, heard = warnings(session, f"SELECT x.a FROM {table} x JOIN {table} y USING (n) WHERE n < 3")
    assert len(rows) == 3 and len(heard) == 1, heard
    # A cursor tells when it is closed.
    with session.transaction():
        session.execute(f"DECLARE c CURSOR FOR SELECT a FROM {table}")
        assert warnings(session, "FETCH 10 FROM c")[1] == []
        heard = warnings(session, "CLOSE c")[1]
        assert len(heard) == 1 and int(heard[0].split()[0]) == 10, heard


def test_where_the_option_stands(session, cluster, api, scratch):
    api.write_raw("d", "t", k='{"a":"x","b":"x"}')
    table = scratch.table("t", "key text, a int OPTIONS (on_unfit 'null'), b int", "raw_rows", database="d", table="t")
    assert session.execute(f"SELECT a FROM {table}").fetchall() == [(None,)]
    with refused("22P02", '"b"'):
        session.execute(f"SELECT b FROM {table}")
    scratch.execute("ALTER SERVER cdf OPTIONS (ADD on_unfit 'null')")
    try:
        assert session.execute(f"SELECT a, b FROM {table}").fetchall() == [(None, None)]
        scratch.execute("ALTER FOREIGN TABLE t OPTIONS (ADD on_unfit 'error')")
        with refused("22P02", '"b"'):
            session.execute(f"SELECT a, b FROM {table}")
        assert session.execute(f"SELECT a FROM {table}").fetchall() == [(None,)]
    finally:
        scratch.execute("ALTER SERVER cdf OPTIONS (DROP on_unfit)")
    for statement in (
        "ALTER FOREIGN TABLE t OPTIONS (SET on_unfit 'maybe')",
        "ALTER FOREIGN TABLE t ALTER a OPTIONS (SET on_unfit 'maybe')",
    ):
        with refused("HV00J", "maybe", "error, null"):
            scratch.execute(statement)


def test_an_update_does_not_need_what_it_does_not_set(session, cdf, unfit):
    table = unfit("int", "1e10")
    assert session.execute(f"UPDATE {table} SET n = 5 WHERE n = 1").rowcount == 1
    assert columns(cdf, "bad") == {"n": 5, "x": 1e10}
    with refused("22003", '"x"', '"bad"'):
        session.execute(f"UPDATE {table} SET n = 6 RETURNING *")
    with refused("22003", '"x"', '"bad"'):
        session.execute(f"UPDATE {table} SET n = 6 WHERE x > 1")
    assert columns(cdf, "bad") == {"n": 5, "x": 1e10}
    assert session.execute(f"UPDATE {table} SET x = 7 WHERE n = 5").rowcount == 1
    assert columns(cdf, "bad") == {"n": 5, "x": 7}


def test_a_delete_does_not_need_it_either(session, cdf, unfit):
    table = unfit("int", "1e10")
    assert session.execute(f"DELETE FROM {table} WHERE n = 1").rowcount == 1


def test_conditions_of_every_kind_are_tried_first(session, unfit):
    table = unfit("int", "1e10")
    session.execute("CREATE TEMP TABLE wanted AS SELECT 2 AS n")
    for condition in (
        "x > 0 AND n = 2",
        "n = 2 AND x > 0",
        "n = ANY (ARRAY(SELECT n FROM wanted)) AND x IS NULL",
        "key LIKE 'g%' AND x IS NULL",
        "(n = 2 OR n IN (SELECT n FROM wanted)) AND x IS NULL",
        "n = (SELECT max(n) FROM wanted) AND x IS NULL",
    ):
        session.execute(f"SELECT * FROM {table} t WHERE {condition}")
    with refused("22003", '"x"'):
        session.execute(f"SELECT * FROM {table} WHERE x > 0")


def test_statistics_leave_out_what_does_not_fit(session, mapped, unfit):
    unfit("int", "1e10")
    _, heard = warnings(mapped._connection, "ANALYZE t")
    assert len(heard) == 1 and heard[0].startswith("1 value ") and '"x"' in heard[0], heard
    rows = mapped.execute("SELECT attname, null_frac FROM pg_stats WHERE tablename = 't' AND attname = 'x'").fetchall()
    assert rows == [("x", 1.0)]


def test_other_resources(session, api, scratch):
    api.create("assets", "a", description="not a number", metadata={"k": "nul \0 in it"})
    api.create("assets", "b", description="5")
    table = scratch.table("t", "external_id text, description int, metadata jsonb", "assets")
    with refused("22P02", 'table "t"', '"description"', "external_id", '"a"', "not a number"):
        session.execute(f"SELECT external_id, description FROM {table}")
    assert session.execute(f"SELECT description FROM {table} WHERE external_id = 'b'").fetchall() == [(5,)]
    with refused("22P05", '"metadata"', '"a"'):
        session.execute(f"SELECT metadata FROM {table}")
    scratch.execute("ALTER FOREIGN TABLE t OPTIONS (ADD on_unfit 'null')")
    rows, heard = warnings(session, f"SELECT external_id, description FROM {table} ORDER BY 1")
    assert rows == [("a", None), ("b", 5)] and len(heard) == 1


def test_points_that_do_not_fit(session, scratch):
    session.execute("INSERT INTO timeseries (external_id, name) VALUES ('s', 's')")
    session.execute("INSERT INTO datapoints (external_id, timestamp, value) VALUES ('s', '2024-01-01', 1.5), ('s', '2024-01-02', 2)")
    table = scratch.table("t", 'external_id text, "timestamp" timestamptz, value int', "datapoints")
    with refused("22P02", '"value"', '"s"', "2024-01-01", "1.5"):
        session.execute(f"SELECT value FROM {table} WHERE external_id = 's'")
    found = session.execute(f"SELECT value FROM {table} WHERE external_id = 's' AND timestamp > '2024-01-01'").fetchall()
    assert found == [(2,)]


# ---- IMPORT ----


def test_import_looks_beyond_the_first_rows(session, cdf, api, mapped):
    rows = {f"k{at:05}": {"n": at, "at": "2024-01-01T00:00:00Z", "f": 1.5, "flag": True} for at in range(6000)}
    rows["k02500"] = {"n": "n/a", "at": "later", "f": "none", "flag": "perhaps", "late": 1}
    for part in range(0, 6000, 2000):
        api.create_raw("d", "t", **dict(list(rows.items())[part : part + 2000]))
    cdf.admin_delete("requests")
    mapped.execute('IMPORT FOREIGN SCHEMA "raw:d" FROM SERVER cdf INTO scratch')
    assert types(mapped, "t") == {
        "key": "text",
        "n": "text",
        "at": "text",
        "f": "text",
        "flag": "text",
        "late": "bigint",
    }
    asked = [entry for entry in cdf.admin_get("requests")["items"] if "/tables/t/" in entry["path"]]
    assert 2 < len(asked) < 20
    assert session.execute("SELECT count(n), count(flag) FROM scratch.t").fetchone() == (6000, 6000)


def test_import_types_numbers_by_their_digits(session, api, mapped):
    api.write_raw(
        "d",
        "t",
        a='{"big":9223372036854775807,"huge":89314404000123456789,"exact":0.12345678901234567890,"f":0.1,"e":1e400,"w":1.0}',
        b='{"big":1,"huge":1,"exact":0.5,"f":1.5e10,"e":1,"w":2}',
    )
    mapped.execute('IMPORT FOREIGN SCHEMA "raw:d" FROM SERVER cdf INTO scratch')
    assert types(mapped, "t") == {
        "key": "text",
        "big": "bigint",
        "huge": "numeric",
        "exact": "numeric",
        "f": "double precision",
        "e": "numeric",
        "w": "double precision",
    }
    row = session.execute("SELECT huge::text, exact::text FROM scratch.t WHERE key = 'a'").fetchone()
    assert row == ("89314404000123456789", "0.12345678901234567890")


def test_import_of_what_jsonb_cannot_hold(session, api, mapped):
    deep = "[" * 3000 + "]" * 3000
    api.write_raw("d", "t", a=rf'{{"doc":{{"a":"\u0000"}},"list":["\ud800"],"deep":{deep}}}')
    mapped.execute('IMPORT FOREIGN SCHEMA "raw:d" FROM SERVER cdf INTO scratch')
    row = session.execute("SELECT doc::text, list::text, deep::text FROM scratch.t").fetchone()
    assert row == (r'{"a":"\u0000"}', r'["\ud800"]', deep)
    assert types(mapped, "t")["doc"] == "json"
    assert json.loads(row[0]) == {"a": "\0"}
