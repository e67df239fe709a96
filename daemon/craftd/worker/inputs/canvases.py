"""The canvases of one model's jobs: read ahead in a thread, and kept for the images to come, up to so many bytes."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future

from craft_protos.dispatch import Dispatch
from craft_protos.reasons import CraftError

from craftd.worker.families.lru_cache import LruCache
from craftd.worker.inputs import canvas
from craftd.worker.inputs.canvas import Canvas, CanvasKey
from craftd.worker.lora.reader import Reader

_MOST_BYTES = 256 << 20


class Canvases:
    """`granularity`: sides of what the model draws are multiples of it. Owned by the engine's thread."""

    def __init__(self, reader: Reader, granularity: int, most_bytes: int = _MOST_BYTES) -> None:
        self._reader = reader
        self._granularity = granularity
        self._most_bytes = most_bytes
        self._reading: dict[CanvasKey, Future[Canvas]] = {}
        self._kept: LruCache[Canvas] = LruCache(most_bytes, lambda kept: kept.size_bytes)

    @property
    def is_reading(self) -> bool:
        return any(not future.done() for future in self._reading.values())

    def want(self, jobs: Sequence[Dispatch]) -> dict[str, CraftError]:
        """Start reading what the jobs begin from, the first job's first; by job, why it cannot be drawn."""
        errors: dict[str, CraftError] = {}
        wanted = [job for job in jobs if job.drawing.start is not None]
        room = self._most_bytes
        for job in wanted:
            try:
                room -= self._want(job, has_room=room > 0)
            except CraftError as exc:
                errors[job.job_id] = exc
        self._forget({self._key(job) for job in wanted})
        return errors

    def is_ready(self, job: Dispatch) -> bool:
        return job.drawing.start is None or self._key(job) in self._kept

    def get(self, job: Dispatch) -> Canvas:
        """Of a job with a start picture; read now where it is not kept. Raises UNKNOWN_INPUT, BAD_INPUT."""
        return self._kept.get(self._key(job), lambda: canvas.prepare(self._reader.files, job, self._granularity))

    def remarks(self, job: Dispatch) -> Sequence[str]:
        """What becomes of a ready job's pictures that its user may not expect."""
        spec = job.drawing
        if spec.start is None:
            return ()
        kept, is_in_part = self.get(job), spec.mask is not None or not spec.start.share
        is_lost = spec.format == "jpeg" and is_in_part and kept.shines_through
        return [*kept.remarks, *(["the start picture's transparency is lost: JPEG has none"] if is_lost else [])]

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
                files, granularity = self._reader.files, self._granularity
                work = self._reader.start("pictures", lambda: canvas.prepare(files, job, granularity))
                self._reading[key] = work
            return 0
        if not future.done():
            return 0
        del self._reading[key]
        self._kept.put(key, future.result())
        return self.get(job).size_bytes

    def _forget(self, wanted: set[CanvasKey]) -> None:
        for key in [key for key in self._reading if key not in wanted]:
            self._reading.pop(key).cancel()

    def _key(self, job: Dispatch) -> CanvasKey:
        return canvas.key_of(job, self._granularity)
