"""A daemon in this process that says what a test wants it to: for answers a real one gives rarely."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Callable, Iterator
from concurrent import futures
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import grpc
from craft_protos import daemon_pb2, daemon_pb2_grpc, jobs_pb2, jobs_pb2_grpc
from craft_protos.paths import Paths
from craft_protos.reasons import REASONS
from google.protobuf import any_pb2
from google.rpc import error_details_pb2, status_pb2

Refusal = tuple[str, str]  # reason, message


@dataclass
class FakeDaemon(jobs_pb2_grpc.JobsServicer, daemon_pb2_grpc.DaemonServicer):
    """Creates jobs that have succeeded, unless `refusals` (taken one by one) say otherwise."""

    version: str
    refusals: list[Refusal] = field(default_factory=list)
    requests: list[jobs_pb2.CreateJobRequest] = field(default_factory=list)
    metadata: list[dict[str, Any]] = field(default_factory=list)
    busy: bool = False
    on_shutdown: Callable[[], None] = lambda: None
    shutdowns: int = 0

    def CreateJob(self, request: jobs_pb2.CreateJobRequest, context: grpc.ServicerContext) -> jobs_pb2.Job:
        self.requests.append(request)
        self.metadata.append(dict(context.invocation_metadata()))
        if self.refusals:
            refuse(context, *self.refusals.pop(0))
        return jobs_pb2.Job(id="j1", state=jobs_pb2.JOB_STATE_SUCCEEDED, generate=request.generate)

    def GetStatus(self, request: daemon_pb2.GetStatusRequest, context: Any) -> daemon_pb2.DaemonStatus:
        return daemon_pb2.DaemonStatus(pid=os.getpid(), version=self.version, running=int(self.busy))

    def Shutdown(self, request: daemon_pb2.ShutdownRequest, context: Any) -> daemon_pb2.ShutdownResponse:
        self.shutdowns += 1
        self.on_shutdown()
        return daemon_pb2.ShutdownResponse()

    def WatchJob(self, request: Any, context: Any) -> Any:
        raise NotImplementedError

    def PlanJob(self, request: Any, context: Any) -> Any:
        raise NotImplementedError

    def GetJob(self, request: Any, context: Any) -> Any:
        raise NotImplementedError

    def ListJobs(self, request: Any, context: Any) -> Any:
        raise NotImplementedError

    def CancelJob(self, request: Any, context: Any) -> Any:
        raise NotImplementedError

    def WatchLogs(self, request: Any, context: Any) -> Any:
        raise NotImplementedError


def refuse(context: grpc.ServicerContext, reason: str, message: str) -> None:
    """Abort as the daemon does: google.rpc.Status with reason, hint, field and delay."""
    code = grpc.StatusCode[REASONS[reason].grpc]
    details = [
        error_details_pb2.ErrorInfo(reason=reason, domain="craft", metadata={"hint": "the hint"}),
        error_details_pb2.BadRequest(field_violations=[error_details_pb2.BadRequest.FieldViolation(field="width")]),
        error_details_pb2.RetryInfo(retry_delay={"nanos": 200_000_000}),
    ]
    packed = [any_pb2.Any() for _ in details]
    for box, detail in zip(packed, details, strict=True):
        box.Pack(detail)
    status = status_pb2.Status(code=code.value[0], message=message, details=packed)
    context.set_trailing_metadata((("grpc-status-details-bin", status.SerializeToString()),))
    context.abort(code, message)


@contextmanager
def serving(daemon: FakeDaemon, paths: Paths) -> Iterator[str]:
    """The daemon behind its socket, holding the lock as a real one does; its address."""
    for folder in (paths.data_dir, paths.socket.parent):
        folder.mkdir(parents=True, exist_ok=True)
    address = f"unix:{paths.socket}"
    server = grpc.server(futures.ThreadPoolExecutor(4))
    jobs_pb2_grpc.add_JobsServicer_to_server(daemon, server)
    daemon_pb2_grpc.add_DaemonServicer_to_server(daemon, server)
    server.add_insecure_port(address)
    server.start()
    lock = os.open(paths.lock_file, os.O_RDWR | os.O_CREAT)
    fcntl.flock(lock, fcntl.LOCK_EX)

    def end() -> None:
        server.stop(None)
        paths.socket.unlink(missing_ok=True)
        os.ftruncate(lock, 0)
        os.close(lock)

    record = {"pid": os.getpid(), "address": address, "version": daemon.version}
    os.ftruncate(lock, 0)  # the record of a daemon that was killed may be longer, and is none with another before it
    os.pwrite(lock, json.dumps(record).encode(), 0)
    daemon.on_shutdown = end
    try:
        yield address
    finally:
        if not daemon.shutdowns:
            end()
        server.stop(None).wait()
