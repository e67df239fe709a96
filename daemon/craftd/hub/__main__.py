"""`python -m craftd.hub`: requests as lines of JSON on stdin, answers on stdout; ends with its stdin.

{"list": {...}} {"fetch": {...}} {"missing": {...}} -> {"progress": [...]}* then {"done": {...}} or {"error": [...]}
"""

from __future__ import annotations

import json
import logging
import os
import queue
import sys
import threading
import time
import warnings
from typing import Any

from craft_protos.reasons import CraftError

from craftd.hub import civitai, listings, transfers, web
from craftd.hub.cache import Cache
from craftd.hub.repository import CIVITAI, Address, RemoteFile

_TELL_EVERY_S = 0.1


class _Teller:
    """Progress, not oftener than anyone can read it; what is being done is always told once."""

    def __init__(self) -> None:
        self._doing, self._told_at = "", 0.0

    def __call__(self, doing: str, done: int, total: int) -> None:
        now = time.monotonic()
        if doing != self._doing or now - self._told_at >= _TELL_EVERY_S:
            self._doing, self._told_at = doing, now
            _say({"progress": [doing, done, total]})


def main() -> None:
    warnings.simplefilter("ignore")
    logging.disable()
    requests: queue.SimpleQueue[str] = queue.SimpleQueue()
    threading.Thread(target=_listen, args=(requests,), daemon=True).start()
    while True:
        try:
            _say({"done": _answer(json.loads(requests.get()))})
        except CraftError as exc:
            _say({"error": [exc.reason, exc.message, exc.hint]})
        except Exception as exc:  # the process's outermost loop: the front logs it
            _say({"error": ["INTERNAL", f"a bug in craft's downloads: {exc!r}", "see `craft daemon logs`"]})


def _listen(requests: queue.SimpleQueue[str]) -> None:
    """Whoever asked may end at any time, and nothing is downloaded for nobody."""
    for line in sys.stdin:
        requests.put(line)
    os._exit(0)


def _answer(request: dict[str, Any]) -> dict[str, Any]:
    ((kind, given),) = request.items()
    if kind == "list":
        address = Address(given["repository"], given["revision"], given["token"])
        listing = civitai.read(address) if address.is_civitai else listings.read(address)
        return {
            "repository": listing.address.repository,
            "commit": listing.commit,
            "files": [[file.path, file.size_bytes, file.digest, file.url] for file in listing.files],
            "is_offline": listing.is_offline,
            "trigger": listing.trigger,
        }
    files = [RemoteFile(*one) for one in given["files"]]
    cache = Cache(given["repository"])
    if kind == "missing":
        absent = transfers.missing(cache, given["commit"], files)
        count = transfers.missing_bytes(cache, given["commit"], files)
        return {"bytes": count, "blobs": [str(cache.blob(file).resolve()) for file in absent if file.digest]}
    snapshot = str(cache.snapshot(given["commit"]))
    if given["is_offline"]:
        return {"folder": snapshot, "downloaded_bytes": 0}
    is_civitai = given["repository"].startswith(CIVITAI)
    site = civitai.site(given["token"]) if is_civitai else web.HUB
    downloaded = transfers.fetch(given["repository"], given["commit"], files, _Teller(), site)
    if not is_civitai:
        cache.remember(given["revision"], given["commit"])
    return {"folder": snapshot, "downloaded_bytes": downloaded}


def _say(answer: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(answer) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
