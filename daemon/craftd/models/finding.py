"""The parts that a model lacks: named by its user, registered, beside its file, or in the folders around it."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from craft_protos.reasons import CraftError, invalid

from craftd import gguf
from craftd.architectures import detect
from craftd.architectures.architecture import Part as PartOfPipeline
from craftd.architectures.architecture import PartKind
from craftd.architectures.parts import TEXT_ENCODER, VAE
from craftd.models import names
from craftd.models.hashes import FileHashes
from craftd.models.part import Given, Part, tokenizer_beside
from craftd.models.registry import Registry
from craftd.workers.inspector import Identify, Identity

# Folders as ComfyUI, A1111 and Forge call them: of networks, around which parts lie, and of parts.
_NETWORKS = ("diffusion_models", "unet", "checkpoints", "stable-diffusion")
_PARTS = ("text_encoders", "text_encoder", "clip", "vae")
_MOST_LEVELS = 3
_MOST_FILES = 500
_PRECISIONS = ("bf16", "fp16", "fp32")


@dataclass(frozen=True)
class Asked:
    """The parts that a user named: registered ones' names, or paths."""

    text_encoders: tuple[str, ...] = ()
    vae: str = ""

    def __bool__(self) -> bool:
        return bool(self.text_encoders or self.vae)


@dataclass(frozen=True)
class _Needs:
    """What the pipeline of a file, or of a folder, takes from other files."""

    places: tuple[PartOfPipeline, ...]  # all that may be given
    missing: tuple[PartOfPipeline, ...]  # that must be
    wished: tuple[PartOfPipeline, ...]  # that are taken where they are found
    found: detect.Found | None = None


class PartFinder:
    """Registers nothing: a part that is new is given as it would be registered."""

    def __init__(self, registry: Registry, identify: Identify, hashes: FileHashes) -> None:
        self._registry = registry
        self._identify = identify
        self._hashes = hashes

    async def given(
        self,
        path: Path,
        asked: Asked,
        places: Sequence[PartOfPipeline] = (),
        near: Sequence[Identity] = (),
    ) -> list[Given]:
        """What a checkpoint, a network or a folder draws with besides its own.

        `places`: of a folder. `near`: files that are known to be parts.

        Raises UNSUPPORTED_MODEL with what is missing, INVALID_FIELD, NO_INPUT, and what is wrong with a named file.
        """
        needs = await asyncio.to_thread(_needs, path, tuple(places))
        found = await self._named(needs, asked)
        waiting = [one for one in (*needs.missing, *needs.wished) if one.component not in found]
        around = [*near, *(await self._around(path))] if self._lacks(waiting) else []
        for place in waiting:
            part = self._registered(place.kind) or await self._beside(place.kind, around)
            if part is not None:
                found[place.component] = part
        missing = [one for one in needs.missing if one.component not in found]
        if missing and needs.found is not None:
            raise detect.lacks(needs.found, missing, path.name)
        return [Given(component, part) for component, part in sorted(found.items())]

    async def part(
        self, path: Path, kind: str, *, name: str = "", source: str = "", is_downloaded: bool = False
    ) -> Part:
        """As it would be registered, or the registered one with the same contents."""
        here = self._here(path)
        if here is not None:
            return here
        sha256 = await self._hashes.of_part(path)
        same = next((one for one in self._registry.parts if (one.sha256, one.kind) == (sha256, kind)), None)
        if same is not None:
            return same
        tokenizer = await asyncio.to_thread(tokenizer_beside, path)
        called = name or await self._registry.free_name(
            names.derived(
                path.name.removesuffix(path.suffix) if path.suffix in (".safetensors", ".gguf") else path.name
            )
        )
        return Part(called, path, kind, sha256, source or str(path), tokenizer, is_downloaded)

    async def _named(self, needs: _Needs, asked: Asked) -> dict[str, Part]:
        wanted = [(text, TEXT_ENCODER, "text_encoder") for text in asked.text_encoders]
        wanted += [(asked.vae, VAE, "vae")] if asked.vae else []
        found: dict[str, Part] = {}
        for text, role, field in wanted:
            part = await self.named(text, field)
            place = next(
                (one for one in needs.places if one.kind and one.kind.role == role and one.kind.id == part.kind), None
            )
            if place is None:
                takes = [one.kind.name for one in needs.places if one.kind is not None and one.kind.role == role]
                why = f"{part.name} is {part.shown}, which the model has no place for"
                raise invalid(field, why, f"it takes: {', '.join(takes) or 'none'}")
            found[place.component] = part
        return found

    async def named(self, text: str, field: str) -> Part:
        """A registered part's name, or an absolute path. Raises INVALID_FIELD, NO_INPUT, what is wrong with it."""
        registered = self._registry.part(text)
        if registered is not None:
            return registered
        path = Path(text)
        if not path.is_absolute():
            known = ", ".join(one.name for one in self._registry.parts) or "none"
            raise invalid(field, f"no part is called {text[:100]!r}", f"known: {known}; or give a file")
        if not await asyncio.to_thread(path.exists):
            raise CraftError("NO_INPUT", f"{field}: {path} is not there", "check the path", field=field)
        (found,) = await self._identify([path])
        if found.why.reason:
            raise CraftError(found.why.reason, found.why.message, found.why.hint, field=field)
        if found.what != "part":
            raise invalid(field, f"{path.name} is no part: it is a {found.what} of {found.of}", "give the part's file")
        return await self.part(path, found.kind)

    def _lacks(self, places: Sequence[PartOfPipeline]) -> bool:
        return any(self._registered(place.kind) is None for place in places)

    def _registered(self, kind: PartKind | None) -> Part | None:
        fitting = [one for one in self._registry.parts if kind is not None and _is_it(kind, one.kind, one.path)]
        return min(fitting, key=lambda one: _rank(kind, one.path, ""), default=None)

    async def _beside(self, kind: PartKind | None, around: Sequence[Identity]) -> Part | None:
        fitting = [one for one in around if kind is not None and _is_it(kind, one.kind, one.path)]
        best = min(fitting, key=lambda one: _rank(kind, one.path, one.precision), default=None)
        return None if best is None else await self.part(best.path, best.kind)

    async def _around(self, path: Path) -> list[Identity]:
        paths = await asyncio.to_thread(lambda: list(_files_around(path)))
        return [one for one in await self._identify(paths) if one.what == "part"] if paths else []

    def _here(self, path: Path) -> Part | None:
        return next((one for one in self._registry.parts if one.path == path), None)


