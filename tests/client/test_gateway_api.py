"""cdf-gateway-api: registration over HTTP, with version 1.0's bodies, with the official SDK, and against attackers."""

from __future__ import annotations

import gzip
import json
import os
import random
import socket
import subprocess
import time
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import psycopg
import pytest
import requests
from cognite.client import ClientConfig, CogniteClient
from cognite.client.credentials import Token
from cognite.client.data_classes import ClientCredentials
from cognite.client.data_classes import postgres_gateway as pg
from cognite.client.data_classes.data_modeling.ids import ViewId
from cognite.client.exceptions import CogniteAPIError, CogniteNotFoundError
from harness import TARGET
from sites import make_registrar
from support import dump
from test_views import create_view

NASTY = ["a'b", 'a"b', "a/b", "..", "a.b", "a%2Fb", "a%", "a\tb", "a\x01b", "😀" * 15, "x" * 60, "; DROP ROLE x --", "a b"]


def binary() -> Path:
    emulator = os.environ.get("CDF_EMULATOR")
    path = Path(emulator).parent / "cdf-gateway-api" if emulator else TARGET / "release" / "cdf-gateway-api"
    if not path.exists():
        pytest.fail(f"{path} is missing: run scripts/build.sh gateway-api")
    return path


@dataclass
class Api:
    """A running cdf-gateway-api and how to call it."""

    url: str
    site: object
    log_path: Path
    process: subprocess.Popen
    token: str = ""

    def call(self, method, path, body=None, token=None, **kwargs):
        headers = kwargs.pop("headers", {})
        if token != "":
            headers = {"Authorization": f"Bearer {token or self.token}"} | headers
        session = requests.Session()
        session.trust_env = False
        return session.request(method, self.url + path, json=body, headers=headers, timeout=60, **kwargs)

    def post(self, path, body=None, **kwargs):
        return self.call("POST", path, body, **kwargs)

    def get(self, path, **kwargs):
        return self.call("GET", path, **kwargs)

    def body(self, **changes):
        emulator = self.site.emulator
        auth = {
            "token_url": emulator.token_url,
            "client_id": emulator.client_id,
            "client_secret": emulator.client_secret,
            "scope": emulator.scope,
        }
        return {"auth": auth | changes.pop("auth", {}), "project": emulator.project} | changes

    def create(self, **changes) -> dict:
        answer = self.post("/create", self.body(**changes))
        assert answer.status_code == 200, answer.text
        return answer.json()

    def connect(self, user) -> psycopg.Connection:
        return psycopg.connect(
            host="127.0.0.1",
            port=self.site.cluster.port,
            dbname=user["database"],
            user=user["username"],
            password=user["password"],
            autocommit=True,
        )

    def log(self) -> str:
        return self.log_path.read_text()

    def sdk(self) -> CogniteClient:
        config = ClientConfig("test", self.site.emulator.project, Token(self.token), base_url=self.url)
        return CogniteClient(config)


def token_of(emulator, client_id=None, secret=None) -> str:
    form = {
        "grant_type": "client_credentials",
        "client_id": client_id or emulator.client_id,
        "client_secret": secret or emulator.client_secret,
        "scope": emulator.scope,
    }
    session = requests.Session()
    session.trust_env = False
    return session.post(emulator.token_url, data=form, timeout=30).json()["access_token"]


@contextmanager
def running(site, directory: Path, *options: str):
    port_file, log_path = directory / "port", directory / "log"
    port_file.unlink(missing_ok=True)
    database = f"postgresql://registrar:pw@127.0.0.1:{site.cluster.port}/{site.database}"
    with log_path.open("wb") as log:
        process = subprocess.Popen(
            [binary(), "--cdf-url", site.emulator.url, "--host", "gateway.example", "--port-file", port_file]
            + ([] if "--listen" in options else ["--listen", "127.0.0.1:0"])
            + list(options),
            stdin=subprocess.DEVNULL,
            stderr=log,
            env=os.environ | {"CDF_GATEWAY_DATABASE": database},
        )
    try:
        deadline = time.monotonic() + 20
        while not port_file.exists():
            assert process.poll() is None and time.monotonic() < deadline, log_path.read_text()
            time.sleep(0.02)
        scheme = "https" if "--tls-cert" in options else "http"
        api = Api(f"{scheme}://127.0.0.1:{port_file.read_text()}", site, log_path, process)
        api.token = token_of(site.emulator)
        yield api
    finally:
        process.terminate()
        process.wait(timeout=40)


