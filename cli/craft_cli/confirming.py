"""Commands that delete for good ask at a terminal before they do; elsewhere they need an option such as `--force`."""

from __future__ import annotations

import sys

import typer
from craft_protos.reasons import CraftError

from craft_cli import errors

FORCE = typer.Option(False, "-f", "--force", help="Do not ask.")


def confirm(question: str, undone: str, option: str = "--force") -> None:
    """Ends with exit code 1, saying what was not done, unless somebody says yes. Raises USAGE where nobody is there."""
    if sys.stdin is None or not sys.stdin.isatty():
        raise CraftError("USAGE", question.rstrip("?") + ": nobody is here to confirm", f"add {option}")
    print(f"{question} [y/N] ", end="", file=sys.stderr, flush=True)
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        errors.say(f"craft: {undone}")
        raise typer.Exit(1)
