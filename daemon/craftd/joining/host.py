"""The worker's process on this machine, between the line to the front and the files that it needs.

It outlives the line: what it holds in memory is there when the front is back. Jobs that it was given over an earlier
line are cancelled then, since the front has given them elsewhere.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

from craft_protos.frames import BadFrame
from craft_protos.jobs_pb2 import JobError
from craft_protos.reasons import CraftError
from craft_protos.remote_pb2 import Ended, FromRemote, Piece, ToRemote, Want
from craft_protos.worker_pb2 import Cancel, Dispatch, FromWorker, ToWorker

from craftd.joining.file_store import FileStore, Needed
from craftd.tasks import Tasks
from craftd.workers.connection import Connection
from craftd.workers.remote.line import Line
from craftd.workers.remote.pulling import Pulls, read_piece

_log = logging.getLogger("craft.fleet")
_RESULTS = {"image", "done", "failed", "sample", "checkpoint", "lora"}
_MOST_LATE, _MOST_LATE_BYTES = 64, 128 << 20
_TELL_EVERY_S = 0.5

_Key = tuple[str, int]  # a job and its epoch; of a load ("load NAME", 0)


class Host:
    """`start`: starts the process over a folder of files by sha256."""

    def __init__(self, folder: Path, budget_bytes: int, start: Callable[[Path], Awaitable[Connection]]) -> None:
        self._store = FileStore(folder, budget_bytes, self._in_use)
        self._start = start
        self._tasks = Tasks()
        self._line: Line[ToRemote] | None = None
        self._life = 0  # of the process, as the front counts on this line; 0: not begun there
        self.pulls = Pulls(self._ask)
        self._process: Connection | None = None
        self._is_killed = False
        self._running: asyncio.Task[None] | None = None
        self._giving_up: asyncio.TimerHandle | None = None
        self._hello: FromWorker | None = None
        self._loaded: dict[str, FromWorker] = {}
        self._late: deque[FromWorker] = deque()
        self._jobs: dict[_Key, set[str]] = {}  # with their files
        self._models: dict[str, set[str]] = {}
        self._made: set[str] = set()  # files that the front has neither taken nor refused
        self._waiting: dict[_Key, asyncio.Task[None]] = {}  # for files

    def attach(self, line: Line[ToRemote]) -> None:
        """What is made is said there from now on."""
        self._line, self._life = line, 0
        if self._giving_up is not None:
            self._giving_up.cancel()

    def detach(self, why: str, away_s: float) -> None:
        """The line is gone; the process goes on, until the front was away for too long (negative: for ever)."""
        self._line, self._life = None, 0
        if away_s >= 0:
            self._giving_up = asyncio.get_running_loop().call_later(away_s, self.kill)
        self.pulls.fail(why)
        self.pulls = Pulls(self._ask)

    async def begin(self, life: int) -> None:
        """The front wants the process: the one that there is, or a new one."""
        if self._hello is None and self._running is not None:  # one that has not come up, or that is being ended
            self.kill()
            await asyncio.wait([self._running])
        self._life = life
        if self._running is None:
            self._is_killed = False
            self._running = self._tasks.start(self._run(), "worker process")
            return
        assert self._hello is not None
        self._withdraw_all()
        late, self._late = self._late, deque()
        for frame in (self._hello, *self._loaded.values(), *late):
            await self._up(frame)

    def give(self, frame: ToWorker, life: int) -> None:
        """What the front asks of the process; what needs files waits until they are here."""
        if life != self._life:
            return
        match frame.WhichOneof("frame"):
            case "dispatch":
                dispatch = frame.dispatch
                self._bring((dispatch.job_id, dispatch.epoch), frame, list(_files_of(dispatch)))
            case "load":
                files = [Needed(one.sha256, one.size_bytes) for one in frame.load.model.files]
                self._bring((f"load {frame.load.model.name}", 0), frame, files)
            case "cancel" if (key := (frame.cancel.job_id, frame.cancel.epoch)) in self._waiting:
                self._withdraw(key)
            case "unload":
                self._after({key for key in self._waiting if key[0] == f"load {frame.unload.model}"}, frame)
            case "preview":
                self._after({key for key in self._waiting if key[0] == frame.preview.job_id}, frame)
            case "cancel":
                self._hand_over(frame)

    async def serve(self, want: Want) -> Piece:
        """A piece of a file that the process made, and of no other."""
        path = self._store.folder / want.sha256 if want.sha256 in self._made else None
        return await read_piece(want.sha256, path, want.offset)

    def discard(self, sha256: str) -> None:
        """The front has it, or does not want it: it may go when room is needed."""
        self._made.discard(sha256)

    def kill(self) -> None:
        """End the process; that it has ended is said when it has."""
        self._hello, self._is_killed = None, True
        if self._process is not None:
            self._process.kill()

    async def stop(self) -> None:
        """End the process, and wait for that."""
        self.kill()
        if self._running is not None:
            await asyncio.wait([self._running])
        await self._tasks.cancel()

    # The process

    async def _run(self) -> None:
        """One process, from its start to its end."""
        how, is_own_doing = "", False
        try:
            process = self._process = await self._start(self._store.folder)
            if self._is_killed:
                process.kill()
            try:
                while (frame := await process.receive()) is not None:
                    self._note(frame)
                    await self._up(frame)
            except BadFrame as exc:
                how, is_own_doing = f"it sent {exc}", True
            finally:
                process.kill()
            ending = await process.wait()
            how, is_own_doing = how or ending.how, is_own_doing or ending.is_own_doing
        except OSError as exc:
            how = f"it could not be started: {exc.strerror or exc}"
        finally:
            self._forget()
        _log.info("worker process ended", extra={"why": how})
        if self._line is not None and self._life:
            ended = Ended(how=how, is_own_doing=is_own_doing)
            self._line.send(FromRemote(ended=ended, life=self._life))

    def _forget(self) -> None:
        for task in self._waiting.values():
            task.cancel()
        self._process, self._running, self._hello = None, None, None
        self._loaded.clear()
        self._jobs.clear()
        self._models.clear()
        self._waiting.clear()

    def _note(self, frame: FromWorker) -> None:
        match frame.WhichOneof("frame"):
            case "hello":
                self._hello = frame
            case "loaded":
                self._loaded[frame.loaded.model] = frame
            case "unloaded":
                self._loaded.pop(frame.unloaded.model, None)
                self._models.pop(frame.unloaded.model, None)
            case "done":
                self._jobs.pop((frame.done.job_id, frame.done.epoch), None)
            case "failed":
                self._jobs.pop((frame.failed.job_id, frame.failed.epoch), None)
            case "checkpoint":
                self._made.add(frame.checkpoint.sha256)
            case "lora":
                self._made.add(frame.lora.sha256)

    def _in_use(self) -> set[str]:
        return set().union(self._made, *self._jobs.values(), *self._models.values())

    async def _up(self, frame: FromWorker) -> None:
        """Tell the front; results wait for it where it is away, the newest of them."""
        if self._line is not None and self._life:
            await self._line.send_in_turn(FromRemote(worker=frame, life=self._life))
        elif frame.WhichOneof("frame") in _RESULTS:
            self._late.append(frame)
            while len(self._late) > _MOST_LATE or sum(one.ByteSize() for one in self._late) > _MOST_LATE_BYTES:
                self._late.popleft()

    # What it is given

    def _bring(self, key: _Key, frame: ToWorker, files: list[Needed]) -> None:
        model = frame.dispatch.model if frame.WhichOneof("frame") == "dispatch" else frame.load.model
        self._models[model.name] = {one.sha256 for one in model.files}
        if frame.WhichOneof("frame") == "dispatch":
            self._jobs[key] = {file.sha256 for file in files}
        try:
            lacking = self._store.lacking(files)
        except (CraftError, OSError) as exc:
            self._tasks.start(self._refuse(frame, exc), "refusal")
            return
        if lacking or key in self._waiting:
            self._waiting[key] = self._tasks.start(self._fetch(key, frame, lacking), f"files for {key[0]}")
        else:
            self._hand_over(frame)

    async def _fetch(self, key: _Key, frame: ToWorker, lacking: list[Needed]) -> None:
        told_at = 0.0

        def tell(done: int, of: int) -> None:
            nonlocal told_at
            if time.monotonic() - told_at >= _TELL_EVERY_S:
                told_at = time.monotonic()
                self._say(_progress(frame, lacking, done, of))

        try:
            await self._store.fetch(lacking, self.pulls, tell)
        except (CraftError, OSError) as exc:
            await self._refuse(frame, exc)
        else:
            self._hand_over(frame)
        finally:
            if self._waiting.get(key) is asyncio.current_task():
                del self._waiting[key]

    async def _refuse(self, frame: ToWorker, exc: CraftError | OSError) -> None:
        error = exc if isinstance(exc, CraftError) else CraftError("JOB_FAILED", f"files were not fetched: {exc}", "")
        told = JobError(reason=error.reason, message=error.message, hint=error.hint)
        if frame.WhichOneof("frame") == "load":
            await self._up(FromWorker(load_failed=FromWorker.LoadFailed(model=frame.load.model.name, error=told)))
            return
        job = frame.dispatch
        self._jobs.pop((job.job_id, job.epoch), None)
        await self._up(FromWorker(failed=FromWorker.JobFailed(job_id=job.job_id, epoch=job.epoch, error=told)))

    def _withdraw(self, key: _Key) -> None:
        """It still waits for files, and is wanted no more."""
        self._waiting.pop(key).cancel()
        self._jobs.pop(key, None)
        self._say(FromWorker(done=FromWorker.JobDone(job_id=key[0], epoch=key[1], cancelled=True)))

    def _withdraw_all(self) -> None:
        """The front has forgotten what it gave over an earlier line."""
        for task in self._waiting.values():
            task.cancel()
        self._waiting.clear()
        for job_id, epoch in self._jobs:
            self._hand_over(ToWorker(cancel=Cancel(job_id=job_id, epoch=epoch)))

    def _after(self, keys: set[_Key], frame: ToWorker) -> None:
        """Hand it over once these have been."""
        waiting = [self._waiting[key] for key in keys]
        if waiting:
            self._tasks.start(self._hand_over_after(waiting, frame), "a frame that waits")
        else:
            self._hand_over(frame)

    async def _hand_over_after(self, waiting: list[asyncio.Task[None]], frame: ToWorker) -> None:
        await asyncio.wait(waiting)
        self._hand_over(frame)

    def _hand_over(self, frame: ToWorker) -> None:
        if self._process is not None:
            self._process.send(frame)

    def _say(self, frame: FromWorker) -> None:
        if self._line is not None and self._life:
            self._line.send(FromRemote(worker=frame, life=self._life))

    def _ask(self, sha256: str, offset: int) -> None:
        if self._line is not None:
            self._line.send(FromRemote(want=Want(sha256=sha256, offset=offset)))


def _files_of(dispatch: Dispatch) -> Iterator[Needed]:
    models = (dispatch.model, *dispatch.controls, *dispatch.later_models)
    for model in models:
        yield from (Needed(file.sha256, file.size_bytes) for file in model.files)
    for file in (*dispatch.files, *dispatch.inputs):
        yield Needed(file.sha256, file.size_bytes)
    for picture in dispatch.pictures:
        yield Needed(picture.sha256, picture.size_bytes)


def _progress(frame: ToWorker, lacking: list[Needed], done: int, of: int) -> FromWorker:
    """Says that it gets on: as a load of the model, or as the job's preparation."""
    model = frame.dispatch.model if frame.WhichOneof("frame") == "dispatch" else frame.load.model
    if {one.sha256 for one in model.files} & {one.sha256 for one in lacking}:
        loading = FromWorker.Loading(model=model.name, bytes_done=done, bytes_total=of)
        return FromWorker(loading=loading)
    job = frame.dispatch
    preparing = FromWorker.Preparing(
        job_id=job.job_id, epoch=job.epoch, what="fetching files", done=done >> 10, of=of >> 10
    )
    return FromWorker(preparing=preparing)
