"""A job and what it is made of."""

from __future__ import annotations

import enum
import hashlib
import json
from dataclasses import dataclass

from craft_protos.codec import to_json
from craft_protos.generate import GenerateSpec
from craft_protos.job_request import JobRequest
from craft_protos.reasons import CraftError
from craft_protos.train import TrainRequest, TrainSpec

from craftd.images.image import Image
from craftd.jobs.fits.service import LoraFit
from craftd.jobs.pace import Pace
from craftd.offload import Need

# Fields of a request that its hash always had; what joined later counts where it says something.
_ALWAYS = (
    *("prompt", "negative_prompt", "model", "width", "height", "steps", "guidance_scale", "seed", "count"),
    *("sampler", "format", "deterministic", "indices"),
)


class State(enum.StrEnum):
    QUEUED = "QUEUED"
    RUNNING = "RUNNING"
    SUCCEEDED = "SUCCEEDED"
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"

    @property
    def is_final(self) -> bool:
        return self not in (State.QUEUED, State.RUNNING)


class Priority(enum.IntEnum):
    INTERACTIVE = 0
    BATCH = 1


class Kind(enum.StrEnum):
    GENERATE = "generate"
    TRAIN = "train"


def body_sha256(request: JobRequest) -> str:
    """Of everything but the request_id: the same for the same request of whatever version of craft."""
    spec, usual = request.spec, type(request.spec)()
    said = {name: value for name, value in to_json(spec).items() if getattr(spec, name) != getattr(usual, name)}
    body: dict[str, object] = {"priority": Priority[request.priority.upper()], "lease": request.lease}
    body["expire_time"] = request.expire_time
    if isinstance(spec, TrainRequest):
        body["train"] = said
    else:
        said |= {"loras": [{"lora": one.lora, "weight": one.weight} for one in spec.loras]} if spec.loras else {}
        body["generate"] = {name: getattr(spec, name) for name in _ALWAYS} | said
        body |= {"public": True} if request.public else {}
    body |= {"webhook": request.webhook} if request.webhook else {}
    return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()


@dataclass(frozen=True)
class Error:
    reason: str
    message: str
    hint: str = ""

    @classmethod
    def of(cls, exc: CraftError) -> Error:
        return cls(exc.reason, exc.message, exc.hint)


@dataclass(frozen=True)
class Job:
    id: str
    owner: str
    request_id: str
    body_sha256: str
    spec: GenerateSpec | TrainSpec
    create_time: float
    state: State = State.QUEUED
    priority: Priority = Priority.INTERACTIVE
    lease: bool = False
    public: bool = False
    attempts: int = 0  # deaths of a worker that this job was the cause of
    is_suspect: bool = False  # it ran when a worker died: its next run begins alone
    expire_time: float | None = None
    start_time: float | None = None
    finish_time: float | None = None
    load_s: float = 0.0
    denoise_s: float = 0.0
    error: Error | None = None
    lora: str = ""  # id of the LoRA that a train job became

    @property
    def drawing(self) -> GenerateSpec:
        """Of a job that is known to draw."""
        assert isinstance(self.spec, GenerateSpec), self.id
        return self.spec

    @property
    def training(self) -> TrainSpec:
        """Of a job that is known to train."""
        assert isinstance(self.spec, TrainSpec), self.id
        return self.spec

    @property
    def is_training(self) -> bool:
        return isinstance(self.spec, TrainSpec)

    @property
    def kind(self) -> Kind:
        return Kind.TRAIN if self.is_training else Kind.GENERATE

    @property
    def queued_s(self) -> float:
        """From its creation to its first row's start, less the wait for the model."""
        if self.start_time is None:
            return 0.0
        return max(0.0, self.start_time - self.create_time - self.load_s)

    @property
    def total_s(self) -> float:
        return max(0.0, (self.finish_time or self.create_time) - self.create_time)


@dataclass(frozen=True)
class JobView:
    """A job as clients see it."""

    job: Job
    images: tuple[Image, ...] = ()
    position: int = 0
    why_waiting: str = ""  # what keeps it besides those ahead
    worker: str = ""  # the name of the one that it was given to last
    placed: str = ""  # why it was given to that one
    removed: frozenset[int] = frozenset()  # while it is unfinished: indices of its images that were deleted


@dataclass(frozen=True)
class Plan:
    """What CreateJob would do."""

    spec: GenerateSpec | TrainSpec
    model_loaded: bool
    load_bytes: int
    evicted_models: tuple[str, ...]  # unloaded to make room
    queue_position: int
    device: str
    fits: tuple[LoraFit, ...] = ()  # in the order of the spec's LoRAs
    obstacles: tuple[CraftError | None, ...] = ()  # why each of them cannot be used, as far as can be told
    need: Need | None = None  # of the device's memory
    pace: Pace | None = None  # None: no job of the model was drawn here
    lora_bytes: int = 0  # of the file that a training makes; 0: not known
    notes: tuple[str, ...] = ()
    result_size: tuple[int, int] = (0, 0)  # of the pictures that come out; noughts of a training
