"""Random requests of every operation that the emulator has, valid and broken, put straight to it.

Whatever is asked: no 5xx (but 501 for what is not emulated), always an x-request-id, errors in CDF's shape; what is refused has
changed nothing, what is broken is refused; what is acknowledged is there; pages neither repeat nor lose, also while others write.

CDF_RANDOM_REQUESTS=20000 asks for more than in the suite, CDF_RANDOM_SEED repeats a run; the seed is printed.
"""

from __future__ import annotations

import json
import os
import random
import re
import threading
from urllib.parse import quote

import pytest
import requests
from table import NAMES, SPACES, Table

COUNT = int(os.environ.get("CDF_RANDOM_REQUESTS", 800))
SEED = int(os.environ.get("CDF_RANDOM_SEED", random.randrange(1 << 32)))
TABLE = Table()
DUMPED = ["assets", "events", "timeseries", "datasets", "labels", "sequences", "sequence_rows", "relationships", "files", "raw",
          "instances", "datapoints"]
SCHEMAS = ["/models/spaces?limit=1000", "/models/containers?limit=1000", "/models/views?limit=1000&allVersions=true", "/raw/dbs?limit=1000"]
CLASSIC = ["assets", "events", "timeseries", "datasets", "labels", "sequences", "relationships", "files"]


class Api:
    """CDF's API as a client sees it, each answer checked for what every answer must have."""

    def __init__(self, emulator):
        self.emulator = emulator
        self.http = requests.Session()
        self.http.trust_env = False
        form = {"grant_type": "client_credentials", "client_id": "test-client", "client_secret": "test-secret", "scope": emulator.scope}
        token = self.http.post(emulator.token_url, data=form, timeout=30).json()["access_token"]
        self.http.headers["Authorization"] = f"Bearer {token}"
        self.request_ids = set()

    def __call__(self, method, path, body=None, **parameters):
        url = f"{self.emulator.url}/api/v1/projects/test-project{path}"
        answer = self.http.request(method, url, json=body, params=parameters, timeout=30)
        what = f"{method} {answer.url} {json.dumps(body)[:2000]}: {answer.status_code} {answer.text[:500]}"
        assert answer.status_code < 500 or answer.status_code == 501 and "not emulated" in answer.text, what
        request_id = answer.headers.get("x-request-id", "")
        assert re.fullmatch(r"[0-9a-f-]{36}", request_id) and request_id not in self.request_ids, what
        self.request_ids.add(request_id)
        if answer.status_code >= 400:
            error = answer.json()["error"]
            assert error["code"] == answer.status_code and error["message"], what
            for identities in ("missing", "duplicated"):
                assert all(isinstance(one, dict) and one for one in error.get(identities, [])), what
        return answer

    def state(self):
        """All that the emulator holds, as a text."""
        state = {name: self.emulator.admin_get("dump", resource=name)["items"] for name in DUMPED}
        for path in SCHEMAS:
            answer = self("GET", path).json()
            assert "nextCursor" not in answer
            state[path] = answer["items"]
        for db in state["/raw/dbs?limit=1000"]:
            path = f"/raw/dbs/{quote(db['name'], safe='')}/tables?limit=1000"
            state[path] = self("GET", path).json()["items"]
        return json.dumps(state, sort_keys=True)

    def dump(self, name):
        return self.emulator.admin_get("dump", resource=name)["items"]


@pytest.fixture
def api(cdf):
    return Api(cdf)


def prepare(api):
    """Creates what the requests may refer to: spaces, a container and views of it, series, sequences."""
    made = lambda path, body: api("POST", path, body).raise_for_status()
    made("/models/spaces", {"items": [{"space": space} for space in SPACES]})
    properties = {"name": {"type": {"type": "text"}}, "size": {"type": {"type": "float64"}},
                  "k": {"type": {"type": "json"}}, "x": {"type": {"type": "direct"}}}
    container = {"type": "container", "space": "sp", "externalId": "Pump"}
    made("/models/containers", {"items": [{"space": "sp", "externalId": "Pump", "properties": properties, "usedFor": "all"}]})
    mapped = {name: {"container": container, "containerPropertyIdentifier": name} for name in properties}
    made("/models/views", {"items": [{"space": "sp", "externalId": "Pump", "version": version, "properties": mapped} for version in ("v1", "v2")]})
    made("/labels", {"items": [{"externalId": name, "name": name} for name in NAMES[:4]]})
    made("/datasets", {"items": [{"externalId": name} for name in NAMES[:2]]})
    made("/assets", {"items": [{"externalId": name, "name": name} for name in NAMES[:3]]})
    made("/timeseries", {"items": [{"externalId": "a"}, {"externalId": "b", "isString": True}]})
    made("/sequences", {"items": [{"externalId": "a", "columns": [{"externalId": "a"}, {"externalId": "b", "valueType": "STRING"}]}]})
    made("/raw/dbs/sp/tables/a/rows?ensureParent=true", {"items": [{"key": name, "columns": {"k": 1}} for name in NAMES]})


