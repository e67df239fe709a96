"""A key's form: `craft_<id>_<secret><crc>`. The id is public; the CRC tells a typing error from a wrong key."""

from __future__ import annotations

import hmac
import re
import secrets
import zlib

from craft_protos.frozen import dataclass

ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"  # Crockford's: nothing that looks like something else
_ID, _SECRET, _CRC = 10, 52, 7  # characters, of five bits each
_FORM = re.compile(
    rf"craft_(?P<id>[{ALPHABET}]{{{_ID}}})_(?P<secret>[{ALPHABET}]{{{_SECRET}}})(?P<crc>[{ALPHABET}]{{{_CRC}}})"
)


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


def _crc(body: str) -> str:
    number = zlib.crc32(body.encode())
    return "".join(ALPHABET[number >> shift & 31] for shift in range(5 * (_CRC - 1), -1, -5))


def _random(length: int) -> str:
    return "".join(secrets.choice(ALPHABET) for _ in range(length))
