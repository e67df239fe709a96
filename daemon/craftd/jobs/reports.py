"""What the worker says, and what it means for the jobs that it has."""

from __future__ import annotations

from craft_protos.reasons import CraftError
from craft_protos.worker_pb2 import FromWorker

from craftd.jobs import events, wire
from craftd.jobs.entry import Entry
from craftd.jobs.job import Error, State
from craftd.jobs.parts import Parts
from craftd.jobs.roster import Roster
from craftd.supervisor.supervisor import cannot_start

_MOST_ATTEMPTS = 3


class Reports:
    """Listens to the supervisor."""

    def __init__(self, parts: Parts, roster: Roster) -> None:
        self._parts = parts
        self._roster = roster

    def on_ready(self, hello: FromWorker.Hello) -> None:
        self._roster.capacity_rows = max(1, hello.capacity_rows)
        self._roster.wake.set()

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
            self._roster.wake.set()

    def on_death(self, why: str, *, is_planned: bool) -> None:
        flights = self._roster.flights.crash()
        for flight in flights:
            entry = self._roster.flying(flight)
            if entry is None:
                continue
            if entry.job.is_training:
                self._roster.desk.rewind(entry.job.id)
            if self._roster.has_all(entry):  # the last of it is being stored
                self._roster.settle(entry)
            elif is_planned:
                self._roster.requeue(entry, is_suspect=entry.job.is_suspect, attempts=entry.job.attempts)
            else:
                self._on_killed(entry, why, was_alone=len(flights) == 1)
        self._roster.wake.set()

    def on_start_failed(self, why: str) -> None:
        for entry in self._roster.waiting():
            self._roster.end(entry, State.FAILED, Error.of(cannot_start(why)))

    def _on_killed(self, entry: Entry, why: str, *, was_alone: bool) -> None:
        """Only a death while alone counts against the job; of a training, the second without a new checkpoint too."""
        attempts = entry.job.attempts + (was_alone or (entry.job.is_training and entry.job.is_suspect))
        self._roster.requeue(entry, is_suspect=True, attempts=attempts)
        if attempts >= _MOST_ATTEMPTS:
            message = f"the job killed its worker {attempts} times, the last time by {why}"
            self._roster.end(entry, State.FAILED, Error("WORKER_DIED", message, "see `craft daemon logs`"))

    def _on_started(self, frame: FromWorker.Started) -> None:
        if (entry := self._roster.entry_of(frame.job_id, frame.epoch)) is not None:
            entry.start()
            started = events.Started(entry.job.attempts + 1, self._parts.models.residency.device, frame.notice)
            self._parts.hub.publish(frame.job_id, started)

    def _on_step(self, frame: FromWorker.Step) -> None:
        if self._roster.entry_of(frame.job_id, frame.epoch) is not None:
            self._parts.hub.publish(frame.job_id, events.Step(frame.index, frame.step, frame.of, frame.preview))

    def _on_loading(self, frame: FromWorker.Loading) -> None:
        loading = events.Loading(frame.model, frame.bytes_done, frame.bytes_total)
        for entry in self._roster.entries.values():
            if entry.job.state is State.RUNNING and entry.job.spec.model == frame.model:
                self._parts.hub.publish(entry.job.id, loading)

    def _on_image(self, frame: FromWorker.ImageDone) -> None:
        flight = self._roster.flights.find(frame.job_id, frame.epoch)
        entry = self._roster.entry_of(frame.job_id, frame.epoch)
        if flight is None or entry is None or frame.index not in flight.indices:
            return
        flight.indices.discard(frame.index)
        entry.received.add(frame.index)
        entry.account(frame.load_s, frame.denoise_s)
        self._roster.store(entry, self._roster.store_image(entry, frame))

    def _on_training(self, frame: FromWorker) -> None:
        told = getattr(frame, frame.WhichOneof("frame") or "")
        entry = self._roster.entry_of(told.job_id, told.epoch)
        if entry is None:
            self._roster.desk.drop(frame)
            return
        try:
            work = self._roster.desk.see(entry, frame)
        except CraftError as exc:
            self._roster.fail_unstorable(entry, exc)
            return
        flight = self._roster.flights.find(told.job_id, told.epoch)
        if flight is not None and flight.is_suspect and self._roster.desk.course(told.job_id).is_past_its_death:
            flight.is_suspect = False
            self._roster.wake.set()
        if work is not None:
            self._roster.store(entry, work)

    def _on_done(self, frame: FromWorker.JobDone) -> None:
        flight = self._roster.flights.remove(frame.job_id, frame.epoch)
        if flight is not None and (entry := self._roster.flying(flight)) is not None:
            self._roster.settle(entry)

    def _on_failed(self, frame: FromWorker.JobFailed) -> None:
        flight = self._roster.flights.remove(frame.job_id, frame.epoch)
        if flight is not None and (entry := self._roster.flying(flight)) is not None:
            self._roster.end(entry, State.FAILED, wire.error(frame.error))
