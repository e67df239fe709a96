"""What a request says of enlarging, checked and made complete; and the jobs that do nothing else."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields, replace

from craft_protos import codec
from craft_protos.generate import GenerateRequest, GenerateSpec, Hires, Start, Upscale, steps_of
from craft_protos.reasons import CraftError, invalid
from craft_protos.settings import GenerateSettings, LimitSettings

from craftd.architectures.registry import UPSCALER
from craftd.architectures.sizes import Sizes
from craftd.inputs.input import Input
from craftd.models.model import Model
from craftd.models.service import ModelService

_HIRES_SCALE, _HIRES_STRENGTH = 2.0, 0.5
_PICTURES = {"start": "a start picture is", "mask": "a mask is", "references": "reference pictures are"}
_ON_THE_WAY = 4  # times the most pixels of a picture, of what a network makes before it is reduced

# What a job that only enlarges has no use for.
_IDLE = (
    "prompt",
    "negative_prompt",
    "loras",
    "mask",
    "references",
    "controls",
    "hires",
    "refiner",
    "steps",
    "guidance_scale",
)


@dataclass(frozen=True)
class Upscalers:
    """Those that a request goes through, found."""

    upscale: Model | None = None
    hires: Model | None = None


def check(wanted: GenerateRequest, limits: LimitSettings) -> None:
    """What can be said without knowing any model. Raises INVALID_FIELD."""
    for name, one in (("upscale", wanted.upscale), ("hires", wanted.hires)):
        for field in fields(one) if one is not None else ():
            rule, value = codec.rule_of(type(one), field.name), getattr(one, field.name)
            if rule is not None and value is not None and (complaint := rule.complaint(value)):
                raise invalid(f"{name}.{field.name}", complaint)
    if wanted.hires is not None and (wanted.hires.steps or 0) > limits.max_steps:
        raise invalid("hires.steps", f"are {wanted.hires.steps}; the limit is {limits.max_steps}", "take fewer")
    for name, what in _PICTURES.items() if wanted.hires is not None else ():
        if getattr(wanted, name):
            why = f"draws again what was drawn from words; {what} given too"
            raise invalid("hires", why, "leave one of them out; a start picture is drawn larger by width and height")


async def find(wanted: GenerateRequest, models: ModelService) -> Upscalers:
    """Raises UNKNOWN_MODEL, UNSUPPORTED_MODEL, and what is wrong with an upscaler's file."""
    upscale, hires = wanted.upscale, wanted.hires
    return Upscalers(
        None if upscale is None else await _found(models, "upscale.model", upscale.model),
        None if hires is None else await _found(models, "hires.upscaler", hires.upscaler),
    )


def is_alone(wanted: GenerateRequest) -> bool:
    """Says whether nothing is drawn, so that no model but an upscaler is needed."""
    start = wanted.start
    says_nothing = not (wanted.prompt or wanted.model or wanted.mask)
    return says_nothing and wanted.upscale is not None and start is not None and start.strength == 0


def alone(
    wanted: GenerateRequest, start: Input | None, model: Model, settings: GenerateSettings, limits: LimitSettings
) -> GenerateSpec:
    """The job of a picture that is enlarged by an upscaler, its model. Raises INVALID_FIELD."""
    if start is None or wanted.start is None:
        raise invalid("model", f"{model.name} enlarges pictures and draws none", "craft upscale FILE enlarges one")
    _refuse_idle(wanted, model, (start.width, start.height))
    if wanted.upscale is not None and wanted.upscale.model not in ("", model.name):
        raise invalid("upscale.model", f"is {wanted.upscale.model}, and the model {model.name}", "name one of them")
    upscale = _complete(wanted.upscale or Upscale(), model)
    _check_result(upscale, (start.width, start.height), model, limits)
    return GenerateSpec(
        prompt="",
        negative_prompt="",
        model=model.name,
        width=start.width,
        height=start.height,
        steps=UPSCALER.steps,
        guidance_scale=UPSCALER.guidance_scale,
        seed=wanted.seed or 0,
        count=1,
        sampler="",
        format=wanted.format or settings.format,
        deterministic=wanted.deterministic,
        start=Start(wanted.start.sha256, 0.0),
        upscale=upscale,
    )


def completed(
    spec: GenerateSpec,
    wanted: GenerateRequest,
    found: Upscalers,
    model: Model,
    start: Input | None,
    *,
    sizes: Sizes,
    limits: LimitSettings,
) -> GenerateSpec:
    """The spec of a job that draws, with what is asked for besides. Raises INVALID_FIELD."""
    if wanted.hires is not None and found.hires is not None:
        spec = replace(spec, hires=_hires(wanted.hires, spec, found.hires, model, sizes))
        _check_pass((spec.width, spec.height), found.hires, limits, "hires")
    if wanted.upscale is not None and found.upscale is not None:
        spec = replace(spec, upscale=_complete(wanted.upscale, found.upscale))
        _check_result(_of(spec), drawn_size(spec, start), found.upscale, limits)
    return spec


