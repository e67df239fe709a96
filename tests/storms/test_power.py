"""Power cuts, short: `python -m tests.storms.power` makes more of them."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from tests.storms.checker import summary
from tests.storms.power import Disk, Luck, Record, cut, record
from tests.storms.scene import scene

pytestmark = pytest.mark.slow


async def test_what_was_told_outlives_a_power_cut(storm_seed: int) -> None:
    async with scene(storm_seed, is_traced=True) as one:
        recorded = await record(one, 12)
        outcome = await cut(recorded, 30, one.chance, starts=1)
    assert not outcome.violations, summary(outcome.violations)


def test_the_disk_forgets_what_was_not_synced(tmp_path: Path) -> None:
    disk = Disk(Path("/data"))
    calls = [("c", "a", 0, b""), ("w", "a", 0, b"one"), ("f", "a", 0, b""), ("w", "a", 3, b"two"), ("c", "b", 0, b"")]
    for operation, name, at, data in calls:
        disk.replay(Record(operation, f"/data/{name}", at, data, 0))
    assert _left(disk, tmp_path / "1", Luck.NOTHING) == {}  # the folder was not
    disk.replay(Record("f", "/data", 0, b"", 0))
    assert _left(disk, tmp_path / "2", Luck.NOTHING) == {"a": b"one", "b": b""}
    assert _left(disk, tmp_path / "3", Luck.ALL) == {"a": b"onetwo", "b": b""}
    disk.replay(Record("r", "/data/c", 0, b"/data/a", 0))
    assert _left(disk, tmp_path / "4", Luck.NOTHING) == {"a": b"one", "b": b""}
    assert _left(disk, tmp_path / "5", Luck.ALL) == {"c": b"onetwo", "b": b""}


def _left(disk: Disk, place: Path, luck: Luck) -> dict[str, bytes]:
    disk.write_to(place, luck, random.Random(0))
    return {path.name: path.read_bytes() for path in place.iterdir()}
