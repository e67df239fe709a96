"""Hints are the command's: here its options become a request's fields, whatever the contract calls them."""

from __future__ import annotations

import re
from collections.abc import Mapping

_OPTION = re.compile(r"(?<![\w-])(?:--([a-z]+(?:-[a-z]+)*)|-m)(?![\w-])")
_COMMAND = re.compile(r"(`[^`]*`|\bcraft [a-z]+[^;,`]*)")  # one without backticks goes on to the next , or ;
_NO_FIELD = {"precision": "the configuration's worker.precision"}


def in_fields(hint: str, names: Mapping[str, str]) -> str:
    """`names`: the services' names of fields -> the request's. Commands stay as they are typed."""

    def field(option: re.Match[str]) -> str:
        name = (option[1] or "model").replace("-", "_")
        return _NO_FIELD.get(name) or names.get(name, name)

    parts = _COMMAND.split(hint)
    return "".join(part if place % 2 else _OPTION.sub(field, part) for place, part in enumerate(parts))
