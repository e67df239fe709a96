"""The models in memory: loaded in a thread, unloaded when they are idle and room is needed."""

from __future__ import annotations

import itertools
import logging
import threading
import time
from collections.abc import Callable, Iterator, Set
from dataclasses import dataclass, field

from craft_protos.reasons import CraftError

from craftd.worker import batch, memory
from craftd.worker.families.base import Runner
from craftd.worker.memory import Ladder, Resident, TickBudget
from craftd.worker.messages import Manifest
from craftd.worker.reporter import Reporter

_log = logging.getLogger(__name__)


@dataclass(eq=False)
class Shelved:
    """A loaded model and how it has fared."""

    manifest: Manifest
    runner: Runner
    ladder: Ladder
    budget: TickBudget = field(default_factory=TickBudget)
    rows: int = 0  # being drawn or decoded
    last_used: int = 0
    is_leaving: bool = False  # unload was asked for while rows were being drawn

    def as_resident(self, *, is_kept: bool) -> Resident:
        is_idle = self.rows == 0 and not is_kept
        return Resident(self.manifest.key, self.runner.resident_bytes, self.last_used, is_idle)


@dataclass(frozen=True)
class LoadFinished:
    """Posted by the loading thread."""

    manifest: Manifest
    seconds: float
    runner: Runner | None = None
    error: CraftError | None = None
    ran_out_of_memory: bool = False


@dataclass(frozen=True)
class Sources:
    """Where models come from."""

    load: Callable[[Manifest, Callable[[int], None]], Runner]
    need_bytes: Callable[[Manifest], int]


