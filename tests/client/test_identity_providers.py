"""What each identity provider demands of a token request: its path, where the secret is, and what names the resource."""

from __future__ import annotations

import base64
import json
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote_plus

import pytest
import requests
from psycopg import sql
from support import names, refused

CLIENT = ("a client:1", "s e+c/r=e&t")


def post(form: dict, header: str | None) -> bool:
    return header is None and (form.get("client_id"), form.get("client_secret")) == CLIENT


def basic(form: dict, header: str | None) -> bool:
    if header is None or "client_secret" in form:
        return False
    name, secret = base64.b64decode(header.removeprefix("Basic ")).decode().split(":", 1)
    return (unquote_plus(name), unquote_plus(secret)) == CLIENT


# Path, what is demanded besides the client, and how it may tell its secret.
PROVIDERS = {
    "Entra ID": ("/11111111-2222/oauth2/v2.0/token", {"scope": "https://x.cognitedata.com/.default"}, (post,)),
    "Keycloak": ("/realms/cdf%20plant/protocol/openid-connect/token", {}, (post, basic)),
    "Auth0": ("/oauth/token", {"audience": "https://x.cognitedata.com"}, (post, basic)),
    "Cognito": ("/oauth2/token", {"scope": "cdf/read cdf/write"}, (basic, post)),
    "Cognito, basic only": ("/oauth2/token", {"scope": "cdf/read"}, (basic,)),
}


class Provider:
    """An identity provider that is as strict as the real one, and gives tokens of the emulator."""

    def __init__(self, emulator, path: str, demanded: dict, ways: tuple):
        self.asked: list[dict] = []
        provider = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"])).decode()
                form = {name: value for name, (value,) in parse_qs(body, strict_parsing=True).items()}
                header = self.headers.get("authorization")
                provider.asked.append(form | {"basic": header is not None})
                right = (
                    self.path == path
                    and self.headers["content-type"] == "application/x-www-form-urlencoded"
                    and form.pop("grant_type", None) == "client_credentials"
                    and any(way(form, header) for way in ways)
                    and {name: value for name, value in form.items() if not name.startswith("client_")} == demanded
                )
                if right:
                    answer = requests.Session()
                    answer.trust_env = False
                    own = {"grant_type": "client_credentials", "client_id": emulator.client_id, "scope": emulator.scope}
                    token = answer.post(emulator.token_url, data=own | {"client_secret": emulator.client_secret}, timeout=30).json()
                    status, text = 200, json.dumps({"access_token": token["access_token"], "expires_in": 300, "token_type": "bearer"})
                else:
                    status, text = 401, '{"error": "invalid_client"}'
                self.send_response(status)
                self.send_header("content-type", "application/json;charset=UTF-8")
                self.send_header("content-length", str(len(text)))
                self.end_headers()
                self.wfile.write(text.encode())

            def log_message(self, *_) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}{path}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@contextmanager
def provider(emulator, name: str):
    running = Provider(emulator, *PROVIDERS[name])
    yield running
    running.close()


def mapped(connection, options: dict) -> None:
    listed = sql.SQL(", ").join(sql.SQL("{} {}").format(sql.Identifier(name), sql.Literal(value)) for name, value in options.items())
    connection.execute(sql.SQL("CREATE USER MAPPING FOR etl SERVER cdf OPTIONS ({})").format(listed))


@pytest.mark.parametrize("name", [name for name, (_, _, ways) in PROVIDERS.items() if post in ways])
def test_registration_gets_tokens_from(site, name):
    _, demanded, _ = PROVIDERS[name]
    with provider(site.emulator, name) as running, site.superuser() as connection:
        given = {"scope": None, "audience": None} | demanded
        given |= {"token_url": running.url, "client_id": CLIENT[0], "client_secret": CLIENT[1], "base_url": site.emulator.url}
        _, password, *_ = site.register(connection, username="etl", **given)
        with site.role("etl", password) as session:
            session.execute("INSERT INTO events (external_id) VALUES ('e')")
        assert names(site.emulator, "events") == ["e"]
        assert len(running.asked) == 2 and not any(asked["basic"] for asked in running.asked)
        # What it demands it has to be given.
        for option in demanded:
            with refused("28000", "invalid_client"):
                site.register(connection, username="other", **(given | {option: "else"}))


@pytest.mark.parametrize("name", [name for name, (_, _, ways) in PROVIDERS.items() if basic in ways])
def test_a_mapping_tells_the_secret_in_a_header_to(site, name):
    _, demanded, ways = PROVIDERS[name]
    with provider(site.emulator, name) as running, site.superuser() as connection:
        connection.execute("CREATE ROLE etl LOGIN PASSWORD 'pw'; CREATE SCHEMA etl AUTHORIZATION etl")
        connection.execute(f"CREATE SERVER cdf FOREIGN DATA WRAPPER cdf_fdw OPTIONS (base_url '{site.emulator.url}')")
        mapped(connection, demanded | {
            "project": site.emulator.project, "token_url": running.url, "client_id": CLIENT[0], "client_secret": CLIENT[1], "token_auth": "basic",
        })  # fmt: skip
        connection.execute("IMPORT FOREIGN SCHEMA cdf LIMIT TO (events) FROM SERVER cdf INTO etl; GRANT ALL ON etl.events TO etl")
        with site.role("etl") as session:
            session.execute("INSERT INTO etl.events (external_id) VALUES ('e')")
        assert names(site.emulator, "events") == ["e"]
        assert [asked["basic"] for asked in running.asked] == [True]
        if post not in ways:
            given = {"audience": None} | demanded | {"token_url": running.url, "client_id": CLIENT[0], "client_secret": CLIENT[1]}
            with refused("28000", "invalid_client"):
                site.register(connection, username="other", base_url=site.emulator.url, **given)
