"""Models from elsewhere: what a user wrote -> ImportModel's request, and its progress."""

from __future__ import annotations

import re
import sys
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

from craft_protos.reasons import CraftError

from craft_cli import errors, interrupts

if TYPE_CHECKING:
    from craft_protos import models_pb2

    from craft_cli.render import TransferProgress
    from craft_cli.session import Session

_SOURCE = re.compile(
    r"(?:https://huggingface\.co/)?(?P<repository>[^@:/\s]+(?:/[^@:/\s]+)?)(?:@(?P<revision>[^:\s]+))?(?::(?P<file>.+))?"
)


def remote(source: str) -> models_pb2.HubSource:
    """ORG/NAME[@revision][:file]. Raises USAGE."""
    from craft_protos import models_pb2

    found = _SOURCE.fullmatch(source)
    if found is None or Path(source).is_dir():
        raise CraftError(
            "USAGE", f"{source!r} is no repository", "write it as ORG/NAME; what is on this disk: craft models add PATH"
        )
    return models_pb2.HubSource(
        repository=found["repository"], revision=found["revision"] or "", file=found["file"] or ""
    )


def local(path: str, session: Session) -> str:
    """As the daemon on this machine sees it. Raises NO_INPUT, USAGE, BAD_DATA."""
    if not Path(path).exists():
        raise CraftError("NO_INPUT", f"{path} is not there", "give a folder or a .safetensors file")
    if session.target.host and not session.target.host.startswith("unix:"):
        raise CraftError(
            "USAGE",
            f"{path} is on this machine, the daemon at {session.target.host} is not",
            "add it there, or pull it",
        )
    whole = str(Path(path).absolute())
    try:
        whole.encode()
    except UnicodeEncodeError as error:
        raise CraftError("BAD_DATA", f"{path!r}: the name is not UTF-8", "rename it") from error
    return whole


def run(session: Session, request: models_pb2.ImportModelRequest, *, quiet: bool) -> models_pb2.ImportModelEvent:
    """The last event: the model, or what was planned. Ctrl-C ends it; asked for again, it goes on."""
    from craft_protos import models_pb2

    last = models_pb2.ImportModelEvent()
    with interrupts.raising(), _progress(quiet or request.plan_only) as progress:
        for event in session.client.import_model(request):
            last = event
            if progress is not None and event.HasField("progress"):
                progress.see(event.progress.doing, event.progress.bytes_done, event.progress.bytes_total)
    if last.WhichOneof("event") is None:
        raise CraftError("INTERNAL", "the daemon ended without an answer", "see `craft daemon logs`")
    return last


def _progress(quiet: bool) -> AbstractContextManager[TransferProgress | None]:
    if quiet or not errors.is_terminal(sys.stderr):
        return nullcontext()
    from craft_cli.render import TransferProgress

    return TransferProgress()
