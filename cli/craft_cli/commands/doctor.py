"""craft doctor: looks at everything that craft needs, draws a picture, and says what to do where something is wrong."""

from __future__ import annotations

import typer

from craft_cli.generate import output
from craft_cli.parsing import leaf

app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)


@app.command("doctor", **leaf("craft doctor", "craft doctor --no-draw --json"))
def doctor(
    draw: bool = typer.Option(True, "--draw/--no-draw", help="Draw a picture on the built-in model."),
    as_json: bool = typer.Option(False, "--json", help="JSON on stdout."),
) -> None:
    """Look whether craft can work here: torch, device, memory, disk, folders, daemon, models, an actual picture.

    Exit code 1 where something is broken.
    """
    from craft_cli import checkup

    found = list(checkup.examine(draws=draw))
    if as_json:
        output.print_json([finding.as_dict() for finding in found])
    else:
        output.print_table(["", "what", "found"], [[one.state, one.what, one.told] for one in found])
        for one in found:
            if one.advice:
                output.line(f"{one.what}: {one.advice}")
    if any(one.state == checkup.BROKEN for one in found):
        raise typer.Exit(1)
