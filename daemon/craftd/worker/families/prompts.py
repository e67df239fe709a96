"""Prompts: `(word:1.3)` weighting, and texts longer than the text encoder takes.

Each request says how its prompts are written (`craft_protos.generate.SYNTAXES`). In craft's own syntax `(word)` is
1.1, `[word]` is 1/1.1, `(word:1.3)` is 1.3, they
nest by multiplication, and `\\(` is a plain parenthesis.

A text of more tokens than fit is cut into chunks of `max_length - 2` tokens, each encoded
with its own begin and end marks, and the embeddings are concatenated. Prompt and negative
prompt get the same number of chunks; the shorter is filled up with empty ones.

A weight moves a token's embedding away from what the empty prompt has at that place:
`empty + weight * (token - empty)`. So 0 is as if the word were not there, the begin mark
never changes, and nothing has to be rescaled afterwards (restoring the mean, as others do,
divides by a number near nought for encoders that end in a layer norm). Where all weights
are 1 the embeddings are the encoder's own, untouched.

In AUTOMATIC1111's (`craftd.prompting.attention`), `BREAK` begins a chunk, one that is full is cut behind a comma of its
last 20 tokens, and weights multiply embeddings, whose mean is then restored.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from craft_protos.generate import A1111, CRAFT, PLAIN
from craft_protos.reasons import invalid

from craftd.prompting import attention
from craftd.prompting.attention import PIECE, ROUND, SQUARE

FIRST_VECTOR = 1 << 24  # ids of embeddings' vectors, beyond any vocabulary's
_MOST_CHUNKS = 32  # every step attends to all of them
_COMMA_REACH = 20  # tokens of a full chunk, of AUTOMATIC1111's, in which it may be cut behind a comma
_SHOWN = 60  # characters of what is left out


@dataclass(frozen=True)
class Fragment:
    """A stretch of text and its weight."""

    text: str
    weight: float
    breaks: bool = False  # it is no text: another chunk begins here


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
    syntax: str = CRAFT  # by whose rule weights are applied

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

    @property
    def comma(self) -> int | None:
        """The token of a comma."""
        ...


def parse(prompt: str, syntax: str = CRAFT) -> list[Fragment]:
    """The fragments of a weighted prompt. Unbalanced brackets hold to the end of the prompt."""
    if syntax == PLAIN:
        return [Fragment(prompt, 1.0)] if prompt else []
    if syntax == A1111:
        return [Fragment(one.text, one.weight, one.breaks) for one in attention.parse(prompt)]
    return _parse(prompt)


def words_alone(prompt: str, syntax: str, reader: str) -> str:
    """The prompt for what knows no weights. Raises INVALID_FIELD where the syntax has a meaning that it cannot have."""
    if syntax not in (A1111, PLAIN):
        return prompt
    fragments = parse(prompt, syntax)
    if any(one.weight != 1 or one.breaks for one in fragments):
        why = f"has weights or BREAK, and {reader} reads words alone"
        raise invalid("prompt", why, "leave them out, or take --prompt-syntax plain, where brackets are words")
    return "".join(one.text for one in fragments)


def _parse(prompt: str) -> list[Fragment]:
    texts: list[str] = []
    opened: list[_Opened] = []
    closed: list[_Opened] = []

    def close(weight: float) -> None:
        one = opened.pop()
        one.end, one.weight = len(texts), weight
        closed.append(one)

    for piece in PIECE.finditer(prompt):
        kind, text = piece.lastgroup, piece.group()
        if kind == "escaped":
            texts.append(text[1])
        elif kind == "open":
            opened.append(_Opened(text, len(texts)))
        elif kind == "weight" and opened and opened[-1].bracket == "(":
            close(float(piece.group("weight")))
        elif kind == "close" and opened and opened[-1].bracket == {")": "(", "]": "["}[text]:
            close(ROUND if text == ")" else SQUARE)
        else:
            texts.append(text)
    while opened:
        close(ROUND if opened[-1].bracket == "(" else SQUARE)
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


def chunks(prompt: str, tokenizer: Tokenizer, syntax: str = CRAFT) -> list[Chunk]:
    """The prompt cut to the encoder's length; at least one chunk. Raises INVALID_FIELD for too many."""
    if syntax == A1111:
        return _chunks_behind_commas(parse(prompt, syntax), tokenizer)
    ids: list[int] = []
    weights: list[float] = []
    for fragment in parse(prompt, syntax):
        for tokens, weight in tokenizer.pieces(fragment.text):
            ids += tokens
            weights += [fragment.weight * weight] * len(tokens)
    size = tokenizer.capacity
    _require_few(len(ids), size)
    starts = range(0, max(len(ids), 1), size)
    return [_chunk(ids[start : start + size], weights[start : start + size], tokenizer) for start in starts]


def _require_few(count: int, size: int) -> None:
    if count > _MOST_CHUNKS * size:
        message = f"{count} tokens are more than {_MOST_CHUNKS * size}, which is the limit"
        raise invalid("prompt", message, "say it in fewer words")


def _chunks_behind_commas(fragments: Sequence[Fragment], tokenizer: Tokenizer) -> list[Chunk]:
    cutting = _Cutting(tokenizer.capacity, tokenizer.comma)
    for fragment in fragments:
        if fragment.breaks:
            cutting.cut()
            continue
        for tokens, weight in tokenizer.pieces(fragment.text):
            cutting.take(tokens, fragment.weight * weight)
        _require_few(len(cutting.made) * cutting.size, cutting.size)
    if cutting.ids or not cutting.made:
        cutting.cut()
    _require_few(len(cutting.made) * cutting.size, cutting.size)
    return [replace(_chunk(ids, weights, tokenizer), syntax=A1111) for ids, weights in cutting.made]


@dataclass
class _Cutting:
    """Tokens on their way into chunks of `size`, as AUTOMATIC1111 cuts them."""

    size: int
    comma: int | None
    ids: list[int] = field(default_factory=list)
    weights: list[float] = field(default_factory=list)
    made: list[tuple[list[int], list[float]]] = field(default_factory=list)
    last_comma: int = -1  # among `ids`

    def take(self, tokens: Sequence[int], weight: float) -> None:
        is_vectors = bool(tokens) and tokens[0] >= FIRST_VECTOR and len(tokens) <= self.size
        if is_vectors and len(self.ids) + len(tokens) > self.size:
            self.cut()  # an embedding is not divided
        for token in tokens:
            if token == self.comma:
                self.last_comma = len(self.ids)
            elif len(self.ids) == self.size and self._is_near_comma:
                self.cut(self.last_comma + 1)
            if len(self.ids) == self.size:
                self.cut()
            self.ids.append(token)
            self.weights.append(weight)

    @property
    def _is_near_comma(self) -> bool:
        return self.last_comma >= 0 and len(self.ids) - self.last_comma <= _COMMA_REACH

    def cut(self, place: int | None = None) -> None:
        """End the chunk; what lies behind `place` begins the next one."""
        at = len(self.ids) if place is None else place
        self.made.append((self.ids[:at], self.weights[:at]))
        self.ids, self.weights, self.last_comma = self.ids[at:], self.weights[at:], -1


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
