"""A repository on the hub: its address, and what it says it holds."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path

from craft_protos.reasons import invalid

DEFAULT_REVISION = "main"
CIVITAI = "civitai:"
_NUMBER = re.compile(r"[1-9][0-9]{0,11}")
_LONGEST_TOKEN = 200
_REPOSITORY = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,95}(/[A-Za-z0-9][A-Za-z0-9._-]{0,95})?")
_REVISION = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._/+-]{0,199}")
_COMMIT = re.compile(r"[0-9a-f]{40}")


@dataclass(frozen=True)
class Address:
    """`repository` is ORG/NAME; `revision` a branch, a tag or a commit."""

    repository: str
    revision: str = DEFAULT_REVISION
    token: str = field(default="", repr=False)  # for Civitai, which is asked with its caller's own; never kept

    @property
    def is_civitai(self) -> bool:
        """civitai:ID, where `revision` is a version's number; civitai: where the version alone is known."""
        return self.repository.startswith(CIVITAI)

    def check(self) -> None:
        """Raises INVALID_FIELD: both become parts of addresses and of paths."""
        if self.is_civitai:
            self._check_civitai()
            return
        if self.token:
            raise invalid("token", "is for what comes from Civitai", "leave it out: the hub's is the daemon's HF_TOKEN")
        name = self.repository
        if not _REPOSITORY.fullmatch(name) or ".." in name or "--" in name or name.endswith((".git", ".", "-")):
            raise invalid("repository", f"{name[:120]!r} is no repository's name", "write it as ORG/NAME")
        if not is_revision(self.revision):
            raise invalid("revision", f"{self.revision[:120]!r} is no revision", "a branch, a tag or a commit")

    def _check_civitai(self) -> None:
        model, version = self.repository.removeprefix(CIVITAI), self.revision
        is_model = _NUMBER.fullmatch(model) is not None
        is_version = _NUMBER.fullmatch(version) is not None
        if not (is_model and (is_version or version == DEFAULT_REVISION)) and (model or not is_version):
            said = f"{self.repository}@{version}"
            raise invalid("repository", f"{said[:60]!r} is nothing of Civitai's", "write it as civitai:ID@VERSION")
        if len(self.token) > _LONGEST_TOKEN or not (self.token.isascii() and self.token.isprintable()):
            raise invalid("token", "is none", "take the key of your account's settings on Civitai")


@dataclass(frozen=True)
class RemoteFile:
    """One file of a repository. `digest` is in hexadecimal: the contents' sha256, or git's sha1 of a small file."""

    path: str
    size_bytes: int
    digest: str  # "" only in an offline listing
    url: str = ""  # where it is had; "": where the hub has a file of that name

    @property
    def is_sha256(self) -> bool:
        return len(self.digest) == 64


@dataclass(frozen=True)
class Listing:
    """What a repository holds at one commit."""

    address: Address
    commit: str
    files: tuple[RemoteFile, ...]
    is_offline: bool = False  # the hub did not answer: this is what the cache holds
    trigger: str = ""  # the trigger words that its page names

    def file(self, path: str) -> RemoteFile | None:
        return next((file for file in self.files if file.path == path), None)

    @property
    def source(self) -> str:
        """ "ORG/NAME@sha" """
        return f"{self.address.repository}@{self.commit}"


@dataclass(frozen=True)
class Fetched:
    """Files that lie in the Hugging Face cache, whole and checked."""

    commit: str
    folder: Path  # the snapshot: every file of it at its own name
    paths: dict[str, Path]  # name in the repository -> where it lies in `folder`
    downloaded_bytes: int  # what was not in the cache before


@dataclass(frozen=True)
class Missing:
    """What is not in the cache yet: in bytes, and where it will lie."""

    bytes: int
    blobs: tuple[Path, ...]


def is_commit(text: str) -> bool:
    return _COMMIT.fullmatch(text) is not None


def is_revision(text: str) -> bool:
    parts = text.split("/")
    return _REVISION.fullmatch(text) is not None and all(
        part and not part.startswith(".") and ".." not in part for part in parts
    )
