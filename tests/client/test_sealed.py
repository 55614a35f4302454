"""Secrets sealed at rest: what is stored, who can open it, and what an error says when nobody can."""

from __future__ import annotations

import os
import subprocess
from contextlib import contextmanager
from secrets import token_hex

import psycopg
import pytest
from harness import psql_environment
from psycopg import sql
from sites import make_registrar
from support import names, refused

HAND_MADE = {"project": "test-project", "client_id": "test-client", "scope": "x/.default"}


def secret(site, role: str | None = "etl", server: str = "cdf", option: str = "client_secret") -> str | None:
    """What the catalog holds of a mapping's secret."""
    with site.superuser() as connection:
        row = connection.execute(
            "SELECT o.option_value FROM pg_user_mappings m, pg_options_to_table(m.umoptions) o"
            " WHERE m.srvname = %s AND m.usename = %s AND o.option_name = %s",
            [server, role or "public", option],
        ).fetchone()
        return row and row[0]


def sealed(site) -> dict[str, bool]:
    with site.superuser() as connection:
        return dict(connection.execute("SELECT username, sealed FROM cdf_credentials").fetchall())


@contextmanager
def loading(site, role="etl", password=None):
    """A new session of a registered role."""
    with site.superuser() as connection:
        if password is None:
            password = connection.execute("SELECT cdf_reset_password(%s)", [role]).fetchone()[0]
    with site.role(role, password) as session:
        yield session


def load(session, key: str) -> None:
    session.execute("INSERT INTO events (external_id) VALUES (%s)", [key])


def map_by_hand(connection, role: str, site, **changes) -> None:
    options = HAND_MADE | {"token_url": site.emulator.token_url, "client_secret": "test-secret"} | changes
    options = {name: value for name, value in options.items() if value is not None}
    connection.execute(
        sql.SQL("CREATE USER MAPPING FOR {} SERVER cdf OPTIONS ({})").format(
            sql.SQL(role),
            sql.SQL(", ").join(
                sql.SQL("{} {}").format(sql.Identifier(name), sql.Literal(value)) for name, value in options.items()
            ),
        )
    )


def test_registration_and_update_seal_what_they_store(site, key_file):
    with site.superuser() as connection:
        site.register(connection, username="etl")
        first = secret(site)
        assert first.startswith("sealed:v1:") and "test-secret" not in first
        assert sealed(site) == {"etl": True}
        with loading(site) as session:
            load(session, "one")
            # Even if only the project changes, the secret is opened and sealed again.
            connection.execute("SELECT cdf_update_credentials('etl', scope => %s)", [site.emulator.scope])
            second = secret(site)
            assert second.startswith("sealed:v1:") and second != first
            load(session, "two")
        with refused("28000"):
            connection.execute("SELECT cdf_update_credentials('etl', client_secret => 'wrong')")
        assert secret(site) == second
        connection.execute("SELECT cdf_update_credentials('etl', client_secret => 'test-secret')")
        assert secret(site).startswith("sealed:v1:")
        # What is sealed cannot be given as a secret.
        for call in (
            "SELECT cdf_update_credentials('etl', client_secret => %(sealed)s)",
            "SELECT cdf_register_credentials(token_url => %(url)s, client_id => 'test-client', client_secret => %(sealed)s,"
            " scope => %(scope)s, project => 'test-project')",
        ):
            with refused("HV00J", "sealed"):
                values = {"sealed": second, "url": site.emulator.token_url, "scope": site.emulator.scope}
                connection.execute(call, values)
    assert names(site.emulator, "events") == ["one", "two"]


def test_a_registrar_registers_sealed_on_a_server_of_his_own(site, key_file):
    make_registrar(site)
    with site.role("registrar") as connection:
        site.register(connection, username="etl")
        connection.execute("SELECT cdf_update_credentials('etl', client_secret => 'test-secret')")
        assert secret(site).startswith("sealed:v1:")
        assert connection.execute("SELECT sealed FROM cdf_credentials").fetchall() == [(True,)]
        # What is sealed stays, where something else is altered, and goes nowhere else.
        connection.execute("ALTER USER MAPPING FOR etl SERVER cdf OPTIONS (SET project 'test-project')")
        with refused("42501", "client_secret"):
            connection.execute("ALTER USER MAPPING FOR etl SERVER cdf OPTIONS (SET token_url 'https://m.example.com')")


