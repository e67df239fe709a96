"""The engine: admit rows, pick a batch, one model call, step each row, tell the front.

Owned by one thread. What happens elsewhere (loading, decoding, the socket) arrives through `handle`.
"""

from __future__ import annotations

import itertools
import logging
from collections.abc import Callable, Sequence

from craft_protos.dispatch import Cancel, Dispatch, Load, ModelManifest, Preview, Unload
from craft_protos.reasons import CraftError
from craft_protos.train import TrainSpec

from craftd.worker.engine import batch, stages
from craftd.worker.engine.row import Job, Row
from craftd.worker.engine.telling import StepTeller
from craftd.worker.lora.reader import FileRead
from craftd.worker.models import memory
from craftd.worker.models.memory import Rung
from craftd.worker.models.model_cache import LoadedModel, LoadFinished, ModelCache
from craftd.worker.output.finisher import Finished, Finisher, as_craft_error
from craftd.worker.process.reporter import Reporter
from craftd.worker.training.trainings import Others, Trainings

_log = logging.getLogger(__name__)

_READ_AHEAD = 4  # rows whose files are read before there is room for them
_GATHER_S = 0.1  # the longest that a row waits for others' LoRAs, where nothing is being drawn


class Engine:
    """Owns every job of the worker, and decides at each tick what is computed."""

    def __init__(
        self,
        cache: ModelCache,
        finisher: Finisher,
        reporter: Reporter,
        trainings: Trainings,
        *,
        max_rows: int,
        clock: Callable[[], float],
    ) -> None:
        self._cache = cache
        self._finisher = finisher
        self._reporter = reporter
        self._trainings = trainings
        self._max_rows = max_rows
        self._clock = clock
        self._teller = StepTeller(reporter, clock)
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
        return self._steps + self._cache.loads + self._trainings.progress

    @property
    def doing(self) -> str:
        if self._active:
            return "step"
        if self._cache.loading is not None:
            return f"loading {self._cache.loading.name}"
        if self._finishing:
            return "decoding"
        if self._trainings:
            return "training" if self._trainings.is_attached else "starting"
        return "starting" if self._jobs or self._asked_for else "idle"

    def handle(self, mail: object) -> None:
        """React to one message: a request from the front, or work that another thread has finished."""
        match mail:
            case Dispatch(spec=TrainSpec()):
                self._trainings.submit(mail)
            case Dispatch():
                self._submit(mail)
            case Cancel():
                self._cancel(mail)
            case Preview():
                if job := self._jobs.get(mail.job_id):
                    job.preview_every = mail.every
            case Load():
                self._load(mail)
            case Unload():
                self._cache.unload(mail.model)
            case LoadFinished():
                self._finish_load(mail)
            case FileRead():
                self._steps += 1
            case Finished():
                self._finish_row(mail)
            case Exception():
                raise mail
            case _:
                raise TypeError(f"unexpected mail: {mail!r}")

    def admit(self) -> bool:
        """Start waiting rows while there is room; returns whether any was started."""
        self._want_models()
        self._want_files()
        return self._admit()

    def tick(self) -> None:
        """Make at most one model call for the rows being drawn, and let a training do one piece of work."""
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
        """What the worker has to do besides training."""
        return Others(
            has_rows=bool(self._active),
            is_finishing=self._finishing > 0 or self._cache.loading is not None,
            has_waiting=bool(self._waiting),
        )

    # Jobs

    def _submit(self, draw: Dispatch) -> None:
        self._forget(draw.job_id)
        job = Job(draw, set(draw.indices), draw.preview_every, self._clock())
        self._jobs[draw.job_id] = job
        try:
            stages.check(draw)
        except CraftError as exc:
            self._fail(draw, exc)
            return
        job.waited_for_load = self._cache.lacks(draw) is not None
        self._waiting += [Row(draw, index, next(self._orders)) for index in draw.indices]

    def _cancel(self, cancel: Cancel) -> None:
        job = self._jobs.get(cancel.job_id)
        if job is not None and job.draw.epoch == cancel.epoch:
            self._forget(cancel.job_id)
            self._reporter.done(cancel.job_id, cancel.epoch, cancelled=True)
        else:
            self._trainings.cancel(cancel)

    def _fail(self, draw: Dispatch, error: CraftError) -> None:
        """Fail a job; what is being decoded for it is dropped when it comes."""
        if self._is_current(draw):
            self._forget(draw.job_id)
            self._reporter.failed(draw, error)

    def _forget(self, job_id: str) -> None:
        self._jobs.pop(job_id, None)
        self._waiting = [row for row in self._waiting if row.job.job_id != job_id]
        for row in [row for row in self._active if row.job.job_id == job_id]:
            self._active.remove(row)
            self._release(row)

    def _is_current(self, draw: Dispatch) -> bool:
        job = self._jobs.get(draw.job_id)
        return job is not None and job.draw is draw

    # Models

    def _load(self, load: Load) -> None:
        loaded = self._cache.get(load.model)
        if loaded is not None:
            self._cache.report(loaded)
        else:
            self._asked_for[load.model.key] = load

    def _want_models(self) -> None:
        jobs = [row.asked for row in sorted(self._waiting, key=batch.urgency)]
        job = next((one for one in jobs if self._cache.lacks(one) is not None), None)
        asked = next((load.model for load in self._asked_for.values() if self._cache.get(load.model) is None), None)
        drawn = asked if job is None else self._cache.lacks(job)
        beside = {model.key for model in job.models} if job is not None else set()
        wanted = drawn or self._trained_model()
        needed = {model.key for one in jobs for model in one.models}
        self._cache.want(wanted, needed, self._clock(), beside=beside, is_patient=drawn is None)
        if self._cache.lacks_room:
            self._trainings.make_way()

    def _trained_model(self) -> ModelManifest | None:
        """The model that the next training waits for. Loading it never interrupts drawing."""
        self._trainings.renew(self._others)
        model = self._trainings.wanted(self._others)
        return None if model is None or self._cache.get(model) is not None else model

    def _finish_load(self, load: LoadFinished) -> None:
        if load.ran_out_of_memory and self._trainings.is_attached:
            self._trainings.yield_memory()
        error = self._cache.finish(load)
        if self._cache.loading is not None:
            return  # it is being tried again
        self._asked_for.pop(load.manifest.key, None)
        if error is not None:
            self._trainings.load_failed(load.manifest, error)
            lacking = [row for row in self._waiting if load.manifest.key in {one.key for one in row.asked.models}]
            for draw in {row.job.job_id: row.job for row in lacking}.values():
                self._fail(draw, error)

    # LoRAs and pictures

    def _want_files(self) -> None:
        """Read the LoRAs and pictures of the next rows in the background, while other rows are being denoised."""
        next_ones = sorted(self._waiting, key=batch.urgency)[: self._max_rows - len(self._active) + _READ_AHEAD]
        for loaded in self._cache:
            rows = {row.job.job_id: row for row in next_ones if row.asked.model.key == loaded.manifest.key}
            asked = [row.asked for row in rows.values()]
            with_files = [job for job in asked if job.drawing.loras or job.drawing.has_pictures]
            if with_files or loaded.runner.is_reading:
                for job_id, error in loaded.runner.want(with_files).items():
                    self._fail(rows[job_id].job, error)

    @property
    def is_gathering(self) -> bool:
        """Whether rows that could start wait for others' LoRAs, so that jobs sent together start together."""
        is_reading = not self._active and any(loaded.runner.is_reading for loaded in self._cache)
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
        if self._cache.lacks(row.asked) is not None or self._cache.must_yield(self._clock()):
            return False
        return self._loaded(row).runner.is_ready(row.asked)

    def _begin(self, row: Row) -> bool:
        """Start denoising a row; returns False where memory is short now and may be free later."""
        loaded, job = self._loaded(row), self._jobs[row.job.job_id]
        row.reported_at = self._clock()
        if row.made is None:
            row.admitted_at = row.reported_at
            row.load_s = row.admitted_at - job.submitted_at if job.waited_for_load else 0.0
        if not job.is_started:
            job.is_started = True
            self._reporter.started(
                row.job, "; ".join(filter(None, [loaded.runner.notice, *loaded.runner.remarks(row.job)]))
            )
        try:
            with memory.recognised():
                row.drawing = loaded.runner.begin(row.own, row.seed, self._cache.networks(row.asked), row.made)
        except memory.OUT_OF_MEMORY:
            return not (self.rows or self._descend([row], loaded, is_encoding=True))  # who ends makes room
        except Exception as exc:  # one job's failure costs nobody else theirs
            self._fail(row.job, as_craft_error(exc))
            return True
        self._cache.acquire_all(row.asked)
        if row.drawn.is_done:
            self._finish([row], loaded)
        else:
            self._active.append(row)
        return True

    def _advance(self, rows: Sequence[Row]) -> None:
        loaded, began = self._loaded(rows[0]), self._clock()
        self.predict_calls += 1
        for row in rows:
            row.last_tick = self._ticks
            row.batch = max(row.batch, len(rows))
        try:
            wanted = [self._wants_preview(row) for row in rows]
            with memory.recognised():
                errors = loaded.runner.advance([row.drawn for row in rows], with_preview=wanted)
        except memory.OUT_OF_MEMORY:
            self._descend(rows, loaded)
        except Exception as exc:  # find whose fault it is; nobody else shall suffer
            self._blame(rows, exc)
        else:
            loaded.budget.measured(sum(row.cost for row in rows), self._clock() - began)
            self._stepped(rows, errors, loaded)

    def _descend(self, rows: Sequence[Row], loaded: LoadedModel, *, is_encoding: bool = False) -> bool:
        """Free memory by the next means there is; returns False where there was none and a job has failed."""
        if self._trainings.is_attached:
            self._trainings.yield_memory()
            return True
        is_of_pictures = is_encoding and rows[0].asked.drawing.has_pictures  # by the autoencoder, piecewise or not
        rung = loaded.ladder.descend(len(rows), is_decoding=is_of_pictures)
        _log.warning("out of memory with %d rows: %s", len(rows), rung.name)
        if rung is Rung.SMALLER_BATCH:
            loaded.budget.halve(sum(row.cost for row in rows))
        elif rung is Rung.FAIL:
            size = f"{rows[0].asked.drawing.width}x{rows[0].asked.drawing.height}"
            self._fail(rows[0].job, memory.too_little(f"{size} pixels"))
            return False
        return True

    def _blame(self, rows: Sequence[Row], exc: Exception) -> None:
        if len(rows) == 1:
            self._fail(rows[0].job, as_craft_error(exc))
            return
        for row in rows:
            if row in self._active:
                self._advance([row])

    def _stepped(self, rows: Sequence[Row], errors: Sequence[Exception | None], loaded: LoadedModel) -> None:
        self._steps += 1
        for row, error in zip(rows, errors, strict=True):
            if error is not None:
                self._fail(row.job, as_craft_error(error))
        going_on = [row for row in rows if row in self._active]
        for row in going_on:
            self._teller.tell(row, len(self._active))
        done = [row for row in going_on if row.drawn.is_done]
        for row in done:
            self._active.remove(row)
        if done:
            self._finish(done, loaded)

    def _finish(self, rows: Sequence[Row], loaded: LoadedModel) -> None:
        self._finishing += len(rows)
        self._finisher.finish(rows, loaded)

    def _wants_preview(self, row: Row) -> bool:
        every = self._jobs[row.job.job_id].preview_every
        return every > 0 and (row.step + 1) % every == 0

    def _finish_row(self, finished: Finished) -> None:
        self._finishing -= 1
        self._steps += 1
        row, draw, steps = finished.row, finished.row.job, finished.row.drawn.of
        self._release(row)
        if not self._is_current(draw):
            return
        if finished.made is not None:  # its next stage waits for its model as another row does
            row.go_on(finished.made, steps)
            self._waiting.append(row)
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

    def _release(self, row: Row) -> None:
        """Release the LoRAs and the models that a finished or cancelled row was using."""
        row.drawn.close()
        row.drawing = None
        self._cache.release_all(row.asked)

    def _that_fit(self, rows: list[Row]) -> list[Row]:
        """Keep as many rows as memory allows for this call; the others come first at the next tick."""
        return rows[: self._loaded(rows[0]).runner.that_fit([row.drawn for row in rows])] if rows else rows

    def _limit(self, row: Row) -> int:
        return self._loaded(row).budget.pixels

    def _loaded(self, row: Row) -> LoadedModel:
        loaded = self._cache.get(row.asked.model)
        assert loaded is not None, "a model with rows stays loaded"
        return loaded
