"""Checkpoints that survive a kill: written beside, then renamed."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch


class Stateful(Protocol):
    """What can be kept: a module, an optimizer, an average."""

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state_dict: dict[str, Any], /) -> Any: ...


@dataclass
class Progress:
    """How far a stage has come."""

    step: int = 0
    seconds: float = 0.0


@dataclass
class Autosave:
    """Says when ten minutes have gone by since the last save, however slow the steps are."""

    interval_s: float = 600.0
    _saved_at: float = field(default_factory=time.monotonic)

    def is_due(self) -> bool:
        """True once an interval; the next one begins with that."""
        if time.monotonic() - self._saved_at < self.interval_s:
            return False
        self._saved_at = time.monotonic()
        return True


def save(path: Path, progress: Progress, **parts: Stateful) -> None:
    """Write progress and every part's state; the old file stays until the new one is whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_suffix(".tmp")
    torch.save({"progress": asdict(progress)} | {name: part.state_dict() for name, part in parts.items()}, beside)
    beside.replace(path)


def resume(path: Path, **parts: Stateful) -> Progress:
    """Load what `save` wrote into the parts, or start at nought where nothing was saved.

    A part that was not saved (an optimizer, after a warm start) stays as it is.
    """
    if not path.exists():
        return Progress()
    kept = torch.load(path, map_location="cpu", weights_only=True)
    for name, part in parts.items():
        if name not in kept:
            continue
        part.load_state_dict(kept[name])
    return Progress(**kept["progress"])