def test_plain_secrets_still_work_and_are_sealed_on_demand(site, key_file):
    with site.superuser() as connection:
        connection.execute("SET cdf_fdw.secret_key_file = ''")
        site.register(connection, username="etl")
        assert secret(site) == "test-secret" and sealed(site) == {"etl": False}
        connection.execute("CREATE ROLE hand")
        map_by_hand(connection, "hand", site)
        map_by_hand(connection, "PUBLIC", site)
        assert secret(site, "hand") == "test-secret"
        with refused("55000", "cdf_fdw.secret_key_file is not set"):
            connection.execute("SELECT cdf_seal_secrets()")
        connection.execute("RESET cdf_fdw.secret_key_file")
        assert connection.execute("SELECT cdf_seal_secrets()").fetchone() == (3,)
        assert connection.execute("SELECT cdf_seal_secrets()").fetchone() == (0,)
        found = {secret(site), secret(site, "hand"), secret(site, None)}
        assert len(found) == 3 and all(text.startswith("sealed:v1:") for text in found)
        assert sealed(site) == {"etl": True}
        # All three are opened: the role's own, and that of PUBLIC.
        with loading(site) as session:
            load(session, "etl")
        connection.execute('CREATE FOREIGN TABLE e (external_id text) SERVER cdf OPTIONS (resource \'events\')')
        connection.execute("INSERT INTO e VALUES ('public')")
        # A plain one may take the place of a sealed one.
        connection.execute("ALTER USER MAPPING FOR hand SERVER cdf OPTIONS (SET client_secret 'plain again')")
        assert connection.execute("SELECT cdf_seal_secrets()").fetchone() == (1,)
    assert names(site.emulator, "events") == ["etl", "public"]


def test_rotation(site, key_file):
    old, new = key_file.keys[0], token_hex(32)
    with site.superuser() as connection:
        site.register(connection, username="etl")
        before = secret(site)
        with loading(site) as session:
            load(session, "old key")
            key_file.write(new, old)
            assert connection.execute("SELECT cdf_seal_secrets()").fetchone() == (1,)
            assert secret(site) != before
            assert connection.execute("SELECT cdf_seal_secrets()").fetchone() == (0,)
            key_file.write(new)
            load(session, "same session")
        with loading(site) as session:
            load(session, "new key")
        # What was sealed before cannot be opened any more.
        connection.execute(f"ALTER USER MAPPING FOR etl SERVER cdf OPTIONS (SET client_secret '{before}')")
        with refused("28000", "role etl", "does not have the key"):
            connection.execute("SELECT cdf_seal_secrets()")
    assert len(names(site.emulator, "events")) == 3


BROKEN = {
    "unset": (None, None, "is not set"),
    "other key": ({"text": "ab" * 32}, "path", "does not have the key that it is sealed under"),
    "gone": ("gone", "path", "there is no such file"),
    "readable by others": ({"mode": 0o640}, "path", "its mode is 0640"),
    "executable": ({"mode": 0o700}, "path", "its mode is 0700"),
    "of another user": ({"owner": 12345, "mode": 0o644}, "path", "does not belong to"),
    "closed": ({"owner": 12345}, "path", "Permission denied"),
    "not a key": ({"text": "11" * 31 + "\n"}, "path", "line 1 is not a key of 64 hexadecimal digits"),
    "empty": ({"text": "# nothing\n"}, "path", "it holds no key"),
    "long": ({"text": "#" * 70_000}, "path", "it has more than 65536 bytes"),
    "directory": (None, "directory", "it is not a regular file"),
    "relative": (None, "keys", "absolute"),
    "in the data directory": ("in data", "data", "in the data directory"),
    "linked from the data directory": ("linked", "linked", "in the data directory"),
}


