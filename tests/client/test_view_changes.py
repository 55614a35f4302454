"""UPDATE, DELETE, TRUNCATE and ON CONFLICT of instances, and what a transaction sees of its own."""

from __future__ import annotations

import pytest
from support import refused
from test_views import create_view


@pytest.fixture
def pump(api, scratch, session) -> str:
    create_view(api, "Pump", {"name": "text", "pressure": "float64", "tags": ["text"], "parent": "direct"})
    columns = "space text, external_id text, name text, pressure float8, tags text[], parent_space text, parent_external_id text, version bigint"
    table = scratch.table("pump", columns, "view", space="sp", external_id="Pump", version="v1", truncatable="true")
    session.execute(
        f"INSERT INTO {table} (space, external_id, name, pressure, tags) SELECT 'sp', 'p' || i, 'P' || i, i, '{{a,b}}' FROM generate_series(1, 5) i"
    )
    return table


def rows(session, table) -> list[tuple]:
    return session.execute(f"SELECT external_id, name, pressure FROM {table} ORDER BY external_id").fetchall()


def test_update(session, pump, cdf):
    assert session.execute(f"UPDATE {pump} SET pressure = pressure * 10, tags = NULL WHERE external_id IN ('p1', 'p2')").rowcount == 2
    assert rows(session, pump)[:3] == [("p1", "P1", 10.0), ("p2", "P2", 20.0), ("p3", "P3", 3.0)]
    assert session.execute(f"SELECT tags FROM {pump} WHERE external_id = 'p1'").fetchone() == (None,)
    assert session.execute(f"UPDATE {pump} SET name = 'x' WHERE space = 'sp' AND external_id = 'none'").rowcount == 0
    with refused("0A000", "key"):
        session.execute(f"UPDATE {pump} SET external_id = 'other' WHERE external_id = 'p1'")


def test_delete_and_truncate(session, pump, cdf):
    assert session.execute(f"DELETE FROM {pump} WHERE pressure > 3").rowcount == 2
    assert session.execute(f"DELETE FROM {pump} WHERE space = 'sp' AND external_id = 'p1' RETURNING name").fetchall() == [("P1",)]
    assert [key for key, *_ in rows(session, pump)] == ["p2", "p3"]
    session.execute(f"TRUNCATE {pump}")
    assert rows(session, pump) == []


def test_own_rows(session, pump, cdf):
    with session.transaction():
        session.execute(f"INSERT INTO {pump} (space, external_id, name, parent_space, parent_external_id) VALUES ('sp', 'p9', 'new', 'sp', 'p1')")
        session.execute(f"UPDATE {pump} SET pressure = 99 WHERE external_id = 'p9'")
        session.execute(f"DELETE FROM {pump} WHERE external_id = 'p2'")
        session.execute(f"INSERT INTO {pump} (space, external_id, name) VALUES ('sp', 'p3', 'again')")
        assert rows(session, pump) == [("p1", "P1", 1.0), ("p3", "again", 3.0), ("p4", "P4", 4.0), ("p5", "P5", 5.0), ("p9", "new", 99.0)]
        assert session.execute(f"SELECT parent_external_id FROM {pump} WHERE space = 'sp' AND external_id = 'p9'").fetchone() == ("p1",)
    assert rows(session, pump)[-1] == ("p9", "new", 99.0)


def test_on_conflict(session, pump, cdf):
    session.execute(
        f"INSERT INTO {pump} (space, external_id, name, pressure) VALUES ('sp', 'p1', 'n', 7), ('sp', 'p7', 'n', 7)"
        " ON CONFLICT (space, external_id) DO UPDATE SET pressure = EXCLUDED.pressure"
    )
    found = {key: rest for key, *rest in rows(session, pump)}
    assert found["p1"] == ["P1", 7.0] and found["p7"] == ["n", 7.0]
    session.execute(f"INSERT INTO {pump} (space, external_id, name) VALUES ('sp', 'p1', 'ignored') ON CONFLICT (space, external_id) DO NOTHING")
    assert rows(session, pump)[0] == ("p1", "P1", 7.0)


def test_two_views_of_the_same_instances_are_written_in_order(session, pump, api, scratch, cdf):
    """Each write goes to CDF in the order in which it was made, through whichever table."""
    container = {"type": "container", "space": "sp", "externalId": "Pump"}
    mapped = {"name": {"container": container, "containerPropertyIdentifier": "name"}}
    api.post("/models/views", {"space": "sp", "externalId": "Named", "version": "v1", "properties": mapped})
    other = scratch.table("other", "space text, external_id text, name text", "view", space="sp", external_id="Named", version="v1")
    with session.transaction():
        session.execute(f"INSERT INTO {other} VALUES ('sp', 'p1', 'first'), ('sp', 'n1', 'first')")
        session.execute(f"INSERT INTO {pump} (space, external_id, name) VALUES ('sp', 'p1', 'second'), ('sp', 'n2', 'x')")
        session.execute(f"INSERT INTO {other} VALUES ('sp', 'p1', 'third'), ('sp', 'n2', 'y')")
        session.execute(f"DELETE FROM {pump} WHERE external_id = 'p2'")
        session.execute(f"INSERT INTO {other} VALUES ('sp', 'p2', 'again')")
    assert dict(session.execute(f"SELECT external_id, name FROM {other} WHERE external_id IN ('p1', 'p2', 'n1', 'n2')").fetchall()) == {
        "p1": "third", "n1": "first", "n2": "y", "p2": "again",
    }
