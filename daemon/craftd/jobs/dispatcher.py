"""Gives the worker what to draw, and makes of its answers what becomes of the jobs.

Memory is the truth while the daemon runs, and the store follows in the order of the
calls; what clients are told to rely on (accepted, finished, an image) is stored first.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import time
from collections.abc import Coroutine, Iterable
from dataclasses import dataclass
from typing import Any

from craft_protos.config import DaemonSettings
from craft_protos.reasons import CraftError
from craft_protos.worker_pb2 import FromWorker

from craftd.datasets.dataset import Dataset
from craftd.images.image import Image
from craftd.images.service import ImageService
from craftd.jobs import events, wire
from craftd.jobs.deadlines import Deadlines
from craftd.jobs.entry import Entry
from craftd.jobs.events import Hub
from craftd.jobs.flights import Flight, Flights
from craftd.jobs.job import Error, Job, JobView, State
from craftd.jobs.ledger import Ledger
from craftd.jobs.manifests import Manifests
from craftd.jobs.provision import provide, verified
from craftd.jobs.queue import FairQueue, Waiting
from craftd.jobs.shares import Load
from craftd.jobs.training import wire as training_wire
from craftd.jobs.training.course import Record
from craftd.jobs.training.desk import Desk
from craftd.jobs.training.turns import Turns
from craftd.loras.lora import Lora
from craftd.loras.service import LoraService
from craftd.models.model import Manifest
from craftd.models.service import ModelService
from craftd.store.database import Database
from craftd.supervisor.supervisor import Supervisor, cannot_start

_log = logging.getLogger("craft.jobs")
_MOST_ATTEMPTS = 3
_SAVE_AGAIN_S = 1.0


@dataclass(frozen=True)
class Parts:
    """What the dispatcher works with."""

    database: Database
    images: ImageService
    models: ModelService
    loras: LoraService
    supervisor: Supervisor
    hub: Hub
    desk: Desk
    settings: DaemonSettings


class Dispatcher:
    """The one owner of unfinished jobs. Everything runs on the event loop."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._entries: dict[str, Entry] = {}
        self._queue = FairQueue()  # of jobs that draw; the desk has those that train
        self._desk = parts.desk
        self._flights = Flights()
        self._turns = Turns(self._queue, self._desk.queue, self._flights, self._entries)
        self._orders = itertools.count()
        self._ledger = Ledger(parts.database, parts.images)
        self._deadlines = Deadlines(parts.hub, parts.settings.lease_s)
        self._storing = 0
        self._capacity_rows = 1
        self._wake = asyncio.Event()
        self._is_draining = False
        self._is_quiet = asyncio.Event()
        self._tasks = asyncio.TaskGroup()
        self._manifests = Manifests(parts.models.manifest, self._tasks, self._wake.set)
        parts.supervisor.listen(self)
        parts.hub.changed = self._on_watchers_changed
        parts.models.residency.changed = self._wake.set

    # What the service asks for

    def accept(self, job: Job, images: Iterable[Image] = ()) -> None:
        """A job that is stored: it waits for its turn."""
        entry = Entry(job, next(self._orders), {image.index: image for image in images})
        entry.received = set(entry.images)
        self._entries[job.id] = entry
        self._parts.models.residency.acquire(job.spec.model)
        if job.is_training:
            self._desk.open(job.id)
        if job.is_training or entry.remaining:
            self._enqueue(entry)
        else:  # its last image was stored and its end was not
            self._end(entry, State.SUCCEEDED)

    def cancel(self, job_id: str) -> asyncio.Future[None]:
        """Resolves when that is stored. Raises JOB_FINISHED."""
        entry = self._entries.get(job_id)
        if entry is None:
            raise CraftError("JOB_FINISHED", f"job {job_id} has finished already", "its images are kept")
        return self._end(entry, State.CANCELLED, Error("CANCELLED", "the job was cancelled"))

    def current(self, views: Iterable[JobView]) -> list[JobView]:
        """The stored jobs as memory knows them, with their places in the queue."""
        positions = self._positions()
        return [JobView(self._current(view.job), view.images, positions.get(view.job.id, 0)) for view in views]

    @property
    def queued(self) -> int:
        return len(self._queue) + len(self._desk.queue)

    @property
    def running(self) -> int:
        return len(self._entries) - self.queued

    def load_of(self, owner: str) -> Load:
        own = [entry for entry in self._entries.values() if entry.job.owner == owner]
        queued = sum(self._is_waiting(entry.job.id) for entry in own)
        return Load(queued, sum(len(entry.remaining) for entry in own))

    @property
    def is_draining(self) -> bool:
        return self._is_draining

    async def drain(self, grace_s: float) -> None:
        """Start nothing more; wait for what is being drawn, at most `grace_s`; then end the worker.

        What didn't finish is queued for the next start; a training goes on from its checkpoint.
        A second call with less grace cuts the first short.
        """
        self._is_draining = True
        self._note_quiet()
        try:
            async with asyncio.timeout(grace_s):
                await self._is_quiet.wait()
        except TimeoutError:
            _log.warning("grace is over", extra={"running": self.running})
        await self._parts.supervisor.end("the daemon stops")
        await self._is_quiet.wait()

    # The loop

    async def run(self) -> None:
        """Serve for ever."""
        async with self._tasks:
            while True:
                self._wake.clear()
                self._note_quiet()
                self._end_overdue()
                self._ledger.save_again()
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
                await self._wake.wait()
        except TimeoutError:
            return

    def _deadline(self) -> float | None:
        """When the loop has something to do, if nothing happens before (monotonic seconds)."""
        now, wall = time.monotonic(), time.time()
        times = [self._parts.models.residency.deadline] if not self._is_draining else []
        times += [self._deadlines.next(self._entries.values(), self._waiting_entries(), now, wall)]
        times += [now + _SAVE_AGAIN_S] if self._ledger.has_unsaved else []
        return min((at for at in times if at is not None), default=None)

    async def _dispatch(self) -> None:
        """Hand over jobs in their order, for as long as the worker has room."""
        while (waiting := self._queue.head(self._is_open)) is not None and not self._is_draining:
            if not self._parts.supervisor.is_ready:
                self._parts.supervisor.want()
                return
            if not self._flights.have_room(self._capacity_rows, is_suspect=waiting.is_suspect):
                return
            if self._turns.is_alone_next and not waiting.is_suspect:
                return
            entry = self._entries[waiting.job_id]
            try:
                manifest = await self._manifests.get(entry.job.spec.model)
                loras = await verified(entry.job.drawing, self._parts.loras)
                is_next = self._queue.head(self._is_open) == waiting
                if manifest and is_next and self._parts.supervisor.is_ready and not self._is_draining:
                    self._hand_over(entry, waiting, manifest, loras)
            except CraftError as exc:
                if waiting.job_id in self._queue:
                    self._end(entry, State.FAILED, Error.of(exc))

    async def _dispatch_training(self) -> None:
        """Hand over the next train job, beside what is being drawn; one at a time."""
        waiting = self._desk.queue.head()
        if waiting is None or self._is_draining or not self._turns.may_train(waiting, self._capacity_rows):
            return
        entry = self._entries[waiting.job_id]
        try:
            record, dataset = await self._desk.order(waiting.job_id, entry.job.training.dataset)
            if self._desk.queue.head() != waiting or self._is_draining:
                return
            if record.made_sha256:  # only its registration was missing
                self._desk.queue.serve(waiting)
                self._store(entry, self._desk.register(entry, record.made_sha256))
                return
            if not self._parts.supervisor.is_ready:
                self._parts.supervisor.want()
                return
            manifest = await self._manifests.get(entry.job.spec.model)
            is_next = self._desk.queue.head() == waiting and self._turns.may_train(waiting, self._capacity_rows)
            if manifest and is_next and self._parts.supervisor.is_ready and not self._is_draining:
                self._desk.provide(record, dataset)
                self._hand_over_training(entry, waiting, manifest, record, dataset)
        except CraftError as exc:
            if waiting.job_id in self._desk.queue:
                self._end(entry, State.FAILED, Error.of(exc))

    def _hand_over_training(
        self, entry: Entry, waiting: Waiting, manifest: Manifest, record: Record, dataset: Dataset
    ) -> None:
        message = self._parts.models.residency.provide(manifest)
        self._desk.queue.serve(waiting)
        entry.dispatch()
        job = entry.job
        self._flights.add(Flight(job.id, entry.epoch, job.is_suspect, is_training=True))
        self._parts.supervisor.send(training_wire.train(job, entry.epoch, message, dataset.pictures, record.checkpoint))
        self._parts.models.residency.expect(manifest)
        self._ledger.save(job)
        _log.info("training dispatched", extra={"job": job.id, "epoch": entry.epoch, "from": record.checkpoint.step})

    def _is_open(self, waiting: Waiting) -> bool:
        """Others go first while its model's files are being hashed."""
        return not self._manifests.is_late(self._entries[waiting.job_id].job.spec.model)

    def _hand_over(self, entry: Entry, waiting: Waiting, manifest: Manifest, loras: list[Lora]) -> None:
        residency = self._parts.models.residency
        message = residency.provide(manifest)
        provide(loras, self._parts.supervisor)
        self._queue.serve(waiting)
        entry.dispatch()
        job, indices = entry.job, entry.remaining
        self._flights.add(Flight(job.id, entry.epoch, job.is_suspect, set(indices)))
        preview_every = self._parts.hub.preview_every(job.id)
        self._parts.supervisor.send(wire.submit(job, entry.epoch, indices, message, loras, preview_every=preview_every))
        residency.expect(manifest)
        self._ledger.save(job)
        _log.info("job dispatched", extra={"job": job.id, "epoch": entry.epoch, "images": len(indices)})

    # What the worker says

    def on_ready(self, hello: FromWorker.Hello) -> None:
        self._capacity_rows = max(1, hello.capacity_rows)
        self._wake.set()

    def on_frame(self, frame: FromWorker) -> None:
        match frame.WhichOneof("frame"):
            case "step":
                self._on_step(frame.step)
            case "image":
                self._on_image(frame.image)
            case "started":
                self._on_started(frame.started)
            case "loading":
                self._on_loading(frame.loading)
            case "done":
                self._on_done(frame.done)
            case "failed":
                self._on_failed(frame.failed)
            case "preparing" | "training" | "sample" | "checkpoint" | "lora":
                self._on_training(frame)
        if frame.WhichOneof("frame") not in ("step", "loading", "started", "preparing", "training"):
            self._wake.set()

    def on_death(self, why: str, *, is_planned: bool) -> None:
        flights = self._flights.crash()
        for flight in flights:
            entry = self._flying(flight)
            if entry is None:
                continue
            if entry.job.is_training:
                self._desk.rewind(entry.job.id)
            if self._has_all(entry):  # the last of it is being stored
                self._settle(entry)
            elif is_planned:
                self._requeue(entry, is_suspect=entry.job.is_suspect, attempts=entry.job.attempts)
            else:
                self._on_killed(entry, why, was_alone=len(flights) == 1)
        self._wake.set()

    def on_start_failed(self, why: str) -> None:
        for entry in self._waiting_entries():
            self._end(entry, State.FAILED, Error.of(cannot_start(why)))

    def _on_killed(self, entry: Entry, why: str, *, was_alone: bool) -> None:
        """Only a death while alone counts against the job; of a training, the second without a new checkpoint too."""
        attempts = entry.job.attempts + (was_alone or (entry.job.is_training and entry.job.is_suspect))
        self._requeue(entry, is_suspect=True, attempts=attempts)
        if attempts >= _MOST_ATTEMPTS:
            message = f"the job killed its worker {attempts} times, the last time by {why}"
            self._end(entry, State.FAILED, Error("WORKER_DIED", message, "see `craft daemon logs`"))

    def _on_started(self, frame: FromWorker.Started) -> None:
        if (entry := self._entry_of(frame.job_id, frame.epoch)) is not None:
            entry.start()
            started = events.Started(entry.job.attempts + 1, self._parts.models.residency.device, frame.notice)
            self._parts.hub.publish(frame.job_id, started)

    def _on_step(self, frame: FromWorker.Step) -> None:
        if self._entry_of(frame.job_id, frame.epoch) is not None:
            self._parts.hub.publish(frame.job_id, events.Step(frame.index, frame.step, frame.of, frame.preview))

    def _on_loading(self, frame: FromWorker.Loading) -> None:
        loading = events.Loading(frame.model, frame.bytes_done, frame.bytes_total)
        for entry in self._entries.values():
            if entry.job.state is State.RUNNING and entry.job.spec.model == frame.model:
                self._parts.hub.publish(entry.job.id, loading)

    def _on_image(self, frame: FromWorker.ImageDone) -> None:
        flight = self._flights.find(frame.job_id, frame.epoch)
        entry = self._entry_of(frame.job_id, frame.epoch)
        if flight is None or entry is None or frame.index not in flight.indices:
            return
        flight.indices.discard(frame.index)
        entry.received.add(frame.index)
        entry.account(frame.load_s, frame.denoise_s)
        self._store(entry, self._store_image(entry, frame))

    def _on_training(self, frame: FromWorker) -> None:
        told = getattr(frame, frame.WhichOneof("frame") or "")
        entry = self._entry_of(told.job_id, told.epoch)
        if entry is None:
            self._desk.drop(frame)
            return
        try:
            work = self._desk.see(entry, frame)
        except CraftError as exc:
            self._on_unstorable(entry, exc)
            return
        flight = self._flights.find(told.job_id, told.epoch)
        if flight is not None and flight.is_suspect and self._desk.course(told.job_id).is_past_its_death:
            flight.is_suspect = False
            self._wake.set()
        if work is not None:
            self._store(entry, work)

    def _on_done(self, frame: FromWorker.JobDone) -> None:
        flight = self._flights.remove(frame.job_id, frame.epoch)
        if flight is not None and (entry := self._flying(flight)) is not None:
            self._settle(entry)

    def _on_failed(self, frame: FromWorker.JobFailed) -> None:
        flight = self._flights.remove(frame.job_id, frame.epoch)
        if flight is not None and (entry := self._flying(flight)) is not None:
            self._end(entry, State.FAILED, wire.error(frame.error))

    # What becomes of a job

    def _store(self, entry: Entry, work: Coroutine[Any, Any, None]) -> None:
        """Something of a job is being written; until it is, the job does not end well."""
        entry.storing += 1
        self._storing += 1
        self._tasks.create_task(self._stored(entry, work), name=f"store {entry.job.id}")

    async def _stored(self, entry: Entry, work: Coroutine[Any, Any, None]) -> None:
        before = entry.job.is_suspect
        try:
            await work
            if before != entry.job.is_suspect and self._is_live(entry):
                self._ledger.save(entry.job)
        except CraftError as exc:
            self._on_unstorable(entry, exc)
        finally:
            entry.storing -= 1
            self._storing -= 1
            self._settle(entry)

    async def _store_image(self, entry: Entry, frame: FromWorker.ImageDone) -> None:
        image = wire.image(entry.job, frame)
        job = await self._ledger.add_image(image, frame.data, entry.job, entry.succeeded())
        self._on_stored(entry, image, job)

    def _on_stored(self, entry: Entry, image: Image, job: Job) -> None:
        entry.images[image.index] = image
        self._parts.hub.publish(job.id, events.ImageMade(image))
        if job.state.is_final and self._is_live(entry):
            entry.job = job
            self._forget(entry)
            self._publish_end(entry)

    def _on_unstorable(self, entry: Entry, exc: CraftError) -> None:
        if self._is_live(entry) and exc.reason != "JOB_FINISHED":
            _log.error("not stored", extra={"job": entry.job.id, "why": exc.message})
            self._end(entry, State.FAILED, Error.of(exc))

    def _settle(self, entry: Entry) -> None:
        """End a job that the worker has left and nothing is being stored of."""
        self._wake.set()
        is_flying = self._flights.find(entry.job.id, entry.epoch) is not None
        if is_flying or entry.storing or not self._is_live(entry) or self._is_waiting(entry.job.id):
            return
        if self._has_all(entry):
            self._end(entry, State.SUCCEEDED)
        else:
            what = "made no LoRA" if entry.job.is_training else "left out some of the images"
            self._end(entry, State.FAILED, Error("JOB_FAILED", f"the worker {what}", "try again"))

    def _has_all(self, entry: Entry) -> bool:
        """Nothing of it is still to come from the worker."""
        if entry.job.is_training:
            return bool(entry.job.lora)
        return not entry.remaining and (entry.storing > 0 or set(entry.job.spec.wanted) <= set(entry.images))

    def _enqueue(self, entry: Entry) -> None:
        job = entry.job
        rows = max(1, len(entry.remaining))
        queue = self._desk.queue if job.is_training else self._queue
        queue.push(Waiting(job.id, job.owner, job.priority, rows, entry.order, job.is_suspect))
        self._wake.set()

    def _requeue(self, entry: Entry, *, is_suspect: bool, attempts: int) -> None:
        entry.requeue(is_suspect=is_suspect, attempts=attempts)
        self._ledger.save(entry.job)
        self._enqueue(entry)

    def _end(self, entry: Entry, state: State, error: Error | None = None) -> asyncio.Future[None]:
        """The job's end; watchers hear of it once it is stored."""
        self._queue.remove(entry.job.id)
        self._desk.queue.remove(entry.job.id)
        if self._flights.find(entry.job.id, entry.epoch) is not None:
            self._parts.supervisor.send(wire.cancel(entry.job.id, entry.epoch))
        entry.job = entry.ended(state, error)
        self._forget(entry)
        saved = self._ledger.save(entry.job)
        saved.add_done_callback(lambda _: self._publish_end(entry))
        return saved

    def _forget(self, entry: Entry) -> None:
        del self._entries[entry.job.id]
        self._desk.close(entry.job.id)
        self._parts.models.residency.release(entry.job.spec.model)
        self._wake.set()

    def _publish_end(self, entry: Entry) -> None:
        job = entry.job
        _log.info("job ended", extra={"job": job.id, "state": job.state.value, "total_s": round(job.total_s, 3)})
        self._parts.hub.publish(job.id, events.Finished(entry.view))

    def _end_overdue(self) -> None:
        """Jobs whose time has passed while they waited, or whose watcher has vanished."""
        overdue = self._deadlines.overdue(
            self._entries.values(), self._waiting_entries(), time.monotonic(), time.time()
        )
        for entry, state, error in overdue:
            self._end(entry, state, error)

    # Watchers

    def _on_watchers_changed(self, job_id: str) -> None:
        if (entry := self._entries.get(job_id)) is not None:
            entry.last_watched = time.monotonic()
            if self._flights.find(job_id, entry.epoch) is not None and not entry.job.is_training:
                self._parts.supervisor.send(wire.preview(job_id, self._parts.hub.preview_every(job_id)))
            self._wake.set()

    def _tell_positions(self) -> None:
        if not any(self._parts.hub.is_watched(entry.job.id) for entry in self._waiting_entries()):
            return
        why = "" if self._parts.supervisor.is_ready else "starting the worker"
        for job_id, position in self._positions().items():
            entry = self._entries[job_id]
            queued = events.Queued(position, self._turns.why_waiting(entry) or why)
            if entry.last_queued != queued:
                entry.last_queued = queued
                self._parts.hub.publish(job_id, queued)

    # Looking things up

    def _waiting_entries(self) -> list[Entry]:
        return [entry for entry in self._entries.values() if self._is_waiting(entry.job.id)]

    def _is_waiting(self, job_id: str) -> bool:
        return job_id in self._queue or job_id in self._desk.queue

    def _positions(self) -> dict[str, int]:
        """Each kind waits for its own."""
        return self._queue.positions() | self._desk.queue.positions()

    def _entry_of(self, job_id: str, epoch: int) -> Entry | None:
        flight = self._flights.find(job_id, epoch)
        return None if flight is None else self._flying(flight)

    def _flying(self, flight: Flight) -> Entry | None:
        """The job of a dispatch, unless it has ended meanwhile."""
        entry = self._entries.get(flight.job_id)
        return entry if entry is not None and entry.epoch == flight.epoch else None

    def _current(self, stored: Job) -> Job:
        entry = self._entries.get(stored.id)
        return entry.job if entry is not None else self._ledger.latest(stored)

    def _is_live(self, entry: Entry) -> bool:
        return self._entries.get(entry.job.id) is entry

    def _note_quiet(self) -> None:
        if self._flights.are_drawing or self._storing:
            self._is_quiet.clear()
        else:
            self._is_quiet.set()
