"""The training folder: checkpoints and finished LoRAs by their sha256, each job's samples in a folder of its own."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import shutil
from collections.abc import Iterable
from pathlib import Path

from craft_protos.reasons import CraftError

from craftd.store.disk import Write, make_folder, save, sync_file, sync_folder, unwritable

SHOWN = Path("training")  # a job's error is read by whoever asked for it: where the folder lies is not for them
_AGAIN = "craft lora train NAME --resume goes on from the one before it"
_INCOMING = ".incoming-"
_OWN = re.compile(r"[0-9a-f]{64}")


class TrainingFiles:
    """Blocking; callers run it off the event loop. Nothing in it is named by a row before it is on disk."""

    def __init__(self, folder: Path, write: Write = os.write) -> None:
        self._folder = folder
        self._write = write

    def incoming(self, sha256: str) -> Path:
        """Where a worker's file may be moved to, before `keep`. Raises DISK_FULL, STORAGE_FAILED."""
        try:
            make_folder(self._folder)
        except OSError as exc:
            raise self._unwritable(exc) from exc
        return self._folder / f"{_INCOMING}{sha256}"

    def path(self, sha256: str) -> Path:
        return self._folder / sha256

    def keep(self, sha256: str, size_bytes: int) -> Path:
        """Give an incoming file its lasting name; on return it outlives a power failure. Raises CORRUPT_FILE, ..."""
        incoming, lasting = self.incoming(sha256), self.path(sha256)
        try:
            with incoming.open("rb") as file:
                found = hashlib.file_digest(file, "sha256").hexdigest()
                if (found, file.tell()) != (sha256, size_bytes):
                    raise CraftError("CORRUPT_FILE", "a checkpoint is not what the worker wrote", _AGAIN)
                sync_file(file.fileno())
            incoming.replace(lasting)
            sync_folder(self._folder)
        except OSError as exc:
            raise self._unwritable(exc) from exc
        return lasting

    def save_sample(self, job_id: str, name: str, data: bytes) -> None:
        """Whole or not at all. Raises DISK_FULL, STORAGE_FAILED."""
        folder = self._folder / job_id
        temporary = folder / f"{_INCOMING}{name}"
        try:
            make_folder(self._folder)
            make_folder(folder)
            save(temporary, data, self._write)
            temporary.rename(folder / name)
            sync_folder(folder)
        except OSError as exc:
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)
            raise self._unwritable(exc) from exc

    def sample(self, job_id: str, name: str) -> Path:
        return self._folder / job_id / name

    def remove_samples(self, job_id: str, names: Iterable[str]) -> None:
        for name in names:
            with contextlib.suppress(OSError):
                self.sample(job_id, name).unlink(missing_ok=True)

    def sweep(self, needed: set[str], *, at_start: bool = False) -> None:
        """Remove checkpoints that nobody needs any more; at the start what a crash cut short, too."""
        if not self._folder.is_dir():
            return
        for path in self._folder.iterdir():
            is_torn = at_start and path.name.startswith(_INCOMING)
            if is_torn or (_OWN.fullmatch(path.name) and path.name not in needed):
                with contextlib.suppress(OSError):
                    path.unlink()

    def sample_folders(self) -> list[str]:
        """The jobs that have one."""
        if not self._folder.is_dir():
            return []
        return [path.name for path in self._folder.iterdir() if path.is_dir()]

    def remove_all_samples(self, job_id: str) -> bool:
        """Whether they are gone."""
        folder = self._folder / job_id
        shutil.rmtree(folder, ignore_errors=True)
        return not folder.exists()

    def _unwritable(self, exc: OSError) -> CraftError:
        return unwritable(SHOWN, "a checkpoint", exc)
