"""Which LoRAs a request means, and what they make of its prompt."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from craft_protos.generate import SKIP, GenerateRequest, GenerateSpec
from craft_protos.lora import MOST_LORAS, LoraRef
from craft_protos.lora_strength import share
from craft_protos.reasons import CraftError, invalid

from craftd.architectures import blocks
from craftd.architectures.architecture import GENERIC
from craftd.jobs.fits.service import LoraFit
from craftd.keys.caller import Caller
from craftd.loras.lora import Lora
from craftd.loras.service import LoraService
from craftd.models.model import Model

_NAMED = re.compile(r"(?<!\w)embedding:([\w.-]*\w)")


@dataclass(frozen=True)
class Chosen:
    """`refs` and `loras` in the same order."""

    prompt: str
    refs: tuple[LoraRef, ...]
    loras: tuple[Lora, ...]

    @property
    def base(self) -> str:
        """The first architecture that one of them is known to be for."""
        return next((lora.base for lora in self.loras if lora.base), "")


def choose(wanted: GenerateRequest, caller: Caller, service: LoraService) -> Chosen:
    """For a checked request. Raises UNKNOWN_LORA, AMBIGUOUS_ID, INVALID_FIELD."""
    loras = [service.find(ref.lora, caller) for ref in wanted.loras]
    _refuse_twins(loras)
    prompt = _with_triggers(wanted.prompt, loras) if wanted.trigger_words else wanted.prompt
    if not prompt and wanted.start is None:  # a picture says enough
        raise invalid("prompt", "is empty, and the LoRAs have no trigger words", "say what to draw")
    refs = tuple(_resolved(ref, lora) for ref, lora in zip(wanted.loras, loras, strict=True))
    return Chosen(prompt, refs, tuple(loras))


def with_embeddings(chosen: Chosen, negative_prompt: str, model: Model, caller: Caller, service: LoraService) -> Chosen:
    """With those whose names stand in the prompts: `embedding:NAME` of any, a bare name of one for this architecture.

    Raises UNKNOWN_LORA for an `embedding:` that is none, INVALID_FIELD for an embedding that stands nowhere.
    """
    texts = f"{chosen.prompt}\n{negative_prompt}"
    named = [_embedding(found[1], caller, service) for found in _NAMED.finditer(texts)]
    fitting = [lora for lora in service.embeddings(caller.owner) if lora.base and lora.base == model.architecture.id]
    bare = [lora for lora in fitting if _stands_in(lora.name, texts)]
    _refuse_idle([lora for lora in chosen.loras if lora.is_embedding], texts)
    known = {lora.name.lower() for lora in chosen.loras if lora.is_embedding}
    more = [lora for lora in {lora.id: lora for lora in (*named, *bare)}.values() if lora.name.lower() not in known]
    if len(chosen.refs) + len(more) > MOST_LORAS:
        raise invalid("prompt", f"names {len(more)} embeddings; with the LoRAs the limit is {MOST_LORAS}")
    refs = tuple(_resolved(LoraRef(lora.id), lora) for lora in more)
    return Chosen(chosen.prompt, (*chosen.refs, *refs), (*chosen.loras, *more))


def _embedding(name: str, caller: Caller, service: LoraService) -> Lora:
    embeddings = [lora for lora in service.embeddings(caller.owner) if lora.name.lower() == name.lower()]
    if embeddings:
        return embeddings[0]
    try:
        lora = service.find(name, caller)
    except CraftError as exc:
        hint = exc.hint if "did you mean" in exc.hint else "craft lora add FILE.safetensors adds one; or leave it out"
        raise CraftError(exc.reason, f"prompt: no embedding is called {name!r}", hint, field="prompt") from exc
    if not lora.is_embedding:
        raise invalid("prompt", f"{name} is a LoRA, not an embedding", f"write it as <lora:{name}:1>")
    return lora


def _refuse_idle(embeddings: Sequence[Lora], texts: str) -> None:
    """One that is asked for and named in neither prompt would do nothing."""
    for lora in embeddings:
        if not _stands_in(lora.name, texts):
            hint = f"write {lora.name} in the prompt or the negative prompt: that is all it needs"
            raise invalid("loras", f"{lora.name} is an embedding, which works where its name stands", hint)


def _stands_in(name: str, texts: str) -> bool:
    return re.search(rf"(?<![\w-]){re.escape(name)}(?![\w-])", texts, re.IGNORECASE) is not None


async def obstacles(fits: Sequence[LoraFit], service: LoraService, spec: GenerateSpec) -> tuple[CraftError | None, ...]:
    """For each LoRA why it cannot be used with the model, as far as is known without it."""
    skips = spec.lora_missing == SKIP
    return tuple([one.obstacle(skips_missing=skips) or await _damage(one.lora, service) for one in fits])


async def _damage(lora: Lora, service: LoraService) -> CraftError | None:
    try:
        await service.verified(lora.id)
    except CraftError as exc:
        return exc
    return None


def _refuse_twins(loras: list[Lora]) -> None:
    for place, lora in enumerate(loras):
        if lora.sha256 in {one.sha256 for one in loras[:place]}:
            raise invalid("loras", f"{lora.name} is asked for twice", "once, with the weight that is meant")


def _with_triggers(prompt: str, loras: list[Lora]) -> str:
    """Those that the prompt lacks, at its end."""
    parts = [prompt] if prompt else []
    for lora in loras:
        if lora.trigger and lora.trigger.lower() not in ", ".join(parts).lower():
            parts.append(lora.trigger)
    return ", ".join(parts)


def _resolved(ref: LoraRef, lora: Lora) -> LoraRef:
    if lora.is_embedding and (unread := ", ".join(ref.details)):
        raise invalid("loras", f"{lora.name} is an embedding, which has no {unread}", "leave that out")
    own = lora.weight if ref.weight is None else ref.weight
    return replace(ref, lora=lora.id, weight=own, name=lora.name, sha256=lora.sha256)


def check_strengths(spec: GenerateSpec, model: Model) -> None:
    """Raises INVALID_FIELD for blocks that the model does not have, and for steps that leave a LoRA none."""
    for ref in spec.loras:
        if ref.blocks:
            _check_blocks(ref, model)
        first, last = (share(told, spec.steps, usual) for told, usual in ((ref.start, 0.0), (ref.end, 1.0)))
        if first >= min(last, 1.0):
            why = f"of {ref.name} begin where they end, or behind the last of {spec.steps} steps"
            raise invalid("loras", f"start and end {why}", "let it count for some of them, or leave it out")
        if model.architecture.family == GENERIC and (ref.start is not None or ref.end is not None):
            why = f"of {ref.name} mean nothing to the model {model.name}, whose pipeline makes all steps at once"
            raise invalid("loras", f"start and end {why}", "leave them out")


def _check_blocks(ref: LoraRef, model: Model) -> None:
    known = blocks.LENGTHS.get(model.architecture.family, ())
    if len(ref.blocks) not in known:
        has = f"takes {' or '.join(map(str, known))} of them" if known else "has no blocks with known numbers"
        why = f"of {ref.name} are {len(ref.blocks)}, and the model {model.name} {has}"
        raise invalid("loras", f"blocks {why}", "see docs/loras.md, or leave them out")
