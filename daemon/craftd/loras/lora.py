"""A LoRA: an adapter's file that craft has checked, under a name."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

from craftd.hub.repository import Address
from craftd.workers.inspector import LoraFindings

HEAVIEST = 10.0  # the largest weight, either way


@dataclass(frozen=True)
class Look:
    """Equal looks, equal contents."""

    size_bytes: int
    mtime_ns: int
    inode: int


@dataclass(frozen=True)
class Place:
    """Where a LoRA's file lies, and where it came from."""

    path: Path
    look: Look
    source: str  # a path, "upload", or "ORG/NAME@sha:file"
    is_owned: bool = False  # in craft's own folder: goes with the LoRA


@dataclass(frozen=True)
class Lora:
    id: str
    name: str
    file_name: str
    weight: float  # where a job names none
    trigger: str
    place: Place
    findings: LoraFindings
    create_time: float
    owner: str
    is_shared: bool  # every key draws with it; else its owner and admins alone

    @property
    def sha256(self) -> str:
        return self.findings.sha256

    @property
    def ss_hash(self) -> str:
        return self.findings.ss_hash

    @property
    def is_embedding(self) -> bool:
        """Of textual inversion: it works where a prompt has its name."""
        return self.findings.format == "embedding"

    @property
    def base(self) -> str:
        return self.findings.base

    @property
    def autov2(self) -> str:
        """As AUTOMATIC1111 and Civitai say."""
        return self.sha256[:10]

    @property
    def size_bytes(self) -> int:
        return self.findings.size_bytes


@dataclass(frozen=True)
class Wish:
    """What an import asks for beside the file; None and "": from the file."""

    name: str = ""
    weight: float | None = None
    trigger: str = ""


@dataclass(frozen=True)
class Change:
    """What an update changes; None: stays."""

    name: str | None = None
    weight: float | None = None
    trigger: str | None = None
    is_shared: bool | None = None


@dataclass(frozen=True)
class Linked:
    """A file on this machine, to be used where it lies."""

    path: Path


@dataclass(frozen=True)
class Upload:
    """A file that comes in pieces."""

    file_name: str
    size_bytes: int
    chunks: AsyncIterator[bytes]
    adapter_config: bytes = b""  # as peft has it beside the file


@dataclass(frozen=True)
class Remote:
    """A file on the model hub; "": the only one that its repository has."""

    address: Address
    file: str = ""


Source = Linked | Upload | Remote


@dataclass(frozen=True)
class Progress:
    doing: str
    bytes_done: int = 0
    bytes_total: int = 0
