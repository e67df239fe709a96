"""craft jobs: what was asked for and how far it is."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer
from craft_protos.reasons import CraftError

from craft_cli import loras, output, units
from craft_cli.parsing import leaf, new_app
from craft_cli.session import Session

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
    from craft_cli import drawing, shapes

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
                "" if job.HasField("train") else f"{len(job.images)}/{max(1, job.generate.count)}",
                _subject(job),
                job.WhichOneof("spec") or "generate",
            ]
            for job in jobs
        ],
    )


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
    from craft_cli import drawing, shapes

    if out is not None and not plot:
        raise CraftError("USAGE", "-o says where the plot goes", "give --plot too")
    if plot or samples is not None:
        from craft_cli import training

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
        *[[name.replace("_", " "), output.cell(value)] for name, value in asked.items() if value not in ("", None, [])],
        *([["LoRA", job.lora]] if job.lora else []),
        *[["picture", f"{image.id}  seed {image.seed}"] for image in job.images],
    ]
    if job.error.reason:
        rows.append(["error", f"{job.error.message} ({job.error.reason})"])
    output.print_table(["job", job.id], rows)


@app.command("watch", **leaf("craft jobs watch 3f9a"))
def watch(job_id: str = _ID, as_json: bool = typer.Option(False, "--json", help="One JSON object an event.")) -> None:
    """Follow a job to its end. Ctrl-C ends the watching, not the job."""
    from craft_cli import delivery, drawing, training

    session, manner = Session(), delivery.Manner(as_json=as_json)
    job = training.follow(session, job_id, manner)
    if not as_json:
        for image in job.images:
            output.line(image.id)
    drawing.require_success(job)
    if job.HasField("train"):
        training.tell(session, job, manner)


@app.command("wait", **leaf("craft jobs wait $(craft generate 'a red apple' --detach)"))
def wait(job_ids: list[str] = _IDS, as_json: bool = _JSON) -> None:
    """Wait until jobs have ended; the exit code tells how the first one that failed did."""
    from craft_cli import drawing, shapes

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
        "craft jobs cancel 3f9a", "craft jobs list --state queued --json | jq -r '.[].id' | xargs craft jobs cancel"
    ),
)
def cancel(job_ids: list[str] = _IDS, as_json: bool = _JSON) -> None:
    """Cancel jobs; a running one stops within a step."""
    from craft_cli import shapes

    client = Session().client
    for job_id in job_ids:
        job = client.cancel_job(job_id)
        if as_json:
            output.print_json(shapes.job(job))
        else:
            output.line(f"{job.id}\t{shapes.state_of(job.state).lower()}")


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
    from craft_cli import drawing

    for event in drawing.follow(session, job_id):
        if event.HasField("finished"):
            return event.finished.job
    raise AssertionError("unreachable")
