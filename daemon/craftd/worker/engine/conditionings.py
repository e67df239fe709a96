"""What a row is drawn with, model call after model call: prompts that change on the way, and several joined by AND."""

from __future__ import annotations

import bisect
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

import torch
from craft_protos.generate import A1111, CRAFT, TextSpec
from craft_protos.reasons import invalid

from craftd.prompting import editing
from craftd.worker.families.base import Conditioning, Family, ModelRow
from craftd.worker.families.lru_cache import LruCache
from craftd.worker.families.prompts import EncoderWord
from craftd.worker.inputs.references import Shown
from craftd.worker.lora.adapter_manager import AdapterManager, Applied

_PROMPT_CACHE_BYTES = 8 << 20


@dataclass(frozen=True)
class Joined:
    """Prompts that are drawn at once. They are as long as each other, and share the first one's negative prompt."""

    prompts: tuple[Conditioning, ...]
    weights: tuple[float, ...] = (1.0,)

    @property
    def first(self) -> Conditioning:
        return self.prompts[0]

    @property
    def model_rows(self) -> int:
        return self.first.model_rows if len(self.prompts) == 1 else 1 + len(self.prompts)

    def rows(self, row: ModelRow) -> list[ModelRow]:
        """The rows that a family is asked for: of several prompts the negative one and each by itself."""
        if len(self.prompts) == 1:
            return [replace(row, conditioning=self.first)]
        first = self.first
        assert first.negative is not None
        without = replace(first, positive=first.negative, pooled=first.negative_pooled)
        return [replace(row, conditioning=_alone(one)) for one in (without, *self.prompts)]

    def guided(self, outputs: Sequence[torch.Tensor]) -> torch.Tensor:
        """What the outputs of `rows` are together (Liu et al. 2022, equation 11)."""
        if len(self.prompts) == 1:
            return outputs[0]
        without, *given = outputs
        added = [weight * (one - without) for weight, one in zip(self.weights, given, strict=True)]
        return without + self.first.guidance_scale * torch.stack(added).sum(dim=0)


@dataclass(frozen=True)
class Course:
    """`ends`: the last model call, from 0, of each of the prompts."""

    ends: tuple[int, ...]
    joined: tuple[Joined, ...]

    def at(self, call: int) -> Joined:
        return self.joined[min(bisect.bisect_left(self.ends, call), len(self.ends) - 1)]

    @property
    def model_rows(self) -> int:
        return max(one.model_rows for one in self.joined)


def steady(conditioning: Conditioning) -> Course:
    """One prompt from the first call to the last."""
    return Course((0,), (Joined((conditioning,)),))


class Encoding:
    """Encodes the texts of rows with one model's text encoders, and the LoRAs that are applied to them."""

    def __init__(self, family: Family, adapters: AdapterManager) -> None:
        self._family = family
        self._adapters = adapters
        self._encoded: LruCache[Conditioning] = LruCache(
            _PROMPT_CACHE_BYTES, lambda conditioning: conditioning.size_bytes
        )

    def clear(self) -> None:
        self._encoded.clear()

    def remarks(self, text: TextSpec) -> Sequence[str]:
        with self._reading(text.prompt_syntax):
            return self._family.remarks(text)

    def course(self, text: TextSpec, applied: Applied, shown: Shown, *, calls: int, is_again: bool) -> Course:
        """Of so many model calls; `is_again`: they are a second drawing's. Raises INVALID_FIELD."""
        if text.prompt_syntax != A1111:
            return steady(self._encode(text, applied, shown))
        weights, steps = editing.course(text.prompt, text.negative_prompt, calls, is_again=is_again)
        joined = [self._joined(text, step, weights, applied, shown) for step in steps]
        return Course(tuple(step.end for step in steps), tuple(joined))

    def _joined(
        self, text: TextSpec, step: editing.Together, weights: Sequence[float], applied: Applied, shown: Shown
    ) -> Joined:
        texts = [replace(text, prompt=prompt, negative_prompt=step.negative) for prompt in step.prompts]
        found = [self._encode(one, applied, shown) for one in texts]
        if len(found) == 1:
            return Joined((found[0],))
        self._require_joinable(found[0])
        return Joined(tuple(_as_long(found)), tuple(weights))

    def _require_joinable(self, one: Conditioning) -> None:
        if not self._family.composes:
            raise invalid("prompt", "joins prompts by AND, which this model cannot draw", "say it in one prompt")
        if one.negative is None:
            why = "joins prompts by AND, which takes a guidance scale above 1"
            raise invalid("prompt", why, "say it in one prompt, or raise the guidance scale")
        if one.text.guidance_rescale:
            raise invalid("guidance_rescale", "cannot be done where AND joins prompts", "leave one of them out")

    def _encode(self, text: TextSpec, applied: Applied, shown: Shown) -> Conditioning:
        key = (text, applied.text_key, shown.key)
        return self._encoded.get(key, lambda: self._encode_with(text, applied, shown))

    def _encode_with(self, text: TextSpec, applied: Applied, shown: Shown) -> Conditioning:
        with self._reading(text.prompt_syntax, applied):
            if not applied.text_key:
                return self._family.encode_shown(text, shown)
            with self._adapters.encoding(applied):
                return self._family.encode_shown(text, shown)

    @contextmanager
    def _reading(self, syntax: str, applied: Applied | None = None) -> Iterator[None]:
        try:
            for place, encoder in enumerate(self._family.texts):
                encoder.syntax = syntax
                if applied is not None and applied.text_key:
                    encoder.variant, encoder.words = applied.text_key, _words(applied, place)
            yield
        finally:
            for encoder in self._family.texts:
                encoder.variant, encoder.words, encoder.syntax = (), (), CRAFT


def _words(applied: Applied, place: int) -> tuple[EncoderWord, ...]:
    """The embeddings for the text encoder at that place."""
    component = f"text_encoder_{place + 1}" if place else "text_encoder"
    return tuple(EncoderWord(word.name, word.weight, word.vectors[component]) for word in applied.words)


def _alone(one: Conditioning) -> Conditioning:
    return replace(one, negative=None, negative_pooled=None)


def _as_long(found: Sequence[Conditioning]) -> Iterator[Conditioning]:
    """All as long as the longest, whose negative prompt they get; others repeat their last token."""
    longest = max(found, key=lambda one: one.positive.shape[1])
    for one in found:
        lacking = longest.positive.shape[1] - one.positive.shape[1]
        filled = torch.cat([one.positive, one.positive[:, -1:].expand(-1, lacking, -1)], dim=1)
        yield replace(one, positive=filled, negative=longest.negative, negative_pooled=longest.negative_pooled)