class Shelf:
    """Owned by the engine's thread; only `_load` runs elsewhere."""

    def __init__(
        self, sources: Sources, budget_bytes: int, reporter: Reporter, post: Callable[[LoadFinished], None]
    ) -> None:
        self._sources = sources
        self._budget_bytes = budget_bytes
        self._reporter = reporter
        self._post = post
        self._models: dict[tuple[str, str], Shelved] = {}
        self._uses = itertools.count(1)
        self._wanted_since: float | None = None
        self._needs: dict[tuple[str, str], int] = {}  # of the model wanted last
        self.loading: Manifest | None = None
        self._is_unwanted = False  # what is loading: unload came before it was there
        self.loads = 0  # rises with every part loaded

    def get(self, manifest: Manifest) -> Shelved | None:
        return self._models.get(manifest.key)

    def __iter__(self) -> Iterator[Shelved]:
        return iter(self._models.values())

    def acquire(self, shelved: Shelved) -> None:
        """A row of it is being drawn."""
        shelved.rows += 1
        shelved.last_used = next(self._uses)

    def release(self, shelved: Shelved) -> None:
        """That row is done with."""
        shelved.rows -= 1
        if shelved.is_leaving and not shelved.rows:
            self._drop(shelved, "asked")

    def must_yield(self, now: float) -> bool:
        """Whether no more rows may join, because another model has waited for room long enough."""
        return batch.must_yield(self._wanted_since, now)

    def want(
        self, manifest: Manifest | None, needed: Set[tuple[str, str]], now: float, *, is_patient: bool = False
    ) -> None:
        """The model that the next waiting row lacks, or None; loads it as soon as there is room.

        A model in `needed` has rows waiting too, and stays until its quantum is over; for who is patient, always.
        """
        if manifest is None or self.loading is not None:
            self._wanted_since = None
            return
        kept = needed if is_patient or not self.must_yield(now) else set()
        if manifest.key not in self._needs:
            self._needs = {manifest.key: self._sources.need_bytes(manifest)}
        if self._make_room(self._needs[manifest.key], kept):
            self._wanted_since = None
            self._start(manifest)
        elif is_patient:
            self._wanted_since = None
        elif self._wanted_since is None:
            self._wanted_since = now

    def finish(self, load: LoadFinished) -> CraftError | None:
        """Take a loaded model in; gives the error if there is none to take."""
        self.loading = None
        is_unwanted, self._is_unwanted = self._is_unwanted, False
        if load.ran_out_of_memory and self.evict_idle():
            self._start(load.manifest)
            return None
        if load.runner is None:
            assert load.error is not None
            self._reporter.load_failed(load.manifest.name, load.error)
            return load.error
        runner = load.runner
        shelved = Shelved(load.manifest, runner, Ladder(runner.offload, runner.tile), last_used=next(self._uses))
        self._models[load.manifest.key] = shelved
        self.report(shelved, load.seconds)
        if is_unwanted:
            self._drop(shelved, "asked")
        return None

    def report(self, shelved: Shelved, seconds: float = 0.0) -> None:
        """Say that it is loaded."""
        runner = shelved.runner
        self._reporter.loaded(shelved.manifest.name, runner.resident_bytes, seconds, runner.notice)

    def unload(self, name: str) -> None:
        """Drop it now, or once its rows are done."""
        named = [shelved for shelved in self._models.values() if shelved.manifest.name == name]
        for shelved in named:
            shelved.is_leaving = shelved.rows > 0
            if not shelved.is_leaving:
                self._drop(shelved, "asked")
        if self.loading is not None and self.loading.name == name:
            self._is_unwanted = True
        elif not named:
            self._reporter.unloaded(name, "it was not loaded")

    @property
    def lacks_room(self) -> bool:
        """Whether a model waits until others leave."""
        return self._wanted_since is not None

    def _make_room(self, need_bytes: int, kept: Set[tuple[str, str]]) -> bool:
        residents = [shelved.as_resident(is_kept=shelved.manifest.key in kept) for shelved in self]
        leaving = memory.to_evict(residents, need_bytes, self._budget_bytes)
        if leaving is None:
            if not all(resident.is_idle for resident in residents):
                return False
            self.evict_idle()  # it may fit though the estimate says no
            return True
        for resident in leaving:
            self._drop(self._models[resident.key], "room was needed")
        return True

    def evict_idle(self) -> bool:
        """Drop every model that is not in use; whether there was one."""
        idle = [shelved for shelved in self if not shelved.rows]
        for shelved in idle:
            self._drop(shelved, "room was needed")
        return bool(idle)

    def evict(self, shelved: Shelved) -> None:
        """Drop one that is not in use, because it is to be loaded anew."""
        self._drop(shelved, "it is loaded anew")

    def _drop(self, shelved: Shelved, why: str) -> None:
        del self._models[shelved.manifest.key]
        shelved.runner.close()
        name = shelved.manifest.name
        del shelved.runner, shelved.ladder
        memory.release()
        self._reporter.unloaded(name, why)

    def _start(self, manifest: Manifest) -> None:
        self.loading = manifest
        self._reporter.loading(manifest.name, 0, manifest.size_bytes)
        threading.Thread(target=self._load, args=(manifest,), name="loading", daemon=True).start()

    def _load(self, manifest: Manifest) -> None:
        began = time.monotonic()

        def bytes_done(count: int) -> None:
            self.loads += 1
            self._reporter.loading(manifest.name, count, manifest.size_bytes)

        try:
            with memory.recognised():
                runner = self._sources.load(manifest, bytes_done)
        except CraftError as exc:
            self._post(LoadFinished(manifest, time.monotonic() - began, error=exc))
        except memory.OUT_OF_MEMORY:
            error = memory.too_little(f"model {manifest.name}")
            self._post(LoadFinished(manifest, time.monotonic() - began, error=error, ran_out_of_memory=True))
        except Exception as exc:  # the thread's outermost: a model must not end the worker
            _log.exception("loading %s failed", manifest.name)
            error = CraftError("UNSUPPORTED_MODEL", f"model {manifest.name} cannot be loaded: {exc}")
            self._post(LoadFinished(manifest, time.monotonic() - began, error=error))
        else:
            self._post(LoadFinished(manifest, time.monotonic() - began, runner=runner))
