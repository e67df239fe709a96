"""The unfinished jobs: which wait, which the worker has, and what becomes of each.

Memory is the truth while the daemon runs, and the store follows in the order of the
calls; what clients are told to rely on (accepted, finished, an image) is stored first.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections.abc import Coroutine, Iterable
from typing import Any

from craft_protos.reasons import CraftError
from craft_protos.worker_pb2 import FromWorker

from craftd.images.image import Image
from craftd.jobs import events, wire
from craftd.jobs.entry import Entry
from craftd.jobs.flights import Flight, Flights
from craftd.jobs.job import Error, Job, JobView, State
from craftd.jobs.ledger import Ledger
from craftd.jobs.parts import Parts
from craftd.jobs.queue import FairQueue, Waiting
from craftd.jobs.shares import Load

_log = logging.getLogger("craft.jobs")


class Roster:
    """Their one owner. Everything runs on the event loop."""

    def __init__(self, parts: Parts, tasks: asyncio.TaskGroup) -> None:
        self._parts = parts
        self._tasks = tasks
        self._orders = itertools.count()
        self._storing = 0
        self.entries: dict[str, Entry] = {}
        self.queue = FairQueue()  # of jobs that draw; the desk has those that train
        self.desk = parts.desk
        self.flights = Flights()
        self.ledger = Ledger(parts.database, parts.images)
        self.capacity_rows = 1
        self.wake = asyncio.Event()  # something has changed
        self.is_quiet = asyncio.Event()

    def accept(self, job: Job, images: Iterable[Image] = ()) -> None:
        """A job that is stored: it waits for its turn."""
        entry = Entry(job, next(self._orders), {image.index: image for image in images})
        entry.received = set(entry.images)
        self.entries[job.id] = entry
        self._parts.models.residency.acquire(job.spec.model)
        if job.is_training:
            self.desk.open(job.id)
        if job.is_training or entry.remaining:
            self._enqueue(entry)
        else:  # its last image was stored and its end was not
            self.end(entry, State.SUCCEEDED)

    def cancel(self, job_id: str) -> asyncio.Future[None]:
        """Resolves when that is stored. Raises JOB_FINISHED."""
        entry = self.entries.get(job_id)
        if entry is None:
            raise CraftError("JOB_FINISHED", f"job {job_id} has finished already", "its images are kept")
        return self.end(entry, State.CANCELLED, Error("CANCELLED", "the job was cancelled"))

    def current(self, views: Iterable[JobView]) -> list[JobView]:
        """The stored jobs as memory knows them, with their places in the queue."""
        positions = self.positions()
        return [JobView(self._current(view.job), view.images, positions.get(view.job.id, 0)) for view in views]

    @property
    def queued(self) -> int:
        return len(self.queue) + len(self.desk.queue)

    @property
    def running(self) -> int:
        return len(self.entries) - self.queued

    def load_of(self, owner: str) -> Load:
        own = [entry for entry in self.entries.values() if entry.job.owner == owner]
        queued = sum(self.is_waiting(entry.job.id) for entry in own)
        return Load(queued, sum(len(entry.remaining) for entry in own))

    def store(self, entry: Entry, work: Coroutine[Any, Any, None]) -> None:
        """Something of a job is being written; until it is, the job does not end well."""
        entry.storing += 1
        self._storing += 1
        self._tasks.create_task(self._stored(entry, work), name=f"store {entry.job.id}")

    async def _stored(self, entry: Entry, work: Coroutine[Any, Any, None]) -> None:
        before = entry.job.is_suspect
        try:
            await work
            if before != entry.job.is_suspect and self._is_live(entry):
                self.ledger.save(entry.job)
        except CraftError as exc:
            self.fail_unstorable(entry, exc)
        finally:
            entry.storing -= 1
            self._storing -= 1
            self.settle(entry)

    async def store_image(self, entry: Entry, frame: FromWorker.ImageDone) -> None:
        image = wire.image(entry.job, frame)
        job = await self.ledger.add_image(image, frame.data, entry.job, entry.succeeded())
        self._on_stored(entry, image, job)

    def _on_stored(self, entry: Entry, image: Image, job: Job) -> None:
        entry.images[image.index] = image
        self._parts.hub.publish(job.id, events.ImageMade(image))
        if job.state.is_final and self._is_live(entry):
            entry.job = job
            self._forget(entry)
            self._publish_end(entry)

    def fail_unstorable(self, entry: Entry, exc: CraftError) -> None:
        if self._is_live(entry) and exc.reason != "JOB_FINISHED":
            _log.error("not stored", extra={"job": entry.job.id, "why": exc.message})
            self.end(entry, State.FAILED, Error.of(exc))

    def settle(self, entry: Entry) -> None:
        """End a job that the worker has left and nothing is being stored of."""
        self.wake.set()
        is_flying = self.flights.find(entry.job.id, entry.epoch) is not None
        if is_flying or entry.storing or not self._is_live(entry) or self.is_waiting(entry.job.id):
            return
        if self.has_all(entry):
            self.end(entry, State.SUCCEEDED)
        else:
            what = "made no LoRA" if entry.job.is_training else "left out some of the images"
            self.end(entry, State.FAILED, Error("JOB_FAILED", f"the worker {what}", "try again"))

    def has_all(self, entry: Entry) -> bool:
        """Nothing of it is still to come from the worker."""
        if entry.job.is_training:
            return bool(entry.job.lora)
        return not entry.remaining and (entry.storing > 0 or set(entry.job.spec.wanted) <= set(entry.images))

    def _enqueue(self, entry: Entry) -> None:
        job = entry.job
        rows = max(1, len(entry.remaining))
        queue = self.desk.queue if job.is_training else self.queue
        queue.push(Waiting(job.id, job.owner, job.priority, rows, entry.order, job.is_suspect))
        self.wake.set()

    def requeue(self, entry: Entry, *, is_suspect: bool, attempts: int) -> None:
        entry.requeue(is_suspect=is_suspect, attempts=attempts)
        self.ledger.save(entry.job)
        self._enqueue(entry)

    def end(self, entry: Entry, state: State, error: Error | None = None) -> asyncio.Future[None]:
        """The job's end; watchers hear of it once it is stored."""
        self.queue.remove(entry.job.id)
        self.desk.queue.remove(entry.job.id)
        if self.flights.find(entry.job.id, entry.epoch) is not None:
            self._parts.supervisor.send(wire.cancel(entry.job.id, entry.epoch))
        entry.job = entry.ended(state, error)
        self._forget(entry)
        saved = self.ledger.save(entry.job)
        saved.add_done_callback(lambda _: self._publish_end(entry))
        return saved

    def _forget(self, entry: Entry) -> None:
        del self.entries[entry.job.id]
        self.desk.close(entry.job.id)
        self._parts.models.residency.release(entry.job.spec.model)
        self.wake.set()

    def _publish_end(self, entry: Entry) -> None:
        job = entry.job
        _log.info("job ended", extra={"job": job.id, "state": job.state.value, "total_s": round(job.total_s, 3)})
        self._parts.hub.publish(job.id, events.Finished(entry.view))

    def waiting(self) -> list[Entry]:
        return [entry for entry in self.entries.values() if self.is_waiting(entry.job.id)]

    def is_waiting(self, job_id: str) -> bool:
        return job_id in self.queue or job_id in self.desk.queue

    def positions(self) -> dict[str, int]:
        """Each kind waits for its own."""
        return self.queue.positions() | self.desk.queue.positions()

    def entry_of(self, job_id: str, epoch: int) -> Entry | None:
        flight = self.flights.find(job_id, epoch)
        return None if flight is None else self.flying(flight)

    def flying(self, flight: Flight) -> Entry | None:
        """The job of a dispatch, unless it has ended meanwhile."""
        entry = self.entries.get(flight.job_id)
        return entry if entry is not None and entry.epoch == flight.epoch else None

    def _current(self, stored: Job) -> Job:
        entry = self.entries.get(stored.id)
        return entry.job if entry is not None else self.ledger.latest(stored)

    def _is_live(self, entry: Entry) -> bool:
        return self.entries.get(entry.job.id) is entry

    def note_quiet(self) -> None:
        if self.flights.are_drawing or self._storing:
            self.is_quiet.clear()
        else:
            self.is_quiet.set()
