"""Find the daemon of this data folder, start it where none runs, wait until it stands.

The daemon holds an flock on a file in the data folder and writes its address there.
A client that finds nobody takes the start lock, looks again, and starts one; so of
many clients at once one starts it and the others find it.
"""

from __future__ import annotations

import fcntl
import importlib.util
import json
import os
import select
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from craft_protos.frozen import dataclass
from craft_protos.paths import Paths
from craft_protos.reasons import REASONS, CraftError

from craft_cli import errors
from craft_cli.connection import services

START_TIMEOUT_S = 60.0
ENDING = ("DAEMON_UNREACHABLE", "DAEMON_SILENT", "DRAINING")  # what may be heard of a daemon that was told to stop
_LOOK_EVERY_S = 0.02


@dataclass(frozen=True)
class Found:
    """A daemon that accepts connections."""

    pid: int
    address: str
    version: str


def find(paths: Paths) -> Found | None:
    """The daemon that answers now, if one does."""
    found = read_lock(paths)
    return found if found and _accepts(found.address) else None


def read_lock(paths: Paths) -> Found | None:
    """What the lock file says, true or stale."""
    try:
        record = json.loads(paths.lock_file.read_text(encoding="utf-8"))
        return Found(int(record["pid"]), str(record["address"]), str(record.get("version", "")))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _accepts(address: str) -> bool:
    if not address.startswith("unix:"):
        return False
    with socket.socket(socket.AF_UNIX) as sock:
        try:
            sock.settimeout(5)
            sock.connect(address.removeprefix("unix:"))
        except OSError:
            return False
    return True


def start(paths: Paths, settings: Mapping[str, str] | None = None) -> Found:
    """The running daemon, or a new one; `settings`: its variables. Raises its own error when it cannot start."""
    with start_lock(paths):
        return _start_locked(paths, settings or {})


def replace(paths: Paths, old: Found, stop: Callable[[], None]) -> Found:
    """End `old` with `stop` and start a new one, unless somebody else has done so already."""
    with start_lock(paths):
        if find(paths) == old:
            check(paths, {})
            stop()
            await_end(paths, START_TIMEOUT_S)
        return _start_locked(paths, {})


