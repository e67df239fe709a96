"""Where pictures go: names, files, stdout.

Nothing that exists is ever overwritten without --force.
"""

from __future__ import annotations

import re
import string
import sys
from collections.abc import Collection, Iterable, Mapping
from dataclasses import field
from pathlib import Path
from typing import Any

from craft_protos import files, formats
from craft_protos.formats import FORMATS
from craft_protos.frozen import dataclass
from craft_protos.generate import GenerateRequest
from craft_protos.lora import without_tags
from craft_protos.reasons import CraftError

from craft_cli import errors
from craft_cli.generate import writing

STDOUT = "-"
FIELDS = ("seed", "index", "n", "id", "job", "slug")
_DISTINCT = {"seed", "index", "n", "id"}  # differ between the images of one job
_OF_WORDS = ("sampler", "model", "lora", "negative")  # options whose values are no numbers
_SLUG_LENGTH = 60
_LINE_ENDS = {ord(mark): f"\\u{ord(mark):04x}" for mark in "\x85\u2028\u2029"}  # to some readers, such as Python's


@dataclass(frozen=True)
class Picture:
    """What a name may be made of. `n` counts from 1, over a whole batch; `index` from 0, in its job."""

    prompt: str
    seed: int
    index: int
    n: int
    id: str = ""
    job: str = ""
    swept: Mapping[str, str] = field(default_factory=dict)  # by the options' names


@dataclass(frozen=True)
class Target:
    """The meaning of -o: how each picture's file is called."""

    pattern: str
    force: bool = False

    @property
    def is_stdout(self) -> bool:
        return self.pattern == STDOUT

    @property
    def is_knowable(self) -> bool:
        """Whether names are known before anything is drawn."""
        return not _fields(self.pattern) & {"id", "job"}

    def path(self, picture: Picture) -> Path:
        values = {
            "seed": picture.seed,
            "index": picture.index,
            "n": picture.n,
            "id": picture.id,
            "job": picture.job,
            "slug": slug(picture.prompt),
            **{name: _piece(value) for name, value in picture.swept.items()},
        }
        try:
            return Path(string.Formatter().vformat(self.pattern, (), values))
        except ValueError as error:
            raise CraftError("USAGE", f"-o {self.pattern}: {error}", "a number's form is like {index:03}") from error

    def check(self, pictures: list[Picture]) -> None:
        """Before drawing: makes their folders, and sees that names are free and can be written. Raises OUTPUT_*."""
        if self.is_stdout or not self.is_knowable:
            return
        for path in {self.path(picture) for picture in pictures}:
            writing.check(path)
            if not self.force and writing.is_taken(path):
                raise writing.exists(path)


def target(option: str | None, *, many: bool, file_format: str, force: bool, swept: Collection[str] = ()) -> Target:
    """-o as a Target; `many`: more than one picture, of each value that is `swept` over. Raises USAGE."""
    name = "-".join(["{slug}", "{seed}", *(f"{one}{'-' * (one in _OF_WORDS)}{{{one}}}" for one in swept)])
    name = f"{name}.{FORMATS[file_format].extension}"
    if option is None:
        return Target(name, force)
    if option == STDOUT:
        return Target(STDOUT, force)
    require_name(option, "-o")
    if option.endswith("/") or files.is_folder(option):
        return Target(f"{_literal(option.rstrip('/') or '/')}/{name}", force)
    names = _fields(option)
    unknown = names - {*FIELDS, *swept}
    if unknown:
        known = ", ".join(f"{{{name}}}" for name in (*FIELDS, *swept))
        raise CraftError("USAGE", f"-o {option}: no field {{{min(unknown)}}}", f"known: {known}; {{{{ for a brace")
    _try_form(option, swept)
    if _is_ambiguous(names, many, swept) and not writing.is_special(Path(option)):
        option = _numbered(option)
    return Target(option, force)


def named(stem: str, option: str | None, *, file_format: str, force: bool) -> Target | None:
    """A file of that name in -o's folder, or in this one; None where -o is no folder."""
    name = _literal(f"{stem}.{FORMATS[file_format].extension}")
    if option is None:
        return Target(name, force)
    if option == STDOUT or not (option.endswith("/") or files.is_folder(option)):
        return None
    return Target(f"{_literal(option.rstrip('/') or '/')}/{name}", force)


def _is_ambiguous(names: set[str], many: bool, swept: Collection[str]) -> bool:
    """Says whether pictures would have the same name, those of one value or those of several."""
    return (many and not names & _DISTINCT) or (bool(set(swept) - names) and not names & {"n", "id"})


def extension_of(option: str | None) -> str:
    """The file name extension in -o, without its dot; empty where it has none."""
    if option is None or option == STDOUT or option.endswith("/"):
        return ""
    return Path(option).suffix.lstrip(".").lower() if not writing.is_special(Path(option)) else ""


def require_format(option: str | None, name: str) -> None:
    """Raises USAGE for a file that would not be what it is called."""
    extension = extension_of(option)
    found = formats.find(extension) if extension else None
    if (found and found.name != name) or f".{extension}" in formats.OTHERS:
        message = f"--format {name} does not go with -o {option}: the file would not be what it is called"
        raise CraftError("USAGE", message, f"call it .{FORMATS[name].extension}, or leave --format out")


