"""Has a stranger's model or LoRA checked, in a process that is ended however it behaves."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from craft_protos.reasons import REASONS, CraftError

LIMIT_S = 60.0  # of wall-clock time: a disk may be slow
_LORA_LIMIT_S = 300.0  # every byte of it is read
_LONGEST_ANSWER_BYTES = 64 << 10
_LONGEST_LAYOUT_BYTES = 4 << 20  # of the largest models some 70 KB
_MOST_DEATHS = 10  # of processes that identify files, before the rest is left alone
MODULE = "craftd.worker"
_SAFETENSORS, _UNSUPPORTED = ".safetensors", "UNSUPPORTED_MODEL"


@dataclass(frozen=True)
class Verdict:
    """What was found: a reason, empty where nothing is wrong."""

    reason: str = ""
    message: str = ""
    hint: str = ""


@dataclass(frozen=True)
class LoraFindings:
    """A LoRA that nothing is wrong with."""

    sha256: str
    ss_hash: str
    size_bytes: int
    format: str
    base: str  # architecture, "" where unknown
    rank: int
    layers: int
    adapts_text_encoder: bool
    has_conv: bool
    is_dora: bool
    trigger: str
    metadata: dict[str, str]
    notes: list[str] = field(default_factory=list)  # what whoever uses it should know, in sentences

    @classmethod
    def of(cls, answer: dict[str, Any]) -> LoraFindings:
        """From an inspecting process's answer. Raises KeyError, TypeError for what is none."""
        found = answer["adapter"]
        return cls(
            sha256=str(answer["sha256"]),
            ss_hash=str(answer["ss_hash"]),
            size_bytes=int(answer["size_bytes"]),
            format=str(found["format"]),
            base=str(found["base"]),
            rank=int(found["rank"]),
            layers=int(found["layers"]),
            adapts_text_encoder=bool(found["adapts_text_encoder"]),
            has_conv=bool(found["has_conv"]),
            is_dora=bool(found["is_dora"]),
            trigger=str(answer["trigger"]),
            metadata={str(key): str(value) for key, value in answer["metadata"].items()},
            notes=[str(note) for note in found["notes"]],
        )


@dataclass(frozen=True)
class Identity:
    """What a file is. `what`: "checkpoint", "network" (alone), "part", "lora"; "" with why it is none of these.

    `of`: the name of its architecture, or of the part. `kind`: of a part, an id of craftd.architectures.parts.
    """

    path: Path
    what: str = ""
    of: str = ""
    kind: str = ""
    missing: tuple[str, ...] = ()  # of a checkpoint or a network: components that must come from elsewhere
    precision: str = ""
    lacks: str = ""  # the same in a sentence
    why: Verdict = field(default_factory=Verdict)

    @classmethod
    def answered(cls, path: Path, answer: dict[str, Any]) -> Identity:
        """From an inspecting process's answer. Raises CORRUPT_FILE for what is none."""
        verdict = verdict_of(str(path), answer)
        if verdict.reason:
            return cls(path, why=verdict)
        try:
            found = answer["identity"]
            what, of, kind, precision, lacks = (str(found[key]) for key in ("what", "of", "kind", "precision", "lacks"))
            return cls(path, what, of, kind, tuple(str(one) for one in found["missing"]), precision, lacks)
        except (KeyError, TypeError) as exc:
            raise _no_verdict(str(path), "gave an answer that cannot be read") from exc


Inspect = Callable[[Path], Awaitable[Verdict]]
Identify = Callable[[Sequence[Path]], Awaitable[list[Identity]]]
InspectLora = Callable[[Path], Awaitable[LoraFindings]]


async def inspect(path: Path, limit_s: float = LIMIT_S) -> Verdict:
    """A model. Raises CORRUPT_FILE where no verdict was reached: worth another try, so not to be remembered."""
    return verdict_of(str(path), await _answer(path, [str(path)], limit_s))


async def inspect_lora(path: Path, limit_s: float = _LORA_LIMIT_S) -> LoraFindings:
    """Raises what is wrong with it: UNSAFE_PATH, UNSAFE_FORMAT, CORRUPT_FILE, UNSUPPORTED_LORA, NOT_FINITE."""
    answer = await _answer(path, ["--lora", str(path)], limit_s)
    verdict = verdict_of(str(path), answer)
    if verdict.reason:
        raise CraftError(verdict.reason, verdict.message, verdict.hint)
    try:
        return LoraFindings.of(answer["lora"])
    except (KeyError, TypeError, ValueError, AttributeError) as exc:
        raise _no_verdict(str(path), "gave an answer that cannot be read") from exc


async def identify(paths: Sequence[Path], limit_s: float = LIMIT_S) -> list[Identity]:
    """What each of the files is, in their order. One that ends the process is said to, and the rest get another."""
    return await _identified(paths, limit_s, "--identify")


