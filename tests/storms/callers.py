"""Callers as they should be: they keep their request_id, come again when a call broke, and note what they hear."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import TypeVar

import grpc
import grpc.aio
from craft_protos import daemon_pb2, daemon_pb2_grpc, images_pb2, images_pb2_grpc, jobs_pb2, jobs_pb2_grpc

from tests.daemon import harness
from tests.home import HANG_S
from tests.storms.journal import CANCELLED, SUCCEEDED, End, Journal, Picture, Violation
from tests.storms.keeper import Keeper

T = TypeVar("T")
CALL_S = 20.0  # a call that is not answered by then is made again
PAUSE_S = 0.05  # before a call is made again
SIDE = 64
_OPTIONS = [
    ("grpc.initial_reconnect_backoff_ms", 20),
    ("grpc.min_reconnect_backoff_ms", 20),
    ("grpc.max_reconnect_backoff_ms", 60),
    ("grpc.use_local_subchannel_pool", 1),
]
_numbers = itertools.count()
# What a caller hears who should come again: the daemon is away, stops, is full, or cannot store it now.
_AGAIN = {
    grpc.StatusCode.UNAVAILABLE,
    grpc.StatusCode.CANCELLED,
    grpc.StatusCode.RESOURCE_EXHAUSTED,
    grpc.StatusCode.DEADLINE_EXCEEDED,
    grpc.StatusCode.INTERNAL,
    grpc.StatusCode.UNKNOWN,
    grpc.StatusCode.ABORTED,
}


def drawing(prompt: str = "a red apple", *, seed: int, **fields: object) -> jobs_pb2.CreateJobRequest:
    """A small job whose pictures the checker can tell from all others'."""
    number = next(_numbers)
    usual: dict[str, object] = {"width": SIDE, "height": SIDE, "steps": 2, "seed": seed}
    return harness.request(prompt, request_id=f"storm-{os.getpid()}-{number}", **(usual | fields))


