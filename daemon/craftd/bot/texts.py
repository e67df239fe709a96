"""The bot's answers, from one file: `answers.toml`, or another with the same names (`telegram.texts_file`).

In the file `...` in backticks is shown as code, `{name}` stands for a value; everything else is plain text,
so that nobody has to know Telegram's Markdown. Values never become markup.
"""

from __future__ import annotations

import logging
import string
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from craft_protos.reasons import CraftError
from telegram.helpers import escape_markdown

_log = logging.getLogger("craft.bot")
_OWN = Path(__file__).parent / "answers.toml"
_ONE_MESSAGE = (  # what is edited into a message, or sent with something that must come once
    *("placeholder", "key", "key_use_http", "key_use_cli", "banned", "held", "replace_gone"),
    *("draw_begun", "draw_done", "draw_cancelled", "draw_cancel", "too_late", "not_yours"),
)
_LONGEST_OF_THOSE = 900  # characters
_LONGEST = 4000  # UTF-16 units of one message; Telegram takes 4096


@dataclass(frozen=True)
class Piece:
    """Of an answer: plain text, or code."""

    text: str
    is_code: bool = False

    @property
    def markdown(self) -> str:
        if not self.is_code:
            return escape_markdown(self.text, version=2)
        return f"`{escape_markdown(self.text, version=2, entity_type='code')}`"

    @property
    def length(self) -> int:
        return len(self.text.encode("utf-16-le")) // 2


@dataclass(frozen=True)
class Texts:
    """Templates by name."""

    templates: dict[str, str]

    def messages(self, name: str, **values: object) -> list[str]:
        """The answer in MarkdownV2, as many messages as it takes."""
        pieces = _pieces(self.templates[name], {key: _clean(str(value)) for key, value in values.items()})
        return ["".join(piece.markdown for piece in part) for part in _parts(pieces)]

    def line(self, name: str, **values: object) -> str:
        """The answer as plain text: for buttons, and for what pops up."""
        shown = {key: _clean(str(value)) for key, value in values.items()}
        return "".join(piece.text for piece in _pieces(self.templates[name], shown))


def load(path: str = "") -> Texts:
    """Raises CONFIG_INVALID naming the text at fault. What the file lacks is said in craft's own words."""
    own = _read(_OWN)
    if not path:
        return Texts(own)
    given = _read(Path(path))
    for name, template in given.items():
        if name not in own:
            raise _bad(path, f"there is no text {name!r}", f"known: {', '.join(sorted(own))}")
        if unknown := _names(template, path, name) - _names(own[name], str(_OWN), name):
            known = ", ".join(sorted(_names(own[name], str(_OWN), name))) or "none"
            raise _bad(path, f"{name}: there is no value {{{sorted(unknown)[0]}}} in it", f"known there: {known}")
        if name in _ONE_MESSAGE and len(template) > _LONGEST_OF_THOSE:
            raise _bad(path, f"{name} is longer than {_LONGEST_OF_THOSE} characters", "it must fit into one message")
        if template.count("`") % 2:
            raise _bad(path, f"{name}: a backtick has no other", "`...` is code")
    if missing := sorted(set(own) - set(given)):
        _log.warning("texts are missing: said in English", extra={"file": path, "texts": ", ".join(missing)})
    return Texts(own | given)


def _read(path: Path) -> dict[str, str]:
    try:
        read = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as exc:
        raise _bad(str(path), f"cannot be read: {exc}", 'it is TOML: name = "text"') from exc
    for name, text in read.items():
        if not isinstance(text, str) or not text.strip():
            raise _bad(str(path), f"{name} is no text", 'it is TOML: name = "text"')
    return {name: text.strip() for name, text in read.items()}


def _names(template: str, path: str, name: str) -> set[str]:
    try:
        fields = list(string.Formatter().parse(template))
    except ValueError as exc:
        raise _bad(path, f"{name}: {exc}", "{name} is a value; a brace of its own is written twice") from exc
    if any(spec or conversion for _, _, spec, conversion in fields):
        raise _bad(path, f"{name}: a value is written {{name}}, and nothing else", "take the format out")
    return {field for _, field, _, _ in fields if field is not None}


def _pieces(template: str, values: dict[str, str]) -> list[Piece]:
    pieces = []
    for place, part in enumerate(template.split("`")):
        text = part.format_map(values)
        if text:
            pieces.append(Piece(text, is_code=place % 2 == 1))
    return pieces


def _clean(value: str) -> str:
    """Text that can be sent: no control characters, no halves of a character."""
    value = value.encode("utf-8", "replace").decode()
    return "".join(one for one in value if one.isprintable() or one == "\n")


def _parts(pieces: list[Piece]) -> Iterator[list[Piece]]:
    """Messages that are short enough, divided at the ends of lines where there are some."""
    part: list[Piece] = []
    left = _LONGEST
    for piece in pieces:
        rest = piece
        while rest.length > left:
            head, tail = _divided(rest, left)
            part += [head] if head.text else []
            if part:
                yield part
            part, left, rest = [], _LONGEST, tail
        if rest.text:
            part.append(rest)
            left -= rest.length
    if any(piece.text.strip() for piece in part):
        yield part


def _divided(piece: Piece, units: int) -> tuple[Piece, Piece]:
    """The first has at most so many UTF-16 units."""
    head = piece.text.encode("utf-16-le")[: 2 * units].decode("utf-16-le", "ignore")
    end = head.rfind("\n") + 1 or head.rfind(" ") + 1 or len(head)
    return Piece(piece.text[:end], piece.is_code), Piece(piece.text[end:], piece.is_code)


def _bad(path: str, why: str, hint: str) -> CraftError:
    return CraftError("CONFIG_INVALID", f"telegram.texts_file: {path}: {why}", hint)
