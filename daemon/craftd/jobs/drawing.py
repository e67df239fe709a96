"""How a job that draws is done: its LoRAs' and pictures' files go to a worker, the images that come back are stored."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path

from craft_protos.dispatch import Dispatch, File, ModelManifest
from craft_protos.reasons import CraftError
from craft_protos.worker_pb2 import FromWorker

from craftd.inputs.service import InputService
from craftd.jobs import events, wire
from craftd.jobs.events import Hub
from craftd.jobs.job import Job
from craftd.loras.service import LoraService
from craftd.models.service import ModelService
from craftd.scheduler.active_job import ActiveJob, Assignment, Storing
from craftd.scheduler.job_writer import JobWriter
from craftd.workers.dispatches import ActiveDispatch

_log = logging.getLogger("craft.jobs")


class Drawing:
    """The scheduler's Work for GENERATE."""

    def __init__(
        self, models: ModelService, loras: LoraService, inputs: InputService, writer: JobWriter, hub: Hub
    ) -> None:
        self._models = models
        self._loras = loras
        self._inputs = inputs
        self._writer = writer
        self._hub = hub

    def open(self, active: ActiveJob) -> None:
        """All that is known of it is in `active`."""

    async def find_rest(self, active: ActiveJob) -> None:
        """What has been drawn is stored by itself."""

    async def prepare(self, active: ActiveJob) -> Assignment:
        """Its LoRAs, pictures, control models, upscalers and refiner.

        Raises UNKNOWN_LORA, UNKNOWN_INPUT, UNKNOWN_MODEL, UNSUPPORTED_MODEL, NO_INPUT, CORRUPT_FILE.
        """
        spec = active.job.drawing
        meant = [self._loras.of_job(use, active.job.owner) for use in spec.loras]
        loras = [await self._loras.verified(lora.id) for lora in meant]
        inputs = await self._pictures(active.job)
        controls = [await self._models.control(name) for name in spec.control_models]
        later = [await self._models.manifest(name) for name in spec.later_models]

        def dispatch(to: ActiveDispatch, model: ModelManifest) -> Dispatch:
            asked = wire.drawing(
                active.job, to.epoch, tuple(sorted(to.indices)), model, loras, preview_every=to.preview_every
            )
            return replace(asked, inputs=tuple(inputs), controls=tuple(controls), later_models=tuple(later))

        files = {lora.sha256: lora.place.path for lora in loras}
        files |= {file.sha256: path for file, path in inputs.items()}
        beside = {key: path for one in (*controls, *later) for key, path in one.places.items()}
        return Assignment(files | beside, dispatch)

    async def _pictures(self, job: Job) -> dict[File, Path]:
        """Those that its spec names, each once. Raises UNKNOWN_INPUT."""
        spec, found = job.drawing, dict[File, Path]()
        references = (("reference", one) for one in spec.references)
        controls = (("control picture", one) for one in spec.controls)
        for name, one in (("start picture", spec.start), ("mask", spec.mask), *references, *controls):
            if one is not None and one.sha256 not in {file.sha256 for file in found}:
                known, path = await self._inputs.file(job.owner, one.sha256, name)
                found[File(name, known.sha256, known.size_bytes)] = path
        return found

    def receive(self, active: ActiveJob, frame: FromWorker) -> Storing | None:
        match frame.WhichOneof("frame"):
            case "step":
                step = events.Step(frame.step.index, frame.step.step, frame.step.of, frame.step.preview)
                self._hub.publish(active.job.id, step)
            case "image":
                return self._receive_image(active, frame.image)
        return None

    def is_complete(self, active: ActiveJob) -> bool:
        if active.remaining:
            return False
        return active.storing > 0 or set(active.job.spec.wanted) <= {*active.images, *active.removed}

    def rewind(self, active: ActiveJob) -> None:
        """What was received is kept."""

    def close(self, active: ActiveJob) -> None:
        """Nothing of it is kept here."""

    def _receive_image(self, active: ActiveJob, frame: FromWorker.ImageDone) -> Storing | None:
        """An image counts as drawn while it is being stored."""
        dispatch = active.part(frame.epoch)
        if dispatch is None or frame.index not in dispatch.indices:
            return None
        dispatch.indices.discard(frame.index)
        active.received.add(frame.index)
        active.account(frame.load_s, frame.denoise_s)
        return self._store(active, frame)

    async def _store(self, active: ActiveJob, frame: FromWorker.ImageDone) -> Job | None:
        made = wire.image(active.job, frame)
        try:
            image, job = await self._writer.add_image(made, frame.data, active.job, active.succeeded())
        except CraftError as exc:
            if exc.reason != "JOB_FINISHED":
                raise
            _log.info("an image came too late", extra={"job": made.job_id, "index": made.index})
            return None
        active.images[image.index] = image
        self._hub.publish(job.id, events.ImageMade(image))
        return job if job.state.is_final else None
