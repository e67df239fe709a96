"""The end of the daemon on this machine: it is asked, then told, then killed."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

from craft_protos import config
from craft_protos.reasons import CraftError

from craft_cli import errors
from craft_cli.connection import autostart
from craft_cli.connection.autostart import Found

if TYPE_CHECKING:
    from craft_cli.connection.session import Session

_NOW_S = 5.0  # what a daemon has that is not to wait for its jobs
_MARGIN_S = 30.0  # from the end of the running jobs' grace to the daemon's own
_SIGNAL_S = 5.0


def end(session: Session, *, now: bool) -> None:
    """Until nobody holds the data folder. A daemon that does not answer is not waited for. Raises DAEMON_SILENT."""
    paths = session.paths
    record = autostart.read_lock(paths)
    hears = _ask(session, now=now)
    session.close()
    grace_s = _NOW_S if now else config.load(paths.config_file).daemon.grace_s
    if hears:
        errors.remark(f"craft: waiting for the daemon's end{'' if now else f'; its jobs have {grace_s:g} s'}")
    patience_s = grace_s + (0 if now else _MARGIN_S) if hears else 0.0
    if autostart.await_end(paths, patience_s, record):
        return
    if record is None or not _is_craftd(record.pid):
        raise _not_ours(session, record)
    for number in (signal.SIGTERM, signal.SIGKILL):
        errors.say(f"craft: the daemon does not end; {number.name} to pid {record.pid}")
        with contextlib.suppress(ProcessLookupError):
            os.kill(record.pid, number)
        if autostart.await_end(paths, _SIGNAL_S, record):
            return
    raise CraftError("DAEMON_SILENT", f"the daemon (pid {record.pid}) does not end, not even of SIGKILL", "")


def _ask(session: Session, *, now: bool) -> bool:
    """Whether it heard."""
    try:
        if autostart.find(session.paths):
            session.client.shutdown(now=now)
    except CraftError as error:
        if error.reason not in autostart.ENDING:
            raise
        return error.reason != "DAEMON_SILENT"
    return True


def _is_craftd(pid: int) -> bool:
    """The lock file is text that anybody's restored backup may hold: a pid alone is no proof."""
    words = _command_of(pid)
    return any(Path(word).name == "craftd" for word in words) or any(
        pair == ("-m", "craftd") for pair in pairwise(words)
    )


def _command_of(pid: int) -> list[str]:
    try:
        text = Path(f"/proc/{pid}/cmdline").read_bytes().decode("utf-8", "replace")
    except OSError:
        return _command_by_ps(pid)
    return text.split("\0")


def _command_by_ps(pid: int) -> list[str]:
    """Where there is no /proc."""
    asked = ["ps", "-ww", "-o", "command=", "-p", str(pid)]
    try:
        return subprocess.run(asked, capture_output=True, text=True, timeout=5, check=False).stdout.split()
    except (OSError, subprocess.SubprocessError):
        return []


def _not_ours(session: Session, record: Found | None) -> CraftError:
    who = f"pid {record.pid}, which its lock file names, is no craftd" if record else "its lock file names no pid"
    hint = f"see who holds {session.paths.lock_file}: fuser -v FILE, or lsof FILE"
    return CraftError("DAEMON_SILENT", f"the daemon does not end, and {who}", hint)
