"""A client secret is masked wherever the server shows statements. Nothing else in a statement is masked, and no error is suppressed."""

from __future__ import annotations

import os
import subprocess
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest
from harness import own_cluster
from psycopg import errors
from sites import SECRET, Site, literal, statement

MASKED = "*" * len(SECRET)
MARK = "e1ab77"
"""What is to be seen of a statement."""


def call(connection, **changes) -> str:
    """A call that is refused without asking anybody, as one text."""
    arguments = {
        "token_url": "http://example.com/t",
        "client_id": MARK,
        "client_secret": SECRET,
        "scope": "s",
        "project": "p",
        "base_url": "https://example.com",
    }
    return literal(connection, arguments | changes)


MAPPING = f"SERVER s OPTIONS (project '{MARK}', token_url 'https://example.com/t', client_id 'c', client_secret '{SECRET}')"


def create(connection):
    connection.execute(f"CREATE USER MAPPING FOR PUBLIC {MAPPING}")


def create_fails(connection):
    connection.execute(f"CREATE USER MAPPING FOR PUBLIC {MAPPING[:-1]}, nothing 'x')")


def alter(connection):
    connection.execute(f"ALTER USER MAPPING FOR PUBLIC SERVER s OPTIONS (SET Client_Secret E'{SECRET}') -- {MARK}")


def misplaced(connection):
    connection.execute(f"CREATE SERVER {MARK} FOREIGN DATA WRAPPER cdf_fdw OPTIONS (client_secret '{SECRET}')")


def several(connection):
    connection.execute(f"SELECT 1; CREATE USER MAPPING FOR PUBLIC {MAPPING}; SELECT 2")


def several_with_a_late_error(connection):
    connection.execute(f"CREATE USER MAPPING FOR PUBLIC {MAPPING}; SELECT 1 / 0")


def called(connection):
    connection.execute(call(connection))


def called_positionally(connection):
    connection.execute(f"SELECT cdf_register_credentials('http://example.com/t', '{MARK}', $${SECRET}$$, 's', 'p', 'https://x')")


def concatenated(connection):
    connection.execute(call(connection).replace(f"'{SECRET}'", f"('{SECRET}' || '{SECRET}')"))


def with_parameters(connection):
    arguments = {"token_url": "http://example.com/t", "client_id": MARK, "client_secret": SECRET, "scope": "s", "project": "p"}
    connection.execute(*statement(arguments))


def extended_protocol(connection):
    # A literal, but parsed, bound and executed by messages of their own.
    connection.execute(call(connection), prepare=True)


def prepared(connection):
    connection.execute(
        "PREPARE p (text, text) AS SELECT cdf_register_credentials('http://example.com/t', $2, $1, 's', 'p', 'https://x')"
    )
    connection.execute(f"EXECUTE p ('{SECRET}', '{MARK}')")


def prepared_with_the_secret(connection):
    connection.execute(f"PREPARE p AS {call(connection)}")
    connection.execute("EXECUTE p")


def explained(connection):
    connection.execute(f"EXPLAIN (VERBOSE) {call(connection)}")


def created_as(connection):
    connection.execute(f"CREATE TEMP TABLE t AS {call(connection)}")


def copied(connection):
    with connection.cursor() as cursor, cursor.copy(f"COPY ({call(connection)}) TO STDOUT") as copy:
        list(copy)


def by_cursor(connection):
    with connection.transaction():
        connection.execute(f"DECLARE c CURSOR FOR {call(connection)}")
        connection.execute("FETCH c")


def in_block(connection):
    connection.execute(f"DO $block$ BEGIN PERFORM * FROM ({call(connection)}) x; END $block$")


def dynamic(connection):
    connection.execute(f"DO $block$ BEGIN EXECUTE 'CREATE USER MAPPING FOR PUBLIC {MAPPING.replace(chr(39), chr(39) * 2)}'; END $block$")


def formatted(connection):
    connection.execute(
        f"DO $block$ BEGIN EXECUTE format('CREATE USER MAPPING FOR PUBLIC SERVER s OPTIONS (project ''{MARK}'', "
        f"token_url ''https://example.com/t'', client_id ''c'', client_secret %L)', '{SECRET}'); END $block$"
    )


def quoted_and_commented(connection):
    connection.execute(
        f"SELECT public . /* x */ \"cdf_register_credentials\" -- y\n ('http://example.com/t', '{MARK}', '{SECRET}', 's', 'p')"
    )


def with_backslashes(connection):
    connection.execute("SET standard_conforming_strings = off")
    connection.execute("SET escape_string_warning = off")
    connection.execute(f"SELECT 'it\\'s', cdf_register_credentials('http://x/t', '{MARK}\\'', '{SECRET}', 's', 'p')")


