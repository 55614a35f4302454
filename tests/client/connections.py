"""Several ways to one CDF project: another role, another server, and a user mapping that changes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import psycopg
import pytest
from psycopg import sql
from support import Scratch

SECOND = {"client_id": "second-client", "client_secret": "second-secret"}


@dataclass
class Ways:
    """Ways of the registered role to its project. `beside`: a role that it may be, with credentials of its own, which may
    do all with its tables. `scratch.turn()` changes the registered role's mapping to the other credentials, and back.
    `beside_server`: a server whose base_url is written in another way."""

    scratch: Scratch
    beside: str
    beside_server: str

    def reset(self, cdf) -> None:
        """Makes the second credentials known to a CDF that was emptied."""
        cdf.admin_post("clients", SECOND)

    def again(self, tables: list[tuple[str, bool]]) -> list[tuple[str, bool]]:
        """The same tables on the other server as well."""
        more = []
        for name, set_null in tables:
            plain = name.removeprefix("scratch.")
            options = self.scratch.execute(
                "SELECT string_agg(format('%I %L', option_name, option_value), ', ') FROM"
                f" pg_options_to_table((SELECT ftoptions FROM pg_foreign_table WHERE ftrelid = '{name}'::regclass))"
            ).fetchone()[0]
            self.scratch.execute(
                f"CREATE FOREIGN TABLE {plain}_beside () INHERITS ({plain}) SERVER {self.beside_server} OPTIONS ({options})"
            )
            self.scratch.execute(f"ALTER FOREIGN TABLE {plain}_beside NO INHERIT {plain}")
            more.append((f"{name}_beside", set_null))
        return [*tables, *more]


@pytest.fixture
def ways(cluster, gateway, cdf, scratch) -> Iterator[Ways]:
    cdf.admin_post("clients", SECOND)
    user, schema = sql.Identifier(gateway.username), sql.Identifier(gateway.schema)
    first = {"client_id": cdf.client_id, "client_secret": cdf.client_secret}
    more = {"project": cdf.project, "token_url": cdf.token_url, "scope": cdf.scope}

    def listed(options: dict, word: str = "") -> sql.Composable:
        pairs = (sql.SQL(word + "{} {}").format(sql.Identifier(k), sql.Literal(v)) for k, v in options.items())
        return sql.SQL(", ").join(pairs)

    def altered(options: dict) -> str:
        change = sql.SQL("ALTER USER MAPPING FOR {} SERVER cdf OPTIONS ({})").format(user, listed(options, "SET "))
        return change.as_string()

    def run(statement: str, *parts) -> None:
        scratch.execute(sql.SQL(statement).format(*parts).as_string())

    run("CREATE ROLE beside")
    run("CREATE USER MAPPING FOR beside SERVER cdf OPTIONS ({})", listed(SECOND | more))
    run("CREATE SERVER cdf_beside FOREIGN DATA WRAPPER cdf_fdw OPTIONS (base_url {})", sql.Literal(cdf.url.replace("http", "HTTP") + "/"))
    run("CREATE USER MAPPING FOR beside SERVER cdf_beside OPTIONS ({})", listed(SECOND | more))
    run("CREATE USER MAPPING FOR {} SERVER cdf_beside OPTIONS ({})", user, listed(first | more))
    run("GRANT beside TO {}", user)
    run("GRANT USAGE ON SCHEMA {}, scratch TO beside", schema)
    run("GRANT ALL ON ALL TABLES IN SCHEMA {} TO beside", schema)
    run("ALTER DEFAULT PRIVILEGES IN SCHEMA scratch GRANT ALL ON TABLES TO beside")
    run("CREATE TABLE turned (second boolean)")
    run("INSERT INTO turned VALUES (false)")
    run(
        "CREATE FUNCTION turn() RETURNS void LANGUAGE plpgsql SECURITY DEFINER SET search_path = scratch AS {}",
        sql.Literal(
            "BEGIN UPDATE turned SET second = NOT second; IF (SELECT second FROM turned) THEN "
            f"EXECUTE {sql.Literal(altered(SECOND)).as_string()}; ELSE EXECUTE {sql.Literal(altered(first)).as_string()}; END IF; END"
        ),
    )
    try:
        yield Ways(scratch, "beside", "cdf_beside")
    finally:
        scratch.execute(altered(first))
        run("ALTER DEFAULT PRIVILEGES IN SCHEMA scratch REVOKE ALL ON TABLES FROM beside")
        run("REVOKE beside FROM {}", user)
        run("DROP SERVER cdf_beside CASCADE")
        run("DROP USER MAPPING FOR beside SERVER cdf")
        run("DROP OWNED BY beside CASCADE")
        run("DROP ROLE beside")
