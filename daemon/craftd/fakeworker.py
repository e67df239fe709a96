"""A worker without torch: flat-coloured pictures from the seed, and trouble on request.

`CRAFT_WORKER_MODULE=craftd.fakeworker` has the daemon use it, for tests and for trying
clients out. Words in the prompt make it misbehave:

    [crash]        dies at the job's second step, with all that it holds
    [crash once]   the same, but only the first time it sees the job
    [hang]         stops, and says nothing any more
    [fail]         fails the job
    [slow]         takes 50 ms a step until the file `hurry` lies in its files folder
    [held]         does not step until the file `release` lies there

It trains, too: see craftd.faketraining.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import queue
import signal
import socket
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

from craft_protos import frames, jobs_pb2
from craft_protos.formats import FORMATS
from craft_protos.version import __version__
from craft_protos.worker_pb2 import FromWorker, ModelManifest, ToWorker
from PIL import ExifTags, Image, PngImagePlugin

from craftd.faketraining import FakeTraining

_SLOW_S = 0.05
_IDLE_S = 0.02
_MEDIA = {one.number: (one.pillow, one.media_type) for one in FORMATS.values()}


@dataclass
class _Job:
    frame: ToWorker.Submit
    preview_every: int
    left: list[int]
    steps_done: dict[int, int] = field(default_factory=dict)
    has_started: bool = False

    def says(self, word: str) -> bool:
        return f"[{word}]" in self.frame.generate.prompt


class FakeWorker:
    """One thread listens, the other steps every row of the batch by one."""

    def __init__(self, sock: socket.socket, files: Path, max_rows: int, device: str) -> None:
        self._sock = sock
        self._files = files
        self._max_rows = max_rows
        self._device = device
        self._inbox: queue.SimpleQueue[ToWorker] = queue.SimpleQueue()
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
            self._inbox.put(frame)
        os._exit(0)

    def _send(self, frame: FromWorker) -> None:
        try:
            self._sock.sendall(frames.encode(frame))
        except OSError:
            os._exit(0)

    def _take_in(self) -> None:
        """Handle what has come; wait for it when there is nothing to draw."""
        try:
            while True:
                self._handle(self._inbox.get(timeout=0.0005 if self._jobs or self._training else None))
        except queue.Empty:
            return

    def _handle(self, frame: ToWorker) -> None:
        match frame.WhichOneof("frame"):
            case "submit":
                self._load(frame.submit.model)
                if self._refuse_loras(frame.submit):
                    return
                job = _Job(frame.submit, frame.submit.preview_every, list(frame.submit.indices))
                self._jobs[frame.submit.job_id] = job
            case "train":
                self._load(frame.train.model)
                self._training = FakeTraining(frame.train, self._files, self._send)
            case "cancel":
                self._cancel(frame.cancel)
            case "load":
                self._load(frame.load.model)
            case "unload":
                self._loaded.discard(frame.unload.model)
                self._send(FromWorker(unloaded=FromWorker.Unloaded(model=frame.unload.model, why="asked to")))
            case "preview":
                if frame.preview.job_id in self._jobs:
                    self._jobs[frame.preview.job_id].preview_every = frame.preview.every
        self._tell_stats()

    def _load(self, model: ModelManifest) -> None:
        total = sum(file.size_bytes for file in model.files)
        missing = [file.path for file in model.files if not (self._files / file.sha256).exists()]
        if missing:
            error = jobs_pb2.JobError(reason="CORRUPT_FILE", message=f"model {model.name}: {missing[0]} is missing")
            self._send(FromWorker(load_failed=FromWorker.LoadFailed(model=model.name, error=error)))
        elif model.name not in self._loaded:
            self._loaded.add(model.name)
            self._send(FromWorker(loading=FromWorker.Loading(model=model.name, bytes_done=total, bytes_total=total)))
            self._send(FromWorker(loaded=FromWorker.Loaded(model=model.name, resident_bytes=total)))
        else:
            self._send(FromWorker(loaded=FromWorker.Loaded(model=model.name, resident_bytes=total)))

    def _refuse_loras(self, submit: ToWorker.Submit) -> bool:
        """Fail a job one of whose LoRAs' files was not put."""
        for lora in submit.loras:
            if not (self._files / lora.sha256).exists():
                error = jobs_pb2.JobError(reason="CORRUPT_FILE", message=f"LoRA {lora.name}: its file is missing")
                failed = FromWorker.JobFailed(job_id=submit.job_id, epoch=submit.epoch, error=error)
                self._send(FromWorker(failed=failed))
                return True
        return False

    def _train(self) -> None:
        """One step between those of what is drawn."""
        training = self._training
        if training is None or (training.frame.spec.when_idle and self._jobs):
            return
        self._progress += 1
        if not training.advance():
            self._training = None

    def _cancel(self, frame: ToWorker.Cancel) -> None:
        training = self._training and self._training.frame
        if training and (training.job_id, training.epoch) == (frame.job_id, frame.epoch):
            self._training = None
            done = FromWorker.JobDone(job_id=frame.job_id, epoch=frame.epoch, cancelled=True)
            self._send(FromWorker(done=done))
        job = self._jobs.get(frame.job_id)
        if job is not None and job.frame.epoch == frame.epoch:
            del self._jobs[frame.job_id]
            done = FromWorker.JobDone(job_id=frame.job_id, epoch=frame.epoch, cancelled=True)
            self._send(FromWorker(done=done))

    def _step(self) -> None:
        """One step of every row that fits, oldest job first."""
        room = self._max_rows
        jobs = list(self._jobs.values())
        self._calls += bool(jobs)
        if any(job.says("slow") for job in jobs) and not (self._files / "hurry").exists():
            time.sleep(_SLOW_S)
        for job in jobs:
            if job.says("held") and not (self._files / "release").exists():
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
        steps = job.frame.generate.steps
        wants_preview = job.preview_every and done % job.preview_every == 0
        preview = self._picture(job, index, jobs_pb2.IMAGE_FORMAT_JPEG, side=32) if wants_preview else b""
        step = FromWorker.Step(
            job_id=job.frame.job_id, epoch=job.frame.epoch, index=index, step=done, of=steps, preview=preview
        )
        self._send(FromWorker(step=step))
        if done >= steps:
            self._send_image(job, index)

    def _start(self, job: _Job) -> None:
        if not job.has_started:
            job.has_started = True
            self._send(FromWorker(started=FromWorker.Started(job_id=job.frame.job_id, epoch=job.frame.epoch)))

    def _misbehave(self, job: _Job, done: int) -> None:
        if done < min(2, job.frame.generate.steps):
            return
        marker = self._files / f"crashed-{job.frame.job_id}"
        if job.says("crash once") and not marker.exists():
            marker.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        if job.says("crash"):
            os.kill(os.getpid(), signal.SIGKILL)
        if job.says("hang"):
            threading.Event().wait()

    def _finish_if_done(self, job: _Job) -> None:
        message = job.frame
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
        spec = job.frame.generate
        provenance = _provenance(job, index)
        done = FromWorker.ImageDone(
            job_id=job.frame.job_id,
            epoch=job.frame.epoch,
            index=index,
            seed=spec.seed + index,
            data=self._picture(job, index, spec.format, provenance=provenance),
            media_type=_MEDIA[spec.format][1],
            width=spec.width,
            height=spec.height,
            provenance=provenance,
            denoise_s=0.001 * spec.steps,
        )
        job.left.remove(index)
        self._send(FromWorker(image=done))

    def _picture(
        self, job: _Job, index: int, format_: jobs_pb2.ImageFormat.ValueType, *, side: int = 0, provenance: str = ""
    ) -> bytes:
        spec, seed = job.frame.generate, job.frame.generate.seed + index
        colour = (seed % 256, seed // 256 % 256, seed // 65536 % 256)
        size = (side, side) if side else (spec.width, spec.height)
        notes = PngImagePlugin.PngInfo()
        notes.add_text("craft", provenance)
        exif = Image.Exif()
        exif.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.UserComment] = b"ASCII\0\0\0" + provenance.encode("ascii")
        more = {"pnginfo": notes} if format_ == jobs_pb2.IMAGE_FORMAT_PNG else {"exif": exif}
        stream = io.BytesIO()
        Image.new("RGB", size, colour).save(stream, _MEDIA[format_][0], **more)
        return stream.getvalue()

    def _tell_stats(self) -> None:
        stats = FromWorker.Stats(
            predict_calls=self._calls,
            rows=sum(len(job.left) for job in self._jobs.values()),
            progress=self._progress,
            doing="step" if self._jobs else "training" if self._training else "idle",
        )
        self._send(FromWorker(stats=stats))


