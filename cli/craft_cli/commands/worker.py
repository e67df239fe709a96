"""craft worker: this machine as a worker of a daemon on another one."""

from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path

import typer
from craft_protos.reasons import CraftError

from craft_cli.parsing import leaf, new_app

app = new_app(
    "Draw on this machine for a daemon on another one; see docs/fleet.md.",
    examples="Examples:\n  craft worker join 10.0.0.5:7812 --ca sha256:0123...   (as `craft fleet invite` prints it)",
)
_NEEDED = {"craftd": "craft's daemon", "torch": "PyTorch", "cryptography": "cryptography"}


@app.callback()
def _group() -> None:
    """Keeps `join` a command of its own: Typer would take a lone command for the whole group."""


@app.command(
    "join",
    **leaf(
        "craft worker join 10.0.0.5:7812 --ca sha256:0123...",
        "craft worker join 10.0.0.5:7812 --ca sha256:0123... < token",
        "craft worker join 10.0.0.5:7812      (once it has joined)",
    ),
)
def join(
    address: str = typer.Argument(..., metavar="HOST:PORT", help="The daemon's worker.listen."),
    ca: str = typer.Option("", "--ca", metavar="sha256:HEX", help="The daemon's fingerprint, as it invited."),
    device: str = typer.Option("", "--device", help="What it computes on: cuda:1, cpu, ...; else worker.device."),
    folder: str = typer.Option("", "--folder", metavar="DIR", help="Its certificate and files; one a worker."),
) -> None:
    """Join a daemon on another machine, and draw for it until Ctrl-C.

    The token is read from stdin, or from CRAFT_JOIN_TOKEN. Started again, it needs none. A worker draws on one
    device: for two, join twice, with a --folder each.
    """
    for module, what in _NEEDED.items():
        if importlib.util.find_spec(module) is None:
            message = f"a worker needs {what}, which is not installed here"
            raise CraftError("EXTRA_MISSING", message, "pip install 'craftengine[daemon]'")
    given = {"--ca": ca, "--device": device, "--folder": folder and str(Path(folder).resolve())}
    options = [word for name, value in given.items() if value for word in (name, value)]
    os.execv(sys.executable, [sys.executable, "-P", "-m", "craftd.joining", address, *options])
