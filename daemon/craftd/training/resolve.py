"""A request for a training, checked against the limits and made complete. Nothing here touches a device."""

from __future__ import annotations

import math
import secrets
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any, TypeVar

from craft_protos import rungs, train_options, train_samples
from craft_protos.generate import SEED_LIMIT
from craft_protos.reasons import CraftError, invalid
from craft_protos.settings import LimitSettings
from craft_protos.train import (
    KOHYA,
    PEFT,
    POLYNOMIAL,
    RESTARTS,
    SCHEDULES,
    Picture,
    TrainRequest,
    TrainSpec,
    held_out,
)

from craftd.architectures import buckets, registry
from craftd.architectures.architecture import Training
from craftd.datasets.dataset import FEWEST, Dataset, in_order
from craftd.loras import names
from craftd.loras.lora import Lora
from craftd.models.model import Model
from craftd.offload import Need
from craftd.training import networks

T = TypeVar("T")

_MOST_STEPS = 1_000_000
_MOST_PROMPTS = 16
_MOST_SAMPLES = 200
_LONGEST_TRIGGER = 500  # as LoRAs' own
_MOST_CLASS_PICTURES = 1000
_SMALLEST_RESOLUTION = 64
_POLYNOMIALS_LAST_RATE = 1e-7  # diffusers'


def check(asked: TrainRequest, limits: LimitSettings) -> None:
    """What can be said without the model and the pictures. Raises INVALID_FIELD."""
    if asked.resume:
        _check_text("resume", asked.resume, 100)
        return
    names.check(asked.name)
    _check_text("trigger", asked.trigger, _LONGEST_TRIGGER)
    _check_whole(asked, limits)
    _check_numbers(asked)
    train_options.check(asked)
    _check_samples(asked, limits)
    if asked.format not in ("", PEFT, KOHYA):
        raise invalid("format", f"must be {PEFT} or {KOHYA}, not {asked.format[:32]!r}")
    schedule = asked.learning_rate_schedule
    if schedule not in ("", *SCHEDULES):
        raise invalid("learning_rate_schedule", f"must be one of {', '.join(SCHEDULES)}, not {schedule[:32]!r}")
    if bool(asked.class_prompt.strip()) != bool(asked.class_pictures):
        field = "class_pictures" if asked.class_prompt else "class_prompt"
        raise invalid(field, "is missing", "a class has a prompt and a number of pictures")
    _check_text("class_prompt", asked.class_prompt, limits.max_prompt_chars)


def defaults_for(model: Model) -> Training:
    """Raises UNTRAINABLE_MODEL."""
    usual = model.architecture.training
    if usual is None:
        raise CraftError(
            "UNTRAINABLE_MODEL",
            f"model {model.name}: craft trains no LoRAs for {model.pipeline or model.architecture.family}",
            f"take a model of {', '.join(row.name for row in registry.ROWS if row.training)}: craft models list",
            field="model",
        )
    return replace(usual, resolution=min(usual.resolution, model.defaults.width))


