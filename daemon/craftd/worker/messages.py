"""What the front asks for, as plain dataclasses; protobuf ends here."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import PurePosixPath

from craft_protos import formats, jobs_pb2
from craft_protos.reasons import CraftError
from craft_protos.worker_pb2 import ModelManifest, ToWorker
from craft_protos.worker_pb2 import Train as TrainFrame

from craftd.worker.training.recipe import PEFT, Recipe, TrainPicture


@dataclass(frozen=True)
class ManifestFile:
    """One file of a model: where it belongs, and its contents' name."""

    path: str
    sha256: str
    size_bytes: int


@dataclass(frozen=True)
class Manifest:
    """A model: a diffusers folder, file by file."""

    name: str
    family: str  # "generic" asks for the generic family; else the pipeline decides
    pipeline: str
    sha256: str
    files: tuple[ManifestFile, ...]

    @property
    def size_bytes(self) -> int:
        return sum(file.size_bytes for file in self.files)

    @property
    def key(self) -> tuple[str, str]:
        """Tells a model from another that had its name before."""
        return (self.name, self.sha256)


@dataclass(frozen=True)
class LoraUse:
    """One LoRA of a job: its file's name in the store, and how strongly it is applied."""

    id: str
    name: str
    sha256: str
    size_bytes: int
    weight: float


@dataclass(frozen=True)
class Draw:
    """Draw the images of one job."""

    job_id: str
    epoch: int
    model: Manifest
    prompt: str
    negative_prompt: str
    width: int
    height: int
    steps: int
    guidance_scale: float
    seed: int
    sampler: str
    format: str  # png, jpeg, webp
    indices: tuple[int, ...]
    deterministic: bool = False
    is_interactive: bool = True
    owner: str = ""
    provenance: str = ""
    preview_every: int = 0
    loras: tuple[LoraUse, ...] = ()
    skips_missing: bool = False  # LoRAs that fit in part are applied in part


@dataclass(frozen=True)
class Cancel:
    """Stop a job before its next step."""

    job_id: str
    epoch: int


@dataclass(frozen=True)
class Load:
    """Have a model ready."""

    model: Manifest


@dataclass(frozen=True)
class Unload:
    """Give a model's memory back, once its rows are done."""

    name: str


@dataclass(frozen=True)
class Preview:
    """Send a preview of a job's images every so many steps; 0: none."""

    job_id: str
    every: int


@dataclass(frozen=True)
class Train:
    """Train a LoRA."""

    job_id: str
    epoch: int
    model: Manifest
    recipe: Recipe
    pictures: tuple[TrainPicture, ...]
    checkpoint_sha256: str = ""  # go on from there
    owner: str = ""
    provenance: str = ""


Request = Draw | Cancel | Load | Unload | Preview | Train


def decode(frame: ToWorker) -> Request:
    """The request in a frame."""
    match frame.WhichOneof("frame"):
        case "submit":
            return _draw(frame.submit)
        case "cancel":
            return Cancel(frame.cancel.job_id, frame.cancel.epoch)
        case "load":
            return Load(_manifest(frame.load.model))
        case "unload":
            return Unload(frame.unload.model)
        case "preview":
            return Preview(frame.preview.job_id, frame.preview.every)
        case "train":
            return _train(frame.train)
        case other:
            raise ValueError(f"a frame of an unknown kind: {other}")


def check_paths(manifest: Manifest) -> None:
    """Refuse a manifest that leads out of its folder. Raises UNSAFE_PATH."""
    for file in manifest.files:
        path = PurePosixPath(file.path)
        bad_name = path.is_absolute() or not path.parts or ".." in path.parts or "\\" in file.path or "\0" in file.path
        if bad_name or not is_sha256(file.sha256):
            raise CraftError(
                "UNSAFE_PATH",
                f"model {manifest.name}: the file {file.path!r} leads out of the model's folder",
                "use a model whose files lie inside its own folder",
            )


def is_sha256(text: str) -> bool:
    """Whether it can name a file of the store."""
    return len(text) == 64 and all(character in "0123456789abcdef" for character in text)


def _manifest(message: ModelManifest) -> Manifest:
    files = tuple(ManifestFile(file.path, file.sha256, file.size_bytes) for file in message.files)
    return Manifest(message.name, message.family, message.pipeline, message.sha256, files)


def _draw(message: ToWorker.Submit) -> Draw:
    spec = message.generate
    return Draw(
        job_id=message.job_id,
        epoch=message.epoch,
        model=_manifest(message.model),
        prompt=spec.prompt,
        negative_prompt=spec.negative_prompt,
        width=spec.width,
        height=spec.height,
        steps=spec.steps,
        guidance_scale=spec.guidance_scale,
        seed=spec.seed,
        sampler=spec.sampler,
        format=formats.name_of(spec.format) or "png",
        indices=tuple(message.indices),
        deterministic=spec.deterministic,
        is_interactive=message.priority != jobs_pb2.PRIORITY_BATCH,
        owner=message.owner,
        provenance=message.provenance,
        preview_every=message.preview_every,
        loras=_loras(message),
        skips_missing=spec.lora_missing == jobs_pb2.LORA_MISSING_SKIP,
    )


def _loras(message: ToWorker.Submit) -> tuple[LoraUse, ...]:
    return tuple(
        LoraUse(file.id, file.name, file.sha256, file.size_bytes, use.weight if use.HasField("weight") else 1.0)
        for file, use in zip(message.loras, message.generate.loras, strict=True)
    )


def _train(message: TrainFrame) -> Train:
    return Train(
        job_id=message.job_id,
        epoch=message.epoch,
        model=_manifest(message.model),
        recipe=_recipe(message),
        pictures=tuple(
            TrainPicture(one.sha256, one.file_name, one.width, one.height, one.caption) for one in message.pictures
        ),
        checkpoint_sha256=message.checkpoint_sha256,
        owner=message.owner,
        provenance=message.provenance,
    )


def _recipe(message: TrainFrame) -> Recipe:
    spec = message.spec
    return Recipe(
        name=spec.name,
        trigger=spec.trigger,
        rank=spec.rank,
        alpha=spec.alpha,
        steps=spec.steps,
        learning_rate=spec.learning_rate,
        batch_size=spec.batch_size,
        gradient_accumulation=max(1, spec.gradient_accumulation),
        resolution=spec.resolution,
        seed=spec.seed,
        train_text_encoder=spec.train_text_encoder,
        dora=spec.dora,
        sample_prompts=tuple(spec.sample_prompts),
        sample_every=spec.sample_every,
        flip=spec.flip,
        min_snr_gamma=spec.min_snr_gamma,
        ema_decay=spec.ema_decay,
        gradient_checkpointing=spec.gradient_checkpointing,
        format=spec.format or PEFT,
        when_idle=spec.when_idle,
        checkpoint_every=spec.checkpoint_every,
        class_prompt=spec.class_prompt,
        class_pictures=spec.class_pictures,
        prior_weight=spec.prior_weight if spec.HasField("prior_weight") else 1.0,
        learning_rate_schedule=spec.learning_rate_schedule or "constant",
        warmup_steps=spec.warmup_steps,
        caption_dropout=spec.caption_dropout,
    )
