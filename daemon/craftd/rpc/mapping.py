"""Messages <-> dataclasses."""

from __future__ import annotations

from collections.abc import Sequence

from craft_protos import daemon_pb2, images_pb2, jobs_pb2, loras_pb2, models_pb2
from craft_protos.codec import from_message, to_message
from craft_protos.generate import GenerateSpec
from craft_protos.job_request import JobRequest
from craft_protos.lora import LoraRef
from craft_protos.provenance import AppliedLora
from craft_protos.reasons import CraftError, invalid
from craft_protos.train import TrainSpec
from google.protobuf.timestamp_pb2 import Timestamp

from craftd.bot_process import BotState, BotStatus
from craftd.control import DaemonStatus, WorkerStatus
from craftd.hub.repository import DEFAULT_REVISION, Address
from craftd.images.image import Image
from craftd.jobs import events
from craftd.jobs.fits.service import LoraFit
from craftd.jobs.job import Job, JobView, Plan, State
from craftd.jobs.wire import priority_message, spec_message
from craftd.keys.caller import Caller
from craftd.loras.lora import Lora, Progress
from craftd.models.catalogue import Entry
from craftd.models.folders import FolderEntry
from craftd.models.model import Defaults, ModelView, PullPlan
from craftd.models.model import Progress as ModelProgress
from craftd.models.part import PartView
from craftd.training import wire as training

_STATES = {
    State.QUEUED: jobs_pb2.JOB_STATE_QUEUED,
    State.RUNNING: jobs_pb2.JOB_STATE_RUNNING,
    State.SUCCEEDED: jobs_pb2.JOB_STATE_SUCCEEDED,
    State.FAILED: jobs_pb2.JOB_STATE_FAILED,
    State.CANCELLED: jobs_pb2.JOB_STATE_CANCELLED,
}
_STATES_BACK = {number: state for state, number in _STATES.items()}
_WORKER_STATES = {
    "STARTING": daemon_pb2.WORKER_STATE_STARTING,
    "LOADING": daemon_pb2.WORKER_STATE_LOADING,
    "BUSY": daemon_pb2.WORKER_STATE_BUSY,
    "IDLE": daemon_pb2.WORKER_STATE_IDLE,
    "OFF": daemon_pb2.WORKER_STATE_OFF,
    "AWAY": daemon_pb2.WORKER_STATE_AWAY,
}

_BOT_STATES = {
    BotState.STARTING: daemon_pb2.BOT_STATE_STARTING,
    BotState.RUNNING: daemon_pb2.BOT_STATE_RUNNING,
    BotState.TROUBLED: daemon_pb2.BOT_STATE_TROUBLED,
    BotState.ENDED: daemon_pb2.BOT_STATE_ENDED,
}


def job_request(message: jobs_pb2.CreateJobRequest) -> JobRequest:
    """Raises INVALID_FIELD for what has no counterpart."""
    if message.WhichOneof("spec") is None:
        raise invalid("generate", "is missing", "say what to draw")
    return from_message(JobRequest, message)


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
        why_waiting=view.why_waiting,
        worker=view.worker,
        placed=view.placed,
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
        need_bytes=one.need.peak_bytes if one.need else 0,
        device_bytes=one.need.device_bytes if one.need else 0,
        offload=one.need.rung if one.need else "",
        result_width=one.result_size[0],
        result_height=one.result_size[1],
        pace=jobs_pb2.Pace(draw_s=one.pace.draw_s, load_s=one.pace.load_s, jobs=one.pace.jobs) if one.pace else None,
        lora_bytes=one.lora_bytes,
        loras=[_lora_plan(*found) for found in zip(_refs(one.spec), one.fits, one.obstacles, strict=True)],
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
        loras=[_applied(lora) for lora in one.loras],
    )


def _applied(one: AppliedLora) -> images_pb2.AppliedLora:
    return images_pb2.AppliedLora(
        lora=one.id, name=one.name, sha256=one.sha256, weight=one.weight, matched=one.matched, total=one.total
    )


def model(view: ModelView, loras: Sequence[str], caller: Caller) -> models_pb2.Model:
    """For that caller. `loras`: the names of those that fit."""
    one = view.model
    return models_pb2.Model(
        name=one.name,
        family=one.architecture.family,
        pipeline=one.pipeline,
        size_bytes=one.size_bytes,
        sha256=view.sha256,
        precision=one.precision,
        built_in=one.built_in,
        loaded_on=view.loaded_on,
        defaults=_defaults(one.defaults),
        refused=one.refused_why,
        aliases=view.aliases,
        source=_source(one.source, caller),
        loras=loras,
        architecture=one.architecture.id or one.architecture.family,
        prediction="" if one.prediction is None else one.prediction.kind,
        prediction_evidence="" if one.prediction is None else one.prediction.why,
        granularity=one.sizes.granularity,
        largest_side=one.sizes.largest_side if one.sizes.is_limited else 0,
        parts=[models_pb2.UsedPart(component=component, part=part) for component, part in one.parts],
        memory_precision=one.memory_precision,
    )


def part(view: PartView, caller: Caller) -> models_pb2.Part:
    """For that caller."""
    one = view.part
    return models_pb2.Part(
        name=one.name,
        kind=one.kind,
        description=one.shown,
        size_bytes=view.size_bytes,
        sha256=one.sha256,
        source=_source(one.source, caller),
        used_by=view.used_by,
    )