def resolve(
    asked: TrainRequest, model: Model, dataset: Dataset, limits: LimitSettings, base: Lora | None = None
) -> TrainSpec:
    """The spec of a checked request; `base`: what it begins with. Raises INVALID_FIELD, UNTRAINABLE_MODEL."""
    usual = defaults_for(model)
    _check_words(asked, usual, model, dataset)
    networks.check(asked, model, base)
    resolution = _or(asked.resolution, usual.resolution)
    _check_resolution(resolution, model, limits)
    batch, accumulation = (
        _or(asked.batch_size, usual.batch_size),
        _or(asked.gradient_accumulation, usual.gradient_accumulation),
    )
    seed = secrets.randbelow(SEED_LIMIT) if asked.seed is None else asked.seed
    learned = _learned(asked, seed, dataset)
    an_epoch = epoch_steps(learned, resolution, model.sizes.granularity, batch, accumulation)
    steps = _steps(asked, usual, an_epoch)
    rank = _or(asked.rank, usual.rank) if base is None else base.findings.rank
    warmup = min(usual.warmup_steps, steps // 10) if asked.warmup_steps is None else asked.warmup_steps
    if warmup > steps:
        raise invalid("warmup_steps", f"must be at most the {steps} steps, not {warmup}")
    if asked.sample_every > steps:
        raise invalid("sample_every", f"must be at most the {steps} steps, not {asked.sample_every}")
    _check_sample_count(asked, steps)
    schedule, rate = _schedule(asked, usual), _or(asked.learning_rate, _usual_rate(asked, usual))
    _check_rates(asked, schedule, rate)
    return TrainSpec(
        name=asked.name,
        model=model.name,
        dataset=dataset.id,
        trigger=asked.trigger.strip(),
        rank=rank,
        alpha=_or(asked.alpha, float(rank)),
        steps=steps,
        epochs=max(1, math.ceil(steps / an_epoch)),
        learning_rate=rate,
        batch_size=batch,
        gradient_accumulation=accumulation,
        resolution=resolution,
        train_text_encoder=asked.train_text_encoder,
        dora=asked.dora,
        sample_prompts=asked.sample_prompts,
        sample_every=asked.sample_every,
        seed=seed,
        flip=asked.flip,
        min_snr_gamma=_or(asked.min_snr_gamma, 0.0 if asked.debiased else usual.min_snr_gamma),
        ema_decay=_or(asked.ema_decay, usual.ema_decay),
        gradient_checkpointing=_or(asked.gradient_checkpointing, usual.gradient_checkpointing),
        format=asked.format or (PEFT if asked.network == train_options.LORA else KOHYA),
        when_idle=asked.when_idle,
        checkpoint_every=min(asked.checkpoint_every or min(usual.checkpoint_every, math.ceil(steps / 2)), steps),
        class_prompt=asked.class_prompt.strip(),
        class_pictures=asked.class_pictures,
        prior_weight=_or(asked.prior_weight, usual.prior_weight),
        learning_rate_schedule=schedule,
        warmup_steps=warmup,
        caption_dropout=_or(asked.caption_dropout, usual.caption_dropout),
        base_lora="" if base is None else base.id,
        base_lora_sha256="" if base is None else base.sha256,
        **_shared(asked, steps),
    )


def _shared(asked: TrainRequest, steps: int) -> dict[str, Any]:
    """The options that are the same in a spec."""
    return train_options.shared(asked) | {"validate_every": _validate_every(asked, steps)}


def _learned(asked: TrainRequest, seed: int, dataset: Dataset) -> list[Picture]:
    """Those that are not kept for validation. Raises INVALID_FIELD."""
    ordered = in_order(dataset.pictures)
    kept = held_out(asked.validation, seed, len(ordered))
    if kept and len(ordered) - len(kept) < FEWEST:
        why = f"keeps {len(kept)} of {len(ordered)} pictures, and {FEWEST} must be learned from"
        raise invalid("validation", why, "keep fewer, or send more")
    return [one for i, one in enumerate(ordered) if i not in kept]


def _validate_every(asked: TrainRequest, steps: int) -> int:
    if asked.validate_every > steps:
        raise invalid("validate_every", f"must be at most the {steps} steps, not {asked.validate_every}")
    return (asked.validate_every or math.ceil(steps / 10)) if asked.validation else 0


def _check_words(asked: TrainRequest, usual: Training, model: Model, dataset: Dataset) -> None:
    """Raises INVALID_FIELD where pictures have no words, or what reads the words cannot be trained."""
    if dataset.uncaptioned and not asked.trigger.strip():
        raise invalid(
            "trigger",
            f"is missing, and {dataset.uncaptioned} of {len(dataset.pictures)} pictures have no caption",
            "give --trigger 'a few words', or write captions: it.txt beside it.png",
        )
    if asked.train_text_encoder and not usual.text_encoders:
        why = f"a text encoder of {model.architecture.name} is a language model, which craft does not train"
        raise invalid("train_text_encoder", why, "leave --te out")


def stays(need: Need | None) -> bool:
    """Says whether what denoises is on the device all the time, as a training needs it; True where nothing is known."""
    return need is None or need.rung in (rungs.NONE, rungs.ENCODERS)


def too_big(model: Model, need: Need | None, fitting: Sequence[str]) -> CraftError:
    """OUT_OF_MEMORY, of a model that does not stay there. `fitting`: trainable models that do."""
    room = f" of {need.device_bytes / 1e9:.1f} GB" if need else ""
    message = f"model {model.name} is too big to stay on the device{room}, so it cannot be trained there"
    which = f": {', '.join(fitting[:3])}" if fitting else "; of those that are here none does: craft models search"
    return CraftError("OUT_OF_MEMORY", message, f"train for a model that fits{which}", field="model")


def notes(spec: TrainSpec, model: Model, dataset: Dataset) -> tuple[str, ...]:
    """What the user should know before."""
    sizes = _sizes(dataset.pictures, spec.resolution, model.sizes.granularity)
    shapes = ", ".join(f"{count} of {width}x{height}" for (width, height), count in sizes.most_common())
    said = [
        f"{len(dataset.pictures)} pictures{_repeated(dataset)}, trained at: {shapes}",
        _seen(
            spec, epoch_steps(_to_learn(spec, dataset), spec.resolution, model.sizes.granularity, spec.batch_size, 1)
        ),
        _checkpoints(spec),
    ]
    small = [one.file_name for one in dataset.pictures if one.width * one.height < spec.resolution**2 // 2]
    if small:
        more = ", ..." if len(small) > 3 else ""
        said.append(f"{len(small)} pictures are smaller than that and will be enlarged: {', '.join(small[:3])}{more}")
    if dataset.uncaptioned:
        said.append(f"{dataset.uncaptioned} pictures have no caption: theirs is the trigger")
    if masked := sum(bool(one.mask_sha256) for one in dataset.pictures):
        said.append(f"{masked} pictures have masks: what is black in them does not count")
    if spec.varies_pictures:
        said.append("each picture is cut or coloured anew each time, and so encoded at every step: slower")
    if kept := len(spec.held_out(len(dataset.pictures))):
        said.append(f"{kept} of them are not learned from: their loss is taken every {spec.validate_every} steps")
    said += train_samples.ignored(spec.sample_prompts)
    if spec.base_lora:
        said.append(f"it begins with LoRA {spec.base_lora}, and has its layers and its rank")
    if spec.class_pictures:
        said.append(f"{spec.class_pictures} pictures of {spec.class_prompt!r} are drawn first")
    said += [f"left out: {one.file_name} {one.why}" for one in dataset.left_out]
    return tuple(said)


def _to_learn(spec: TrainSpec, dataset: Dataset) -> list[Picture]:
    kept = spec.held_out(len(dataset.pictures))
    return [one for i, one in enumerate(in_order(dataset.pictures)) if i not in kept]


def _repeated(dataset: Dataset) -> str:
    shown = sum(one.repeats for one in dataset.pictures)
    return f" ({shown} with repeats)" if shown != len(dataset.pictures) else ""


def _checkpoints(spec: TrainSpec) -> str:
    """None is written at the end: there is the LoRA."""
    if spec.checkpoint_every < spec.steps:
        return f"a checkpoint every {spec.checkpoint_every} steps"
    return "no checkpoint on the way: after a crash it begins anew"


def _seen(spec: TrainSpec, batches: int) -> str:
    """How often each picture is seen; `batches`: in which each is once, of which those of rare sizes are not full."""
    at_once = spec.batch_size * spec.gradient_accumulation
    of_how_many = f"of up to {at_once} pictures" if at_once > 1 else "of a picture each"
    times = max(1, round(spec.steps * spec.gradient_accumulation / batches))
    return f"{spec.steps} steps {of_how_many}: each picture is seen {f'about {times} times' if times > 1 else 'once'}"


def epoch_steps(pictures: Iterable[Picture], resolution: int, unit: int, batch_size: int, accumulation: int) -> int:
    """Optimizer steps in which every picture is seen once; no batch has pictures of two sizes."""
    batches = sum(math.ceil(count / batch_size) for count in _sizes(pictures, resolution, unit).values())
    return max(1, math.ceil(batches / accumulation))


def _sizes(pictures: Iterable[Picture], resolution: int, unit: int) -> Counter[tuple[int, int]]:
    counted = Counter[tuple[int, int]]()
    for one in pictures:
        counted[buckets.bucket(one.width, one.height, resolution, unit)] += one.repeats
    return counted


def _schedule(asked: TrainRequest, usual: Training) -> str:
    """Schedule-free AdamW is made to do without one."""
    flat = asked.optimizer == train_options.SCHEDULE_FREE
    return asked.learning_rate_schedule or ("constant" if flat else usual.learning_rate_schedule)


def _usual_rate(asked: TrainRequest, usual: Training) -> float:
    """Prodigy multiplies it with the rate that it finds."""
    return 1.0 if asked.optimizer == train_options.PRODIGY else usual.learning_rate


def _check_rates(asked: TrainRequest, schedule: str, rate: float) -> None:
    if asked.schedule_restarts != 1 and schedule != RESTARTS:
        raise invalid("schedule_restarts", f"means nothing to the schedule {schedule}", f"give --schedule {RESTARTS}")
    if asked.schedule_power != 1 and schedule != POLYNOMIAL:
        raise invalid("schedule_power", f"means nothing to the schedule {schedule}", f"give --schedule {POLYNOMIAL}")
    if schedule == POLYNOMIAL and rate <= _POLYNOMIALS_LAST_RATE:
        raise invalid("learning_rate", f"must be above {_POLYNOMIALS_LAST_RATE}, where a polynomial schedule ends")
    if asked.text_encoder_rate and not asked.train_text_encoder:
        raise invalid("text_encoder_rate", "is asked for, and the text encoder is not trained", "give --te too")
    if asked.optimizer == train_options.SCHEDULE_FREE and asked.ema_decay:
        raise invalid("ema_decay", "does not go with schedule-free, which averages by itself", "leave it out")
    if asked.debiased and asked.min_snr_gamma:
        raise invalid("debiased", "does not go with --min-snr: both weigh steps by their noise", "give one of them")


def _steps(asked: TrainRequest, usual: Training, an_epoch: int) -> int:
    if asked.steps is not None:
        return asked.steps
    steps = usual.steps if asked.epochs is None else asked.epochs * an_epoch
    if steps > _MOST_STEPS:
        raise invalid("epochs", f"make {steps} steps; the limit is {_MOST_STEPS}", "take fewer")
    return steps


def _check_whole(asked: TrainRequest, limits: LimitSettings) -> None:
    for field, value, least, most in (
        ("rank", asked.rank, 1, train_options.LARGEST_RANK),
        ("steps", asked.steps, 1, _MOST_STEPS),
        ("epochs", asked.epochs, 1, _MOST_STEPS),
        ("batch_size", asked.batch_size, 1, 256),
        ("gradient_accumulation", asked.gradient_accumulation, 1, 1024),
        ("resolution", asked.resolution, _SMALLEST_RESOLUTION, limits.max_side),
        ("sample_every", asked.sample_every, 0, _MOST_STEPS),
        ("checkpoint_every", asked.checkpoint_every, 0, _MOST_STEPS),
        ("class_pictures", asked.class_pictures, 0, _MOST_CLASS_PICTURES),
        ("warmup_steps", asked.warmup_steps, 0, _MOST_STEPS),
        ("seed", asked.seed, 0, SEED_LIMIT - 1),
    ):
        if value is not None and not least <= value <= most:
            raise invalid(field, f"must be from {least} to {most}, not {value}")


def _check_resolution(resolution: int, model: Model, limits: LimitSettings) -> None:
    """Pictures are trained at sizes of the resolution's area, the longest of which the model must be able to draw."""
    unit, most = model.sizes.granularity, _largest_resolution(model, limits)
    near = min(max(round(resolution / unit), math.ceil(_SMALLEST_RESOLUTION / unit)) * unit, most)
    if resolution % unit:
        complaint = f"must be a multiple of {unit} for the model {model.name}, not {resolution}"
        raise invalid("resolution", complaint, f"take {near}")
    if resolution > most:
        complaint = f"must be at most {most} for the model {model.name}, not {resolution}"
        raise invalid("resolution", f"{complaint}: its longer pictures would be too long", f"take {near}")


def _largest_resolution(model: Model, limits: LimitSettings) -> int:
    unit, longest = model.sizes.granularity, min(model.sizes.largest_side, limits.max_side)
    found = longest // unit
    while found > 1 and max(map(max, buckets.sizes(found * unit, unit))) > model.sizes.largest_side:
        found -= 1
    return found * unit


def _check_numbers(asked: TrainRequest) -> None:
    for field, value, least, most in (
        ("alpha", asked.alpha, 1e-3, 10_000.0),
        ("learning_rate", asked.learning_rate, 1e-9, 1.0),
        ("min_snr_gamma", asked.min_snr_gamma, 0.0, 1000.0),
        ("ema_decay", asked.ema_decay, 0.0, 0.999999),
        ("prior_weight", asked.prior_weight, 0.0, 100.0),
        ("caption_dropout", asked.caption_dropout, 0.0, 1.0),
    ):
        if value is not None and not least <= value <= most:  # and so nothing that is no number
            raise invalid(field, f"must be from {least:g} to {most:g}, not {value:g}")


def _check_samples(asked: TrainRequest, limits: LimitSettings) -> None:
    if len(asked.sample_prompts) > _MOST_PROMPTS:
        raise invalid("sample_prompts", f"are {len(asked.sample_prompts)}; the limit is {_MOST_PROMPTS}", "take fewer")
    for prompt in asked.sample_prompts:
        if not prompt.strip():
            raise invalid("sample_prompts", "one is empty", "say what to draw")
        _check_text("sample_prompts", prompt, limits.max_prompt_chars)
        sample = train_samples.parse(prompt)
        if max(sample.width or 0, sample.height or 0) > limits.max_side:
            raise invalid("sample_prompts", f"one has a side above {limits.max_side}", "take a smaller one")


def _check_sample_count(asked: TrainRequest, steps: int) -> None:
    """All of them are kept, and drawing them takes its time."""
    prompts = len(asked.sample_prompts)
    count = prompts * math.ceil(steps / asked.sample_every) if asked.sample_every else prompts
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
