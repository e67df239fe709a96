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

from craft_protos.reasons import CraftError

from craftd.worker import batch, memory
from craftd.worker.finisher import as_craft_error
from craftd.worker.messages import Cancel, Manifest, Train
from craftd.worker.shelf import Shelf, Shelved
from craftd.worker.training.session import Session, Workshop

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
    """Of one piece of work."""

    GOES_ON = auto()
    OVER = auto()
    OUT_OF_MEMORY = auto()


class Trainings:
    """Owned by the engine's thread."""

    def __init__(self, shop: Workshop, shelf: Shelf, begin: Callable[[Train, Workshop], Session] = Session) -> None:
        self._shop = shop
        self._begin = begin
        self._shelf = shelf
        self._sessions: list[Session] = []  # the first one has its turn
        self._model: Shelved | None = None  # of the first one, while it is attached
        self._attached_at = 0.0
        self._waits_for_quiet = False
        self._ran_out_at: tuple[Session, int] | None = None
        self._owed_s = 0.0  # to training, by rows
        self._turn_s = 0.0  # what the last turn took
        self.progress = 0  # rises with every turn

    def __bool__(self) -> bool:
        return bool(self._sessions)

    @property
    def is_attached(self) -> bool:
        return self._model is not None

    def submit(self, train: Train) -> None:
        self.forget(train.job_id)
        self._sessions.append(self._begin(train, self._shop))

    def cancel(self, cancel: Cancel) -> bool:
        """Whether there was such a training."""
        session = self._find(cancel.job_id)
        if session is None or session.train.epoch != cancel.epoch:
            return False
        self.forget(cancel.job_id)
        self._shop.reporter.done(cancel.job_id, cancel.epoch, cancelled=True)
        return True

    def forget(self, job_id: str) -> None:
        """End it without a word."""
        session = self._find(job_id)
        if session is not None:
            self._remove(session)

    def wanted(self, others: Others) -> Manifest | None:
        """The model that has to be loaded for the next turn."""
        if not self._sessions or self._model is not None or self._must_wait(others):
            return None
        return self._sessions[0].train.model

    def renew(self, others: Others) -> None:
        """Drop the next turn's model, once it is idle, where drawing has offloaded it: so it cannot be trained."""
        wanted = self.wanted(others)
        shelved = None if wanted is None else self._shelf.get(wanted)
        if shelved is not None and shelved.ladder.is_offloaded and not (shelved.rows or others.has_waiting):
            self._shelf.evict(shelved)

    def load_failed(self, model: Manifest, error: CraftError) -> None:
        for session in [one for one in self._sessions if one.train.model.key == model.key]:
            self._fail(session, error)

    def rows_took(self, seconds: float) -> None:
        """Time that drawing had."""
        if self._sessions:
            most = max(self._turn_s, seconds) * 2
            self._owed_s = min(self._owed_s + seconds * SHARE / (1 - SHARE), most)

    def may_turn(self, others: Others) -> bool:
        """Whether the next piece of training may be done now."""
        if not self._sessions or self._must_wait(others):
            return False
        if self._model is None and not self._can_attach():
            return False
        return not others.has_rows or (self._owed_s > 0 and self._owed_s >= self._turn_s)

    def turn(self) -> None:
        """One piece of work of the first training. What goes wrong is its own fault alone."""
        session, began = self._sessions[0], self._shop.clock()
        outcome = self._work(session)
        if outcome is Outcome.OVER:
            self._remove(session)
            self._shop.reporter.done(session.train.job_id, session.train.epoch, cancelled=False)
        elif outcome is Outcome.OUT_OF_MEMORY:
            self._ran_out(session)
        elif isinstance(outcome, CraftError):
            self._fail(session, outcome)
        self.progress += 1
        self._turn_s = self._shop.clock() - began
        self._owed_s = max(0.0, self._owed_s - self._turn_s)

    def _work(self, session: Session) -> Outcome | CraftError:
        """By the time it returns, nothing holds what a failed computation had in memory."""
        try:
            if self._model is None:
                self._attach(session)
            return Outcome.OVER if session.turn() else Outcome.GOES_ON
        except memory.OUT_OF_MEMORY:
            return Outcome.OUT_OF_MEMORY
        except Exception as exc:  # one job's failure costs nobody else theirs
            return as_craft_error(exc, "training")

    def make_way(self) -> None:
        """Another model has waited for room; after a quantum of its own, the training gives its up."""
        if self._model is not None and self._shop.clock() - self._attached_at >= batch.QUANTUM_S:
            self._put_aside()

    def yield_memory(self) -> None:
        """Drawing has run out of memory: let it have the device until it is done."""
        self._waits_for_quiet = True
        self._put_aside()

    def _must_wait(self, others: Others) -> bool:
        if others.is_quiet:
            self._waits_for_quiet = False
            return False
        is_contended = others.is_finishing and not self._shop.device.is_cpu
        return self._waits_for_quiet or is_contended or self._sessions[0].train.recipe.when_idle

    def _can_attach(self) -> bool:
        shelved = self._shelf.get(self._sessions[0].train.model)
        is_there = shelved is not None and not shelved.is_leaving and not shelved.ladder.is_offloaded
        return is_there and not self._shelf.lacks_room

    def _attach(self, session: Session) -> None:
        shelved = self._shelf.get(session.train.model)
        assert shelved is not None
        self._shelf.acquire(shelved)
        self._model, self._attached_at = shelved, self._shop.clock()
        session.attach(shelved.runner.pipe)

    def _put_aside(self) -> None:
        if self._model is not None:
            self._sessions[0].put_aside()
            self._let_go()

    def _let_go(self) -> None:
        model, self._model = self._model, None
        if model is not None:
            self._shelf.release(model)

    def _ran_out(self, session: Session) -> None:
        """Once, try again with all the room that there is; then it is too much."""
        _log.warning("training %s ran out of memory at step %d", session.train.recipe.name, session.step)
        failed_before = self._ran_out_at == (session, session.step)
        self._ran_out_at = (session, session.step)
        self._put_aside()
        if failed_before:
            self._fail(session, _too_little(session))
        else:
            self._shelf.evict_idle()

    def _fail(self, session: Session, error: CraftError) -> None:
        session.settle()
        self._remove(session)
        self._shop.reporter.failed(session.train, error)

    def _remove(self, session: Session) -> None:
        is_first = self._sessions[0] is session
        self._sessions.remove(session)
        session.close()
        if is_first:
            self._let_go()
            self._turn_s = self._owed_s = 0.0

    def _find(self, job_id: str) -> Session | None:
        return next((one for one in self._sessions if one.train.job_id == job_id), None)


def _too_little(session: Session) -> CraftError:
    recipe = session.train.recipe
    advice = [
        *(["a smaller --batch with more --accumulate"] if recipe.batch_size > 1 else []),
        *(["--gradient-checkpointing"] if not recipe.gradient_checkpointing else []),
        f"a smaller --resolution than {recipe.resolution}",
    ]
    what = f"training at {recipe.resolution} pixels with a batch of {recipe.batch_size}"
    return CraftError(
        "OUT_OF_MEMORY", f"the device's memory does not suffice for {what}", f"use {', or '.join(advice)}"
    )
