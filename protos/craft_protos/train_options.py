"""The options of a training that are the same asked for and resolved, each declared once.

Its name and type are training.proto's; a request, a spec and `craft lora train` have it from here: what it is when
nothing is said, what it must be, its flag and what the flag's help says.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import Field, field, fields
from typing import Any, TypeVar

from craft_protos.frozen import dataclass
from craft_protos.reasons import invalid
from craft_protos.rules import Choice, Length, Range, Rule

T = TypeVar("T")

ADAMW, PRODIGY, SCHEDULE_FREE, CAME = "adamw", "prodigy", "schedule-free", "came"
_BETAS = ("betas", "eps", "weight_decay")
# The optimizers -> those arguments of their libraries' classes that --optimizer-arg may set.
OPTIMIZERS: dict[str, tuple[str, ...]] = {
    ADAMW: _BETAS,
    "adamw8bit": _BETAS,
    PRODIGY: (*_BETAS, "beta3", "d0", "d_coef", "growth_rate", "use_bias_correction", "safeguard_warmup", "decouple"),
    "adafactor": ("clip_threshold", "decay_rate", "beta1", "weight_decay", "scale_parameter"),
    "lion": ("betas", "weight_decay"),
    SCHEDULE_FREE: (*_BETAS, "r", "weight_lr_power"),
    CAME: ("betas", "clip_threshold", "weight_decay"),
}
_LONGEST_ARGUMENT = 100
LOGIT_NORMAL, UNIFORM, MODE = "logit-normal", "uniform", "mode"
CENTER, RANDOM = "center", "random"
LORA, LOHA, LOKR = "lora", "loha", "lokr"
LARGEST_RANK = 256
_BLOCK_RANK = re.compile(r"([A-Za-z0-9_.]{1,200})=(\d{1,3})")

Value = bool | float | tuple[float, ...]


def _option(default: T, rule: Rule | None, flag: str, told: str, metavar: str = "") -> T:
    made: T = field(default=default, metadata={"rule": rule, "flag": flag, "help": told, "metavar": metavar})
    return made


@dataclass(frozen=True, kw_only=True)
class TrainOptions:
    """What a request and a spec share."""

    optimizer: str = _option(ADAMW, Choice(tuple(OPTIMIZERS)), "--optimizer", f"{', '.join(OPTIMIZERS)}.")
    optimizer_args: tuple[str, ...] = _option(
        (), Length(16), "--optimizer-arg", "Such as weight_decay=0.1 or betas=0.9,0.99; may be repeated.", "NAME=VALUE"
    )
    schedule_restarts: int = _option(
        1, Range(1, 1000), "--restarts", "How often --schedule cosine_with_restarts begins anew."
    )
    schedule_power: float = _option(1.0, Range(0.01, 100), "--power", "Of --schedule polynomial; 1 is a line.")
    text_encoder_rate: float = _option(0.0, Range(0, 1), "--te-lr", "The text encoder's learning rate; 0: --lr.")
    noise_offset: float = _option(
        0.0, Range(0, 1), "--noise-offset", "Noise that a whole channel shares, for dark and bright pictures: 0.05."
    )
    multires_noise: int = _option(
        0, Range(0, 16), "--multires-noise", "Noise of so many coarser resolutions too: 6; 0: not."
    )
    multires_discount: float = _option(
        0.3, Range(0, 1), "--multires-discount", "How much less each coarser noise counts than the one before."
    )
    debiased: bool = _option(False, None, "--debiased", "Debiased estimation: weigh steps by 1 / sqrt(SNR).")
    timestep_sampling: str = _option(
        "",
        Choice(("", LOGIT_NORMAL, UNIFORM, MODE)),
        "--timestep-sampling",
        "Of flow matching: logit-normal, uniform, mode; logit-normal if not given.",
    )
    timestep_shift: float = _option(
        0.0, Range(0, 100), "--timestep-shift", "Of flow matching: in place of the model's own shift; 0: that."
    )
    logit_mean: float = _option(0.0, Range(-10, 10), "--logit-mean", "Of logit-normal; above 0: less noise.")
    logit_std: float = _option(1.0, Range(0.01, 10), "--logit-std", "Of logit-normal: how far it spreads.")
    shuffle_tags: bool = _option(
        False, None, "--shuffle-tags", "Captions' tags, commas between, in another order each time."
    )
    keep_tags: int = _option(0, Range(0, 255), "--keep-tags", "The first tags that are neither shuffled nor dropped.")
    tag_dropout: float = _option(0.0, Range(0, 1), "--tag-dropout", "Part of the tags that is left out each time.")

    caption_wildcards: bool = _option(
        False, None, "--caption-wildcards", "Of {a|b} in a caption one is taken, another each time; {{ is a brace."
    )
    crop: str = _option(CENTER, Choice((CENTER, RANDOM)), "--crop", "Where pictures are cut: center, random.")
    color_jitter: float = _option(
        0.0, Range(0, 0.5), "--color-jitter", "Brightness, contrast, saturation vary by up to so much: 0.1."
    )
    alpha_mask: bool = _option(
        False, None, "--alpha-mask", "What is transparent in a picture counts nothing; others' masks are files."
    )

    network: str = _option(LORA, Choice((LORA, LOHA, LOKR)), "--network", "What is learned: lora, loha, lokr.")
    lokr_factor: int = _option(
        0, Range(0, 1024), "--lokr-factor", "Of lokr: how large its first factor is; 0: near to square."
    )
    conv_rank: int = _option(0, Range(0, LARGEST_RANK), "--conv-rank", "Train a UNet's convolutions too, at this rank.")
    block_ranks: tuple[str, ...] = _option(
        (),
        Length(200),
        "--block-rank",
        "Another rank for layers of that beginning, such as down_blocks.0=4; 0: none.",
        "BLOCK=RANK",
    )

    validation: float = _option(
        0.0,
        Range(0, 1000),
        "--validation",
        "Pictures that are not learned from: 0.1 is a part of them, 4 their number.",
    )
    validate_every: int = _option(
        0,
        Range(0, 1_000_000),
        "--validate-every",
        "Steps until their loss is taken again; ten times if not given.",
        "STEPS",
    )

    @property
    def ranks_of_blocks(self) -> dict[str, int]:
        """The beginnings of layers' names -> their rank."""
        return dict(map(_block_rank, self.block_ranks))

    @property
    def arguments(self) -> dict[str, Value]:
        """The optimizer's, by name."""
        return dict(_argument(one, self.optimizer) for one in self.optimizer_args)

    @property
    def varies_captions(self) -> bool:
        return self.shuffle_tags or self.tag_dropout > 0 or self.caption_wildcards

    @property
    def varies_pictures(self) -> bool:
        """Whether a picture is another each time, so that it is encoded at every step."""
        return self.crop == RANDOM or self.color_jitter > 0

    @property
    def chosen(self) -> dict[str, Any]:
        """The options that are not what they are when nothing is said."""
        return {one.name: getattr(self, one.name) for one in options() if getattr(self, one.name) != one.default}


