"""What a request says of the pictures that it begins from, checked and made complete: strength, blur, and the size."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace

from craft_protos import codec
from craft_protos.generate import Control, GenerateRequest, Mask, Reference, Start, steps_of
from craft_protos.reasons import invalid
from craft_protos.settings import LimitSettings

from craftd.architectures.sizes import Sizes
from craftd.inputs.input import Input
from craftd.inputs.service import InputService, check_sha256
from craftd.jobs import controls
from craftd.keys.caller import Caller
from craftd.models.model import Model

_STRENGTH = 0.8  # as diffusers' image-to-image of Stable Diffusion has it
_STRENGTH_WITH_MASK = 1.0  # as its inpainting has it: what the mask shows is drawn anew
_BLUR = 4.0  # pixels, as A1111 has it


@dataclass(frozen=True)
class Pictures:
    """The inputs that a request names."""

    start: Input | None = None
    mask: Input | None = None
    references: tuple[Input, ...] = ()
    controls: tuple[Input, ...] = ()


def check(wanted: GenerateRequest) -> None:
    """What can be said without looking for them. Raises INVALID_FIELD."""
    for name, one in (("start", wanted.start), ("mask", wanted.mask)):
        if one is not None:
            check_sha256(f"{name}.sha256", one.sha256)
            _check_rules(name, one)
    for reference in wanted.references:
        check_sha256("references.sha256", reference.sha256)
    for control in wanted.controls:
        check_sha256("controls.sha256", control.sha256)
        _check_rules("controls", control)
    controls.check(wanted.controls)
    if wanted.mask is not None and wanted.start is None:
        raise invalid("mask", "has no start picture to show a part of", "give the picture, too: start (--image)")


async def find(wanted: GenerateRequest, caller: Caller, inputs: InputService) -> Pictures:
    """From now on they are kept for the caller's job. Raises UNKNOWN_INPUT."""

    async def use(name: str, one: Start | Mask | Reference | Control | None) -> Input | None:
        return None if one is None else await inputs.use(caller.scope, caller.owner, one.sha256, name)

    async def use_all(name: str, several: Sequence[Reference | Control]) -> tuple[Input, ...]:
        used = [await use(name, one) for one in several]
        return tuple(one for one in used if one is not None)

    return Pictures(
        await use("start", wanted.start),
        await use("mask", wanted.mask),
        await use_all("references", wanted.references),
        await use_all("controls", wanted.controls),
    )


def with_pictures(wanted: GenerateRequest, pictures: Pictures, model: Model, limits: LimitSettings) -> GenerateRequest:
    """The request with all that follows from its pictures. Raises INVALID_FIELD."""
    if wanted.start is None or pictures.start is None:
        return _shown(wanted, pictures.references or pictures.controls, model, limits)
    mask, start = wanted.mask, wanted.start
    if start.strength is None:
        start = replace(start, strength=_STRENGTH if mask is None else _STRENGTH_WITH_MASK)
    _check_steps(start, model.defaults.steps if wanted.steps is None else wanted.steps)
    wanted = replace(wanted, start=start, mask=mask and _blurred(mask))
    if mask is not None and mask.padding is not None:
        _check_output(pictures.start, limits)
        return wanted
    width, height = _size(wanted, pictures.start, model, limits)
    return replace(wanted, width=width, height=height)


def _shown(wanted: GenerateRequest, shown: tuple[Input, ...], model: Model, limits: LimitSettings) -> GenerateRequest:
    """In the shape of the first picture that it or a control model is shown, of as many pixels as it usually draws."""
    if not shown:
        return wanted
    beside = model.architecture.beside(shown[0].width, shown[0].height)
    if beside is not None and wanted.width is None and wanted.height is None:
        width, height = model.sizes.within(limits.max_side, limits.max_pixels).nearest(*beside)
        return replace(wanted, width=width, height=height)
    width, height = _size(wanted, shown[0], model, limits, largest_scale=math.inf)
    return replace(wanted, width=width, height=height)


def is_free(wanted: GenerateRequest) -> bool:
    """Whether any size may be drawn: the worker draws a little more and cuts it off."""
    return wanted.mask is not None and wanted.mask.padding is None


def check_free_size(width: int, height: int, model: Model, limits: LimitSettings) -> None:
    """Raises INVALID_FIELD, for what is_free of the model's granularity."""
    allowed = _free(model.sizes, limits)
    if allowed.allows(width, height):
        return
    near = "take {}x{}, or draw only what is around the mask (padding)".format(*allowed.nearest(width, height))
    for field, side in (("width", width), ("height", height)):
        if not 1 <= side <= allowed.largest_side:
            raise invalid(
                field, f"must be from 1 to {allowed.largest_side} for the model {model.name}, not {side}", near
            )
    raise invalid("width", f"{width}x{height} has more than {allowed.most_pixels} pixels, the limit", near)


def _check_rules(name: str, one: Start | Mask | Control) -> None:
    for field in fields(one):
        rule, value = codec.rule_of(type(one), field.name), getattr(one, field.name)
        if rule is not None and value is not None and (complaint := rule.complaint(value)):
            raise invalid(f"{name}.{field.name}", complaint)


def _check_steps(start: Start, steps: int) -> None:
    if start.share > 0 and not steps_of(steps, start):
        least = math.ceil(1000 / steps) / 1000
        message = f"{start.share:g} of {steps} steps is less than one: nothing would be drawn"
        raise invalid("start.strength", message, f"take {least:g} or more, or more steps; 0 gives the picture back")


def _blurred(mask: Mask) -> Mask:
    return mask if mask.blur is not None else replace(mask, blur=_BLUR)


def _check_output(start: Input, limits: LimitSettings) -> None:
    """With padding the picture that is made has the start's size, however little of it is drawn."""
    if max(start.width, start.height) > limits.max_side or start.width * start.height > limits.max_pixels:
        message = f"has {start.width}x{start.height} pixels; the limit is {limits.max_side} a side"
        raise invalid("start", f"{message} and {limits.max_pixels} in all", "make the picture smaller first")


def _size(
    wanted: GenerateRequest, start: Input, model: Model, limits: LimitSettings, largest_scale: float = 1.0
) -> tuple[int, int]:
    """What was asked for; the rest follows from the picture's shape."""
    if wanted.width is not None and wanted.height is not None:
        return wanted.width, wanted.height
    allowed = _free(model.sizes, limits) if is_free(wanted) else model.sizes.within(limits.max_side, limits.max_pixels)
    if wanted.width is not None:
        return wanted.width, allowed.nearest_side(wanted.width * start.height / start.width)
    if wanted.height is not None:
        return allowed.nearest_side(wanted.height * start.width / start.height), wanted.height
    if is_free(wanted):
        return start.width, start.height
    usual = model.defaults.width * model.defaults.height
    scale = min(largest_scale, math.sqrt(usual / (start.width * start.height)))
    return allowed.nearest(start.width * scale, start.height * scale)


def _free(sizes: Sizes, limits: LimitSettings) -> Sizes:
    """Any within the limits, and within what the model can when it draws a little more."""
    most = sizes.largest_side // sizes.granularity * sizes.granularity
    return replace(sizes, granularity=1, largest_side=most).within(limits.max_side, limits.max_pixels)
