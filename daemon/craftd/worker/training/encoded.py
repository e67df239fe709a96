"""What encoders have made of pictures and captions: in memory up to a bound, beyond it in files."""

from __future__ import annotations

from collections.abc import Hashable
from pathlib import Path

import torch
from safetensors.torch import load_file

from craftd.worker.families.lru_cache import tensor_bytes
from craftd.worker.training import stored

_MOST_BYTES = 512 << 20

Tensors = dict[str, torch.Tensor]


class Encoded:
    """Keeps tensors by key. Beyond its bound they lie in `folder`, made when needed, which the owner removes."""

    def __init__(self, folder: Path, most_bytes: int = _MOST_BYTES) -> None:
        self._folder = folder
        self._room_bytes = most_bytes
        self._held: dict[Hashable, Tensors] = {}
        self._files: dict[Hashable, Path] = {}

    def __contains__(self, key: Hashable) -> bool:
        return key in self._held or key in self._files

    def put(self, key: Hashable, tensors: Tensors) -> None:
        size_bytes = sum(map(tensor_bytes, tensors.values()))
        here = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
        if size_bytes <= self._room_bytes:
            self._room_bytes -= size_bytes
            self._held[key] = here
        else:
            path = self._folder / f"{len(self._files)}.safetensors"
            try:
                self._folder.mkdir(mode=0o700, exist_ok=True)
                path.write_bytes(stored.safetensors(here, {}))
            except OSError as exc:
                raise stored.unwritable(exc, size_bytes) from exc
            self._files[key] = path

    def get(self, key: Hashable) -> Tensors:
        return self._held[key] if key in self._held else load_file(self._files[key])
