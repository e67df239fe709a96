"""Presets that come with craft: what LoRAs that draw in few steps were made for, as their makers publish it.

A LoRA is recognised by its names alone. Sources: the pages of latent-consistency/lcm-lora-sdxl (2 to 8 steps, no
guidance or 1 to 2), ByteDance/SDXL-Lightning (trailing timesteps with Euler, which ComfyUI calls sgm_uniform),
ByteDance/Hyper-SD (trailing timesteps with DDIM; of FLUX.1 a weight of 0.125 and a guidance of 3.5), tianweiy/DMD2
(LCM at the timesteps 999, 749, 499 and 249) and alimama-creative/FLUX.1-Turbo-Alpha.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

Value = str | int | float | bool | list[str]


def _of(steps: int, sampler: str = "", guidance: float = 1.0) -> dict[str, Value]:
    return {"steps": steps, "guidance": guidance, **({"sampler": sampler} if sampler else {})}


PRESETS: dict[str, dict[str, Value]] = {
    "lcm": _of(4, "LCM"),
    **{f"lightning-{steps}": _of(steps, "Euler SGM Uniform") for steps in (2, 4, 8)},
    **{f"hyper-{steps}": _of(steps, "DDIM SGM Uniform") for steps in (2, 4, 8)},
    **{f"hyper-cfg-{steps}": _of(steps, "DDIM SGM Uniform", 5.0) for steps in (8, 12)},
    **{f"hyper-flux-{steps}": _of(steps, guidance=3.5) for steps in (8, 16)},
    "dmd2": _of(4, "LCM SGM Uniform"),
    "flux-turbo-alpha": _of(8, guidance=3.5),
}
_STEPS = re.compile(r"(?<!\d)(\d{1,2})[ _-]?steps?(?![a-z])")


def of(names: Sequence[str]) -> str:
    """The preset that a LoRA's names tell of; "" where they tell of none."""
    return next((found for name in names if (found := _of_name(name.lower()))), "")


def _of_name(name: str) -> str:
    told = _STEPS.search(name)
    steps = told[1] if told else ""
    if re.search(r"(?<![a-z])lcm(?![a-z])", name):
        return "lcm"
    if re.search(r"(?<![a-z])dmd2(?![a-z0-9])", name):
        return "dmd2"
    if "turbo-alpha" in name:
        return "flux-turbo-alpha"
    for kind, pattern in (
        ("hyper-flux", r"hyper[_-]?flux"),
        ("hyper-cfg", r"hyper[_-]?sd.*cfg"),
        ("hyper", r"hyper[_-]?sd"),
        ("lightning", r"sdxl[_-]?lightning|lightning[_-]?sdxl"),
    ):
        if re.search(pattern, name):
            return found if (found := f"{kind}-{steps}") in PRESETS else ""
    return ""


def note(names: Sequence[str]) -> str:
    """A line about it; "" where its names tell of none."""
    preset = of(names)
    if not preset:
        return ""
    weight = ", with a weight of about 0.125" if preset.startswith("hyper-flux") else ""
    return f"by its name it draws in few steps: --preset {preset} has its maker's steps, guidance and sampler{weight}"
