"""A user's craft with the real worker."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator

import pytest

from tests import tiny_models
from tests.home import Home

TINY = "tiny"
REAL = {"CRAFT_WORKER_MODULE": "craftd.worker", "CRAFT_WORKER_THREADS": "1"}


@pytest.fixture
def home(pocket_home: Home) -> Home:
    """With a tiny random model as the default, and no daemon yet."""
    return _with_tiny(pocket_home)


@pytest.fixture(scope="session")
def workers_home() -> Iterator[Home]:
    made = _with_tiny(Home("", **REAL))
    yield made
    made.remove()


@pytest.fixture
def shared_home(workers_home: Home) -> Iterator[Home]:
    """With the tiny model, and the daemon and worker of other tests; for those that leave nothing behind."""
    yield workers_home
    shutil.rmtree(workers_home.work)
    workers_home.work.mkdir()


@pytest.fixture
def pocket_home(make_home: Callable[..., Home]) -> Home:
    """As a newcomer has it: only the built-in model."""
    return make_home("", **REAL)


def _with_tiny(home: Home) -> Home:
    home.env["CRAFT_GENERATE_MODEL"] = TINY
    home.paths.models_dir.mkdir(parents=True)
    (home.paths.models_dir / TINY).symlink_to(tiny_models.cached("sd-tiny-vae"), target_is_directory=True)
    return home
