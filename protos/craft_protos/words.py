"""Parts of prompts that other programs read and craft draws as words."""

from __future__ import annotations

import re

# What AUTOMATIC1111 and its extensions read in a prompt, and craft draws as words.
_SYNTAX = re.compile(
    r"""
    (?<!\\)\[[^\[\]]*:\s*[\d.]+\s*\]    |  # [from:to:when]
    (?<!\\)\[[^\[\]]*\|[^\[\]]*\]       |  # [one|the other, by turns]
    \{[^{}]*\|[^{}]*\}                   |  # {one|another}, by chance
    (?<!\w)__[\w*/-]+__(?!\w)            |  # a line of a file
    <(?:hypernet|embedding)\b[^<>]*>     |
    \b(?:AND|BREAK)\b
    """,
    re.VERBOSE,
)


def drawn(*prompts: str) -> list[str]:
    """Such parts, each once."""
    found = (one[0] for text in prompts for one in _SYNTAX.finditer(text))
    return list(dict.fromkeys(found))
