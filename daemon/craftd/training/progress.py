"""How far a training is: its losses, its checkpoint, its samples."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True)
class Step:
    """One optimizer step, counted from 1."""

    step: int
    of: int
    loss: float
    learning_rate: float
    seconds_left: float = 0.0
    validation_loss: float | None = None  # of pictures that are not learned from


@dataclass(frozen=True)
class Sample:
    step: int
    place: int  # among those of the step
    prompt: str
    seed: int
    media_type: str
    file: str  # its name in the job's folder


@dataclass(frozen=True)
class Checkpoint:
    step: int = 0  # 0: none
    sha256: str = ""
    size_bytes: int = 0


@dataclass(frozen=True)
class Record:
    """What is stored of a training beside its losses and samples."""

    checkpoint: Checkpoint = Checkpoint()
    made_sha256: str = ""  # the finished LoRA's file, while it is not registered
    lora: str = ""


@dataclass(frozen=True)
class Log:
    """All that is known of a training."""

    record: Record = Record()
    steps: tuple[Step, ...] = ()
    samples: tuple[tuple[Sample, Path], ...] = ()


@dataclass
class TrainingProgress:
    """An unfinished training in the daemon's memory; the rows follow at each checkpoint."""

    made_sha256: str | None = None  # the finished LoRA's file; "": there is none yet; None: not looked up yet
    unsaved: dict[int, Step] = field(default_factory=dict)  # steps after the last checkpoint
    last: Step | None = None
    died_at: int = 0  # the step that it had reached when a worker died

    def add(self, step: Step) -> None:
        self.unsaved[step.step] = step
        self.last = step

    def rewind(self) -> None:
        """The worker is gone: what came after the checkpoint will come again."""
        self.died_at = max(self.died_at, self.last.step if self.last else 0)
        self.unsaved.clear()
        self.last = None

    @property
    def is_past_its_death(self) -> bool:
        return self.last is not None and self.last.step > self.died_at

    def take_steps(self, until: int | None = None) -> list[Step]:
        """Those to be stored: up to a checkpoint's, or all."""
        taken = [step for number, step in self.unsaved.items() if until is None or number <= until]
        for step in taken:
            del self.unsaved[step.step]
        return taken
