"""Tokens and capabilities."""

import pytest
import requests
from cognite.client.exceptions import CogniteAPIError, CogniteAuthError, CogniteProjectAccessError


def test_token_answers(emulator):
    token = emulator.token().json()
    assert token["token_type"] == "Bearer" and token["expires_in"] == 3599
    for form, status, error in [
        ({"client_secret": "wrong"}, 401, "invalid_client"),
        ({"client_id": "nobody"}, 400, "unauthorized_client"),
        ({"scope": "https://x/read"}, 400, "invalid_scope"),
        ({"scope": ""}, 400, "invalid_request"),
        ({"grant_type": "password"}, 400, "unsupported_grant_type"),
    ]:
        answer = emulator.token(**form)
        assert (answer.status_code, answer.json()["error"]) == (status, error)
        assert "test-secret" not in answer.text and "wrong" not in answer.text
    assert emulator.token(scope="", audience="https://api").status_code == 200
    assert "test-secret" not in str(emulator.requests("token", bodies=1))


@pytest.mark.parametrize("shape, value", [("string", "60"), ("omitted", None)])
def test_shapes_of_expires_in(emulator, shape, value):
    emulator.admin("POST", "/clients", json={"client_id": "c", "client_secret": "s", "expires_in": 60, "expires_in_as": shape})
    assert emulator.token("c", "s").json().get("expires_in") == value


def test_token_endpoint_out_of_order(emulator):
    refusing = {"client_id": "c", "client_secret": "s", "token_status": 503, "token_error": "temporarily_unavailable"}
    emulator.admin("POST", "/clients", json=refusing)
    answer = emulator.token("c", "s")
    assert (answer.status_code, answer.json()["error"]) == (503, "temporarily_unavailable")


def test_wrong_secret_in_the_sdk(emulator):
    with pytest.raises(CogniteAuthError):
        emulator.client(client_secret="wrong").assets.list()


def test_inspect(client):
    inspected = client.iam.token.inspect()
    assert inspected.projects[0].url_name == "test-project"
    assert any("assetsAcl" in str(capability.dump()) for capability in inspected.capabilities)


def test_the_sdk_refreshes_an_expired_token(emulator):
    # Shorter than the margin at which the SDK refreshes: every call needs a token of its own.
    emulator.admin("POST", "/clients", json={"client_id": "short", "client_secret": "s", "expires_in": 5})
    client = emulator.client("short", "s")
    client.assets.list()
    first = len(emulator.requests("/oauth2/v2.0/token"))
    client.assets.list()
    tokens = emulator.requests("/oauth2/v2.0/token")
    assert 1 <= first < len(tokens) and {t["client_id"] for t in tokens} == {"short"}
    assert [r["status"] for r in emulator.requests("/assets/list")] == [200, 200]


def test_expired_and_revoked_tokens(client, emulator):
    emulator.admin("POST", "/clients", json={"client_id": "short", "client_secret": "s", "expires_in": 0})
    header = {"Authorization": f"Bearer {emulator.token('short', 's').json()['access_token']}"}
    answer = requests.post(f"{emulator.url}/api/v1/projects/test-project/assets/list", json={}, headers=header, timeout=30)
    assert (answer.status_code, answer.json()["error"]["message"]) == (401, "Could not authenticate.")
    client.assets.list()
    assert emulator.admin("POST", "/revoke_tokens")["revoked"] >= 1
    with pytest.raises(CogniteProjectAccessError):
        client.assets.list()
    assert emulator.requests("/assets/list")[-1]["status"] == 401
    for header in ({}, {"Authorization": "Bearer made-up"}, {"Authorization": "Basic x"}):
        assert requests.get(f"{emulator.url}/api/v1/token/inspect", headers=header, timeout=30).status_code == 401


def test_capabilities(emulator):
    emulator.admin("POST", "/clients", json={
        "client_id": "reader", "client_secret": "s",
        "capabilities": [{"acl": "assetsAcl", "actions": ["READ"]}, {"acl": "rawAcl", "actions": ["LIST"]}],
    })
    client = emulator.client("reader", "s")
    assert len(client.assets.list()) == 0 and len(client.raw.databases.list()) == 0
    for call in (
        lambda: client.assets.delete(external_id="x"),
        lambda: client.events.list(),
        lambda: client.raw.rows.list("d", "t"),
        lambda: client.time_series.data.insert([(1, 1)], external_id="x"),
    ):
        with pytest.raises(CogniteAPIError) as refused:
            call()
        assert (refused.value.code, refused.value.message) == (403, "Forbidden")


def test_projects(emulator):
    emulator.admin("POST", "/clients", json={"client_id": "c", "client_secret": "s", "projects": ["one", "two"]})
    emulator.client("c", "s", project="one").raw.databases.create("db")
    assert len(emulator.client("c", "s", project="two").raw.databases.list()) == 0
    with pytest.raises(CogniteProjectAccessError):
        emulator.client("c", "s", project="test-project").assets.list()
    headers = {"Authorization": f"Bearer {emulator.token('c', 's').json()['access_token']}"}
    inspected = requests.get(f"{emulator.url}/api/v1/token/inspect", headers=headers, timeout=30).json()
    assert [p["projectUrlName"] for p in inspected["projects"]] == ["one", "two"]
