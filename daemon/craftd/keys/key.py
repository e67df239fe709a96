"""What is kept of a key: a hash of its secret, which cannot be turned back into it, and its states."""

from __future__ import annotations

import enum
import hashlib
import hmac
import unicodedata
from dataclasses import dataclass

from craftd.keys.caller import Caller, Role


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
    is_suspended: bool = False  # by an admin
    is_banned: bool = False
    last_used_time: float | None = None
    is_lapsed: bool = False  # its owner's subscription has lapsed

    @property
    def state(self) -> State:
        if self.is_banned:
            return State.BANNED
        return State.SUSPENDED if self.is_suspended or self.is_lapsed else State.ACTIVE

    @property
    def caller(self) -> Caller:
        return Caller(self.owner, self.role, self.id, self.tier)

    def fits(self, secret: str) -> bool:
        """In the same time, however much of it is right."""
        return hmac.compare_digest(self.secret_sha256, sha256_of(secret))


def sha256_of(secret: str) -> bytes:
    return hashlib.sha256(secret.encode()).digest()


def folded(owner: str) -> str:
    """What an owner's name is compared by: case and the way it is composed do not count."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", owner).casefold())
