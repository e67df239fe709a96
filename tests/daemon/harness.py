"""Real daemons, in folders of their own, with the worker that needs no torch."""

from __future__ import annotations

import asyncio
import contextlib
import io
import itertools
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import TypeVar

import grpc
import grpc.aio
from craft_protos import (
    daemon_pb2,
    daemon_pb2_grpc,
    images_pb2,
    images_pb2_grpc,
    inputs_pb2_grpc,
    jobs_pb2,
    jobs_pb2_grpc,
    loras_pb2_grpc,
    models_pb2_grpc,
    training_pb2_grpc,
)
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2
from PIL import Image

from tests.home import HANG_S, Home

T = TypeVar("T")
FINAL = {jobs_pb2.JOB_STATE_SUCCEEDED, jobs_pb2.JOB_STATE_FAILED, jobs_pb2.JOB_STATE_CANCELLED}
Process = asyncio.subprocess.Process | subprocess.Popen[bytes]
_numbers = itertools.count()


class Daemon:
    """A craftd process that has said it is ready, and stubs to call it."""

    def __init__(self, home: Home, process: Process, address: str) -> None:
        self.home = home
        self.process = process
        self.address = address
        self.channel = grpc.aio.insecure_channel(address)
        self.jobs = jobs_pb2_grpc.JobsStub(self.channel)
        self.images = images_pb2_grpc.ImagesStub(self.channel)
        self.inputs = inputs_pb2_grpc.InputsStub(self.channel)
        self.loras = loras_pb2_grpc.LorasStub(self.channel)
        self.models = models_pb2_grpc.ModelsStub(self.channel)
        self.training = training_pb2_grpc.TrainingStub(self.channel)
        self.daemon = daemon_pb2_grpc.DaemonStub(self.channel)

    async def create(self, prompt: str = "a red apple", **fields: object) -> jobs_pb2.Job:
        return await self.jobs.CreateJob(request(prompt, **fields))

    async def finish(self, job_id: str) -> jobs_pb2.Job:
        """The job, once it has ended."""
        async for event in self.jobs.WatchJob(jobs_pb2.WatchJobRequest(id=job_id)):
            if event.WhichOneof("event") == "finished":
                return event.finished.job
        raise AssertionError("the stream ended before the job did")

    async def see(self, job_id: str, kind: str) -> jobs_pb2.JobEvent:
        """The job's first event of a kind."""
        async for event in self.jobs.WatchJob(jobs_pb2.WatchJobRequest(id=job_id)):
            if event.WhichOneof("event") == kind:
                return event
        raise AssertionError(f"no {kind} came")

    async def has_begun(self, job_id: str) -> None:
        """Until a worker has the job, and its model in memory: what stays so, where an event is heard but once."""
        async with asyncio.timeout(HANG_S):
            while True:
                job = await self.jobs.GetJob(jobs_pb2.GetJobRequest(id=job_id))
                assert job.state not in FINAL, job.error
                loaded = {model for worker in (await self.status()).workers for model in worker.models}
                if job.state == jobs_pb2.JOB_STATE_RUNNING and job.generate.model in loaded:
                    return
                await asyncio.sleep(0.01)

    async def waits_for(self, job_id: str, what: str) -> str:
        """Until its watchers hear that it waits for that; all that they hear of it."""
        async for event in self.jobs.WatchJob(jobs_pb2.WatchJobRequest(id=job_id)):
            if what in event.queued.why:
                return event.queued.why
        raise AssertionError(f"it did not wait for {what!r}")

    async def file(self, image_id: str) -> bytes:
        parts = self.images.GetImage(images_pb2.GetImageRequest(id=image_id))
        return b"".join([part.chunk async for part in parts])

    async def status(self) -> daemon_pb2.DaemonStatus:
        return await self.daemon.GetStatus(daemon_pb2.GetStatusRequest())

    async def logged(self, event: str) -> dict[str, object]:
        """Waits for a line of the log."""
        request = daemon_pb2.WatchLogsRequest(tail=1000, follow=True)
        async for line in self.daemon.WatchLogs(request):
            record: dict[str, object] = json.loads(line.json)
            if record["event"] == event:
                return record
        raise AssertionError(f"{event!r} was not logged")

    async def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        await self.channel.close()
        if self.process.returncode is None:
            self.process.send_signal(number)
        async with asyncio.timeout(HANG_S):
            return await self.process.wait()


