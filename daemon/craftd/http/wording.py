"""Hints are the command's: here its options become a request's fields, and its lists the contract's routes."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

_OPTION = re.compile(r"(?<![\w-])(?:--([a-z]+(?:-[a-z]+)*)|-m)(?![\w-])")
# What stands in backticks stays; a command without them goes on to the next , or ;.
_COMMAND = re.compile(r"(`[^`]*`|\bcraft [a-z]+[^;,`]*)")
_NO_FIELD = {"precision": "the configuration's worker.precision"}
_LISTS = {
    "craft models list": "GET /choices",
    "craft lora list": "GET /choices",
    "craft samplers": "GET /choices",
    "craft jobs list": "GET /jobs",
}


@dataclass(frozen=True)
class Wording:
    """One contract's words: fields' names where they are not craft's, and the routes of what the command lists."""

    names: Mapping[str, str] = field(default_factory=dict)
    lists: Mapping[str, str] = field(default_factory=dict)


OWN = Wording()
OPENAI = Wording(
    {"format": "output_format", "steps": "num_inference_steps", "count": "n"}, {"craft models list": "GET /v1/models"}
)
AUTOMATIC1111 = Wording(
    lists={
        "craft models list": "GET /sdapi/v1/sd-models",
        "craft lora list": "GET /sdapi/v1/loras",
        "craft samplers": "GET /sdapi/v1/samplers",
    }
)
VISIONCRAFT = Wording(
    lists={
        "craft models list": "GET /models",
        "craft lora list": "GET /loras",
        "craft samplers": "GET /samplers",
    }
)
AGENTS = Wording(
    lists={
        "craft models list": "list_models",
        "craft lora list": "list_loras",
        "craft samplers": "list_samplers",
        "craft jobs list": "list_jobs",
    }
)


def spoken(hint: str, wording: Wording = OWN) -> str:
    """The hint for a caller of the contract. What only a command does is said to be done on the server."""

    def named(option: re.Match[str]) -> str:
        name = (option[1] or "model").replace("-", "_")
        return _NO_FIELD.get(name) or wording.names.get(name, name)

    lists = {**_LISTS, **wording.lists}
    is_servers = False
    parts = _COMMAND.split(hint)
    for place, part in enumerate(parts):
        if not place % 2:
            parts[place] = _OPTION.sub(named, part)
            continue
        command = " ".join(part.strip("`").split()[:3])
        parts[place] = lists.get(command, part)
        is_servers |= command.startswith("craft ") and command not in lists
    return "".join(parts) + (" (on the server)" if is_servers else "")
