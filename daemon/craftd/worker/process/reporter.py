"""What the worker tells the front; the other place, besides channel.py, that knows protobuf."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

from craft_protos.dispatch import Dispatch
from craft_protos.jobs_pb2 import JobError
from craft_protos.reasons import CraftError
from craft_protos.training_pb2 import TrainingSample, TrainingStep
from craft_protos.worker_pb2 import FromWorker

from craftd.worker.process.channel import Channel
from craftd.worker.training.stored import Stored


@dataclass(frozen=True)
class Picture:
    """A finished image's file."""

    data: bytes
    media_type: str
    provenance: str
    width: int
    height: int


@dataclass(frozen=True)
class Progress:
    """One step of a training."""

    step: int
    of: int
    loss: float
    learning_rate: float
    seconds_left: float
    validation_loss: float | None = None


class Reporter:
    """Builds and sends frames; from any thread."""

    def __init__(self, channel: Channel, warnings: Sequence[str] = ()) -> None:
        self._send = channel.send
        self._warnings = warnings  # about the device: every job's start says them

    def hello(self, frame: FromWorker.Hello) -> None:
        self._send(FromWorker(hello=frame))

    def loading(self, model: str, bytes_done: int, bytes_total: int) -> None:
        self._send(FromWorker(loading=FromWorker.Loading(model=model, bytes_done=bytes_done, bytes_total=bytes_total)))

    def loaded(self, model: str, resident_bytes: int, seconds: float, notice: str) -> None:
        frame = FromWorker.Loaded(model=model, resident_bytes=resident_bytes, seconds=seconds, notice=notice)
        self._send(FromWorker(loaded=frame))

    def unloaded(self, model: str, why: str) -> None:
        self._send(FromWorker(unloaded=FromWorker.Unloaded(model=model, why=why)))

    def load_failed(self, model: str, error: CraftError) -> None:
        self._send(FromWorker(load_failed=FromWorker.LoadFailed(model=model, error=_error(error))))

    def started(self, job: Dispatch, notice: str) -> None:
        said = "; ".join(filter(None, (notice, *self._warnings)))
        self._send(FromWorker(started=FromWorker.Started(job_id=job.job_id, epoch=job.epoch, notice=said)))

    def step(self, job: Dispatch, index: int, step: int, of: int, preview: bytes) -> None:
        frame = FromWorker.Step(job_id=job.job_id, epoch=job.epoch, index=index, step=step, of=of, preview=preview)
        self._send(FromWorker(step=frame))

    def image(self, job: Dispatch, index: int, picture: Picture, load_s: float, denoise_s: float) -> None:
        frame = FromWorker.ImageDone(
            job_id=job.job_id,
            epoch=job.epoch,
            index=index,
            seed=job.drawing.seed + index,
            data=picture.data,
            media_type=picture.media_type,
            width=picture.width,
            height=picture.height,
            provenance=picture.provenance,
            load_s=load_s,
            denoise_s=denoise_s,
        )
        self._send(FromWorker(image=frame))

    def done(self, job_id: str, epoch: int, *, cancelled: bool) -> None:
        self._send(FromWorker(done=FromWorker.JobDone(job_id=job_id, epoch=epoch, cancelled=cancelled)))

    def failed(self, job: Dispatch, error: CraftError) -> None:
        self._send(FromWorker(failed=FromWorker.JobFailed(job_id=job.job_id, epoch=job.epoch, error=_error(error))))

    def preparing(self, job: Dispatch, what: str, done: int, of: int) -> None:
        frame = FromWorker.Preparing(job_id=job.job_id, epoch=job.epoch, what=what, done=done, of=of)
        self._send(FromWorker(preparing=frame))

    def trained(self, job: Dispatch, progress: Progress) -> None:
        done = TrainingStep(**asdict(progress))
        self._send(FromWorker(training=FromWorker.Trained(job_id=job.job_id, epoch=job.epoch, step=done)))

    def sample(self, job: Dispatch, step: int, prompt: str, seed: int, png: bytes) -> None:
        drawn = TrainingSample(step=step, prompt=prompt, seed=seed, media_type="image/png", data=png)
        self._send(FromWorker(sample=FromWorker.Sample(job_id=job.job_id, epoch=job.epoch, sample=drawn)))

    def checkpoint(self, job: Dispatch, step: int, file: Stored) -> None:
        frame = FromWorker.Checkpoint(
            job_id=job.job_id, epoch=job.epoch, step=step, sha256=file.sha256, size_bytes=file.size_bytes
        )
        self._send(FromWorker(checkpoint=frame))

    def lora(self, job: Dispatch, file: Stored, preview: bytes) -> None:
        frame = FromWorker.LoraMade(
            job_id=job.job_id, epoch=job.epoch, sha256=file.sha256, size_bytes=file.size_bytes, preview=preview
        )
        self._send(FromWorker(lora=frame))

    def stats(self, frame: FromWorker.Stats) -> None:
        self._send(FromWorker(stats=frame))


def _error(error: CraftError) -> JobError:
    return JobError(reason=error.reason, message=error.message, hint=error.hint)
