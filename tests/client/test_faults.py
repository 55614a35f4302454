"""Throttling, outages, lost connections, stale tokens: the extension survives what is transient, and tells the rest in full."""

from __future__ import annotations

import re
import socket
import threading
import time

import psycopg
import pytest
from faults import (
    TOKEN,
    alter,
    create_missing_series,
    fault,
    refusal,
    register,
    register_apart,
    statuses,
    token_requests,
)
from fronts import Relay
from psycopg import errors
from support import dump, names, refused, requests, series, told

RAW_PATH = "/raw/dbs/d/tables/t/rows"
EVENT = "INSERT INTO events (external_id) VALUES ('x')"
# One row for each resource: the path that it is sent to, and where the emulator keeps it.
WRITES = {
    "assets": ("/assets", "INSERT INTO assets (external_id, name) VALUES ('x', 'X')", "assets"),
    "events": ("/events", EVENT, "events"),
    "timeseries": ("/timeseries", "INSERT INTO timeseries (external_id) VALUES ('x')", "timeseries"),
    "datapoints": (
        "/timeseries/data",
        "INSERT INTO datapoints (external_id, \"timestamp\", value) VALUES ('s', '2024-01-01', 1)",
        "datapoints",
    ),
    "raw_rows": (
        RAW_PATH,
        "INSERT INTO raw_rows (db_name, table_name, key, columns) VALUES ('d', 't', 'x', '{}')",
        "raw",
    ),
}
EACH_RESOURCE = pytest.mark.parametrize(("path", "insert", "resource"), WRITES.values(), ids=WRITES)
# Items that would not be recognised if they were sent twice.
UNKEYED = {
    "assets": "INSERT INTO assets (name) VALUES ('X')",
    "events": "INSERT INTO events (description) VALUES ('x')",
    "timeseries": "INSERT INTO timeseries (name) VALUES ('x')",
}
EACH_UNKEYED = pytest.mark.parametrize(("resource", "insert"), UNKEYED.items(), ids=UNKEYED)


@pytest.fixture
def series_s(api):
    """The series that the points go to."""
    api.create("timeseries", "s")


def arrived(cdf, resource: str) -> list[dict]:
    """What has been written since `series_s`."""
    return [item for item in dump(cdf, resource) if (resource, item.get("externalId")) != ("timeseries", "s")]


def events(count: int) -> str:
    return f"INSERT INTO events (external_id) SELECT 'e' || i FROM generate_series(1, {count}) i"


