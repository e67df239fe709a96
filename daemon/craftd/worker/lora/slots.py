"""The slots of one loaded model: which LoRA lies where, and what a batch's rows take from them."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Hashable, Iterator, Sequence, Set
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial

import torch
from craft_protos.lora_strength import Strength

from craftd.worker.lora import blocks
from craftd.worker.lora.adapter import Adapter
from craftd.worker.lora.layers import AdaptedLayer, Column, Selection, Shared, Stack
from craftd.worker.lora.targets import Targets
from craftd.worker.models import memory
from craftd.worker.process.device import uploaded

SLOTS_A_ROW = (1, 2, 4)
_KEPT_BYTES = 256 << 20  # gathered for a batch and kept for its next step, at most


@dataclass(frozen=True)
class Use:
    """One LoRA of one row."""

    bucket: int
    slot: int
    strength: Strength
    filling: int  # tells what the slot holds from what it held before


@dataclass(frozen=True)
class Limits:
    """How much of a device LoRAs may hold."""

    slots: int = 32  # LoRAs of each rank bucket
    slots_bytes: int = 1 << 30
    gathered_bytes: int = 1 << 30  # for one model call, beside the slots

    @property
    def kept_bytes(self) -> int:
        return min(_KEPT_BYTES, self.gathered_bytes)


@dataclass(frozen=True)
class SlotBytes:
    """One slot of a bucket: in all of a component's layers, and in the largest."""

    whole: int
    largest: int


@dataclass(eq=False)
class Bucket:
    """The slots of one rank; slot 0 stays empty. Dictionaries are in order of use."""

    held: dict[str, int] = field(default_factory=dict)  # sha256 -> slot
    free: list[int] = field(default_factory=list)
    slots: int = 1


