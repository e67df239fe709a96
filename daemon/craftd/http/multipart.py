"""Forms with files (multipart/form-data, RFC 7578), as browsers, curl and OpenAI's packages send them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from craft_protos.reasons import CraftError

_MOST_PARTS = 200
_MOST_HEAD_BYTES = 8 << 10
_WINDOW_BYTES = 1 << 20  # looked through at once: other threads have their turn between
_BOUNDARY = re.compile(r"""boundary=(?:"([^"]{1,70})"|([^\s;"]{1,70}))""", re.IGNORECASE)
_DISPOSITION = re.compile(rb"^content-disposition:\s*form-data\s*(;.*)$", re.IGNORECASE | re.MULTILINE)
_PARAMETER = re.compile(r""";\s*(name|filename)=(?:"((?:[^"\\]|\\.)*)"|([^\s;"]+))""", re.IGNORECASE)


@dataclass(frozen=True)
class Part:
    name: str
    data: memoryview
    is_file: bool

    @property
    def text(self) -> str:
        """Raises UNDECODABLE."""
        try:
            return bytes(self.data).decode()
        except UnicodeDecodeError as exc:
            raise _undecodable(f"field {self.name[:60]!r} is not in UTF-8") from exc


def is_multipart(content_type: str) -> bool:
    return content_type.partition(";")[0].strip().lower() == "multipart/form-data"


def parse(content_type: str, body: bytes) -> list[Part]:
    """Blocking. Raises UNDECODABLE."""
    found = _BOUNDARY.search(content_type)
    if found is None:
        raise _undecodable("content type names no boundary")
    parts = list[Part]()
    for start, end in _between(body, b"--" + (found[1] or found[2]).encode("utf-8", "replace")):
        if len(parts) == _MOST_PARTS:
            raise _undecodable(f"form has more than {_MOST_PARTS} parts")
        parts.append(_part(body, start, end))
    return parts


def _between(body: bytes, delimiter: bytes) -> Iterator[tuple[int, int]]:
    """Where each part begins and ends. Raises UNDECODABLE."""
    first = 0 if body.startswith(delimiter) else _find(body, b"\r\n" + delimiter, 0) + 2  # after a preamble, or nowhere
    start = first + len(delimiter)
    while body[start : start + 2] == b"\r\n":
        end = _find(body, b"\r\n" + delimiter, start)
        if end < 0:
            break
        yield start + 2, max(start + 2, end)
        start = end + 2 + len(delimiter)
    if body[start : start + 2] != b"--":
        raise _undecodable("form is cut short, or has another boundary than its content type names")


def _part(body: bytes, start: int, end: int) -> Part:
    blank = body.find(b"\r\n\r\n", start, min(end, start + _MOST_HEAD_BYTES))
    if blank < 0:
        raise _undecodable("form has a part without headers")
    disposition = _DISPOSITION.search(body[start:blank].replace(b"\r\n", b"\n"))
    told = {}
    if disposition is not None:
        text = disposition[1].decode("utf-8", "replace")
        told = {one[1].lower(): one[2] if one[2] is not None else one[3] for one in _PARAMETER.finditer(text)}
    if not told.get("name"):
        raise _undecodable("form has a part without a name")
    return Part(told["name"], memoryview(body)[blank + 4 : end], "filename" in told)


def _find(body: bytes, what: bytes, start: int) -> int:
    """-1: nowhere."""
    while start < len(body):
        found = body.find(what, start, start + _WINDOW_BYTES + len(what))
        if found >= 0:
            return found
        start += _WINDOW_BYTES
    return -1


def _undecodable(why: str) -> CraftError:
    return CraftError("UNDECODABLE", f"the body: its {why}", "send multipart/form-data as the documentation shows")
