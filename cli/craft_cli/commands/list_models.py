"""craft list-models: the same as `craft models list`."""

from __future__ import annotations

import typer

from craft_cli.commands.models import list_models
from craft_cli.parsing import leaf

app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)
app.command("list-models", **leaf("craft list-models --json | jq -r '.[].name'"))(list_models)
