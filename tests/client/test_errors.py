"""Every class of error has its SQLSTATE, tells its cause in plain words, and tells no secret."""

from __future__ import annotations

import re
import socket
from urllib.parse import quote_plus

import psycopg
import pytest
from faults import TOKEN, alter, fault, refusal, register, register_apart
from harness import own_cluster
from psycopg import errors, sql
from support import names, refused, requests, told

EVENT = "INSERT INTO events (external_id) VALUES ('x')"


# One of each class. Others are where their causes are tested: throttling, outages and tokens with the faults, values
# with the values, temp_file_limit (53400) with the memory.


@pytest.mark.parametrize(
    ("sqlstate", "statement", "trouble", "words"),
    [
        ("08006", EVENT, {"mode": "drop_before"}, "connection"),
        ("22001", "INSERT INTO events (external_id) VALUES (repeat('x', 256))", None, "255"),
        ("22003", "INSERT INTO events (external_id, start_time) VALUES ('x', '1960-01-01')", None, "start_time"),
        ("22004", "INSERT INTO assets (description) VALUES ('no name')", None, "name"),
        ("22004", "INSERT INTO assets (external_id, description) VALUES ('x', 'no name')", None, "name"),
        ("22023", "INSERT INTO events (external_id, metadata) VALUES ('x', '[]')", None, "metadata"),
        ("23503", "INSERT INTO events (external_id, data_set_id) VALUES ('x', 77)", None, "77"),
        ("23503", "INSERT INTO events (external_id, data_set_external_id) VALUES ('x', 'plant')", None, "plant"),
        ("23503", "INSERT INTO events (external_id, asset_external_ids) VALUES ('x', '{pump}')", None, "pump"),
        ("23503", "INSERT INTO timeseries (external_id, asset_external_id) VALUES ('x', 'pump')", None, "pump"),
        ("23503", "INSERT INTO assets (external_id, name, parent_external_id) VALUES ('x', 'x', 'pump')", None, "pump"),
        ("23503", "INSERT INTO assets (external_id, name, labels) VALUES ('x', 'x', '{blue}')", None, "blue"),
        ("23503", "INSERT INTO events (id, type) VALUES (77, 'x')", None, "77"),
        (
            "23503",
            "INSERT INTO datapoints (external_id, \"timestamp\", value) VALUES ('s', '2024-01-01', 1)",
            None,
            "create_missing",
        ),
        ("28000", EVENT, {"status": 401}, "test-project"),
        ("42501", EVENT, {"status": 403}, "eventsAcl:WRITE"),
        ("08006", EVENT, {"status": 429}, "throttled"),
        ("57014", EVENT, {"mode": "stall"}, "cdf_fdw.flush_timeout"),
        ("08006", EVENT, {"status": 503}, "Fault asked for by a test"),
    ],
)
def test_sqlstates(session, cdf, sqlstate, statement, trouble, words):
    session.execute("SET cdf_fdw.max_retries = 0")
    session.execute("SET cdf_fdw.flush_timeout = '1s'")
    if trouble:
        fault(cdf, "/events", **trouble)
    notices = []
    session.add_notice_handler(notices.append)
    with refusal(sqlstate, words) as caught:
        session.execute(statement)
    assert_plain(told(caught.value))
    assert notices == []
    cdf.admin_delete("faults")
    session.execute("INSERT INTO events (external_id) VALUES ('next')")
    assert names(cdf, "events") == ["next"]


@pytest.mark.parametrize(
    ("sqlstate", "statement", "words"),
    [
        ("HV00D", "CREATE SERVER s FOREIGN DATA WRAPPER cdf_fdw OPTIONS (base_uri 'https://cdf.example')", "base_url"),
        ("HV00J", "CREATE SERVER s FOREIGN DATA WRAPPER cdf_fdw OPTIONS (base_url 'cdf.example')", "base_url"),
        ("HV00J", "CREATE SERVER s FOREIGN DATA WRAPPER cdf_fdw OPTIONS (base_url 'http://cdf.example')", "https"),
        ("HV00J", "CREATE FOREIGN TABLE t (a text) SERVER cdf OPTIONS (resource 'turbines')", "events"),
        ("HV00D", "CREATE FOREIGN TABLE t (a text) SERVER cdf OPTIONS (resorce 'events')", "resource"),
    ],
)
def test_sqlstates_of_options(cluster, gateway, sqlstate, statement, words):
    with cluster.connect() as connection, refusal(sqlstate, words) as caught:
        connection.execute(statement)
    assert_plain(told(caught.value))


