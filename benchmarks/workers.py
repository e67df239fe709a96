"""craft's worker without a front, the models it is given, and diffusers beside it."""

from __future__ import annotations

import hashlib
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from craft_protos import frames
from craft_protos.worker_pb2 import FromWorker, ModelFile, ModelManifest

POCKET = Path(__file__).parent.parent / "daemon" / "craftd" / "pocket"


@contextmanager
def running(
    files: Path, *, device: str = "cpu", threads: int = 0, more: tuple[str, ...] = ()
) -> Iterator[socket.socket]:
    """A worker that has said hello. `files`: where what it reads lies, by sha256."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        command = [sys.executable, "-m", "craftd.worker", "--fd", str(theirs.fileno()), "--files", str(files)]
        process = subprocess.Popen(
            [*command, "--device", device, "--threads", str(threads), *more], pass_fds=[theirs.fileno()]
        )
        theirs.close()
        try:
            assert frames.receive(ours, FromWorker) is not None, "the worker did not start"
            yield ours
        finally:
            ours.close()
            process.wait(60)


def manifest(folder: Path, files: Path, *, is_hashed: bool = True) -> ModelManifest:
    """The manifest of a diffusers folder, whose files are hashed and linked into `files`, as the front does once.

    `is_hashed`: else by its name alone, which is all that a worker needs.
    """
    listed = []
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        sha256 = _hashed(path) if is_hashed else hashlib.sha256(str(path).encode()).hexdigest()
        (files / sha256).unlink(missing_ok=True)
        (files / sha256).symlink_to(path.resolve())
        listed.append(ModelFile(path=str(path.relative_to(folder)), sha256=sha256, size_bytes=path.stat().st_size))
    return ModelManifest(name=folder.name, sha256="0" * 64, files=listed)


def _hashed(path: Path) -> str:
    with path.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def pipeline(folder: Path, *, device: str, threads: int, precision: str = "") -> Any:
    """diffusers' own, in this process, in the worker's precision and with as many threads."""
    os.environ["HF_HUB_OFFLINE"] = "1"
    import torch
    from craftd.worker.process.device import DTYPES
    from diffusers import DiffusionPipeline

    if threads:
        torch.set_num_threads(threads)
    dtype = DTYPES[precision or ("fp32" if device == "cpu" else "fp16")]
    pipe: Any = DiffusionPipeline.from_pretrained(folder, dtype=dtype, use_safetensors=True)
    pipe.to(device)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def seconds(action: Callable[[], object]) -> float:
    began = time.perf_counter()
    action()
    return time.perf_counter() - began
