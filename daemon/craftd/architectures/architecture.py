"""What can be said of an architecture of models. The rows themselves are in `registry.py`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from craft_protos.generate import MOST_REFERENCES

from craftd.architectures import sizes

NOISE, VELOCITY, FLOW = "epsilon", "v_prediction", "flow"  # what a model was trained to predict
SHOWN_UNIT = 32  # sides of a picture that a model is shown are multiples of it, where its pixels are counted
GENERIC = "generic"  # the family of the pipelines whose own loop is called
LDM = "model.diffusion_model."  # before the network's tensors in the original layout
BARE_LDM = "diffusion_model."  # the same as some programs save the network alone

_NO_NAME = re.compile(r"(?!)")


@dataclass(frozen=True)
class Mark:
    """What a file's header shows: beginnings of tensors' names, all of them after one of `prefixes`.

    `side`: a tensor's name, or its end after "*", an axis, and the length that it must have there.
    """

    has: tuple[str, ...]
    lacks: tuple[str, ...] = ()
    side: tuple[str, int, int] | None = None
    prefixes: tuple[str, ...] = (LDM, BARE_LDM, "")


@dataclass(frozen=True)
class PartKind:
    """A kind of parts that lie in files of their own (the kinds: `parts.py`).

    `is_told_by_name`: others have the same tensors, so that only one of those `files` is taken unasked.
    `vocabulary`: the folder of `tokenizers/` that its tokenizer takes; "": its file or folder must bring one, or a pull
    does, from the folder `tokenizer` of `vocabulary_repository`.
    """

    id: str
    name: str  # in sentences: "the text encoder CLIP-L"
    role: str
    mark: Mark
    files: tuple[str, ...] = ()  # what such files are called elsewhere
    published: str = ""
    is_told_by_name: bool = False
    vocabulary: str = ""
    vocabulary_repository: str = ""
    network: str = ""  # of a control model: diffusers' class


@dataclass(frozen=True)
class Part:
    """A part of the pipeline that a file holds if it has tensors with any of these beginnings.

    `component`: its name in the pipeline. `kind`: what it may be given as in a file of its own; None: it cannot.
    """

    name: str
    prefixes: tuple[str, ...]
    component: str = ""
    kind: PartKind | None = None


@dataclass(frozen=True)
class Checkpoint:
    """A layout of single files: how it is recognised, and what must lie beside the network in the file.

    `inputs`: the tensor whose second side is the number of channels that the network takes, and that number.
    """

    configurations: str  # the folder beside this module that has what the file lacks
    mark: Mark
    parts: tuple[Part, ...]
    optional: tuple[Part, ...] = ()
    inputs: tuple[str, int] | None = None
    velocity_configurations: str = ""  # of a model that predicts velocities, where they are others
    named_configurations: Mapping[str, str] = field(default_factory=dict)  # by a word of the file's name
    word: str = ""  # that a file's name must have: others have the same tensors
    not_word: str = ""  # that it must not have, for the same reason

    def configurations_for(self, predicts: str, file_name: str = "") -> str:
        words = _words(file_name)
        named = next((folder for word, folder in self.named_configurations.items() if word in words), "")
        return named or (predicts == VELOCITY and self.velocity_configurations) or self.configurations

    def may_be_called(self, file_name: str) -> bool:
        words = _words(file_name)
        return (not self.word or self.word in words) and self.not_word not in words


@dataclass(frozen=True)
class Distilled:
    """How an architecture's models that were distilled are told, by one value of a configuration, and drawn with.

    `part`: the folder of the configuration, "" for the pipeline's own; a value that it lacks is false.
    """

    part: str
    key: str
    value: bool | float | str
    steps: int
    guidance_scale: float = 0.0

    def tells(self, configuration: Mapping[str, object]) -> bool:
        """Says whether a model was distilled to few steps, by the configuration of the part that tells."""
        return (configuration.get(self.key) or False) == self.value


@dataclass(frozen=True)
class Training:
    """How a LoRA is trained where nothing else is asked for. Nought means off where a TrainSpec's field says so."""

    targets: tuple[str, ...]  # the network's layers by the ends of their names, as diffusers' scripts choose them
    text_encoders: tuple[str, ...]  # that can be trained too
    rank: int = 16  # alpha is the same, so that the rank alone does not change how much a step does
    learning_rate: float = 1e-4
    steps: int = 1000  # optimizer steps
    batch_size: int = 1
    resolution: int = 1024  # pixels: the side of the square whose area each bucket has
    min_snr_gamma: float = 0  # Hang et al. 2023; means nothing to flow matching
    gradient_checkpointing: bool = True
    gradient_accumulation: int = 1
    ema_decay: float = 0.0
    learning_rate_schedule: str = "cosine"
    warmup_steps: int = 50
    caption_dropout: float = 0.05
    prior_weight: float = 1.0
    checkpoint_every: int = 100  # optimizer steps
    sample_steps: int = 20  # of a sample picture
    guidance_scale: float = 5.0