def in_function(connection):
    text = call(connection).replace("'", "''")
    connection.execute(
        f"CREATE FUNCTION pg_temp.set_up() RETURNS void LANGUAGE plpgsql AS 'BEGIN EXECUTE $x${text}$x$; END'"
    )
    connection.execute("SELECT pg_temp.set_up()")


def unterminated(connection):
    connection.execute(f"ALTER USER MAPPING FOR PUBLIC SERVER {MARK} OPTIONS (SET client_secret '{SECRET})")


def half_quoted(connection):
    connection.execute(f"ALTER USER MAPPING FOR PUBLIC SERVER {MARK} OPTIONS (SET client_secret {SECRET}', SET scope 'x')")


def without_quotes(connection):
    connection.execute(f"ALTER USER MAPPING FOR PUBLIC SERVER {MARK} OPTIONS (SET client_secret \"{SECRET}\")")


def one_too_many(connection):
    connection.execute(f"ALTER USER MAPPING FOR {MARK} SERVER s OPTIONS (SET client_secret = '{SECRET}')")


WAYS = [
    create, create_fails, alter, misplaced, several, several_with_a_late_error, called, called_positionally, concatenated,
    with_parameters, extended_protocol, prepared, prepared_with_the_secret, explained, created_as, copied, by_cursor,
    in_block, dynamic, formatted, quoted_and_commented, with_backslashes, in_function, unterminated, half_quoted, without_quotes, one_too_many,
]  # fmt: skip

LOG_EVERYTHING = (
    "log_statement=all",
    "log_min_duration_statement=0",
    "log_parameter_max_length=-1",
    "log_parameter_max_length_on_error=-1",
    "debug_print_parse=on",
    "debug_print_plan=on",
)
AUDIT = (
    "pg_stat_statements.track=all",
    "pg_stat_statements.track_planning=on",
    "pgaudit.log=all",
    "pgaudit.log_parameter=on",
    "auto_explain.log_min_duration=0",
    "auto_explain.log_nested_statements=on",
    "auto_explain.log_verbose=on",
)
ORDERS = {
    "before": "pg_stat_statements,pgaudit,auto_explain,cdf_fdw",
    "after": "cdf_fdw,auto_explain,pgaudit,pg_stat_statements",
    "by the session": "auto_explain,pg_stat_statements,pgaudit",
}


def missing(libraries: str) -> list[str]:
    """Those that this PostgreSQL does not have."""
    command = [os.environ.get("PG_CONFIG", "pg_config"), "--pkglibdir"]
    directory = Path(subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip())
    return [name for name in libraries.split(",") if not (directory / f"{name}.so").exists()]


@pytest.fixture(scope="module", params=ORDERS)
def audited(request, emulator):
    """A cluster that logs and records everything."""
    libraries = ORDERS[request.param]
    lacking = missing(libraries)
    if lacking:
        pytest.skip(f"not installed: {', '.join(lacking)}")
    with own_cluster(f"shared_preload_libraries={libraries}", *LOG_EVERYTHING, *AUDIT) as cluster:
        with cluster.connect() as connection:
            connection.execute("CREATE EXTENSION cdf_fdw")
            connection.execute("CREATE EXTENSION pg_stat_statements")
            connection.execute("CREATE SERVER s FOREIGN DATA WRAPPER cdf_fdw OPTIONS (base_url 'https://example.com')")
        yield Site(cluster, emulator, "postgres")


def shows_secret(text: str) -> bool:
    """Also as the list of bytes that a printed tree has for a constant."""
    as_bytes = " ".join(str(byte) for byte in SECRET.encode())
    return SECRET in text or as_bytes in " ".join(text.split())


@pytest.mark.parametrize("way", WAYS)
def test_no_record_of_a_statement_has_the_secret(audited, way):
    with audited.superuser() as other, audited.superuser() as connection:
        other.execute("SELECT pg_stat_statements_reset()")
        other.execute("DROP USER MAPPING IF EXISTS FOR PUBLIC SERVER s")
        if way is alter:
            other.execute(f"CREATE USER MAPPING FOR PUBLIC {MAPPING.replace(SECRET, 'x')}")
        with audited.logged() as log:
            try:
                way(connection)
            except psycopg.Error as error:
                assert connection.info.transaction_status == psycopg.pq.TransactionStatus.IDLE, error
        seen = other.execute("SELECT query FROM pg_stat_activity WHERE pid = %s", [connection.info.backend_pid])
        (activity,) = seen.fetchone()
        recorded = [row[0] for row in other.execute("SELECT query FROM pg_stat_statements").fetchall()]
    assert MARK in log[0]
    assert not shows_secret(log[0]), [line for line in log[0].splitlines() if shows_secret(line)]
    assert not shows_secret(activity)
    assert not any(shows_secret(query) for query in recorded), recorded


