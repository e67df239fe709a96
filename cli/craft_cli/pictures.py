"""A folder of pictures to train on, with captions as kohya's and the diffusers scripts have them.

`it.txt` beside `it.png`, or `metadata.jsonl` with a line {"file_name": "it.png", "text": "..."} for each.
"""

from __future__ import annotations

import json
import os
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from craft_protos.reasons import CraftError

if TYPE_CHECKING:
    from craft_protos import training_pb2

_PICTURES = (".jpg", ".jpeg", ".png", ".webp")
_OTHERS = (".gif", ".bmp", ".tif", ".tiff", ".heic", ".heif", ".avif", ".jxl", ".svg", ".psd")
_METADATA = "metadata.jsonl"
_CHUNK_BYTES = 1 << 20
_MOST_METADATA_BYTES = 64 << 20
_MOST_CAPTION_BYTES = 1 << 20
_SHOWN = 5


@dataclass(frozen=True)
class Picture:
    path: Path
    caption: str = ""


@dataclass(frozen=True)
class Bad:
    name: str
    why: str


@dataclass(frozen=True)
class Folder:
    """`bad`: what was left out."""

    pictures: tuple[Picture, ...]
    bad: tuple[Bad, ...]


def read(folder: Path, *, skip_bad: bool) -> Folder:
    """Its pictures, by name. Raises NO_INPUT, BAD_DATASET."""
    names = _names(folder)
    bad: list[Bad] = []
    told = _metadata(folder, names, bad)
    captions = told | _texts(folder, names, bad)
    pictures = [Picture(folder / name, captions.get(name, "")) for name in names if _is_picture(folder, name, bad)]
    if bad and not skip_bad:
        raise CraftError("BAD_DATASET", f"{folder}: {shown(bad)}", "--skip-bad leaves out what cannot be trained on")
    if not pictures:
        raise CraftError("BAD_DATASET", f"{folder} holds no pictures", "put JPEG, PNG or WebP files right into it")
    return Folder(tuple(pictures), tuple(bad))


def parts(folder: Folder, *, skip_bad: bool) -> Iterator[training_pb2.UploadDatasetRequest]:
    """What is sent to the daemon."""
    from craft_protos import training_pb2

    kinds = training_pb2.UploadDatasetRequest
    yield kinds(header=kinds.Header(skip_bad=skip_bad, pictures=len(folder.pictures)))
    for picture in folder.pictures:
        try:
            with picture.path.open("rb") as file:
                size_bytes = picture.path.stat().st_size
                header = kinds.PictureHeader(
                    file_name=picture.path.name, size_bytes=size_bytes, caption=picture.caption
                )
                yield kinds(picture=header)
                while chunk := file.read(_CHUNK_BYTES):
                    yield kinds(chunk=chunk)
        except OSError as error:
            raise _unreadable(picture.path, error) from error


def shown(bad: Iterable[Bad]) -> str:
    bad = list(bad)
    more = f"; and {len(bad) - _SHOWN} more" if len(bad) > _SHOWN else ""
    return "; ".join(f"{one.name} {one.why}" for one in bad[:_SHOWN]) + more


def _names(folder: Path) -> list[str]:
    if not folder.exists():
        raise CraftError("NO_INPUT", f"there is no folder {folder}", "name the folder that holds the pictures")
    if not folder.is_dir():
        raise CraftError("NO_INPUT", f"{folder} is no folder", "name the folder that holds the pictures")
    try:
        return sorted(path.name for path in folder.iterdir() if not path.name.startswith(".") and not path.is_dir())
    except OSError as error:
        raise _unreadable(folder, error) from error


def _is_picture(folder: Path, name: str, bad: list[Bad]) -> bool:
    suffix = Path(name).suffix.lower()
    if suffix in _OTHERS:
        bad.append(Bad(name, f"is no JPEG, PNG or WebP but {suffix[1:].upper()}"))
    if suffix not in _PICTURES:
        return False
    path = folder / name
    if not path.is_file():
        bad.append(Bad(name, "is no file"))
    elif not os.access(path, os.R_OK):
        bad.append(Bad(name, "cannot be read"))
    elif not path.stat().st_size:
        bad.append(Bad(name, "is empty"))
    elif not _is_text(name):
        bad.append(Bad(name.encode("utf-8", "replace").decode(), "has a name that is not UTF-8"))
    else:
        return True
    return False


def _texts(folder: Path, names: list[str], bad: list[Bad]) -> dict[str, str]:
    """Captions by picture; one without its picture is bad."""
    found: dict[str, str] = {}
    by_stem = defaultdict[str, list[str]](list)
    for path in map(Path, names):
        if path.suffix.lower() in _PICTURES:
            by_stem[path.stem].append(path.name)
    for name in names:
        if Path(name).suffix.lower() != ".txt":
            continue
        beside = by_stem[Path(name).stem]
        if not beside:
            bad.append(Bad(name, "is a caption without its picture"))
            continue
        try:
            text = _text(folder / name, _MOST_CAPTION_BYTES)
        except CraftError as error:
            bad.append(Bad(name, error.message))
            continue
        found |= dict.fromkeys(beside, " ".join(text.split()))
    return found


def _metadata(folder: Path, names: list[str], bad: list[Bad]) -> dict[str, str]:
    if _METADATA not in names:
        return {}
    found: dict[str, str] = {}
    there = {name for name in names if Path(name).suffix.lower() in _PICTURES}
    try:
        text = _text(folder / _METADATA, _MOST_METADATA_BYTES)
    except CraftError as error:
        raise CraftError("BAD_DATASET", f"{_METADATA} {error.message}", "save it as UTF-8 text") from error
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        name, caption = _entry(line, number)
        if name not in there:
            bad.append(Bad(f"{_METADATA}:{number}", f"names {name!r}, which is no picture here"))
        else:
            found[name] = " ".join(caption.split())
    return found


def _entry(line: str, number: int) -> tuple[str, str]:
    try:
        told = json.loads(line)
        return str(told["file_name"]), str(told.get("text", told.get("caption", "")))
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise CraftError(
            "BAD_DATASET",
            f"{_METADATA}:{number} is no JSON object with file_name and text",
            'a line is like {"file_name": "it.png", "text": "a red apple"}',
        ) from error


def _text(path: Path, most_bytes: int) -> str:
    try:
        if not path.is_file():
            raise CraftError("BAD_DATASET", "is no file", "")
        if path.stat().st_size > most_bytes:
            raise CraftError("BAD_DATASET", f"has more than {most_bytes} bytes", "")
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise CraftError("BAD_DATASET", "is not UTF-8 text", "") from error
    except OSError as error:
        raise _unreadable(path, error) from error


def _is_text(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def _unreadable(path: Path, error: OSError) -> CraftError:
    return CraftError("NO_INPUT", f"{path} cannot be read: {error.strerror}", "see that you may read it")
