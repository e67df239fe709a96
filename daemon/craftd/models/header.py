"""The header of a safetensors file: names, types and shapes. For files that have been checked."""

from __future__ import annotations

import json
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from craft_protos.reasons import CraftError

_LONGEST_BYTES = 32 << 20


@dataclass(frozen=True)
class Header:
    shapes: dict[str, tuple[int, ...]]
    dtypes: dict[str, str]
    metadata: dict[str, str]

    def has(self, *prefixes: str) -> bool:
        """A tensor whose name begins so."""
        return any(name.startswith(prefixes) for name in self.shapes)

    def side(self, name: str, axis: int) -> int:
        """0 where there is no such tensor."""
        shape = self.shapes.get(name, ())
        return shape[axis] if -len(shape) <= axis < len(shape) else 0

    def count(self, prefix: str) -> int:
        """How many numbered things follow `prefix`: blocks.0, blocks.1, ..."""
        numbers = {name.removeprefix(prefix).partition(".")[0] for name in self.shapes if name.startswith(prefix)}
        return len({number for number in numbers if number.isdigit()})


def read(path: Path) -> Header:
    """Raises CORRUPT_FILE."""
    try:
        with path.open("rb") as stream:
            (length,) = struct.unpack("<Q", stream.read(8))
            content: dict[str, Any] = json.loads(stream.read(min(length, _LONGEST_BYTES)))
        metadata = content.pop("__metadata__", {})
        return Header(
            shapes={name: tuple(value["shape"]) for name, value in content.items()},
            dtypes={name: value["dtype"] for name, value in content.items()},
            metadata={str(key): str(value) for key, value in metadata.items()},
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError, struct.error, RecursionError) as exc:
        raise CraftError("CORRUPT_FILE", f"{path}: no safetensors header can be read ({exc})", "get it again") from exc
