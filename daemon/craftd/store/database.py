"""One owner of the connection: a thread that takes pieces of work from a queue.

Work that has queued up while the disk was busy shares the next transaction (and its
one fsync), each piece in a savepoint of its own: one that fails takes no other along.
"""

from __future__ import annotations

import asyncio
import logging
import queue
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import apsw
from craft_protos.reasons import CraftError

from craftd.store import schema

_log = logging.getLogger("craft.store")

T = TypeVar("T")

Work = Callable[[apsw.Connection], T]

_MOST_AT_ONCE = 256


@dataclass
class _Piece:
    work: Work[Any]
    future: asyncio.Future[Any]
    result: Any = None
    error: BaseException | None = None


class Database:
    """craft.db, open for writing. Results are on disk (WAL, synchronous=FULL) when a future resolves."""

    def __init__(self, path: Path, *, vfs: str | None = None) -> None:
        """`vfs`: the name of an apsw VFS. Raises STORE_CORRUPT, STORE_NEWER, DISK_FULL."""
        self._path = path
        if vfs is None:
            schema.check(path)
        try:
            self._connection = _connect(path, vfs)
        except apsw.Error as exc:
            raise self._mapped(exc) from exc
        try:
            schema.migrate(self._connection)
        except apsw.Error as exc:
            _close(self._connection)
            raise self._mapped(exc) from exc
        self._loop = asyncio.get_running_loop()
        self._pieces: queue.SimpleQueue[_Piece | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._serve, name="store", daemon=True)
        self._thread.start()

    def submit(self, work: Work[T]) -> asyncio.Future[T]:
        """Queue `work(connection)`; it runs in a transaction, in the order of the calls."""
        future: asyncio.Future[T] = self._loop.create_future()
        self._pieces.put(_Piece(work, future))
        return future

    async def run(self, work: Work[T]) -> T:
        """As submit, and the work is done even when the caller is cancelled meanwhile."""
        return await asyncio.shield(self.submit(work))

    async def backup(self) -> None:
        """Write craft.db.bak, whole or not at all. One that fails is logged: the daemon goes on without it."""
        try:
            await self.run(_Outside(self._write_backup))
        except (CraftError, OSError) as exc:
            _log.error("no backup was made", extra={"why": str(exc)})

    async def close(self) -> None:
        """Finish what is queued, then close the file."""
        self._pieces.put(None)
        await asyncio.to_thread(self._thread.join)

    def _serve(self) -> None:
        is_open = True
        while is_open:
            pieces = [self._pieces.get()]
            while len(pieces) < _MOST_AT_ONCE and not self._pieces.empty():
                pieces.append(self._pieces.get())
            is_open = None not in pieces
            self._perform([piece for piece in pieces if piece is not None])
        _close(self._connection)

    def _perform(self, pieces: list[_Piece]) -> None:
        outside = [piece for piece in pieces if isinstance(piece.work, _Outside)]
        inside = [piece for piece in pieces if piece not in outside]
        try:
            if inside:
                with self._connection:
                    for piece in inside:
                        self._perform_one(piece)
        except apsw.Error as exc:  # the commit failed: none of it happened
            for piece in inside:
                piece.error = self._mapped(exc)
        for piece in outside:
            self._perform_one(piece)
        self._loop.call_soon_threadsafe(_resolve, pieces)

    def _perform_one(self, piece: _Piece) -> None:
        try:
            if isinstance(piece.work, _Outside):
                piece.result = piece.work(self._connection)
                return
            with self._connection:
                piece.result = piece.work(self._connection)
        except apsw.Error as exc:
            piece.error = self._mapped(exc)
        except Exception as exc:  # the thread's outermost loop: the caller gets it, and logs
            piece.error = exc

    def _write_backup(self, connection: apsw.Connection) -> None:
        target = schema.backup_of(self._path)
        temporary = target.with_name(target.name + ".tmp")
        temporary.unlink(missing_ok=True)
        connection.execute("VACUUM INTO ?", (str(temporary),))
        temporary.replace(target)

    def _mapped(self, exc: apsw.Error) -> CraftError:
        if isinstance(exc, apsw.FullError):
            return CraftError("DISK_FULL", f"{self._path}: the disk is full", "free some space and try again")
        if isinstance(exc, apsw.NotADBError | apsw.CorruptError):
            return schema.corrupt(self._path, str(exc))
        return CraftError("INTERNAL", f"{self._path}: {exc}", "see `craft daemon logs`")


class _Outside:
    """Work that SQLite won't do inside a transaction."""

    def __init__(self, work: Work[None]) -> None:
        self._work = work

    def __call__(self, connection: apsw.Connection) -> None:
        self._work(connection)


def _connect(path: Path, vfs: str | None) -> apsw.Connection:
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    connection = apsw.Connection(str(path), vfs=vfs)
    try:
        _set_up(connection, is_exclusive=vfs is not None)
    except apsw.Error:
        _close(connection)
        raise
    return connection


def _close(connection: apsw.Connection) -> None:
    try:
        connection.close()
    except apsw.Error as exc:  # everything acknowledged is in the log, which the next start reads
        _log.error("database not closed cleanly", extra={"why": str(exc)})


def _set_up(connection: apsw.Connection, *, is_exclusive: bool) -> None:
    connection.set_busy_timeout(5000)
    if is_exclusive:  # a VFS in Python has no shared memory, which WAL does without when exclusive
        connection.pragma("locking_mode", "exclusive")
    connection.pragma("journal_mode", "wal")
    connection.pragma("synchronous", "full")
    connection.pragma("fullfsync", "on")
    connection.pragma("foreign_keys", "on")


def _resolve(pieces: list[_Piece]) -> None:
    for piece in pieces:
        if piece.future.done():
            continue
        if piece.error is not None:
            piece.future.set_exception(piece.error)
        else:
            piece.future.set_result(piece.result)
