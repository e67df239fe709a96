"""The Hugging Face cache, in its own layout: blobs by hash, snapshots of links to them, references to commits.

models--ORG--NAME/blobs/DIGEST             the contents; DIGEST.craft-part while they come
models--ORG--NAME/snapshots/COMMIT/PATH    a link to a blob
models--ORG--NAME/refs/REVISION            the commit that a branch or tag was
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

from huggingface_hub import constants
from huggingface_hub.file_download import repo_folder_name
from huggingface_hub.utils._fixes import WeakFileLock

from craftd.hub.repository import RemoteFile, is_commit

_CHUNK_BYTES = 4 << 20


class Hash(Protocol):
    def update(self, data: bytes, /) -> None: ...
    def hexdigest(self) -> str: ...


class Cache:
    """One repository's part of the cache."""

    def __init__(self, repository: str) -> None:
        root = Path(constants.HF_HUB_CACHE).expanduser()
        # No repository of the hub has such a name as Civitai's get, and no path a colon.
        name = repo_folder_name(repo_id=repository.replace(":", ".com/"), repo_type="model")
        self.folder = root / name
        self._locks = root / ".locks" / name

    def snapshot(self, commit: str) -> Path:
        return self.folder / "snapshots" / commit

    def blob(self, file: RemoteFile) -> Path:
        return self.folder / "blobs" / file.digest

    def part(self, file: RemoteFile) -> Path:
        """What has come of a file so far."""
        return self.folder / "blobs" / f"{file.digest}.craft-part"

    @contextmanager
    def locked(self, file: RemoteFile) -> Iterator[None]:
        """The lock that huggingface_hub takes too; gone with the process that holds it."""
        self._locks.mkdir(parents=True, exist_ok=True)
        self.blob(file).parent.mkdir(parents=True, exist_ok=True)
        with WeakFileLock(self._locks / f"{file.digest}.lock"):
            yield

    def holds(self, file: RemoteFile) -> bool:
        """By its size alone."""
        return _size(self.blob(file)) == file.size_bytes

    def found(self, file: RemoteFile, commit: str) -> Path | None:
        """In the snapshot, where there is no blob of it: by its size alone."""
        path = self.snapshot(commit) / file.path
        return path if _size(path) == file.size_bytes else None

    def link(self, file: RemoteFile, commit: str) -> None:
        """Put it into the snapshot."""
        pointer = self.snapshot(commit) / file.path
        pointer.parent.mkdir(parents=True, exist_ok=True)
        temporary = pointer.with_name(f".{file.digest[:16]}.{os.getpid()}.tmp")
        temporary.unlink(missing_ok=True)
        temporary.symlink_to(os.path.relpath(self.blob(file), pointer.parent))
        temporary.replace(pointer)

    def commit_of(self, revision: str) -> str:
        """The commit that a revision was when it was last asked for; "" where that is not known."""
        if is_commit(revision):
            return revision
        try:
            text = (self.folder / "refs" / revision).read_text(encoding="ascii").strip()
        except (OSError, ValueError):
            return ""
        return text if is_commit(text) else ""

    def remember(self, revision: str, commit: str) -> None:
        if revision == commit:
            return
        reference = self.folder / "refs" / revision
        reference.parent.mkdir(parents=True, exist_ok=True)
        temporary = reference.with_name(f".{reference.name}.{os.getpid()}.tmp")
        temporary.write_text(commit, encoding="ascii")
        temporary.replace(reference)

    def files(self, commit: str) -> list[RemoteFile]:
        """What the snapshot holds, by name."""
        snapshot = self.snapshot(commit)
        found = [path for path in sorted(snapshot.rglob("*")) if path.is_file()] if snapshot.is_dir() else []
        return [RemoteFile(path.relative_to(snapshot).as_posix(), path.stat().st_size, "") for path in found]


def new_hash(file: RemoteFile) -> Hash:
    """Of the kind that the hub tells for it."""
    if file.is_sha256:
        return hashlib.sha256()
    return hashlib.sha1(f"blob {file.size_bytes}\0".encode(), usedforsecurity=False)  # as git does


def is_right(path: Path, file: RemoteFile) -> bool:
    """Whether a file's contents hash to what the hub says."""
    digest = new_hash(file)
    feed(digest, path)
    return digest.hexdigest() == file.digest


def feed(digest: Hash, path: Path) -> None:
    with path.open("rb") as stream:
        while chunk := stream.read(_CHUNK_BYTES):
            digest.update(chunk)


def _size(path: Path) -> int:
    try:
        return path.stat().st_size if path.is_file() else -1
    except OSError:
        return -1
