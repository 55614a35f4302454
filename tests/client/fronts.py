"""What stands between the server and CDF in tests: a relay that refuses and hangs up, one that speaks TLS, a proxy; and a
certificate authority."""

from __future__ import annotations

import contextlib
import select
import socket
import ssl
import threading
from datetime import datetime, timedelta, timezone
from ipaddress import ip_address
from pathlib import Path
from secrets import token_hex

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

NOW = datetime.now(timezone.utc)
DAY = timedelta(days=1)


class Relay:
    """A port in front of another one. It refuses connections until it is opened."""

    def __init__(self, target: tuple[str, int]):
        self._target = target
        self._ends: list[socket.socket] = []
        self._listener = socket.socket()
        self._listener.bind(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]

    def open(self) -> None:
        self._listener.listen()
        threading.Thread(target=self._accept, daemon=True).start()

    def hang_up(self) -> None:
        """Closes the open connections, and still accepts new ones."""
        while self._ends:
            with contextlib.suppress(OSError):
                self._ends.pop().shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        self._listener.close()
        self.hang_up()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                near, _ = self._listener.accept()
                threading.Thread(target=self._serve, args=(near,), daemon=True).start()

    def _serve(self, accepted: socket.socket) -> None:
        # Another thread may hang up at any moment; a TLS socket then raises ValueError.
        with (
            contextlib.suppress(OSError, ValueError),
            self._greet(accepted) as near,
            socket.create_connection(self._target) as far,
        ):
            self._ends += near, far
            self._pump(near, far)

    def _greet(self, accepted: socket.socket) -> socket.socket:
        return accepted

    @staticmethod
    def _pump(near: socket.socket, far: socket.socket) -> None:
        """Copies in both directions, in one thread: OpenSSL does not allow two to use a connection at the same time."""
        poll = select.poll()
        for end in (near, far):
            poll.register(end, select.POLLIN)
        while True:
            ready = {near.fileno()} if isinstance(near, ssl.SSLSocket) and near.pending() else {fd for fd, _ in poll.poll()}
            for source, sink in ((near, far), (far, near)):
                if source.fileno() not in ready:
                    continue
                # Readable bytes may be only a part of a TLS record.
                source.setblocking(False)
                try:
                    block = source.recv(1 << 16)
                except (BlockingIOError, ssl.SSLWantReadError):
                    continue
                finally:
                    source.setblocking(True)
                if not block:
                    return
                sink.sendall(block)


class Front(Relay):
    """A TLS server. It keeps how each handshake went: the version, and whether a session was resumed."""

    def __init__(
        self, certificate: tuple[Path, Path], target: tuple[str, int], newest: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3
    ):
        super().__init__(target)
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.maximum_version = newest
        self._context.load_cert_chain(*certificate)
        self._context.set_alpn_protocols(["http/1.1"])
        self.url = f"https://localhost:{self.port}"
        self.handshakes: list[tuple[str | None, bool | None]] = []
        self.open()

    def _greet(self, accepted: socket.socket) -> socket.socket:
        client = self._context.wrap_socket(accepted, server_side=True)
        self.handshakes.append((client.version(), client.session_reused))
        return client


class Proxy:
    """A port that records the first line of each request, and hangs up."""

    def __init__(self):
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._socket.getsockname()[1]}"
        self.requests: list[str] = []
        threading.Thread(target=self._run, daemon=True).start()

    def _run(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self._socket.accept()
                with connection:
                    self.requests.append(connection.makefile("rb").readline().decode(errors="replace").strip())

    def close(self) -> None:
        self._socket.close()


class Authority:
    """A private certificate authority, with a name that no other one has. `directory`: for its files."""

    def __init__(self, directory: Path):
        self.directory = directory
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"Authority {token_hex(8)}")])
        builder = self._builder(self.name, self.name, self.key, NOW + 30 * DAY)
        builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        self.certificate = builder.sign(self.key, hashes.SHA256())
        self.file = directory / "authority.pem"
        self.file.write_bytes(self.certificate.public_bytes(serialization.Encoding.PEM))

    @staticmethod
    def _builder(subject, issuer, key, until):
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(issuer)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(NOW - 60 * DAY)
            .not_valid_after(until)
        )

    def issue(
        self, host: str = "localhost", until: datetime = NOW + 20 * DAY, self_signed: bool = False
    ) -> tuple[Path, Path]:
        """Issues a certificate for a host. Returns the files of the certificate and its key."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, host)])
        try:
            name = x509.IPAddress(ip_address(host))
        except ValueError:
            name = x509.DNSName(host)
        builder = self._builder(subject, subject if self_signed else self.name, key, until)
        builder = builder.add_extension(x509.SubjectAlternativeName([name]), critical=False)
        builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        made = builder.sign(key if self_signed else self.key, hashes.SHA256())
        number = made.serial_number
        certificate, key_file = self.directory / f"{number}.pem", self.directory / f"{number}.key"
        certificate.write_bytes(made.public_bytes(serialization.Encoding.PEM))
        key_file.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        )
        return certificate, key_file