def closed_port() -> int:
    """A port on which nothing listens."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        return unused.getsockname()[1]


def accepted(error: psycopg.Error, resource: str) -> int:
    """How many items of a resource CDF had accepted, as an error tells it."""
    counts = re.search(rf"(\d+) of \d+ {resource}\b", told(error))
    return int(counts[1]) if counts else 0


# Transient failures.


@EACH_RESOURCE
def test_outage_that_passes(session, cdf, series_s, path, insert, resource):
    fault(cdf, path, status=503, times=2)
    session.execute(insert)
    assert len(arrived(cdf, resource)) == 1
    answers = statuses(cdf, path)
    assert answers[:2] == [503, 503] and len(answers) == 3


@pytest.mark.parametrize("status", [429, 500, 502, 503, 504])
def test_transient_status(session, cdf, status):
    fault(cdf, "/events", status=status, times=1)
    session.execute(EVENT)
    assert statuses(cdf, "/events") == [status, 201]


def test_answer_that_cdf_calls_retryable(session, cdf):
    fault(cdf, "/events", status=409, headers={"cdf-is-auto-retryable": "true"}, times=1)
    session.execute(EVENT)
    assert statuses(cdf, "/events") == [409, 201]


def test_throttling_with_retry_after(session, cdf):
    fault(cdf, "/events", status=429, headers={"retry-after": "1"}, times=1)
    session.execute(EVENT)
    throttled, sent = requests(cdf, "/events")
    assert (throttled["status"], sent["status"]) == (429, 201)
    assert sent["started_ms"] - throttled["ended_ms"] >= 990


def test_limit_of_concurrent_requests(session, cdf):
    cdf.admin_post("limits", {"max_concurrent": 2, "path": "/events"})
    fault(cdf, "/events", "delay", delay_ms=50, when="after")
    session.execute("SET cdf_fdw.max_concurrent_requests = 8")
    session.execute(events(20_000))
    assert len(dump(cdf, "events")) == 20_000
    answers = statuses(cdf, "/events")
    assert 429 in answers and answers.count(201) == 20


def test_limit_of_requests_per_second(session, cdf):
    cdf.admin_post("limits", {"rate_per_second": 8, "path": "/events"})
    session.execute(events(12_000))
    assert len(dump(cdf, "events")) == 12_000


@EACH_RESOURCE
@pytest.mark.parametrize("mode", ["drop_before", "drop_after"])
def test_lost_connection_of_items_with_keys(session, cdf, series_s, mode, path, insert, resource):
    fault(cdf, path, mode, times=1)
    session.execute(insert)
    assert len(arrived(cdf, resource)) == 1
    assert statuses(cdf, path)[0] == 0


def test_lost_connections_of_a_large_load(session, cdf, series_s):
    fault(cdf, "/timeseries/data", "drop_after", every=2)
    session.execute(
        'INSERT INTO datapoints (external_id, "timestamp", value)'
        " SELECT 's', to_timestamp(i), i FROM generate_series(1, 350000) i"
    )
    assert series(cdf, "s")["count"] == 350_000


@pytest.mark.parametrize("trouble", [{"status": 503}, {"mode": "drop_before"}, {"mode": "drop_after"}], ids=str)
@pytest.mark.parametrize("path", ["/assets/byids", "/events", "/events/update"])
def test_trouble_on_the_way_of_an_upsert(session, cdf, api, path, trouble):
    (asset,) = api.create("assets", "pump")
    api.create("events", "old")
    fault(cdf, path, times=1, **trouble)
    session.execute(
        "INSERT INTO events (external_id, type, asset_external_ids)"
        " SELECT name, 'x', '{pump}' FROM unnest(ARRAY['old', 'new']) name"
    )
    assert len(statuses(cdf, path)) > 1
    assert names(cdf, "events") == ["new", "old"]
    assert [(item["type"], item["assetIds"]) for item in dump(cdf, "events")] == [("x", [asset])] * 2


@pytest.mark.parametrize("mode", ["drop_before", "drop_after"])
def test_lost_connection_while_missing_series_are_created(cluster, emulator, cdf, mode):
    gateway = register(cluster, emulator)
    create_missing_series(cluster, gateway)
    fault(cdf, "/timeseries", mode, times=1)
    with gateway.connect(autocommit=True) as session:
        session.execute(SEVERAL["datapoints"][1])
    assert names(cdf, "timeseries") == ["s0", "s1"]
    assert len(dump(cdf, "datapoints")) == 1000


def duplicated(*external_ids: str) -> dict:
    """The answer that these items exist; none: that some do, and not which."""
    named = {"duplicated": [{"externalId": external_id} for external_id in external_ids]} if external_ids else {}
    return {"status": 409, "body": {"error": {"code": 409, "message": "Duplicated."} | named}}


def test_item_that_disappears_while_it_is_written(session, cdf):
    """CDF says that it exists, and then that it does not: somebody deleted it in between."""
    fault(cdf, "/events", times=1, **duplicated("x"))
    session.execute(EVENT.replace("(external_id)", "(external_id, type)").replace("'x'", "'x', 'new'"))
    assert [item["type"] for item in dump(cdf, "events")] == ["new"]


def test_item_that_never_settles(session, cdf):
    fault(cdf, "/events", **duplicated("x"))
    with refused("23505", "events", '"x"'):
        session.execute("INSERT INTO events (external_id, type) VALUES ('x', 'new')")


def test_duplicates_that_cdf_does_not_name(session, cdf, api):
    api.create("events", "e3", "e7", type="old")
    fault(cdf, "/events", times=1, **duplicated())
    session.execute("INSERT INTO events (external_id, type) SELECT 'e' || i, 'new' FROM generate_series(1, 10) i")
    assert [item["type"] for item in dump(cdf, "events")] == ["new"] * 10


# Lasting failures.


@pytest.mark.parametrize("status", [429, 500, 502, 503, 504])
def test_outage_that_does_not_pass(session, cdf, status):
    fault(cdf, "/events", status=status)
    session.execute("SET cdf_fdw.max_retries = 2")
    with refusal("08006", "events", "cdf_fdw.max_retries", f"Fault asked for by a test: {status}", '"x"') as caught:
        session.execute(EVENT)
    assert statuses(cdf, "/events") == [status] * 3
    assert requests(cdf, "/events")[-1]["request_id"] in told(caught.value)


@pytest.mark.parametrize("status", [429, 503])
def test_outage_that_lasts_longer_than_the_flush_may(session, cdf, status):
    fault(cdf, "/events", status=status)
    session.execute("SET cdf_fdw.max_retries = 1000")
    session.execute("SET cdf_fdw.flush_timeout = '600ms'")
    with refused("08006", "cdf_fdw.flush_timeout", "600ms"):
        session.execute(EVENT)
    assert len(statuses(cdf, "/events")) > 1


def test_no_retries_are_none(session, cdf):
    fault(cdf, "/events", status=503, times=1)
    session.execute("SET cdf_fdw.max_retries = 0")
    with refused("08006"):
        session.execute(EVENT)
    assert statuses(cdf, "/events") == [503]


@EACH_RESOURCE
def test_connections_that_are_always_lost(session, cdf, series_s, path, insert, resource):
    fault(cdf, path, "drop_before")
    session.execute("SET cdf_fdw.max_retries = 1")
    with refused("08006", path, "cdf_fdw.max_retries"):
        session.execute(insert)
    assert arrived(cdf, resource) == []
    assert statuses(cdf, path) == [0, 0]


@pytest.mark.parametrize(
    ("answer", "sqlstate", "words"),
    [
        (
            {
                "status": 502,
                "body": "<html><head><title>502</title></head><body><h1>Bad Gateway</h1></body></html>",
                "headers": {"content-type": "text/html"},
            },
            "08006",
            "Bad Gateway",
        ),
        ({"status": 503, "body": ""}, "08006", "503"),
        ({"status": 504, "body": "upstream request timeout"}, "08006", "upstream request timeout"),
        ({"status": 400, "body": "not what I call JSON"}, "08006", "not what I call JSON"),
        ({"status": 403, "body": ""}, "42501", "403"),
        ({"status": 400, "body": {"error": "only words"}}, "22023", "only words"),
    ],
    ids=["HTML", "empty", "text", "refusal as text", "empty refusal", "error without a message"],
)
def test_answers_that_are_not_of_cdf(session, cdf, answer, sqlstate, words):
    fault(cdf, "/events", **answer)
    session.execute("SET cdf_fdw.max_retries = 0")
    with refusal(sqlstate, words) as caught:
        session.execute(EVENT)
    assert "<" not in told(caught.value)


def test_redirects_are_not_followed(session, cdf):
    fault(cdf, "/events", status=307, headers={"location": f"{cdf.url}/api/v1/projects/elsewhere/events"})
    session.execute("SET cdf_fdw.max_retries = 1")
    with refused("08006", "redirect", "base_url"):
        session.execute(EVENT)
    assert [entry["project"] for entry in requests(cdf)] == [cdf.project] * 2


# Items without a key.


@EACH_UNKEYED
def test_item_without_a_key_that_may_have_been_accepted_is_not_sent_again(session, cdf, resource, insert):
    fault(cdf, f"/{resource}", "drop_after", times=1)
    with refused("08006", "may have been accepted", resource):
        session.execute(insert)
    assert len(dump(cdf, resource)) == 1
    assert statuses(cdf, f"/{resource}") == [0]


@pytest.mark.parametrize(
    ("doubt", "sqlstate"),
    [
        ({"mode": "drop_before"}, "08006"),
        ({"mode": "status", "status": 503, "when": "after"}, "08006"),
        ({"mode": "stall", "when": "after"}, "08006"),
    ],
    ids=["connection lost", "server error", "no answer in time"],
)
def test_doubt_about_an_item_without_a_key(session, cdf, doubt, sqlstate):
    fault(cdf, "/events", times=1, **doubt)
    session.execute("SET cdf_fdw.request_timeout = '500ms'")
    with refused(sqlstate, "may have been accepted"):
        session.execute(UNKEYED["events"])
    assert len(statuses(cdf, "/events")) == 1
    assert len(dump(cdf, "events")) <= 1


@pytest.mark.parametrize("insert", [EVENT, UNKEYED["events"]], ids=["keyed", "unkeyed"])
@pytest.mark.parametrize(
    "doubt",
    [{"mode": "drop_after"}, {"mode": "status", "status": 503, "when": "after"}, {"mode": "stall", "when": "after"}],
    ids=["connection lost", "server error", "no answer in time"],
)
def test_nothing_is_claimed_about_what_nobody_knows(session, cdf, doubt, insert):
    fault(cdf, "/events", **doubt)
    session.execute("SET cdf_fdw.max_retries = 0")
    session.execute("SET cdf_fdw.flush_timeout = '500ms'")
    with pytest.raises(psycopg.Error) as caught:
        session.execute(insert)
    assert len(dump(cdf, "events")) == 1
    assert "accepted nothing" not in told(caught.value)


def test_requests_before_the_one_in_doubt_are_told(session, cdf):
    fault(cdf, "/events", "drop_after", after=1, times=1)
    session.execute("SET cdf_fdw.max_concurrent_requests = 1")
    with refusal("08006", "may have been accepted", "1000 of 3000 events"):
        session.execute("INSERT INTO events (description) SELECT 'x' FROM generate_series(1, 3000)")
    assert len(dump(cdf, "events")) == 2000


@pytest.mark.parametrize("status", [401, 429])
def test_item_without_a_key_is_sent_again_when_it_was_certainly_not_accepted(session, cdf, status):
    fault(cdf, "/events", status=status, times=1)
    session.execute(UNKEYED["events"])
    assert statuses(cdf, "/events") == [status, 201]
    assert len(dump(cdf, "events")) == 1


@pytest.fixture
def relayed(cluster, emulator, cdf):
    """A session whose requests to CDF, but not those for tokens, take a relay; and the relay, not yet open."""
    gateway, server = register_apart(cluster, emulator)
    relay = Relay(("127.0.0.1", emulator.port))
    alter(cluster, "SERVER {}", server, base_url=f"http://127.0.0.1:{relay.port}")
    with gateway.connect(autocommit=True) as connection:
        yield connection, relay
    relay.close()


def test_item_without_a_key_is_sent_again_when_the_connection_was_refused(relayed, cdf):
    session, relay = relayed
    # The first attempt is made at once, and refused.
    opening = threading.Timer(0.7, relay.open)
    opening.start()
    session.execute(UNKEYED["events"])
    opening.join()
    assert len(dump(cdf, "events")) == 1


def test_connection_that_was_closed_while_it_was_idle(relayed, cdf):
    """As gateways do. Nothing was under way, so nothing is in doubt."""
    session, relay = relayed
    relay.open()
    for count in (1, 2, 3):
        session.execute(UNKEYED["events"])
        assert len(dump(cdf, "events")) == count
        relay.hang_up()
        # Time for the session to notice it.
        time.sleep(0.2)


# Tokens.


def test_a_session_asks_for_one_token(session, cdf):
    for _ in range(3):
        session.execute(EVENT)
    session.execute(events(9000))
    assert len(token_requests(cdf)) == 1


def test_stale_token_is_renewed(session, cdf):
    session.execute(EVENT)
    fault(cdf, "/events", status=401, times=1)
    session.execute("INSERT INTO events (external_id) VALUES ('y')")
    assert statuses(cdf, "/events") == [201, 401, 201]
    assert len(token_requests(cdf)) == 2


def test_revoked_token_is_renewed_once_for_all_requests(session, cdf):
    session.execute(EVENT)
    assert cdf.admin_post("revoke_tokens") == {"revoked": 1}
    session.execute(events(12_000))
    assert len(dump(cdf, "events")) == 12_001
    assert len(token_requests(cdf)) == 2


def test_second_refusal_of_the_token(session, cdf):
    fault(cdf, "/events", status=401)
    with refused("28000", cdf.project):
        session.execute(EVENT)
    assert statuses(cdf, "/events") == [401, 401]
    cdf.admin_delete("faults")
    session.execute(EVENT)


def set_client(cdf, **properties) -> None:
    """Replaces the emulator's default client, until the next reset."""
    client = {"client_id": cdf.client_id, "client_secret": cdf.client_secret, "projects": [cdf.project]}
    cdf.admin_post("clients", client | properties)


