"""An input: a picture that drawing begins from, or a mask."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass

_DAY_S = 86_400.0
SWEEP_EVERY_S = 3600.0
KEPT_S = _DAY_S + SWEEP_EVERY_S  # a sweep notes which ones jobs need: a day after the last use at the least


@dataclass(frozen=True)
class Input:
    """Of the owner who sent it. `use_time`: when that was, or when a job needed it last."""

    owner: str
    sha256: str
    size_bytes: int
    media_type: str
    width: int  # upright
    height: int
    has_alpha: bool
    use_time: float

    @property
    def expire_time(self) -> float:
        return self.use_time + _DAY_S


@dataclass(frozen=True)
class Upload:
    """What a sender says first, and then the bytes after those that are here already."""

    owner: str
    sha256: str
    size_bytes: int
    offset: int
    chunks: AsyncIterator[bytes]


@dataclass(frozen=True)
class Found:
    """What is here of a picture: all of it, or so many bytes of an upload that was cut."""

    input: Input | None
    received_bytes: int = 0