@pytest.fixture
def http(site, tmp_path):
    make_registrar(site)
    with running(site, tmp_path, "--rate", "100000") as api:
        yield api


@pytest.fixture
def stranger(http) -> str:
    """The token of a client that has another project only."""
    client = {"client_id": "stranger", "client_secret": "other", "projects": ["other-project"]}
    http.site.emulator.admin_post("clients", client)
    return token_of(http.site.emulator, "stranger", "other")


def refused(answer, *statuses: int) -> str:
    """The message of an error as CDF has them."""
    assert answer.status_code in statuses, (answer.status_code, answer.text)
    error = answer.json()["error"]
    assert error["code"] == answer.status_code and error["message"]
    return error["message"]


# As version 1.0 of the hosted gateway had it.


def test_a_user_is_created_and_loads(http):
    user = http.create()
    assert user["host"] == "gateway.example" and len(user["password"]) >= 32
    with http.connect(user) as connection:
        connection.execute("""INSERT INTO events ("externalId", type) VALUES ('e-1', 't')""")
        with pytest.raises(psycopg.Error):
            connection.execute("CREATE SCHEMA mine")
    assert [event["externalId"] for event in dump(http.site.emulator, "events")] == ["e-1"]
    log = http.log() + http.site.cluster.log()
    for secret in (user["password"], http.token):
        assert secret not in log
    assert '"path":"/create"' in http.log() and http.site.emulator.client_secret not in http.log()


def test_naming_and_schema_are_as_asked(http):
    user = http.create(schema="loads", naming="snake_case")
    assert user["schema"] == "loads"
    with http.connect(user) as connection:
        connection.execute("INSERT INTO loads.events (external_id) VALUES ('e-1')")
    refused(http.post("/create", http.body(naming="other")), 400)


def test_own_tables_live_and_die(http):
    user = http.create()
    path = f"/user/{user['username']}/tables"
    options = {"primary_key": "title", "database": "films", "table": "movies"}
    item = {"destination": "raw", "name": "movies", "columns": ["title", "year"], "options": options}
    made = http.post(path, {"items": [item]}).json()["items"][0]
    assert made == item | {"id": made["id"]}
    assert http.get(path).json()["items"] == [made]
    with http.connect(user) as connection:
        connection.execute("INSERT INTO movies (title, year) VALUES ('Alien', '1979')")
    update = {"name": {"set": "films"}, "columns": {"add": ["stars"]}}
    changed = http.post(f"{path}/update", {"items": [{"id": made["id"], "update": update}]}).json()["items"][0]
    assert (changed["name"], changed["columns"]) == ("films", ["title", "year", "stars"])
    with http.connect(user) as connection:
        connection.execute("INSERT INTO films (title, stars) VALUES ('Alien', '5')")
    refused(http.post(f"{path}/delete", {"items": [{"id": 1}]}), 400)
    assert http.post(f"{path}/delete", {"items": [{"id": made["id"]}]}).json() == {}
    assert http.get(path).json() == {"items": []}
    assert len(dump(http.site.emulator, "raw")) == 1


def test_columns_with_any_name(http):
    user = http.create()
    path = f"/user/{user['username']}/tables"
    for number, name in enumerate(NASTY):
        options = {"primary_key": "key", "database": "d", "table": "t"}
        answer = http.post(path, {"items": [{"name": name, "columns": [name, "key"], "options": options}]})
        assert answer.status_code == 200, (name, answer.text)
        made = answer.json()["items"][0]
        assert (made["name"], made["columns"]) == (name, [name, "key"])
        added, renamed = f"+{name}"[:60], f"{number}{name}"[:60]
        update = {"name": {"set": renamed}, "columns": {"add": [added]}}
        changed = http.post(f"{path}/update", {"items": [{"id": made["id"], "update": update}]})
        if len(renamed.encode()) > 63 or len(added.encode()) > 63:
            refused(changed, 400)
        else:
            assert changed.json()["items"][0]["columns"] == [name, "key", added]
    for name in ("", "x" * 61, "😀" * 16, "a\0b", 7, None, ["a"]):
        options = {"primary_key": "key", "database": "d", "table": "t"}
        refused(http.post(path, {"items": [{"name": name, "columns": ["a"], "options": options}]}), 400)


