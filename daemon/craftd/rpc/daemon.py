"""The Daemon service."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator

from craft_protos import daemon_pb2 as pb
from craft_protos.reasons import invalid

from craftd.control import Control
from craftd.keys.caller import Caller
from craftd.logs import Log
from craftd.rpc import mapping
from craftd.upkeep.service import Upkeep


class Daemon:
    def __init__(self, control: Control, log: Log, upkeep: Upkeep) -> None:
        self._control = control
        self._upkeep = upkeep
        self._log = log

    async def GetStatus(self, _request: pb.GetStatusRequest, caller: Caller) -> pb.DaemonStatus:
        """Users hear how busy it is; paths of its machine are for admins."""
        message = mapping.daemon_status(self._control.status())
        if not caller.is_admin:
            message.ClearField("address")
            message.ClearField("warnings")
            message.ClearField("bot")
            for worker in message.workers:
                worker.ClearField("address")
        return message

    async def Shutdown(self, request: pb.ShutdownRequest, _: Caller) -> pb.ShutdownResponse:
        if not (math.isfinite(request.grace_s) and request.grace_s >= 0):
            raise invalid("grace_s", "must be a number of seconds, 0 or more")
        self._control.shutdown(now=request.now, grace_s=request.grace_s)
        return pb.ShutdownResponse()

    async def DrainWorker(self, request: pb.DrainWorkerRequest, _: Caller) -> pb.WorkerStatus:
        return mapping.worker_status(self._control.drain_worker(request.name, resume=request.resume))

    async def InviteWorker(self, request: pb.InviteWorkerRequest, _: Caller) -> pb.Invitation:
        told = await self._control.invite_worker(request.name)
        return pb.Invitation(
            name=told.invitation.name,
            address=told.address,
            fingerprint=told.fingerprint,
            token=told.invitation.token,
            valid_s=told.invitation.valid_s,
        )

    async def RemoveWorker(self, request: pb.RemoveWorkerRequest, _: Caller) -> pb.RemoveWorkerResponse:
        await self._control.remove_worker(request.name)
        return pb.RemoveWorkerResponse()

    async def GetDiskUsage(self, _request: pb.GetDiskUsageRequest, _: Caller) -> pb.DiskUsage:
        usage = await self._upkeep.usage()
        held = [
            pb.Held(what=one.what, count=one.amount.count, bytes=one.amount.bytes, rule=one.rule, place=str(one.place))
            for one in usage.held
        ]
        return pb.DiskUsage(held=held, free_bytes=usage.free_bytes, total_bytes=usage.total_bytes)

    async def Prune(self, request: pb.PruneRequest, _: Caller) -> pb.PruneResponse:
        if not (math.isfinite(request.older_than_s) and request.older_than_s >= 0):
            raise invalid("older_than_s", "must be a number of seconds, 0 or more")
        gone = await self._upkeep.prune(tuple(request.what), request.older_than_s, dry_run=request.dry_run)
        pruned = [pb.Pruned(what=what, count=amount.count, bytes=amount.bytes) for what, amount in gone.items()]
        return pb.PruneResponse(pruned=pruned)

    async def WatchLogs(self, request: pb.WatchLogsRequest, _: Caller) -> AsyncIterator[pb.LogLine]:
        async for line in self._log.watch(request.tail, follow=request.follow):
            yield pb.LogLine(json=line)
