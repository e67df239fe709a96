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


class Daemon:
    def __init__(self, control: Control, log: Log) -> None:
        self._control = control
        self._log = log

    async def GetStatus(self, _request: pb.GetStatusRequest, caller: Caller) -> pb.DaemonStatus:
        """Users hear how busy it is; paths of its machine are for admins."""
        message = mapping.daemon_status(self._control.status())
        if not caller.is_admin:
            message.ClearField("address")
            message.ClearField("warnings")
        return message

    async def Shutdown(self, request: pb.ShutdownRequest, _: Caller) -> pb.ShutdownResponse:
        if not (math.isfinite(request.grace_s) and request.grace_s >= 0):
            raise invalid("grace_s", "must be a number of seconds, 0 or more")
        self._control.shutdown(now=request.now, grace_s=request.grace_s)
        return pb.ShutdownResponse()

    async def WatchLogs(self, request: pb.WatchLogsRequest, _: Caller) -> AsyncIterator[pb.LogLine]:
        async for line in self._log.watch(request.tail, follow=request.follow):
            yield pb.LogLine(json=line)
