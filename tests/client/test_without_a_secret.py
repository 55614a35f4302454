"""Tokens without a client secret in the form: from an assertion, with a Basic header, and from CDF sessions."""

from __future__ import annotations

import base64
import json
import os
from contextlib import contextmanager

import pytest
from psycopg import sql
from sites import make_registrar
from support import names, refused, requests

CLIENT = "pod"


def jwt(number: int) -> str:
    def part(value: dict) -> str:
        return base64.urlsafe_b64encode(json.dumps(value).encode()).decode().rstrip("=")

    return f"{part({'alg': 'RS256'})}.{part({'sub': 'system:serviceaccount:x', 'jti': number})}.c2lnbmF0dXJl"


@contextmanager
def loading(site):
    """A new session of the registered role, with a password of its own."""
    with site.superuser() as connection:
        (password,) = connection.execute("SELECT cdf_reset_password('etl')").fetchone()
    with site.role("etl", password) as session:
        yield session


def load(session, key: str) -> None:
    session.execute("INSERT INTO events (external_id) VALUES (%s)", [key])


def token_row(connection) -> tuple:
    return connection.execute("SELECT * FROM cdf_check_credentials('etl') LIMIT 1").fetchone()


@pytest.fixture
def admin(site):
    """The superuser's connection; the role etl is registered."""
    with site.superuser() as connection:
        site.register(connection, username="etl")
        yield connection


# Assertions.


@pytest.fixture
def assertion(site, readable):
    """A file with an assertion; writing another one has the identity provider take that one only."""
    path = readable / "token"

    def write(number: int) -> None:
        client = {"client_id": CLIENT, "client_assertion": jwt(number)}
        site.emulator.admin_post("clients", client)
        path.write_text(jwt(number) + "\n")
        os.chown(path, os.stat(site.cluster.data_dir).st_uid, -1)

    write(1)
    write.path = path
    return write


def test_an_assertion_takes_the_place_of_a_secret(site, admin, assertion):
    admin.execute(
        sql.SQL(
            "ALTER USER MAPPING FOR etl SERVER cdf"
            " OPTIONS (DROP client_secret, ADD client_assertion_file {}, SET client_id {})"
        ).format(sql.Literal(str(assertion.path)), sql.Literal(CLIENT))
    )
    with loading(site) as session:
        load(session, "one")
        # The platform renews the file, and the old one is worth nothing any more.
        assertion(2)
        site.emulator.admin_post("revoke_tokens")
        load(session, "two")
        assert token_row(admin)[:4] == ("token", CLIENT, None, True)
        # What is in the file is no assertion: an error that shows nothing of it.
        assertion.path.write_text("geheim")
        site.emulator.admin_post("revoke_tokens")
        with refused("28000", "client_assertion_file", "no signed JSON Web Token") as told:
            load(session, "three")
        assert "geheim" not in str(told.value)
        row = token_row(admin)
        assert not row[3] and "no signed JSON Web Token" in row[4] and "geheim" not in row[4]
        assertion.path.unlink()
        with refused("28000", "No such file or directory"):
            load(session, "three")
        # One that the identity provider does not take.
        assertion.path.write_text(jwt(3))
        with refused("28000", "invalid_client") as told:
            load(session, "three")
        assert jwt(3) not in str(told.value)
    assert names(site.emulator, "events") == ["one", "two"]
    # A secret takes the place of the assertion.
    values = [site.emulator.client_secret, site.emulator.client_id]
    admin.execute("SELECT cdf_update_credentials('etl', client_secret => %s, client_id => %s)", values)
    assert token_row(admin)[:4] == ("token", "test-client", None, True)
    stored = admin.execute("SELECT umoptions::text FROM pg_user_mappings WHERE usename = 'etl'").fetchone()[0]
    assert "client_assertion_file" not in stored