@pytest.mark.parametrize("what", BROKEN)
def test_a_sealed_secret_without_its_key_is_an_error_that_says_so(site, key_file, what):
    how, where, expected = BROKEN[what]
    if isinstance(how, dict) and "owner" in how and os.geteuid() != 0:
        pytest.skip("only root gives files to another user")
    key = key_file.keys[0]
    with site.superuser() as connection:
        site.register(connection, username="etl")
        password = connection.execute("SELECT cdf_reset_password('etl')").fetchone()[0]
    in_data = site.cluster.data_dir / "keys"
    path = {None: None, "path": key_file.path, "directory": key_file.path.parent, "data": in_data}.get(where, where)
    if isinstance(how, dict):
        key_file.write(**({"text": f"{key}\n"} | how))
    elif how == "gone":
        key_file.path.unlink()
    elif how == "in data":
        key_file.path.rename(in_data)
    elif how == "linked":
        key_file.path.rename(in_data)
        path = key_file.path
        path.symlink_to(in_data)
    key_file.use(path)
    try:
        with loading(site, password=password) as session:
            for statement in ("INSERT INTO events (external_id) VALUES ('x')", "SELECT * FROM events"):
                with refused("28000", "client_secret of role etl on server cdf is sealed", expected) as told:
                    session.execute(statement)
        with site.superuser() as connection:
            rows = connection.execute("SELECT * FROM cdf_check_credentials('etl')").fetchall()
            assert rows[0][:4] == ("token", "test-client", None, False)
            assert "is sealed" in rows[0][4] and expected in rows[0][4]
            assert not any(row[3] for row in rows)
            if what not in ("unset", "other key"):
                with refused("22023", "cdf_fdw.secret_key_file", expected):
                    site.register(connection, username="other")
        assert key not in str(told)
    finally:
        in_data.unlink(missing_ok=True)


def test_a_sealed_secret_is_bound_to_its_server_and_role(site, key_file):
    with site.superuser() as connection:
        site.register(connection, username="etl")
        site.register(connection, username="etl2")
        connection.execute(f"CREATE SERVER second FOREIGN DATA WRAPPER cdf_fdw OPTIONS (base_url '{site.emulator.url}')")
        moved = secret(site)
        connection.execute(f"ALTER USER MAPPING FOR etl2 SERVER cdf OPTIONS (SET client_secret '{moved}')")
        with loading(site, "etl2") as session, refused("28000", "role etl2", "sealed for another server or role"):
            load(session, "x")
        options = f"project 'p', token_url '{site.emulator.token_url}', client_id 'c', client_secret '{moved}'"
        connection.execute(f"CREATE USER MAPPING FOR etl SERVER second OPTIONS ({options})")
        with refused("28000", "sealed for another server or role"):
            connection.execute("SELECT cdf_seal_secrets()")
        connection.execute("DROP USER MAPPING FOR etl SERVER second")
        connection.execute(f"ALTER USER MAPPING FOR etl2 SERVER cdf OPTIONS (SET client_secret '{moved[:-4]}AAAA')")
        with loading(site, "etl2") as session, refused("28000", "was changed"):
            load(session, "x")
        # Names that change, and change back.
        password = connection.execute("SELECT cdf_reset_password('etl')").fetchone()[0]
        connection.execute("ALTER SERVER cdf RENAME TO cdf9")
        with loading(site, password=password) as session, refused("28000", "server cdf9", "another server or role"):
            load(session, "x")
        connection.execute("ALTER SERVER cdf9 RENAME TO cdf")
        with loading(site, password=password) as session:
            load(session, "renamed back")
            connection.execute("ALTER ROLE etl RENAME TO etl9")
            # The session that has it open as well: it is another role's now.
            with refused("28000", "role etl9", "another server or role"):
                load(session, "x")
        connection.execute("SELECT cdf_update_credentials('etl9', client_secret => 'test-secret')")
        connection.execute("ALTER ROLE etl9 RENAME TO etl")
    assert names(site.emulator, "events") == ["renamed back"]


