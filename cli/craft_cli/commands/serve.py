"""craft serve: the daemon in the foreground."""

from __future__ import annotations

import os
import sys

import typer
from craft_protos.reasons import CraftError

from craft_cli.commands import daemon
from craft_cli.connection import autostart

app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)


@app.command("serve", **daemon.http_leaf("craft serve", "craft serve --http=0.0.0.0:7811"))
def serve(http: str = daemon.HTTP) -> None:
    """Run the daemon here, until Ctrl-C, with its log on stderr: for containers, and for whoever wants to watch."""
    settings = daemon.http_settings(http)
    session = daemon.local_session()
    if running := autostart.find(session.paths):
        raise CraftError("ALREADY_RUNNING", f"a daemon runs already (pid {running.pid})", "craft daemon stop")
    autostart.require_daemon_package()
    os.environ.update(settings)
    os.execv(sys.executable, [sys.executable, "-P", "-m", "craftd", "--foreground"])
