"""What only a person at a terminal sees: live progress and tables. Never imported in a pipe."""

from __future__ import annotations

import time
from types import TracebackType
from typing import TYPE_CHECKING, Self

from rich.cells import cell_len
from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TaskProgressColumn, TextColumn
from rich.table import Table
from rich.text import Text

from craft_cli import errors

if TYPE_CHECKING:
    from collections.abc import Callable

    from craft_protos import jobs_pb2, training_pb2

    from craft_cli.render.previews import Previews

_SMOOTHING = 0.1
_GAP = 2  # between columns
_SHORTEST_HEADER = 4


class _Clock(ProgressColumn):
    """How long the line has stood there. rich's own clock stops for good at the first 100 %, of which one line may see
    several: loaded, prepared, drawn.
    """

    def __init__(self, now: Callable[[], float]) -> None:
        super().__init__()
        self._now, self._begun = now, now()

    def render(self, task: Task) -> Text:
        return Text(duration(self._now() - self._begun), style="progress.elapsed")


class _Bar:
    """One line on stderr; it vanishes at the end."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        console = Console(stderr=True, highlight=False)
        self._bars = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=None),
            TextColumn("{task.fields[amount]}", markup=False),
            TaskProgressColumn(),
            _Clock(now),
            console=console,
            transient=True,
            expand=True,
        )
        self._said = "waiting"
        self._task = self._bars.add_task(self._said, total=None, amount="")

    def __enter__(self) -> Self:
        self._bars.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._bars.stop()

    def _show(self, what: str, done: int | None, total: int | None, amount: str) -> None:
        is_new = what != self._said  # shown at once: it may be over before the next of ten refreshes a second
        self._said = what
        self._bars.tasks[0].total = total  # to `update`, None would mean the one from before
        self._bars.update(self._task, description=what, completed=done or 0, amount=amount, refresh=is_new)


class TransferProgress(_Bar):
    """Bytes on their way."""

    def see(self, doing: str, done: int, total: int) -> None:
        amount = f"{megabytes(done)} of {megabytes(total)}" if total else ""
        self._show(errors.one_line(doing), done, total if done else None, amount)

    def count(self, doing: str, done: int, total: int) -> None:
        self._show(doing, done, total, f"{done} of {total}")


class JobProgress(_Bar):
    """One job's progress."""

    def __init__(self, now: Callable[[], float] = time.monotonic, previews: Previews | None = None) -> None:
        super().__init__(now)
        self._previews = previews
        self._steps: dict[int, int] = {}
        self._drawn: set[int] = set()
        self._count = 1
        self._loss: float | None = None
        self._validation = ""

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        super().__exit__(kind, error, at)
        if self._previews is not None:
            self._previews.close()

    def aside(self, show: Callable[[], None]) -> None:
        """Something to be seen above the line."""
        self._bars.stop()
        show()
        self._bars.start()

    def see(self, event: jobs_pb2.JobEvent) -> None:
        """Show one event."""
        kind = event.WhichOneof("event")
        if kind == "snapshot":
            generate = event.snapshot.generate
            self._drawn |= {image.index for image in event.snapshot.images}
            self._count = len(generate.indices) or max(1, generate.count)
            self._queued(event.snapshot.position, "")
        elif kind == "queued":
            self._queued(event.queued.position, event.queued.why)
        elif kind == "loading":
            self._loading(event.loading)
        elif kind == "started":
            where = f" on {event.started.device}" if event.started.device else ""
            self._show(f"drawing{where}", None, None, event.started.notice)
        elif kind == "step":
            self._step(event.step)
            self._preview(event.step)
        elif kind == "image":
            self._drawn.add(event.image.index)
        elif kind == "preparing":
            part = event.preparing
            self._show(errors.one_line(f"preparing {part.what}"), part.done, part.of, f"{part.done} of {part.of}")
        elif kind == "training":
            self._training(event.training)

    def _queued(self, position: int, why: str) -> None:
        place = f"queued, {position} ahead" if position else "waiting"
        self._show(errors.one_line(why) or place, None, None, place if why and position else "")

    def _loading(self, loading: jobs_pb2.JobEvent.Loading) -> None:
        amount = f"{megabytes(loading.bytes_done)} of {megabytes(loading.bytes_total)}" if loading.bytes_total else ""
        self._show(f"loading {loading.model}", loading.bytes_done, loading.bytes_total or None, amount)

    def _step(self, step: jobs_pb2.JobEvent.Step) -> None:
        self._steps[step.index] = step.step
        self._steps |= dict.fromkeys(self._drawn, step.of)
        done, total = sum(self._steps.values()), step.of * self._count
        self._show(
            "drawing", done, total, f"step {done} of {total}" if self._count == 1 else f"{done} of {total} steps"
        )

    def _preview(self, step: jobs_pb2.JobEvent.Step) -> None:
        if self._previews is not None and step.preview and self._previews.take(step.index, step.preview):
            self.aside(self._previews.draw)

    def _training(self, step: training_pb2.TrainingStep) -> None:
        """Losses jump: a running mean tells more. A loss of validation comes by itself, its step once more."""
        if step.HasField("validation_loss"):
            self._validation = f", validation {step.validation_loss:.4f}"
            return
        self._loss = step.loss if self._loss is None else self._loss + _SMOOTHING * (step.loss - self._loss)
        left = f", {duration(step.seconds_left)} left" if step.seconds_left >= 1 else ""
        amount = f"step {step.step} of {step.of}, loss {self._loss:.4f}{self._validation}{left}"
        self._show("training", step.step, step.of, amount)


def duration(seconds: float) -> str:
    """1:05:09, or 5:09."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def megabytes(count: int) -> str:
    return f"{count / 1e6:.0f} MB"


def print_table(headers: list[str], rows: list[list[str]]) -> None:
    """Columns on stdout; long cells are cut, those of two columns, a thing's details, wrapped."""
    console = Console(highlight=False)
    table = Table(box=None, header_style="bold", pad_edge=False)
    are_details = len(headers) == 2
    for header, width in zip(headers, _widths([headers, *rows], console.width), strict=True):
        if are_details:
            table.add_column(header, overflow="fold")
        else:
            table.add_column(header, no_wrap=True, overflow="ellipsis", width=width)
    for row in rows:
        table.add_row(*(_plain(cell) for cell in row))
    console.print(table)


def _widths(rows: list[list[str]], room: int) -> list[int]:
    """Of columns, the first row their headers: where there is no room, headers give way before what is below them,
    the widest first; the first column stays whole, to be copied.
    """
    columns = [[cell_len(cell) for cell in column] for column in zip(*rows, strict=True)]
    widths = [max(column) for column in columns]
    needed = [max([_SHORTEST_HEADER, *column[1:]]) for column in columns]
    excess = sum(widths) + _GAP * (len(widths) - 1) - room
    for _ in range(excess):
        widest = max(
            range(1, len(widths)), default=0, key=lambda place: (widths[place] > needed[place], widths[place], place)
        )
        widths[widest] = max(1, widths[widest] - 1)
    return widths


def _plain(cell: str) -> str:
    from rich.markup import escape

    return escape(cell)
