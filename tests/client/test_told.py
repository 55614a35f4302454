"""MESSAGE alone, in one short line, tells the client what happened. Many clients show nothing else."""

from __future__ import annotations

from itertools import product

import psycopg
import pytest
from faults import TOKEN, alter, fault, refusal, register, register_apart
from support import dump, names, refused, requests, told
from test_views import create_view

LONGEST = 400
ROW = "FROM generate_series(1, 3) i"

# What is written of each shape: where to, three rows of it, what the first is called, and what the three are.
SHAPES = {
    "items": ("events", "/events", f"INSERT INTO events (external_id) SELECT 'k' || i {ROW}", '"k1"', "3 events"),
    "items without a key": (
        "events",
        "/events",
        f"INSERT INTO events (description) SELECT 'k' || i {ROW}",
        '"k1"',
        "3 events",
    ),
    "RAW rows": (
        "raw_rows (d.t)",
        "/raw/dbs/d/tables/t/rows",
        f"INSERT INTO raw_rows (db_name, table_name, key, columns) SELECT 'd', 't', 'k' || i, '{{}}' {ROW}",
        '"k1"',
        "3 raw_rows",
    ),
    "datapoints": (
        "datapoints",
        "/timeseries/data",
        f"INSERT INTO datapoints (external_id, \"timestamp\", value) SELECT 'k' || i, '2024-01-01', i {ROW}",
        '"k',
        "3 datapoints",
    ),
    "rows of sequences": (
        "sequence_rows",
        "/sequences/data",
        f"INSERT INTO sequence_rows (external_id, row_number, columns) SELECT 'q', i, '{{\"a\": 1}}' {ROW}",
        '"q" row 1',
        "3 sequence_rows",
    ),
    "instances": (
        "view sp:Pump/v1",
        "/models/instances",
        f"INSERT INTO scratch.pump SELECT 'sp', 'k' || i, 'x' {ROW}",
        '("sp", "k1")',
        "3 nodes",
    ),
}
PAGE = {"body": "<html><title>Sign in</title> to go on</html>", "headers": {"content-type": "text/html"}}
NO = {"error": {"code": 400, "message": "No\n such\tluck."}}
# What goes wrong: how, the SQLSTATE, what MESSAGE says of it, what is said of the rows, whether they may have arrived.
KINDS = {
    "refused": ({"status": 400, "body": NO}, "22023", "No such luck", "refused", False),
    "forbidden": ({"status": 403}, "42501", "Fault asked for by a test: 403", "refused", False),
    "missing reference": (
        {"status": 400, "body": {"error": {"code": 400, "message": "Invalid dataSetIds: 77"}}},
        "23503",
        "Invalid dataSetIds: 77",
        "refused",
        False,
    ),
    "throttled": ({"status": 429}, "08006", "throttled", "under way", False),
    "server error": ({"status": 503}, "08006", "Fault asked for by a test: 503", "under way", True),
    "timed out in CDF": ({"status": 408, "when": "after"}, "08006", "Fault asked for by a test: 408", "under way", True),
    "proxy's page": ({"status": 200} | PAGE, "08006", "Sign in to go on", "under way", True),
    "proxy's refusal": ({"status": 403} | PAGE, "08006", "Sign in to go on", "under way", False),
    "proxy's plain refusal": ({"status": 400, "body": "No such luck"}, "08006", "No such luck", "under way", False),
    "connection lost": ({"mode": "drop_after"}, "08006", "broke", "under way", True),
    "no answer": ({"mode": "stall"}, "08006", "cdf_fdw.request_timeout", "under way", True),
    "no endpoint": ({"status": 404}, "08001", "test-project", "under way", False),
    "no endpoint, says a page": ({"status": 404} | PAGE, "08001", "test-project", "under way", False),
}
CASES = [pytest.param(*shape, *kind, id=f"{s}-{k}") for (s, shape), (k, kind) in product(SHAPES.items(), KINDS.items())]


