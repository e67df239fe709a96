"""Adding a LoRA: as a path where the daemon sees it, as its bytes where it doesn't, or from the hub."""

from __future__ import annotations

import os
import re
import sys
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from craft_protos import files
from craft_protos.reasons import CraftError

from craft_cli import errors, interrupts
from craft_cli.generate import output
from craft_cli.registering import civitai, pulling

if TYPE_CHECKING:
    from craft_protos import loras_pb2

    from craft_cli.connection.session import Session
    from craft_cli.render.render import TransferProgress

_LONG_S = 5.0
_LONG = "craft: the LoRA is being fetched, checked, and tried on the models that are here"
_CHUNK_BYTES = 1 << 20
_LARGEST_CONFIG_BYTES = 1 << 20
_HUB = re.compile(r"(?P<repository>[\w.-]+/[\w.-]+)(@(?P<revision>[^:@]+))?(:(?P<file>.+))?")
_FILES = (".safetensors", ".bin", ".ckpt", ".pt", ".pth")


def header(
    source: str, session: Session, *, name: str, weight: float | None, trigger: str
) -> loras_pb2.ImportLoraRequest.Header:
    """What is said first. Raises NO_INPUT, USAGE."""
    from craft_protos import loras_pb2

    made = loras_pb2.ImportLoraRequest.Header(name=name, weight=weight, trigger=trigger)
    output.require_name(source, "PATH")
    hub = _HUB.fullmatch(source)
    if pulling.is_link(source):
        civitai.require_lora(source)
        made.hub.CopyFrom(pulling.remote(source, session))
    elif os.path.lexists(source) or source.startswith(("/", ".", "~")) or hub is None or _is_file(hub):
        _put_file(made, Path(source), session)
    else:
        made.hub.repository = hub["repository"]
        made.hub.revision, made.hub.file = hub["revision"] or "", hub["file"] or ""
    return made


def add(session: Session, source: str, first: loras_pb2.ImportLoraRequest.Header, *, quiet: bool) -> loras_pb2.Lora:
    """Until it is registered."""
    client = session.client

    def work() -> loras_pb2.Lora:
        with _progress(quiet) as progress, _patience(is_said=progress is None and not quiet):
            for event in client.import_lora(_parts(source, first)):
                if event.HasField("lora"):
                    return event.lora
                if progress is not None:
                    progress.see(event.progress.doing, event.progress.bytes_done, event.progress.bytes_total)
        raise CraftError("INTERNAL", "the daemon ended without an answer", "see `craft daemon logs`")

    return interrupts.run(work, on_stop=session.abandon)


def _is_file(hub: re.Match[str]) -> bool:
    """folder/it.safetensors rather than ORG/NAME."""
    return hub["file"] is None and hub["repository"].lower().endswith(_FILES)


def _put_file(made: loras_pb2.ImportLoraRequest.Header, path: Path, session: Session) -> None:
    if missing := files.why_not(path):
        raise CraftError(missing.reason, missing.message, "give a file's path, or ORG/NAME of the model hub")
    host = session.target.host
    try:
        if not host or host.startswith("unix:"):
            made.path = str(path.absolute())
            return
        if not path.is_file():
            raise CraftError("USAGE", f"{path} is not a file", "a daemon elsewhere is sent one file")
        made.upload.file_name, made.upload.size_bytes = path.name, path.stat().st_size
        made.adapter_config = _config_beside(path)
    except UnicodeEncodeError as error:
        raise CraftError("BAD_DATA", f"{str(path)!r}: the file's name is not UTF-8", "rename it") from error


def _config_beside(path: Path) -> bytes:
    """peft says there how strong the adapter is that it saves."""
    config = path.with_name("adapter_config.json")
    if path.name != "adapter_model.safetensors" or not config.is_file():
        return b""
    if config.stat().st_size > _LARGEST_CONFIG_BYTES:
        raise CraftError("BAD_DATA", f"{config} is larger than any configuration", "save the adapter again")
    try:
        return config.read_bytes()
    except OSError as error:
        raise CraftError(
            "NO_INPUT", f"{config} cannot be read: {error.strerror}", "see that you may read it"
        ) from error


def _parts(source: str, first: loras_pb2.ImportLoraRequest.Header) -> Iterator[loras_pb2.ImportLoraRequest]:
    from craft_protos import loras_pb2

    yield loras_pb2.ImportLoraRequest(header=first)
    if first.HasField("upload"):
        with _opened(source) as file:
            while chunk := file.read(_CHUNK_BYTES):
                yield loras_pb2.ImportLoraRequest(chunk=chunk)


def _opened(source: str) -> BinaryIO:
    try:
        return Path(source).open("rb")
    except OSError as error:
        raise files.unreadable(source, error) from error


@contextmanager
def _patience(*, is_said: bool) -> Iterator[None]:
    """Without a terminal one line says why it takes long: once, and only where it does."""
    timer = threading.Timer(_LONG_S, errors.say, [_LONG])
    timer.daemon = True
    if is_said:
        timer.start()
    try:
        yield
    finally:
        timer.cancel()


def _progress(quiet: bool) -> AbstractContextManager[TransferProgress | None]:
    if quiet or not errors.is_terminal(sys.stderr):
        return nullcontext()
    from craft_cli.render.render import TransferProgress

    return TransferProgress()