def test_sqlstate_of_what_is_not_supported(session, cdf):
    session.execute("BEGIN")
    session.execute(EVENT)
    with refusal("0A000", "PREPARE") as caught:
        session.execute("PREPARE TRANSACTION 'x'")
    assert_plain(told(caught.value))
    assert requests(cdf) == []


def test_sqlstate_of_rows_that_exist(session, cdf, api, scratch):
    scratch.table("strict", "external_id text, type text", "events", on_conflict="error")
    api.create("events", *(f"e{i}" for i in range(15)))
    with refusal("23505", '"e0"', "15 in all", "on_conflict") as caught:
        session.execute("INSERT INTO scratch.strict SELECT 'e' || i, 'new' FROM generate_series(0, 20) i")
    assert len(set(re.findall(r'"e\d+"', told(caught.value)))) == 10
    assert_plain(told(caught.value))


def assert_plain(text: str) -> None:
    """No words of the implementation's."""
    assert not re.search(r"panic|backtrace|unwrap|\.rs\b|RUST_|::|reqwest|hyper|tokio|pgrx", text), text
    assert text == text.strip()


@pytest.mark.parametrize(
    ("base_url", "words"),
    [
        ("http://127.0.0.1:{port}", "refused"),
        ("https://cdf.invalid", "cdf.invalid"),
        ("https://127.0.0.1:{emulator}", "127.0.0.1"),
    ],
    ids=["nobody listens", "no such name", "no TLS"],
)
def test_errors_of_the_network_are_plain(cluster, emulator, cdf, base_url, words):
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
    gateway, server = register_apart(cluster, emulator)
    alter(cluster, "SERVER {}", server, base_url=base_url.format(port=port, emulator=emulator.port))
    with gateway.connect(autocommit=True) as session:
        session.execute("SET cdf_fdw.max_retries = 0")
        with refusal("08001", words) as caught:
            session.execute(EVENT)
    assert_plain(told(caught.value))


# Texts.


@pytest.mark.parametrize(
    ("message", "shown"),
    [
        ("line one\nline two", "line two"),
        ("æøå 漢字 🙂", "æøå 漢字 🙂"),
        ("%s %d %n 100 %", "%s %d %n 100 %"),
        ("before\u0000after", "after"),
        ("x" * 5000, "x" * 1000),
    ],
    ids=["lines", "unicode", "percent signs", "NUL", "long"],
)
def test_words_of_cdf_as_they_are(session, cdf, message, shown):
    fault(cdf, "/events", status=400, body={"error": {"code": 400, "message": message}})
    with refused("22023", shown):
        session.execute(EVENT)


def test_very_long_words_of_cdf_are_cut(session, cdf):
    fault(cdf, "/events", status=400, body={"error": {"code": 400, "message": "x" * 500_000}})
    with refusal("22023", "xxx") as caught:
        session.execute(EVENT)
    assert len(told(caught.value)) < 100_000


def test_names_of_rows_as_they_are(session, cdf):
    fault(cdf, "/events", status=403)
    for name in ('with "quotes"', "with\nlines", "ünïcödé", "%s"):
        with pytest.raises(errors.InsufficientPrivilege) as caught:
            session.execute("INSERT INTO events (external_id) VALUES (%s)", [name])
        assert name in told(caught.value)


