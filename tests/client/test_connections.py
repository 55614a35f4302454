"""One project reached in several ways in a transaction: rows count one after another, each goes with the credentials of
whoever wrote it, and what was written in one way is seen in the others."""

from __future__ import annotations

import pytest
from connections import SECOND
from random_writes import all_kinds, instances, run, transactions
from support import dump, names, paths, refused, stored


def hops(session, ways):
    """Changes the way at random."""
    roll = session.random.random()
    if roll < 0.2:
        session.run(f"SET LOCAL ROLE {ways.beside}")
    elif roll < 0.4:
        session.run("RESET ROLE")
    elif roll < 0.5:
        # The table that remembers is not for everyone.
        session.run("SELECT scratch.turn()")


@pytest.mark.timeout(120 + transactions())
def test_random_connections(session, scratch, api, cdf, ways):
    kinds = [*all_kinds(scratch, by_id=True), *instances(scratch, api)]
    for kind in kinds:
        if hasattr(kind, "tables"):
            kind.tables = ways.again(kind.tables)
    run(session, cdf, kinds, transactions(), reset=ways.reset, before=lambda session: hops(session, ways))


# ---- the same, one by one ----


def test_the_mapping_changes_within_a_transaction(session, cdf, ways):
    with session.transaction():
        session.execute("INSERT INTO events (external_id, type, source) VALUES ('m', 'first', 'kept')")
        session.execute("SELECT scratch.turn()")
        session.execute("INSERT INTO events (external_id, type) VALUES ('m', 'second')")
        assert session.execute("SELECT type, source FROM events").fetchall() == [("second", "kept")]
        session.execute("SELECT scratch.turn()")
        assert session.execute("UPDATE events SET subtype = 'third' WHERE external_id = 'm'").rowcount == 1
    m = stored(cdf, "events", "m")
    assert (m["type"], m["source"], m["subtype"]) == ("second", "kept", "third")
    written = [path for path in paths(cdf) if path in ("/events", "/events/update")]
    assert written == ["/events", "/events", "/events/update", "/events/update"]


@pytest.mark.parametrize("way", ["role", "function", "view"])
def test_rows_of_two_roles_count_one_after_another(session, cdf, scratch, gateway, ways, way):
    insert = f"INSERT INTO {gateway.schema}.events (external_id, type) VALUES ('{{}}', '{{}}')"
    scratch.execute(
        f"CREATE FUNCTION put(name text, what text) RETURNS void LANGUAGE sql SECURITY DEFINER AS "
        f"'INSERT INTO {gateway.schema}.events (external_id, type) VALUES (name, what)'"
    )
    scratch.execute(f"ALTER FUNCTION put OWNER TO {ways.beside}")
    scratch.view("shared", f"SELECT external_id, type FROM {gateway.schema}.events", owner=ways.beside)
    scratch.execute(f"GRANT ALL ON shared TO {gateway.username}")

    def beside(name, what):
        if way == "function":
            session.execute("SELECT scratch.put(%s, %s)", (name, what))
        elif way == "view":
            session.execute("INSERT INTO scratch.shared VALUES (%s, %s)", (name, what))
        else:
            session.execute(f"SET LOCAL ROLE {ways.beside}")
            session.execute(insert.format(name, what))
            session.execute("RESET ROLE")

    with session.transaction():
        session.execute(insert.format("a", "own first"))
        beside("a", "beside")
        beside("b", "beside first")
        session.execute(insert.format("b", "own"))
        assert dict(session.execute("SELECT external_id, type FROM events").fetchall()) == {"a": "beside", "b": "own"}
        assert session.execute("DELETE FROM events WHERE external_id = 'c'").rowcount == 0
        beside("c", "beside")
        assert session.execute("DELETE FROM events WHERE external_id = 'c'").rowcount == 1
    assert {item["externalId"]: item["type"] for item in dump(cdf, "events")} == {"a": "beside", "b": "own"}


