"""The unfinished jobs, and what becomes of each.

Memory says what is going on; what has happened (accepted, an image, an end) is what the store
says, and clients hear of it once it is there. While the daemon stops, nothing more is written.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence

from craft_protos.reasons import CraftError
from craft_protos.worker_pb2 import FromWorker

from craftd.images.image import Image
from craftd.jobs import events
from craftd.jobs.events import Hub
from craftd.jobs.job import Error, Job, JobView, Kind, State
from craftd.scheduler.active_job import ActiveJob, Stage, Storing, Work
from craftd.scheduler.deadlines import Deadlines
from craftd.scheduler.job_writer import JobWriter
from craftd.scheduler.pauses import DISK, Pauses, is_of_surroundings
from craftd.scheduler.queue import JobQueue, Waiting
from craftd.scheduler.quota import Load
from craftd.tasks import Tasks
from craftd.workers.dispatches import ActiveDispatch
from craftd.workers.handle import WorkerHandle
from craftd.workers.pool import WorkerPool

_log = logging.getLogger("craft.jobs")
_MOST_ATTEMPTS = 3
_MOST_RELOADS = 2
_STORED_WITHIN_S = 2.0  # usually; who cancels waits no longer for a disk that refuses


class ActiveJobs:
    """Their one owner. `changed` is set when the scheduler has something to look at. Runs on the event loop."""

    def __init__(
        self,
        *,
        queue: JobQueue,
        pool: WorkerPool,
        writer: JobWriter,
        pauses: Pauses,
        hub: Hub,
        works: Mapping[Kind, Work],
        changed: asyncio.Event,
        lease_s: float,
    ) -> None:
        self._queue = queue
        self._pool = pool
        self._writer = writer
        self._pauses = pauses
        self._hub = hub
        self._works = works
        self._tasks = Tasks()
        self._orders = itertools.count()
        self._storing = 0
        self._images_of: Counter[str] = Counter()  # still to be drawn, by owner
        self._jobs: dict[str, ActiveJob] = {}
        self._deadlines = Deadlines(hub, lease_s, self._jobs, self.is_waiting)
        self._is_quiet = asyncio.Event()
        self.is_draining = False  # none is accepted or dispatched any more
        self._changed = changed
        pauses.changed = pool.changed = changed.set

    # What clients ask for

    def accept(self, job: Job, images: Iterable[Image] = (), removed: Iterable[int] = ()) -> None:
        """A job that is stored: it waits for its turn. `removed`: indices of its images that were deleted."""
        active = ActiveJob(job, next(self._orders), {image.index: image for image in images}, frozenset(removed))
        active.received = {*active.images, *active.removed}
        self._jobs[job.id] = active
        self._images_of[job.owner] += len(active.remaining)
        self._pool.expect(job.spec.models)
        self._works[job.kind].open(active)
        if job.is_training or active.remaining:
            self._enqueue(active)
        else:  # its last image was stored and its end was not
            self.end(active, State.SUCCEEDED)

    async def cancel(self, job_id: str) -> None:
        """Until that is stored. Raises JOB_FINISHED, and what keeps the store from writing it for long."""
        active = self._jobs.get(job_id)
        if active is None:
            raise _finished(job_id)
        ending = self.end(active, State.CANCELLED, Error("CANCELLED", "the job was cancelled"))
        await asyncio.wait({ending}, timeout=_STORED_WITHIN_S)
        if not ending.done():
            why = self._pauses.why(DISK) or "the disk is slow"
            raise CraftError("STORAGE_FAILED", f"job {job_id} ends, which is not stored yet: {why}", "it will be")
        if ending.cancelled():
            raise CraftError("DRAINING", "the daemon is stopping", "try again in a moment", retry_after_s=1.0)
        if ending.result().state is not State.CANCELLED:
            raise _finished(job_id)

    def view(self, job_id: str) -> JobView | None:
        """An unfinished job as memory knows it."""
        active = self._jobs.get(job_id)
        return None if active is None else self.current(active.view)

    def current(self, view: JobView) -> JobView:
        """A stored job; where it is unfinished, as it stands now, with its place in the queue."""
        active = self._jobs.get(view.job.id)
        if active is None:
            return view
        return JobView(
            active.job,
            view.images,
            self._queue.position(view.job.id),
            self.why_waiting(active),
            worker=", ".join(worker.name for worker in active.workers),
            placed=active.placed,
        )

    @property
    def queued(self) -> int:
        return len(self._queue)

    def queued_of(self, kind: Kind) -> int:
        return self._queue.count(kind)

    @property
    def running(self) -> int:
        return len(self._jobs) - len(self._queue)

    def load_of(self, owner: str) -> Load:
        return Load(self._queue.count_of(owner), self._images_of[owner])

    # What there is

    def __iter__(self) -> Iterator[ActiveJob]:
        return iter(self._jobs.values())

    def get(self, job_id: str) -> ActiveJob | None:
        return self._jobs.get(job_id)

    def find(self, dispatch: ActiveDispatch | None) -> ActiveJob | None:
        """The job of a dispatch, unless it has ended meanwhile, or is about to."""
        active = None if dispatch is None else self._jobs.get(dispatch.job_id)
        if dispatch is None or active is None or dispatch.epoch not in active.parts or active.ending is not None:
            return None
        return active

    def is_waiting(self, job_id: str) -> bool:
        return job_id in self._queue

    def position(self, job_id: str) -> int:
        """How many of its kind go before it."""
        return self._queue.position(job_id)

    def is_lost(self, active: ActiveJob) -> bool:
        """It should wait and does not, or is nowhere."""
        if active.stage is Stage.WAITING:
            return not self.is_waiting(active.job.id)
        return active.stage is Stage.RETURNED and not active.storing

    def why_waiting(self, active: ActiveJob) -> str:
        """What keeps it besides those ahead; "" where nothing does."""
        job, pauses = active.job, self._pauses
        why = pauses.why(DISK) or pauses.why(f"job {job.id}") or pauses.why(f"model {job.spec.model}")
        if why or not self.is_waiting(job.id):
            return why
        if trouble := self._pool.trouble:
            return f"the worker cannot be started: {trouble}"
        if self._pool.is_drained:
            return "no worker is given anything: `craft fleet resume NAME`"
        return "" if self._pool.is_ready else "starting the worker"

    # What becomes of them

    def take_up(self, active: ActiveJob, waiting: Waiting, workers: Sequence[WorkerHandle]) -> None:
        """It leaves the queue, for those workers; `give` says what each of them gets."""
        self._queue.serve(waiting)
        active.take_up()
        active.holders = tuple(workers)
        self._pool.assign(active.job.spec.models, active.holders)
        self._writer.note(active.job)
        self._pauses.end(f"model {active.job.spec.model}")

    def give(
        self, active: ActiveJob, worker: WorkerHandle, indices: Iterable[int], alone_until: float
    ) -> ActiveDispatch:
        """A part of it, or all, goes to a worker."""
        every = 0 if active.job.is_training else self._hub.preview_every(active.job.id)
        return active.give(worker, indices, preview_every=every, alone_until=alone_until)

    def store_rest(self, active: ActiveJob, waiting: Waiting, storing: Storing) -> None:
        """No worker is needed any more: what is left of it is stored."""
        self._queue.serve(waiting)
        active.take_up()
        self._store(active, storing)

    def receive(self, active: ActiveJob, frame: FromWorker) -> None:
        """Its worker says something; what it has made is stored, and counts as drawn meanwhile."""
        before = len(active.received)
        storing = self._works[active.job.kind].receive(active, frame)
        self._count_images(active.job.owner, before - len(active.received))
        if storing is not None:
            self._store(active, storing)

    def _store(self, active: ActiveJob, storing: Storing) -> None:
        """Something of a job is being written; until it is, the job does not end well."""
        active.storing += 1
        self._storing += 1
        self._tasks.start(self._stored(active, storing), f"store {active.job.id}")

    async def _stored(self, active: ActiveJob, storing: Storing) -> None:
        before = active.job.is_suspect
        try:
            try:
                ended = await storing
            finally:
                active.storing -= 1
                self._storing -= 1
                self.note_quiet()
            if ended is not None:
                self._leave(active, ended)
        except Exception as exc:  # a boundary: what could not be stored of one job costs no other
            self.fail(active, exc)
        if before != active.job.is_suspect and self._is_live(active):
            self._writer.note(active.job)
        self.settle(active)

    def settle(self, active: ActiveJob) -> None:
        """End a job that its worker has left and nothing is being stored of."""
        self._changed.set()
        if active.stage is not Stage.RETURNED or active.storing or not self._is_live(active):
            return
        if self._works[active.job.kind].is_complete(active):
            self.end(active, State.SUCCEEDED)
        else:
            what = "made no LoRA" if active.job.is_training else "left out some of the images"
            self.end(active, State.FAILED, Error("JOB_FAILED", f"the worker {what}", "try again"))

    def give_back(self, active: ActiveJob, *, is_suspect: bool, is_cause: bool, why: str) -> None:
        """Its worker died: it waits again, unless it was the cause too often, or all of it is being stored.

        What other workers still draw of it is taken back with it.
        """
        work = self._works[active.job.kind]
        active.withdraw()
        work.rewind(active)
        if work.is_complete(active):
            self.settle(active)
            return
        attempts = active.job.attempts + is_cause
        self.requeue(active, is_suspect=is_suspect or active.job.is_suspect, attempts=attempts)
        if attempts >= _MOST_ATTEMPTS:
            message = f"the job killed its worker {attempts} times, the last time by {why}"
            self.end(active, State.FAILED, Error("WORKER_DIED", message, "see `craft daemon logs`"))

    def fail(self, active: ActiveJob, exc: Exception, subject: str = "") -> None:
        """Something of the job went wrong: it ends, unless the surroundings are at fault, which it waits out."""
        if not self._is_live(active):
            _log.warning("a job that has ended went wrong", extra={"job": active.job.id, "why": str(exc)})
            return
        if is_of_surroundings(exc):
            self.suspend(active, subject or f"job {active.job.id}", str(exc))
            return
        if not isinstance(exc, CraftError):
            _log.error("a job failed by a bug", exc_info=exc, extra={"job": active.job.id})
            exc = CraftError("INTERNAL", f"a bug in craft: {exc!r}", "see `craft daemon logs`")
        self.end(active, State.FAILED, Error.of(exc))

    def may_reload(self, active: ActiveJob) -> bool:
        """Its model's files are not as they were a moment ago: twice they may be back."""
        active.reloads += 1
        return active.reloads <= _MOST_RELOADS

    def suspend(self, active: ActiveJob, subject: str, why: str) -> None:
        """Take it back from its worker, if it has it; it waits until the subject may be tried again."""
        _log.error("a job waits", extra={"job": active.job.id, "for": subject, "why": why})
        self._pauses.begin(subject, why)
        if active.stage in (Stage.ENDING, Stage.WAITING):
            return
        if active.withdraw():
            self._works[active.job.kind].rewind(active)
        self.requeue(active, is_suspect=active.job.is_suspect, attempts=active.job.attempts)

    def requeue(self, active: ActiveJob, *, is_suspect: bool, attempts: int) -> None:
        active.requeue(is_suspect=is_suspect, attempts=attempts)
        if active.holders:
            self._pool.take_back(active.job.spec.models, active.holders)
            active.holders = ()
        self._writer.note(active.job, is_urgent=True)
        self._enqueue(active)

    def end(self, active: ActiveJob, state: State, error: Error | None = None) -> asyncio.Task[Job]:
        """Begin the job's end. It goes on being what it was until that is stored; then watchers hear of it.

        The task's result is the job as it is stored: another end may have come first.
        """
        if active.ending is None:
            self._queue.remove(active.job.id)
            for worker, dispatch in active.dispatches:
                worker.cancel(active.job.id, dispatch.epoch)
            active.ending = self._tasks.start(self._end(active, active.ended(state, error)), f"end {active.job.id}")
            self._changed.set()
        return active.ending

    def adopt_end(self, active: ActiveJob, view: JobView) -> None:
        """The store says that it has ended, and nobody here knew."""
        active.images = {image.index: image for image in view.images}
        active.withdraw()
        self._leave(active, view.job)

    async def _end(self, active: ActiveJob, ended: Job) -> Job:
        self._storing += 1
        try:
            stored = await self._writer.finish(ended)
        finally:
            self._storing -= 1
        self._leave(active, stored)
        return stored

    def _leave(self, active: ActiveJob, stored: Job) -> None:
        """It has ended, and the store says how."""
        if self._jobs.get(stored.id) is not active:
            return
        active.job = stored
        del self._jobs[stored.id]
        self._queue.remove(stored.id)
        self._count_images(stored.owner, -len(active.remaining))
        self._writer.forget(stored.id)
        self._pauses.end(f"job {stored.id}")
        self._works[stored.kind].close(active)
        self._pool.release(stored.spec.models, active.holders)
        self._changed.set()
        _log.info(
            "job ended", extra={"job": stored.id, "state": stored.state.value, "total_s": round(stored.total_s, 3)}
        )
        self._hub.publish(stored.id, events.Finished(active.view))

    def _count_images(self, owner: str, more: int) -> None:
        """So many more, or fewer, are still to be drawn for an owner."""
        self._images_of[owner] += more
        if not self._images_of[owner]:
            del self._images_of[owner]

    def _enqueue(self, active: ActiveJob) -> None:
        job = active.job
        rows = max(1, len(active.remaining))
        self._queue.push(Waiting(job.id, job.owner, job.priority, rows, active.order, job.is_suspect, job.kind))
        self._deadlines.note(active)
        self._changed.set()

    def _is_live(self, active: ActiveJob) -> bool:
        """It has not ended, and is not about to."""
        return self._jobs.get(active.job.id) is active and active.ending is None

    # Times

    def note_watchers(self, job_id: str) -> None:
        """They have come or gone."""
        if (active := self._jobs.get(job_id)) is None:
            return
        active.last_watched = time.monotonic()
        self._deadlines.note(active)
        for worker, dispatch in active.dispatches:
            worker.show_previews(dispatch, self._hub.preview_every(job_id))
        if self.is_waiting(job_id) or active.job.lease:
            self._changed.set()

    def end_overdue(self) -> None:
        """Jobs whose time has passed while they waited, or whose watcher has vanished."""
        for active, state, error in self._deadlines.overdue(time.monotonic(), time.time()):
            self.end(active, state, error)

    @property
    def deadline(self) -> float | None:
        """When a job is overdue (monotonic)."""
        return self._deadlines.next(time.monotonic(), time.time())

    def note_quiet(self) -> None:
        if self._pool.are_drawing or self._storing:
            self._is_quiet.clear()
        else:
            self._is_quiet.set()

    async def until_quiet(self) -> None:
        """Nothing is drawn, and nothing is being stored."""
        await self._is_quiet.wait()

    async def give_up(self) -> None:
        """The daemon stops: what is not stored by now is made again at the next start."""
        await self._tasks.cancel()


def _finished(job_id: str) -> CraftError:
    return CraftError("JOB_FINISHED", f"job {job_id} has finished already", "its images are kept")
