"""Rows with LoRAs of their own share model calls; what comes and goes leaves nothing behind."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from craft_protos.worker_pb2 import ModelManifest, ToWorker, Unload

from tests import tiny_loras
from tests.worker import flows
from tests.worker.client import WorkerProcess, pixels, provenance, submit
from tests.worker.client import worker as started
from tests.worker.loras import Make, Stored, submit_with

Loras = list[tuple[Stored, float]]


def _alone(worker: WorkerProcess, model: ModelManifest, loras: Loras, **spec: Any) -> np.ndarray:
    (image,) = worker.draw(submit_with(model, loras, **spec))
    return pixels(image)


@pytest.mark.parametrize("kind", ["sd", "sdxl", "sd3", "flux", *flows.KINDS])
def test_rows_with_a_b_both_and_none_get_what_they_get_alone(
    worker: WorkerProcess, models: dict[str, ModelManifest], pipelines: Callable[[str], Any], make: Make, kind: str
) -> None:
    """In one batch, within 2/255 of each alone; A changes the prompt too, B the convolutions."""
    texts = [tiny_loras.denoiser(pipelines(kind)), "text_encoder"]
    a = make(kind, "a", tiny_loras.text_model_peft, seed=101, components=texts)
    b = make(kind, "b", seed=102, conv=kind in ("sd", "sdxl"), rank=20)
    asked: dict[str, Loras] = {"a": [(a, 0.8)], "ab": [(a, 0.5), (b, -0.6)], "b": [(b, 1.0)], "none": []}
    worker.draw(submit_with(models[kind], [(a, 1.0), (b, 1.0)], "warm", steps=2))
    images = worker.draw(*(submit_with(models[kind], loras, job) for job, loras in asked.items()))
    assert [provenance(image)["batch"] for image in images] == [4] * 4
    for image, loras in zip(images, asked.values(), strict=True):
        assert np.abs(pixels(image) - _alone(worker, models[kind], loras)).max() <= 2
    assert np.abs(pixels(images[0]) - pixels(images[3])).max() > 4


@pytest.mark.parametrize("kind", flows.KINDS)
def test_rows_of_other_lengths_get_what_they_get_alone(
    worker: WorkerProcess, models: dict[str, ModelManifest], make: Make, kind: str
) -> None:
    """Their LoRAs change every layer: also those that read the words, wherever the rows' words stand."""
    a = make(kind, "all-a", seed=103, wanted=lambda _: True, strength=0.2)
    b = make(kind, "all-b", seed=104, wanted=lambda _: True, rank=20, strength=0.2)
    asked: dict[str, tuple[Loras, dict[str, Any]]] = {
        "a": ([(a, 0.8)], {"prompt": "a cat", "negative_prompt": "a dog that is blue, " * 3}),
        "ab": ([(a, 0.5), (b, -0.6)], {"prompt": "a red cat in the snow, " * 5}),
        "b": ([(b, 1.0)], {"guidance_scale": flows.NEVER_GUIDED[kind]}),
        "none": ([], {"prompt": "a dog, a dog, and another dog"}),
    }
    worker.draw(submit_with(models[kind], [(a, 1.0), (b, 1.0)], "warm", steps=2))
    images = worker.draw(*(submit_with(models[kind], loras, job, **spec) for job, (loras, spec) in asked.items()))
    assert [provenance(image)["batch"] for image in images] == [4] * 4
    for image, (loras, spec) in zip(images, asked.values(), strict=True):
        assert np.abs(pixels(image) - _alone(worker, models[kind], loras, **spec)).max() <= 2


def test_eight_rows_of_eight_sets_share_their_calls(worker: WorkerProcess, sd: ModelManifest, make: Make) -> None:
    """From disk and from slots: 20 steps, at most 22 calls."""
    loras = [make("sd", f"eight{i}", seed=110 + i) for i in range(8)]
    jobs = [submit_with(sd, [(lora, 1.0)], f"job{i}", steps=20) for i, lora in enumerate(loras)]
    worker.draw(submit(sd, "warm", steps=1))
    before = worker.predict_calls()
    for _ in ("from disk", "from slots"):
        images = worker.draw(*jobs)
        assert len({image.data for image in images}) == 8
        calls = worker.predict_calls()
        assert calls - before <= 22
        before = calls


