"""What craft makes of a LoRA's file is what the program that wrote it means: peft's own layers, LyCORIS' formula."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from craft_protos.lora_strength import Strength
from craft_protos.reasons import CraftError
from craftd.worker.lora import match, merge
from craftd.worker.lora.targets import Targets
from peft import LoraConfig, get_peft_model
from peft.tuners.lora import LoraLayer
from peft.utils import get_peft_model_state_dict
from safetensors import safe_open
from safetensors.torch import load_file

from tests import tiny_loras

TO_Q = "mid_block.attentions.0.transformer_blocks.0.attn1.to_q"
CONV = "mid_block.resnets.0.conv1"
Weights = dict[str, torch.Tensor]
Merge = Callable[..., Weights]


@pytest.fixture
def merged(tmp_path: Path, pipelines: Callable[[str], Any]) -> Merge:
    """The weights of one component that craft draws with."""

    def from_tensors(
        tensors: tiny_loras.Tensors,
        metadata: dict[str, str] | None = None,
        *,
        strength: float = 1.0,
        component: str = "unet",
        kind: str = "sd",
    ) -> Weights:
        file = tiny_loras.save(tensors, tmp_path / "it.safetensors", metadata)
        targets = Targets(pipelines(kind))
        adapter = match.read(file, targets, name="it", sha256="0" * 64, size_bytes=0)
        assert adapter.facts.matched == adapter.facts.total, adapter.facts.unmatched
        return dict(merge.merge([(adapter, Strength(strength))], merge.own_weights(targets)).weights.get(component, {}))

    return from_tensors


def trained(network: Any, **config: Any) -> Any:
    """A copy of a network with an adapter of peft's, of random numbers."""
    torch.manual_seed(7)
    made = get_peft_model(copy.deepcopy(network), LoraConfig(init_lora_weights=False, **config))
    for name, parameter in made.named_parameters():
        if "magnitude" in name:
            parameter.data *= 1 + 0.3 * torch.rand_like(parameter)
    return made


def means(model: Any, strength: float = 1.0) -> Weights:
    """What peft makes of the layers that it changes."""
    found = {}
    model = copy.deepcopy(model)
    for name, layer in model.base_model.model.named_modules():
        if isinstance(layer, LoraLayer):
            layer.set_scale("default", strength)
            layer.merge(adapter_names=["default"])
            found[name] = layer.get_base_layer().weight.detach()
    return found


def assert_same(found: Weights, expected: Weights) -> None:
    assert set(found) == set(expected)
    for path, weight in expected.items():
        assert torch.allclose(found[path], weight, atol=2e-5), path


CONFIGS: dict[str, dict[str, Any]] = {
    "alpha": {"r": 4, "lora_alpha": 8},
    "rank-stabilised": {"r": 4, "lora_alpha": 8, "use_rslora": True},
    "alpha by layer": {"r": 4, "lora_alpha": 4, "alpha_pattern": {"to_q": 32}},
    "alpha by a layer's whole name": {"r": 4, "lora_alpha": 4, "alpha_pattern": {TO_Q: 32, "to_q": 2}},
    "rank by layer": {"r": 4, "lora_alpha": 8, "rank_pattern": {"to_q": 16}},
    "both": {"r": 4, "lora_alpha": 8, "rank_pattern": {"to_q": 16}, "alpha_pattern": {"attn1.to_q": 2}},
    "a pattern": {"r": 4, "lora_alpha": 4, "alpha_pattern": {"(?:to_q|to_k)": 32, r"mid_block\..*\.to_v": 16}},
    "from the beginning": {"r": 4, "lora_alpha": 4, "alpha_pattern": {f"^{TO_Q}": 32}},
    "DoRA": {"r": 4, "lora_alpha": 8, "use_dora": True},
}


@pytest.mark.parametrize("name", CONFIGS)
def test_a_file_of_pefts_own(merged: Merge, pipelines: Callable[[str], Any], tmp_path: Path, name: str) -> None:
    """adapter_model.safetensors, with what stands in the adapter_config.json beside it."""
    model = trained(pipelines("sd").unet, target_modules=["to_q", "to_k", "to_v", "conv1"], **CONFIGS[name])
    model.save_pretrained(tmp_path / "saved")
    tensors = load_file(tmp_path / "saved" / "adapter_model.safetensors")
    config = (tmp_path / "saved" / "adapter_config.json").read_text()
    assert_same(merged(tensors, {"lora_adapter_metadata": config}), means(model))


@pytest.mark.parametrize("name", CONFIGS)
def test_a_file_of_diffusers_with_metadata(
    merged: Merge, pipelines: Callable[[str], Any], tmp_path: Path, name: str
) -> None:
    """A pipeline's save_lora_weights names the component, a network's save_lora_adapter names none."""
    from diffusers import StableDiffusionPipeline

    model = trained(pipelines("sd").unet, target_modules=["to_q", "to_k", "to_v"], **CONFIGS[name])
    told = {
        key: list(one) if isinstance(one, set) else one for key, one in model.peft_config["default"].to_dict().items()
    }
    tensors = {
        key.removeprefix("base_model.model."): tensor for key, tensor in get_peft_model_state_dict(model).items()
    }
    StableDiffusionPipeline.save_lora_weights(
        tmp_path, unet_lora_layers=tensors, weight_name="pipe.safetensors", unet_lora_adapter_metadata=told
    )
    with safe_open(tmp_path / "pipe.safetensors", "pt") as file:
        metadata = file.metadata()
    saved = load_file(tmp_path / "pipe.safetensors")
    assert_same(merged(saved, metadata), means(model))
    assert_same(merged(tensors, {"lora_adapter_metadata": json.dumps(told)}), means(model))