def test_statistics_keep_a_masked_text(audited):
    """The statement is recorded, with all but the secret."""
    with audited.superuser() as connection:
        connection.execute("SELECT pg_stat_statements_reset()")
        connection.execute("DROP USER MAPPING IF EXISTS FOR PUBLIC SERVER s")
        with audited.logged() as log:
            create(connection)
        (recorded,) = connection.execute(
            "SELECT query FROM pg_stat_statements WHERE query LIKE 'CREATE USER MAPPING%'"
        ).fetchone()
    masked = f"CREATE USER MAPPING FOR PUBLIC {MAPPING}".replace(SECRET, MASKED)
    assert recorded == masked
    assert f"statement: {masked}" in log[0]
    audit = [line for line in log[0].splitlines() if "AUDIT: " in line]
    assert any(masked in line for line in audit), audit


def test_a_secret_is_not_recorded_when_the_statistics_are_reset_meanwhile(audited):
    """Then the text of the execution is recorded, not the one of the analysis, in which constants are parameters."""
    with audited.superuser() as connection:
        text = call(connection).replace("SELECT *", "SELECT pg_stat_statements_reset() IS NULL, *")
        with pytest.raises(psycopg.Error):
            connection.execute(text)
        connection.execute(
            "SELECT pg_stat_statements_reset(), f.client_secret FROM (SELECT 1) x, LATERAL (SELECT 'x' AS client_secret) f"
        )
        recorded = [row[0] for row in connection.execute("SELECT query FROM pg_stat_statements").fetchall()]
    assert not any(shows_secret(query) for query in recorded), recorded


def test_values_that_code_passes_on(audited):
    """pgaudit records them with the statement that they are for."""
    with audited.superuser() as connection:
        connection.execute("SET debug_print_parse = off")
        connection.execute("SET debug_print_plan = off")
        with audited.logged() as log, pytest.raises(psycopg.Error):
            connection.execute(
                "DO $$ BEGIN EXECUTE 'SELECT cdf_register_credentials($1, $2, $3, $4, $4)' "
                f"USING 'http://example.com/t', '{MARK}', '{SECRET}', 's'; END $$"
            )
    assert f"USING 'http://example.com/t', '{MARK}', '{MASKED}', 's'" in log[0]
    assert f"http://example.com/t,{MARK},{MASKED},s" in log[0]
    assert not shows_secret(log[0])


def test_other_statements_are_recorded_as_ever(audited):
    with audited.superuser() as connection:
        connection.execute("SELECT pg_stat_statements_reset()")
        connection.execute(f"DO $x$ BEGIN EXECUTE 'COMMENT ON SCHEMA public IS ''client_secret {MARK}'''; END $x$")
        recorded = [row[0] for row in connection.execute("SELECT query FROM pg_stat_statements").fetchall()]
    assert f"COMMENT ON SCHEMA public IS 'client_secret {MARK}'" in recorded


# Statements in which nothing is masked.


@contextmanager
def logging(site):
    with site.superuser() as connection:
        connection.execute("LOAD 'cdf_fdw'")
        for setting in ("log_statement = 'all'", "log_min_duration_statement = 0"):
            connection.execute(f"SET {setting}")
        yield connection


HARMLESS = [
    "SELECT 4711 /* client_secret */",
    "SELECT 4711 -- OPTIONS (client_secret 'x')",
    "SELECT 'cdf_register_credentials(''a'', ''b'', ''c'')', 4711",
    "SELECT 4711 AS client_secret, 'x' AS cdf_register_credentials",
    "DO $$ BEGIN PERFORM 4711, 'client_secret', 'x'; END $$",
    "CREATE TEMP TABLE t (client_secret text DEFAULT '4711')",
    "COMMENT ON SCHEMA public IS 'CREATE USER MAPPING FOR a SERVER s OPTIONS (client_secret ''4711'')'",
    "SELECT * FROM (VALUES ('client_secret', '4711')) AS options (client_secret, x)",
]


@pytest.mark.parametrize("text", HARMLESS)
def test_a_statement_that_mentions_a_secret_is_logged_whole(site, text):
    with logging(site) as connection, site.logged() as log:
        connection.execute(text)
    assert f"statement: {text}" in log[0]
    assert "*****" not in log[0]


FAILING = [
    ("SELECT 4711 / 0 /* client_secret */", errors.DivisionByZero),
    ("SELECT 4711 / 0 /* cdf_register_credentials('a', 'b', 'c') */", errors.DivisionByZero),
    ("SELECT FROM WHERE 4711 /* client_secret */", errors.SyntaxError),
    ("SELECT 'client_secret', '4711'::integer, 'x'::integer", errors.InvalidTextRepresentation),
]


