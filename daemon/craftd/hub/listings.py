"""What a repository holds, as the hub tells it, or as the cache does where the hub is out of reach."""

from __future__ import annotations

import json
from typing import Any

from craft_protos.reasons import CraftError

from craftd.hub import names, web
from craftd.hub.cache import Cache
from craftd.hub.repository import Address, Listing, RemoteFile, is_commit

_MOST_FILES = 20_000
_LONGEST_LISTING_BYTES = 16 << 20
_HEX = frozenset("0123456789abcdef")


def read(address: Address) -> Listing:
    """Raises UNKNOWN_REPOSITORY, HUB_GATED, HUB_UNREACHABLE, HUB_UNTRUSTED, UNSAFE_PATH."""
    try:
        return _told(address)
    except CraftError as exc:
        if exc.reason != "HUB_UNREACHABLE":
            raise
        return _cached(address, exc)


def _told(address: Address) -> Listing:
    answer = _json(address)
    commit = answer.get("sha")
    if not isinstance(commit, str) or not is_commit(commit):
        raise web.HUB.untrusted("names no commit")
    if is_commit(address.revision) and commit != address.revision:
        raise web.HUB.untrusted(f"names the commit {commit} where {address.revision} was asked for")
    entries = answer.get("siblings")
    if not isinstance(entries, list) or len(entries) > _MOST_FILES:
        raise web.HUB.untrusted(f"lists no files, or more than {_MOST_FILES}")
    files = tuple(_file(address.repository, entry) for entry in entries)
    if len({file.path for file in files}) != len(files):
        raise web.HUB.untrusted("lists a file twice")
    return Listing(address, commit, files)


def _json(address: Address) -> dict[str, Any]:
    url = web.api_url(address.repository, address.revision)
    content = web.read(url, address.repository, _LONGEST_LISTING_BYTES)
    try:
        answer = json.loads(content)
    except (ValueError, RecursionError) as exc:
        what = "an HTML page" if content.lstrip()[:1] == b"<" else "something else"
        raise web.HUB.untrusted(f"answers with {what} where a list of files was expected") from exc
    if not isinstance(answer, dict):
        raise web.HUB.untrusted("answers with something else than a list of files")
    return answer


def _file(repository: str, entry: object) -> RemoteFile:
    if not isinstance(entry, dict):
        raise web.HUB.untrusted("lists something that is no file")
    path = names.check(repository, entry.get("rfilename"))
    large = entry.get("lfs")
    size, digest = (
        (large.get("size"), large.get("sha256"))
        if isinstance(large, dict)
        else (entry.get("size"), entry.get("blobId"))
    )
    length = 64 if isinstance(large, dict) else 40
    if type(size) is not int or not 0 <= size < 1 << 50:
        raise web.HUB.untrusted(f"does not say how big {path} is")
    if not isinstance(digest, str) or len(digest) != length or not _HEX.issuperset(digest):
        raise web.HUB.untrusted(f"gives no hash of {path}")
    return RemoteFile(path, size, digest)


def _cached(address: Address, why: CraftError) -> Listing:
    """What was there before the network went; the hub's own word for it is not needed again."""
    cache = Cache(address.repository)
    commit = cache.commit_of(address.revision)
    files = cache.files(commit) if commit else []
    if not files:
        raise why
    return Listing(address, commit, tuple(files), is_offline=True)
