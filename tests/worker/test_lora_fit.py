"""A LoRA's reading against a model's layers: names and shapes alone, without torch or a file."""

from __future__ import annotations

import subprocess
import sys

import pytest
from craft_protos.reasons import CraftError
from craftd.worker.lora import reading
from craftd.worker.lora.fit import Fit, fit
from craftd.worker.lora.layout import Component, Layout
from craftd.worker.lora.spellings import Spellings

TO_K = "down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_k"
Q_PROJ = "encoder.layers.0.self_attn.q_proj"
LAYOUT = Layout(
    "StableDiffusionXLPipeline",
    {
        "unet": Component("UNet2DConditionModel", {TO_K: (640, 2048), "conv_in": (320, 4, 3, 3)}, 2),
        "text_encoder": Component("CLIPTextModel", {f"text_model.{Q_PROJ}": (768, 768)}),
        "text_encoder_2": Component("CLIPTextModelWithProjection", {f"text_model.{Q_PROJ}": (1280, 1280)}),
    },
)


def pair(name: str, outputs: int, inputs: tuple[int, ...], rank: int = 4) -> dict[str, tuple[int, ...]]:
    return {f"{name}.lora_A.weight": (rank, *inputs), f"{name}.lora_B.weight": (outputs, rank)}


def fitted(shapes: dict[str, tuple[int, ...]], layout: Layout = LAYOUT) -> Fit:
    return fit(reading.read("it", shapes, {}), Spellings(layout))


@pytest.mark.parametrize(("width", "component"), [(768, "text_encoder"), (1280, "text_encoder_2")])
def test_of_two_text_encoders_the_one_that_it_fits_is_meant(width: int, component: str) -> None:
    """peft calls the layers of both the same."""
    found = fitted(pair(f"base_model.model.text_model.{Q_PROJ}", width, (width,)))
    assert found.is_whole and [place.component for place in found.changes[0].places] == [component]


@pytest.mark.parametrize(
    ("shapes", "why"),
    [
        (pair("unet.nowhere", 4, (4,)), "the model has no such layer"),
        (pair(f"unet.{TO_K}", 640, (768,)), "the model's layer has another shape: 640x2048"),
        (pair(f"unet.{TO_K}", 320, (2048,)), "the model's layer has another shape: 640x2048"),
        (pair("unet.conv_in", 320, (4, 1, 1)), "the model's layer has another shape: 320x4x3x3"),
        ({f"unet.{TO_K}.lora_A.weight": (4, 2048)}, "the other half of it is missing"),
        (
            {**pair(f"unet.{TO_K}", 640, (2048,)), f"unet.{TO_K}.lora_magnitude_vector": (320,)},
            "the model's layer has another shape: 640x2048",
        ),
    ],
)
def test_why_a_layer_does_not_fit(shapes: dict[str, tuple[int, ...]], why: str) -> None:
    assert dict(fitted(shapes).unmatched) == dict.fromkeys(sorted(shapes), why)


def test_a_kernel_of_one_may_be_left_out() -> None:
    shapes = {
        f"unet.{TO_K}.lora_A.weight": (4, 2048, 1, 1),
        f"unet.{TO_K}.lora_B.weight": (640, 4, 1, 1),
        **pair("unet.conv_in", 320, (4, 3, 3)),
    }
    found = fitted(shapes)
    assert found.is_whole and found.layers("unet") == 2


def test_a_tucker_kernel_is_the_middles() -> None:
    name = "lora_unet_conv_in.lora"
    good = {
        f"{name}_down.weight": (4, 4, 1, 1),
        f"{name}_mid.weight": (8, 4, 3, 3),
        f"{name}_up.weight": (320, 8, 1, 1),
    }
    (change,) = fitted(good).changes
    assert change.rank == 8
    assert not fitted(good | {f"{name}_mid.weight": (8, 4, 1, 1)}).changes
    assert not fitted(good | {f"{name}_mid.weight": (8, 5, 3, 3)}).changes


def test_a_layout_is_the_same_after_it_was_kept() -> None:
    again = Layout.from_json(LAYOUT.to_json())
    assert again == LAYOUT and again.architecture.id == "sdxl" and again.denoiser == "unet"


def test_too_many_tensors_are_refused() -> None:
    with pytest.raises(CraftError) as caught:
        reading.read("it", {f"t{number}": (1,) for number in range(reading.MOST_TENSORS + 1)}, {})
    assert caught.value.reason == "CORRUPT_FILE"


def test_the_reading_needs_no_torch() -> None:
    """It is what a stranger's file meets in the inspecting process."""
    code = (
        "import sys; from craftd.worker.lora import fit; from craftd.worker.inspection import lora; print(*sys.modules)"
    )
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not {"torch", "numpy", "safetensors", "diffusers"} & set(loaded)
