"""What the front calls: a conversation with a process that meets the hub.

    async with connect() as hub:
        listing = await hub.list(Address("ORG/NAME", "main"))
        fetched = await hub.fetch(listing, ["it.safetensors"], progress)

    fetched = await fetch_files(Address("ORG/NAME"), choose, progress)   # the same in one go

Whoever is cancelled meanwhile ends the process; asked for again, a download goes on where it was.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from craft_protos.reasons import REASONS, CraftError

from craftd.hub.repository import Address, Fetched, Listing, Missing, RemoteFile

Progress = Callable[[str, int, int], None]
"""What is being done ("downloading unet/config.json"), bytes done, bytes in all."""

# The library would ask the hub for lists of its own, and tell it what else is installed.
_ENVIRONMENT = {"HF_HUB_DISABLE_TELEMETRY": "1", "DO_NOT_TRACK": "1"}
_LONGEST_LINE_BYTES = 32 << 20  # a listing of 20,000 files


class HubProcess:
    """One process; one request at a time. Errors: UNKNOWN_REPOSITORY, HUB_GATED, HUB_UNREACHABLE, HUB_UNTRUSTED,
    UNSAFE_PATH, CORRUPT_FILE, DISK_FULL, INVALID_FIELD."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    async def list(self, address: Address) -> Listing:
        """What the repository holds; what the cache holds of it where the hub does not answer."""
        address.check()
        request = {"repository": address.repository, "revision": address.revision, "token": address.token}
        answer = await self._ask({"list": request}, lambda *_: None)
        files = tuple(RemoteFile(str(one[0]), int(one[1]), str(one[2]), str(one[3])) for one in answer["files"])
        told = replace(address, repository=str(answer["repository"]))
        return Listing(told, str(answer["commit"]), files, bool(answer["is_offline"]), str(answer["trigger"]))

    async def fetch(self, listing: Listing, paths: Sequence[str], progress: Progress) -> Fetched:
        """The chosen files, in the Hugging Face cache, each with the size and hash that the listing says."""
        files = [_known(listing, path) for path in dict.fromkeys(paths)]
        request = {
            "repository": listing.address.repository,
            "revision": listing.address.revision,
            "commit": listing.commit,
            "is_offline": listing.is_offline,
            "token": listing.address.token,
            "files": [[file.path, file.size_bytes, file.digest, file.url] for file in files],
        }
        answer = await self._ask({"fetch": request}, progress)
        folder = Path(str(answer["folder"]))
        return Fetched(
            listing.commit, folder, {file.path: folder / file.path for file in files}, int(answer["downloaded_bytes"])
        )

    async def missing(self, listing: Listing, paths: Sequence[str]) -> Missing:
        """What fetching them would download."""
        files = [_known(listing, path) for path in dict.fromkeys(paths)]
        request = {
            "repository": listing.address.repository,
            "commit": listing.commit,
            "files": [[file.path, file.size_bytes, file.digest, file.url] for file in files],
        }
        answer = await self._ask({"missing": request}, lambda *_: None)
        return Missing(int(answer["bytes"]), tuple(Path(str(blob)) for blob in answer["blobs"]))

    async def _ask(self, request: dict[str, Any], progress: Progress) -> dict[str, Any]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with contextlib.suppress(ConnectionError):  # its last words may say why
            self._process.stdin.write(json.dumps(request).encode() + b"\n")
            await self._process.stdin.drain()
        while True:
            line = await self._process.stdout.readline()
            if not line.endswith(b"\n"):
                raise CraftError("INTERNAL", "the process that downloads ended by itself", "try again")
            answer: dict[str, Any] = json.loads(line)
            if "progress" in answer:
                doing, done, total = answer["progress"]
                progress(str(doing), int(done), int(total))
            elif "error" in answer:
                reason, message, hint = answer["error"]
                raise CraftError(reason if reason in REASONS else "INTERNAL", message, hint)
            else:
                return dict(answer["done"])


@contextlib.asynccontextmanager
async def connect() -> AsyncIterator[HubProcess]:
    """A process that ends with this block, or with the whole daemon."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "craftd.hub"),
        process_group=0,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
        limit=_LONGEST_LINE_BYTES,
        env={**os.environ, **_ENVIRONMENT},
    )
    try:
        yield HubProcess(process)
    finally:
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):  # it has just ended by itself
                os.killpg(process.pid, signal.SIGKILL)
            await asyncio.shield(process.wait())


async def fetch_files(
    address: Address, choose: Callable[[Listing], Sequence[str]], progress: Progress
) -> tuple[Listing, Fetched]:
    """List a repository, and fetch what `choose` picks of it (it may raise). Raises as HubProcess."""
    async with connect() as hub:
        listing = await hub.list(address)
        return listing, await hub.fetch(listing, choose(listing), progress)


def _known(listing: Listing, path: str) -> RemoteFile:
    file = listing.file(path)
    if file is None:
        raise CraftError(
            "UNKNOWN_REPOSITORY",
            f"{listing.address.repository} has no file {path[:200]!r} at {listing.address.revision}",
            "see which files it has on its page",
        )
    return file
