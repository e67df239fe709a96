"""Parts of prompts that other programs read and craft draws as words."""

from __future__ import annotations

import re

from craft_protos.generate import A1111

# What AUTOMATIC1111 reads in a prompt, and craft in that syntax alone.
_OWN = re.compile(
    r"""
    (?<!\\)\[[^\[\]]*:\s*[\d.]+\s*\]    |  # [from:to:when]
    (?<!\\)\[[^\[\]]*\|[^\[\]]*\]       |  # [one|the other, by turns]
    \b(?:AND|BREAK)\b
    """,
    re.VERBOSE,
)
# What its extensions read.
_OF_EXTENSIONS = re.compile(
    r"""
    \{[^{}]*\|[^{}]*\}                   |  # {one|another}, by chance
    (?<!\w)__[\w*/-]+__(?!\w)            |  # a line of a file
    <(?:hypernet|embedding)\b[^<>]*>
    """,
    re.VERBOSE,
)


def drawn(*prompts: str, syntax: str = "") -> list[str]:
    """Such parts, each once; `syntax`: in which the prompts are read."""
    patterns = (_OF_EXTENSIONS,) if syntax == A1111 else (_OWN, _OF_EXTENSIONS)
    found = (one[0] for text in prompts for pattern in patterns for one in pattern.finditer(text))
    return list(dict.fromkeys(found))
