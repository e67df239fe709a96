"""AUTOMATIC1111's prompt editing: `[a:b:0.5]`, `[a:10]`, `[a::10]`, `[a|b]`, and prompts joined by `AND`.

A prompt is another text at other model calls. `when` is a share of them where it has a point, else their number; a
sampler of two calls a step counts twice as many. At call `n` (from 0) the text is that of the first change that is not
before `n`: what changes at 10 is first drawn by the call 11, the twelfth. Where a prompt has a `|` outside square
brackets, or ends in a backslash, nothing of it is edited: its parser gives up there.
"""

from __future__ import annotations

import bisect
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Union

from craft_protos.reasons import invalid

from craftd.prompting.attention import require_shallow

MOST_EDITS = 50  # of a prompt
MOST_TEXTS = 64  # that a prompt becomes
MOST_PARTS = 8  # joined by AND
_TOKEN = re.compile(r"\\.|[\[\]():|]|[^\\\[\]():|]+|\\$", re.DOTALL)
_NUMBER = re.compile(r"\s*([+-]?(?:\d{1,9}(?:\.\d{0,9})?|\.\d{1,9})(?:[eE][+-]?\d{1,2})?)\s*")
_AND = re.compile(r"\bAND\b")
_WEIGHT = re.compile(r"\s*([+-]?(?:\d{1,9}\.?|\d{0,9}\.\d{1,9}))\s*")

Node = Union[str, "Scheduled", "Alternated"]
Nodes = tuple[Node, ...]


@dataclass(frozen=True)
class Scheduled:
    before: Nodes
    after: Nodes
    when: str

    def call(self, total: int, *, is_again: bool) -> int:
        """The last model call with what was before. `is_again`: of a second drawing, which goes on behind the first."""
        number = float(self.when)
        if "." in self.when:
            return min(total, int((number - is_again) * total))
        return 0 if is_again else min(total, int(number))


@dataclass(frozen=True)
class Alternated:
    options: tuple[Nodes, ...]


@dataclass
class _Open:
    """A bracket that is not closed yet, and what stands in it between its colons and bars."""

    bracket: str
    parts: list[list[Node]] = field(default_factory=lambda: [[]])
    separators: list[str] = field(default_factory=list)
    is_odd: bool = False  # it holds what no bracket may: then it is text, too

    def literal(self, closing: str) -> list[Node]:
        nodes: list[Node] = [self.bracket]
        for separator, part in zip(["", *self.separators], self.parts, strict=True):
            nodes += [separator, *part]
        return [*nodes, closing]


class _NotEdited(Exception):
    """The parser of AUTOMATIC1111 gives up."""


@dataclass(frozen=True)
class Edited:
    """A prompt that is another text at other calls."""

    nodes: Nodes

    @property
    def is_edited(self) -> bool:
        return any(not isinstance(node, str) for node in self.nodes)

    def schedule(self, total: int, *, is_again: bool = False) -> list[tuple[int, str]]:
        """(the last call of a text, the text), in their order; of `total` calls."""
        ends, alternates = {total}, False
        for node in _edits(self.nodes):
            if isinstance(node, Scheduled):
                ends |= {call} if (call := node.call(total, is_again=is_again)) >= 1 else set()
            else:
                alternates = True
        if alternates:
            ends = set(range(1, total + 1))
        return [(end, "".join(_at(self.nodes, end, total, is_again))) for end in sorted(ends)]


def parts(prompt: str) -> list[tuple[str, float]]:
    """The prompts that AND joins, each with its weight, `a AND b :0.5`. Raises INVALID_FIELD for too many."""
    texts = _AND.split(prompt)
    if len(texts) == 1:
        return [(prompt, 1.0)]
    if len(texts) > MOST_PARTS:
        raise invalid("prompt", f"joins {len(texts)} prompts by AND; the limit is {MOST_PARTS}", "leave some out")
    return [_weighed(text) for text in texts]


@lru_cache(64)
def parse(prompt: str) -> Edited:
    """Raises INVALID_FIELD for more edits, or brackets in each other, than are read."""
    try:
        edited = Edited(tuple(_merged(_parse(prompt))))
    except _NotEdited:
        return Edited((prompt,))
    count = sum(1 for _ in _edits(edited.nodes))
    if count > MOST_EDITS:
        raise invalid("prompt", f"changes in {count} places while it is drawn; the limit is {MOST_EDITS}", "edit fewer")
    return edited


@dataclass(frozen=True)
class Together:
    """What a row is drawn with up to a model call: the prompts that AND joins, and the negative prompt."""

    end: int
    prompts: tuple[str, ...]
    negative: str


