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
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, replace
from typing import TypeVar

import torch
from craft_protos.dispatch import Dispatch, File
from craft_protos.generate import SKIP
from craft_protos.lora import LoraRef
from craft_protos.lora_strength import Strength
from craft_protos.provenance import AppliedLora
from craft_protos.reasons import CraftError, invalid

from craftd.worker.lora import merge
from craftd.worker.lora.adapter import Adapter, Facts, Word
from craftd.worker.lora.fit import mismatch
from craftd.worker.lora.merge import Merged
from craftd.worker.lora.reader import Reader
from craftd.worker.lora.slots import SLOTS_A_ROW, Limits, Slots, Use
from craftd.worker.lora.targets import Targets
from craftd.worker.models import memory

_log = logging.getLogger(__name__)

_MERGED_SETS = 2  # kept, besides what rows use

K = TypeVar("K")
T = TypeVar("T")

SetKey = tuple[tuple[str, Strength], ...]  # sha256 and strength of each, whenever it counts


@dataclass(frozen=True)
class Applied:
    """What one row holds of its model's LoRAs."""

    key: SetKey = ()
    uses: tuple[Use, ...] = ()
    merged: Merged | None = None
    text_key: SetKey = ()  # of those that change what a prompt becomes
    report: tuple[AppliedLora, ...] = ()
    words: tuple[Word, ...] = ()  # embeddings
    times: tuple[
        Strength, ...
    ] = ()  # where any does not count at all steps: when each of those that change layers does

    @property
    def group(self) -> Hashable:
        """Rows of different merged weights cannot share a call."""
        return self.key if self.merged is not None else None

    def at(self, call: int, calls: int) -> Applied:
        """What of it counts at the model call of that number of so many."""
        counts = [one.counts_at(call, calls) for one in self.times]
        if all(counts):
            return self
        if self.merged is not None:
            return replace(self, merged=None)
        return replace(self, uses=tuple(use for use, counted in zip(self.uses, counts, strict=True) if counted))


NONE = Applied()


