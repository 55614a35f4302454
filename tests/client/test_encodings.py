"""Databases that are not UTF-8: texts that are written, read, compared, named or told are converted."""

from __future__ import annotations

from contextlib import contextmanager

import psycopg
import pytest
from faults import fault
from psycopg import sql
from support import Api, columns, dump, names, refused, requests, stored, told

# Texts that both encodings of a case have, and one that only UTF-8 has.
CASES = {
    "LATIN1": ("smörgås é", "日本"),
    "EUC_JP": ("日本のポンプ", "smörgås é\U0001f600"),
}

@contextmanager
def database(cluster, cdf, encoding: str):
    name = f"in_{encoding.lower()}"
    with cluster.connect() as connection:
        connection.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")
        connection.execute(
            f"CREATE DATABASE {name} ENCODING '{encoding}' LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0"
        )
    client = "UTF8" if encoding != "SQL_ASCII" else "SQL_ASCII"
    try:
        with psycopg.connect(cluster.dsn(name), autocommit=True, client_encoding=client) as connection:
            connection.execute("CREATE EXTENSION cdf_fdw")
            connection.execute(f"CREATE SERVER cdf FOREIGN DATA WRAPPER cdf_fdw OPTIONS (base_url '{cdf.url}')")
            options = sql.SQL(", ").join(sql.SQL(f"{name} {{}}").format(value) for name, value in cdf.access.items())
            connection.execute(sql.SQL("CREATE USER MAPPING FOR CURRENT_USER SERVER cdf OPTIONS ({})").format(options))
            connection.execute("IMPORT FOREIGN SCHEMA cdf FROM SERVER cdf INTO public")
            yield connection
    finally:
        with cluster.connect() as connection:
            connection.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")


@pytest.fixture(params=CASES)
def foreign(request, cluster, cdf):
    with database(cluster, cdf, request.param) as connection:
        yield connection, *CASES[request.param]


def test_rows_go_out_and_come_back(foreign, cdf):
    connection, text, _ = foreign
    connection.execute(
        "INSERT INTO assets (external_id, name, description, metadata, labels) VALUES (%s, %s, %s, %s, NULL)",
        (text, text, text, f'{{"{text}": "{text}"}}'),
    )
    asset = stored(cdf, "assets", text)
    assert (asset["name"], asset["description"], asset["metadata"]) == (text, text, {text: text})
    query = "SELECT external_id, name, metadata ->> %s FROM assets"
    assert connection.execute(query, (text,)).fetchall() == [(text, text, text)]


def test_conditions_are_sent_recoded(foreign, cdf):
    connection, text, _ = foreign
    Api(cdf).create("assets", text, "other", metadata={text: text})
    cdf.admin_delete("requests")
    for condition, parameter in [
        ("external_id = %s", text),
        ("external_id = ANY (%s)", [text, "nobody"]),
        ("external_id IN (%s, 'nobody')", text),
        ("name = %s", text),
        ("external_id LIKE %s", text[:2] + "%"),
        ("starts_with(external_id, %s)", text[:2]),
    ]:
        found = connection.execute(f"SELECT external_id FROM assets WHERE {condition}", (parameter,)).fetchall()
        assert found == [(text,)], condition
    found = connection.execute("SELECT count(*) FROM assets WHERE metadata ->> %s = %s", (text, text)).fetchone()
    assert found == (2,)
    pair = f'{{"{text}": "{text}"}}'
    assert connection.execute("SELECT count(*) FROM assets WHERE metadata @> %s::jsonb", (pair,)).fetchone() == (2,)
    bodies = [entry.get("body") for entry in requests(cdf) if entry["path"].startswith("/assets/")]
    assert len(bodies) == 8 and all(text[:2] in str(body) for body in bodies)


def test_updates_deletes_and_conflicts(foreign, cdf):
    connection, text, _ = foreign
    connection.execute("INSERT INTO events (external_id, type) VALUES (%s, 'a'), ('x', 'a')", (text,))
    assert connection.execute("UPDATE events SET type = %s WHERE external_id = %s", (text, text)).rowcount == 1
    assert stored(cdf, "events", text)["type"] == text
    connection.execute(
        "INSERT INTO events (external_id, type) VALUES (%s, 'b') ON CONFLICT (external_id) DO UPDATE SET type = EXCLUDED.type",
        (text,),
    )
    assert stored(cdf, "events", text)["type"] == "b"
    assert connection.execute("DELETE FROM events WHERE external_id = %s", (text,)).rowcount == 1
    assert names(cdf, "events") == ["x"]


