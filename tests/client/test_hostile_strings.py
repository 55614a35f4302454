"""Whatever a user puts into a name, a key, an option or a body is carried exactly or refused, and is never taken for SQL or a part of a
URL."""

from __future__ import annotations

import json
from urllib.parse import quote

import psycopg
import pytest
from psycopg import sql
from support import names, stored, told
from test_gateway_api import http, refused, token_of  # noqa: F401

HOSTILE = [
    "a'b",
    'a"b',
    "a\\'b\\",
    "$$",
    "$x$",
    "a'); DROP ROLE postgres; --",
    'a"; DROP SCHEMA public CASCADE; --',
    "a/b",
    "../..",
    "%2e%2e",
    "a%00b",
    "%s %(x)s {0} $1",
    "a?b=c#d",
    "a=b&c:d,e",
    "a\tb\r\nc",
    "\x01\x7f",
    "\u202eevil\u200f",
    "\u0301",
    "😀" * 15,
    "ø" * 31 + "x",
    " ",
    "select",
    "U&\"\\0041\"",
]
EACH = pytest.mark.parametrize("text", HOSTILE, ids=lambda text: ascii(text)[1:25])


def admits(cdf, **client) -> dict[str, str]:
    """A client that CDF knows, and its credentials."""
    cdf.admin_post("clients", client)
    return {name: client[name] for name in ("client_id", "client_secret")}


def literal(connection, **options: str) -> sql.Composable:
    return sql.SQL(", ").join(sql.SQL("{} {}").format(sql.Identifier(name), sql.Literal(value)) for name, value in options.items())


# Registration.


def test_names_of_roles_schemas_and_servers(site):
    for text in HOSTILE:
        with site.superuser() as connection:
            before = site.objects()
            username, password, _, schema = site.register(connection, username=text, server=text)
            assert (username, schema) == (text, text)
            after = site.objects()
            made = [set(after[at]) - set(before[at]) for at in (0, 1, 3)]
            assert made == [{(text,)}] * 3
            with site.role(text, password) as session:
                assert session.execute("SELECT current_user, current_schema").fetchone() == (text, text)
                session.execute("INSERT INTO events (external_id) VALUES (%s)", [text])
            assert text in names(site.emulator, "events")
            assert connection.execute("SELECT username, server, schema FROM cdf_credentials").fetchall() == [(text,) * 3]
            assert all(row[3] for row in connection.execute("SELECT * FROM cdf_check_credentials(%s)", [text]).fetchall())
            connection.execute("SELECT cdf_reset_password(%s)", [text])
            connection.execute("SELECT cdf_update_credentials(%s, client_secret => %s)", [text, site.emulator.client_secret])
            connection.execute("SELECT cdf_drop_credentials(%s)", [text])
            connection.execute(sql.SQL("DROP SERVER {}").format(sql.Identifier(text)))
            assert site.objects() == before


def test_parts_of_credentials(site):
    """Project, client, secret and audience arrive at the identity provider and at CDF as they are."""
    for text in HOSTILE:
        cdf = site.emulator
        client = admits(cdf, client_id=text, client_secret=f"{text}~", projects=[text])
        given = client | {"project": text, "audience": text}
        with site.superuser() as connection:
            cdf.admin_delete("requests")
            _, password, _, _ = site.register(connection, username="etl", **given)
            shown = connection.execute("SELECT project, client_id, audience FROM cdf_credentials").fetchone()
            assert shown == (text, text, text)
            with site.role("etl", password) as session:
                session.execute("INSERT INTO events (external_id) VALUES ('e')")
            assert names(cdf, "events", project=text) == ["e"]
            # The same in a header.
            cdf.admin_post("clients", {"client_id": text, "client_secret": f"{text}~", "projects": [text], "token_auth": "basic"})
            connection.execute("ALTER USER MAPPING FOR etl SERVER cdf OPTIONS (ADD token_auth 'basic')")
            assert connection.execute("SELECT ok FROM cdf_check_credentials('etl') LIMIT 1").fetchone() == (True,)
            connection.execute("SELECT cdf_drop_credentials('etl')")


def test_a_project_that_no_url_can_hold(site):
    admits(site.emulator, client_id="c", client_secret="s", projects=["..", "."])
    before = site.objects()
    for project in ("..", "."):
        with site.superuser() as connection:
            _, password, _, _ = site.register(connection, username="etl", client_id="c", client_secret="s", project=project)
            with site.role("etl", password) as session, pytest.raises(psycopg.Error) as caught:
                session.execute("INSERT INTO events (external_id) VALUES ('e')")
            assert caught.value.sqlstate == "22023" and "directions" in told(caught.value)
            connection.execute("SELECT cdf_drop_credentials('etl'); DROP SERVER cdf")
    assert site.objects() == before


# Tables.


def test_names_of_tables_columns_and_what_is_behind_them(site):
    for text in HOSTILE:
        database, table = text[:32], text[:64]
        with site.superuser() as connection:
            _, password, *_ = site.register(connection, username="etl")
            columns = json.dumps({text: {"type": "TEXT"}})
            connection.execute("SELECT cdf_create_raw_table('etl', %s, %s, %s, %s::json)", [text, database, table, columns])
            made = "SELECT relname FROM pg_class WHERE relnamespace = 'etl'::regnamespace AND relname = %s AND relkind = 'f'"
            assert connection.execute(made, [text]).fetchall() == [(text,)]
            with site.role("etl", password) as session:
                parts = {"table": sql.Identifier(text), "column": sql.Identifier(text)}
                session.execute(sql.SQL("INSERT INTO {table} (key, {column}) VALUES ({key}, {key})").format(key=sql.Literal(text), **parts))
                found = session.execute(sql.SQL("SELECT key, {column} FROM {table} WHERE key = {key}").format(key=sql.Literal(text), **parts))
                assert found.fetchall() == [(text, text)]
            row = stored(site.emulator, "raw", text)
            assert (row["database"], row["table"], row["key"], row["columns"]) == (database, table, text, {text: text})
            connection.execute("SELECT cdf_drop_credentials('etl')")
            assert connection.execute("SELECT count(*) FROM pg_foreign_table").fetchone() == (0,)


