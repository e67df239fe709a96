"""The engine: admit rows, pick a batch, one model call, step each row, tell the front.

Owned by one thread. What happens elsewhere (loading, decoding, the socket) arrives through `handle`.
"""

from __future__ import annotations

import itertools
import logging
from collections.abc import Callable, Sequence

from craft_protos.reasons import CraftError, invalid

from craftd.worker import batch, memory
from craftd.worker.finisher import Finished, Finisher, as_craft_error
from craftd.worker.lora.reader import LoraRead
from craftd.worker.memory import Rung
from craftd.worker.messages import Cancel, Draw, Load, Manifest, Preview, Train, Unload
from craftd.worker.reporter import Reporter
from craftd.worker.row import Job, Row
from craftd.worker.shelf import LoadFinished, Shelf, Shelved
from craftd.worker.training.trainings import Others, Trainings

_log = logging.getLogger(__name__)

_REPORT_EVERY_S = 0.1  # for each row; as often as a progress bar is redrawn
_REPORTS_A_SECOND = 20  # of all rows together: each costs the front and a client time that drawing wants
_READ_AHEAD = 4  # rows whose LoRAs are read before there is room for them
_GATHER_S = 0.1  # the longest that a row waits for others' LoRAs, where nothing is being drawn


class Engine:
    """All jobs of one worker."""

    def __init__(
        self,
        shelf: Shelf,
        finisher: Finisher,
        reporter: Reporter,
        trainings: Trainings,
        *,
        max_rows: int,
        clock: Callable[[], float],
    ) -> None:
        self._shelf = shelf
        self._finisher = finisher
        self._reporter = reporter
        self._trainings = trainings
        self._max_rows = max_rows
        self._clock = clock
        self._jobs: dict[str, Job] = {}
        self._asked_for: dict[tuple[str, str], Load] = {}
        self._waiting: list[Row] = []
        self._active: list[Row] = []
        self._finishing = 0
        self._gathers_since: float | None = None
        self._orders = itertools.count()
        self._ticks = 0
        self._steps = 0
        self.predict_calls = 0

    @property
    def can_step(self) -> bool:
        return bool(self._active) or self._trainings.may_turn(self._others)

    @property
    def rows(self) -> int:
        return len(self._active) + self._finishing

    @property
    def progress(self) -> int:
        """Rises with every step, loaded part and finished image."""
        return self._steps + self._shelf.loads + self._trainings.progress

    @property
    def doing(self) -> str:
        if self._active:
            return "step"
        if self._shelf.loading is not None:
            return f"loading {self._shelf.loading.name}"
        if self._finishing:
            return "decoding"
        if self._trainings:
            return "training" if self._trainings.is_attached else "starting"
        return "starting" if self._jobs or self._asked_for else "idle"

    def handle(self, mail: object) -> None:
        """Take in one request, or one thing that has finished."""
        match mail:
            case Draw():
                self._submit(mail)
            case Cancel():
                self._cancel(mail)
            case Preview():
                if job := self._jobs.get(mail.job_id):
                    job.preview_every = mail.every
            case Train():
                self._trainings.submit(mail)
            case Load():
                self._load(mail)
            case Unload():
                self._shelf.unload(mail.name)
            case LoadFinished():
                self._finish_load(mail)
            case LoraRead():
                self._steps += 1
            case Finished():
                self._finish_row(mail)
            case Exception():
                raise mail
            case _:
                raise TypeError(f"unexpected mail: {mail!r}")

    def admit(self) -> bool:
        """Begin rows that there is room for; whether there were any."""
        self._want_models()
        self._want_loras()
        return self._admit()

    def tick(self) -> None:
        """One turn: at most one model call of what is drawn, and one of what is trained."""
        self.admit()
        rows = self._that_fit(batch.pick_batch(self._active, self._ticks, self._limit))
        self._ticks += 1
        if rows:
            began = self._clock()
            self._advance(rows)
            self._trainings.rows_took(self._clock() - began)
        if self._trainings.may_turn(self._others):
            self._trainings.turn()

    @property
    def _others(self) -> Others:
        """What there is to do besides training."""
        return Others(
            has_rows=bool(self._active),
            is_finishing=self._finishing > 0 or self._shelf.loading is not None,
            has_waiting=bool(self._waiting),
        )

    # Jobs

    def _submit(self, draw: Draw) -> None:
        self._forget(draw.job_id)
        job = Job(draw, set(draw.indices), draw.preview_every, self._clock())
        self._jobs[draw.job_id] = job
        if not draw.indices or draw.steps < 1:
            self._fail(draw, invalid("steps", "there is nothing to draw", "ask for one image and one step or more"))
            return
        job.waited_for_load = self._shelf.get(draw.model) is None
        self._waiting += [Row(draw, index, next(self._orders)) for index in draw.indices]

    def _cancel(self, cancel: Cancel) -> None:
        job = self._jobs.get(cancel.job_id)
        if job is not None and job.draw.epoch == cancel.epoch:
            self._forget(cancel.job_id)
            self._reporter.done(cancel.job_id, cancel.epoch, cancelled=True)
        else:
            self._trainings.cancel(cancel)

    def _fail(self, draw: Draw, error: CraftError) -> None:
        """Fail a job; what is being decoded for it is dropped when it comes."""
        if self._is_current(draw):
            self._forget(draw.job_id)
            self._reporter.failed(draw, error)

    def _forget(self, job_id: str) -> None:
        self._jobs.pop(job_id, None)
        self._waiting = [row for row in self._waiting if row.job.job_id != job_id]
        for row in [row for row in self._active if row.job.job_id == job_id]:
            self._leave(row)
            self._release(row)

    def _is_current(self, draw: Draw) -> bool:
        job = self._jobs.get(draw.job_id)
        return job is not None and job.draw is draw

    # Models

    def _load(self, load: Load) -> None:
        shelved = self._shelf.get(load.model)
        if shelved is not None:
            self._shelf.report(shelved)
        else:
            self._asked_for[load.model.key] = load

    def _want_models(self) -> None:
        missing = [row.job.model for row in sorted(self._waiting, key=_urgency)]
        missing += [load.model for load in self._asked_for.values()]
        drawn = next((model for model in missing if self._shelf.get(model) is None), None)
        wanted = drawn or self._trained_model()
        needed = {row.job.model.key for row in self._waiting}
        self._shelf.want(wanted, needed, self._clock(), is_patient=drawn is None)
        if self._shelf.lacks_room:
            self._trainings.make_way()

    def _trained_model(self) -> Manifest | None:
        """That a training lacks; nobody stops drawing for it."""
        self._trainings.renew(self._others)
        model = self._trainings.wanted(self._others)
        return None if model is None or self._shelf.get(model) is not None else model

    def _finish_load(self, load: LoadFinished) -> None:
        if load.ran_out_of_memory and self._trainings.is_attached:
            self._trainings.yield_memory()
        error = self._shelf.finish(load)
        if self._shelf.loading is not None:
            return  # it is being tried again
        self._asked_for.pop(load.manifest.key, None)
        if error is not None:
            self._trainings.load_failed(load.manifest, error)
            for draw in {row.job.job_id: row.job for row in self._waiting}.values():
                if draw.model.key == load.manifest.key:
                    self._fail(draw, error)

    # LoRAs

    def _want_loras(self) -> None:
        """Have those of the next rows read, while others go on stepping."""
        next_ones = sorted(self._waiting, key=_urgency)[: self._max_rows - len(self._active) + _READ_AHEAD]
        for shelved in self._shelf:
            jobs = {row.job.job_id: row.job for row in next_ones if row.job.model.key == shelved.manifest.key}
            with_loras = [job for job in jobs.values() if job.loras]
            if with_loras or shelved.runner.is_reading:
                for job_id, error in shelved.runner.want(with_loras).items():
                    self._fail(jobs[job_id], error)

    @property
    def is_gathering(self) -> bool:
        """Whether rows that could start wait for others' LoRAs, so that jobs sent together start together."""
        is_reading = not self._active and any(shelved.runner.is_reading for shelved in self._shelf)
        if not is_reading:
            self._gathers_since = None
            return False
        if self._gathers_since is None:
            self._gathers_since = self._clock()
        return self._clock() - self._gathers_since < _GATHER_S

    # Rows

    def _admit(self) -> bool:
        if self.is_gathering:
            return False
        before = len(self._active)
        while len(self._active) < self._max_rows:
            row = batch.pick_to_admit(self._waiting, self._active, self._is_open)
            if row is None:
                break
            self._waiting.remove(row)
            if not self._begin(row):
                self._waiting.append(row)
                break
        return len(self._active) > before

    def _is_open(self, row: Row) -> bool:
        shelved = self._shelf.get(row.job.model)
        if shelved is None or self._shelf.must_yield(self._clock()):
            return False
        return shelved.runner.is_ready(row.job)

    def _begin(self, row: Row) -> bool:
        """False: not now, for want of memory that there may be later."""
        shelved, job = self._shelved(row), self._jobs[row.job.job_id]
        row.admitted_at = row.reported_at = self._clock()
        row.load_s = row.admitted_at - job.submitted_at if job.waited_for_load else 0.0
        if not job.is_started:
            job.is_started = True
            self._reporter.started(row.job, shelved.runner.notice)
        try:
            with memory.recognised():
                row.drawing = shelved.runner.begin(row.job, row.seed)
        except memory.OUT_OF_MEMORY:
            return not (self.rows or self._descend([row], shelved))  # who ends makes room
        except Exception as exc:  # one job's failure costs nobody else theirs
            self._fail(row.job, as_craft_error(exc))
            return True
        self._shelf.acquire(shelved)
        self._active.append(row)
        return True

    def _advance(self, rows: Sequence[Row]) -> None:
        shelved, began = self._shelved(rows[0]), self._clock()
        self.predict_calls += 1
        for row in rows:
            row.last_tick = self._ticks
            row.batch = max(row.batch, len(rows))
        try:
            wanted = [self._wants_preview(row) for row in rows]
            with memory.recognised():
                errors = shelved.runner.advance([row.drawn for row in rows], with_preview=wanted)
        except memory.OUT_OF_MEMORY:
            self._descend(rows, shelved)
        except Exception as exc:  # find whose fault it is; nobody else shall suffer
            self._blame(rows, exc)
        else:
            shelved.budget.measured(sum(row.cost for row in rows), self._clock() - began)
            self._stepped(rows, errors, shelved)

    def _descend(self, rows: Sequence[Row], shelved: Shelved) -> bool:
        """Whether it is worth trying again; else one job has failed."""
        if self._trainings.is_attached:
            self._trainings.yield_memory()
            return True
        rung = shelved.ladder.descend(len(rows), is_decoding=False)
        _log.warning("out of memory with %d rows: %s", len(rows), rung.name)
        if rung is Rung.SMALLER_BATCH:
            shelved.budget.halve(sum(row.cost for row in rows))
        elif rung is Rung.FAIL:
            draw = rows[0].job
            self._fail(draw, memory.too_little(f"{draw.width}x{draw.height} pixels"))
            return False
        return True

    def _blame(self, rows: Sequence[Row], exc: Exception) -> None:
        if len(rows) == 1:
            self._fail(rows[0].job, as_craft_error(exc))
            return
        for row in rows:
            if row in self._active:
                self._advance([row])

    def _stepped(self, rows: Sequence[Row], errors: Sequence[Exception | None], shelved: Shelved) -> None:
        self._steps += 1
        for row, error in zip(rows, errors, strict=True):
            if error is not None:
                self._fail(row.job, as_craft_error(error))
        going_on = [row for row in rows if row in self._active]
        for row in going_on:
            self._report_step(row)
        done = [row for row in going_on if row.drawn.is_done]
        for row in done:
            self._leave(row)
        if done:
            self._finishing += len(done)
            self._finisher.finish(done, shelved)

    def _report_step(self, row: Row) -> None:
        drawing, now = row.drawn, self._clock()
        if drawing.step == row.reported_step:
            return
        preview = b"" if drawing.is_done else drawing.preview()
        pause_s = max(_REPORT_EVERY_S, len(self._active) / _REPORTS_A_SECOND)
        if preview or drawing.is_done or now - row.reported_at >= pause_s:
            row.reported_at, row.reported_step = now, drawing.step
            self._reporter.step(row.job, row.index, drawing.step, drawing.of, preview)

    def _wants_preview(self, row: Row) -> bool:
        every = self._jobs[row.job.job_id].preview_every
        return every > 0 and (row.drawn.step + 1) % every == 0

    def _finish_row(self, finished: Finished) -> None:
        self._finishing -= 1
        self._steps += 1
        row, draw = finished.row, finished.row.job
        self._release(row)
        if not self._is_current(draw):
            return
        if finished.picture is None:
            assert finished.error is not None
            self._fail(draw, finished.error)
            return
        denoise_s = self._clock() - row.admitted_at
        self._reporter.image(draw, row.index, finished.picture, row.load_s, denoise_s)
        self._jobs[draw.job_id].left.discard(row.index)
        if not self._jobs[draw.job_id].left:
            del self._jobs[draw.job_id]
            self._reporter.done(draw.job_id, draw.epoch, cancelled=False)

    def _leave(self, row: Row) -> None:
        self._active.remove(row)

    def _release(self, row: Row) -> None:
        """Give back what a row that has left was holding."""
        row.drawn.close()
        row.drawing = None
        self._shelf.release(self._shelved(row))

    def _that_fit(self, rows: list[Row]) -> list[Row]:
        """As many as there is memory for; the others have waited longer at the next tick."""
        return rows[: self._shelved(rows[0]).runner.that_fit([row.drawn for row in rows])] if rows else rows

    def _limit(self, row: Row) -> int:
        return self._shelved(row).budget.pixels

    def _shelved(self, row: Row) -> Shelved:
        shelved = self._shelf.get(row.job.model)
        assert shelved is not None, "a model with rows stays loaded"
        return shelved


def _urgency(row: Row) -> tuple[bool, int]:
    return (not row.job.is_interactive, row.order)
