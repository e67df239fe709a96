"""Keeps the Telegram bot's process running. Whatever becomes of it, the daemon goes on."""

from __future__ import annotations

import asyncio
import contextlib
import enum
import json
import logging
import os
import signal
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

_log = logging.getLogger("craft.bot")
_COMMAND = (sys.executable, "-m", "craftd.bot", "--supervised")
_LEAST_WAIT_S, _LONGEST_WAIT_S = 1.0, 300.0
_HEALTHY_S = 60.0  # a bot that ran so long is started again without much ado
_GRACE_S = 5.0
_LONGEST_LINE_BYTES = 64 << 10


class BotState(enum.StrEnum):
    STARTING = "STARTING"
    RUNNING = "RUNNING"
    TROUBLED = "TROUBLED"
    ENDED = "ENDED"


@dataclass(frozen=True)
class BotStatus:
    """What is known of the bot; its own figures are those of its last report."""

    state: BotState = BotState.STARTING
    pid: int = 0
    username: str = ""
    restarts: int = 0
    problem: str = ""
    updates: int = 0
    api_errors: int = 0
    waiting: int = 0


class BotProcess:
    """`on_username` hears the bot's name while it runs, and "" when it has ended."""

    def __init__(
        self,
        address: str,
        on_username: Callable[[str], None],
        *,
        is_enabled: bool,
        command: tuple[str, ...] = _COMMAND,
        environment: Mapping[str, str] | None = None,
        backoff_s: float = _LEAST_WAIT_S,
    ) -> None:
        self._on_username = on_username
        self._command = command
        # Of the daemon's own settings; it is this daemon's bot, whatever the daemon's own client would call.
        inherited = dict(os.environ if environment is None else environment)
        for name in ("CRAFT_API_KEY", "CRAFT_API_KEY_FILE", "CRAFT_CA"):
            inherited.pop(name, None)
        self._environment = {**inherited, "CRAFT_HOST": address}
        self._backoff_s = backoff_s
        self.status = BotStatus() if is_enabled else None

    async def run(self) -> None:
        """For ever, where it is enabled; cancelling it ends the process."""
        wait_s = self._backoff_s
        while self.status is not None:
            began = time.monotonic()
            try:
                why = await self._live()
            except Exception as exc:  # the bot is nobody's reason to stop drawing
                _log.exception("the bot could not be kept running")
                why = f"it could not be started: {type(exc).__name__}"
            if time.monotonic() - began >= _HEALTHY_S:
                wait_s = self._backoff_s
            self._show(replace(self.status, state=BotState.ENDED, pid=0, problem=why))
            _log.error("the bot ended", extra={"why": why, "again_in_s": wait_s})
            await asyncio.sleep(wait_s)
            wait_s = min(2 * wait_s, _LONGEST_WAIT_S)
            self._show(replace(self.status, restarts=self.status.restarts + 1))

    async def _live(self) -> str:
        """One process's life; how it ended."""
        assert self.status is not None
        process = await asyncio.create_subprocess_exec(
            *self._command,
            env=self._environment,
            process_group=0,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            limit=_LONGEST_LINE_BYTES,
        )
        said = asyncio.create_task(_log_lines(process), name="bot's stderr")
        try:
            self._show(BotStatus(BotState.STARTING, process.pid, restarts=self.status.restarts))
            await self._listen(process)
            code = await process.wait()
            last = await said
        finally:
            await _end(process)
            said.cancel()
        ended = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
        return f"{ended}: {last}" if last else ended

    async def _listen(self, process: asyncio.subprocess.Process) -> None:
        """Its reports, until it has ended."""
        assert process.stdout is not None
        async for line in process.stdout:
            with contextlib.suppress(ValueError, TypeError, KeyError, AttributeError):
                self._report(process.pid, json.loads(line))

    def _report(self, pid: int, told: dict[str, Any]) -> None:
        assert self.status is not None
        problem = str(told["problem"])
        state = BotState.RUNNING if told["is_polling"] else BotState.STARTING
        self._show(
            BotStatus(
                BotState.TROUBLED if problem else state,
                pid,
                str(told["username"]),
                self.status.restarts,
                problem,
                int(told["updates"]),
                int(told["api_errors"]),
                int(told["waiting"]),
            )
        )

    def _show(self, status: BotStatus) -> None:
        self.status = status
        is_there = status.state in (BotState.RUNNING, BotState.TROUBLED)
        self._on_username(status.username if is_there else "")


async def _log_lines(process: asyncio.subprocess.Process) -> str:
    """What the process writes to stderr goes to the log; its last line but a hint."""
    assert process.stderr is not None
    last = ""
    while True:
        try:
            line = await process.stderr.readuntil(b"\n")
        except asyncio.LimitOverrunError as exc:
            line = await process.stderr.readexactly(exc.consumed)
        except asyncio.IncompleteReadError as exc:
            line = exc.partial
            if not line:
                return last
        text = line.decode("utf-8", "replace").rstrip()
        if text:
            last = last if text.startswith(" ") else text
            _log.info("the bot says", extra={"pid": process.pid, "line": text})


async def _end(process: asyncio.subprocess.Process) -> None:
    """It ends with its stdin; one that does not is killed."""
    if process.returncode is not None:
        return
    assert process.stdin is not None
    process.stdin.close()
    try:
        async with asyncio.timeout(_GRACE_S):
            await process.wait()
    except TimeoutError:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        await process.wait()
