"""Files of strangers, read without following links; JSON of theirs: bounded in length and depth, no key twice."""

from __future__ import annotations

import json
import os
import stat
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from craftd.refusal import corrupt, shown, unsafe_path

CONFIG_BYTES = 4 << 20
DATA_BYTES = 128 << 20  # a large tokenizer's file is 35 MB
_DEEPEST = 64
_MOST_VALUES = 4_000_000  # lists and objects; a large tokenizer's file has 600,000
_KINDS = {
    stat.S_IFIFO: "a named pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFDIR: "a folder",
}


@dataclass(frozen=True)
class File:
    """A regular file: its name inside the folder, and where it really lies."""

    name: str
    real: Path

    @cached_property
    def size_bytes(self) -> int:
        return self.real.lstat().st_size

    @property
    def base(self) -> str:
        return self.name.rpartition("/")[2]

    def read(self, start: int, count: int) -> bytes:
        """Up to `count` bytes from `start`. Raises UNSAFE_PATH where the file has been exchanged meanwhile."""
        with self.opened() as descriptor:
            return os.pread(descriptor, count, start)

    @contextmanager
    def opened(self) -> Iterator[int]:
        """A descriptor to read it all by. Raises as `read`."""
        descriptor = _open(self)
        try:
            yield descriptor
        finally:
            os.close(descriptor)


def read(file: File, most_bytes: int = CONFIG_BYTES) -> dict[str, Any]:
    """The object in a file. Raises CORRUPT_FILE."""
    if file.size_bytes > most_bytes:
        raise corrupt(file.name, f"JSON of at most {most_bytes} bytes", f"{file.size_bytes} bytes")
    return parse(file.name, file.read(0, most_bytes))


def parse(name: str, text: bytes, *, is_strict: bool = False) -> dict[str, Any]:
    """The object; `is_strict`: numbers are finite. Raises CORRUPT_FILE."""
    if text.count(b"[") + text.count(b"{") > _MOST_VALUES:
        raise corrupt(name, f"JSON of at most {_MOST_VALUES} lists and objects", "more")
    try:
        found = json.loads(
            text.decode("utf-8"),
            object_pairs_hook=_object,
            parse_constant=_no_constant if is_strict else None,
        )
    except RecursionError as exc:
        raise corrupt(name, f"JSON at most {_DEEPEST} deep", "a deeper one") from exc
    except MemoryError as exc:
        raise corrupt(name, "JSON of a usual size", "one too big to read") from exc
    except ValueError as exc:
        raise corrupt(name, "JSON", f"{_kind(text)} ({exc})") from exc
    if not isinstance(found, dict):
        raise corrupt(name, "a JSON object", "another JSON value")
    if _is_deeper(found):
        raise corrupt(name, f"JSON at most {_DEEPEST} deep", "a deeper one")
    return found


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) != len(pairs):
        (twice, _), *_ = Counter(key for key, _ in pairs).most_common(1)
        raise ValueError(f"the key {shown(twice)} twice")
    return made


def _no_constant(name: str) -> Any:
    raise ValueError(f"the number {name}")


def _kind(text: bytes) -> str:
    return "an HTML page" if text.lstrip()[:1] == b"<" else "something else"


def _is_deeper(found: object) -> bool:
    """Level by level: nothing here recurses."""
    level: list[Any] = [found]
    for _ in range(_DEEPEST):
        level = [one for value in level for one in _inside(value)]
        if not level:
            return False
    return any(isinstance(one, dict | list) for one in level)


def _inside(value: object) -> list[Any]:
    inner = list(value.values()) if isinstance(value, dict) else value if isinstance(value, list) else []
    return [one for one in inner if isinstance(one, dict | list)]


def irregular(name: str, mode: int) -> Exception:
    return unsafe_path(name, f"is {_KINDS.get(stat.S_IFMT(mode), 'a link in a circle')}, not a regular file")


def _open(file: File) -> int:
    """Neither a pipe nor a link put in its place since can hold us up."""
    try:
        descriptor = os.open(file.real, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as exc:
        raise corrupt(file.name, "a file that can be read", str(exc.strerror)) from exc
    mode = os.fstat(descriptor).st_mode
    if not stat.S_ISREG(mode):
        os.close(descriptor)
        raise irregular(file.name, mode)
    return descriptor