def test_no_access_to_the_project(session, cdf):
    set_client(cdf, projects=["another-project"])
    with refused("28000", cdf.project):
        session.execute(EVENT)


def test_short_lived_tokens_are_renewed_before_they_expire(session, cdf):
    set_client(cdf, expires_in=2)
    fault(cdf, "/events", "delay", delay_ms=400)
    session.execute("SET cdf_fdw.max_concurrent_requests = 1")
    session.execute(events(6000))
    assert statuses(cdf, "/events") == [201] * 6
    assert len(token_requests(cdf)) >= 2


@pytest.mark.parametrize("written", ["number", "string", "omitted"])
def test_lifetime_of_a_token_as_providers_write_it(session, cdf, written):
    set_client(cdf, expires_in=3599, expires_in_as=written)
    session.execute(EVENT)
    session.execute(EVENT)
    assert len(token_requests(cdf)) == 1


def test_altered_user_mapping_counts_at_once(cluster, emulator, cdf):
    gateway, server = register_apart(cluster, emulator)
    cdf.admin_post("clients", {"client_id": "new", "client_secret": "new-secret", "projects": [cdf.project]})
    cdf.admin_delete("requests")
    with gateway.connect(autocommit=True) as session:
        session.execute(EVENT)
        mapping = ("USER MAPPING FOR {} SERVER {}", gateway.username, server)
        alter(cluster, *mapping, client_id="new", client_secret="new-secret")
        session.execute(EVENT)
        assert [entry["client_id"] for entry in token_requests(cdf)] == [cdf.client_id, "new"]
        assert {entry["client_id"] for entry in requests(cdf, "/events")[1:]} == {"new"}
        # No earlier token is used any longer.
        alter(cluster, *mapping, client_secret="wrong-secret")
        with refused("28000", "invalid_client"):
            session.execute(EVENT)


