"""The extension's scripts run as a superuser: nothing that others have made may run in them."""

from __future__ import annotations

import re
import subprocess

import psycopg
import pytest
from harness import ROOT, psql_environment
from psycopg import sql

SCRIPTS = sorted((ROOT / "sql").glob("*.sql"))

# What a script may have beside names of pg_catalog, which stand with their schema, and those that it makes itself.
KEYWORDS = set(
    """
    add alter as assignment begin by c cast check column comment constraint create data database default definer do drop
    each else enable end event exception execute exists extension false for foreign from function generated grant handler identity
    if in index inout insert into is key language leakproof loop materialized no not null of on only options or owner
    level parallel plpgsql policy primary privileges procedure public replace restrict returns revoke row rows safe schema
    security select sequence server set stable strict support table to trigger true type unique unsafe update usage user
    using validator values view volatile when wrapper cost immutable then cascade references always with execution
    raise sql all new old begin
    search_path pg_temp pg_catalog duplicate_object internal
    and join left operator or where current_user security_barrier
    """.split()
)


def without_texts(script: str) -> str:
    """The script without its comments and quoted texts, but with the bodies of its DO blocks."""
    script = re.sub(r"^\\echo.*$", "", script, flags=re.M)
    script = re.sub(r"--[^\n]*", "", script)
    script = script.replace("$$", " ")
    return re.sub(r"'(?:[^']|'')*'", "''", script)


def made_by(script: str) -> set[str]:
    """The names of the objects that the script creates, and of their parameters and columns."""
    made = set(re.findall(r"\bCREATE (?:OR REPLACE )?(?:FUNCTION|VIEW|TABLE|FOREIGN DATA WRAPPER) (\w+)", script))
    made |= set(re.findall(r"^\s+(\w+) pg_catalog\.", script, flags=re.M))
    # Relations within a statement, and their columns: with the relation's name before it, a column is no other's.
    relations = set(re.findall(r"\bAS (\w+)\b", script))
    made |= relations | set(re.findall(rf"\b(?:{'|'.join(relations)})\.(\w+)", script))
    return {name.lower() for name in made}


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)
def test_scripts_look_up_no_name_in_a_schema_of_others(path):
    everything = "\n".join(without_texts(script.read_text()) for script in SCRIPTS)
    script = without_texts(path.read_text())
    known = KEYWORDS | made_by(everything)
    rest = re.sub(r"\b(?:pg_catalog|@extschema@)\.\w+", " ", script)
    strange = {word for word in re.findall(r"[A-Za-z_]\w*", rest) if word.lower() not in known}
    assert not strange, f"write these names with their schema: {sorted(strange)}"
    # An operator is a function that others may have, too: OPERATOR(pg_catalog.=) is the safe way to write one.
    without_operators = re.sub(r"OPERATOR\s*\(\s*pg_catalog\.[^)]*\)", " ", rest)
    without_settings = re.sub(r"\bSET \w+ =", " ", without_operators)
    operators = set(re.findall(r"[-+*/<>=~!@#%^&|`?]+|::", without_settings))
    assert not operators, f"write these operators with their schema: {sorted(operators)}"
    # A function's name alone is ambiguous as soon as somebody has one of that name.
    assert not re.search(r"\bON FUNCTION \w+\s+(?:TO|FROM|IS)\b", script)


TRAPS = [
    # Each of them fits better than, or as well as, the function of pg_catalog that a script may have meant.
    "{}.format(text, regtype, regtype) RETURNS text",
    "{}.format(text, text, text) RETURNS text",
    "{}.format(text, text) RETURNS text",
    "{}.quote_ident(name) RETURNS text",
    "{}.quote_literal(name) RETURNS text",
    "{}.current_setting(name) RETURNS text",
    "{}.concat(text, text) RETURNS text",
    "{}.regtype(text) RETURNS regtype",
    "{}.cdf_register_credentials(integer) RETURNS integer",
]


@pytest.mark.parametrize("schema", ["public", "trap"])
def test_creating_the_extension_runs_nothing_of_others(cluster, schema):
    """A role with CREATE on the schema plants better matches for what a script might call. They would leave a trace."""
    name = "install_test"
    with cluster.connect() as connection:
        connection.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")
        connection.execute(f"CREATE DATABASE {name}")
        connection.execute("DROP ROLE IF EXISTS mallory")
        connection.execute("CREATE ROLE mallory LOGIN PASSWORD 'pw'")
    try:
        with psycopg.connect(cluster.dsn(name), autocommit=True) as superuser:
            superuser.execute("CREATE SCHEMA IF NOT EXISTS trap")
            superuser.execute(f"GRANT ALL ON SCHEMA {schema} TO mallory")
            superuser.execute("CREATE TABLE public.trace (who name, what text)")
            superuser.execute("GRANT INSERT ON public.trace TO PUBLIC")
            dsn = f"host=127.0.0.1 port={cluster.port} dbname={name} user=mallory password=pw"
            with psycopg.connect(dsn, autocommit=True) as mallory:
                for at, trap in enumerate(TRAPS):
                    head = trap.format(schema)
                    result = head.rpartition(" ")[2]
                    body = f"INSERT INTO public.trace VALUES (current_user, '{at}'); SELECT NULL::{result}"
                    mallory.execute(f"CREATE FUNCTION {head} LANGUAGE sql AS $x$ {body} $x$")
                for left, right in (("text", "text"), ("name", "name"), ("regtype", "regtype")):
                    for operator, result in (("||", "text"), ("=", "boolean")):
                        function = f"{schema}.op_{left}_{'eq' if operator == '=' else 'cat'}"
                        body = f"INSERT INTO public.trace VALUES (current_user, '{operator}'); SELECT NULL::{result}"
                        mallory.execute(
                            f"CREATE FUNCTION {function}({left}, {right}) RETURNS {result} LANGUAGE sql AS $x$ {body} $x$"
                        )
                        mallory.execute(
                            f"CREATE OPERATOR {schema}.{operator} "
                            f"(FUNCTION = {function}, LEFTARG = {left}, RIGHTARG = {right})"
                        )
                mallory.execute(f"CREATE DOMAIN {schema}.fdw_handler AS integer")
                mallory.execute(f"CREATE DOMAIN {schema}.varchar AS integer")
            superuser.execute(sql.SQL("CREATE EXTENSION cdf_fdw SCHEMA {}").format(sql.Identifier(schema)))
            assert superuser.execute("SELECT * FROM public.trace").fetchall() == []
            # Only the owner may call the function, whatever there is of its name.
            (allowed,) = superuser.execute(
                "SELECT count(*) FROM pg_proc WHERE proname = 'cdf_register_credentials' AND proowner = 10 "
                "AND has_function_privilege('mallory', oid, 'EXECUTE')"
            ).fetchone()
            assert allowed == 0
            casts = superuser.execute(
                "SELECT castsource::regtype::text, casttarget::regtype::text FROM pg_cast "
                "WHERE castmethod = 'i' AND casttarget IN ('pg_catalog.json'::regtype, 'pg_catalog.jsonb'::regtype) "
                "AND oid >= 16384 ORDER BY 1, 2"
            ).fetchall()
            assert len(casts) == 4
    finally:
        with cluster.connect() as connection:
            connection.execute(f"DROP DATABASE {name} WITH (FORCE)")
            connection.execute("DROP ROLE mallory")