def check(paths: Paths, settings: Mapping[str, str]) -> None:
    """Ask craftd whether it could start with its configuration; nothing is started. Raises its own error."""
    require_daemon_package()
    ready, theirs = os.pipe()
    try:
        subprocess.run(
            [sys.executable, "-P", "-m", "craftd", "--check", "--ready-fd", str(theirs)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd="/",
            env={**_absolute_environment(), **settings},
            pass_fds=(theirs,),
            timeout=START_TIMEOUT_S,
            check=False,
        )
        os.close(theirs)
        theirs = -1
        said = os.read(ready, 65536)
        if said:
            _heed(said, paths)
    except subprocess.TimeoutExpired as exc:
        raise _too_slow(paths) from exc
    finally:
        os.close(ready)
        if theirs >= 0:
            os.close(theirs)


def _start_locked(paths: Paths, settings: Mapping[str, str]) -> Found:
    deadline = time.monotonic() + START_TIMEOUT_S
    while True:
        found = find(paths)
        if found:
            return found
        try:
            _launch(paths, settings, deadline)
        except CraftError as error:
            # Another is on its way up (started by hand) or in its last moments.
            if error.reason != "ALREADY_RUNNING":
                raise
        if find(paths) is None:
            time.sleep(_LOOK_EVERY_S)
        if time.monotonic() > deadline:
            raise silent(paths) if is_held(paths) else _too_slow(paths)


def silent(paths: Paths) -> CraftError:
    """DAEMON_SILENT: one holds the data folder."""
    record = read_lock(paths)
    who = f" (pid {record.pid})" if record else ""
    return CraftError("DAEMON_SILENT", f"the daemon{who} runs, and does not answer", "craft daemon restart")


@contextmanager
def start_lock(paths: Paths) -> Iterator[None]:
    """One client at a time decides whether a daemon must be started."""
    try:
        paths.data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
        handle = os.open(paths.start_lock_file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        message = f"the data folder {paths.data_dir} cannot be used: {error.strerror}"
        raise CraftError("CONFIG_INVALID", message, "point CRAFT_DATA_DIR at a folder of yours") from error
    try:
        _take(handle, paths)
        yield
    finally:
        os.close(handle)


def _take(handle: int, paths: Paths) -> None:
    """The lock, before the one who has it now was given twice its time. Raises DAEMON_UNREACHABLE."""
    deadline = time.monotonic() + 2 * START_TIMEOUT_S
    while True:
        try:
            return fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > deadline:
                message = "another craft is starting the daemon, and does not get on with it"
                raise CraftError("DAEMON_UNREACHABLE", message, f"see who holds {paths.start_lock_file}") from None
            time.sleep(_LOOK_EVERY_S)


def await_end(paths: Paths, timeout_s: float, of: Found | None = None) -> bool:
    """Wait until no daemon holds the data folder, or another than `of`; False when it took too long.

    It looks again and again: whoever waited inside flock would have the lock for a moment
    just when the next daemon asks for it, which then takes it for another daemon's.
    """
    deadline = time.monotonic() + timeout_s
    while (of is None or read_lock(paths) == of) and is_held(paths):
        if time.monotonic() > deadline:
            return False
        time.sleep(_LOOK_EVERY_S)
    return True


def await_end_or_answer(paths: Paths, timeout_s: float) -> None:
    """Wait while a daemon holds the data folder without answering: it is on its way up or down."""
    deadline = time.monotonic() + timeout_s
    while find(paths) is None and is_held(paths) and time.monotonic() < deadline:
        time.sleep(_LOOK_EVERY_S)


def is_held(paths: Paths) -> bool:
    """Whether a daemon lives, answering or not: it holds the lock until its very end."""
    try:
        handle = os.open(paths.lock_file, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:  # none was ever there, or none that is ours
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(handle)
    return False


def require_daemon_package() -> None:
    """The bare install is the client alone; say so, with the command that helps."""
    if importlib.util.find_spec("craftd") is None or importlib.util.find_spec("apsw") is None:
        message = "no daemon runs, and only craft's client is installed here"
        raise CraftError("DAEMON_MISSING", message, "pip install 'craftengine[daemon]', or set CRAFT_HOST")


def _launch(paths: Paths, settings: Mapping[str, str], deadline: float) -> None:
    """A service has its settings from the configuration alone: with others, the daemon is started beside it."""
    unit = None if settings else services.installed(paths)
    if unit is not None and unit.start():
        return
    require_daemon_package()
    _spawn(paths, settings, deadline)


def _spawn(paths: Paths, settings: Mapping[str, str], deadline: float) -> None:
    """Start craftd on its own feet and wait for the line it writes when it is ready or has failed."""
    ready, theirs = os.pipe()
    try:
        with _start_log(paths) as log:
            subprocess.Popen(
                [sys.executable, "-P", "-m", "craftd", "--ready-fd", str(theirs)],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=log,
                cwd="/",
                env={**_absolute_environment(), **settings},
                start_new_session=True,
                pass_fds=(theirs,),
            )
        os.close(theirs)
        theirs = -1
        _heed(_read_line(ready, deadline), paths)
    finally:
        os.close(ready)
        if theirs >= 0:
            os.close(theirs)


def _absolute_environment() -> dict[str, str]:
    """For a process whose folder is /: relative paths of craft's made absolute. It is no service of systemd's."""
    names = ("CRAFT_CONFIG", "CRAFT_DATA_DIR", "CRAFT_STATE_DIR", "CRAFT_RUNTIME_DIR")
    environment = dict(os.environ)
    environment.update({name: str(Path(environment[name]).absolute()) for name in names if environment.get(name)})
    environment.pop("NOTIFY_SOCKET", None)  # the service in which this command runs must not hear of it
    return environment


@contextmanager
def _start_log(paths: Paths) -> Iterator[int]:
    """Where a daemon that cannot even begin leaves its traceback."""
    try:
        paths.state_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
        handle = os.open(_start_log_file(paths), os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    except OSError as error:
        message = f"the state folder {paths.state_dir} cannot be used: {error.strerror}"
        raise CraftError("CONFIG_INVALID", message, "point CRAFT_STATE_DIR at a folder of yours") from error
    try:
        yield handle
    finally:
        os.close(handle)


def _start_log_file(paths: Paths) -> Path:
    return paths.start_log_file


def _read_line(handle: int, deadline: float) -> bytes:
    """Up to the first newline, the pipe's end or the deadline."""
    text = b""
    poll = select.poll()
    poll.register(handle, select.POLLIN)
    while not text.endswith(b"\n"):
        left_s = deadline - time.monotonic()
        if left_s <= 0 or not poll.poll(left_s * 1000):
            return b""
        part = os.read(handle, 65536)
        if not part:
            break
        text += part
    return text


def _heed(line: bytes, paths: Paths) -> None:
    """Return when the daemon is ready; raise what it says otherwise."""
    try:
        told = json.loads(line)
    except ValueError:
        raise _silent(paths) from None
    if told.get("ready"):
        return
    error = told.get("error") or {}
    reason = error.get("reason", "")
    message, hint = error.get("message", "the daemon could not start"), error.get("hint", "")
    raise CraftError(reason if reason in REASONS else "INTERNAL", message, hint)


def _silent(paths: Paths) -> CraftError:
    """It ended (or hangs) without a word: the last line of its stderr is the best there is."""
    try:
        lines = _start_log_file(paths).read_text(encoding="utf-8", errors="replace").strip().splitlines()
    except OSError:
        lines = []
    last = f": {errors.one_line(lines[-1])}" if lines else ""
    hint = f"see {_start_log_file(paths)} and {paths.log_file}"
    return CraftError("DAEMON_UNREACHABLE", f"craftd ended before it was ready{last}", hint)


def _too_slow(paths: Paths) -> CraftError:
    message = f"the daemon was not ready within {START_TIMEOUT_S:.0f} s"
    return CraftError("DAEMON_UNREACHABLE", message, f"see {paths.log_file}")
