"""Telegram's MarkdownV2, as strict as its documentation: what must be escaped and is not is an error."""

from __future__ import annotations

_RESERVED = set("_*[]()~`>#+-=|{}.!")


class Unparsable(Exception):
    """In Telegram's words."""


def plain(text: str) -> str:
    """What a reader sees. Raises Unparsable. Of entities only code is known: the bot uses no other."""
    shown, place, is_code = [], 0, False
    while place < len(text):
        one = text[place]
        if one == "\\" and place + 1 < len(text) and ord(text[place + 1]) < 127:
            shown.append(text[place + 1])
            place += 2
            continue
        if one == "`":
            is_code = not is_code
        elif one in _RESERVED and not is_code:
            raise Unparsable(f"Character '{one}' is reserved and must be escaped with the preceding '\\'")
        else:
            shown.append(one)
        place += 1
    if is_code:
        raise Unparsable("Can't find end of Code entity")
    return "".join(shown)
