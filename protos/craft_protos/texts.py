"""Text as people's programs write it: UTF-8 with or without a byte order mark, UTF-16 and UTF-32 with one.

A line ends at a line feed, with or without a carriage return before it: str.splitlines ends it at U+2028, a form feed
and others too, which stand inside of JSON and of prompts.
"""

from __future__ import annotations

import codecs
from collections.abc import Iterable, Iterator

MARK = "\ufeff"
_WIDE = (
    (codecs.BOM_UTF32_LE, "utf-32"),  # whose mark begins as UTF-16's
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)


def decoded(data: bytes) -> str:
    """Without its mark. Raises UnicodeDecodeError."""
    return data.decode(wide(data) or "utf-8-sig")


def wide(data: bytes) -> str:
    """The encoding that a mark of UTF-16 or UTF-32 tells; empty: UTF-8."""
    return next((name for mark, name in _WIDE if data.startswith(mark)), "")


def unmarked(text: str) -> str:
    """Of files that were put one behind the other, each has its mark."""
    return text.lstrip(MARK)


def lines(text: str) -> list[str]:
    """Without their ends; what comes after the last line feed is no line, if it is empty."""
    found = [line.removesuffix("\r") for line in text.split("\n")]
    return found[:-1] if found[-1] == "" else found


def lines_of(source: Iterable[bytes]) -> Iterator[bytes]:
    """A stream's lines as UTF-8, each without its end; as they come, unless the stream's own need to be recoded."""
    parts = iter(source)
    first = next(parts, b"")
    if encoding := wide(first):
        text = b"".join([first, *parts]).decode(encoding, "surrogatepass")
        yield from (line.encode("utf-8", "surrogatepass") for line in lines(text))
        return
    yield first.removeprefix(codecs.BOM_UTF8).rstrip(b"\r\n")
    for line in parts:
        yield line.removeprefix(codecs.BOM_UTF8).rstrip(b"\r\n")
