"""Who may call which method. Whoever reaches the local socket is admin; from afar a key says who calls."""

from __future__ import annotations

import enum
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import unquote

import grpc.aio
from craft_protos.reasons import CraftError

from craftd.keys.caller import ANYBODY, LOCAL, Caller
from craftd.keys.service import KeyService

Context = grpc.aio.ServicerContext[Any, Any]


class Access(enum.Enum):
    PUBLIC = "anybody"
    USER = "any key"
    ADMIN = "admin keys"
    LOCAL = "the local socket alone"


# Every method has its entry: what is not here is refused.
POLICY: dict[str, Access] = {
    "grpc.health.v1.Health/Check": Access.PUBLIC,
    "grpc.health.v1.Health/List": Access.PUBLIC,
    "grpc.health.v1.Health/Watch": Access.USER,  # a stream, which costs memory: Check is there for others
    "grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo": Access.LOCAL,
    # Users see their own jobs and images; admins everybody's.
    "craft.v1.Jobs/CreateJob": Access.USER,
    "craft.v1.Jobs/PlanJob": Access.USER,
    "craft.v1.Jobs/GetJob": Access.USER,
    "craft.v1.Jobs/ListJobs": Access.USER,
    "craft.v1.Jobs/CancelJob": Access.USER,
    "craft.v1.Jobs/WatchJob": Access.USER,
    "craft.v1.Images/GetImage": Access.USER,
    "craft.v1.Images/ListImages": Access.USER,
    "craft.v1.Images/DeleteImage": Access.USER,
    "craft.v1.Training/UploadDataset": Access.USER,
    "craft.v1.Training/GetDataset": Access.USER,
    "craft.v1.Training/GetTrainingLog": Access.USER,
    "craft.v1.Inputs/PutInput": Access.USER,
    "craft.v1.Inputs/FindInput": Access.USER,
    # Models are everybody's: users use them.
    "craft.v1.Models/ListModels": Access.USER,
    "craft.v1.Models/GetModel": Access.USER,
    "craft.v1.Models/ListParts": Access.USER,
    "craft.v1.Models/SearchCatalogue": Access.USER,
    "craft.v1.Models/ImportModel": Access.ADMIN,
    "craft.v1.Models/ImportFolder": Access.ADMIN,
    "craft.v1.Models/DeleteModel": Access.ADMIN,
    "craft.v1.Models/LoadModel": Access.ADMIN,
    "craft.v1.Models/UnloadModel": Access.ADMIN,
    "craft.v1.Models/UpdateModel": Access.ADMIN,
    "craft.v1.Models/SetAlias": Access.ADMIN,
    "craft.v1.Models/DeleteAlias": Access.ADMIN,
    # Users see their own LoRAs and the shared ones, add by upload, and change their own.
    "craft.v1.Loras/ListLoras": Access.USER,
    "craft.v1.Loras/GetLora": Access.USER,
    "craft.v1.Loras/ImportLora": Access.USER,
    "craft.v1.Loras/UpdateLora": Access.USER,
    "craft.v1.Loras/DeleteLora": Access.USER,
    "craft.v1.Keys/CreateKey": Access.ADMIN,
    "craft.v1.Keys/ListKeys": Access.ADMIN,
    "craft.v1.Keys/GetKey": Access.ADMIN,
    "craft.v1.Keys/GetUsage": Access.ADMIN,
    "craft.v1.Keys/SuspendKey": Access.ADMIN,
    "craft.v1.Keys/ResumeKey": Access.ADMIN,
    "craft.v1.Keys/BanOwner": Access.ADMIN,
    "craft.v1.Keys/DeleteKey": Access.ADMIN,
    "craft.v1.Keys/ForgetOwner": Access.ADMIN,
    "craft.v1.Daemon/GetStatus": Access.USER,
    "craft.v1.Daemon/Shutdown": Access.ADMIN,
    "craft.v1.Daemon/GetDiskUsage": Access.ADMIN,
    "craft.v1.Daemon/Prune": Access.ADMIN,
    "craft.v1.Daemon/WatchLogs": Access.ADMIN,
    "craft.v1.Daemon/DrainWorker": Access.ADMIN,
    "craft.v1.Daemon/InviteWorker": Access.ADMIN,
    "craft.v1.Daemon/RemoveWorker": Access.ADMIN,
}
ACTS_FOR = "craft-owner"  # metadata: the owner for whom an admin calls
MOST_STREAMS = 128  # that a key may have open: each costs memory for as long as it lasts
_RETRY_AFTER_S = 2.0


class Gate:
    def __init__(self, keys: KeyService) -> None:
        self._keys = keys
        self._streams: Counter[str] = Counter()  # by key

    async def enter(self, method: str, context: Context) -> Caller:
        """Before a call of SERVICE/METHOD. Raises UNAUTHENTICATED, NOT_ALLOWED, KEY_*, UNKNOWN_KEY, RATE_LIMITED."""
        access, owner = POLICY.get(method, Access.LOCAL), _acts_for(context)
        if is_local(context) and not owner:
            return LOCAL
        if access is Access.PUBLIC:
            return ANYBODY
        caller = LOCAL if is_local(context) else self._keys.authenticate(_presented(context), _address(context))
        (await self._keys.count(caller)).require_within()
        if owner:
            caller.require_admin(f"{ACTS_FOR}: calls for another owner")
            caller = self._keys.caller_for(owner)
            (await self._keys.count(caller)).require_within()
        if access is Access.LOCAL:
            raise CraftError("NOT_ALLOWED", f"{method}: through the local socket alone", "call it there")
        if access is Access.ADMIN:
            caller.require_admin(method)
        return caller

    @contextmanager
    def counted(self, caller: Caller) -> Iterator[None]:
        """While a stream is open. Raises RATE_LIMITED where its key has too many."""
        if caller.key_id and self._streams[caller.key_id] >= MOST_STREAMS:
            message = f"this key has {MOST_STREAMS} streams open, which is the most"
            raise CraftError("RATE_LIMITED", message, "close one of them", retry_after_s=_RETRY_AFTER_S)
        self._streams[caller.key_id] += 1
        try:
            yield
        finally:
            self._streams[caller.key_id] -= 1
            if not self._streams[caller.key_id]:
                del self._streams[caller.key_id]

    def stay(self, caller: Caller) -> None:
        """Before each message of a call that lasts: its key may be suspended by now."""
        self._keys.check(caller)


def is_local(context: Context) -> bool:
    return context.peer().startswith("unix:")


def _acts_for(context: Context) -> str:
    """The owner for whom an admin calls: with that owner's key, as it were. "" for nobody."""
    return str(dict(context.invocation_metadata() or ()).get(ACTS_FOR, ""))


def _presented(context: Context) -> str:
    """From `authorization: Bearer KEY`, or `x-api-key: KEY`; "" where there is none."""
    given = dict(context.invocation_metadata() or ())
    scheme, _, key = str(given.get("authorization", "")).partition(" ")
    return key.strip() if scheme.lower() == "bearer" else str(given.get("x-api-key", ""))


def _address(context: Context) -> str:
    """Of ipv4:127.0.0.1:50000 or ipv6:%5B::1%5D:50000."""
    return unquote(context.peer()).partition(":")[2].rpartition(":")[0].strip("[]")
