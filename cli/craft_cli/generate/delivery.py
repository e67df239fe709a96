"""Watch a job and hand over its pictures as they are made: to files, stdout, the terminal."""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from craft_protos.reasons import CraftError

from craft_cli import errors, interrupts
from craft_cli.generate import drawing, loras, output, writing
from craft_cli.render import shapes

if TYPE_CHECKING:
    from craft_protos import images_pb2, jobs_pb2

    from craft_cli.connection.session import Session
    from craft_cli.render.render import JobProgress


@dataclass(frozen=True)
class Manner:
    """How pictures and progress are shown."""

    as_json: bool = False
    quiet: bool = False
    show: bool | None = None  # inline pictures; None: at a terminal that can
    preview: bool = False  # each step's picture beside the progress

    @property
    def may_show(self) -> bool:
        """Whether pictures stand at the terminal: where asked for, or unasked where nobody wants it quiet."""
        return not self.as_json and (self.show or (self.show is None and not self.quiet)) and output.is_at_terminal()

    @property
    def has_progress(self) -> bool:
        return not self.quiet and errors.is_terminal(sys.stderr)

    @property
    def has_previews(self) -> bool:
        """Each step's picture is wanted, and there is a terminal that can show it."""
        if not self.preview or not self.has_progress:
            return False
        from craft_cli.render import previews

        return previews.rows() > 0


@dataclass
class Delivery:
    """One job's pictures on their way out."""

    session: Session
    target: output.Target
    first_n: int = 1
    swept: Mapping[str, str] = field(default_factory=dict)  # by the options' names
    paths: dict[int, Path | None] = field(default_factory=dict)  # by index
    images: dict[int, images_pb2.Image] = field(default_factory=dict)
    said: set[str] = field(default_factory=set)

    def take(self, event: jobs_pb2.JobEvent, prompt: str) -> Iterator[tuple[images_pb2.Image, bytes]]:
        """Write the images that an event tells of, each once."""
        for image in _images_in(event):
            if image.index not in self.images:
                interrupts.check()
                data = drawing.fetch(self.session, image)
                self._write(image, data, prompt)
                self.images[image.index] = image
                yield image, data

    def warn(self, image: images_pb2.Image, before: str = "") -> None:
        """On stderr, once, however quiet: which of its LoRAs were applied in part only."""
        for line in loras.partly_applied(map(shapes.applied_lora, image.loras)):
            if line not in self.said:
                self.said.add(line)
                errors.say(errors.one_line(f"craft: {before}{line}"))

    def _write(self, image: images_pb2.Image, data: bytes, prompt: str) -> None:
        if self.target.is_stdout:
            output.write_stdout(data)
            self.paths[image.index] = None
            return
        picture = output.Picture(
            prompt=prompt,
            seed=image.seed,
            index=image.index,
            n=self.first_n + image.index,
            id=image.id,
            job=image.job_id,
            swept=self.swept,
        )
        path = self.target.path(picture)
        try:
            writing.write(path, data, force=self.target.force)
        except CraftError as error:
            hint = f"the picture is kept: craft images get {image.id} -o ELSEWHERE"
            raise CraftError(error.reason, error.message, hint) from error
        self.paths[image.index] = path

    def lines(self, job: jobs_pb2.Job) -> Iterator[dict[str, object]]:
        """The JSON of every picture delivered, in order; times are the finished job's."""
        for index in sorted(self.images):
            path = self.paths[index]
            yield shapes.generated(job, self.images[index], None if path is None else str(path))


def draw(session: Session, request: jobs_pb2.CreateJobRequest, target: output.Target, manner: Manner) -> None:
    """Create the job, wait for it, deliver."""
    attend(session, request, lambda job_id: _deliver(session, job_id, request.generate, target, manner))


