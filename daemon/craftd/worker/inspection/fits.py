"""How well LoRAs fit models: the engine's own reading and fit, without the models."""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from craftd import safetensors
from craftd.worker.inspection.tree import single
from craftd.worker.lora import reading
from craftd.worker.lora.fit import Fit, fit, may_be_converted, mismatch
from craftd.worker.lora.layout import Layout
from craftd.worker.lora.reading import Reading
from craftd.worker.lora.spellings import Spellings

_MOST_NAMED = 20


class NeedsConverter(Exception):
    """diffusers may know more of a file's names: worth its import."""


def prepare() -> None:
    """Import what converts, before the process is confined."""
    from craftd.worker.inspection import layouts

    layouts.prepare()
    importlib.import_module("craftd.worker.lora.match")


def of(path: Path, models: Sequence[Spellings], *, with_converters: bool) -> Iterator[dict[str, object]]:
    """What fits of one file in each model. Raises as the check of a LoRA's file, and NeedsConverter."""
    header = safetensors.read(single(path))
    found = reading.read(path.name, header.shapes, header.metadata)
    for spellings in models:
        yield _told(_fit(path, found, spellings, with_converters=with_converters), spellings.layout)


def _fit(path: Path, found: Reading, spellings: Spellings, *, with_converters: bool) -> Fit:
    if not spellings.layout.has_converter:
        return _refused(found, spellings.layout)
    by_names = fit(found, spellings)
    if not may_be_converted(found, by_names, spellings.layout):
        return by_names
    if not with_converters:
        raise NeedsConverter
    from craftd.worker.lora import file, match

    diffusers: Any = importlib.import_module("diffusers")
    with file.opened(path, path.name) as opened:
        return match.fitted(opened, spellings, lambda: getattr(diffusers, spellings.layout.pipeline))[0]


def _refused(found: Reading, layout: Layout) -> Fit:
    """As the engine does: diffusers knows of no LoRAs for the pipeline."""
    return Fit(len(found.shapes), dict.fromkeys(found.shapes, f"{layout.pipeline} takes no LoRAs"), ())


def _told(found: Fit, layout: Layout) -> dict[str, object]:
    error = mismatch("{lora}", "{model}", found.matched, found.total, found.unmatched)
    return {
        "matched": found.matched,
        "total": found.total,
        "layers": {name: count for name in layout.components if (count := found.layers(name))},
        "message": error.message,
        "hint": error.hint,
        "unmatched": dict(list(found.unmatched.items())[:_MOST_NAMED]),
    }
