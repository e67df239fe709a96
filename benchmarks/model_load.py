"""A model from the disk to its first step: craft's worker against diffusers' from_pretrained.

    python -m benchmarks.model_load [MODEL_FOLDER] [--device cpu] [--threads N] [--rounds N]

Without a folder: random weights in Stable Diffusion 1.5's own sizes (4.3 GB on the disk, made
once). Both sides have imported their libraries and read warm files. The worker's time is from the
first byte sent to the frame that tells of the first step; diffusers' from the call of
from_pretrained to its first step's callback. Between rounds both forget the model.
"""

from __future__ import annotations

import argparse
import gc
import os
import socket
import sys
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

from craft_protos import frames, jobs_pb2
from craft_protos.worker_pb2 import Dispatch, FromWorker, ModelManifest, ToWorker, Unload

from benchmarks import figures, random_models, workers

SIDE = 64  # of the picture: the load is what is measured
STEPS = 2


def main() -> int:
    asked = _parse()
    folder = asked.folder or random_models.stable_diffusion()
    with tempfile.TemporaryDirectory() as files:
        manifest = workers.manifest(folder, Path(files))
        size = sum(file.size_bytes for file in manifest.files)
        print(f"{folder.name}: {size / 1e9:.2f} GB, {asked.threads or 'default'} threads, {asked.rounds} rounds")
        reference = _Reference(folder, asked.threads, asked.device)
        with workers.running(Path(files), device=asked.device, threads=asked.threads) as sock:
            _draw(sock, manifest)  # libraries are imported at the first use
            reference.first_step()
            ratios = []
            for _ in range(asked.rounds):
                ours, theirs = _draw(sock, manifest), reference.first_step()
                print(f"craft {ours:.2f} s, diffusers {theirs:.2f} s")
                ratios.append(ours / theirs)
    claim = "a model from the disk to the first step done"
    return figures.tell([figures.of_rounds(claim, "diffusers, from_pretrained", ratios, at_most=1.0)])


def _draw(sock: socket.socket, manifest: ModelManifest) -> float:
    """Seconds to the first step; the model is unloaded afterwards."""
    spec = jobs_pb2.GenerateSpec(
        prompt="a red apple", width=SIDE, height=SIDE, steps=STEPS, guidance_scale=1.0, seed=1, sampler="Euler"
    )
    dispatch = Dispatch(job_id="job", epoch=1, generate=spec, indices=[0], model=manifest, provenance="{}")
    began = time.perf_counter()
    sock.sendall(frames.encode(ToWorker(dispatch=dispatch)))
    _until(sock, "step")
    taken = time.perf_counter() - began
    _until(sock, "done")
    sock.sendall(frames.encode(ToWorker(unload=Unload(model=manifest.name))))
    _until(sock, "unloaded")
    return taken


def _until(sock: socket.socket, kind: str) -> None:
    while True:
        frame = frames.receive(sock, FromWorker)
        assert frame is not None, "the worker has ended"
        assert frame.WhichOneof("frame") not in ("failed", "load_failed"), frame
        if frame.WhichOneof("frame") == kind:
            return


class _Reference:
    """diffusers, in this process."""

    def __init__(self, folder: Path, threads: int, device: str) -> None:
        os.environ["HF_HUB_OFFLINE"] = "1"
        import torch

        if threads:
            torch.set_num_threads(threads)
        self._folder, self._device = folder, device
        self._dtype = torch.float32 if device == "cpu" else torch.float16

    def first_step(self) -> float:
        """Seconds; the model is forgotten afterwards."""
        import diffusers

        class Enough(Exception):
            """One step is."""

        def stop(*_: Any) -> Any:
            raise Enough

        began = time.perf_counter()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            kinds: Any = diffusers
            pipe = kinds.DiffusionPipeline.from_pretrained(
                self._folder, dtype=self._dtype, use_safetensors=True, safety_checker=None
            )
            pipe.to(self._device)
            pipe.set_progress_bar_config(disable=True)
            pipe.scheduler = kinds.EulerDiscreteScheduler.from_config(pipe.scheduler.config)
            try:
                pipe(
                    "a red apple",
                    width=SIDE,
                    height=SIDE,
                    num_inference_steps=STEPS,
                    guidance_scale=1.0,
                    callback_on_step_end=stop,
                )
            except Enough:
                taken = time.perf_counter() - began
        del pipe
        gc.collect()
        return taken


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", nargs="?", type=Path, help="a Stable Diffusion folder")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=0, help="0: torch's own choice")
    parser.add_argument("--rounds", type=int, default=15)
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
