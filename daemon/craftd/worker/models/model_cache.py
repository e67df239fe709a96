"""The models in memory: loaded in a thread, unloaded when they are idle and room is needed."""

from __future__ import annotations

import itertools
import logging
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Set
from dataclasses import dataclass, field
from typing import Any

from craft_protos.dispatch import Dispatch, ModelManifest
from craft_protos.reasons import CraftError

from craftd.eviction import Resident, to_evict
from craftd.worker.engine import batch
from craftd.worker.families.base import Runner
from craftd.worker.models import memory
from craftd.worker.models.control import ControlModel
from craftd.worker.models.memory import Ladder, Need, TickBudget
from craftd.worker.process.reporter import Reporter

_log = logging.getLogger(__name__)


@dataclass(eq=False)
class LoadedModel:
    """A loaded model, what uses it, and what it took to fit it into memory."""

    manifest: ModelManifest
    runner: Runner
    ladder: Ladder
    budget: TickBudget = field(default_factory=TickBudget)
    rows: int = 0  # being drawn or decoded
    last_used: int = 0
    is_leaving: bool = False  # unload was asked for while rows were being drawn
    shared: Mapping[str, int] = field(default_factory=dict)  # parts that others may hold too: bytes by key

    def as_resident(self, *, is_kept: bool) -> Resident:
        is_idle = self.rows == 0 and not is_kept
        shared = {} if self.ladder.is_offloaded else self.shared
        return Resident(self.manifest.key, self.runner.resident_bytes, self.last_used, is_idle, shared)


@dataclass(frozen=True)
class LoadFinished:
    """Posted by the loading thread."""

    manifest: ModelManifest
    seconds: float
    runner: Runner | None = None
    error: CraftError | None = None
    ran_out_of_memory: bool = False


Load = Callable[[ModelManifest, Callable[[int], None]], Runner]  # tells how many bytes it has loaded


