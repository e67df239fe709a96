"""A batch that is a table, with commas, semicolons or tabs, whose first line names CreateJob's fields."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterable, Iterator
from typing import Any

from craft_protos import codec, synonyms
from craft_protos.generate import GenerateRequest
from craft_protos.reasons import CraftError

from craft_cli.generate.inputs import Wish
from craft_cli.generate.spec import FIELDS, Terms

_SEPARATORS = "\t;,"
_MOST_BYTES = 16 * 1024 * 1024  # of one cell; the csv module's own limit is 128 KiB
Row = tuple[int, "bytes | CraftError"]  # its line's number, and an object as a line of JSON would have it


def separator(first: str) -> str:
    """What stands between the names of a table's first line; "" where it is a prompt or an object.

    Raises BAD_DATA for a line of names of which one is no field's.
    """
    for mark in _SEPARATORS:
        names = _names(first, mark)
        if "prompt" in names and len(set(names) & FIELDS) > 1:
            _require_known(names)
            return mark
    return ""


def _require_known(names: list[str]) -> None:
    for name in names:
        if name not in FIELDS:
            near = synonyms.nearest(name, FIELDS, synonyms.FIELDS)
            hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(sorted(FIELDS))}"
            raise CraftError("BAD_DATA", f"the table's first line: {name[:100]!r} is no field", hint)


def rows(first: str, mark: str, rest: Iterable[tuple[int, bytes]]) -> Iterator[Row]:
    """Each row behind the line of names as an object without its empty cells, or what is wrong with it."""
    names = _names(first, mark)
    csv.field_size_limit(_MOST_BYTES)
    lines = _Lines(rest)
    reader = csv.reader(lines, delimiter=mark, strict=True)
    while True:
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            why = f"no row of a table: {error}"
            yield lines.number, CraftError("BAD_DATA", why, 'a " inside of a cell is written ""')
            continue
        if any(cell.strip() for cell in cells):
            yield lines.number, _object(names, cells)


class _Lines:
    """Lines as the csv module wants them, and the number of the one that was read last."""

    def __init__(self, numbered: Iterable[tuple[int, bytes]]) -> None:
        self._numbered = iter(numbered)
        self.number = 1

    def __iter__(self) -> _Lines:
        return self

    def __next__(self) -> str:
        self.number, line = next(self._numbered)
        return line.decode("utf-8", "surrogateescape") + "\n"


def _names(first: str, mark: str) -> list[str]:
    return [name.strip().strip('"').lower() for name in first.split(mark)]


def _object(names: list[str], cells: list[str]) -> bytes | CraftError:
    if len(cells) > len(names):
        message = f"the row has {len(cells)} cells, and the first line names {len(names)}"
        return CraftError("BAD_DATA", message, 'a cell with a comma in it is written in quotes: "red, round"')
    if any("\udc80" <= mark <= "\udcff" for cell in cells for mark in cell):
        return CraftError("BAD_DATA", "the row is not UTF-8", "convert the table with iconv")
    told = {name: value_of(name, cell) for name, cell in zip(names, cells, strict=False) if cell.strip()}
    return json.dumps(told).encode()


def value_of(name: str, cell: str) -> Any:
    """A cell as JSON would say it: text stays text, LoRAs stand side by side, as `it:0.8 grain:0.3`."""
    if name in _TEXTS:
        return cell
    cell = cell.strip()
    if name == "loras" and not cell.startswith("["):
        return re.split(r"[\s;]+", cell)
    if name == "indices" and not cell.startswith("["):
        return [_plain(one) for one in re.split(r"[\s;]+", cell)]
    return _plain(cell)


def _plain(text: str) -> Any:
    """A number, a truth or an object as it is meant; anything else stays text, and is refused as such."""
    try:
        return json.loads(text.lower() if text.lower() in ("true", "false") else text)
    except (ValueError, RecursionError):
        return text


_TEXTS = {
    name
    for kind in (GenerateRequest, Wish, Terms)
    for name, hint in codec.hints_of(kind).items()
    if hint is str and name != "mask"
} | {"mask", "expire_time"}
