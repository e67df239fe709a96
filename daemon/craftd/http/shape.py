"""A body's shape, looked at before a parser sees it: nesting and fields that a request cannot need.

A piece at a time, so that the event loop is never held for long, however large the body is.
"""

from __future__ import annotations

import asyncio
import codecs

from craft_protos.reasons import CraftError

_DEEPEST = 32
_MOST_BRACKETS = 20_000
_MOST_FIELDS = 10_000
_PIECE_BYTES = 32 << 10
_BUT_BRACKETS = bytes(byte for byte in range(256) if byte not in b"[]{}")
# A parser would take these for UTF-16 or UTF-32, in which nothing here would be found.
_MARKS = (codecs.BOM_UTF8, codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE, codecs.BOM_UTF32_BE)


async def check_shape(body: bytes) -> None:
    """Raises UNDECODABLE."""
    if body.startswith(_MARKS) or b"\0" in body:
        raise _undecodable("is not in UTF-8, or begins with a byte order mark")
    shape = Shape()
    for start in range(0, len(body), _PIECE_BYTES):
        if start:
            await asyncio.sleep(0)
        if why := shape.add(body[start : start + _PIECE_BYTES]):
            raise _undecodable(why)


def _undecodable(why: str) -> CraftError:
    return CraftError("UNDECODABLE", f"the body {why}", "send what the documentation shows")


class Shape:
    """What JSON has outside its strings. Right up to where a parser would find that it is no JSON."""

    def __init__(self) -> None:
        self._is_in_string = False
        self._left = b""  # a backslash whose character is in the next piece
        self._colons = self._commas = self._opened = self._depth = 0

    def add(self, piece: bytes) -> str:
        """What is wrong with it; "": nothing."""
        bare = self._outside_strings(piece)
        self._colons += bare.count(b":")
        self._commas += bare.count(b",")
        self._opened += bare.count(b"[") + bare.count(b"{")
        if max(self._colons, self._commas) > _MOST_FIELDS:
            return f"has more than {_MOST_FIELDS} fields"
        if self._opened > _MOST_BRACKETS:
            return f"is nested more than {_DEEPEST} deep, or has too many parts"
        return self._follow(bare)

    def _outside_strings(self, piece: bytes) -> bytes:
        """Outside strings a backslash ends the parsing, so what it is taken for there does not matter."""
        piece = self._left + piece
        backslashes = len(piece) - len(piece.rstrip(b"\\"))
        self._left = b"\\" * (backslashes % 2)
        piece = piece.removesuffix(self._left)
        parts = piece.replace(b"\\\\", b"").replace(b'\\"', b"").split(b'"')
        outside = parts[self._is_in_string :: 2]
        self._is_in_string ^= len(parts) % 2 == 0
        return b"".join(outside)

    def _follow(self, bare: bytes) -> str:
        for bracket in bare.translate(None, _BUT_BRACKETS):
            self._depth += 1 if bracket in b"[{" else -1
            if self._depth > _DEEPEST:
                return f"is nested more than {_DEEPEST} deep"
            if self._depth < 0:
                return "closes what it has not opened"
        return ""
