"""The options that say how a prompt is read, and the fields of a request that they are."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import typer
from craft_protos.generate import CRAFT, SYNTAXES, GenerateRequest
from craft_protos.reasons import CraftError
from craft_protos.settings import GenerateSettings

SYNTAX = typer.Option(
    "", "--prompt-syntax", metavar="|".join(SYNTAXES), help="How the prompt is written; plain: brackets are words."
)

WILDCARDS = typer.Option(
    False, "--wildcards", help="Choose among {a|b} and the lines of __NAME__, for each picture by its seed."
)
TRUE_CFG = typer.Option(
    None, "--true-cfg", metavar="SCALE", help="Guidance away from the negative prompt, of FLUX.1: such as 4."
)


def asked(syntax: str, wildcards: bool, true_cfg: float | None) -> dict[str, Any]:
    """Fields of a request. Raises USAGE."""
    name = syntax.lower()
    if name not in ("", *SYNTAXES):
        raise CraftError("USAGE", f"--prompt-syntax: {syntax!r} is none", f"it is {', '.join(SYNTAXES)}")
    return {"prompt_syntax": name, "wildcards": wildcards, "true_cfg_scale": true_cfg}


def wildcard_in(prompt: str) -> str:
    """The first `__name__` of a prompt; "" where there is none."""
    found = re.search(r"__[A-Za-z][\w./-]{0,100}?__", prompt)
    return found[0] if found else ""


def with_settings(asked: GenerateRequest, settings: GenerateSettings) -> GenerateRequest:
    """What is configured is said where nothing else is, and where it is not the usual one."""
    configured = "" if settings.prompt_syntax == CRAFT else settings.prompt_syntax
    return replace(asked, prompt_syntax=asked.prompt_syntax or configured)
