"""Signatures as Standard Webhooks has them (standardwebhooks.com): HMAC-SHA256 over id, time and body."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import secrets
from pathlib import Path
from typing import TYPE_CHECKING

from craftd import secretfile
from craftd.secretfile import SecretFile

if TYPE_CHECKING:
    from craft_protos.paths import Paths
    from craft_protos.settings import WebhookSettings

_PREFIX = "whsec_"
_LEAST_BYTES, _NEW_BYTES = 24, 32


def file_of(settings: WebhookSettings, paths: Paths) -> Path:
    """Where the secret is."""
    return Path(settings.secret_file) if settings.secret_file else paths.webhook_secret


def load(path: Path) -> bytes:
    """The secret in the file, which is made where there is none. Raises CONFIG_INVALID."""
    file = SecretFile("webhooks.secret_file", path)
    text = secretfile.load(file, lambda: _PREFIX + base64.b64encode(secrets.token_bytes(_NEW_BYTES)).decode())
    try:
        secret = base64.b64decode(text.removeprefix(_PREFIX), validate=True)
    except binascii.Error:
        secret = b""
    if not text.startswith(_PREFIX) or len(secret) < _LEAST_BYTES:
        raise file.bad(f"holds no secret: {_PREFIX} and {_LEAST_BYTES} bytes or more in base64")
    return secret


def headers(secret: bytes, message_id: str, time_s: int, body: bytes) -> dict[str, str]:
    signed = f"{message_id}.{time_s}.".encode() + body
    signature = base64.b64encode(hmac.digest(secret, signed, hashlib.sha256)).decode()
    return {
        "webhook-id": message_id,
        "webhook-timestamp": str(time_s),
        "webhook-signature": f"v1,{signature}",
    }
