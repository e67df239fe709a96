"""docs/architecture.md names files that are there, and leaves no folder of the daemon out."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
PATHS = re.findall(r"`((?:cli|daemon|protos|docs|tests)/[\w./-]+)`", PAGE)


def test_every_path_exists() -> None:
    assert len(PATHS) > 40
    assert [path for path in PATHS if not (ROOT / path).exists()] == []


def test_every_folder_of_the_daemon_is_named() -> None:
    daemon = ROOT / "daemon" / "craftd"
    folders = {path.parent for path in daemon.glob("*/__init__.py")} - {daemon / "pocket"}
    named = {(ROOT / path) for path in PATHS} | {(ROOT / path).parent for path in PATHS}
    assert folders - named == set()
