"""What jobs are drawn from: read ahead in a thread, and kept for the images to come, up to so many bytes."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Hashable, Sequence
from concurrent.futures import Future
from typing import Generic, Protocol, TypeVar

from craft_protos.dispatch import Dispatch
from craft_protos.reasons import CraftError

from craftd.worker.families.lru_cache import LruCache
from craftd.worker.lora.reader import Reader

_MOST_BYTES = 256 << 20


class Sized(Protocol):
    @property
    def size_bytes(self) -> int: ...


T = TypeVar("T", bound=Sized)


class ReadAhead(ABC, Generic[T]):
    """One kind of what the jobs of a model are drawn from. Owned by the engine's thread."""

    def __init__(self, reader: Reader, most_bytes: int = _MOST_BYTES) -> None:
        self._reader = reader
        self._most_bytes = most_bytes
        self._reading: dict[Hashable, Future[T]] = {}
        self._kept: LruCache[T] = LruCache(most_bytes, lambda kept: kept.size_bytes)

    @abstractmethod
    def _key(self, job: Dispatch) -> Hashable:
        """Equal for jobs that are drawn from the same."""

    @abstractmethod
    def _is_needed(self, job: Dispatch) -> bool: ...

    @abstractmethod
    def _prepared(self, job: Dispatch) -> T:
        """Runs in any thread. Raises UNKNOWN_INPUT, BAD_INPUT, OUT_OF_MEMORY."""

    @property
    def is_reading(self) -> bool:
        return any(not future.done() for future in self._reading.values())

    def want(self, jobs: Sequence[Dispatch]) -> dict[str, CraftError]:
        """Start reading what the jobs begin from, the first job's first; by job, why it cannot be drawn."""
        errors: dict[str, CraftError] = {}
        wanted = [job for job in jobs if self._is_needed(job)]
        room = self._most_bytes
        for job in wanted:
            try:
                room -= self._want(job, has_room=room > 0)
            except CraftError as exc:
                errors[job.job_id] = exc
        self._forget({self._key(job) for job in wanted})
        return errors

    def is_ready(self, job: Dispatch) -> bool:
        return not self._is_needed(job) or self._key(job) in self._kept

    def get(self, job: Dispatch) -> T:
        """Of a job that needs it; read now where it is not kept. Raises UNKNOWN_INPUT, BAD_INPUT."""
        return self._kept.get(self._key(job), lambda: self._prepared(job))

    def close(self) -> None:
        self._forget(set())
        self._kept.clear()

    def _want(self, job: Dispatch, *, has_room: bool) -> int:
        """Its bytes where it is there."""
        key = self._key(job)
        if key in self._kept:
            return self.get(job).size_bytes
        future = self._reading.get(key)
        if future is None:
            if has_room:
                self._reading[key] = self._reader.start("pictures", lambda: self._prepared(job))
            return 0
        if not future.done():
            return 0
        del self._reading[key]
        self._kept.put(key, future.result())
        return self.get(job).size_bytes

    def _forget(self, wanted: set[Hashable]) -> None:
        for key in [key for key in self._reading if key not in wanted]:
            self._reading.pop(key).cancel()