@pytest.fixture
def parents(api, scratch, cdf):
    """What the rows refer to."""
    api.create("timeseries", "k1", "k2", "k3")
    api.post("/sequences", {"externalId": "q", "columns": [{"externalId": "a", "valueType": "DOUBLE"}]})
    create_view(api, "Pump", {"name": "text"})
    scratch.table("pump", "space text, external_id text, name text", "view", space="sp", external_id="Pump", version="v1")


def message(error: psycopg.Error) -> str:
    """MESSAGE, which is one line, and not a long one."""
    text = error.diag.message_primary
    assert text.isprintable(), text
    assert len(text) <= LONGEST, text
    return text


@pytest.mark.parametrize(
    ("resource", "path", "insert", "first", "rows", "trouble", "sqlstate", "words", "fate", "unknown"), CASES
)
def test_message_tells_all(
    session, cdf, parents, resource, path, insert, first, rows, trouble, sqlstate, words, fate, unknown
):
    fault(cdf, path, **({"mode": "status"} | trouble))
    session.execute("SET cdf_fdw.max_retries = 1")
    session.execute("SET cdf_fdw.max_concurrent_requests = 1")
    session.execute("SET cdf_fdw.request_timeout = '300ms'")
    with pytest.raises(psycopg.Error) as caught, session.transaction():
        session.execute("INSERT INTO assets (external_id, name) VALUES ('a', 'A'), ('b', 'B')")
        session.execute(insert)
    error, text = caught.value, message(caught.value)
    assert error.sqlstate == sqlstate, told(error)
    assert text.startswith(f"{resource}"), text
    assert words in text
    assert f"{fate} 3 " in text and first in text, text
    assert "2 of 2 assets accepted" in text, text
    assert ("3 more may have been accepted" in text) == unknown, text
    assert ("may have been accepted" in error.diag.message_detail) == unknown, told(error)
    answered = [entry["request_id"] for entry in requests(cdf, path) if entry["status"]]
    if answered:
        request = text.rpartition("x-request-id ")[2]
        assert request in answered, text
        assert request in error.diag.message_detail
    else:
        assert "x-request-id" not in text
    assert error.diag.message_hint, "there is always something to do"
    assert error.sqlstate[:2] not in ("53", "58")
    if words == "test-project":
        assert "base_url" in error.diag.message_hint and "project" in error.diag.message_hint
        assert len(requests(cdf, path)) == 1, "one answer says it all"
    if "Sign in" in words and sqlstate != "08001":
        assert "Acl" not in told(error) and "proxy" in error.diag.message_hint


@pytest.mark.parametrize(("resource", "path", "insert", "first", "rows"), SHAPES.values(), ids=SHAPES)
def test_unknown_outcomes_are_never_nothing(session, cdf, parents, resource, path, insert, first, rows):
    """An attempt without an answer may have been applied, whatever comes after it."""
    session.execute("SET cdf_fdw.max_retries = 2")
    for then in ({"status": 429}, {"status": 403}, {"status": 403} | PAGE, {"mode": "drop_before"}):
        cdf.admin_delete("faults")
        fault(cdf, path, "drop_after", times=1)
        fault(cdf, path, after=1, **({"mode": "status"} | then))
        with pytest.raises(psycopg.Error) as caught:
            session.execute(insert)
        assert f"{rows.split()[0]} of {rows} may have been accepted" in message(caught.value), (then, told(caught.value))
        assert "accepted nothing" not in told(caught.value) and "nothing accepted" not in told(caught.value)


def test_key_that_is_very_long(session, cdf):
    fault(cdf, "/events", status=400, body={"error": {"code": 400, "message": "ø" * 3000}})
    with pytest.raises(psycopg.Error) as caught:
        session.execute("INSERT INTO events (external_id) VALUES (repeat('é', 255))")
    text = message(caught.value)
    assert text.startswith("events: CDF refused POST /events: øøø") and "refused row \"ééé" in text
    assert "nothing accepted" in text and "x-request-id " in text
    assert "ø" * 3000 in caught.value.diag.message_detail and "é" * 255 in caught.value.diag.message_detail


