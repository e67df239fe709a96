"""What an image file says about how it was made: JSON for craft, one text for other tools."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from craft_protos.version import __version__

from craftd.worker.lora.residents import AppliedLora
from craftd.worker.messages import Draw


@dataclass(frozen=True)
class Circumstances:
    """How one image came to be, beyond what was asked for."""

    index: int
    device: str
    precision: str
    scheduler: str
    batch: int  # the most rows it shared a batch with, itself counted
    vae_tiling: bool
    loras: Sequence[AppliedLora]
    torch: str
    diffusers: str


def as_json(job: Draw, how: Circumstances) -> str:
    """ASCII JSON: what the front knows, then everything that this image follows from."""
    known = json.loads(job.provenance) if job.provenance else {}
    made = {
        "prompt": job.prompt,
        "negative_prompt": job.negative_prompt,
        "model": {"name": job.model.name, "sha256": job.model.sha256},
        "loras": [_told(lora) for lora in how.loras],
        "width": job.width,
        "height": job.height,
        "steps": job.steps,
        "guidance_scale": job.guidance_scale,
        "seed": job.seed + how.index,
        "index": how.index,
        "sampler": job.sampler,
        "scheduler": how.scheduler,
        "format": job.format,
        "deterministic": job.deterministic,
        "device": how.device,
        "precision": how.precision,
        "versions": {"craft": __version__, "torch": how.torch, "diffusers": how.diffusers},
        "batch": how.batch,
        "vae_tiling": how.vae_tiling,
    }
    return json.dumps(known | made)


def as_parameters(job: Draw, how: Circumstances) -> str:
    """The same in the AUTOMATIC1111 form."""
    negative = [f"Negative prompt: {job.negative_prompt}"] if job.negative_prompt else []
    numbers = {
        "Steps": job.steps,
        "Sampler": job.sampler or how.scheduler.removesuffix("Scheduler"),
        "CFG scale": f"{job.guidance_scale:g}",
        "Seed": job.seed + how.index,
        "Size": f"{job.width}x{job.height}",
        "Model hash": job.model.sha256[:10],
        "Model": job.model.name,
        "Version": f"craft {__version__}",
    }
    if how.loras:
        hashes = ", ".join(f"{_plain(lora.use.name)}: {lora.use.sha256[:10]}" for lora in how.loras)
        numbers["Lora hashes"] = f'"{hashes}"'
    prompt = "".join([job.prompt, *(f" <lora:{_plain(one.use.name)}:{one.use.weight:g}>" for one in how.loras)])
    return "\n".join([prompt, *negative, ", ".join(f"{key}: {value}" for key, value in numbers.items())])


def _told(lora: AppliedLora) -> Mapping[str, object]:
    use = lora.use
    named = {"id": use.id, "name": use.name, "sha256": use.sha256}
    return {**named, "weight": use.weight, "matched": lora.matched, "total": lora.total}


def _plain(name: str) -> str:
    """Without what has a meaning in that form."""
    return "".join("_" if character in ',:<>"' else character for character in name)