def url_of(operation, limits, chance, ids):
    """A path, with names for what stands in braces, and a query."""
    path = operation.split(" ")[1]
    names = {"dbName": SPACES, "tableName": ["a", "b"], "rowKey": NAMES, "id": [*map(str, ids), "0", "x"]}
    path = re.sub(r"\{(\w+)\}", lambda name: quote(chance.choice(names[name[1]]), safe=""), path)
    query = {}
    for name, schema in limits["query"].items():
        if chance.random() < 0.25:
            value = TABLE.value(schema, chance, ids, name)
            query[name] = value if isinstance(value, str) else json.dumps(value)
    return path, query


def check_acknowledged(api, operation, body, answer):
    """What an answer says is there, or is gone."""
    method, path = operation.split(" ")
    _, resource, *rest = path.split("/")
    answered = answer.json()
    if resource in CLASSIC and rest in ([], ["update"]) and method == "POST":
        items = [answered] if resource == "files" and not rest else answered["items"]
        assert len(items) == (1 if resource == "files" and not rest else len(body["items"]))
        stored = api.dump(resource)
        for item in items:
            key = "id" if "id" in item else "externalId"
            [found] = [one for one in stored if one[key] == item[key]]
            times = found.get("lastUpdatedTime"), found.get("createdTime")
            assert times == (item.get("lastUpdatedTime"), item.get("createdTime"))
        if not rest:
            sent = [body] if resource == "files" else body["items"]
            for item, given in zip(items, sent):
                for name in ("externalId", "name", "description", "source", "type", "sourceType"):
                    assert not isinstance(given.get(name), str) or name == "type" and resource == "timeseries" or item[name] == given[name]
    elif resource in CLASSIC and rest == ["delete"]:
        stored = api.dump(resource)
        for item in body["items"]:
            for key, value in item.items():
                assert all(one.get(key) != value for one in stored), (item, stored)
    elif operation == "POST /raw/dbs/{dbName}/tables/{tableName}/rows":
        stored = {row["key"] for row in api.dump("raw")}
        for key in (row["key"] for row in body["items"]):
            assert key in stored
    elif operation == "POST /models/instances":
        stored = {(one["instanceType"], one["space"], one["externalId"]): one["version"] for one in api.dump("instances")}
        gone = {(one["instanceType"], one["space"], one["externalId"]) for one in answered.get("deleted", [])}
        for item in answered["items"]:
            name = (item["instanceType"], item["space"], item["externalId"])
            # Edges go with their nodes.
            assert stored.get(name) == item["version"] or gone
        assert not gone & stored.keys()


