"""The mark of tests that prove a cell of the matrix in docs/models.md: what of an architecture works in which form.

@covers("draw", form="folder", kind="kind")      the test's parameter `kind` names a tiny model, or a row
@covers("batch", form="folder", kind="sdxl")     a tiny model's own name
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from craftd.architectures.architecture import Architecture

FORMS = ("folder", "one file", "parts", "kept in fp8 or int8", "fp8 or GGUF file")
DOES = ("draw", "batch", "LoRA", "train", "references", "inpaint")
# Tiny models whose names are no architecture's.
_KINDS = {"sd": "sd1", "sd-text-time": "pocket", "sdxl-single": "sdxl", "sd3-single": "sd3", "flux-schnell": "flux"}
_KINDS |= {"sd-inpainting": "sd1", "sdxl-inpainting": "sdxl", "flux-fill": "flux", "flux2-dev": "flux2"}


@dataclass(frozen=True)
class Cell:
    architecture: str
    form: str
    does: str


def covers(*does: str, form: str, kind: str) -> pytest.MarkDecorator:
    assert form in FORMS and set(does) <= set(DOES), (form, does)
    return pytest.mark.covers(does, form, kind)


def cells(item: pytest.Item) -> Iterator[Cell]:
    """Those that a test proves."""
    given: dict[str, Any] = getattr(getattr(item, "callspec", None), "params", {})
    for mark in item.iter_markers("covers"):
        does, form, kind = mark.args
        architecture = _architecture(given.get(kind, kind))
        yield from (Cell(architecture, form, one) for one in does)


def _architecture(value: Any) -> str:
    """Of a row, of a tiny model's name, or of what begins with that."""
    if isinstance(value, Architecture):
        return value.id
    name = str(value[0] if isinstance(value, tuple) else value)
    return _KINDS.get(name, name.removesuffix("-turbo").removesuffix("-distilled"))
