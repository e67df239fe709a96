"""A wish for a training, checked against the limits and made complete. Nothing here touches a device."""

from __future__ import annotations

import math
import secrets
import unicodedata
from collections import Counter
from collections.abc import Iterable
from typing import TypeVar

from craft_protos.config import LimitSettings
from craft_protos.reasons import CraftError, invalid

from craftd.architectures import buckets
from craftd.architectures import training as architectures
from craftd.architectures.training import Defaults
from craftd.datasets.dataset import Dataset, Picture
from craftd.jobs.job import SEED_LIMIT
from craftd.jobs.training.spec import KOHYA, PEFT, SCHEDULES, TrainSpec, TrainWish
from craftd.loras import names
from craftd.models.model import Model

T = TypeVar("T")

_MOST_STEPS = 1_000_000
_LARGEST_RANK = 256
_MOST_PROMPTS = 16
_MOST_SAMPLES = 200
_LONGEST_TRIGGER = 500  # as LoRAs' own
_MOST_CLASS_PICTURES = 1000
_SMALLEST_RESOLUTION = 64


def check(wish: TrainWish, limits: LimitSettings) -> None:
    """What can be said without the model and the pictures. Raises INVALID_FIELD."""
    if wish.resume:
        _check_text("resume", wish.resume, 100)
        return
    names.check(wish.name)
    _check_text("trigger", wish.trigger, _LONGEST_TRIGGER)
    _check_whole(wish, limits)
    _check_numbers(wish)
    _check_samples(wish, limits)
    if wish.format not in ("", PEFT, KOHYA):
        raise invalid("format", f"must be {PEFT} or {KOHYA}, not {wish.format[:32]!r}")
    if wish.learning_rate_schedule not in ("", *SCHEDULES):
        raise invalid(
            "learning_rate_schedule", f"must be one of {', '.join(SCHEDULES)}, not {wish.learning_rate_schedule[:32]!r}"
        )
    if bool(wish.class_prompt.strip()) != bool(wish.class_pictures):
        field = "class_pictures" if wish.class_prompt else "class_prompt"
        raise invalid(field, "is missing", "a class has a prompt and a number of pictures")
    _check_text("class_prompt", wish.class_prompt, limits.max_prompt_chars)


def defaults_for(model: Model) -> Defaults:
    """Raises UNTRAINABLE_MODEL."""
    found = architectures.of(model.name, model.family, model.defaults.width)
    if found is None:
        raise CraftError(
            "UNTRAINABLE_MODEL",
            f"model {model.name}: craft trains no LoRAs for {model.pipeline or model.family}",
            "take a model of Stable Diffusion 1.x or 2.x, SDXL, SD3 or FLUX.1, or pocket: craft models list",
            field="model",
        )
    return found


