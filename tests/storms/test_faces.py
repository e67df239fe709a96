"""HTTP, TCP with TLS and trainings under the same storms: `python -m tests.storms.remote` goes on for longer."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.storms.checker import summary
from tests.storms.faces import faces
from tests.storms.load import Load
from tests.storms.remote import pass_over
from tests.storms.soak import soak

pytestmark = pytest.mark.slow

_KILLS = ["kill -9 of the daemon", "SIGTERM of the daemon", "kill -9 of the worker"]


async def test_all_faces_are_told_the_truth(storm_seed: int, tmp_path: Path) -> None:
    async with faces(storm_seed, tmp_path) as all_faces:
        outcome = await pass_over(
            all_faces, ["kill -9 of the daemon", "SIGTERM of the daemon", "kill -9 of the worker"]
        )
    assert not outcome.violations, summary(outcome.violations)


async def test_nothing_is_kept_open(storm_seed: int, tmp_path: Path) -> None:
    """A soak of seconds, which proves that it measures: the hour is `python -m tests.storms.soak`."""
    async with faces(storm_seed, tmp_path) as all_faces:
        load = Load(all_faces.scene, 6, pauses=False, faces=tuple(all_faces.callers.values()))
        outcome = await soak(all_faces.scene, load, 2)
    assert not outcome.violations, summary(outcome.violations)
    assert outcome.counts["jobs"] and outcome.counts["descriptors at last"]
