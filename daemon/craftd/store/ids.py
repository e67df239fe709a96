"""Names that cannot be guessed, short enough to be typed by their beginning."""

from __future__ import annotations

import secrets

import apsw
from craft_protos.api_key import ALPHABET
from craft_protos.reasons import CraftError

# Whose a row is.
_OWNERS = {"jobs": "owner", "images": "(SELECT owner FROM jobs WHERE jobs.id = images.job_id)"}


def new_job_id() -> str:
    """80 random bits."""
    return _random(16)


def new_image_id() -> str:
    """130 random bits: whoever has the id may see the image."""
    return _random(26)


def resolve(connection: apsw.Connection, table: str, prefix: str, unknown: str, owner: str = "") -> str:
    """The one id in `table` that begins with `prefix`. Raises `unknown` (a reason) or AMBIGUOUS_ID.

    With an owner, what is others' is not there: not even an ambiguity tells of it.
    """
    noun = table.removesuffix("s")
    if not prefix or any(character not in ALPHABET for character in prefix):
        raise CraftError(unknown, f"no {noun} has the id {prefix[:64]!r}", f"see `craft {table} list`")
    found = connection.execute(
        f"SELECT id FROM {table} WHERE id >= ?1 AND id < ?2 AND (?3 = '' OR {_OWNERS[table]} = ?3) ORDER BY id LIMIT 2",
        (prefix, prefix + "~", owner),
    ).fetchall()
    if not found:
        raise CraftError(unknown, f"no {noun} has the id {prefix[:64]!r}", f"see `craft {table} list`")
    if len(found) > 1 and found[0][0] != prefix:
        raise CraftError(
            "AMBIGUOUS_ID", f"more than one {noun} has an id that begins with {prefix!r}", "give more of it"
        )
    return str(found[0][0])


def _random(length: int) -> str:
    return "".join(ALPHABET[byte % len(ALPHABET)] for byte in secrets.token_bytes(length))  # 256 is 8 times 32
