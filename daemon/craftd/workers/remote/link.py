"""The front's end of the line to a worker, and the connection that a handle has through it."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path

from craft_protos.frames import BadFrame
from craft_protos.reasons import CraftError
from craft_protos.remote_pb2 import Certificate, Discard, Ended, FromRemote, Kill, Start, ToRemote, Want
from craft_protos.worker_pb2 import FromWorker, ToWorker

from craftd.workers.connection import Connection, Ending
from craftd.workers.remote.checks import Given, Strange
from craftd.workers.remote.line import Line, checked_piece, required_sha256
from craftd.workers.remote.pulling import Pulls, read_piece

_log = logging.getLogger("craft.fleet")
_MOST_WANTS = 64  # that wait to be served
_MOST_MADE_BYTES = 64 << 30  # a training's checkpoint
_END_S = 30.0  # for the end of a process that is killed
_RENEW_S = 60.0  # between two certificates of a line

Renew = Callable[[bytes], Awaitable[Certificate]]


class Seat:
    """The place of a worker that has joined, whether it is connected or not."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.link: Link | None = None

    @property
    def address(self) -> str:
        """Where it is connected from; "" while it is not."""
        return "" if self.link is None or self.link.line.closed else self.link.line.peer

    async def connect(self) -> Connection:
        """A process there. Raises OSError while it is not connected."""
        if self.link is None or self.link.line.closed:
            raise ConnectionError(errno.ENOTCONN, f"worker {self.name} is not connected")
        return self.link.begin()


class Link:
    """One line's life. `renew`: answers a request for the next certificate."""

    def __init__(self, line: Line[FromRemote], renew: Renew) -> None:
        self.line = line
        self._renew = renew
        self._renewed_at = -_RENEW_S
        self._lives = 0
        self._current: RemoteConnection | None = None
        self._wants: asyncio.Queue[Want] = asyncio.Queue(_MOST_WANTS)
        self._strange = Strange()
        self.pulls = Pulls(lambda sha256, offset: line.send(ToRemote(want=Want(sha256=sha256, offset=offset))))

    def begin(self) -> RemoteConnection:
        """A process's next life, which the other end begins. The one before it has ended."""
        self._lives += 1
        self._current = RemoteConnection(self.line, self.pulls, self._lives)
        self.line.send(ToRemote(start=Start(), life=self._lives))
        return self._current

    async def run(self, keepalive_s: float) -> None:
        """Until the line ends."""
        others = [
            asyncio.create_task(self.line.keep(keepalive_s), name="line"),
            asyncio.create_task(self._serve_files(), name="files for a worker"),
        ]
        try:
            while (frame := await self.line.receive()) is not None:
                await self._handle(frame)
        except BadFrame as exc:
            self.line.close(f"it sent {exc}")
        finally:
            for task in others:
                task.cancel()
            self.line.close("the daemon closed it")
            self.pulls.fail(self.line.closed)
            if self._current is not None:
                self._current.cut(self.line.closed)

    async def _handle(self, frame: FromRemote) -> None:
        """Raises BadFrame."""
        match frame.WhichOneof("frame"):
            case "alive":
                pass
            case "worker":
                self._pass_on(frame.worker, frame.life)
            case "ended":
                if self._current is not None and frame.life == self._current.life:
                    self._current.end(frame.ended)
            case "want":
                self._note_want(frame.want)
            case "piece":
                if not self.pulls.receive(checked_piece(frame.piece)):
                    self._strange.note()
            case "renew":
                await self._answer_renewal(frame.renew.request)
            case kind:
                raise BadFrame(f"{kind or 'an empty frame'} where that cannot be")

    def _pass_on(self, frame: FromWorker, life: int) -> None:
        current = self._current
        if current is None or life != current.life or not current.take(frame):
            self._strange.note()

    def _note_want(self, want: Want) -> None:
        required_sha256(want.sha256)
        try:
            self._wants.put_nowait(want)
        except asyncio.QueueFull:
            raise BadFrame(f"more than {_MOST_WANTS} wishes for files at once") from None

    async def _serve_files(self) -> None:
        """Those that the worker was promised, and no others."""
        while True:
            want = await self._wants.get()
            path = None if self._current is None else self._current.path_of(want.sha256)
            try:
                if path is None:
                    self._strange.note()
            except BadFrame as exc:
                self.line.close(f"it sent {exc}")
                return
            await self.line.send_in_turn(ToRemote(piece=await read_piece(want.sha256, path, want.offset)))

    async def _answer_renewal(self, request: bytes) -> None:
        if time.monotonic() - self._renewed_at < _RENEW_S:
            raise BadFrame("one request for a certificate after the other")
        self._renewed_at = time.monotonic()
        try:
            self.line.send(ToRemote(certificate=await self._renew(request)))
        except CraftError as exc:
            raise BadFrame(exc.message) from exc


class RemoteConnection:
    """One life of the process on the other machine."""

    def __init__(self, line: Line[FromRemote], pulls: Pulls, life: int) -> None:
        self.life = life
        self._files: dict[str, Path] = {}
        self._line = line
        self._pulls = pulls
        self._given = Given()
        self._frames: asyncio.Queue[FromWorker | None] = asyncio.Queue()
        self._ending: asyncio.Future[Ending] = asyncio.get_running_loop().create_future()
        self._is_killed = False

    @property
    def pid(self) -> int:
        """Its hello says it."""
        return 0

    def send(self, frame: ToWorker) -> None:
        self._given.note(frame)
        self._line.send(ToRemote(worker=frame, life=self.life))

    async def receive(self) -> FromWorker | None:
        return await self._frames.get()

    def take(self, frame: FromWorker) -> bool:
        """A frame of its own; False for one about what it was not given. Raises BadFrame."""
        if self._ending.done() or not self._given.allows(frame):
            return False
        self._frames.put_nowait(frame)
        return True

    async def stage(self, files: Mapping[str, Path]) -> None:
        """The other end asks for what it lacks."""
        self._files.update(files)

    def path_of(self, sha256: str) -> Path | None:
        """Of a file that it may have."""
        return self._files.get(sha256)

    async def collect(self, sha256: str, destination: Path) -> None:
        half = destination.with_name(f".{destination.name}.half")
        try:
            await self._pulls.pull(sha256, half, _MOST_MADE_BYTES)
            half.replace(destination)
        finally:
            half.unlink(missing_ok=True)
        await self.discard(sha256)

    async def discard(self, sha256: str) -> None:
        self._line.send(ToRemote(discard=Discard(sha256=sha256)))

    def kill(self) -> None:
        """A machine that does not end it in time is cut off."""
        if not (self._is_killed or self._ending.done()):
            self._is_killed = True
            self._line.send(ToRemote(kill=Kill(), life=self.life))
            late = asyncio.get_running_loop().call_later(_END_S, self._line.close, "it did not end its process")
            self._ending.add_done_callback(lambda _: late.cancel())

    async def wait(self) -> Ending:
        return await asyncio.shield(self._ending)

    def end(self, ended: Ended) -> None:
        """It says that the process has ended."""
        self._finish(Ending(ended.how[:1000] or "it ended", is_own_doing=ended.is_own_doing))

    def cut(self, why: str) -> None:
        """The line is gone."""
        self._finish(Ending(f"the line to it broke: {why}", is_own_doing=False, is_cut_off=True))

    def _finish(self, ending: Ending) -> None:
        with contextlib.suppress(asyncio.InvalidStateError):
            self._ending.set_result(ending)
            self._frames.put_nowait(None)
