"""Who calls: through the local socket, or with a key."""

from __future__ import annotations

import enum
from dataclasses import dataclass

from craft_protos.reasons import CraftError


class Role(enum.StrEnum):
    USER = "user"
    ADMIN = "admin"


@dataclass(frozen=True)
class Caller:
    """What services ask about whoever calls them."""

    owner: str
    role: Role
    key_id: str = ""  # empty: through the local socket
    tier: str = ""

    @property
    def is_admin(self) -> bool:
        return self.role is Role.ADMIN

    @property
    def scope(self) -> str:
        """Whose jobs and images it may see: an owner's, or "" for everybody's."""
        return "" if self.is_admin else self.owner

    def require_admin(self, what: str) -> None:
        """Raises NOT_ALLOWED."""
        if not self.is_admin:
            raise CraftError("NOT_ALLOWED", f"{what}: not with a user key", "use an admin key, or the local socket")


LOCAL = Caller("local", Role.ADMIN)  # whoever reaches the socket is admin
ANYBODY = Caller("\0", Role.USER)  # who shows no key: no owner's name, so that nothing is theirs