@dataclass(frozen=True)
class Architecture:
    """One row of the registry. `id` is what models and LoRAs are sorted by; "" where it is not known."""

    id: str
    name: str = ""
    pipelines: tuple[str, ...] = ()  # diffusers' classes that draw with it
    family: str = GENERIC  # the worker's module that draws with it
    network: str = ""  # the class of what is called at each step; of rows that share one, the first has it
    text_width: int = 0  # of what a UNet attends to: tells one Stable Diffusion from another
    predicts: str = NOISE  # where nothing else is said of a model

    # How it is drawn with
    steps: int = 25
    guidance_scale: float = 7.5
    distilled: Distilled | None = None  # of its models that draw in few steps though others of them do not
    unused_parts: frozenset[str] = frozenset()  # of a folder: neither checked nor fetched nor loaded
    optional_parts: tuple[str, ...] = ()  # diffusers wants to be told where a folder lacks them
    runs_in_fp16: bool = False  # others overflow
    takes: frozenset[str] = frozenset()  # of the request's fields that not all understand
    needs: frozenset[str] = frozenset()  # of these: it draws nothing without them
    most_references: int = MOST_REFERENCES  # pictures that it can be shown, where it takes any
    shapes: tuple[tuple[int, int], ...] = ()  # sizes that it was trained in, where the picture it is shown gets one
    shown_pixels: int = 0  # that the picture gets where it does not
    call: Mapping[str, object] = field(default_factory=dict)  # what a pipeline's own loop is told beside the request

    # How it is recognised
    checkpoints: tuple[Checkpoint, ...] = ()
    marks: tuple[Mark, ...] = ()  # of single files that craft can name and not draw with
    variants: Mapping[int, str] = field(default_factory=dict)  # by the network's input channels; {} is `name`
    lora_layer: re.Pattern[str] = _NO_NAME  # what only this architecture's LoRAs have in a layer's name
    lora_note: re.Pattern[str] = _NO_NAME  # how a LoRA's metadata calls it
    lora_like: str = ""  # the architecture whose LoRAs' layers have the same names

    # What others call it
    kohya: str = ""  # ss_base_model_version
    modelspec: str = ""  # modelspec.architecture
    modelspec_predicts: Mapping[str, str] = field(default_factory=dict)  # modelspec.architecture -> what it predicts
    visioncraft: tuple[str, ...] = ()  # categories of LoRAs

    training: Training | None = None  # None: craft trains no LoRAs for it

    def nearest_in_shape(self, width: int, height: int) -> tuple[int, int]:
        """The one of its `shapes` that is most alike; of two the narrower."""
        return min(self.shapes, key=lambda shape: (abs(width / height - shape[0] / shape[1]), shape))

    def beside(self, width: int, height: int) -> tuple[int, int] | None:
        """The size that is drawn unasked from a picture of that size that it is shown; None: of its usual pixels."""
        if self.shapes:
            return self.nearest_in_shape(width, height)
        return sizes.in_shape(width, height, self.shown_pixels, SHOWN_UNIT) if self.shown_pixels else None

    def may_take(self, lora: str) -> bool:
        """Whether a LoRA of that architecture may fit: also where one of the two is not known."""
        return not (self.id and lora) or lora in (self.id, self.lora_like)


def _words(file_name: str) -> list[str]:
    return re.findall(r"[a-z]+|[0-9]+", file_name.lower())
