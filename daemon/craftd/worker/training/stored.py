"""Files that the worker makes: written into its store by sha256, whole and on disk or not at all."""

from __future__ import annotations

import errno
import hashlib
import os
import re
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from craft_protos.reasons import CraftError
from safetensors.torch import save

from craftd import safetensors as headers
from craftd.worker.process import work_folder

_HALF = re.compile(r"\.made-(\d+)-")


@dataclass(frozen=True)
class Stored:
    """A file of the store."""

    sha256: str
    size_bytes: int


def safetensors(tensors: Mapping[str, torch.Tensor], metadata: Mapping[str, str]) -> bytes:
    """A file's contents; the same for the same tensors and metadata, whose order the library leaves to chance."""
    plain = save({name: tensor.detach().cpu().contiguous() for name, tensor in sorted(tensors.items())})
    header, offset = headers.split(plain)
    return headers.packed({"__metadata__": dict(sorted(metadata.items()))} | header) + plain[offset:]


def put(folder: Path, data: bytes) -> Stored:
    """Raises DISK_FULL, STORAGE_FAILED."""
    sha256 = hashlib.sha256(data).hexdigest()
    try:
        _write(folder, folder / sha256, data)
    except OSError as exc:
        raise unwritable(exc, len(data)) from exc
    return Stored(sha256, len(data))


def sweep(folder: Path) -> None:
    """Remove what workers that were killed left half written."""
    for path in folder.glob(".made-*"):
        if (named := _HALF.match(path.name)) and work_folder.is_orphan(path, int(named.group(1))):
            path.unlink(missing_ok=True)


def unwritable(exc: OSError, size_bytes: int) -> CraftError:
    is_full = exc.errno in (errno.ENOSPC, errno.EDQUOT)
    reason, hint = ("DISK_FULL", "make room") if is_full else ("STORAGE_FAILED", "see `craft daemon logs`")
    return CraftError(reason, f"a file of {size_bytes} bytes could not be written: {exc.strerror}", hint)


def _write(folder: Path, path: Path, data: bytes) -> None:
    descriptor, temporary = tempfile.mkstemp(prefix=f".made-{os.getpid()}-", dir=folder)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    opened = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)
