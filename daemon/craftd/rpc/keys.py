"""The Keys service."""

from __future__ import annotations

from craft_protos import keys_pb2 as pb
from craft_protos.reasons import invalid

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
    def __init__(self, service: KeyService) -> None:
        self._service = service

    async def CreateKey(self, request: pb.CreateKeyRequest, _: Caller) -> pb.CreateKeyResponse:
        if request.role not in _ROLES_BACK:
            raise invalid("role", f"{request.role} is not a role")
        key, secret = await self._service.create(request.owner, _ROLES_BACK[request.role], request.tier)
        return pb.CreateKeyResponse(key=_message(key), secret=secret)

    async def ListKeys(self, _request: pb.ListKeysRequest, _: Caller) -> pb.ListKeysResponse:
        return pb.ListKeysResponse(keys=[_message(key) for key in self._service.list()])

    async def SuspendKey(self, request: pb.SuspendKeyRequest, _: Caller) -> pb.Key:
        return _message(await self._service.suspend(request.key))

    async def ResumeKey(self, request: pb.ResumeKeyRequest, _: Caller) -> pb.Key:
        return _message(await self._service.resume(request.key))

    async def BanOwner(self, request: pb.BanOwnerRequest, _: Caller) -> pb.Key:
        return _message(await self._service.ban(request.key))

    async def DeleteKey(self, request: pb.DeleteKeyRequest, _: Caller) -> pb.DeleteKeyResponse:
        await self._service.delete(request.key)
        return pb.DeleteKeyResponse()


def _message(key: Key) -> pb.Key:
    message = pb.Key(
        id=key.id,
        owner=key.owner,
        role=_ROLES[key.role],
        state=_STATES[key.state],
        tier=key.tier,
        create_time=timestamp(key.create_time),
    )
    if key.last_used_time is not None:
        message.last_used_time.CopyFrom(timestamp(key.last_used_time))
    return message