def _provenance(job: _Job, index: int) -> str:
    spec = job.frame.generate
    known = json.loads(job.frame.provenance) if job.frame.provenance else {}
    made = {
        "prompt": spec.prompt,
        "negative_prompt": spec.negative_prompt,
        "model": {"name": job.frame.model.name, "sha256": job.frame.model.sha256},
        "loras": [{"id": use.lora, "name": use.name, "sha256": use.sha256, "weight": use.weight} for use in spec.loras],
        "width": spec.width,
        "height": spec.height,
        "steps": spec.steps,
        "guidance_scale": spec.guidance_scale,
        "seed": spec.seed + index,
        "index": index,
        "sampler": spec.sampler,
        "format": _MEDIA[spec.format][0].lower(),
        "deterministic": spec.deterministic,
        "device": "fake",
        "precision": "fp32",
        "versions": {"craft": __version__},
    }
    return json.dumps(known | made)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m craftd.fakeworker", description="Pretends to draw.")
    parser.add_argument("--fd", type=int, required=True)
    parser.add_argument("--files", type=Path, required=True)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--max-rows", type=int, default=32)
    given = parser.parse_args()
    device = "cpu" if given.device == "auto" else given.device
    FakeWorker(socket.socket(fileno=given.fd), given.files, given.max_rows, device).run()


if __name__ == "__main__":
    main()
