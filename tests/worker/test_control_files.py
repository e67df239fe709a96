"""Control models' files: diffusers' folders, and files of their own in both layouts, are the same network."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from craft_protos.dispatch import CONTROLNET, ModelManifest
from craft_protos.reasons import CraftError
from craftd import safetensors
from craftd.architectures import controls, detect
from craftd.worker.inputs import outlines
from craftd.worker.models import control
from safetensors.torch import save_file

from tests import tiny_controls
from tests.worker import original_layout
from tests.worker.trained import CPU

KINDS: dict[str, dict[str, Any]] = {
    "sd1": {"text_width": 768},
    "sd2": {"text_width": 1024},
    "sdxl": {"text_width": 2048, "is_xl": True},
}
# Hashes of the edges that OpenCV 5.0 finds, by its thresholds.
EDGES = {(100, 200): "f4f6bb2c122b250c", (30, 60): "15865a45767fef97"}
PREFIXES = {"original": "control_model.", "diffusers": ""}


def _tensors(network: Any, layout: str) -> dict[str, torch.Tensor]:
    made = original_layout.control(network) if layout == "original" else network.state_dict()
    return {PREFIXES[layout] + name: tensor.contiguous() for name, tensor in made.items()}


def _says(network: Any) -> list[torch.Tensor]:
    """What it adds to each skip and to the middle, for one random input."""
    torch.manual_seed(5)
    size = network.config.cross_attention_dim
    added = {"text_embeds": torch.randn(1, 1280), "time_ids": torch.full((1, 6), 64.0)}
    with torch.inference_mode():
        down, middle = network(
            torch.randn(1, 4, 8, 8),
            torch.tensor([500.0]),
            encoder_hidden_states=torch.randn(1, 7, size),
            controlnet_cond=torch.rand(1, 3, 64, 64),
            added_cond_kwargs=added if network.config.addition_embed_type else None,
            return_dict=False,
        )
    return [*down, middle]


@pytest.mark.parametrize("layout", sorted(PREFIXES))
@pytest.mark.parametrize("kind", sorted(KINDS))
def test_a_file_alone_says_what_its_folder_says(tmp_path: Path, kind: str, layout: str) -> None:
    network = tiny_controls.small(**KINDS[kind])
    (tmp_path / CONTROLNET).mkdir()
    path = tmp_path / CONTROLNET / "component.safetensors"
    save_file(_tensors(network, layout), path)
    found = detect.of_part(safetensors.read(path))
    assert found is not None and found.kind.id == f"control-{kind}"
    made = control.load(ModelManifest("it"), tmp_path, CPU).network
    for ours, theirs in zip(_says(made), _says(network), strict=True):
        assert torch.allclose(ours, theirs, atol=1e-5)


def test_what_a_file_lacks_is_named(tmp_path: Path) -> None:
    network = tiny_controls.small(768)
    (tmp_path / CONTROLNET).mkdir()
    tensors = _tensors(network, "diffusers")
    del tensors["controlnet_mid_block.weight"]
    save_file(tensors, tmp_path / CONTROLNET / "component.safetensors")
    with pytest.raises(CraftError, match="controlnet_mid_block") as refused:
        control.load(ModelManifest("it"), tmp_path, CPU)
    assert refused.value.reason == "CORRUPT_FILE"


@pytest.mark.parametrize(
    ("names", "reads"),
    [
        (("control_v11p_sd15_canny",), "canny"),
        (("it", "lllyasviel/sd-controlnet-depth@abc"), "depth"),
        (("control_v11p_sd15_openpose.safetensors",), "pose"),
        (("controlnet-scribble-sdxl-1.0",), "scribble"),
        (("pocket-edges",), "edges"),
        (("control_v11f1e_sd15_tile",), "tile"),
        (("mine",), ""),
    ],
)
def test_what_it_reads_is_told_by_its_name(names: tuple[str, ...], reads: str) -> None:
    assert controls.said_by(*names) == reads


@pytest.mark.parametrize(
    ("said", "kind", "expected"),
    [("edges", "scribble", True), ("scribble", "edges", True), ("canny", "scribble", False), ("edges", "tile", False)],
)
def test_kinds_of_lines_are_alike(said: str, kind: str, expected: bool) -> None:
    assert controls.reads_lines(said, kind) is expected


def test_canny_is_everybodys() -> None:
    """To the bit what OpenCV makes of the same pixels."""
    rng = np.random.default_rng(11)
    blocks = np.kron(rng.integers(0, 240, (9, 13, 3)), np.ones((11, 10, 1), int))
    pixels = (blocks + rng.integers(0, 16, blocks.shape)).astype(np.uint8)
    for thresholds, expected in EDGES.items():
        found = outlines.canny(pixels, *thresholds)
        assert hashlib.sha256(found.tobytes()).hexdigest()[:16] == expected
