"""Prompts that are made anew for each picture: `{a|b}`, `{2$$a|b|c}`, `{0.7::a|b}`, and `__name__`, a line of a file.

The language is that of the extension sd-dynamic-prompts, as far as it is written here: `{1-2$$ and $$a|b|c}` joins one
or two by " and " (else by ", "), without taking any twice; options may hold others; `\\{` and `\\}` are braces. A
file's lines may hold the same; empty ones and those that begin with # are none.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from craft_protos.reasons import invalid

MOST_NESTED = 20  # braces in braces, and files that name files
MOST_PLACES = 1000  # that are filled for one prompt
_MOST_FILE_BYTES = 4 << 20
_NAME = r"[A-Za-z0-9][A-Za-z0-9-]{0,99}(?:[_ /][A-Za-z0-9-]{1,100}){0,8}"
_FILE_NAME = re.compile(_NAME)
_TOKEN = re.compile(rf"\\[{{}}]|[{{}}|]|__(?P<name>{_NAME})__|[^\\{{}}|_]+|.", re.DOTALL)
_MANY = re.compile(r"\s*(\d{1,3})(?:-(\d{1,3}))?\$\$(?:([^$]{0,40})\$\$)?")
_WEIGHT = re.compile(r"\s*(\d{1,6}(?:\.\d{0,6})?|\.\d{1,6})::")
_HOW = "write it like {red|green} or {2$$red|green|blue}, and a brace that is a word as \\{"


@dataclass(frozen=True)
class _File:
    name: str


@dataclass(frozen=True)
class _Option:
    weight: float
    nodes: tuple[_Node, ...]


@dataclass(frozen=True)
class _Choice:
    options: tuple[_Option, ...]
    least: int = 1
    most: int = 1
    joint: str = ", "


_Node = str | _File | _Choice


class Wildcards:
    """The files of a folder, each read once. `folder`: None where there is none."""

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder
        self._lines: dict[str, list[str]] = {}

    def lines(self, name: str) -> list[str]:
        """Raises INVALID_FIELD for a name that is no file's, and for a file that cannot be read."""
        if name not in self._lines:
            self._lines[name] = self._read(name)
        return self._lines[name]

    def _read(self, name: str) -> list[str]:
        asked = f"names the wildcard __{name}__"
        if self._folder is None:
            raise invalid(
                "prompt", f"{asked}, and the daemon has no folder of them", "its admin sets prompts.wildcards"
            )
        assert _FILE_NAME.fullmatch(name), name  # which has no dots
        path = (self._folder / f"{name}.txt").resolve()
        if not path.is_relative_to(self._folder.resolve()) or not path.is_file():
            raise invalid("prompt", f"{asked}, and there is no such file", f"the daemon's admin adds {name}.txt")
        if path.stat().st_size > _MOST_FILE_BYTES:
            raise invalid("prompt", f"{asked}, a file of more than {_MOST_FILE_BYTES} bytes", "divide it")
        try:
            text = path.read_text(encoding="utf-8-sig")
        except (OSError, UnicodeDecodeError) as exc:
            raise invalid("prompt", f"{asked}, which cannot be read as UTF-8", "its admin mends it") from exc
        lines = [line.strip() for line in text.splitlines()]
        if not (found := [line for line in lines if line and not line.startswith("#")]):
            raise invalid("prompt", f"{asked}, a file without lines", "its admin fills it")
        return found


