"""Whose LoRAs are whose: which ones a caller sees, may change, and how many an owner may have."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from craft_protos.reasons import CraftError
from craft_protos.settings import Settings

from craftd.keys.caller import Caller, Role
from craftd.loras.lora import Lora

_HINT = "remove some: craft lora rm"


def circles(loras: Iterable[Lora], caller: Caller) -> tuple[list[Lora], list[Lora], list[Lora]]:
    """The caller's own, those of others that are shared, and the rest, which admins alone see."""
    own, shared, rest = list[Lora](), list[Lora](), list[Lora]()
    for lora in loras:
        if lora.owner == caller.owner:
            own.append(lora)
        elif lora.is_shared:
            shared.append(lora)
        elif caller.is_admin:
            rest.append(lora)
    return own, shared, rest


def near(loras: Iterable[Lora], owner: str) -> list[Lora]:
    """What an owner draws with unless told otherwise: their own, then the shared ones."""
    own, shared, _ = circles(loras, Caller(owner, Role.USER))
    return own + shared


def id_seed(sha256: str, owner: str, *, is_shared: bool) -> str:
    """What an id is the beginning of: a private one tells nobody that another owner has the same file."""
    return sha256 if is_shared else hashlib.sha256(f"{owner}\0{sha256}".encode()).hexdigest()


def require_changeable(lora: Lora, caller: Caller) -> None:
    """Raises NOT_ALLOWED: what is shared is changed by admins."""
    if lora.is_shared:
        caller.require_admin(f"changing {lora.name}, a shared LoRA")


@dataclass(frozen=True)
class LoraQuota:
    """How many LoRAs, of how many bytes, the owner of a key may have: the key's tier says."""

    settings: Settings

    def check(self, caller: Caller, loras: Iterable[Lora], size_bytes: int = 0) -> None:
        """Whether one more of that size may come beside the caller's own. Raises QUOTA_EXCEEDED."""
        if caller.is_admin:
            return
        tier, own = self.settings.tier(caller.tier), _private(loras, caller.owner)
        if len(own) >= tier.loras:
            raise CraftError("QUOTA_EXCEEDED", f"this key may have {tier.loras} LoRAs of its own", _HINT)
        held = sum(lora.size_bytes for lora in own)
        if held + size_bytes > tier.lora_bytes:
            message = f"this key's LoRAs may have {tier.lora_bytes} bytes; with this one they had {held + size_bytes}"
            raise CraftError("QUOTA_EXCEEDED", message, _HINT)


def _private(loras: Iterable[Lora], owner: str) -> Sequence[Lora]:
    return [lora for lora in loras if lora.owner == owner and not lora.is_shared]