def test_casts_of_the_database_are_kept(cluster):
    name = "install_test"
    with cluster.connect() as connection:
        connection.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")
        connection.execute(f"CREATE DATABASE {name}")
    try:
        with psycopg.connect(cluster.dsn(name), autocommit=True) as superuser:
            superuser.execute("CREATE CAST (text AS jsonb) WITH INOUT AS IMPLICIT")
            superuser.execute("CREATE EXTENSION cdf_fdw")
            rows = superuser.execute(
                "SELECT castcontext::text FROM pg_cast WHERE castsource = 'text'::regtype "
                "AND casttarget = 'jsonb'::regtype"
            ).fetchall()
            assert rows == [("i",)]
    finally:
        with cluster.connect() as connection:
            connection.execute(f"DROP DATABASE {name} WITH (FORCE)")


OWN_CASTS = {
    "binary-compatible": "CREATE CAST (text AS jsonb) WITH INOUT AS IMPLICIT",
    "by a function": (
        "CREATE FUNCTION public.checked(varchar) RETURNS json LANGUAGE sql IMMUTABLE AS 'SELECT pg_catalog.to_json($1)';"
        " CREATE CAST (varchar AS json) WITH FUNCTION public.checked(varchar) AS ASSIGNMENT"
    ),
}


@pytest.mark.parametrize("form", ["custom", "plain"])
@pytest.mark.parametrize("cast", OWN_CASTS)
@pytest.mark.parametrize("first", ["the cast", "the extension"])
def test_a_dump_with_casts_of_the_database_is_restored(cluster, emulator, tmp_path, cast, form, first):
    own = (
        "SELECT castsource::regtype::text, casttarget::regtype::text, castfunc::regproc::text, castcontext::text FROM pg_cast"
        " WHERE casttarget IN ('json'::regtype, 'jsonb'::regtype) AND oid >= 16384 ORDER BY 1, 2"
    )
    statements = [OWN_CASTS[cast], "CREATE EXTENSION cdf_fdw"]
    with cluster.connect() as connection:
        for name in ("dumped", "restored"):
            connection.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")
            connection.execute(f"CREATE DATABASE {name}")
    try:
        with psycopg.connect(cluster.dsn("dumped"), autocommit=True) as superuser:
            for statement in statements if first == "the cast" else reversed(statements):
                superuser.execute(statement)
            superuser.execute(
                "CREATE SERVER cdf FOREIGN DATA WRAPPER cdf_fdw OPTIONS (base_url 'https://example.cognitedata.com')"
            )
            superuser.execute("IMPORT FOREIGN SCHEMA cdf FROM SERVER cdf INTO public")
            before = superuser.execute(own).fetchall()
            assert len(before) == 4
        dump = tmp_path / "dump"
        run = {"check": True, "capture_output": True, "text": True, "env": psql_environment()}
        subprocess.run(
            [cluster.bindir / "pg_dump", "-F", form, "-f", dump, "-d", cluster.dsn("dumped")], **run
        )
        if form == "custom":
            restore = [cluster.bindir / "pg_restore", "--exit-on-error", "-d", cluster.dsn("restored"), dump]
            subprocess.run(restore, **run)
        else:
            cluster.psql(file=dump, dsn=cluster.dsn("restored"))
        with psycopg.connect(cluster.dsn("restored"), autocommit=True) as superuser:
            assert superuser.execute(own).fetchall() == before
            superuser.execute("DROP EXTENSION cdf_fdw CASCADE")
            [left] = superuser.execute(own).fetchall()
            assert left in before
    finally:
        with cluster.connect() as connection:
            for name in ("dumped", "restored"):
                connection.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")


def test_who_may_not_create_a_cast_does_not_drop_one(cluster, gateway):
    with gateway.connect(autocommit=True) as connection:
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            connection.execute("CREATE CAST (text AS jsonb) WITH INOUT")
    with cluster.connect() as superuser:
        casts = "SELECT count(*) FROM pg_cast WHERE casttarget IN ('json'::regtype, 'jsonb'::regtype) AND oid >= 16384"
        assert superuser.execute(casts).fetchone() == (4,)
