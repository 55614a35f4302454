"""cdf_create_facade: partitioned tables in front of foreign ones, for tools that do not see those.

Whatever a role writes and reads through its façades is what it would have written and read without them: two roles of one
database run the same statements, one of them through façades.
"""

from __future__ import annotations

import re
import subprocess
from dataclasses import dataclass, field
from datetime import datetime, timezone

import psycopg
import pytest
from harness import Gateway, psql_environment
from psycopg import sql
from sites import Site, make_registrar
from support import Api, dump, names, paths, refused, stored, told
from test_gateway_api import running
from test_views import create_view

RESOURCES = ["assets", "events", "timeseries", "datasets", "labels", "raw", "datapoints", "sequences", "relationships", "files", "instances"]
VOLATILE = {"id", "createdTime", "lastUpdatedTime", "rootId", "version"}
COLUMNS = '{"tag": {"type": "TEXT"}, "kw": {"type": "DOUBLE PRECISION"}, "info": {"type": "JSON"}}'


@pytest.fixture(scope="module")
def places(cluster, emulator):
    """A database in which `plain` has foreign tables, and `fronted` has façades in front of the same ones."""
    emulator.reset()
    name = "facades_test"
    with cluster.connect() as connection:
        connection.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")
        connection.execute(f"CREATE DATABASE {name}")
    site = Site(cluster, emulator, name)
    passwords = {}
    with site.superuser() as connection:
        connection.execute("CREATE EXTENSION cdf_fdw")
        create_view(Api(emulator), "Pump", {"name": "text", "pressure": "float64"}, space="plant")
        for username in ("plain", "fronted"):
            passwords[username] = site.register(connection, username=username)[1]
            for resource in ("pumps", "open"):
                connection.execute(
                    "SELECT cdf_create_raw_table(%s, %s, 'plant', %s, %s, 'tag')", [username, resource, resource, COLUMNS]
                )
            connection.execute("SELECT cdf_create_view_table(%s, 'pump_nodes', 'plant', 'Pump')", [username])
            connection.execute(
                f"CREATE FOREIGN TABLE {username}.strict (external_id text, type text DEFAULT 'none')"
                " SERVER cdf OPTIONS (resource 'events', on_conflict 'error')"
            )
            connection.execute(
                f"CREATE FOREIGN TABLE {username}.checked (external_id text NOT NULL, type text CHECK (type <> 'bad'),"
                " start_time timestamp DEFAULT TIMESTAMPTZ '2026-01-01 12:00+00') SERVER cdf OPTIONS (resource 'events')"
            )
            connection.execute(f"ALTER FOREIGN TABLE {username}.open OPTIONS (ADD truncatable 'true')")
            connection.execute(f"GRANT SELECT, INSERT, UPDATE, DELETE ON {username}.strict, {username}.checked TO {username}")
            connection.execute(f"GRANT TRUNCATE ON {username}.open, {username}.events TO {username}")
        connection.execute("SELECT cdf_create_facade('fronted')")
    yield site, passwords
    with cluster.connect() as connection:
        connection.execute(f"DROP DATABASE {name} WITH (FORCE)")
        connection.execute("DROP ROLE plain, fronted")


@pytest.fixture
def roles(places, cdf):
    """Their sessions. Autocommit: transactions begin where a test says BEGIN."""
    site, passwords = places
    with site.role("plain", passwords["plain"]) as plain, site.role("fronted", passwords["fronted"]) as fronted:
        yield {"plain": plain, "fronted": fronted}


@dataclass
class Copied:
    """A COPY … FROM STDIN and its data."""

    statement: str
    rows: list = field(default_factory=list)
    text: str | None = None
    types: list[str] | None = None


def run(connection, step):
    """What a client sees of a statement: rows and their number, or the error."""
    try:
        cursor = connection.cursor()
        if isinstance(step, Copied):
            with cursor.copy(step.statement) as copy:
                if step.types:
                    copy.set_types(step.types)
                if step.text is not None:
                    copy.write(step.text)
                for row in step.rows:
                    copy.write_row(row)
            return cursor.rowcount
        cursor.execute(*step) if isinstance(step, tuple) else cursor.execute(step)
        return (cursor.fetchall() if cursor.description else None), cursor.rowcount
    except psycopg.Error as error:
        return error.sqlstate, re.sub(r"x-request-id \S+|\bid \d+", "", told(error))


def lasting(item):
    """Without what CDF gives anew."""
    if isinstance(item, dict):
        return {key: lasting(value) for key, value in item.items() if key not in VOLATILE}
    return [lasting(value) for value in item] if isinstance(item, list) else item


def state(cdf) -> dict:
    return {
        resource: sorted((lasting(item) for item in dump(cdf, resource)), key=repr) for resource in RESOURCES
    }


SETUP = [
    "INSERT INTO data_sets (external_id, name) VALUES ('ds', 'ds')",
    "INSERT INTO assets (external_id, name) VALUES ('root', 'root'), ('a', 'a')",
    "INSERT INTO events (external_id, type, description) VALUES ('e1', 'x', 'one'), ('e2', 'x', 'two'), ('e3', 'y', 'three')",
    "INSERT INTO timeseries (external_id, name) VALUES ('s', 's')",
    'INSERT INTO datapoints (external_id, "timestamp", value) VALUES (\'s\', \'2026-01-01Z\', 1), (\'s\', \'2026-01-02Z\', 2)',
    "INSERT INTO pumps VALUES ('p1', 1.5, '{\"a\": 1}'), ('p2', 2.5, NULL)",
]
EVENTS = "SELECT external_id, type, description FROM events ORDER BY 1"
STAGED = "CREATE TEMP TABLE staged AS SELECT * FROM (VALUES ('e1', 'new'), ('e9', 'new')) AS v (key, kind)"