def test_altered_server_counts_at_once(cluster, emulator, cdf):
    gateway, server = register_apart(cluster, emulator)
    with gateway.connect(autocommit=True) as session:
        session.execute(EVENT)
        session.execute("SET cdf_fdw.max_retries = 0")
        alter(cluster, "SERVER {}", server, base_url=f"http://127.0.0.1:{closed_port()}")
        with refused("08001"):
            session.execute(EVENT)


@pytest.mark.parametrize(
    ("answer", "sqlstate", "words"),
    [
        ({"status": 401, "body": {"error": "invalid_client", "error_description": "expired"}}, "28000", "expired"),
        ({"status": 400, "body": {"error": "invalid_scope"}}, "28000", "invalid_scope"),
        ({"status": 200, "body": "<html>Sign in</html>"}, "08006", "token_url"),
        ({"status": 404, "body": "no such tenant"}, "28000", "token_url"),
        ({"status": 503, "body": "down for maintenance"}, "08006", "down for maintenance"),
        ({"status": 429, "body": {"error": "slow_down"}}, "08006", "slow_down"),
    ],
    ids=["wrong secret", "wrong scope", "not a token", "wrong address", "down", "throttling"],
)
def test_refusals_of_the_identity_provider(session, cdf, answer, sqlstate, words):
    fault(cdf, TOKEN, **answer)
    session.execute("SET cdf_fdw.max_retries = 1")
    with refused(sqlstate, "identity provider", words):
        session.execute(EVENT)
    assert requests(cdf) == []
    assert len(token_requests(cdf)) == (1 if sqlstate == "28000" else 2)


