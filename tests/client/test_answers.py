"""Only the answer that CDF owes acknowledges a request: not a proxy's page with status 200, not half of an answer."""

from __future__ import annotations

import pytest
from faults import TOKEN, fault, refusal, register, register_apart, statuses, token_requests
from support import dump, names, refused, stored, told
from test_views import create_view

PAGE = {
    "status": 200,
    "body": "<html><head><title>Sign in</title></head><body>to go on</body></html>",
    "headers": {"content-type": "text/html; charset=utf-8"},
}
# Answers that acknowledge nothing, whatever was asked for.
FOREIGN = {
    "sign-in page": PAGE,
    "page that says it is JSON": PAGE | {"headers": {"content-type": "application/json"}},
    "no content": {"status": 204, "body": "", "headers": {"content-type": "application/json"}},
    "empty": {"status": 200, "body": ""},
    "JSON of another type": {"status": 200, "body": "{}"},
    "array": {"status": 200, "body": [{}]},
    "null": {"status": 200, "body": "null", "headers": {"content-type": "application/json"}},
    "half": {"status": 201, "body": '{"items":[{"id":1', "headers": {"content-type": "application/json"}},
    "error with status 200": {"status": 200, "body": {"error": {"code": 500, "message": "not now"}}},
    "redirect to a sign-in page": {"status": 302, "body": "", "headers": {"location": "https://login.example/?a=b"}},
    "half of a gzip body": {"mode": "cut", "ending": "gzip", "bytes": 12},
    "half of a chunked body": {"mode": "cut", "ending": "chunk", "bytes": 1},
    "half of the answer": {"mode": "cut", "ending": "text", "bytes": 1},
}
# Nor do these, if the answer should have items.
WITHOUT_ITEMS = {
    "object without items": {"status": 200, "body": {}},
    "no items": {"status": 201, "body": {"items": []}},
    "items without keys": {"status": 201, "body": {"items": [{}]}},
    "nulls for items": {"status": 201, "body": {"items": [None]}},
    "more items than were sent": {"status": 201, "body": {"items": [{"id": 1}, {"id": 2}]}},
    "items that are no list": {"status": 201, "body": {"items": {"id": 1}}},
}
# Enough of both where each path is tried with each.
SOME = ("sign-in page", "half", "half of a gzip body", "half of a chunked body", "half of the answer")

# What is written for each resource: the path of its request, the statement, and where the emulator keeps it.
ITEMS = {
    "assets": ("/assets", "INSERT INTO assets (external_id, name) VALUES ('x', 'X')", "assets"),
    "events": ("/events", "INSERT INTO events (external_id) VALUES ('x')", "events"),
    "timeseries": ("/timeseries", "INSERT INTO timeseries (external_id) VALUES ('x')", "timeseries"),
    "data_sets": ("/datasets", "INSERT INTO data_sets (external_id, name) VALUES ('x', 'X')", "datasets"),
    "labels": ("/labels", "INSERT INTO labels (external_id, name) VALUES ('x', 'X')", "labels"),
    "sequences": (
        "/sequences",
        "INSERT INTO sequences (external_id, columns) VALUES ('x', '[{\"externalId\": \"a\"}]')",
        "sequences",
    ),
    "relationships": (
        "/relationships",
        "INSERT INTO relationships (external_id, source_external_id, source_type, target_external_id, target_type)"
        " VALUES ('x', 'a', 'asset', 'b', 'asset')",
        "relationships",
    ),
    "files": ("/files", "INSERT INTO files (external_id, name) VALUES ('x', 'X')", "files"),
    "instances": ("/models/instances", "INSERT INTO scratch.pump VALUES ('sp', 'x', 'X')", "instances"),
}
ROWS = {
    "datapoints": (
        "/timeseries/data",
        "INSERT INTO datapoints (external_id, \"timestamp\", value) VALUES ('s', '2024-01-01', 1)",
        "datapoints",
    ),
    "string_datapoints": (
        "/timeseries/data",
        "INSERT INTO string_datapoints (external_id, \"timestamp\", value) VALUES ('t', '2024-01-01', 'on')",
        "datapoints",
    ),
    "raw_rows": (
        "/raw/dbs/d/tables/t/rows",
        "INSERT INTO raw_rows (db_name, table_name, key, columns) VALUES ('d', 't', 'x', '{}')",
        "raw",
    ),
    "sequence_rows": (
        "/sequences/data",
        "INSERT INTO sequence_rows (external_id, row_number, columns) VALUES ('q', 1, '{\"a\": 1}')",
        "sequence_rows",
    ),
}
WRITES = ITEMS | ROWS
CASES = [
    pytest.param(*write, answer, id=f"{resource}-{name}")
    for resource, write in WRITES.items()
    for name, answer in (FOREIGN | (WITHOUT_ITEMS if resource in ITEMS else {})).items()
]


