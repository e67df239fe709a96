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
        ["id", "state", "age", "model", "pictures", "prompt"],
        [
            [
                job.id,
                shapes.state_of(job.state).lower(),
                units.age_of(job.create_time.seconds),
                job.generate.model,
                f"{len(job.images)}/{max(1, job.generate.count)}",
                job.generate.prompt,
            ]
            for job in jobs
        ],
    )


@app.command("show", **leaf("craft jobs show 3f9a --json | jq .timings"))
def show(job_id: str = _ID, as_json: bool = _JSON) -> None:
    """Show one job."""
    from craft_cli import drawing, shapes

    job = drawing.insist(Session(), lambda client: client.get_job(job_id))
    if as_json:
        output.print_json(shapes.job(job))
        return
    asked = shapes.spec(job.generate)
    asked["loras"] = loras.shown(asked["loras"])
    rows = [
        ["state", shapes.state_of(job.state).lower()],
        ["created", shapes.moment(job.create_time) or ""],
        ["attempts", str(job.attempts)],
        *[[name.replace("_", " "), str(value)] for name, value in asked.items() if value != ""],
        *[["picture", f"{image.id}  seed {image.seed}"] for image in job.images],
    ]
    if job.error.reason:
        rows.append(["error", f"{job.error.message} ({job.error.reason})"])
    output.print_table(["job", job.id], rows)


@app.command("watch", **leaf("craft jobs watch 3f9a"))
def watch(job_id: str = _ID, as_json: bool = typer.Option(False, "--json", help="One JSON object an event.")) -> None:
    """Follow a job to its end. Ctrl-C ends the watching, not the job."""
    from craft_cli import delivery, drawing

    session = Session()
    job = _watch_as_json(session, job_id) if as_json else delivery.watch(session, job_id, delivery.Manner())
    if not as_json:
        for image in job.images:
            output.line(image.id)
    drawing.require_success(job)


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


def _await_end(session: Session, job_id: str) -> jobs_pb2.Job:
    from craft_cli import drawing

    for event in drawing.follow(session, job_id):
        if event.HasField("finished"):
            return event.finished.job
    raise AssertionError("unreachable")


def _watch_as_json(session: Session, job_id: str) -> jobs_pb2.Job:
    from craft_cli import drawing

    for event in drawing.follow(session, job_id):
        output.print_json(_event(event))
        if event.HasField("finished"):
            return event.finished.job
    raise AssertionError("unreachable")


def _event(event: jobs_pb2.JobEvent) -> dict[str, object]:
    """{"event": kind, ...}, one line of `jobs watch --json`."""
    from craft_cli import shapes

    kind = event.WhichOneof("event") or ""
    told: dict[str, object] = {"event": kind}
    if kind == "snapshot":
        told["job"] = shapes.job(event.snapshot)
    elif kind == "finished":
        told["job"] = shapes.job(event.finished.job)
    elif kind == "image":
        told["image"] = shapes.image(event.image)
    elif kind == "step":
        told |= {"index": event.step.index, "step": event.step.step, "of": event.step.of}
    elif kind == "loading":
        part = event.loading
        told |= {"model": part.model, "bytes_done": part.bytes_done, "bytes_total": part.bytes_total}
    elif kind == "started":
        told |= {"attempt": event.started.attempt, "device": event.started.device}
    elif kind == "queued":
        told |= {"position": event.queued.position, "why": event.queued.why}
    return told
