"""What model files hash to, remembered for as long as they look the same."""

from __future__ import annotations

import asyncio
import hashlib
from dataclasses import dataclass, replace
from pathlib import Path

import apsw
from craft_protos.dispatch import CONTROLNET
from craft_protos.dispatch import ModelFile as ManifestFile
from craft_protos.reasons import CraftError

from craftd.architectures import controls
from craftd.models.model import Manifest, Model, ModelFile
from craftd.models.part import Part
from craftd.store.database import Database

_WEIGHTS = (".safetensors", ".ckpt", ".gguf", ".bin")
_OLD_DIGITS, _OLD_PLACE, _OLD_BYTES = 8, 0x100000, 0x10000


@dataclass(frozen=True)
class _Look:
    """Equal looks, equal contents."""

    path: Path
    size_bytes: int
    mtime_ns: int
    inode: int


class FileHashes:
    def __init__(self, database: Database) -> None:
        self._database = database
        self._known: dict[_Look, str] = {}
        self._lock = asyncio.Lock()

    async def manifest(self, model: Model) -> Manifest:
        """Hashes what isn't known yet: at first use, about a second per gigabyte. Raises CORRUPT_FILE."""
        if (known := await self.known_manifest(model)) is not None:
            return known
        async with self._lock:  # one reader of the disk at a time
            hashed = [await self._hashed(file) for file in model.files]
        return Manifest.of(model, hashed)

    async def of_part(self, path: Path) -> str:
        """Of a part's weights: its file's, or its folder's files' together. Raises CORRUPT_FILE."""
        async with self._lock:
            weights = await asyncio.to_thread(_weights, path)
            found = [await self._hashed(ModelFile(one.name, one, 0)) for one in weights]
        return found[0] if len(found) == 1 else hashlib.sha256("\n".join(found).encode()).hexdigest()

    async def control(self, part: Part) -> Manifest:
        """What a worker needs to load a control model; its sha256 is its weights'. Raises CORRUPT_FILE."""
        files = await asyncio.to_thread(part.files, CONTROLNET)
        async with self._lock:
            hashes = [await self._hashed(file) for file in files]
        return Manifest(
            name=part.name,
            family=CONTROLNET,
            pipeline=controls.network_of(part.kind),
            sha256=await self.of_part(part.path),
            files=tuple(
                ManifestFile(file.path, sha256, file.size_bytes) for file, sha256 in zip(files, hashes, strict=True)
            ),
            sources=tuple(file.source for file in files),
        )

    async def is_of(self, model: Model, digits: str) -> bool:
        """Whether the sha256 of a file of its weights begins so, or whether that is AUTOMATIC1111's old hash of one."""
        weights = [file for file in model.files if file.source.suffix in _WEIGHTS]
        if len(digits) == _OLD_DIGITS and digits in await asyncio.to_thread(
            lambda: [_old_hash(one) for one in weights]
        ):
            return True
        async with self._lock:
            return any([(await self._hashed(file)).startswith(digits) for file in weights])

    async def known_manifest(self, model: Model) -> Manifest | None:
        """The manifest if every hash is known, without reading the files."""
        found = []
        for file in model.files:
            sha256 = await self._find(_look(file.source))
            if sha256 is None:
                return None
            found.append(sha256)
        return Manifest.of(model, found)

    async def _hashed(self, file: ModelFile) -> str:
        look = _look(file.source)
        sha256 = await self._find(look)
        if sha256 is None:
            sha256 = await asyncio.to_thread(_sha256, file.source)
            await self._remember(look, sha256)
        return sha256

    async def _find(self, look: _Look) -> str | None:
        if look not in self._known:
            stored = await self._database.run(lambda connection: _select(connection, _resolved(look)))
            if stored is None:
                return None
            self._known[look] = stored
        return self._known[look]

    async def _remember(self, look: _Look, sha256: str) -> None:
        self._known[look] = sha256
        await self._database.run(lambda connection: _upsert(connection, _resolved(look), sha256))


def _weights(path: Path) -> list[Path]:
    return sorted(path.glob("*.safetensors")) if path.is_dir() else [path]


def _look(path: Path) -> _Look:
    try:
        status = path.stat()
    except OSError as exc:
        raise CraftError("CORRUPT_FILE", f"{path}: {exc.strerror}", "download the model again") from exc
    return _Look(path, status.st_size, status.st_mtime_ns, status.st_ino)


def _resolved(look: _Look) -> _Look:
    """Stored by the file's own path: of a file that two models link to, the hash is taken once."""
    return replace(look, path=look.path.resolve())


def _sha256(path: Path) -> str:
    try:
        with path.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as exc:
        raise CraftError("CORRUPT_FILE", f"{path}: {exc.strerror}", "download the model again") from exc


def _old_hash(file: ModelFile) -> str:
    """Of 64 KiB of its middle: by it AUTOMATIC1111 named checkpoints until 2023."""
    try:
        with file.source.open("rb") as stream:
            stream.seek(_OLD_PLACE)
            return hashlib.sha256(stream.read(_OLD_BYTES)).hexdigest()[:_OLD_DIGITS]
    except OSError as exc:
        raise CraftError("CORRUPT_FILE", f"{file.source}: {exc.strerror}", "download the model again") from exc


def _select(connection: apsw.Connection, look: _Look) -> str | None:
    found = connection.execute(
        "SELECT sha256 FROM file_hashes WHERE path = ? AND size_bytes = ? AND mtime_ns = ? AND inode = ?",
        (str(look.path), look.size_bytes, look.mtime_ns, look.inode),
    ).get
    return None if found is None else str(found)


def _upsert(connection: apsw.Connection, look: _Look, sha256: str) -> None:
    connection.execute(
        "INSERT OR REPLACE INTO file_hashes VALUES (?, ?, ?, ?, ?)",
        (str(look.path), look.size_bytes, look.mtime_ns, look.inode, sha256),
    )
