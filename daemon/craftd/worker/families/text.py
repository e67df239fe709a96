"""A CLIP tokenizer and text encoder: texts of any length and weights -> embeddings."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

import torch

from craftd.worker import prompts
from craftd.worker.prompts import Chunk

_CHUNKS_KEPT = 256


class ClipTokenizer:
    """What prompts.py needs of a transformers tokenizer."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self._length = int(tokenizer.model_max_length)
        empty = list(tokenizer("").input_ids)
        self._begin, self._end = empty[: len(empty) // 2], empty[len(empty) // 2 :]

    @property
    def marks(self) -> tuple[int, int]:
        return len(self._begin), len(self._end)

    @property
    def capacity(self) -> int:
        return self._length - sum(self.marks)

    def ids(self, text: str) -> list[int]:
        return list(self._tokenizer(text, add_special_tokens=False, verbose=False).input_ids)

    def padded(self, ids: Sequence[int]) -> list[int]:
        marked = [*self._begin, *ids, *self._end]
        return marked + [self._tokenizer.pad_token_id] * (self._length - len(marked))


class ClipText:
    """Encodes prompts; each chunk alone, as diffusers does with one prompt, and only once."""

    def __init__(self, tokenizer: Any, encoder: Any, device: torch.device) -> None:
        self._tokenizer = ClipTokenizer(tokenizer)
        self._encoder = encoder
        self._device = device
        self._empty = prompts.empty(self._tokenizer)
        self._kept: OrderedDict[Chunk, torch.Tensor] = OrderedDict()

    def encode(self, prompt: str) -> list[Chunk]:
        """The chunks that `prompt` needs."""
        return prompts.chunks(prompt, self._tokenizer)

    def embed(self, chunks: Sequence[Chunk], count: int) -> torch.Tensor:
        """1, tokens, features: the chunks' embeddings, filled up with empty ones to `count` chunks."""
        filled = [*chunks, *[self._empty] * (count - len(chunks))]
        return torch.cat([self._chunk(chunk) for chunk in filled], dim=1)

    def _chunk(self, chunk: Chunk) -> torch.Tensor:
        if chunk not in self._kept:
            self._kept[chunk] = self._weighted(chunk)
        self._kept.move_to_end(chunk)
        while len(self._kept) > _CHUNKS_KEPT:
            self._kept.popitem(last=False)
        return self._kept[chunk]

    def _weighted(self, chunk: Chunk) -> torch.Tensor:
        plain = self._run(chunk)
        if chunk.is_plain:
            return plain
        weights = torch.tensor(chunk.weights, dtype=torch.float32, device=plain.device)[None, :, None]
        origin = self._chunk(self._empty).float()
        moved = (origin + weights * (plain.float() - origin)).to(plain.dtype)
        return torch.where(weights == 1, plain, moved)

    def _run(self, chunk: Chunk) -> torch.Tensor:
        ids = torch.tensor([chunk.ids], device=self._device)
        uses_mask = getattr(self._encoder.config, "use_attention_mask", False)
        mask = self._mask(chunk) if uses_mask else None
        embedding: torch.Tensor = self._encoder(ids, attention_mask=mask)[0]
        return embedding.to(dtype=self._encoder.dtype)

    def _mask(self, chunk: Chunk) -> torch.Tensor:
        return torch.tensor([chunk.mask], device=self._device)
