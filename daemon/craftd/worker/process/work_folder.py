"""Temporary folders of workers. One that was killed left its own behind; the next one clears it away."""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from pathlib import Path

_NAME = "craft-worker-{pid}-"
_OURS = re.compile(r"craft-worker-(\d+)-")


def make() -> Path:
    """A new folder of this process, after those of the dead are gone."""
    for folder in Path(tempfile.gettempdir()).glob("craft-worker-*"):
        if (named := _OURS.match(folder.name)) and is_orphan(folder, int(named.group(1))):
            remove(folder)
    return Path(tempfile.mkdtemp(prefix=_NAME.format(pid=os.getpid())))


def remove(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)


def is_orphan(left: Path, pid: int) -> bool:
    """Whether a file or folder belongs to a process of this user that has ended."""
    try:
        if left.lstat().st_uid != os.getuid() or left.is_symlink():
            return False
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    except OSError:
        return False
    return False
