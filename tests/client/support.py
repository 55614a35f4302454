"""What the tests of this folder share.

Looking at CDF: `dump`, `stored`, `names`, `requests`, `keys_sent`, `series`, `points`, `checksum`. Expecting an error:
`refused`. What conftest.py makes fixtures of: `Scratch` (a schema for tables of the test's own) and `Api` (CDF's own API,
for what a test needs to find there).
"""

from __future__ import annotations

import json
from array import array
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import datetime, timezone
from urllib.parse import quote

import psycopg
import pytest
import requests as http
from psycopg import sql

MASK = (1 << 64) - 1


# ---- looking at CDF ----


def dump(cdf, resource: str, **selection) -> list[dict]:
    """Everything that CDF holds of a resource: assets, events, timeseries, datasets, labels, raw or datapoints."""
    return cdf.admin_get("dump", resource=resource, **selection)["items"]


def stored(cdf, resource: str, external_id: str, **selection) -> dict:
    """The one item with this external id (RAW: this key)."""
    items = dump(cdf, resource, external_id=external_id, **selection)
    assert len(items) == 1, f"{len(items)} of {resource} are called {external_id!r}"
    return items[0]


def names(cdf, resource: str, **selection) -> list[str]:
    """The external ids (RAW: keys) that CDF holds, in order."""
    return sorted(item.get("key") or item.get("externalId") for item in dump(cdf, resource, **selection))


def columns(cdf, key: str) -> dict:
    """The columns of the one RAW row with this key."""
    return stored(cdf, "raw", key)["columns"]


def requests(cdf, path: str | None = None) -> list[dict]:
    """The extension's requests to a path (without its query), oldest first, or all but those for tokens."""
    entries = cdf.admin_get("requests", bodies=1)["items"]
    entries = [entry for entry in entries if entry["project"] and entry["user_agent"].startswith("cdf_fdw")]
    return [entry for entry in entries if path is None or entry["path"].split("?")[0] == path]


def paths(cdf) -> list[str]:
    """The paths of all requests of the extension, in the order in which they were answered."""
    return [entry["path"].split("?")[0] for entry in requests(cdf)]


def keys_sent(entry: dict) -> list:
    """The key of each item of a request: external id, RAW key or id. Bodies up to 64 KiB are kept."""
    assert "body" in entry, f"the body of {entry['path']} was not kept: {entry['decoded_bytes']} bytes"
    return [item.get("externalId") or item.get("key") or item.get("id") for item in entry["body"]["items"]]


def assert_each_key_once(entries: Iterable[dict]) -> None:
    for entry in entries:
        keys = keys_sent(entry)
        assert len(keys) == len(set(keys)), f"request {entry['seq']} has a key twice: {keys}"


def series(cdf, external_id: str) -> dict:
    """count, received, checksum, min_timestamp, max_timestamp of one series."""
    return cdf.admin_get("datapoints", external_id=external_id)


def points(cdf, external_id: str) -> list[tuple]:
    """(timestamp, value, status code) of one series, oldest first; None where the point has none."""
    return [
        (point["timestamp"], point.get("value"), point.get("status", {}).get("code"))
        for point in dump(cdf, "datapoints", external_id=external_id)
    ]


def checksum(timestamps: Iterable[int], values: Iterable[float]) -> str:
    """The emulator's checksum of numeric points."""
    bits = array("Q", array("d", values).tobytes())
    total = 0
    for timestamp, value in zip(timestamps, bits, strict=True):
        x = (timestamp * 0x9E3779B97F4A7C15 + value) * 0xBF58476D1CE4E5B9 & MASK
        total += x ^ x >> 32
    return f"{total & MASK:016x}"


def millis(text: str) -> int:
    """Milliseconds since 1970 of an ISO 8601 moment, in UTC unless it says otherwise."""
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=timezone.utc)
    return round(moment.timestamp() * 1000)


# ---- setting CDF up ----


