"""craft fleet: the workers that draw, one for each device, on this machine and on others."""

from __future__ import annotations

import typer
from craft_protos.reasons import CraftError

from craft_cli import completing, errors
from craft_cli.connection.session import Session
from craft_cli.generate import output
from craft_cli.parsing import leaf, new_app
from craft_cli.render import units

app = new_app(
    "Look after the workers: a process for each device that draws, on this machine and on others that joined.",
    examples=(
        "Examples:\n  craft config set worker.devices cuda:0,cuda:1\n"
        "  craft fleet list\n"
        "  craft fleet drain cuda:1\n"
        "  craft fleet invite box-2\n"
        "  craft fleet list --json | jq -r '.[] | select(.state == \"idle\").name'"
    ),
)

_NAME = typer.Argument(..., metavar="NAME", help="The worker's name.", autocompletion=completing.workers)
_JSON = typer.Option(False, "--json", help="JSON on stdout.")


@app.command("list", **leaf("craft fleet list", "craft fleet list --json | jq '.[].models'"))
def list_workers(as_json: bool = _JSON) -> None:
    """List the workers: what each does, what it still has to draw, which models it holds."""
    from craft_cli.generate import drawing
    from craft_cli.render import daemon_shapes

    told = [daemon_shapes.worker(one) for one in drawing.insist(Session(), lambda client: client.status()).workers]
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


@app.command("show", **leaf("craft fleet show box-2", "craft fleet show cuda:1 --json | jq .rows"))
def show(name: str = _NAME, as_json: bool = _JSON) -> None:
    """Show one worker: where it is, what it does, what it holds."""
    from craft_cli.generate import drawing
    from craft_cli.render import daemon_shapes

    workers = drawing.insist(Session(), lambda client: client.status()).workers
    told = next((daemon_shapes.worker(one) for one in workers if name in (one.name, one.device)), None)
    if told is None:
        known = ", ".join(one.name or one.device for one in workers) or "none that runs"
        raise CraftError("UNKNOWN_WORKER", f"no worker is called {name!r}", f"there is {known}")
    if as_json:
        output.print_json(told)
        return
    rows = [
        ["state", _state(told)],
        ["machine", (told["address"] or "not connected") if told["remote"] else "this one"],
        ["device", told["device"] or "-"],
        ["process", f"pid {told['pid']}" if told["pid"] else "none"],
        ["models", ", ".join(told["models"]) or "-"],
        ["to draw", str(told["rows"])],
        ["draws at once", str(told["capacity_rows"]) if told["capacity_rows"] else "-"],
        ["memory", units.size(told["rss_bytes"])],
        ["on the device", units.size(told["device_bytes"])],
        ["restarts", str(told["restarts"])],
    ]
    output.print_table(["worker", told["name"] or told["device"]], rows)


@app.command("invite", **leaf("craft fleet invite box-2", "craft fleet invite box-2 --json | jq -r .token"))
def invite(
    name: str = typer.Argument(..., metavar="NAME", help="What the worker will be called."), as_json: bool = _JSON
) -> None:
    """Let a worker on another machine join, once: prints the command for that machine, and a token apart.

    worker.listen says where workers connect to. The token is a secret, and good for a quarter of an hour.
    """
    told = Session().client.invite_worker(name)
    if as_json:
        output.print_json(
            {
                "name": told.name,
                "address": told.address,
                "ca": told.fingerprint,
                "token": told.token,
                "valid_s": told.valid_s,
            }
        )
        return
    output.line(f"craft worker join {told.address} --ca {told.fingerprint}")
    errors.remark("craft: run that on the other machine; it asks for the token, which is good once, for 15 minutes:")
    output.line(told.token)


@app.command("rm", **leaf("craft fleet rm box-2"))
def remove(name: str = _NAME) -> None:
    """Remove a worker on another machine, at once: its certificate is good for nothing, its jobs wait again."""
    Session().client.remove_worker(name)
    errors.remark(f"craft: {name} is no worker any more")


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
