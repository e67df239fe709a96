"""craft purge: all that craft keeps on this machine, gone."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import typer
from craft_protos import files
from craft_protos.paths import Paths
from craft_protos.reasons import CraftError

from craft_cli import errors
from craft_cli.confirming import FORCE, confirm
from craft_cli.connection import autostart, ending, services
from craft_cli.connection.session import Session
from craft_cli.generate import output
from craft_cli.parsing import leaf
from craft_cli.render import units

app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)


@app.command("purge", **leaf("craft purge --dry-run", "craft purge --force"))
def purge(
    force: bool = FORCE,
    dry_run: bool = typer.Option(False, "--dry-run", help="Only say what would be removed."),
) -> None:
    """Remove all that craft keeps: pictures, jobs, LoRAs that were trained or sent, keys, settings, logs, the service.

    What it does not own stays: files that were linked, and the hub's downloads, which other programs share.
    """
    session = Session(autostart=False)
    if session.target.host:
        raise CraftError("USAGE", "purge is for this machine, not for CRAFT_HOST's", "unset CRAFT_HOST")
    found = list(_kept(session.paths))
    if not found:
        errors.say("craft: nothing is kept here")
        return
    size = units.size(sum(map(_size, found)))
    if not (dry_run or force):
        confirm(f"remove all of craft's {len(found)} files and folders, {size}?", "nothing was removed")
    if not dry_run:
        _end(session)
        found = list(_kept(session.paths))  # the daemon wrote its last
        _remove(found)
        _tell_rest(session.paths)
    for path in found:
        output.line(path)
    if dry_run:
        errors.say(f"craft: {size} in all; nothing was removed")


def _kept(paths: Paths) -> Iterator[Path]:
    """Yields the files and folders that craft has made; a folder that others may use, too, is not among them."""
    service = services.installed(paths)
    yield from (one for one in ([service.file] if service else []))
    yield from (one for one in paths.owned if one.exists() or one.is_symlink())


def _size(path: Path) -> int:
    inside = path.rglob("*") if path.is_dir() and not path.is_symlink() else [path]
    return sum(one.lstat().st_size for one in inside if one.is_file() or one.is_symlink())


def _end(session: Session) -> None:
    """The daemon and its service first: neither may write again what is removed."""
    if service := services.installed(session.paths):
        output.line(service.file)
        service.uninstall()
    if autostart.is_held(session.paths):
        ending.end(session, now=True)


def _remove(found: list[Path]) -> None:
    for path in found:
        try:
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)
        except OSError as error:
            raise files.unwritable(path, error, "see that it is yours, and purge again") from error


def _tell_rest(paths: Paths) -> None:
    """The folders go where nothing else lies in them; else what is left there is said."""
    for folder in dict.fromkeys((paths.data_dir, paths.state_dir, paths.config_file.parent)):
        try:
            folder.rmdir()
        except FileNotFoundError:
            continue
        except OSError:
            if folder != paths.config_file.parent:  # which is anybody's where CRAFT_CONFIG names a file
                errors.say(f"craft: {folder} stays: it holds what is not craft's")
    errors.remark("craft: the program itself: uv tool uninstall craftengine, or as it was installed")
