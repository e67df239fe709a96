"""LoRAs' files: what is uploaded appears in craft's folder whole and on disk, or not at all."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import re
import secrets
import shutil
import stat
from collections.abc import Callable
from pathlib import Path

from craft_protos.reasons import CraftError, invalid

from craftd.loras import peft
from craftd.loras.lora import Look, Upload
from craftd.store.disk import Write, make_folder, sync_file, sync_folder, unwritable, write_whole

LARGEST_BYTES = 8 << 30  # the largest LoRAs have some 3 GB
_INCOMING = ".incoming-"
_CHUNK_BYTES = 1 << 20
_OWN = re.compile(r"[0-9a-f]{64}\.safetensors")

Tell = Callable[[int], None]


class LoraFiles:
    """The folder `loras`. `write` is os.write, or a test's full disk."""

    def __init__(self, folder: Path, largest_bytes: int = LARGEST_BYTES, write: Write = os.write) -> None:
        self._folder = folder
        self._largest_bytes = largest_bytes
        self._write = write

    async def receive(self, upload: Upload, tell: Tell) -> Path:
        """The uploaded file, whole, in a folder of its own.

        Raises INVALID_FIELD, CORRUPT_FILE, DISK_FULL, STORAGE_FAILED.
        """
        name = _plain_name(upload.file_name)
        if not 0 < upload.size_bytes <= self._largest_bytes:
            raise invalid(
                "upload.size_bytes",
                f"must be from 1 to {self._largest_bytes}, not {upload.size_bytes}",
                "is it a LoRA?",
            )
        path = self._folder / f"{_INCOMING}{secrets.token_hex(8)}" / name
        try:
            await self._receive(path, upload, tell)
        except BaseException as exc:  # whatever ends it, nothing is left behind
            await asyncio.shield(asyncio.to_thread(self.discard, path))
            if isinstance(exc, OSError):
                raise unwritable(self._folder, "the LoRA", exc) from exc
            raise
        return path

    def copy_in(self, source: Path, name: str) -> Path:
        """A file of craft's own, as if it had been uploaded. Raises DISK_FULL, STORAGE_FAILED."""
        return self._copy(source, name)

    def copy_with(self, source: Path, config: bytes) -> Path | None:
        """A copy of peft's file that has been checked, with its configuration in it; None: it has its own.

        Raises as `copy_in`, and CORRUPT_FILE.
        """
        found = peft.header_with(source, peft.checked(config))
        return None if found is None else self._copy(source, source.name, *found)

    def _copy(self, source: Path, name: str, header: bytes = b"", instead_of: int = 0) -> Path:
        """With another header in the place of that many bytes, if one is given."""
        path = self._folder / f"{_INCOMING}{secrets.token_hex(8)}" / _plain_name(name)
        try:
            descriptor = _create(path)
            try:
                with source.open("rb") as file:
                    file.seek(instead_of)
                    write_whole(descriptor, header, self._write)
                    while chunk := file.read(_CHUNK_BYTES):
                        write_whole(descriptor, chunk, self._write)
                sync_file(descriptor)
            finally:
                os.close(descriptor)
        except OSError as exc:
            self.discard(path)
            raise unwritable(self._folder, "the LoRA", exc) from exc
        return path

    def publish(self, path: Path, sha256: str) -> Path:
        """Give a received file its lasting name; on return it outlives a power failure.

        Raises DISK_FULL, STORAGE_FAILED.
        """
        lasting = self._folder / f"{sha256}.safetensors"
        try:
            path.rename(lasting)
            sync_folder(self._folder)
        except OSError as exc:
            raise unwritable(self._folder, "the LoRA", exc) from exc
        self.discard(path)
        return lasting

    def discard(self, path: Path) -> None:
        """Remove a received file. What cannot be removed now is swept at the next start."""
        shutil.rmtree(path.parent, ignore_errors=True)

    def delete(self, path: Path) -> None:
        """Remove a published file; others' are left alone."""
        if path.parent == self._folder and _OWN.fullmatch(path.name):
            with contextlib.suppress(OSError):
                path.unlink(missing_ok=True)

    def sweep(self, known: set[Path]) -> int:
        """Remove uploads that a crash cut short; move files without a row out of the way. Returns how many.

        The database may be a backup that is older than they are, so they are never removed.
        """
        if not self._folder.is_dir():
            return 0
        left = 0
        for path in self._folder.iterdir():
            if path.name.startswith(_INCOMING):
                shutil.rmtree(path, ignore_errors=True)
                left += 1
            elif _OWN.fullmatch(path.name) and path not in known:
                left += self._set_aside(path)
        return left

    def _set_aside(self, path: Path) -> bool:
        orphans = self._folder / "orphaned"
        with contextlib.suppress(OSError):
            orphans.mkdir(exist_ok=True, mode=0o700)
            path.replace(orphans / path.name)  # one of that name has the same contents
            return True
        return False

    def check_size(self, path: Path, look: Look) -> None:
        """Raises INVALID_FIELD."""
        if look.size_bytes > self._largest_bytes:
            raise invalid(
                "path", f"{path} has {look.size_bytes} bytes; the limit is {self._largest_bytes}", "is it a LoRA?"
            )

    async def _receive(self, path: Path, upload: Upload, tell: Tell) -> None:
        descriptor = await asyncio.to_thread(_create, path)
        try:
            done = 0
            async for chunk in upload.chunks:
                done += len(chunk)
                if done > upload.size_bytes:
                    raise _wrong_size(upload, "more")
                await asyncio.to_thread(write_whole, descriptor, chunk, self._write)
                tell(done)
            if done != upload.size_bytes:
                raise _wrong_size(upload, str(done))
            await asyncio.to_thread(sync_file, descriptor)
        finally:
            os.close(descriptor)