@EACH
def test_keys_conditions_and_json(session, cdf, text):
    metadata = json.dumps({text: text})
    session.execute("INSERT INTO events (external_id, type, metadata) VALUES (%s, %s, %s)", [text, text, metadata])
    session.execute("INSERT INTO events (external_id, type) VALUES ('other', 'other')")
    event = stored(cdf, "events", text)
    assert (event["type"], event["metadata"]) == (text, {text: text})
    for condition in ("external_id = %s", "type = %s", "external_id IN (%s, 'nothing')", "metadata ->> %s IS NOT NULL"):
        found = session.execute(f"SELECT external_id FROM events WHERE {condition}", [text]).fetchall()
        assert found == [(text,)], condition
    plan = str(session.execute("EXPLAIN SELECT * FROM events WHERE type = %s", [text]).fetchall())
    assert "POST /events/list" in plan
    assert session.execute("DELETE FROM events WHERE external_id = %s", [text]).rowcount == 1
    assert names(cdf, "events") == ["other"]


@EACH
def test_names_of_views(session, scratch, cdf, text):
    """Space, view and version go into a body, and are not there."""
    table = scratch.table("pump", "space text, external_id text", "view", space=text, external_id=text, version=text)
    with pytest.raises(psycopg.Error) as caught:
        session.execute(f"SELECT * FROM {table}")
    assert caught.value.sqlstate in ("HV00J", "22023"), told(caught.value)
    asked = [entry for entry in cdf.admin_get("requests", bodies=1)["items"] if entry["project"]]
    assert [entry["path"].split("?")[0] for entry in asked] == ["/models/views/byids"]
    assert asked[0]["body"]["items"] == [{"space": text, "externalId": text, "version": text}]


@EACH
def test_columns_by_name(session, scratch, cdf, text):
    """The option `name` is the column's name in CDF."""
    name = sql.Literal(text).as_string(None)
    table = scratch.table("t", f"key text, v text OPTIONS (name {name})", "raw_rows", database="d", table="t")
    session.execute(f"INSERT INTO {table} VALUES ('k', 'v')")
    assert stored(cdf, "raw", "k")["columns"] == {text: "v"}
    assert session.execute(f"SELECT v FROM {table}").fetchall() == [("v",)]


# Options.


@pytest.mark.parametrize("option", ["base_url", "proxy", "ca_file", "on_conflict"])
def test_options_of_servers_that_cannot_be(site, option):
    for text in HOSTILE:
        connection = site.superuser()
        options = {"base_url": "https://cdf.example.com"} | {option: text}
        with pytest.raises(psycopg.Error) as caught:
            connection.execute(
                sql.SQL("CREATE SERVER s FOREIGN DATA WRAPPER cdf_fdw OPTIONS ({})").format(literal(connection, **options))
            )
        assert caught.value.sqlstate == "HV00J" and f'"{option}"' in told(caught.value)
        assert connection.execute("SELECT count(*) FROM pg_foreign_server").fetchone() == (0,)


def test_paths_of_urls_stay_paths(site):
    """What stands in the path of base_url goes before CDF's own, or the URL is refused; the host stays what it is."""
    for text in HOSTILE:
        connection = site.superuser()
        with connection:
            try:
                site.register(connection, username="etl", base_url=f"{site.emulator.url}/{quote(text, safe='')}")
            except psycopg.Error as error:
                assert error.sqlstate in ("08001", "08006", "HV00J"), told(error)
            for url in (f"https://cdf.example.com{text}", f"https://{text}/", f"https://user:{text}@cdf.example.com"):
                with pytest.raises(psycopg.Error) as caught:
                    connection.execute("SET cdf_fdw.max_retries = 0")
                    site.register(connection, username="etl", token_url=url, base_url="http://127.0.0.1:1")
                assert caught.value.sqlstate in ("HV00J", "08001"), (url, told(caught.value))
            assert connection.execute("SELECT count(*) FROM cdf_credentials").fetchone() == (0,)


# Over HTTP.


def test_bodies_and_headers_of_the_gateway(http):  # noqa: F811
    for text in HOSTILE:
        site = http.site
        client = admits(site.emulator, client_id=text, client_secret=f"{text}~", projects=[text])
        http.token = token_of(site.emulator, *client.values())
        user = http.create(auth=client, project=text, schema=text)
        assert user["schema"] == text
        with http.connect(user) as connection:
            connection.execute("""INSERT INTO events ("externalId") VALUES ('e')""")
        assert names(site.emulator, "events", project=text) == ["e"]
        users = f"/api/v1/projects/{quote(text, safe='')}/postgresgateway"
        assert [item["username"] for item in http.get(users).json()["items"]] == [user["username"]]
        header = text.encode().decode("latin-1")
        for name in ("X-Request-Id", "Content-Type", "Cookie", "Forwarded"):
            if header.strip() == header and not set(header) & set("\r\n"):
                answer = http.get(users, headers={name: header})
                assert answer.status_code in (200, 400) and (text not in answer.headers.get("x-request-id", "") or text == " ")
        assert all(line.startswith("{") and json.loads(line) for line in http.log().splitlines())
        refused(http.post(f"{users}/delete", {"items": [{"username": f"{text}!"}]}), 400)
        assert http.post(f"{users}/delete", {"items": [{"username": user["username"]}]}).status_code == 200
