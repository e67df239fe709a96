"""What a request says of the refiner, a second model that does the last of its steps: found, checked, made complete."""

from __future__ import annotations

from dataclasses import replace

from craft_protos import codec
from craft_protos.generate import GenerateRequest, GenerateSpec, Refiner, Start, steps_of
from craft_protos.reasons import CraftError, invalid

from craftd.architectures.rows.unets import SDXL_REFINER
from craftd.models.model import Model
from craftd.models.service import ModelService

_SWITCH = 0.8  # as diffusers' documentation and AUTOMATIC1111 have it
_ADD = "add one: craft models pull stabilityai/stable-diffusion-xl-refiner-1.0"
_PICTURES = {"mask": "a mask", "references": "reference pictures"}


def check(wanted: GenerateRequest) -> None:
    """What can be said without knowing any model. Raises INVALID_FIELD."""
    if wanted.refiner is None:
        return
    switch = wanted.refiner.switch
    if switch is not None and ((rule := codec.rule_of(Refiner, "switch")) and (said := rule.complaint(switch))):
        raise invalid("refiner.switch", said)
    if switch in (0, 1):
        raise invalid("refiner.switch", f"{switch:g} leaves one of the two models no step", "0.8 is usual")
    for name, what in _PICTURES.items():
        if getattr(wanted, name):
            raise invalid("refiner", f"goes on with a whole picture, and {what} is given too", "leave one of them out")


async def completed(wanted: GenerateRequest, model: Model, models: ModelService) -> GenerateRequest:
    """The request with its refiner named. Raises INVALID_FIELD, UNKNOWN_MODEL, and what is wrong with that model."""
    if wanted.refiner is None or "refiner" not in model.architecture.takes:
        return wanted  # what the model does not understand is refused with the rest of that
    name = wanted.refiner.model or await _only(models)
    try:
        found = await models.usable(name)
    except CraftError as exc:
        raise CraftError(exc.reason, f"refiner.model: {exc.message}", exc.hint, field="refiner.model") from exc
    if found.architecture.id != SDXL_REFINER.id:
        why = f"{found.name} is {found.architecture.name or 'no refiner'}, and goes on with no other's latents"
        raise invalid("refiner.model", why, f"take one of {SDXL_REFINER.name}, or {_ADD}")
    switch = _SWITCH if wanted.refiner.switch is None else wanted.refiner.switch
    return replace(wanted, refiner=Refiner(found.name, switch))


def check_steps(spec: GenerateSpec) -> None:
    """Raises INVALID_FIELD where either model would have no step to do, as far as can be told without a scheduler."""
    if spec.refiner is None:
        return
    steps, start = spec.steps, spec.start
    if spec.hires is not None:  # its second drawing is the one
        steps, start = spec.hires.steps or steps, Start(strength=spec.hires.strength)
    done, last = steps_of(steps, start), steps - round(steps * spec.refiner.share)
    if not 0 < last < done:
        which = "the refiner" if last <= 0 else spec.model
        why = f"{spec.refiner.share:g} leaves {which} none of the {done} steps that are done"
        raise invalid("refiner.switch", why, "take more steps, or a switch nearer to the middle of them")


async def _only(models: ModelService) -> str:
    """The name of the only refiner that is there. Raises INVALID_FIELD."""
    views = [view.model for view in await models.list()]
    names = [model.name for model in views if model.architecture.id == SDXL_REFINER.id and not model.refused]
    if len(names) == 1:
        return names[0]
    why = f"is not named, and there are several: {', '.join(names)}" if names else "is none here"
    raise invalid("refiner.model", why, "name one" if names else _ADD)