@pytest.mark.parametrize(("text", "error"), FAILING)
def test_an_error_is_logged_with_its_statement(site, text, error):
    with site.superuser() as connection:
        connection.execute("LOAD 'cdf_fdw'")
        with site.logged() as log, pytest.raises(error):
            connection.execute(text)
    assert "ERROR:  " in log[0]
    assert f"STATEMENT:  {text}" in log[0]


def test_function_of_that_name_hides_nothing(site):
    with site.superuser() as connection:
        connection.execute("CREATE SCHEMA mallory")
        connection.execute(
            "CREATE FUNCTION mallory.cdf_register_credentials(token_url text, client_id text, client_secret text) "
            "RETURNS text LANGUAGE sql AS 'SELECT client_secret'"
        )
    with logging(site) as connection, site.logged() as log:
        connection.execute("SELECT mallory.cdf_register_credentials('a', 'b', '4711')")
        connection.execute("SET search_path = mallory")
        connection.execute("SELECT cdf_register_credentials('a', client_secret => '4712', client_id => 'b')")
        with pytest.raises(psycopg.Error):
            connection.execute("SELECT cdf_register_credentials('a', 'b', '4713')::integer / 0")
    for number in ("4711", "4712"):
        assert f"'{number}'" in log[0].partition("ERROR:")[0], log[0]
    assert "'4713')::integer / 0" in log[0].partition("STATEMENT:")[2]


def test_syntax_error_with_a_secret_is_logged(site):
    text = f"ALTER USER MAPPING FOR x SERVER s OPTIONS (SET client_secret = '{SECRET}')"
    with site.superuser() as connection:
        connection.execute("LOAD 'cdf_fdw'")
        with site.logged() as log, pytest.raises(errors.SyntaxError) as raised:
            connection.execute(text)
    assert 'ERROR:  syntax error at or near "="' in log[0]
    assert f"STATEMENT:  {text.replace(SECRET, MASKED)}" in log[0]
    assert int(raised.value.diag.statement_position) == text.index("=") + 1


def test_calling_the_validator_hides_nothing(site):
    """Everybody may call it."""
    with site.superuser() as connection:
        connection.execute("CREATE ROLE anybody LOGIN PASSWORD 'pw'")
    text = "SELECT cdf_fdw_validator(ARRAY['project=p', 'token_url=https://x', 'client_id=c', 'client_secret=4711'], 1418)"
    with site.role("anybody") as anybody, site.superuser() as other:
        # As the first one that needs the library, and again.
        for _ in range(2):
            anybody.execute(text)
            seen = other.execute("SELECT query FROM pg_stat_activity WHERE pid = %s", [anybody.info.backend_pid])
            assert seen.fetchone() == (text,)
    with site.logged() as log, site.role("anybody") as anybody, pytest.raises(psycopg.Error):
        anybody.execute(text.replace("client_id", "nothing"))
    assert f"STATEMENT:  {text.replace('client_id', 'nothing')}" in log[0]


def test_activity_shows_the_statement_with_its_secret_masked(site):
    with site.superuser() as connection, site.superuser() as other:
        with pytest.raises(psycopg.Error):
            called(connection)
        seen = other.execute("SELECT query FROM pg_stat_activity WHERE pid = %s", [connection.info.backend_pid])
        assert seen.fetchone() == (call(connection).replace(SECRET, MASKED),)


def test_errors_keep_their_fields(site):
    """The hooks let an error pass as it is: constraint, position, context."""
    with site.superuser() as connection:
        connection.execute("LOAD 'cdf_fdw'")
        connection.execute("CREATE TABLE public.unique_one (a integer CONSTRAINT only_one UNIQUE)")
        connection.execute("INSERT INTO public.unique_one VALUES (1)")
        with pytest.raises(errors.UniqueViolation) as raised:
            connection.execute("DO $$ BEGIN INSERT INTO public.unique_one VALUES (1); END $$")
        diag = raised.value.diag
        assert (diag.constraint_name, diag.table_name, diag.schema_name) == ("only_one", "unique_one", "public")
        assert "inline_code_block" in diag.context
        with pytest.raises(errors.UndefinedTable) as raised:
            connection.execute("CREATE VIEW v AS SELECT * FROM nothing")
        assert int(raised.value.diag.statement_position) == "CREATE VIEW v AS SELECT * FROM nothing".index("nothing") + 1
        with pytest.raises(errors.UndefinedColumn) as raised:
            connection.execute("DO $$ BEGIN PERFORM nothing; END $$")
        assert raised.value.diag.internal_query and raised.value.diag.internal_position
