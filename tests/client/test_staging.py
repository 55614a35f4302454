"""Tools that create their own tables: which rights a registered role lacks for that, how to grant them, and what they allow."""

from __future__ import annotations

from collections.abc import Iterator

import psycopg
import pytest
from faults import register
from harness import REGISTER, Gateway
from psycopg import pq, sql
from support import dump, refused, requests


@pytest.fixture
def role(cluster, emulator, cdf) -> Gateway:
    """A registered role of the test's own, whose rights may be changed."""
    return register(cluster, emulator)


def grant(cluster, statement: str, role: Gateway) -> None:
    """Runs what docs/connect-your-tool.md has for the administrator."""
    names_ = {"role": role.username, "schema": role.schema, "staging": f"{role.schema}_staging"}
    with cluster.connect() as connection:
        connection.execute(
            sql.SQL(statement).format(**{name: sql.Identifier(value) for name, value in names_.items()})
        )


STAGING = "CREATE SCHEMA {staging} AUTHORIZATION {role}"
CREATE = "GRANT CREATE ON SCHEMA {schema} TO {role}"


@pytest.fixture
def session(role) -> Iterator[psycopg.Connection]:
    with role.connect(autocommit=True) as connection:
        yield connection


# ---- a schema for staging ----


def sling(session, staging: str) -> None:
    """What sling 1.4 sends for an incremental load with a primary key, with its temporary table in `staging`."""
    session.execute(f'drop table if exists "{staging}"."events_tmp"')
    session.execute(f'create table if not exists "{staging}"."events_tmp" ("external_id" text, "description" text)')
    session.execute("BEGIN READ WRITE")
    with session.cursor().copy(f'COPY "{staging}"."events_tmp" ("external_id", "description") FROM STDIN') as copy:
        for row in [("old", "after"), ("new", "after")]:
            copy.write_row(row)
    session.execute("COMMIT")
    session.execute("BEGIN ISOLATION LEVEL SERIALIZABLE READ WRITE")
    source = f'with src_table as (select "external_id", "description" from "{staging}"."events_tmp")'
    session.execute(
        f"""create temporary table changed as {source}
        , updates as (
            update "events" tgt set "description" = src."description" from src_table src
            where src."external_id" = tgt."external_id" returning tgt.*
        ) select * from updates"""
    )
    session.execute('create unique index if not exists changed_idx on changed ("external_id")')
    session.execute(
        f"""{source} insert into "events" ("external_id", "description")
        select "external_id", "description" from src_table src
        where not exists (select 1 from changed upd where src."external_id" = upd."external_id")"""
    )
    session.execute("COMMIT")
    session.execute(f'drop table if exists "{staging}"."events_tmp"')


def test_sling_with_its_temporary_table_in_a_staging_schema(cluster, role, session, api, cdf):
    api.create("events", "old", description="before", source="kept")
    grant(cluster, STAGING, role)
    sling(session, f"{role.schema}_staging")
    found = {event["externalId"]: (event["description"], event.get("source")) for event in dump(cdf, "events")}
    assert found == {"old": ("after", "kept"), "new": ("after", None)}


def test_without_a_grant_nothing_can_be_created(role, session, cdf):
    with refused("42501", role.schema):
        sling(session, role.schema)
    with refused("42501", role.schema):
        session.execute("CREATE TABLE IF NOT EXISTS events (external_id text)")


def test_a_staging_schema_is_not_where_names_are_looked_up(cluster, role, session):
    grant(cluster, STAGING, role)
    session.execute(f"CREATE TABLE {role.schema}_staging.events (external_id text)")
    assert session.execute("SELECT relkind FROM pg_class WHERE oid = 'events'::regclass").fetchone() == ("f",)
    with refused("42501"):
        session.execute("CREATE TABLE other (external_id text)")
    with refused("42501"):
        session.execute(f"CREATE FOREIGN TABLE {role.schema}_staging.e () SERVER cdf OPTIONS (resource 'events')")


# ---- the right to create in the role's own schema ----


