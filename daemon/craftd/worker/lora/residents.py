"""The LoRAs of one loaded model: read what waiting jobs need, keep what rows use, apply it to a call.

A job whose LoRAs fit into slots shares its model calls with any other; one whose LoRAs don't (DoRA, ranks
over the largest bucket, more of them than a row has slots) is drawn with merged weights, its set being part
of its group. Owned by the engine's thread.
"""

from __future__ import annotations

import logging
import math
from collections import Counter
from collections.abc import Hashable, Iterator, Sequence, Set
from concurrent.futures import Future
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar

import torch
from craft_protos.reasons import CraftError, invalid

from craftd.worker import memory
from craftd.worker.lora import merge
from craftd.worker.lora.adapter import Adapter, Facts, mismatch
from craftd.worker.lora.merge import Merged
from craftd.worker.lora.reader import Reader
from craftd.worker.lora.slots import SLOTS_A_ROW, Limits, Slots, Use
from craftd.worker.lora.targets import Targets
from craftd.worker.messages import Draw, LoraUse

_log = logging.getLogger(__name__)

_MERGED_SETS = 2  # kept, besides what rows use

K = TypeVar("K")
T = TypeVar("T")

SetKey = tuple[tuple[str, float], ...]  # sha256 and weight of each


@dataclass(frozen=True)
class AppliedLora:
    """One LoRA of an image, as its provenance tells."""

    use: LoraUse
    matched: int
    total: int


@dataclass(frozen=True)
class Applied:
    """What one row holds of its model's LoRAs."""

    key: SetKey = ()
    uses: tuple[Use, ...] = ()
    merged: Merged | None = None
    text_key: SetKey = ()  # of those that change what a prompt becomes
    told: tuple[AppliedLora, ...] = ()

    @property
    def group(self) -> Hashable:
        """Rows of different merged weights cannot share a call."""
        return self.key if self.merged is not None else None


NONE = Applied()


@dataclass(frozen=True)
class Housing:
    """What the LoRAs of every model are kept with."""

    reader: Reader
    device: torch.device
    limits: Limits = field(default_factory=Limits)

    def of(self, pipe: Any, *, merges_only: bool = False) -> Residents:
        """For a model that has just been loaded."""
        return Residents(Targets(pipe), self, merges_only=merges_only)


