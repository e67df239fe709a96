"""Trainings of tiny models, in this process: what is asked for, and every frame that came of it."""

from __future__ import annotations

import hashlib
import io
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from craft_protos.reasons import CraftError
from craft_protos.worker_pb2 import FromWorker
from craftd.worker.device import Device
from craftd.worker.loader import FAMILIES
from craftd.worker.messages import Manifest, Train
from craftd.worker.movement import Movement
from craftd.worker.reporter import Reporter
from craftd.worker.training import trainable
from craftd.worker.training.recipe import Recipe, TrainPicture
from craftd.worker.training.session import Session, Workshop
from PIL import Image

CPU = Device(torch.device("cpu"), "test", 1 << 30, "fp32")
SIDE = 64
PLAIN = Recipe(
    name="mine",
    trigger="a red cat",
    rank=4,
    alpha=4.0,
    steps=4,
    learning_rate=1e-3,
    batch_size=2,
    gradient_accumulation=1,
    resolution=SIDE,
    seed=5,
)


def photo(seed: int, width: int = SIDE, height: int = SIDE) -> Image.Image:
    """Smooth random colours."""
    coarse = np.random.default_rng(seed).integers(0, 255, (4, 4, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)


def put(files: Path, image: Image.Image, caption: str = "", **how: Any) -> TrainPicture:
    """Save it into the store."""
    out = io.BytesIO()
    image.save(out, **({"format": "PNG"} | how))
    sha256 = hashlib.sha256(out.getvalue()).hexdigest()
    (files / sha256).write_bytes(out.getvalue())
    return TrainPicture(sha256, f"{sha256[:6]}.png", image.width, image.height, caption)


def ask(files: Path, kind: str = "sd", sizes: Sequence[tuple[int, int]] = ((SIDE, SIDE),) * 3, **changes: Any) -> Train:
    """A short training; every second picture has a caption of its own."""
    pictures = [put(files, photo(i, *size), "a dog" if i % 2 else "") for i, size in enumerate(sizes)]
    model = Manifest(kind, "", "", f"{kind}-sha", ())
    return Train("job", 1, model, replace(PLAIN, **changes), tuple(pictures))


class Desk:
    """A session's surroundings."""

    def __init__(self, files: Path, workplace: Path) -> None:
        self.files = files
        self.frames: list[FromWorker] = []
        self._shop = Workshop(files, workplace, CPU, Movement(), Reporter(self), time.monotonic)  # type: ignore[arg-type]

    def send(self, frame: FromWorker) -> None:
        """As a channel does."""
        self.frames.append(frame)

    def session(self, train: Train) -> Session:
        return Session(train, self._shop)

    def begin(self, train: Train, pipe: Any) -> Session:
        """Attached to a model that is loaded, as a worker has it: with a family over it."""
        if type(pipe).__name__ in FAMILIES:
            trainable.family_of(pipe, CPU.place)
        session = self.session(train)
        session.attach(pipe)
        return session

    def train(self, train: Train, pipe: Any) -> FromWorker.LoraMade:
        """From its beginning, or its checkpoint, to its end."""
        session = self.begin(train, pipe)
        while not session.turn():
            pass
        session.close()
        (made,) = self.of("lora")[-1:]
        return made

    def of(self, kind: str) -> list[Any]:
        return [getattr(frame, kind) for frame in self.frames if frame.WhichOneof("frame") == kind]

    @property
    def losses(self) -> list[float]:
        return [frame.step.loss for frame in self.of("training")]


def turns(session: Session) -> Iterator[int]:
    """Its pieces of work, counted, while there are any."""
    count = 0
    while not session.turn():
        count += 1
        yield count


def refusal(desk: Desk, train: Train, pipe: Any) -> CraftError:
    """Why it cannot be trained."""
    with pytest.raises(CraftError) as raised:
        desk.train(train, pipe)
    return raised.value
