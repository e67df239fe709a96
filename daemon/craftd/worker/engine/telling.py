"""How far rows are, told to the front: as often as somebody could see it, and no oftener."""

from __future__ import annotations

from collections.abc import Callable

from craftd.worker.engine.row import Row
from craftd.worker.process.reporter import Reporter

_REPORT_EVERY_S = 0.1  # for each row; as often as a progress bar is redrawn
_REPORTS_A_SECOND = 20  # of all rows together: each costs the front and a client time that drawing wants


class StepTeller:
    """Owned by the engine's thread."""

    def __init__(self, reporter: Reporter, clock: Callable[[], float]) -> None:
        self._reporter = reporter
        self._clock = clock

    def tell(self, row: Row, rows: int) -> None:
        """After a step of it; `rows`: how many are being drawn."""
        drawing, now = row.drawn, self._clock()
        if row.step == row.reported_step:
            return
        preview = b"" if drawing.is_done else drawing.preview()
        pause_s = max(_REPORT_EVERY_S, rows / _REPORTS_A_SECOND)
        if preview or drawing.is_done or now - row.reported_at >= pause_s:
            row.reported_at, row.reported_step = now, row.step
            self._reporter.step(row.job, row.index, row.step, row.of, preview)