def test_identity_provider_that_fails_for_a_moment(session, cdf):
    fault(cdf, TOKEN, status=503, times=1)
    fault(cdf, TOKEN, "drop_before", times=1)
    session.execute(EVENT)
    assert names(cdf, "events") == ["x"]


# Nobody there.


@pytest.mark.parametrize("address", ["http://127.0.0.1:{closed}", "https://127.0.0.1:{plain}", "https://cdf.invalid"])
def test_cdf_cannot_be_reached(cluster, emulator, cdf, address):
    """Nothing listens there, or something without TLS, or there is no such name."""
    gateway, server = register_apart(cluster, emulator)
    alter(cluster, "SERVER {}", server, base_url=address.format(closed=closed_port(), plain=emulator.port))
    with gateway.connect(autocommit=True) as session:
        session.execute("SET cdf_fdw.max_retries = 1")
        with refused("08001", "events", "CDF"):
            session.execute(EVENT)
        assert session.execute("SELECT 1").fetchone() == (1,)


def test_identity_provider_cannot_be_reached(cluster, emulator, cdf):
    gateway, server = register_apart(cluster, emulator)
    token_url = f"http://127.0.0.1:{closed_port()}/token"
    alter(cluster, "USER MAPPING FOR {} SERVER {}", gateway.username, server, token_url=token_url)
    with gateway.connect(autocommit=True) as session:
        session.execute("SET cdf_fdw.max_retries = 1")
        with refused("08001", "identity provider"):
            session.execute(EVENT)


