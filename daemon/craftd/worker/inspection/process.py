"""`python -m craftd.worker --inspect [--lora] PATH`: one line of JSON with the verdict, then the end.

`--inspect --pictures PATH...`: a line for each picture, as it is decoded.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import asdict
from pathlib import Path

from craft_protos.reasons import CraftError

from craftd.worker.inspection import lora, model
from craftd.worker.inspection.confine import confine

_LORA_CPU_S = 120  # every byte is read and hashed: some gigabytes at the most
_PICTURES_CPU_S = 60
_GOOD = {"reason": "", "message": "", "hint": ""}


def run(path: Path) -> None:
    """A model. Whoever started us bounds our time from outside."""
    confine()
    print(json.dumps(_verdict(lambda: _check_model(path))))


def run_lora(path: Path) -> None:
    """A LoRA's file; what it is comes with the verdict."""
    confine(_LORA_CPU_S)
    print(json.dumps(_verdict(lambda: {**_GOOD, "lora": asdict(lora.check(path))})))


def run_pictures(paths: Iterable[Path]) -> None:
    """Pictures to train on. One that ends us is the first without a line."""
    from craftd.worker.inspection import pictures  # and with it Pillow, for them alone

    confine(_PICTURES_CPU_S)
    for found in pictures.check(paths):
        print(json.dumps(found), flush=True)


def _check_model(path: Path) -> dict[str, object]:
    model.check(path)
    return {**_GOOD}


def _verdict(check: Callable[[], dict[str, object]]) -> dict[str, object]:
    try:
        return check()
    except CraftError as exc:
        return {"reason": exc.reason, "message": exc.message, "hint": exc.hint}
    except MemoryError:
        return {"reason": "CORRUPT_FILE", "message": "checking it takes too much memory", "hint": "use another one"}
    except OSError as exc:
        message = f"{exc.filename!r} cannot be read: {exc.strerror}"
        return {"reason": "CORRUPT_FILE", "message": message, "hint": "see that craftd may read it"}
