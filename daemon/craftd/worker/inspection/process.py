"""`python -m craftd.worker --inspect PATH`: one line of JSON with the verdict, then the end."""

from __future__ import annotations

import json
from pathlib import Path

from craft_protos.reasons import CraftError

from craftd.worker.inspection import model
from craftd.worker.inspection.confine import confine


def run(path: Path) -> None:
    """Whoever started us bounds our time from outside."""
    confine()
    print(json.dumps(_verdict(path)))


def _verdict(path: Path) -> dict[str, str]:
    try:
        model.check(path)
    except CraftError as exc:
        return {"reason": exc.reason, "message": exc.message, "hint": exc.hint}
    except MemoryError:
        return {"reason": "CORRUPT_FILE", "message": "checking it takes too much memory", "hint": "use another model"}
    except OSError as exc:
        message = f"{exc.filename!r} cannot be read: {exc.strerror}"
        return {"reason": "CORRUPT_FILE", "message": message, "hint": "see that craftd may read the model's files"}
    return {"reason": "", "message": "", "hint": ""}
