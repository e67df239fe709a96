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
from craft_protos.dispatch import Dispatch, File, ModelManifest
from craft_protos.reasons import CraftError
from craft_protos.train import Picture, TrainSpec
from craft_protos.worker_pb2 import FromWorker
from craftd.worker.engine.progress_hooks import ProgressHooks
from craftd.worker.process.device import Device
from craftd.worker.process.reporter import Reporter
from craftd.worker.training import trainable
from craftd.worker.training.run import TrainingContext, TrainingRun
from PIL import Image
from torch.nn import functional

CPU = Device(torch.device("cpu"), "test", 1 << 30, "fp32")
SIDE = 64
PLAIN = TrainSpec(
    name="mine",
    model="",
    dataset="",
    epochs=1,
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


def put(files: Path, image: Image.Image, caption: str = "", **how: Any) -> Picture:
    """Save it into the store."""
    out = io.BytesIO()
    image.save(out, **({"format": "PNG"} | how))
    sha256 = hashlib.sha256(out.getvalue()).hexdigest()
    (files / sha256).write_bytes(out.getvalue())
    return Picture(f"{sha256[:6]}.png", sha256, len(out.getvalue()), image.width, image.height, caption)


def from_checkpoint(train: Dispatch, checkpoint: FromWorker.Checkpoint) -> Dispatch:
    """The same training, from its checkpoint on."""
    return replace(train, files=(File("checkpoint", checkpoint.sha256, checkpoint.size_bytes),))


def ask(
    files: Path, kind: str = "sd", sizes: Sequence[tuple[int, int]] = ((SIDE, SIDE),) * 3, **changes: Any
) -> Dispatch:
    """A short training; every second picture has a caption of its own."""
    pictures = [put(files, photo(i, *size), "a dog" if i % 2 else "") for i, size in enumerate(sizes)]
    model = ModelManifest(kind, sha256=f"{kind}-sha")
    return Dispatch("job", 1, replace(PLAIN, **changes), model, pictures=tuple(pictures))


def with_masks(files: Path, train: Dispatch, *, are_files: bool) -> Dispatch:
    """The first picture comes twice an epoch and has a mask, the last has none."""
    mask = photo(90).getchannel("G")
    first, *rest = train.pictures
    if are_files:
        stored = put(files, Image.merge("RGB", (mask, mask, mask)))
        first = replace(first, mask_sha256=stored.sha256, mask_bytes=stored.size_bytes)
    else:
        shown = photo(0)
        shown.putalpha(mask)
        first = put(files, shown, first.caption)
    return replace(train, pictures=(replace(first, repeats=2), *rest))


def kohyas_masks(files: Path, train: Dispatch, size: torch.Size) -> list[torch.Tensor]:
    """kohya's: a file's first channel, or the picture's own alpha, else ones; made as large as latents by area."""
    found = []
    for one in train.pictures:
        mask = Image.open(files / (one.mask_sha256 or one.sha256))
        band = mask.getchannel("R") if one.mask_sha256 else mask.convert("RGBA").getchannel("A")
        weights = torch.from_numpy(np.asarray(band, np.float32) / 255)[None, None]
        is_masked = one.mask_sha256 or train.training.alpha_mask
        found.append(functional.interpolate(weights if is_masked else torch.ones_like(weights), size, mode="area"))
    return found


class Desk:
    """What a training run works with, and the frames that it sends."""

    def __init__(self, files: Path, work_folder: Path) -> None:
        self.files = files
        self.frames: list[FromWorker] = []
        self._context = TrainingContext(files, work_folder, CPU, ProgressHooks(), Reporter(self), time.monotonic)  # type: ignore[arg-type]

    def send(self, frame: FromWorker) -> None:
        """As a channel does."""
        self.frames.append(frame)

    def run(self, train: Dispatch) -> TrainingRun:
        return TrainingRun(train, self._context)

    def begin(self, train: Dispatch, pipe: Any) -> TrainingRun:
        """Attached to a model that is loaded, as a worker has it: with a family over it."""
        if trainable.architecture_of(pipe).training:
            trainable.family_of(pipe, CPU.place)
        run = self.run(train)
        run.attach(pipe)
        return run

    def train(self, train: Dispatch, pipe: Any) -> FromWorker.LoraMade:
        """From its beginning, or its checkpoint, to its end."""
        run = self.begin(train, pipe)
        while not run.turn():
            pass
        run.close()
        (made,) = self.of("lora")[-1:]
        return made

    def of(self, kind: str) -> list[Any]:
        return [getattr(frame, kind) for frame in self.frames if frame.WhichOneof("frame") == kind]

    @property
    def losses(self) -> list[float]:
        return [frame.step.loss for frame in self.of("training")]


def turns(run: TrainingRun) -> Iterator[int]:
    """Its pieces of work, counted, while there are any."""
    count = 0
    while not run.turn():
        count += 1
        yield count


def refusal(desk: Desk, train: Dispatch, pipe: Any) -> CraftError:
    """Why it cannot be trained."""
    with pytest.raises(CraftError) as raised:
        desk.train(train, pipe)
    return raised.value
