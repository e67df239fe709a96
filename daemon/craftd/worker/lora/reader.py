"""Reads LoRAs in a thread, so that what is being drawn goes on stepping."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from craft_protos.reasons import CraftError

from craftd.worker.lora import match
from craftd.worker.lora.adapter import Adapter
from craftd.worker.lora.targets import Targets
from craftd.worker.messages import LoraUse, is_sha256

T = TypeVar("T")

_THREADS = 2


@dataclass(frozen=True)
class LoraRead:
    """Posted when something has been read, or cannot be."""


class Reader:
    """Over the worker's store of files."""

    def __init__(self, files: Path, post: Callable[[LoraRead], None]) -> None:
        self._files = files
        self._post = post
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="loras")

    def start(self, work: Callable[[], T]) -> Future[T]:
        """Do it in a thread, and post a note when it is done."""
        future = self._threads.submit(work)
        future.add_done_callback(lambda _done: self._post(LoraRead()))
        return future

    def read(self, use: LoraUse, targets: Targets) -> Adapter:
        """In any thread. Raises CORRUPT_FILE, UNSUPPORTED_LORA, NOT_FINITE, UNSAFE_PATH."""
        if not is_sha256(use.sha256):
            raise CraftError("UNSAFE_PATH", f"LoRA {use.name}: {use.sha256!r} is no sha256", "name it by its sha256")
        return match.read(
            self._files / use.sha256, targets, name=use.name, sha256=use.sha256, size_bytes=use.size_bytes
        )
