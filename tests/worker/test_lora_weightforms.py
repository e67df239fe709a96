"""Full differences, (IA)3, OFT and GLoRA are what their makers' formulas, written out, make of the same tensors."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from craft_protos.lora_strength import Strength
from craft_protos.reasons import CraftError
from craftd.worker.lora import match, merge
from craftd.worker.lora.adapter import Adapter
from craftd.worker.lora.targets import Targets

from tests import tiny_loras

TO_Q = "mid_block.attentions.0.transformer_blocks.0.attn1.to_q"
TO_OUT = "mid_block.attentions.0.transformer_blocks.0.attn1.to_out.0"
CONV = "mid_block.resnets.0.conv1"
RANK, ALPHA = 4, 2.0
Tensors = dict[str, torch.Tensor]
Made = tuple[Tensors, Callable[[torch.Tensor, float], torch.Tensor]]  # a file's tensors, and the weight they make


def numbers(*shape: int) -> torch.Tensor:
    return torch.randn(*shape) * 0.2


def difference(weight: torch.Tensor) -> Made:
    diff = numbers(*weight.shape)
    return {"diff": diff}, lambda own, strength: own + strength * diff


def ia3(weight: torch.Tensor, *, on_input: bool) -> Made:
    axis, shape = (1, "oi...,i->oi...") if on_input else (0, "oi...,o->oi...")
    scales = numbers(weight.shape[axis])
    saved = scales if weight.ndim == 2 else scales.view(1, -1, 1, 1)
    tensors = {"weight": saved, "on_input": torch.tensor(int(on_input))}
    return tensors, lambda own, strength: torch.einsum(shape, own, 1 + strength * scales)


def oft(weight: torch.Tensor, *, alpha: float = 0.0, rescaled: bool = False) -> Made:
    outputs = weight.shape[0]
    blocks = numbers(4, outputs // 4, outputs // 4)
    tensors = {"oft_blocks": blocks, "alpha": torch.tensor(alpha)}
    rescale = torch.ones(outputs, *[1] * (weight.ndim - 1))
    if rescaled:
        rescale = tensors["rescale"] = rescale + 0.3
    skew = blocks - blocks.transpose(1, 2)
    if alpha:
        skew = skew * min(1.0, alpha * outputs / float(skew.norm()))
    one = torch.eye(outputs // 4)
    turns = torch.block_diag(*((one + block) @ (one - block).inverse() for block in skew))

    def make(own: torch.Tensor, strength: float) -> torch.Tensor:
        by_degrees = strength * (turns - torch.eye(outputs)) + torch.eye(outputs)
        turned = (by_degrees.T @ own.flatten(1)).view_as(own) * rescale
        return turned if strength else own

    return tensors, make


def boft(weight: torch.Tensor, rescaled: bool = False, alpha: float = 0.0) -> Made:
    """Liu et al. 2024: a product of factors, each of turns of outputs that a permutation brings together."""
    outputs, side = len(weight), 4
    count = 3
    blocks = 0.2 * torch.randn(count, outputs // side, side, side)
    rescale = 1 + 0.1 * torch.randn(outputs, *[1] * (weight.ndim - 1))
    tensors = {"oft_blocks": blocks, "alpha": torch.tensor(alpha), **({"rescale": rescale} if rescaled else {})}

    def make(own: torch.Tensor, strength: float) -> torch.Tensor:
        skew = blocks - blocks.mT
        if alpha and skew.norm() > alpha * outputs:
            skew *= alpha * outputs / skew.norm()
        one = torch.eye(side)
        whole = torch.eye(outputs)
        for place in range(count):
            turns = strength * ((one + skew[place]) @ torch.linalg.inv(one - skew[place])) + (1 - strength) * one
            apart = 2**place * side // 2
            order = torch.arange(outputs).view(-1, 2, apart).transpose(1, 2).flatten()  # those that stand together
            brought = torch.eye(outputs)[order]
            whole = brought.T @ torch.block_diag(*turns) @ brought @ whole
        turned = (whole @ own.flatten(1)).view_as(own) * (rescale if rescaled else 1)
        return turned if strength else own

    return tensors, make


def glora(weight: torch.Tensor) -> Made:
    outputs, inputs, *kernel = weight.shape
    ones = [1] * len(kernel)
    a1, a2 = numbers(inputs, RANK, *ones), numbers(RANK, inputs, *ones)
    b1, b2 = numbers(outputs, RANK, *ones), numbers(RANK, inputs, *kernel)
    tensors = {"a1.weight": a1, "a2.weight": a2, "b1.weight": b1, "b2.weight": b2, "alpha": torch.tensor(ALPHA)}

    def make(own: torch.Tensor, strength: float) -> torch.Tensor:
        product = (b1.flatten(1) @ b2.flatten(1)).view_as(own)
        own_product = torch.tensordot(own, a1.flatten(1) @ a2.flatten(1), dims=([1], [0])).movedim(-1, 1)
        return own + strength * ALPHA / RANK * (product + own_product)

    return tensors, make


FORMS: dict[str, tuple[str, Callable[[torch.Tensor], Made]]] = {
    "difference": (TO_Q, difference),
    "difference of a convolution": (CONV, difference),
    "IA3": (TO_Q, lambda weight: ia3(weight, on_input=False)),
    "IA3 of inputs": (TO_Q, lambda weight: ia3(weight, on_input=True)),
    "IA3 of a convolution": (CONV, lambda weight: ia3(weight, on_input=False)),
    "OFT": (TO_Q, oft),
    "OFT of a convolution, rescaled": (CONV, lambda weight: oft(weight, rescaled=True)),
    "OFT, constrained": (TO_Q, lambda weight: oft(weight, alpha=0.01)),
    "BOFT": (TO_Q, boft),
    "BOFT of a convolution, rescaled": (CONV, lambda weight: boft(weight, rescaled=True)),
    "BOFT, constrained": (TO_Q, lambda weight: boft(weight, alpha=0.01)),
    "GLoRA": (TO_Q, glora),
    "GLoRA of a convolution": (CONV, glora),
}


def named(layer: str, tensors: Tensors, prefix: str = "lora_unet") -> Tensors:
    return {f"{prefix}_{layer.replace('.', '_')}.{name}": tensor for name, tensor in tensors.items()}


def read(pipe: Any, tensors: Tensors, folder: Path) -> tuple[Adapter, Targets]:
    file, targets = tiny_loras.save(tensors, folder / "it.safetensors"), Targets(pipe)
    return match.read(file, targets, name="it", sha256="0" * 64, size_bytes=0), targets


@pytest.mark.parametrize("name", FORMS)
def test_a_merged_weight(pipelines: Callable[[str], Any], tmp_path: Path, name: str) -> None:
    torch.manual_seed(5)
    layer, form = FORMS[name]
    pipe = pipelines("sd")
    weight = pipe.unet.get_submodule(layer).weight.detach()
    tensors, make = form(weight)
    prefix = "oft_unet" if name == "OFT" else "lora_unet"
    adapter, targets = read(pipe, named(layer, tensors, prefix), tmp_path)
    assert adapter.facts.matched == adapter.facts.total == len(tensors) and adapter.facts.bucket is None
    assert (make(weight, 1.0) - weight).abs().max() > 0.01
    for strength in (0.0, 0.5, 1.0, -0.7):
        merged = merge.merge([(adapter, Strength(strength))], merge.own_weights(targets)).weights["unet"]
        assert torch.allclose(merged[layer], make(weight, strength), atol=2e-5), strength


@pytest.mark.parametrize("beside", ["difference", "LoRA", "nothing"])
def test_a_bias_is_changed_while_it_is_applied(pipelines: Callable[[str], Any], tmp_path: Path, beside: str) -> None:
    torch.manual_seed(6)
    pipe = pipelines("sd")
    layer = pipe.unet.get_submodule(TO_OUT)
    weight, own = layer.weight.detach().clone(), layer.bias.detach().clone()
    tensors = {"diff_b": numbers(len(own))}
    if beside == "difference":
        tensors["diff"] = numbers(*weight.shape)
    elif beside == "LoRA":
        tensors |= {"lora_down.weight": numbers(2, weight.shape[1]), "lora_up.weight": numbers(len(own), 2)}
    adapter, targets = read(pipe, named(TO_OUT, tensors), tmp_path)
    assert adapter.facts.matched == adapter.facts.total and adapter.facts.bucket is None
    merged = merge.merge([(adapter, Strength(0.5))], merge.own_weights(targets))
    with merge.applied(merged, targets, ["unet"]):
        assert torch.allclose(layer.bias, own + 0.5 * tensors["diff_b"], atol=1e-6)
        assert torch.allclose(layer.weight, weight, atol=1e-6) == (beside == "nothing")
    assert torch.equal(layer.bias, own) and torch.equal(layer.weight, weight)


def test_a_bias_that_the_layer_has_not_is_told(pipelines: Callable[[str], Any], tmp_path: Path) -> None:
    pipe = pipelines("sd")
    outputs = pipe.unet.get_submodule(TO_Q).out_features
    with pytest.raises(CraftError, match="no bias"):
        read(pipe, named(TO_Q, {"diff_b": numbers(outputs)}), tmp_path)


@pytest.mark.parametrize("form", [difference, glora, lambda weight: ia3(weight, on_input=True)])
def test_several_layers_that_are_one_in_the_file(
    pipelines: Callable[[str], Any], tmp_path: Path, form: Callable[[torch.Tensor], Made]
) -> None:
    torch.manual_seed(8)
    pipe = pipelines("flux")
    layers = [f"transformer_blocks.0.attn.{name}" for name in ("to_q", "to_k", "to_v")]
    weights = torch.cat([pipe.transformer.get_submodule(layer).weight.detach().float() for layer in layers])
    tensors, make = form(weights)
    adapter, targets = read(pipe, named("double_blocks.0.img_attn.qkv", tensors), tmp_path)
    assert not adapter.facts.unmatched
    merged = merge.merge([(adapter, Strength(0.5))], merge.own_weights(targets)).weights["transformer"]
    for layer, expected in zip(layers, make(weights, 0.5).chunk(3), strict=True):
        assert (merged[layer].float() - expected).abs().max() < 0.02


@pytest.mark.parametrize("name", ["difference", "IA3", "OFT", "BOFT", "GLoRA"])
@pytest.mark.parametrize("wrong", ["a part is larger", "there is another change beside it"])
def test_what_does_not_fit_is_counted(pipelines: Callable[[str], Any], tmp_path: Path, name: str, wrong: str) -> None:
    layer, form = FORMS[name]
    pipe = pipelines("sd")
    tensors, _make = form(pipe.unet.get_submodule(layer).weight.detach())
    if wrong == "a part is larger":
        part = max(tensors, key=lambda one: (tensors[one].numel(), one))
        tensors[part] = torch.zeros(len(tensors[part]) * 3, *tensors[part].shape[1:])
    else:
        tensors |= {"lora_down.weight": numbers(2, 8), "lora_up.weight": numbers(8, 2)}
    adapter, _targets = read(pipe, named(layer, tensors), tmp_path)
    assert adapter.facts.matched == 0 and len(adapter.facts.unmatched) == len(tensors)


@pytest.mark.parametrize("spelling", ["up_blocks_1_resnets_0_norm1", "output_blocks_2_0_in_layers_0"])
def test_norms_are_changed_by_what_is_added_to_them(
    pipelines: Callable[[str], Any], tmp_path: Path, spelling: str
) -> None:
    """LyCORIS' w_norm and b_norm, by diffusers' and by the original's names; nothing else fits a norm."""
    torch.manual_seed(9)
    pipe = pipelines("sd")
    norm = pipe.unet.get_submodule("up_blocks.1.resnets.0.norm1")
    own = norm.weight.detach().clone(), norm.bias.detach().clone()
    tensors = {f"lora_unet_{spelling}.{name}": numbers(len(own[0])) for name in ("w_norm", "b_norm")}
    adapter, targets = read(pipe, tensors, tmp_path)
    assert adapter.facts.matched == adapter.facts.total == 2
    merged = merge.merge([(adapter, Strength(0.5))], merge.own_weights(targets))
    with merge.applied(merged, targets, ["unet"]):
        for now, before, added in zip((norm.weight, norm.bias), own, tensors.values(), strict=True):
            assert torch.allclose(now, before + 0.5 * added, atol=1e-6)
    assert torch.equal(norm.weight, own[0]) and torch.equal(norm.bias, own[1])
    low_rank = {"lora_down.weight": numbers(2, 1), "lora_up.weight": numbers(len(own[0]), 2)}
    adapter, _targets = read(pipe, {f"lora_unet_{spelling}.{name}": one for name, one in low_rank.items()}, tmp_path)
    assert "is a norm" in next(iter(adapter.facts.unmatched.values()))
