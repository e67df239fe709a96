"""Captions as they lie beside pictures: `it.txt` or `it.caption`, and metadata.jsonl, each with its faults by name."""

from __future__ import annotations

import json
import posixpath
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from craft_protos import files, formats, texts
from craft_protos.reasons import CraftError

PICTURES = (*(f".{extension}" for extension in formats.JPEG_EXTENSIONS), ".png", ".webp")
_CAPTIONS = (".txt", ".caption")
_METADATA = "metadata.jsonl"
# Other tools' captions, which are not read: nobody is to believe that they were.
_UNREAD = ("metadata.csv", "metadata.parquet", "metadata.json", "captions.json", "captions.jsonl", "captions.csv")
_NAMES, _TEXTS = ("file_name", "image", "file"), ("text", "caption", "prompt")
_MOST_METADATA_BYTES = 64 << 20
_MOST_CAPTION_BYTES = 1 << 20


@dataclass(frozen=True)
class Bad:
    name: str
    why: str


@dataclass
class Captions:
    """Of the pictures in a folder. A file beside its picture counts for more than a line of metadata.jsonl, and .txt
    for more than .caption; what counts for nothing is noted.
    """

    folder: Path
    names: list[str]
    found: dict[str, str] = field(default_factory=dict)
    bad: list[Bad] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def read(self) -> None:
        """All of them. Raises BAD_DATASET for a metadata.jsonl that is none."""
        for ending in _CAPTIONS:
            self._read_beside([name for name in self.names if Path(name).suffix.lower() == ending])
        if _METADATA in self.names:
            self._read_metadata()
        self.bad += [Bad(name, f"is not read: write {_METADATA}") for name in _UNREAD if name in self.names]

    def _tell(self, picture: str, caption: str, where: str) -> None:
        caption = " ".join(caption.split())
        if self.found.setdefault(picture, caption) != caption:
            self.notes.append(f"{where}: {picture} has another caption, which counts for more")

    def _read_beside(self, names: list[str]) -> None:
        by_stem = self._pictures_by_stem()
        for name in names:
            beside = by_stem[Path(name).stem]
            if not beside:
                self.bad.append(Bad(name, "is a caption without its picture"))
                continue
            try:
                caption = _text(self.folder / name, _MOST_CAPTION_BYTES)
            except CraftError as error:
                self.bad.append(Bad(name, error.message))
                continue
            for picture in beside:
                self._tell(picture, caption, name)

    def _pictures_by_stem(self) -> dict[str, list[str]]:
        """By `it` and, as some tools have it, by `it.png`."""
        by_stem = defaultdict[str, list[str]](list)
        for name in self.names:
            if Path(name).suffix.lower() in PICTURES:
                by_stem[Path(name).stem].append(name)
                by_stem[name].append(name)
        return by_stem

    def _read_metadata(self) -> None:
        there = {name for name in self.names if Path(name).suffix.lower() in PICTURES}
        for number, line in self._metadata_lines():
            where = f"{_METADATA}:{number}"
            told = _object(line, where)
            name = posixpath.normpath(_one_of(_NAMES, told, where).replace("\\", "/"))
            if name not in there:
                self.bad.append(Bad(where, f"names {name!r}, which is no picture here"))
            elif any(told.get(key) is not None for key in _TEXTS):
                self._tell(name, _one_of(_TEXTS, told, where), where)

    def _metadata_lines(self) -> Iterator[tuple[int, str]]:
        try:
            text = _text(self.folder / _METADATA, _MOST_METADATA_BYTES)
        except CraftError as error:
            raise CraftError("BAD_DATASET", f"{_METADATA} {error.message}", "save it as UTF-8 text") from error
        for number, line in enumerate(texts.lines(text), 1):
            if texts.unmarked(line).strip():
                yield number, texts.unmarked(line)


def _object(line: str, where: str) -> dict[str, Any]:
    try:
        told = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise _no_entry(where, "is no JSON object with file_name and text") from error
    if not isinstance(told, dict):
        raise _no_entry(where, "is no JSON object with file_name and text")
    return told


def _one_of(keys: tuple[str, ...], told: dict[str, Any], where: str) -> str:
    """The first of them that is there. Raises BAD_DATASET where it is no text, or there is none."""
    key = next((key for key in keys if told.get(key) is not None), None)
    if key is None:
        raise _no_entry(where, f"is no JSON object with {keys[0]} and text")
    if isinstance(told[key], str) and not is_text(told[key]):
        raise _no_entry(where, f"has a {key} that is no Unicode text")
    if not isinstance(told[key], str):
        raise _no_entry(where, f"has a {key} that is not text but a {_KINDS.get(type(told[key]), 'number')}")
    return str(told[key])


_KINDS: dict[type, str] = {list: "list", dict: "JSON object", bool: "truth value"}


def _no_entry(where: str, why: str) -> CraftError:
    return CraftError("BAD_DATASET", f"{where} {why}", 'a line is like {"file_name": "it.png", "text": "a red apple"}')


def is_text(text: str) -> bool:
    """Without lone surrogates, which neither UTF-8 nor a message can hold."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def text_of(path: Path, option: str) -> str:
    """A file that an option names. Raises NO_INPUT, FILE_FORBIDDEN, BAD_DATA."""
    if missing := files.why_not(path):
        raise CraftError(missing.reason, missing.message, f"{option} names a text file")
    try:
        return _text(path, _MOST_CAPTION_BYTES)
    except CraftError as error:
        if error.reason != "BAD_DATASET":
            raise
        raise CraftError("BAD_DATA", f"{files.shown(path)} {error.message}", f"{option} names a text file") from error


def _text(path: Path, most_bytes: int) -> str:
    try:
        if not path.is_file():
            raise CraftError("BAD_DATASET", "is no file", "")
        if path.stat().st_size > most_bytes:
            raise CraftError("BAD_DATASET", f"has more than {most_bytes} bytes", "")
        return texts.decoded(path.read_bytes())
    except UnicodeDecodeError as error:
        raise CraftError("BAD_DATASET", "is not UTF-8 text", "") from error
    except OSError as error:
        raise files.unreadable(path, error) from error
