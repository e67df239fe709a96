"""A model: a diffusers folder, or a checkpoint of one file, that craft can draw with."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from craft_protos.reasons import CraftError


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
class Model:
    name: str
    folder: Path  # or the checkpoint's file
    family: str  # "sd", "sdxl", "sd3", "flux", or "generic"
    pipeline: str  # the diffusers class
    granularity: int  # sides are multiples of this, in pixels
    defaults: Defaults
    files: tuple[ModelFile, ...]
    precision: str = ""  # of the files: "fp16"
    built_in: bool = False
    refused: str = ""  # the reason's name, where it cannot be drawn with
    refused_why: str = ""
    refused_hint: str = ""
    source: str = ""  # where it came from

    @property
    def size_bytes(self) -> int:
        return sum(file.size_bytes for file in self.files)

    def check_usable(self) -> None:
        """Raises why it cannot be drawn with, if it cannot."""
        if self.refused:
            raise CraftError(self.refused, f"model {self.name}: {self.refused_why}", self.refused_hint, field="model")


@dataclass(frozen=True)
class HashedFile:
    path: str
    source: Path
    size_bytes: int
    sha256: str


@dataclass(frozen=True)
class Manifest:
    """What a worker needs to load a model: every file by its hash."""

    name: str
    family: str
    pipeline: str
    files: tuple[HashedFile, ...]

    @property
    def sha256(self) -> str:
        lines = sorted(f"{file.sha256}  {file.path}\n" for file in self.files)
        return hashlib.sha256("".join(lines).encode()).hexdigest()

    @property
    def size_bytes(self) -> int:
        return sum(file.size_bytes for file in self.files)


@dataclass(frozen=True)
class ModelView:
    """A model as clients see it."""

    model: Model
    sha256: str = ""  # of its manifest, where that is known
    loaded_on: tuple[str, ...] = ()
    aliases: tuple[str, ...] = ()


@dataclass(frozen=True)
class Progress:
    """Of an import."""

    doing: str
    bytes_done: int = 0
    bytes_total: int = 0
