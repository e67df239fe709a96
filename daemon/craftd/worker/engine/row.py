"""A request row: one image of one job, on its way."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Protocol

from craft_protos.dispatch import Dispatch
from craft_protos.provenance import AppliedLora

from craftd.worker.engine import stages
from craftd.worker.engine.stages import Before, HalfDone, Made, Stage
from craftd.worker.output.picture import Pixels
from craftd.worker.output.provenance import Circumstances


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
    place: int = 0  # of its present stage among all
    steps_before: int = 0  # of stages that are done
    made: Before | None = None  # what the stage before has made
    how: Circumstances | None = None  # of its first stage, once that is done
    applied: Sequence[AppliedLora] = ()  # LoRAs of its first stage, then

    @cached_property
    def stages(self) -> tuple[Stage, ...]:
        return stages.of(self.job)

    @property
    def stage(self) -> Stage:
        return self.stages[self.place]

    @property
    def asked(self) -> Dispatch:
        """The job, as the model of its present stage is asked for it."""
        return self.stage.asked

    @property
    def own(self) -> Dispatch:
        """The same, with this image's own prompts."""
        asked, spec = self.asked, self.asked.drawing.of_image(self.index)
        return asked if spec is asked.drawing else replace(asked, spec=spec)

    @property
    def is_last(self) -> bool:
        """No stage comes after the present one."""
        return self.place == len(self.stages) - 1

    @property
    def step(self) -> int:
        return self.steps_before + self.drawn.step

    @property
    def of(self) -> int:
        """Steps of all stages, as far as they are known."""
        return self.steps_before + self.drawn.of + sum(one.steps for one in self.stages[self.place + 1 :])

    def go_on(self, made: Pixels | HalfDone, steps: int) -> None:
        """Its present stage has made that in so many steps; the next one begins with it."""
        self.steps_before += steps
        self.made = made if isinstance(made, HalfDone) else Made(made, self.stage.size_of_next)
        self.place += 1

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
        return (self.asked.model.key, self.drawn.group, alone)

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
