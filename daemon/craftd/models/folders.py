"""A folder of ComfyUI's or A1111's: what is in it, what each file is, and all that craft can use, registered in place.

Nothing is copied, moved or deleted. Links to folders are followed once; names that cannot be printed are told escaped.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from craft_protos.reasons import CraftError, invalid

from craftd.models import folder, names
from craftd.models.importing import Importer
from craftd.models.model import ModelSource, Progress
from craftd.models.part import Part
from craftd.models.registry import Registry
from craftd.models.wish import Wish
from craftd.workers.inspector import Identify, Identity

_WEIGHTS = (".safetensors", ".gguf", ".ckpt", ".pt", ".pth", ".bin")
_MOST_ENTRIES = 20_000
_DEEPEST = 16
_ORDER = {"part": 0, "folder": 1, "checkpoint": 1, "network": 1, "lora": 2}  # networks draw with parts
FOLDER = "folder"

NEW, HERE, ADDED, REFUSED, UNKNOWN = "new", "here", "added", "refused", "unknown"


@dataclass(frozen=True)
class Loras:
    """What the folder's import asks of the LoRAs, which are kept elsewhere."""

    name_of: Callable[[Path], str]  # "" for one that is not registered
    add: Callable[[Path], Awaitable[str]]


@dataclass(frozen=True)
class FolderEntry:
    """One file of the folder, or one diffusers folder in it."""

    path: Path
    shown: str  # the path inside the folder, printable
    what: str  # as Identity.what, or FOLDER; "" where it is nothing that craft can use
    description: str
    state: str
    name: str = ""
    uses: tuple[str, ...] = ()


class FolderImporter:
    """`run` tells what is there, and registers it unless it is only planned."""

    def __init__(self, registry: Registry, importer: Importer, identify: Identify) -> None:
        self._registry = registry
        self._importer = importer
        self._identify = identify

    async def run(self, root: Path, loras: Loras, *, plan_only: bool) -> AsyncGenerator[Progress | FolderEntry, None]:
        """Entries in the folder's order. Raises INVALID_FIELD, NO_INPUT, CORRUPT_FILE for what is no such folder."""
        _check(root)
        yield Progress("looking into the folder")
        found = await asyncio.to_thread(lambda: list(_walk(root)))
        identities = await self._identified([path for path in found if not path.is_dir() and _is_readable(path)])
        near = [one for one in identities.values() if one.what == "part"]
        entries = [self._entry(root, path, identities.get(path), await self._known(), loras) for path in found]
        done: dict[Path, FolderEntry] = {}
        for number, entry in enumerate(sorted(entries, key=lambda one: _ORDER.get(one.what, 3))):
            done[entry.path] = entry
            if entry.state == NEW:
                yield Progress(f"{'checking' if plan_only else 'adding'} {entry.shown}", number, len(entries))
                done[entry.path] = await self._tried(entry, near, loras, plan_only=plan_only)
        for path in found:
            yield done[path]

    async def _identified(self, paths: Sequence[Path]) -> dict[Path, Identity]:
        return {one.path: one for one in await self._identify(paths)} if paths else {}

    async def _known(self) -> dict[Path, str]:
        places: list[tuple[Path, str]] = [(one.path, one.name) for one in await self._registry.places()]
        return dict([*places, *((one.path, one.name) for one in self._registry.parts)])

    def _entry(
        self, root: Path, path: Path, found: Identity | None, known: dict[Path, str], loras: Loras
    ) -> FolderEntry:
        shown = _shown(str(path.relative_to(root)))
        here = known.get(path) or loras.name_of(path)
        if found is None:
            if path.is_dir():
                return FolderEntry(path, shown, FOLDER, "a diffusers folder", HERE if here else NEW, here)
            return FolderEntry(path, shown, "", _why_not(path), UNKNOWN)
        if found.why.reason:
            return FolderEntry(path, shown, "", _shown(found.why.message), UNKNOWN)
        return FolderEntry(path, shown, found.what, found.of or "of no known architecture", HERE if here else NEW, here)

    async def _tried(
        self, entry: FolderEntry, near: Sequence[Identity], loras: Loras, *, plan_only: bool
    ) -> FolderEntry:
        try:
            return await (self._planned(entry, near) if plan_only else self._added(entry, near, loras))
        except CraftError as exc:
            return replace(entry, state=REFUSED, description=_shown(f"{entry.description}: {exc.message}"))

    async def _planned(self, entry: FolderEntry, near: Sequence[Identity]) -> FolderEntry:
        uses: tuple[str, ...] = ()
        if entry.what in ("checkpoint", "network"):
            uses = tuple(one.part.name for one in await self._importer.planned(entry.path, near))
        return replace(entry, name=await self._name(entry), uses=uses)

    async def _added(self, entry: FolderEntry, near: Sequence[Identity], loras: Loras) -> FolderEntry:
        if entry.what == "lora":
            return replace(entry, state=ADDED, name=await loras.add(entry.path))
        made = await self._importer.add(entry.path, Wish(await self._name(entry), near=tuple(near)), lambda _: None)
        assert isinstance(made, Part | ModelSource), "only a plan is anything else"
        uses = () if isinstance(made, Part) else tuple(part for _, part in made.parts)
        return replace(entry, state=ADDED, name=made.name, uses=uses)

    async def _name(self, entry: FolderEntry) -> str:
        derived = names.derived(entry.path.name if entry.path.is_dir() else entry.path.stem)
        return derived if entry.what == "lora" else await self._registry.free_name(derived)


def _check(root: Path) -> None:
    if not root.is_absolute():
        raise invalid("path", f"{str(root)[:200]!r} is not absolute", "give the whole path")
    if not root.exists():
        raise CraftError("NO_INPUT", f"path: {root} is not there", "check the path", field="path")
    if not root.is_dir():
        raise invalid("path", f"{root} is no folder", "one file is added by itself: craft models add FILE")
    if folder.is_model(root):
        raise invalid("path", f"{root} is one model, a diffusers folder", f"add it: craft models add {root}")


def _walk(root: Path) -> Iterator[Path]:
    """Files of weights, and diffusers folders, each once. Raises CORRUPT_FILE where there are too many entries."""
    seen, count = {os.path.realpath(root)}, 0
    waiting = [(root, 0)]
    while waiting:
        place, depth = waiting.pop(0)
        for entry in _entries(place):
            count += 1
            if count > _MOST_ENTRIES:
                raise CraftError(
                    "CORRUPT_FILE", f"{root}: more than {_MOST_ENTRIES} entries", "give a folder inside it"
                )
            path = Path(entry.path)
            if _is_dir(entry):
                real = os.path.realpath(path)
                if real not in seen and depth < _DEEPEST:
                    seen.add(real)
                    if folder.is_model(path):
                        yield path
                    else:
                        waiting.append((path, depth + 1))
            elif entry.name.lower().endswith(_WEIGHTS):
                yield path


def _entries(place: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(place) as entries:
            return sorted(entries, key=lambda entry: entry.name)
    except OSError:
        return []


def _is_dir(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link in a circle
        return False


def _is_readable(path: Path) -> bool:
    """Whether it is worth asking what it is."""
    return path.name.lower().endswith((".safetensors", ".gguf")) and str(path).isprintable()


def _why_not(path: Path) -> str:
    if not str(path).isprintable():
        return "its name has characters that cannot be printed"
    return "a pickle file, which could run code: craft opens safetensors files only"


def _shown(text: str) -> str:
    return "".join(one if one.isprintable() else one.encode("unicode_escape").decode() for one in text)
