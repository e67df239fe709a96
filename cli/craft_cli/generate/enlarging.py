"""The options that enlarge what is drawn: at the end (--upscale), or before it is drawn again (--hires)."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any

import typer
from craft_protos.generate import MOST_HIRES, MOST_UPSCALE, Hires, Upscale
from craft_protos.reasons import CraftError

from craft_cli import completing

UPSCALE = typer.Option(
    None, "--upscale", metavar="TIMES", help=f"Enlarge the picture so many times: 2, 4, up to {MOST_UPSCALE}."
)
UPSCALER = typer.Option(
    "", "--upscaler", metavar="NAME", help="What enlarges: see craft models.", autocompletion=completing.models
)
HIRES = typer.Option(
    None, "--hires", metavar="[TIMES]", help=f"Draw, enlarge so many times (2; up to {MOST_HIRES}), draw again."
)
HIRES_STRENGTH = typer.Option(
    None, "--hires-strength", metavar="0-1", help="How much the second drawing draws anew: 0.5."
)
HIRES_STEPS = typer.Option(None, "--hires-steps", help="Its denoising steps, if not as many as the first's.")

_USUAL = "2"
_NUMBER = re.compile(r"[0-9]+(\.[0-9]*)?|\.[0-9]+")


def asked(
    upscale: float | None, upscaler: str, hires: float | None, strength: float | None, steps: int | None
) -> dict[str, Any]:
    """Fields of a request. Raises USAGE for what would do nothing."""
    if hires is None and (strength, steps) != (None, None):
        option = "--hires-steps" if strength is None else "--hires-strength"
        raise CraftError("USAGE", f"{option} does nothing without --hires", "add --hires")
    if hires is None and upscale is None and upscaler:
        raise CraftError("USAGE", "--upscaler does nothing here", "add --upscale 4, or --hires")
    return {
        "upscale": None if upscale is None else Upscale(upscaler, upscale),
        "hires": None if hires is None else Hires(hires, strength, steps, upscaler),
    }


def spelled_out(args: Sequence[str]) -> list[str]:
    """A command line in which --hires has its number."""
    return list(_spelled_out(args))


def _spelled_out(args: Sequence[str]) -> Iterator[str]:
    for word, following in zip(args, [*args, ""][1:], strict=True):
        is_bare = word == "--hires" and not _NUMBER.fullmatch(following)
        yield f"{word}={_USUAL}" if is_bare else word
