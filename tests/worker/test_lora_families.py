"""Each family with LoRAs is what diffusers draws after load_lora_weights and set_adapters, within 2/255."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from craft_protos.worker_pb2 import ModelManifest

from tests import tiny_loras
from tests.matrix import covers
from tests.worker import flows
from tests.worker.client import WorkerProcess, pixels, provenance
from tests.worker.families import Truth, draw
from tests.worker.loras import Make, Stored, diffusers_draws, submit_with

KINDS = ("sd", "sdxl", "sd3", "flux", *flows.KINDS)
Loras = list[tuple[Stored, float]]
Check = Callable[[str, Loras], None]


@pytest.fixture
def assert_as_diffusers(
    worker: WorkerProcess,
    models: dict[str, ModelManifest],
    pipelines: Callable[[str], Any],
    truth: Truth,
    flow_truth: Truth,
) -> Callable[[str, Loras], None]:
    """That craft's picture is diffusers', and the model itself again afterwards."""

    def check(kind: str, loras: Loras) -> None:
        known = flow_truth if kind in flows.KINDS else truth
        expected = diffusers_draws(pipelines(kind), loras, known, kind)
        (image,) = worker.draw(submit_with(models[kind], loras))
        assert np.abs(pixels(image) - expected).max() <= 2
        plain = known(kind)
        assert np.abs(expected - plain).max() > 4, "a LoRA that changes nothing proves nothing"
        told = provenance(image)["loras"]
        assert [(one["sha256"], one["weight"]) for one in told] == [(s.file.sha256, w) for s, w in loras]
        assert all(one["matched"] == one["total"] > 0 for one in told)
        assert np.abs(draw(worker, models[kind]) - plain).max() <= 1

    return check


@covers("LoRA", form="folder", kind="kind")
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("weights", [(1.0,), (0.7, 0.4), (-0.8,)])
def test_weights(assert_as_diffusers: Check, make: Make, kind: str, weights: tuple[float, ...]) -> None:
    """The second one has a rank of the next bucket."""
    loras = [(make(kind, f"plain{i}", seed=i, rank=4 + 16 * i), weight) for i, weight in enumerate(weights)]
    assert_as_diffusers(kind, loras)


@pytest.mark.parametrize("kind", ["sd", "sdxl"])
@pytest.mark.parametrize("form", [tiny_loras.peft, tiny_loras.kohya])
def test_convolutions(assert_as_diffusers: Check, make: Make, kind: str, form: Callable[..., Any]) -> None:
    lora = make(kind, f"conv-{form.__name__}", form, seed=5, conv=True, strength=0.3)
    assert_as_diffusers(kind, [(lora, 0.9)])


@pytest.mark.parametrize("kind", ["sd", "sdxl", "sd3", "flux"])
def test_text_encoders(assert_as_diffusers: Check, make: Make, pipelines: Callable[[str], Any], kind: str) -> None:
    names = ["text_encoder", *(["text_encoder_2"] if kind in ("sdxl", "sd3") else [])]
    components = [tiny_loras.denoiser(pipelines(kind)), *names]
    lora = make(kind, "text", tiny_loras.text_model_peft, seed=6, components=components, strength=2.0)
    assert_as_diffusers(kind, [(lora, 0.8)])


def test_a_lora_of_the_text_encoder_alone(assert_as_diffusers: Check, make: Make) -> None:
    lora = make("sd", "text-alone", tiny_loras.text_model_peft, seed=7, components=["text_encoder"], strength=4.0)
    assert_as_diffusers("sd", [(lora, 1.0)])


@pytest.mark.parametrize(
    ("kind", "weight"), [("sd", 0.6), ("sdxl", 1.0), ("sd3", 0.6), ("flux", 1.0), ("z-image", 0.7)]
)
def test_dora(assert_as_diffusers: Check, make: Make, kind: str, weight: float) -> None:
    assert_as_diffusers(kind, [(make(kind, "dora", seed=8, dora=True), weight)])


def test_dora_with_convolutions_and_another(assert_as_diffusers: Check, make: Make) -> None:
    dora = make("sd", "dora-conv", seed=9, dora=True, conv=True)
    assert_as_diffusers("sd", [(dora, 0.8), (make("sd", "plain0", seed=0, rank=4), 0.5)])


def test_more_than_a_row_has_slots_for(assert_as_diffusers: Check, make: Make) -> None:
    loras = [(make("sd", f"many{i}", seed=20 + i), 0.3) for i in range(5)]
    assert_as_diffusers("sd", loras)


def test_a_rank_over_the_largest_bucket(assert_as_diffusers: Check, make: Make) -> None:
    assert_as_diffusers("sd", [(make("sd", "large", seed=30, rank=160), 1.0)])


@pytest.mark.parametrize(
    "form", [tiny_loras.kohya, tiny_loras.old_attention, tiny_loras.diffusers_names], ids=lambda form: form.__name__
)
def test_forms_that_diffusers_reads_too(assert_as_diffusers: Check, make: Make, form: Callable[..., Any]) -> None:
    lora = make("sd", form.__name__, form, seed=40, rank=4, alpha=2.0, wanted=tiny_loras.is_attention_head)
    assert_as_diffusers("sd", [(lora, 1.0)])


@pytest.mark.parametrize(("kind", "dora"), [("sd", False), ("sd", True), *((kind, False) for kind in KINDS[1:])])
def test_kohya_and_peft_files_of_one_adapter_draw_one_picture(
    worker: WorkerProcess,
    models: dict[str, ModelManifest],
    pipelines: Callable[[str], Any],
    make: Make,
    *,
    kind: str,
    dora: bool,
) -> None:
    texts = [] if kind in flows.KINDS else ["text_encoder", *(["text_encoder_2"] if kind in ("sdxl", "sd3") else [])]
    more = {"components": [tiny_loras.denoiser(pipelines(kind)), *texts], "dora": dora, "conv": kind in ("sd", "sdxl")}
    more["strength"] = 1.5 if kind in flows.KINDS else 0.5  # else some of them hardly change
    forms = [tiny_loras.text_model_peft, tiny_loras.kohya, *([tiny_loras.sgm] if kind == "sdxl" else [])]
    loras = [make(kind, f"{form.__name__}-{dora}", form, seed=50, alpha=2.0, **more) for form in forms]
    strength = 1.0 if dora else 0.9  # at others LyCORIS and peft have rules of their own
    drawn = [pixels(worker.draw(submit_with(models[kind], [(lora, strength)]))[0]) for lora in loras]
    assert all(np.abs(other - drawn[0]).max() <= 1 for other in drawn[1:])
    assert np.abs(drawn[0] - draw(worker, models[kind])).max() > 4