def look(path: Path) -> Look:
    """How a file looks, links followed. Raises NO_INPUT where it is gone, UNSAFE_PATH where it is no file."""
    try:
        status = path.stat()
    except OSError as exc:
        raise CraftError("NO_INPUT", f"{path} cannot be read: {exc.strerror}", "see that the file is there") from exc
    if stat.S_ISDIR(status.st_mode):
        raise CraftError("BAD_DATA", f"{path} is a folder", "name a LoRA's file")
    if not stat.S_ISREG(status.st_mode):
        raise CraftError("UNSAFE_PATH", f"{path} is not a regular file", "name a LoRA's file")
    return Look(status.st_size, status.st_mtime_ns, status.st_ino)


def sha256_of(path: Path) -> str:
    """Raises NO_INPUT."""
    try:
        with path.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as exc:
        raise CraftError("NO_INPUT", f"{path} cannot be read: {exc.strerror}", "see that the file is there") from exc


def only_file(folder: Path) -> Path:
    """The one LoRA that a folder holds. Raises BAD_DATA."""
    found = sorted(path for path in folder.iterdir() if path.suffix == ".safetensors")
    if len(found) != 1:
        what = f"holds {len(found)} .safetensors files" if found else "holds no .safetensors file"
        raise CraftError("BAD_DATA", f"{folder} {what}", "name a LoRA's file")
    return found[0]


def _create(path: Path) -> int:
    make_folder(path.parent.parent)
    path.parent.mkdir(mode=0o700)
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)


def _plain_name(name: str) -> str:
    """The last part of what the sender calls it. Raises INVALID_FIELD."""
    last = re.split(r"[/\\]", name)[-1]
    if not last.isprintable() or not 0 < len(last.encode("utf-8", "replace")) <= 200 or last.startswith("."):
        raise invalid("upload.file_name", f"{last[:100]!r} is no file's name", "name it like it.safetensors")
    return last


def _wrong_size(upload: Upload, found: str) -> CraftError:
    return CraftError(
        "CORRUPT_FILE",
        f"{upload.file_name[:200]!r}: expected {upload.size_bytes} bytes, found {found}",
        "send it again",
    )
