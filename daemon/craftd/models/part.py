"""A part: a text encoder or a VAE in a file of its own, which any model whose pipeline takes it may use."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from craft_protos.reasons import CraftError

from craftd.architectures import controls, parts
from craftd.architectures.rows import unets
from craftd.architectures.upscalers import Upscaling
from craftd.models import choosing
from craftd.models.model import ModelFile

POCKET_X4 = "pocket-x4"  # the upscaler that comes with craft
_OF_CRAFT = Upscaling("RealESRGAN Compact", 4)
COMPONENT = "component"  # a part's file among a model's files: its layout is its own, as its header shows
_TOKENIZERS = ("tokenizer.json", "vocab.json")


@dataclass(frozen=True)
class Part:
    """A registered part. `path`: a file, or a folder as transformers saves one.

    `tokenizer`: the folder that brings its vocabulary, where that does not come with craft.
    `is_downloaded`: by a pull, so that it is craft's to delete.
    """

    name: str
    path: Path
    kind: str  # an id of craftd.architectures.parts
    sha256: str  # of its weights; two files with one hash are one part
    source: str
    tokenizer: Path | None = None
    is_downloaded: bool = False
    built_in: bool = False

    @classmethod
    def of_craft(cls, folder: Path) -> Part | None:
        """A control model that came with craft; None where its weights are not there."""
        weights = folder / "diffusion_pytorch_model.safetensors"
        if not weights.is_file():
            return None
        name = folder.name.replace("_", "-")
        kind = controls.kind_of(unets.POCKET)
        sha256 = hashlib.sha256(weights.read_bytes()).hexdigest()
        return cls(name, folder, kind, sha256, "built in", built_in=True)

    @classmethod
    def upscaler_of_craft(cls, folder: Path) -> Part | None:
        """The one that came with craft; None where it is not there."""
        path = folder / "upscaler" / f"{POCKET_X4}.safetensors"
        if not path.is_file():
            return None
        sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
        return cls(POCKET_X4, path, _OF_CRAFT.kind, sha256, "built in", built_in=True)

    @property
    def upscaling(self) -> Upscaling | None:
        """What an upscaler is; None of other parts."""
        return Upscaling.of(self.kind)

    @property
    def own_files(self) -> tuple[Path, ...]:
        """Those that craft downloaded. It looks into the tokenizer's folder."""
        if not self.is_downloaded:
            return ()
        own = sorted(self.path.iterdir()) if self.path.is_dir() else [self.path]
        words = self.tokenizer if self.tokenizer is not None and self.tokenizer.is_dir() else None
        return (*own, *(sorted(words.iterdir()) if words is not None else ()))

    @property
    def shown(self) -> str:
        named = parts.shown(self.kind)
        return f"{named}, for {self.reads}" if self.reads else named

    @property
    def is_control(self) -> bool:
        return controls.is_control(self.kind)

    @property
    def reads(self) -> str:
        """Of a control model: what pictures, as far as its names tell."""
        return (
            controls.said_by(self.name, self.path.name, self.path.parent.name, self.source) if self.is_control else ""
        )

    def files(self, component: str) -> list[ModelFile]:
        """As files of a model whose pipeline has it as `component`. Raises CORRUPT_FILE."""
        found = self._weights(component)
        if self.tokenizer is not None and component.startswith("text_encoder"):
            place = tokenizer_of(component)
            found += [_file(path, f"{place}/{path.name}") for path in _texts(self.tokenizer) if not _is_weights(path)]
        return found

    def _weights(self, component: str) -> list[ModelFile]:
        if self.path.is_dir():
            own = [path for path in _texts(self.path) if _is_weights(path) or path.name == "config.json"]
            return [_file(path, f"{component}/{choosing.plain_name(path.name)}") for path in own]
        ending = self.path.suffix
        return [_file(self.path, f"{component}/{COMPONENT}{ending.lower()}")]


@dataclass(frozen=True)
class PartView:
    """A part as clients see it."""

    part: Part
    used_by: tuple[str, ...]  # models' names
    size_bytes: int  # of its files; 0 where they are gone

    @classmethod
    def of(cls, part: Part, used_by: Sequence[str]) -> PartView:
        try:
            size_bytes = sum(file.size_bytes for file in part.files("text_encoder"))
        except (OSError, CraftError):
            size_bytes = 0
        return cls(part, tuple(used_by), size_bytes)


@dataclass(frozen=True)
class Given:
    """A part in its place of a pipeline."""

    component: str
    part: Part


def tokenizer_of(component: str) -> str:
    """The component that makes a text encoder's tokens."""
    return component.replace("text_encoder", "tokenizer")


def composed(files: Sequence[ModelFile], given: Sequence[Given]) -> tuple[ModelFile, ...]:
    """A model's files, with those parts in the place of its own."""
    found = {file.path: file for file in files}
    for one in given:
        own = {file.path: file for file in one.part.files(one.component)}
        for path in [path for path in found if path.startswith(f"{one.component}/") and _is_weights(Path(path))]:
            del found[path]
        if one.part.tokenizer is not None and one.component.startswith("text_encoder"):
            place = f"{tokenizer_of(one.component)}/"
            found = {path: file for path, file in found.items() if not path.startswith(place)}
        found |= own
    return tuple(found.values())


def tokenizer_beside(path: Path) -> Path | None:
    """The folder with a tokenizer that a text encoder's file or folder brings along: itself, or one near it."""
    near = [path] if path.is_dir() else [path.with_suffix("")]
    folders = [*near, path.parent / "tokenizer", path.parent.parent / "tokenizer"]
    return next((folder for folder in folders if _has_tokenizer(folder)), None)


def _has_tokenizer(folder: Path) -> bool:
    has_words = any((folder / name).is_file() for name in _TOKENIZERS)
    return has_words and (folder / "tokenizer_config.json").is_file()


def _texts(folder: Path) -> list[Path]:
    """What of a folder is the part's: weights of one precision, configurations, vocabularies."""
    names = [path.name for path in sorted(folder.iterdir()) if path.is_file()]
    return [folder / name for name in choosing.of_part(names, str(folder))]


def _is_weights(path: Path) -> bool:
    return path.suffix in (".safetensors", ".gguf") or ".index." in path.name


def _file(path: Path, name: str) -> ModelFile:
    try:
        return ModelFile(name, path, path.stat().st_size)
    except OSError as exc:
        raise CraftError("CORRUPT_FILE", f"{path}: {exc.strerror}", "put it back, or remove the model") from exc
