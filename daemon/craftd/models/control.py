"""Control models as a worker holds them: beside the models that draw, by name."""

from __future__ import annotations

from craft_protos.dispatch import CONTROLNET
from craft_protos.reasons import CraftError

from craftd.architectures import controls
from craftd.architectures.architecture import Architecture
from craftd.architectures.sizes import Sizes
from craftd.models import folder
from craftd.models.model import Defaults, Model
from craftd.models.part import Part

_NOTHING = Defaults(0, 0, 0, 0.0, "")


def of_part(part: Part) -> Model:
    """A control model's files and what they take in memory; with `refused` saying why they cannot be read."""
    try:
        files = tuple(part.files(CONTROLNET))
    except CraftError as exc:
        return folder.refused(part.path, exc, name=part.name, built_in=part.built_in)
    return Model(
        name=part.name,
        folder=part.path,
        architecture=Architecture(part.kind, part.shown, family=CONTROLNET),
        pipeline=controls.network_of(part.kind),
        sizes=Sizes(1),
        defaults=_NOTHING,
        files=files,
        built_in=part.built_in,
        source=part.source,
        weights=folder.weights_of(files),
    )
