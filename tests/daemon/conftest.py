"""Folders of their own for every test."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest
from craftd.store.database import Database

from tests.daemon.harness import Daemon, Home, running
from tests.lora_files import kohya


@pytest.fixture
def make_home() -> Iterator[Callable[..., Home]]:
    homes: list[Home] = []

    def make(**settings: str) -> Home:
        homes.append(Home(**settings))
        return homes[-1]

    yield make
    for home in homes:
        home.remove()


@pytest.fixture
def home(make_home: Callable[..., Home]) -> Home:
    return make_home()


@pytest.fixture
async def daemon(home: Home) -> AsyncIterator[Daemon]:
    async with running(home) as one:
        yield one


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[Database]:
    opened = Database(tmp_path / "craft.db")
    yield opened
    await opened.close()


@pytest.fixture
def file(home: Home) -> Path:
    """A LoRA's."""
    return kohya(home.root / "it.safetensors", metadata={"modelspec.trigger_phrase": "sks apple"})


@pytest.fixture
def other(home: Home) -> Path:
    return kohya(home.root / "other.safetensors", seed=9)