def test_create_table_if_not_exists_leaves_the_foreign_table_alone(cluster, role, session, cdf):
    grant(cluster, CREATE, role)
    told = []
    session.add_notice_handler(lambda notice: told.append(notice.message_primary))
    # What ADBC's create_append sends before its binary COPY.
    session.execute(f'CREATE TABLE IF NOT EXISTS "{role.schema}" . "events" ("external_id" text, "description" text)')
    assert told == ['relation "events" already exists, skipping']
    copy = f'COPY "{role.schema}" . "events" ("external_id", "description") FROM STDIN WITH (FORMAT binary)'
    with session.cursor().copy(copy) as rows:
        rows.set_types(["text", "text"])
        rows.write_row(("a", "x"))
        rows.write_row(("b", None))
    assert {event["externalId"]: event.get("description") for event in dump(cdf, "events")} == {"a": "x", "b": None}


def test_fluent_bit(cluster, role, session, cdf):
    grant(cluster, CREATE, role)
    with cluster.connect() as superuser:
        superuser.execute(
            sql.SQL(
                "CREATE FOREIGN TABLE {schema}.fluentbit (tag varchar OPTIONS (name 'type'),"
                " time timestamp OPTIONS (name 'start_time'), data jsonb OPTIONS (name 'metadata'))"
                " SERVER cdf OPTIONS (resource 'events');"
                " GRANT SELECT, INSERT ON {schema}.fluentbit TO {role}"
            ).format(schema=sql.Identifier(role.schema), role=sql.Identifier(role.username))
        )
    wire = session.pgconn

    def run(statement: str) -> None:
        result = wire.exec_(statement.encode())
        assert result.status == pq.ExecStatus.COMMAND_OK, result.error_message

    run('CREATE TABLE IF NOT EXISTS "fluentbit" (tag varchar, time timestamp, data jsonb);')
    insert = b'INSERT INTO "fluentbit" (tag, time, data) VALUES ($1, to_timestamp($2::double precision), $3::jsonb);'
    assert wire.prepare(b"flb_pgsql_insert", insert).status == pq.ExecStatus.COMMAND_OK
    run("BEGIN")
    for at in range(3):
        moment = f"{1704067200 + at}.500000000".encode()
        result = wire.exec_prepared(b"flb_pgsql_insert", [b"cpu.local", moment, b'{"cpu_p": %d.5}' % at])
        assert result.status == pq.ExecStatus.COMMAND_OK, result.error_message
    assert requests(cdf) == []
    run("COMMIT")
    found = sorted((event["startTime"], event["type"], event["metadata"]["cpu_p"]) for event in dump(cdf, "events"))
    assert found == [(1704067200500 + at * 1000, "cpu.local", f"{at}.5") for at in range(3)]


def test_what_the_right_does_not_give(cluster, role, session, gateway):
    grant(cluster, CREATE, role)
    with refused("42501"):
        session.execute("CREATE FOREIGN TABLE more () SERVER cdf OPTIONS (resource 'assets')")
    for statement in (
        "DROP FOREIGN TABLE events",
        "ALTER FOREIGN TABLE events OPTIONS (SET resource 'assets')",
        "ALTER FOREIGN TABLE events RENAME TO others",
        "CREATE OR REPLACE VIEW events AS SELECT 1",
        f'CREATE TABLE "{gateway.schema}".mine ()',
    ):
        with refused("42501"):
            session.execute(statement)


def test_registration_takes_no_table_that_the_role_has_put_there(cluster, role, session, emulator):
    grant(cluster, CREATE, role)
    with cluster.connect() as superuser:
        superuser.execute(sql.SQL("DROP FOREIGN TABLE {}.labels").format(sql.Identifier(role.schema)))
    session.execute("CREATE TABLE labels (external_id text)")
    again = REGISTER.rstrip().removesuffix(")") + ", username => %(username)s)"
    with cluster.connect() as superuser:
        with refused("42501", "labels"):
            superuser.execute(again, emulator.access | {"username": role.username})
