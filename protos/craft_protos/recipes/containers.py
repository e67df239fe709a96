"""The words in a picture's file: PNG's text chunks, EXIF and XMP of PNG, JPEG and WebP. No pixel is decoded.

The file is anybody's: every length is checked against what is there, and all texts together are bounded.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field

from craft_protos import infotexts

_PNG, _JPEG = b"\x89PNG\r\n\x1a\n", b"\xff\xd8"
_MOST_BYTES = 16 << 20  # of all texts
_MOST_CHUNKS = 100_000
_MOST_TAGS = 1000
_LONGEST_KEY = 79  # as PNG has it
_EXIF_HEAD = b"Exif\0\0"
_XMP_HEAD = b"http://ns.adobe.com/xap/1.0/\0"
_EXIF_IFD, _USER_COMMENT = 0x8769, 0x9286
_TEXT_TAGS = {0x010E: "ImageDescription", 0x010F: "Make", 0x0110: "Model", 0x0131: "Software"}
XMP, COMMENT = "XML:com.adobe.xmp", "UserComment"


@dataclass
class Words:
    """Texts by their names: PNG's keywords, EXIF's tags, `COMMENT` and `XMP`."""

    width: int | None = None
    height: int | None = None
    texts: dict[str, str] = field(default_factory=dict)
    _room: int = _MOST_BYTES

    def add(self, name: str, data: bytes, encoding: str = "utf-8") -> None:
        """The first of a name counts; what there is no room for is left out."""
        if name and name not in self.texts and len(data) <= self._room:
            self._room -= len(data)
            self.texts[name] = data.decode(encoding, "replace").rstrip("\0")

    @property
    def room(self) -> int:
        return self._room


def words_of(data: bytes) -> Words:
    """Empty for a file of another kind."""
    words = Words()
    try:
        if data.startswith(_PNG):
            _read_png(data, words)
        elif data.startswith(_JPEG):
            _read_jpeg(data, words)
        elif data[:4] == b"RIFF" and data[8:12] == b"WEBP":
            _read_webp(data, words)
    except (struct.error, IndexError):
        pass  # cut off: what came before counts
    return words


def _read_png(data: bytes, words: Words) -> None:
    for kind, body in _png_chunks(data):
        if kind == b"IHDR" and len(body) >= 8:
            words.width, words.height = struct.unpack(">II", body[:8])
        elif kind == b"tEXt":
            key, _, text = body.partition(b"\0")
            words.add(_key(key), text, _encoding(text))
        elif kind == b"zTXt":
            key, _, rest = body.partition(b"\0")
            words.add(_key(key), text := _inflated(rest[1:], words.room), _encoding(text))
        elif kind == b"iTXt":
            _read_itxt(body, words)
        elif kind == b"eXIf":
            _read_exif(body, words)


def _png_chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    at = len(_PNG)
    for _ in range(_MOST_CHUNKS):
        if at + 8 > len(data):
            return
        (length,) = struct.unpack_from(">I", data, at)
        kind = data[at + 4 : at + 8]
        yield kind, data[at + 8 : at + 8 + length] if kind != b"IDAT" else b""
        at += 12 + length


def _read_itxt(body: bytes, words: Words) -> None:
    key, _, rest = body.partition(b"\0")
    is_packed, rest = rest[:1] == b"\1", rest[2:]
    _, _, rest = rest.partition(b"\0")  # the language
    _, _, text = rest.partition(b"\0")  # the keyword in it
    words.add(_key(key), _inflated(text, words.room) if is_packed else text)


def _key(key: bytes) -> str:
    return key.decode("latin-1") if len(key) <= _LONGEST_KEY else ""


def _encoding(text: bytes) -> str:
    """Of a chunk that should be Latin-1, and that some programs write in UTF-8."""
    try:
        text.decode()
    except UnicodeDecodeError:
        return "latin-1"
    return "utf-8"


def _inflated(packed: bytes, most: int) -> bytes:
    """ "" for what is none, or more than there is room for."""
    unpacking = zlib.decompressobj()
    try:
        found = unpacking.decompress(packed, most + 1)
    except zlib.error:
        return b""
    return found if len(found) <= most else b""


def _read_jpeg(data: bytes, words: Words) -> None:
    at = len(_JPEG)
    for _ in range(_MOST_CHUNKS):
        if data[at] != 0xFF:
            return
        marker = data[at + 1]
        if marker == 0xFF:  # a fill byte
            at += 1
            continue
        if marker in (0xD9, 0xDA):  # the picture's end, or its pixels
            return
        (length,) = struct.unpack_from(">H", data, at + 2)
        body = data[at + 4 : at + 2 + length]
        if marker == 0xE1 and body.startswith(_EXIF_HEAD):
            _read_exif(body, words)
        elif marker == 0xE1 and body.startswith(_XMP_HEAD):
            words.add(XMP, body[len(_XMP_HEAD) :])
        elif marker == 0xFE:
            words.add("Comment", body, _encoding(body))
        elif 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            words.height, words.width = struct.unpack_from(">HH", body, 1)
        at += 2 + length


def _read_webp(data: bytes, words: Words) -> None:
    at = 12
    for _ in range(_MOST_CHUNKS):
        if at + 8 > len(data):
            return
        kind, length = struct.unpack_from("<4sI", data, at)
        body = data[at + 8 : at + 8 + length] if kind in (b"EXIF", b"XMP ", b"VP8X") else b""
        if kind == b"VP8X" and len(body) >= 10:
            words.width, words.height = (1 + int.from_bytes(body[at : at + 3], "little") for at in (4, 7))
        elif kind == b"EXIF":
            _read_exif(body, words)
        elif kind == b"XMP ":
            words.add(XMP, body)
        at += 8 + length + length % 2


def _read_exif(body: bytes, words: Words) -> None:
    """A TIFF header, its first directory, and EXIF's own, where the comment is."""
    tiff = body.removeprefix(_EXIF_HEAD)
    order = {b"II": "<", b"MM": ">"}.get(tiff[:2])
    if order is None or len(tiff) < 8:
        return
    (first,) = struct.unpack_from(f"{order}I", tiff, 4)
    for tag, value in _tags(tiff, order, first):
        if tag in _TEXT_TAGS:
            words.add(_TEXT_TAGS[tag], value, _encoding(value))
        elif tag == _EXIF_IFD and len(value) == 4:
            (second,) = struct.unpack(f"{order}I", value)
            for inner, comment in _tags(tiff, order, second):
                if inner == _USER_COMMENT and len(comment) <= words.room:
                    words.add(COMMENT, infotexts.comment(comment).encode("utf-8", "replace"))


def _tags(tiff: bytes, order: str, at: int) -> Iterator[tuple[int, bytes]]:
    """Of a directory: bytes, texts, and whole numbers of four bytes."""
    (count,) = struct.unpack_from(f"{order}H", tiff, at)
    for index in range(min(count, _MOST_TAGS)):
        tag, kind, length = struct.unpack_from(f"{order}HHI", tiff, at + 2 + 12 * index)
        size = length * {1: 1, 2: 1, 4: 4, 7: 1, 13: 4}.get(kind, 0)
        place = at + 2 + 12 * index + 8
        if size > 4:
            (place,) = struct.unpack_from(f"{order}I", tiff, place)
        if 0 < size <= len(tiff) - place:
            yield tag, tiff[place : place + size]
