"""JSON with pictures in it: long strings are lifted out before it is parsed.

The parser would hold the interpreter, and with it the event loop, for as long as it reads them.
"""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Callable
from typing import Any

_LONG_BYTES = 64 << 10
_MOST_ESCAPES = 10_000  # quotes inside strings; no picture in base64 has one
_PIECE_BYTES = 1 << 20
_CONTROL = bytes(range(0x20))


def parsed(body: bytes) -> Any:
    """What json.loads gives. Raises what it raises. Blocking."""
    mark = secrets.token_hex(16)
    small, lifted = _lifted(body, mark)
    try:
        given = json.loads(small)
    except json.JSONDecodeError as exc:
        before = exc.doc[: exc.pos].count(mark)
        exc.pos += sum(len(one) - len(f"{mark}{number}") for number, one in enumerate(lifted[:before]))
        raise
    if not lifted:
        return given
    named = re.compile(rf"{mark}(\d+)")
    texts = [str(one, "utf-8") for one in lifted]

    def put_back(text: str) -> str:
        found = named.fullmatch(text)
        return texts[int(found[1])] if found else text

    return _each_text(given, put_back)


def _lifted(body: bytes, mark: str) -> tuple[bytes, list[memoryview]]:
    """The body with a name in the place of each long string; and these, which have no escapes."""
    pieces, strings, kept, at = list[bytes](), list[memoryview](), 0, 0
    whole = memoryview(body)
    budget = _MOST_ESCAPES
    while (start := body.find(b'"', at)) >= 0:
        end, escapes = _end(body, start + 1, budget)
        budget -= escapes
        if end < 0 or budget < 0:
            break
        if end - start > _LONG_BYTES and _is_plain(body, start + 1, end):
            pieces += [body[kept : start + 1], f"{mark}{len(strings)}".encode()]
            strings.append(whole[start + 1 : end])
            kept = end
        at = end + 1
    return b"".join([*pieces, body[kept:]]), strings


def _end(body: bytes, start: int, most_escapes: int) -> tuple[int, int]:
    """Where the string that begins there ends, -1 for nowhere; and how many escaped quotes it has."""
    at = start
    for escapes in range(most_escapes + 1):
        end = body.find(b'"', at)
        if end < 0 or not _is_escaped(body, start, end):
            return end, escapes
        at = end + 1
    return -1, most_escapes + 1


def _is_escaped(body: bytes, start: int, place: int) -> bool:
    before = place
    while before > start and body[before - 1] == ord("\\"):
        before -= 1
    return (place - before) % 2 == 1


def _is_plain(body: bytes, start: int, end: int) -> bool:
    """Neither escapes nor what the parser refuses in a string."""
    pieces = (body[at : min(at + _PIECE_BYTES, end)] for at in range(start, end, _PIECE_BYTES))
    return all(b"\\" not in piece and len(piece.translate(None, _CONTROL)) == len(piece) for piece in pieces)


def _each_text(given: Any, change: Callable[[str], str]) -> Any:
    if isinstance(given, str):
        return change(given)
    if isinstance(given, list):
        return [_each_text(one, change) for one in given]
    if isinstance(given, dict):
        return {change(name): _each_text(one, change) for name, one in given.items()}
    return given
