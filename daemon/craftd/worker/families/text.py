"""Tokenizers and text encoders: texts -> embeddings. CLIP takes any length and weights, T5 plain text."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any

import torch

from craftd.worker import prompts
from craftd.worker.kept import Kept, tensor_bytes
from craftd.worker.prompts import Chunk

_KEPT_BYTES, _KEPT_T5_BYTES = 8 << 20, 16 << 20  # for each encoder


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
        self.variant: Hashable = ()  # the LoRAs applied to the encoder now
        self._kept: Kept[torch.Tensor] = Kept(_KEPT_BYTES, tensor_bytes)

    def encode(self, prompt: str) -> list[Chunk]:
        """The chunks that `prompt` needs."""
        return prompts.chunks(prompt, self._tokenizer)

    def embed(self, chunks: Sequence[Chunk], count: int) -> torch.Tensor:
        """1, tokens, features: the chunks' embeddings, filled up with empty ones to `count` chunks."""
        filled = [*chunks, *[self._empty] * (count - len(chunks))]
        return torch.cat([self._chunk(chunk) for chunk in filled], dim=1)

    def _chunk(self, chunk: Chunk) -> torch.Tensor:
        return self._kept.get((self.variant, chunk), lambda: self._weighted(chunk))

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


class PooledClipText(ClipText):
    """The features before the encoder's last layer, and those of a text as a whole (of its first chunk, unweighted)."""

    def __init__(self, tokenizer: Any, encoder: Any, device: torch.device) -> None:
        super().__init__(tokenizer, encoder, device)
        self._pooled: Kept[torch.Tensor] = Kept(_KEPT_BYTES, tensor_bytes)

    def pooled(self, chunks: Sequence[Chunk]) -> torch.Tensor:
        """1, features."""
        return self._pooled.get((self.variant, chunks[0]), lambda: self._run_both(chunks[0])[1])

    def _run(self, chunk: Chunk) -> torch.Tensor:
        hidden, whole = self._run_both(chunk)
        self._pooled.put((self.variant, chunk), whole)
        return hidden

    def _run_both(self, chunk: Chunk) -> tuple[torch.Tensor, torch.Tensor]:
        """(1, tokens, features), and 1, features."""
        output = self._encoder(torch.tensor([chunk.ids], device=self._device), output_hidden_states=True)
        whole = output.text_embeds if "text_embeds" in output else output.pooler_output
        hidden: torch.Tensor = output.hidden_states[-2]
        return hidden.to(dtype=self._encoder.dtype), whole.to(dtype=self._encoder.dtype)


class ClipTexts:
    """Several CLIP encoders side by side, their features concatenated: SDXL's and SD3's way."""

    def __init__(self, *encoders: PooledClipText) -> None:
        self.encoders = encoders

    def chunks(self, prompt: str) -> list[list[Chunk]]:
        """For each encoder, the chunks that `prompt` needs."""
        return [encoder.encode(prompt) for encoder in self.encoders]

    def embed(self, chunks: Sequence[Sequence[Chunk]], count: int) -> torch.Tensor:
        """1, tokens, features."""
        return torch.cat([one.embed(some, count) for one, some in zip(self.encoders, chunks, strict=True)], dim=-1)

    def last_pooled(self, chunks: Sequence[Sequence[Chunk]]) -> torch.Tensor:
        """1, features: the text as a whole, as the last encoder has it."""
        return self.encoders[-1].pooled(chunks[-1])

    def pooled(self, chunks: Sequence[Sequence[Chunk]]) -> torch.Tensor:
        """1, features."""
        return torch.cat([one.pooled(some) for one, some in zip(self.encoders, chunks, strict=True)], dim=-1)


class T5Text:
    """T5 reads at most `length` tokens, as diffusers has it, and knows no weights: it gets the words alone."""

    def __init__(self, tokenizer: Any, encoder: Any, device: torch.device, *, length: int) -> None:
        self._tokenizer = tokenizer
        self._encoder = encoder
        self._device = device
        self._length = length
        self.variant: Hashable = ()
        self._kept: Kept[torch.Tensor] = Kept(_KEPT_T5_BYTES, tensor_bytes)

    def embed(self, prompt: str) -> torch.Tensor:
        """1, tokens, features."""
        text = "".join(fragment.text for fragment in prompts.parse(prompt))
        return self._kept.get((self.variant, text), lambda: self._run(text))

    def _run(self, text: str) -> torch.Tensor:
        ids = self._tokenizer(
            [text], padding="max_length", max_length=self._length, truncation=True, return_tensors="pt"
        ).input_ids
        embedding: torch.Tensor = self._encoder(ids.to(self._device))[0]
        return embedding.to(dtype=self._encoder.dtype)


def most(*chunked: Sequence[Sequence[Chunk]]) -> int:
    """How many chunks the longest text has."""
    return max(len(chunks) for texts in chunked for chunks in texts)
