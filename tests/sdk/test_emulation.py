"""The parts of the emulator that tests of the extension rely on: faults, throttling, the log, transport."""

import gzip
import http.client
import json
import time

import pytest
import requests
from cognite.client.data_classes import EventWrite
from cognite.client.exceptions import CogniteAPIError


def fault(emulator, **fault):
    emulator.admin("POST", "/faults", json=fault)


def events(emulator):
    return [e["externalId"] for e in emulator.admin("GET", "/dump", params={"resource": "events"})["items"]]


def create(emulator, name):
    return emulator.call("POST", "/events", json={"items": [{"externalId": name}]})


def test_status_before_and_after(client, emulator):
    fault(emulator, path="/events", mode="status", status=503, times=1, body={"error": "busy"}, headers={"retry-after": "2"})
    answer = create(emulator, "a")
    assert (answer.status_code, answer.json(), answer.headers["retry-after"]) == (503, {"error": "busy"}, "2")
    assert events(emulator) == []
    fault(emulator, path="/events", mode="status", status=502, times=1, when="after", body="<html>bad gateway</html>")
    answer = create(emulator, "b")
    assert (answer.status_code, answer.text) == (502, "<html>bad gateway</html>")
    assert answer.headers["content-type"] == "text/plain"
    assert events(emulator) == ["b"]
    with pytest.raises(CogniteAPIError) as refused:
        fault(emulator, path="/events", mode="status", status=429, times=1)
        client.events.create(EventWrite(external_id="c"))
    assert refused.value.code == 429
    assert create(emulator, "d").status_code == 201


def test_dropped_connections(emulator):
    for mode, stored in (("drop_before", False), ("drop_after", True)):
        fault(emulator, path="/events", mode=mode, times=1)
        with pytest.raises(requests.ConnectionError):
            create(emulator, mode)
        assert (mode in events(emulator)) is stored
    assert [r["status"] for r in emulator.requests("/events")] == [0, 0]


def send_only(emulator, name):
    """Sends a create without waiting for an answer; the connection stays until it is closed."""
    token = emulator.token().json()["access_token"]
    connection = http.client.HTTPConnection(emulator.url.removeprefix("http://"))
    headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
    body = json.dumps({"items": [{"externalId": name}]})
    connection.request("POST", "/api/v1/projects/test-project/events", body, headers)
    return connection


def until(condition):
    while not condition():
        time.sleep(0.01)


def test_stall_ends_with_the_client(emulator):
    in_flight = lambda: emulator.admin("GET", "/stats")["in_flight"]
    fault(emulator, path="/events", mode="stall", times=1)
    connection = send_only(emulator, "a")
    until(lambda: in_flight() == 1)
    connection.close()
    until(lambda: in_flight() == 0)
    assert [r["status"] for r in emulator.requests("/events")] == [0]
    assert events(emulator) == []


def test_faults_on_tokens_and_counting(emulator):
    fault(emulator, path="/oauth2/v2.0/token", mode="status", status=500, after=1, every=2, times=1)
    assert [emulator.token().status_code for _ in range(5)] == [200, 200, 500, 200, 200]
    fault(emulator, path="/token/inspect", mode="status", status=403)
    headers = {"Authorization": f"Bearer {emulator.token().json()['access_token']}"}
    inspect = lambda: requests.get(f"{emulator.url}/api/v1/token/inspect", headers=headers, timeout=30).status_code
    assert inspect() == 403
    emulator.admin("DELETE", "/faults")
    assert inspect() == 200


def test_bad_faults_are_refused(emulator):
    for bad in ({"path": "/x", "mode": "status"}, {"path": "/x", "mode": "odd"}, {"path": "/x", "mode": "stall", "evry": 1}):
        assert requests.post(f"{emulator.url}/admin/faults", json=bad, timeout=30).status_code in (400, 422)


def test_concurrency_limit(emulator):
    emulator.admin("POST", "/limits", json={"max_concurrent": 1, "path": "/events", "retry_after": "1"})
    fault(emulator, path="/events", mode="stall", when="after", times=1)
    connection = send_only(emulator, "first")
    until(lambda: events(emulator) == ["first"])
    answer = create(emulator, "second")
    assert answer.status_code == 429 and answer.headers["retry-after"] == "1"
    message = "Project exceeded maximum number='1' of concurrent requests. Please try again later."
    assert answer.json()["error"] == {"code": 429, "message": message}
    connection.close()
    until(lambda: emulator.admin("GET", "/stats")["in_flight"] == 0)
    assert create(emulator, "third").status_code == 201
    assert events(emulator) == ["first", "third"]
    assert emulator.admin("GET", "/stats")["max_in_flight"] == 2


def test_the_log(emulator):
    create(emulator, "a")
    emulator.call("GET", "/events?limit=1")
    token, created, other_token, listed = emulator.requests(bodies=1)
    assert token["path"] == "/tenant/oauth2/v2.0/token" and "body" not in token
    assert (created["method"], created["path"], created["status"]) == ("POST", "/events", 201)
    assert (created["items"], created["external_ids"], created["client_id"]) == (1, ["a"], "test-client")
    assert created["body"] == {"items": [{"externalId": "a"}]}
    assert (listed["method"], listed["path"]) == ("GET", "/events?limit=1")
    stats = emulator.admin("GET", "/stats")
    assert stats["paths"]["POST /events"] == 1 and stats["paths"]["GET /events"] == 1 and stats["items"] == 1
    emulator.admin("DELETE", "/requests")
    assert emulator.requests() == []


def test_request_ids_are_unique(emulator):
    ids = [create(emulator, str(i % 7)).headers["x-request-id"] for i in range(50)]
    ids += [requests.get(f"{emulator.url}/nowhere", timeout=30).headers["x-request-id"], emulator.token().headers["x-request-id"]]
    assert len(set(ids)) == 52
    assert ids[:50] == [r["request_id"] for r in emulator.requests("/events")]


def test_compression_both_ways(emulator):
    body = json.dumps({"items": [{"externalId": f"e{i}", "description": "x" * 400} for i in range(100)]}).encode()
    headers = {"content-type": "application/json", "content-encoding": "gzip"}
    created = emulator.call("POST", "/events", data=gzip.compress(body), headers=headers)
    assert created.status_code == 201 and created.headers["content-encoding"] == "gzip"
    plain = emulator.call("POST", "/events/list", json={}, headers={"accept-encoding": "identity"})
    assert "content-encoding" not in plain.headers and len(plain.json()["items"]) == 100
    assert "content-encoding" not in emulator.call("POST", "/events/list", json={"limit": 1}).headers
    assert emulator.call("POST", "/events", data=b"junk", headers=headers).status_code == 400
    odd = {"content-type": "application/json", "content-encoding": "br"}
    assert emulator.call("POST", "/events", data=body, headers=odd).status_code == 415


def test_what_is_no_request_of_cdf(emulator):
    assert emulator.call("POST", "/nothing", json={}).status_code == 404
    assert emulator.call("PUT", "/assets", json={}).status_code == 404
    assert emulator.call("POST", "/assets", data="{").status_code in (400, 415)
    broken = emulator.call("POST", "/assets", data="{", headers={"content-type": "application/json"})
    assert broken.status_code == 400 and "Malformed JSON" in broken.json()["error"]["message"]
    emulator.refused("/assets", {"items": [{"name": "x"}], "extra": 1})
    assert emulator.call("GET", "/assets?nme=x").status_code == 400
