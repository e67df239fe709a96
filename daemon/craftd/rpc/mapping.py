"""Messages <-> dataclasses."""

from __future__ import annotations

from collections.abc import Sequence

from craft_protos import daemon_pb2, formats, images_pb2, jobs_pb2, loras_pb2, models_pb2
from craft_protos.reasons import invalid
from google.protobuf.timestamp_pb2 import Timestamp

from craftd.control import DaemonStatus, WorkerStatus
from craftd.images.image import Image
from craftd.jobs import events
from craftd.jobs.job import (
    FAIL,
    SKIP,
    GenerateRequest,
    GenerateSpec,
    Job,
    JobRequest,
    JobView,
    LoraPlan,
    LoraWish,
    Plan,
    Priority,
    Request,
    State,
    TrainRequest,
)
from craftd.jobs.training import wire as training
from craftd.jobs.training.spec import TrainSpec
from craftd.jobs.wire import lora_use, priority_message, spec_message
from craftd.loras.lora import Lora, Progress
from craftd.models.model import Defaults, ModelView
from craftd.models.model import Progress as ModelProgress

_STATES = {
    State.QUEUED: jobs_pb2.JOB_STATE_QUEUED,
    State.RUNNING: jobs_pb2.JOB_STATE_RUNNING,
    State.SUCCEEDED: jobs_pb2.JOB_STATE_SUCCEEDED,
    State.FAILED: jobs_pb2.JOB_STATE_FAILED,
    State.CANCELLED: jobs_pb2.JOB_STATE_CANCELLED,
}
_STATES_BACK = {number: state for state, number in _STATES.items()}
_PRIORITIES_BACK = {
    jobs_pb2.PRIORITY_UNSPECIFIED: Priority.INTERACTIVE,
    jobs_pb2.PRIORITY_INTERACTIVE: Priority.INTERACTIVE,
    jobs_pb2.PRIORITY_BATCH: Priority.BATCH,
}
_MISSING_BACK = {
    jobs_pb2.LORA_MISSING_UNSPECIFIED: FAIL,
    jobs_pb2.LORA_MISSING_FAIL: FAIL,
    jobs_pb2.LORA_MISSING_SKIP: SKIP,
}
_WORKER_STATES = {
    "STARTING": daemon_pb2.WORKER_STATE_STARTING,
    "LOADING": daemon_pb2.WORKER_STATE_LOADING,
    "BUSY": daemon_pb2.WORKER_STATE_BUSY,
    "IDLE": daemon_pb2.WORKER_STATE_IDLE,
}


def job_request(message: jobs_pb2.CreateJobRequest) -> Request:
    """Raises INVALID_FIELD for what has no counterpart."""
    if message.WhichOneof("spec") is None:
        raise invalid("generate", "is missing", "say what to draw")
    if message.priority not in _PRIORITIES_BACK:
        raise invalid("priority", f"{message.priority} is not a priority")
    if message.HasField("train"):
        return TrainRequest(
            request_id=message.request_id,
            train=training.wish(message.train),
            expire_time=_seconds(message.expire_time) if message.HasField("expire_time") else None,
            priority=_PRIORITIES_BACK[message.priority],
            lease=message.lease,
        )
    return JobRequest(
        request_id=message.request_id,
        generate=_generate_request(message.generate),
        expire_time=_seconds(message.expire_time) if message.HasField("expire_time") else None,
        priority=_PRIORITIES_BACK[message.priority],
        lease=message.lease,
        public=message.public,
    )


def states(numbers: list[int]) -> tuple[State, ...]:
    for number in numbers:
        if number not in _STATES_BACK:
            raise invalid("states", f"{number} is not a state")
    return tuple(_STATES_BACK[jobs_pb2.JobState.ValueType(number)] for number in numbers)


