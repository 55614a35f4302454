"""Proxies of the environment: none sees unencrypted requests, or requests to this machine itself."""

from __future__ import annotations

import pytest
from faults import register
from harness import own_cluster
from support import dump, refused


@pytest.fixture
def proxied(monkeypatch, proxy, cdf):
    """A cluster that is started with every variable that names a proxy."""
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, proxy.url)
        monkeypatch.setenv(name.lower(), proxy.url)
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.setenv(name, "exempt.invalid")
    with own_cluster() as cluster:
        yield cluster


def test_proxies_of_the_environment(proxied, proxy, cdf):
    with proxied.connect() as admin:
        admin.execute("SELECT 1")
        environment = "COPY (SELECT 1) TO PROGRAM 'cat >/dev/null; test \"$HTTP_PROXY$https_proxy\" = \"{0}{0}\"'"
        admin.execute(environment.format(proxy.url))
    # To this machine: registration, and then a load.
    loader = register(proxied, cdf)
    with loader.connect(autocommit=True) as session:
        session.execute("INSERT INTO events (external_id) VALUES ('x')")
    assert len(dump(cdf, "events")) == 1
    assert proxy.requests == []

    def tried(url: str) -> None:
        """A registration that asks this URL for a token, and gets no answer."""
        with proxied.connect() as admin:
            admin.execute("SET cdf_fdw.max_retries = 0")
            admin.execute("SET cdf_fdw.allow_http = on")
            with refused("08001"):
                admin.execute(
                    "SELECT cdf_register_credentials(token_url => %s, client_id => 'a', client_secret => 'geheim',"
                    " scope => %s, project => 'p', server => 'other')",
                    [f"{url}/token", f"{url}/.default"],
                )

    for url in ("http://cdf.invalid", "https://localhost:1", "https://127.0.0.2:1", "https://[::1]:1", "http://[::1]:1", "https://exempt.invalid"):
        tried(url)
    assert proxy.requests == []
    # And requests that have to go through it do.
    tried("https://cdf.invalid")
    assert proxy.requests == ["CONNECT cdf.invalid:443 HTTP/1.1"]