def test_only_superusers_name_files(site, admin, assertion):
    make_registrar(site)
    with site.role("registrar") as connection:
        for server in ("ca_file", "client_assertion_file"):
            with refused("42501" if server == "ca_file" else "HV00D", server):
                connection.execute(
                    f"CREATE SERVER mine FOREIGN DATA WRAPPER cdf_fdw OPTIONS (base_url '{site.emulator.url}', {server} '/etc/x')"
                )
        connection.execute(f"CREATE SERVER mine FOREIGN DATA WRAPPER cdf_fdw OPTIONS (base_url '{site.emulator.url}')")
        with refused("42501", "client_assertion_file", "superuser"):
            connection.execute(
                f"CREATE USER MAPPING FOR registrar SERVER mine OPTIONS (project 'p', token_url '{site.emulator.token_url}',"
                f" client_id '{CLIENT}', client_assertion_file '{assertion.path}')"
            )
    # Where the platform's assertion is sent is for superusers as well.
    admin.execute(
        f"CREATE USER MAPPING FOR registrar SERVER mine OPTIONS (project 'p', token_url '{site.emulator.token_url}',"
        f" client_id '{CLIENT}', client_assertion_file '{assertion.path}')"
    )
    with site.role("registrar") as connection, refused("42501"):
        connection.execute("ALTER USER MAPPING FOR registrar SERVER mine OPTIONS (SET token_url 'https://m.example.com')")


# The Basic header.


def test_the_secret_may_be_told_in_the_header(site, admin):
    secret = "a:b c+d%ü/&="
    for way in ("basic", "post"):
        site.emulator.admin_post("clients", {"client_id": f"id:{way}", "client_secret": secret, "token_auth": way})
    admin.execute(
        sql.SQL(
            "ALTER USER MAPPING FOR etl SERVER cdf"
            " OPTIONS (SET client_id 'id:basic', SET client_secret {}, ADD token_auth 'basic')"
        ).format(sql.Literal(secret))
    )
    with loading(site) as session:
        load(session, "basic")
        # The same secret, and where it is told, stay with other parts of the credentials.
        admin.execute("SELECT cdf_update_credentials('etl', scope => %s)", [site.emulator.scope])
        load(session, "updated")
        with refused("28000", "invalid_client"):
            admin.execute("SELECT cdf_update_credentials('etl', client_id => 'id:post')")
        admin.execute("ALTER USER MAPPING FOR etl SERVER cdf OPTIONS (SET client_id 'id:post')")
        with refused("28000", "invalid_client"):
            load(session, "x")
        admin.execute("ALTER USER MAPPING FOR etl SERVER cdf OPTIONS (SET token_auth 'post')")
        load(session, "post")
    assert names(site.emulator, "events") == ["basic", "post", "updated"]


# Sessions of CDF.


@pytest.fixture
def bound(site, api):
    """Id and key of a session, as whoever binds it gets them."""
    (made,) = api.post("/sessions", {"tokenExchange": True})
    assert made["status"] == "READY"
    answer = api._http.post(f"{api._url}/sessions/token", json={"nonce": made["nonce"]}, timeout=30)
    assert answer.ok, answer.text
    return answer.json()["id"], answer.json()["sessionKey"]


def map_session(connection, bound, role="etl") -> None:
    session_id, key = bound
    connection.execute(f"DROP USER MAPPING IF EXISTS FOR {role} SERVER cdf")
    connection.execute(
        f"CREATE USER MAPPING FOR {role} SERVER cdf"
        f" OPTIONS (project 'test-project', session_id '{session_id}', session_key '{key}')"
    )


