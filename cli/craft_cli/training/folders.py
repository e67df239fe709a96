"""Several folders of one training: those that are named, and those inside one as kohya's scripts have them.

A folder without pictures whose folders are called `10_rex dog` stands for these: each of their pictures comes ten times
in an epoch, and "rex dog" is the caption of those that have none.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from craft_protos import files
from craft_protos.reasons import CraftError

from craft_cli.training import pictures
from craft_cli.training.captions import PICTURES, Bad
from craft_cli.training.pictures import Folder, Picture

_MOST_REPEATS = 1000
_REPEATED = re.compile(r"(\d{1,6})_(.*)", re.DOTALL)
_ASKED = re.compile(r"(\d{1,6}):(.+)", re.DOTALL)


@dataclass(frozen=True)
class Part:
    """One folder: how often its pictures come, and what those without a caption are called."""

    path: Path
    repeats: int = 1
    caption: str = ""
    masks: Path | None = None  # the folder of masks that are called as their pictures are


def asked(text: str) -> Part:
    """`3:FOLDER`, or a folder. Raises USAGE."""
    found = _ASKED.fullmatch(text)
    if found is None or Path(text).exists():
        return Part(Path(text))
    return Part(Path(found[2]), _checked(int(found[1]), found[2]))


def read(parts: Sequence[Part], *, skip_bad: bool) -> Folder:
    """Everything in them. Raises NO_INPUT, BAD_DATASET; all that is bad is named at once."""
    whole = [one for part in parts for one in _inside(part)]
    found = [(part, _masked(part, pictures.look(part.path))) for part in whole]
    bad = [_called(part, one) if len(whole) > 1 else one for part, folder in found for one in folder.bad]
    pictures.refuse_bad(parts[0].path, bad, skip_bad=skip_bad)
    names = _names(whole)
    taken = tuple(_made(part, one, names[part.path]) for part, folder in found for one in folder.pictures)
    if not taken:
        raise CraftError("BAD_DATASET", f"{parts[0].path} holds no good pictures", "see what was left out")
    notes = [note for _, folder in found for note in folder.notes]
    return Folder(taken, tuple(bad), (*notes, *_told(parts, whole), *_unused_masks(parts, taken)))


def _inside(part: Part) -> Iterator[Part]:
    """The folder itself, or its folders where they are kohya's."""
    repeated = list(_repeated(part)) if not _has_pictures(part.path) else []
    yield from repeated or [part]


def _repeated(part: Part) -> Iterator[Part]:
    for path, found in _matched(part.path):
        if int(found[1]):
            yield replace(part, path=path, repeats=_checked(int(found[1]), path.name) * part.repeats, caption=found[2])


def _matched(folder: Path) -> list[tuple[Path, re.Match[str]]]:
    return [(path, found) for path in _folders(folder) if (found := _REPEATED.fullmatch(path.name))]


def _folders(folder: Path) -> list[Path]:
    try:
        return sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
    except OSError:  # what is wrong with it is told when it is read
        return []


def _has_pictures(folder: Path) -> bool:
    try:
        return any(path.suffix.lower() in PICTURES and not path.is_dir() for path in folder.iterdir())
    except OSError:
        return True


def _checked(repeats: int, name: str) -> int:
    if not 1 <= repeats <= _MOST_REPEATS:
        raise CraftError("BAD_DATASET", f"{name}: {repeats} repeats; from 1 to {_MOST_REPEATS} may be", "take fewer")
    return repeats


def _masked(part: Part, folder: Folder) -> Folder:
    """With the masks of another folder. Raises NO_INPUT."""
    if part.masks is None:
        return folder
    if not files.is_folder(part.masks):
        raise CraftError("NO_INPUT", f"there is no folder {files.shown(part.masks)}", "name the folder of the masks")
    there = {path.stem: path for path in _masks(part.masks)}
    return replace(
        folder, pictures=tuple(replace(one, mask=one.mask or there.get(one.path.stem)) for one in folder.pictures)
    )


def _called(part: Part, bad: Bad) -> Bad:
    return Bad(f"{part.path.name}: {bad.name}", bad.why)


def _made(part: Part, one: Picture, name: str) -> Picture:
    return replace(one, caption=one.caption or part.caption, repeats=part.repeats, folder=name)


def _names(whole: Sequence[Part]) -> dict[Path, str]:
    """Gives each folder's prefix for the names of its pictures: none where there is one folder."""
    names = [part.path.resolve().name for part in whole]
    if len(whole) == 1:
        return {whole[0].path: ""}
    return {
        part.path: name if names.count(name) == 1 else f"{name} {i + 1}"
        for i, (part, name) in enumerate(zip(whole, names, strict=True))
    }


def _unused_masks(parts: Sequence[Part], taken: Sequence[Picture]) -> Iterator[str]:
    used = {one.mask for one in taken}
    for folder in {part.masks for part in parts if part.masks is not None}:
        for path in _masks(folder):
            if path not in used:
                yield f"{folder.name}/{path.name}: is a mask without its picture"


def _masks(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.suffix.lower() in PICTURES)


def _told(parts: Sequence[Part], whole: Sequence[Part]) -> Iterator[str]:
    """Tells what the folders' names meant, and which of them were not read."""
    named = {part.path for part in parts}
    for part in whole:
        if part.path not in named:
            said = f", {part.caption!r} where there is no caption" if part.caption else ""
            yield f"{part.path.name}/: each picture {part.repeats} times an epoch{said}"
    for folder in {part.path.parent for part in whole if part.path not in named}:
        for path in _folders(folder):
            if path not in {part.path for part in whole}:
                yield f"{path.name}/: is not read, for it is not called as 10_{path.name} is"
