"""Whom HTTPS trusts: the system's authorities and those of ca_file, valid certificates for the host only; and the server's proxy."""

from __future__ import annotations

import ssl
from urllib.parse import urlsplit

import pytest
from fronts import DAY, NOW, Front
from psycopg import sql
from support import names, refused


@pytest.fixture
def front(cdf):
    """Makes TLS servers before the emulator."""
    address = urlsplit(cdf.url)
    running = []

    def make(certificate: tuple, **more) -> Front:
        running.append(Front(certificate, (address.hostname, address.port), **more))
        return running[-1]

    yield make
    for one in running:
        one.close()


def make_server(connection, url: str, **options) -> None:
    connection.execute("DROP SERVER IF EXISTS cdf CASCADE")
    given = {"base_url": url} | options
    connection.execute(
        sql.SQL("CREATE SERVER cdf FOREIGN DATA WRAPPER cdf_fdw OPTIONS ({})").format(
            sql.SQL(", ").join(
                sql.SQL("{} {}").format(sql.Identifier(name), sql.Literal(str(value))) for name, value in given.items()
            )
        )
    )


def register(site, connection, front: Front, **changes):
    """Both CDF and the identity provider are behind the front."""
    return site.register(
        connection, token_url=f"{front.url}/oauth2/v2.0/token", base_url=front.url, **changes
    )


def load(site, username: str, password: str, key: str) -> None:
    with site.role(username, password) as session:
        session.execute("INSERT INTO events (external_id) VALUES (%s)", [key])


def test_an_authority_of_ones_own_is_trusted_beside_the_systems(site, authority, front):
    peer = front(authority.issue())
    with site.superuser() as connection:
        make_server(connection, peer.url, ca_file=authority.file)
        username, password, _, _ = register(site, connection, peer)
        load(site, username, password, "one")
        assert connection.execute("SELECT bool_and(ok) FROM cdf_check_credentials(%s)", [username]).fetchone() == (True,)
        # Without the option the same certificate is not trusted.
        before = len(peer.handshakes)
        connection.execute("ALTER SERVER cdf OPTIONS (DROP ca_file)")
        with refused("08001", "certificate", "ca_file"):
            load(site, username, password, "two")
        assert len(peer.handshakes) == before
    assert names(site.emulator, "events") == ["one"]


REFUSED = {
    "expired": {"until": NOW - DAY},
    "of another host": {"host": "cdf.example.com"},
    "of the address": {"host": "127.0.0.1"},
    "self-signed": {"self_signed": True},
}


@pytest.mark.parametrize("what", REFUSED)
def test_a_certificate_has_to_be_valid_for_the_host(site, authority, front, what):
    peer = front(authority.issue(**REFUSED[what]))
    before = site.objects()
    with site.superuser() as connection:
        make_server(connection, peer.url, ca_file=authority.file)
        with refused("08001", "certificate"):
            register(site, connection, peer)
        # CDF's certificate counts as well as the identity provider's.
        with refused("08001", "certificate", "CDF at localhost"):
            site.register(connection, base_url=peer.url)
        connection.execute("DROP SERVER cdf")
    assert site.objects() == before
    assert peer.handshakes == []


def test_peers_that_know_no_newer_version_than_tls_1_2(site, authority, front):
    peer = front(authority.issue(), newest=ssl.TLSVersion.TLSv1_2)
    with site.superuser() as connection:
        make_server(connection, peer.url, ca_file=authority.file)
        username, password, _, _ = register(site, connection, peer)
    load(site, username, password, "one")
    assert {version for version, _ in peer.handshakes} == {"TLSv1.2"}
    assert names(site.emulator, "events") == ["one"]


def test_a_file_that_holds_no_certificates_is_told(site, authority, front):
    peer = front(authority.issue())
    file = authority.directory / "other.pem"
    with site.superuser() as connection:
        make_server(connection, peer.url, ca_file=file)
        with refused("HV00J", str(file), "No such file or directory"):
            register(site, connection, peer)
        for content, words in (("geheim", "no certificate"), ("", "no certificate")):
            file.write_text(content)
            with refused("HV00J", str(file), words) as told:
                register(site, connection, peer)
            assert "geheim" not in str(told.value)
        # A file that is put right is read again, in the same session.
        file.write_bytes(authority.file.read_bytes())
        register(site, connection, peer)
        with refused("HV00J", "ca_file", "absolute"):
            make_server(connection, peer.url, ca_file="other.pem")


def test_the_proxy_of_a_server(site, cdf, proxy):
    with site.superuser() as connection:
        connection.execute("SET cdf_fdw.max_retries = 0")
        # Requests to this machine do not go through it.
        make_server(connection, cdf.url, proxy=proxy.url)
        username, password, _, _ = site.register(connection)
        load(site, username, password, "one")
        assert proxy.requests == []
        make_server(connection, "https://cdf.invalid", proxy=proxy.url)
        with refused("08001", "CDF at cdf.invalid"):
            site.register(connection, base_url="https://cdf.invalid")
        assert proxy.requests == ["CONNECT cdf.invalid:443 HTTP/1.1"]
        with refused("08001", "login.invalid"):
            site.register(connection, token_url="https://login.invalid/token", base_url="https://cdf.invalid")
        assert proxy.requests[1:] == ["CONNECT login.invalid:443 HTTP/1.1"]
        # What is not encrypted never goes through a proxy.
        connection.execute("SET cdf_fdw.allow_http = on")
        make_server(connection, "http://cdf.invalid", proxy=proxy.url)
        with refused("08001", "CDF at cdf.invalid"):
            site.register(connection, base_url="http://cdf.invalid")
        assert len(proxy.requests) == 2


@pytest.mark.parametrize(
    "address", ["proxy:3128", "http://me:geheim@proxy:3128", "http://me@proxy", "socks5://proxy", "http://proxy/x?geheim"]
)
def test_what_is_no_address_of_a_proxy(site, address):
    with site.superuser() as connection, refused("HV00J", "proxy") as told:
        make_server(connection, "https://cdf.example.com", proxy=address)
    assert "geheim" not in str(told.value)


def test_a_proxy_is_talked_to_encrypted_or_is_here(site):
    """As every address in an option: a superuser may allow others."""
    with site.superuser() as connection:
        for address in ("http://proxy.example.com:3128", "http://10.0.0.1", "HTTP://localhost.example.com"):
            with refused("HV00J", "proxy", "http://", "cdf_fdw.allow_http", "HTTPS_PROXY"):
                make_server(connection, "https://cdf.example.com", proxy=address)
        for address in ("https://proxy.example.com:3128", "http://localhost:3128", "http://[::1]:3128"):
            make_server(connection, "https://cdf.example.com", proxy=address)
        connection.execute("SET cdf_fdw.allow_http = on")
        make_server(connection, "https://cdf.example.com", proxy="http://proxy.example.com:3128")
        # What was allowed once is not any more.
        connection.execute("SET cdf_fdw.allow_http = off")
        with refused("HV00J", "proxy"):
            site.register(connection, base_url="https://cdf.example.com")