def options() -> tuple[Field[Any], ...]:
    return fields(TrainOptions)


def shared(told: TrainOptions) -> dict[str, Any]:
    """The options of a request or a spec, by name."""
    return {one.name: getattr(told, one.name) for one in options()}


def check(asked: TrainOptions) -> None:
    """Raises INVALID_FIELD."""
    for one in options():
        rule, value = one.metadata["rule"], getattr(asked, one.name)
        if rule is not None and (complaint := rule.complaint(value)):
            raise invalid(one.name, complaint)
    for name, why, hint in _clashes(asked):
        raise invalid(name, why, hint)
    _ = asked.arguments, asked.ranks_of_blocks


def _clashes(asked: TrainOptions) -> Iterator[tuple[str, str, str]]:
    """What was asked for and would do nothing."""
    if asked.timestep_sampling in (UNIFORM, MODE) and (asked.logit_mean, asked.logit_std) != (0.0, 1.0):
        yield "timestep_sampling", f"{asked.timestep_sampling} has no mean and no std", "take logit-normal"
    if asked.keep_tags and not (asked.shuffle_tags or asked.tag_dropout):
        yield "keep_tags", "is asked for, and no tag is shuffled or dropped", "give --shuffle-tags too"
    if asked.validate_every and not asked.validation:
        yield "validate_every", "is asked for, and no picture is kept for it", "give --validation 0.1, say"
    if asked.validation > 1 and not asked.validation.is_integer():
        yield "validation", f"{asked.validation:g} is neither a part nor a number of pictures", "take 0.1 or 4, say"
    if asked.lokr_factor and asked.network != LOKR:
        yield "lokr_factor", f"means nothing to {asked.network}", "give --network lokr"
    if asked.optimizer == PRODIGY and asked.text_encoder_rate:
        yield "text_encoder_rate", "does not go with prodigy, which finds one rate for all", "leave it out"


def _block_rank(told: str) -> tuple[str, int]:
    found = _BLOCK_RANK.fullmatch(told)
    if found is None or int(found[2]) > LARGEST_RANK:
        hint = f"such as down_blocks.0=4; ranks go from 0 to {LARGEST_RANK}"
        raise invalid("block_ranks", f"{told[:60]!r} is no block and its rank", hint)
    return found[1].rstrip("."), int(found[2])


def _argument(told: str, optimizer: str) -> tuple[str, Value]:
    name, has_value, value = told.partition("=")
    name = name.strip()
    allowed = OPTIMIZERS.get(optimizer, ())
    if name not in allowed:
        raise invalid("optimizer_args", f"{optimizer} has no argument {name[:40]!r}", f"it takes {', '.join(allowed)}")
    if not has_value or len(told) > _LONGEST_ARGUMENT:
        raise invalid("optimizer_args", f"{name} has no value", f"such as {name}=0.1")
    number = _value(name, value.strip())
    if name == "betas":
        _check_betas(number, 3 if optimizer == CAME else 2)
    return name, number


def _check_betas(betas: Value, count: int) -> None:
    is_right = isinstance(betas, tuple) and len(betas) == count and all(0 <= one < 1 for one in betas)
    if not is_right:
        example = ",".join(("0.9", "0.999", "0.9999")[:count])
        raise invalid("optimizer_args", f"betas must be {count} numbers from 0 to below 1", f"such as betas={example}")


def _value(name: str, text: str) -> Value:
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    numbers = _numbers(text)
    if not numbers or not all(map(math.isfinite, numbers)):
        raise invalid("optimizer_args", f"{name}: {text[:40]!r} is no number", f"such as {name}=0.1 or {name}=true")
    first, *rest = numbers
    return numbers if rest or "," in text else first


def _numbers(text: str) -> tuple[float, ...]:
    """Those of a list with commas; none where one of them is no number."""
    try:
        return tuple(float(part) for part in re.sub(r"[()\s]", "", text).split(",") if part)
    except ValueError:
        return ()
