"""What models have for LoRAs to change, and how LoRAs fit that: asked of inspecting processes."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from craft_protos.reasons import CraftError

from craftd.workers.inspector import MODULE, asked, verdict_of

_LIMIT_S = 60.0  # the libraries that build networks take some seconds to import
_MODEL_S, _LORA_S = 60.0, 20.0  # more for each

Parts = dict[str, str]  # a model's configurations: "model_index.json", "unet/config.json", ... -> their text


@dataclass(frozen=True)
class Fit:
    """How a LoRA fits a model; `message` is what its LORA_MISMATCH says, with both names to be put in."""

    matched: int
    total: int
    layers: dict[str, int]  # of each network, how many are changed
    message: str
    hint: str
    unmatched: dict[str, str]  # tensor -> why; the first of them

    @property
    def is_whole(self) -> bool:
        return self.matched == self.total

    def mismatch(self, lora: str, model: str) -> CraftError:
        message = self.message.replace("{model}", model, 1).replace("{lora}", lora, 1)
        return CraftError("LORA_MISMATCH", message, self.hint, field="loras")

    @classmethod
    def of(cls, told: dict[str, Any]) -> Fit:
        """Raises KeyError, TypeError, ValueError for what is none."""
        return cls(
            matched=int(told["matched"]),
            total=int(told["total"]),
            layers={str(name): int(count) for name, count in told["layers"].items()},
            message=str(told["message"]),
            hint=str(told["hint"]),
            unmatched={str(key): str(why) for key, why in told["unmatched"].items()},
        )


AskLayouts = Callable[[Sequence[Parts]], Awaitable[list[str | CraftError]]]
AskFits = Callable[[Sequence[Path], Sequence[str]], Awaitable[list[list[Fit] | CraftError]]]


async def ask_layouts(models: Sequence[Parts], module: str = MODULE) -> list[str | CraftError]:
    """Each model's layout as JSON, or why it has none. Raises CORRUPT_FILE where that was not found out."""
    given = json.dumps({"models": models}).encode()
    answers = await asked("a model", ["--layouts"], _LIMIT_S + _MODEL_S * len(models), given, module)
    return [_error(answer) or str(answer["layout"]) for answer in _as_many(answers, len(models))]


async def ask_fits(loras: Sequence[Path], layouts: Sequence[str]) -> list[list[Fit] | CraftError]:
    """For each LoRA how it fits each layout, or what is wrong with it. Raises CORRUPT_FILE as above."""
    answers = await _ask_fits(loras, layouts)
    open_ones = [place for place, answer in enumerate(answers) if answer.get("convert")]
    if open_ones:  # dear, so only where diffusers may know more names than craft
        converted = await _ask_fits([loras[place] for place in open_ones], layouts, "--convert")
        for place, answer in zip(open_ones, converted, strict=True):
            answers[place] = answer
    try:
        return [_error(answer) or [Fit.of(fit) for fit in answer["fits"]] for answer in answers]
    except (KeyError, TypeError, ValueError, AttributeError) as exc:
        raise _unreadable() from exc


async def _ask_fits(loras: Sequence[Path], layouts: Sequence[str], *options: str) -> list[dict[str, Any]]:
    given = json.dumps({"loras": [str(path) for path in loras], "layouts": list(layouts)}).encode()
    limit_s = _LIMIT_S + _LORA_S * len(loras)
    return _as_many(await asked("a LoRA", ["--fits", *options], limit_s, given), len(loras))


def _as_many(answers: list[dict[str, Any]], count: int) -> list[dict[str, Any]]:
    if len(answers) != count:
        raise _unreadable()
    return answers


def _error(answer: dict[str, Any]) -> CraftError | None:
    verdict = verdict_of("a LoRA's fit", answer)
    return CraftError(verdict.reason, verdict.message, verdict.hint) if verdict.reason else None


def _unreadable() -> CraftError:
    return CraftError("CORRUPT_FILE", "how LoRAs fit could not be found out", "try again")