@dataclass
class Caller:
    """One of many, over gRPC. `limit_s`: how long it insists before that is a violation."""

    keeper: Keeper
    journal: Journal
    limit_s: float = HANG_S
    credentials: grpc.ChannelCredentials | None = None
    target: Callable[[], str] | None = None
    metadata: tuple[tuple[str, str], ...] = ()
    _channel: grpc.aio.Channel | None = None
    _address: str = ""
    _calls: list[asyncio.Task[object]] = field(default_factory=list)

    # What callers do

    async def create(self, asked: jobs_pb2.CreateJobRequest) -> str:
        """The job's id, once that is acknowledged."""
        job = await self._insist("CreateJob", lambda: self.jobs.CreateJob(asked, **self._usual))
        self.journal.note_created(asked, job)
        return job.id

    async def finish(self, job_id: str) -> End:
        """How the job ended; watched again whenever the stream broke."""
        return await self._insist(f"WatchJob {job_id}", lambda: self._watch(job_id))

    async def draw(self, asked: jobs_pb2.CreateJobRequest) -> End:
        return await self.finish(await self.create(asked))

    async def cancel(self, job_id: str) -> None:
        """Until it is answered: cancelled, or finished already."""
        self.journal.expect(self.journal.asked[job_id].request_id, CANCELLED, SUCCEEDED)
        await self._insist(f"CancelJob {job_id}", lambda: self._cancel(job_id))

    async def delete(self, image_id: str) -> None:
        """Until it is answered."""
        self.journal.note_deleting(image_id)
        await self._insist(f"DeleteImage {image_id}", lambda: self._delete(image_id))

    async def look(self, job_id: str) -> jobs_pb2.Job:
        """GetJob."""
        asked, had_ended = jobs_pb2.GetJobRequest(id=job_id), job_id in self.journal.ends
        job = await self._insist(f"GetJob {job_id}", lambda: self.jobs.GetJob(asked, **self._usual))
        self.journal.note_job(job, had_ended=had_ended)
        return job

    async def list(self, *states: jobs_pb2.JobState) -> list[jobs_pb2.Job]:
        """All of them, page by page."""
        found: list[jobs_pb2.Job] = []
        token = ""
        while True:
            asked = jobs_pb2.ListJobsRequest(page_size=1000, page_token=token, states=states)
            page = await self._insist("ListJobs", lambda asked=asked: self.jobs.ListJobs(asked, **self._usual))  # type: ignore[misc]
            found += page.jobs
            token = page.next_page_token
            if not token:
                return found

    async def status(self) -> daemon_pb2.DaemonStatus:
        asked = daemon_pb2.GetStatusRequest()
        return await self._insist("GetStatus", lambda: self.daemon.GetStatus(asked, **self._usual))

    async def close(self) -> None:
        if self._channel is not None:
            await self._channel.close()
            self._channel = None

    # How

    @property
    def channel(self) -> grpc.aio.Channel:
        """One for as long as the daemon answers at the same address."""
        address = self.target() if self.target is not None else self.keeper.address
        if self._channel is None or self._address != address:
            self._address = address
            secure = self.credentials
            self._channel = (
                grpc.aio.insecure_channel(address, options=_OPTIONS)
                if secure is None
                else grpc.aio.secure_channel(address, secure, options=_OPTIONS)
            )
        return self._channel

    @property
    def jobs(self) -> jobs_pb2_grpc.JobsStub:
        return jobs_pb2_grpc.JobsStub(self.channel)

    @property
    def images(self) -> images_pb2_grpc.ImagesStub:
        return images_pb2_grpc.ImagesStub(self.channel)

    @property
    def daemon(self) -> daemon_pb2_grpc.DaemonStub:
        return daemon_pb2_grpc.DaemonStub(self.channel)

    @property
    def _usual(self) -> dict[str, object]:
        return {"timeout": CALL_S, "metadata": self.metadata}

    async def _watch(self, job_id: str) -> End:
        asked, had_ended = jobs_pb2.WatchJobRequest(id=job_id), job_id in self.journal.ends
        async for event in self.jobs.WatchJob(asked, metadata=self.metadata, timeout=self.limit_s):
            self.journal.tick()
            match event.WhichOneof("event"):
                case "snapshot":
                    self.journal.note_job(event.snapshot, had_ended=had_ended)
                case "image":
                    image = event.image
                    self.journal.note_picture(image.id, Picture(job_id, image.index, image.seed, image.sha256))
                case "finished":
                    self.journal.note_job(event.finished.job)
                    return self.journal.ends[job_id]
        raise Broken("the stream ended before the job did")

    async def _cancel(self, job_id: str) -> None:
        try:
            self.journal.note_cancelled(await self.jobs.CancelJob(jobs_pb2.CancelJobRequest(id=job_id), **self._usual))
        except grpc.aio.AioRpcError as error:
            if _reason(error) != "JOB_FINISHED":
                raise
            asked = jobs_pb2.GetJobRequest(id=job_id)
            self.journal.note_finished_already(await self.jobs.GetJob(asked, **self._usual))

    async def _delete(self, image_id: str) -> None:
        try:
            await self.images.DeleteImage(images_pb2.DeleteImageRequest(id=image_id), **self._usual)
        except grpc.aio.AioRpcError as error:
            if _reason(error) != "UNKNOWN_IMAGE":  # it was deleted, and the answer was lost
                raise
        self.journal.note_deleted(image_id)

    async def _insist(self, what: str, call: Callable[[], Awaitable[T]]) -> T:
        last: BaseException | None = None
        try:
            async with asyncio.timeout(self.limit_s):
                while True:
                    await self.keeper.is_up.wait()
                    try:
                        return await call()
                    except (grpc.aio.AioRpcError, Broken) as error:
                        if isinstance(error, grpc.aio.AioRpcError) and not _is_for_now(error):
                            raise
                        last = error
                    await asyncio.sleep(PAUSE_S)
        except TimeoutError:
            self.journal.faults.append(Violation("not answered", f"{what} within {self.limit_s:g} s: {last!r:.300}"))
            raise GaveUp(what) from last


class GaveUp(Exception):
    """A caller who was not served within its patience; the journal has it as a violation."""


class Broken(Exception):
    """A stream that ended early."""


def _is_for_now(error: grpc.aio.AioRpcError) -> bool:
    """Whether the caller should come again; a model's disk that is away comes back, too."""
    return error.code() in _AGAIN or _reason(error) == "UNKNOWN_MODEL"


def _reason(error: grpc.aio.AioRpcError) -> str:
    with contextlib.suppress(KeyError):
        return harness.reason(error)
    return ""
