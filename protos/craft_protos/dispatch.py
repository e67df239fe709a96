"""What the front asks of a worker. The fields are worker.proto's."""

from __future__ import annotations

from craft_protos.frozen import dataclass
from craft_protos.generate import GenerateSpec
from craft_protos.train import Picture, TrainSpec


@dataclass(frozen=True)
class ModelFile:
    """One file of a model: where it belongs in the model's folder, and its contents' name."""

    path: str
    sha256: str
    size_bytes: int


CONTROLNET = "controlnet"  # the family in a control model's manifest, and the folder of its files


@dataclass(frozen=True)
class ModelManifest:
    """A model: a diffusers folder, file by file."""

    name: str
    family: str = ""  # "generic" asks for the generic family; else the pipeline decides
    pipeline: str = ""
    sha256: str = ""
    files: tuple[ModelFile, ...] = ()
    precision: str = ""  # that it is kept in; "": as the worker computes

    @property
    def size_bytes(self) -> int:
        return sum(file.size_bytes for file in self.files)

    @property
    def key(self) -> tuple[str, str]:
        """Tells a model from another that had its name before."""
        return (self.name, self.sha256)


@dataclass(frozen=True)
class File:
    """A file of the worker's store, and what it is called in messages."""

    name: str
    sha256: str
    size_bytes: int


@dataclass(frozen=True)
class Dispatch:
    """Draw images of one job, or train its LoRA."""

    job_id: str
    epoch: int
    spec: GenerateSpec | TrainSpec
    model: ModelManifest
    indices: tuple[int, ...] = ()  # of the images still to be drawn
    files: tuple[File, ...] = ()  # the LoRAs', in the spec's order; or the checkpoint that a training goes on from
    pictures: tuple[Picture, ...] = ()  # to train on
    priority: str = "interactive"
    owner: str = ""
    provenance: str = ""
    preview_every: int = 0
    inputs: tuple[File, ...] = ()  # the pictures that the spec names, each once
    later_models: tuple[ModelManifest, ...] = ()  # of later stages: the upscalers and the refiner that the spec names
    public: bool = False  # whoever has an image's id may see it
    controls: tuple[ModelManifest, ...] = ()  # the control models that the spec names, each once

    @property
    def models(self) -> tuple[ModelManifest, ...]:
        """All that must be in memory."""
        return (self.model, *self.controls)

    @property
    def drawing(self) -> GenerateSpec:
        """The spec of a job that is known to draw."""
        assert isinstance(self.spec, GenerateSpec), self.job_id
        return self.spec

    @property
    def training(self) -> TrainSpec:
        """The spec of a job that is known to train."""
        assert isinstance(self.spec, TrainSpec), self.job_id
        return self.spec

    @property
    def is_interactive(self) -> bool:
        return self.priority == "interactive"


@dataclass(frozen=True)
class Cancel:
    """Stop a job before its next step."""

    job_id: str
    epoch: int


@dataclass(frozen=True)
class Load:
    """Have a model ready."""

    model: ModelManifest


@dataclass(frozen=True)
class Unload:
    """Give a model's memory back, once its rows are done."""

    model: str


@dataclass(frozen=True)
class Preview:
    """Send a preview of a job's images every so many steps; 0: none."""

    job_id: str
    every: int


@dataclass(frozen=True)
class Frame:
    """ToWorker."""

    frame: Dispatch | Cancel | Load | Unload | Preview