def job(view: JobView) -> jobs_pb2.Job:
    """Without what GetImage tells of the images, so that a job of many stays a small message."""
    one = view.job
    message = jobs_pb2.Job(
        id=one.id,
        state=_STATES[one.state],
        generate=None if one.is_training else spec_message(one.drawing),
        train=training.spec_message(one.training) if one.is_training else None,
        lora=one.lora,
        attempts=one.attempts,
        images=[image(made, is_brief=True) for made in view.images],
        create_time=timestamp(one.create_time),
        timings=_timings(one),
        priority=priority_message(one.priority),
        lease=one.lease,
        position=view.position,
        request_id=one.request_id,
        public=one.public,
        owner=one.owner,
    )
    if one.error is not None:
        message.error.CopyFrom(
            jobs_pb2.JobError(reason=one.error.reason, message=one.error.message, hint=one.error.hint)
        )
    if one.start_time is not None:
        message.start_time.CopyFrom(timestamp(one.start_time))
    if one.finish_time is not None:
        message.finish_time.CopyFrom(timestamp(one.finish_time))
    return message


def plan(one: Plan) -> jobs_pb2.JobPlan:
    return jobs_pb2.JobPlan(
        generate=spec_message(one.spec) if isinstance(one.spec, GenerateSpec) else None,
        train=training.spec_message(one.spec) if isinstance(one.spec, TrainSpec) else None,
        notes=one.notes,
        model_loaded=one.model_loaded,
        load_bytes=one.load_bytes,
        evicted_models=one.evicted_models,
        queue_position=one.queue_position,
        device=one.device,
        loras=[_lora_plan(lora) for lora in one.loras],
    )


def event(one: events.Event) -> jobs_pb2.JobEvent:  # noqa: PLR0911 - one for each kind
    kinds = jobs_pb2.JobEvent
    match one:
        case events.Snapshot(view):
            return kinds(snapshot=job(view))
        case events.Queued(position, why):
            return kinds(queued=kinds.Queued(position=position, why=why))
        case events.Loading(model, done, total):
            return kinds(loading=kinds.Loading(model=model, bytes_done=done, bytes_total=total))
        case events.Started(attempt, device, notice):
            return kinds(started=kinds.Started(attempt=attempt, device=device, notice=notice))
        case events.Step(index, step, of, preview):
            return kinds(step=kinds.Step(index=index, step=step, of=of, preview=preview))
        case events.ImageMade(made):
            return kinds(image=image(made))
        case events.Preparing(what, done, of):
            return kinds(preparing=kinds.Preparing(what=what, done=done, of=of))
        case events.Trained(trained):
            return kinds(training=training.step_message(trained))
        case events.SampleMade(sample, data):
            return kinds(sample=training.sample_message(sample, data))
        case events.Finished(view):
            return kinds(finished=kinds.Finished(job=job(view)))


def image(one: Image, *, is_brief: bool = False) -> images_pb2.Image:
    return images_pb2.Image(
        id=one.id,
        job_id=one.job_id,
        index=one.index,
        seed=one.seed,
        sha256=one.sha256,
        media_type=one.media_type,
        width=one.width,
        height=one.height,
        size_bytes=one.size_bytes,
        create_time=timestamp(one.create_time),
        model=one.model,
        prompt="" if is_brief else one.prompt,
        provenance="" if is_brief else one.provenance,
    )


def model(view: ModelView, base: str, loras: Sequence[str]) -> models_pb2.Model:
    """`base`: what its LoRAs are sorted by; `loras`: the names of those that fit."""
    one = view.model
    return models_pb2.Model(
        name=one.name,
        family=one.family,
        pipeline=one.pipeline,
        size_bytes=one.size_bytes,
        sha256=view.sha256,
        precision=one.precision,
        built_in=one.built_in,
        loaded_on=view.loaded_on,
        defaults=_defaults(one.defaults),
        refused=one.refused_why,
        aliases=view.aliases,
        source=_text(one.source),
        loras=loras,
        architecture=base or one.family,
    )


