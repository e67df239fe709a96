"""A folder of pictures to train on, with captions as kohya's and the diffusers scripts have them.

`it.txt` or `it.caption` beside `it.png`, or `metadata.jsonl` with a line {"file_name": "it.png", "text": "..."} for
each.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from craft_protos import files, formats
from craft_protos.reasons import CraftError

from craft_cli.training.captions import PICTURES, Bad, Captions, is_text

if TYPE_CHECKING:
    from craft_protos import training_pb2

_CHUNK_BYTES = 1 << 20
_SHOWN = 5


@dataclass(frozen=True)
class Picture:
    path: Path
    caption: str = ""


@dataclass(frozen=True)
class Folder:
    """`bad`: what was left out. `notes`: what lies there and counts for nothing."""

    pictures: tuple[Picture, ...]
    bad: tuple[Bad, ...]
    notes: tuple[str, ...] = ()


def read(folder: Path, *, skip_bad: bool) -> Folder:
    """Its pictures, by name. Raises NO_INPUT, BAD_DATASET."""
    names = _names(folder)
    captions = Captions(folder, names)
    captions.read()
    bad, told = captions.bad, captions.found
    pictures = [Picture(folder / name, told.get(name, "")) for name in names if _is_picture(folder, name, bad)]
    if bad and not skip_bad:
        raise CraftError("BAD_DATASET", f"{folder}: {shown(bad)}", "--skip-bad leaves out what cannot be trained on")
    if not pictures:
        raise CraftError("BAD_DATASET", f"{folder} holds no pictures", "put JPEG, PNG or WebP files right into it")
    return Folder(tuple(pictures), tuple(bad), (*captions.notes, *_deeper(folder)))


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
            raise files.unreadable(picture.path, error) from error


def shown(bad: Iterable[Bad]) -> str:
    bad = list(bad)
    more = f"; and {len(bad) - _SHOWN} more" if len(bad) > _SHOWN else ""
    return "; ".join(f"{one.name} {one.why}" for one in bad[:_SHOWN]) + more


def _names(folder: Path) -> list[str]:
    if missing := files.why_not(folder):
        message = f"there is no folder {files.shown(folder)}" if missing.reason == "NO_INPUT" else missing.message
        raise CraftError(missing.reason, message, "name the folder that holds the pictures")
    if not files.is_folder(folder):
        raise CraftError("NO_INPUT", f"{folder} is no folder", "name the folder that holds the pictures")
    try:
        return sorted(path.name for path in folder.iterdir() if not path.name.startswith(".") and not path.is_dir())
    except OSError as error:
        raise files.unreadable(folder, error) from error


def _is_picture(folder: Path, name: str, bad: list[Bad]) -> bool:
    suffix = Path(name).suffix.lower()
    if suffix in formats.OTHERS:
        bad.append(Bad(name, f"is no JPEG, PNG or WebP but {suffix[1:].upper()}"))
    if suffix not in PICTURES:
        return False
    path = folder / name
    if not path.is_file():
        bad.append(Bad(name, "is no file"))
    elif not os.access(path, os.R_OK):
        bad.append(Bad(name, "cannot be read"))
    elif not path.stat().st_size:
        bad.append(Bad(name, "is empty"))
    elif not is_text(name):
        bad.append(Bad(name.encode("utf-8", "replace").decode(), "has a name that is not UTF-8"))
    else:
        return True
    return False


def _deeper(folder: Path) -> list[str]:
    """Folders inside that hold pictures: those are not read."""
    try:
        inside = sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
        found = [one.name for one in inside if any(path.suffix.lower() in PICTURES for path in one.iterdir())]
    except OSError:
        return []
    return [f"{name}/: pictures in folders inside are not read" for name in found]
