"""Strangers' JSON and settings: read within limits, each taken once, so that what is left can be named."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from pathlib import PureWindowsPath
from typing import Any

from craft_protos.recipes.recipe import Named

_LONGEST_JSON = 4 << 20  # characters; a workflow of a thousand nodes has one million
_DEEPEST_JSON = 64
_LONGEST_NUMBER = 40
_LONGEST_SHOWN = 60
_LONGEST_NAME = 200
_HASH = re.compile(r"(?:0x|sha256:)?([0-9a-f]{8,64})", re.IGNORECASE)
_OF_NOTHING = "e3b0c44298"  # how the sha256 of no bytes begins: AUTOMATIC1111 writes it where it cannot read a file
_EXTENSION = re.compile(r"\.(safetensors|sft|ckpt|pt|pth|bin|gguf)$", re.IGNORECASE)
_BRACES = re.compile(r'"(?:[^"\\]|\\.)*"|[\[{]|[\]}]')  # linear: its branches begin with different characters
_NOTHING: tuple[Any, ...] = (None, "", False, "None", "none", [], {})


def json_of(text: str) -> dict[str, Any] | None:
    """The object that a text is, within limits of size and depth; None where it is none."""
    if len(text) > _LONGEST_JSON or not text.lstrip().startswith("{") or _is_deep(text):
        return None
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def _is_deep(text: str) -> bool:
    depth = 0
    for one in _BRACES.finditer(text):
        depth += {"[": 1, "{": 1, "]": -1, "}": -1}.get(one[0], 0)
        if depth > _DEEPEST_JSON:
            return True
    return False


def number_of(value: Any) -> float | None:
    """A finite number, or a short text of one."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        found = float(value) if not isinstance(value, str) or len(value) <= _LONGEST_NUMBER else math.nan
    except (ValueError, OverflowError):
        return None
    return found if math.isfinite(found) else None


def whole_of(value: Any) -> int | None:
    """A whole number, or a short text of one; exact, for seeds are long."""
    if isinstance(value, str) and len(value) <= _LONGEST_NUMBER and re.fullmatch(r"\s*[+-]?\d+\s*", value):
        return int(value)
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    found = number_of(value)
    return int(found) if found is not None and found == int(found) else None


def named(file: Any, digits: Any = "", version: Any = "") -> Named:
    """A file by its path and hash as other programs write them; what is neither is left out."""
    path = file if isinstance(file, str) else ""
    name = _EXTENSION.sub("", PureWindowsPath(path[-_LONGEST_NAME:]).name)
    found = _HASH.fullmatch(digits.strip()) if isinstance(digits, str) else None
    known = found[1].lower() if found and not found[1].lower().startswith(_OF_NOTHING) else ""
    number = whole_of(version)
    return Named(name, known, str(number) if number is not None and number > 0 else "")


def shown(value: Any) -> str:
    """A value in a line, shortened."""
    text = value if isinstance(value, str) else json.dumps(_shallow(value), ensure_ascii=False, default=str)
    text = " ".join(text[: 2 * _LONGEST_SHOWN].split())
    return text if len(text) <= _LONGEST_SHOWN else text[:_LONGEST_SHOWN] + "…"


def _shallow(value: Any) -> Any:
    """A large value by its beginning: the rest is not written out only to be cut off."""
    if isinstance(value, list | dict):
        return f"{len(value)} entries" if len(value) > 8 else value
    return value


def _says(value: Any) -> bool:
    """Whether a setting does anything: an empty one, and one of zero, does not."""
    return value not in _NOTHING and number_of(value) != 0


class Told:
    """Settings by their names. Each is taken by one reader; `left` names those that nobody took."""

    def __init__(self, fields: Mapping[str, Any]) -> None:
        self._left = dict(fields)

    def take(self, *names: str) -> Any:
        """The first of them that is there; all are taken."""
        found = [self._left.pop(name) for name in names if name in self._left]
        return found[0] if found else None

    def text(self, *names: str) -> str:
        """ "" where it is none; then it is left."""
        return self._one(names, lambda value: value if isinstance(value, str) else None) or ""

    def number(self, *names: str) -> float | None:
        found: float | None = self._one(names, number_of)
        return found

    def whole(self, *names: str) -> int | None:
        found: int | None = self._one(names, whole_of)
        return found

    def entries(self, *names: str) -> list[Any]:
        found: list[Any] | None = self._one(names, lambda value: value if isinstance(value, list) else None)
        return found or []

    def fields(self, *names: str) -> dict[str, Any]:
        found: dict[str, Any] | None = self._one(names, lambda value: value if isinstance(value, dict) else None)
        return found or {}

    def left(self) -> tuple[str, ...]:
        """ "name: value" of what nobody took, without what says nothing."""
        return tuple(f"{shown(name)}: {shown(value)}" for name, value in self._left.items() if _says(value))

    def _one(self, names: tuple[str, ...], read: Any) -> Any:
        for name in names:
            if name in self._left and (found := read(self._left[name])) is not None:
                del self._left[name]
                return found
        return None