def test_conflict(session, cdf, api, scratch):
    scratch.table("strict", "external_id text, type text", "events", on_conflict="error")
    api.create("events", "e3", "e4")
    with refusal("23505") as caught:
        session.execute("INSERT INTO scratch.strict SELECT 'e' || i FROM generate_series(1, 5) i")
    text = message(caught.value)
    assert text.startswith("events: the event exists in CDF already; refused 2 rows, first \"e3\"; nothing accepted; ")
    assert requests(cdf, "/events")[-1]["request_id"] in text


@pytest.mark.parametrize(
    ("statement", "words"),
    [
        (
            "INSERT INTO datapoints (external_id, \"timestamp\", value) VALUES ('nix', '2024-01-01', 1)",
            ("datapoints: the time series does not exist", 'refused series "nix"'),
        ),
        (
            "INSERT INTO events (external_id, data_set_external_id) VALUES ('x', 'plant')",
            ('events: data set does not exist in CDF: "plant"', 'refused row "x"'),
        ),
        (
            "INSERT INTO events (id, type) VALUES (77, 'x')",
            ("events: no event has this id", "refused row 77"),
        ),
        (
            "INSERT INTO assets (external_id, description) VALUES ('x', 'y')",
            ("assets: a new asset needs a value for name", 'refused row "x"'),
        ),
        (
            "INSERT INTO assets (external_id, name, parent_external_id) VALUES ('x', 'x', 'y'), ('y', 'y', 'x')",
            ("assets: parent_external_id forms a cycle", "refused 2 rows, first "),
        ),
    ],
)
def test_rows_that_are_refused_for_what_cdf_has(session, cdf, statement, words):
    with pytest.raises(psycopg.Error) as caught:
        session.execute(statement)
    text = message(caught.value)
    assert all(word in text for word in words), text
    assert "nothing accepted" in text
    if "cycle" not in text:
        assert f"x-request-id {requests(cdf)[-1]['request_id']}" in text


def test_row_that_is_refused_by_its_statement_is_named(session, cdf):
    with refusal("22001") as caught:
        session.execute("INSERT INTO events (external_id, type) VALUES ('a', 'x'), ('b', repeat('x', 100))")
    assert 'column "type" of events' in message(caught.value)
    assert message(caught.value).endswith('; row external_id "b"')


def test_created_series_are_told(session, cdf, scratch, parents):
    """They stay, although no point was accepted."""
    scratch.table("points", 'external_id text, "timestamp" timestamptz, value float8', "datapoints", create_missing="true")
    fault(cdf, "/timeseries/data", status=403, after=1)
    with refusal("42501") as caught:
        session.execute("INSERT INTO scratch.points VALUES ('new', '2024-01-01', 1), ('newer', '2024-01-01', 1)")
    assert "no row accepted, 2 time series created" in message(caught.value)
    assert "accepted nothing" not in told(caught.value)
    assert {"new", "newer"} <= set(names(cdf, "timeseries"))


def test_several_requests_that_fail_are_counted_together(session, cdf):
    fault(cdf, "/events", "delay", delay_ms=300)
    fault(cdf, "/events", status=403)
    session.execute("SET cdf_fdw.max_concurrent_requests = 4")
    with refusal("42501") as caught:
        session.execute("INSERT INTO events (external_id) SELECT 'e' || i FROM generate_series(1, 4000) i")
    assert "refused 4000 rows, first \"e" in message(caught.value)


def test_rows_that_were_not_looked_at_are_not_counted(session, cdf):
    fault(cdf, "/events", status=400)
    with refusal("22023") as caught:
        session.execute("INSERT INTO events (external_id) SELECT 'e' || i FROM generate_series(1, 1000) i")
    assert 'refused at least 10 rows, first "e1"' in message(caught.value)


def test_keyless_event_that_was_applied_and_answered_408(session, cdf):
    fault(cdf, "/events", status=408, when="after")
    with refusal("08006", "may create 1 row without external_id once more") as caught:
        session.execute("INSERT INTO events (description) VALUES ('x')")
    assert "nothing acknowledged, 1 of 1 events may have been accepted" in message(caught.value)
    assert "accepted nothing" not in told(caught.value)
    assert len(dump(cdf, "events")) == 1


# Tokens, and who answers.