@pytest.fixture
def parents(api, scratch, cdf):
    """What the rows refer to."""
    api.create("timeseries", "s")
    api.create("timeseries", "t", isString=True)
    api.post("/sequences", {"externalId": "q", "columns": [{"externalId": "a"}]})
    create_view(api, "Pump", {"name": "text"})
    scratch.table("pump", "space text, external_id text, name text", "view", space="sp", external_id="Pump", version="v1")


def arrived(cdf, resource: str) -> int:
    ours = {"timeseries": ("s", "t"), "sequences": ("q",)}.get(resource, ())
    return len([item for item in dump(cdf, resource) if item.get("externalId") not in ours])


def strike(cdf, path: str, answer: dict, **more) -> None:
    fault(cdf, path, answer.get("mode", "status"), **{key: value for key, value in answer.items() if key != "mode"}, **more)


@pytest.mark.parametrize(("path", "insert", "resource", "answer"), CASES)
def test_write_is_sent_again_until_it_is_acknowledged(session, cdf, parents, path, insert, resource, answer):
    strike(cdf, path, answer, method="post", times=1)
    session.execute(insert)
    assert arrived(cdf, resource) == 1
    answers = [status for status in statuses(cdf, path) if status]
    assert len(answers) >= 2 and answers[-1] in (200, 201, 409), answers


@pytest.mark.parametrize(("path", "insert", "resource"), WRITES.values(), ids=WRITES)
def test_write_that_nobody_acknowledges_is_an_error(session, cdf, parents, path, insert, resource):
    fault(cdf, path, method="post", **PAGE)
    session.execute("SET cdf_fdw.max_retries = 1")
    with refusal("08006", f"POST {path.split('?')[0]}", "HTTP status 200", "text/html", "Sign in") as caught:
        session.execute(insert)
    assert "<" not in caught.value.diag.message_primary
    assert "accepted nothing" not in told(caught.value)
    assert arrived(cdf, resource) == 0
    assert statuses(cdf, path) == [200, 200]


@pytest.mark.parametrize("answer", (FOREIGN | WITHOUT_ITEMS).values(), ids=FOREIGN | WITHOUT_ITEMS)
@pytest.mark.parametrize("applied", ["before", "after"])
def test_item_without_a_key_is_not_sent_again(session, cdf, answer, applied):
    more = {} if "mode" in answer else {"when": applied}
    strike(cdf, "/events", answer, **more)
    with refused("08006", "may have been accepted", "events"):
        session.execute("INSERT INTO events (description) VALUES ('x')")
    assert len(statuses(cdf, "/events")) == 1
    assert len(dump(cdf, "events")) == (1 if "mode" in answer or applied == "after" else 0)


def test_the_message_says_what_came_instead(session, cdf):
    text = f"{cdf.client_secret}\x07\n\tSign in {'very ' * 200}"
    fault(cdf, "/events", status=200, body=text, headers={"content-type": "text/plain; x=y"})
    session.execute("SET cdf_fdw.max_retries = 0")
    with refusal("08006") as caught:
        session.execute("INSERT INTO events (external_id) VALUES ('x')")
    message = caught.value.diag.message_primary
    for part in ("events", "POST /events", "HTTP status 200", "text/plain; x=y", "*** Sign in very"):
        assert part in message, message
    assert cdf.client_secret not in told(caught.value)
    assert not any(ord(letter) < 32 for letter in message) and len(message) < 700


