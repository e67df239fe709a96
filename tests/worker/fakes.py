"""An engine without a device: a runner that fails on demand, and the frames that come of it."""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from craft_protos.dispatch import Dispatch, ModelManifest
from craft_protos.generate import GenerateSpec
from craft_protos.provenance import AppliedLora
from craft_protos.reasons import CraftError
from craft_protos.worker_pb2 import FromWorker
from craftd.worker.engine.engine import Engine
from craftd.worker.engine.progress_hooks import ProgressHooks
from craftd.worker.engine.row import Drawing
from craftd.worker.engine.stages import Before
from craftd.worker.models.memory import Need
from craftd.worker.models.model_cache import ModelCache
from craftd.worker.output.finisher import Finisher
from craftd.worker.output.picture import Pixels
from craftd.worker.process.device import Device
from craftd.worker.process.inbox import Inbox
from craftd.worker.process.reporter import Reporter
from craftd.worker.training.run import TrainingContext, TrainingRun
from craftd.worker.training.trainings import Trainings

from tests.home import HANG_S

CPU = Device(torch.device("cpu"), "fake", 1 << 30, "fp32")


def manifest(name: str = "fake") -> ModelManifest:
    return ModelManifest(name, "sd", "StableDiffusionPipeline", f"{name}-sha")


def draw(job_id: str = "job", *, epoch: int = 1, model: ModelManifest | None = None, **changes: Any) -> Dispatch:
    """A job of one image and three steps."""
    spec = GenerateSpec("", "", "", width=8, height=8, steps=3, guidance_scale=1.0, seed=0, count=1, sampler="")
    of_dispatch = {name: changes.pop(name) for name in ("indices", "priority", "owner") if name in changes}
    return Dispatch(job_id, epoch, replace(spec, **changes), model or manifest(), **{"indices": (0,), **of_dispatch})


@dataclass(eq=False)
class FakeDrawing:
    """Counts its steps."""

    job: Dispatch
    step: int = 0
    is_closed: bool = False
    scheduler_name: str = "FakeScheduler"
    loras: tuple[AppliedLora, ...] = ()

    @property
    def group(self) -> Hashable:
        return (self.job.drawing.width, self.job.drawing.height)

    @property
    def cost(self) -> int:
        return self.job.drawing.width * self.job.drawing.height

    @property
    def of(self) -> int:
        return self.job.drawing.steps

    @property
    def is_done(self) -> bool:
        return self.step == self.of

    def preview(self) -> bytes:
        return b""

    def finished(self, pixels: Pixels) -> Pixels:
        return pixels

    def close(self) -> None:
        self.is_closed = True


@dataclass
class FakeRunner:
    """`trouble` is asked before each call with the jobs' ids and what is being done; it raises, or does not."""

    trouble: Callable[[str, list[str]], None] = lambda _doing, _jobs: None
    can_offload: bool = False
    can_tile: bool = True
    resident_bytes: int = 100
    precision: str = "fp32"
    weights: str = ""
    notice: str = ""
    is_tiled: bool = False
    is_offloaded: bool = False
    is_reading: bool = False
    pipe: object = None
    batches: list[list[str]] = field(default_factory=list)

    def remarks(self, job: Dispatch) -> Sequence[str]:
        return ()

    def want(self, jobs: Sequence[Dispatch]) -> dict[str, CraftError]:
        return {}

    def is_ready(self, job: Dispatch) -> bool:
        return True

    def begin(
        self, job: Dispatch, seed: int, _networks: Mapping[str, object], made: Before | None = None
    ) -> FakeDrawing:
        self.trouble("begin", [job.job_id])
        return FakeDrawing(job)

    def that_fit(self, drawings: Sequence[Drawing]) -> int:
        return len(drawings)

    def advance(self, drawings: Sequence[Drawing], *, with_preview: Sequence[bool]) -> list[Exception | None]:
        fakes = [drawing for drawing in drawings if isinstance(drawing, FakeDrawing)]
        jobs = [fake.job.job_id for fake in fakes]
        self.trouble("advance", jobs)
        self.batches.append(jobs)
        for fake in fakes:
            fake.step += 1
        return [None] * len(fakes)

    def render(self, drawings: Sequence[Drawing]) -> list[Pixels]:
        self.trouble("render", [d.job.job_id for d in drawings if isinstance(d, FakeDrawing)])
        return [np.zeros((8, 8, 3), np.uint8) for _ in drawings]

    def offload(self) -> bool:
        has_come_down = self.can_offload and not self.is_offloaded
        self.is_offloaded = self.can_offload
        return has_come_down

    def tile(self) -> bool:
        self.is_tiled = self.can_tile
        return self.can_tile

    def close(self) -> None:
        pass


class Studio:
    """An engine, its inbox, and every frame that it sent."""

    def __init__(
        self,
        runners: Mapping[str, Any],
        *,
        max_rows: int = 8,
        budget_bytes: int = 1000,
        warnings: tuple[str, ...] = (),
        work_folder: Path = Path(),
        begin: Callable[[Dispatch, TrainingContext], Any] = TrainingRun,
        device: Device = CPU,
    ) -> None:
        self.frames: list[FromWorker] = []
        self.inbox = Inbox()
        self.now = 0.0
        reporter = Reporter(self, warnings)
        self.cache = ModelCache(
            lambda wanted, _done: runners[wanted.name],
            lambda wanted: Need(runners[wanted.name].resident_bytes),
            budget_bytes,
            reporter,
            self.inbox.post,
        )
        finisher = Finisher(device, self.inbox.post)
        context = TrainingContext(work_folder, work_folder, CPU, ProgressHooks(), reporter, lambda: self.now)
        self.trainings = Trainings(context, self.cache, begin)
        self.engine = Engine(self.cache, finisher, reporter, self.trainings, max_rows=max_rows, clock=lambda: self.now)

    def send(self, frame: FromWorker) -> None:
        """As a channel does."""
        self.frames.append(frame)

    def turn(self) -> None:
        """What the loop does once."""
        waiting = self.inbox.waiting() if self.engine.can_step else self.inbox.wait(5.0)
        for mail in waiting:
            self.engine.handle(mail)
        self.engine.tick()

    def run(self, *jobs: Dispatch, seconds_per_turn: float = 0.0) -> None:
        """Until nothing is left to do."""
        for job in jobs:
            self.engine.handle(job)
        self.engine.tick()
        deadline = time.monotonic() + HANG_S
        while self.engine.doing != "idle":
            assert time.monotonic() < deadline, f"still {self.engine.doing}"
            self.now += seconds_per_turn
            self.turn()

    def ended(self) -> dict[str, str]:
        """How each job ended: "done", "cancelled", or the reason it failed for."""
        how: dict[str, str] = {}
        for frame in self.frames:
            if frame.HasField("done"):
                how[frame.done.job_id] = "cancelled" if frame.done.cancelled else "done"
            if frame.HasField("failed"):
                how[frame.failed.job_id] = frame.failed.error.reason
        return how

    def kinds(self, kind: str) -> list[FromWorker]:
        return [frame for frame in self.frames if frame.WhichOneof("frame") == kind]