def test_arrays_and_raw_rows(foreign, cdf):
    connection, text, _ = foreign
    connection.execute("INSERT INTO labels (external_id, name) VALUES (%s, %s)", (text, text))
    connection.execute("INSERT INTO assets (external_id, name, labels) VALUES ('a', 'A', %s)", ([text],))
    assert connection.execute("SELECT labels FROM assets WHERE labels @> %s", ([text],)).fetchall() == [([text],)]
    assert connection.execute("SELECT labels FROM assets WHERE %s = ANY (labels)", (text,)).fetchall() == [([text],)]
    statement = 'CREATE FOREIGN TABLE {} (key text, {} text, tags text[], doc json) SERVER cdf OPTIONS (resource \'raw_rows\', database {}, "table" {})'
    short = text[:6]
    connection.execute(sql.SQL(statement).format(sql.Identifier(text), sql.Identifier(text), sql.Literal(short), sql.Literal(short)))
    insert = sql.SQL("INSERT INTO {} VALUES (%s, %s, %s, %s)").format(sql.Identifier(text))
    connection.execute(insert, (text, text, [text, "a"], f'["{text}"]'))
    assert columns(cdf, text) == {text: text, "tags": [text, "a"], "doc": [text]}
    (raw,) = dump(cdf, "raw")
    assert (raw.get("database", short), raw.get("table", short)) == (short, short)
    select = sql.SQL("SELECT key, {0}, tags, doc ->> 0 FROM {0} WHERE key = %s").format(sql.Identifier(text))
    assert connection.execute(select, (text,)).fetchall() == [(text, text, [text, "a"], text)]


def test_copy_and_points(foreign, cdf):
    connection, text, _ = foreign
    Api(cdf).create("timeseries", text)
    with connection.cursor().copy('COPY datapoints (external_id, "timestamp", value) FROM STDIN') as copy:
        copy.write_row((text, "2024-01-01 00:00:00Z", 1.5))
    query = "SELECT external_id, value FROM datapoints WHERE external_id = %s"
    assert connection.execute(query, (text,)).fetchall() == [(text, 1.5)]
    assert connection.execute("DELETE FROM datapoints WHERE external_id = %s", (text,)).rowcount == 1


def test_explain_shows_texts_as_they_are(foreign, cdf):
    connection, text, _ = foreign
    lines = connection.execute("EXPLAIN (COSTS off) SELECT * FROM events WHERE external_id = %s", (text,)).fetchall()
    assert any(f"CDF Filter: (external_id = '{text}'::text)" in line for (line,) in lines)


def test_errors_show_what_the_encoding_has(foreign, cdf):
    connection, text, lacking = foreign
    with refused("22001", text[:5]):
        connection.execute("INSERT INTO events (external_id, type) VALUES (%s, repeat('x', 100))", (text,))
    Api(cdf).create("events", text)
    connection.execute("ALTER FOREIGN TABLE events OPTIONS (ADD on_conflict 'error')")
    with refused("23505", text):
        connection.execute("INSERT INTO events (external_id) VALUES (%s)", (text,))
    # A text of CDF with other letters does not hide the error.
    fault(cdf, "/events", status=400, body={"error": {"code": 400, "message": f"refused: {text} {lacking}"}})
    with pytest.raises(psycopg.Error) as caught:
        connection.execute("INSERT INTO events (external_id, type) VALUES ('new', 't')")
    assert caught.value.sqlstate == "22023" and f"refused: {text} " in told(caught.value)


def test_what_the_encoding_lacks_is_named_when_read(foreign, cdf):
    connection, text, lacking = foreign
    Api(cdf).create("events", "e", description=lacking, metadata={"k": lacking})
    for column in ("description", "metadata"):
        with refused("22021", f'"{column}"'):
            connection.execute(f"SELECT {column} FROM events")
    assert connection.execute("SELECT external_id FROM events").fetchall() == [("e",)]


