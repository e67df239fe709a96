"""What craft's engine costs against diffusers itself: one picture, and eight at once.

    python -m benchmarks.engine_throughput [MODEL_FOLDER] [--device cpu] [--threads N] [--steps N] [--rounds N]

Prints three ratios, each the median of rounds in which both sides take turns, with the span of
the middle half. Both sides compute in the same precision with as many threads; the worker's time
is from the first byte sent to the last image's file received, so it includes PNG encoding, which
diffusers' does not.
"""

from __future__ import annotations

import argparse
import socket
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from craft_protos import frames, jobs_pb2
from craft_protos.worker_pb2 import Dispatch, FromWorker, ModelManifest, ToWorker

from benchmarks import figures, workers
from benchmarks.figures import Figure
from benchmarks.workers import POCKET, seconds

AT_ONCE = 8
MANY = f"{AT_ONCE} pictures at once, engine alone, pictures per second"
COLOURS = ("red", "green", "blue", "yellow", "white", "black", "pink", "brown")
GUIDANCE = 5.0


def main() -> int:
    asked = _parse()
    folder = asked.folder or (POCKET if (POCKET / "model_index.json").exists() else _random_model())
    with tempfile.TemporaryDirectory() as files:
        manifest = workers.manifest(folder, Path(files))
        with workers.running(Path(files), device=asked.device, threads=asked.threads) as sock:
            pipe = workers.pipeline(folder, device=asked.device, threads=asked.threads)
            measure = Measurement(sock, manifest, pipe, asked)
            print(f"{manifest.name}: {asked.steps} steps, {asked.device}, {asked.threads or 'default'} threads")
            return figures.tell(
                [
                    measure.ratio(
                        "one picture, engine alone", "the pipeline", measure.one, measure.pipe_one, at_most=1.03
                    ),
                    measure.ratio(MANY, "diffusers, one batch", measure.pipe_batch, measure.many, at_least=0.95),
                    measure.ratio(MANY, "diffusers, one by one", measure.pipe_loop, measure.many, at_least=1.0),
                ]
            )


class Measurement:
    """The things to be timed, over one worker and one pipeline."""

    def __init__(self, sock: socket.socket, manifest: ModelManifest, pipe: Any, asked: argparse.Namespace) -> None:
        self._sock = sock
        self._manifest = manifest
        self._pipe = pipe
        self._steps, self._rounds = asked.steps, asked.rounds
        side = int(pipe.unet.config.sample_size) * int(pipe.vae_scale_factor)
        self._size = {"width": side, "height": side}

    def one(self) -> None:
        self._draw(1)

    def many(self) -> None:
        self._draw(AT_ONCE)

    def pipe_one(self) -> None:
        self._call([_prompt(0)], [0])

    def pipe_loop(self) -> None:
        for i in range(AT_ONCE):
            self._call([_prompt(i)], [i])

    def pipe_batch(self) -> None:
        self._call([_prompt(i) for i in range(AT_ONCE)], list(range(AT_ONCE)))

    def ratio(
        self, claim: str, against: str, above: Callable[[], None], below: Callable[[], None], **goal: float
    ) -> Figure:
        """The ratio of two times, taken in turns so that other load meets both."""
        for warm_up in (above, below):
            warm_up()
        return figures.of_rounds(claim, against, (seconds(above) / seconds(below) for _ in range(self._rounds)), **goal)

    def _draw(self, count: int) -> None:
        jobs = [self._submit(i) for i in range(count)]
        self._sock.sendall(b"".join(frames.encode(job) for job in jobs))
        while count:
            frame = frames.receive(self._sock, FromWorker)
            assert frame is not None, "the worker ended"
            assert not frame.HasField("failed"), frame.failed
            count -= frame.HasField("done")

    def _submit(self, i: int) -> ToWorker:
        spec = jobs_pb2.GenerateSpec(
            prompt=_prompt(i), steps=self._steps, guidance_scale=GUIDANCE, seed=i, **self._size
        )
        return ToWorker(
            dispatch=Dispatch(job_id=f"job{i}", generate=spec, indices=[0], model=self._manifest, provenance="{}")
        )

    def _call(self, prompts: list[str], seeds: list[int]) -> None:
        import torch

        generators = [torch.Generator("cpu").manual_seed(seed) for seed in seeds]
        self._pipe(
            prompts, num_inference_steps=self._steps, guidance_scale=GUIDANCE, generator=generators, **self._size
        )


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", nargs="?", type=Path, help="a diffusers folder; the built-in model if left out")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--rounds", type=int, default=5)
    return parser.parse_args()


def _prompt(i: int) -> str:
    return f"a {COLOURS[i % len(COLOURS)]} apple {i}"


def _random_model() -> Path:
    from tests import tiny_models

    return tiny_models.cached("pocket-size")


if __name__ == "__main__":
    sys.exit(main())
