"""The daemon's log as it grows, also where it is rotated meanwhile."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

Record = dict[str, Any]


class LogTail:
    """Lines from now on; each is read once."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._offset = path.stat().st_size if path.exists() else 0
        self._rest = b""

    def more(self) -> list[Record]:
        """What has come since the last call."""
        if not self._path.exists():
            return []
        if self._path.stat().st_size < self._offset:
            self._offset, self._rest = 0, b""
        with self._path.open("rb") as file:
            file.seek(self._offset)
            new = file.read()
        self._offset += len(new)
        *lines, self._rest = (self._rest + new).split(b"\n")
        return [json.loads(line) for line in lines if line]

    async def wait(self, is_it: Callable[[Record], bool], timeout_s: float = 10.0) -> Record | None:
        """The next line of that kind; None where it does not come in time."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                while True:
                    for record in self.more():
                        if is_it(record):
                            return record
                    await asyncio.sleep(0.005)
        return None


def seconds_of(record: Record) -> float:
    """When it was written, since 1970."""
    return datetime.fromisoformat(record["time"]).timestamp()
