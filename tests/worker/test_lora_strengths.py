"""A LoRA's strength by block, in the text encoders and over the steps, in slots and merged."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from craft_protos.worker_pb2 import ModelManifest, ToWorker
from craftd.worker.lora import originals
from craftd.worker.lora.targets import component_of

from tests import tiny_loras
from tests.worker.client import WorkerProcess, pixels, provenance
from tests.worker.loras import Make, Stored, put_lora, submit_with

MERGED_RANK = 130  # above the largest slot
UNET = [("input_blocks", 1), ("middle_block", 13), ("output_blocks", 14)]
FLUX = [("double_blocks", 3), ("single_blocks", 22)]


def weight_of(original: str, weights: list[float]) -> float:
    """By the original's name of a layer, as the extension LoRA Block Weight goes."""
    for name, first in [*UNET, *FLUX]:
        if found := re.match(rf"{name}\.(\d+)", original):
            return weights[first + (0 if name == "middle_block" else int(found[1]))]
    if len(weights) == 61 and re.match(r"\w+_in\b", original):
        return weights[2]
    return weights[60] if len(weights) == 61 and original.startswith("final_layer") else 1.0


def scaled(adapter: tiny_loras.Adapter, pipe: Any, weights: list[float], text: float) -> tiny_loras.Adapter:
    """The same, its numbers as strong as the blocks say."""
    name = tiny_loras.denoiser(pipe)
    known = originals.names(component_of(getattr(pipe, name)))
    by_layer = {part.layer: original for original, parts in known.items() for part in parts}
    factors = {key: weight_of(by_layer[key[1]], weights) if key[0] == name else weights[0] * text for key in adapter}
    return {key: replace(one, up=one.up * factors[key]) for key, one in adapter.items()}


@pytest.fixture
def pair(tmp_path: Path, files: Path, pipelines: Callable[[str], Any]) -> Callable[..., tuple[Stored, Stored]]:
    """A LoRA, and one that is as strong in each block as the weights say."""

    def made(kind: str, name: str, weights: list[float], text: float = 1.0, **random: Any) -> tuple[Stored, Stored]:
        pipe = pipelines(kind)
        whole = tiny_loras.random(pipe, components=[tiny_loras.denoiser(pipe), "text_encoder"], **random)
        saved = [
            tiny_loras.save(tiny_loras.text_model_peft(one), tmp_path / f"{name}{place}.safetensors")
            for place, one in enumerate((whole, scaled(whole, pipe, weights, text)))
        ]
        return put_lora(saved[0], files), put_lora(saved[1], files)

    return made


def with_(sent: ToWorker, **told: Any) -> ToWorker:
    """The job, its first LoRA with more than a weight."""
    use = sent.dispatch.generate.loras[0]
    use.blocks.extend(told.pop("blocks", ()))
    for name, value in told.items():
        setattr(use, name, value)
    return sent


@pytest.mark.parametrize(("kind", "count"), [("sd", 26), ("flux", 61)])
@pytest.mark.parametrize("rank", [4, MERGED_RANK])
def test_blocks_are_as_a_file_that_is_so_strong(  # noqa: PLR0917
    worker: WorkerProcess,
    models: dict[str, ModelManifest],
    pair: Callable[..., tuple[Stored, Stored]],
    kind: str,
    count: int,
    rank: int,
) -> None:
    """Alone, and beside a row with other blocks and one that has none of it."""
    weights = [((7 * place) % 5) / 2 - 0.5 for place in range(count)]
    it, by_hand = pair(kind, f"{kind}{rank}", weights, 0.5, seed=41, rank=rank, strength=0.5 if rank == 4 else 0.05)
    job = with_(submit_with(models[kind], [(it, 0.8)], "a"), blocks=weights, text_weight=0.4)
    other = with_(submit_with(models[kind], [(it, 0.8)], "b"), blocks=weights[::-1])
    (alone,), (expected,) = worker.draw(job), worker.draw(submit_with(models[kind], [(by_hand, 0.8)]))
    assert np.abs(pixels(alone) - pixels(expected)).max() <= 1
    assert np.abs(pixels(alone) - pixels(worker.draw(submit_with(models[kind], [(it, 0.8)]))[0])).max() > 4
    assert provenance(alone)["loras"][0]["blocks"] == weights
    together = worker.draw(job, other, submit_with(models[kind], [], "c"))
    assert np.abs(pixels(together[0]) - pixels(alone)).max() <= 1
    if rank == 4:
        assert [provenance(one)["batch"] for one in together] == [3] * 3
        assert np.abs(pixels(together[1]) - pixels(worker.draw(other)[0])).max() <= 1


@pytest.mark.parametrize(
    ("kind", "rank", "told"),
    [
        ("sd", 4, {"start": 0.2, "end": 0.7}),
        ("sd", MERGED_RANK, {"start": 2, "end": 4}),
        ("flux", 4, {"start": 2, "end": 4}),
    ],
)
def test_over_the_steps_is_what_diffusers_draws_step_by_step(  # noqa: PLR0917
    worker: WorkerProcess,
    models: dict[str, ModelManifest],
    pipelines: Callable[[str], Any],
    truth: Any,
    make: Make,
    kind: str,
    rank: int,
    told: dict[str, float],
) -> None:
    """Of five steps the second and the third; alone, and beside a row that has it throughout."""
    it = make(kind, f"timed{rank}", seed=43, rank=rank, strength=0.5 if rank == 4 else 0.15)
    pipe = pipelines(kind)

    def set_for(step: int) -> None:
        pipe.set_adapters(["it"], [0.8 if step in (1, 2) else 0.0])

    def after(_pipe: Any, step: int, _timestep: Any, kept: dict[str, Any]) -> dict[str, Any]:
        set_for(step + 1)
        return kept

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            pipe.load_lora_weights(str(it.path.parent), weight_name=it.path.name, adapter_name="it")
            set_for(0)
            expected = truth(kind, steps=5, callback_on_step_end=after)
        finally:
            pipe.unload_lora_weights()
    job = with_(submit_with(models[kind], [(it, 0.8)], "it", steps=5), **told)
    whole = submit_with(models[kind], [(it, 0.8)], "whole", steps=5)
    (alone,) = worker.draw(job)
    assert np.abs(pixels(alone) - expected).max() <= 2
    assert np.abs(pixels(worker.draw(whole)[0]) - expected).max() > 4
    for image in worker.draw(job, whole)[:1]:
        assert np.abs(pixels(image) - pixels(alone)).max() <= 1
