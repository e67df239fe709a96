"""A file of settings in the user's own editor, checked when that has ended."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

from craft_protos import config
from craft_protos.reasons import CraftError

from craft_cli import errors
from craft_cli.generate import writing
from craft_cli.render import knobs

_USUAL = ("editor", "vi", "nano")
_NOT_FOUND = (126, 127)  # as a shell ends


def edit(path: Path) -> None:
    """Raises CONFIG_INVALID for what is wrong afterwards, once nobody at a terminal wants to go on with it."""
    command = _editor()
    _require(path)
    while True:
        _open(command, path)
        faults = config.faults(path)
        if not faults:
            break
        for fault in faults[:-1] if not _is_anyone_here() else faults:
            errors.report(fault)
        if not _wants_again():
            raise faults[-1] if not _is_anyone_here() else _left(path)
    if path.read_text(encoding="utf-8-sig") == knobs.template():
        path.unlink()  # nothing was written into it


def _editor() -> str:
    """Raises USAGE where there is none to be found."""
    named = config.editor()
    usual = next((name for name in _USUAL if shutil.which(name)), "") if _is_anyone_here() else ""
    if not (named or usual):
        where = config.find_paths().config_file
        raise CraftError("USAGE", "no editor: VISUAL and EDITOR are not set", f"set EDITOR, or write {where} yourself")
    return named or usual


def _require(path: Path) -> None:
    """A file that is not there yet begins as a list of what it may say."""
    if path.exists():
        return
    writing.write(path, knobs.template().encode(), force=False)


def _open(command: str, path: Path) -> None:
    """By a shell, as git does it: the command may have arguments of its own. Raises USAGE."""
    done = subprocess.run(["sh", "-c", f'{command} "$@"', command, str(path)], check=False)
    if done.returncode in _NOT_FOUND:
        raise CraftError(
            "USAGE", f"the editor {command!r} cannot be run", "set VISUAL or EDITOR to one that is installed"
        )
    if done.returncode != 0:
        hint = f"what it saved is in {path}; craft config list tells whether that is right"
        raise CraftError("USAGE", f"the editor {command!r} ended with {done.returncode}", hint)


def _is_anyone_here() -> bool:
    return errors.is_terminal(sys.stdin)


def _wants_again() -> bool:
    if not _is_anyone_here():
        return False
    print("edit it again? [Y/n] ", end="", file=sys.stderr, flush=True)
    answer = sys.stdin.readline()
    return bool(answer) and answer.strip().lower() not in ("n", "no")


def _left(path: Path) -> CraftError:
    return CraftError(
        "CONFIG_INVALID", f"{path} is left as it is", "craft does nothing with it until it is right: craft config edit"
    )
