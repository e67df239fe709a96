"""Models by short names: where they are published, under which terms, how big they are, how they are drawn with."""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from craft_protos.reasons import CraftError

from craftd.architectures.registry import ROWS

_DATA = Path(__file__).with_suffix(".toml")
# Bytes of a parameter of the network, and of the text encoders and the VAE beside it.
_PRECISIONS = {"fp32": (4.0, 4.0), "bf16": (2.0, 2.0), "fp8": (1.0, 2.0), "int8": (1.0, 2.0), "gguf-q4": (0.56, 2.0)}
_PUBLISHED_IN = 2.0  # bytes of a parameter, of a download


@dataclass(frozen=True)
class Memory:
    """What weights take in memory at a precision of the network."""

    precision: str
    whole_bytes: int
    network_bytes: int  # the network alone: text encoders may go after their use


@dataclass(frozen=True)
class Entry:
    """One of the catalogue's."""

    name: str
    title: str
    repository: str
    architecture: str  # a row's id
    license: str
    network_billions: float  # parameters of what is called at each step
    rest_billions: float
    steps: int
    guidance_scale: float
    file: str = ""
    gated: str = ""  # "yes", "no", or not known
    note: str = ""

    @property
    def architecture_name(self) -> str:
        return next(row.name for row in ROWS if row.id == self.architecture)

    @property
    def download_bytes(self) -> int:
        """About: weights in half precision."""
        return int((self.network_billions + self.rest_billions) * 1e9 * _PUBLISHED_IN)

    @property
    def memory(self) -> tuple[Memory, ...]:
        return tuple(self._memory(name, *sizes) for name, sizes in _PRECISIONS.items())

    def _memory(self, precision: str, network: float, rest: float) -> Memory:
        alone = int(self.network_billions * 1e9 * network)
        return Memory(precision, alone + int(self.rest_billions * 1e9 * rest), alone)

    def has(self, word: str) -> bool:
        texts = (self.name, self.title, self.repository, self.architecture_name, self.license, self.note)
        return any(word in text.lower() for text in texts)


@cache
def entries() -> tuple[Entry, ...]:
    """All of them, as they are listed."""
    return tuple(_read(tomllib.loads(_DATA.read_text(encoding="utf-8"))))


def find(name: str) -> Entry | None:
    return next((entry for entry in entries() if entry.name == name.lower()), None)


def search(words: str) -> list[Entry]:
    """Those that have all the words somewhere."""
    wanted = words.lower().split()
    return [entry for entry in entries() if all(entry.has(word) for word in wanted)]


def unknown(name: str, told: CraftError) -> CraftError:
    """For what is neither a short name nor ORG/NAME; `told`: what the hub answered, or why it did not."""
    near = difflib.get_close_matches(name.lower()[:100], [entry.name for entry in entries()], n=3, cutoff=0.5)
    hint = f"did you mean {' or '.join(near)}? " if near else ""
    return CraftError(
        told.reason,
        f"{name[:100]!r} is no short name that craft knows, and {told.message}",
        f"{hint}craft models search lists them; others are written as ORG/NAME",
    )


def _read(told: dict[str, dict[str, str | float | int]]) -> Iterator[Entry]:
    for name, fields in told.items():
        yield Entry(name=name, **fields)  # type: ignore[arg-type]
