"""Folders that a killed worker left behind do not pile up."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from craftd.worker.process import work_folder


def test_a_dead_workers_folder_goes_and_a_live_ones_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    dead, live = tmp_path / f"craft-worker-{ended.pid}-x", tmp_path / f"craft-worker-{os.getppid()}-x"
    other = tmp_path / "craft-worker-of-somebody"
    for folder in (dead, live, other):
        folder.mkdir()
    mine = work_folder.make()
    assert mine.is_dir()
    assert {path.name for path in tmp_path.iterdir()} == {live.name, other.name, mine.name}
    work_folder.remove(mine)
    assert not mine.exists()
