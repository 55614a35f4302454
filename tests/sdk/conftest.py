"""The unmodified official SDK against the emulator: what the emulator says must be what a client of CDF expects.

CDF_EMULATOR names the binary. Every test gets an empty emulator.
"""

import itertools
import os
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

import pytest
import requests
from cognite.client import ClientConfig, CogniteClient, global_config
from cognite.client.credentials import OAuthClientCredentials

global_config.disable_pypi_version_check = True
# Retries are the extension's business; here every answer of the emulator is to be seen.
global_config.max_retries = 0

PROJECT = "test-project"


@dataclass
class Emulator:
    """A running emulator and its admin interface."""

    url: str

    def admin(self, method, path, **kwargs):
        response = requests.request(method, f"{self.url}/admin{path}", timeout=30, **kwargs)
        response.raise_for_status()
        return response.json()

    def requests(self, path=None, **parameters):
        if path:
            parameters["path"] = path
        return self.admin("GET", "/requests", params=parameters)["items"]

    def token(self, client_id="test-client", client_secret="test-secret", **form):
        form = {"grant_type": "client_credentials", "scope": f"{self.url}/.default", **form}
        return requests.post(
            f"{self.url}/tenant/oauth2/v2.0/token",
            data={"client_id": client_id, "client_secret": client_secret, **form},
            timeout=30,
        )

    def call(self, method, path, **kwargs):
        """A request to the API, for what the SDK would never send."""
        headers = {"Authorization": f"Bearer {self.token().json()['access_token']}", **kwargs.pop("headers", {})}
        url = f"{self.url}/api/v1/projects/{PROJECT}{path}"
        return requests.request(method, url, headers=headers, timeout=30, **kwargs)

    def refused(self, path, body, status=400):
        """Asserts that a POST is refused, and returns CDF's error."""
        response = self.call("POST", path, json=body)
        assert response.status_code == status, response.text
        error = response.json()["error"]
        assert error["code"] == status
        return error

    def client(self, client_id="test-client", client_secret="test-secret", project=PROJECT):
        credentials = OAuthClientCredentials(
            token_url=f"{self.url}/tenant/oauth2/v2.0/token",
            client_id=client_id,
            client_secret=client_secret,
            scopes=[f"{self.url}/.default"],
        )
        config = ClientConfig(client_name="emulator-tests", project=project, base_url=self.url, credentials=credentials)
        return CogniteClient(config)


@pytest.fixture(scope="session")
def running(tmp_path_factory):
    binary = os.environ.get("CDF_EMULATOR")
    if not binary:
        pytest.fail("CDF_EMULATOR must name the emulator's binary")
    port_file = Path(tmp_path_factory.mktemp("emulator")) / "port"
    process = subprocess.Popen([binary, "--listen", "127.0.0.1:0", "--port-file", str(port_file)])
    try:
        for _ in itertools.takewhile(lambda _: not port_file.exists(), range(600)):
            assert process.poll() is None, "the emulator ended"
            time.sleep(0.05)
        yield Emulator(f"http://127.0.0.1:{int(port_file.read_text())}")
        assert process.poll() is None, "the emulator ended during the tests"
    finally:
        process.terminate()
        process.wait()


@pytest.fixture
def emulator(running):
    running.admin("POST", "/reset")
    return running


@pytest.fixture
def client(emulator):
    return emulator.client()