def test_a_dump_restores_where_the_key_is(site, key_file, tmp_path):
    restored, dump = "sealed_restored", tmp_path / "dump"
    with site.superuser() as connection:
        site.register(connection, username="etl")
    run = {"check": True, "capture_output": True, "text": True, "env": psql_environment()}
    bindir = site.cluster.bindir
    subprocess.run([bindir / "pg_dump", "-F", "custom", "-f", dump, "-d", site.cluster.dsn(site.database)], **run)
    text = subprocess.run([bindir / "pg_restore", "-f", "-", dump], **run).stdout
    assert "sealed:v1:" in text and "test-secret" not in text and key_file.keys[0] not in text
    with site.cluster.connect() as connection:
        connection.execute(f"DROP DATABASE IF EXISTS {restored} WITH (FORCE)")
        connection.execute(f"CREATE DATABASE {restored}")
    try:
        subprocess.run([bindir / "pg_restore", "--exit-on-error", "-d", site.cluster.dsn(restored), dump], **run)
        with psycopg.connect(site.cluster.dsn(restored), autocommit=True) as connection:
            connection.execute("SET cdf_fdw.secret_key_file = ''")
            row = connection.execute("SELECT * FROM cdf_check_credentials('etl') LIMIT 1").fetchone()
            assert not row[3] and "cdf_fdw.secret_key_file is not set" in row[4]
            connection.execute(sql.SQL("SET cdf_fdw.secret_key_file = {}").format(sql.Literal(str(key_file.path))))
            row = connection.execute("SELECT * FROM cdf_check_credentials('etl') LIMIT 1").fetchone()
            assert row[3], row
    finally:
        with site.cluster.connect() as connection:
            connection.execute(f"DROP DATABASE {restored} WITH (FORCE)")


@pytest.mark.parametrize("preloaded", [True, False])
def test_who_can_read_a_sealed_secret_cannot_have_it_sent_elsewhere(site, key_file, preloaded):
    evil = "https://mallory.example.com/token"
    with site.superuser() as connection:
        if preloaded:
            connection.execute(f"ALTER DATABASE {site.database} SET session_preload_libraries = 'cdf_fdw'")
        site.register(connection, username="etl")
        connection.execute("GRANT USAGE ON FOREIGN SERVER cdf TO etl")
        key_file.write(token_hex(32), *key_file.keys)
        older = secret(site)
        connection.execute("SELECT cdf_seal_secrets()")
        password = connection.execute("SELECT cdf_reset_password('etl')").fetchone()[0]
    current = secret(site)
    options = f"project 'test-project', token_url '{evil}', client_id 'c'"
    for text in (older, current):
        attempts = (
            f"ALTER USER MAPPING FOR etl SERVER cdf OPTIONS (SET token_url '{evil}', SET client_secret '{text}')",
            f"BEGIN; DROP USER MAPPING FOR etl SERVER cdf;"
            f" CREATE USER MAPPING FOR etl SERVER cdf OPTIONS ({options}, client_secret '{text}')",
        )
        for attempt in attempts:
            # The first statement of a session that may not have the library.
            with site.role("etl", password) as session, refused("42501", "client_secret"):
                session.execute(attempt)
    assert secret(site) == current
    with site.role("etl", password) as session:
        # An option that does not change where anything is sent concerns only its owner.
        session.execute("ALTER USER MAPPING FOR etl SERVER cdf OPTIONS (SET project 'test-project')")
        session.execute(f"ALTER USER MAPPING FOR etl SERVER cdf OPTIONS (SET token_url '{evil}', SET client_secret 'own')")
    assert secret(site) == "own"


def test_only_superusers_seal_and_name_the_file(site, key_file):
    make_registrar(site)
    with site.superuser() as connection:
        connection.execute("GRANT EXECUTE ON FUNCTION cdf_seal_secrets TO registrar")
    with site.role("registrar") as connection:
        with refused("42501", "seal"):
            connection.execute("SELECT cdf_seal_secrets()")
        with refused("42501"):
            connection.execute("SET cdf_fdw.secret_key_file = '/tmp/x'")
        with refused("42501"):
            connection.execute("SHOW cdf_fdw.secret_key_file")
    with site.superuser() as connection:
        connection.execute("SELECT 'cdf_fdw_handler'::regproc")
        connection.execute("LOAD 'cdf_fdw'")
        row = connection.execute(
            "SELECT context, vartype FROM pg_settings WHERE name = 'cdf_fdw.secret_key_file'"
        ).fetchone()
        assert row == ("superuser", "string")
        connection.execute("REVOKE EXECUTE ON FUNCTION cdf_seal_secrets FROM registrar")
        connection.execute("SET default_transaction_read_only = on")
        with refused("25006"):
            connection.execute("SELECT cdf_seal_secrets()")
    with site.role("registrar") as connection, refused("42501", "cdf_seal_secrets"):
        connection.execute("SELECT cdf_seal_secrets()")
