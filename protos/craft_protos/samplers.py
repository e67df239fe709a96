"""The samplers craft offers, by the names people use.

The worker maps each name to a diffusers scheduler; nothing else needs to know how.
"""

from __future__ import annotations

import difflib
import re

from craft_protos.reasons import CraftError

SAMPLERS: dict[str, tuple[str, ...]] = {
    "Euler": ("k_euler",),
    "Euler Karras": (),
    "Euler a": ("euler ancestral", "k_euler_a"),
    "DPM++ 2M": ("dpmpp 2m", "dpm solver++"),
    "DPM++ 2M Karras": ("dpmpp 2m karras",),
    "DPM++ 2M SDE": ("dpmpp 2m sde",),
    "DPM++ 2M SDE Karras": ("dpmpp 2m sde karras",),
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

_SHOWN = 64  # characters of a name that is none


def _key(name: str) -> str:
    return re.sub(r"[\s_\-]+", "", name.lower())


_BY_KEY = {_key(form): name for name, aliases in SAMPLERS.items() for form in (name, *aliases)}


def canonical(name: str) -> str:
    """The sampler's listed name, from any case, spacing or dashes. Raises INVALID_FIELD."""
    found = _BY_KEY.get(_key(name))
    if found:
        return found
    near = difflib.get_close_matches(_key(name[:_SHOWN]), _BY_KEY, n=1, cutoff=0.5)
    hint = f"did you mean {_BY_KEY[near[0]]!r}?" if near else f"known: {', '.join(SAMPLERS)}"
    raise CraftError("INVALID_FIELD", f"sampler: no sampler is called {name[:_SHOWN]!r}", hint, field="sampler")
