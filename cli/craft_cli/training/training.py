"""One training from a folder of pictures to its LoRA: sent, created, watched."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from craft_protos import files
from craft_protos.codec import to_message
from craft_protos.reasons import CraftError
from craft_protos.train import TrainRequest

from craft_cli import errors, interrupts
from craft_cli.generate import delivery, drawing, output, writing
from craft_cli.generate.delivery import Manner
from craft_cli.render import shapes
from craft_cli.training import captions, folders, own, pictures
from craft_cli.training.folders import Part

if TYPE_CHECKING:
    from craft_protos import jobs_pb2, training_pb2

    from craft_cli.connection.session import Session
    from craft_cli.render.render import JobProgress, TransferProgress


_TWIN = "is the same picture as"  # such a one is left out, and harms nothing


def send(
    session: Session,
    asked: TrainRequest,
    parts: Sequence[Part],
    images: Sequence[str],
    *,
    skip_bad: bool,
    manner: Manner,
    is_tried: bool = False,
) -> str:
    """The dataset's id: of folders, of craft's own images, or of both.

    What can be refused without the pictures is, before they are sent. Where it `is_tried` (for a plan), all that is bad
    is named at once.
    """
    read = folders.read(parts, skip_bad=skip_bad or is_tried) if parts else pictures.Folder((), ())
    found = own.find(session, images)
    _require_captions((*read.pictures, *own.captioned(found)), asked.trigger)
    _try_without_pictures(session, asked)
    with own.copied(session, found) as more:
        whole = replace(read, pictures=(*read.pictures, *more))
        dataset = _upload(session, whole, skip_bad=skip_bad or is_tried, manner=manner)
    if is_tried and not skip_bad:
        _refuse_all_bad([*read.bad, *(captions.Bad(one.file_name, one.why) for one in dataset.left_out)])
    left_out = [*read.bad, *(captions.Bad(one.file_name, one.why) for one in dataset.left_out)]
    for note in read.notes:
        errors.say(errors.one_line(f"craft: {note}"))
    if left_out and not manner.quiet:
        errors.say(errors.one_line(f"craft: left out: {pictures.shown(left_out)}"))
    return dataset.id


def _refuse_all_bad(bad: Sequence[captions.Bad]) -> None:
    """A plan names everything at once: what lies in the folder, and what the daemon found in it."""
    if wrong := [one for one in bad if not one.why.startswith(_TWIN)]:
        named = "; ".join(f"{one.name} {one.why}" for one in wrong)
        raise CraftError(
            "BAD_DATASET", f"{len(wrong)} files: {named}", "--skip-bad leaves out what cannot be trained on"
        )


def request(asked: TrainRequest) -> jobs_pb2.CreateJobRequest:
    from craft_protos import jobs_pb2

    made = jobs_pb2.CreateJobRequest(request_id=drawing.new_request_id())
    to_message(asked, made.train)
    return made


def plan(session: Session, asked: jobs_pb2.CreateJobRequest) -> jobs_pb2.JobPlan:
    return drawing.insist(session, lambda client: client.plan_job(asked))


def submit(session: Session, asked: jobs_pb2.CreateJobRequest) -> str:
    return drawing.submit(session, asked).id


def attend(session: Session, asked: jobs_pb2.CreateJobRequest, manner: Manner) -> None:
    """Create the job, follow it to its end, and say what to do with the LoRA."""
    try:
        job = delivery.attend(session, asked, lambda job_id: follow(session, job_id, manner))
    except interrupts.Interrupted as stop:
        if not stop.is_closed_pipe:
            errors.say(f"craft: to go on from its last checkpoint: craft lora train {_name(asked.train)} --resume")
        raise
    tell(session, job, manner)


def follow(session: Session, job_id: str, manner: Manner) -> jobs_pb2.Job:
    """To its end: progress at a terminal, its samples where that can show them, or JSON lines."""
    with _progress(manner) as progress:
        for event in drawing.follow(session, job_id):
            if manner.as_json:
                output.print_json(shapes.event(event))
            elif progress is not None:
                progress.see(event)
                if event.HasField("sample"):
                    progress.aside(lambda event=event: _show(event.sample, manner))  # type: ignore[misc]
            if event.HasField("finished"):
                return event.finished.job
    raise AssertionError("unreachable")


def tell(session: Session, job: jobs_pb2.Job, manner: Manner) -> None:
    """The LoRA's name on stdout, and on stderr what a user wants to know next."""
    if manner.as_json:
        return
    lora = drawing.insist(session, lambda client: client.get_lora(job.lora))
    output.line(lora.name)
    if not manner.quiet:
        words = [lora.trigger or "a prompt", "-m", job.train.model, "-l", lora.name]
        errors.say(errors.one_line(f"craft: to draw with it: craft generate {shlex.join(words)}"))