@dataclass
class Expansion:
    """Makes one picture's prompts: what is chosen follows from the seed, its prompt first, then its negative prompt."""

    seed: int
    wildcards: Wildcards
    most_chars: int
    _random: random.Random = field(init=False)
    _places: int = 0

    def __post_init__(self) -> None:
        self._random = random.Random(self.seed)

    def of(self, template: str) -> str:
        """Raises INVALID_FIELD for what cannot be read, and for what becomes too long."""
        pieces, length = [], 0
        for piece in self._filled(_parsed(template), 0):
            pieces.append(piece)
            length += len(piece)
            if length > self.most_chars:
                message = f"becomes longer than {self.most_chars} characters, which is the limit"
                raise invalid("prompt", message, "choose among shorter ones")
        return "".join(pieces)

    def _filled(self, nodes: tuple[_Node, ...], depth: int) -> Iterator[str]:
        for node in nodes:
            if isinstance(node, str):
                yield node
                continue
            self._places += 1
            if depth >= MOST_NESTED or self._places > MOST_PLACES:
                message = f"fills more than {MOST_PLACES} places, or {MOST_NESTED} within each other"
                raise invalid("prompt", message, "a wildcard file may name itself: look there")
            if isinstance(node, _File):
                lines = self.wildcards.lines(node.name)
                yield from self._filled(_parsed(lines[self._below(len(lines))]), depth + 1)
            else:
                yield from self._chosen(node, depth)

    def _chosen(self, choice: _Choice, depth: int) -> Iterator[str]:
        left = list(choice.options)
        for place in range(choice.least + self._below(choice.most - choice.least + 1)):
            if place:
                yield choice.joint
            yield from self._filled(left.pop(self._weighed([one.weight for one in left])).nodes, depth + 1)

    def _weighed(self, weights: list[float]) -> int:
        """A place among them. `random` gives the same numbers in every version of Python, its other methods may not."""
        at = self._random.random() * sum(weights)
        for place, weight in enumerate(weights):
            at -= weight
            if at < 0:
                return place
        return len(weights) - 1

    def _below(self, count: int) -> int:
        return int(self._random.random() * count)


@dataclass
class _Open:
    options: list[list[_Node]] = field(default_factory=lambda: [[]])


def _parsed(text: str) -> tuple[_Node, ...]:
    stack = [_Open()]
    for token in _TOKEN.finditer(text):
        written = token.group()
        if written == "{":
            stack.append(_Open())
            if len(stack) > MOST_NESTED:
                raise invalid("prompt", f"has more than {MOST_NESTED} braces in each other", _HOW)
        elif written == "}":
            if len(stack) == 1:
                raise invalid("prompt", "has a } without its {", _HOW)
            options = stack.pop().options
            stack[-1].options[-1].append(_choice(options))
        elif written == "|" and len(stack) > 1:
            stack[-1].options.append([])
        elif token.group("name"):
            stack[-1].options[-1].append(_File(token.group("name")))
        else:
            _add(stack[-1].options[-1], written[1] if written in ("\\{", "\\}") else written)
    if len(stack) > 1:
        raise invalid("prompt", "has a { without its }", _HOW)
    return tuple(stack[0].options[0])


def _add(nodes: list[_Node], text: str) -> None:
    """Texts that follow each other are one."""
    last = nodes[-1] if nodes else None
    if isinstance(last, str):
        nodes[-1] = last + text
    else:
        nodes.append(text)


def _choice(options: list[list[_Node]]) -> _Choice:
    first = options[0]
    found = _MANY.match(first[0]) if first and isinstance(first[0], str) else None
    if found is None:
        return _Choice(tuple(_option(one) for one in options))
    rest: list[_Node] = [str(first[0])[found.end() :], *first[1:]]
    least, most = int(found[1]), int(found[2] or found[1])
    if not least <= most <= len(options):
        message = f"asks for {found[0].strip()[:60]} of {len(options)}"
        raise invalid("prompt", message, "ask for as many as there are, or fewer")
    chosen = tuple(_option(one) for one in (rest, *options[1:]))
    return _Choice(chosen, least, most, ", " if found[3] is None else found[3])


def _option(nodes: list[_Node]) -> _Option:
    found = _WEIGHT.match(nodes[0]) if nodes and isinstance(nodes[0], str) else None
    if found is None:
        return _Option(1.0, tuple(nodes))
    return _Option(float(found[1]), (str(nodes[0])[found.end() :], *nodes[1:]))
