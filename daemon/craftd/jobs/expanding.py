"""Wildcards of a request's prompts: chosen for each of its pictures by that one's seed, before anything is stored."""

from __future__ import annotations

import re
import secrets
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from craft_protos.generate import SEED_LIMIT, ExpandedPrompt, GenerateRequest, GenerateSpec
from craft_protos.lora import refuse_tags
from craft_protos.reasons import invalid
from craft_protos.settings import LimitSettings

from craftd.jobs import validate
from craftd.prompting.wildcards import Expansion, Wildcards

_MOST_CHARS = 1_000_000  # of all a job's prompts
_BRACE = re.compile(r"\\.|[{}]|<\s*(?:lora|lyco)\b", re.IGNORECASE | re.DOTALL)


def seeded(wanted: GenerateRequest) -> GenerateRequest:
    """With the seed that its wildcards are chosen by. Raises INVALID_FIELD for a LoRA among what is chosen."""
    if not wanted.wildcards:
        return wanted
    _require_tags_outside(wanted.prompt)
    seed = secrets.randbelow(SEED_LIMIT - (wanted.count or 1)) if wanted.seed is None else wanted.seed
    return replace(wanted, seed=seed)


def expand(
    wanted: GenerateRequest, prompt: str, settings_folder: str, limits: LimitSettings
) -> tuple[ExpandedPrompt, ...]:
    """The prompts of the pictures that a seeded request asks for. Raises INVALID_FIELD."""
    if not wanted.wildcards:
        return ()
    assert wanted.seed is not None
    wildcards = Wildcards(Path(settings_folder) if settings_folder else None)
    made, chars = list[ExpandedPrompt](), 0
    for index in sorted(wanted.indices) or range(wanted.count or 1):
        one = Expansion(wanted.seed + index, wildcards, limits.max_prompt_chars)
        made.append(ExpandedPrompt(one.of(prompt).strip(), one.of(wanted.negative_prompt).strip()))
        chars += len(made[-1].prompt) + len(made[-1].negative_prompt)
        if chars > _MOST_CHARS:
            message = f"has wildcards that become more than {_MOST_CHARS} characters in all its pictures"
            raise invalid("prompt", message, "ask for fewer pictures at once")
        if not made[-1].prompt and wanted.start is None:
            raise invalid("prompt", f"is empty for picture {index}, by its wildcards", "say something beside them")
    return tuple(made)


def completed(spec: GenerateSpec, expanded: Sequence[ExpandedPrompt], limits: LimitSettings) -> GenerateSpec:
    """The spec with what its wildcards became. Raises INVALID_FIELD where one of the prompts could not be drawn."""
    if not expanded:
        return spec
    for one in expanded:
        refuse_tags(one.prompt, "prompt")
        refuse_tags(one.negative_prompt, "negative_prompt")
        validate.check_prompts(replace(spec, prompt=one.prompt, negative_prompt=one.negative_prompt), limits)
        if spec.format == "jpeg":  # the template stands beside what it became
            validate.check_room_in_jpeg(spec.prompt + one.prompt, spec.negative_prompt + one.negative_prompt)
    return replace(spec, wildcards=True, expanded=tuple(expanded))


def texts(wanted: GenerateRequest, expanded: Sequence[ExpandedPrompt]) -> str:
    """All in which an embedding may be named, beside the prompt."""
    return "\n".join([wanted.negative_prompt, *(f"{one.prompt}\n{one.negative_prompt}" for one in expanded)])


def _require_tags_outside(prompt: str) -> None:
    depth = 0
    for token in _BRACE.finditer(prompt):
        if token.group() in "{}":
            depth += 1 if token.group() == "{" else -1
        elif depth > 0 and token.group().startswith("<"):
            message = "has a LoRA among what wildcards choose from, and all pictures of a job have the same LoRAs"
            raise invalid("prompt", message, "write <lora:...> outside the braces, or make several jobs")
