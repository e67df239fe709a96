"""The short words that users of docker and ollama know: show, rm, ps, stop, version, help."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import typer
from craft_protos import samplers
from craft_protos.reasons import CraftError
from craft_protos.version import __version__

from craft_cli import completing, errors
from craft_cli.confirming import FORCE, confirm
from craft_cli.connection.session import Session
from craft_cli.generate import output
from craft_cli.parsing import leaf, new_app
from craft_cli.render import units

if TYPE_CHECKING:
    from craft_protos import jobs_pb2

app = new_app("Short words.")
_JSON = typer.Option(False, "--json", help="JSON on stdout.")


def _names(incomplete: str) -> list[str]:
    return [*completing.models(incomplete), *completing.loras(incomplete)]


_NAME = typer.Argument(..., metavar="NAME", help="A model or a LoRA.", autocompletion=_names)
_NAMES = typer.Argument(..., metavar="NAME...", help="Models and LoRAs.", autocompletion=_names)

_COMMAND = typer.Argument(None, metavar="[COMMAND]...", help="Of what; of all if not given.")


@app.command("show", **leaf("craft show pocket", "craft show watercolor --json"))
def show(name: str = _NAME, as_json: bool = _JSON) -> None:
    """Show one model or LoRA."""
    from craft_cli.commands import loras, models

    if _kind_of(Session(), name, "show") == "models":
        models.show(name, as_json)
    else:
        loras.show(name, as_json)


@app.command("rm", **leaf("craft rm sdxl", "craft rm watercolor --force"))
def remove(names: list[str] = _NAMES, *, force: bool = FORCE) -> None:
    """Forget models and LoRAs. What craft downloaded is deleted; a file that was linked stays where it lies."""
    from craft_cli.commands import loras, models

    session = Session()
    kinds = {name: _kind_of(session, name, "rm") for name in names}
    if not force:
        confirm(f"forget {', '.join(names)}?", "nothing was removed")
    for name, kind in kinds.items():
        models.remove([name]) if kind == "models" else loras.remove([name])


@app.command("ps", **leaf("craft ps", "craft ps --json | jq -r '.jobs[].id'"))
def running(as_json: bool = _JSON) -> None:
    """Show the jobs that run or wait, and the models in memory. None is started where no daemon runs."""
    from craft_protos import jobs_pb2

    from craft_cli.render import daemon_shapes, shapes

    client = Session(autostart=False).client
    states = [jobs_pb2.JOB_STATE_QUEUED, jobs_pb2.JOB_STATE_RUNNING]
    jobs, workers = list(client.list_jobs(states, 0)), client.status().workers
    if as_json:
        workers_known = [daemon_shapes.worker(worker) for worker in workers]
        output.print_json({"jobs": [shapes.job(job) for job in jobs], "workers": workers_known})
        return
    output.print_table(
        ["id", "state", "age", "model", "what"], [_row(job) for job in jobs], none="no job waits or runs"
    )
    loaded = [
        [model, worker.name or worker.device, units.size(worker.rss_bytes)]
        for worker in workers
        for model in worker.models
    ]
    output.print_table(["model in memory", "device", "memory of its worker"], loaded, none="no model is in memory")


@app.command("stop", **leaf("craft stop sdxl"))
def stop(
    model: str = typer.Argument("", metavar="MODEL", help="What to unload.", autocompletion=completing.models),
) -> None:
    """Give a model's memory back."""
    from craft_cli.commands import models

    if not model:
        message = "which model? A job is stopped by `craft jobs cancel JOB`"
        raise CraftError("USAGE", message, "the daemon itself: craft daemon stop")
    models.unload(model)


@app.command("samplers", **leaf("craft samplers", "craft samplers --json | jq -r '.[].name'"))
def show_samplers(as_json: bool = _JSON) -> None:
    """List the samplers, other programs' names for them, and the schedules that each goes with.

    Noise: between steps. Calls of the model: 0 where a sampler makes as many as it needs.
    """
    known = [
        {
            "name": name,
            "aliases": list(aliases),
            "schedules": [] if samplers.parts_of(name)[1] else list(samplers.schedules_of(name)),
            "flow_models": name in samplers.FLOW,
            "noise_between_steps": samplers.about(name).is_random,
            "model_calls_a_step": samplers.about(name).calls,
            "equal_to": samplers.about(name).reference,
        }
        for name, aliases in samplers.SAMPLERS.items()
    ]
    if as_json:
        output.print_json(known)
        return
    rows = [[output.cell(value) for name, value in one.items() if name != "equal_to"] for one in known]
    heads = ["sampler", "also called", "with a schedule: NAME SCHEDULE", "on flow models", "noise", "calls a step"]
    output.print_table(heads, rows)


@app.command("version", **leaf("craft version --json"))
def version(as_json: bool = _JSON) -> None:
    """Show craft's version, and the running daemon's."""
    daemon = _daemon_version()
    if as_json:
        output.print_json({"craft": __version__, "daemon": daemon})
        return
    output.line(f"craft {__version__}")
    output.line(f"craftd {daemon}" if daemon else "craftd: none runs")


@app.command("help", **leaf("craft help", "craft help jobs list"))
def show_help(context: typer.Context, command: list[str] = _COMMAND) -> None:
    """Show what there is, or one command's help."""
    found: Any = context.find_root().command
    parent = context.find_root()
    for word in command or []:
        known = found.get_command(parent, word) if hasattr(found, "get_command") else None
        if known is None:
            raise CraftError("USAGE", f"there is no command {word!r}", "craft help")
        found, parent = known, type(context)(known, info_name=known.name, parent=parent)
    output.line(found.get_help(parent))


def _kind_of(session: Session, name: str, verb: str) -> str:
    """`models` or `lora`: whose name it is. Raises USAGE for one of both, UNKNOWN_MODEL for one of neither."""
    from craft_cli.generate import drawing

    models = drawing.insist(session, lambda client: client.list_models())
    loras = drawing.insist(session, lambda client: client.list_loras())
    is_model = any(name in (model.name, *model.aliases) for model in models)
    is_lora = any(name in (lora.name, lora.id) for lora in loras)
    if is_model and is_lora:
        hint = f"craft models {verb} {name}, or craft lora {verb} {name}"
        raise CraftError("USAGE", f"{name} is a model and a LoRA", hint)
    if not (is_model or is_lora):
        hint = "see `craft ls` and `craft lora ls`"
        raise CraftError("UNKNOWN_MODEL", f"no model and no LoRA is called {errors.one_line(name)}", hint)
    return "models" if is_model else "lora"


def _row(job: jobs_pb2.Job) -> list[str]:
    from craft_cli.render import shapes

    is_training = job.HasField("train")
    model, what = (job.train.model, job.train.name) if is_training else (job.generate.model, job.generate.prompt)
    return [job.id, shapes.state_of(job.state).lower(), units.age_of(job.create_time.seconds), model, what]


def _daemon_version() -> str:
    """ "" where none runs."""
    try:
        return Session(autostart=False).client.status(timeout_s=2.0).version
    except CraftError:
        return ""
