"""craft jobs: what was asked for and how far it is."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import typer
from craft_protos.reasons import CraftError

from craft_cli import completing, errors
from craft_cli.confirming import confirm
from craft_cli.connection.session import Session
from craft_cli.generate import combining, loras, output
from craft_cli.parsing import leaf, new_app
from craft_cli.render import units

if TYPE_CHECKING:
    from craft_protos import jobs_pb2

app = new_app(
    "List, watch and cancel jobs. An id may be shortened to any unique beginning.",
    examples=(
        "Examples:\n  craft jobs list --state running\n  craft jobs wait $(craft generate 'a red apple' --detach)\n"
        "  craft jobs show 3f9a --json | jq -r '.images[].id'"
    ),
)

_ID = typer.Argument(..., metavar="ID", help="A job's id, or the beginning of it.", autocompletion=completing.jobs)
_RUNNING = typer.Argument(
    "", metavar="[ID]", help="A job's id; the one that runs if not given.", autocompletion=completing.jobs
)
_ALL = typer.Option(False, "--all", help="Every job that has not ended; with a key, of its owner's.")
_YES = typer.Option(False, "-y", "--yes", help="With --all: do not ask.")
_SOME = typer.Argument(
    None, metavar="[ID]...", help="Jobs' ids, or the beginnings of them.", autocompletion=completing.unfinished_jobs
)
_IDS = typer.Argument(
    ..., metavar="ID...", help="Jobs' ids, or the beginnings of them.", autocompletion=completing.jobs
)
_STATES = typer.Option(
    [], "--state", metavar="STATE", help="Only those queued, running, succeeded, failed or cancelled."
)
_JSON = typer.Option(False, "--json", help="JSON on stdout.")
_NONE = "no job waits or runs"


@app.command("list", **leaf("craft jobs list --state running", "craft jobs list -n 0 --json | jq -r '.[].id'"))
def list_jobs(
    state: list[str] = _STATES,
    limit: int = typer.Option(20, "-n", "--limit", help="How many, newest first; 0: all."),
    as_json: bool = _JSON,
) -> None:
    """List jobs, newest first."""
    from craft_cli.generate import drawing
    from craft_cli.render import shapes

    units.require_range(limit, "-n", 0)
    states = [_state(name) for name in state]
    jobs = drawing.insist(Session(), lambda client: list(client.list_jobs(states, limit)))
    if as_json:
        output.print_json([shapes.job(job) for job in jobs])
        return
    output.print_table(
        ["id", "state", "age", "model", "pictures", "prompt", "kind"],
        [
            [
                job.id,
                shapes.state_of(job.state).lower(),
                units.age_of(job.create_time.seconds),
                job.train.model if job.HasField("train") else job.generate.model,
                "" if job.HasField("train") else _pictures(job),
                _subject(job),
                job.WhichOneof("spec") or "generate",
            ]
            for job in jobs
        ],
        none="no such jobs; craft jobs list has all"
        if state
        else "no jobs yet; craft generate 'a red apple' makes one",
    )


def _pictures(job: jobs_pb2.Job) -> str:
    """How many there are of those that were asked for; of a job that succeeded, how many have not been deleted."""
    from craft_protos import jobs_pb2

    kept, asked = len(job.images), len(job.generate.indices) or max(1, job.generate.count)
    if job.state == jobs_pb2.JOB_STATE_SUCCEEDED and kept < asked:
        return f"{asked}/{asked}, {kept} kept"
    return f"{kept}/{asked}"


@app.command(
    "show",
    **leaf(
        "craft jobs show 3f9a --json | jq .timings",
        "craft jobs show 3f9a --plot",
        "craft jobs show 3f9a --plot -o loss.png",
        "craft jobs show 3f9a --tensorboard runs",
    ),
)
def show(
    job_id: str = _ID,
    as_json: bool = _JSON,
    *,
    plot: bool = typer.Option(False, "--plot", help="A training's losses as a curve."),
    out: str = typer.Option(None, "-o", "--output", metavar="PATH|-", help="With --plot: as a PNG, there."),
    samples: str = typer.Option(None, "--samples", metavar="FOLDER", help="Write a training's samples there."),
    tensorboard: str = typer.Option(
        None, "--tensorboard", metavar="FOLDER", help="Write a training's losses there as TensorBoard reads them."
    ),
    force: bool = typer.Option(False, "-f", "--force", help="Overwrite what exists."),
) -> None:
    """Show one job."""
    from craft_cli.generate import drawing
    from craft_cli.render import shapes

    if out is not None and not plot:
        raise CraftError("USAGE", "-o says where the plot goes", "give --plot too")
    if force and out is None and samples is None and tensorboard is None:
        hint = "it goes with -o, --samples and --tensorboard"
        raise CraftError("USAGE", "--force: there is nothing to overwrite", hint)
    combining.refuse({"--json": as_json, "-o": out}, ("--json", "-o", "the losses are numbers, or a picture"))
    if tensorboard is not None:
        from craft_cli.training import training

        training.write_events(Session(), job_id, Path(tensorboard), as_json=as_json, force=force)
        if not plot and samples is None:
            return
    if plot or samples is not None:
        from craft_cli.training import training

        training.show_log(Session(), job_id, plot=plot, out=out, samples=samples, as_json=as_json, force=force)
        return
    job = drawing.insist(Session(), lambda client: client.get_job(job_id))
    if as_json:
        output.print_json(shapes.job(job))
        return
    asked = shapes.train(job.train) if job.HasField("train") else shapes.spec(job.generate)
    if "loras" in asked:
        asked["loras"] = loras.shown(asked["loras"])
    rows = [
        ["kind", job.WhichOneof("spec") or "generate"],
        ["state", shapes.state_of(job.state).lower()],
        ["created", shapes.moment(job.create_time) or ""],
        *([["owner", job.owner]] if job.owner != "local" else []),
        ["attempts", str(job.attempts)],
        *([["waits for", job.why_waiting]] if job.why_waiting else []),
        *([["worker", f"{job.worker}: {job.placed}"]] if job.placed else []),
        *[[name.replace("_", " "), output.cell(value)] for name, value in asked.items() if value not in ("", None, [])],
        *([["LoRA", job.lora]] if job.lora else []),
        *[["picture", f"{image.id}  seed {image.seed}"] for image in sorted(job.images, key=lambda image: image.index)],
    ]
    if job.error.reason:
        rows.append(["error", f"{job.error.message} ({job.error.reason})"])
    output.print_table(["job", job.id], rows)


@app.command("watch", **leaf("craft jobs watch 3f9a", "craft jobs watch"))
def watch(
    job_id: str = _RUNNING, as_json: bool = typer.Option(False, "--json", help="One JSON object an event.")
) -> None:
    """Follow a job to its end. Ctrl-C ends the watching, not the job.

    Without an id it is the one that runs; of several the newest, and it is said which.
    """
    from craft_cli.generate import delivery, drawing
    from craft_cli.training import training

    session, manner = Session(), delivery.Manner(as_json=as_json)
    job = training.follow(session, job_id or _running(session), manner)
    if not as_json:
        for image in sorted(job.images, key=lambda image: image.index):
            output.line(image.id)
    drawing.require_success(job)
    if job.HasField("train"):
        training.tell(session, job, manner)


@app.command("wait", **leaf("craft jobs wait $(craft generate 'a red apple' --detach)"))
def wait(job_ids: list[str] = _IDS, as_json: bool = _JSON) -> None:
    """Wait until jobs have ended; the exit code tells how the first one that failed did."""
    from craft_cli.generate import drawing
    from craft_cli.render import shapes

    session = Session()
    failed: CraftError | None = None
    for job_id in job_ids:
        job = _await_end(session, job_id)
        if as_json:
            output.print_json(shapes.job(job))
        else:
            output.line(f"{job.id}\t{shapes.state_of(job.state).lower()}")
        try:
            drawing.require_success(job)
        except CraftError as error:
            failed = failed or error
    if failed:
        raise failed


@app.command(
    "cancel",
    **leaf(
        "craft jobs cancel 3f9a",
        "craft jobs cancel --all --yes",
        "craft jobs list --state queued --json | jq -r '.[].id' | xargs craft jobs cancel",
    ),
)
def cancel(job_ids: list[str] = _SOME, *, every: bool = _ALL, yes: bool = _YES, as_json: bool = _JSON) -> None:
    """Cancel jobs; a running one stops within a step. --all asks first."""
    from craft_cli.generate import drawing
    from craft_cli.render import shapes

    if every == bool(job_ids):
        raise CraftError("USAGE", "which jobs? Ids, or --all", "craft jobs list --state queued")
    if yes and not every:
        raise CraftError("USAGE", "--yes: jobs that are named are not asked about", "it goes with --all")
    session = Session()
    for job_id in job_ids or _all_agreed(session, is_agreed=yes):
        job = drawing.insist(session, lambda client, job_id=job_id: client.cancel_job(job_id))  # type: ignore[misc]
        if as_json:
            output.print_json(shapes.job(job))
        else:
            output.line(f"{job.id}\t{shapes.state_of(job.state).lower()}")


def _all_agreed(session: Session, *, is_agreed: bool) -> list[str]:
    """The ids of all that have not ended, newest first, once somebody has said yes to the end of them."""
    jobs = _unfinished(session)
    if not jobs:
        errors.say(f"craft: {_NONE}: nothing to cancel")
    elif not is_agreed:
        is_one = len(jobs) == 1
        subject = f": {errors.one_line(_subject(jobs[0]))[:60]}" if is_one else ""
        confirm(f"cancel {units.counted(len(jobs), 'jobs')}{subject}?", "nothing was cancelled", "--yes")
    return [job.id for job in jobs]


def _unfinished(session: Session) -> list[jobs_pb2.Job]:
    """Newest first."""
    from craft_protos import jobs_pb2

    from craft_cli.generate import drawing

    states = [jobs_pb2.JOB_STATE_QUEUED, jobs_pb2.JOB_STATE_RUNNING]
    return drawing.insist(session, lambda client: list(client.list_jobs(states, 0)))


def _running(session: Session) -> str:
    """The newest that runs, else the one whose turn comes next. Raises UNKNOWN_JOB where all have ended."""
    from craft_protos import jobs_pb2

    unfinished = _unfinished(session)
    running = [job for job in unfinished if job.state == jobs_pb2.JOB_STATE_RUNNING]
    if not unfinished:
        raise CraftError("UNKNOWN_JOB", _NONE, "craft jobs list shows those that have ended")
    chosen = running[0] if running else min(unfinished, key=lambda job: job.position)
    if len(unfinished) > 1:
        others = units.counted(len(unfinished) - 1, "other jobs")
        subject = errors.one_line(_subject(chosen))[:60]
        errors.say(f"craft: watching {chosen.id} ({subject}); {others} too: craft ps")
    return chosen.id


def _state(name: str) -> jobs_pb2.JobState.ValueType:
    from craft_protos import jobs_pb2

    full = f"JOB_STATE_{name.upper()}"
    if full in dict(jobs_pb2.JobState.items()) and name.lower() != "unspecified":
        return jobs_pb2.JobState.Value(full)
    raise CraftError("USAGE", f"--state: no state {name!r}", "queued, running, succeeded, failed or cancelled")


def _subject(job: jobs_pb2.Job) -> str:
    """What is drawn, or what is trained."""
    return f"LoRA {job.train.name}" if job.HasField("train") else job.generate.prompt


def _await_end(session: Session, job_id: str) -> jobs_pb2.Job:
    from craft_cli.generate import drawing

    for event in drawing.follow(session, job_id):
        if event.HasField("finished"):
            return event.finished.job
    raise AssertionError("unreachable")
