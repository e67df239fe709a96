"""Models from elsewhere: what a user wrote -> ImportModel's request, and its progress."""

from __future__ import annotations

import re
import sys
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote

from craft_protos import files
from craft_protos.reasons import CraftError

from craft_cli import errors, interrupts
from craft_cli.generate import output
from craft_cli.registering import civitai

if TYPE_CHECKING:
    from craft_protos import models_pb2

    from craft_cli.connection.session import Session
    from craft_cli.render.render import TransferProgress

# A page of the hub, or of one file there: its address says all that a pull needs.
_LINK = re.compile(r"(?:https?://)?(?:www\.)?(?:huggingface\.co|hf\.co)/(?P<rest>[^?#\s]+)(?:[?#]\S*)?", re.IGNORECASE)
_IN_LINK = re.compile(
    r"(?P<repository>[^@:/\s]+(?:/[^@:/\s]+)?)"
    r"(?:/(?:resolve|blob|tree|raw)/(?P<revision>(?:refs/(?:pr|heads)/)?[^/\s]+)(?:/(?P<file>.+))?)?/?"
)
_SOURCE = re.compile(r"(?P<repository>[^@:/\s]+(?:/[^@:/\s]+)?)(?:@(?P<revision>[^:\s]+))?(?::(?P<file>.+))?")
_OTHER_PAGES = ("datasets", "spaces", "docs", "collections", "papers")


def is_link(source: str) -> bool:
    """Whether it is written as a page's address is, or as Civitai names things."""
    return "://" in source or _LINK.fullmatch(source) is not None or civitai.is_named(source)


def remote(source: str, session: Session) -> models_pb2.HubSource:
    """A short name, ORG/NAME[@revision][:file], a page of the hub, or what Civitai has. Raises USAGE."""
    from craft_protos import models_pb2

    if civitai.is_named(source):
        found_there = civitai.source(source)
        found_there.token = civitai.token(session)
        return found_there
    link = _LINK.fullmatch(source)
    found = _SOURCE.fullmatch(source) if link is None else _IN_LINK.fullmatch(unquote(link["rest"]))
    is_other = found is None or found["repository"].partition("/")[0].lower() in _OTHER_PAGES
    if (link is not None and is_other) or (link is None and "://" in source):
        raise CraftError("USAGE", f"{source!r} is no model's page", "give the page of a model, or of one of its files")
    if found is None or files.is_folder(source):
        hint = "write it as ORG/NAME; what is on this disk: craft models add PATH"
        raise CraftError("USAGE", f"{source!r} is no repository", hint)
    is_folder = link is not None and "/tree/" in source
    return models_pb2.HubSource(
        repository=found["repository"],
        revision=unquote(found["revision"] or ""),
        file="" if is_folder else found["file"] or "",
    )


def local(path: str, session: Session) -> str:
    """As the daemon on this machine sees it. Raises NO_INPUT, USAGE, BAD_DATA."""
    output.require_name(path, "PATH")
    if missing := files.why_not(path):
        raise CraftError(missing.reason, missing.message, "give a folder or a .safetensors file")
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


def part(text: str, session: Session) -> str:
    """A registered part's name, or a path as the daemon on this machine sees it. Raises as `local`."""
    is_named = text.startswith((".", "~")) or text.endswith((".safetensors", ".gguf"))
    is_path = "/" in text or is_named or Path(text).exists()
    return local(text, session) if is_path else text


def run(session: Session, request: models_pb2.ImportModelRequest, *, quiet: bool) -> models_pb2.ImportModelEvent:
    """The last event: the model, or what was planned. Ctrl-C ends it; asked for again, it goes on."""
    client = session.client

    def work() -> models_pb2.ImportModelEvent:
        last = None
        with _progress(quiet or request.plan_only) as progress:
            for event in client.import_model(request):
                last = event
                if progress is not None and event.HasField("progress"):
                    progress.see(event.progress.doing, event.progress.bytes_done, event.progress.bytes_total)
        if last is None or last.WhichOneof("event") is None:
            raise CraftError("INTERNAL", "the daemon ended without an answer", "see `craft daemon logs`")
        return last

    return interrupts.run(work, on_stop=session.abandon)


def _progress(quiet: bool) -> AbstractContextManager[TransferProgress | None]:
    if quiet or not errors.is_terminal(sys.stderr):
        return nullcontext()
    from craft_cli.render.render import TransferProgress

    return TransferProgress()