def test_merged_sets_beside_slots(worker: WorkerProcess, sd: ModelManifest, make: Make) -> None:
    """Three sets that must be merged, one in slots and none, all at once."""
    doras = [make("sd", f"merged{i}", seed=120 + i, dora=True) for i in range(3)]
    asked: list[Loras] = [*([(dora, 0.9)] for dora in doras), [(make("sd", "beside", seed=123), 1.0)], []]
    alone = [_alone(worker, sd, loras) for loras in asked]
    images = worker.draw(*(submit_with(sd, loras, f"job{i}") for i, loras in enumerate(asked)))
    for image, expected in zip(images, alone, strict=True):
        assert np.abs(pixels(image) - expected).max() <= 2


@pytest.fixture(scope="module")
def small(files: Path, models: dict[str, ModelManifest]) -> Iterator[WorkerProcess]:
    """A worker with four slots, for the sd model."""
    with started(files, "--lora-slots", "4") as worker:
        yield worker


def test_rows_wait_for_slots_and_all_are_drawn(small: WorkerProcess, sd: ModelManifest, make: Make) -> None:
    """Twelve LoRAs, four slots."""
    loras = [make("sd", f"twelve{i}", seed=130 + i) for i in range(12)]
    jobs = [submit_with(sd, [(lora, 1.0)], f"job{i:02}") for i, lora in enumerate(loras)]
    together = small.draw(*jobs)
    for image, lora in zip(together, loras, strict=True):
        assert np.abs(pixels(image) - _alone(small, sd, [(lora, 1.0)])).max() <= 2


def test_200_jobs_over_30_loras_leave_the_model_as_it_was(small: WorkerProcess, sd: ModelManifest, make: Make) -> None:
    """Every third LoRA must be merged. The base picture is the same to the bit, and memory does not grow."""
    loras = [
        make("sd", f"thirty{i}", tiny_loras.text_model_peft, seed=140 + i, dora=i % 3 == 2, components=parts)
        for i in range(30)
        for parts in (["unet", "text_encoder"] if i % 2 else ["unet"],)
    ]
    small.seen.clear()
    before = _base(small, sd)
    _draw_all(small, sd, loras, 100)
    halfway = _rss_bytes(small)
    _draw_all(small, sd, loras, 100)
    assert _rss_bytes(small) - halfway < 20e6
    assert _base(small, sd) == before
    assert not [frame for frame in small.seen if frame.WhichOneof("frame") == "failed"]


def _draw_all(worker: WorkerProcess, model: ModelManifest, loras: list[Stored], count: int) -> None:
    names = [f"job{i}" for i in range(count)]
    worker.send(*(submit_with(model, [(loras[i % 30], 0.8)], name, steps=1) for i, name in enumerate(names)))
    worker.until_ended(*names)


def _base(worker: WorkerProcess, model: ModelManifest) -> bytes:
    (image,) = worker.draw(submit(model, deterministic=True))
    worker.predict_calls()
    return pixels(image).tobytes()


def _rss_bytes(worker: WorkerProcess) -> int:
    return int(worker.until(lambda frame: frame.stats.doing == "idle").stats.rss_bytes)


def test_unloading_the_model_gives_its_loras_back(small: WorkerProcess, sd: ModelManifest, make: Make) -> None:
    lora = make("sd", "unloaded", seed=180)
    before = _alone(small, sd, [(lora, 1.0)])
    small.send(ToWorker(unload=Unload(model="sd")))
    small.until_kind("unloaded")
    assert np.array_equal(_alone(small, sd, [(lora, 1.0)]), before)


def test_what_a_row_has_alone_does_not_depend_on_what_was_before(
    worker: WorkerProcess, sd: ModelManifest, make: Make
) -> None:
    lora, other = make("sd", "first", seed=190, conv=True), make("sd", "second", seed=191)
    first = _alone(worker, sd, [(lora, 1.0)])
    _alone(worker, sd, [(other, 1.0)])
    assert np.array_equal(_alone(worker, sd, [(lora, 1.0)]), first)
