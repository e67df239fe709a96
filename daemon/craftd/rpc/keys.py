"""The Keys service."""

from __future__ import annotations

from craft_protos import keys_pb2 as pb
from craft_protos.reasons import invalid

from craftd.jobs.service import JobService
from craftd.keys.caller import Caller, Role
from craftd.keys.key import Key, State
from craftd.keys.service import KeyService
from craftd.rpc.mapping import timestamp

_ROLES = {Role.USER: pb.KEY_ROLE_USER, Role.ADMIN: pb.KEY_ROLE_ADMIN}
_ROLES_BACK = {pb.KEY_ROLE_UNSPECIFIED: Role.USER} | {number: role for role, number in _ROLES.items()}
_STATES = {
    State.ACTIVE: pb.KEY_STATE_ACTIVE,
    State.SUSPENDED: pb.KEY_STATE_SUSPENDED,
    State.BANNED: pb.KEY_STATE_BANNED,
}


class Keys:
    def __init__(self, service: KeyService, jobs: JobService) -> None:
        self._service = service
        self._jobs = jobs

    async def CreateKey(self, request: pb.CreateKeyRequest, _: Caller) -> pb.CreateKeyResponse:
        if request.role not in _ROLES_BACK:
            raise invalid("role", f"{request.role} is not a role")
        role = _ROLES_BACK[request.role]
        key, secret = await self._service.create(
            request.owner, role, request.tier, secret=request.secret, replaces=request.replaces
        )
        return pb.CreateKeyResponse(key=_message(key), secret=secret)

    async def ListKeys(self, _request: pb.ListKeysRequest, _: Caller) -> pb.ListKeysResponse:
        return pb.ListKeysResponse(keys=[_message(key) for key in self._service.list()])

    async def GetKey(self, request: pb.GetKeyRequest, _: Caller) -> pb.Key:
        return _message(self._service.get(request.key))

    async def GetUsage(self, request: pb.GetUsageRequest, _: Caller) -> pb.Usage:
        key = self._service.get(request.key)
        rate, usage = await self._service.rate_of(key), await self._jobs.usage(key.caller)
        return pb.Usage(
            key=_message(key),
            requests=rate.limit - rate.remaining,
            requests_per_minute=rate.limit,
            images_in_flight=usage.images_in_flight,
            most_images_in_flight=usage.most_images_in_flight,
            images_last_day=usage.images_last_day,
            images=usage.images,
        )

    async def SuspendKey(self, request: pb.SuspendKeyRequest, _: Caller) -> pb.Key:
        return _message(await self._service.suspend(request.key, lapsed=request.lapsed))

    async def ResumeKey(self, request: pb.ResumeKeyRequest, _: Caller) -> pb.Key:
        return _message(await self._service.resume(request.key, lapsed=request.lapsed))

    async def BanOwner(self, request: pb.BanOwnerRequest, _: Caller) -> pb.Key:
        return _message(await self._service.ban(request.key, without_key=request.without_key))

    async def DeleteKey(self, request: pb.DeleteKeyRequest, _: Caller) -> pb.DeleteKeyResponse:
        await self._service.delete(request.key)
        return pb.DeleteKeyResponse()

    async def ForgetOwner(self, request: pb.ForgetOwnerRequest, _: Caller) -> pb.ForgetOwnerResponse:
        if not request.owner:
            raise invalid("owner", "is missing", "whose data is to be deleted?")
        is_key_gone = await self._service.forget(request.owner)  # first: no more jobs come
        gone = await self._jobs.forget(request.owner)
        return pb.ForgetOwnerResponse(
            jobs=gone.jobs, images=gone.images, datasets=gone.datasets, key_kept=not is_key_gone
        )


def _message(key: Key) -> pb.Key:
    message = pb.Key(
        id=key.id,
        owner=key.owner,
        role=_ROLES[key.role],
        state=_STATES[key.state],
        tier=key.tier,
        create_time=timestamp(key.create_time),
        lapsed=key.is_lapsed,
        held=key.is_suspended,
    )
    if key.last_used_time is not None:
        message.last_used_time.CopyFrom(timestamp(key.last_used_time))
    return message
