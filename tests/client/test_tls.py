"""HTTPS towards CDF: whom it trusts, and that a new connection resumes the session of the one before."""

from __future__ import annotations

import contextlib
import time
from urllib.parse import urlsplit

import psycopg
import pytest
from fronts import Front
from harness import REGISTER, Gateway, own_cluster
from support import dump


@pytest.fixture
def front(emulator, authority):
    emulator.reset()
    address = urlsplit(emulator.url)
    running = Front(authority.issue(), (address.hostname, address.port))
    yield running
    running.close()


@contextlib.contextmanager
def gateway(front: Front, emulator):
    """A session of a gateway of its own, whose CDF is behind the front."""
    with own_cluster() as cluster:
        with cluster.connect() as administrator:
            administrator.execute("CREATE EXTENSION cdf_fdw")
            row = administrator.execute(REGISTER, emulator.access).fetchone()
            administrator.execute(f"ALTER SERVER cdf OPTIONS (SET base_url '{front.url}')")
        with Gateway(*row, port=cluster.port).connect(autocommit=True) as session:
            yield session


def insert(session: psycopg.Connection, key: str) -> None:
    session.execute("INSERT INTO events (external_id, type) VALUES (%s, 'x')", [key])


def test_a_new_connection_resumes_the_session_of_the_one_before(front, emulator, authority, monkeypatch):
    # All that the system trusts.
    monkeypatch.setenv("SSL_CERT_FILE", str(authority.file))
    monkeypatch.delenv("SSL_CERT_DIR", raising=False)
    with gateway(front, emulator) as session:
        for turn in range(3):
            insert(session, f"event {turn}")
            front.hang_up()
            # The client must have seen it: a request on a connection that ends is repeated, on another one.
            time.sleep(0.2)
    assert front.handshakes == [("TLSv1.3", False), ("TLSv1.3", True), ("TLSv1.3", True)]
    assert len(dump(emulator, "events")) == 3


def test_a_certificate_that_the_system_does_not_trust_is_refused(front, emulator):
    with gateway(front, emulator) as session:
        with pytest.raises(psycopg.OperationalError) as refused:
            insert(session, "x")
    assert refused.value.sqlstate == "08001"
    assert "certificate" in refused.value.diag.message_primary
    assert "trusts" in refused.value.diag.message_hint
    # Nor is it tried again.
    assert "Gave up" not in (refused.value.diag.message_detail or "")
    assert front.handshakes == []
