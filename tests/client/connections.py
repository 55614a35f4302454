"""Several ways to one CDF project: another role, another server, and a user mapping that changes."""

from __future__ import annotations

from dataclasses import dataclass

from support import Scratch

SECOND = {"client_id": "second-client", "client_secret": "second-secret"}


@dataclass
class Ways:
    """Ways of the registered role to its project. `beside`: a role that it may switch to, with its own credentials and all
    rights on the tables. `scratch.turn()` changes the registered role's mapping to the other credentials, and back.
    `beside_server`: a server whose base_url is written in another way."""

    scratch: Scratch
    beside: str
    beside_server: str

    def reset(self, cdf) -> None:
        """Registers the second credentials again after CDF was emptied."""
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
