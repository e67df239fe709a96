"""Jobs: what both faces call."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator
from dataclasses import replace

from craft_protos.config import Settings
from craft_protos.reasons import CraftError

from craftd.images.service import page_of
from craftd.jobs import table, validate
from craftd.jobs.bases import base_of
from craftd.jobs.chosen import choose, obstacles
from craftd.jobs.dispatcher import Dispatcher
from craftd.jobs.events import Event, Finished, ImageMade, Snapshot, Trained
from craftd.jobs.generating import Generating
from craftd.jobs.job import (
    GenerateRequest,
    GenerateSpec,
    Job,
    JobRequest,
    JobView,
    LoraPlan,
    Plan,
    Request,
    State,
    TrainRequest,
)
from craftd.jobs.parts import Parts
from craftd.jobs.shares import Shares, draining
from craftd.jobs.tally import Tally
from craftd.jobs.tally import read as read_tally
from craftd.jobs.training.service import TrainingService
from craftd.jobs.training.spec import TrainSpec
from craftd.keys.caller import Caller
from craftd.models.model import Model
from craftd.store import ids


class JobService:
    def __init__(
        self,
        parts: Parts,
        dispatcher: Dispatcher,
        trainings: TrainingService,
        settings: Settings,
        generating: Generating,
    ) -> None:
        self._database = parts.database
        self._models = parts.models
        self._loras = parts.loras
        self._hub = parts.hub
        self._dispatcher = dispatcher
        self._settings = settings
        self._trainings = trainings
        self.generating = generating
        self._shares = Shares(dispatcher, settings)

    def check_room(self, caller: Caller) -> None:
        """Whether a new job may come. Raises DRAINING, QUEUE_FULL, RATE_LIMITED."""
        self._shares.check(caller)

    async def create(self, caller: Caller, request: Request) -> JobView:
        """Durable on return. Raises INVALID_FIELD, UNKNOWN_MODEL, UNKNOWN_LORA, LORA_MISMATCH, QUEUE_FULL, ..."""
        validate.check(request, self._settings.limits)
        made = await self._database.run(lambda connection: table.find_request(connection, caller.owner, request))
        if made is not None:
            return self._current(made)
        self._shares.check(caller)  # a full queue refuses at once
        return await self._store(caller, _job(caller.owner, request, await self._spec(caller, request)), request)

    async def plan(self, caller: Caller, request: Request) -> Plan:
        """What `create` would do."""
        validate.check(request, self._settings.limits)
        if isinstance(request, TrainRequest):
            resolved = await self._trainings.resolve(caller, request.train)
            plan = self._plan(resolved.spec, resolved.model)
            return replace(plan, queue_position=len(self._trainings.desk.queue), notes=resolved.notes)
        spec, model, found = await self._resolve(request)
        return replace(
            self._plan(spec, model),
            loras=tuple(
                LoraPlan(use, "" if obstacle is None else obstacle.message)
                for use, obstacle in zip(spec.loras, found, strict=True)
            ),
        )

    def _plan(self, spec: GenerateSpec | TrainSpec, model: Model) -> Plan:
        residency = self._models.residency
        is_loaded = residency.is_loaded(model.name)
        return Plan(
            spec,
            model_loaded=is_loaded,
            load_bytes=0 if is_loaded else model.size_bytes,
            evicted_models=residency.evicted_by(model),
            queue_position=self._dispatcher.queued,
            device=residency.device,
        )

    async def get(self, caller: Caller, prefix: str) -> JobView:
        """By id or a unique beginning of it. Raises UNKNOWN_JOB, for others' jobs too, AMBIGUOUS_ID."""
        return self._current(await self._database.run(lambda connection: table.view(connection, prefix, caller.scope)))

    async def list(
        self, caller: Caller, page_size: int, page_token: str, states: tuple[State, ...]
    ) -> list[tuple[int, JobView]]:
        """(token of the page that begins after it, job), newest first."""
        (count, before), scope = page_of(page_size, page_token), caller.scope
        found = await self._database.run(lambda connection: table.newest(connection, count, before, states, scope))
        views = self._dispatcher.current(view for _, view in found)
        return [(seq, view) for (seq, _), view in zip(found, views, strict=True)]

    async def cancel(self, caller: Caller, prefix: str) -> JobView:
        """Raises UNKNOWN_JOB, AMBIGUOUS_ID, JOB_FINISHED."""
        view = await self.get(caller, prefix)
        await asyncio.shield(self._dispatcher.cancel(view.job.id))
        return await self.get(caller, view.job.id)

    async def watch(self, caller: Caller, prefix: str, preview_every: int) -> AsyncGenerator[Event]:
        """A snapshot, then what follows until the end. Raises DRAINING when the daemon stops first."""
        job_id = (await self.get(caller, prefix)).job.id
        subscription = self._hub.subscribe(job_id, preview_every)
        try:
            snapshot = await self.get(caller, job_id)
            yield Snapshot(snapshot)
            if (last := self._trainings.desk.course(job_id).last) is not None:
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

    async def tally(self) -> Tally:
        """Of everybody's."""
        return await self._database.run(read_tally)

    async def _spec(self, caller: Caller, request: Request) -> GenerateSpec | TrainSpec:
        """Raises what stands in the way."""
        if isinstance(request, TrainRequest):
            return (await self._trainings.resolve(caller, request.train)).spec
        spec, _, found = await self._resolve(request)
        for obstacle in found:
            if obstacle is not None:
                raise obstacle
        return spec

    async def _resolve(self, request: JobRequest) -> tuple[GenerateSpec, Model, tuple[CraftError | None, ...]]:
        """The spec, its model, and for each LoRA why it cannot be used, if it cannot."""
        wanted = request.generate
        chosen = choose(wanted, self._loras)
        model = await self._models.usable(wanted.model or await self._default_model(wanted, chosen.base))
        spec = validate.resolve(wanted, chosen, model, self.generating.settings, self._settings.limits)
        base = await asyncio.to_thread(base_of, model) if chosen.loras else ""
        return spec, model, await obstacles(chosen, self._loras, wanted, model.name, base)

    async def _default_model(self, wanted: GenerateRequest, base: str) -> str:
        """The configured one; where the LoRAs are for another architecture, the only model of that."""
        configured = wanted.default_model or self.generating.model
        if not base:
            return configured
        views = [view for view in await self._models.list() if not view.model.refused]
        fitting = [view.model.name for view in views if await asyncio.to_thread(base_of, view.model) == base]
        return fitting[0] if len(fitting) == 1 and configured not in fitting else configured

    async def _store(self, caller: Caller, job: Job, request: Request) -> JobView:
        """Once the write is queued the job is accepted, even if the caller goes away meanwhile."""
        self._shares.check(caller, len(job.spec.wanted))
        self._shares.reserve(job.owner, len(job.spec.wanted))
        stored = self._database.submit(lambda connection: table.insert_once(connection, job, request))
        stored.add_done_callback(lambda future: self._on_stored(job, future))
        return self._current(await asyncio.shield(stored))

    def _current(self, view: JobView) -> JobView:
        return self._dispatcher.current([view])[0]

    def _on_stored(self, job: Job, future: asyncio.Future[JobView]) -> None:
        self._shares.release(job.owner, len(job.spec.wanted))
        if future.exception() is None and future.result().job.id == job.id:
            self._dispatcher.accept(job)


def _job(owner: str, request: Request, spec: GenerateSpec | TrainSpec) -> Job:
    return Job(
        id=ids.new_job_id(),
        owner=owner,
        request_id=request.request_id,
        body_sha256=request.body_sha256,
        spec=spec,
        create_time=time.time(),
        priority=request.priority,
        lease=request.lease,
        public=isinstance(request, JobRequest) and request.public,
        expire_time=request.expire_time,
    )
