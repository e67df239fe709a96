"""The Typer app: the names of the commands, and where each one lives."""

from __future__ import annotations

from typing import Any, ClassVar

import typer
from craft_protos.version import __version__

from craft_cli.parsing import CONTEXT, LazyGroup

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


class _Craft(LazyGroup):
    members: ClassVar[dict[str, tuple[str, bool]]] = {
        "generate": ("craft_cli.commands.generate", False),
        "list-models": ("craft_cli.commands.list_models", False),
        "models": ("craft_cli.commands.models", True),
        "lora": ("craft_cli.commands.loras", True),
        "jobs": ("craft_cli.commands.jobs", True),
        "images": ("craft_cli.commands.images", True),
        "keys": ("craft_cli.commands.keys", True),
        "daemon": ("craft_cli.commands.daemon", True),
        "config": ("craft_cli.commands.config", True),
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
