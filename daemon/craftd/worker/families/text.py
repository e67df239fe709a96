"""Tokenizers and text encoders: texts -> embeddings.

CLIP takes any length and weights, T5 plain text, language models a text in the frame of a conversation.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import cached_property
from typing import Any

import torch
from craft_protos.generate import A1111, CRAFT, PLAIN
from craft_protos.reasons import CraftError, invalid

from craftd.worker.families import prompts
from craftd.worker.families.lru_cache import LruCache, tensor_bytes
from craftd.worker.families.prompts import FIRST_VECTOR, Chunk, EncoderWord, Fragment

_CACHE_BYTES, _T5_CACHE_BYTES = 8 << 20, 16 << 20  # for each encoder
_FRAMED_CACHE_BYTES = 64 << 20  # FLUX.2's are 8 MB each

Frame = Callable[[str], str]  # a prompt -> what a language model is given


class ClipTokenizer:
    """What prompts.py needs of a transformers tokenizer."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self._length = int(tokenizer.model_max_length)
        empty = list(tokenizer("").input_ids)
        self._begin, self._end = empty[: len(empty) // 2], empty[len(empty) // 2 :]
        self.words: Sequence[EncoderWord] = ()
        comma = self._ids(",")
        self._comma = comma[0] if len(comma) == 1 else None

    @property
    def marks(self) -> tuple[int, int]:
        return len(self._begin), len(self._end)

    @property
    def capacity(self) -> int:
        return self._length - sum(self.marks)

    @property
    def comma(self) -> int | None:
        """The token of a comma; None where it takes several, or is the unknown one."""
        return self._comma

    def pieces(self, text: str) -> list[tuple[list[int], float]]:
        """The names of `words` become ids from FIRST_VECTOR on, one for each vector."""
        if not self.words:
            return [(self._ids(text), 1.0)]
        found = re.split(self._names, text, flags=re.IGNORECASE)
        return [self._word(part) if place % 2 else (self._ids(part), 1.0) for place, part in enumerate(found)]

    @property
    def _names(self) -> str:
        names = "|".join(re.escape(word.name) for word in sorted(self.words, key=lambda word: -len(word.name)))
        return rf"(?<![\w:-])(?:embedding:)?({names})(?![\w-])"

    def _word(self, name: str) -> tuple[list[int], float]:
        first = FIRST_VECTOR
        for word in self.words:
            if word.name.lower() == name.lower():
                return list(range(first, first + len(word.vectors))), word.weight
            first += len(word.vectors)
        raise AssertionError(name)

    def _ids(self, text: str) -> list[int]:
        return list(self._tokenizer(text, add_special_tokens=False, verbose=False).input_ids) if text.strip() else []

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
        self.words: Sequence[EncoderWord] = ()  # embeddings that stand for their names
        self.syntax = CRAFT  # how the texts are written now
        self._cache: LruCache[torch.Tensor] = LruCache(_CACHE_BYTES, tensor_bytes)

    def encode(self, prompt: str) -> list[Chunk]:
        """The chunks that `prompt` needs."""
        self._tokenizer.words = self.words
        return prompts.chunks(prompt, self._tokenizer, self.syntax)

    def embed(self, chunks: Sequence[Chunk], count: int, clip_skip: int = 1) -> torch.Tensor:
        """1, tokens, features: the chunks' embeddings, filled up with empty ones to `count` chunks.

        `clip_skip`: the layer that they are read at, 1 for the last. Raises INVALID_FIELD where there is none.
        """
        filled = [*chunks, *[self._empty] * (count - len(chunks))]
        return torch.cat([self._chunk(chunk, clip_skip) for chunk in filled], dim=1)

    def _chunk(self, chunk: Chunk, clip_skip: int) -> torch.Tensor:
        return self._cache.get((self.variant, chunk, clip_skip), lambda: self._weighted(chunk, clip_skip))

    def _weighted(self, chunk: Chunk, clip_skip: int) -> torch.Tensor:
        plain = self._run(chunk, clip_skip)
        if chunk.is_plain:
            return plain
        if chunk.syntax == A1111:
            return _multiplied(plain, chunk.weights)
        weights = torch.tensor(chunk.weights, dtype=torch.float32, device=plain.device)[None, :, None]
        origin = self._chunk(self._empty, clip_skip).float()
        moved = (origin + weights * (plain.float() - origin)).to(plain.dtype)
        return torch.where(weights == 1, plain, moved)

    def _run(self, chunk: Chunk, clip_skip: int) -> torch.Tensor:
        uses_mask = getattr(self._encoder.config, "use_attention_mask", False)
        mask = self._mask(chunk) if uses_mask else None
        output = self._call(chunk, attention_mask=mask, output_hidden_states=clip_skip > 1)
        embedding: torch.Tensor = output[0]
        if clip_skip > 1:
            embedding = self._encoder.final_layer_norm(_layer(output, clip_skip))
        return embedding.to(dtype=self._encoder.dtype)

    def _call(self, chunk: Chunk, **arguments: Any) -> Any:
        """What the encoder makes of the chunk's tokens, the vectors of embeddings in their places."""
        places = {place: one - FIRST_VECTOR for place, one in enumerate(chunk.ids) if one >= FIRST_VECTOR}
        ids = torch.tensor([[0 if place in places else one for place, one in enumerate(chunk.ids)]])
        with self._vectors(places):
            return self._encoder(ids.to(self._device), **arguments)

    @contextmanager
    def _vectors(self, places: Mapping[int, int]) -> Iterator[None]:
        if not places:
            yield
            return
        vectors = torch.cat([word.vectors for word in self.words])

        def put(_module: Any, _ids: Any, embedded: torch.Tensor) -> torch.Tensor:
            embedded = embedded.clone()
            embedded[0, list(places)] = vectors[list(places.values())].to(embedded)
            return embedded

        handle = self._encoder.get_input_embeddings().register_forward_hook(put)
        try:
            yield
        finally:
            handle.remove()

    def _mask(self, chunk: Chunk) -> torch.Tensor:
        return torch.tensor([chunk.mask], device=self._device)


class PooledClipText(ClipText):
    """The features before the encoder's last layer, and those of a text as a whole (of its first chunk, unweighted)."""

    def __init__(self, tokenizer: Any, encoder: Any, device: torch.device) -> None:
        super().__init__(tokenizer, encoder, device)
        self._pooled: LruCache[torch.Tensor] = LruCache(_CACHE_BYTES, tensor_bytes)

    def pooled(self, chunks: Sequence[Chunk]) -> torch.Tensor:
        """1, features."""
        return self._pooled.get((self.variant, chunks[0]), lambda: self._run_both(chunks[0], 1)[1])

    def _run(self, chunk: Chunk, clip_skip: int) -> torch.Tensor:
        hidden, whole = self._run_both(chunk, clip_skip)
        self._pooled.put((self.variant, chunk), whole)
        return hidden

    def _run_both(self, chunk: Chunk, clip_skip: int) -> tuple[torch.Tensor, torch.Tensor]:
        """(1, tokens, features), and 1, features."""
        output = self._call(chunk, output_hidden_states=True)
        whole = output.text_embeds if "text_embeds" in output else output.pooler_output
        hidden = _layer(output, max(2, clip_skip))
        return hidden.to(dtype=self._encoder.dtype), whole.to(dtype=self._encoder.dtype)


class ClipTexts:
    """Several CLIP encoders side by side, their features concatenated: SDXL's and SD3's way."""

    def __init__(self, *encoders: PooledClipText) -> None:
        self.encoders = encoders

    def chunks(self, prompt: str) -> list[list[Chunk]]:
        """For each encoder, the chunks that `prompt` needs."""
        return [encoder.encode(prompt) for encoder in self.encoders]

    def embed(self, chunks: Sequence[Sequence[Chunk]], count: int, clip_skip: int = 1) -> torch.Tensor:
        """1, tokens, features."""
        pairs = zip(self.encoders, chunks, strict=True)
        return torch.cat([one.embed(some, count, clip_skip) for one, some in pairs], dim=-1)

    def last_pooled(self, chunks: Sequence[Sequence[Chunk]]) -> torch.Tensor:
        """1, features: the text as a whole, as the last encoder has it."""
        return self.encoders[-1].pooled(chunks[-1])

    def pooled(self, chunks: Sequence[Sequence[Chunk]]) -> torch.Tensor:
        """1, features."""
        return torch.cat([one.pooled(some) for one, some in zip(self.encoders, chunks, strict=True)], dim=-1)


class T5Text:
    """T5 reads at most `length` tokens, as diffusers has it.

    In craft's syntax it gets the words without their weights; in AUTOMATIC1111's those multiply its tokens' features.

    `masks_padding`: what fills them up is kept from it, which most families' pipelines do not do.
    """

    def __init__(
        self, tokenizer: Any, encoder: Any, device: torch.device, *, length: int, masks_padding: bool = False
    ) -> None:
        self._tokenizer = tokenizer
        self._encoder = encoder
        self._device = device
        self._length = length
        self._masks_padding = masks_padding
        self.variant: Hashable = ()
        self.words: Sequence[EncoderWord] = ()  # of none that craft draws with T5
        self.syntax = CRAFT
        self._cache: LruCache[torch.Tensor] = LruCache(_T5_CACHE_BYTES, tensor_bytes)

    def embed(self, prompt: str) -> torch.Tensor:
        """1, tokens, features."""
        fragments = self._fragments(prompt)
        return self._cache.get((self.variant, fragments), lambda: self._run(fragments))

    def count(self, prompt: str) -> int:
        """The tokens that are words of it, and the mark at their end."""
        return int(self._tokenized(self._fragments(prompt))[1].sum())

    def _fragments(self, prompt: str) -> tuple[Fragment, ...]:
        """Those of one weight are one."""
        found = prompts.parse(prompt, self.syntax)
        if self.syntax == A1111:
            return tuple(one for one in found if not one.breaks)
        return (Fragment("".join(one.text for one in found), 1.0),)

    def remarks(self, texts: Mapping[str, str]) -> list[str]:
        """Of the texts, by what they are called: weights that do nothing, and words that are not read."""
        said = []
        for name, text in texts.items():
            fragments = prompts.parse(text, self.syntax)
            if self.syntax != A1111 and any(fragment.weight != 1 for fragment in fragments):
                said.append(f"the {name}'s weights do nothing to what T5 reads: it knows none")
            if any(fragment.breaks for fragment in fragments):
                said.append(f"the {name}'s BREAK does nothing to what T5 reads: it has one chunk")
            words = "".join(one.text for one in fragments)
            left_out = prompts.left_out(words, self._tokenizer, self._length)
            if left_out:
                said.append(f"T5 reads the {name}'s first {self._length} tokens, which leaves out {left_out}")
        return said

    def _run(self, fragments: Sequence[Fragment]) -> torch.Tensor:
        ids, words, weights = self._tokenized(fragments)
        mask = words.to(self._device) if self._masks_padding else None
        embedding: torch.Tensor = self._encoder(ids.to(self._device), attention_mask=mask)[0]
        return _multiplied(embedding, weights).to(dtype=self._encoder.dtype)

    def _tokenized(self, fragments: Sequence[Fragment]) -> tuple[torch.Tensor, torch.Tensor, Sequence[float]]:
        """Token ids, 1 for each that is a word or the mark, and each one's weight."""
        if len(fragments) <= 1 and all(one.weight == 1 for one in fragments):
            whole = "".join(one.text for one in fragments)
            tokens = self._tokenizer(
                [whole], padding="max_length", max_length=self._length, truncation=True, return_tensors="pt"
            )
            return tokens.input_ids, tokens.attention_mask, [1.0] * self._length
        pieces = [(self._tokenizer(one.text, add_special_tokens=False).input_ids, one.weight) for one in fragments]
        words = [token for tokens, _ in pieces for token in tokens][: self._length - 1]
        ids = [*words, self._tokenizer.eos_token_id]
        weights = [weight for tokens, weight in pieces for _ in tokens][: self._length - 1]
        padding = self._length - len(ids)
        padded = torch.tensor([ids + [self._tokenizer.pad_token_id] * padding])
        is_word = torch.tensor([[1] * len(ids) + [0] * padding])
        return padded, is_word, weights + [1.0] * (padding + 1)


class FramedText:
    """A language model that reads a prompt inside a frame of its pipeline's, as the pipeline itself encodes it.

    It knows no weights: in craft's syntax brackets are words to it, in AUTOMATIC1111's weights are refused.
    """

    def __init__(self, encode: Callable[[str], torch.Tensor], tokenizer: Any, frame: Frame, *, length: int) -> None:
        """`encode`: a text -> 1, tokens, features...; `length`: the tokens that are read, the frame's among them."""
        self._encode = encode
        self._tokenizer = tokenizer
        self._frame = frame
        self._length = length
        self.variant: Hashable = ()
        self.words: Sequence[EncoderWord] = ()  # of none that craft draws with a language model
        self.syntax = CRAFT
        self._cache: LruCache[torch.Tensor] = LruCache(_FRAMED_CACHE_BYTES, tensor_bytes)

    def embed(self, prompt: str) -> torch.Tensor:
        """1, tokens, features..."""
        text = prompts.words_alone(prompt, self.syntax, "the model's text encoder")
        return self._cache.get((self.variant, text), lambda: self._encode(text))

    def remarks(self, texts: Mapping[str, str]) -> list[str]:
        """Of the texts, by what they are called: weights that are words, and words that are not read."""
        said: list[str] = []
        for name, text in texts.items():
            if self.syntax not in (A1111, PLAIN) and any(fragment.weight != 1 for fragment in prompts.parse(text)):
                said.append(f"the {name}'s weights are words to its text encoder: it knows none")
            room = self._room
            if room and (left_out := prompts.left_out(text, self._tokenizer, room)):
                said.append(f"it reads the {name}'s first {room} tokens, which leaves out {left_out}")
        return said

    @cached_property
    def _room(self) -> int:
        """Tokens of a prompt; nought where there is no frame: then encoding says why."""
        with suppress(CraftError):
            return self._length - len(self._tokenizer(self._frame("")).input_ids)
        return 0


def _multiplied(plain: torch.Tensor, weights: Sequence[float]) -> torch.Tensor:
    """AUTOMATIC1111's emphasis: each token's features by its weight, then all of them so that their mean stays."""
    if all(weight == 1 for weight in weights):
        return plain
    before = plain.float()
    after = before * torch.tensor(weights, dtype=torch.float32, device=plain.device)[None, :, None]
    restored = after * (before.mean() / after.mean())
    return (restored if restored.isfinite().all() else after).to(plain.dtype)


def _layer(output: Any, clip_skip: int) -> torch.Tensor:
    """What the encoder's layer so far from its end has made. Raises INVALID_FIELD where it has fewer."""
    states: Sequence[torch.Tensor] = output.hidden_states
    if clip_skip > len(states):
        raise invalid("clip_skip", f"must be at most {len(states)} for the model's text encoder, not {clip_skip}")
    return states[-clip_skip]


def most(*chunked: Sequence[Sequence[Chunk]]) -> int:
    """How many chunks the longest text has."""
    return max(len(chunks) for texts in chunked for chunks in texts)
