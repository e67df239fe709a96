"""The samplers craft offers, by the names people use, and the schedules of noise that go with them.

A sampler with a schedule is named by both: "Euler a Karras", "DPM++ 2M SGM Uniform". The worker maps each name to
a diffusers scheduler; nothing else needs to know how.
"""

from __future__ import annotations

import difflib
import re
from functools import cache

from craft_protos.frozen import dataclass
from craft_protos.reasons import CraftError

SAMPLERS: dict[str, tuple[str, ...]] = {
    "Euler": ("k_euler",),
    "Euler Karras": (),
    "Euler a": ("euler ancestral", "k_euler_a", "k_euler_ancestral"),
    "DPM++ 2M": ("dpmpp 2m", "dpm solver++", "k_dpmpp_2m"),
    "DPM++ 2M Karras": ("dpmpp 2m karras",),
    "DPM++ 2M SDE": ("dpmpp 2m sde", "dpmpp_2m_sde_gpu", "k_dpmpp_2m_sde"),
    "DPM++ 2M SDE Karras": ("dpmpp 2m sde karras",),
    "DPM++ 2M SDE Heun": ("dpmpp 2m sde heun", "dpmpp_2m_sde_heun_gpu", "k_dpmpp_2m_sde_heun"),
    "DPM++ 3M SDE": ("dpmpp 3m sde", "dpmpp_3m_sde_gpu"),
    "DPM++ 2S": ("dpm++ 2s", "dpmpp 2s"),
    "DPM++ 2S a": ("dpmpp 2s a", "dpmpp_2s_ancestral", "dpm++ 2s ancestral", "k_dpmpp_2s_a"),
    "DPM++ SDE": ("dpmpp sde", "dpmpp_sde_gpu"),
    "DPM++ SDE Karras": ("dpmpp sde karras",),
    "K DPM++ SDE": ("k_dpmpp_sde",),
    "K DPM++ 3M SDE": ("k_dpmpp_3m_sde",),
    "DPM2": ("k_dpm_2", "dpm_2"),
    "DPM2 a": ("dpm2 ancestral", "k_dpm_2_a", "k_dpm_2_ancestral"),
    "DPM fast": ("k_dpm_fast",),
    "DPM adaptive": ("k_dpm_ad",),
    "Restart": (),
    "RES multistep": ("res_multistep",),
    "DDIM": (),
    "DDIM CFG++": ("ddim cfg pp", "euler_cfg_pp"),
    "DDPM": (),
    "UniPC": ("uni_pc_bh2",),
    "Heun": ("k_heun",),
    "LMS": ("k_lms",),
    "LMS Karras": (),
    "PNDM": ("plms",),
    "DEIS": (),
    "LCM": ("k_lcm",),
    "TCD": (),
}


@dataclass(frozen=True)
class About:
    """What a sampler is equal to, whether it adds noise between steps, and its model calls a step (0: as it needs)."""

    reference: str
    is_random: bool = False
    calls: int = 1


