"""Folders of files that are named by their sha256: each is there whole and on disk, or not at all.

What strangers send lies beside them, under other names, until it has been checked.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import secrets
import shutil
import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from craft_protos.reasons import CraftError

from craftd.store.disk import Write, make_folder, sync_file, sync_folder, unwritable, write_whole

_INCOMING = ".incoming-"
_CUT = ".cut-"
_OWN = re.compile(r"[0-9a-f]{64}")
_CHUNK_BYTES = 1 << 20
_MOST_CUT = 4  # uploads of a sender that may be gone on with: the newest


@dataclass(frozen=True)
class Received:
    path: Path
    sha256: str
    size_bytes: int


class Receiving:
    """A file while its bytes come; with an `offset` it goes on after those that came before. Blocking.

    It may be closed while another thread still adds to it: what comes then is refused, and goes into no other file.
    """

    def __init__(self, path: Path, write: Write, offset: int = 0) -> None:
        self._path = path
        self._write = write
        self._digest = hashlib.sha256()
        self._lock = threading.RLock()
        self._open = os.open(path, os.O_RDWR | os.O_CREAT | (0 if offset else os.O_TRUNC), 0o600)
        try:
            self._go_on(offset)
        except BaseException:
            self.close()
            raise

    def add(self, data: bytes) -> None:
        with self._lock:
            self._digest.update(data)
            write_whole(self._open, data, self._write)

    def end(self) -> Received:
        """All of it, durable but for its name."""
        with self._lock:
            sync_file(self._open)
            size_bytes = os.fstat(self._open).st_size
            self.close()
        return Received(self._path, self._digest.hexdigest(), size_bytes)

    def close(self) -> None:
        with self._lock:
            if self._open >= 0:
                os.close(self._open)
                self._open = -1

    def _go_on(self, offset: int) -> None:
        """After reading what is there again; what is beyond the offset goes."""
        os.ftruncate(self._open, offset)
        while chunk := os.read(self._open, _CHUNK_BYTES):
            self._digest.update(chunk)


class Tray:
    """Where one upload's files lie until they are checked. Blocking."""

    def __init__(self, folder: Path, write: Write) -> None:
        self._folder = folder / f"{_INCOMING}{secrets.token_hex(8)}"
        self._write = write
        self._count = 0
        self._receiving: Receiving | None = None

    def begin(self) -> None:
        make_folder(self._folder.parent)
        self._folder.mkdir(exist_ok=True, mode=0o700)
        self._receiving = Receiving(self._folder / str(self._count), self._write)

    def add(self, data: bytes) -> None:
        assert self._receiving is not None
        self._receiving.add(data)

    def end(self) -> Received:
        assert self._receiving is not None
        received = self._receiving.end()
        self._count += 1
        return received

    def remove(self) -> None:
        """What cannot be removed now is swept at the next start."""
        if self._receiving is not None:
            self._receiving.close()
        shutil.rmtree(self._folder, ignore_errors=True)


class Contents:
    """One such folder. Blocking; callers run it off the event loop. `write` is os.write, or a test's full disk.

    Errors call the folder by its `name`: whoever sends files need not know where they lie here.
    """

    def __init__(self, folder: Path, name: str, write: Write = os.write) -> None:
        self._folder = folder
        self._name = name
        self._write = write

    def tray(self) -> Tray:
        return Tray(self._folder, self._write)

    def path(self, sha256: str) -> Path:
        return self._folder / sha256

    def received_bytes(self, sender: str, sha256: str) -> int:
        """How much lies here of what that sender's upload was cut."""
        try:
            return self._cut(sender, sha256).stat().st_size
        except OSError:
            return 0

    def receive(self, sender: str, sha256: str, offset: int) -> Receiving:
        """A file that is kept for a while though its sender goes away: the next upload may go on. Raises OSError."""
        make_folder(self._folder)
        receiving = Receiving(self._cut(sender, sha256), self._write, offset)
        for path in sorted(self._folder.glob(f"{_cut_name(sender)}*"), key=_changed)[:-_MOST_CUT]:
            _remove(path)
        return receiving

    def drop(self, sender: str, sha256: str) -> None:
        """What was received goes; what cannot be removed now is swept later."""
        with contextlib.suppress(OSError):
            self._cut(sender, sha256).unlink(missing_ok=True)

    def drop_all(self, sender: str) -> None:
        """The same of everything that a sender's uploads left."""
        for path in self._folder.glob(f"{_cut_name(sender)}*"):
            _remove(path)

    def publish(self, files: Iterable[Received]) -> None:
        """Give them their lasting names; on return they outlive a power failure. Raises DISK_FULL, STORAGE_FAILED."""
        try:
            for one in files:
                one.path.replace(self.path(one.sha256))
            sync_folder(self._folder)
        except OSError as exc:
            raise self.unwritable(exc) from exc

    def sweep(self, known: set[str], *, at_start: bool = False, cut_before: float = 0.0) -> int:
        """Remove files that nobody has, and uploads that were cut before then; returns how many.

        At the start those go too that nobody can go on with.
        """
        if not self._folder.is_dir():
            return 0
        left = 0
        for path in self._folder.iterdir():
            if path.name.startswith(_INCOMING) and at_start:
                shutil.rmtree(path, ignore_errors=True)
                left += 1
            elif _OWN.fullmatch(path.name):
                left += path.name not in known and _remove(path)
            elif path.name.startswith(_CUT):
                left += _changed(path) < cut_before and _remove(path)
        return left

    def unwritable(self, exc: OSError) -> CraftError:
        return unwritable(Path(self._name), "a picture", exc)

    def _cut(self, sender: str, sha256: str) -> Path:
        return self._folder / f"{_cut_name(sender)}{sha256}"


def _cut_name(sender: str) -> str:
    """How the names of that sender's files begin: strangers' own do not become files' names."""
    return f"{_CUT}{hashlib.sha256(sender.encode()).hexdigest()[:32]}-"


def _changed(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:  # it has just been given its lasting name
        return time.time()


def _remove(path: Path) -> bool:
    """Whether it is gone now."""
    with contextlib.suppress(OSError):
        path.unlink()
        return True
    return False
