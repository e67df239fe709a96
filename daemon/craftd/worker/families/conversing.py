"""What the flow-matching transformers have in common whose words a language model reads, as a conversation."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
from craft_protos.generate import TextSpec

from craftd.worker.families import guidance
from craftd.worker.families.base import ModelRow, TextEncoder
from craftd.worker.families.flow import EvenlySpaced
from craftd.worker.families.text import FramedText

WORDS = 512  # tokens, as their pipelines' calls have it
_PATCH = 2


class Conversing(EvenlySpaced):
    """A loaded pipeline of such a model; `length`: the tokens that are read, those of its frame among them."""

    def __init__(self, pipe: Any, device: torch.device, *, length: int = WORDS, patch: int = _PATCH) -> None:
        super().__init__(pipe, device, patch=patch)
        self._text = FramedText(self._encoded, pipe.tokenizer, self._framed, length=length)

    @property
    def texts(self) -> Sequence[TextEncoder]:
        return [self._text]

    def remarks(self, text: TextSpec) -> Sequence[str]:
        said = self._text.remarks({"prompt": text.prompt, "negative prompt": text.negative_prompt})
        if text.negative_prompt and not self._is_guided(text):
            said.append(f"the negative prompt does nothing with a guidance scale of {text.guidance_scale:g}")
        return said

    def order(self, rows: Sequence[ModelRow]) -> Sequence[ModelRow]:
        return guidance.order(rows)

    def _is_guided(self, text: TextSpec) -> bool:
        """Whether a second row without the prompt is computed."""
        return text.guidance_scale > 1

    @abstractmethod
    def _encoded(self, text: str) -> torch.Tensor:
        """1, tokens, features..."""

    @abstractmethod
    def _framed(self, text: str) -> str:
        """What the language model is given."""


def of_one_message(tokenizer: Any, text: str, *, thinking: bool) -> str:
    """The text as a conversation's only message, by the tokenizer's own template."""
    messages = [{"role": "user", "content": text}]
    how = {"tokenize": False, "add_generation_prompt": True, "enable_thinking": thinking}
    return str(tokenizer.apply_chat_template(messages, **how))
