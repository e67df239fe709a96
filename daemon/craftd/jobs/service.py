"""Jobs: what both faces call."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice

from craft_protos.generate import GenerateRequest, GenerateSpec
from craft_protos.job_request import JobRequest
from craft_protos.reasons import CraftError
from craft_protos.settings import Settings
from craft_protos.train import TrainRequest, TrainSpec

from craftd.images.service import page_of
from craftd.inputs.service import InputService
from craftd.jobs import controls, enlarging, expanding, holdings, pace, pictures, refining, store, validate
from craftd.jobs.events import Event, Finished, Hub, ImageMade, Snapshot, Trained
from craftd.jobs.fits.service import Fits
from craftd.jobs.generate_defaults import GenerateDefaults
from craftd.jobs.holdings import Forgotten, Holdings, Usage
from craftd.jobs.job import Job, JobView, Kind, Plan, Priority, State, body_sha256
from craftd.jobs.lora_resolution import Chosen, choose, obstacles, with_embeddings
from craftd.jobs.outlook import MOST, Outlook, prospects
from craftd.keys.caller import Caller
from craftd.loras.lora import Lora
from craftd.loras.service import LoraService
from craftd.models.model import Model
from craftd.models.service import ModelService
from craftd.scheduler.active_jobs import ActiveJobs
from craftd.scheduler.quota import Quota, draining
from craftd.store import ids
from craftd.store.database import Database
from craftd.training.service import Resolved, TrainingService
from craftd.webhooks.sender import Webhooks
from craftd.workers.pool import WorkerPool


@dataclass(frozen=True)
class _Resolved:
    """What a request asks for, completely."""

    spec: GenerateSpec
    model: Model
    loras: tuple[Lora, ...]
    result_size: tuple[int, int]  # of the pictures that come out


class JobService:
    def __init__(
        self,
        *,
        database: Database,
        models: ModelService,
        loras: LoraService,
        hub: Hub,
        pool: WorkerPool,
        active: ActiveJobs,
        trainings: TrainingService,
        inputs: InputService,
        holdings: Holdings,
        settings: Settings,
        generating: GenerateDefaults,
        fits: Fits,
        webhooks: Webhooks,
    ) -> None:
        self._database = database
        self._models = models
        self._loras = loras
        self._hub = hub
        self._pool = pool
        self._active = active
        self._settings = settings
        self._trainings = trainings
        self._inputs = inputs
        self._holdings = holdings
        self.generating = generating
        self.fits = fits
        self._webhooks = webhooks
        self._quota = Quota(active, settings)

    def check_room(self, caller: Caller) -> None:
        """Whether a new job may come. Raises DRAINING, QUEUE_FULL, RATE_LIMITED."""
        self._quota.check(caller)

    async def create(self, caller: Caller, request: JobRequest) -> JobView:
        """Durable on return. Raises INVALID_FIELD, UNKNOWN_MODEL, UNKNOWN_LORA, LORA_MISMATCH, QUEUE_FULL, ..."""
        validate.check(request, self._settings.limits)
        self._webhooks.check(request.webhook)
        try:
            self._quota.check(caller)  # a full queue refuses at once
            return await self._store(caller, _job(caller.owner, request, await self._spec(caller, request)), request)
        except CraftError as exc:
            # What was accepted once is told again, though it would be refused now.
            made = await self._database.look(lambda connection: store.find_request(connection, caller.owner, request))
            if made is None:
                raise exc from None
            return self._active.current(made)

    async def plan(self, caller: Caller, request: JobRequest, *, learns: bool = False) -> Plan:
        """What `create` would do. `learns`: how the LoRAs fit is found out first, where that is not known yet."""
        validate.check(request, self._settings.limits)
        self._webhooks.check(request.webhook)
        if isinstance(request.spec, TrainRequest):
            return await self._plan_of_training(await self._resolve_training(caller, request.spec))
        found = await self._resolve(caller, request.spec)
        if learns:
            await self.fits.learn(found.loras, [found.model])
        fits = await self.fits.known(found.loras, found.model)
        stands = await obstacles(fits, self._loras, found.spec)
        plan = self._plan(found.spec, found.model, await self._models.held_beside(found.spec.control_models))
        told = await self._database.look(lambda connection: pace.expected(connection, found.spec))
        return replace(plan, fits=tuple(fits), obstacles=stands, result_size=found.result_size, pace=told)

    async def _plan_of_training(self, resolved: Resolved) -> Plan:
        plan, spec = self._plan(resolved.spec, resolved.model), resolved.spec
        return replace(
            plan,
            queue_position=self._active.queued_of(Kind.TRAIN),
            notes=resolved.notes,
            pace=await self._database.look(lambda connection: pace.expected(connection, spec)),
            lora_bytes=await self._trainings.made_bytes(spec),
        )

    def _plan(self, spec: GenerateSpec | TrainSpec, model: Model, beside: Sequence[Model] = ()) -> Plan:
        """`beside`: the control models that it is drawn with."""
        lacking = [one for one in (model, *beside) if not self._pool.loaded_on(one.name)]
        return Plan(
            spec,
            model_loaded=model not in lacking,
            load_bytes=sum(one.size_bytes for one in lacking),
            evicted_models=self._pool.evicted_by(model, beside),
            queue_position=self._active.queued,
            device=self._pool.device,
            need=self._pool.need_of(model, beside),
        )

    async def get(self, caller: Caller, prefix: str) -> JobView:
        """By id or a unique beginning of it. Raises UNKNOWN_JOB, for others' jobs too, AMBIGUOUS_ID."""
        active = self._active.view(prefix)
        if active is not None and caller.scope in ("", active.job.owner):
            return active
        return self._active.current(
            await self._database.look(lambda connection: store.view(connection, prefix, caller.scope))
        )

    async def list(
        self, caller: Caller, page_size: int, page_token: str, states: tuple[State, ...]
    ) -> list[tuple[int, JobView]]:
        """(token of the page that begins after it, job), newest first."""
        (count, before), scope = page_of(page_size, page_token), caller.scope
        wanted = states or tuple(State)
        page: list[tuple[int, JobView]] = []
        while len(page) < count:
            some = partial(store.newest, count=count - len(page), before=before, states=_stored(wanted), owner=scope)
            found = await self._database.look(some)
            now = ((seq, self._active.current(view)) for (seq, view) in found)
            page += [(seq, view) for seq, view in now if view.job.state in wanted]
            if not found:
                break
            before = found[-1][0]
        return page

    async def cancel(self, caller: Caller, prefix: str) -> JobView:
        """Raises UNKNOWN_JOB, AMBIGUOUS_ID, JOB_FINISHED."""
        view = await self.get(caller, prefix)
        await self._active.cancel(view.job.id)
        return await self.get(caller, view.job.id)

    async def watch(self, caller: Caller, prefix: str, preview_every: int) -> AsyncGenerator[Event]:
        """A snapshot, then what follows until the end. Raises DRAINING when the daemon stops first."""
        job_id = (await self.get(caller, prefix)).job.id
        subscription = self._hub.subscribe(job_id, preview_every)
        try:
            snapshot = await self.get(caller, job_id)
            yield Snapshot(snapshot)
            if (last := self._trainings.last_step(job_id)) is not None:
                yield Trained(last)
            if snapshot.job.state.is_final:
                yield Finished(snapshot)
                return
            shown = {image.index for image in snapshot.images}
            while (event := await subscription.next()) is not None:
                if not (isinstance(event, ImageMade) and event.image.index in shown):
                    yield event
                if isinstance(event, Finished):
                    return
            raise draining()
        finally:
            self._hub.unsubscribe(subscription)

    async def usage(self, caller: Caller) -> Usage:
        """How much of what the caller's key may have is used now, and what was drawn for it."""
        most, load = self._settings.tier(caller.tier).images_in_flight, self._active.load_of(caller.owner)
        drawn = await self._database.run(lambda connection: holdings.count_images(connection, caller.owner))
        return Usage(load.images, most, *drawn)

    async def outlook(self, caller: Caller, *, everyone: bool = False) -> Outlook:
        """What waits and runs: the caller's own, or with an admin's key everybody's."""
        views = [self._active.current(active.view) for active in islice(self._active, MOST)]
        specs = [view.job.spec for view in views]
        paces = await self._database.look(lambda connection: pace.expected_of(connection, specs))
        found = prospects(views, paces, max(1, len(self._pool.workers)))
        scope = caller.scope if everyone else caller.owner
        return Outlook(
            self._active.queued,
            self._active.running,
            self._active.load_of(caller.owner).queued,
            self._quota.share_of(caller),
            tuple(one for one in found if scope in ("", one.view.job.owner)),
        )

    async def forget(self, owner: str) -> Forgotten:
        """Delete all jobs of an owner who can make no more, with pictures and datasets. Made again, it goes on.

        Raises STORAGE_FAILED where a file cannot be deleted.
        """
        while unfinished := await self._database.run(lambda connection: holdings.unfinished(connection, owner)):
            for job_id in unfinished:
                with contextlib.suppress(CraftError):  # it has ended meanwhile
                    await asyncio.shield(self._active.cancel(job_id))
        return await self._holdings.delete(owner)

    async def model_of(self, caller: Caller, asked: GenerateRequest) -> Model:
        """What the request would be drawn with. Raises what is wrong with it besides its model."""
        wanted = validate.checked(asked, self._settings.limits)
        return await self._model(wanted, choose(wanted, caller, self._loras))

    async def tally(self) -> store.JobCounts:
        """Of everybody's."""
        return await self._database.run(store.count)

    async def _spec(self, caller: Caller, request: JobRequest) -> GenerateSpec | TrainSpec:
        """Raises what stands in the way."""
        if isinstance(request.spec, TrainRequest):
            return (await self._resolve_training(caller, request.spec)).spec
        found = await self._resolve(caller, request.spec)
        for obstacle in await obstacles(await self.fits.known(found.loras, found.model), self._loras, found.spec):
            if obstacle is not None:
                raise obstacle
        return found.spec

    async def _resolve_training(self, caller: Caller, asked: TrainRequest) -> Resolved:
        """Raises what stands in the way, OUT_OF_MEMORY among it."""
        resolved = await self._trainings.resolve(caller, asked)
        await self._trainings.check_room(resolved.model, self._pool.need_of)
        return resolved

    async def _resolve(self, caller: Caller, asked: GenerateRequest) -> _Resolved:
        limits = self._settings.limits
        wanted = validate.checked(expanding.seeded(asked), limits)
        upscalers = await enlarging.find(wanted, self._models)
        chosen = choose(wanted, caller, self._loras)
        model = enlarging.is_alone(wanted) and upscalers.upscale
        model = model or await self._model(wanted, chosen)
        if model.upscaling is not None:
            start = (await pictures.find(wanted, caller, self._inputs)).start
            spec = enlarging.alone(wanted, start, model, self.generating.settings, limits)
            return _Resolved(spec, model, (), enlarging.result_size(spec, start))
        folder = self._settings.prompts.wildcards
        expanded = await asyncio.to_thread(expanding.expand, wanted, chosen.prompt, folder, limits)
        chosen = with_embeddings(chosen, expanding.texts(wanted, expanded), model, caller, self._loras)
        found = await pictures.find(wanted, caller, self._inputs)
        wanted = pictures.with_pictures(wanted, found, model, limits)
        wanted = controls.completed(wanted, model, self._models.controls)
        wanted = await refining.completed(wanted, model, self._models)
        spec = validate.resolve(wanted, chosen, model, self.generating.settings, limits)
        spec = expanding.completed(spec, expanded, limits)
        sizes = validate.sizes(model, limits)
        spec = enlarging.completed(spec, wanted, upscalers, model, found.start, sizes=sizes, limits=limits)
        refining.check_steps(spec)
        return _Resolved(spec, model, chosen.loras, enlarging.result_size(spec, found.start))

    async def _model(self, wanted: GenerateRequest, chosen: Chosen) -> Model:
        return await self._models.usable(wanted.model or await self._default_model(wanted, chosen.base))

    async def _default_model(self, wanted: GenerateRequest, base: str) -> str:
        """The configured one; where the LoRAs are for another architecture, the only model of that."""
        configured = wanted.default_model or self.generating.model
        if not base:
            return configured
        views = [view for view in await self._models.list() if not view.model.refused]
        fitting = [view.model.name for view in views if view.model.architecture.id == base]
        return fitting[0] if len(fitting) == 1 and configured not in fitting else configured

    async def _store(self, caller: Caller, job: Job, request: JobRequest) -> JobView:
        """Once the write is queued the job is accepted, even if the caller goes away meanwhile."""
        self._quota.check(caller, len(job.spec.wanted))
        self._quota.reserve(job.owner, len(job.spec.wanted))
        stored = self._database.submit(lambda connection: store.insert_once(connection, job, request))
        stored.add_done_callback(lambda future: self._on_stored(job, future))
        if request.webhook:
            stored.add_done_callback(lambda _: self._webhooks.note())
        return self._active.current(await asyncio.shield(stored))

    def _on_stored(self, job: Job, future: asyncio.Future[JobView]) -> None:
        self._quota.release(job.owner, len(job.spec.wanted))
        if future.exception() is None and future.result().job.id == job.id:
            self._active.accept(job)


def _stored(states: tuple[State, ...]) -> tuple[State, ...]:
    """States in the store of jobs that may be in one of those now: it hears a moment later that a job runs."""
    unfinished = (State.QUEUED, State.RUNNING)
    return tuple({*states, *unfinished}) if any(one in states for one in unfinished) else states


def _job(owner: str, request: JobRequest, spec: GenerateSpec | TrainSpec) -> Job:
    return Job(
        id=ids.new_job_id(),
        owner=owner,
        request_id=request.request_id,
        body_sha256=body_sha256(request),
        spec=spec,
        create_time=time.time(),
        priority=Priority[request.priority.upper()],
        lease=request.lease,
        public=isinstance(spec, GenerateSpec) and request.public,
        expire_time=request.expire_time,
    )
