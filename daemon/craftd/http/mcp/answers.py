"""What tools tell, under the names that `craft --json` has."""

from __future__ import annotations

from typing import Any

from craft_protos.generate import GenerateSpec, public_json, steps_of
from craft_protos.lora import LoraRef
from craft_protos.reasons import CraftError

from craftd.http.errors import public
from craftd.http.views import JobOut
from craftd.jobs.fits.service import LoraFit
from craftd.jobs.job import JobView, Plan
from craftd.keys.caller import Caller
from craftd.loras.lora import Lora


def job(view: JobView) -> dict[str, Any]:
    return JobOut.of(view).model_dump(mode="json")


def lora(one: Lora, caller: Caller) -> dict[str, Any]:
    """For that caller."""
    return {
        "id": one.id,
        "name": one.name,
        "base": one.base,
        "rank": one.findings.rank,
        "weight": one.weight,
        "trigger": one.trigger,
        "sha256": one.sha256,
        "owner": one.owner if caller.scope in ("", one.owner) else None,
        "shared": one.is_shared,
    }


def plan(one: Plan) -> dict[str, Any]:
    """Of a job that draws."""
    spec = one.spec
    assert isinstance(spec, GenerateSpec)
    return {
        **public_json(spec),
        **({"steps_done": steps_of(spec.steps, spec.start)} if spec.start else {}),
        "model_loaded": one.model_loaded,
        "load_bytes": one.load_bytes,
        "evicted_models": list(one.evicted_models),
        "queue_position": one.queue_position,
        "device": one.device or None,
        "need_bytes": (one.need and one.need.peak_bytes) or None,
        "device_bytes": (one.need and one.need.device_bytes) or None,
        "offload": (one.need and one.need.rung) or None,
        "pace": _pace(one),
        "loras": [_lora(*found) for found in zip(spec.loras, one.fits, one.obstacles, strict=True)],
        "result_width": one.result_size[0],
        "result_height": one.result_size[1],
    }


def _pace(one: Plan) -> dict[str, Any] | None:
    """Seconds to draw, and before that to load what is not in memory."""
    if one.pace is None:
        return None
    load_s = 0.0 if one.model_loaded else one.pace.load_s
    return {"draw_s": round(one.pace.draw_s, 3), "load_s": round(load_s, 3), "jobs": one.pace.jobs}


def _lora(use: LoraRef, found: LoraFit, obstacle: CraftError | None) -> dict[str, Any]:
    fit = found.fit
    return {
        "id": use.lora,
        "name": use.name,
        "sha256": use.sha256,
        "weight": use.weight,
        **use.details,
        "fits": obstacle is None,
        "why_not": None if obstacle is None else public(obstacle.message),
        **({"matched": fit.matched, "total": fit.total} if fit is not None else {}),
    }
