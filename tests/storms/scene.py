"""One craft for storms: a home with the fake worker, a daemon that is kept running, callers, a journal."""

from __future__ import annotations

import asyncio
import contextlib
import random
import signal
from collections.abc import AsyncIterator, Coroutine, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from craft_protos import jobs_pb2

from tests.home import HANG_S, Home
from tests.storms import checker
from tests.storms.callers import Caller, GaveUp, drawing
from tests.storms.journal import End, Journal, Violation
from tests.storms.keeper import Keeper
from tests.storms.shim import Shim

_SETTINGS = {"CRAFT_WORKER_MAX_ROWS": "4", "CRAFT_DAEMON_GRACE_S": "5", "CRAFT_WORKER_STALL_TIMEOUT_S": "2"}

_TRACE = "trace"


@dataclass
class Scene:
    """`chance` decides whatever is left open; the same seed decides the same."""

    home: Home
    keeper: Keeper
    shim: Shim
    journal: Journal
    caller: Caller
    seed: int
    chance: random.Random
    pending: list[asyncio.Task[End]] = field(default_factory=list)  # those who wait for the end of a job
    calls: list[asyncio.Task[object]] = field(default_factory=list)

    _known: set[Violation] = field(default_factory=set)

    @property
    def trace(self) -> Path:
        """What the daemon did to its files, where that is noted."""
        return self.home.root / _TRACE

    # What happens to jobs

    async def ask(self, prompt: str = "a red apple", **fields: object) -> str:
        """A job that is acknowledged, and somebody who waits for its end."""
        asked = drawing(prompt, **({"seed": self.chance.randrange(1 << 24)} | fields))
        job_id = await self.caller.create(asked)
        self.pending.append(asyncio.create_task(self.caller.finish(job_id), name=f"watch {job_id}"))
        return job_id

    def begin(self, call: Coroutine[object, object, object]) -> None:
        """A call whose answer is awaited when the storm is over."""
        self.calls.append(asyncio.create_task(call))

    async def runs(self, job_id: str) -> None:
        """Until the worker has the job."""
        while (await self.caller.look(job_id)).state == jobs_pb2.JOB_STATE_QUEUED:  # noqa: ASYNC110
            await asyncio.sleep(0.01)

    async def gone_on(self, job_id: str) -> None:
        """Until a worker's death was noticed: the job waits again, or has ended."""
        while (await self.caller.look(job_id)).state == jobs_pb2.JOB_STATE_RUNNING:  # noqa: ASYNC110
            await asyncio.sleep(0.005)

    async def steps(self, job_id: str) -> None:
        """Until a step of it was done, or it has ended."""
        watching = self.caller.jobs.WatchJob(jobs_pb2.WatchJobRequest(id=job_id), timeout=HANG_S)
        async for event in watching:
            if event.WhichOneof("event") in ("step", "finished"):
                watching.cancel()
                return

    async def heard(self, more: int) -> None:
        """Until callers have heard so many things more, or there is nothing left to hear."""
        news = asyncio.create_task(self.journal.hear(more))
        rest = asyncio.create_task(asyncio.wait(self.pending)) if self.pending else news
        await asyncio.wait({news, rest}, return_when=asyncio.FIRST_COMPLETED)
        news.cancel()
        rest.cancel()

    async def warned(self, *words: str) -> str:
        """Until the status warns of something with all these words; the warning, "" where that takes too long."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(HANG_S):
                while True:
                    for warning in (await self.caller.status()).warnings:
                        if all(word in warning for word in words):
                            return str(warning)
                    await asyncio.sleep(0.02)
        return ""

    @property
    def log_bytes(self) -> int:
        """How long the log is now."""
        return self.home.paths.log_file.stat().st_size

    async def logged(self, event: str, timeout_s: float = 10.0, since: int | None = None) -> bool:
        """Wait for a new line of the log, or one after its first `since` bytes; False where it does not come."""
        begun, sign = self.log_bytes if since is None else since, f'"event": "{event}"'
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                while sign not in self._log_from(begun):  # noqa: ASYNC110 - another process writes it
                    await asyncio.sleep(0.01)
                return True
        return False

    def _log_from(self, offset: int) -> str:
        with self.home.paths.log_file.open("rb") as log:
            log.seek(offset)
            return log.read().decode(errors="replace")

    def hold(self) -> None:
        """From now on `[held]` jobs wait."""
        (self.home.paths.files_dir / "release").unlink(missing_ok=True)

    def refuse(self, *, is_refusing: bool = True) -> None:
        """Whether the worker can start."""
        self.home.paths.files_dir.mkdir(parents=True, exist_ok=True)
        path = self.home.paths.files_dir / "refuse"
        path.touch() if is_refusing else path.unlink(missing_ok=True)

    @contextlib.contextmanager
    def models_gone(self) -> Iterator[None]:
        """The folder of models is not there, as when its disk is not mounted."""
        away = self.home.root / "models-away"
        self.home.paths.models_dir.rename(away)
        try:
            yield
        finally:
            away.rename(self.home.paths.models_dir)

    # How it ends

    async def settle(self) -> None:
        """The fault is over: everything goes on, every job ends, every call is answered."""
        self.shim.release()
        self.home.release()
        await self.keeper.recover()
        while self.calls or self.pending:
            waiting = self.calls or self.pending  # calls make jobs, whose ends are awaited then
            for outcome in await asyncio.gather(*waiting, return_exceptions=True):
                if isinstance(outcome, BaseException) and not isinstance(outcome, GaveUp):
                    self.journal.faults.append(Violation("caller", f"{type(outcome).__name__}: {outcome}"[:500]))
            waiting.clear()

    async def check_running(self) -> list[Violation]:
        """With nothing left to do."""
        try:
            return [*await checker.running(self.caller), *self._noted()]
        except GaveUp:
            return self._noted()

    async def check_stopped(self) -> list[Violation]:
        """After a clean end; then again after a start, which sweeps, tells everything once more, and draws."""
        found = await self._stop()
        found += checker.stopped(self.home.paths, self.journal)
        await self.keeper.start()
        await checker.told_again(self.caller)
        await self.ask()  # nothing is drawn before the sweep is over
        await self.settle()
        found += [*await self._stop(), *checker.stopped(self.home.paths, self.journal, is_swept=True), *self._noted()]
        return list(dict.fromkeys(found))

    async def _stop(self) -> list[Violation]:
        await self.caller.close()
        status = await self.keeper.end(signal.SIGTERM)
        return [] if status == 0 else [Violation("died by itself", f"SIGTERM ended it with exit status {status}")]

    def _noted(self) -> list[Violation]:
        noted, self.journal.faults = self.journal.faults, []
        new = [one for one in (*noted, *checker.deaths(self.keeper)) if one not in self._known]
        self._known.update(new)
        return new


@contextlib.asynccontextmanager
async def scene(seed: int, *, is_traced: bool = False, config: str = "", **settings: str) -> AsyncIterator[Scene]:
    """A craft whose daemon is ready; it ends with its folders, however the storm went.

    `is_traced`: what it does to its files is noted in `Scene.trace`.
    """
    home = Home(**(_SETTINGS | settings))
    home.paths.config_file.write_text(config)
    shim, journal = Shim(home.root), Journal()
    keeper = Keeper(home, shim.env | ({"SHIM_TRACE": str(home.root / _TRACE)} if is_traced else {}))
    caller = Caller(keeper, journal)
    shim.open()
    try:
        await keeper.start()
        made = Scene(home, keeper, shim, journal, caller, seed, random.Random(seed))
        yield made
        for task in (*made.pending, *made.calls):
            task.cancel()
    finally:
        shim.close()
        await caller.close()
        await keeper.close()
        home.remove()
