"""Has a stranger's model or LoRA checked, in a process that is ended however it behaves."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from craft_protos.reasons import REASONS, CraftError

from craftd.supervisor.findings import LoraFindings

LIMIT_S = 60.0  # of wall-clock time: a disk may be slow
_LORA_LIMIT_S = 300.0  # every byte of it is read
_LONGEST_ANSWER_BYTES = 64 << 10


@dataclass(frozen=True)
class Verdict:
    """What was found: a reason, empty where nothing is wrong."""

    reason: str = ""
    message: str = ""
    hint: str = ""


Inspect = Callable[[Path], Awaitable[Verdict]]
InspectLora = Callable[[Path], Awaitable[LoraFindings]]


async def inspect(path: Path, limit_s: float = LIMIT_S) -> Verdict:
    """A model. Raises CORRUPT_FILE where no verdict was reached: worth another try, so not to be remembered."""
    return _verdict(path, await _answer(path, [str(path)], limit_s))


async def inspect_lora(path: Path, limit_s: float = _LORA_LIMIT_S) -> LoraFindings:
    """Raises what is wrong with it: UNSAFE_PATH, UNSAFE_FORMAT, CORRUPT_FILE, UNSUPPORTED_LORA, NOT_FINITE."""
    answer = await _answer(path, ["--lora", str(path)], limit_s)
    verdict = _verdict(path, answer)
    if verdict.reason:
        raise CraftError(verdict.reason, verdict.message, verdict.hint)
    try:
        return LoraFindings.of(answer["lora"])
    except (KeyError, TypeError, ValueError, AttributeError) as exc:
        raise _no_verdict(path, "gave an answer that cannot be read") from exc


async def _answer(path: Path, arguments: list[str], limit_s: float) -> dict[str, Any]:
    process = await spawn(arguments)
    assert process.stdout is not None
    try:
        async with asyncio.timeout(limit_s):
            line = await process.stdout.readline()
            code = await process.wait()
    except TimeoutError as exc:
        raise _no_verdict(path, f"took longer than {limit_s:g} s") from exc
    except ValueError as exc:  # a line over the limit
        raise _no_verdict(path, "had no end") from exc
    finally:
        await end(process)
    if code != 0 or not line:
        raise _no_verdict(path, f"ended with {_ending(code)}")
    return _parsed(path, line)


async def spawn(arguments: Sequence[str]) -> asyncio.subprocess.Process:
    """An inspecting process; `end` it, however it behaves."""
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "craftd.worker", "--inspect", *arguments),
        process_group=0,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
        limit=_LONGEST_ANSWER_BYTES,
    )


async def end(process: asyncio.subprocess.Process) -> None:
    if process.returncode is None:
        with contextlib.suppress(ProcessLookupError):  # it has just ended by itself
            os.killpg(process.pid, signal.SIGKILL)
        await process.wait()


def _parsed(path: Path, line: bytes) -> dict[str, Any]:
    try:
        answer = json.loads(line)
    except ValueError as exc:
        raise _no_verdict(path, "gave an answer that cannot be read") from exc
    if not isinstance(answer, dict):
        raise _no_verdict(path, "gave an answer that cannot be read")
    return answer


def _verdict(path: Path, answer: dict[str, Any]) -> Verdict:
    found = Verdict(*(str(answer.get(key, "")) for key in ("reason", "message", "hint")))
    if found.reason and found.reason not in REASONS:
        raise _no_verdict(path, "gave a reason that is not known")
    return found


def _ending(code: int) -> str:
    return signal.Signals(-code).name if code < 0 else f"exit code {code}"


def _no_verdict(path: Path, why: str) -> CraftError:
    return CraftError("CORRUPT_FILE", f"{path}: checking what is in it {why}", "try again, or use another one")
