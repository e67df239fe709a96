"""What AUTOMATIC1111's callers expect the server to remember, for each owner apart: options, progress."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

from craftd.jobs.events import Event, Snapshot, Step
from craftd.keys.caller import Caller

_MOST_OWNERS = 10_000


@dataclass
class Running:
    """A job that a caller waits for."""

    job_id: str = ""
    began: float = field(default_factory=time.monotonic)
    total_steps: int = 0
    count: int = 1
    steps: dict[int, int] = field(default_factory=dict)  # done, by image
    preview: bytes = b""
    was_interrupted: bool = False

    def note(self, event: Event) -> None:
        match event:
            case Snapshot(view):
                self.job_id, self.count, self.total_steps = view.job.id, len(view.job.spec.wanted), view.job.spec.steps
            case Step(index, step, _, preview):
                self.steps[index] = step
                self.preview = preview or self.preview

    @property
    def fraction(self) -> float:
        return sum(self.steps.values()) / max(1, self.total_steps * self.count)

    @property
    def left_s(self) -> float:
        passed_s = time.monotonic() - self.began
        return passed_s * (1 - self.fraction) / self.fraction if self.fraction else 0.0


@dataclass
class Session:
    """Of one owner."""

    checkpoint: str = ""
    wants_previews: bool = False
    running: list[Running] = field(default_factory=list)


class Sessions:
    def __init__(self) -> None:
        self._sessions: dict[str, Session] = {}

    def of(self, caller: Caller) -> Session:
        session = self._sessions.pop(caller.owner, None) or Session()
        if len(self._sessions) >= _MOST_OWNERS:  # the one that was not asked for longest
            self._sessions.pop(next(iter(self._sessions)))
        self._sessions[caller.owner] = session
        return session