def request(prompt: str = "a red apple", **fields: object) -> jobs_pb2.CreateJobRequest:
    """Fields of the request by name; all others are the GenerateSpec's."""
    of_job = ("request_id", "lease", "priority", "expire_time", "webhook")
    outer = {name: fields.pop(name) for name in of_job if name in fields}
    outer.setdefault("request_id", f"test-{os.getpid()}-{next(_numbers)}")
    spec = jobs_pb2.GenerateSpec(prompt=prompt, **({"steps": 3} | fields))  # type: ignore[arg-type]
    return jobs_pb2.CreateJobRequest(generate=spec, **outer)  # type: ignore[arg-type]


async def spawn(home: Home) -> tuple[asyncio.subprocess.Process, dict[str, object]]:
    """(the process, what it said on its ready pipe)."""
    reading, writing = os.pipe()
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "craftd", "--ready-fd", str(writing)),
        env=home.env,
        pass_fds=[writing],
        stderr=asyncio.subprocess.PIPE,
    )
    os.close(writing)
    with os.fdopen(reading) as pipe:
        line = await asyncio.to_thread(pipe.readline)
    return process, json.loads(line) if line else {}


def spawn_and_wait(home: Home) -> tuple[subprocess.Popen[bytes], dict[str, object]]:
    """The same where no event loop is."""
    reading, writing = os.pipe()
    process = subprocess.Popen(
        [sys.executable, "-m", "craftd", "--ready-fd", str(writing)],
        env=home.env,
        pass_fds=[writing],
        stderr=subprocess.PIPE,
    )
    os.close(writing)
    with os.fdopen(reading) as pipe:
        line = pipe.readline()
    return process, json.loads(line) if line else {}


async def start(home: Home) -> Daemon:
    process, said = await spawn(home)
    if not said.get("ready"):
        assert process.stderr is not None
        raise AssertionError((said, await process.stderr.read()))
    return Daemon(home, process, str(said["address"]))


@contextlib.asynccontextmanager
async def running(home: Home) -> AsyncIterator[Daemon]:
    """One helper for all: a daemon that is ended however the test goes."""
    daemon = await start(home)
    try:
        yield daemon
    finally:
        with contextlib.suppress(ProcessLookupError):
            await daemon.stop(signal.SIGKILL)


async def within_a_minute(work: Callable[[int], Awaitable[T]]) -> T:
    """What `work` gives; again, with the next number, where the clock's minute changed: requests count by minutes."""
    for number in itertools.count():
        minute = time.time() // 60
        done = await work(number)
        if time.time() // 60 == minute:
            break
    return done


def details(error: grpc.aio.AioRpcError) -> dict[str, Message]:
    """A status' details by their type's name."""
    trailers = dict(error.trailing_metadata() or ())
    status = status_pb2.Status.FromString(trailers["grpc-status-details-bin"])  # type: ignore[arg-type]
    kinds = (error_details_pb2.ErrorInfo, error_details_pb2.BadRequest, error_details_pb2.RetryInfo)
    found: dict[str, Message] = {}
    for packed in status.details:
        for kind in kinds:
            if packed.Is(kind.DESCRIPTOR):
                found[kind.DESCRIPTOR.name] = kind.FromString(packed.value)
    return found


def reason(error: grpc.aio.AioRpcError) -> str:
    info = details(error)["ErrorInfo"]
    assert isinstance(info, error_details_pb2.ErrorInfo)
    return info.reason


def field(error: grpc.aio.AioRpcError) -> str:
    bad = details(error)["BadRequest"]
    assert isinstance(bad, error_details_pb2.BadRequest)
    return bad.field_violations[0].field


def is_whole(data: bytes, size: tuple[int, int] = (64, 64)) -> bool:
    """Every pixel of it can be decoded."""
    with Image.open(io.BytesIO(data), formats=["PNG", "JPEG", "WEBP"]) as image:
        image.load()
        return image.size == size