def test_a_session_gets_tokens_by_its_key(site, admin, api, bound):
    with site.logged() as log:
        admin.execute("SET log_statement = 'all'")
        map_session(admin, bound)
        admin.execute("RESET log_statement")
    assert "CREATE USER MAPPING" in log[0] and bound[1] not in log[0]
    site.emulator.admin_delete("requests")
    with loading(site) as session:
        load(session, "one")
        load(session, "two")
        asked = [entry["path"] for entry in site.emulator.admin_get("requests")["items"]]
        assert asked.count("/sessions/token") == 1 and not any("oauth2" in path for path in asked)
        # A token that is refused is got anew.
        site.emulator.admin_post("revoke_tokens")
        load(session, "three")
        assert len(requests(site.emulator, "/sessions/token")) == 2
        shown = admin.execute("SELECT project, client_id, token_url, sealed FROM cdf_credentials").fetchone()
        assert shown == ("test-project", None, None, False)
        assert token_row(admin)[:4] == ("token", str(bound[0]), None, True)

        api.__init__(site.emulator)
        api.post("/sessions/revoke", {"id": bound[0]})
        site.emulator.admin_post("revoke_tokens")
        with refused("28000", f"session {bound[0]}", "not active", "session_key") as told:
            load(session, "four")
        assert bound[1] not in str(told.value)
        row = token_row(admin)
        assert row[:4] == ("token", str(bound[0]), None, False) and "not active" in row[4]
    assert names(site.emulator, "events") == ["one", "three", "two"]


def test_options_of_a_session_are_told_plainly(site, admin):
    admin.execute("DROP USER MAPPING FOR etl SERVER cdf")
    for options, words in (
        ("session_id 'abc', session_key 'k'", ('"session_id"', '"abc" is not a whole number above 0')),
        ("session_id '0', session_key 'k'", ("whole number above 0",)),
        ("session_id '7'", ('"session_key" is required beside "session_id"',)),
        ("session_key 'geheim'", ('"session_id" is required beside "session_key"',)),
    ):
        with refused("HV00J", *words) as told:
            admin.execute(f"CREATE USER MAPPING FOR etl SERVER cdf OPTIONS (project 'p', {options})")
        assert "geheim" not in str(told.value)


def test_a_wrong_key_or_project_is_told(site, admin, bound):
    for key, project in (("wrong", "test-project"), (bound[1], "other")):
        map_session(admin, (bound[0], key))
        admin.execute(f"ALTER USER MAPPING FOR etl SERVER cdf OPTIONS (SET project '{project}')")
        with loading(site) as session, refused("28000", "Session not found", "project"):
            load(session, "x")


def test_a_client_takes_the_place_of_a_session(site, admin, bound):
    map_session(admin, bound)
    with refused("HV00J", "token_url"):
        admin.execute("SELECT cdf_update_credentials('etl', client_secret => 'test-secret')")
    arguments = site.arguments()
    admin.execute(
        "SELECT cdf_update_credentials('etl', client_secret => %(client_secret)s, client_id => %(client_id)s,"
        " token_url => %(token_url)s, scope => %(scope)s)",
        arguments,
    )
    stored = admin.execute("SELECT umoptions::text FROM pg_user_mappings WHERE usename = 'etl'").fetchone()[0]
    assert "session" not in stored and "client_id" in stored


def test_keys_of_sessions_are_sealed(site, admin, bound, readable):
    path = readable / "keys"
    path.write_text("5a" * 32)
    path.chmod(0o600)
    os.chown(path, os.stat(site.cluster.data_dir).st_uid, -1)
    admin.execute(f"ALTER DATABASE {site.database} SET cdf_fdw.secret_key_file = '{path}'")
    map_session(admin, bound)
    with site.superuser() as connection:
        assert connection.execute("SELECT cdf_seal_secrets()").fetchone() == (1,)
        stored = connection.execute("SELECT umoptions::text FROM pg_user_mappings WHERE usename = 'etl'").fetchone()[0]
        assert "session_key=sealed:v1:" in stored and bound[1] not in stored
        assert connection.execute("SELECT sealed FROM cdf_credentials").fetchone() == (True,)
    with loading(site) as session:
        load(session, "one")
    path.unlink()
    with loading(site) as session, refused("28000", "session_key of role etl", "there is no such file"):
        load(session, "x")
