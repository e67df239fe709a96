"""LoRAs by the names of a model's original program change what diffusers makes of that program's weights."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from craftd.worker.lora import match, originals
from craftd.worker.lora.targets import Targets, component_of, own_layers
from diffusers.loaders import single_file_utils

from tests import tiny_loras

KINDS = ("z-image", "flux2", "krea2")
_CONVERTERS = {
    "z-image": "convert_z_image_transformer_checkpoint_to_diffusers",
    "flux2": "convert_flux2_transformer_checkpoint_to_diffusers",
    "krea2": "convert_krea2_transformer_checkpoint_to_diffusers",
}
_PREFIXES = ("diffusion_model.", "", "base_model.model.", "model.diffusion_model.")
_RANK = 3


def _originals(network: Any) -> dict[str, tuple[int, int]]:
    """Outputs and inputs of every linear layer, by the original's names."""
    own = own_layers(network)
    named = originals.names(component_of(network))
    found = {
        original: (sum(own[part.layer].outputs for part in parts), own[parts[0].layer].inputs[0])
        for original, parts in named.items()
    }
    renamed = {part.layer for parts in named.values() for part in parts}
    return found | {path: (layer.outputs, layer.inputs[0]) for path, layer in own.items() if path not in renamed}


def _random(shapes: Mapping[str, tuple[int, int]]) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    generator = torch.Generator().manual_seed(3)
    return {
        name: (torch.randn(_RANK, inputs, generator=generator), torch.randn(outputs, _RANK, generator=generator))
        for name, (outputs, inputs) in shapes.items()
    }


@pytest.mark.parametrize("prefix", _PREFIXES)
@pytest.mark.parametrize("kind", KINDS)
def test_every_layer_is_changed_as_its_weights_are_converted(
    pipelines: Callable[[str], Any], tmp_path: Path, kind: str, prefix: str
) -> None:
    pipe = pipelines(kind)
    changes = _random(_originals(pipe.transformer))
    tensors = {}
    for name, (down, up) in changes.items():
        tensors |= {f"{prefix}{name}.lora_A.weight": down, f"{prefix}{name}.lora_B.weight": up}
    path = tiny_loras.save(tensors, tmp_path / "original.safetensors")
    read = match.read(path, Targets(pipe), name="it", sha256="0" * 64, size_bytes=path.stat().st_size)
    assert (read.facts.matched, read.facts.unmatched) == (len(tensors), {})
    convert = getattr(single_file_utils, _CONVERTERS[kind])
    expected = convert({f"{name}.weight": up @ down for name, (down, up) in changes.items()})
    found = read.deltas["transformer"]
    assert {f"{layer}.weight" for layer in found} == set(expected)
    assert set(found) == set(own_layers(pipe.transformer))
    for layer, delta in found.items():
        assert torch.allclose(delta.scale * delta.up @ delta.down, expected[f"{layer}.weight"], atol=1e-5), layer


@pytest.mark.parametrize("kind", KINDS)
def test_as_kohyas_programs_flatten_the_names(pipelines: Callable[[str], Any], tmp_path: Path, kind: str) -> None:
    """Original and diffusers' ones, all with an alpha."""
    pipe = pipelines(kind)
    own = {path: (layer.outputs, layer.inputs[0]) for path, layer in own_layers(pipe.transformer).items()}
    for shapes in (_originals(pipe.transformer), own):
        tensors = {}
        for name, (down, up) in _random(shapes).items():
            flat = f"lora_unet_{name.replace('.', '_')}"
            tensors |= {
                f"{flat}.lora_down.weight": down,
                f"{flat}.lora_up.weight": up,
                f"{flat}.alpha": torch.tensor(1.5),
            }
        path = tiny_loras.save(tensors, tmp_path / "flat.safetensors")
        read = match.read(path, Targets(pipe), name="it", sha256="0" * 64, size_bytes=path.stat().st_size)
        assert (read.facts.matched, read.facts.unmatched) == (len(tensors), {})
        assert {delta.scale for delta in read.deltas["transformer"].values()} == {0.5}
        assert set(read.deltas["transformer"]) == set(own)
