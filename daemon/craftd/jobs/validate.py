"""A request, checked against the limits and made complete. Nothing here touches a device."""

from __future__ import annotations

import math
import re
import secrets
import unicodedata

from craft_protos import samplers
from craft_protos.config import GenerateSettings, LimitSettings
from craft_protos.reasons import invalid

from craftd.jobs.job import SEED_LIMIT, GenerateRequest, GenerateSpec, JobRequest
from craftd.models.model import Model

FORMATS = ("png", "jpeg", "webp")
_LARGEST_GUIDANCE = 1000.0


def check(request: JobRequest, limits: LimitSettings) -> None:
    """What can be said without knowing the model. Raises INVALID_FIELD."""
    wanted = request.generate
    if not re.fullmatch(r"[A-Za-z0-9_-]{1,64}", request.request_id):
        raise invalid("request_id", "must be 1 to 64 of A-Z a-z 0-9 _ -", "make a new one for each request, a UUID say")
    if not wanted.prompt.strip():
        raise invalid("prompt", "is empty", "say what to draw")
    _check_text("prompt", wanted.prompt, limits)
    _check_text("negative_prompt", wanted.negative_prompt, limits)
    _check_range("count", wanted.count or 1, 1, limits.max_count)
    _check_numbers(wanted, limits)
    _check_indices(wanted)


def resolve(wanted: GenerateRequest, model: Model, settings: GenerateSettings, limits: LimitSettings) -> GenerateSpec:
    """The spec of a checked request: the model's defaults filled in, the seed drawn."""
    defaults, count = model.defaults, wanted.count or 1
    spec = GenerateSpec(
        prompt=wanted.prompt,
        negative_prompt=wanted.negative_prompt,
        model=model.name,
        width=defaults.width if wanted.width is None else wanted.width,
        height=defaults.height if wanted.height is None else wanted.height,
        steps=defaults.steps if wanted.steps is None else wanted.steps,
        guidance_scale=defaults.guidance_scale if wanted.guidance_scale is None else wanted.guidance_scale,
        seed=secrets.randbelow(SEED_LIMIT - count) if wanted.seed is None else wanted.seed,
        count=count,
        sampler=samplers.canonical(wanted.sampler or settings.sampler or defaults.sampler),
        format=wanted.format or settings.format,
        deterministic=wanted.deterministic,
        indices=tuple(sorted(wanted.indices)),
    )
    _check_sides(spec.width, spec.height, model.granularity, limits)
    return spec


def _check_text(field: str, text: str, limits: LimitSettings) -> None:
    if len(text) > limits.max_prompt_chars:
        raise invalid(field, f"has {len(text)} characters; the limit is {limits.max_prompt_chars}", "shorten it")
    for place, character in enumerate(text):
        if unicodedata.category(character) in ("Cc", "Cs") and character not in "\t\n\r":
            raise invalid(field, f"has a control character (U+{ord(character):04X}) at {place}", "remove it")


def _check_numbers(wanted: GenerateRequest, limits: LimitSettings) -> None:
    guidance = wanted.guidance_scale
    if wanted.steps is not None:
        _check_range("steps", wanted.steps, 1, limits.max_steps)
    if guidance is not None and not (math.isfinite(guidance) and 0 <= guidance <= _LARGEST_GUIDANCE):
        raise invalid("guidance_scale", f"must be a number from 0 to {_LARGEST_GUIDANCE:g}, not {guidance}")
    if wanted.seed is not None and not 0 <= wanted.seed <= SEED_LIMIT - (wanted.count or 1):
        raise invalid("seed", f"must be from 0 to 2^53 less the number of images, not {wanted.seed}")
    if wanted.sampler:
        samplers.canonical(wanted.sampler)
    if wanted.format and wanted.format not in FORMATS:
        raise invalid("format", f"must be one of {', '.join(FORMATS)}, not {wanted.format[:32]!r}")


def _check_indices(wanted: GenerateRequest) -> None:
    count = wanted.count or 1
    if len(set(wanted.indices)) != len(wanted.indices) or any(not 0 <= index < count for index in wanted.indices):
        raise invalid("indices", f"must be different ones from 0 to {count - 1}, the images that `count` names")


def _check_sides(width: int, height: int, granularity: int, limits: LimitSettings) -> None:
    for field, side in (("width", width), ("height", height)):
        _check_range(field, side, granularity, limits.max_side)
        if side % granularity:
            near = max(granularity, round(side / granularity) * granularity)
            raise invalid(field, f"must be a multiple of {granularity}, not {side}", f"take {near}")
    if width * height > limits.max_pixels:
        raise invalid(
            "width", f"{width}x{height} has more than {limits.max_pixels} pixels, the limit", "draw it smaller"
        )


def _check_range(field: str, value: int, least: int, most: int) -> None:
    if not least <= value <= most:
        raise invalid(field, f"must be from {least} to {most}, not {value}")
