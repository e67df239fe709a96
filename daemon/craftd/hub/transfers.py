"""Files from the hub into the cache: each resumed, measured, hashed, and only then given its name."""

from __future__ import annotations

import errno
import os
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import httpx2
from craft_protos.reasons import CraftError

from craftd.hub import web
from craftd.hub.cache import Cache, feed, is_right, new_hash
from craftd.hub.repository import RemoteFile

Progress = Callable[[str, int, int], None]
_FileProgress = Callable[[str, int], None]

_MOST_BREAKS = 5  # of the connection, with nothing gained in between
_WAIT_S = 0.5
_SPARE_BYTES = 64 << 20
_FULL = (errno.ENOSPC, errno.EDQUOT)


def missing(cache: Cache, commit: str, files: Sequence[RemoteFile]) -> list[RemoteFile]:
    """Those that the cache does not hold."""
    return [file for file in files if not cache.holds(file) and cache.found(file, commit) is None]


def missing_bytes(cache: Cache, commit: str, files: Sequence[RemoteFile]) -> int:
    """What is still to be downloaded."""
    absent = missing(cache, commit, files)
    return sum(file.size_bytes - min(file.size_bytes, _part_bytes(cache, file)) for file in absent)


def fetch(
    repository: str, commit: str, files: Sequence[RemoteFile], progress: Progress, site: web.Site = web.HUB
) -> int:
    """All of them, into the cache; how many bytes were downloaded.

    Raises CORRUPT_FILE, DISK_FULL, STORAGE_FAILED, HUB_GATED, HUB_UNREACHABLE, HUB_UNTRUSTED, UNKNOWN_REPOSITORY.
    """
    cache = Cache(repository)
    needed = missing_bytes(cache, commit, files)
    _check_room(cache, needed)
    total, done = sum(file.size_bytes for file in files), 0
    for file in files:
        _fetch(_Wanted(repository, commit, file, cache, site), partial(_tell, progress, done, total))
        done += file.size_bytes
    progress("downloaded", total, total)
    return needed


@dataclass(frozen=True)
class _Wanted:
    """One file, and where it belongs."""

    repository: str
    commit: str
    file: RemoteFile
    cache: Cache
    site: web.Site

    @property
    def url(self) -> str:
        return self.file.url or web.file_url(self.repository, self.commit, self.file.path)

    def is_not(self, expected: str, found: str) -> CraftError:
        message = f"{self.repository}: {self.file.path}: expected {expected}, found {found}"
        return CraftError("CORRUPT_FILE", message, f"nothing of it was kept; try again, or check {self.site.setting}")


class _Part:
    """What has come of a file so far, and its hash. Opening it takes up what an earlier attempt left."""

    def __init__(self, wanted: _Wanted) -> None:
        self._wanted = wanted
        self._path = wanted.cache.part(wanted.file)
        self._digest = new_hash(wanted.file)
        self._stream = self._path.open("ab", buffering=0)
        feed(self._digest, self._path)
        self.size_bytes = self._path.stat().st_size

    @property
    def is_whole(self) -> bool:
        return self.size_bytes >= self._wanted.file.size_bytes

    def write(self, chunk: bytes) -> None:
        self.size_bytes += len(chunk)
        if self.size_bytes > self._wanted.file.size_bytes:
            raise self._wanted.is_not(f"{self._wanted.file.size_bytes} bytes", "more")
        self._stream.write(chunk)
        self._digest.update(chunk)

    def begin_anew(self) -> None:
        self._stream.truncate(0)
        self._digest = new_hash(self._wanted.file)
        self.size_bytes = 0

    def finish(self, target: Path) -> None:
        """Give it its name, if it is what it should be. Raises CORRUPT_FILE."""
        if self.size_bytes != self._wanted.file.size_bytes:
            raise self._wanted.is_not(f"{self._wanted.file.size_bytes} bytes", f"{self.size_bytes}{self._look()}")
        if self._digest.hexdigest() != self._wanted.file.digest:
            expected, found = self._wanted.file.digest[:16], self._digest.hexdigest()[:16]
            raise self._wanted.is_not(f"a file that hashes to {expected}", f"{found}{self._look()}")
        os.fsync(self._stream.fileno())
        self._path.replace(target)

    def close(self) -> None:
        """It stays, for another attempt."""
        self._stream.close()

    def remove(self) -> None:
        self._path.unlink(missing_ok=True)

    def _look(self) -> str:
        with self._path.open("rb") as stream:
            return " (an HTML page)" if stream.read(64).lstrip()[:1] == b"<" else ""