class AdapterManager:
    """Reads, keeps and applies the LoRAs of one loaded model, for as long as that is loaded."""

    def __init__(
        self,
        targets: Targets,
        reader: Reader,
        device: torch.device,
        limits: Limits = Limits(),  # noqa: B008 - frozen
        *,
        merges_only: bool = False,
    ) -> None:
        self._targets = targets
        self._reader = reader
        self._merges_only = merges_only
        self._device = device
        self._slots = Slots(targets, device, limits)
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

    def want(self, jobs: Sequence[Dispatch]) -> dict[str, CraftError]:
        """Start reading what the jobs need, the first job's first; returns the errors of those that cannot be drawn."""
        errors: dict[str, CraftError] = {}
        self._wanted = set()
        for job in jobs:
            try:
                self._want(job)
            except CraftError as exc:
                errors[job.job_id] = exc
        self._forget_unwanted()
        return errors

    def is_ready(self, job: Dispatch) -> bool:
        if not job.drawing.loras:
            return True
        if any(ref.sha256 not in self._facts for ref in job.drawing.loras):
            return False
        if self._must_merge(job):
            return _key(job) in self._merged
        return all(ref.sha256 in self._slots for ref in self._changing(job))

    def remarks(self, job: Dispatch) -> list[str]:
        """That a ready job's LoRAs need copies of packed layers, which take memory beside the model."""
        merged = self._merged.get(_key(job)) if job.drawing.loras else None
        if merged is None or not self._targets.are_packed:
            return []
        layers = sum(len(weights) for weights in merged.weights.values())
        size = f"{merged.size_bytes / 1e6:.0f} MB"
        return [f"its LoRAs are merged into unpacked copies of {layers} layers, which take {size} beside the model"]

    def acquire(self, job: Dispatch) -> Applied:
        """Take hold of a ready job's LoRAs for one of its rows, until `release`."""
        if not job.drawing.loras:
            return NONE
        self._check(job)
        key, merged = _key(job), None
        uses: tuple[Use, ...] = ()
        if self._must_merge(job):
            merged = self._merged[key] = self._merged.pop(key)
            self._pins[key] += 1
        else:
            uses = tuple(self._slots.pin(ref.sha256, ref.strength) for ref in self._changing(job))
        facts = [self._facts[ref.sha256] for ref in job.drawing.loras]
        return Applied(
            key=key,
            uses=uses,
            merged=merged,
            text_key=tuple(
                (sha, one.of_texts) for (sha, one), known in zip(key, facts, strict=True) if known.adapts_text
            ),
            times=self._times(job),
            report=tuple(
                AppliedLora(ref.lora, ref.name, ref.sha256, ref.scale, known.matched, known.total, **ref.details)
                for ref, known in zip(job.drawing.loras, facts, strict=True)
            ),
            words=tuple(
                word for ref, known in zip(job.drawing.loras, facts, strict=True) for word in _words(ref, known)
            ),
        )

    def release(self, applied: Applied) -> None:
        """Let go of what a row held, so that other LoRAs may take its place."""
        if applied.merged is not None:
            self._pins[applied.key] -= 1
            if not self._pins[applied.key]:
                del self._pins[applied.key]
            self._evict_merged(_MERGED_SETS)
        else:
            for sha256, _weight in applied.key:
                if not self._facts[sha256].vectors:
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

    def denoising(self, rows: Sequence[Applied]) -> AbstractContextManager[None]:
        """While it holds, a call of the denoiser computes these model rows, each with its LoRAs."""
        component, merged = self._targets.denoiser, rows[0].merged
        if merged is not None:
            return merge.applied(merged, self._targets, [component])
        return self._slots.applied(component, [row.uses for row in rows])

    @contextmanager
    def encoding(self, row: Applied) -> Iterator[None]:
        """While it holds, the text encoders compute with this row's LoRAs."""
        others = [name for name in self._targets.components if name != self._targets.denoiser]
        with ExitStack() as stack:
            if row.merged is not None:
                stack.enter_context(merge.applied(row.merged, self._targets, others))
            elif row.uses:
                for name in others:
                    stack.enter_context(self._slots.applied(name, [row.uses]))
            yield

    def running(self, row: Applied) -> AbstractContextManager[None]:
        """While it holds, every component computes with this row's LoRAs."""
        return (
            nullcontext() if row.merged is None else merge.applied(row.merged, self._targets, self._targets.components)
        )

    def close(self) -> None:
        """Free everything."""
        self._wanted = set()
        self._forget_unwanted()
        self._reading.clear()
        self._merging.clear()
        self._merged.clear()
        self._slots.close()

    def _want(self, job: Dispatch) -> None:
        self._wanted |= {file.sha256 for file in job.files}
        unknown = [file for file in job.files if file.sha256 not in self._facts]
        for file in unknown:
            adapter = self._read(file)
            if adapter is not None:
                self._facts[file.sha256] = adapter.facts
        if any(file.sha256 not in self._facts for file in unknown):
            return
        self._check(job)
        if self._must_merge(job):
            self._want_merged(job)
        else:
            for file in job.files:
                if not self._facts[file.sha256].vectors:
                    self._want_slot(file)

    def _want_slot(self, file: File) -> None:
        if file.sha256 in self._slots:
            return
        adapter = self._read(file)
        if adapter is None:
            return
        try:
            is_placed = self._slots.place(adapter, {key for key in self._wanted if isinstance(key, str)})
        except memory.OUT_OF_MEMORY:
            memory.release_cached()
            raise memory.too_little(f"LoRA {file.name}") from None
        if is_placed:
            del self._reading[file.sha256]

    def _want_merged(self, job: Dispatch) -> None:
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

    def _start_merge(self, key: SetKey, job: Dispatch) -> None:
        reader, targets = self._reader, self._targets
        weighted = [(file, ref.strength.lasting) for file, ref in zip(job.files, job.drawing.loras, strict=True)]
        own = merge.own_weights(targets)

        def work() -> Merged:
            return merge.merge([(reader.read(file, targets), strength) for file, strength in weighted], own)

        self._merging[key] = reader.start(f"LoRA {job.files[0].name}", work)

    def _read(self, file: File) -> Adapter | None:
        """The LoRA, or None while it is being read; the first call starts reading it."""
        future = self._reading.get(file.sha256)
        if future is None:
            reader, targets = self._reader, self._targets
            is_copied = self._device.type == "cuda"

            def work() -> Adapter:
                adapter = reader.read(file, targets)
                return adapter.pinned() if is_copied else adapter

            self._reading[file.sha256] = reader.start(f"LoRA {file.name}", work)
            return None
        return future.result() if future.done() else None

    def _check(self, job: Dispatch) -> None:
        """Raises LORA_MISMATCH, INVALID_FIELD."""
        skips_missing = job.drawing.lora_missing == SKIP
        for ref in job.drawing.loras:
            if not math.isfinite(ref.scale):
                raise invalid("loras.weight", f"{ref.scale} is no weight for {ref.name}", "use a number such as 0.8")
            facts = self._facts[ref.sha256]
            if not facts.matched or (facts.unmatched and not skips_missing):
                raise mismatch(ref.name, job.model.name, facts.matched, facts.total, facts.unmatched)

        if len(set(self._times(job))) > 1 and self._must_merge(job):
            why = "differ, and these LoRAs are merged with each other into the weights"
            raise invalid("loras", f"start and end {why}", "give all the same, or none")

    def _times(self, job: Dispatch) -> tuple[Strength, ...]:
        """When each counts that changes layers; none where all do at all steps."""
        found = tuple(Strength(1.0, start=ref.start, end=ref.end) for ref in self._changing(job))
        return found if any(one != one.lasting for one in found) else ()

    def _must_merge(self, job: Dispatch) -> bool:
        changing = self._changing(job)
        is_large = any(self._facts[ref.sha256].bucket is None for ref in changing)
        return bool(changing) and (self._merges_only or is_large or len(changing) > SLOTS_A_ROW[-1])

    def _changing(self, job: Dispatch) -> list[LoraRef]:
        """Those that change layers: all but embeddings."""
        return [ref for ref in job.drawing.loras if not self._facts[ref.sha256].vectors]

    def _forget_unwanted(self) -> None:
        """Drops what was read for jobs that have gone or failed."""
        _forget(self._reading, self._wanted)
        _forget(self._merging, self._wanted)

    def _evict_merged(self, limit: int) -> None:
        for key in [key for key in self._merged if key not in self._pins and key not in self._wanted]:
            if len(self._merged) <= limit:
                return
            del self._merged[key]


def _words(ref: LoraRef, known: Facts) -> Iterator[Word]:
    """An embedding's, and those beside a LoRA that is not off."""
    if known.vectors:
        yield Word(ref.name, ref.scale, known.vectors)
    if ref.scale:
        for word, vectors in known.bundled.items():
            yield Word(word, 1.0, vectors)


def _key(job: Dispatch) -> SetKey:
    return tuple((ref.sha256, ref.strength.lasting) for ref in job.drawing.loras)


def _forget(futures: dict[K, Future[T]], wanted: Set[Hashable]) -> None:
    for key, future in list(futures.items()):
        has_failed = future.done() and not future.cancelled() and future.exception() is not None
        if has_failed or (key not in wanted and (future.cancel() or future.done())):
            del futures[key]
