"""craft presets: options of `craft generate` under a name."""

from __future__ import annotations

from typing import Any

import typer

from craft_cli import completing
from craft_cli.generate import output, presets
from craft_cli.parsing import leaf, new_app

app = new_app(
    "Keep options of `craft generate` under a name: --preset NAME uses them.",
    examples=(
        "Examples:\n  craft presets save portrait -W 768 -H 1024 --steps 30 -l film:0.6\n"
        "  craft generate 'a sailor' --preset portrait --steps 40\n  craft presets list"
    ),
)

_NAME = typer.Argument(..., metavar="NAME", help="A preset's name.", autocompletion=completing.presets)
_NAMES = typer.Argument(..., metavar="NAME...", help="Presets' names.", autocompletion=completing.presets)
_OPTIONS = typer.Argument(None, metavar="[OPTIONS OF GENERATE]...", help="As in `craft generate --help`.")
_JSON = typer.Option(False, "--json", help="JSON on stdout.")
_save = leaf(
    "craft presets save portrait -W 768 -H 1024 --steps 30 --guidance 5",
    "craft presets save portrait -l film:0.6 --sampler 'Euler a' --force",
)
_save["context_settings"] = {
    **_save["context_settings"],
    "ignore_unknown_options": True,
    "allow_interspersed_args": False,
}


@app.command("save", **_save)
def save(
    name: str = typer.Argument(..., metavar="NAME", help="What to call it."),
    options: list[str] = _OPTIONS,
    force: bool = typer.Option(False, "-f", "--force", help="Overwrite what exists."),
) -> None:
    """Keep options under a name: a TOML file in the folder of the configuration, to be read and written by hand too."""
    output.line(presets.save(name, options or [], generate(), force=force))


@app.command("list", **leaf("craft presets list", "craft presets list --json | jq -r '.[].name'"))
def list_presets(as_json: bool = _JSON) -> None:
    """List the presets and their options."""
    known = {name: presets.read(name, generate()) for name in presets.names()}
    if as_json:
        output.print_json([{"name": name, "options": options} for name, options in known.items()])
        return
    rows = [[name, presets.line(options)] for name, options in known.items()]
    output.print_table(
        ["name", "options"],
        rows,
        none="no presets yet: craft presets save NAME --steps 30; those of few-step LoRAs (lcm, dmd2) come with craft",
    )


@app.command("show", **leaf("craft presets show portrait"))
def show(name: str = _NAME, as_json: bool = _JSON) -> None:
    """Show a preset's options."""
    options = presets.read(name, generate())
    if as_json:
        output.print_json({"name": name, "options": options})
    else:
        output.print_table(["preset", name], [[option, output.cell(value)] for option, value in options.items()])


@app.command("rm", **leaf("craft presets rm portrait"))
def remove(names: list[str] = _NAMES) -> None:
    """Forget presets."""
    for name in names:
        presets.remove(name)
        output.line(name)


def generate() -> Any:
    """The command whose options they are."""
    from craft_cli.commands import generate

    return typer.main.get_command(generate.app)
