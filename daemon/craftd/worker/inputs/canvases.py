"""The canvases of one model's jobs."""

from __future__ import annotations

from collections.abc import Hashable, Sequence

from craft_protos.dispatch import Dispatch

from craftd.worker.inputs import canvas
from craftd.worker.inputs.ahead import ReadAhead
from craftd.worker.inputs.canvas import Canvas
from craftd.worker.lora.reader import Reader


class Canvases(ReadAhead[Canvas]):
    """`granularity`: sides of what the model draws are multiples of it."""

    def __init__(self, reader: Reader, granularity: int) -> None:
        super().__init__(reader)
        self._granularity = granularity

    def remarks(self, job: Dispatch) -> Sequence[str]:
        """What becomes of a ready job's pictures that its user may not expect."""
        spec = job.drawing
        if spec.start is None:
            return ()
        kept, is_in_part = self.get(job), spec.mask is not None or not spec.start.share
        is_lost = spec.format == "jpeg" and is_in_part and kept.shines_through
        return [*kept.remarks, *(["the start picture's transparency is lost: JPEG has none"] if is_lost else [])]

    def _key(self, job: Dispatch) -> Hashable:
        return canvas.key_of(job, self._granularity)

    def _is_needed(self, job: Dispatch) -> bool:
        """A start without a hash is what was just made."""
        return job.drawing.start is not None and bool(job.drawing.start.sha256)

    def _prepared(self, job: Dispatch) -> Canvas:
        return canvas.prepare(self._reader.files, job, self._granularity)
