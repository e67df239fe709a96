"""Reads LoRAs and pictures in a thread, so that what is being drawn goes on stepping."""

from __future__ import annotations

import logging
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from craft_protos.dispatch import File
from craft_protos.reasons import CraftError

from craftd.worker.lora import match
from craftd.worker.lora.adapter import Adapter
from craftd.worker.lora.targets import Targets
from craftd.worker.models import memory
from craftd.worker.models.folder import is_sha256

_log = logging.getLogger(__name__)

T = TypeVar("T")

_THREADS = 2


@dataclass(frozen=True)
class FileRead:
    """Posted when something has been read, or cannot be."""


class Reader:
    """Reads from the worker's store of files, in a thread."""

    def __init__(self, files: Path, post: Callable[[FileRead], None]) -> None:
        self.files = files
        self._post = post
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="reading")

    def start(self, what: str, work: Callable[[], T]) -> Future[T]:
        """Do what a file needs in a thread, and post a note when it is done. It raises a CraftError or nothing."""
        future = self._threads.submit(_guarded, what, work)
        future.add_done_callback(lambda _done: self._post(FileRead()))
        return future

    def read(self, lora: File, targets: Targets) -> Adapter:
        """In any thread. Raises CORRUPT_FILE, UNSUPPORTED_LORA, NOT_FINITE, UNSAFE_PATH."""
        if not is_sha256(lora.sha256):
            raise CraftError("UNSAFE_PATH", f"LoRA {lora.name}: {lora.sha256!r} is no sha256", "name it by its sha256")
        return match.read(
            self.files / lora.sha256, targets, name=lora.name, sha256=lora.sha256, size_bytes=lora.size_bytes
        )


def _guarded(what: str, work: Callable[[], T]) -> T:
    try:
        with memory.recognised():
            return work()
    except CraftError:
        raise
    except memory.OUT_OF_MEMORY:
        raise memory.too_little(what) from None
    except Exception as exc:  # the thread's outermost: a stranger's file must not end the worker
        _log.exception("reading %s failed", what)
        raise CraftError("CORRUPT_FILE", f"{what} cannot be read: {exc}", f"add the {what} again") from exc