def attend(session: Session, request: jobs_pb2.CreateJobRequest, follow: Callable[[str], jobs_pb2.Job]) -> jobs_pb2.Job:
    """Create the job and have `follow` see it to its end. Interrupted: cancelled, and the user told what became of it.

    Raises the job's error unless it succeeded.
    """
    _ = session.client  # a daemon that is being started is not to be interrupted halfway
    job_id, said = "", ""

    def work() -> jobs_pb2.Job:
        nonlocal job_id
        job_id = drawing.submit(session, request).id
        return follow(job_id)

    def withdraw() -> None:
        nonlocal said
        said = drawing.withdraw(session, request, job_id)

    try:
        job = interrupts.run(work, on_stop=withdraw)
    except interrupts.Interrupted as stop:
        if not stop.is_closed_pipe:
            errors.say(f"craft: {said}")
        raise
    except (BrokenPipeError, CraftError) as error:
        if isinstance(error, BrokenPipeError) or error.reason.startswith("OUTPUT_"):  # nobody will take the rest
            drawing.withdraw(session, None, job_id)
        raise
    drawing.require_success(job)
    return job


def watch(session: Session, job_id: str, manner: Manner) -> jobs_pb2.Job:
    """See it to its end, with progress at a terminal."""
    with _progress(manner) as progress:
        for event in drawing.follow(session, job_id):
            if progress is not None:
                progress.see(event)
            if event.HasField("finished"):
                return event.finished.job
    raise AssertionError("unreachable")


def _deliver(
    session: Session, job_id: str, asked: jobs_pb2.GenerateSpec, target: output.Target, manner: Manner
) -> jobs_pb2.Job:
    """`asked`: as it was given; its prompt is what files are called by."""
    delivery = Delivery(session, target)
    job: jobs_pb2.Job | None = None
    held: dict[int, tuple[images_pb2.Image, bytes]] = {}  # shown in order, and not beside a progress bar
    waiting = deque(sorted(asked.indices) or range(asked.count))
    with _progress(manner) as progress:
        for event in drawing.follow(session, job_id, preview_every=int(manner.has_previews)):
            _notice(event, manner)
            if progress is not None:
                progress.see(event)
            for image, data in delivery.take(event, asked.prompt):
                held[image.index] = image, data
            while progress is None and waiting and waiting[0] in held:
                _announce(delivery, *held.pop(waiting.popleft()), manner)
            if event.HasField("finished"):
                job = event.finished.job
    assert job is not None
    _announce_all(delivery, [held[index] for index in sorted(held)], manner)
    if manner.as_json and not target.is_stdout:
        for line in delivery.lines(job):
            output.print_json(line)
    return job


def _images_in(event: jobs_pb2.JobEvent) -> list[images_pb2.Image]:
    kind = event.WhichOneof("event")
    if kind == "image":
        return [event.image]
    if kind == "snapshot":
        return list(event.snapshot.images)
    return list(event.finished.job.images) if kind == "finished" else []


def _announce_all(delivery: Delivery, held: list[tuple[images_pb2.Image, bytes]], manner: Manner) -> None:
    """Several pictures at a terminal stand in one grid above their paths."""
    is_grid = len(held) > 1 and manner.may_show and not delivery.target.is_stdout
    if is_grid:
        from craft_cli.render import terminal

        is_grid = _show(terminal.grid([data for _, data in held]), manner)
    for image, data in held:
        _announce(delivery, image, data, replace(manner, show=False) if is_grid else manner)


def _announce(delivery: Delivery, image: images_pb2.Image, data: bytes, manner: Manner) -> None:
    """At a terminal the picture, then its path; in a pipe the path alone."""
    delivery.warn(image)
    path = delivery.paths[image.index]
    if manner.as_json or path is None:
        return
    is_shown = manner.may_show and _show(data, manner)
    if manner.show and not is_shown:
        errors.say("craft: --show: stdout is no terminal that shows pictures")
    output.line(path)


def _show(data: bytes, manner: Manner) -> bool:
    from craft_cli.render import terminal

    return terminal.show(data, even_in_tmux=bool(manner.show))


def _notice(event: jobs_pb2.JobEvent, manner: Manner) -> None:
    if event.HasField("started") and event.started.notice and not manner.quiet:
        errors.say(f"craft: {errors.one_line(event.started.notice)}")


@contextmanager
def _progress(manner: Manner) -> Iterator[JobProgress | None]:
    if not manner.has_progress:
        yield None
        return
    from craft_cli.render.previews import Previews
    from craft_cli.render.render import JobProgress

    with JobProgress(previews=Previews(sys.stderr) if manner.has_previews else None) as progress:
        yield progress
