"""What waits and runs, and when its turn comes: for whoever watches the queue."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from craftd.jobs.job import JobView, State
from craftd.jobs.pace import Pace

MOST = 200  # jobs that are looked at


@dataclass(frozen=True)
class Prospect:
    """An unfinished job. Seconds are those of jobs like it; None: none was done here."""

    view: JobView
    draw_s: float | None  # from its start to its end
    wait_s: float | None  # until it starts


@dataclass(frozen=True)
class Outlook:
    queued: int  # everybody's
    running: int
    own_queued: int
    most_own_queued: int
    prospects: tuple[Prospect, ...]


def prospects(views: Sequence[JobView], paces: Sequence[Pace | None], workers: int) -> list[Prospect]:
    """Of everybody's unfinished jobs, in the order in which they go.

    Those that run have done half of what they take, as far as is known without asking their workers.
    """
    found, ahead_s, is_known = list[Prospect](), 0.0, True
    for view, pace in sorted(zip(views, paces, strict=True), key=lambda pair: _turn(pair[0])):
        draw_s = None if pace is None else pace.draw_s + pace.load_s * (view.job.start_time is None)
        is_waiting = view.job.state is State.QUEUED
        wait_s = ahead_s / workers if is_waiting and is_known else None
        found.append(Prospect(view, draw_s, wait_s))
        is_known = is_known and draw_s is not None
        ahead_s += (draw_s or 0.0) * (1.0 if is_waiting else 0.5)
    return found


def _turn(view: JobView) -> tuple[bool, int, float]:
    return view.job.state is State.QUEUED, view.position, view.job.create_time
