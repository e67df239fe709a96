"""Jobs as the worker's frames have them."""

from __future__ import annotations

import json
import time

from craft_protos import jobs_pb2
from craft_protos.reasons import REASONS
from craft_protos.version import __version__
from craft_protos.worker_pb2 import FromWorker, ModelManifest, ToWorker

from craftd.images.files import sha256_of
from craftd.images.image import Image
from craftd.jobs.job import Error, GenerateSpec, Job, Priority
from craftd.store import ids

_FORMATS = {
    "png": jobs_pb2.IMAGE_FORMAT_PNG,
    "jpeg": jobs_pb2.IMAGE_FORMAT_JPEG,
    "webp": jobs_pb2.IMAGE_FORMAT_WEBP,
}
_PRIORITIES = {Priority.INTERACTIVE: jobs_pb2.PRIORITY_INTERACTIVE, Priority.BATCH: jobs_pb2.PRIORITY_BATCH}


def submit(job: Job, epoch: int, indices: tuple[int, ...], manifest: ModelManifest, preview_every: int) -> ToWorker:
    frame = ToWorker.Submit(
        job_id=job.id,
        epoch=epoch,
        generate=spec_message(job.spec),
        indices=indices,
        model=manifest,
        priority=_PRIORITIES[job.priority],
        owner=job.owner,
        provenance=json.dumps({"craft": __version__, "job": job.id, "count": job.spec.count}),
        preview_every=preview_every,
    )
    return ToWorker(submit=frame)


def cancel(job_id: str, epoch: int) -> ToWorker:
    return ToWorker(cancel=ToWorker.Cancel(job_id=job_id, epoch=epoch))


def preview(job_id: str, every: int) -> ToWorker:
    return ToWorker(preview=ToWorker.Preview(job_id=job_id, every=every))


def error(message: jobs_pb2.JobError) -> Error:
    """A worker's error; a reason that this craft doesn't know becomes JOB_FAILED."""
    reason = message.reason if message.reason in REASONS else "JOB_FAILED"
    return Error(reason, message.message or "the job failed", message.hint)


def image(job: Job, frame: FromWorker.ImageDone) -> Image:
    """One of the job's images, with an id of its own."""
    return Image(
        id=ids.new_image_id(),
        job_id=job.id,
        index=frame.index,
        seed=frame.seed,
        sha256=sha256_of(frame.data),
        media_type=frame.media_type,
        width=frame.width,
        height=frame.height,
        size_bytes=len(frame.data),
        create_time=time.time(),
        model=job.spec.model,
        prompt=job.spec.prompt,
        provenance=frame.provenance,
    )


def spec_message(spec: GenerateSpec) -> jobs_pb2.GenerateSpec:
    return jobs_pb2.GenerateSpec(
        prompt=spec.prompt,
        negative_prompt=spec.negative_prompt,
        model=spec.model,
        width=spec.width,
        height=spec.height,
        steps=spec.steps,
        guidance_scale=spec.guidance_scale,
        seed=spec.seed,
        count=spec.count,
        sampler=spec.sampler,
        format=_FORMATS[spec.format],
        deterministic=spec.deterministic,
        indices=spec.indices,
    )


def priority_message(priority: Priority) -> jobs_pb2.Priority.ValueType:
    return _PRIORITIES[priority]
