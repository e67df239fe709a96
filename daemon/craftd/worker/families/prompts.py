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
from typing import Any, Protocol

from craft_protos.reasons import invalid

_PIECE = re.compile(
    r"""
    (?P<escaped>\\[\\()\[\]])              |
    (?P<open>[(\[])                        |
    :\s{0,4}(?P<weight>[+-]?(?:\d{1,4}(?:\.\d{0,8})?|\.\d{1,8}))\s{0,4}\)    |
    (?P<close>[)\]])                       |
    (?P<text>[^\\()\[\]:]+|.)
    """,
    re.VERBOSE | re.DOTALL,
)
_MOST_CHUNKS = 32  # every step attends to all of them
_SHOWN = 60  # characters of what is left out
_ROUND, _SQUARE = 1.1, 1 / 1.1


@dataclass(frozen=True)
class Fragment:
    """A stretch of text and its weight."""

    text: str
    weight: float


@dataclass(frozen=True)
class EncoderWord:
    """An embedding: vectors that stand where its name does. A weight counts as one around the word."""

    name: str
    weight: float
    vectors: Any  # count, width


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

    def pieces(self, text: str) -> list[tuple[list[int], float]]:
        """Tokens, without begin and end marks, of any number, and what their weight is to be multiplied with."""
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
    opened: list[_Opened] = []
    closed: list[_Opened] = []

    def close(weight: float) -> None:
        one = opened.pop()
        one.end, one.weight = len(texts), weight
        closed.append(one)

    for piece in _PIECE.finditer(prompt):
        kind, text = piece.lastgroup, piece.group()
        if kind == "escaped":
            texts.append(text[1])
        elif kind == "open":
            opened.append(_Opened(text, len(texts)))
        elif kind == "weight" and opened and opened[-1].bracket == "(":
            close(float(piece.group("weight")))
        elif kind == "close" and opened and opened[-1].bracket == {")": "(", "]": "["}[text]:
            close(_ROUND if text == ")" else _SQUARE)
        else:
            texts.append(text)
    while opened:
        close(_ROUND if opened[-1].bracket == "(" else _SQUARE)
    return _joined([Fragment(text, weight) for text, weight in zip(texts, _weights(len(texts), closed), strict=True)])


@dataclass
class _Opened:
    """A bracket over the texts `start` to `end`."""

    bracket: str
    start: int
    end: int = 0
    weight: float = 1.0


def _weights(count: int, brackets: Sequence[_Opened]) -> list[float]:
    """Of each text, the product of the brackets around it; in one pass, however deep they nest."""
    starts: list[list[_Opened]] = [[] for _ in range(count + 1)]
    ends = [0] * (count + 1)
    for one in reversed(brackets):  # an outer bracket closes after those inside it
        if one.start < one.end:
            starts[one.start].append(one)
            ends[one.end] += 1
    products, weights = [1.0], []
    for place in range(count):
        del products[len(products) - ends[place] :]
        for one in starts[place]:
            products.append(products[-1] * one.weight)
        weights.append(products[-1])
    return weights


def chunks(prompt: str, tokenizer: Tokenizer) -> list[Chunk]:
    """The prompt cut to the encoder's length; at least one chunk. Raises INVALID_FIELD for too many."""
    ids: list[int] = []
    weights: list[float] = []
    for fragment in parse(prompt):
        for tokens, weight in tokenizer.pieces(fragment.text):
            ids += tokens
            weights += [fragment.weight * weight] * len(tokens)
    size = tokenizer.capacity
    if len(ids) > _MOST_CHUNKS * size:
        message = f"{len(ids)} tokens are more than {_MOST_CHUNKS * size}, which is the limit"
        raise invalid("prompt", message, "say it in fewer words")
    starts = range(0, max(len(ids), 1), size)
    return [_chunk(ids[start : start + size], weights[start : start + size], tokenizer) for start in starts]


def left_out(text: str, tokenizer: Any, length: int) -> str:
    """How a text goes on behind its first `length` tokens, for a reader of that many; "": all are read."""
    ids = tokenizer(text, truncation=False, verbose=False).input_ids
    if len(ids) <= length:
        return ""
    ends_with_mark = ids[-1] in (tokenizer.eos_token_id, tokenizer.sep_token_id)
    unread = " ".join(tokenizer.decode(ids[length - ends_with_mark :], skip_special_tokens=True).split())
    return repr(unread) if len(unread) <= _SHOWN else f"{unread[:_SHOWN]!r}... ({len(ids) - length} tokens)"


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