@pytest.mark.parametrize(
    ("answer", "sqlstate", "words"),
    [
        ({"status": 401, "body": {"error": "invalid_client", "error_description": "Bad.\r\nTrace: 9"}}, "28000", "invalid_client: Bad"),
        ({"status": 404, "body": "no such tenant"}, "28000", "is token_url correct?"),
        ({"status": 404} | PAGE, "08001", "Sign in"),
        ({"status": 403} | PAGE, "08006", "Sign in"),
        ({"status": 503}, "08006", "identity provider"),
        ({"status": 429}, "08006", "throttled"),
        ({"status": 200} | PAGE, "08006", "Sign in"),
        ({"mode": "drop_before"}, "08006", "identity provider"),
    ],
)
def test_tokens(session, cdf, answer, sqlstate, words):
    fault(cdf, TOKEN, **({"mode": "status"} | answer))
    session.execute("SET cdf_fdw.max_retries = 1")
    with refusal(sqlstate) as caught:
        session.execute("INSERT INTO events (external_id) VALUES ('a'), ('b')")
    text = message(caught.value)
    assert text.startswith("events: ") and words in text
    assert 'under way 2 rows, first "a"; nothing accepted' in text
    assert caught.value.diag.message_hint


READS = {
    "list": ("/events/list", "SELECT * FROM events", "events"),
    "points": ("/timeseries/data/list", "SELECT * FROM datapoints WHERE external_id = 'k1'", "datapoints"),
    "rows of sequences": ("/sequences/data/list", "SELECT * FROM sequence_rows WHERE external_id = 'q'", "sequence_rows"),
    "RAW databases": ("/raw/dbs", "SELECT * FROM raw_rows", "raw_rows"),
    "instances": ("/models/instances/list", "SELECT * FROM scratch.pump", "view sp:Pump/v1"),
}


@pytest.mark.parametrize(("path", "query", "resource"), READS.values(), ids=READS)
def test_reads(session, cdf, parents, path, query, resource):
    session.execute("SET cdf_fdw.max_retries = 0")
    for trouble, sqlstate, words in (
        ({"status": 403}, "42501", "Fault asked for by a test: 403"),
        ({"status": 403} | PAGE, "08006", "Sign in"),
        ({"status": 404}, "08001", "test-project"),
        ({"status": 429}, "08006", "throttled"),
        ({"status": 500}, "08006", "failed"),
        ({"mode": "drop_before"}, "08006", "broke"),
    ):
        cdf.admin_delete("faults")
        fault(cdf, path, **({"mode": "status"} | trouble))
        with refusal(sqlstate) as caught:
            session.execute(query)
        text = message(caught.value)
        assert text.startswith(resource) and words in text, text
        assert "accepted" not in text, text
        assert caught.value.diag.message_hint
        answer = requests(cdf, path)[-1]
        assert (f"x-request-id {answer['request_id']}" in text) == bool(answer["status"]), text


def test_wrong_base_url_is_told_at_once(cluster, emulator, cdf):
    """A 404 at that address does not count as an empty table."""
    gateway, server = register_apart(cluster, emulator)
    alter(cluster, "SERVER {}", server, base_url=f"{cdf.url}/elsewhere")
    for statement in (
        "INSERT INTO assets (external_id, name) SELECT i, i FROM generate_series(1, 1000) i",
        "INSERT INTO raw_rows (db_name, table_name, key, columns) VALUES ('d', 't', 'x', '{}')",
        "SELECT * FROM raw_rows WHERE db_name = 'd' AND table_name = 't'",
        "SELECT * FROM raw_rows WHERE db_name = 'd' AND table_name = 't' AND key = 'x'",
        "DELETE FROM raw_rows WHERE db_name = 'd' AND table_name = 't' AND key = 'x'",
        "SELECT * FROM sequence_rows WHERE external_id = 'q'",
        "SELECT * FROM events",
    ):
        before = len(cdf.admin_get("requests")["items"])
        with gateway.connect(autocommit=True) as session, refusal("08001", "base_url", cdf.project) as caught:
            session.execute(statement)
        message(caught.value)
        # A token, the request, and perhaps whether there is anything at all.
        assert len(cdf.admin_get("requests")["items"]) - before <= 3


