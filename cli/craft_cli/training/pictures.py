"""A folder of pictures to train on, with captions as kohya's and the diffusers scripts have them.

`it.txt` or `it.caption` beside `it.png`, or `metadata.jsonl` with a line {"file_name": "it.png", "text": "..."} for
each. A mask beside its picture is called as OneTrainer's are: `it-masklabel.png`.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from craft_protos import files, formats
from craft_protos.reasons import CraftError

from craft_cli.training.captions import PICTURES, Bad, Captions, is_text

if TYPE_CHECKING:
    from craft_protos import training_pb2

_CHUNK_BYTES = 1 << 20
_MASK = "-masklabel"
_SHOWN = 5


@dataclass(frozen=True)
class Picture:
    path: Path
    caption: str = ""
    repeats: int = 1  # in an epoch
    mask: Path | None = None
    folder: str = ""  # where there are several, what its own is called

    @property
    def name(self) -> str:
        """As it is sent."""
        return f"{self.folder}: {self.path.name}" if self.folder else self.path.name


@dataclass(frozen=True)
class Folder:
    """`bad`: what was left out. `notes`: what lies there and counts for nothing."""

    pictures: tuple[Picture, ...]
    bad: tuple[Bad, ...]
    notes: tuple[str, ...] = ()


def read(folder: Path, *, skip_bad: bool) -> Folder:
    """Its pictures, by name. Raises NO_INPUT, BAD_DATASET."""
    found = look(folder)
    refuse_bad(folder, found.bad, skip_bad=skip_bad)
    return found


def look(folder: Path) -> Folder:
    """Its pictures, by name, without what is bad. Raises NO_INPUT, and BAD_DATASET where there are none."""
    names = _names(folder)
    others = [name for name in names if not is_mask(name)]
    masks = {stem_of_mask(name): name for name in names if is_mask(name)}
    captions = Captions(folder, others)
    captions.read()
    bad, told = captions.bad, captions.found
    pictures = tuple(
        Picture(folder / name, told.get(name, ""), mask=_mask(folder, masks.pop(Path(name).stem, None), bad))
        for name in others
        if _is_picture(folder, name, bad)
    )
    bad += [Bad(name, "is a mask without its picture") for name in masks.values()]
    if not pictures and not bad:
        raise CraftError("BAD_DATASET", f"{folder} holds no pictures", "put JPEG, PNG or WebP files right into it")
    return Folder(pictures, tuple(bad), (*captions.notes, *_deeper(folder)))


def refuse_bad(folder: Path, bad: Sequence[Bad], *, skip_bad: bool) -> None:
    if bad and not skip_bad:
        raise CraftError("BAD_DATASET", f"{folder}: {shown(bad)}", "--skip-bad leaves out what cannot be trained on")


def is_mask(name: str) -> bool:
    return Path(name).suffix.lower() in PICTURES and Path(name).stem.lower().endswith(_MASK)


def stem_of_mask(name: str) -> str:
    return Path(name).stem[: -len(_MASK)]


def parts(folder: Folder, *, skip_bad: bool) -> Iterator[training_pb2.UploadDatasetRequest]:
    """What is sent to the daemon."""
    from craft_protos import training_pb2

    kinds = training_pb2.UploadDatasetRequest
    masks = sum(one.mask is not None for one in folder.pictures)
    yield kinds(header=kinds.Header(skip_bad=skip_bad, pictures=len(folder.pictures), masks=masks))
    for one in folder.pictures:
        header = kinds.PictureHeader(file_name=one.name, caption=one.caption, repeats=one.repeats)
        yield from _file(one.path, header)
        if one.mask is not None:
            name = one.mask.name if one.mask.name != one.path.name else f"mask of {one.mask.name}"
            named = f"{one.folder}: {name}" if one.folder else name
            yield from _file(one.mask, kinds.PictureHeader(file_name=named, mask_of=one.name))


def _file(path: Path, header: Any) -> Iterator[training_pb2.UploadDatasetRequest]:
    from craft_protos import training_pb2

    try:
        with path.open("rb") as file:
            header.size_bytes = path.stat().st_size
            yield training_pb2.UploadDatasetRequest(picture=header)
            while chunk := file.read(_CHUNK_BYTES):
                yield training_pb2.UploadDatasetRequest(chunk=chunk)
    except OSError as error:
        raise files.unreadable(path, error) from error


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


def _mask(folder: Path, name: str | None, bad: list[Bad]) -> Path | None:
    return folder / name if name is not None and _is_picture(folder, name, bad) else None


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
