"""Singer targets: Meltano's target-postgres, and the statements of those that keep to SQL of their own."""

from __future__ import annotations

import json
from pathlib import Path

import psycopg
import pytest
from loads import AGAIN, FIRST, KEYS, REFUSAL, REFUSED, SPOILED, TYPES, Load, Table, check, check_nothing, only, write_csv
from support import refused
from venvs import PLACE, Ran, needed, run

SCHEMAS = {
    "text": {"type": ["string", "null"]},
    "jsonb": {"type": ["object", "null"]},
    "timestamptz": {"type": ["string", "null"], "format": "date-time"},
    "float8": {"type": ["number", "null"]},
    "boolean": {"type": ["boolean", "null"]},
    "bigint": {"type": ["integer", "null"]},
}


def messages(table: Table) -> list[dict]:
    """A stream of the Singer protocol."""
    kinds = {column: TYPES.get(column, "text") for column in table.columns}
    properties = {column: SCHEMAS[kind] for column, kind in kinds.items()}
    schema = {"type": "SCHEMA", "stream": table.name, "schema": {"properties": properties}, "key_properties": KEYS[table.name]}
    rows = [
        {column: json.loads(value) if value and kinds[column] == "jsonb" else value for column, value in row.items()}
        for row in table.mappings()
    ]
    return [schema] + [{"type": "RECORD", "stream": table.name, "record": row} for row in rows]


class Target:
    """Meltano's, which asks SQLAlchemy for the tables: it finds those that are partitioned, and no foreign ones."""

    def __init__(self, role, schema: str, home: Path, row):
        self._role, self._schema, self._home, self.row = role, schema, home, row

    def load(self, loaded: Load) -> Ran:
        role = self._role
        settings = {
            "host": "127.0.0.1",
            "port": role.port,
            "user": role.username,
            "password": role.password,
            "database": role.database,
            "default_target_schema": self._schema,
            "add_record_metadata": False,
            "activate_version": False,
        }
        config = self._home / "config.json"
        config.write_text(json.dumps(settings))
        given = "".join(json.dumps(message) + "\n" for table in loaded for message in messages(table))
        return run([PLACE / "target-postgres" / "bin" / "target-postgres", "--config", config], self._home, given=given)


@pytest.fixture
def facade(superuser, registered) -> str:
    """A schema in which each table is a partitioned one, whose only partition is a foreign table."""
    columns = {
        "assets": "external_id text, name text, parent_external_id text, description text, metadata jsonb, data_set_id bigint",
        "events": "external_id text, start_time timestamptz, end_time timestamptz, type text, description text, metadata jsonb",
        "timeseries": "external_id text, name text, unit text, is_step boolean, metadata jsonb",
        "datapoints": 'external_id text, "timestamp" timestamptz, value float8',
        "raw_rows": "db_name text, table_name text, key text, columns jsonb",
    }
    superuser.execute("DROP SCHEMA IF EXISTS facade CASCADE")
    superuser.execute("CREATE SCHEMA facade")
    for name, definition in columns.items():
        superuser.execute(f"CREATE TABLE facade.{name} ({definition}) PARTITION BY LIST ({KEYS[name][-1]})")
        superuser.execute(
            f"CREATE FOREIGN TABLE facade.{name}_cdf PARTITION OF facade.{name} DEFAULT SERVER cdf OPTIONS (resource '{name}')"
        )
    # The target writes JSON's null where a record has no object.
    superuser.execute(
        "CREATE FUNCTION facade.without_json_null() RETURNS trigger LANGUAGE plpgsql AS"
        " $$ BEGIN NEW.metadata := nullif(NEW.metadata, 'null'); RETURN NEW; END $$"
    )
    for name in ("assets", "events", "timeseries"):
        superuser.execute(
            f"CREATE TRIGGER without_json_null BEFORE INSERT OR UPDATE ON facade.{name}_cdf"
            " FOR EACH ROW EXECUTE FUNCTION facade.without_json_null()"
        )
    superuser.execute("ALTER FOREIGN TABLE facade.datapoints_cdf OPTIONS (ADD create_missing 'true')")
    superuser.execute(f'GRANT USAGE ON SCHEMA facade TO "{registered.username}"')
    superuser.execute(f'GRANT ALL ON ALL TABLES IN SCHEMA facade TO "{registered.username}"')
    yield "facade"
    superuser.execute("DROP SCHEMA facade CASCADE")


