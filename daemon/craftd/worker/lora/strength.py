"""How strong an adapter is whose file says so outside its tensors, as peft and diffusers save it.

`lora_adapter_metadata` holds a LoraConfig's fields: bare, as `save_lora_adapter` and peft's own adapter_config.json
have them, or each behind its component's name and a dot, as a pipeline's `save_lora_weights` has them. Of these the
ones that change the picture are read as numbers and plain names; nothing becomes configuration.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from craft_protos.reasons import CraftError

KEY = "lora_adapter_metadata"
_LONGEST = 1 << 20  # characters
_MOST_ALPHA = 1e6
_MOST_PATTERNS = 32  # of those that are more than a name
_PLAIN = re.compile(r"\^?(?:[\w-]|\\?\.)+\$?")
_SIMPLE = re.compile(r"\^?(?:[\w-]|\\\.|\.(?![*+?{])|\\d\+|\[0-9\]\+|\.[*+]|\||\((?:\?:)?[\w.|\\-]+\))+\$?")
_SEVERAL_STARS = re.compile(r"\.[*+].*\.[*+]")
# Adapters of these begin as parts of the model's own weights, and without what they took from them are another change.
_TAKES_FROM_THE_WEIGHTS = ("pissa", "olora", "corda", "loftq", "mica")


@dataclass(frozen=True)
class Scaling:
    """One component's: alpha, and whether it counts by the rank's root (Kalajdzievski 2023)."""

    alpha: float | None
    by_root: bool = False
    patterns: tuple[tuple[str, float], ...] = ()  # of layers' names, each with an alpha of its own; the first counts

    def scale(self, rank: int, names: Iterable[str]) -> float:
        """alpha / rank of a layer that goes by any of `names`."""
        alpha = self._alpha(tuple(names))
        if alpha is None:
            return 1.0
        return alpha / (math.sqrt(rank) if self.by_root else rank)

    def _alpha(self, names: Sequence[str]) -> float | None:
        for pattern, alpha in self.patterns:
            if any(_is_named(pattern, name) for name in names):
                return alpha
        return self.alpha


@dataclass(frozen=True)
class Strengths:
    """By component; "" is for whatever has none of its own."""

    by_component: Mapping[str, Scaling]
    complaint: str = ""  # why what the file says is not followed

    def scale(self, component: str, rank: int, names: Iterable[str]) -> float:
        scaling = self.by_component.get(component) or self.by_component.get("")
        return 1.0 if scaling is None else scaling.scale(rank, names)

    def __bool__(self) -> bool:
        return bool(self.by_component)


def read(name: str, metadata: Mapping[str, str]) -> Strengths:
    """What LoRA `name`'s file says. Raises UNSUPPORTED_LORA where it asks for what craft cannot follow."""
    text = metadata.get(KEY, "")
    if not text:
        return Strengths({})
    told = _parsed(text)
    if told is None:
        return Strengths({}, f"its {KEY} cannot be read")
    found: dict[str, Scaling] = {}
    complaint = ""
    for component in {key.rpartition(".")[0] for key in told if key.rpartition(".")[2] in _FIELDS}:
        said = {field: told[key] for field in _FIELDS if (key := f"{component}.{field}".lstrip(".")) in told}
        _refuse_others(name, said)
        alpha = said.get("lora_alpha")
        if alpha is not None and not _is_alpha(alpha):
            complaint = f"its {KEY} says {str(alpha)[:40]!r} as its lora_alpha, which is no strength"
            continue
        patterns = _patterns(name, said.get("alpha_pattern"))
        if alpha is not None or patterns:
            by_root = said.get("use_rslora") is True
            found[component] = Scaling(None if alpha is None else float(alpha), by_root, patterns)
    return Strengths(found, complaint)


_FIELDS = (
    *("lora_alpha", "use_rslora", "alpha_pattern"),
    *("peft_type", "init_lora_weights", "layer_replication", "use_qalora", "alora_invocation_tokens"),
)


def _parsed(text: str) -> dict[str, Any] | None:
    if len(text) > _LONGEST:
        return None
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def _refuse_others(name: str, said: Mapping[str, Any]) -> None:
    """What peft would do with the layers besides adding the product. Raises UNSUPPORTED_LORA."""
    kind, begun = said.get("peft_type", "LORA"), said.get("init_lora_weights")
    if kind not in ("LORA", None):
        raise _unsupported(name, f"is an adapter of peft's kind {str(kind)[:40]!r}", "use a LoRA, LoCon or DoRA")
    if isinstance(begun, str) and begun.lower().startswith(_TAKES_FROM_THE_WEIGHTS):
        why = f"was begun from the model's own weights (peft's {begun[:40]!r}), which it changes too"
        raise _unsupported(name, why, "have peft's save_pretrained convert it to a plain LoRA")
    for field in ("layer_replication", "use_qalora", "alora_invocation_tokens"):
        if said.get(field):
            raise _unsupported(name, f"needs peft's {field}, which craft does not do", "use a plain LoRA")


def _patterns(name: str, value: object) -> tuple[tuple[str, float], ...]:
    """Raises UNSUPPORTED_LORA for one that craft will not run."""
    if not isinstance(value, dict):
        return ()
    found = tuple((str(pattern), float(alpha)) for pattern, alpha in value.items() if _is_alpha(alpha))
    others = [pattern for pattern, _ in found if not _PLAIN.fullmatch(pattern)]
    bad = next((pattern for pattern in others if not _is_simple(pattern)), None)
    if len(found) < len(value) or len(others) > _MOST_PATTERNS or bad is not None:
        shown = ascii(str(bad if bad is not None else value)[:60])
        raise _unsupported(
            name,
            f"gives layers an alpha by the pattern {shown}, which craft does not follow",
            "save it with plain names",
        )
    return found


def _is_simple(pattern: str) -> bool:
    """Whether it takes no time to speak of, whatever it is matched with."""
    if len(pattern) > 500 or not _SIMPLE.fullmatch(pattern) or _SEVERAL_STARS.search(pattern):
        return False
    try:
        re.compile(pattern)
    except re.error:
        return False
    return True


def _is_named(pattern: str, name: str) -> bool:
    """As peft decides it: the pattern is the layer's name, or what follows a dot in it."""
    if _PLAIN.fullmatch(pattern):
        wanted = pattern.rstrip("$").replace("\\.", ".")
        return name == wanted.lstrip("^") or (wanted[:1] != "^" and name.endswith(f".{wanted}"))
    return re.match(rf"(.*\.)?({pattern})$", name) is not None


def _is_alpha(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < _MOST_ALPHA


def _unsupported(name: str, why: str, hint: str) -> CraftError:
    return CraftError("UNSUPPORTED_LORA", f"LoRA {name} {why}", hint)