SCENARIOS = {
    "INSERT": [
        "INSERT INTO events (external_id, type) VALUES ('n', 'x')",
        "INSERT INTO events (external_id, type) VALUES ('n1', 'x'), ('n2', NULL), ('e1', 'again')",
        "INSERT INTO events DEFAULT VALUES",
        "INSERT INTO events (type) VALUES ('without an external id')",
        "INSERT INTO events (external_id, metadata, start_time) VALUES ('m', '{\"k\": 1}', '2026-01-01 12:00+02') RETURNING *",
        "INSERT INTO assets (external_id, name, parent_external_id) VALUES ('child', 'c', 'root') RETURNING external_id, id",
        "INSERT INTO events (id, type) SELECT id, 'by id' FROM events WHERE external_id = 'e1'",
        ("INSERT INTO events (external_id, type) VALUES (%s, %s)", ["bound", "x"]),
        "PREPARE p (text) AS INSERT INTO events (external_id) VALUES ($1)",
        *(f"EXECUTE p ('p{n}')" for n in range(7)),
        "INSERT INTO events (external_id, type) SELECT 'g' || g, 'many' FROM generate_series(1, 2500) g",
        "WITH w AS (INSERT INTO events (external_id) VALUES ('w1'), ('w2') RETURNING external_id) SELECT * FROM w ORDER BY 1",
        EVENTS,
    ],
    "COPY": [
        Copied("COPY events (external_id, type) FROM STDIN", text="a\tx\nb\t\\N\n\\N\tno key\n"),
        Copied("COPY events (external_id, metadata) FROM STDIN (FORMAT csv, HEADER)", text='external_id,metadata\nc,"{""k"": ""v""}"\n'),
        Copied(
            'COPY datapoints (external_id, "timestamp", value) FROM STDIN (FORMAT binary)',
            rows=[("s", datetime(2026, 2, 1, n, tzinfo=timezone.utc), n / 2) for n in range(5)],
            types=["text", "timestamptz", "float8"],
        ),
        Copied("COPY pumps FROM STDIN", text="".join(f"p{n}\t{n}\t\\N\n" for n in range(6000))),
        Copied("COPY events (external_id, type) FROM STDIN WHERE type = 'x'", text="d\tx\ne\ty\n"),
        Copied("COPY checked (external_id) FROM STDIN", text="f\n"),
        Copied("COPY events (external_id, type) FROM STDIN", text=f"g\tx\n{'x' * 300}\ty\n"),
    ],
    "ON CONFLICT": [
        "INSERT INTO events (external_id, type) VALUES ('e1', 'z'), ('n', 'z') ON CONFLICT DO NOTHING",
        "INSERT INTO events (external_id, type) VALUES ('e1', 'z'), ('n2', 'z') ON CONFLICT (external_id) DO NOTHING",
        "INSERT INTO events (external_id, type) VALUES ('e1', 'z'), ('n3', 'z') ON CONFLICT (external_id) DO UPDATE SET type = EXCLUDED.type",
        "INSERT INTO events (external_id, type) VALUES ('e2', 'z') ON CONFLICT (external_id) DO UPDATE SET (external_id, type) = (EXCLUDED.external_id, EXCLUDED.type) RETURNING *",
        "INSERT INTO events (external_id, type) VALUES ('e3', 'z') ON CONFLICT (external_id) DO UPDATE SET type = EXCLUDED.type WHERE events.type IS DISTINCT FROM EXCLUDED.type",
        'INSERT INTO datapoints (external_id, "timestamp", value) VALUES (\'s\', \'2026-01-01Z\', 7) ON CONFLICT (external_id, "timestamp") DO UPDATE SET value = EXCLUDED.value',
        "INSERT INTO pumps (tag, kw) VALUES ('p1', 9) ON CONFLICT (tag) DO UPDATE SET kw = EXCLUDED.kw",
        "INSERT INTO events (id, type) SELECT id, 'w' FROM events WHERE external_id = 'e2' ON CONFLICT (id) DO UPDATE SET type = EXCLUDED.type",
        "INSERT INTO events (external_id, type) VALUES ('e1', 'z') ON CONFLICT (type) DO NOTHING",
        "INSERT INTO events AS e (external_id, type) VALUES ('e1', 'z') ON CONFLICT (external_id) DO UPDATE SET type = e.type || '!'",
        "INSERT INTO strict (external_id) VALUES ('e1')",
        "INSERT INTO strict (external_id) VALUES ('e1') ON CONFLICT (external_id) DO NOTHING",
        EVENTS,
        "SELECT * FROM pumps ORDER BY tag",
    ],
    "UPDATE": [
        "UPDATE events SET type = 'u' WHERE external_id = 'e1'",
        "UPDATE events SET type = 'u' WHERE external_id = 'nobody'",
        "UPDATE events SET description = NULL, type = upper(type) WHERE type = 'x' RETURNING external_id, type, description",
        STAGED,
        "UPDATE events SET type = staged.kind FROM staged WHERE external_id = staged.key RETURNING external_id, type, key",
        "UPDATE events SET (type, description) = ('r', 'r') WHERE external_id = ANY ('{e2,e3}')",
        "UPDATE events SET external_id = 'renamed' WHERE external_id = 'e3'",
        "UPDATE events SET type = 'all'",
        "UPDATE pumps SET kw = kw + 1 WHERE tag = 'p1' RETURNING *",
        'UPDATE datapoints SET value = value * 2 WHERE external_id = \'s\' AND "timestamp" > \'2026-01-01T12:00Z\'',
        "UPDATE checked SET type = 'bad' WHERE external_id = 'e1'",
        "PREPARE u (text, text) AS UPDATE events SET type = $2 WHERE external_id = $1",
        *(f"EXECUTE u ('e1', 'v{n}')" for n in range(7)),
        EVENTS,
    ],
    "DELETE": [
        "DELETE FROM events WHERE external_id = 'e1'",
        "DELETE FROM events WHERE external_id = 'nobody' RETURNING *",
        "INSERT INTO events (external_id, type) VALUES ('e1', 'back')",
        STAGED,
        "DELETE FROM events USING staged WHERE external_id = staged.key RETURNING external_id, type, kind",
        "DELETE FROM events WHERE type = 'y' RETURNING events",
        "DELETE FROM events",
        'DELETE FROM datapoints WHERE external_id = \'s\' AND "timestamp" < \'2026-01-02Z\'',
        "DELETE FROM pumps WHERE tag = 'p1'",
        "DELETE FROM data_sets WHERE external_id = 'ds'",
        "DELETE FROM open WHERE true",
        EVENTS,
    ],
    "TRUNCATE": [
        "INSERT INTO open VALUES ('o1', 1), ('o2', 2)",
        "TRUNCATE events",
        "TRUNCATE pumps",
        "TRUNCATE open",
        "SELECT count(*) FROM open",
        "INSERT INTO open VALUES ('o3', 3)",
        "DELETE FROM open",
    ],
    "transactions": [
        "BEGIN",
        "INSERT INTO events (external_id, type) VALUES ('kept', 'x')",
        "SAVEPOINT s",
        "INSERT INTO events (external_id, type) VALUES ('lost', 'x')",
        "UPDATE events SET type = 'changed' WHERE external_id = 'kept'",
        "SELECT external_id, type FROM events WHERE type IN ('x', 'changed') ORDER BY 1",
        "ROLLBACK TO s",
        "SELECT external_id, type FROM events WHERE type IN ('x', 'changed') ORDER BY 1",
        "RELEASE s",
        "INSERT INTO timeseries (external_id, name) VALUES ('t', 't')",
        "INSERT INTO datapoints (external_id, \"timestamp\", value) VALUES ('t', '2026-01-01Z', 1)",
        "COMMIT",
        "BEGIN",
        "INSERT INTO events (external_id) VALUES ('never')",
        "ROLLBACK",
        "DO $$ BEGIN INSERT INTO events (external_id) VALUES ('undone'); RAISE 'stop'; EXCEPTION WHEN raise_exception THEN INSERT INTO events (external_id) VALUES ('handled'); END $$",
        "BEGIN",
        "INSERT INTO assets (external_id, name, labels) VALUES ('refused', 'r', '{nowhere}')",
        "COMMIT",
        EVENTS,
    ],
    "SELECT": [
        EVENTS,
        "SELECT * FROM events WHERE false",
        "SELECT external_id FROM events LIMIT 1",
        "SELECT external_id FROM events LIMIT 0",
        "SELECT count(*), max(type) FROM events WHERE type = 'x'",
        "SELECT e.external_id, a.name FROM events e LEFT JOIN assets a ON a.external_id = 'a' WHERE e.type = 'y'",
        "SELECT external_id FROM events WHERE external_id IN ('e1', 'e2') ORDER BY 1 DESC",
        "SELECT external_id FROM events WHERE external_id IS NULL",
        'SELECT "timestamp", value FROM datapoints WHERE external_id = \'s\' ORDER BY 1',
        "SELECT external_id FROM events WHERE ctid = '(0,1)'",
        "SELECT external_id FROM events ORDER BY 1 FOR UPDATE",
        "SELECT type, count(*) FROM events GROUP BY type ORDER BY 1",
        "SELECT DISTINCT type FROM events ORDER BY 1",
        "BEGIN",
        "DECLARE c CURSOR FOR SELECT external_id FROM events ORDER BY 1",
        "FETCH 2 FROM c",
        "COMMIT",
    ],
    "the other tables": [
        "INSERT INTO labels (external_id, name) VALUES ('l', 'l')",
        "INSERT INTO assets (external_id, name, labels, data_set_external_id) VALUES ('b', 'b', '{l}', 'ds')",
        "INSERT INTO relationships (external_id, source_external_id, source_type, target_external_id, target_type) VALUES ('r', 'a', 'asset', 'b', 'asset')",
        "INSERT INTO sequences (external_id, name, columns) VALUES ('q', 'q', '[{\"externalId\": \"c\", \"valueType\": \"DOUBLE\"}]')",
        "INSERT INTO sequence_rows (external_id, row_number, columns) VALUES ('q', 1, '{\"c\": 1}'), ('q', 2, '{\"c\": 2}')",
        "UPDATE sequence_rows SET columns = '{\"c\": 3}' WHERE external_id = 'q' AND row_number = 2",
        "INSERT INTO files (external_id, name) VALUES ('f', 'f')",
        "INSERT INTO raw_rows (db_name, table_name, key, columns) VALUES ('d', 't', 'k', '{\"a\": 1}')",
        "INSERT INTO raw_rows (db_name, table_name, key, columns) VALUES ('d', 't', 'k', '{\"b\": 1}') ON CONFLICT (db_name, table_name, key) DO UPDATE SET columns = EXCLUDED.columns",
        "SELECT key, columns FROM raw_rows WHERE db_name = 'd' AND table_name = 't'",
        "INSERT INTO extraction_pipelines (external_id, name, data_set_external_id) VALUES ('x', 'x', 'ds')",
        "INSERT INTO extraction_pipeline_runs (external_id, status, message) VALUES ('x', 'success', 'done')",
        "SELECT external_id, status, message FROM extraction_pipeline_runs WHERE external_id = 'x'",
        "INSERT INTO string_datapoints (external_id, \"timestamp\", value) VALUES ('nowhere', '2026-01-01Z', 'x')",
        "INSERT INTO pump_nodes (space, external_id, name, pressure) VALUES ('plant', 'n1', 'N', 1.5), ('plant', 'n2', NULL, 2)",
        "INSERT INTO pump_nodes (space, external_id, pressure) VALUES ('plant', 'n1', 3) ON CONFLICT (space, external_id) DO UPDATE SET pressure = EXCLUDED.pressure",
        "UPDATE pump_nodes SET name = 'M' WHERE external_id = 'n2' AND space = 'plant'",
        "SELECT external_id, name, pressure FROM pump_nodes ORDER BY 1",
        "DELETE FROM pump_nodes WHERE space = 'plant' AND external_id = 'n1'",
        "DELETE FROM relationships WHERE external_id = 'r'",
    ],
    "what is refused": [
        ("INSERT INTO events (external_id) VALUES (%s)", ["x" * 300]),
        "INSERT INTO assets (external_id) VALUES ('nameless')",
        "INSERT INTO events (external_id, created_time) VALUES ('c', now())",
        "INSERT INTO datapoints (external_id, \"timestamp\", value) VALUES ('s', '1800-01-01Z', 1)",
        "INSERT INTO datapoints (external_id, \"timestamp\", value) VALUES ('nowhere', '2026-01-01Z', 1)",
        "INSERT INTO checked (external_id, type) VALUES ('c', 'bad')",
        "INSERT INTO checked (type) VALUES ('x')",
        "UPDATE extraction_pipeline_runs SET status = 'failure' WHERE external_id = 'x'",
    ],
    "times": [
        "SET TimeZone = 'America/New_York'",
        "INSERT INTO events (external_id, start_time) VALUES ('t1', TIMESTAMP '2026-01-01 12:00')",
        ("INSERT INTO events (external_id, start_time) VALUES ('t2', %s::timestamp)", ["2026-01-01 12:00"]),
        "INSERT INTO events (external_id, start_time) SELECT 't3', d FROM (VALUES (DATE '2026-01-01')) v (d)",
        "INSERT INTO checked (external_id, start_time) VALUES ('t4', TIMESTAMPTZ '2026-01-01 12:00Z')",
        "UPDATE events SET end_time = TIMESTAMP '2026-01-02 12:00' WHERE external_id = 't1'",
        "SELECT external_id, start_time AT TIME ZONE 'UTC' FROM events WHERE external_id LIKE 't%' ORDER BY 1",
    ],
    "views and functions": [
        "CREATE TEMP VIEW some AS SELECT external_id, type FROM events WHERE type <> 'hidden' WITH CHECK OPTION",
        "INSERT INTO some VALUES ('v', 'x') RETURNING *",
        "INSERT INTO some VALUES ('v2', 'hidden')",
        "INSERT INTO some VALUES ('v', 'y') ON CONFLICT (external_id) DO UPDATE SET type = EXCLUDED.type",
        "UPDATE some SET type = 'z' WHERE external_id = 'v' RETURNING *",
        "DELETE FROM some WHERE external_id = 'v'",
        "INSERT INTO events SELECT * FROM jsonb_populate_recordset(NULL::events, '[{\"external_id\": \"j\", \"type\": \"x\"}]')",
        "CREATE TEMP TABLE twin (LIKE events INCLUDING ALL)",
        "INSERT INTO twin (external_id) VALUES ('twin')",
        "INSERT INTO events (external_id) SELECT external_id FROM twin",
        EVENTS,
    ],
}  # fmt: skip