# As CDF's API has it.


def base(http) -> str:
    return f"/api/v1/projects/{http.site.emulator.project}/postgresgateway"


def test_the_official_sdk_manages_users_and_tables(http, api):
    user, second = http.create(), http.create()
    sdk = http.sdk()
    names = sorted([user["username"], second["username"]])
    assert sorted(item.username for item in sdk.postgres_gateway.users.list()) == names
    assert [item.username for item in sdk.postgres_gateway.users.list(limit=1)] == names[:1]
    assert [item.username for item in sdk.postgres_gateway.users(chunk_size=None)] == names
    assert sdk.postgres_gateway.users.retrieve(names[0]).created_time > 1_600_000_000_000
    with pytest.raises(CogniteNotFoundError):
        sdk.postgres_gateway.users.retrieve(["nobody"])
    assert len(sdk.postgres_gateway.users.retrieve(["nobody", names[0]], ignore_unknown_ids=True)) == 1

    tables, name = sdk.postgres_gateway.tables, user["username"]
    columns = [pg.Column("title", "TEXT"), pg.Column("year", "BIGINT"), pg.Column("seen", "TIMESTAMPTZ")]
    raw = pg.RawTableWrite("movies", pg.RawTableOptions("films", "movies", "title"), columns)
    made = tables.create(name, raw)
    assert made.as_write().dump() == raw.dump() and made.created_time
    create_view(api, "Pump", {"pressure": "float64"})
    view = tables.create(name, pg.ViewTableWrite("pumps", ViewId("sp", "Pump", None)))
    assert (view.tablename, view.options.external_id) == ("pumps", "Pump")
    assert [table.tablename for table in tables.list(name)] == ["movies", "pumps"]
    assert tables.retrieve(name, "pumps").options.space == "sp"
    everything = tables.list(name, include_built_ins="yes", limit=None)
    assert len(everything) > 10 and everything[0].tablename == "movies"
    with pytest.raises(CogniteAPIError) as twice:
        tables.create(name, raw)
    assert twice.value.code == 409 and twice.value.duplicated == [{"tablename": "movies"}]
    with pytest.raises(CogniteNotFoundError):
        tables.delete(name, ["nothing"])
    tables.delete(name, ["movies", "nothing"], ignore_unknown_ids=True)
    assert [table.tablename for table in tables.list(name)] == ["pumps"]
    with pytest.raises(CogniteAPIError) as built_in:
        tables.delete(name, "events")
    assert built_in.value.code == 400

    sdk.postgres_gateway.users.delete(name)
    with pytest.raises(CogniteNotFoundError):
        sdk.postgres_gateway.users.delete(name)
    sdk.postgres_gateway.users.delete(name, ignore_unknown_ids=True)
    with pytest.raises(psycopg.OperationalError):
        http.connect(user)


def nonce(http) -> str:
    client = ClientCredentials(http.site.emulator.client_id, http.site.emulator.client_secret)
    config = ClientConfig("test", http.site.emulator.project, Token(http.token), base_url=http.site.emulator.url)
    return CogniteClient(config).iam.sessions.create(client, session_type="CLIENT_CREDENTIALS").nonce


def test_the_official_sdk_makes_a_user_from_a_nonce(http):
    users, given = http.sdk().postgres_gateway.users, nonce(http)
    made = users.create(pg.UserWrite(pg.SessionCredentials(given)))
    assert made.host == "gateway.example" and made.session_id and made.created_time
    login = {"database": http.site.database, "username": made.username, "password": made.password}
    with http.connect(login) as connection:
        connection.execute("""INSERT INTO events ("externalId") VALUES ('e-1')""")
        before = http.site.objects()
        with pytest.raises(CogniteAPIError) as again:
            users.create(pg.UserWrite(pg.SessionCredentials(given)))
        assert again.value.code == 400 and http.site.objects() == before
        update = pg.UserUpdate(made.username).credentials.set(pg.SessionCredentials(nonce(http)))
        changed = users.update(update)
        assert changed.session_id not in (None, made.session_id)
        assert changed.last_updated_time > made.created_time
        connection.execute("""INSERT INTO events ("externalId") VALUES ('e-2')""")
    assert len(dump(http.site.emulator, "events")) == 2
    with http.site.superuser() as connection:
        (options,) = connection.execute("SELECT umoptions FROM pg_user_mappings").fetchone()
    names = {option.split("=")[0] for option in options}
    assert names == {"project", "session_id", "session_key"}
    (key,) = [option.split("=", 1)[1] for option in options if option.startswith("session_key")]
    for secret in (key, given, made.password):
        assert secret not in http.log() + http.site.cluster.log()


