"""Processors of texts and pictures: transformers' own want torchvision, so craft makes what it needs of them itself."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from transformers import AutoTokenizer

from craftd.worker.families import seeing

_TOKENIZERS = ("tokenizer", "tokenizer_2")


def made_by_craft(components: Mapping[str, tuple[str, str]]) -> list[str]:
    """The components that a pipeline is made without, and that `attach` gives it."""
    return [name for name, (_, kind) in components.items() if _is_tokenizing(name, kind) or kind == seeing.CLASS]


def attach(pipe: Any, folder: Path, names: Iterable[str]) -> None:
    """Give a loaded pipeline those that it was made without. Raises OSError, ValueError for settings that are none.

    Where a processor stands for a tokenizer, no picture is shown to it: then its tokenizer does the same.
    """
    for name in names:
        if name in _TOKENIZERS:
            pipe.register_modules(**{name: AutoTokenizer.from_pretrained(folder / name, local_files_only=True)})
        else:
            pipe.__dict__[name] = seeing.Processor.of(folder / name, pipe.tokenizer)


def _is_tokenizing(name: str, kind: str) -> bool:
    return name in _TOKENIZERS and kind.endswith("Processor")
