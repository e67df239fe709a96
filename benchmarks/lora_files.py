"""Random LoRAs for the benchmarks, a store of them, and clients that draw with them."""

from __future__ import annotations

import argparse
import hashlib
import json
import socket
import time
from collections.abc import Sequence
from pathlib import Path

from craft_protos import frames, jobs_pb2
from craft_protos.worker_pb2 import Dispatch, File, FromWorker, ModelManifest, ToWorker

from benchmarks import random_models
from benchmarks.workers import POCKET

RANK = 16
GUIDANCE = 5.0


def options(description: str | None, **defaults: int) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", nargs="?", type=Path, default=POCKET, help="a diffusers folder; else pocket")
    parser.add_argument("--sd15", action="store_true", help="random weights in Stable Diffusion 1.5's sizes")
    parser.add_argument("--side", type=int, default=0, help="of the pictures, in pixels; 0: the model's own")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=0, help="0: torch's own choice")
    for name, default in defaults.items():
        parser.add_argument(f"--{name}", type=int, default=default)
    asked = parser.parse_args()
    if asked.sd15:
        asked.folder = random_models.stable_diffusion()
    asked.side = asked.side or _side(asked.folder)
    return asked


def make(folder: Path, count: int, inside: Path, *, conv: bool) -> list[Path]:
    """Random LoRAs of the model's attention, of its convolutions too with `conv`; peft's form."""
    from types import SimpleNamespace

    from diffusers import UNet2DConditionModel

    from tests import tiny_loras

    unet = UNet2DConditionModel.from_pretrained(folder / "unet", use_safetensors=True)
    made = []
    for i in range(count):
        adapter = tiny_loras.random(
            SimpleNamespace(unet=unet, transformer=None),
            seed=i,
            rank=RANK,
            conv=conv,
            wanted=lambda path: ".attn" in path,
            strength=0.05,
        )
        file = inside / f"{'conv' if conv else 'attention'}{i}.safetensors"
        made.append(tiny_loras.save(tiny_loras.peft(adapter), file))
    return made


def stored(path: Path, files: Path, sha256: str = "") -> File:
    """A LoRA in the worker's store; under another name than its hash, it is another LoRA to the worker."""
    sha256 = sha256 or hashlib.sha256(path.read_bytes()).hexdigest()
    (files / sha256).symlink_to(path)
    return File(name=sha256[:8], sha256=sha256, size_bytes=path.stat().st_size)


class Clients:
    """Clients of one worker; each sends its next job when its last one is done."""

    def __init__(self, sock: socket.socket, model: ModelManifest, side: int, steps: int) -> None:
        self._sock = sock
        self._model = model
        self._size = {"width": side, "height": side}
        self._steps = steps

    def seconds(self, loras: Sequence[File | None], at_once: int) -> float:
        """How long one job for each takes, drawn by so many clients."""
        began = time.perf_counter()
        left = list(enumerate(loras))
        waiting = 0
        while left or waiting:
            while left and waiting < at_once:
                self._send(*left.pop(0))
                waiting += 1
            frame = frames.receive(self._sock, FromWorker)
            assert frame is not None, "the worker ended"
            assert not frame.HasField("failed"), frame.failed
            waiting -= frame.HasField("done")
        return time.perf_counter() - began

    def _send(self, i: int, lora: File | None) -> None:
        spec = jobs_pb2.GenerateSpec(
            prompt="a red apple", steps=self._steps, guidance_scale=GUIDANCE, seed=i, **self._size
        )
        sent = Dispatch(job_id=f"job{i}", generate=spec, indices=[0], model=self._model, provenance="{}")
        if lora is not None:
            sent.files.append(lora)
            sent.generate.loras.append(jobs_pb2.LoraUse(lora=lora.name, name=lora.name, sha256=lora.sha256, weight=0.8))
        self._sock.sendall(frames.encode(ToWorker(dispatch=sent)))


def _side(folder: Path) -> int:
    """The model's own size, in pixels."""
    unet, vae = (json.loads((folder / part / "config.json").read_text()) for part in ("unet", "vae"))
    channels = vae.get("block_out_channels") or vae["encoder_block_out_channels"]
    return int(unet["sample_size"]) * 2 ** (len(channels) - 1)
