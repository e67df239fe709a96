"""One owner of the connection: a thread that takes pieces of work from a queue.

Work that has queued up while the disk was busy shares the next transaction (and its
one fsync), each piece in a savepoint of its own: one that fails takes no other along.
Pieces that only look have a connection and a thread of their own, so that they wait for no fsync.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import queue
import shutil
import threading
from collections.abc import Callable
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from typing import Any, TypeVar

import apsw
from craft_protos.reasons import CraftError

from craftd.store import schema

_log = logging.getLogger("craft.store")

T = TypeVar("T")

Work = Callable[[apsw.Connection], T]

_MOST_AT_ONCE = 256
_SMALL_BYTES = 64 << 20
_MUCH_UNUSED_BYTES = 32 << 20


@dataclass
class _Piece:
    work: Work[Any]
    future: asyncio.Future[Any]
    result: Any = None
    error: BaseException | None = None
    is_alone: bool = False  # outside of transactions


class Database:
    """craft.db, open for writing. Results are on disk (WAL, synchronous=FULL) when a future resolves."""

    def __init__(self, path: Path, *, vfs: str | None = None) -> None:
        """`vfs`: the name of an apsw VFS. Raises STORE_CORRUPT, STORE_NEWER, DISK_FULL, STORAGE_FAILED."""
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
        self._threads = [threading.Thread(target=self._serve, name="store", daemon=True)]
        self._looks = self._pieces
        if vfs is None:  # a VFS in Python lets one connection in
            self._looks = queue.SimpleQueue()
            self._threads.append(threading.Thread(target=self._show, name="store: reading", daemon=True))
        for thread in self._threads:
            thread.start()

    def submit(self, work: Work[T]) -> asyncio.Future[T]:
        """Queue `work(connection)`; it runs in a transaction, in the order of the calls."""
        return self._queue(self._pieces, work)

    async def run(self, work: Work[T]) -> T:
        """As submit, and the work is done even when the caller is cancelled meanwhile."""
        return await asyncio.shield(self.submit(work))

    async def look(self, work: Work[T]) -> T:
        """Run `work(connection)`, which writes nothing, beside what is being written: it sees what is committed."""
        return await asyncio.shield(self._queue(self._looks, work))

    def _queue(self, pieces: queue.SimpleQueue[_Piece | None], work: Work[T]) -> asyncio.Future[T]:
        future: asyncio.Future[T] = self._loop.create_future()
        pieces.put(_Piece(work, future))
        return future

    async def vacuum(self) -> bool:
        """Give pages that nothing is in back to the disk, where they are many. Other work waits meanwhile.

        One that fails is logged: the pages are used again by and by.
        """
        if not await self.look(_is_vacuum_due):
            return False
        if shutil.disk_usage(self._path.parent).free < 2 * self._path.stat().st_size:
            return False
        future: asyncio.Future[None] = self._loop.create_future()
        self._pieces.put(_Piece(_vacuum, future, is_alone=True))
        try:
            await asyncio.shield(future)
        except CraftError as exc:
            _log.error("not vacuumed", extra={"why": exc.message})
            return False
        _log.info("vacuumed", extra={"bytes": self._path.stat().st_size})
        return True

    async def backup(self) -> None:
        """Write craft.db.bak, whole or not at all, beside what is being written meanwhile.

        One that fails is logged: the daemon goes on without it.
        """
        try:
            await asyncio.to_thread(self._write_backup)
        except (apsw.Error, OSError) as exc:
            _log.error("no backup was made", extra={"why": str(exc)})

    async def backup_at_the_end(self) -> None:
        """Where it is a matter of a moment: millions of jobs are copied once a day, and not at each stop."""
        if self._path.stat().st_size <= _SMALL_BYTES or not schema.backup_of(self._path).exists():
            await self.backup()

    async def close(self) -> None:
        """Finish what is queued, then close the file."""
        self._looks.put(None)
        if self._looks is not self._pieces:
            self._pieces.put(None)
        for thread in self._threads:
            await asyncio.to_thread(thread.join)

    def _serve(self) -> None:
        is_open = True
        while is_open:
            pieces = [self._pieces.get()]
            while len(pieces) < _MOST_AT_ONCE and not self._pieces.empty():
                pieces.append(self._pieces.get())
            is_open = None not in pieces
            self._perform([piece for piece in pieces if piece is not None])
        _close(self._connection)

    def _show(self) -> None:
        """The reading thread's loop; it opens its connection when it is first asked."""
        connection: apsw.Connection | None = None
        while (piece := self._looks.get()) is not None:
            try:
                connection = connection or _connect(self._path, None, is_for_reading=True)
                piece.result = piece.work(connection)
            except Exception as exc:  # the thread's outermost loop: the caller gets it
                piece.error = self._mapped(exc) if isinstance(exc, apsw.Error) else exc
            self._resolve([piece])
        if connection is not None:
            _close(connection)

    def _perform(self, pieces: list[_Piece]) -> None:
        """Every piece gets a result or an error, whatever happens: the thread serves on."""
        left = pieces
        while left:
            if left[0].is_alone:
                self._perform_alone(left[0])
                left = left[1:]
                continue
            together = list(takewhile(lambda piece: not piece.is_alone, left))
            left = [*self._transact(together), *left[len(together) :]]
        self._resolve(pieces)

    def _perform_alone(self, piece: _Piece) -> None:
        try:
            piece.result = piece.work(self._connection)
        except apsw.Error as exc:
            piece.error = self._mapped(exc)

    def _transact(self, pieces: list[_Piece]) -> list[_Piece]:
        """One transaction of as many pieces as go; those that are left for another.

        On some faults (a full disk) SQLite rolls the whole transaction back in the midst of a
        piece: then none of those before it happened either, and they must not be told so.
        """
        done: list[_Piece] = []
        try:
            self._connection.execute("BEGIN IMMEDIATE")
            for piece in pieces:
                done.append(piece)
                self._perform_one(piece)
                if not self._connection.in_transaction:
                    _fail(done, piece.error or _lost())
                    return pieces[len(done) :]
            self._connection.execute("COMMIT")
        except Exception as exc:  # none of it happened
            _fail(pieces, self._mapped(exc) if isinstance(exc, apsw.Error) else exc)
            self._roll_back()
        return []

    def _roll_back(self) -> None:
        try:
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
        except apsw.Error as exc:
            _log.error("not rolled back", extra={"why": str(exc)})

    def _perform_one(self, piece: _Piece) -> None:
        try:
            with self._connection:
                piece.result = piece.work(self._connection)
        except apsw.Error as exc:
            piece.error = self._mapped(exc)
        except Exception as exc:  # the thread's outermost loop: the caller gets it, and logs
            piece.error = exc

    def _resolve(self, pieces: list[_Piece]) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
            self._loop.call_soon_threadsafe(_resolve, pieces)

    def _write_backup(self) -> None:
        target = schema.backup_of(self._path)
        temporary = target.with_name(target.name + ".tmp")
        temporary.unlink(missing_ok=True)
        connection = _connect(self._path, None)
        try:
            connection.execute("VACUUM INTO ?", (str(temporary),))
        finally:
            _close(connection)
        temporary.replace(target)

    def _mapped(self, exc: apsw.Error) -> CraftError:
        error = _mapped(self._path, exc)
        error.__cause__ = exc
        return error


