"""Jobs as the worker's frames have them."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable

from craft_protos import jobs_pb2
from craft_protos.formats import FORMATS
from craft_protos.reasons import REASONS
from craft_protos.version import __version__
from craft_protos.worker_pb2 import FromWorker, LoraFile, ModelManifest, ToWorker

from craftd.images.files import sha256_of
from craftd.images.image import Image
from craftd.jobs.job import FAIL, SKIP, Error, GenerateSpec, Job, LoraUse, Priority
from craftd.loras.lora import Lora
from craftd.store import ids

_PRIORITIES = {Priority.INTERACTIVE: jobs_pb2.PRIORITY_INTERACTIVE, Priority.BATCH: jobs_pb2.PRIORITY_BATCH}


_MISSING = {FAIL: jobs_pb2.LORA_MISSING_FAIL, SKIP: jobs_pb2.LORA_MISSING_SKIP}


def submit(
    job: Job,
    epoch: int,
    indices: tuple[int, ...],
    manifest: ModelManifest,
    loras: Iterable[Lora] = (),
    *,
    preview_every: int,
) -> ToWorker:
    """`loras`: in the order of the spec's."""
    frame = ToWorker.Submit(
        job_id=job.id,
        epoch=epoch,
        generate=spec_message(job.drawing),
        indices=indices,
        model=manifest,
        priority=_PRIORITIES[job.priority],
        owner=job.owner,
        provenance=_provenance(job, loras),
        preview_every=preview_every,
        loras=[LoraFile(id=lora.id, name=lora.name, sha256=lora.sha256, size_bytes=lora.size_bytes) for lora in loras],
    )
    return ToWorker(submit=frame)


def _provenance(job: Job, loras: Iterable[Lora]) -> str:
    """What the worker does not know."""
    known: dict[str, object] = {"craft": __version__, "job": job.id, "count": job.drawing.count}
    if job.drawing.loras:
        known["lora_files"] = {lora.sha256: lora.file_name for lora in loras}
    return json.dumps(known)


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
        prompt=job.drawing.prompt,
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
        format=FORMATS[spec.format].number,
        deterministic=spec.deterministic,
        indices=spec.indices,
        loras=[lora_use(use) for use in spec.loras],
        lora_missing=_MISSING[spec.lora_missing],
    )


def lora_use(use: LoraUse) -> jobs_pb2.LoraUse:
    return jobs_pb2.LoraUse(lora=use.lora, weight=use.weight, name=use.name, sha256=use.sha256)


def priority_message(priority: Priority) -> jobs_pb2.Priority.ValueType:
    return _PRIORITIES[priority]
