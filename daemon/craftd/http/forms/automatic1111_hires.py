"""What AUTOMATIC1111's txt2img says of drawing again at a larger size, and what it asks craft for."""

from __future__ import annotations

import math
from typing import Annotated

from craft_protos.generate import LANCZOS, MOST_HIRES, Hires
from craft_protos.reasons import invalid
from pydantic import Field

from craftd.http.fields import Real, Text, Whole
from craftd.http.forms.lenient import Lenient

_LATENT = "latent"  # how their names of what scales latents begin
_OWN = {"none": LANCZOS, "lanczos": LANCZOS}  # theirs, by small letters: a picture is resized without a network
_STRENGTH = 0.75  # theirs, where none is sent
_SAME = ("", "use same checkpoint", "use same sampler", "use same scheduler")
_ANOTHER = ("hr_checkpoint_name", "hr_sampler_name", "hr_scheduler", "hr_prompt", "hr_negative_prompt")

Size = tuple[int | None, int | None]  # width, height


class HiresFields(Lenient):
    """What txt2img says of drawing again at a larger size."""

    enable_hr: bool | None = Field(False, description="Draw, enlarge, and draw again.")
    hr_scale: Annotated[Real, Field(ge=1, le=MOST_HIRES)] = 2
    hr_upscaler: Text | None = Field(None, description="One of GET upscalers.")
    hr_second_pass_steps: Annotated[Whole, Field(ge=0, le=100_000)] = Field(0, description="0: as many as the first's.")
    hr_resize_x: Annotated[Whole, Field(ge=0, le=65_536)] = Field(0, description="Instead of hr_scale.")
    hr_resize_y: Annotated[Whole, Field(ge=0, le=65_536)] = 0
    hr_checkpoint_name: Text | None = None
    hr_sampler_name: Text | None = None
    hr_scheduler: Text | None = None
    hr_prompt: Text | None = None
    hr_negative_prompt: Text | None = None
    denoising_strength: Annotated[Real, Field(ge=0, le=1)] | None = None


HIRES_NAMES = {
    "hires": "enable_hr",
    "hires.scale": "hr_scale",
    "hires.upscaler": "hr_upscaler",
    "hires.steps": "hr_second_pass_steps",
    "hires.strength": "denoising_strength",
    "hires.width": "hr_resize_x",
}


def hires(body: HiresFields, drawn: Size, first: int | None) -> Hires | None:
    """None where it is off. `drawn`, `first`: the size and the steps that are asked for of the first drawing.

    Their second drawing does all of its steps, craft's as large a part of them as its strength says.
    Raises INVALID_FIELD for what is known and not done.
    """
    if not body.enable_hr:
        return None
    for name in _ANOTHER:
        if (getattr(body, name) or "").strip().lower() not in _SAME:
            raise invalid(name, "is not in craft: a picture is drawn again as it was", "leave it out")
    strength = _STRENGTH if body.denoising_strength is None else body.denoising_strength
    done = body.hr_second_pass_steps or first
    steps = math.ceil(done / strength - 1e-9) if done and strength else done
    scale, width, height = _hires_size(body, drawn)
    name = "" if body.hr_upscaler is None else upscaler("hr_upscaler", body.hr_upscaler)
    return Hires(scale, strength, steps, name, width, height)


def upscaler(field: str, name: str) -> str:
    """craft's name of it. Raises INVALID_FIELD."""
    plain = name.strip().lower()
    if plain.startswith(_LATENT):
        message = f"{name[:60]!r} scales latents, which is not in craft"
        raise invalid(field, message, "take Lanczos, or another of GET upscalers")
    return _OWN.get(plain, name.strip())


def _hires_size(body: HiresFields, drawn: Size) -> tuple[float | None, int | None, int | None]:
    """By their rules: a side that is not given follows from the other. Raises INVALID_FIELD."""
    across, down = body.hr_resize_x, body.hr_resize_y
    if across and down:
        return None, across, down
    if not (across or down):
        return body.hr_scale, None, None
    name, wanted, side = ("hr_resize_x", across, drawn[0]) if across else ("hr_resize_y", down, drawn[1])
    if side is None:
        raise invalid(name, "needs the width and the height that are drawn first", "send both")
    if not side <= wanted <= side * MOST_HIRES:
        raise invalid(name, f"must be from {side} to {side * MOST_HIRES}, not {wanted}")
    return wanted / side, None, None
