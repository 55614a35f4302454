"""A separate database for tests of registration: its roles, its log, and who may do what in it."""

from __future__ import annotations

import os
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psycopg
from psycopg import ClientCursor, sql

SECRET = "hush-hush-9f2c"


@dataclass
class Site:
    """A database with the extension, and how to reach it."""

    cluster: object
    emulator: object
    database: str

    def superuser(self, **kwargs) -> psycopg.Connection:
        return psycopg.connect(self.cluster.dsn(self.database), **{"autocommit": True, **kwargs})

    def role(self, name: str, password: str = "pw", **kwargs) -> psycopg.Connection:
        dsn = f"host=127.0.0.1 port={self.cluster.port} dbname={self.database}"
        return psycopg.connect(dsn, user=name, password=password, **{"autocommit": True, **kwargs})

    def arguments(self, **changes) -> dict[str, str]:
        return self.emulator.access | changes

    def register(self, connection, **changes):
        """Calls the function with parameters, as an application would."""
        return connection.execute(*statement(self.arguments(**changes))).fetchone()

    @contextmanager
    def logged(self):
        """The server's log of what happens in the block, in a list with one text."""
        before = len(self.cluster.log())
        texts = []
        yield texts
        texts.append(self.cluster.log()[before:])

    def objects(self) -> tuple:
        """Everything that a call might create."""
        with self.superuser() as connection:
            return tuple(
                connection.execute(query).fetchall()
                for query in (
                    "SELECT rolname FROM pg_roles ORDER BY 1",
                    "SELECT srvname FROM pg_foreign_server ORDER BY 1",
                    "SELECT umid FROM pg_user_mappings ORDER BY 1",
                    "SELECT nspname FROM pg_namespace WHERE nspname !~ '^pg_' ORDER BY 1",
                    "SELECT ftrelid FROM pg_foreign_table ORDER BY 1",
                    "SELECT * FROM pg_db_role_setting ORDER BY 1, 2",
                )
            )


def statement(arguments: dict[str, str]) -> tuple[sql.Composed, dict[str, str]]:
    named = sql.SQL(", ").join(
        sql.SQL("{} => {}").format(sql.Identifier(name), sql.Placeholder(name)) for name in arguments
    )
    return sql.SQL("SELECT * FROM cdf_register_credentials({})").format(named), arguments


def literal(connection, arguments: dict[str, str]) -> str:
    """The same call as one text with everything in it."""
    return ClientCursor(connection).mogrify(*statement(arguments))


RIGHTS = {
    "createrole": "ALTER ROLE registrar CREATEROLE",
    "create": "GRANT CREATE ON DATABASE credentials_test TO registrar",
    "wrapper": "GRANT USAGE ON FOREIGN DATA WRAPPER cdf_fdw TO registrar",
    "execute": "GRANT EXECUTE ON FUNCTION cdf_register_credentials TO registrar",
}


def make_registrar(site: Site, without: str | None = None) -> None:
    with site.superuser() as connection:
        connection.execute("CREATE ROLE registrar LOGIN PASSWORD 'pw'")
        for right, grant in RIGHTS.items():
            if right != without:
                connection.execute(grant)


class KeyFile:
    """A file of keys that the server can use, and a database whose sessions use it."""

    def __init__(self, site, directory: Path):
        self.site = site
        self.path = directory / "keys"
        self.owner = os.stat(site.cluster.data_dir).st_uid
        self.keys: list[str] = []

    def write(self, *keys: str, text: str | None = None, mode: int = 0o600, owner: int | None = None) -> None:
        """Keys, the first one first."""
        self.keys += keys
        self.path.unlink(missing_ok=True)
        self.path.write_text("\n".join(["# of a test", *keys, ""]) if text is None else text)
        os.chown(self.path, self.owner if owner is None else owner, -1)
        self.path.chmod(mode)

    def use(self, path: str | Path | None) -> None:
        """For sessions that begin from now on."""
        with self.site.superuser() as connection:
            connection.execute(
                sql.SQL("ALTER DATABASE {} SET cdf_fdw.secret_key_file = {}").format(
                    sql.Identifier(self.site.database), sql.Literal("" if path is None else str(path))
                )
            )