def usual(text: str) -> str:
    """Without ids and moments, which are new each time, and what PostgreSQL itself calls the table."""
    text = re.sub(r"\b\d{12,}\b", "ID", text.replace("foreign table", "table"))
    return re.sub(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d+", "MOMENT", text)


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_a_facade_does_what_the_foreign_table_does(roles, cdf, scenario):
    seen = {}
    for name, session in roles.items():
        cdf.reset()
        create_view(Api(cdf), "Pump", {"name": "text", "pressure": "float64"}, space="plant")
        for statement in SETUP:
            session.execute(statement)
        cdf.admin_delete("requests")
        answers = [usual(repr(run(session, step))) for step in SCENARIOS[scenario]]
        seen[name] = (answers, state(cdf), paths(cdf))
    for facade, plain, step in zip(seen["fronted"][0], seen["plain"][0], SCENARIOS[scenario], strict=True):
        assert facade == plain, step
    assert seen["fronted"] == seen["plain"]


MERGES = [
    "UPDATE events SET type = staged.kind FROM staged WHERE external_id = staged.key",
    "DELETE FROM events USING staged WHERE external_id = staged.key",
    "INSERT INTO events (external_id, type) SELECT key, kind FROM staged LEFT JOIN events ON external_id = key WHERE external_id IS NULL",
]


@pytest.mark.parametrize("merge", MERGES)
def test_a_staged_merge_asks_for_no_more(roles, cdf, merge):
    seen = {}
    for name, session in roles.items():
        cdf.reset()
        session.execute("INSERT INTO events (external_id, type) SELECT 'e' || g, 'old' FROM generate_series(1, 5000) g")
        session.execute("CREATE TEMP TABLE staged AS SELECT 'e' || g * 7 AS key, 'new' AS kind FROM generate_series(1, 1000) g")
        session.execute("ANALYZE staged")
        cdf.admin_delete("requests")
        seen[name] = session.execute(merge).rowcount, paths(cdf), state(cdf)["events"]
    assert seen["fronted"] == seen["plain"]


EXPLAINED = {
    "SELECT * FROM events WHERE type = 'x' LIMIT 3": ["POST /events/list", '"limit":3'],
    "SELECT * FROM events WHERE external_id = 'x'": ["POST /events"],
    "UPDATE events SET type = 'y' WHERE external_id = 'x'": ["POST /events"],
    "DELETE FROM events WHERE type = 'y'": ["POST /events/list"],
}


@pytest.mark.parametrize("statement", EXPLAINED)
def test_explain_names_the_same_requests(roles, cdf, statement):
    plans = {}
    for name, session in roles.items():
        lines = [line for (line,) in session.execute(f"EXPLAIN (COSTS OFF) {statement}").fetchall()]
        plans[name] = [line.strip() for line in lines if ": " in line]
    assert plans["fronted"] == plans["plain"] and "/events" in str(plans["fronted"])
    assert paths(cdf) == []


def test_an_unfit_value_of_a_column_that_is_not_set_stays(roles, cdf):
    for session in roles.values():
        cdf.reset()
        Api(cdf).create_raw("plant", "pumps", p1={"kw": "much", "info": {"a": 1}})
        session.execute("UPDATE pumps SET info = '{}' WHERE tag = 'p1'")
        assert stored(cdf, "raw", "p1")["columns"]["kw"] == "much"


def test_a_constraint_names_the_key(roles, cdf):
    session = roles["fronted"]
    session.execute("INSERT INTO events (external_id, type) VALUES ('e', 'x')")
    session.execute("INSERT INTO events (external_id, type) VALUES ('e', 'y') ON CONFLICT ON CONSTRAINT events_external_id_key DO NOTHING")
    assert stored(cdf, "events", "e")["type"] == "x"
    upsert = "INSERT INTO pumps (tag, kw) VALUES ('p', %s) ON CONFLICT ON CONSTRAINT pumps_pkey DO UPDATE SET kw = EXCLUDED.kw"
    for kw in (1, 2):
        session.execute(upsert, [kw])
    assert stored(cdf, "raw", "p")["columns"]["kw"] == 2
    # A check of the foreign table is none of the facade.
    with refused("42704"):
        session.execute("INSERT INTO checked (external_id) VALUES ('e') ON CONFLICT ON CONSTRAINT checked_type_check DO NOTHING")


def test_a_row_without_its_primary_key_is_refused(roles, cdf):
    with refused("23502", "tag"):
        roles["fronted"].execute("INSERT INTO pumps (kw) VALUES (1)")
    assert paths(cdf) == []


# What tools ask the catalogs.

KEYS = {
    "labels": ["external_id"],
    "pump_nodes": ["space", "external_id"],
    "pumps": ["tag"],
    "raw_rows": ["db_name", "table_name", "key"],
    "relationships": ["external_id"],
    "checked": ["external_id"],
    "open": ["tag"],
}
UNIQUE = {
    "assets": ["external_id"],
    "data_sets": ["external_id"],
    "datapoints": ["external_id", "timestamp"],
    "events": ["external_id"],
    "extraction_pipelines": ["external_id"],
    "files": ["external_id"],
    "sequence_rows": ["external_id", "row_number"],
    "sequences": ["external_id"],
    "strict": ["external_id"],
    "string_datapoints": ["external_id", "timestamp"],
    "timeseries": ["external_id"],
}
# pgjdbc's DatabaseMetaData.getTables with the types that Kafka Connect asks for.
JDBC_TABLES = """
SELECT NULL AS TABLE_CAT, n.nspname AS TABLE_SCHEM, c.relname AS TABLE_NAME,
  CASE n.nspname ~ '^pg_' OR n.nspname = 'information_schema' WHEN true THEN NULL WHEN false THEN
    CASE c.relkind WHEN 'r' THEN 'TABLE' WHEN 'p' THEN 'PARTITIONED TABLE' WHEN 'v' THEN 'VIEW' WHEN 'f' THEN 'FOREIGN TABLE' END
  END AS TABLE_TYPE, d.description AS REMARKS
FROM pg_catalog.pg_namespace n, pg_catalog.pg_class c
LEFT JOIN pg_catalog.pg_description d ON (c.oid = d.objoid AND d.objsubid = 0 AND d.classoid = 'pg_class'::regclass)
WHERE c.relnamespace = n.oid AND c.relname LIKE 'events'
AND (false OR ( c.relkind = 'r' AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema' )
     OR ( c.relkind = 'p' AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema' ))
ORDER BY TABLE_TYPE, TABLE_SCHEM, TABLE_NAME
"""
# pgjdbc's getPrimaryKeys.
JDBC_KEYS = """
SELECT result.TABLE_NAME, result.COLUMN_NAME, result.KEY_SEQ FROM
 (SELECT n.nspname AS TABLE_SCHEM, ct.relname AS TABLE_NAME, a.attname AS COLUMN_NAME,
   (information_schema._pg_expandarray(i.indkey)).n AS KEY_SEQ, ci.relname AS PK_NAME,
   information_schema._pg_expandarray(i.indkey) AS KEYS, a.attnum AS A_ATTNUM
  FROM pg_catalog.pg_class ct JOIN pg_catalog.pg_attribute a ON (ct.oid = a.attrelid)
  JOIN pg_catalog.pg_namespace n ON (ct.relnamespace = n.oid)
  JOIN pg_catalog.pg_index i ON ( a.attrelid = i.indrelid) JOIN pg_catalog.pg_class ci ON (ci.oid = i.indexrelid)
  WHERE true AND n.nspname = 'fronted' AND i.indisprimary ) result
WHERE result.A_ATTNUM = (result.KEYS).x ORDER BY result.TABLE_NAME, KEY_SEQ
"""
# SQLAlchemy's names of tables, and its primary keys and unique constraints.
ALCHEMY_TABLES = """
SELECT pg_catalog.pg_class.relname FROM pg_catalog.pg_class JOIN pg_catalog.pg_namespace
ON pg_catalog.pg_namespace.oid = pg_catalog.pg_class.relnamespace
WHERE pg_catalog.pg_class.relkind = ANY (ARRAY['r', 'p']) AND pg_catalog.pg_class.relpersistence != 't'
AND pg_catalog.pg_table_is_visible(pg_catalog.pg_class.oid) AND pg_catalog.pg_namespace.nspname != 'pg_catalog'
"""
ALCHEMY_KEYS = """
SELECT attr.relname, array_agg(CAST(attr.attname AS TEXT) ORDER BY attr.ord) FROM (
  SELECT con.conrelid::regclass::text AS relname, con.conname, con.ord, pg_catalog.pg_attribute.attname
  FROM pg_catalog.pg_attribute JOIN (
    SELECT conrelid, conname, unnest(conkey) AS attnum, generate_subscripts(conkey, 1) AS ord
    FROM pg_catalog.pg_constraint WHERE contype = %s) AS con
  ON pg_catalog.pg_attribute.attnum = con.attnum AND pg_catalog.pg_attribute.attrelid = con.conrelid
) AS attr GROUP BY attr.relname, attr.conname
"""


def test_what_jdbc_lists(roles):
    assert [row[1:4] for row in roles["fronted"].execute(JDBC_TABLES)] == [("fronted", "events", "PARTITIONED TABLE")]
    found: dict[str, list] = {}
    for table, column, _ in roles["fronted"].execute(JDBC_KEYS).fetchall():
        found.setdefault(table, []).append(column)
    assert found == KEYS


def test_what_sqlalchemy_reflects(roles):
    session = roles["fronted"]
    tables = {name for (name,) in session.execute(ALCHEMY_TABLES)} - {"cdf_registrations", "cdf_facades"}
    assert tables == {*KEYS, *UNIQUE, "extraction_pipeline_runs"}
    assert {table: columns for table, columns in session.execute(ALCHEMY_KEYS, ["p"]) if table in tables} == KEYS
    assert {table: columns for table, columns in session.execute(ALCHEMY_KEYS, ["u"]) if table in tables} == UNIQUE
    # Without facades there is nothing to see.
    assert not {name for (name,) in roles["plain"].execute(ALCHEMY_TABLES)} - {"cdf_registrations", "cdf_facades"}


@pytest.fixture
def net(npgsql, places, cdf):
    """A connection of Npgsql 4 for each role."""
    site, passwords = places
    opened = {
        name: npgsql.open(Gateway(name, password, site.database, name, port=site.cluster.port), Pooling="false")
        for name, password in passwords.items()
    }
    yield opened
    for connection in opened.values():
        connection.close()


def test_what_npgsql_lists(net):
    listed = {name: net[name].do("schema", collection="Tables", restrictions=[None, name]) for name in net}
    assert listed["plain"] == []
    assert {row["table_name"] for row in listed["fronted"]} == {*KEYS, *UNIQUE, "extraction_pipeline_runs"}


# What later versions of Npgsql ask for CommandBehavior.KeyInfo and command builders, as far as it is about keys.
NPGSQL_KEYS = """
SELECT attname, col.is_updatable = 'YES' AS is_updatable,
  EXISTS (SELECT * FROM pg_index WHERE pg_index.indrelid = cls.oid AND pg_index.indisprimary AND attnum = ANY (indkey)) AS isprimarykey,
  EXISTS (SELECT * FROM pg_index WHERE pg_index.indrelid = cls.oid AND pg_index.indisunique AND pg_index.indnkeyatts = 1
          AND attnum = pg_index.indkey[0]) AS isunique
FROM pg_attribute AS attr JOIN pg_type AS typ ON attr.atttypid = typ.oid JOIN pg_class AS cls ON cls.oid = attr.attrelid
JOIN pg_namespace AS ns ON ns.oid = cls.relnamespace
LEFT OUTER JOIN information_schema.columns AS col ON col.table_schema = nspname AND col.table_name = relname AND col.column_name = attname
WHERE atttypid <> 0 AND relkind IN ('r', 'v', 'm', 'p') AND NOT attisdropped AND nspname NOT IN ('pg_catalog', 'information_schema')
AND attnum > 0 AND cls.oid = %s::regclass ORDER BY attnum
"""


@pytest.mark.parametrize("table, key", [("pumps", "tag"), ("events", "external_id")])
def test_the_keys_that_npgsql_asks_for(roles, net, table, key):
    found = roles["fronted"].execute(NPGSQL_KEYS, [table]).fetchall()
    assert [name for name, _, primary, unique in found if primary or unique] == [key]
    assert all(updatable for _, updatable, _, _ in found)
    assert roles["plain"].execute(NPGSQL_KEYS, [table]).fetchall() == []
    # Version 4 asks for 'r', 'v' and 'm' only: it knows no key of a partitioned table.
    for connection in net.values():
        assert not any(row["IsKey"] for row in connection.do("keys", sql=f"SELECT * FROM {table}"))


def test_what_the_information_schema_says(roles):
    session = roles["fronted"]
    query = "SELECT table_type, count(*) FROM information_schema.tables WHERE table_schema = 'fronted' GROUP BY 1"
    assert session.execute(query).fetchall() == [("BASE TABLE", len(KEYS) + len(UNIQUE) + 1)]
    columns = "SELECT column_name, data_type, is_nullable FROM information_schema.columns WHERE table_schema = {} AND table_name = 'events'"
    assert session.execute(columns.format("'fronted'")).fetchall() == roles["plain"].execute(columns.format("'plain'")).fetchall()
    comments = "SELECT obj_description('{0}.events'::regclass), col_description('{0}.events'::regclass, 2)"
    assert session.execute(comments.format("fronted")).fetchall() == roles["plain"].execute(comments.format("plain")).fetchall()


# Its life.


def call(connection, function: str, *arguments):
    parts = sql.SQL(", ").join([sql.Placeholder()] * len(arguments))
    return connection.execute(sql.SQL("SELECT {}({})").format(sql.SQL(function), parts), arguments).fetchone()[0]


SHAPE = """
SELECT jsonb_agg(row_to_json(described) ORDER BY name) FROM (
  SELECT n.nspname || '.' || c.relname AS name, c.oid, c.relkind, c.relowner, c.relispartition, c.relpartbound IS NULL AS free,
    (SELECT array_agg(a::text ORDER BY a::text) FROM aclexplode(coalesce(c.relacl, acldefault('r', c.relowner))) a) AS acl,
    (SELECT ftoptions FROM pg_foreign_table WHERE ftrelid = c.oid) AS options, obj_description(c.oid) AS comment,
    (SELECT array_agg(row(attname, atttypid, attnotnull, attislocal, attinhcount, attacl, attfdwoptions,
       col_description(c.oid, attnum))::text ORDER BY attnum)
     FROM pg_attribute WHERE attrelid = c.oid AND attnum > 0) AS columns,
    (SELECT array_agg(pg_get_constraintdef(oid) || coninhcount || conislocal ORDER BY conname)
     FROM pg_constraint WHERE conrelid = c.oid) AS constraints,
    (SELECT array_agg(pg_get_expr(adbin, adrelid) ORDER BY adnum) FROM pg_attrdef WHERE adrelid = c.oid) AS defaults,
    (SELECT array_agg(pg_get_triggerdef(oid) ORDER BY tgname) FROM pg_trigger WHERE tgrelid = c.oid) AS triggers
  FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
  WHERE n.nspname !~ '^(pg_|information_schema)' AND c.relkind IN ('f', 'p', 'r', 'v') AND c.relname !~ '^cdf_') described
"""


def shape(site) -> list:
    """All tables of a database, as they are."""
    with site.superuser() as connection:
        return connection.execute(SHAPE).fetchone()[0]


def kinds(connection, schema: str = "etl") -> dict[str, str]:
    query = "SELECT relname, relkind FROM pg_class WHERE relnamespace = to_regnamespace(%s) AND relkind IN ('f', 'p', 'r')"
    return dict(connection.execute(query, [sql.Identifier(schema).as_string(None)]).fetchall())


@pytest.fixture
def registrar(site):
    make_registrar(site)
    with site.role("registrar") as connection:
        site.register(connection, username="etl")
        yield connection


ODDITIES = """
CREATE FOREIGN TABLE etl.odd (gone int, external_id text NOT NULL, type text CHECK (type <> 'bad') DEFAULT 'none',
  upper text GENERATED ALWAYS AS (upper(type)) STORED, n serial) SERVER cdf OPTIONS (resource 'raw_rows', database 'd', "table" 'odd', primary_key 'external_id');
ALTER FOREIGN TABLE etl.odd DROP COLUMN gone;
CREATE FUNCTION public.mark() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN NEW.type := NEW.type || '!'; RETURN NEW; END $$;
CREATE TRIGGER mark BEFORE INSERT ON etl.odd FOR EACH ROW EXECUTE FUNCTION public.mark();
CREATE ROLE friend LOGIN PASSWORD 'pw';
GRANT USAGE ON SCHEMA etl TO friend;
GRANT SELECT (external_id), UPDATE (type) ON etl.odd TO friend WITH GRANT OPTION;
GRANT SELECT ON etl.events TO PUBLIC;
GRANT TRUNCATE ON etl.events TO etl;
GRANT SELECT, INSERT, UPDATE, DELETE ON etl.odd TO etl;
GRANT ALL ON ALL SEQUENCES IN SCHEMA etl TO etl;
COMMENT ON COLUMN etl.odd.type IS 'it''s odd';
COMMENT ON FOREIGN TABLE etl.odd IS 'odd "table"';
CREATE VIEW public.seen AS SELECT external_id FROM etl.events;
"""


def test_dropping_it_puts_everything_back(site, registrar):
    with site.superuser() as superuser:
        superuser.execute(ODDITIES)
        before, objects = shape(site), site.objects()
        call(superuser, "cdf_create_facade", "etl")
        assert set(kinds(superuser).values()) == {"p"} and set(kinds(superuser, "etl_foreign").values()) == {"f"}
        assert kinds(superuser).keys() == kinds(superuser, "etl_foreign").keys()
        made = shape(site)
        # Again: nothing is left to be done.
        call(superuser, "cdf_create_facade", "etl")
        assert shape(site) == made
        call(superuser, "cdf_drop_facade", "etl")
        assert shape(site) == before and site.objects() == objects
        call(superuser, "cdf_drop_facade", "etl")
        assert shape(site) == before
        superuser.execute("DROP VIEW public.seen")


def test_odd_tables_work_through_it(site, registrar, cdf):
    with site.superuser() as superuser:
        superuser.execute(ODDITIES)
        call(superuser, "cdf_create_facade", "etl")
        password = call(superuser, "cdf_reset_password", "etl")
        with site.role("etl", password) as session:
            assert session.execute("INSERT INTO odd (external_id, type) VALUES ('o', 'x') RETURNING *").fetchall() == [("o", "x!", "X!", 1)]
            with refused("23514", "odd_type_check"):
                session.execute("UPDATE odd SET type = 'bad' WHERE external_id = 'o'")
            with session.cursor().copy("COPY odd (external_id) FROM STDIN") as copy:
                copy.write("o3\n")
            assert sorted(names(cdf, "raw")) == ["o", "o3"]
            # Whoever has no right on the schema beside does not get at the foreign tables.
            with refused("42501", "etl_foreign"):
                session.execute("SELECT * FROM etl_foreign.events")
        with site.role("friend") as friend:
            friend.execute("EXPLAIN SELECT external_id FROM etl.odd")
            with refused("42501", "odd"):
                friend.execute("SELECT type FROM etl.odd")
        superuser.execute("DROP VIEW public.seen")


def test_rights_that_change_meanwhile_stay(site, registrar):
    with site.superuser() as superuser:
        call(superuser, "cdf_create_facade", "etl")
        superuser.execute("REVOKE DELETE ON etl.events FROM etl")
        superuser.execute("GRANT TRUNCATE ON etl.assets TO etl")
        superuser.execute("ALTER TABLE etl.assets RENAME TO things")
        superuser.execute("ALTER TABLE etl.events ADD COLUMN gone int")
        call(superuser, "cdf_drop_facade", "etl")
        assert kinds(superuser).get("things") == "f" and "assets" not in kinds(superuser)
        rights = "SELECT has_table_privilege('etl', 'etl.events', 'DELETE'), has_table_privilege('etl', 'etl.things', 'TRUNCATE')"
        assert superuser.execute(rights).fetchone() == (False, True)


def test_new_tables_join_it(site, registrar, cdf):
    create_view(Api(cdf), "Pump", {"name": "text"}, space="plant")
    call(registrar, "cdf_create_facade", "etl")
    columns = '{"tag": {"type": "TEXT"}, "kw": {"type": "REAL"}}'
    assert call(registrar, "cdf_create_raw_table", "etl", "pumps", "plant", "pumps", columns, "tag") == "etl.pumps"
    assert call(registrar, "cdf_create_view_table", "etl", "nodes", "plant", "Pump") == "etl.nodes"
    assert {kinds(registrar)[name] for name in ("pumps", "nodes")} == {"p"}
    password = call(registrar, "cdf_reset_password", "etl")
    with site.role("etl", password) as session:
        session.execute("INSERT INTO pumps VALUES ('p', 1)")
        session.execute("INSERT INTO nodes (space, external_id, name) VALUES ('plant', 'n', 'N')")
    assert names(cdf, "raw") == ["p"] and names(cdf, "instances") == ["n"]
    with site.superuser() as superuser:
        # By hand it is done in two steps.
        superuser.execute("CREATE FOREIGN TABLE etl.hand (key text) SERVER cdf OPTIONS (resource 'raw_rows', database 'd', \"table\" 't')")
        superuser.execute("CREATE FOREIGN TABLE etl.ways (key text, n int GENERATED ALWAYS AS IDENTITY) SERVER cdf OPTIONS (resource 'raw_rows', database 'd', \"table\" 'w')")
        assert kinds(superuser)["hand"] == "f"
        told_of = []
        superuser.add_notice_handler(lambda notice: told_of.append(notice.message_primary))
        call(superuser, "cdf_create_facade", "etl")
        assert kinds(superuser)["hand"] == "p" and kinds(superuser)["ways"] == "f"
        assert [text for text in told_of if "ways" in text and "identity" in text]


def test_registering_again_and_checking(site, registrar, cdf):
    rows = registrar.execute("SELECT * FROM cdf_check_credentials('etl')").fetchall()
    call(registrar, "cdf_create_facade", "etl")
    assert registrar.execute("SELECT * FROM cdf_check_credentials('etl')").fetchall() == rows
    before = shape(site)
    site.register(registrar, username="etl")
    assert shape(site) == before
    # A table that is missing is made again, with a façade.
    registrar.execute("DROP TABLE etl.labels")
    site.register(registrar, username="etl")
    assert kinds(registrar)["labels"] == "p" and kinds(registrar, "etl_foreign")["labels"] == "f"
    with refused("42P07", "snake_case"):
        site.register(registrar, username="etl", naming="camelCase")
    call(registrar, "cdf_update_credentials", "etl", site.emulator.client_secret)
    password = call(registrar, "cdf_reset_password", "etl")
    with site.role("etl", password) as session:
        session.execute("INSERT INTO labels (external_id, name) VALUES ('l', 'l')")
    assert names(cdf, "labels") == ["l"]


def test_a_partitioned_table_that_somebody_else_has_made_is_none(site, registrar):
    with site.superuser() as superuser:
        superuser.execute("ALTER FOREIGN TABLE etl.labels RENAME TO labels_part")
        superuser.execute("CREATE TABLE etl.labels (LIKE etl.labels_part) PARTITION BY LIST (external_id)")
        superuser.execute("ALTER TABLE etl.labels ATTACH PARTITION etl.labels_part DEFAULT")
        with refused("42P07", "labels"):
            site.register(registrar, username="etl")
        call(superuser, "cdf_create_facade", "etl")
        assert kinds(superuser)["labels"] == "p" and kinds(superuser)["labels_part"] == "f"
        call(superuser, "cdf_drop_facade", "etl")
        assert kinds(superuser)["labels"] == "p"


@pytest.mark.parametrize("function", ["cdf_create_facade", "cdf_drop_facade"])
def test_who_may(site, registrar, function):
    with site.superuser() as superuser:
        site.register(superuser, username="boss_etl", server="boss")
        before = shape(site)
        with refused("42501", "boss_etl", "postgres"):
            call(registrar, function, "boss_etl")
        for nobody in ("nobody", "registrar", "ETL"):
            with refused("42704", nobody):
                call(registrar, function, nobody)
        with refused("22004", "username"):
            call(registrar, function, None)
        superuser.execute("SET ROLE etl")
        with refused("42501", function):
            call(superuser, f"public.{function}", "etl")
        superuser.execute("RESET ROLE")
        superuser.execute("SET default_transaction_read_only = on")
        with refused("25006", function):
            call(superuser, function, "etl")
        assert shape(site) == before


def test_what_relies_on_it_is_in_the_way(site, registrar):
    with site.superuser() as superuser:
        call(superuser, "cdf_create_facade", "etl")
        for made, named in (
            ("CREATE VIEW public.v AS SELECT name FROM etl.assets", "view public.v"),
            ("CREATE FUNCTION public.f(etl.assets) RETURNS int LANGUAGE sql AS 'SELECT 1'", "f("),
            ("CREATE TABLE etl_foreign.more (a int)", "table etl_foreign.more"),
            ("CREATE VIEW public.w AS SELECT name FROM etl_foreign.assets", None),
        ):
            superuser.execute(made)
            before = shape(site)
            if named:
                with refused("2BP01", named) as raised:
                    call(registrar, "cdf_drop_facade", "etl")
                assert "CASCADE" not in told(raised.value)
                with refused("2BP01", named):
                    call(registrar, "cdf_drop_credentials", "etl")
                assert shape(site) == before
                superuser.execute(re.sub(r"^CREATE (\w+) ([\w.]+).*", r"DROP \1 \2", made))
        # A view of the foreign table itself goes on.
        call(registrar, "cdf_drop_facade", "etl")
        assert kinds(registrar)["assets"] == "f"


def test_everything_goes_with_the_registration(site):
    with site.superuser() as superuser:
        superuser.execute(f"CREATE SERVER cdf FOREIGN DATA WRAPPER cdf_fdw OPTIONS (base_url '{site.emulator.url}')")
        before = site.objects()
        _, password, *_ = site.register(superuser, username="etl")
        call(superuser, "cdf_create_facade", "etl")
        with site.role("etl", password) as session:
            session.execute("BEGIN")
            session.execute("SELECT FROM assets")
            with refused("55006", "1 open session"):
                call(superuser, "cdf_drop_credentials", "etl")
        call(superuser, "cdf_drop_credentials", "etl")
        assert site.objects() == before and shape(site) is None
        assert superuser.execute("SELECT count(*) FROM cdf_facades").fetchone() == (0,)


@pytest.mark.parametrize("first", ["a", "b"])
def test_two_roles_that_share_their_tables(site, first):
    with site.superuser() as superuser:
        superuser.execute(f"CREATE SERVER cdf FOREIGN DATA WRAPPER cdf_fdw OPTIONS (base_url '{site.emulator.url}')")
        before = site.objects()
        for username in ("a", "b"):
            site.register(superuser, username=username, schema="public", naming="camelCase")
        superuser.execute("CREATE FOREIGN TABLE public.mine (key text) SERVER cdf OPTIONS (resource 'raw_rows')")
        call(superuser, "cdf_create_facade", first)
        assert kinds(superuser, "public")["assets"] == "p" and kinds(superuser, "public")["mine"] == "f"
        superuser.execute("DROP FOREIGN TABLE public.mine")
        site.register(superuser, username="c", schema="public", naming="camelCase")
        call(superuser, "cdf_drop_credentials", first)
        last = "b" if first == "a" else "a"
        for username in (last, "c"):
            password = call(superuser, "cdf_reset_password", username)
            with site.role(username, password) as session:
                session.execute("INSERT INTO assets (\"externalId\", name) VALUES ('x', 'x') ON CONFLICT (\"externalId\") DO NOTHING")
        call(superuser, "cdf_drop_credentials", last)
        assert kinds(superuser, "public")["assets"] == "p"
        call(superuser, "cdf_drop_credentials", "c")
        assert site.objects() == before


@pytest.mark.parametrize("name", ['q"uo\'te', "søk 🦀", "x" * 63, "%s/../.", "Select", "public.etl"])
def test_names_are_taken_as_they_are(site, name):
    with site.superuser() as superuser:
        superuser.execute(f"CREATE SERVER cdf FOREIGN DATA WRAPPER cdf_fdw OPTIONS (base_url '{site.emulator.url}')")
        objects = site.objects()
        site.register(superuser, username=name)
        call(superuser, "cdf_create_raw_table", name, name, "d", "t", '{"a\'\\"b": {"type": "TEXT"}}', "a'\"b")
        before = shape(site)
        call(superuser, "cdf_create_facade", name)
        assert set(kinds(superuser, name).values()) == {"p"}
        call(superuser, "cdf_drop_facade", name)
        assert shape(site) == before
        call(superuser, "cdf_create_facade", name)
        call(superuser, "cdf_drop_credentials", name)
        assert site.objects() == objects


def test_a_schema_of_that_name_is_somebody_else_s(site, registrar):
    with site.superuser() as superuser:
        superuser.execute("CREATE SCHEMA etl_foreign")
        call(registrar, "cdf_create_facade", "etl")
        assert kinds(superuser, "etl_foreign") == {} and set(kinds(superuser, "etl_foreign_2").values()) == {"f"}
        call(registrar, "cdf_drop_facade", "etl")
        assert superuser.execute("SELECT to_regnamespace('etl_foreign') IS NULL, to_regnamespace('etl_foreign_2') IS NULL").fetchone() == (False, True)


def test_a_call_that_fails_changes_nothing(site, registrar):
    with site.superuser() as superuser:
        superuser.execute("CREATE FUNCTION public.stop() RETURNS event_trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'not now'; END $$")
        for function, tag in (("cdf_create_facade", "COMMENT"), ("cdf_drop_facade", "DROP SCHEMA")):
            before = shape(site)
            superuser.execute(f"CREATE EVENT TRIGGER stop ON ddl_command_end WHEN TAG IN ('{tag}') EXECUTE FUNCTION public.stop()")
            with pytest.raises(psycopg.errors.RaiseException, match="not now"):
                call(superuser, function, "etl")
            assert shape(site) == before
            superuser.execute("DROP EVENT TRIGGER stop")
            call(superuser, function, "etl")


def test_over_http(site, registrar, tmp_path):
    """cdf-gateway-api lists, changes and drops tables behind which foreign ones are."""
    with running(site, tmp_path, "--rate", "100000") as gateway:
        answer = gateway.create()
        user, name = f"/user/{answer['username']}", answer["username"]
        raw = {"destination": "raw", "name": "movies", "columns": ["title"], "options": {"primary_key": "title", "database": "d", "table": "t"}}
        assert gateway.post(f"{user}/tables", {"items": [raw]}).status_code == 200
        before = [table["name"] for table in gateway.get(f"{user}/tables").json()["items"]]
        call(registrar, "cdf_create_facade", name)
        found = gateway.get(f"{user}/tables").json()["items"]
        assert [table["name"] for table in found] == before
        [movies] = [table for table in found if table["name"] == "movies"]
        update = {"name": {"set": "films"}, "columns": {"add": ["year"]}}
        answered = gateway.post(f"{user}/tables/update", {"items": [{"id": movies["id"], "update": update}]})
        assert answered.status_code == 200, answered.text
        with gateway.connect(answer) as session:
            session.execute("INSERT INTO films (title, year) VALUES ('a', '1999')")
        assert names(site.emulator, "raw") == ["a"]
        assert kinds(registrar, name)["films"] == "p" and kinds(registrar, f"{name}_foreign")["films"] == "f"
        assert gateway.post(f"{user}/tables/delete", {"items": [{"id": movies["id"]}]}).status_code == 200
        assert "films" not in kinds(registrar, name) and "films" not in kinds(registrar, f"{name}_foreign")
        call(registrar, "cdf_drop_facade", name)


def test_a_table_that_is_declared_not_null_has_a_primary_key(site, registrar, cdf):
    registrar.execute("ALTER FOREIGN TABLE etl.events ALTER COLUMN external_id SET NOT NULL")
    call(registrar, "cdf_create_facade", "etl")
    keys = dict(registrar.execute(ALCHEMY_KEYS, ["p"]).fetchall())
    assert keys["etl.events"] == ["external_id"] and "etl.assets" not in keys
    call(registrar, "cdf_drop_facade", "etl")
    query = "SELECT attnotnull FROM pg_attribute WHERE attrelid = %s::regclass AND attname = %s"
    assert registrar.execute(query, ["etl.events", "external_id"]).fetchone() == (True,)
    assert registrar.execute(query, ["etl.labels", "external_id"]).fetchone() == (False,)


def test_a_dump_has_it(site, registrar, cdf, tmp_path):
    restored, dumped = "facades_restored", tmp_path / "dump"
    run_it = {"check": True, "capture_output": True, "text": True, "env": psql_environment()}
    bindir = site.cluster.bindir
    with site.superuser() as superuser:
        call(superuser, "cdf_create_facade", "etl")
        password = call(superuser, "cdf_reset_password", "etl")
    subprocess.run([bindir / "pg_dump", "-F", "custom", "-f", dumped, "-d", site.cluster.dsn(site.database)], **run_it)
    with site.cluster.connect() as connection:
        connection.execute(f"DROP DATABASE IF EXISTS {restored} WITH (FORCE)")
        connection.execute(f"CREATE DATABASE {restored}")
    try:
        subprocess.run([bindir / "pg_restore", "--exit-on-error", "-d", site.cluster.dsn(restored), dumped], **run_it)
        other = Site(site.cluster, site.emulator, restored)
        with other.superuser() as superuser:
            assert dict(superuser.execute(ALCHEMY_KEYS, ["p"]).fetchall())["etl.labels"] == ["external_id"]
            with other.role("etl", password) as session:
                session.execute("INSERT INTO etl.labels (external_id, name) VALUES ('l', 'l')")
            assert names(cdf, "labels") == ["l"]
            call(superuser, "cdf_drop_facade", "etl")
            assert set(kinds(superuser).values()) == {"f"}
            assert superuser.execute("SELECT to_regnamespace('etl_foreign') IS NULL").fetchone() == (True,)
    finally:
        with site.cluster.connect() as connection:
            connection.execute(f"DROP DATABASE {restored} WITH (FORCE)")


def test_a_load_that_is_under_way_is_waited_for(site, registrar, cdf):
    password = call(registrar, "cdf_reset_password", "etl")
    registrar.execute("SET lock_timeout = '300ms'")
    with site.role("etl", password) as session:
        session.execute("BEGIN")
        session.execute("INSERT INTO events (external_id) VALUES ('e')")
        with refused("55P03"):
            call(registrar, "cdf_create_facade", "etl")
        session.execute("COMMIT")
        call(registrar, "cdf_create_facade", "etl")
        # The session goes on, also with what it has prepared.
        session.execute("PREPARE p AS INSERT INTO events (external_id) VALUES ('f')")
        session.execute("EXECUTE p")
        call(registrar, "cdf_drop_facade", "etl")
        session.execute("EXECUTE p")
    assert names(cdf, "events") == ["e", "f"]
