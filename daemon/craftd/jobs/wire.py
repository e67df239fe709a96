"""Jobs as the worker's frames have them."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable
from functools import lru_cache

from craft_protos import jobs_pb2
from craft_protos.codec import to_message
from craft_protos.dispatch import Dispatch, File, ModelManifest
from craft_protos.generate import GenerateSpec
from craft_protos.reasons import REASONS
from craft_protos.version import __version__
from craft_protos.worker_pb2 import FromWorker

from craftd.images.image import Image
from craftd.jobs.job import Error, Job, Priority
from craftd.loras.lora import Lora
from craftd.store import ids

_PRIORITIES = {Priority.INTERACTIVE: jobs_pb2.PRIORITY_INTERACTIVE, Priority.BATCH: jobs_pb2.PRIORITY_BATCH}


def drawing(
    job: Job, epoch: int, indices: tuple[int, ...], model: ModelManifest, loras: Iterable[Lora], *, preview_every: int
) -> Dispatch:
    """`loras`: in the order of the spec's."""
    known: dict[str, object] = {"craft": __version__, "job": job.id, "count": job.drawing.count}
    if job.drawing.loras:
        known["lora_files"] = {lora.sha256: lora.file_name for lora in loras}
    return Dispatch(
        job_id=job.id,
        epoch=epoch,
        spec=job.drawing,
        model=model,
        indices=indices,
        files=tuple(File(lora.name, lora.sha256, lora.size_bytes) for lora in loras),
        priority=job.priority.name.lower(),
        owner=job.owner,
        provenance=json.dumps(known),
        preview_every=preview_every,
        public=job.public,
    )


def error(message: jobs_pb2.JobError) -> Error:
    """A worker's error; a reason that this craft doesn't know becomes JOB_FAILED."""
    reason = message.reason if message.reason in REASONS else "JOB_FAILED"
    return Error(reason, message.message or "the job failed", message.hint)


def image(job: Job, frame: FromWorker.ImageDone) -> Image:
    """One of the job's images, with an id of its own; its hash is taken where it is saved."""
    return Image(
        id=ids.new_image_id(),
        job_id=job.id,
        index=frame.index,
        seed=frame.seed,
        sha256="",
        media_type=frame.media_type,
        width=frame.width,
        height=frame.height,
        size_bytes=len(frame.data),
        create_time=time.time(),
        model=job.spec.model,
        prompt=job.drawing.of_image(frame.index).prompt,
        provenance=frame.provenance,
        is_public=job.public,
    )


@lru_cache(maxsize=1024)  # each job's is asked for some four times
def spec_message(spec: GenerateSpec) -> jobs_pb2.GenerateSpec:
    """Not to be changed: others have the same."""
    return to_message(spec, jobs_pb2.GenerateSpec())


def priority_message(priority: Priority) -> jobs_pb2.Priority.ValueType:
    return _PRIORITIES[priority]
