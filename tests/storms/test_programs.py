"""The long storms make as many as they are asked for."""

from __future__ import annotations

import argparse
import contextlib
from collections.abc import AsyncIterator
from types import ModuleType

import pytest

from tests.storms import cancels, kills, writes
from tests.storms.__main__ import STORMS
from tests.storms.program import Outcome

pytestmark = pytest.mark.slow


@contextlib.asynccontextmanager
async def _no_scene(_seed: int, **_settings: object) -> AsyncIterator[None]:
    yield None


async def _count(_scene: None, count: int) -> Outcome:
    return Outcome({"done": count})


@pytest.mark.parametrize(
    ("program", "names"),
    [(kills, ["kill_daemons", "kill_workers"]), (writes, ["fail_writes"]), (cancels, ["race"])],
    ids=["kills", "writes", "cancels"],
)
async def test_the_counts_are_made_in_full(
    program: ModuleType, names: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(program, "scene", _no_scene)
    for name in names:
        monkeypatch.setattr(program, name, _count)
    counts = STORMS[program.__name__.rpartition(".")[2]]
    outcome = await program.storm(argparse.Namespace(seed=1, **counts))
    assert outcome.counts["done"] == sum(counts.values())