# Capabilities.

CAPABILITIES = {
    "assets": "assetsAcl",
    "events": "eventsAcl",
    "timeseries": "timeSeriesAcl",
    "datapoints": "timeSeriesAcl",
    "raw_rows": "rawAcl",
}
ALL_ACTIONS = ["READ", "WRITE", "LIST"]


def only(*granted: str, actions=ALL_ACTIONS) -> list[dict]:
    return [{"acl": acl, "actions": list(actions)} for acl in granted]


@pytest.mark.parametrize("table", CAPABILITIES)
def test_missing_capability_is_named(session, cdf, series_s, table):
    acl = CAPABILITIES[table]
    set_client(cdf, capabilities=only(*set(CAPABILITIES.values()) - {acl}) + only(acl, actions=["READ"]))
    path, insert, _ = WRITES[table]
    with refusal("42501", table, f"{acl}:WRITE", "Forbidden") as caught:
        session.execute(insert)
    assert f"{acl}:WRITE" in caught.value.diag.message_hint
    assert requests(cdf, path)[-1]["request_id"] in told(caught.value)


def test_missing_capability_of_what_a_row_refers_to(session, cdf):
    set_client(cdf, capabilities=only("eventsAcl"))
    with pytest.raises(errors.InsufficientPrivilege) as caught:
        session.execute("INSERT INTO events (external_id, data_set_external_id) VALUES ('x', 'plant')")
    assert "datasetsacl:read" in caught.value.diag.message_hint.lower()


# What an error tells about a load that was accepted in part.


@pytest.mark.parametrize("resource", ["assets", "events", "timeseries"])
def test_accepted_before_the_refusal(session, cdf, resource):
    session.execute("SET cdf_fdw.max_concurrent_requests = 1")
    fault(cdf, f"/{resource}", status=403, after=1)
    load = f"INSERT INTO {resource} (external_id, name) SELECT 'n' || i, i FROM generate_series(1, 3000) i"
    load = load.replace(", name", ", type") if resource == "events" else load
    with refusal("42501", resource, f"1000 of 3000 {resource}", "x-request-id", '"n') as caught:
        session.execute(load)
    assert len(dump(cdf, resource)) == 1000
    assert requests(cdf, f"/{resource}")[1]["request_id"] in told(caught.value)
    # Ten of the rows of the refused request, and how many there were.
    assert len(set(re.findall(r'"n\d+"', told(caught.value)))) == 10
    assert "1000 in all" in told(caught.value)
    cdf.admin_delete("faults")
    session.execute(load)
    assert names(cdf, resource) == sorted(f"n{i}" for i in range(1, 3001))