class Residents:
    """Made with the model, closed with it."""

    def __init__(self, targets: Targets, housing: Housing, *, merges_only: bool = False) -> None:
        self._targets = targets
        self._reader = housing.reader
        self._merges_only = merges_only
        self._slots = Slots(targets, housing.device, housing.limits)
        self._facts: dict[str, Facts] = {}
        self._reading: dict[str, Future[Adapter]] = {}
        self._merging: dict[SetKey, Future[Merged]] = {}
        self._merged: dict[SetKey, Merged] = {}  # in order of use
        self._pins: Counter[SetKey] = Counter()
        self._wanted: set[Hashable] = set()  # of this round

    @property
    def size_bytes(self) -> int:
        return self._slots.size_bytes + sum(merged.size_bytes for merged in self._merged.values())

    @property
    def is_reading(self) -> bool:
        """Whether something that a job waits for is on its way."""
        reads = any(not future.done() for future in self._reading.values())
        return reads or any(not future.done() for future in self._merging.values())

    def want(self, jobs: Sequence[Draw]) -> dict[str, CraftError]:
        """Have the jobs' LoRAs ready, the first job's first; by job, why it can never be drawn."""
        errors: dict[str, CraftError] = {}
        self._wanted = set()
        for job in jobs:
            try:
                self._want(job)
            except CraftError as exc:
                errors[job.job_id] = exc
        self._forget_unwanted()
        return errors

    def is_ready(self, job: Draw) -> bool:
        if not job.loras:
            return True
        if any(use.sha256 not in self._facts for use in job.loras):
            return False
        if self._must_merge(job):
            return _key(job) in self._merged
        return all(use.sha256 in self._slots for use in job.loras)

    def acquire(self, job: Draw) -> Applied:
        """Hold a ready job's LoRAs for one of its rows."""
        if not job.loras:
            return NONE
        self._check(job)
        key, merged = _key(job), None
        uses: tuple[Use, ...] = ()
        if self._must_merge(job):
            merged = self._merged[key] = self._merged.pop(key)
            self._pins[key] += 1
        else:
            uses = tuple(self._slots.pin(use.sha256, use.weight) for use in job.loras)
        facts = [self._facts[use.sha256] for use in job.loras]
        return Applied(
            key=key,
            uses=uses,
            merged=merged,
            text_key=tuple(pair for pair, known in zip(key, facts, strict=True) if known.adapts_text),
            told=tuple(
                AppliedLora(use, known.matched, known.total) for use, known in zip(job.loras, facts, strict=True)
            ),
        )

    def release(self, applied: Applied) -> None:
        """That row is done with."""
        if applied.merged is not None:
            self._pins[applied.key] -= 1
            if not self._pins[applied.key]:
                del self._pins[applied.key]
            self._evict_merged(_MERGED_SETS)
        else:
            for sha256, _weight in applied.key:
                self._slots.unpin(sha256)

    def that_fit(self, rows: Sequence[tuple[Applied, int]]) -> int:
        """How many of the first rows, each with its number of model rows, one call can gather for; one at least."""
        count = len(rows)
        while count > 1 and not self._fit(rows[:count]):
            count -= 1
        return count

    def _fit(self, rows: Sequence[tuple[Applied, int]]) -> bool:
        uses = [applied.uses for applied, model_rows in rows for _ in range(model_rows)]
        return self._slots.fits(self._targets.denoiser, uses)

    @contextmanager
    def denoising(self, rows: Sequence[Applied]) -> Iterator[None]:
        """While it holds, a call of the denoiser is of these model rows."""
        component = self._targets.denoiser
        merged = rows[0].merged
        if merged is not None:
            with merge.applied(merged, self._targets, [component]):
                yield
        else:
            with self._slots.applied(component, [row.uses for row in rows]):
                yield

    @contextmanager
    def encoding(self, row: Applied) -> Iterator[None]:
        """While it holds, calls of the text encoders are of this row."""
        others = [name for name in self._targets.components if name != self._targets.denoiser]
        with ExitStack() as stack:
            if row.merged is not None:
                stack.enter_context(merge.applied(row.merged, self._targets, others))
            elif row.uses:
                for name in others:
                    stack.enter_context(self._slots.applied(name, [row.uses]))
            yield

    @contextmanager
    def running(self, row: Applied) -> Iterator[None]:
        """While it holds, every component is this row's."""
        if row.merged is None:
            yield
        else:
            with merge.applied(row.merged, self._targets, list(self._targets.components)):
                yield

    def close(self) -> None:
        """Free everything."""
        self._wanted = set()
        self._forget_unwanted()
        self._reading.clear()
        self._merging.clear()
        self._merged.clear()
        self._slots.close()

    def _want(self, job: Draw) -> None:
        self._wanted |= {use.sha256 for use in job.loras}
        unknown = [use for use in job.loras if use.sha256 not in self._facts]
        for use in unknown:
            adapter = self._read(use)
            if adapter is not None:
                self._facts[use.sha256] = adapter.facts
        if any(use.sha256 not in self._facts for use in unknown):
            return
        self._check(job)
        if self._must_merge(job):
            self._want_merged(job)
        else:
            for use in job.loras:
                self._want_slot(use)

    def _want_slot(self, use: LoraUse) -> None:
        if use.sha256 in self._slots:
            return
        adapter = self._read(use)
        if adapter is None:
            return
        try:
            is_placed = self._slots.place(adapter, {key for key in self._wanted if isinstance(key, str)})
        except memory.OUT_OF_MEMORY:
            memory.release_cached()
            raise memory.too_little(f"LoRA {use.name}") from None
        if is_placed:
            del self._reading[use.sha256]

    def _want_merged(self, job: Draw) -> None:
        key = _key(job)
        self._wanted.add(key)
        if key in self._merged:
            return
        if key not in self._merging:
            if len(self._pins) + len(self._merging) < _MERGED_SETS:
                self._start_merge(key, job)
            return
        future = self._merging[key]
        if future.done():
            del self._merging[key]
            self._merged[key] = future.result()
            self._evict_merged(_MERGED_SETS)

    def _start_merge(self, key: SetKey, job: Draw) -> None:
        reader, targets, uses = self._reader, self._targets, job.loras
        own = merge.own_weights(targets)

        def work() -> Merged:
            return merge.merge([(reader.read(use, targets), use.weight) for use in uses], own)

        self._merging[key] = reader.start(uses[0].name, work)

    def _read(self, use: LoraUse) -> Adapter | None:
        """The LoRA, if it has been read; if not, it will be."""
        future = self._reading.get(use.sha256)
        if future is None:
            reader, targets = self._reader, self._targets
            self._reading[use.sha256] = reader.start(use.name, lambda: reader.read(use, targets))
            return None
        return future.result() if future.done() else None

    def _check(self, job: Draw) -> None:
        """Raises LORA_MISMATCH, INVALID_FIELD."""
        for use in job.loras:
            if not math.isfinite(use.weight):
                raise invalid("loras.weight", f"{use.weight} is no weight for {use.name}", "use a number such as 0.8")
            facts = self._facts[use.sha256]
            if not facts.matched or (facts.unmatched and not job.skips_missing):
                raise mismatch(use.name, job.model.name, facts)

    def _must_merge(self, job: Draw) -> bool:
        is_large = any(self._facts[use.sha256].bucket is None for use in job.loras)
        return self._merges_only or is_large or len(job.loras) > SLOTS_A_ROW[-1]

    def _forget_unwanted(self) -> None:
        """What was read for jobs that are gone, or that will fail."""
        _forget(self._reading, self._wanted)
        _forget(self._merging, self._wanted)

    def _evict_merged(self, limit: int) -> None:
        for key in [key for key in self._merged if key not in self._pins and key not in self._wanted]:
            if len(self._merged) <= limit:
                return
            del self._merged[key]


def _key(job: Draw) -> SetKey:
    return tuple((use.sha256, use.weight) for use in job.loras)


def _forget(futures: dict[K, Future[T]], wanted: Set[Hashable]) -> None:
    for key, future in list(futures.items()):
        has_failed = future.done() and not future.cancelled() and future.exception() is not None
        if has_failed or (key not in wanted and (future.cancel() or future.done())):
            del futures[key]
