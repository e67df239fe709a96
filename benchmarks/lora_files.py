"""Random LoRAs for the benchmarks, a store of them, and a worker that draws with them."""

from __future__ import annotations

import argparse
import hashlib
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from craft_protos import frames, jobs_pb2
from craft_protos.worker_pb2 import FromWorker, LoraFile, ModelFile, ModelManifest, ToWorker

POCKET = Path(__file__).parent.parent / "daemon" / "craftd" / "pocket"
RANK = 16
GUIDANCE = 5.0


def options(description: str | None, **defaults: int) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", nargs="?", type=Path, default=POCKET, help="a diffusers folder; else pocket")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=0, help="0: torch's own choice")
    for name, default in defaults.items():
        parser.add_argument(f"--{name}", type=int, default=default)
    return parser.parse_args()


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


def stored(path: Path, files: Path, sha256: str = "") -> LoraFile:
    """A LoRA in the worker's store; under another name than its hash, it is another LoRA to the worker."""
    sha256 = sha256 or hashlib.sha256(path.read_bytes()).hexdigest()
    (files / sha256).symlink_to(path)
    return LoraFile(id=sha256[:8], name=sha256[:8], sha256=sha256, size_bytes=path.stat().st_size)


def manifest(folder: Path, files: Path) -> ModelManifest:
    listed = []
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        with path.open("rb") as opened:
            sha256 = hashlib.file_digest(opened, "sha256").hexdigest()
        (files / sha256).unlink(missing_ok=True)
        (files / sha256).symlink_to(path.resolve())
        listed.append(ModelFile(path=str(path.relative_to(folder)), sha256=sha256, size_bytes=path.stat().st_size))
    return ModelManifest(name=folder.name, sha256="0" * 64, files=listed)


class Clients:
    """Clients of one worker; each sends its next job when its last one is done."""

    def __init__(self, sock: socket.socket, model: ModelManifest, side: int, steps: int) -> None:
        self._sock = sock
        self._model = model
        self._size = {"width": side, "height": side}
        self._steps = steps

    def seconds(self, loras: Sequence[LoraFile | None], at_once: int) -> float:
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

    def _send(self, i: int, lora: LoraFile | None) -> None:
        spec = jobs_pb2.GenerateSpec(
            prompt="a red apple", steps=self._steps, guidance_scale=GUIDANCE, seed=i, **self._size
        )
        sent = ToWorker.Submit(job_id=f"job{i}", generate=spec, indices=[0], model=self._model, provenance="{}")
        if lora is not None:
            sent.loras.append(lora)
            sent.generate.loras.append(jobs_pb2.LoraUse(lora=lora.id, weight=0.8))
        self._sock.sendall(frames.encode(ToWorker(submit=sent)))


@contextmanager
def worker(files: Path, asked: argparse.Namespace, *more: str) -> Iterator[socket.socket]:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        command = [sys.executable, "-m", "craftd.worker", "--fd", str(theirs.fileno()), "--files", str(files)]
        process = subprocess.Popen(
            [*command, "--device", asked.device, "--threads", str(asked.threads), *more], pass_fds=[theirs.fileno()]
        )
        theirs.close()
        try:
            assert frames.receive(ours, FromWorker) is not None, "the worker did not start"
            yield ours
        finally:
            ours.close()
            process.wait(60)


def pipeline(folder: Path, asked: argparse.Namespace) -> Any:
    """diffusers' own, in the worker's precision and with as many threads."""
    import torch
    from diffusers import StableDiffusionPipeline

    if asked.threads:
        torch.set_num_threads(asked.threads)
    dtype = torch.float32 if asked.device == "cpu" else torch.float16
    pipe = StableDiffusionPipeline.from_pretrained(folder, dtype=dtype, use_safetensors=True, safety_checker=None)
    pipe.to(asked.device)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def side(folder: Path) -> int:
    """The model's own size, in pixels."""
    import json

    unet, vae = (json.loads((folder / part / "config.json").read_text()) for part in ("unet", "vae"))
    channels = vae.get("block_out_channels") or vae["encoder_block_out_channels"]
    return int(unet["sample_size"]) * 2 ** (len(channels) - 1)


def seconds(action: Callable[[], object]) -> float:
    began = time.perf_counter()
    action()
    return time.perf_counter() - began
