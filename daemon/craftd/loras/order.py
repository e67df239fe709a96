"""What an import asks for, checked, and the LoRA that comes of it."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from craft_protos.reasons import invalid

from craftd.keys.caller import Caller
from craftd.loras import files, names, peft
from craftd.loras.lora import HEAVIEST, Lora, Place, Progress, Wish
from craftd.workers.inspector import LoraFindings

_LONGEST_TRIGGER = 500

Tell = Callable[[Progress], None]


@dataclass(frozen=True)
class Order:
    """What is asked for beside the file, by whom, and where it is told how far it is."""

    wish: Wish
    caller: Caller
    tell: Tell


@dataclass(frozen=True)
class Found:
    """A file that is to be added: what it would be called, and what peft has beside it."""

    path: Path
    source: str
    called: str
    config: bytes


def found_at(path: Path) -> Found:
    """The file itself, or the only one in a folder. Raises INVALID_FIELD, BAD_DATA, CORRUPT_FILE."""
    if not path.is_absolute():
        raise invalid("path", f"{str(path)[:200]!r} is not absolute", "give the whole path")
    path = files.only_file(path) if path.is_dir() else path
    return Found(path, str(path), names.derived(path.name, path.parent.name), peft.config_beside(path))


def new_lora(place: Place, findings: LoraFindings, called: str, order: Order) -> Lora:
    """Without an id yet."""
    wish, caller = order.wish, order.caller
    return Lora(
        id="",
        name=wish.name or called,
        file_name=place.path.name,
        weight=1.0 if wish.weight is None else wish.weight,
        trigger=wish.trigger or findings.trigger,
        place=place,
        findings=findings,
        create_time=time.time(),
        owner=caller.owner,
        is_shared=caller.is_admin,
    )


def check_wish(wish: Wish) -> None:
    """Raises INVALID_FIELD."""
    if wish.name:
        names.check(wish.name)
    check_weight("weight", wish.weight)
    check_trigger(wish.trigger)


def check_weight(field: str, weight: float | None) -> None:
    """Raises INVALID_FIELD."""
    if weight is not None and not (math.isfinite(weight) and abs(weight) <= HEAVIEST):
        raise invalid(field, f"must be a number from {-HEAVIEST:g} to {HEAVIEST:g}, not {weight}")


def check_trigger(trigger: str) -> None:
    """Raises INVALID_FIELD."""
    if len(trigger) > _LONGEST_TRIGGER or not trigger.isprintable():
        raise invalid("trigger", f"must be at most {_LONGEST_TRIGGER} printable characters", "shorten it")
