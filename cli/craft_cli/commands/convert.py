"""craft convert: pickled weights as safetensors files."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import typer
from craft_protos import files
from craft_protos.reasons import REASONS, CraftError

from craft_cli import errors
from craft_cli.generate import output, writing
from craft_cli.parsing import CONTEXT, QuickCommand

_EXAMPLES = """\b
Examples:
  craft convert 4x-UltraSharp.pth
  craft convert old.ckpt -o new.safetensors
  craft convert *.pt

The file is read by a process that may do nothing else: what asks for more than tensors is refused.
"""
_CHUNK_BYTES = 1 << 20
_PATHS = typer.Argument(..., metavar="PATH...", help="Pickled files: .pth, .pt, .ckpt, .bin.")

app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)


@app.command(cls=QuickCommand, epilog=_EXAMPLES, context_settings=CONTEXT)
def convert(
    paths: list[str] = _PATHS,
    *,
    out: str = typer.Option(
        None, "-o", "--output", metavar="PATH|DIR/", help="The new file, or its folder; else beside the old one."
    ),
    force: bool = typer.Option(False, "-f", "--force", help="Overwrite what exists."),
) -> None:
    """Write pickled files' tensors into safetensors files, which can hold no code."""
    from craft_cli.connection.autostart import require_daemon_package

    require_daemon_package()
    if out is not None:
        output.require_name(out, "-o")
    if out == output.STDOUT:
        raise CraftError("USAGE", "-o -: weights are written to a file", "name it, or a folder: -o DIR/")
    is_folder = out is not None and (out.endswith("/") or files.is_folder(out))
    if out is not None and len(paths) > 1 and not is_folder:
        raise CraftError("USAGE", f"-o {out} takes one file, not several", "give a folder: -o DIR/, or leave -o out")

    def write(path: Path) -> None:
        beside = _target(path)
        target = beside if out is None else Path(out) / beside.name if is_folder else Path(out)
        output.line(_convert(path, target, force=force))

    if code := errors.of_each([Path(path) for path in paths], write):
        raise typer.Exit(code)


def _target(path: Path) -> Path:
    """Beside it; a pickle may be called .safetensors itself."""
    is_taken = path.suffix == ".safetensors"
    return path.with_name(f"{path.stem}{'-converted' if is_taken else ''}.safetensors")


def _convert(path: Path, target: Path, *, force: bool) -> Path:
    """Raises NO_INPUT, OUTPUT_EXISTS, OUTPUT_*, and what is wrong with the file."""
    if missing := files.why_not(str(path)):
        raise CraftError(missing.reason, missing.message, "give a pickled file")
    if _is_safetensors(path):
        raise CraftError("BAD_DATA", f"{path} is a safetensors file already", "use it as it is: craft models add")
    writing.check(target)
    if not force and writing.is_taken(target):
        raise writing.exists(target)
    command = [sys.executable, "-P", "-m", "craftd.worker", "--inspect", "--convert", str(path.absolute())]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        assert process.stdout is not None
        try:
            told = _verdict(path, process.stdout)
            writing.write_all(target, _bytes(path, process.stdout, int(told["size_bytes"])), force=force)
        finally:
            process.kill()
    return target


def _is_safetensors(path: Path) -> bool:
    """Says whether it begins as one: a length of eight bytes, and JSON."""
    try:
        with path.open("rb") as file:
            return file.read(9)[5:] == b"\0\0\0{"
    except OSError:
        return False  # which the process that reads it tells


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