class Slots:
    """Owned by the engine's thread."""

    def __init__(self, targets: Targets, device: torch.device, limits: Limits) -> None:
        self._targets = targets
        self._device = device
        self._limits = limits
        self._buckets: dict[int, Bucket] = {}
        self._layers: dict[str, dict[str, AdaptedLayer]] = {name: {} for name in targets.components}
        self._touched: dict[tuple[int, int], dict[str, frozenset[str]]] = {}  # bucket, slot -> component -> layers
        self._where: dict[str, int] = {}  # sha256 -> bucket
        self._pins: Counter[str] = Counter()
        self._fillings: dict[tuple[int, int], int] = {}  # bucket, slot -> the number of what it holds
        self._numbers = itertools.count()
        self._selections: dict[str, Selection] = {}  # the last one of each component
        self._slot_bytes: dict[tuple[str, int], SlotBytes] = {}  # by component and bucket, once asked for

    @property
    def size_bytes(self) -> int:
        """The bytes of all slots, and of what is kept gathered for the next step."""
        return self._stacks_bytes + self._gathered_bytes

    @property
    def _stacks_bytes(self) -> int:
        return sum(layer.size_bytes for layer in self._all_layers())

    @property
    def _gathered_bytes(self) -> int:
        return sum(layer.gathered_bytes for layer in self._all_layers())

    def __contains__(self, sha256: str) -> bool:
        return sha256 in self._where

    def __len__(self) -> int:
        return len(self._where)

    def place(self, adapter: Adapter, kept: Set[str]) -> bool:
        """Copy a LoRA into a slot; False where all are taken by rows, or by what is in `kept`.

        Whoever runs out of memory here finds the slots as they were, but for an idle LoRA that may have left.
        """
        facts = adapter.facts
        assert facts.bucket is not None
        with memory.recognised():
            slot = self._room(facts.bucket, kept)
        if slot is None:
            return False
        try:
            with memory.recognised():
                self._fill(facts.bucket, slot, adapter)
        except memory.OUT_OF_MEMORY:
            self._buckets[facts.bucket].free.append(slot)
            raise
        self._buckets[facts.bucket].held[facts.sha256] = slot
        self._where[facts.sha256] = facts.bucket
        return True

    def pin(self, sha256: str, strength: Strength) -> Use:
        """Keep a LoRA in its slot for a row, until `unpin`."""
        bucket = self._where[sha256]
        held = self._buckets[bucket].held
        held[sha256] = held.pop(sha256)
        self._pins[sha256] += 1
        slot = held[sha256]
        return Use(bucket, slot, strength.lasting, self._fillings[bucket, slot])

    def unpin(self, sha256: str) -> None:
        self._pins[sha256] -= 1
        if not self._pins[sha256]:
            del self._pins[sha256]
        if not self._pins:
            self._forget_gathered()

    def fits(self, component: str, rows: Sequence[Sequence[Use]]) -> bool:
        """Whether what a call of these rows gathers keeps to its limit."""
        return self.call_bytes(component, rows) <= self._limits.gathered_bytes

    def call_bytes(self, component: str, rows: Sequence[Sequence[Use]]) -> int:
        """What a call of these rows gathers for each of them, at its worst moment: a layer's matrices are there twice.

        Nothing where all rows have the same LoRAs: they take them from the stacks, or share one row's.
        """
        if _are_same(rows):
            return 0
        whole = largest = 0
        for bucket in {use.bucket for row in rows for use in row}:
            slots, slot = len(rows) * _width(bucket, rows), self._bytes_of_slot(component, bucket)
            whole += slots * slot.whole
            largest += slots * slot.largest
        return whole + largest if whole + largest <= self._limits.kept_bytes else 2 * largest

    @contextmanager
    def applied(self, component: str, rows: Sequence[Sequence[Use]]) -> Iterator[None]:
        """While it holds, calls of the component are of these rows, in this order."""
        layers: list[AdaptedLayer] = []
        try:
            self._attach(layers, component, rows)
            yield
        finally:
            for layer in layers:
                layer.detach()

    def close(self) -> None:
        """Free everything."""
        self._layers.clear()
        self._buckets.clear()
        self._touched.clear()
        self._where.clear()
        self._selections.clear()
        self._slot_bytes.clear()

    def _all_layers(self) -> Iterator[AdaptedLayer]:
        return itertools.chain.from_iterable(layers.values() for layers in self._layers.values())

    def _forget_gathered(self) -> None:
        for layer in self._all_layers():
            layer.forget()

    def _bytes_of_slot(self, component: str, bucket: int) -> SlotBytes:
        found = self._slot_bytes.get((component, bucket))
        if found is None:
            stacks = [layer.stacks[bucket] for layer in self._layers[component].values() if bucket in layer.stacks]
            sizes = [stack.slot_bytes for stack in stacks]
            found = self._slot_bytes[component, bucket] = SlotBytes(sum(sizes), max(sizes, default=0))
        return found

    def _attach(self, attached: list[AdaptedLayer], component: str, rows: Sequence[Sequence[Use]]) -> None:
        """Records each layer in `attached` as it is patched, so that a failure half-way can be undone."""
        uses = {(use.bucket, use.slot) for row in rows for use in row}
        touched = set().union(*(self._touched[use].get(component, frozenset()) for use in uses))
        if not touched:
            return
        selection = self._select(component, rows, touched)
        for path in touched:
            attached.append(self._layers[component][path])
            attached[-1].attach(selection)

    def _select(self, component: str, rows: Sequence[Sequence[Use]], touched: Set[str]) -> Selection:
        key = tuple(map(tuple, rows))
        last = self._selections.get(component)
        if last is not None and last.key == key:
            return last
        for layer in self._layers[component].values():
            layer.forget()
        layers = [self._layers[component][path] for path in touched]
        selection = self._selection(key, rows, layers, is_text=blocks.is_text(component))
        self._selections[component] = selection
        return selection

    def _selection(
        self, key: Hashable, rows: Sequence[Sequence[Use]], layers: Sequence[AdaptedLayer], *, is_text: bool
    ) -> Selection:
        if _are_same(rows):
            shared = [Shared(use.bucket, use.slot, partial(use.strength.at, is_text=is_text)) for use in rows[0]]
            joined = sum(
                layer.stacks[one.bucket].slot_bytes for layer in layers for one in shared if one.bucket in layer.stacks
            )
            return Selection(key, [], shared, is_kept=len(shared) <= 1 or joined <= self._limits.kept_bytes)
        by_block = any(use.strength.blocks for row in rows for use in row)
        found = dict.fromkeys([None, *(layer.block for layer in layers)] if by_block else [None])
        columns = [
            _column(bucket, rows, self._device, list(found), is_text=is_text) for bucket in sorted(self._buckets)
        ]
        used = [column for column in columns if column is not None]
        gathered = [_gathered_bytes(layer, used) for layer in layers]
        return Selection(key, used, [], is_kept=sum(gathered) + max(gathered) <= self._limits.kept_bytes)

    def _room(self, rank: int, kept: Set[str]) -> int | None:
        """A free slot, or that of an idle LoRA which leaves it; None where all are in use."""
        bucket = self._buckets.setdefault(rank, Bucket())
        if bucket.free:
            return bucket.free.pop()
        idle = next((sha256 for sha256 in bucket.held if sha256 not in self._pins and sha256 not in kept), None)
        if bucket.slots <= self._limits.slots and (idle is None or self._may_double):
            self._grow(rank, bucket)
            return bucket.free.pop()
        if idle is None:
            return None
        del self._where[idle]
        return bucket.held.pop(idle)

    @property
    def _may_double(self) -> bool:
        return 2 * self._stacks_bytes + self._gathered_bytes <= self._limits.slots_bytes

    def _grow(self, rank: int, bucket: Bucket) -> None:
        """Doubles the slots, so that few copies are made; where memory is short, adds just the one that is needed."""
        twice = max(2, (bucket.slots - 1) * 2 + 1)
        slots = min(twice if self._may_double else bucket.slots + 1, self._limits.slots + 1)
        for layer in self._all_layers():
            if rank in layer.stacks:
                layer.stacks[rank].grow(slots)
        bucket.free += reversed(range(bucket.slots, slots))
        bucket.slots = slots

    def _fill(self, rank: int, slot: int, adapter: Adapter) -> None:
        self._fillings[rank, slot] = next(self._numbers)
        for component, deltas in adapter.deltas.items():
            for path, delta in deltas.items():
                self._have_stack(component, path, rank, delta.block)
        touched = {component: frozenset(deltas) for component, deltas in adapter.deltas.items()}
        for component, paths in self._touched.get((rank, slot), {}).items():
            for path in paths - touched.get(component, frozenset()):
                self._layers[component][path].stacks[rank].clear(slot)
        self._touched[rank, slot] = touched
        for component, deltas in adapter.deltas.items():
            for path, delta in deltas.items():
                self._layers[component][path].stacks[rank].put(slot, delta)

    def _have_stack(self, component: str, path: str, rank: int, block: int | None) -> None:
        own = self._targets.layers[component][path]
        layer = self._layers[component].setdefault(path, AdaptedLayer(own, block))
        if rank not in layer.stacks:
            layer.stacks[rank] = Stack(own, rank, self._buckets[rank].slots, self._device)
            self._slot_bytes.pop((component, rank), None)


