"""Image-to-image against diffusers' own pipeline, and rows of all kinds in one batch against one after another.

    python -m benchmarks.image_to_image [MODEL_FOLDER] [--device cpu] [--threads N] [--steps N] [--rounds N]

As `engine_throughput` has it, both sides are warm, take turns and have as many threads, and the worker's time ends
with the image's file. Each round has a prompt and a start picture of its own, which both sides read and encode.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import socket
import sys
import tempfile
from collections.abc import Sequence
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
from craft_protos import frames, jobs_pb2
from craft_protos.worker_pb2 import Dispatch, File, FromWorker, ModelManifest, ToWorker
from PIL import Image, ImageDraw

from benchmarks import figures, workers
from benchmarks.figures import Figure
from benchmarks.workers import POCKET, seconds

GUIDANCE = 5.0
STRENGTH = 0.6
MIXED = (None, None, None, 0.3, 0.5, 0.7, 0.9, "mask")  # text, strengths, inpainting


def main() -> int:
    asked = _parse()
    with tempfile.TemporaryDirectory() as stored:
        files = Path(stored)
        manifest = workers.manifest(asked.folder, files)
        with workers.running(files, device=asked.device, threads=asked.threads) as sock:
            pipe = _over_pictures(workers.pipeline(asked.folder, device=asked.device, threads=asked.threads))
            craft = Craft(sock, manifest, files, _side(pipe), asked.steps)
            print(f"{manifest.name}: {asked.steps} steps, {asked.device}, {asked.threads or 'default'} threads")
            return figures.tell([_one(craft, pipe, asked.rounds), _many(craft, asked.rounds)])


class Craft:
    """A worker's client; whatever it asks for, it asks for the first time."""

    def __init__(self, sock: socket.socket, model: ModelManifest, files: Path, side: int, steps: int) -> None:
        self._sock, self._model, self._files = sock, model, files
        self.side, self.steps = side, steps
        self._asked = count(1000)

    def draw(self, jobs: Sequence[ToWorker]) -> None:
        """All at once, until the last is done."""
        self._sock.sendall(b"".join(frames.encode(job) for job in jobs))
        left = len(jobs)
        while left:
            frame = frames.receive(self._sock, FromWorker)
            assert frame is not None, "the worker ended"
            assert not frame.HasField("failed"), frame.failed
            left -= frame.HasField("done")

    def over(self, i: int, strength: float = STRENGTH) -> ToWorker:
        return self._job(i, [self._stored(picture(i, self.side))], strength)

    def mixed(self) -> list[ToWorker]:
        """Jobs of all kinds, over pictures of their own."""
        return [self._of_kind(kind, next(self._asked)) for kind in MIXED]

    def _of_kind(self, kind: float | str | None, i: int) -> ToWorker:
        if kind is None:
            return self._job(i, [])
        if isinstance(kind, float):
            return self.over(i, kind)
        return self._job(i, [self._stored(each) for each in (picture(i, self.side), _mask(self.side))], STRENGTH)

    def _job(self, i: int, inputs: list[File], strength: float = 0.0) -> ToWorker:
        spec = jobs_pb2.GenerateSpec(
            prompt=_prompt(i), steps=self.steps, guidance_scale=GUIDANCE, seed=i, width=self.side, height=self.side
        )
        if inputs:
            start = jobs_pb2.Start(sha256=inputs[0].sha256, strength=strength, fit=jobs_pb2.FIT_CROP)
            spec.start.CopyFrom(start)
        if len(inputs) > 1:
            spec.mask.CopyFrom(jobs_pb2.Mask(sha256=inputs[1].sha256, blur=4.0))
        sent = Dispatch(job_id=f"job{i}", generate=spec, indices=[0], model=self._model, provenance="{}")
        sent.inputs.extend(inputs)
        return ToWorker(dispatch=sent)

    def _stored(self, image: Image.Image) -> File:
        out = io.BytesIO()
        image.save(out, format="PNG")
        sha256 = hashlib.sha256(out.getvalue()).hexdigest()
        (self._files / sha256).write_bytes(out.getvalue())
        return File(sha256=sha256, size_bytes=len(out.getvalue()))


def _one(craft: Craft, pipe: Any, rounds: int) -> Figure:
    """One picture: craft's time by diffusers', of the same start, prompt, seed, steps and strength."""
    import torch

    def theirs(i: int) -> None:
        generator = torch.Generator("cpu").manual_seed(i)
        call = {"num_inference_steps": craft.steps, "guidance_scale": GUIDANCE, "strength": STRENGTH}
        pipe(_prompt(i), image=picture(i, craft.side), generator=generator, **call)

    def ratio(i: int) -> float:
        job = craft.over(i)
        return seconds(lambda: craft.draw([job])) / seconds(lambda: theirs(i))

    ratios = [ratio(i) for i in range(rounds + 2)][2:]  # the first load and warm up
    claim = f"image-to-image, strength {STRENGTH:g}, one picture, engine alone"
    return figures.of_rounds(claim, "AutoPipelineForImage2Image", ratios, at_most=1.03)


def _many(craft: Craft, rounds: int) -> Figure:
    """Rows of all kinds: their time one by one by that at once."""

    def one_by_one(jobs: Sequence[ToWorker]) -> None:
        for job in jobs:
            craft.draw([job])

    def ratio() -> float:
        alone, together = craft.mixed(), craft.mixed()
        return seconds(lambda: one_by_one(alone)) / seconds(lambda: craft.draw(together))

    ratios = [ratio() for _ in range(rounds + 1)][1:]
    claim = f"{len(MIXED)} at once (text, starts of four strengths, a mask), pictures per second"
    return figures.of_rounds(claim, "the same, one by one", ratios, at_least=2.0)


def _over_pictures(pipe: Any) -> Any:
    from diffusers import AutoPipelineForImage2Image

    over = AutoPipelineForImage2Image.from_pipe(pipe)
    over.set_progress_bar_config(disable=True)
    return over


def _side(pipe: Any) -> int:
    """The model's own size, in pixels."""
    return int(pipe.unet.config.sample_size) * int(pipe.vae_scale_factor)


def picture(i: int, side: int) -> Image.Image:
    """Smooth random colours."""
    coarse = np.random.default_rng(i).integers(0, 255, (4, 4, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize((side, side), Image.Resampling.BICUBIC)


def _mask(side: int) -> Image.Image:
    """White in the middle."""
    mask = Image.new("L", (side, side))
    ImageDraw.Draw(mask).rectangle((side // 4, side // 4, side * 3 // 4, side * 3 // 4), fill=255)
    return mask


def _prompt(i: int) -> str:
    return f"a red apple, number {i}"


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "folder", nargs="?", type=Path, default=POCKET, help="a diffusers folder with a UNet; else pocket"
    )
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=0, help="0: torch's own choice")
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--rounds", type=int, default=7)
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
