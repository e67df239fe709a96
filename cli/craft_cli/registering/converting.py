"""Files that a process which may do nothing else writes anew: pickled weights, and LoRAs in another form."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from craft_protos.reasons import REASONS, CraftError

from craft_cli.generate import writing

_CHUNK_BYTES = 1 << 20


def convert(path: Path, target: Path, *asked: str, force: bool) -> Path:
    """Write what the inspecting process makes of it. Raises OUTPUT_EXISTS, OUTPUT_*, and what is wrong with it."""
    writing.check(target)
    if not force and writing.is_taken(target):
        raise writing.exists(target)
    command = [sys.executable, "-P", "-m", "craftd.worker", "--inspect", *asked, str(path.absolute())]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        assert process.stdout is not None
        try:
            told = _verdict(path, process.stdout)
            writing.write_all(target, _bytes(path, process.stdout, int(told["size_bytes"])), force=force)
        finally:
            process.kill()
    return target


def _verdict(path: Path, stream: IO[bytes]) -> dict[str, Any]:
    """Raises what it says, and CORRUPT_FILE where it says nothing."""
    try:
        told: dict[str, Any] = json.loads(stream.readline())
    except ValueError:
        raise _ended(path) from None
    if told["reason"]:
        reason = told["reason"] if told["reason"] in REASONS else "CORRUPT_FILE"
        raise CraftError(reason, str(told["message"]), str(told["hint"]))
    return told


def _bytes(path: Path, stream: IO[bytes], size: int) -> Iterator[bytes]:
    left = size
    while left:
        part = stream.read(min(left, _CHUNK_BYTES))
        if not part:
            raise _ended(path)
        left -= len(part)
        yield part


def _ended(path: Path) -> CraftError:
    return CraftError("CORRUPT_FILE", f"{path}: reading it ended the process that did", "get a safetensors file")
