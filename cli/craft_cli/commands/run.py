"""craft run: what `generate` does, where the first word may name the model; without a prompt it asks for them."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

import typer
from craft_protos.reasons import CraftError

from craft_cli import errors
from craft_cli.commands.generate import Command, generate
from craft_cli.connection.session import Session
from craft_cli.parsing import CONTEXT

_EXAMPLES = """\b
Examples:
  craft run a red apple
  craft run pocket a red apple
  craft run pocket            (asks for prompts, one a line)

\b
The first word is a model only where a model is called exactly so, and more words
  follow it. Everything else is as in `craft generate --help`.
"""

app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)


class _Run(Command):
    """Takes the model off the words before it draws."""

    def invoke(self, ctx: Any) -> Any:
        words, model = ctx.params["words"] or [], ctx.params["model"]
        if words and not model and words[0] in _models():
            model, words = words[0], words[1:]
        ctx.params |= {"words": words, "model": model}
        if words or not model or sys.stdin is None or not sys.stdin.isatty():
            return super().invoke(ctx)
        for prompt in _asked():
            self._draw(ctx, prompt)
        return None

    def _draw(self, ctx: Any, prompt: str) -> None:
        """A picture that could not be drawn does not end the conversation."""
        ctx.params["words"] = [prompt]
        try:
            super().invoke(ctx)
        except CraftError as error:
            errors.report(error)


app.command("run", cls=_Run, epilog=_EXAMPLES, context_settings=CONTEXT)(generate)


def _models() -> set[str]:
    """Every name and alias of a model that is here."""
    from craft_cli.generate import drawing

    models = drawing.insist(Session(), lambda client: client.list_models())
    return {name for model in models for name in (model.name, *model.aliases)}


def _asked() -> Iterator[str]:
    """Yields each line that is typed at the terminal and is not blank, until the end of input (Ctrl-D)."""
    while True:
        print(">>> ", end="", file=sys.stderr, flush=True)
        line = sys.stdin.readline()
        if not line:
            print(file=sys.stderr)
            return
        if line.strip():
            yield line.strip()
