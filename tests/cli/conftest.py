"""A user's craft whose pictures take four steps."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator

import pytest
from craft_cli import main

from tests.home import MODEL, Home

Craft = Callable[..., int]


@pytest.fixture
def home(make_home: Callable[..., Home]) -> Home:
    return _quick(make_home())


@pytest.fixture(scope="session")
def daemons_home() -> Iterator[Home]:
    made = _quick(Home())
    yield made
    made.remove()


@pytest.fixture
def shared_home(daemons_home: Home) -> Iterator[Home]:
    """With the daemon, models and settings of other tests; for those that leave nothing behind but jobs and files."""
    yield daemons_home
    for word in ("hurry", "release"):
        (daemons_home.paths.files_dir / word).unlink(missing_ok=True)
    shutil.rmtree(daemons_home.work)
    daemons_home.work.mkdir()


@pytest.fixture
def craft(shared_home: Home, monkeypatch: pytest.MonkeyPatch) -> Craft:
    """Runs a command line in this process; its exit code."""
    for name, value in shared_home.env.items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(shared_home.work)
    shared_home.craft("daemon", "start")  # by a process of its own, of which it is the child
    return lambda *args: main.run(list(args))


def _quick(home: Home) -> Home:
    (home.paths.models_dir / MODEL / "craft.json").write_text(json.dumps({"steps": 4, "sampler": "Euler"}))
    return home
