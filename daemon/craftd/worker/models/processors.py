"""Processors of texts and pictures: transformers' own want torchvision, so craft makes what it needs of them itself."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from transformers import AutoTokenizer
from transformers.processing_utils import ProcessorMixin

from craftd.worker.families import seeing
from craftd.worker.models.chat_templates import Framed

_TOKENIZERS = ("tokenizer", "tokenizer_2")
_READS_TEXTS = "Qwen3VLProcessor"  # whose pipeline cannot be made without it

Components = Mapping[str, tuple[str, str]]  # by name, as (library, class)


class Texts(ProcessorMixin):
    """A processor that is shown no pictures: its tokenizer, which gives a list of one where a processor does."""

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer
        self.chat_template = None  # the tokenizer has it

    def __call__(self, text: Any, **how: Any) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        return self.tokenizer(text, **how)

    def apply_chat_template(self, conversation: Any, *more: Any, **how: Any) -> Any:
        return [self.tokenizer.apply_chat_template(conversation, *more, **how)]


def made_by_craft(components: Components) -> list[str]:
    """The components that a pipeline is made without, and that `attach` gives it."""
    return [name for name, (_, kind) in components.items() if _is_tokenizing(name, kind) or kind == seeing.CLASS]


def of_texts(folder: Path, components: Components, model: str) -> dict[str, Texts]:
    """Those that a pipeline is made with. Raises OSError, ValueError for settings that are none."""
    return {name: _texts(folder / name, model) for name, (_, kind) in components.items() if kind == _READS_TEXTS}


def attach(pipe: Any, folder: Path, names: Iterable[str]) -> None:
    """Give a loaded pipeline those that it was made without. Raises OSError, ValueError for settings that are none.

    Where a processor stands for a tokenizer, no picture is shown to it: then its tokenizer does the same.
    """
    give = getattr(pipe, "update_components", None) or pipe.register_modules
    for name in names:
        if name in _TOKENIZERS:
            give(**{name: _its_own(_tokenizer(folder / name))})
        else:
            pipe.__dict__[name] = seeing.Processor.of(folder / name, pipe.tokenizer)


def _is_tokenizing(name: str, kind: str) -> bool:
    return name in _TOKENIZERS and kind.endswith("Processor")


def _texts(folder: Path, model: str) -> Texts:
    made = _tokenizer(folder)
    made.apply_chat_template = Framed(made, model)
    return Texts(made)


def _its_own(tokenizer: Any) -> Any:
    """As processors have one, for pipelines that ask them for it."""
    tokenizer.tokenizer = tokenizer
    return tokenizer


def _tokenizer(folder: Path) -> Any:
    return AutoTokenizer.from_pretrained(folder, local_files_only=True)
