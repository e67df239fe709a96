"""The Typer app: the names of the commands, and where each one lives."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, ClassVar

import typer
from craft_protos.version import __version__

from craft_cli.parsing import CONTEXT, LazyGroup, Member

_HELP = """Draw pictures from words.

`craft generate "a red apple"` starts craft's daemon where none runs, draws, and
leaves a PNG in this folder.
"""

_EXAMPLES = """\b
Examples:
  craft generate "a red apple"
  craft generate "a red apple" -n 4 -o 'apple-{seed}.png'
  craft generate "a red apple" -o - | magick - apple.gif
  craft models list
  craft lora add watercolor.safetensors
  craft jobs list
"""


_GROUPS = {
    "models": Member("models", is_group=True),
    "lora": Member("loras", is_group=True),
    "jobs": Member("jobs", is_group=True),
    "images": Member("images", is_group=True),
    "presets": Member("presets", is_group=True),
    "keys": Member("keys", is_group=True),
    "fleet": Member("fleet", is_group=True),
    "worker": Member("worker", is_group=True),
    "bot": Member("bot", is_group=True),
    "daemon": Member("daemon", is_group=True),
    "config": Member("config", is_group=True),
}
_OTHER_NUMBERS = {
    "model": "models",
    "loras": "lora",
    "job": "jobs",
    "image": "images",
    "preset": "presets",
    "key": "keys",
}


class _Craft(LazyGroup):
    members: ClassVar[dict[str, Member]] = {
        "run": Member("run"),
        "generate": Member("generate"),
        "upscale": Member("upscale"),
        "pull": Member("models", "pull", "models pull"),
        "ls": Member("models", "list", "models list"),
        "show": Member("words", "show"),
        "rm": Member("words", "rm"),
        "convert": Member("convert"),
        "train": Member("loras", "train", "lora train"),
        "ps": Member("words", "ps"),
        "top": Member("top"),
        "stop": Member("words", "stop"),
        "serve": Member("serve"),
        "mcp": Member("mcp"),
        "status": Member("daemon", "status", "daemon status"),
        "logs": Member("daemon", "logs", "daemon logs"),
        "df": Member("df"),
        "prune": Member("prune"),
        "purge": Member("purge"),
        "samplers": Member("words", "samplers"),
        "doctor": Member("doctor"),
        "completion": Member("completion"),
        "version": Member("words", "version"),
        "help": Member("words", "help"),
        **_GROUPS,
        **{name: replace(_GROUPS[group], is_hidden=True) for name, group in _OTHER_NUMBERS.items()},
        "list-models": Member("models", "list", "models list", is_hidden=True),
    }


def command() -> Any:
    """The whole command line, as one object that parses and runs."""
    app = typer.Typer(
        cls=_Craft,
        help=_HELP,
        epilog=_EXAMPLES,
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
        context_settings=CONTEXT,
    )
    app.callback()(_root)
    return typer.main.get_command(app)


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"craft {__version__}")
        raise typer.Exit()


def _root(
    version: bool = typer.Option(
        False, "--version", help="Show craft's version.", callback=_print_version, is_eager=True
    ),
) -> None:
    """Root: subcommands do the work."""
