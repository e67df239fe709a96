"""A key: `craft_<id>_<secret><crc>`, shown once; what is kept of it cannot be turned back into it."""

from __future__ import annotations

import enum
import hashlib
import hmac
import re
import secrets
import unicodedata
import zlib
from dataclasses import dataclass

from craftd.keys.caller import Caller, Role
from craftd.store import ids

_ID, _SECRET, _CRC = 10, 52, 7  # characters, of five bits each
_FORM = re.compile(
    rf"craft_(?P<id>[{ids.ALPHABET}]{{{_ID}}})_(?P<secret>[{ids.ALPHABET}]{{{_SECRET}}})(?P<crc>[{ids.ALPHABET}]{{{_CRC}}})"
)


class State(enum.StrEnum):
    ACTIVE = "active"
    SUSPENDED = "suspended"
    BANNED = "banned"


@dataclass(frozen=True)
class Key:
    """What is known of a key. Without an id: an owner who was banned and has none any more."""

    id: str
    owner: str
    role: Role
    tier: str
    secret_sha256: bytes
    create_time: float
    is_suspended: bool = False
    is_banned: bool = False
    last_used_time: float | None = None

    @property
    def state(self) -> State:
        if self.is_banned:
            return State.BANNED
        return State.SUSPENDED if self.is_suspended else State.ACTIVE

    @property
    def caller(self) -> Caller:
        return Caller(self.owner, self.role, self.id, self.tier)

    def fits(self, secret: str) -> bool:
        """In the same time, however much of it is right."""
        return hmac.compare_digest(self.secret_sha256, sha256_of(secret))


@dataclass(frozen=True)
class Presented:
    """A key as its owner has it."""

    id: str
    secret: str

    @property
    def text(self) -> str:
        body = f"craft_{self.id}_{self.secret}"
        return body + _crc(body)

    def __repr__(self) -> str:  # never whole, wherever it may be printed
        return f"Presented({self.id})"


def new() -> Presented:
    """260 random bits of secret."""
    return Presented(_random(_ID), _random(_SECRET))


def parse(text: str) -> Presented | None:
    """None where it is no key, or one with a slip of the pen."""
    found = _FORM.fullmatch(text)
    if found is None:
        return None
    presented = Presented(found["id"], found["secret"])
    return presented if hmac.compare_digest(presented.text, text) else None


def sha256_of(secret: str) -> bytes:
    return hashlib.sha256(secret.encode()).digest()


def _crc(body: str) -> str:
    number = zlib.crc32(body.encode())
    return "".join(ids.ALPHABET[number >> shift & 31] for shift in range(5 * (_CRC - 1), -1, -5))


def _random(length: int) -> str:
    return "".join(secrets.choice(ids.ALPHABET) for _ in range(length))


def folded(owner: str) -> str:
    """What an owner's name is compared by: case and the way it is composed do not count."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", owner).casefold())