def test_a_session_takes_the_right_to_register(http):
    with http.site.superuser() as connection:
        connection.execute("CREATE ROLE other LOGIN CREATEROLE PASSWORD 'pw'")
    with http.site.role("other") as connection, pytest.raises(psycopg.errors.InsufficientPrivilege):
        connection.execute("SELECT * FROM cdf_register_session('1', 'k', 'p', 'http://127.0.0.1:1')")


def test_views_are_nodes_for_others(http, api):
    user = http.create()
    create_view(api, "Pump", {"pressure": "float64"})
    path = f"{base(http)}/tables/{user['username']}"
    item = {"type": "view", "tablename": "pumps", "options": {"space": "sp", "externalId": "Pump", "version": None}}
    made = http.post(path, {"items": [item]}).json()["items"][0]
    assert made["type"] == "view" and made["createdTime"]
    assert http.get(path).json()["items"][0]["type"] == "nodes"


def test_lists_have_pages(http):
    users = sorted(http.create()["username"] for _ in range(3))
    first = http.get(f"{base(http)}?limit=2").json()
    rest = http.get(f"{base(http)}?limit=2&cursor={first['nextCursor']}").json()
    assert [item["username"] for item in first["items"] + rest["items"]] == users and "nextCursor" not in rest
    same = http.post(f"{base(http)}/list", {"limit": 2}).json()
    assert same == first
    path, seen, cursor = f"{base(http)}/tables/{users[0]}", [], ""
    while cursor is not None:
        page = http.get(f"{path}?includeBuiltIns=yes&limit=5" + (f"&cursor={cursor}" if cursor else "")).json()
        seen += [item["tablename"] for item in page["items"]]
        cursor = page.get("nextCursor")
    assert seen == sorted(set(seen)) and {"assets", "events", "raw_rows"} <= set(seen)
    for query in ("limit=0", "limit=x", "cursor=x", "includeBuiltIns=perhaps", "other=1"):
        refused(http.get(f"{path}?{query}"), 400)


# Attacks and mistakes.


def test_no_token_is_no_entry(http):
    user = http.create()
    paths = [("POST", "/create"), ("GET", base(http)), ("GET", f"/user/{user['username']}/tables")]
    paths += [("POST", f"{base(http)}/{what}") for what in ("list", "byids", "update", "delete")]
    paths += [("POST", f"{base(http)}/tables/{user['username']}{what}") for what in ("", "/byids", "/delete")]
    paths += [("POST", f"/user/{user['username']}/tables{what}") for what in ("", "/update", "/delete")]
    body = {"items": [{"username": user["username"]}]}
    for method, path in paths:
        assert refused(http.call(method, path, body, token=""), 401) == "invalid token"
        for token in ("wrong", "a b", "x" * 20_000, "ü".encode().decode("latin-1")):
            refused(http.call(method, path, body, token=token), 401)
        refused(http.call(method, path, body, token="", headers={"Authorization": "Basic eDp5"}), 401)
    assert http.get(base(http)).json()["items"][0]["username"] == user["username"]