UPDATES = {
    "assets": ("/assets/update", "assets", "UPDATE assets SET description = 'new' WHERE external_id = 'x'"),
    "events": ("/events/update", "events", "UPDATE events SET description = 'new' WHERE external_id = 'x'"),
    "timeseries": ("/timeseries/update", "timeseries", "UPDATE timeseries SET description = 'new' WHERE external_id = 'x'"),
    "upsert": ("/events/update", "events", "INSERT INTO events (external_id, description) VALUES ('x', 'new')"),
}
NEITHER = {name: FOREIGN[name] for name in SOME} | WITHOUT_ITEMS


@pytest.mark.parametrize(("path", "resource", "statement"), UPDATES.values(), ids=UPDATES)
@pytest.mark.parametrize("answer", NEITHER.values(), ids=NEITHER)
def test_update_is_sent_again_until_it_is_acknowledged(session, cdf, api, path, resource, statement, answer):
    api.create(resource, "x")
    strike(cdf, path, answer, times=1)
    assert session.execute(statement).rowcount == 1
    assert stored(cdf, resource, "x")["description"] == "new"
    assert len(statuses(cdf, path)) == 2


DELETES = {
    "events": ("/events/delete", "DELETE FROM events WHERE external_id = 'x'", "events"),
    "assets": ("/assets/delete", "DELETE FROM assets WHERE external_id = 'x'", "assets"),
    "timeseries": ("/timeseries/delete", "DELETE FROM timeseries WHERE external_id = 'x'", "timeseries"),
    "raw_rows": (
        "/raw/dbs/d/tables/t/rows/delete",
        "DELETE FROM raw_rows WHERE db_name = 'd' AND table_name = 't' AND key = 'x'",
        "raw",
    ),
    "datapoints": ("/timeseries/data/delete", "DELETE FROM datapoints WHERE external_id = 's'", "datapoints"),
    "sequence_rows": (
        "/sequences/data/delete",
        "DELETE FROM sequence_rows WHERE external_id = 'q' AND row_number = 1",
        "sequence_rows",
    ),
    "instances": (
        "/models/instances/delete",
        "DELETE FROM scratch.pump WHERE space = 'sp' AND external_id = 'x'",
        "instances",
    ),
}


@pytest.fixture
def written(session, parents, cdf):
    """One of each that can be deleted."""
    for resource in [*DELETES, "string_datapoints"]:
        session.execute(WRITES[resource][1])
    cdf.admin_delete("requests")


@pytest.mark.parametrize(("path", "statement", "resource"), DELETES.values(), ids=DELETES)
@pytest.mark.parametrize("answer", [FOREIGN[name] for name in (*SOME, "no content", "null")], ids=str)
def test_delete_is_sent_again_until_it_is_acknowledged(session, cdf, written, path, statement, resource, answer):
    strike(cdf, path, answer, times=1)
    before = arrived(cdf, resource)
    assert session.execute(statement).rowcount == 1
    assert arrived(cdf, resource) == before - 1
    assert len(statuses(cdf, path)) == 2


@pytest.mark.parametrize(("path", "statement", "resource"), DELETES.values(), ids=DELETES)
def test_delete_that_nobody_acknowledges_is_an_error(session, cdf, written, path, statement, resource):
    fault(cdf, path, **PAGE)
    session.execute("SET cdf_fdw.max_retries = 1")
    before = arrived(cdf, resource)
    with refused("08006", f"POST {path}", "text/html", "Sign in"):
        session.execute(statement)
    assert arrived(cdf, resource) == before


def test_page_that_says_not_found_is_not_cdfs_word(session, cdf, written):
    """A row that a gateway does not find is still there."""
    page = PAGE | {"status": 404}
    fault(cdf, "/raw/dbs/d/tables/t/rows/delete", **page)
    with refused("08001", "Sign in", "base_url"):
        session.execute("DELETE FROM raw_rows WHERE db_name = 'd' AND table_name = 't' AND key = 'x'")
    for path in ("/raw/dbs/d/tables/t/rows/x", "/raw/dbs/d/tables/t/rows", "/sequences/data/list"):
        fault(cdf, path, **page)
    for query in (
        "SELECT * FROM raw_rows WHERE db_name = 'd' AND table_name = 't' AND key = 'x'",
        "SELECT * FROM raw_rows WHERE db_name = 'd' AND table_name = 't'",
        "SELECT * FROM sequence_rows WHERE external_id = 'q'",
    ):
        with refused("08001", "base_url"):
            session.execute(query)


