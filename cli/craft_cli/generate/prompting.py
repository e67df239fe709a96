"""The options that say how a prompt is read, and the fields of a request that they are."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import typer
from craft_protos.generate import CRAFT, SYNTAXES, GenerateRequest
from craft_protos.reasons import CraftError
from craft_protos.settings import GenerateSettings

SYNTAX = typer.Option(
    "", "--prompt-syntax", metavar="|".join(SYNTAXES), help="How the prompt is written; plain: brackets are words."
)


def asked(syntax: str) -> dict[str, Any]:
    """Fields of a request. Raises USAGE."""
    name = syntax.lower()
    if name not in ("", *SYNTAXES):
        raise CraftError("USAGE", f"--prompt-syntax: {syntax!r} is none", f"it is {', '.join(SYNTAXES)}")
    return {"prompt_syntax": name}


def with_settings(asked: GenerateRequest, settings: GenerateSettings) -> GenerateRequest:
    """What is configured is said where nothing else is, and where it is not the usual one."""
    configured = "" if settings.prompt_syntax == CRAFT else settings.prompt_syntax
    return replace(asked, prompt_syntax=asked.prompt_syntax or configured)
