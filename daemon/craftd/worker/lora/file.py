"""A LoRA's file: its reading, and its tensors, taken from the file where they are used."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from craft_protos.reasons import CraftError
from safetensors import SafetensorError, safe_open

from craftd import safetensors
from craftd.documents import File
from craftd.worker.lora import reading
from craftd.worker.lora.reading import Reading


@dataclass(frozen=True)
class LoraFile:
    """What its header tells, and every tensor by name."""

    reading: Reading
    tensors: Mapping[str, torch.Tensor]

    @property
    def name(self) -> str:
        return self.reading.name


@contextmanager
def opened(path: Path, name: str, size_bytes: int = 0) -> Iterator[LoraFile]:
    """The file while it is open. Raises CORRUPT_FILE, UNSUPPORTED_LORA."""
    _check_size(path, name, size_bytes)
    header = safetensors.read(File(f"LoRA {name}", path.resolve()))
    found = reading.read(name, header.shapes, header.metadata)
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            yield LoraFile(found, _Tensors(file, list(header.shapes)))
    except (SafetensorError, OSError) as exc:
        raise _corrupt(name, f"cannot be read: {exc}") from exc


class _Tensors(Mapping[str, torch.Tensor]):
    """Reads a tensor when it is asked for."""

    def __init__(self, file: Any, names: list[str]) -> None:
        self._file = file
        self._names = dict.fromkeys(names)

    def __getitem__(self, name: str) -> torch.Tensor:
        if name not in self._names:
            raise KeyError(name)
        tensor: torch.Tensor = self._file.get_tensor(name)
        return tensor

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


def _check_size(path: Path, name: str, size_bytes: int) -> None:
    if not path.is_file():
        raise _corrupt(name, "is not in the store")
    found = path.stat().st_size
    if size_bytes and found != size_bytes:
        raise _corrupt(name, f"has {found} bytes where {size_bytes} were expected")


def _corrupt(name: str, why: str) -> CraftError:
    return CraftError("CORRUPT_FILE", f"LoRA {name} {why}", f"add the LoRA {name} again")
