"""A certificate authority of our own, and a daemon's certificate that it signed."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path

_NEW = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"]


@dataclass(frozen=True)
class Certificates:
    """PEM files."""

    ca: Path
    cert: Path
    key: Path


def make(folder: Path, names: str = "DNS:localhost,IP:127.0.0.1") -> Certificates:
    """For a daemon that goes by `names`."""
    made = Certificates(folder / "ca.pem", folder / "cert.pem", folder / "key.pem")
    ca_key, request, extensions = folder / "ca.key", folder / "request.pem", folder / "extensions"
    extensions.write_text(f"subjectAltName={names}\nextendedKeyUsage=serverAuth\n")
    _openssl("req", "-x509", *_NEW, "-subj", "/CN=a ca", "-keyout", ca_key, "-out", made.ca)
    _openssl("req", *_NEW, "-subj", "/CN=craftd", "-keyout", made.key, "-out", request)
    signed = ("-CA", made.ca, "-CAkey", ca_key, "-CAcreateserial", "-days", "2", "-extfile", extensions)
    _openssl("x509", "-req", "-in", request, *signed, "-out", made.cert)
    return made


def _openssl(*arguments: str | Path) -> None:
    done = subprocess.run(["openssl", *arguments], capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()