def lora(one: Lora, *, is_whole: bool = False) -> loras_pb2.Lora:
    """`is_whole`: with what its file says about itself."""
    found = one.findings
    return loras_pb2.Lora(
        id=one.id,
        name=one.name,
        base=found.base,
        format=found.format,
        rank=found.rank,
        layers=found.layers,
        adapts_text_encoder=found.adapts_text_encoder,
        has_conv=found.has_conv,
        is_dora=found.is_dora,
        weight=one.weight,
        trigger=one.trigger,
        sha256=one.sha256,
        autov2=one.autov2,
        ss_hash=one.ss_hash,
        file_name=_text(one.file_name),
        size_bytes=one.size_bytes,
        source=_text(one.place.source),
        create_time=timestamp(one.create_time),
        metadata=found.metadata if is_whole else {},
    )


def import_progress(one: Progress | ModelProgress) -> models_pb2.ImportProgress:
    return models_pb2.ImportProgress(doing=one.doing, bytes_done=one.bytes_done, bytes_total=one.bytes_total)


def daemon_status(one: DaemonStatus) -> daemon_pb2.DaemonStatus:
    return daemon_pb2.DaemonStatus(
        pid=one.pid,
        version=one.version,
        address=one.address,
        start_time=timestamp(one.start_time),
        workers=[_worker_status(worker) for worker in one.workers],
        queued=one.queued,
        running=one.running,
        draining=one.draining,
        rss_bytes=one.rss_bytes,
        warnings=one.warnings,
        listen=one.listen,
        http=one.http,
    )


def timestamp(seconds: float) -> Timestamp:
    whole = int(seconds // 1)
    return Timestamp(seconds=whole, nanos=min(999_999_999, round((seconds - whole) * 1e9)))


def _generate_request(message: jobs_pb2.GenerateSpec) -> GenerateRequest:
    image_format = formats.name_of(message.format)
    if image_format is None:
        raise invalid("format", f"{message.format} is not an image format")
    if message.lora_missing not in _MISSING_BACK:
        raise invalid("lora_missing", f"{message.lora_missing} is neither fail nor skip")
    return GenerateRequest(
        prompt=message.prompt,
        negative_prompt=message.negative_prompt,
        model=message.model,
        width=message.width if message.HasField("width") else None,
        height=message.height if message.HasField("height") else None,
        steps=message.steps if message.HasField("steps") else None,
        guidance_scale=message.guidance_scale if message.HasField("guidance_scale") else None,
        seed=message.seed if message.HasField("seed") else None,
        count=message.count,
        sampler=message.sampler,
        format=image_format,
        deterministic=message.deterministic,
        indices=tuple(message.indices),
        loras=tuple(LoraWish(use.lora, use.weight if use.HasField("weight") else None) for use in message.loras),
        lora_missing=_MISSING_BACK[message.lora_missing],
        trigger_words=message.trigger_words,
        default_model=message.default_model,
    )


def _lora_plan(one: LoraPlan) -> jobs_pb2.LoraPlan:
    return jobs_pb2.LoraPlan(use=lora_use(one.use), fits=not one.why_not, why_not=one.why_not)


def _text(path: str) -> str:
    """A path need not be text."""
    return path.encode("utf-8", "replace").decode()


def _seconds(message: Timestamp) -> float:
    return message.seconds + message.nanos / 1e9


def _timings(one: Job) -> jobs_pb2.Timings:
    return jobs_pb2.Timings(queued_s=one.queued_s, load_s=one.load_s, denoise_s=one.denoise_s, total_s=one.total_s)


def _defaults(one: Defaults) -> models_pb2.ModelDefaults:
    return models_pb2.ModelDefaults(
        width=one.width,
        height=one.height,
        steps=one.steps,
        guidance_scale=one.guidance_scale,
        sampler=one.sampler,
    )


def _worker_status(one: WorkerStatus) -> daemon_pb2.WorkerStatus:
    return daemon_pb2.WorkerStatus(
        pid=one.pid,
        device=one.device,
        state=_WORKER_STATES[one.state],
        models=one.models,
        rss_bytes=one.rss_bytes,
        device_bytes=one.device_bytes,
        restarts=one.restarts,
        predict_calls=one.predict_calls,
    )