def _column(
    bucket: int, rows: Sequence[Sequence[Use]], device: torch.device, found: Sequence[int | None], *, is_text: bool
) -> Column | None:
    """K is what the row with the most needs, rounded up; None where no row uses the bucket. `found`: the blocks."""
    uses = [[use for use in row if use.bucket == bucket] for row in rows]
    width = _width(bucket, rows)
    if not width:
        return None
    slots = [[use.slot for use in row] + [0] * (width - len(row)) for row in uses]
    weights = [
        [[use.strength.at(block, is_text=is_text) for use in row] + [0.0] * (width - len(row)) for row in uses]
        for block in found
    ]
    places = {block: place for place, block in enumerate(found)}
    return Column(bucket, uploaded(torch.tensor(slots), device), uploaded(torch.tensor(weights), device), places)


def _width(bucket: int, rows: Sequence[Sequence[Use]]) -> int:
    most = max(sum(use.bucket == bucket for use in row) for row in rows)
    return next(count for count in (0, *SLOTS_A_ROW) if most <= count)


def _are_same(rows: Sequence[Sequence[Use]]) -> bool:
    return all(row == rows[0] for row in rows)


def _gathered_bytes(layer: AdaptedLayer, columns: Sequence[Column]) -> int:
    return sum(
        layer.stacks[column.bucket].slot_bytes * column.slots.numel()
        for column in columns
        if column.bucket in layer.stacks
    )
