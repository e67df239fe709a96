"""A model that is being hashed holds up its own jobs, and nobody else's."""

from __future__ import annotations

import asyncio

import pytest
from craft_protos.reasons import CraftError
from craftd.jobs.job import Priority
from craftd.models.model import Manifest
from craftd.scheduler.manifest_cache import ManifestCache
from craftd.scheduler.queue import FairQueue, Waiting
from craftd.tasks import Tasks


class Hashing:
    """Reads that end when the test says so."""

    def __init__(self) -> None:
        self.done = asyncio.Event()

    async def read(self, name: str) -> Manifest:
        if name == "broken":
            raise CraftError("CORRUPT_FILE", "it is broken")
        if name == "big":
            await self.done.wait()
        return Manifest(name)


async def test_a_late_manifest_is_told_of_and_others_do_not_wait() -> None:
    hashing, ready, tasks = Hashing(), asyncio.Event(), Tasks()
    manifests = ManifestCache(hashing.read, tasks, ready.set)
    assert await manifests.get("big") is None
    assert manifests.is_late("big")
    small = await manifests.get("small")
    assert small is not None and small.name == "small" and not manifests.is_late("small")
    assert not ready.is_set()
    hashing.done.set()
    await ready.wait()
    big = await manifests.get("big")
    assert big is not None and big.name == "big"
    await tasks.cancel()


async def test_what_reading_raises_comes_to_who_asks() -> None:
    manifests = ManifestCache(Hashing().read, Tasks(), lambda: None)
    for _ in range(2):
        with pytest.raises(CraftError, match="it is broken"):
            await manifests.get("broken")


def test_the_queue_passes_over_what_is_not_open() -> None:
    queue = FairQueue()
    for order, name in enumerate(("big", "small", "small")):
        queue.push(Waiting(f"{name}{order}", "me", Priority.INTERACTIVE, 1, order))
    head = queue.head(lambda waiting: not waiting.job_id.startswith("big"))
    assert head is not None and head.job_id == "small1"
    assert queue.head(lambda _: False) is None