@pytest.fixture
def target(matrix, etl, facade, cdf, tmp_path) -> Target:
    version = needed(matrix, "Meltano target-postgres", "meltanolabs-target-postgres", environment="target-postgres")
    return Target(etl, facade, tmp_path, matrix.row("Meltano target-postgres", version))


def test_meltano_upserts(target, cdf):
    with target.row.tried("upsert"):
        target.load(FIRST).well()
        check(cdf, FIRST)
        target.load(AGAIN).well()
        check(cdf, FIRST, AGAIN)


def test_meltano_is_told_what_is_refused(target, cdf):
    with target.row.tried("refused load"):
        printed = target.load(only(REFUSED, "assets")).badly().printed
        for text in REFUSAL:
            assert text in printed, printed
        check_nothing(cdf)
    with target.row.tried("rollback", "of its own, where a row is refused"):
        assert "140" in (ran := target.load(only(SPOILED, "assets")).badly()).printed, ran.printed
        check_nothing(cdf)


def test_meltano_and_the_progress(target, progress, cdf):
    printed = target.load(only(FIRST, "assets")).well().printed
    target.row.note("progress seen", "yes" if "delivered 0 of" in printed else "no")
    check(cdf, only(FIRST, "assets"))


# ---- the statements of a target that writes its own SQL ----


def upsert(cursor: psycopg.Cursor, table: Table, path: Path) -> None:
    """A temporary table, COPY of a file into it, an UPDATE of what is there, an INSERT of what is not."""
    kinds = ", ".join(f'"{column}" {TYPES.get(column, "text")}' for column in table.columns)
    names = ", ".join(f'"{column}"' for column in table.columns)
    assigned = ", ".join(f'"{column}" = s."{column}"' for column in table.columns if column not in KEYS[table.name])
    same = " AND ".join(f's."{key}" = t."{key}"' for key in KEYS[table.name])
    taken = ", ".join(f's."{column}"' for column in table.columns)
    cursor.execute(f"CREATE TEMP TABLE tmp_{table.name} ({kinds})")
    with cursor.copy(f"COPY tmp_{table.name} ({names}) FROM STDIN (FORMAT csv, HEADER)") as copy:
        copy.write(path.read_bytes())
    cursor.execute(f"UPDATE {table.name} t SET {assigned} FROM tmp_{table.name} s WHERE {same}")
    cursor.execute(
        f"INSERT INTO {table.name} ({names}) (SELECT {taken} FROM tmp_{table.name} s LEFT OUTER JOIN {table.name} t"
        f' ON {same} WHERE t."{KEYS[table.name][0]}" IS NULL)'
    )
    cursor.execute(f"DROP TABLE tmp_{table.name}")


@pytest.fixture
def statements(matrix, etl, cdf, tmp_path):
    def load(loaded: Load, end: str = "COMMIT") -> None:
        paths = write_csv(loaded, tmp_path)
        with etl.connect(autocommit=True) as connection:
            cursor = connection.cursor()
            cursor.execute("BEGIN")
            for table in loaded:
                upsert(cursor, table, paths[table.name])
            cursor.execute(end)

    load.row = matrix.row("Singer-style statements", psycopg.__version__)
    return load


def test_singer_statements(statements, cdf):
    with statements.row.tried("upsert"):
        statements(FIRST)
        check(cdf, FIRST)
        statements(AGAIN)
        check(cdf, FIRST, AGAIN)
    with statements.row.tried("rollback"):
        cdf.reset()
        statements(FIRST, "ROLLBACK")
        check_nothing(cdf)
    with statements.row.tried("refused load"):
        with refused("23503", *REFUSAL):
            statements(only(REFUSED, "assets", "events", "timeseries", "datapoints"))
        check_nothing(cdf)