def drawn_size(spec: GenerateSpec, start: Input | None) -> tuple[int, int]:
    """Of the picture before it is enlarged at the end."""
    if spec.hires is not None:
        return spec.hires.size
    if spec.mask is not None and spec.mask.padding is not None and start is not None:
        return start.width, start.height
    return spec.width, spec.height


def result_size(spec: GenerateSpec, start: Input | None) -> tuple[int, int]:
    """Of the picture that comes out."""
    drawn = drawn_size(spec, start)
    return drawn if spec.upscale is None else spec.upscale.size_of(*drawn)


async def _found(models: ModelService, field: str, name: str) -> Model:
    try:
        return await models.upscaler(name)
    except CraftError as exc:
        raise CraftError(exc.reason, f"{field}: {exc.message}", exc.hint, field=field) from exc


def _refuse_idle(wanted: GenerateRequest, model: Model, own: tuple[int, int]) -> None:
    for name in _IDLE:
        if getattr(wanted, name):
            raise invalid(name, f"does nothing with {model.name}, which only enlarges", "leave it out")
    if wanted.count > 1 or wanted.indices not in ((), (0,)):
        raise invalid("count", f"would make the same picture again: {model.name} only enlarges", "leave it out")
    for name, side, length in (("width", wanted.width, own[0]), ("height", wanted.height, own[1])):
        if side not in (None, length):
            raise invalid(name, f"is {side}, and the picture's {length}", "say how many times larger: upscale.scale")


def _complete(upscale: Upscale, found: Model) -> Upscale:
    assert found.upscaling is not None, found.name
    return Upscale(found.name, float(found.upscaling.scale) if upscale.scale is None else upscale.scale)


def _check_result(upscale: Upscale, drawn: tuple[int, int], found: Model, limits: LimitSettings) -> None:
    """Raises INVALID_FIELD where more would come out, or be made on the way, than a picture may have."""
    width, height = upscale.size_of(*drawn)
    if max(width, height) > limits.max_side or width * height > limits.max_pixels:
        most = min(limits.max_side / max(drawn), math.sqrt(limits.max_pixels / (drawn[0] * drawn[1])))
        message = f"makes {width}x{height} of {drawn[0]}x{drawn[1]} pixels; the limit is {limits.max_side} a side"
        fitting = f"take {math.floor(most * 100) / 100:g} or less" if most >= 1 else "take a smaller picture"
        raise invalid("upscale.scale", f"{message} and {limits.max_pixels} in all", fitting)
    _check_pass(drawn, found, limits, "upscale.model")


def _check_pass(drawn: tuple[int, int], found: Model, limits: LimitSettings, field: str) -> None:
    """What a network makes of the whole picture, before that is reduced."""
    assert found.upscaling is not None, found.name
    scale = 1 if not found.files else found.upscaling.scale
    if drawn[0] * drawn[1] * scale**2 > _ON_THE_WAY * limits.max_pixels:
        size = f"{drawn[0] * scale}x{drawn[1] * scale}"
        raise invalid(field, f"{found.name} makes {size} pixels on the way, which are too many", "take lanczos")


def _hires(hires: Hires, spec: GenerateSpec, found: Model, model: Model, sizes: Sizes) -> Hires:
    if "start" not in model.architecture.takes:
        raise invalid("hires", f"means nothing to the model {model.name}, which cannot begin from a picture")
    strength = _HIRES_STRENGTH if hires.strength is None else hires.strength
    steps = spec.steps if hires.steps is None else hires.steps
    if strength > 0 and not steps_of(steps, Start(strength=strength)):
        message = f"{strength:g} of {steps} steps is less than one: nothing would be drawn again"
        raise invalid("hires.strength", message, f"take {math.ceil(1000 / steps) / 1000:g} or more, or more steps")
    width, height = _hires_size(hires, spec, sizes)
    return Hires(width / spec.width, strength, steps, found.name, width, height)


def _hires_size(hires: Hires, spec: GenerateSpec, sizes: Sizes) -> tuple[int, int]:
    """What is asked for, rounded to what the model can draw. Raises INVALID_FIELD."""
    unit, scale = sizes.granularity, _HIRES_SCALE if hires.scale is None else hires.scale
    if hires.width is None or hires.height is None:
        width, height = (max(unit, round(side * scale / unit) * unit) for side in (spec.width, spec.height))
    else:
        width, height = hires.width, hires.height
        _check_shape(width, height, spec, unit)
    if not sizes.allows(width, height):
        near = "x".join(map(str, sizes.nearest(width, height)))
        made = f"{width}x{height} of {spec.width}x{spec.height}"
        raise invalid(
            "hires", f"makes {made}, which the model cannot draw, or the limits forbid", f"take {near} or less"
        )
    return width, height


def _check_shape(width: int, height: int, spec: GenerateSpec, unit: int) -> None:
    if abs(width * spec.height - height * spec.width) > unit * max(spec.width, spec.height):
        message = f"{width}x{height} has another shape than {spec.width}x{spec.height}: it would be stretched"
        raise invalid("hires.width", message, "give hires.scale instead")


def _of(spec: GenerateSpec) -> Upscale:
    assert spec.upscale is not None
    return spec.upscale
