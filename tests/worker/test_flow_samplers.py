"""The front offers a flow-matching model the samplers that the worker takes, and no others."""

from __future__ import annotations

from craft_protos import samplers
from craftd.worker.families.samplers import FLOW_RECIPES, RECIPES


def test_both_sides_know_the_same_samplers() -> None:
    assert set(samplers.SAMPLERS) == set(RECIPES)
    assert tuple(FLOW_RECIPES) == samplers.FLOW
