"""craft models: what craft can draw with."""

from __future__ import annotations

import typer

from craft_cli import completing, output, units
from craft_cli.parsing import CONTEXT, QuickCommand, new_app
from craft_cli.session import Session

app = new_app(
    "List, load and unload models.",
    examples=(
        "Examples:\n  craft models list\n  craft models show pocket --json\n  craft models load pocket --keep-alive 1h"
    ),
)

_NAME = typer.Argument(..., metavar="NAME", help="A model's name.", autocompletion=completing.models)
_JSON = typer.Option(False, "--json", help="JSON on stdout.")


@app.command("list", cls=QuickCommand, context_settings=CONTEXT)
def list_models(as_json: bool = _JSON) -> None:
    """List the models that are here."""
    from craft_cli import drawing, shapes

    models = drawing.insist(Session(), lambda client: client.list_models())
    if as_json:
        output.print_json([shapes.model(model) for model in models])
        return
    output.print_table(
        ["name", "pipeline", "size", "precision", "default size", "loaded on"],
        [
            [
                model.name,
                model.refused or model.pipeline,
                units.size(model.size_bytes),
                model.precision,
                f"{model.defaults.width}x{model.defaults.height}",
                ", ".join(model.loaded_on),
            ]
            for model in models
        ],
    )


@app.command("show", cls=QuickCommand, context_settings=CONTEXT)
def show(name: str = _NAME, as_json: bool = _JSON) -> None:
    """Show one model."""
    from craft_cli import drawing, shapes

    model = shapes.model(drawing.insist(Session(), lambda client: client.get_model(name)))
    if as_json:
        output.print_json(model)
        return
    defaults = model.pop("defaults")
    rows = [[field, _cell(value)] for field, value in model.items()]
    output.print_table(
        ["model", name], rows + [[f"default {field}", _cell(value)] for field, value in defaults.items()]
    )


@app.command("load", cls=QuickCommand, context_settings=CONTEXT)
def load(
    name: str = _NAME,
    keep_alive: str = typer.Option("", "--keep-alive", help="How long it stays when idle: 90s, 5m, 2h; -1: for ever."),
) -> None:
    """Load a model into the device's memory, before anyone asks for it."""
    seconds = units.seconds(keep_alive, "--keep-alive") if keep_alive else 0.0
    model = Session().client.load_model(name, seconds)
    output.line(f"{model.name}\t{', '.join(model.loaded_on)}")


@app.command("unload", cls=QuickCommand, context_settings=CONTEXT)
def unload(name: str = _NAME) -> None:
    """Give a model's memory back."""
    output.line(Session().client.unload_model(name).name)


def _cell(value: object) -> str:
    if isinstance(value, list):
        return ", ".join(map(str, value))
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "" if value is None else str(value)