class ModelCache:
    """Keeps models in memory, and loads and evicts them. Owned by the engine's thread; only `_load` runs in another."""

    def __init__(
        self,
        load: Load,
        need: Callable[[ModelManifest], Need],
        budget_bytes: int,
        reporter: Reporter,
        post: Callable[[LoadFinished], None],
    ) -> None:
        self._load_model = load
        self._need = need
        self._budget_bytes = budget_bytes
        self._reporter = reporter
        self._post = post
        self._models: dict[tuple[str, str], LoadedModel] = {}
        self._uses = itertools.count(1)
        self._wanted_since: float | None = None
        self._beside: Set[tuple[str, str]] = frozenset()  # what is loading is of no use without these
        self._needs: dict[tuple[str, str], Need] = {}  # of the model wanted last
        self.loading: ModelManifest | None = None
        self._is_unwanted = False  # what is loading: unload came before it was there
        self.loads = 0  # rises with every part loaded

    def get(self, manifest: ModelManifest) -> LoadedModel | None:
        return self._models.get(manifest.key)

    def __iter__(self) -> Iterator[LoadedModel]:
        return iter(self._models.values())

    def lacks(self, job: Dispatch) -> ModelManifest | None:
        """The first of a job's models that is not loaded."""
        return next((model for model in job.models if model.key not in self._models), None)

    def networks(self, job: Dispatch) -> Mapping[str, Any]:
        """Of the control models that a job names, which are all loaded, by their names."""
        controls = {one.name: self._models[one.key].runner for one in job.controls}
        return {name: runner.network for name, runner in controls.items() if isinstance(runner, ControlModel)}

    def acquire_all(self, job: Dispatch) -> None:
        """Count a row that uses a job's models."""
        for model in job.models:
            self.acquire(self._models[model.key])

    def release_all(self, job: Dispatch) -> None:
        """Undo that."""
        for model in job.models:
            self.release(self._models[model.key])

    def acquire(self, loaded: LoadedModel) -> None:
        """Count a row that uses the model: until its `release` the model stays loaded."""
        loaded.rows += 1
        loaded.last_used = next(self._uses)

    def release(self, loaded: LoadedModel) -> None:
        """Count a row less; a model that was to be unloaded goes with its last row."""
        loaded.rows -= 1
        if loaded.is_leaving and not loaded.rows:
            self._drop(loaded, "asked")

    def must_yield(self, now: float) -> bool:
        """Whether no more rows may join, because another model has waited for room long enough."""
        return batch.must_yield(self._wanted_since, now)

    def want(
        self,
        manifest: ModelManifest | None,
        needed: Set[tuple[str, str]],
        now: float,
        *,
        beside: Set[tuple[str, str]] = frozenset(),
        is_patient: bool = False,
    ) -> None:
        """The model that the next waiting row lacks, or None; loads it as soon as there is room.

        A model in `needed` has rows waiting too, and stays until its quantum is over; for who is patient, always. Those
        `beside` it are of no use without it, and stay.
        """
        if manifest is None or self.loading is not None:
            self._wanted_since = None
            return
        kept = needed if is_patient or not self.must_yield(now) else set()
        if manifest.key not in self._needs:
            self._needs = {manifest.key: self._need(manifest)}
        if self._make_room(self._needs[manifest.key], kept, beside):
            self._wanted_since, self._beside = None, beside
            self._start(manifest)
        elif is_patient:
            self._wanted_since = None
        elif self._wanted_since is None:
            self._wanted_since = now

    def finish(self, load: LoadFinished) -> CraftError | None:
        """Take a loaded model in; gives the error if there is none to take."""
        self.loading = None
        is_unwanted, self._is_unwanted = self._is_unwanted, False
        if load.ran_out_of_memory and self.evict_idle(self._beside):
            self._start(load.manifest)
            return None
        if load.runner is None:
            assert load.error is not None
            self._reporter.load_failed(load.manifest.name, load.error)
            return load.error
        runner = load.runner
        shared = self._needs.get(load.manifest.key, Need(0)).shared
        ladder, last_used = Ladder(runner.offload, runner.tile), next(self._uses)
        loaded = LoadedModel(load.manifest, runner, ladder, last_used=last_used, shared=shared)
        self._models[load.manifest.key] = loaded
        self.report(loaded, load.seconds)
        if is_unwanted:
            self._drop(loaded, "asked")
        return None

    def report(self, loaded: LoadedModel, seconds: float = 0.0) -> None:
        """Tell the front that the model is loaded."""
        runner = loaded.runner
        self._reporter.loaded(loaded.manifest.name, runner.resident_bytes, seconds, runner.notice)

    def unload(self, name: str) -> None:
        """Drop it now, or once its rows are done."""
        named = [loaded for loaded in self._models.values() if loaded.manifest.name == name]
        for loaded in named:
            loaded.is_leaving = loaded.rows > 0
            if not loaded.is_leaving:
                self._drop(loaded, "asked")
        if self.loading is not None and self.loading.name == name:
            self._is_unwanted = True
        elif not named:
            self._reporter.unloaded(name, "it was not loaded")

    @property
    def lacks_room(self) -> bool:
        """Whether a model waits until others leave."""
        return self._wanted_since is not None

    def _make_room(self, need: Need, kept: Set[tuple[str, str]], beside: Set[tuple[str, str]]) -> bool:
        residents = [loaded.as_resident(is_kept=loaded.manifest.key in kept | beside) for loaded in self]
        leaving = to_evict(residents, need.bytes, self._budget_bytes, need.shared)
        if leaving is None:
            if not all(resident.is_idle for resident in residents if resident.key not in beside):
                return False
            self.evict_idle(beside)  # it may fit though the estimate says no
            return True
        for resident in leaving:
            self._drop(self._models[resident.key], "room was needed")
        return True

    def evict_idle(self, kept: Set[tuple[str, str]] = frozenset()) -> bool:
        """Drop every other model that is not in use; whether there was one."""
        idle = [loaded for loaded in self if not loaded.rows and loaded.manifest.key not in kept]
        for loaded in idle:
            self._drop(loaded, "room was needed")
        return bool(idle)

    def evict(self, loaded: LoadedModel) -> None:
        """Drop one that is not in use, because it is to be loaded anew."""
        self._drop(loaded, "it is loaded anew")

    def _drop(self, loaded: LoadedModel, why: str) -> None:
        del self._models[loaded.manifest.key]
        loaded.runner.close()
        name = loaded.manifest.name
        del loaded.runner, loaded.ladder
        memory.release()
        self._reporter.unloaded(name, why)

    def _start(self, manifest: ModelManifest) -> None:
        self.loading = manifest
        self._reporter.loading(manifest.name, 0, manifest.size_bytes)
        threading.Thread(target=self._load, args=(manifest,), name="loading", daemon=True).start()

    def _load(self, manifest: ModelManifest) -> None:
        began = time.monotonic()

        def bytes_done(count: int) -> None:
            self.loads += 1
            self._reporter.loading(manifest.name, count, manifest.size_bytes)

        try:
            with memory.recognised():
                runner = self._load_model(manifest, bytes_done)
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
