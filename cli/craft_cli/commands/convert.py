"""craft convert: pickled weights as safetensors files."""

from __future__ import annotations

from pathlib import Path

import typer
from craft_protos import files
from craft_protos.reasons import CraftError

from craft_cli import errors
from craft_cli.generate import output
from craft_cli.parsing import CONTEXT, QuickCommand
from craft_cli.registering import converting

_EXAMPLES = """\b
Examples:
  craft convert 4x-UltraSharp.pth
  craft convert old.ckpt -o new.safetensors
  craft convert *.pt

The file is read by a process that may do nothing else: what asks for more than tensors is refused.
"""
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
    return converting.convert(path, target, "--convert", force=force)


def _is_safetensors(path: Path) -> bool:
    """Says whether it begins as one: a length of eight bytes, and JSON."""
    try:
        with path.open("rb") as file:
            return file.read(9)[5:] == b"\0\0\0{"
    except OSError:
        return False  # which the process that reads it tells
