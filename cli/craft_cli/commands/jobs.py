"""craft jobs: what was asked for and how far it is."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer
from craft_protos.reasons import CraftError

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

_ID = typer.Argument(..., metavar="ID", help="A job's id, or the beginning of it.")
_NEWEST = typer.Argument("", metavar="[ID]", help="A job's id; the newest that has not ended if not given.")
_ALL = typer.Option(False, "--all", help="Every job that has not ended; with a key, of its owner's.")
_SOME = typer.Argument(None, metavar="[ID]...", help="Jobs' ids, or the beginnings of them.")
_IDS = typer.Argument(..., metavar="ID...", help="Jobs' ids, or the beginnings of them.")
_STATES = typer.Option(
    [], "--state", metavar="STATE", help="Only those queued, running, succeeded, failed or cancelled."
)
_JSON = typer.Option(False, "--json", help="JSON on stdout.")


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
    ),
)
def show(
    job_id: str = _ID,
    as_json: bool = _JSON,
    *,
    plot: bool = typer.Option(False, "--plot", help="A training's losses as a curve."),
    out: str = typer.Option(None, "-o", "--output", metavar="PATH|-", help="With --plot: as a PNG, there."),
    samples: str = typer.Option(None, "--samples", metavar="FOLDER", help="Write a training's samples there."),
    force: bool = typer.Option(False, "-f", "--force", help="Overwrite what exists."),
) -> None:
    """Show one job."""
    from craft_cli.generate import drawing
    from craft_cli.render import shapes

    if out is not None and not plot:
        raise CraftError("USAGE", "-o says where the plot goes", "give --plot too")
    if force and out is None and samples is None:
        raise CraftError("USAGE", "--force: there is nothing to overwrite", "it goes with -o and --samples")
    combining.refuse({"--json": as_json, "-o": out}, ("--json", "-o", "the losses are numbers, or a picture"))
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
        *[[name.replace("_", " "), output.cell(value)] for name, value in asked.items() if value not in ("", None, [])],
        *([["LoRA", job.lora]] if job.lora else []),
        *[["picture", f"{image.id}  seed {image.seed}"] for image in sorted(job.images, key=lambda image: image.index)],
    ]
    if job.error.reason:
        rows.append(["error", f"{job.error.message} ({job.error.reason})"])
    output.print_table(["job", job.id], rows)


@app.command("watch", **leaf("craft jobs watch 3f9a", "craft jobs watch"))
def watch(
    job_id: str = _NEWEST, as_json: bool = typer.Option(False, "--json", help="One JSON object an event.")
) -> None:
    """Follow a job to its end. Ctrl-C ends the watching, not the job."""
    from craft_cli.generate import delivery, drawing
    from craft_cli.training import training

    session, manner = Session(), delivery.Manner(as_json=as_json)
    job = training.follow(session, job_id or _newest(session), manner)
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
        "craft jobs cancel --all",
        "craft jobs list --state queued --json | jq -r '.[].id' | xargs craft jobs cancel",
    ),
)
def cancel(job_ids: list[str] = _SOME, *, every: bool = _ALL, as_json: bool = _JSON) -> None:
    """Cancel jobs; a running one stops within a step."""
    from craft_cli.generate import drawing
    from craft_cli.render import shapes

    if every == bool(job_ids):
        raise CraftError("USAGE", "which jobs? Ids, or --all", "craft jobs list --state queued")
    session = Session()
    for job_id in job_ids or [job.id for job in _unfinished(session)]:
        job = drawing.insist(session, lambda client, job_id=job_id: client.cancel_job(job_id))  # type: ignore[misc]
        if as_json:
            output.print_json(shapes.job(job))
        else:
            output.line(f"{job.id}\t{shapes.state_of(job.state).lower()}")


def _unfinished(session: Session) -> list[jobs_pb2.Job]:
    """Newest first."""
    from craft_protos import jobs_pb2

    from craft_cli.generate import drawing

    states = [jobs_pb2.JOB_STATE_QUEUED, jobs_pb2.JOB_STATE_RUNNING]
    return drawing.insist(session, lambda client: list(client.list_jobs(states, 0)))


def _newest(session: Session) -> str:
    """Raises UNKNOWN_JOB where all have ended."""
    for job in _unfinished(session):
        return job.id
    raise CraftError("UNKNOWN_JOB", "no job waits or runs", "craft jobs list shows those that have ended")


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