def test_errors_are_in_the_encoding_of_the_database(cluster, cdf):
    with cluster.connect() as connection:
        connection.execute("DROP DATABASE IF EXISTS errors_latin1 WITH (FORCE)")
        connection.execute("CREATE DATABASE errors_latin1 ENCODING 'LATIN1' LOCALE 'C' TEMPLATE template0")
    with psycopg.connect(cluster.dsn("errors_latin1"), autocommit=True) as connection:
        connection.execute("CREATE EXTENSION cdf_fdw")
        role, schema = connection.execute(
            "SELECT username, schema FROM cdf_register_credentials(%s, %s, %s, %s, %s)",
            [cdf.token_url, cdf.client_id, cdf.client_secret, cdf.scope, cdf.project],
        ).fetchone()
        connection.execute(
            sql.SQL("SET search_path = {}; SET ROLE {}").format(sql.Identifier(schema), sql.Identifier(role))
        )
        fault(cdf, "/events", status=400, body={"error": {"code": 400, "message": "üblich, aber 漢字"}})
        with refusal("22023", "blich, aber") as caught:
            connection.execute("INSERT INTO events (external_id) VALUES ('é')")
        # Escaped or not, but never the bytes of another encoding.
        assert re.search(r'"(é|\\u\{e9\})"', told(caught.value))
        assert "Ã" not in told(caught.value)
    with cluster.connect() as connection:
        connection.execute("DROP DATABASE errors_latin1")


# Secrets and backtraces.

SECRET = 'h ush+7/"ä=%'
# The forms in which a secret travels: as it is, in a form, and in JSON.
WRITTEN = (SECRET, quote_plus(SECRET), quote_plus(SECRET).replace("+", "%20"), SECRET.replace('"', '\\"'))
TOKENS = re.compile(r"emulated\.[0-9a-f]{6}")


def assert_no_secret(text: str, password: str) -> None:
    for secret in (*WRITTEN, password):
        assert secret not in text
    assert not TOKENS.search(text)
    assert "Bearer" not in text


