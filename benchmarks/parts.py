"""A model of parts from the disk to its first step, against diffusers' from_pretrained of the same as a folder;
and a second model that shares its text encoders and its VAE, while the first is loaded.

    python -m benchmarks.parts [--threads N] [--rounds N]

Random weights in SDXL's sizes with a narrow UNet (2.2 GB in half precision, made once). Both sides have imported their
libraries, read warm files and compute in fp32. The worker's time is from the first byte sent to the frame that tells of
the first step; diffusers' from the call of from_pretrained to its first step's callback. Between rounds both forget the
models.
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
    folder, *places = random_models.xl_of_parts()
    with tempfile.TemporaryDirectory() as files:
        first, second = (workers.manifest(place, Path(files)) for place in places)
        size = sum(file.size_bytes for file in first.files)
        print(f"{size / 1e9:.2f} GB, {asked.threads or 'default'} threads, {asked.rounds} rounds")
        with workers.running(Path(files), threads=asked.threads) as sock:
            _first_step(sock, first)  # libraries are imported at the first use
            _unload(sock, first)
            _reference(folder, asked.threads)
            to_diffusers, to_first = [], []
            for _ in range(asked.rounds):
                theirs = _reference(folder, asked.threads)
                ours, shared = _first_step(sock, first), _first_step(sock, second)
                _unload(sock, first, second)
                print(f"craft {ours:.2f} s, the second {shared:.2f} s, diffusers {theirs:.2f} s")
                to_diffusers.append(ours / theirs)
                to_first.append(shared / ours)
    return figures.tell(
        [
            figures.of_rounds(
                "a model of parts from the disk to the first step done",
                "diffusers, from_pretrained of the same",
                to_diffusers,
                at_most=1.0,
            ),
            figures.of_rounds(
                "a second model with the same text encoders and VAE", "the first of them", to_first, at_most=0.6
            ),
        ]
    )


def _first_step(sock: socket.socket, manifest: ModelManifest) -> float:
    """Seconds to it; the model stays."""
    spec = jobs_pb2.GenerateSpec(
        prompt="a red apple", width=SIDE, height=SIDE, steps=STEPS, guidance_scale=1.0, seed=1, sampler="Euler"
    )
    dispatch = Dispatch(job_id="job", epoch=1, generate=spec, indices=[0], model=manifest, provenance="{}")
    began = time.perf_counter()
    sock.sendall(frames.encode(ToWorker(dispatch=dispatch)))
    _until(sock, "step")
    taken = time.perf_counter() - began
    _until(sock, "done")
    return taken


def _unload(sock: socket.socket, *manifests: ModelManifest) -> None:
    for manifest in manifests:
        sock.sendall(frames.encode(ToWorker(unload=Unload(model=manifest.name))))
        _until(sock, "unloaded")


def _until(sock: socket.socket, kind: str) -> None:
    while True:
        frame = frames.receive(sock, FromWorker)
        assert frame is not None, "the worker has ended"
        assert frame.WhichOneof("frame") not in ("failed", "load_failed"), frame
        if frame.WhichOneof("frame") == kind:
            return


def _reference(folder: Path, threads: int) -> float:
    """Seconds to diffusers' first step, in this process; the model is forgotten afterwards."""
    os.environ["HF_HUB_OFFLINE"] = "1"
    import torch
    from diffusers import StableDiffusionXLPipeline

    if threads:
        torch.set_num_threads(threads)

    class Enough(Exception):
        """One step is."""

    def stop(*_: Any) -> Any:
        raise Enough

    began, taken = time.perf_counter(), 0.0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        kind: Any = StableDiffusionXLPipeline
        pipe = kind.from_pretrained(folder, dtype=torch.float32, use_safetensors=True, add_watermarker=False)
        pipe.set_progress_bar_config(disable=True)
        try:
            asked = {"num_inference_steps": STEPS, "guidance_scale": 1.0, "callback_on_step_end": stop}
            pipe("a red apple", width=SIDE, height=SIDE, **asked)
        except Enough:
            taken = time.perf_counter() - began
    del pipe
    gc.collect()
    return taken


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=0, help="0: torch's own choice")
    parser.add_argument("--rounds", type=int, default=7)
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
