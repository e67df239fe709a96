"""A job and what it is made of."""

from __future__ import annotations

import enum
import hashlib
import json
from dataclasses import asdict, dataclass

from craft_protos.reasons import CraftError

from craftd.images.image import Image
from craftd.jobs.training.spec import TrainSpec, TrainWish

SEED_LIMIT = 2**53  # beyond it JSON readers lose digits
FAIL, SKIP = "fail", "skip"  # what becomes of a LoRA that does not fit in full
# Fields that joined later: where they say nothing, a request's hash is what it was before.
_JOINED: dict[str, object] = {"loras": (), "lora_missing": FAIL, "trigger_words": False, "default_model": ""}


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


@dataclass(frozen=True)
class LoraWish:
    """A LoRA as asked for, by whatever names it; None: its own weight."""

    lora: str
    weight: float | None = None


@dataclass(frozen=True)
class LoraUse:
    """A LoRA of a job, resolved."""

    lora: str  # its id
    weight: float
    name: str
    sha256: str


@dataclass(frozen=True)
class GenerateRequest:
    """What to draw, as asked for: None and "" mean the model's own default."""

    prompt: str
    negative_prompt: str = ""
    model: str = ""
    width: int | None = None
    height: int | None = None
    steps: int | None = None
    guidance_scale: float | None = None
    seed: int | None = None
    count: int = 0
    sampler: str = ""
    format: str = ""
    deterministic: bool = False
    indices: tuple[int, ...] = ()
    loras: tuple[LoraWish, ...] = ()  # beside those in the prompt
    lora_missing: str = FAIL
    trigger_words: bool = False
    default_model: str = ""  # the caller's own, where `model` says nothing


@dataclass(frozen=True)
class JobRequest:
    """A call of CreateJob."""

    request_id: str
    generate: GenerateRequest
    expire_time: float | None = None
    priority: Priority = Priority.INTERACTIVE
    lease: bool = False
    public: bool = False  # whoever has an image's id may see it

    @property
    def body_sha256(self) -> str:
        """Of everything but the request_id."""
        body = asdict(self)
        del body["request_id"]
        if not self.public:  # joined later
            del body["public"]
        for name, usual in _JOINED.items():
            if body["generate"][name] == usual:
                del body["generate"][name]
        return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()


@dataclass(frozen=True)
class TrainRequest:
    """A call of CreateJob."""

    request_id: str
    train: TrainWish
    expire_time: float | None = None
    priority: Priority = Priority.INTERACTIVE
    lease: bool = False

    @property
    def body_sha256(self) -> str:
        """Of everything but the request_id; what is not said doesn't count, so that fields may join."""
        body = {name: value for name, value in asdict(self).items() if name not in ("request_id", "train")}
        usual = asdict(TrainWish(""))
        body["train"] = {name: value for name, value in asdict(self.train).items() if value != usual[name]}
        return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()


Request = JobRequest | TrainRequest


@dataclass(frozen=True)
class GenerateSpec:
    """What to draw, resolved: the image can be made from this and the model alone."""

    prompt: str
    negative_prompt: str
    model: str
    width: int
    height: int
    steps: int
    guidance_scale: float
    seed: int  # of image 0; image i has seed + i
    count: int
    sampler: str
    format: str  # png, jpeg or webp
    deterministic: bool
    indices: tuple[int, ...]  # drawn are these; empty: all
    loras: tuple[LoraUse, ...] = ()
    lora_missing: str = FAIL

    @property
    def wanted(self) -> tuple[int, ...]:
        return self.indices or tuple(range(self.count))


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
    attempts: int = 0  # deaths of the worker while the job ran alone
    is_suspect: bool = False  # was running when a worker died: runs alone from then on
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


@dataclass(frozen=True)
class LoraPlan:
    use: LoraUse
    why_not: str = ""  # it cannot be used, as far as can be told


@dataclass(frozen=True)
class Plan:
    """What CreateJob would do."""

    spec: GenerateSpec | TrainSpec
    model_loaded: bool
    load_bytes: int
    evicted_models: tuple[str, ...]  # unloaded to make room
    queue_position: int
    device: str
    loras: tuple[LoraPlan, ...] = ()
    notes: tuple[str, ...] = ()
