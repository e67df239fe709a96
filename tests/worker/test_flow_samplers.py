"""The front offers a flow-matching model the samplers that the worker takes, and no others."""

from __future__ import annotations

import numpy as np
import pytest
from craft_protos import samplers
from craft_protos.worker_pb2 import ModelManifest
from craftd.worker.families.samplers import FLOW_RECIPES, RECIPES

from tests.worker.client import WorkerProcess
from tests.worker.families import Truth, draw


def test_both_sides_know_the_same_samplers() -> None:
    assert set(samplers.SAMPLERS) == set(RECIPES)
    assert tuple(FLOW_RECIPES) == samplers.FLOW


@pytest.mark.parametrize("kind", ["flux", "sd3"])
@pytest.mark.parametrize("schedule", ["Simple", "SGM Uniform", "Normal"])
def test_levels_are_those_that_diffusers_is_given(
    worker: WorkerProcess, models: dict[str, ModelManifest], truth: Truth, kind: str, schedule: str
) -> None:
    """ComfyUI's: `simple_scheduler` and `normal_scheduler` over a thousand levels, before the shift."""
    steps, table = 4, [(place + 1) / 1000 for place in range(1000)]
    begin, end = table[-1], table[0]
    levels = {
        "Simple": [table[-(1 + int(place * 1000 / steps))] for place in range(steps)],
        "SGM Uniform": [begin + (end - begin) * place / steps for place in range(steps)],
        "Normal": [begin + (end - begin) * place / (steps - 1) for place in range(steps)],
    }
    expected = truth(kind, steps=steps, sigmas=levels[schedule])
    found = draw(worker, models[kind], steps=steps, sampler=f"Euler {schedule}")
    assert np.abs(found - expected).max() <= 1
    if (kind, schedule) in {("flux", "Normal"), ("sd3", "Simple")}:  # others are the pipeline's own, or all but that
        assert np.abs(found - draw(worker, models[kind], steps=steps, sampler="Euler")).max() > 1
