"""craft fleet: the workers that draw, one for each device."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from craft_cli import completing, errors
from craft_cli.connection.session import Session
from craft_cli.generate import output
from craft_cli.parsing import leaf, new_app
from craft_cli.render import units

if TYPE_CHECKING:
    pass

app = new_app(
    "Look after the workers: a process for each device that draws. worker.devices says which there are.",
    examples=(
        "Examples:\n  craft config set worker.devices cuda:0,cuda:1\n"
        "  craft fleet list\n"
        "  craft fleet drain cuda:1\n"
        "  craft fleet list --json | jq -r '.[] | select(.state == \"idle\").name'"
    ),
)

_NAME = typer.Argument(..., metavar="NAME", help="The worker's name.", autocompletion=completing.workers)
_JSON = typer.Option(False, "--json", help="JSON on stdout.")


@app.command("list", **leaf("craft fleet list", "craft fleet list --json | jq '.[].models'"))
def list_workers(as_json: bool = _JSON) -> None:
    """List the workers: what each does, what it still has to draw, which models it holds."""
    from craft_cli.generate import drawing
    from craft_cli.render import shapes

    told = [shapes.worker(one) for one in drawing.insist(Session(), lambda client: client.status()).workers]
    if as_json:
        output.print_json(told)
        return
    rows = [
        [one["name"] or one["device"], _state(one), str(one["rows"]), ", ".join(one["models"]) or "-", _memory(one)]
        for one in told
    ]
    output.print_table(
        ["worker", "state", "to draw", "models", "memory"], rows, none="no worker runs; one starts with the first job"
    )


@app.command("drain", **leaf("craft fleet drain cuda:1"))
def drain(name: str = _NAME) -> None:
    """Give a worker nothing more. What it does is finished, then its process ends.

    It stays so until `craft fleet resume`, or until the daemon starts again.
    """
    worker = Session().client.drain_worker(name, resume=False)
    left = f"{units.counted(worker.rows, 'picture')} to finish" if worker.rows else "it has nothing to do"
    errors.remark(f"craft: {name} is given nothing more; {left}")


@app.command("resume", **leaf("craft fleet resume cuda:1"))
def resume(name: str = _NAME) -> None:
    """Give a worker that was drained work again."""
    Session().client.drain_worker(name, resume=True)
    errors.remark(f"craft: {name} is given work again")


def _state(one: dict[str, object]) -> str:
    return f"{one['state']}, drained" if one["drained"] else str(one["state"])


def _memory(one: dict[str, int]) -> str:
    return units.size(one["device_bytes"] or one["rss_bytes"])
