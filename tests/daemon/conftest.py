"""A daemon, a database and LoRAs of its own for every test."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from craftd.store.database import Database

from tests.daemon.harness import Daemon, Process, running, spawn_and_wait
from tests.home import Home
from tests.lora_files import kohya


@pytest.fixture
async def daemon(home: Home) -> AsyncIterator[Daemon]:
    async with running(home) as one:
        yield one


@pytest.fixture(scope="session")
def idle_process() -> Iterator[tuple[Home, Process, str]]:
    home = Home()
    process, said = spawn_and_wait(home)
    yield home, process, str(said["address"])
    process.kill()
    process.communicate()
    home.remove()


@pytest.fixture
async def idle_daemon(idle_process: tuple[Home, Process, str]) -> AsyncIterator[Daemon]:
    """One for many tests: nothing is ever drawn or kept there."""
    one = Daemon(*idle_process)
    yield one
    await one.channel.close()


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