def test_accepted_beside_the_refusal(session, cdf):
    """Requests at the same time: what the error tells is what CDF has, also of those that ended after the refusal."""
    fault(cdf, "/events", "delay", delay_ms=300)
    fault(cdf, "/events", status=403, after=2, times=1)
    with pytest.raises(errors.InsufficientPrivilege) as caught:
        session.execute(events(20_000))
    kept = len(dump(cdf, "events"))
    assert accepted(caught.value, "events") == kept
    assert 0 < kept < 20_000


def test_several_refusals_are_one_error(session, cdf):
    fault(cdf, "/events", "delay", delay_ms=200)
    fault(cdf, "/events", status=403)
    with refused("42501", "accepted nothing"):
        session.execute(events(20_000))
    # Nothing more is sent after a refusal.
    assert len(requests(cdf, "/events")) == 8


def test_error_tells_what_was_accepted_of_other_resources(session, cdf, series_s):
    fault(cdf, "/timeseries/data", status=400)
    with pytest.raises(errors.InvalidParameterValue) as caught, session.transaction():
        session.execute(WRITES["datapoints"][1])
        session.execute("INSERT INTO assets (external_id, name) SELECT 'a' || i, i FROM generate_series(1, 1200) i")
        session.execute(events(7))
    assert accepted(caught.value, "assets") == 1200
    assert accepted(caught.value, "events") == 7
    assert '"s"' in told(caught.value)


def load_everything(session) -> None:
    with session.transaction():
        session.execute("INSERT INTO timeseries (external_id) SELECT 's' || i FROM generate_series(1, 1500) i")
        session.execute("INSERT INTO assets (external_id, name) SELECT 'a' || i, i FROM generate_series(1, 1500) i")
        session.execute(events(2500))
        session.execute(
            'INSERT INTO datapoints (external_id, "timestamp", value)'
            " SELECT 's' || i % 1500 + 1, to_timestamp(i), i FROM generate_series(1, 120000) i"
        )
        session.execute(
            "INSERT INTO raw_rows (db_name, table_name, key, columns)"
            " SELECT 'd', 't', i::text, '{\"n\": 1}' FROM generate_series(1, 6000) i"
        )


