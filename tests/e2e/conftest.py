"""A user's craft with the real worker; each test starts with no daemon."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import tiny_models
from tests.cli.home import Home

TINY = "tiny"


def make_home(root: Path, model: str) -> Home:
    """Folders below `root`, the real worker, and a default model."""
    (root / "work").mkdir()
    env = {name: value for name, value in os.environ.items() if not name.startswith("CRAFT_")}
    env |= {
        "HOME": str(root),
        "CRAFT_CONFIG": str(root / "config.toml"),
        "CRAFT_DATA_DIR": str(root / "data"),
        "CRAFT_STATE_DIR": str(root / "state"),
        "CRAFT_RUNTIME_DIR": str(root / "run"),
        "CRAFT_GENERATE_MODEL": model,
        "CRAFT_WORKER_THREADS": "1",
    }
    return Home(root, env)


@pytest.fixture
def home() -> Iterator[Home]:
    """With a tiny random model as the default."""
    root = Path(tempfile.mkdtemp(prefix="craft-e2e-"))
    made = make_home(root, TINY)
    made.paths.models_dir.mkdir(parents=True)
    (made.paths.models_dir / TINY).symlink_to(tiny_models.cached("sd-tiny-vae"), target_is_directory=True)
    yield made
    made.end_daemon()
    shutil.rmtree(root)


@pytest.fixture
def pocket_home() -> Iterator[Home]:
    """As a newcomer has it: only the built-in model."""
    root = Path(tempfile.mkdtemp(prefix="craft-e2e-"))
    made = make_home(root, "")
    yield made
    made.end_daemon()
    shutil.rmtree(root)
