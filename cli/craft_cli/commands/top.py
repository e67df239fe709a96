"""craft top: what the daemon does, as it does it."""

from __future__ import annotations

import os

import typer

from craft_cli.generate import output
from craft_cli.parsing import leaf, new_app

app = new_app("Top.")
_JSON = typer.Option(False, "--json", help="One moment as JSON on stdout.")
_NEWS_S = 0.5


@app.command("top", **leaf("craft top", "craft top | head -3", "craft top --json | jq '.workers[].calls_per_s'"))
def top(as_json: bool = _JSON) -> None:
    """Show jobs and how far they are, the queue, workers, their models, memory and speed, until q or Ctrl-C.

    In a pipe, and where TERM is dumb, one moment is told. No daemon is started where none runs.
    A job that is shown counts as watched: one that was waited for goes on though its command has vanished.
    """
    from craft_cli import monitoring
    from craft_cli.render import dashboard

    monitor = monitoring.Monitor()
    moment = monitor.look()  # without a daemon there is nothing to be shown
    if output.is_at_terminal() and not as_json and os.environ.get("TERM", "dumb") != "dumb":
        dashboard.run(monitor)
        return
    monitor.await_news(_NEWS_S)
    moment = monitor.look()
    if as_json:
        output.print_json(monitoring.shape(moment))
        return
    for line in dashboard.lines(moment):
        output.line(line)