class Api:
    """CDF's own API, for what a test needs to find there."""

    def __init__(self, cdf):
        self._url = f"{cdf.url}/api/v1/projects/{cdf.project}"
        self._http = http.Session()
        self._http.trust_env = False
        credentials = {
            "grant_type": "client_credentials",
            "client_id": cdf.client_id,
            "client_secret": cdf.client_secret,
            "scope": cdf.scope,
        }
        token = self._http.post(cdf.token_url, data=credentials, timeout=30).json()["access_token"]
        self._http.headers["authorization"] = f"Bearer {token}"

    def post(self, path: str, *items: dict, **more) -> list[dict]:
        answer = self._http.post(f"{self._url}{path}", json={"items": items, **more}, timeout=30)
        assert answer.ok, f"POST {path}: {answer.status_code} {answer.text}"
        return answer.json().get("items", [])

    def create(self, resource: str, *external_ids: str, **properties) -> list[int]:
        """Creates items (named like their external id, where the resource has names); their internal ids."""
        named = resource != "events"
        items = ({"externalId": key} | ({"name": key} if named else {}) | properties for key in external_ids)
        made = self.post(f"/{resource}", *items)
        return [item.get("id") for item in made]

    def create_raw(self, database: str, table: str, **rows: dict) -> None:
        items = [{"key": key, "columns": columns} for key, columns in rows.items()]
        self.post(f"/raw/dbs/{quote(database)}/tables/{quote(table)}/rows?ensureParent=true", *items)

    def send(self, path: str, body: str) -> None:
        """POST of a body that is JSON already: Python would write numbers in its own way."""
        headers = {"content-type": "application/json"}
        answer = self._http.post(f"{self._url}{path}", data=body.encode(), headers=headers, timeout=30)
        assert answer.ok, f"POST {path}: {answer.status_code} {answer.text}"

    def write_raw(self, database: str, table: str, **rows: str) -> None:
        """As create_raw, of columns that are JSON already."""
        items = ",".join(f'{{"key":{json.dumps(key)},"columns":{columns}}}' for key, columns in rows.items())
        self.send(f"/raw/dbs/{quote(database)}/tables/{quote(table)}/rows?ensureParent=true", f'{{"items":[{items}]}}')

    def read_raw(self, database: str, table: str, key: str) -> str:
        """The answer for one RAW row, as it is."""
        path = f"/raw/dbs/{quote(database)}/tables/{quote(table)}/rows/{quote(key, safe='')}"
        answer = self._http.get(f"{self._url}{path}", timeout=30)
        assert answer.ok, f"GET {path}: {answer.status_code} {answer.text}"
        return answer.text


# ---- sessions and tables ----


class Scratch:
    """The schema `scratch`, which the superuser fills and the registered role may use."""

    def __init__(self, connection: psycopg.Connection, gateway):
        self._connection = connection
        self._gateway = gateway

    def execute(self, statement: str) -> psycopg.Cursor:
        """Runs SQL as the superuser; names without a schema are in `scratch`, then in the registered role's schema.

        The registered role may use what is created.
        """
        return self._connection.execute(statement)

    def view(self, name: str, query: str, owner: str | None = None) -> None:
        """Makes a view `scratch.<name>`, whose owner is the registered role unless another one is named."""
        self.execute(f'CREATE VIEW "{name}" AS {query}')
        self.execute(f'ALTER VIEW "{name}" OWNER TO "{owner or self._gateway.username}"')

    def table(self, name: str, definition: str, resource: str, **options: str) -> str:
        """Makes a foreign table `scratch.<name>`; `definition` is what stands in the parentheses."""
        options = {"resource": resource, **options}
        listed = sql.SQL(", ").join(
            sql.SQL("{} {}").format(sql.Identifier(key), sql.Literal(value)) for key, value in options.items()
        )
        statement = sql.SQL("CREATE FOREIGN TABLE {} ({}) SERVER cdf OPTIONS ({})").format(
            sql.Identifier(name), sql.SQL(definition), listed
        )
        self.execute(statement.as_string(self._connection))
        return f"scratch.{name}"


# ---- errors ----


def told(error: psycopg.Error) -> str:
    """All texts of an error that its user can see."""
    parts = (error.diag.message_primary, error.diag.message_detail, error.diag.message_hint)
    return "\n".join(part for part in parts if part)


@contextmanager
def refused(sqlstate: str, *texts: str) -> Iterator[pytest.ExceptionInfo]:
    """Expects an error of this class that has all the texts in it. Afterwards the block's name has it as `.value`."""
    with pytest.raises(psycopg.Error) as caught:
        yield caught
    error = caught.value
    assert error.sqlstate == sqlstate, f"{error.sqlstate} instead of {sqlstate}: {told(error)}"
    for text in texts:
        assert text in told(error), f"{text!r} is not in the error: {told(error)}"