def pictures(spec: GenerateRequest, first_n: int = 1, swept: Mapping[str, str] | None = None) -> list[Picture]:
    """The pictures a spec will become, as far as their names need to know."""
    assert spec.seed is not None
    return [
        Picture(prompt=spec.prompt, seed=spec.seed + index, index=index, n=first_n + index, swept=swept or {})
        for index in spec.indices or range(spec.count)
    ]


def slug(prompt: str) -> str:
    """A prompt as a piece of a file name: its letters and digits, joined by dashes."""
    words = re.findall(r"\w+", without_tags(prompt).lower().replace("_", " "))
    text = ""
    for word in words:
        longer = f"{text}-{word}" if text else word
        if len(longer.encode("utf-8", "ignore")) > _SLUG_LENGTH:
            break
        text = longer
    return text or "picture"


def _piece(value: str) -> str:
    """A swept value as a piece of a file name: 0.5 as it is, others as prompts are."""
    return value if re.fullmatch(r"[\w.+-]+", value) else slug(value)


def write_stdout(data: bytes) -> None:
    try:
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        errors.silence_stdout()
        raise files.unwritable("stdout", error, "send it to another place") from error


def is_at_terminal() -> bool:
    """Whether somebody reads stdout."""
    return errors.is_terminal(sys.stdout)


def refuse_terminal() -> None:
    """Image bytes at a terminal help nobody."""
    if sys.stdout is None:
        raise _closed()
    if is_at_terminal():
        raise CraftError("USAGE", "-o - would write a picture's bytes to the terminal", "send it on: ... -o - | file -")


def _fields(pattern: str) -> set[str]:
    try:
        return {name for _, name, _, _ in string.Formatter().parse(pattern) if name is not None}
    except ValueError as error:
        raise CraftError("USAGE", f"-o {pattern}: {error}", "a brace that is meant itself is written twice") from error


def _try_form(pattern: str, swept: Iterable[str]) -> None:
    """Raises USAGE for a form that no name can be made of: before drawing, even where names come after it."""
    for _, _, form, _ in string.Formatter().parse(pattern):
        if form and ("{" in form or re.search(r"\d{4}", form)):
            raise CraftError("USAGE", f"-o {pattern}: {form!r} is no form", "a number's form is like {index:03}")
    Target(pattern).path(Picture(prompt="", seed=0, index=0, n=0, swept=dict.fromkeys(swept, "")))


def _literal(text: str) -> str:
    return text.replace("{", "{{").replace("}", "}}")


def _numbered(option: str) -> str:
    """apple.png -> apple-{n}.png"""
    path = Path(option)
    return str(path.with_name(f"{path.stem}-{{n}}{path.suffix}"))


def require_name(path: str, option: str) -> None:
    """Raises USAGE for an empty one, which the system would take for the folder it is in, or for /."""
    if not path:
        raise CraftError("USAGE", f"{option} is empty", f"give {option} a name, or leave it out")


def _closed() -> CraftError:
    return CraftError("OUTPUT_FAILED", "stdout is closed", "send it to a file: > FILE")


def line(text: object) -> None:
    """One line on stdout, at once."""
    if sys.stdout is None:
        raise _closed()
    try:
        _print(str(text))
    except BrokenPipeError:
        raise
    except OSError as error:
        errors.silence_stdout()
        raise files.unwritable("stdout", error, "send it to another place") from error


def _print(text: str) -> None:
    """As the bytes that the system knows a name by, where stdout's encoding has none for it: spelled in any other way
    it would be another name.
    """
    if _can_encode(text):
        print(text, flush=True)
        return
    sys.stdout.flush()
    sys.stdout.buffer.write(f"{text}\n".encode("utf-8", "surrogateescape"))
    sys.stdout.buffer.flush()


def _can_encode(text: str) -> bool:
    try:
        text.encode(sys.stdout.encoding or "utf-8")
    except UnicodeEncodeError:
        return False
    return True


def print_json(value: Any) -> None:
    """One JSON value on a line; escaped, where stdout cannot encode it."""
    import json

    text = json.dumps(value, ensure_ascii=False, allow_nan=False).translate(_LINE_ENDS)
    is_fine = sys.stdout is None or _can_encode(text)
    line(text if is_fine else json.dumps(value, allow_nan=False))


def cell(value: object) -> str:
    """A value in a table of details, whatever JSON would make of it."""
    match value:
        case None:
            return ""
        case bool():
            return "yes" if value else "no"
        case float():
            return f"{value:g}"
        case dict():
            return ", ".join(f"{name} {cell(one)}" for name, one in value.items())
        case list():
            return ", ".join(map(cell, value))
        case _:
            return str(value)


def print_table(headers: list[str], rows: list[list[str]], *, none: str = "") -> None:
    """Columns: neat at a terminal, separated by tabs in a pipe. `none` is what somebody there hears of no rows."""
    if not rows and none:
        errors.remark(f"craft: {none}")
        return
    rows = [[errors.one_line(cell) for cell in row] for row in rows]
    if is_at_terminal():
        from craft_cli.render import render

        render.print_table(headers, rows)
        return
    for row in rows:
        line("\t".join(row))
