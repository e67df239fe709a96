"""The samplers craft offers, by the names people use, and the schedules of noise that go with them.

A sampler with a schedule is named by both: "Euler a Karras", "DPM++ 2M SGM Uniform". The worker maps each name to
a diffusers scheduler; nothing else needs to know how.
"""

from __future__ import annotations

import difflib
import re
from functools import cache

from craft_protos.reasons import CraftError

SAMPLERS: dict[str, tuple[str, ...]] = {
    "Euler": ("k_euler",),
    "Euler Karras": (),
    "Euler a": ("euler ancestral", "k_euler_a"),
    "DPM++ 2M": ("dpmpp 2m", "dpm solver++"),
    "DPM++ 2M Karras": ("dpmpp 2m karras",),
    "DPM++ 2M SDE": ("dpmpp 2m sde",),
    "DPM++ 2M SDE Karras": ("dpmpp 2m sde karras",),
    "DPM++ 2M SDE Heun": ("dpmpp 2m sde heun",),
    "DPM++ 3M SDE": ("dpmpp 3m sde",),
    "DPM++ 2S": ("dpm++ 2s", "dpmpp 2s"),
    "DPM++ SDE": ("dpmpp sde",),
    "DPM++ SDE Karras": ("dpmpp sde karras",),
    "DPM2": ("k_dpm_2",),
    "DPM2 a": ("dpm2 ancestral", "k_dpm_2_a"),
    "DDIM": (),
    "DDPM": (),
    "UniPC": (),
    "Heun": ("k_heun",),
    "LMS": ("k_lms",),
    "LMS Karras": (),
    "PNDM": ("plms",),
    "DEIS": (),
    "LCM": (),
    "TCD": (),
}

# Those that a flow-matching model takes: the others assume another kind of noise.
FLOW = ("Euler", "Heun", "DPM++ 2M", "DPM++ 2S", "UniPC")

SCHEDULES: dict[str, tuple[str, ...]] = {
    "Karras": (),
    "Exponential": (),
    "Beta": (),
    "SGM Uniform": (),
    "Simple": (),
    "Normal": ("uniform",),
}
_LEVELS, _SPACINGS = ("Karras", "Exponential", "Beta"), ("SGM Uniform", "Simple", "Normal")
_NO_LEVELS, _NO_SPACINGS = ("DDIM", "DDPM", "PNDM"), ("DPM++ 2S", "DPM++ SDE")
_NONE = ("LCM", "TCD")

_SHOWN = 64  # characters of a name that is none


def _key(name: str) -> str:
    return re.sub(r"[\s_\-]+", "", name.lower())


_BY_KEY = {_key(form): name for name, aliases in SAMPLERS.items() for form in (name, *aliases)}


def schedules_of(sampler: str) -> tuple[str, ...]:
    """Those that a sampler, named without one, goes with: what diffusers has of them."""
    levels = () if sampler in (*_NO_LEVELS, *_NONE) else _LEVELS
    return levels + (() if sampler in (*_NO_SPACINGS, *_NONE) else _SPACINGS)


def canonical(name: str) -> str:
    """The sampler's listed name, from any case, spacing or dashes; with its schedule. Raises INVALID_FIELD."""
    if found := _BY_KEY.get(_key(name)):
        return found
    if _key(name[:_SHOWN]) in _with_schedules():
        sampler, schedule = _with_schedules()[_key(name[:_SHOWN])]
        if schedule in schedules_of(sampler):
            return f"{sampler} {schedule}"
        return _refuse(sampler, schedule)
    near = difflib.get_close_matches(_key(name[:_SHOWN]), _BY_KEY, n=1, cutoff=0.5)
    hint = f"did you mean {_BY_KEY[near[0]]!r}?" if near else f"known: {', '.join(SAMPLERS)}"
    raise CraftError("INVALID_FIELD", f"sampler: no sampler is called {name[:_SHOWN]!r}", hint, field="sampler")


def parts_of(name: str) -> tuple[str, str]:
    """(the sampler, its schedule or "") of a name. Raises INVALID_FIELD."""
    name = canonical(name)
    return _with_schedules().get(_key(name), (name, ""))


def schedule_called(text: str) -> str | None:
    """A schedule's listed name, from any case, spacing or dashes."""
    forms = {_key(form): name for name, aliases in SCHEDULES.items() for form in (name, *aliases)}
    return forms.get(_key(text))


@cache
def _with_schedules() -> dict[str, tuple[str, str]]:
    """Every sampler with every schedule, by whatever form of both, whether or not they go together."""
    forms = [
        (form, name) for name, aliases in SAMPLERS.items() if not name.endswith(" Karras") for form in (name, *aliases)
    ]
    return {
        _key(form + spelt): (name, schedule)
        for form, name in forms
        for schedule, aliases in SCHEDULES.items()
        for spelt in (schedule, *aliases)
    }


def _refuse(sampler: str, schedule: str) -> str:
    taken = schedules_of(sampler)
    hint = f"it goes with {', '.join(taken)}" if taken else "it goes with none: name it alone"
    raise CraftError("INVALID_FIELD", f"sampler: {sampler} has no {schedule} schedule", hint, field="sampler")