@pytest.mark.parametrize("strength", [1.0, 0.5, -0.3, 1.7])
def test_dora_of_pefts_at_any_strength(merged: Merge, pipelines: Callable[[str], Any], strength: float) -> None:
    """peft scales the product, and renorms what comes of it."""
    model = trained(pipelines("sd").unet, r=4, lora_alpha=4, use_dora=True, target_modules=["to_q", "conv1"])
    assert_same(merged(get_peft_model_state_dict(model), strength=strength), means(model, strength))


@pytest.mark.parametrize("strength", [1.0, 0.5, -0.3, 1.7])
@pytest.mark.parametrize("layer", [TO_Q, CONV])
@pytest.mark.parametrize("by_output", [True, False])
def test_dora_of_lycoris_at_any_strength(
    merged: Merge, pipelines: Callable[[str], Any], strength: float, layer: str, *, by_output: bool
) -> None:
    """LyCORIS' weight_decompose (4.1): the whole change, times strength * (magnitude / norm - 1) + 1."""
    weight = pipelines("sd").unet.get_submodule(layer).weight.detach()
    everything = tiny_loras.random(pipelines("sd"), seed=3, conv=True, alpha=2.0)
    change = everything["unet", layer]
    axis = 0 if by_output else 1
    others = [dim for dim in range(weight.ndim) if dim != axis]
    norm = torch.linalg.vector_norm
    magnitude = norm(weight, dim=others, keepdim=True) * (1.1 + 0.3 * torch.rand(1))
    tensors = tiny_loras.kohya({("unet", layer): change})
    tensors[f"lora_unet_{layer.replace('.', '_')}.dora_scale"] = magnitude
    changed = weight + (change.up @ change.down.flatten(1)).view_as(weight) * 0.5
    scale = magnitude / norm(changed, dim=others, keepdim=True)
    expected = changed * (strength * (scale - 1) + 1)
    assert_same(merged(tensors, strength=strength), {layer: expected})


@pytest.mark.parametrize("form", [tiny_loras.peft, tiny_loras.kohya])
def test_a_dora_at_nought_is_the_model_itself(
    merged: Merge, pipelines: Callable[[str], Any], form: Callable[..., Any]
) -> None:
    pipe = pipelines("sd")
    found = merged(form(tiny_loras.random(pipe, seed=4, dora=True)), strength=0.0)
    assert all(torch.equal(weight, pipe.unet.get_submodule(path).weight) for path, weight in found.items())


@pytest.mark.parametrize("order", [1, -1])
def test_a_dora_beside_another_counts_from_the_models_own_weights(
    pipelines: Callable[[str], Any], tmp_path: Path, order: int
) -> None:
    """As peft adds them up: whichever comes first."""
    pipe = pipelines("sd")
    targets, adapters = Targets(pipe), []
    for name, dora in (("dora", True), ("plain", False)):
        file = tiny_loras.save(tiny_loras.peft(tiny_loras.random(pipe, seed=5, dora=dora)), tmp_path / name)
        adapters.append((match.read(file, targets, name=name, sha256="0" * 64, size_bytes=0), Strength(0.7)))
    own = merge.own_weights(targets)
    alone = [merge.merge([adapter], own).weights["unet"][TO_Q] for adapter in adapters]
    both = merge.merge(adapters[::order], own).weights["unet"][TO_Q]
    weight = own["unet"][TO_Q]()
    assert torch.allclose(both - weight, alone[0] - weight + alone[1] - weight, atol=1e-5)


REFUSED = {
    "another kind": ({"peft_type": "LOHA", "lora_alpha": 4}, "LOHA"),
    "begun from the weights": ({"init_lora_weights": "pissa_niter_4", "lora_alpha": 4}, "pissa"),
    "layers repeated": ({"layer_replication": [[0, 2]], "lora_alpha": 4}, "layer_replication"),
    "a pattern that backtracks": ({"lora_alpha": 4, "alpha_pattern": {"(a+)+": 8}}, "(a+)+"),
    "of many stars": ({"lora_alpha": 4, "alpha_pattern": {".*.*.*x": 8}}, ".*.*.*x"),
    "an alpha that is none": ({"lora_alpha": 4, "alpha_pattern": {"to_q": "8"}}, "to_q"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_followed_is_refused_by_name(merged: Merge, pipelines: Callable[[str], Any], name: str) -> None:
    config, says = REFUSED[name]
    tensors = tiny_loras.peft(tiny_loras.random(pipelines("sd"), seed=1))
    for metadata in (config, {f"unet.{key}": value for key, value in config.items()}):
        with pytest.raises(CraftError) as caught:
            merged(tensors, {"lora_adapter_metadata": json.dumps(metadata)})
        assert caught.value.reason == "UNSUPPORTED_LORA" and says in caught.value.message
