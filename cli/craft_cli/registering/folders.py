"""Another program's folder of models: shown, agreed to, and registered where it lies."""

from __future__ import annotations

import sys
from collections import Counter
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any

from craft_protos.reasons import CraftError

from craft_cli import confirming, errors, interrupts
from craft_cli.generate import output

if TYPE_CHECKING:
    from craft_protos import models_pb2

    from craft_cli.connection.session import Session
    from craft_cli.render.render import TransferProgress

_HEADERS = ["file", "what", "of", "name", "state"]


def run(session: Session, path: str, *, plan_only: bool, is_agreed: bool, as_json: bool, quiet: bool) -> None:
    """Raises what a registration failed with only where nothing else was registered."""
    planned = _asked(session, path, plan_only=True, quiet=quiet)
    if plan_only:
        _show(planned, as_json=as_json)
        return
    new = [entry for entry in planned if entry.state == "new"]
    if not new:
        _show(planned, as_json=as_json)
        errors.say("craft: nothing new in it")
        return
    if not is_agreed:
        _show(planned, as_json=False)
        confirming.confirm(f"register {_counted(new)}, where they lie?", "nothing was registered", "--yes")
    done = _asked(session, path, plan_only=False, quiet=quiet)
    _show(done, as_json=as_json)
    _sum_up(done)


def _asked(session: Session, path: str, *, plan_only: bool, quiet: bool) -> list[models_pb2.FolderEntry]:
    from craft_protos import models_pb2

    request = models_pb2.ImportFolderRequest(path=path, plan_only=plan_only)

    def work() -> list[models_pb2.FolderEntry]:
        found = []
        with _progress(quiet) as progress:
            for event in session.client.import_folder(request):
                if event.HasField("entry"):
                    found.append(event.entry)
                elif progress is not None:
                    progress.count(event.progress.doing, event.progress.bytes_done, event.progress.bytes_total)
        return found

    return interrupts.run(work, on_stop=session.abandon)


def _show(entries: list[models_pb2.FolderEntry], *, as_json: bool) -> None:
    if as_json:
        output.print_json([_shape(entry) for entry in entries])
        return
    rows = [[one.path, one.what or "unknown", _described(one), one.name, one.state] for one in entries]
    output.print_table(_HEADERS, rows)


def _described(entry: models_pb2.FolderEntry) -> str:
    return f"{entry.description}, with {', '.join(entry.uses)}" if entry.uses else entry.description


def _shape(entry: models_pb2.FolderEntry) -> dict[str, Any]:
    return {
        "path": entry.path,
        "what": entry.what or None,
        "description": entry.description,
        "name": entry.name or None,
        "state": entry.state,
        "uses": list(entry.uses),
    }


def _counted(entries: list[models_pb2.FolderEntry]) -> str:
    counts = Counter(entry.what for entry in entries)
    return ", ".join(f"{count} {what}{'s' if count > 1 else ''}" for what, count in counts.items())


def _sum_up(entries: list[models_pb2.FolderEntry]) -> None:
    """Raises what went wrong where nothing was added."""
    added = [entry for entry in entries if entry.state == "added"]
    failed = [entry for entry in entries if entry.state == "refused"]
    if failed and not added:
        raise CraftError("UNSUPPORTED_MODEL", f"{failed[0].path}: {failed[0].description}", "see the list above")
    errors.say(f"craft: registered {_counted(added)}" + (f"; {len(failed)} could not be" if failed else ""))


def _progress(quiet: bool) -> AbstractContextManager[TransferProgress | None]:
    if quiet or not errors.is_terminal(sys.stderr):
        return nullcontext()
    from craft_cli.render.render import TransferProgress

    return TransferProgress()