def course(prompt: str, negative: str, total: int, *, is_again: bool = False) -> tuple[list[float], list[Together]]:
    """The weights of the prompts that AND joins, and what they are, call after call. Raises INVALID_FIELD."""
    joined = parts(prompt)
    texts = [negative, *(text for text, _ in joined)]
    schedules = [parse(text).schedule(max(1, total), is_again=is_again) for text in texts]
    ends = sorted({end for schedule in schedules for end, _ in schedule})
    found = [[_of_call(schedule, end) for schedule in schedules] for end in ends]
    distinct = len({(given, some[0]) for some in found for given in some[1:]})
    if distinct > MOST_TEXTS:
        message = f"becomes {distinct} different texts over {total} model calls; the limit is {MOST_TEXTS}"
        raise invalid("prompt", message, "alternate between fewer words, or take fewer steps")
    steps = [Together(end, tuple(some), without) for end, (without, *some) in zip(ends, found, strict=True)]
    return [weight for _, weight in joined], steps


def _of_call(schedule: Sequence[tuple[int, str]], call: int) -> str:
    place = bisect.bisect_left(schedule, call, key=lambda one: one[0])
    return schedule[min(place, len(schedule) - 1)][1]


def _weighed(text: str) -> tuple[str, float]:
    before, colon, number = text.rpartition(":")
    weight = _WEIGHT.fullmatch(number) if colon else None
    return (before.strip(), float(weight[1])) if weight else (text.strip(), 1.0)


def _parse(prompt: str) -> list[Node]:
    stack = [_Open("")]
    for token in _TOKEN.findall(prompt):
        top = stack[-1]
        if token == "\\":
            raise _NotEdited
        if token in "([":
            stack.append(_Open(token))
            require_shallow(len(stack) - 1)
        elif token in ":|" and top.bracket:
            top.separators.append(token)
            top.parts.append([])
        elif token == "|":
            raise _NotEdited
        elif token in ")]" and top.bracket == {")": "(", "]": "["}[token]:
            stack.pop()
            nodes = _closed(top, token)
            stack[-1].is_odd |= nodes is None
            stack[-1].parts[-1] += top.literal(token) if nodes is None else nodes
        else:
            top.is_odd |= token in ")]"
            top.parts[-1].append(token)
    while len(stack) > 1:
        top = stack.pop()
        _require_no_bar(top)
        stack[-1].parts[-1] += top.literal("")
    return stack[0].parts[0]


def _closed(one: _Open, closing: str) -> list[Node] | None:
    """What a bracket means; None: it is text, and so is what it stands in."""
    colons, bars = one.separators.count(":"), one.separators.count("|")
    number = _when(one.parts[-1])
    if not one.is_odd and one.bracket == "[":
        if bars and not colons:
            return [Alternated(tuple(tuple(_merged(part)) for part in one.parts))]
        if not bars and colons in (1, 2) and number:
            *before, after = one.parts[:-1]
            return [Scheduled(tuple(_merged(before[0] if before else [])), tuple(_merged(after)), number)]
    _require_no_bar(one)
    is_emphasis = not one.is_odd and colons <= (one.bracket == "(")
    return one.literal(closing) if is_emphasis else None


def _require_no_bar(one: _Open) -> None:
    if "|" in one.separators:
        raise _NotEdited


def _when(part: list[Node]) -> str:
    if not all(isinstance(node, str) for node in part):
        return ""
    found = _NUMBER.fullmatch("".join(map(str, part)))
    return found[1] if found else ""


def _merged(nodes: list[Node]) -> Iterator[Node]:
    run: list[str] = []
    for node in nodes:
        if isinstance(node, str):
            run.append(node)
            continue
        if text := "".join(run):
            yield text
        run = []
        yield node
    if text := "".join(run):
        yield text


def _edits(nodes: Nodes) -> Iterator[Scheduled | Alternated]:
    for node in nodes:
        if isinstance(node, str):
            continue
        yield node
        for inner in (node.before, node.after) if isinstance(node, Scheduled) else node.options:
            yield from _edits(inner)


def _at(nodes: Nodes, call: int, total: int, is_again: bool) -> Iterator[str]:
    for node in nodes:
        if isinstance(node, str):
            yield node
        elif isinstance(node, Scheduled):
            is_before = call <= node.call(total, is_again=is_again)
            yield from _at(node.before if is_before else node.after, call, total, is_again)
        else:
            yield from _at(node.options[(call - 1) % len(node.options)], call, total, is_again)
