"""What a daemon does at a moment: its jobs and how far each is, its workers and how fast they compute."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from craft_protos.reasons import CraftError

from craft_cli.connection.session import Session

if TYPE_CHECKING:
    from craft_protos import daemon_pb2, jobs_pb2


@dataclass
class Progress:
    """How far one job is: steps of a picture's denoising, or of a training."""

    doing: str = ""
    steps: dict[int, tuple[int, int]] = field(default_factory=dict)  # of each picture: done, of

    def see(self, event: jobs_pb2.JobEvent) -> None:
        kind = event.WhichOneof("event")
        if kind == "step":
            self.doing = ""
            self.steps[event.step.index] = (event.step.step, event.step.of)
        elif kind == "training":
            self.doing = ""
            self.steps[0] = (event.training.step, event.training.of)
        elif kind == "loading":
            self.doing = f"loading {event.loading.model}"
        elif kind == "preparing":
            self.doing = f"preparing {event.preparing.what}"

    def counted(self, job: jobs_pb2.Job) -> tuple[int, int] | None:
        """Steps done and steps in all of the job's pictures; None before the first is known."""
        if not self.steps:
            return None
        of = max(of for _, of in self.steps.values())
        if job.HasField("train"):
            return self.steps[0]
        done = {index: step for index, (step, _) in self.steps.items()}
        done |= {image.index: of for image in job.images}
        return sum(done.values()), of * (len(job.generate.indices) or max(1, job.generate.count))


@dataclass(frozen=True)
class Moment:
    """One look. `rates`: model calls a second of each worker's pid, where two looks have told."""

    status: daemon_pb2.DaemonStatus
    jobs: list[jobs_pb2.Job]
    progress: dict[str, Progress]
    rates: dict[int, float]

    def counted(self, job: jobs_pb2.Job) -> tuple[int, int] | None:
        found = self.progress.get(job.id)
        return found.counted(job) if found else None


class Monitor:
    """Looks at a daemon, and watches the jobs that run in between. None is started where none runs."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._session = Session(autostart=False)
        self._now = now
        self._progress: dict[str, Progress] = {}
        self._calls: dict[int, tuple[float, int]] = {}  # pid: when, model calls until then
        self._has_news = threading.Event()

    def look(self) -> Moment:
        """Raises DAEMON_UNREACHABLE; the next look asks for a daemon anew."""
        from craft_protos import jobs_pb2

        states = [jobs_pb2.JOB_STATE_QUEUED, jobs_pb2.JOB_STATE_RUNNING]
        try:
            client = self._session.client
            jobs, status = list(client.list_jobs(states, 0)), client.status()
        except CraftError:
            self._session.close()
            self._session = Session(autostart=False)
            self._progress.clear()
            raise
        self._watch([job for job in jobs if job.state == jobs_pb2.JOB_STATE_RUNNING])
        return Moment(status, in_turn(jobs), dict(self._progress), self._rates(status))

    def await_news(self, timeout_s: float) -> None:
        """Until every job that runs has said how far it is, or nothing for so long."""
        deadline = self._now() + timeout_s
        while not all(one.steps for one in self._progress.values()):
            self._has_news.clear()
            if not self._has_news.wait(max(0.0, deadline - self._now())):
                return

    def _watch(self, running: list[jobs_pb2.Job]) -> None:
        for gone in set(self._progress) - {job.id for job in running}:
            del self._progress[gone]
        for job in running:
            if job.id not in self._progress:
                self._progress[job.id] = found = Progress()
                threading.Thread(target=self._follow, args=(job.id, found), daemon=True).start()

    def _follow(self, job_id: str, into: Progress) -> None:
        try:
            for event in self._session.client.watch_job(job_id):
                into.see(event)
                self._has_news.set()
        except CraftError:
            pass  # the next look tells

    def _rates(self, status: daemon_pb2.DaemonStatus) -> dict[int, float]:
        now, before = self._now(), self._calls
        self._calls = {one.pid: (now, one.predict_calls) for one in status.workers}
        return {
            pid: (calls - before[pid][1]) / (now - before[pid][0])
            for pid, (_, calls) in self._calls.items()
            if pid in before and now > before[pid][0]
        }


def in_turn(jobs: list[jobs_pb2.Job]) -> list[jobs_pb2.Job]:
    """Those that run, the oldest first, then those that wait, in the order of their turns."""
    from craft_protos import jobs_pb2

    return sorted(
        jobs, key=lambda job: (job.state != jobs_pb2.JOB_STATE_RUNNING, job.position, job.create_time.ToNanoseconds())
    )


def shape(moment: Moment) -> dict[str, Any]:
    """`craft top --json`."""
    from craft_cli.render import daemon_shapes, shapes

    jobs = []
    for job in moment.jobs:
        counted = moment.counted(job)
        progress = {"done": counted[0], "of": counted[1]} if counted else None
        jobs.append({**shapes.job(job), "progress": progress})
    workers = [
        {**daemon_shapes.worker(one), "calls_per_s": _rounded(moment.rates.get(one.pid))}
        for one in moment.status.workers
    ]
    queue = {"queued": moment.status.queued, "running": moment.status.running}
    return {"jobs": jobs, "workers": workers, "queue": queue}


def _rounded(rate: float | None) -> float | None:
    return None if rate is None else round(rate, 3)