ABOUT: dict[str, About] = {
    "Euler": About("diffusers' EulerDiscrete; k-diffusion's sample_euler"),
    "Euler a": About("diffusers' EulerAncestralDiscrete; k-diffusion's sample_euler_ancestral", is_random=True),
    "DPM++ 2M": About("diffusers' DPMSolverMultistep; k-diffusion's sample_dpmpp_2m over the same levels"),
    "DPM++ 2M SDE": About("diffusers' DPMSolverMultistep, sde-dpmsolver++; sample_dpmpp_2m_sde", is_random=True),
    "DPM++ 2M SDE Heun": About("the same with solver_type heun", is_random=True),
    "DPM++ 3M SDE": About("diffusers' DPMSolverMultistep of order 3; not k-diffusion's", is_random=True),
    "DPM++ 2S": About("diffusers' DPMSolverSinglestep"),
    "DPM++ 2S a": About("k-diffusion's sample_dpmpp_2s_ancestral", is_random=True, calls=2),
    "DPM++ SDE": About("diffusers' DPMSolverSinglestep, sde-dpmsolver++; not k-diffusion's", is_random=True),
    "K DPM++ SDE": About("k-diffusion's sample_dpmpp_sde: AUTOMATIC1111's DPM++ SDE", is_random=True, calls=2),
    "K DPM++ 3M SDE": About("k-diffusion's sample_dpmpp_3m_sde: AUTOMATIC1111's DPM++ 3M SDE", is_random=True),
    "DPM2": About("diffusers' KDPM2Discrete; k-diffusion's sample_dpm_2", calls=2),
    "DPM2 a": About("diffusers' KDPM2AncestralDiscrete; sample_dpm_2_ancestral", is_random=True, calls=2),
    "DPM fast": About("k-diffusion's sample_dpm_fast with eta 1", is_random=True),
    "DPM adaptive": About("k-diffusion's sample_dpm_adaptive with eta 1", is_random=True, calls=0),
    "Restart": About("AUTOMATIC1111's restart_sampler", is_random=True, calls=2),
    "RES multistep": About("ComfyUI's res_multistep"),
    "DDIM": About("diffusers' DDIM"),
    "DDIM CFG++": About("AUTOMATIC1111's DDIM CFG++; ComfyUI's euler_cfg_pp at 12.5 times its guidance scale"),
    "DDPM": About("diffusers' DDPM", is_random=True),
    "UniPC": About("diffusers' UniPCMultistep"),
    "Heun": About("diffusers' HeunDiscrete; k-diffusion's sample_heun", calls=2),
    "LMS": About("diffusers' LMSDiscrete; k-diffusion's sample_lms"),
    "PNDM": About("diffusers' PNDM, which is PLMS where the model's configuration skips its first steps"),
    "DEIS": About("diffusers' DEISMultistep"),
    "LCM": About("diffusers' LCM; with a schedule: ComfyUI's lcm", is_random=True),
    "TCD": About("diffusers' TCD, without noise"),
}

# Those that a flow-matching model takes: the others assume another kind of noise.
FLOW = ("Euler", "Heun", "DPM++ 2M", "DPM++ 2S", "UniPC")
_FLOW_WITH_LEVELS = ("Euler",)  # of these, those that take whatever noise levels

SCHEDULES: dict[str, tuple[str, ...]] = {
    "Karras": (),
    "Exponential": ("polyexponential",),
    "Beta": (),
    "SGM Uniform": (),
    "Simple": ("turbo",),
    "Normal": ("uniform",),
    "DDIM": ("ddim uniform",),
    "KL Optimal": (),
    "Align Your Steps": ("ays",),
}
_LEVELS, _SPACINGS = ("Karras", "Exponential", "Beta"), ("SGM Uniform", "Simple", "Normal", "DDIM")
_FLOW_SPACINGS = ("SGM Uniform", "Simple", "Normal")
_OWN_LEVELS = ("KL Optimal", "Align Your Steps")
_NO_LEVELS = ("DDIM", "DDPM", "PNDM")
_NONE = ("TCD", "DPM fast", "DPM adaptive")

_SHOWN = 64  # characters of a name that is none


def _key(name: str) -> str:
    return re.sub(r"[\s_\-]+", "", name.lower())


_BY_KEY = {_key(form): name for name, aliases in SAMPLERS.items() for form in (name, *aliases)}


def schedules_of(sampler: str) -> tuple[str, ...]:
    """Those that a sampler, named without one, goes with."""
    if sampler in _NONE:
        return ()
    return _SPACINGS if sampler in _NO_LEVELS else (*_LEVELS, *_SPACINGS, *_OWN_LEVELS)


def flow_schedules_of(sampler: str) -> tuple[str, ...]:
    """Those that a sampler goes with on a model that matches flows."""
    return (*_LEVELS, *_FLOW_SPACINGS) if sampler in _FLOW_WITH_LEVELS else ()


def about(name: str) -> About:
    """Of a sampler, with a schedule or without. Raises INVALID_FIELD."""
    return ABOUT[parts_of(name)[0].removesuffix(" Karras")]


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