def _needs(path: Path, places: tuple[PartOfPipeline, ...]) -> _Needs:
    """Of a file, or of a folder, that has been checked. Raises as detect.of_file."""
    if path.is_dir():
        return _Needs(places, (), ())
    header = gguf.header(path)
    found = detect.of_file(header, path.name)
    layout, is_alone = found.checkpoint, found.is_alone(header)
    wished = tuple(one for one in layout.optional if is_alone)
    return _Needs((*layout.parts, *layout.optional), found.missing, wished, found)


def _is_it(kind: PartKind, found: str, path: Path) -> bool:
    return kind.id == found and (not kind.is_told_by_name or path.name.lower() in kind.files)


def _rank(kind: PartKind | None, path: Path, precision: str) -> tuple[int, int, str]:
    """The usual names first, then what loses least."""
    usual = kind.files if kind is not None else ()
    name = path.name.lower()
    by_name = usual.index(name) if name in usual else len(usual)
    by_precision = _PRECISIONS.index(precision) if precision in _PRECISIONS else len(_PRECISIONS)
    return by_name, by_precision, str(path)


def _files_around(path: Path) -> Iterator[Path]:
    """Files that may be parts: beside it, and in the folders of parts around those of networks."""
    folders = [path.parent, *_folders_of_parts(path)]
    seen: set[Path] = {path}
    for folder in folders:
        for found in _files_in(folder, 0 if folder == path.parent else _MOST_LEVELS):
            if found not in seen and len(seen) <= _MOST_FILES:
                seen.add(found)
                yield found


def _folders_of_parts(path: Path) -> Iterator[Path]:
    near = next((one for one in path.parents[:4] if one.name.lower() in _NETWORKS), None)
    if near is None or not near.parent.is_dir():
        return
    for folder in sorted(near.parent.iterdir()):
        if folder.name.lower() in _PARTS and folder.is_dir():
            yield folder


def _files_in(folder: Path, levels: int) -> Iterator[Path]:
    """Links to folders are not followed; what cannot be read is nothing."""
    try:
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except OSError:
        return
    for entry in entries:
        if entry.is_dir(follow_symlinks=False) and levels:
            yield from _files_in(Path(entry.path), levels - 1)
        elif entry.name.lower().endswith((".safetensors", ".gguf")) and entry.name.isprintable() and entry.is_file():
            yield Path(entry.path)
