"""Which LoRAs a request means, and what they make of its prompt."""

from __future__ import annotations

from dataclasses import dataclass

from craft_protos.reasons import CraftError, invalid

from craftd.jobs import tags
from craftd.jobs.job import SKIP, GenerateRequest, LoraUse, LoraWish
from craftd.loras.lora import Lora
from craftd.loras.service import LoraService


@dataclass(frozen=True)
class Chosen:
    """`uses` and `loras` in the same order."""

    prompt: str
    uses: tuple[LoraUse, ...]
    loras: tuple[Lora, ...]

    @property
    def base(self) -> str:
        """The first architecture that one of them is known to be for."""
        return next((lora.base for lora in self.loras if lora.base), "")


def choose(wanted: GenerateRequest, service: LoraService) -> Chosen:
    """Raises UNKNOWN_LORA, AMBIGUOUS_ID, INVALID_FIELD."""
    parsed = tags.parse(wanted.prompt)
    wishes = (*wanted.loras, *parsed.wishes)
    loras = [service.find(wish.lora) for wish in wishes]
    _refuse_twins(loras)
    prompt = _with_triggers(parsed.text, loras) if wanted.trigger_words else parsed.text
    if not prompt:
        raise invalid("prompt", "is empty, and the LoRAs have no trigger words", "say what to draw")
    uses = tuple(_use(wish, lora) for wish, lora in zip(wishes, loras, strict=True))
    return Chosen(prompt, uses, tuple(loras))


async def obstacles(
    chosen: Chosen, service: LoraService, wanted: GenerateRequest, model: str, base: str
) -> tuple[CraftError | None, ...]:
    """For each LoRA why it cannot be used with a model of an architecture, as far as can be told without either."""
    return tuple([_mismatch(lora, wanted, model, base) or await _damage(lora, service) for lora in chosen.loras])


def _mismatch(lora: Lora, wanted: GenerateRequest, model: str, base: str) -> CraftError | None:
    if not lora.base or not base or lora.base == base or wanted.lora_missing == SKIP:
        return None
    return CraftError(
        "LORA_MISMATCH",
        f"LoRA {lora.name} is for {lora.base}, and the model {model} is {base}",
        f"`craft lora list --model {model}` shows those that fit; -m chooses another model",
        field="loras",
    )


async def _damage(lora: Lora, service: LoraService) -> CraftError | None:
    try:
        await service.verified(lora.id)
    except CraftError as exc:
        return exc
    return None


def _refuse_twins(loras: list[Lora]) -> None:
    for place, lora in enumerate(loras):
        if lora in loras[:place]:
            raise invalid("loras", f"{lora.name} is asked for twice", "once, with the weight that is meant")


def _with_triggers(prompt: str, loras: list[Lora]) -> str:
    """Those that the prompt lacks, at its end."""
    parts = [prompt] if prompt else []
    for lora in loras:
        if lora.trigger and lora.trigger.lower() not in ", ".join(parts).lower():
            parts.append(lora.trigger)
    return ", ".join(parts)


def _use(wish: LoraWish, lora: Lora) -> LoraUse:
    return LoraUse(lora.id, lora.weight if wish.weight is None else wish.weight, lora.name, lora.sha256)
