"""A model: a diffusers folder, a checkpoint of one file, or a network and parts of other files."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from craft_protos.dispatch import ModelFile as ManifestFile
from craft_protos.dispatch import ModelManifest
from craft_protos.reasons import CraftError

from craftd.architectures.architecture import Architecture
from craftd.architectures.sizes import Sizes
from craftd.architectures.upscalers import Upscaling
from craftd.models.catalogue import Entry
from craftd.models.prediction import Prediction
from craftd.weights import Weights


@dataclass(frozen=True)
class Defaults:
    width: int
    height: int
    steps: int
    guidance_scale: float
    sampler: str


@dataclass(frozen=True)
class ModelFile:
    """`path` is the name inside the model's folder; `source` is where the file really is."""

    path: str
    source: Path
    size_bytes: int


@dataclass(frozen=True)
class ModelSource:
    """A model by name, of which nothing has been opened yet.

    `files`: of a pulled folder, those that are the model's; () for a pulled checkpoint; None where it was linked.
    """

    name: str
    path: Path  # a diffusers folder, or a checkpoint of one file
    source: str
    files: tuple[str, ...] | None = None
    built_in: bool = False
    prediction: str = ""  # what its user says that it predicts
    precision: str = ""  # what its user says that it is kept in
    is_registered: bool = False  # by `add` or `pull`; others lie in the models folder
    parts: tuple[tuple[str, str], ...] = ()  # components, and the registered parts in their places

    @property
    def own_files(self) -> tuple[Path, ...]:
        """Those that came with a pull; () where it was linked."""
        if self.files == ():
            return (self.path,)
        return tuple(self.path / name for name in self.files or ())


@dataclass(frozen=True)
class Model:
    name: str
    folder: Path  # or the checkpoint's file
    architecture: Architecture
    pipeline: str  # the diffusers class
    sizes: Sizes  # that it can draw
    defaults: Defaults
    files: tuple[ModelFile, ...]
    precision: str = ""  # of the files: "fp16"
    built_in: bool = False
    refused: str = ""  # the reason's name, where it cannot be drawn with
    refused_why: str = ""
    refused_hint: str = ""
    source: str = ""  # where it came from
    prediction: Prediction | None = None  # None: not known, as it has no scheduler
    parts: tuple[tuple[str, str], ...] = ()  # components that are registered parts, and their names
    weights: Weights = field(default_factory=Weights)  # what takes memory; nothing where that cannot be told
    memory_precision: str = ""  # that it is kept in while it is loaded; "": as the worker computes
    upscaling: Upscaling | None = None  # of an upscaler

    @property
    def size_bytes(self) -> int:
        return sum(file.size_bytes for file in self.files)

    def check_usable(self) -> None:
        """Raises why it cannot be drawn with, if it cannot."""
        if self.refused:
            raise CraftError(self.refused, f"model {self.name}: {self.refused_why}", self.refused_hint, field="model")


@dataclass(frozen=True)
class Manifest(ModelManifest):
    """What a worker needs to load a model, and where each of its files lies, in their order."""

    sources: tuple[Path, ...] = ()

    @property
    def places(self) -> dict[str, Path]:
        """Where each file lies, by its sha256."""
        return {file.sha256: source for file, source in zip(self.files, self.sources, strict=True)}

    @classmethod
    def of(cls, model: Model, hashes: Sequence[str]) -> Manifest:
        """`hashes`: sha256 of each of the model's files."""
        pairs = list(zip(model.files, hashes, strict=True))
        lines = sorted(f"{sha256}  {file.path}\n" for file, sha256 in pairs)
        if model.memory_precision:  # other weights to compute with, so another model
            lines.append(f"kept in {model.memory_precision}\n")
        return cls(
            name=model.name,
            family=model.architecture.family,
            pipeline=model.pipeline,
            sha256=hashlib.sha256("".join(lines).encode()).hexdigest(),
            files=tuple(ManifestFile(file.path, sha256, file.size_bytes) for file, sha256 in pairs),
            precision=model.memory_precision,
            sources=tuple(file.source for file in model.files),
        )


@dataclass(frozen=True)
class ModelView:
    """A model as clients see it."""

    model: Model
    sha256: str = ""  # of its manifest, where that is known
    loaded_on: tuple[str, ...] = ()
    aliases: tuple[str, ...] = ()


@dataclass(frozen=True)
class PullPlan:
    """What a pull would do, and what it would have to fit into."""

    source: str
    files: int
    download_bytes: int  # that are not here yet
    free_bytes: int  # on the disk where they go
    entry: Entry | None = None  # where it was asked for by a short name
    device_bytes: int = 0  # of memory; 0: no worker has told yet
    precision: str = ""  # that the device computes in; "": no worker has told yet
    unasked: str = ""  # why the hub could not be asked: the catalogue alone has told


@dataclass(frozen=True)
class Progress:
    """Of an import."""

    doing: str
    bytes_done: int = 0
    bytes_total: int = 0