def resolve(wish: TrainWish, model: Model, dataset: Dataset) -> TrainSpec:
    """The spec of a checked wish. Raises INVALID_FIELD, UNTRAINABLE_MODEL."""
    usual = defaults_for(model)
    if dataset.uncaptioned and not wish.trigger.strip():
        raise invalid(
            "trigger",
            f"is missing, and {dataset.uncaptioned} of {len(dataset.pictures)} pictures have no caption",
            "give --trigger 'a few words', or write captions: it.txt beside it.png",
        )
    resolution = _or(wish.resolution, usual.resolution)
    if resolution % model.granularity:
        near = max(_SMALLEST_RESOLUTION, round(resolution / model.granularity) * model.granularity)
        raise invalid("resolution", f"must be a multiple of {model.granularity}, not {resolution}", f"take {near}")
    batch, accumulation = (
        _or(wish.batch_size, usual.batch_size),
        _or(wish.gradient_accumulation, usual.gradient_accumulation),
    )
    an_epoch = epoch_steps(dataset.pictures, resolution, model.granularity, batch, accumulation)
    steps = _steps(wish, usual, an_epoch)
    rank = _or(wish.rank, usual.rank)
    warmup = min(usual.warmup_steps, steps // 10) if wish.warmup_steps is None else wish.warmup_steps
    if warmup > steps:
        raise invalid("warmup_steps", f"must be at most the {steps} steps, not {warmup}")
    if wish.sample_every > steps:
        raise invalid("sample_every", f"must be at most the {steps} steps, not {wish.sample_every}")
    _check_sample_count(wish, steps)
    return TrainSpec(
        name=wish.name,
        model=model.name,
        dataset=dataset.id,
        trigger=wish.trigger.strip(),
        rank=rank,
        alpha=_or(wish.alpha, float(rank)),
        steps=steps,
        epochs=max(1, math.ceil(steps / an_epoch)),
        learning_rate=_or(wish.learning_rate, usual.learning_rate),
        batch_size=batch,
        gradient_accumulation=accumulation,
        resolution=resolution,
        train_text_encoder=wish.train_text_encoder,
        dora=wish.dora,
        sample_prompts=wish.sample_prompts,
        sample_every=wish.sample_every,
        seed=secrets.randbelow(SEED_LIMIT) if wish.seed is None else wish.seed,
        flip=wish.flip,
        min_snr_gamma=_or(wish.min_snr_gamma, usual.min_snr_gamma),
        ema_decay=_or(wish.ema_decay, usual.ema_decay),
        gradient_checkpointing=_or(wish.gradient_checkpointing, usual.gradient_checkpointing),
        format=wish.format or PEFT,
        when_idle=wish.when_idle,
        checkpoint_every=min(wish.checkpoint_every or min(usual.checkpoint_every, math.ceil(steps / 2)), steps),
        class_prompt=wish.class_prompt.strip(),
        class_pictures=wish.class_pictures,
        prior_weight=_or(wish.prior_weight, usual.prior_weight),
        learning_rate_schedule=wish.learning_rate_schedule or usual.learning_rate_schedule,
        warmup_steps=warmup,
        caption_dropout=_or(wish.caption_dropout, usual.caption_dropout),
    )


def notes(spec: TrainSpec, model: Model, dataset: Dataset) -> tuple[str, ...]:
    """What the user should know before."""
    sizes = _sizes(dataset.pictures, spec.resolution, model.granularity)
    shapes = ", ".join(f"{count} of {width}x{height}" for (width, height), count in sizes.most_common())
    seen = spec.steps * spec.batch_size * spec.gradient_accumulation
    said = [
        f"{len(dataset.pictures)} pictures, trained at: {shapes}",
        f"{spec.steps} steps are {spec.epochs} epochs: each picture is seen about {seen / len(dataset.pictures):.0f}"
        " times",
        _checkpoints(spec),
    ]
    small = [one.file_name for one in dataset.pictures if one.width * one.height < spec.resolution**2 // 2]
    if small:
        more = ", ..." if len(small) > 3 else ""
        said.append(f"{len(small)} pictures are smaller than that and will be enlarged: {', '.join(small[:3])}{more}")
    if dataset.uncaptioned:
        said.append(f"{dataset.uncaptioned} pictures have no caption: theirs is the trigger")
    if spec.class_pictures:
        said.append(f"{spec.class_pictures} pictures of {spec.class_prompt!r} are drawn first")
    said += [f"left out: {one.file_name} {one.why}" for one in dataset.left_out]
    return tuple(said)


def _checkpoints(spec: TrainSpec) -> str:
    """None is written at the end: there is the LoRA."""
    if spec.checkpoint_every < spec.steps:
        return f"a checkpoint every {spec.checkpoint_every} steps"
    return "no checkpoint on the way: after a crash it begins anew"


def epoch_steps(pictures: Iterable[Picture], resolution: int, unit: int, batch_size: int, accumulation: int) -> int:
    """Optimizer steps in which every picture is seen once; no batch has pictures of two sizes."""
    batches = sum(math.ceil(count / batch_size) for count in _sizes(pictures, resolution, unit).values())
    return max(1, math.ceil(batches / accumulation))


def _sizes(pictures: Iterable[Picture], resolution: int, unit: int) -> Counter[tuple[int, int]]:
    return Counter(buckets.bucket(one.width, one.height, resolution, unit) for one in pictures)


def _steps(wish: TrainWish, usual: Defaults, an_epoch: int) -> int:
    if wish.steps is not None:
        return wish.steps
    steps = usual.steps if wish.epochs is None else wish.epochs * an_epoch
    if steps > _MOST_STEPS:
        raise invalid("epochs", f"make {steps} steps; the limit is {_MOST_STEPS}", "take fewer")
    return steps


def _check_whole(wish: TrainWish, limits: LimitSettings) -> None:
    for field, value, least, most in (
        ("rank", wish.rank, 1, _LARGEST_RANK),
        ("steps", wish.steps, 1, _MOST_STEPS),
        ("epochs", wish.epochs, 1, _MOST_STEPS),
        ("batch_size", wish.batch_size, 1, 256),
        ("gradient_accumulation", wish.gradient_accumulation, 1, 1024),
        ("resolution", wish.resolution, _SMALLEST_RESOLUTION, limits.max_side),
        ("sample_every", wish.sample_every, 0, _MOST_STEPS),
        ("checkpoint_every", wish.checkpoint_every, 0, _MOST_STEPS),
        ("class_pictures", wish.class_pictures, 0, _MOST_CLASS_PICTURES),
        ("warmup_steps", wish.warmup_steps, 0, _MOST_STEPS),
        ("seed", wish.seed, 0, SEED_LIMIT - 1),
    ):
        if value is not None and not least <= value <= most:
            raise invalid(field, f"must be from {least} to {most}, not {value}")


def _check_numbers(wish: TrainWish) -> None:
    for field, value, least, most in (
        ("alpha", wish.alpha, 1e-3, 10_000.0),
        ("learning_rate", wish.learning_rate, 1e-9, 1.0),
        ("min_snr_gamma", wish.min_snr_gamma, 0.0, 1000.0),
        ("ema_decay", wish.ema_decay, 0.0, 0.999999),
        ("prior_weight", wish.prior_weight, 0.0, 100.0),
        ("caption_dropout", wish.caption_dropout, 0.0, 1.0),
    ):
        if value is not None and not least <= value <= most:  # and so nothing that is no number
            raise invalid(field, f"must be from {least:g} to {most:g}, not {value:g}")


def _check_samples(wish: TrainWish, limits: LimitSettings) -> None:
    if len(wish.sample_prompts) > _MOST_PROMPTS:
        raise invalid("sample_prompts", f"are {len(wish.sample_prompts)}; the limit is {_MOST_PROMPTS}", "take fewer")
    for prompt in wish.sample_prompts:
        if not prompt.strip():
            raise invalid("sample_prompts", "one is empty", "say what to draw")
        _check_text("sample_prompts", prompt, limits.max_prompt_chars)


def _check_sample_count(wish: TrainWish, steps: int) -> None:
    """All of them are kept, and drawing them takes its time."""
    prompts = len(wish.sample_prompts)
    count = prompts * math.ceil(steps / wish.sample_every) if wish.sample_every else prompts
    if count > _MOST_SAMPLES:
        fitting = math.ceil(steps / (_MOST_SAMPLES // prompts))
        raise invalid("sample_every", f"makes {count} samples; the limit is {_MOST_SAMPLES}", f"take {fitting}")


def _check_text(field: str, text: str, longest: int) -> None:
    if len(text) > longest:
        raise invalid(field, f"has {len(text)} characters; the limit is {longest}", "shorten it")
    if any(unicodedata.category(character) in ("Cc", "Cs") for character in text):
        raise invalid(field, "has a control character", "remove it")


def _or(given: T | None, usual: T) -> T:
    return usual if given is None else given