def test_options_are_recoded(foreign, cdf):
    connection, text, _ = foreign
    with refused("HV00J", text):
        connection.execute(sql.SQL("CREATE FOREIGN TABLE t (x text) SERVER cdf OPTIONS (resource {})").format(sql.Literal(text)))
    with refused("HV00D", text):
        connection.execute(sql.SQL("CREATE FOREIGN TABLE t (x text) SERVER cdf OPTIONS ({} 'x')").format(sql.Identifier(text)))
    statement = sql.SQL("CREATE FOREIGN TABLE t (external_id text, x text OPTIONS (name {})) SERVER cdf OPTIONS (resource 'events')")
    connection.execute(statement.format(sql.Literal(text)))
    with refused("HV00J", text):
        connection.execute("SELECT * FROM t")


@pytest.fixture
def ascii(cluster, cdf):
    with database(cluster, cdf, "SQL_ASCII") as connection:
        yield connection


def test_sql_ascii_takes_utf8_and_nothing_else(ascii, cdf):
    # psycopg gives and takes bytes here: the server does not say what they mean.
    good, bad = "'smörgås'", "convert_from('\\xe9', 'SQL_ASCII')"
    cursor = ascii.cursor(binary=False)
    cursor.execute(f"INSERT INTO events (external_id, type) VALUES ({good}, {good})".encode())
    assert stored(cdf, "events", "smörgås")["type"] == "smörgås"
    cursor.execute("SELECT external_id::bytea FROM events WHERE external_id = 'smörgås'".encode())
    assert cursor.fetchall() == [("smörgås".encode(),)]
    for statement, column in [
        (f"INSERT INTO events (external_id, type) VALUES ('x', {bad})", "type"),
        (f"INSERT INTO events (external_id, metadata) VALUES ('x', jsonb_build_object('k', {bad}))", "metadata"),
        (f"INSERT INTO assets (external_id, name, labels) VALUES ('x', 'x', ARRAY[{bad}])", "labels"),
        (f"SELECT * FROM events WHERE external_id = {bad}", "external_id"),
        (f"SELECT * FROM events WHERE external_id = ANY (ARRAY['x', {bad}])", "external_id"),
        (f"UPDATE events SET type = {bad} WHERE external_id IS NOT NULL", "type"),
    ]:
        with refused("22021", column):
            cursor.execute(statement.encode())
    assert names(cdf, "events") == ["smörgås"]


@pytest.mark.parametrize("encoding", CASES)
def test_registration(cluster, cdf, encoding):
    text = CASES[encoding][0]
    with database(cluster, cdf, encoding) as connection:
        register = """
            SELECT username, password, database, schema FROM cdf_register_credentials(
              token_url => %s, client_id => %s, client_secret => %s, scope => %s, project => %s, username => %s, server => %s)
        """
        values = [cdf.token_url, cdf.client_id, cdf.client_secret, cdf.scope, cdf.project]
        with refused("28000", text):
            connection.execute(register, [*values[:4], text, text, text])
        try:
            for again in (False, True):
                found = connection.execute(register, [*values, text, text]).fetchone()
                assert (found[0], found[3]) == (text, text) and (found[1] is None) == again
            query = "SELECT count(*) FROM pg_foreign_table t JOIN pg_class c ON c.oid = ftrelid JOIN pg_foreign_server s ON s.oid = ftserver"
            tables = connection.execute(
                f"{query} WHERE srvname = %s AND relnamespace = quote_ident(%s)::regnamespace", (text, text)
            )
            assert tables.fetchone()[0] >= 12
            connection.execute(sql.SQL("SET ROLE {}").format(sql.Identifier(text)))
            insert = sql.SQL("INSERT INTO {}.events (external_id) VALUES ({})")
            connection.execute(insert.format(sql.Identifier(text), sql.Literal(text)))
            assert names(cdf, "events") == [text]
        finally:
            connection.execute("RESET ROLE")
            connection.execute(sql.SQL("DROP OWNED BY {0} CASCADE; DROP SERVER IF EXISTS {0} CASCADE").format(sql.Identifier(text)))
            connection.execute(sql.SQL("DROP SCHEMA IF EXISTS {0} CASCADE; DROP ROLE IF EXISTS {0}").format(sql.Identifier(text)))