def pull_plan(one: PullPlan) -> models_pb2.PullPlan:
    return models_pb2.PullPlan(
        source=one.source,
        files=one.files,
        download_bytes=one.download_bytes,
        free_bytes=one.free_bytes,
        entry=None if one.entry is None else catalogue_entry(one.entry),
        device_bytes=one.device_bytes,
        precision=one.precision,
        unasked=one.unasked,
    )


def catalogue_entry(one: Entry) -> models_pb2.CatalogueEntry:
    return models_pb2.CatalogueEntry(
        name=one.name,
        title=one.title,
        repository=one.repository,
        file=one.file,
        architecture=one.architecture_name,
        license=one.license,
        gated=one.gated,
        transformer_billions=one.network_billions,
        rest_billions=one.rest_billions,
        download_bytes=one.download_bytes,
        memory=[
            models_pb2.PrecisionMemory(
                precision=of.precision, whole_bytes=of.whole_bytes, network_bytes=of.network_bytes
            )
            for of in one.memory
        ],
        steps=one.steps,
        guidance_scale=one.guidance_scale,
        note=one.note,
    )


def folder_entry(one: FolderEntry) -> models_pb2.FolderEntry:
    return models_pb2.FolderEntry(
        path=one.shown, what=one.what, description=one.description, name=one.name, state=one.state, uses=one.uses
    )


def address(hub: models_pb2.HubSource) -> Address:
    return Address(hub.repository, hub.revision or DEFAULT_REVISION, hub.token)


def lora(one: Lora, caller: Caller, *, is_whole: bool = False, fits: Sequence[LoraFit] = ()) -> loras_pb2.Lora:
    """For that caller. `is_whole`: with what its file says about itself."""
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
        source=_source(one.place.source, caller),
        create_time=timestamp(one.create_time),
        metadata=found.metadata if is_whole else {},
        fits=[_lora_fit(fit) for fit in fits],
        notes=found.notes,
        owner=one.owner if caller.scope in ("", one.owner) else "",
        shared=one.is_shared,
    )


def _lora_fit(one: LoraFit) -> loras_pb2.LoraFit:
    obstacle, fit = one.obstacle(skips_missing=False), one.fit
    return loras_pb2.LoraFit(
        model=one.model.name,
        fits=one.is_whole,
        matched=fit.matched if fit is not None else 0,
        total=fit.total if fit is not None else 0,
        layers=fit.layers if fit is not None else {},
        why_not="" if obstacle is None else obstacle.message,
    )


def import_progress(one: Progress | ModelProgress) -> models_pb2.ImportProgress:
    return models_pb2.ImportProgress(doing=one.doing, bytes_done=one.bytes_done, bytes_total=one.bytes_total)


def daemon_status(one: DaemonStatus) -> daemon_pb2.DaemonStatus:
    return daemon_pb2.DaemonStatus(
        pid=one.pid,
        version=one.version,
        address=one.address,
        start_time=timestamp(one.start_time),
        workers=[worker_status(worker) for worker in one.workers],
        queued=one.queued,
        running=one.running,
        draining=one.draining,
        rss_bytes=one.rss_bytes,
        warnings=one.warnings,
        listen=one.listen,
        worker_listen=one.worker_listen,
        http=one.http,
        bot=_bot_status(one.bot) if one.bot is not None else None,
    )


def timestamp(seconds: float) -> Timestamp:
    whole = int(seconds // 1)
    return Timestamp(seconds=whole, nanos=min(999_999_999, round((seconds - whole) * 1e9)))


def _refs(spec: GenerateSpec | TrainSpec) -> tuple[LoraRef, ...]:
    return spec.loras if isinstance(spec, GenerateSpec) else ()


def _lora_plan(ref: LoraRef, found: LoraFit, obstacle: CraftError | None) -> jobs_pb2.LoraPlan:
    matched, total = (0, 0) if found.fit is None else (found.fit.matched, found.fit.total)
    why_not = "" if obstacle is None else obstacle.message
    use = to_message(ref, jobs_pb2.LoraUse())
    return jobs_pb2.LoraPlan(use=use, fits=not why_not, why_not=why_not, matched=matched, total=total)


def _source(source: str, caller: Caller) -> str:
    """Where something came from; "" where that is a path of the daemon's machine, of which admins alone hear."""
    return _text(source) if caller.is_admin or not source.startswith("/") else ""


def _text(path: str) -> str:
    """A path need not be text."""
    return path.encode("utf-8", "replace").decode()


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


def _bot_status(one: BotStatus) -> daemon_pb2.BotStatus:
    return daemon_pb2.BotStatus(
        state=_BOT_STATES[one.state],
        pid=one.pid,
        username=one.username,
        restarts=one.restarts,
        problem=one.problem,
        updates=one.updates,
        api_errors=one.api_errors,
        waiting=one.waiting,
    )


def worker_status(one: WorkerStatus) -> daemon_pb2.WorkerStatus:
    return daemon_pb2.WorkerStatus(
        pid=one.pid,
        device=one.device,
        state=_WORKER_STATES[one.state],
        models=one.models,
        rss_bytes=one.rss_bytes,
        device_bytes=one.device_bytes,
        restarts=one.restarts,
        predict_calls=one.predict_calls,
        name=one.name,
        rows=one.rows,
        capacity_rows=one.capacity_rows,
        drained=one.is_drained,
        address=one.elsewhere,
        remote=one.is_remote,
    )
