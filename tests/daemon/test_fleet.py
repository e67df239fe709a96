"""Workers on other machines: they join by an invitation, draw, are removed; strangers are not let in."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from craftd.jobs.job import State

from tests.daemon.fleets import Fleet, fleet
from tests.daemon.test_pool import _until


@pytest.fixture
async def front(tmp_path: Path) -> AsyncIterator[Fleet]:
    async with fleet(tmp_path) as made:
        yield made


async def test_one_joins_draws_its_share_and_is_removed(front: Fleet) -> None:
    remote = await front.joined()
    worker = front.worker()
    await _until(lambda: worker.is_reachable)
    for one in front.pool.workers:
        one.want()
    await _until(lambda: all(one.is_ready for one in front.pool.workers))
    await front.scene.add("a", "[held] apples", count=8)
    await _until(lambda: bool(front.scene.of(worker)))
    assert len(front.scene.of(front.pool.workers[0])) == 1
    for folder in (front.scene.folders[0], remote.identity.folder / "files"):
        (folder / "release").touch()
    job = await front.scene.finish("a")
    assert job.state is State.SUCCEEDED and worker.vitals is not None and worker.vitals.pid
    await front.port.remove("box-2")
    assert [one.name for one in front.pool.workers] == ["cpu-1"]
    assert remote.running is not None
    with pytest.raises(Exception, match="removed"):
        await remote.running