READS = {
    "list": ("/events/list", "SELECT count(*) FROM events"),
    "byids": ("/events/byids", "SELECT count(*) FROM events WHERE external_id = 'x'"),
    "names of references": (
        "/assets/byids",
        "SELECT count(*) FROM (SELECT DISTINCT asset_external_id FROM timeseries WHERE external_id = 'of') x",
    ),
    "series": ("/timeseries/list", "SELECT count(*) FROM datapoints"),
    "points": ("/timeseries/data/list", "SELECT count(*) FROM datapoints WHERE external_id = 's'"),
    "texts": ("/timeseries/data/list", "SELECT count(*) FROM string_datapoints WHERE external_id = 't'"),
    "RAW databases": ("/raw/dbs", "SELECT count(*) FROM raw_rows"),
    "RAW tables": ("/raw/dbs/d/tables", "SELECT count(*) FROM raw_rows WHERE db_name = 'd'"),
    "RAW rows": ("/raw/dbs/d/tables/t/rows", "SELECT count(*) FROM raw_rows WHERE db_name = 'd' AND table_name = 't'"),
    "RAW row": (
        "/raw/dbs/d/tables/t/rows/x",
        "SELECT count(*) FROM raw_rows WHERE db_name = 'd' AND table_name = 't' AND key = 'x'",
    ),
    "sequence rows": ("/sequences/data/list", "SELECT count(*) FROM sequence_rows WHERE external_id = 'q'"),
    "instances": ("/models/instances/list", "SELECT count(*) FROM scratch.pump"),
    "instance": ("/models/instances/byids", "SELECT count(*) FROM scratch.pump WHERE space = 'sp' AND external_id = 'x'"),
}
NOT_READ = {name: FOREIGN[name] for name in (*SOME, "no content", "array")} | {"object without what is read": {"status": 200, "body": {}}}


@pytest.fixture
def readable(session, written, api):
    (asset,) = api.create("assets", "of")
    api.create("timeseries", "of", assetId=asset)


@pytest.mark.parametrize(("path", "query"), READS.values(), ids=READS)
@pytest.mark.parametrize("answer", NOT_READ.values(), ids=NOT_READ)
def test_read_is_asked_again_until_it_is_answered(session, cdf, readable, path, query, answer):
    strike(cdf, path, answer, times=1)
    (count,) = session.execute(query).fetchone()
    assert count == 1
    assert len(statuses(cdf, path)) >= 2


@pytest.mark.parametrize(("path", "query"), READS.values(), ids=READS)
def test_read_that_is_never_answered_is_an_error(session, cdf, readable, path, query):
    fault(cdf, path, **PAGE)
    session.execute("SET cdf_fdw.max_retries = 1")
    with refused("08006", path, "HTTP status 200", "text/html", "Sign in"):
        session.execute(query)


def test_damaged_points_are_not_read_as_points(session, cdf, readable):
    fault(cdf, "/timeseries/data/list", "cut", bytes=10)
    session.execute("SET cdf_fdw.max_retries = 0")
    with refused("08006", "POST /timeseries/data/list", "application/protobuf"):
        session.execute("SELECT * FROM datapoints WHERE external_id = 's'")


def test_reference_is_looked_up_again(session, cdf, api):
    (asset,) = api.create("assets", "pump")
    fault(cdf, "/assets/byids", times=1, **PAGE)
    session.execute("INSERT INTO events (external_id, asset_external_ids) VALUES ('x', '{pump}')")
    assert stored(cdf, "events", "x")["assetIds"] == [asset]
    fault(cdf, "/assets/byids", **PAGE)
    session.execute("SET cdf_fdw.max_retries = 1")
    with refused("08006", "POST /assets/byids", "Sign in"):
        session.execute("INSERT INTO events (external_id, asset_external_ids) VALUES ('y', '{pump}')")
    assert names(cdf, "events") == ["x"]


def test_definition_of_a_view_is_asked_for_again(session, cdf, parents):
    fault(cdf, "/models/views/byids", times=1, **PAGE)
    session.execute("INSERT INTO scratch.pump VALUES ('sp', 'x', 'X')")
    assert names(cdf, "instances") == ["x"]


# Tokens.


