"""Prompts: `(word:1.3)` weighting, and texts longer than the text encoder takes.

The syntax is AUTOMATIC1111's: `(word)` is 1.1, `[word]` is 1/1.1, `(word:1.3)` is 1.3, they
nest by multiplication, and `\\(` is a plain parenthesis.

A text of more tokens than fit is cut into chunks of `max_length - 2` tokens, each encoded
with its own begin and end marks, and the embeddings are concatenated. Prompt and negative
prompt get the same number of chunks; the shorter is filled up with empty ones.

A weight moves a token's embedding away from what the empty prompt has at that place:
`empty + weight * (token - empty)`. So 0 is as if the word were not there, the begin mark
never changes, and nothing has to be rescaled afterwards (restoring the mean, as others do,
divides by a number near nought for encoders that end in a layer norm). Where all weights
are 1 the embeddings are the encoder's own, untouched.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

_PIECE = re.compile(
    r"""
    (?P<escaped>\\[\\()\[\]])              |
    (?P<open>[(\[])                        |
    :\s*(?P<weight>[+-]?\d*\.?\d+)\s*\)    |
    (?P<close>[)\]])                       |
    (?P<text>[^\\()\[\]:]+|.)
    """,
    re.VERBOSE | re.DOTALL,
)
_ROUND, _SQUARE = 1.1, 1 / 1.1


@dataclass(frozen=True)
class Fragment:
    """A stretch of text and its weight."""

    text: str
    weight: float


@dataclass(frozen=True)
class Chunk:
    """What one call of the text encoder takes: token ids and a weight for each."""

    ids: tuple[int, ...]
    weights: tuple[float, ...]
    length: int  # tokens, with the marks, before the padding

    @property
    def mask(self) -> tuple[int, ...]:
        """1 for each token, 0 for padding."""
        return tuple(int(i < self.length) for i in range(len(self.ids)))

    @property
    def is_plain(self) -> bool:
        return all(weight == 1.0 for weight in self.weights)


class Tokenizer(Protocol):
    """The part of a tokenizer that is needed here."""

    def ids(self, text: str) -> list[int]:
        """Tokens, without begin and end marks, of any number."""
        ...

    def padded(self, ids: Sequence[int]) -> list[int]:
        """At most `capacity` tokens with their marks, padded to the encoder's length."""
        ...

    @property
    def marks(self) -> tuple[int, int]:
        """How many begin and end marks there are."""
        ...

    @property
    def capacity(self) -> int: ...


def parse(prompt: str) -> list[Fragment]:
    """The fragments of a weighted prompt. Unbalanced brackets hold to the end of the prompt."""
    texts: list[str] = []
    weights: list[float] = []
    opened: list[tuple[str, int]] = []

    def multiply(start: int, by: float) -> None:
        weights[start:] = [weight * by for weight in weights[start:]]

    def add(text: str) -> None:
        texts.append(text)
        weights.append(1.0)

    for piece in _PIECE.finditer(prompt):
        kind, text = piece.lastgroup, piece.group()
        if kind == "escaped":
            add(text[1])
        elif kind == "open":
            opened.append((text, len(texts)))
        elif kind == "weight" and opened and opened[-1][0] == "(":
            multiply(opened.pop()[1], float(piece.group("weight")))
        elif kind == "close" and opened and opened[-1][0] == {")": "(", "]": "["}[text]:
            multiply(opened.pop()[1], _ROUND if text == ")" else _SQUARE)
        else:
            add(text)
    for bracket, start in opened:
        multiply(start, _ROUND if bracket == "(" else _SQUARE)
    return _joined([Fragment(text, weight) for text, weight in zip(texts, weights, strict=True)])


def chunks(prompt: str, tokenizer: Tokenizer) -> list[Chunk]:
    """The prompt cut to the encoder's length; at least one chunk."""
    ids: list[int] = []
    weights: list[float] = []
    for fragment in parse(prompt):
        tokens = tokenizer.ids(fragment.text)
        ids += tokens
        weights += [fragment.weight] * len(tokens)
    size = tokenizer.capacity
    starts = range(0, max(len(ids), 1), size)
    return [_chunk(ids[start : start + size], weights[start : start + size], tokenizer) for start in starts]


def empty(tokenizer: Tokenizer) -> Chunk:
    """The chunk that pads the shorter of prompt and negative prompt."""
    return _chunk([], [], tokenizer)


def _chunk(ids: list[int], weights: list[float], tokenizer: Tokenizer) -> Chunk:
    before, after = tokenizer.marks
    padded = tokenizer.padded(ids)
    around = [1.0] * before + weights
    around += [1.0] * (len(padded) - len(around))
    return Chunk(tuple(padded), tuple(around), before + len(ids) + after)


def _joined(fragments: list[Fragment]) -> list[Fragment]:
    joined: list[Fragment] = []
    for fragment in fragments:
        if joined and joined[-1].weight == fragment.weight:
            joined[-1] = Fragment(joined[-1].text + fragment.text, fragment.weight)
        else:
            joined.append(fragment)
    return joined
