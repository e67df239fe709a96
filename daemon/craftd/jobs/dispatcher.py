"""Gives the worker what to draw and to train on, in fair turns."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Iterable

from craft_protos.reasons import CraftError

from craftd.datasets.dataset import Dataset
from craftd.images.image import Image
from craftd.jobs import events, wire
from craftd.jobs.deadlines import Deadlines
from craftd.jobs.entry import Entry
from craftd.jobs.flights import Flight
from craftd.jobs.job import Error, Job, JobView, State
from craftd.jobs.manifests import Manifests
from craftd.jobs.parts import Parts
from craftd.jobs.provision import provide, verified
from craftd.jobs.queue import Waiting
from craftd.jobs.reports import Reports
from craftd.jobs.roster import Roster
from craftd.jobs.shares import Load
from craftd.jobs.training import wire as training_wire
from craftd.jobs.training.course import Record
from craftd.jobs.training.turns import ALONE_S, Turns
from craftd.loras.lora import Lora
from craftd.models.model import Manifest

_log = logging.getLogger("craft.jobs")
_SAVE_AGAIN_S = 1.0


class Dispatcher:
    """Everything runs on the event loop."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._tasks = asyncio.TaskGroup()
        self._roster = Roster(parts, self._tasks)
        self._turns = Turns(self._roster.queue, parts.desk.queue, self._roster.flights, self._roster.entries)
        self._deadlines = Deadlines(parts.hub, parts.settings.lease_s)
        self._is_draining = False
        self._manifests = Manifests(parts.models.manifest, self._tasks, self._roster.wake.set)
        parts.supervisor.listen(Reports(parts, self._roster))
        parts.hub.changed = self._on_watchers_changed
        parts.models.residency.changed = self._roster.wake.set

    # What the service asks for

    def accept(self, job: Job, images: Iterable[Image] = ()) -> None:
        """A job that is stored: it waits for its turn."""
        self._roster.accept(job, images)

    def cancel(self, job_id: str) -> asyncio.Future[None]:
        """Resolves when that is stored. Raises JOB_FINISHED."""
        return self._roster.cancel(job_id)

    def current(self, views: Iterable[JobView]) -> list[JobView]:
        """The stored jobs as memory knows them, with their places in the queue."""
        return self._roster.current(views)

    @property
    def queued(self) -> int:
        return self._roster.queued

    @property
    def running(self) -> int:
        return self._roster.running

    def load_of(self, owner: str) -> Load:
        return self._roster.load_of(owner)

    @property
    def is_draining(self) -> bool:
        return self._is_draining

    async def drain(self, grace_s: float) -> None:
        """Start nothing more; wait for what is being drawn, at most `grace_s`; then end the worker.

        What didn't finish is queued for the next start; a training goes on from its checkpoint.
        A second call with less grace cuts the first short.
        """
        self._is_draining = True
        self._roster.note_quiet()
        try:
            async with asyncio.timeout(grace_s):
                await self._roster.is_quiet.wait()
        except TimeoutError:
            _log.warning("grace is over", extra={"running": self.running})
        await self._parts.supervisor.end("the daemon stops")
        await self._roster.is_quiet.wait()

    async def run(self) -> None:
        """Serve for ever."""
        async with self._tasks:
            while True:
                self._roster.wake.clear()
                self._roster.note_quiet()
                self._end_overdue()
                self._roster.flights.let_join(time.monotonic())
                self._roster.ledger.save_again()
                if not self._is_draining:
                    await self._dispatch()
                    await self._dispatch_training()
                    await self._parts.models.residency.tend()
                self._tell_positions()
                await self._next_change()

    async def _next_change(self) -> None:
        deadline = self._deadline()
        wait_s = None if deadline is None else max(0.0, deadline - time.monotonic())
        try:
            async with asyncio.timeout(wait_s):  # wait_for of Python 3.11 can swallow a cancellation
                await self._roster.wake.wait()
        except TimeoutError:
            return

    def _deadline(self) -> float | None:
        """When the loop has something to do, if nothing happens before (monotonic seconds)."""
        now, wall = time.monotonic(), time.time()
        times = [self._parts.models.residency.deadline] if not self._is_draining else []
        times += [self._deadlines.next(self._roster.entries.values(), self._roster.waiting(), now, wall)]
        times += [now + _SAVE_AGAIN_S] if self._roster.ledger.has_unsaved else []
        times += [self._roster.flights.alone_until]
        return min((at for at in times if at is not None), default=None)

    async def _dispatch(self) -> None:
        """Hand over jobs in their order, for as long as the worker has room."""
        while (waiting := self._roster.queue.head(self._is_open)) is not None and not self._is_draining:
            if not self._parts.supervisor.is_ready:
                self._parts.supervisor.want()
                return
            if not self._roster.flights.have_room(self._roster.capacity_rows, is_suspect=waiting.is_suspect):
                return
            if self._turns.is_alone_next and not waiting.is_suspect:
                return
            entry = self._roster.entries[waiting.job_id]
            try:
                manifest = await self._manifests.get(entry.job.spec.model)
                loras = await verified(entry.job.drawing, self._parts.loras)
                is_next = self._roster.queue.head(self._is_open) == waiting
                if manifest and is_next and self._parts.supervisor.is_ready and not self._is_draining:
                    self._hand_over(entry, waiting, manifest, loras)
            except CraftError as exc:
                if waiting.job_id in self._roster.queue:
                    self._roster.end(entry, State.FAILED, Error.of(exc))

    async def _dispatch_training(self) -> None:
        """Hand over the next train job, beside what is being drawn; one at a time."""
        desk = self._parts.desk
        waiting = desk.queue.head()
        if waiting is None or self._is_draining or not self._turns.may_train(waiting, self._roster.capacity_rows):
            return
        entry = self._roster.entries[waiting.job_id]
        if entry.storing:  # it comes back when what it had made is stored
            return
        try:
            record, dataset = await desk.order(entry.job)
            if desk.queue.head() != waiting or self._is_draining:
                return
            if record.made_sha256:  # only its registration was missing
                desk.queue.serve(waiting)
                self._roster.store(entry, desk.register(entry, record.made_sha256))
                return
            if not self._parts.supervisor.is_ready:
                self._parts.supervisor.want()
                return
            manifest = await self._manifests.get(entry.job.spec.model)
            is_next = desk.queue.head() == waiting and self._turns.may_train(waiting, self._roster.capacity_rows)
            if manifest and is_next and self._parts.supervisor.is_ready and not self._is_draining:
                desk.provide(record, dataset)
                self._hand_over_training(entry, waiting, manifest, record, dataset)
        except CraftError as exc:
            if waiting.job_id in desk.queue:
                self._roster.end(entry, State.FAILED, Error.of(exc))

    def _hand_over_training(
        self, entry: Entry, waiting: Waiting, manifest: Manifest, record: Record, dataset: Dataset
    ) -> None:
        message = self._parts.models.residency.provide(manifest)
        self._parts.desk.queue.serve(waiting)
        entry.dispatch()
        job = entry.job
        alone_until = time.monotonic() + ALONE_S
        self._roster.flights.add(Flight(job.id, entry.epoch, job.is_suspect, is_training=True, alone_until=alone_until))
        self._parts.supervisor.send(training_wire.train(job, entry.epoch, message, dataset.pictures, record.checkpoint))
        self._parts.models.residency.expect(manifest)
        self._roster.ledger.save(job)
        _log.info("training dispatched", extra={"job": job.id, "epoch": entry.epoch, "from": record.checkpoint.step})

    def _is_open(self, waiting: Waiting) -> bool:
        """Others go first while its model's files are being hashed."""
        return not self._manifests.is_late(self._roster.entries[waiting.job_id].job.spec.model)

    def _hand_over(self, entry: Entry, waiting: Waiting, manifest: Manifest, loras: list[Lora]) -> None:
        residency = self._parts.models.residency
        message = residency.provide(manifest)
        provide(loras, self._parts.supervisor)
        self._roster.queue.serve(waiting)
        entry.dispatch()
        job, indices = entry.job, entry.remaining
        preview_every = self._parts.hub.preview_every(job.id)
        flight = Flight(job.id, entry.epoch, job.is_suspect, set(indices), preview_every=preview_every)
        self._roster.flights.add(flight)
        self._parts.supervisor.send(wire.submit(job, entry.epoch, indices, message, loras, preview_every=preview_every))
        residency.expect(manifest)
        self._roster.ledger.save(job)
        _log.info("job dispatched", extra={"job": job.id, "epoch": entry.epoch, "images": len(indices)})

    def _end_overdue(self) -> None:
        """Jobs whose time has passed while they waited, or whose watcher has vanished."""
        overdue = self._deadlines.overdue(
            self._roster.entries.values(), self._roster.waiting(), time.monotonic(), time.time()
        )
        for entry, state, error in overdue:
            self._roster.end(entry, state, error)

    def _on_watchers_changed(self, job_id: str) -> None:
        if (entry := self._roster.entries.get(job_id)) is not None:
            entry.last_watched = time.monotonic()
            flight, every = self._roster.flights.find(job_id, entry.epoch), self._parts.hub.preview_every(job_id)
            if flight is not None and not flight.is_training and flight.preview_every != every:
                flight.preview_every = every
                self._parts.supervisor.send(wire.preview(job_id, every))
            self._roster.wake.set()

    def _tell_positions(self) -> None:
        if not any(self._parts.hub.is_watched(entry.job.id) for entry in self._roster.waiting()):
            return
        why = "" if self._parts.supervisor.is_ready else "starting the worker"
        for job_id, position in self._roster.positions().items():
            entry = self._roster.entries[job_id]
            queued = events.Queued(position, self._turns.why_waiting(entry) or why)
            if entry.last_queued != queued:
                entry.last_queued = queued
                self._parts.hub.publish(job_id, queued)
