"""craft df: how much craft keeps, and for how long."""

from __future__ import annotations

import typer

from craft_cli.connection.session import Session
from craft_cli.generate import output
from craft_cli.parsing import leaf
from craft_cli.render import units

app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)


@app.command("df", **leaf("craft df", "craft df --json | jq '.held[] | select(.what == \"pictures\").bytes'"))
def df(as_json: bool = typer.Option(False, "--json", help="JSON on stdout.")) -> None:
    """Show how much craft keeps of what, for how long, and how much room the disk has."""
    from craft_cli.generate import drawing
    from craft_cli.render import daemon_shapes

    usage = drawing.insist(Session(), lambda client: client.disk_usage())
    if as_json:
        output.print_json(daemon_shapes.disk_usage(usage))
        return
    rows = [[one.what, f"{one.count:,}", units.size(one.bytes), one.rule, one.place] for one in usage.held]
    rows.append(["free", "", units.size(usage.free_bytes), f"of {units.size(usage.total_bytes)}", ""])
    output.print_table(["what", "count", "size", "kept", "where"], rows)