@pytest.mark.parametrize(
    ("path", "failure"),
    [
        ("/assets", {"status": 400, "after": 1}),
        ("/events", {"mode": "drop_after", "after": 1}),
        ("/timeseries", {"status": 503, "when": "after"}),
        ("/timeseries/data", {"mode": "drop_before", "after": 1}),
        (RAW_PATH, {"status": 403, "after": 1}),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_the_same_load_again_ends_in_the_same_state(session, cdf, path, failure):
    session.execute("SET cdf_fdw.max_retries = 0")
    fault(cdf, path, **failure)
    with pytest.raises(psycopg.Error) as caught:
        load_everything(session)
    assert caught.value.sqlstate in ("22023", "08006", "42501")
    cdf.admin_delete("faults")
    load_everything(session)
    for resource, count in (("timeseries", 1500), ("assets", 1500), ("events", 2500), ("raw", 6000)):
        assert len(names(cdf, resource)) == len(set(names(cdf, resource))) == count
    assert cdf.admin_get("datapoints/summary")["count"] == 120_000


# Culprits.


@pytest.mark.parametrize("bad", [{1}, {500}, {1000}, {3, 501, 502, 999}], ids=str)
@pytest.mark.parametrize("resource", ["assets", "events"])
def test_culprits_are_found_when_cdf_does_not_name_them(session, cdf, resource, bad):
    """CDF only says `Invalid dataSetIds: 77`, and not in which rows."""
    name = "type" if resource == "events" else "name"
    with refusal("23503", resource, "Invalid dataSetIds: 77", *(f'"n{row}"' for row in bad)) as caught:
        session.execute(
            f"INSERT INTO {resource} (external_id, {name}, data_set_id)"
            " SELECT 'n' || i, i, CASE WHEN i = ANY (%s) THEN 77 END FROM generate_series(1, 1000) i",
            [list(bad)],
        )
    assert set(re.findall(r'"n(\d+)"', told(caught.value))) == {str(row) for row in bad}
    assert accepted(caught.value, resource) == len(dump(cdf, resource))
    assert len(requests(cdf, f"/{resource}")) < 60


def test_culprits_that_cdf_names(session, cdf):
    """`Asset ids not found`, with the ids: the rows are those that have them."""
    with refusal("23503", "Asset ids not found", '"e1"', '"e10"', "15 in all") as caught:
        session.execute(
            "INSERT INTO events (external_id, asset_ids)"
            " SELECT 'e' || i, CASE WHEN i <= 15 THEN ARRAY[1000 + i] END FROM generate_series(1, 500) i"
        )
    assert len(set(re.findall(r'"e\d+"', told(caught.value)))) == 10


def test_everything_refused_names_ten_and_counts(session, cdf):
    fault(cdf, "/events", status=400, body={"error": {"code": 400, "message": "No."}})
    with refusal("22023", "No.", "accepted nothing") as caught:
        session.execute(events(1000))
    assert len(set(re.findall(r'"e\d+"', told(caught.value)))) == 10
    # Nobody looks for a thousand culprits one by one. But these ten are not all.
    assert re.search(r"\b1000\b|at least", told(caught.value))
    assert dump(cdf, "events") == []


def test_culprits_among_updates(session, cdf):
    session.execute(events(1000))
    with refusal("23503", '"e700"') as caught:
        session.execute(
            "INSERT INTO events (external_id, type, data_set_id)"
            " SELECT 'e' || i, 'new', CASE WHEN i = 700 THEN 77 END FROM generate_series(1, 1000) i"
        )
    assert set(re.findall(r'"e(\d+)"', told(caught.value))) == {"700"}
    updated = [item for item in dump(cdf, "events") if item.get("type") == "new"]
    assert accepted(caught.value, "events") == len(updated)


def test_culprits_among_series(session, cdf, api):
    """CDF says `Expected string value for datapoint`, and not for which series."""
    api.create("timeseries", *(f"n{i}" for i in range(30)))
    api.create("timeseries", "text", isString=True)
    with refusal("22023", '"text"') as caught:
        session.execute(
            'INSERT INTO datapoints (external_id, "timestamp", value)'
            " SELECT CASE WHEN i = 17 THEN 'text' ELSE 'n' || i END, to_timestamp(i), i FROM generate_series(0, 29) i"
        )
    assert re.findall(r'"(n\d+)"', told(caught.value)) == []
    assert accepted(caught.value, "datapoints") == cdf.admin_get("datapoints/summary")["count"]


def test_culprit_among_items_without_a_key_is_shown_by_its_content(session, cdf):
    with refused("23503", "the bad one"):
        session.execute(
            "INSERT INTO events (description, data_set_id)"
            " SELECT CASE WHEN i = 50 THEN 'the bad one' ELSE 'good' END, CASE WHEN i = 50 THEN 77 END"
            " FROM generate_series(1, 100) i"
        )


SEVERAL = {
    "events": ("/events", events(1000), "events", 1000),
    "raw_rows": (
        RAW_PATH,
        "INSERT INTO raw_rows (db_name, table_name, key, columns)"
        " SELECT 'd', 't', i::text, '{}' FROM generate_series(1, 1000) i",
        "raw",
        1000,
    ),
    "datapoints": (
        "/timeseries/data",
        'INSERT INTO datapoints (external_id, "timestamp", value)'
        " SELECT 's' || i % 2, to_timestamp(i), i FROM generate_series(1, 1000) i",
        "datapoints",
        1000,
    ),
}


@pytest.mark.parametrize(("path", "insert", "resource", "count"), SEVERAL.values(), ids=SEVERAL)
def test_request_that_is_too_large_is_split(session, cdf, api, path, insert, resource, count):
    api.create("timeseries", "s0", "s1")
    fault(cdf, path, status=413, times=1)
    session.execute(insert)
    assert len(dump(cdf, resource)) == count
    answers = statuses(cdf, path)
    assert answers[0] == 413 and len(answers) == 3
