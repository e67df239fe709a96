"""AUTOMATIC1111's emphasis: `(a)` is 1.1, `[a]` 1/1.1, `(a:1.3)` 1.3, and `BREAK` begins another chunk.

Round and square brackets are matched apart from each other, as its parser does it: `(a [b) c]` is read.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from craft_protos.reasons import invalid

MOST_NESTED = 100  # brackets in brackets
ROUND, SQUARE = 1.1, 1 / 1.1  # what a pair of brackets without a number multiplies by
PIECE = re.compile(
    r"""
    (?P<escaped>\\[\\()\[\]])        |
    (?P<open>[(\[])                  |
    :\s{0,4}(?P<weight>[+-]?(?:\d{1,4}(?:\.\d{0,8})?|\.\d{1,8}))\s{0,4}\)    |
    (?P<close>[)\]])                 |
    (?P<text>[^\\()\[\]:]+|.)
    """,
    re.VERBOSE | re.DOTALL,
)
_BREAK = re.compile(r"\bBREAK\b")


@dataclass
class Emphasised:
    """A stretch of text and its weight; `breaks`: it is no text, another chunk begins here."""

    text: str
    weight: float = 1.0
    breaks: bool = False


def parse(prompt: str) -> list[Emphasised]:
    """The stretches of a prompt. Unbalanced brackets hold to its end. Raises INVALID_FIELD for too deep ones."""
    found: list[Emphasised] = []
    opened: dict[str, list[int]] = {"(": [], "[": []}

    def close(bracket: str, weight: float) -> None:
        for one in found[opened[bracket].pop() :]:
            one.weight *= weight

    for piece in PIECE.finditer(prompt):
        kind, text = piece.lastgroup, piece.group()
        if kind == "escaped":
            found.append(Emphasised(text[1]))
        elif kind == "open":
            opened[text].append(len(found))
            require_shallow(len(opened[text]))
        elif kind == "weight" and opened["("]:
            close("(", float(piece.group("weight")))
        elif text == ")" and opened["("]:
            close("(", ROUND)
        elif text == "]" and opened["["]:
            close("[", SQUARE)
        else:
            found += _with_breaks(text)
    for bracket, weight in (("(", ROUND), ("[", SQUARE)):
        while opened[bracket]:
            close(bracket, weight)
    return list(_joined(found))


def require_shallow(nested: int) -> None:
    """Raises INVALID_FIELD for more brackets in each other than are read."""
    if nested > MOST_NESTED:
        raise invalid("prompt", f"has more than {MOST_NESTED} brackets in each other", "close them, or write \\( for (")


def _with_breaks(text: str) -> Iterator[Emphasised]:
    for place, part in enumerate(_BREAK.split(text)):
        if place:
            yield Emphasised("", breaks=True)
        yield Emphasised(part)


def _joined(found: list[Emphasised]) -> Iterator[Emphasised]:
    """Neighbours of one weight are one stretch, which is what a tokenizer is given."""
    run: list[str] = []
    weight = 1.0
    for one in found:
        if run and (one.breaks or one.weight != weight):
            yield Emphasised("".join(run), weight)
            run = []
        if one.breaks:
            yield one
        elif one.text:
            run.append(one.text)
            weight = one.weight
    if run:
        yield Emphasised("".join(run), weight)
