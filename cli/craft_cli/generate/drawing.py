"""One job from its creation to its pictures, across the deaths of the daemon."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, TypeVar

from craft_protos.reasons import REASONS, CraftError

from craft_cli import errors, interrupts

if TYPE_CHECKING:
    from craft_protos import images_pb2, jobs_pb2

    from craft_cli.connection.client import Client
    from craft_cli.connection.session import Session

A = TypeVar("A")

_LOST = ("DAEMON_UNREACHABLE", "DRAINING")
_SILENT = ("DAEMON_UNREACHABLE", "DAEMON_SILENT")
_MAX_LOSSES = 8  # connections lost in a row, with nothing heard between
_CANCEL_TIMEOUT_S = 3.0
_PAUSE_S = 0.1


def new_request_id() -> str:
    return os.urandom(16).hex()


def new_seed() -> int:
    """Ten digits at most: it stands in file names."""
    return int.from_bytes(os.urandom(4), "big")


def submit(session: Session, request: jobs_pb2.CreateJobRequest, *, may_revive: bool = True) -> jobs_pb2.Job:
    """Create the job, once: its request_id makes every repetition the same job."""
    return insist(session, lambda client: client.create_job(request), may_revive=may_revive)


def insist(session: Session, ask: Callable[[Client], A], *, may_revive: bool = True) -> A:
    """Ask until a daemon answers; the question must be one that may be asked twice.

    One that is being stopped is outlasted, and the next one asked; `may_revive`: started, if need be.
    """
    for losses in range(1, _MAX_LOSSES + 1):
        client = session.client
        try:
            return ask(client)
        except CraftError as error:
            interrupts.check()
            if error.reason not in _LOST or losses == _MAX_LOSSES:
                raise
            is_stopping = error.reason == "DRAINING"
        if is_stopping and may_revive:
            session.outlast(client)
            continue
        _pause(losses)
        session.reconnect(client, was_stopped=is_stopping)
    raise AssertionError("unreachable")


def follow(session: Session, job_id: str, preview_every: int = 0) -> Iterator[jobs_pb2.JobEvent]:
    """The job's events up to its `finished`, with a preview every so many steps, where not 0.

    After a loss the new snapshot says what was missed.
    """
    losses, was_stopped = 0, False
    while True:
        client = session.client
        try:
            for event in client.watch_job(job_id, preview_every):
                interrupts.check()
                losses, was_stopped = 0, False
                ended = _finished(event)
                yield ended or event
                if ended:
                    return
        except CraftError as error:
            interrupts.check()
            if error.reason == "RATE_LIMITED":
                interrupts.pause(error.retry_after_s or _PAUSE_S)
                continue
            if error.reason not in _LOST or losses >= _MAX_LOSSES:
                raise
            was_stopped = error.reason == "DRAINING"
        losses += 1
        if losses > _MAX_LOSSES:
            raise CraftError("DAEMON_UNREACHABLE", f"job {job_id} cannot be watched", f"craft jobs wait {job_id}")
        _pause(losses)
        _rejoin(session, client, job_id, was_stopped=was_stopped)


def _rejoin(session: Session, client: Client, job_id: str, *, was_stopped: bool) -> None:
    try:
        session.reconnect(client, was_stopped=was_stopped)
    except CraftError as error:
        if not was_stopped or error.reason != "DAEMON_UNREACHABLE":
            raise
        message = f"the daemon was stopped; job {job_id} is kept"
        raise CraftError("DRAINING", message, f"craft jobs wait {job_id}") from error


def _finished(event: jobs_pb2.JobEvent) -> jobs_pb2.JobEvent | None:
    """The event as `finished`, if it says that the job has ended."""
    from craft_protos import jobs_pb2

    if event.WhichOneof("event") == "finished":
        return event
    ends = (jobs_pb2.JOB_STATE_SUCCEEDED, jobs_pb2.JOB_STATE_FAILED, jobs_pb2.JOB_STATE_CANCELLED)
    if event.WhichOneof("event") == "snapshot" and event.snapshot.state in ends:
        return jobs_pb2.JobEvent(finished=jobs_pb2.JobEvent.Finished(job=event.snapshot))
    return None


def fetch(session: Session, image: images_pb2.Image) -> bytes:
    """The image's file, checked against its sha256."""
    import hashlib

    _, data = _patiently(lambda: insist(session, lambda client: client.get_image(image.id)))
    if image.sha256 and hashlib.sha256(data).hexdigest() != image.sha256:
        raise CraftError("CORRUPT_FILE", f"image {image.id} arrived damaged", f"craft images get {image.id}")
    return data


def _patiently(ask: Callable[[], A]) -> A:
    """What was drawn is fetched, even when the key has sent as many requests as it may."""
    while True:
        try:
            return ask()
        except CraftError as error:
            if error.reason != "RATE_LIMITED":
                raise
            interrupts.pause(error.retry_after_s or _PAUSE_S)


def require_success(job: jobs_pb2.Job) -> None:
    """Raise the job's own error unless it succeeded."""
    from craft_protos import jobs_pb2

    if job.state == jobs_pb2.JOB_STATE_SUCCEEDED:
        return
    if job.state == jobs_pb2.JOB_STATE_CANCELLED and not job.error.reason:
        raise CraftError("CANCELLED", f"job {job.id} was cancelled", "")
    reason = job.error.reason if job.error.reason in REASONS else "JOB_FAILED"
    message = job.error.message or REASONS[reason].meaning
    raise CraftError(reason, f"job {job.id}: {message}", job.error.hint)


class Farewell:
    """Cancels jobs on the way out. A daemon that did not answer once is not asked again."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._trouble: CraftError | None = None

    def to(self, request: jobs_pb2.CreateJobRequest | None, job_id: str) -> str:
        """Cancel the job; one line about what became of it.

        Where CreateJob was interrupted, asking again with the same request_id tells the id.
        """
        try:
            client = self._client()
            if not job_id:
                if request is None:
                    return "stopped"
                job_id = client.create_job(request, _CANCEL_TIMEOUT_S).id
            client.cancel_job(job_id, _CANCEL_TIMEOUT_S)
        except CraftError as error:
            if error.reason in _SILENT:
                self._trouble = error
            return _what_remains(error, job_id)
        return f"stopped; job {job_id} was cancelled and runs no more"

    def close(self) -> None:
        """Whoever still waits for the daemon in another thread waits no longer."""
        self._session.abandon()

    def _client(self) -> Client:
        if self._trouble is not None:
            raise self._trouble
        return self._session.present


def withdraw(session: Session, request: jobs_pb2.CreateJobRequest | None, job_id: str) -> str:
    """Cancel one job on the way out; one line about what became of it."""
    farewell = Farewell(session)
    said = farewell.to(request, job_id)
    farewell.close()
    return said


def _what_remains(error: CraftError, job_id: str) -> str:
    if error.reason == "JOB_FINISHED":
        return f"stopped; job {job_id} had finished: craft jobs show {job_id}"
    if not job_id:
        return "stopped"
    message = errors.one_line(error.message)
    return f"stopped; job {job_id} may still run ({message}): craft jobs cancel {job_id}"


def _pause(losses: int) -> None:
    if losses > 1:  # the first time, look at once
        interrupts.pause(_PAUSE_S * losses)
