"""A worker without torch: flat-coloured pictures from the seed, and trouble on request.

With a start picture, the colour is that of its middle, a little of the seed's by its strength.

`CRAFT_WORKER_MODULE=craftd.fakeworker` has the daemon use it, for tests and for trying
clients out. Words in the prompt make it misbehave:

    [crash], [abort]   dies at the job's second step, by a signal of its own making (SEGV, ABRT)
    [killed]           the same by SIGKILL, as if from outside
    [bad frame]        sends bytes that are no frame
    [oversized frame]  announces a frame larger than any may be
    [hang]             stops, and says nothing any more
    [... once]         any of those, but only the first time it sees the job
    [fail]             fails the job
    [slow]             takes 50 ms a step until the file `hurry` lies in its files folder
    [held]             does not step until the file `release` lies there
    [held rest]        does not step until then, once it has drawn an image of several
    [held load]        does not finish loading until then
    [part]             says that of each LoRA two tensors of three were applied

While the file `refuse` lies in its files folder, it does not start; with `older` there, it says that it is of
an older craft. It trains, too: see craftd.faketraining.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import os
import queue
import signal
import socket
import struct
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from craft_protos import frames, jobs_pb2
from craft_protos.codec import from_message
from craft_protos.dispatch import Cancel, Dispatch, File, Frame, Load, ModelManifest, Preview, Unload
from craft_protos.formats import FORMATS
from craft_protos.generate import steps_of
from craft_protos.provenance import AppliedLora, record
from craft_protos.train import TrainSpec
from craft_protos.version import __version__
from craft_protos.worker_pb2 import FromWorker, ToWorker
from PIL import ExifTags, Image, ImageOps, PngImagePlugin

from craftd.faketraining import FakeTraining, die

_Colour = tuple[int, ...]
_SLOW_S = 0.05
_IDLE_S = 0.02


@dataclass
class _Job:
    asked: Dispatch
    preview_every: int
    left: list[int]
    steps_done: dict[int, int] = field(default_factory=dict)
    has_started: bool = False

    def says(self, word: str) -> bool:
        return f"[{word}]" in self.asked.drawing.prompt

    @property
    def is_held(self) -> bool:
        has_drawn = len(self.left) < len(self.asked.indices)
        return self.says("held") or (self.says("held rest") and has_drawn)


class FakeWorker:
    """One thread listens, the other steps every row of the batch by one."""

    def __init__(self, sock: socket.socket, files: Path, max_rows: int, device: str) -> None:
        self._sock = sock
        self._files = files
        self._max_rows = max_rows
        self._device = device
        self._inbox: queue.SimpleQueue[object] = queue.SimpleQueue()
        self._jobs: dict[str, _Job] = {}
        self._training: FakeTraining | None = None
        self._loaded: set[str] = set()
        self._progress = self._calls = 0

    def run(self) -> None:
        """Until the daemon's end of the socket is gone."""
        hello = FromWorker.Hello(
            pid=os.getpid(),
            device=self._device,
            device_name="none: craftd.fakeworker",
            torch_version="",
            precision="fp32",
            capacity_rows=self._max_rows,
            version="0.0.1" if (self._files / "older").exists() else __version__,
        )
        self._send(FromWorker(hello=hello))
        threading.Thread(target=self._listen, daemon=True).start()
        while True:
            self._take_in()
            self._step()
            self._train()
            self._tell_stats()

    def _listen(self) -> None:
        while (frame := frames.receive(self._sock, ToWorker)) is not None:
            self._inbox.put(from_message(Frame, frame).frame)
        os._exit(0)

    def _send(self, frame: FromWorker) -> None:
        self._send_bytes(frames.encode(frame))

    def _send_bytes(self, data: bytes) -> None:
        try:
            self._sock.sendall(data)
        except OSError:
            os._exit(0)

    def _take_in(self) -> None:
        """Handle what has come; wait for it when there is nothing to draw."""
        try:
            while True:
                self._handle(self._inbox.get(timeout=0.0005 if self._jobs or self._training else None))
        except queue.Empty:
            return

    def _handle(self, asked: object) -> None:
        match asked:
            case Dispatch(spec=TrainSpec()):
                self._load(asked.model)
                self._training = FakeTraining(asked, self._files, self._send)
            case Dispatch():
                for model in asked.models:
                    self._load(model, is_held="[held load]" in asked.drawing.prompt)
                for later in asked.later_models:
                    self._load(later)
                if self._refuse_missing(asked):
                    return
                self._jobs[asked.job_id] = _Job(asked, asked.preview_every, list(asked.indices))
            case Cancel():
                self._cancel(asked)
            case Load():
                self._load(asked.model)
            case Unload():
                self._loaded.discard(asked.model)
                self._send(FromWorker(unloaded=FromWorker.Unloaded(model=asked.model, why="asked to")))
            case Preview():
                if asked.job_id in self._jobs:
                    self._jobs[asked.job_id].preview_every = asked.every
        self._tell_stats()

    def _load(self, model: ModelManifest, *, is_held: bool = False) -> None:
        total = sum(file.size_bytes for file in model.files)
        missing = [file.path for file in model.files if not (self._files / file.sha256).exists()]
        if missing:
            error = jobs_pb2.JobError(reason="CORRUPT_FILE", message=f"model {model.name}: {missing[0]} is missing")
            self._send(FromWorker(load_failed=FromWorker.LoadFailed(model=model.name, error=error)))
        elif is_held or model.name not in self._loaded:
            self._loaded.add(model.name)
            self._send(FromWorker(loading=FromWorker.Loading(model=model.name, bytes_done=total, bytes_total=total)))
            while is_held and not (self._files / "release").exists():
                time.sleep(_IDLE_S)
            self._send(FromWorker(loaded=FromWorker.Loaded(model=model.name, resident_bytes=total)))
        else:
            self._send(FromWorker(loaded=FromWorker.Loaded(model=model.name, resident_bytes=total)))

    def _refuse_missing(self, asked: Dispatch) -> bool:
        """Fail a job one of whose LoRAs' or pictures' files was not put, or is not what it should be."""
        of_controls = [File(file.path, file.sha256, file.size_bytes) for one in asked.controls for file in one.files]
        for file in (*asked.files, *asked.inputs, *of_controls):
            if not (self._files / file.sha256).exists() or (file in asked.inputs and not self._is_whole(file)):
                error = jobs_pb2.JobError(reason="CORRUPT_FILE", message=f"{file.name}: its file is missing")
                failed = FromWorker.JobFailed(job_id=asked.job_id, epoch=asked.epoch, error=error)
                self._send(FromWorker(failed=failed))
                return True
        return False

    def _is_whole(self, file: File) -> bool:
        data = (self._files / file.sha256).read_bytes()
        return (hashlib.sha256(data).hexdigest(), len(data)) == (file.sha256, file.size_bytes)

    def _train(self) -> None:
        """One step between those of what is drawn."""
        training = self._training
        if training is None or (training.asked.training.when_idle and self._jobs):
            return
        self._progress += 1
        if not training.advance():
            self._training = None

    def _cancel(self, asked: Cancel) -> None:
        training = self._training and self._training.asked
        if training and (training.job_id, training.epoch) == (asked.job_id, asked.epoch):
            self._training = None
            done = FromWorker.JobDone(job_id=asked.job_id, epoch=asked.epoch, cancelled=True)
            self._send(FromWorker(done=done))
        job = self._jobs.get(asked.job_id)
        if job is not None and job.asked.epoch == asked.epoch:
            del self._jobs[asked.job_id]
            done = FromWorker.JobDone(job_id=asked.job_id, epoch=asked.epoch, cancelled=True)
            self._send(FromWorker(done=done))

    def _step(self) -> None:
        """One step of every row that fits, oldest job first."""
        room = self._max_rows
        jobs = list(self._jobs.values())
        self._calls += bool(jobs)
        if any(job.says("slow") for job in jobs) and not (self._files / "hurry").exists():
            time.sleep(_SLOW_S)
        for job in jobs:
            if job.is_held and not (self._files / "release").exists():
                time.sleep(_IDLE_S)
                continue
            for index in job.left[:room]:
                self._step_row(job, index)
            room -= min(room, len(job.left))
            self._finish_if_done(job)

    def _step_row(self, job: _Job, index: int) -> None:
        self._start(job)
        done = job.steps_done[index] = job.steps_done.get(index, 0) + 1
        self._progress += 1
        self._misbehave(job, done)
        steps = _steps(job)
        wants_preview = job.preview_every and done % job.preview_every == 0
        preview = self._picture(job, index, "jpeg", side=32) if wants_preview else b""
        step = FromWorker.Step(
            job_id=job.asked.job_id, epoch=job.asked.epoch, index=index, step=done, of=steps, preview=preview
        )
        self._send(FromWorker(step=step))
        if done >= steps:
            self._send_image(job, index)

    def _start(self, job: _Job) -> None:
        if not job.has_started:
            job.has_started = True
            self._send(FromWorker(started=FromWorker.Started(job_id=job.asked.job_id, epoch=job.asked.epoch)))

    def _misbehave(self, job: _Job, done: int) -> None:
        if done < min(2, _steps(job)):
            return
        marker = self._files / f"crashed-{job.asked.job_id}"
        for word, trouble in self._troubles.items():
            if job.says(f"{word} once") and not marker.exists():
                marker.touch()
                trouble()
            elif job.says(word):
                trouble()

    @property
    def _troubles(self) -> dict[str, Callable[[], object]]:
        return {
            "crash": lambda: die(signal.SIGSEGV),
            "killed": lambda: die(signal.SIGKILL),
            "abort": lambda: die(signal.SIGABRT),
            "bad frame": lambda: self._send_bytes(struct.pack(">I", 3) + b"\xff\xff\xff"),
            "oversized frame": lambda: self._send_bytes(struct.pack(">I", frames.MAX_FRAME_BYTES + 1)),
            "hang": threading.Event().wait,
        }

    def _finish_if_done(self, job: _Job) -> None:
        message = job.asked
        if job.says("fail"):
            error = jobs_pb2.JobError(reason="JOB_FAILED", message="failed on request", hint="leave [fail] out")
            failed = FromWorker.JobFailed(job_id=message.job_id, epoch=message.epoch, error=error)
            self._send(FromWorker(failed=failed))
        elif not job.left:
            self._send(FromWorker(done=FromWorker.JobDone(job_id=message.job_id, epoch=message.epoch)))
        else:
            return
        del self._jobs[message.job_id]

    def _send_image(self, job: _Job, index: int) -> None:
        spec, (width, height) = job.asked.drawing, self._size(job)
        provenance = _provenance(job, index)
        done = FromWorker.ImageDone(
            job_id=job.asked.job_id,
            epoch=job.asked.epoch,
            index=index,
            seed=spec.seed + index,
            data=self._picture(job, index, spec.format, provenance=provenance),
            media_type=FORMATS[spec.format].media_type,
            width=width,
            height=height,
            provenance=provenance,
            denoise_s=0.001 * spec.steps,
        )
        job.left.remove(index)
        self._send(FromWorker(image=done))

    def _picture(self, job: _Job, index: int, kind: str, *, side: int = 0, provenance: str = "") -> bytes:
        seed = job.asked.drawing.seed + index
        colour: _Colour = (seed % 256, seed // 256 % 256, seed // 65536 % 256)
        if (start := job.asked.drawing.start) is not None:
            colour = _mixed(self._middle(start.sha256), colour, start.share)
        for one in job.asked.drawing.references:  # the last counts most
            colour = _mixed(self._middle(one.sha256), colour, 0.5)
        size = (side, side) if side else self._size(job)
        notes = PngImagePlugin.PngInfo()
        notes.add_text("craft", provenance)
        exif = Image.Exif()
        exif.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.UserComment] = b"ASCII\0\0\0" + provenance.encode("ascii")
        more = {"pnginfo": notes} if kind == "png" else {"exif": exif}
        stream = io.BytesIO()
        Image.new("RGB", size, colour).save(stream, FORMATS[kind].pillow, **more)
        return stream.getvalue()

    def _middle(self, sha256: str) -> _Colour:
        """The colour in a picture's middle."""
        with Image.open(self._files / sha256) as opened:
            found = opened.convert("RGB").getpixel((opened.width // 2, opened.height // 2))
        assert isinstance(found, tuple)
        return found

    def _size(self, job: _Job) -> tuple[int, int]:
        spec, drawn = job.asked.drawing, self._drawn_size(job)
        return drawn if spec.upscale is None else spec.upscale.size_of(*drawn)

    def _drawn_size(self, job: _Job) -> tuple[int, int]:
        """Where only the part around a mask is drawn, the picture has the start's size."""
        spec = job.asked.drawing
        if spec.hires is not None:
            return spec.hires.size
        if spec.start is None or spec.mask is None or spec.mask.padding is None:
            return spec.width, spec.height
        with Image.open(self._files / spec.start.sha256) as opened:
            return ImageOps.exif_transpose(opened).size

    def _tell_stats(self) -> None:
        stats = FromWorker.Stats(
            predict_calls=self._calls,
            rows=sum(len(job.left) for job in self._jobs.values()),
            progress=self._progress,
            doing="step" if self._jobs else "training" if self._training else "idle",
        )
        self._send(FromWorker(stats=stats))


def _mixed(old: _Colour, new: _Colour, share: float) -> _Colour:
    """As much of the new colour as its share says."""
    red, green, blue = (round(was + (becomes - was) * share) for was, becomes in zip(old, new, strict=True))
    return red, green, blue


def _steps(job: _Job) -> int:
    """One at the least: the picture is sent after it."""
    return max(1, steps_of(job.asked.drawing.steps, job.asked.drawing.start))


def _provenance(job: _Job, index: int) -> str:
    matched, total = (2, 3) if job.says("part") else (0, 0)
    loras = [AppliedLora(one.lora, one.name, one.sha256, one.scale, matched, total) for one in job.asked.drawing.loras]
    versions = {"craft": __version__}
    made = record(job.asked, index, loras, {"device": "fake", "precision": "fp32", "versions": versions})
    return json.dumps(json.loads(job.asked.provenance or "{}") | made)


def main() -> None:
    if sys.argv[1:] == ["--inspect", "--layouts"]:
        _tell_layouts()
        return
    parser = argparse.ArgumentParser(prog="python -m craftd.fakeworker", description="Pretends to draw.")
    parser.add_argument("--fd", type=int, required=True)
    parser.add_argument("--files", type=Path, required=True)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--offload", default="auto")
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--sharing", type=int, default=1)
    parser.add_argument("--max-rows", type=int, default=32)
    given = parser.parse_args()
    if (given.files / "refuse").exists():
        sys.exit(f"{given.files / 'refuse'}: told not to start")
    device = "cpu" if given.device == "auto" else given.device
    FakeWorker(socket.socket(fileno=given.fd), given.files, given.max_rows, device).run()


def _tell_layouts() -> None:
    """Nothing is built here: a UNet's layers are those that its configuration lists as `fake_layers`."""
    for parts in json.load(sys.stdin)["models"]:
        layers = json.loads(parts.get("unet/config.json", "{}")).get("fake_layers")
        unet = {"kind": "UNet2DConditionModel", "layers": layers, "depth": 1}
        layout = {"pipeline": "StableDiffusionPipeline", "components": {"unet": unet}, "has_converter": True}
        unknown = {"reason": "UNSUPPORTED_MODEL", "message": "its layers are not known", "hint": "list them"}
        print(json.dumps({"reason": "", "layout": json.dumps(layout)} if layers else unknown), flush=True)


if __name__ == "__main__":
    main()
