"""The front's files on this machine, by sha256: fetched when they are needed, kept within a budget of disk."""

from __future__ import annotations

import asyncio
import errno
import os
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from craft_protos.reasons import CraftError

from craftd.workers.remote.pulling import Missing, Pulls

_NAME = re.compile(r"[0-9a-f]{64}")
_GIB = 1 << 30


@dataclass(frozen=True)
class Needed:
    """A file that a frame names."""

    sha256: str
    size_bytes: int


class FileStore:
    """`pinned`: names the files that may not go, as they are in use."""

    def __init__(self, folder: Path, budget_bytes: int, pinned: Callable[[], set[str]]) -> None:
        self.folder = folder / "files"
        self._halves = folder / "halves"
        self._budget_bytes = budget_bytes
        self._pinned = pinned
        self._locks: dict[str, asyncio.Lock] = {}
        for one in (self.folder, self._halves):
            one.mkdir(parents=True, exist_ok=True, mode=0o700)

    def lacking(self, files: Iterable[Needed]) -> list[Needed]:
        """Those that are not there, each once; those that are were used now. Raises BAD_DATA for a strange name."""
        lacking = {}
        for file in files:
            if not _NAME.fullmatch(file.sha256):
                raise CraftError("BAD_DATA", "the daemon named a file by no sha256", "see that both are one craft")
            try:
                os.utime(self.folder / file.sha256)
            except FileNotFoundError:
                lacking[file.sha256] = file
        return list(lacking.values())

    async def fetch(self, files: Iterable[Needed], pulls: Pulls, told: Callable[[int, int], None]) -> None:
        """Have them here. `told` hears bytes, and how many there are. Raises CORRUPT_FILE, DISK_FULL, OSError."""
        wanted = list(files)
        total, before = sum(file.size_bytes for file in wanted), 0
        self._make_room(wanted)
        for file in wanted:
            done = before

            def tell(now: int, _of: int, done: int = done) -> None:
                told(done + now, total)

            async with self._locks.setdefault(file.sha256, asyncio.Lock()):
                if self.lacking([file]):
                    await self._pull(file, pulls, tell)
            self._locks.pop(file.sha256, None)
            before += file.size_bytes

    async def _pull(self, file: Needed, pulls: Pulls, told: Callable[[int, int], None]) -> None:
        half = self._halves / file.sha256
        try:
            await pulls.pull(file.sha256, half, max(file.size_bytes, 1), told)
        except Missing as exc:
            half.unlink(missing_ok=True)
            message = f"a file could not be fetched ({file.sha256[:12]}): {exc.strerror}"
            raise CraftError("CORRUPT_FILE", message, "see that the daemon still has it") from exc
        except OSError as exc:
            if exc.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            message = f"the worker's disk has no room for {file.size_bytes} bytes"
            raise CraftError("DISK_FULL", message, "make room there, or lower worker.files_gib there") from exc
        half.replace(self.folder / file.sha256)

    def _make_room(self, wanted: list[Needed]) -> None:
        """Delete what was not used for longest, within the budget. Raises DISK_FULL."""
        need = sum(max(0, file.size_bytes - self._half_of(file.sha256)) for file in wanted)
        if not need:
            return
        kept = self._pinned() | {file.sha256 for file in wanted}
        there = sorted(self._there(), key=lambda one: one[2])
        used = sum(size for _, size, _ in there)
        for path, size, _ in there:
            if used + need <= self._budget_bytes:
                return
            if path.name not in kept:
                path.unlink(missing_ok=True)
                used -= size
        if used + need > self._budget_bytes:
            message = (
                f"the worker may keep {self._budget_bytes / _GIB:.1f} GiB of files, of which {used / _GIB:.1f} "
                f"are in use: {need / _GIB:.1f} more do not fit"
            )
            raise CraftError("DISK_FULL", message, "raise worker.files_gib there")

    def _half_of(self, sha256: str) -> int:
        """How much of it is there already."""
        half = self._halves / sha256
        return half.stat().st_size if half.exists() else 0

    def _there(self) -> Iterator[tuple[Path, int, float]]:
        """Each file, its size, and when it was used last."""
        for path in (*self.folder.iterdir(), *self._halves.iterdir()):
            if _NAME.fullmatch(path.name) and path.is_file():
                stat = path.stat()
                yield path, stat.st_size, stat.st_mtime
