"""The daemon, as its clients see it: the Keys service, and jobs made for the owner of a key."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, TypeVar

os.environ.setdefault("GRPC_VERBOSITY", "NONE")

import grpc
import grpc.aio
from craft_protos import (
    channels,
    daemon_pb2,
    daemon_pb2_grpc,
    images_pb2,
    images_pb2_grpc,
    jobs_pb2,
    jobs_pb2_grpc,
    keys_pb2,
    keys_pb2_grpc,
)
from craft_protos.reasons import CraftError

_log = logging.getLogger("craft.bot")
T = TypeVar("T")
_TIMEOUT_S = 30.0
_LEAST_WAIT_S, _LONGEST_WAIT_S = 0.1, 5.0
_RECENT = 100
_OPTIONS = [("grpc.initial_reconnect_backoff_ms", 100), ("grpc.max_reconnect_backoff_ms", 2000)]
OWNER = "telegram:"


def owner_of(account: int) -> str:
    """Whose key an account's is."""
    return f"{OWNER}{account}"


def account_of(owner: str) -> int | None:
    number = owner.removeprefix(OWNER)
    return int(number) if owner.startswith(OWNER) and number.isascii() and number.isdigit() else None


class DaemonClient:
    """Calls wait for a daemon that is away: it may be starting again. Raises what it refuses."""

    def __init__(self, address: str, *, api_key: str = "", ca_file: str = "") -> None:
        credentials, options = channels.credentials(address, ca_file), [*channels.options(address), *_OPTIONS]
        if credentials is None:
            self._channel = grpc.aio.insecure_channel(address, options=options)
        else:
            self._channel = grpc.aio.secure_channel(address, credentials, options=options)
        self.address = address
        self._metadata = (("authorization", f"Bearer {api_key}"),) if api_key else ()
        self._keys = keys_pb2_grpc.KeysStub(self._channel)
        self._jobs = jobs_pb2_grpc.JobsStub(self._channel)
        self._images = images_pb2_grpc.ImagesStub(self._channel)
        self._daemon = daemon_pb2_grpc.DaemonStub(self._channel)

    async def close(self) -> None:
        await self._channel.close()

    async def status(self) -> daemon_pb2.DaemonStatus:
        return await self._patiently(lambda: self._call(self._daemon.GetStatus, daemon_pb2.GetStatusRequest()))

    async def key(self, name: str) -> keys_pb2.Key | None:
        """By owner or id; None where there is none."""
        try:
            return await self._patiently(lambda: self._call(self._keys.GetKey, keys_pb2.GetKeyRequest(key=name)))
        except CraftError as exc:
            if exc.reason != "UNKNOWN_KEY":
                raise
            return None

    async def keys(self) -> list[keys_pb2.Key]:
        answer = await self._patiently(lambda: self._call(self._keys.ListKeys, keys_pb2.ListKeysRequest()))
        return list(answer.keys)

    async def create_key(self, account: int, secret: str, replaces: str) -> keys_pb2.Key:
        """Made again, the answer is the same. Raises KEY_BANNED, KEY_EXISTS, KEY_SUSPENDED."""
        request = keys_pb2.CreateKeyRequest(owner=owner_of(account), secret=secret, replaces=replaces)
        return (await self._patiently(lambda: self._call(self._keys.CreateKey, request))).key

    async def lapse(self, account: int) -> None:
        request = keys_pb2.SuspendKeyRequest(key=owner_of(account), lapsed=True)
        await self._patiently(lambda: self._call(self._keys.SuspendKey, request))

    async def resume(self, account: int, *, lapsed: bool) -> None:
        """`lapsed`: leaves what an admin suspended as it is."""
        request = keys_pb2.ResumeKeyRequest(key=owner_of(account), lapsed=lapsed)
        await self._patiently(lambda: self._call(self._keys.ResumeKey, request))

    async def ban(self, owner: str) -> None:
        request = keys_pb2.BanOwnerRequest(key=owner, without_key=True)
        await self._patiently(lambda: self._call(self._keys.BanOwner, request))

    async def usage(self, account: int) -> keys_pb2.Usage:
        request = keys_pb2.GetUsageRequest(key=owner_of(account))
        return await self._patiently(lambda: self._call(self._keys.GetUsage, request))

    async def forget(self, account: int) -> keys_pb2.ForgetOwnerResponse:
        request = keys_pb2.ForgetOwnerRequest(owner=owner_of(account))
        return await self._patiently(lambda: self._call(self._keys.ForgetOwner, request))

    # For the owner of a key, within the key's quota

    async def draw(self, account: int, prompt: str, request_id: str) -> str:
        """The job's id. Raises what stands in its way."""
        request = jobs_pb2.CreateJobRequest(request_id=request_id, generate=jobs_pb2.GenerateSpec(prompt=prompt))
        return (await self._patiently(lambda: self._call(self._jobs.CreateJob, request, account))).id

    async def job_of(self, account: int, request_id: str) -> str:
        """The job that a request has made already; "" where it has made none."""
        request = jobs_pb2.ListJobsRequest(page_size=_RECENT)
        answer = await self._patiently(lambda: self._call(self._jobs.ListJobs, request, account))
        return next((job.id for job in answer.jobs if job.request_id == request_id), "")

    async def finished(self, account: int, job_id: str) -> jobs_pb2.Job:
        """The job, once it has ended."""

        async def watch() -> jobs_pb2.Job:
            request = jobs_pb2.WatchJobRequest(id=job_id)
            async for event in self._stream(self._jobs.WatchJob, request, account):
                if event.WhichOneof("event") == "finished":
                    job: jobs_pb2.Job = event.finished.job
                    return job
            raise CraftError("DAEMON_UNREACHABLE", "the job's events ended before the job did")

        return await self._patiently(watch)

    async def picture(self, account: int, image_id: str) -> bytes:
        async def fetch() -> bytes:
            request = images_pb2.GetImageRequest(id=image_id)
            return b"".join([part.chunk async for part in self._stream(self._images.GetImage, request, account)])

        return await self._patiently(fetch)

    async def cancel(self, account: int, job_id: str) -> None:
        """Raises UNKNOWN_JOB where it is another's, JOB_FINISHED."""
        request = jobs_pb2.CancelJobRequest(id=job_id)
        await self._patiently(lambda: self._call(self._jobs.CancelJob, request, account))

    async def _patiently(self, call: Callable[[], Awaitable[T]]) -> T:
        wait_s = _LEAST_WAIT_S
        while True:
            try:
                return await call()
            except CraftError as exc:
                if exc.reason not in ("DAEMON_UNREACHABLE", "DAEMON_SILENT", "DRAINING"):
                    raise
                _log.warning("the daemon does not answer", extra={"why": exc.message, "wait_s": wait_s})
            await asyncio.sleep(wait_s)
            wait_s = min(2 * wait_s, _LONGEST_WAIT_S)

    async def _call(self, method: Callable[..., Awaitable[T]], request: object, account: int | None = None) -> T:
        try:
            return await method(request, timeout=_TIMEOUT_S, metadata=self._metadata_for(account))
        except grpc.aio.AioRpcError as error:
            ours = channels.ours(error, self.address)
            if ours.reason == "RATE_LIMITED" and account is None:  # this client's own key: it may wait
                raise CraftError("DAEMON_UNREACHABLE", ours.message, ours.hint) from error
            raise ours from error

    async def _stream(self, method: Callable[..., Any], request: object, account: int) -> AsyncIterator[Any]:
        try:
            async for message in method(request, metadata=self._metadata_for(account)):
                yield message
        except grpc.aio.AioRpcError as error:
            raise channels.ours(error, self.address) from error

    def _metadata_for(self, account: int | None) -> tuple[tuple[str, str], ...]:
        """With an account: as if its owner called, with their own key."""
        return self._metadata if account is None else (*self._metadata, ("craft-owner", owner_of(account)))