def test_another_projects_user_is_nobody(http, stranger):
    user, before = http.create(), http.site.objects()
    name, project = user["username"], "/api/v1/projects/other-project/postgresgateway"
    unknown = refused(http.get("/user/nobody/tables", token=stranger), 404)
    assert refused(http.get(f"/user/{name}/tables", token=stranger), 404) == unknown
    item = {"name": "t", "columns": ["a"], "options": {"database": "d", "table": "t"}}
    refused(http.post(f"/user/{name}/tables", {"items": [item]}, token=stranger), 404)
    assert http.get(project, token=stranger).json() == {"items": []}
    for what in ("byids", "delete"):
        refused(http.post(f"{project}/{what}", {"items": [{"username": name}]}, token=stranger), 400)
        refused(http.post(f"{base(http)}/{what}", {"items": [{"username": name}]}, token=stranger), 403)
    update = {"items": [{"username": name, "update": {"credentials": {"set": {"nonce": "n"}}}}]}
    refused(http.post(f"{project}/update", update, token=stranger), 400)
    raw = {"type": "raw_rows", "tablename": "t", "options": {"database": "d", "table": "t"}, "columns": {}}
    for path in (f"{project}/tables/{name}", f"{base(http)}/tables/{name}"):
        refused(http.get(path, token=stranger), 404, 403)
        refused(http.post(path, {"items": [raw]}, token=stranger), 404, 403)
        refused(http.post(f"{path}/delete", {"items": [{"tablename": "events"}]}, token=stranger), 404, 403)
    refused(http.post("/create", http.body(), token=stranger), 403)
    assert http.site.objects() == before


def test_no_tables_in_the_schema_of_another_project(http, stranger):
    user, before = http.create(), http.site.objects()
    auth = {"client_id": "stranger", "client_secret": "other"}
    for schema in (user["schema"], "pg_catalog", "information_schema", "public"):
        body = http.body(auth=auth, project="other-project", schema=schema)
        refused(http.post("/create", body, token=stranger), 400, 403, 409)
    assert http.site.objects() == before
    made = http.post("/create", http.body(auth=auth, project="other-project"), token=stranger).json()
    assert made["schema"] != user["schema"]


def test_users_of_others_are_not_its_own(http):
    with http.site.superuser() as connection:
        http.site.register(connection, username="boss_etl", server="boss")
    for name in ("boss_etl", "registrar", "postgres", *NASTY):
        refused(http.get(f"/user/{quote(name, safe='')}/tables"), 404, 400)
        refused(http.get(f"{base(http)}/tables/{quote(name, safe='')}"), 404, 400)
        refused(http.post(f"{base(http)}/delete", {"items": [{"username": name}]}), 400)
    with http.site.superuser() as connection:
        assert connection.execute("SELECT count(*) FROM cdf_credentials").fetchone() == (1,)


def test_the_server_calls_no_arbitrary_address(http, tmp_path):
    with socket.socket() as trap:
        trap.bind(("127.0.0.1", 0))
        trap.listen()
        trap.settimeout(0.2)
        target = f"http://127.0.0.1:{trap.getsockname()[1]}"
        # The address of CDF is the gateway's, whatever the scope is.
        http.create(auth={"scope": f"{target}/.default"})
        for path in ("", "/list"):
            refused(http.post("/create", http.body(base_url=target) | {"path": path}), 400)
        options = ("--token-host", "login.example")
        with running(http.site, tmp_path, *options) as strict:
            before = http.site.objects()
            for url in (target, "http://169.254.169.254/t", f"https://login.example@127.0.0.1:{trap.getsockname()[1]}/"):
                message = refused(strict.post("/create", strict.body(auth={"token_url": url})), 400)
                assert "token_url" in message and "127.0.0.1" not in message
            assert http.site.objects() == before
        with pytest.raises(TimeoutError):
            trap.accept()


def test_wrong_credentials_make_nothing(http):
    before = http.site.objects()
    secret = "hush-hush-41"
    message = refused(http.post("/create", http.body(auth={"client_secret": secret})), 400)
    assert secret not in message and "invalid_client" in message
    for body in ({}, {"auth": {}}, {"auth": "hush-hush-41"}, http.body(auth={"client_secret": ["hush-hush-41"]})):
        assert secret not in refused(http.post("/create", body), 400)
    assert http.site.objects() == before
    assert secret not in http.log() + http.site.cluster.log()


def test_bodies_are_bounded(http):
    long = json.dumps({"auth": "x" * (2 << 20)})
    refused(http.call("POST", "/create", data=long), 413)
    packed = {"Content-Encoding": "gzip"}
    refused(http.call("POST", "/create", data=gzip.compress(long.encode()), headers=packed), 413)
    refused(http.call("POST", "/create", data=b"no gzip", headers=packed), 400)
    refused(http.call("POST", "/create", data=b"{}", headers={"Content-Encoding": "br"}), 415)
    answer = http.call("POST", "/create", data=gzip.compress(json.dumps(http.body()).encode()), headers=packed)
    assert answer.status_code == 200
    refused(http.get("/create"), 405)
    refused(http.get("/nothing"), 404)
    refused(http.get("/user/%ff/tables"), 400)