def show_log(
    session: Session, job_id: str, *, plot: bool, out: str | None, samples: str | None, as_json: bool, force: bool
) -> None:
    """A training's losses and samples: on stdout, or as files whose paths are."""
    if samples is not None:
        output.require_name(samples, "--samples")
        _save_samples(session, job_id, Path(samples), as_json=as_json, force=force)
    if plot:
        log = drawing.insist(session, lambda client: client.get_training_log(job_id))
        if as_json:
            output.print_json([shapes.training_step(step) for step in log.steps])
        else:
            _plot(log, job_id, out, force=force)


def write_events(session: Session, job_id: str, folder: Path, *, as_json: bool, force: bool) -> None:
    """A training's losses for TensorBoard; the file's path on stdout. Raises OUTPUT_EXISTS, OUTPUT_FAILED."""
    from craft_cli.training import tensorboard

    job = drawing.insist(session, lambda client: client.get_job(job_id))
    log = drawing.insist(session, lambda client: client.get_training_log(job_id))
    begun_s = (job.start_time if job.HasField("start_time") else job.create_time).seconds
    _make(folder)
    path = folder / f"events.out.tfevents.{begun_s}.{job.id}"
    writing.write(path, tensorboard.events(log.steps, float(begun_s)), force=force)
    output.print_json({"path": str(path)}) if as_json else output.line(path)


def _plot(log: training_pb2.TrainingLog, job_id: str, out: str | None, *, force: bool) -> None:
    from craft_cli.training import plotting

    points = [(step.step, step.loss) for step in log.steps]
    if out is None:
        for line in (*plotting.in_terminal(points), *plotting.of_validation(log.steps)):
            output.line(line)
        return
    title = f"training {job_id}: loss, and its running mean"
    data = plotting.as_png(points, title)
    if out == output.STDOUT:
        output.refuse_terminal()
        output.write_stdout(data)
        return
    writing.write(Path(out), data, force=force)
    output.line(out)


def _save_samples(session: Session, job_id: str, folder: Path, *, as_json: bool, force: bool) -> None:
    """A line with the path of each. Raises OUTPUT_EXISTS, OUTPUT_FAILED."""
    for number, sample in enumerate(_samples(session, job_id)):
        _make(folder)
        extension = sample.media_type.rpartition("/")[2] or "png"
        path = folder / f"step-{sample.step:06}-{number:03}-{output.slug(sample.prompt)}.{extension}"
        writing.write(path, sample.data, force=force)
        if as_json:
            output.print_json(shapes.training_sample(sample) | {"path": str(path)})
        else:
            output.line(path)


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise files.unwritable(folder, error, "name another folder") from error


def _samples(session: Session, job_id: str) -> Iterator[training_pb2.TrainingSample]:
    """All of them, a message's fill at a time."""
    seen, left = 0, 1
    while left:
        log = _log_from(session, job_id, seen)
        yield from log.samples
        seen, left = seen + len(log.samples), log.samples_left


def _log_from(session: Session, job_id: str, first: int) -> training_pb2.TrainingLog:
    return drawing.insist(session, lambda client: client.get_training_samples(job_id, first))


def _require_captions(read: Sequence[pictures.Picture], trigger: str) -> None:
    bare = [picture.path.name for picture in read if not picture.caption]
    if bare and not trigger.strip():
        raise CraftError(
            "BAD_DATASET",
            f"{len(bare)} of {len(read)} pictures have no caption, and there is no trigger: {bare[0]}",
            "give --trigger 'a few words', or write captions: it.txt beside it.png",
        )


def _try_without_pictures(session: Session, asked: TrainRequest) -> None:
    """A name that is taken, a model that cannot be trained: better known before gigabytes are sent."""
    try:
        plan(session, request(asked))
    except CraftError as error:
        if error.field != "dataset":
            raise


def _upload(session: Session, read: pictures.Folder, *, skip_bad: bool, manner: Manner) -> training_pb2.Dataset:
    client = session.client

    def work() -> training_pb2.Dataset:
        with _transfer(manner) as progress:
            for event in client.upload_dataset(pictures.parts(read, skip_bad=skip_bad)):
                if event.HasField("dataset"):
                    return event.dataset
                if progress is not None:
                    progress.count("checking pictures", event.progress.pictures_done, event.progress.pictures_total)
        raise CraftError("INTERNAL", "the daemon ended without an answer", "see `craft daemon logs`")

    return interrupts.run(work, on_stop=session.abandon)


def _name(spec: training_pb2.TrainSpec) -> str:
    return spec.resume or spec.name


def _show(sample: training_pb2.TrainingSample, manner: Manner) -> None:
    from craft_cli.render import terminal

    if manner.show is False or not terminal.show(sample.data, even_in_tmux=bool(manner.show)):
        errors.say(errors.one_line(f"craft: step {sample.step}: drew {sample.prompt!r}"))


@contextmanager
def _progress(manner: Manner) -> Iterator[JobProgress | None]:
    if manner.as_json or not manner.has_progress:
        yield None
        return
    from craft_cli.render.render import JobProgress

    with JobProgress() as progress:
        yield progress


@contextmanager
def _transfer(manner: Manner) -> Iterator[TransferProgress | None]:
    if not manner.has_progress:
        yield None
        return
    from craft_cli.render.render import TransferProgress

    with TransferProgress() as progress:
        yield progress