@pytest.fixture(scope="module")
def talkative(emulator):
    """A cluster that logs what it can, with Rust's backtraces on; a role whose mapping has a secret to look for."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RUST_BACKTRACE", "full")
        patch.delenv("RUST_LIB_BACKTRACE", raising=False)
        with own_cluster("max_prepared_transactions=5") as cluster:
            emulator.reset()
            gateway = register(cluster, emulator)
            with cluster.connect() as connection:
                mapping = sql.SQL("USER MAPPING FOR {} SERVER cdf").format(sql.Identifier(gateway.username))
                connection.execute(
                    sql.SQL("ALTER {} OPTIONS (SET client_id 'c', SET client_secret {})").format(
                        mapping, sql.Literal(SECRET)
                    )
                )
                settings = {
                    "log_statement": "all",
                    "log_min_messages": "debug5",
                    "log_min_error_statement": "debug5",
                    "log_min_duration_statement": "0",
                    "log_error_verbosity": "verbose",
                    "client_min_messages": "debug5",
                }
                for name, value in settings.items():
                    connection.execute(
                        sql.SQL("ALTER ROLE {} SET {} = {}").format(
                            sql.Identifier(gateway.username), sql.Identifier(name), sql.Literal(value)
                        )
                    )
            yield cluster, gateway


PROVOCATIONS = {
    "success": (EVENT, None),
    "refused token": (EVENT, ("/events", {"status": 401})),
    "forbidden": (EVENT, ("/events", {"status": 403})),
    "bad request": (EVENT, ("/events", {"status": 400})),
    "CDF repeats the secret": (EVENT, ("/events", {"status": 400, "body": " ".join(WRITTEN)})),
    "CDF repeats it in JSON": (EVENT, ("/events", {"status": 400, "body": {"error": {"message": " ".join(WRITTEN)}}})),
    "CDF repeats it as a request id": (EVENT, ("/events", {"status": 500, "headers": {"x-request-id": WRITTEN[1]}})),
    "redirect with the secret": (
        EVENT,
        ("/events", {"status": 302, "headers": {"location": f"https://other.example/{WRITTEN[1]}?s={WRITTEN[2]}"}}),
    ),
    "outage": (EVENT, ("/events", {"status": 503})),
    "lost connection": (EVENT, ("/events", {"mode": "drop_before"})),
    "no answer": (EVENT, ("/events", {"mode": "stall"})),
    "identity provider repeats the secret": (
        EVENT,
        (TOKEN, {"status": 401, "body": {"error": "invalid_client", "error_description": f"not {SECRET}"}}),
    ),
    "identity provider repeats the form": (EVENT, (TOKEN, {"status": 400, "body": f"client_secret={WRITTEN[1]}"})),
    "identity provider fails": (EVENT, (TOKEN, {"status": 500, "body": f"client_secret={WRITTEN[1]}"})),
    "identity provider is silent": (EVENT, (TOKEN, {"mode": "stall"})),
    "wrong value": ("INSERT INTO events (external_id) VALUES (repeat('x', 256))", None),
    "unknown reference": ("INSERT INTO events (external_id, data_set_external_id) VALUES ('x', 'y')", None),
    "plan": (f"EXPLAIN (VERBOSE) {EVENT}", None),
    "prepare": (f"BEGIN; {EVENT}; PREPARE TRANSACTION 'x'", None),
}


@pytest.mark.parametrize(("statement", "trouble"), PROVOCATIONS.values(), ids=PROVOCATIONS)
def test_no_secret_and_no_backtrace_anywhere(talkative, cdf, statement, trouble):
    cluster, gateway = talkative
    cdf.admin_post("clients", {"client_id": "c", "client_secret": SECRET, "projects": [cdf.project]})
    if trouble:
        path, fields = trouble
        fault(cdf, path, **fields)
    before = len(cluster.log())
    texts = []
    with gateway.connect(autocommit=True) as session:
        session.add_notice_handler(lambda notice: texts.append(notice.message_primary or ""))
        session.execute("SET cdf_fdw.max_retries = 1")
        session.execute("SET cdf_fdw.flush_timeout = '700ms'")
        try:
            result = session.execute(statement)
            texts += [str(row) for row in result.fetchall()] if result.description else []
        except psycopg.Error as error:
            assert_plain(told(error))
            texts.append(told(error))
    logged = cluster.log()[before:]
    assert statement.split()[0] in logged
    for text in (*texts, logged):
        assert_no_secret(text, gateway.password)
        assert "panicked" not in text and "backtrace" not in text.lower()


def test_the_server_has_backtraces_on(talkative):
    """Or the test above would prove nothing."""
    cluster, _ = talkative
    postmaster = (cluster.data_dir / "postmaster.pid").read_text().split()[0]
    with open(f"/proc/{postmaster}/environ", "rb") as environment:
        assert b"RUST_BACKTRACE=full" in environment.read().split(b"\0")


def test_activity_of_a_load_shows_no_secret(cluster, gateway, session, cdf):
    """To a role that may see everybody's statements."""
    with cluster.connect() as connection:
        connection.execute("DROP ROLE IF EXISTS errors_watcher")
        connection.execute("CREATE ROLE errors_watcher; GRANT pg_monitor TO errors_watcher")
        session.execute(EVENT)
        connection.execute("SET ROLE errors_watcher")
        seen = str(connection.execute("SELECT * FROM pg_stat_activity").fetchall())
        seen += str(connection.execute("SELECT * FROM pg_foreign_server").fetchall())
        seen += str(connection.execute("SELECT * FROM pg_user_mappings").fetchall())
        connection.execute("RESET ROLE; DROP ROLE errors_watcher")
    assert EVENT in seen
    assert cdf.client_secret not in seen
    assert gateway.password not in seen


def test_errors_of_the_planner_say_what_they_say_without_the_library(session, scratch):
    """Whatever a session plans comes through the library."""
    scratch.execute("CREATE FUNCTION share(parts int) RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT 1 / parts'")
    with refused("22012") as caught:
        session.execute("SELECT scratch.share(0)")
    assert caught.value.diag.context.startswith('SQL function "share"')
    with refused("0A000") as caught:
        session.execute("DELETE FROM events WHERE ctid = '(0,1)'")
    assert caught.value.diag.message_hint