@pytest.mark.timeout(120 + COUNT // 5)
def test_random_requests(api):
    print(f"CDF_RANDOM_SEED={SEED}")
    chance = random.Random(SEED)
    prepare(api)
    operations = sorted(TABLE.operations)
    counts = {"accepted": 0, "refused": 0, "broken": 0}
    accepted = set()
    state = api.state()
    for turn in range(COUNT):
        operation = operations[turn % len(operations)]
        limits = TABLE.operations[operation]
        method = operation.split(" ")[0]
        ids = [item["id"] for name in ("assets", "datasets", "timeseries") for item in json.loads(state)[name] if "id" in item][:12]
        path, query = url_of(operation, limits, chance, ids)
        body = broken = None
        if "body" in limits:
            body = TABLE.value(limits["body"], chance, ids, "body")
            assert TABLE.fits(limits["body"], body), (operation, body)
            broken = TABLE.broken(limits["body"], body, chance) if chance.random() < 0.4 else None
        answer = api(method, path, body if broken is None else broken, **query)
        if broken is not None:
            counts["broken"] += 1
            assert 400 <= answer.status_code < 500, (operation, query, broken, answer.text)
        reads = method == "GET" or path.endswith(("/list", "/byids", "/latest"))
        if answer.status_code >= 400 or reads:
            counts["refused"] += answer.status_code >= 400
            # The whole state is compared; a change by a read is noticed after one of the next requests.
            if not reads or turn % 5 == 0:
                assert api.state() == state, (operation, path, query, broken or body, answer.text)
        else:
            check_acknowledged(api, operation, body, answer)
            state = api.state()
        if answer.status_code < 400:
            counts["accepted"] += 1
            accepted.add(operation)
    print(counts, sorted(set(operations) - accepted))
    if COUNT >= 800:
        # Otherwise the run would have tested refusals only.
        assert len(accepted) > len(operations) * 0.5, sorted(set(operations) - accepted)
        assert min(counts.values()) > COUNT / 20, counts


def pages(api, method, path, body, limit, of=lambda item: item.get("externalId") or item.get("key")):
    """All that a list has, page by page."""
    found, cursor = [], None
    for _ in range(1000):
        more = {"limit": limit} | ({"cursor": cursor} if cursor else {})
        answer = api(method, path, {**body, **more} if method == "POST" else None, **(more if method == "GET" else {}))
        assert answer.status_code == 200, answer.text
        answer = answer.json()
        assert len(answer["items"]) <= limit
        found += [of(item) for item in answer["items"]]
        cursor = answer.get("nextCursor")
        if not cursor:
            return found
    raise AssertionError("the pages have no end")


def item_of(resource, name):
    return {
        "assets": {"externalId": name, "name": name},
        "labels": {"externalId": name, "name": name},
        "sequences": {"externalId": name, "columns": [{"externalId": "a"}]},
        "relationships": {"externalId": name, "sourceExternalId": "a", "sourceType": "asset", "targetExternalId": "b", "targetType": "file"},
        "instances": {"instanceType": "node", "space": "sp", "externalId": name},
        "raw": {"key": name, "columns": {"a": 1}},
    }.get(resource, {"externalId": name})


ROWS = "/raw/dbs/sp/tables/paged/rows"
PAGED = {
    **{name: (f"/{name}", "POST", f"/{name}/list", f"/{name}/delete", {}) for name in ("assets", "events", "timeseries", "sequences", "relationships", "labels")},
    "raw": (f"{ROWS}?ensureParent=true", "GET", ROWS, f"{ROWS}/delete", {}),
    "instances": ("/models/instances", "POST", "/models/instances/list", "/models/instances/delete", {"instanceType": "node"}),
}


@pytest.mark.parametrize("resource", PAGED)
def test_pages_while_others_write(api, cdf, resource):
    """Those that nobody touches come exactly once, whatever is created and deleted beside them; afterwards all is as it was
    acknowledged."""
    prepare(api)
    create, method, listing, delete, body = PAGED[resource]
    for row in api.dump("assets" if resource == "assets" else "labels"):
        if resource in ("assets", "labels"):
            api("POST", delete, {"items": [{"externalId": row["externalId"]}]}).raise_for_status()
    for one in ("timeseries", "sequences"):
        if resource == one:
            api("POST", delete, {"items": [{"externalId": row["externalId"]} for row in api.dump(one)]}).raise_for_status()
    still = [f"still-{at}" for at in range(100)]
    api("POST", create, {"items": [item_of(resource, name) for name in still]}).raise_for_status()
    left, wrong = set(), []

    def write(worker):
        chance, mine = random.Random(f"{SEED} {worker}"), Api(cdf)
        try:
            for turn in range(30):
                name = f"busy-{worker}-{turn}"
                mine("POST", create, {"items": [item_of(resource, name)]}).raise_for_status()
                if chance.random() < 0.5:
                    key = {name: of for name, of in item_of(resource, name).items() if name in ("externalId", "key", "space", "instanceType")}
                    mine("POST", delete, {"items": [key]}).raise_for_status()
                else:
                    left.add(name)
        except Exception as error:  # noqa: BLE001  (told by the main thread)
            wrong.append(error)

    workers = [threading.Thread(target=write, args=(worker,)) for worker in range(3)]
    for worker in workers:
        worker.start()
    rounds = 0
    while rounds < 2 or any(worker.is_alive() for worker in workers):
        found = pages(api, method, listing, body, random.Random(SEED + rounds).choice([7, 13, 40]))
        assert sorted(name for name in found if name.startswith("still")) == sorted(still)
        assert len(found) == len(set(found))
        rounds += 1
    for worker in workers:
        worker.join()
    assert not wrong, wrong
    found = pages(api, method, listing, body, 11)
    assert sorted(found) == sorted([*still, *left])


def test_cursors_share_the_rows_of_a_table(api):
    api("POST", f"{ROWS}?ensureParent=true", {"items": [item_of("raw", f"r{at}") for at in range(57)]}).raise_for_status()
    for count in (1, 4, 100):
        found = []
        for cursor in api("GET", "/raw/dbs/sp/tables/paged/cursors", numberOfCursors=count).json()["items"]:
            while cursor:
                answer = api("GET", ROWS, cursor=cursor, limit=5).json()
                found += [row["key"] for row in answer["items"]]
                cursor = answer.get("nextCursor")
        assert sorted(found) == sorted(f"r{at}" for at in range(57)), count
