"""A seed for every storm, which is printed where one fails."""

from __future__ import annotations

import pytest


@pytest.fixture
def storm_seed(request: pytest.FixtureRequest) -> int:
    """`--storm-seed N` replays a plan; without it, each run has the same."""
    seed = int(request.config.getoption("--storm-seed"))
    print(f"--storm-seed {seed}")
    return seed
