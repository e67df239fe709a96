"""A request row: one image of one job, on its way."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Protocol

from craft_protos.dispatch import Dispatch
from craft_protos.provenance import AppliedLora

from craftd.worker.output.picture import Pixels


class Drawing(Protocol):
    """One image half done, as its model's runner keeps it."""

    @property
    def group(self) -> Hashable:
        """Drawings of equal groups can share a model call."""
        ...

    @property
    def cost(self) -> int:
        """Pixels a model call computes for it; twice the image's with guidance."""
        ...

    @property
    def step(self) -> int:
        """Steps done, as the user counts them."""
        ...

    @property
    def of(self) -> int: ...

    @property
    def is_done(self) -> bool: ...

    @property
    def scheduler_name(self) -> str: ...

    @property
    def loras(self) -> Sequence[AppliedLora]:
        """The LoRAs that it is drawn with."""
        ...

    def preview(self) -> bytes:
        """A small JPEG of how it looks now; empty where that cannot be seen."""
        ...

    def finished(self, pixels: Pixels) -> Pixels:
        """The picture that was asked for, of the pixels that were drawn for it. Called in any thread."""
        ...

    def close(self) -> None:
        """Release what it holds of its model."""
        ...


@dataclass(eq=False)
class AsItIs:
    """A picture of which nothing is drawn anew: done as it begins."""

    pixels: Pixels
    scheduler_name: str
    cost: int = 0
    step: int = 0
    of: int = 0
    is_done: bool = True
    loras: Sequence[AppliedLora] = ()

    @property
    def group(self) -> Hashable:
        return self

    def preview(self) -> bytes:
        return b""

    def finished(self, pixels: Pixels) -> Pixels:
        return pixels

    def close(self) -> None:
        """It holds nothing."""


@dataclass(eq=False)
class Row:
    """One image of a job, from the queue to its file; owned by the engine."""

    job: Dispatch
    index: int
    order: int  # of submission, over all rows
    drawing: Drawing | None = None
    last_tick: int = -1
    batch: int = 1
    admitted_at: float = 0.0
    load_s: float = 0.0
    reported_at: float = 0.0
    reported_step: int = 0

    @property
    def drawn(self) -> Drawing:
        """Its drawing, once it has been admitted."""
        assert self.drawing is not None
        return self.drawing

    @property
    def seed(self) -> int:
        return self.job.drawing.seed + self.index

    @property
    def group(self) -> Hashable:
        alone = self if self.job.drawing.deterministic else None
        return (self.job.model.key, self.drawn.group, alone)

    @property
    def cost(self) -> int:
        return self.drawn.cost


@dataclass
class Job:
    """One job's unfinished images; owned by the engine."""

    draw: Dispatch
    left: set[int]
    preview_every: int
    submitted_at: float
    waited_for_load: bool = False
    is_started: bool = False