TOKENS = {
    "sign-in page": PAGE,
    "token with a line break": {"status": 200, "body": {"access_token": "secret-token\nx", "expires_in": 3600}},
    "token with a header in it": {"status": 200, "body": {"access_token": "secret-token\r\nx-y: z", "expires_in": 3600}},
    "token with a NUL": {"status": 200, "body": {"access_token": "secret-token\0", "expires_in": 3600}},
    "token beyond ASCII": {"status": 200, "body": {"access_token": "secret-tøken", "expires_in": 3600}},
    "empty token": {"status": 200, "body": {"access_token": "", "token_type": "Bearer"}},
    "number for a token": {"status": 200, "body": {"access_token": 7}},
    "other type of token": {"status": 200, "body": {"access_token": "secret-token", "token_type": "mac"}},
    "no token": {"status": 200, "body": {"token_type": "Bearer"}},
    "half": {"status": 200, "body": '{"access_token":"secret-tok', "headers": {"content-type": "application/json"}},
    "form": {"status": 200, "body": "access_token=secret-token&expires_in=3600"},
    "no content": {"status": 204, "body": ""},
    "redirect": {"status": 302, "body": "", "headers": {"location": "https://login.example/"}},
}


@pytest.mark.parametrize("answer", TOKENS.values(), ids=TOKENS)
def test_token_is_looked_at_before_it_is_kept(cluster, emulator, cdf, answer):
    gateway, _ = register_apart(cluster, emulator)
    cdf.admin_post("revoke_tokens")
    with gateway.connect(autocommit=True) as session:
        fault(cdf, TOKEN, times=2, **answer)
        session.execute("SET cdf_fdw.max_retries = 0")
        for _ in range(2):
            with refusal("08006", "identity provider", f"127.0.0.1:{cdf.port}") as caught:
                session.execute("INSERT INTO events (external_id) VALUES ('x')")
            assert "secret-t" not in told(caught.value) and "line 1" not in told(caught.value)
        # The session recovers as soon as there is a token.
        session.execute("INSERT INTO events (external_id) VALUES ('x')")
        session.execute("INSERT INTO events (external_id) VALUES ('y')")
    assert names(cdf, "events") == ["x", "y"]
    assert len(token_requests(cdf)) >= 3


@pytest.mark.parametrize("answer", TOKENS.values(), ids=TOKENS)
def test_token_is_asked_for_again(cluster, emulator, cdf, answer):
    gateway, _ = register_apart(cluster, emulator)
    with gateway.connect(autocommit=True) as session:
        fault(cdf, TOKEN, times=1, **answer)
        session.execute("INSERT INTO events (external_id) VALUES ('x')")
    assert names(cdf, "events") == ["x"]


@pytest.mark.parametrize("life", [-5, 0, 1, 1e300, 10**30, "3600", " 60 ", "soon", "", None, True, [], {}], ids=repr)
def test_odd_lifetime_of_a_token(cluster, emulator, cdf, life):
    gateway, _ = register_apart(cluster, emulator)
    token = cdf._http.post(
        cdf.token_url,
        data={
            "grant_type": "client_credentials",
            "client_id": cdf.client_id,
            "client_secret": cdf.client_secret,
            "scope": cdf.scope,
        },
        timeout=30,
    ).json()["access_token"]
    fault(cdf, TOKEN, status=200, body={"access_token": token, "token_type": "bEARER", "expires_in": life})
    with gateway.connect(autocommit=True) as session:
        for external_id in "abc":
            session.execute("INSERT INTO events (external_id) VALUES (%s)", [external_id])
    assert names(cdf, "events") == ["a", "b", "c"]


def test_registration_names_who_did_not_answer(cluster, emulator, cdf):
    for path, who in ((TOKEN, "identity provider"), ("/token/inspect", "GET /api/v1/token/inspect")):
        cdf.admin_delete("faults")
        fault(cdf, path, **PAGE)
        with cluster.connect() as connection:
            connection.execute("CREATE EXTENSION IF NOT EXISTS cdf_fdw")
            connection.execute("ALTER ROLE postgres SET cdf_fdw.max_retries = 1")
        try:
            with refused("08006", who, f"127.0.0.1:{cdf.port}", "Sign in"):
                register(cluster, emulator)
        finally:
            with cluster.connect() as connection:
                connection.execute("ALTER ROLE postgres RESET cdf_fdw.max_retries")
