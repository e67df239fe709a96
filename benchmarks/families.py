"""Each first-class architecture's engine is timed against diffusers' own pipeline, for one picture.

    python -m benchmarks.families [KIND...] [--wide] [--threads N] [--steps N] [--rounds N] [--side N]

Random models: tiny ones, or with --wide one block of each kind in the published width. Each round has a prompt of its
own, so that both sides read it. As `engine_throughput` has it, the worker's time includes its PNG.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from itertools import count
from pathlib import Path
from typing import Any

from craft_protos import jobs_pb2
from craft_protos.worker_pb2 import Dispatch, ModelManifest, ToWorker

from benchmarks import figures, random_models, workers
from benchmarks.engine_throughput import Measurement
from benchmarks.figures import Figure

KINDS = ("sd", "sdxl", "sd3", "flux", "z-image", "flux2", "qwen-image", "krea2")
WIDE = ("z-image", "flux2", "qwen-image", "krea2")
GUIDANCE = 4.0


class OnePicture(Measurement):
    """Rounds of one picture, each of another prompt."""

    def __init__(self, sock: Any, manifest: ModelManifest, pipe: Any, asked: argparse.Namespace) -> None:
        self._sock, self._manifest, self._pipe = sock, manifest, pipe
        self._steps, self._rounds = asked.steps, asked.rounds
        self._size = {"width": asked.side, "height": asked.side}
        self._ours, self._theirs = count(), count()

    def one(self) -> None:
        self._draw(1)

    def pipe_one(self) -> None:
        import torch

        call: dict[str, Any] = {"guidance_scale": GUIDANCE}
        if type(self._pipe).__name__ == "QwenImagePipeline":
            call = {"true_cfg_scale": GUIDANCE, "negative_prompt": " "}
        generator = torch.Generator("cpu").manual_seed(1)
        prompt = _prompt(next(self._theirs))
        self._pipe(prompt=prompt, num_inference_steps=self._steps, generator=generator, **call, **self._size)

    def _submit(self, i: int) -> ToWorker:
        spec = jobs_pb2.GenerateSpec(
            prompt=_prompt(next(self._ours)), steps=self._steps, guidance_scale=GUIDANCE, seed=1, **self._size
        )
        return ToWorker(
            dispatch=Dispatch(job_id=f"job{i}", generate=spec, indices=[0], model=self._manifest, provenance="{}")
        )


def main() -> int:
    asked = _parse()
    return figures.tell([_measured(kind, asked) for kind in asked.kinds or (WIDE if asked.wide else KINDS)])


def _measured(kind: str, asked: argparse.Namespace) -> Figure:
    folder = random_models.wide(kind) if asked.wide else _tiny(kind)
    with tempfile.TemporaryDirectory() as files:
        manifest = workers.manifest(folder, Path(files))
        with workers.running(Path(files), device="cpu", threads=asked.threads) as sock:
            pipe = workers.pipeline(folder, device="cpu", threads=asked.threads)
            measure = OnePicture(sock, manifest, pipe, asked)
            what = f"{kind}, {'one block, full width' if asked.wide else 'tiny'}, one picture"
            return measure.ratio(what, "the pipeline", measure.one, measure.pipe_one, at_most=1.03)


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kinds", nargs="*", help=f"of {', '.join(KINDS)}; all if left out")
    parser.add_argument("--wide", action="store_true")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--side", type=int, default=128)
    return parser.parse_args()


def _prompt(i: int) -> str:
    return f"a red apple, number {i}, on a table"


def _tiny(kind: str) -> Path:
    from tests import tiny_models

    return tiny_models.cached(kind)


if __name__ == "__main__":
    sys.exit(main())
