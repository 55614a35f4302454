"""HTTPS towards CDF: whom it trusts, and that a new connection resumes the session of the one before."""

from __future__ import annotations

import contextlib
import socket
import ssl
import subprocess
import threading
import time
from pathlib import Path
from urllib.parse import urlsplit

import psycopg
import pytest
from harness import REGISTER, Gateway, own_cluster
from support import dump

# 0o755: the server reads the certificate, and runs as another user.
READABLE = 0o755


class Front:
    """A TLS server before the emulator. It keeps how each handshake went: the version, and whether a session was
    resumed."""

    def __init__(self, directory: Path, target: tuple[str, int]):
        self.certificate = directory / "certificate.pem"
        key = directory / "key.pem"
        subject = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"]
        subprocess.run(
            ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", *subject]
            + ["-addext", "basicConstraints=critical,CA:FALSE", "-keyout", key, "-out", self.certificate],
            check=True,
            capture_output=True,
        )
        self.certificate.chmod(READABLE)
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.load_cert_chain(self.certificate, key)
        self._context.set_alpn_protocols(["http/1.1"])
        self._target = target
        self._open: list[socket.socket] = []
        self.handshakes: list[tuple[str | None, bool | None]] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with contextlib.suppress(OSError):
            client = self._context.wrap_socket(connection, server_side=True)
            self.handshakes.append((client.version(), client.session_reused))
            behind = socket.create_connection(self._target)
            self._open += [client, behind]
            threading.Thread(target=self._pump, args=(behind, client), daemon=True).start()
            self._pump(client, behind)

    @staticmethod
    def _pump(source: socket.socket, to: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while block := source.recv(1 << 16):
                to.sendall(block)
        with contextlib.suppress(OSError):
            to.shutdown(socket.SHUT_RDWR)

    def hang_up(self) -> None:
        """Closes all connections."""
        while self._open:
            with contextlib.suppress(OSError):
                self._open.pop().shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        self._listener.close()
        self.hang_up()


@pytest.fixture
def front(emulator, tmp_path_factory):
    emulator.reset()
    directory = tmp_path_factory.mktemp("tls")
    for parent in (directory, directory.parent, directory.parent.parent):
        parent.chmod(READABLE)
    address = urlsplit(emulator.url)
    running = Front(directory, (address.hostname, address.port))
    yield running
    running.close()


@contextlib.contextmanager
def gateway(front: Front, emulator):
    """A session of a gateway of its own, whose CDF is behind the front."""
    with own_cluster() as cluster:
        with cluster.connect() as administrator:
            administrator.execute("CREATE EXTENSION cdf_fdw")
            row = administrator.execute(REGISTER, emulator.access).fetchone()
            administrator.execute(f"ALTER SERVER cdf OPTIONS (SET base_url 'https://localhost:{front.port}')")
        with Gateway(*row, port=cluster.port).connect(autocommit=True) as session:
            yield session


def insert(session: psycopg.Connection, key: str) -> None:
    session.execute("INSERT INTO events (external_id, type) VALUES (%s, 'x')", [key])


def test_a_new_connection_resumes_the_session_of_the_one_before(front, emulator, monkeypatch):
    monkeypatch.setenv("SSL_CERT_FILE", str(front.certificate))
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
