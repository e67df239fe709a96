"""A real worker process at the other end of a socket pair, and a store of tiny models for it."""

from __future__ import annotations

import hashlib
import io
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from craft_protos import frames, jobs_pb2
from craft_protos.worker_pb2 import Dispatch, File, FromWorker, ModelFile, ModelManifest, ToWorker
from PIL import Image

from tests.home import HANG_S


def put_model(folder: Path, files: Path, name: str, **more: Any) -> ModelManifest:
    """Link a model folder's files into the store; its manifest."""
    listed = []
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
        link = files / sha256
        if not link.is_symlink():
            link.symlink_to(path)
        listed.append(ModelFile(path=str(path.relative_to(folder)), sha256=sha256, size_bytes=path.stat().st_size))
    sha256 = hashlib.sha256("".join(file.sha256 for file in listed).encode()).hexdigest()
    return ModelManifest(name=name, sha256=sha256, files=listed, **more)


def submit(
    model: ModelManifest,
    job_id: str = "job",
    *,
    epoch: int = 1,
    indices: tuple[int, ...] = (0,),
    priority: jobs_pb2.Priority = jobs_pb2.PRIORITY_INTERACTIVE,
    owner: str = "",
    provenance: str = "{}",
    preview_every: int = 0,
    inputs: Sequence[File] = (),
    **spec: Any,
) -> ToWorker:
    """A job with small, quick defaults."""
    given: dict[str, Any] = {"prompt": "a red cat", "width": 64, "height": 64, "steps": 4, "guidance_scale": 5.0}
    given |= {"seed": 7, "sampler": "Euler"} | spec
    return ToWorker(
        dispatch=Dispatch(
            job_id=job_id,
            epoch=epoch,
            generate=jobs_pb2.GenerateSpec(**given),
            indices=indices,
            model=model,
            priority=priority,
            owner=owner,
            provenance=provenance,
            preview_every=preview_every,
            inputs=inputs,
        )
    )


def pixels(image: FromWorker.ImageDone) -> np.ndarray:
    """Its pixels, as numbers that can be subtracted."""
    return np.asarray(Image.open(io.BytesIO(image.data)).convert("RGB")).astype(int)


@dataclass
class WorkerProcess:
    """Sends frames, keeps every frame that comes back."""

    process: subprocess.Popen[bytes]
    sock: socket.socket
    seen: list[FromWorker] = field(default_factory=list)

    def send(self, *sent: ToWorker) -> None:
        """All in one go, so that they arrive together."""
        self.sock.sendall(b"".join(frames.encode(frame) for frame in sent))

    def receive(self) -> FromWorker:
        frame = frames.receive(self.sock, FromWorker)
        if frame is None:
            self.process.send_signal(signal.SIGABRT)  # one that hangs prints its stacks
            raise AssertionError(f"the worker hung or has ended, {self.process.wait(HANG_S)}")
        self.seen.append(frame)
        return frame

    def until(self, matches: Callable[[FromWorker], bool]) -> FromWorker:
        """The next frame that matches."""
        while not matches(frame := self.receive()):
            pass
        return frame

    def until_kind(self, kind: str) -> Any:
        return getattr(self.until(lambda frame: frame.WhichOneof("frame") == kind), kind)

    def until_ended(self, *job_ids: str) -> list[FromWorker]:
        """Every frame until each of the jobs is done or has failed, and the worker is idle."""
        start, left = len(self.seen), set(job_ids)
        while left:
            frame = self.receive()
            if (kind := frame.WhichOneof("frame")) in ("done", "failed"):
                left.discard(getattr(frame, kind).job_id)
        return self.seen[start:]

    def draw(self, *sent: ToWorker) -> list[FromWorker.ImageDone]:
        """Submit, wait for all, and give the images by job and index. Fails where a job did."""
        self.send(*sent)
        got = self.until_ended(*(frame.dispatch.job_id for frame in sent))
        failed = [frame.failed for frame in got if frame.WhichOneof("frame") == "failed"]
        assert not failed, failed
        images = [frame.image for frame in got if frame.WhichOneof("frame") == "image"]
        return sorted(images, key=lambda image: (image.job_id, image.index))

    def fail(self, sent: ToWorker) -> FromWorker.JobFailed:
        """Submit a job that must fail."""
        self.send(sent)
        got = self.until_ended(sent.dispatch.job_id)
        assert got[-1].WhichOneof("frame") == "failed", got[-1]
        return got[-1].failed

    def predict_calls(self) -> int:
        """Once the worker is idle."""
        return int(self.until(lambda frame: frame.stats.doing == "idle").stats.predict_calls)

    def close(self) -> None:
        self.sock.close()
        self.process.wait(HANG_S)


@contextmanager
def worker(files: Path, *options: str) -> Iterator[WorkerProcess]:
    """A worker that has said hello; ended by the end of its socket."""
    ours, theirs = socket.socketpair()
    ours.settimeout(HANG_S)
    with theirs:
        process = subprocess.Popen(
            [
                *(sys.executable, "-m", "craftd.worker", "--fd", str(theirs.fileno()), "--files", str(files)),
                *("--device", "cpu", "--threads", "1", *options),
            ],
            pass_fds=[theirs.fileno()],
            env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONFAULTHANDLER": "1"},
        )
    running = WorkerProcess(process, ours)
    try:
        assert running.receive().WhichOneof("frame") == "hello"
        yield running
    finally:
        running.close()


def provenance(image: FromWorker.ImageDone) -> dict[str, Any]:
    """The JSON beside the image."""
    read: dict[str, Any] = json.loads(image.provenance)
    return read
