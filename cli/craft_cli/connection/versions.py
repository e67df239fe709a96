"""A daemon of another version: served by while the contract allows, replaced at most once.

Where two crafts of different versions share a data folder, each of them would replace the other's daemon in turn. So
only an older daemon is replaced; and where that brings back the same version (a service starts what it was installed
with), a note keeps it from being tried again.
"""

from __future__ import annotations

import json
import re

from craft_protos.paths import Paths
from craft_protos.version import __version__

from craft_cli.connection.autostart import Found

_KEPT = 16


def may_renew(paths: Paths, old: Found) -> bool:
    """Whether this craft is newer, and has not replaced such a daemon before. Notes that it now does."""
    pair = [__version__, old.version]
    seen = _read(paths)
    if _parts(old.version) >= _parts(__version__) or pair in seen:
        return False
    _write(paths, [*seen, pair][-_KEPT:])
    return True


def _parts(version: str) -> tuple[int, ...]:
    """Of a version's release; one without any is the oldest."""
    return tuple(map(int, re.findall(r"\d+", re.split(r"[^\d.]", version)[0])))


def _read(paths: Paths) -> list[list[str]]:
    try:
        seen = json.loads(paths.renewals_file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return []
    return seen if isinstance(seen, list) else []


def _write(paths: Paths, seen: list[list[str]]) -> None:
    """Where it cannot be written, nothing is replaced either: the data folder must be writable for that."""
    paths.renewals_file.write_text(json.dumps(seen), encoding="utf-8")
