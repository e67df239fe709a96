"""Gives the workers what to draw and to train on, in fair turns."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import time
from collections.abc import Callable, Mapping, Sequence

from craft_protos.reasons import CraftError

from craftd.jobs import events
from craftd.jobs.events import Hub
from craftd.jobs.job import Kind
from craftd.models.model import Manifest
from craftd.models.service import ModelService
from craftd.scheduler.active_job import ActiveJob, Assignment, Storing, Work
from craftd.scheduler.active_jobs import ActiveJobs
from craftd.scheduler.admission import ALONE_S, Admission, Placement
from craftd.scheduler.job_writer import JobWriter
from craftd.scheduler.manifest_cache import ManifestCache
from craftd.scheduler.pauses import DISK, Pauses
from craftd.scheduler.queue import JobQueue, Waiting
from craftd.scheduler.reconcile import Reconciler
from craftd.scheduler.worker_events import WorkerEvents
from craftd.store.database import Database
from craftd.tasks import Tasks
from craftd.workers.handle import WorkerHandle
from craftd.workers.pool import WorkerPool

_log = logging.getLogger("craft.jobs")
_AFTER_A_BUG_S = 0.1
_SHARED_S = 0.002
_HALF_GONE = ("CORRUPT_FILE", "NO_INPUT", "UNSUPPORTED_MODEL")
_LAST_WRITES_S = 10.0  # what is not stored by then is made again at the next start
_TELL_EVERY_S = 0.1  # watchers hear of their places in the queue


class Scheduler:
    """`jobs`: the unfinished ones. Everything runs on the event loop."""

    def __init__(
        self,
        *,
        database: Database,
        models: ModelService,
        pool: WorkerPool,
        hub: Hub,
        writer: JobWriter,
        pauses: Pauses,
        works: Mapping[Kind, Work],
        lease_s: float,
    ) -> None:
        self._models = models
        self._pool = pool
        self._hub = hub
        self._writer = writer
        self._pauses = pauses
        self._works = works
        self._tasks = Tasks()
        self._changed = asyncio.Event()
        queue = JobQueue()
        self.jobs = ActiveJobs(
            queue=queue,
            pool=pool,
            writer=writer,
            pauses=pauses,
            hub=hub,
            works=works,
            changed=self._changed,
            lease_s=lease_s,
        )
        self._admission = Admission(queue, self.jobs, pool, self._is_open)
        self._reconciler = Reconciler(database, self.jobs)
        self._manifests = ManifestCache(models.manifest_now, self._tasks, self._changed.set)
        self._tell_at = self._turn_at = 0.0  # monotonic
        pool.listen(WorkerEvents(self.jobs, hub, self._changed))
        hub.changed = self.jobs.note_watchers

    def is_idle(self) -> bool:
        """Nothing waits, nothing runs."""
        return not (self.jobs.queued or self.jobs.running)

    @property
    def faults(self) -> tuple[str, ...]:
        """What jobs wait out."""
        trouble = self._pool.trouble
        worker = (f"the worker cannot be started: {trouble}: jobs wait, and it is tried again",) if trouble else ()
        return (*worker, *self._pauses.warnings)

    @property
    def warnings(self) -> tuple[str, ...]:
        """What the user should hear of."""
        return (*self.faults, *self._reconciler.warnings)

    @property
    def mended(self) -> int:
        """How many jobs were found out of step with the store, and mended."""
        return self._reconciler.mended

    async def drain(self, grace_s: float) -> None:
        """Start nothing more; wait for what is being drawn, at most `grace_s`; then end the workers.

        What didn't finish is queued for the next start; a training goes on from its checkpoint.
        A second call with less grace cuts the first short.
        """
        self.jobs.is_draining = True
        self.jobs.note_quiet()
        try:
            async with asyncio.timeout(grace_s):
                await self.jobs.until_quiet()
        except TimeoutError:
            _log.warning("grace is over", extra={"running": self.jobs.running})
        await self._pool.end("the daemon stops")
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(0 if self._pauses.is_on(DISK) else _LAST_WRITES_S):
                await self.jobs.until_quiet()

    async def run(self) -> None:
        """Serve until cancelled; then nothing more is written of jobs."""
        others = [
            self._tasks.start(self._writer.run(), "job writer"),
            self._tasks.start(self._reconciler.run(), "reconciler"),
        ]
        try:
            while True:
                try:
                    await self._turn()
                except Exception:  # a boundary: one turn's bug, or a fault around it, does not end the queue
                    _log.exception("a turn of the scheduler failed")
                    await asyncio.sleep(_AFTER_A_BUG_S)
        finally:
            for task in others:
                task.cancel()
            await self._tasks.cancel()
            await self.jobs.give_up()

    async def _turn(self) -> None:
        self._turn_at = time.monotonic()
        self._changed.clear()
        self.jobs.note_quiet()
        self.jobs.end_overdue()
        for worker in self._pool.workers:
            worker.dispatches.let_join(time.monotonic())
        if not self.jobs.is_draining:
            for kind in Kind:
                await self._dispatch(kind)
            await self._pool.tend()
        self._tell_positions()
        await self._next_change()

    async def _next_change(self) -> None:
        """At once where it has been quiet; what happens in quick succession shares a turn."""
        deadline, turned_at = self._deadline(), time.monotonic()
        wait_s = None if deadline is None else max(0.0, deadline - turned_at)
        try:
            async with asyncio.timeout(wait_s):  # wait_for of Python 3.11 can swallow a cancellation
                await self._changed.wait()
        except TimeoutError:
            return
        if (left_s := turned_at + _SHARED_S - time.monotonic()) > 0:
            await asyncio.sleep(left_s)

    def _deadline(self) -> float | None:
        """When the loop has something to do, if nothing happens before (monotonic seconds)."""
        times = [self._pool.deadline] if not self.jobs.is_draining else []
        times += [self.jobs.deadline, self._pauses.deadline(self._turn_at)]
        times += [worker.dispatches.alone_until for worker in self._pool.workers]
        times += [self._admission.deadline(self._turn_at)]
        times += [self._tell_at] if self._tell_at else []
        return min((at for at in times if at is not None), default=None)

    async def _dispatch(self, kind: Kind) -> None:
        """Hand over jobs in their order, for as long as a worker has room."""
        while (waiting := self._admission.next(kind)) is not None:
            if self.jobs.is_draining or self._pauses.is_on(DISK) or (active := self.jobs.get(waiting.job_id)) is None:
                return
            try:
                if (rest := await self._works[kind].find_rest(active)) is not None:
                    self._store_rest(active, waiting, rest)
                elif not await self._place(active, waiting):
                    return
            except Exception as exc:  # a boundary: what one job cannot have keeps nothing from the others
                self.jobs.fail(active, exc)

    async def _place(self, active: ActiveJob, waiting: Waiting) -> bool:
        """Hand it over; False where it waits for a worker, and nobody overtakes it."""
        placement = self._admission.place(active, self._size_of(active))
        if placement is None:
            self._pool.want()
            return False
        for worker in placement.workers:
            worker.want()
        if placement.may_go:
            await self._begin(active, waiting, placement)
        return placement.may_go

    def _store_rest(self, active: ActiveJob, waiting: Waiting, rest: Callable[[], Storing]) -> None:
        if self._is_next(waiting) and not self.jobs.is_draining:
            self.jobs.store_rest(active, waiting, rest())

    def _is_next(self, waiting: Waiting) -> bool:
        """It is still its turn: much may have come, and time have passed, while what it needs was found out."""
        self.jobs.end_overdue()
        return self._admission.next(waiting.kind) is waiting

    def _size_of(self, active: ActiveJob) -> int:
        """Bytes of its model's files; 0 where they were not looked at."""
        known = self._models.known_manifest(active.job.spec.model)
        return 0 if known is None else sum(file.size_bytes for file in known.files)

    async def _begin(self, active: ActiveJob, waiting: Waiting, placement: Placement) -> None:
        """Find out what it needs, give that to its workers, and hand the job over if it still may be."""
        assignment = await self._works[waiting.kind].prepare(active)
        if (manifest := await self._manifest_of(active)) is None:
            return
        shares = self._admission.shares(active, placement.workers[0], self._size_of(active))
        processes = {worker: worker.vitals for worker in shares}
        for worker in shares:
            await worker.residency.stage(manifest)
            await worker.stage(assignment.files)
        are_able = all(
            worker.vitals is process and self._admission.may_take(active, worker)
            for worker, process in processes.items()
        )
        if not are_able or not self._is_next(waiting) or self.jobs.is_draining:
            return
        self.jobs.take_up(active, waiting, tuple(shares))
        active.placed = placement.why
        for worker, indices in shares.items():
            self._give(active, assignment, worker, manifest, indices)

    def _give(
        self,
        active: ActiveJob,
        assignment: Assignment,
        worker: WorkerHandle,
        manifest: Manifest,
        indices: Sequence[int],
    ) -> None:
        alone_until = time.monotonic() + ALONE_S if active.job.is_training else math.inf
        dispatch = self.jobs.give(active, worker, indices, alone_until)
        worker.submit(dispatch, assignment.dispatch(dispatch, manifest), manifest)
        _log.info(
            "job dispatched",
            extra={
                "job": dispatch.job_id,
                "epoch": dispatch.epoch,
                "images": len(dispatch.indices),
                "worker": worker.name,
                "because": active.placed,
            },
        )

    async def _manifest_of(self, active: ActiveJob) -> Manifest | None:
        """None where it is late, or cannot be had: then the job waits for it, or has ended."""
        name = active.job.spec.model
        if (known := self._models.known_manifest(name)) is not None:
            return known
        try:
            return await self._manifests.get(name)
        except CraftError as exc:
            if self.jobs.is_waiting(active.job.id) and self._may_be_back(active, exc):
                self.jobs.suspend(active, f"model {name}", exc.message)
            else:
                self.jobs.fail(active, exc, f"model {name}")
        except Exception as exc:  # a boundary, as above
            self.jobs.fail(active, exc, f"model {name}")
        return None

    def _may_be_back(self, active: ActiveJob, exc: CraftError) -> bool:
        """The job was accepted: its model was there then. What was read of one that just goes away is no verdict."""
        is_half_gone = exc.reason in _HALF_GONE and self.jobs.may_reload(active)
        return is_half_gone or exc.reason == "UNKNOWN_MODEL"

    def _is_open(self, waiting: Waiting) -> bool:
        """Others go first while its model's files are being hashed, or what it needs is at fault."""
        active = self.jobs.get(waiting.job_id)
        if active is None:
            return False
        model, pauses = active.job.spec.model, self._pauses
        is_held = pauses.is_on(f"model {model}", self._turn_at) or pauses.is_on(f"job {waiting.job_id}", self._turn_at)
        return not is_held and not self._manifests.is_late(model)

    def _tell_positions(self) -> None:
        """Watchers of jobs that wait hear where they are and why, a few times a second."""
        now, self._tell_at = time.monotonic(), 0.0
        for active in map(self.jobs.get, self._hub.watched):
            if active is None or not (self.jobs.is_waiting(active.job.id) or active.storing):
                continue
            if now < active.tell_at:
                self._tell_at = min(self._tell_at or active.tell_at, active.tell_at)
                continue
            self._tell_position(active, now)

    def _tell_position(self, active: ActiveJob, now: float) -> None:
        why = self._admission.why_waiting(active) or self.jobs.why_waiting(active)
        if active.storing and not why:
            return
        queued = events.Queued(self.jobs.position(active.job.id), why)
        if active.last_queued != queued:
            active.last_queued, active.tell_at = queued, now + _TELL_EVERY_S
            self._hub.publish(active.job.id, queued)