def _is_vacuum_due(connection: apsw.Connection) -> bool:
    """Where a quarter of the file, and some megabytes, are unused."""
    unused, pages = int(connection.pragma("freelist_count")), int(connection.pragma("page_count"))
    return unused * 4 > pages and unused * int(connection.pragma("page_size")) > _MUCH_UNUSED_BYTES


def _vacuum(connection: apsw.Connection) -> None:
    connection.execute("VACUUM")
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()


def _mapped(path: Path, exc: apsw.Error) -> CraftError:
    """What SQLite says, as ours: faults of the disk are no bugs of craft's."""
    if isinstance(exc, apsw.FullError):
        return CraftError("DISK_FULL", f"{path}: the disk is full", "free some space and try again")
    if isinstance(exc, apsw.NotADBError | apsw.CorruptError):
        return schema.corrupt(path, str(exc))
    if isinstance(exc, apsw.IOError | apsw.CantOpenError | apsw.ReadOnlyError | apsw.BusyError | apsw.NoMemError):
        hint = "see that its folder is there, its disk is sound and craftd may write"
        return CraftError("STORAGE_FAILED", f"{path}: {exc}", hint)
    return CraftError("INTERNAL", f"{path}: {exc}", "see `craft daemon logs`")


def _lost() -> CraftError:
    return CraftError("STORAGE_FAILED", "the transaction was rolled back", "try again")


def _fail(pieces: list[_Piece], error: BaseException) -> None:
    for piece in pieces:
        piece.error = piece.error or error


def _connect(path: Path, vfs: str | None, *, is_for_reading: bool = False) -> apsw.Connection:
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    connection = apsw.Connection(str(path), vfs=vfs)
    try:
        _set_up(connection, is_exclusive=vfs is not None)
        if is_for_reading:
            connection.pragma("query_only", "on")
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