def test_each_request_goes_with_the_credentials_of_whoever_wrote_its_rows(session, cdf, gateway, ways):
    def limited(client: str, secret: str, acl: str) -> None:
        capabilities = [{"acl": acl, "actions": ["READ", "WRITE"]}]
        cdf.admin_post("clients", {"client_id": client, "client_secret": secret, "capabilities": capabilities})

    limited(cdf.client_id, cdf.client_secret, "eventsAcl")
    limited(*SECOND.values(), "assetsAcl")
    asset = f"INSERT INTO {gateway.schema}.assets (external_id, name) VALUES ('a', 'A')"
    with session.transaction():
        session.execute("INSERT INTO events (external_id) VALUES ('e')")
        session.execute(f"SET LOCAL ROLE {ways.beside}")
        session.execute(asset)
    assert names(cdf, "events") == ["e"] and names(cdf, "assets") == ["a"]
    with refused("42501", "events"), session.transaction():
        session.execute(f"SET LOCAL ROLE {ways.beside}")
        session.execute(f"INSERT INTO {gateway.schema}.events (external_id) VALUES ('f')")


def test_what_a_role_needs_of_another_comes_first(session, cdf, scratch, gateway, ways):
    with session.transaction():
        session.execute("INSERT INTO assets (external_id, name, parent_external_id) VALUES ('child', 'C', 'parent'), ('root', 'R', NULL)")
        session.execute('INSERT INTO datapoints (external_id, "timestamp", value) VALUES (\'s\', \'2024-01-01\', 1)')
        session.execute(f"SET LOCAL ROLE {ways.beside}")
        session.execute("INSERT INTO assets (external_id, name, parent_external_id) VALUES ('parent', 'P', 'root')")
        session.execute("INSERT INTO timeseries (external_id, asset_external_id) VALUES ('s', 'child')")
        session.execute("RESET ROLE")
    assert names(cdf, "assets") == ["child", "parent", "root"]
    assert stored(cdf, "assets", "child")["parentExternalId"] == "parent"
    assert len(dump(cdf, "datapoints", external_id="s")) == 1
    with session.transaction():
        session.execute("DELETE FROM assets WHERE external_id = 'child'")
        session.execute(f"SET LOCAL ROLE {ways.beside}")
        session.execute("DELETE FROM assets WHERE external_id = 'parent'")
    assert names(cdf, "assets") == ["root"]


def test_a_url_written_in_another_way_is_the_same_cdf(session, cdf, scratch, ways):
    (one, _), *_ = [(scratch.table("one", "external_id text, type text", "events"), False)]
    (_, _), (two, _) = ways.again([(one, False)])
    with session.transaction():
        for table, what in ((one, "1"), (two, "2"), (one, "3"), (two, "4")):
            session.execute(f"INSERT INTO {table} VALUES ('e', '{what}')")
        assert session.execute(f"SELECT type FROM {one}").fetchall() == [("4",)]
    assert stored(cdf, "events", "e")["type"] == "4"


def test_names_of_one_project_mean_nothing_in_another(session, cdf, scratch, gateway):
    """The same external id has another internal id there."""
    cdf.admin_post("clients", {"client_id": "far", "client_secret": "far-secret", "projects": ["far-project"]})
    scratch.execute(
        f"CREATE SERVER far FOREIGN DATA WRAPPER cdf_fdw OPTIONS (base_url '{cdf.url}');"
        f"CREATE USER MAPPING FOR \"{gateway.username}\" SERVER far OPTIONS (project 'far-project', client_id 'far', client_secret 'far-secret',"
        f" token_url '{cdf.token_url}', scope '{cdf.scope}');"
        "CREATE FOREIGN TABLE far_sets (external_id text) SERVER far OPTIONS (resource 'data_sets');"
        "CREATE FOREIGN TABLE far_events (external_id text, data_set_external_id text) SERVER far OPTIONS (resource 'events')"
    )
    try:
        with session.transaction():
            session.execute("INSERT INTO data_sets (external_id) VALUES ('other'), ('d')")
            session.execute("INSERT INTO scratch.far_sets VALUES ('d')")
            session.execute("INSERT INTO events (external_id, data_set_external_id) VALUES ('near', 'd')")
            session.execute("INSERT INTO scratch.far_events VALUES ('far', 'd')")
        for project, event in (("test-project", "near"), ("far-project", "far")):
            (data_set,) = dump(cdf, "datasets", external_id="d", project=project)
            assert stored(cdf, "events", event, project=project)["dataSetId"] == data_set["id"]
    finally:
        scratch.execute("DROP SERVER far CASCADE")
