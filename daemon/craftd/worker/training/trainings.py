"""The trainings of one worker: one at a time, in turns with what is being drawn.

Drawing goes first. While pictures are drawn, a training gets a quarter of the time, one micro-batch (or one step of a
sample) at a time; otherwise all of it. One that is to train only when idle gets none meanwhile. A training's model
stays loaded; where another model has waited for its room, or drawing has run out of memory, the training is put aside
and goes on when there is room again.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum, auto

from craft_protos.dispatch import Cancel, Dispatch, ModelManifest
from craft_protos.reasons import CraftError

from craftd.worker.engine import batch
from craftd.worker.models import memory
from craftd.worker.models.model_cache import LoadedModel, ModelCache
from craftd.worker.output.finisher import as_craft_error
from craftd.worker.training.run import TrainingContext, TrainingRun

_log = logging.getLogger(__name__)

SHARE = 0.25  # of the time in which rows are drawn


@dataclass(frozen=True)
class Others:
    """What else a worker has to do."""

    has_rows: bool = False  # some are being denoised
    is_finishing: bool = False  # some are being decoded, or a model is being loaded
    has_waiting: bool = False

    @property
    def is_quiet(self) -> bool:
        return not (self.has_rows or self.is_finishing or self.has_waiting)


class Outcome(Enum):
    """What came of one piece of work."""

    GOES_ON = auto()
    OVER = auto()
    OUT_OF_MEMORY = auto()


class Trainings:
    """Queues trainings, and gives the first of them its turns. Owned by the engine's thread."""

    def __init__(
        self,
        context: TrainingContext,
        cache: ModelCache,
        begin: Callable[[Dispatch, TrainingContext], TrainingRun] = TrainingRun,
    ) -> None:
        self._context = context
        self._begin = begin
        self._cache = cache
        self._runs: list[TrainingRun] = []  # the first one has its turn
        self._model: LoadedModel | None = None  # of the first one, while it is attached
        self._attached_at = 0.0
        self._waits_for_quiet = False
        self._ran_out_at: tuple[TrainingRun, int] | None = None
        self._owed_s = 0.0  # to training, by rows
        self._turn_s = 0.0  # what the last turn took
        self.progress = 0  # rises with every turn

    def __bool__(self) -> bool:
        return bool(self._runs)

    @property
    def is_attached(self) -> bool:
        return self._model is not None

    def submit(self, train: Dispatch) -> None:
        self.forget(train.job_id)
        self._runs.append(self._begin(train, self._context))

    def cancel(self, cancel: Cancel) -> bool:
        """Whether there was such a training."""
        run = self._find(cancel.job_id)
        if run is None or run.train.epoch != cancel.epoch:
            return False
        self.forget(cancel.job_id)
        self._context.reporter.done(cancel.job_id, cancel.epoch, cancelled=True)
        return True

    def forget(self, job_id: str) -> None:
        """End a training without telling the front."""
        run = self._find(job_id)
        if run is not None:
            self._remove(run)

    def wanted(self, others: Others) -> ModelManifest | None:
        """The model that has to be loaded for the next turn."""
        if not self._runs or self._model is not None or self._must_wait(others):
            return None
        return self._runs[0].train.model

    def renew(self, others: Others) -> None:
        """Drop the next turn's model, once it is idle, where drawing has offloaded it: so it cannot be trained."""
        wanted = self.wanted(others)
        loaded = None if wanted is None else self._cache.get(wanted)
        if loaded is not None and loaded.ladder.is_offloaded and not (loaded.rows or others.has_waiting):
            self._cache.evict(loaded)

    def load_failed(self, model: ModelManifest, error: CraftError) -> None:
        for run in [one for one in self._runs if one.train.model.key == model.key]:
            self._fail(run, error)

    def rows_took(self, seconds: float) -> None:
        """Count the time that drawing took: a share of it is owed to training."""
        if self._runs:
            most = max(self._turn_s, seconds) * 2
            self._owed_s = min(self._owed_s + seconds * SHARE / (1 - SHARE), most)

    def may_turn(self, others: Others) -> bool:
        """Whether the next piece of training may be done now."""
        if not self._runs or self._must_wait(others):
            return False
        if self._model is None and not self._can_attach():
            return False
        return not others.has_rows or (self._owed_s > 0 and self._owed_s >= self._turn_s)

    def turn(self) -> None:
        """Do one piece of the first training's work; an error ends that training alone."""
        run, began = self._runs[0], self._context.clock()
        outcome = self._work(run)
        if outcome is Outcome.OVER:
            self._remove(run)
            self._context.reporter.done(run.train.job_id, run.train.epoch, cancelled=False)
        elif outcome is Outcome.OUT_OF_MEMORY:
            self._ran_out(run)
        elif isinstance(outcome, CraftError):
            self._fail(run, outcome)
        self.progress += 1
        self._turn_s = self._context.clock() - began
        self._owed_s = max(0.0, self._owed_s - self._turn_s)

    def _work(self, run: TrainingRun) -> Outcome | CraftError:
        """By the time it returns, nothing holds what a failed computation had in memory."""
        try:
            if self._model is None:
                self._attach(run)
            return Outcome.OVER if run.turn() else Outcome.GOES_ON
        except memory.OUT_OF_MEMORY:
            return Outcome.OUT_OF_MEMORY
        except Exception as exc:  # one job's failure costs nobody else theirs
            return as_craft_error(exc, "training")

    def make_way(self) -> None:
        """Another model has waited for room; after a quantum of its own, the training gives its up."""
        if self._model is not None and self._context.clock() - self._attached_at >= batch.QUANTUM_S:
            self._put_aside()

    def yield_memory(self) -> None:
        """Drawing has run out of memory: let it have the device until it is done."""
        self._waits_for_quiet = True
        self._put_aside()

    def _must_wait(self, others: Others) -> bool:
        if others.is_quiet:
            self._waits_for_quiet = False
            return False
        is_contended = others.is_finishing and not self._context.device.is_cpu
        return self._waits_for_quiet or is_contended or self._runs[0].train.training.when_idle

    def _can_attach(self) -> bool:
        loaded = self._cache.get(self._runs[0].train.model)
        is_there = loaded is not None and not loaded.is_leaving and not loaded.ladder.is_offloaded
        return is_there and not self._cache.lacks_room

    def _attach(self, run: TrainingRun) -> None:
        loaded = self._cache.get(run.train.model)
        assert loaded is not None
        self._cache.acquire(loaded)
        self._model, self._attached_at = loaded, self._context.clock()
        run.attach(loaded.runner.pipe)

    def _put_aside(self) -> None:
        if self._model is not None:
            self._runs[0].put_aside()
            self._let_go()

    def _let_go(self) -> None:
        model, self._model = self._model, None
        if model is not None:
            self._cache.release(model)

    def _ran_out(self, run: TrainingRun) -> None:
        """Retries once with all idle models evicted; running out at the same step again fails the training."""
        _log.warning("training %s ran out of memory at step %d", run.train.training.name, run.step)
        failed_before = self._ran_out_at == (run, run.step)
        self._ran_out_at = (run, run.step)
        self._put_aside()
        if failed_before:
            self._fail(run, _too_little(run))
        else:
            self._cache.evict_idle()

    def _fail(self, run: TrainingRun, error: CraftError) -> None:
        run.settle()
        self._remove(run)
        self._context.reporter.failed(run.train, error)

    def _remove(self, run: TrainingRun) -> None:
        is_first = self._runs[0] is run
        self._runs.remove(run)
        run.close()
        if is_first:
            self._let_go()
            self._turn_s = self._owed_s = 0.0

    def _find(self, job_id: str) -> TrainingRun | None:
        return next((one for one in self._runs if one.train.job_id == job_id), None)


def _too_little(run: TrainingRun) -> CraftError:
    recipe = run.train.training
    advice = [
        *(["a smaller --batch with more --accumulate"] if recipe.batch_size > 1 else []),
        *(["--gradient-checkpointing"] if not recipe.gradient_checkpointing else []),
        f"a smaller --resolution than {recipe.resolution}",
    ]
    what = f"training at {recipe.resolution} pixels with a batch of {recipe.batch_size}"
    return CraftError(
        "OUT_OF_MEMORY", f"the device's memory does not suffice for {what}", f"use {', or '.join(advice)}"
    )
