"""HTTP and gRPC over TLS, and certificates that are renewed under a daemon that runs."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
import requests
from craft_protos import daemon_pb2, daemon_pb2_grpc
from craft_protos.reasons import CraftError
from craft_protos.settings import HttpSettings
from craftd.http.server import certificate_of

from tests.daemon import certificates
from tests.daemon.certificates import Certificates
from tests.home import HANG_S, Home
from tests.http.shim import Shim, serving


@pytest.fixture(scope="module")
def pems(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    """The first certificate, in the files that the daemon reads."""
    return certificates.make(tmp_path_factory.mktemp("first"))


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return certificates.make(tmp_path_factory.mktemp("other"))


@pytest.fixture
def shim(tmp_path: Path, pems: Certificates) -> Iterator[Shim]:
    cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    shutil.copy(pems.cert, cert)
    shutil.copy(pems.key, key)
    faces = {
        f"CRAFT_{face}_TLS_{name}": str(path)
        for face in ("HTTP", "DAEMON")
        for name, path in (("CERT", cert), ("KEY", key))
    }
    with serving(CRAFT_DAEMON_LISTEN="127.0.0.1:0", **faces) as made:
        yield made


def asked(shim: Shim, ca: Path) -> int:
    """The status over a new connection."""
    return requests.get(f"{shim.url}/healthz", verify=str(ca), timeout=HANG_S).status_code


def greets(shim: Shim, ca: Path) -> bool:
    """Whether the gRPC port shows a certificate of that CA."""
    credentials = grpc.ssl_channel_credentials(ca.read_bytes())
    with grpc.secure_channel(shim.status().listen, credentials) as channel:
        stub = daemon_pb2_grpc.DaemonStub(channel)
        with pytest.raises(grpc.RpcError) as caught:  # there is no key
            stub.GetStatus(daemon_pb2.GetStatusRequest(), timeout=HANG_S)
        return bool(caught.value.code() is grpc.StatusCode.UNAUTHENTICATED)  # type: ignore[attr-defined]


def test_a_picture_comes_over_https_alone(shim: Shim, pems: Certificates, other: Certificates) -> None:
    assert shim.url.startswith("https://127.0.0.1:") and shim.status().http == shim.url
    known, body = str(pems.ca), {"prompt": "a red apple", "response_format": "url"}
    made = shim.call("POST", "/v1/images/generations", shim.key("alice"), json=body, verify=known).json()
    link = made["data"][0]["url"]
    assert link.startswith(shim.url)
    assert shim.call("GET", link.removeprefix(shim.url), verify=known).content.startswith(b"\x89PNG")
    assert shim.call("GET", "/", verify=known).status_code == 200
    with pytest.raises(requests.exceptions.SSLError):
        asked(shim, other.ca)
    with pytest.raises(requests.exceptions.ConnectionError):
        requests.get(shim.url.replace("https", "http"), timeout=HANG_S)


def test_renewed_files_are_used_without_a_restart(
    shim: Shim, tmp_path: Path, pems: Certificates, other: Certificates
) -> None:
    assert asked(shim, pems.ca) == 200 and greets(shim, pems.ca)
    shutil.copy(other.cert, tmp_path / "cert.pem")  # half of it: the key is the old one
    assert asked(shim, pems.ca) == 200 and greets(shim, pems.ca)
    shutil.copy(other.key, tmp_path / "key.pem")
    assert asked(shim, other.ca) == 200 and greets(shim, other.ca)
    with pytest.raises(requests.exceptions.SSLError):
        asked(shim, pems.ca)
    (tmp_path / "cert.pem").unlink()  # lost: the one that was read goes on
    assert asked(shim, other.ca) == 200 and greets(shim, other.ca)


def test_files_that_will_not_do(pems: Certificates, other: Certificates, home: Home) -> None:
    with pytest.raises(CraftError, match=r"http.tls_key: is not set"):
        certificate_of(HttpSettings(tls_cert=str(pems.cert)))
    settings = HttpSettings(tls_cert=str(pems.cert), tls_key=str(other.key))
    with pytest.raises(CraftError, match=r"http.tls_cert: .* are no pair"):
        certificate_of(settings)
    home.env |= {"CRAFT_HTTP_TLS_CERT": settings.tls_cert, "CRAFT_HTTP_TLS_KEY": settings.tls_key}
    refused = home.craft("daemon", "start", "--http=127.0.0.1:0")
    assert refused.returncode == 78 and "are no pair" in refused.stderr