def test_a_slow_body_is_given_up(http):
    port = int(http.url.rsplit(":", 1)[1])
    with socket.create_connection(("127.0.0.1", port)) as slow:
        head = f"POST /create HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {http.token}\r\nContent-Length: 100\r\n\r\n{{"
        slow.sendall(head.encode())
        assert http.get("/healthz", token="").json() == {"status": "ok"}
        slow.settimeout(60)
        assert b"408" in slow.recv(100)


def test_random_bodies_are_answered(http):
    user, source = http.create(), random.Random(15)
    paths = ["/create", f"{base(http)}", f"{base(http)}/byids", f"{base(http)}/tables/{user['username']}"]
    paths += [f"/user/{user['username']}/tables{what}" for what in ("", "/update", "/delete")]
    words = ["items", "auth", "update", "name", "set", "columns", "options", "type", "raw_rows", "view", "tablename", *NASTY]

    def value(depth):
        kind = source.randrange(8 if depth else 5)
        if kind >= 6:
            return {source.choice(words): value(depth - 1) for _ in range(source.randrange(4))}
        if kind == 5:
            return [value(depth - 1) for _ in range(source.randrange(3))]
        return [None, True, source.randrange(-(2**70), 2**70), source.choice(words), source.random()][kind]

    before = http.site.objects()
    for _ in range(300):
        body = json.dumps(value(6)).encode()
        if source.random() < 0.3:
            body = bytes(byte if source.random() < 0.98 else source.randrange(256) for byte in body)
        refused(http.call("POST", source.choice(paths), data=body), 400)
    assert http.site.objects() == before and http.process.poll() is None


def test_many_requests_are_slowed(http, tmp_path):
    with running(http.site, tmp_path, "--rate", "1") as strict:
        statuses = [strict.get("/openapi.json", token="").status_code for _ in range(20)]
    assert statuses.count(429) >= 10 and statuses[:4] == [200] * 4


def test_it_describes_itself(http):
    document = http.get("/openapi.json", token="").json()
    assert document["openapi"].startswith("3.1") and "/create" in document["paths"]
    for path, operations in document["paths"].items():
        for method in set(operations) - {"parameters"}:
            filled = path.replace("{project}", "p").replace("{username}", "u")
            assert http.call(method.upper(), filled, token="").status_code in (200, 401), path


# How it is started.


def refuses_to_start(*options: str) -> str:
    base = ["--database", "postgresql://a:geheim@127.0.0.1/x", "--cdf-url", "http://127.0.0.1:1"]
    result = subprocess.run([binary(), *base, *options], capture_output=True, text=True, timeout=20)
    assert result.returncode != 0 and "geheim" not in result.stderr
    return result.stderr


def test_others_reach_it_over_tls_only(http, tmp_path):
    assert "--tls-cert" in refuses_to_start("--listen", "0.0.0.0:0")
    key, certificate = tmp_path / "key.pem", tmp_path / "cert.pem"
    make = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", "-subj", "/CN=localhost"]
    make += ["-addext", "subjectAltName=IP:127.0.0.1", "-keyout", key, "-out", certificate]
    subprocess.run(make, check=True, capture_output=True)
    options = ("--listen", "0.0.0.0:0", "--tls-cert", str(certificate), "--tls-key", str(key))
    with running(http.site, tmp_path, "--token-host", "login.example", *options) as api:
        assert api.get("/healthz", token="", verify=str(certificate)).json() == {"status": "ok"}
        with pytest.raises(requests.exceptions.RequestException):
            requests.get(api.url.replace("https", "http") + "/healthz", timeout=10)
    assert "--tls-key" in refuses_to_start("--listen", "0.0.0.0:0", "--tls-cert", str(certificate))
    assert "--tls-cert" in refuses_to_start("--tls-cert", str(key), "--tls-key", str(key))


def test_it_ends_when_told(site, tmp_path):
    make_registrar(site)
    with running(site, tmp_path) as api:
        assert api.get("/healthz", token="").status_code == 200
        api.process.terminate()
        assert api.process.wait(timeout=20) == 0
