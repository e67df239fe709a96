"""The options of SDXL's refiner, a second model that does the last of the steps."""

from __future__ import annotations

import typer
from craft_protos.generate import Refiner
from craft_protos.reasons import CraftError

from craft_cli import completing

REFINER = typer.Option(
    "", "--refiner", metavar="NAME", help="SDXL's refiner does the last steps.", autocompletion=completing.models
)
SWITCH = typer.Option(None, "--refiner-switch", metavar="0-1", help="The share of the steps after which it does: 0.8.")


def asked(name: str, switch: float | None) -> Refiner | None:
    """What a request says of it. Raises USAGE for a switch that would do nothing."""
    if not name and switch is not None:
        raise CraftError("USAGE", "--refiner-switch does nothing without --refiner", "add --refiner NAME")
    return Refiner(name, switch) if name else None