async def _identified(paths: Sequence[Path], limit_s: float, option: str) -> list[Identity]:
    found: list[Identity] = []
    deaths = 0
    while len(found) < len(paths):
        waiting = paths[len(found) :]
        if deaths > _MOST_DEATHS:
            return found + [Identity(path, why=_unchecked(f"{deaths} others ended the check")) for path in waiting]
        answers = await _partial(waiting, limit_s, option)
        found += [Identity.answered(path, answer) for path, answer in zip(waiting, answers, strict=False)]
        if len(answers) < len(waiting):
            deaths += 1
            found.append(Identity(waiting[len(answers)], why=_unchecked("reading what is in it ended the check")))
    return found


async def identify_all(paths: Sequence[Path], limit_s: float = LIMIT_S) -> list[Identity]:
    """As `identify`; of those that no architecture is known of, whether they are upscalers, which takes longer."""
    found = await identify(paths, limit_s)
    unknown = [one.path for one in found if one.why.reason == _UNSUPPORTED and one.path.suffix == _SAFETENSORS]
    upscalers = {one.path: one for one in await _upscalers(unknown, limit_s)} if unknown else {}
    better = {path: one for path, one in upscalers.items() if one.why.reason != _UNSUPPORTED}
    return [better.get(one.path, one) for one in found]


async def _upscalers(paths: Sequence[Path], limit_s: float) -> list[Identity]:
    return await _identified(paths, limit_s, "--upscalers")


def _unchecked(why: str) -> Verdict:
    return Verdict("CORRUPT_FILE", f"not checked: {why}", "try it alone: craft models add FILE")


async def _partial(paths: Sequence[Path], limit_s: float, option: str) -> list[dict[str, Any]]:
    """The answers of one process about as many of the files as it lives for."""
    given = json.dumps({"paths": [str(path) for path in paths]}).encode()
    process = await spawn([option], is_given=True)
    assert process.stdout is not None
    giving, answers = asyncio.ensure_future(_give(process, given)), list[dict[str, Any]]()
    try:
        async with asyncio.timeout(limit_s + len(paths)):
            async for line in process.stdout:
                answers.append(_parsed(str(paths[0].parent), line))
    except TimeoutError:
        pass  # what was answered so far counts; the next file is the one that took too long
    finally:
        giving.cancel()
        await end(process)
    return answers[: len(paths)]


async def _answer(path: Path, arguments: list[str], limit_s: float) -> dict[str, Any]:
    return (await asked(str(path), arguments, limit_s))[0]


async def asked(
    what: str, arguments: Sequence[str], limit_s: float, given: bytes = b"", module: str = MODULE
) -> list[dict[str, Any]]:
    """An inspecting process's answers about `what`, a line each, to what it is given. Raises CORRUPT_FILE."""
    process = await spawn(arguments, is_given=bool(given), module=module)
    assert process.stdout is not None
    giving = asyncio.ensure_future(_give(process, given))
    try:
        async with asyncio.timeout(limit_s):
            lines = [line async for line in process.stdout]
            await giving
            code = await process.wait()
    except TimeoutError as exc:
        raise _no_verdict(what, f"took longer than {limit_s:g} s") from exc
    except ValueError as exc:  # a line over the limit
        raise _no_verdict(what, "had no end") from exc
    finally:
        giving.cancel()
        await end(process)
    if code != 0 or not lines:
        raise _no_verdict(what, f"ended with {_ending(code)}")
    return [_parsed(what, line) for line in lines]


async def _give(process: asyncio.subprocess.Process, given: bytes) -> None:
    if process.stdin is None:
        return
    with contextlib.suppress(ConnectionError):  # whoever ends early says why by its code
        process.stdin.write(given)
        await process.stdin.drain()
    process.stdin.close()


async def spawn(
    arguments: Sequence[str], *, is_given: bool = False, module: str = MODULE
) -> asyncio.subprocess.Process:
    """An inspecting process; `end` it, however it behaves."""
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", module, "--inspect", *arguments),
        process_group=0,
        stdin=asyncio.subprocess.PIPE if is_given else asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
        limit=_LONGEST_LAYOUT_BYTES if is_given else _LONGEST_ANSWER_BYTES,
    )


async def end(process: asyncio.subprocess.Process) -> None:
    if process.returncode is None:
        with contextlib.suppress(ProcessLookupError):  # it has just ended by itself
            os.killpg(process.pid, signal.SIGKILL)
        await process.wait()


def _parsed(what: str, line: bytes) -> dict[str, Any]:
    try:
        answer = json.loads(line)
    except ValueError as exc:
        raise _no_verdict(what, "gave an answer that cannot be read") from exc
    if not isinstance(answer, dict):
        raise _no_verdict(what, "gave an answer that cannot be read")
    return answer


def verdict_of(what: str, answer: dict[str, Any]) -> Verdict:
    found = Verdict(*(str(answer.get(key, "")) for key in ("reason", "message", "hint")))
    if found.reason and found.reason not in REASONS:
        raise _no_verdict(what, "gave a reason that is not known")
    return found


def _ending(code: int) -> str:
    return signal.Signals(-code).name if code < 0 else f"exit code {code}"


def _no_verdict(what: str, why: str) -> CraftError:
    return CraftError("CORRUPT_FILE", f"{what}: checking what is in it {why}", "try again, or use another one")
