"""Upscalers as models: what a worker loads by name, and enlarges with."""

from __future__ import annotations

from pathlib import Path

from craft_protos.generate import LANCZOS
from craft_protos.reasons import CraftError

from craftd.architectures.registry import UPSCALER
from craftd.architectures.sizes import Sizes
from craftd.architectures.upscalers import Upscaling
from craftd.models import folder
from craftd.models.model import Defaults, Model
from craftd.models.part import Part

_LANCZOS = Upscaling("Lanczos", 2)
_NOTHING = Defaults(0, 0, UPSCALER.steps, UPSCALER.guidance_scale, "")


def of_part(part: Part) -> Model:
    """A broken one is a Model too, with `refused` saying why."""
    upscaling = part.upscaling
    assert upscaling is not None, part.name
    try:
        files = tuple(part.files(UPSCALER.id))
    except CraftError as exc:
        return folder.refused(part.path, exc, name=part.name, built_in=part.built_in)
    return Model(
        name=part.name,
        folder=part.path,
        architecture=UPSCALER,
        pipeline=upscaling.architecture,
        sizes=Sizes(1),
        defaults=_NOTHING,
        files=files,
        built_in=part.built_in,
        source=part.source,
        weights=folder.weights_of(files),
        upscaling=upscaling,
    )


def lanczos() -> Model:
    """No network at all."""
    return Model(
        name=LANCZOS,
        folder=Path(LANCZOS),
        architecture=UPSCALER,
        pipeline=_LANCZOS.architecture,
        sizes=Sizes(1),
        defaults=_NOTHING,
        files=(),
        built_in=True,
        source="built in",
        upscaling=_LANCZOS,
    )