def test_what_cdf_does_not_have_is_no_wrong_address(session, cdf, api):
    api.create_raw("d", "t", x={})
    for query in (
        "SELECT * FROM raw_rows WHERE db_name = 'd' AND table_name = 'u'",
        "SELECT * FROM raw_rows WHERE db_name = 'e' AND table_name = 't'",
        "SELECT * FROM raw_rows WHERE db_name = 'd' AND table_name = 't' AND key = 'y'",
        "SELECT * FROM sequence_rows WHERE external_id = 'nix'",
        "SELECT * FROM datapoints WHERE external_id = 'nix'",
        "SELECT * FROM events WHERE external_id = 'nix'",
    ):
        assert session.execute(query).fetchall() == []
    # Whatever words CDF has for it.
    fault(cdf, "/raw/dbs/d/tables/t/rows/x", status=404, body={"error": {"code": 404, "message": "Not found."}})
    query = "SELECT * FROM raw_rows WHERE db_name = 'd' AND table_name = 't' AND key = 'x'"
    assert session.execute(query).fetchall() == []


BASE_URLS = {
    "https://cdf.example/api/v1": "https://cdf.example",
    "https://cdf.example/api/v1/projects/p/": "https://cdf.example",
    "https://cdf.example/gateway/api/v1": "https://cdf.example/gateway",
    "https://cdf.example/.default": "https://cdf.example",
    "https://cdf.example?project=p": "https://cdf.example",
    "https://acme.fusion.cognite.com/p?cluster=az.cdf.example": "https://az.cdf.example",
}


@pytest.mark.parametrize(("given", "right"), BASE_URLS.items())
def test_base_url_that_is_somewhere_in_the_api(cluster, gateway, emulator, given, right):
    with cluster.connect() as connection:
        statement = "FOREIGN DATA WRAPPER cdf_fdw OPTIONS (base_url '{}')"
        with refusal("HV00J") as caught:
            connection.execute(f"CREATE SERVER told {statement.format(given)}")
        assert "base_url" in message(caught.value)
        assert f"{right}." in caught.value.diag.message_hint
        connection.execute(f"CREATE SERVER told {statement.format(right)}")
        try:
            with refusal("HV00J", f"{right}."):
                connection.execute(f"ALTER SERVER told OPTIONS (SET base_url '{given}')")
        finally:
            connection.execute("DROP SERVER told")
    with refusal("HV00J", f"{right}."):
        register(cluster, emulator, "told", base_url=given)


@pytest.mark.parametrize(
    ("path", "query"),
    [
        ("/events/list", "SELECT * FROM events"),
        ("/timeseries/data/list", "SELECT * FROM datapoints WHERE external_id = 's'"),
        ("/raw/dbs/d/tables/t/rows", "SELECT * FROM raw_rows WHERE db_name = 'd' AND table_name = 't'"),
    ],
)
def test_cursor_that_has_expired(session, cdf, api, path, query):
    api.create("timeseries", "s")
    load = {
        "/events/list": "INSERT INTO events (external_id) SELECT i FROM generate_series(1, 1500) i",
        "/timeseries/data/list": "INSERT INTO datapoints (external_id, \"timestamp\", value)"
        " SELECT 's', to_timestamp(i), i FROM generate_series(1, 100500) i",
        "/raw/dbs/d/tables/t/rows": "INSERT INTO raw_rows (db_name, table_name, key, columns)"
        " SELECT 'd', 't', i, '{}' FROM generate_series(1, 10500) i",
    }
    session.execute(load[path])
    gone = {"error": {"code": 400, "message": "Cursor has expired"}}
    method = "GET" if path.startswith("/raw") else "POST"
    fault(cdf, path, status=400, body=gone, after=1, method=method)
    with refusal("24000", "Run the query again") as caught:
        session.execute(query)
    assert "Cursor has expired" in message(caught.value)
    # Without a cursor it is an ordinary refusal.
    cdf.admin_delete("faults")
    fault(cdf, path, status=400, body=gone, method=method)
    with refused("22023", "Cursor has expired"):
        session.execute(query)
