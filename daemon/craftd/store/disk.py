"""What the system says when a file cannot be written, as ours."""

from __future__ import annotations

import errno
from pathlib import Path

from craft_protos.reasons import CraftError

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def unwritable(folder: Path, what: str, exc: OSError) -> CraftError:
    """DISK_FULL where room is what lacks, else STORAGE_FAILED. `what` could not be written."""
    message = f"{folder}: {what} could not be written: {exc.strerror or exc}"
    if exc.errno in _FULL:
        return CraftError("DISK_FULL", message, "free some space there")
    return CraftError("STORAGE_FAILED", message, "see that the folder is there, its disk is sound and craftd may write")