def _fetch(wanted: _Wanted, progress: _FileProgress) -> None:
    file, cache = wanted.file, wanted.cache
    try:
        found = cache.found(file, wanted.commit)
        progress(f"checking {file.path}", 0)
        if found is not None and is_right(found, file):
            return
        with cache.locked(file):
            if not (cache.holds(file) and is_right(cache.blob(file), file)):
                _download(wanted, progress)
            cache.link(file, wanted.commit)
    except OSError as exc:
        raise _unwritable(cache.folder, exc) from exc


def _download(wanted: _Wanted, progress: _FileProgress) -> None:
    """Goes on with what an earlier attempt left; where that proves wrong, once more from the beginning."""
    try:
        _complete(wanted, progress)
    except _Resumed:
        _complete(wanted, progress)


class _Resumed(Exception):
    """What was gone on with is wrong: that may be the earlier attempt's fault."""


def _complete(wanted: _Wanted, progress: _FileProgress) -> None:
    part = _Part(wanted)
    was_begun = part.size_bytes > 0
    try:
        _receive_all(wanted, part, progress)
        part.finish(wanted.cache.blob(wanted.file))
    except CraftError as exc:
        if exc.reason == "CORRUPT_FILE":
            part.remove()
            if was_begun:
                raise _Resumed from exc
        raise
    finally:
        part.close()


def _receive_all(wanted: _Wanted, part: _Part, progress: _FileProgress) -> None:
    breaks = 0
    while not part.is_whole:
        before = part.size_bytes
        try:
            _receive(wanted, part, progress)
            return
        except httpx2.TransportError as exc:
            breaks = breaks + 1 if part.size_bytes <= before else 0
            if breaks >= _MOST_BREAKS:
                raise wanted.site.unreachable(f"the connection broke {breaks} times") from exc
            time.sleep(_WAIT_S)


def _receive(wanted: _Wanted, part: _Part, progress: _FileProgress) -> None:
    """One response's worth."""
    headers = {"Range": f"bytes={part.size_bytes}-"} if part.size_bytes else {}
    with web.response(wanted.url, wanted.repository, headers, site=wanted.site) as response:
        if response.status_code == 200:  # the whole, whatever was asked for
            part.begin_anew()
        elif not response.headers.get("Content-Range", "").startswith(f"bytes {part.size_bytes}-"):
            raise wanted.site.untrusted(f"sends another part of {wanted.file.path} than it was asked for")
        for chunk in response.iter_raw():
            part.write(chunk)
            progress(f"downloading {wanted.file.path}", part.size_bytes)


def _tell(progress: Progress, before: int, total: int, what: str, count: int) -> None:
    progress(what, before + count, total)


def _part_bytes(cache: Cache, file: RemoteFile) -> int:
    part = cache.part(file)
    return part.stat().st_size if part.is_file() else 0


def _check_room(cache: Cache, needed: int) -> None:
    place = next(folder for folder in [cache.folder, *cache.folder.parents] if folder.is_dir())
    if needed and shutil.disk_usage(place).free < needed + _SPARE_BYTES:
        raise _disk_full(f"{place}: no room for {needed / 1e6:.0f} MB")


def _unwritable(folder: Path, exc: OSError) -> CraftError:
    if exc.errno in _FULL:
        return _disk_full(f"{folder}: the disk is full")
    place, hint = exc.filename or folder, "see that craftd may write there, or set HF_HOME to another folder"
    return CraftError("STORAGE_FAILED", f"{place}: {exc.strerror}", hint)


def _disk_full(message: str) -> CraftError:
    return CraftError("DISK_FULL", message, "free some space, or set HF_HOME to another disk")
