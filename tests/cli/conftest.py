"""Folders of their own for every test, and an end to every daemon it started."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.home import Home, put_model


@pytest.fixture
def home() -> Iterator[Home]:
    yield from _home()


@pytest.fixture(scope="module")
def shared_home() -> Iterator[Home]:
    """One for a whole module, where its tests leave nothing behind."""
    yield from _home()


def _home() -> Iterator[Home]:
    # pytest's own folder makes a socket path that is too long
    root = Path(tempfile.mkdtemp(prefix="craft-test-"))
    (root / "work").mkdir()
    env = {name: value for name, value in os.environ.items() if not name.startswith("CRAFT_")}
    env |= {
        "HOME": str(root),
        "CRAFT_CONFIG": str(root / "config.toml"),
        "CRAFT_DATA_DIR": str(root / "data"),
        "CRAFT_STATE_DIR": str(root / "state"),
        "CRAFT_RUNTIME_DIR": str(root / "run"),
        "CRAFT_WORKER_MODULE": "craftd.fakeworker",
        "CRAFT_GENERATE_MODEL": "flat",
        "TERM": "xterm-256color",
    }
    made = Home(root, env)
    put_model(made.paths.models_dir)
    yield made
    made.end_started()
    made.end_daemon()
    shutil.rmtree(root)
