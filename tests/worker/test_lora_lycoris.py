"""LoHa and LoKr are what LyCORIS' formulas, as peft has them, make of the same tensors."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from craft_protos.lora_strength import Strength
from craft_protos.worker_pb2 import ModelManifest
from craftd.worker.lora import lycoris, match, merge, reading
from craftd.worker.lora.adapter import Adapter
from craftd.worker.lora.targets import Targets
from peft.tuners.loha import layer as loha
from peft.tuners.lokr import layer as lokr

from tests import tiny_loras
from tests.worker.client import WorkerProcess, pixels
from tests.worker.loras import put_lora, submit_with

TO_Q = "mid_block.attentions.0.transformer_blocks.0.attn1.to_q"
CONV = "mid_block.resnets.0.conv1"
RANK, ALPHA, FACTOR = 4, 2.0, 4
Tensors = dict[str, torch.Tensor]


def numbers(*shape: int) -> torch.Tensor:
    return torch.randn(*shape) * 0.5


def of_loha(weight: torch.Tensor, *, tucker: bool) -> tuple[Tensors, torch.Tensor]:
    outputs, inputs, *kernel = weight.shape
    if not tucker:
        a, c = numbers(outputs, RANK), numbers(outputs, RANK)
        b, d = (numbers(RANK, weight[0].numel()) for _ in range(2))
        change = loha.make_weight(a, b, c, d, torch.tensor(ALPHA / RANK)).view_as(weight)
        return {"hada_w1_a": a, "hada_w1_b": b, "hada_w2_a": c, "hada_w2_b": d}, change
    a, c, b, d = (numbers(RANK, count) for count in (outputs, outputs, inputs, inputs))
    t1, t2 = (numbers(RANK, RANK, *kernel) for _ in range(2))
    change = loha.make_weight_cp(t1, a, b, t2, c, d, torch.tensor(ALPHA / RANK))
    named = {"hada_w1_a": a, "hada_w1_b": b, "hada_w2_a": c, "hada_w2_b": d}
    return {**named, "hada_t1": t1, "hada_t2": t2}, change


def of_lokr(weight: torch.Tensor, *, first: str, second: str) -> tuple[Tensors, torch.Tensor]:
    outputs, inputs, kernel = weight.shape[0] // FACTOR, weight.shape[1] // FACTOR, weight.shape[2:]
    tensors = {}
    if first == "whole":
        w1 = tensors["lokr_w1"] = numbers(FACTOR, FACTOR)
    else:
        tensors |= {"lokr_w1_a": numbers(FACTOR, RANK), "lokr_w1_b": numbers(RANK, FACTOR)}
        w1 = tensors["lokr_w1_a"] @ tensors["lokr_w1_b"]
    if second == "whole":
        w2 = tensors["lokr_w2"] = numbers(outputs, inputs, *kernel)
    elif second == "tucker":
        t2, a, b = numbers(RANK, RANK, *kernel), numbers(RANK, outputs), numbers(RANK, inputs)
        tensors |= {"lokr_t2": t2, "lokr_w2_a": a, "lokr_w2_b": b}
        w2 = lokr.make_weight_cp(t2, a, b)
    else:
        a, b = numbers(outputs, RANK), numbers(RANK, inputs, *kernel)
        tensors |= {"lokr_w2_a": a, "lokr_w2_b": b}
        w2 = (a @ b.flatten(1)).view(outputs, inputs, *kernel)
    scale = 1.0 if (first, second) == ("whole", "whole") else ALPHA / RANK
    return tensors, lokr.make_kron(w1, w2, scale)


FORMS: dict[str, tuple[str, Callable[[torch.Tensor], tuple[Tensors, torch.Tensor]]]] = {
    "LoHa": (TO_Q, lambda weight: of_loha(weight, tucker=False)),
    "LoHa of a convolution": (CONV, lambda weight: of_loha(weight, tucker=False)),
    "LoHa, Tucker": (CONV, lambda weight: of_loha(weight, tucker=True)),
    "LoKr": (TO_Q, lambda weight: of_lokr(weight, first="whole", second="product")),
    "LoKr, whole": (TO_Q, lambda weight: of_lokr(weight, first="whole", second="whole")),
    "LoKr, both products": (TO_Q, lambda weight: of_lokr(weight, first="product", second="product")),
    "LoKr, second whole": (CONV, lambda weight: of_lokr(weight, first="product", second="whole")),
    "LoKr of a convolution": (CONV, lambda weight: of_lokr(weight, first="whole", second="product")),
    "LoKr, Tucker": (CONV, lambda weight: of_lokr(weight, first="whole", second="tucker")),
}

MIXED = ("LoHa of a convolution", "LoKr of a convolution")


def named(layer: str, tensors: Tensors, prefix: str = "lora_unet") -> Tensors:
    path = f"{prefix}_{layer.replace('.', '_')}"
    return {f"{path}.{name}": tensor for name, tensor in tensors.items()} | {f"{path}.alpha": torch.tensor(ALPHA)}


def read(pipe: Any, tensors: Tensors, folder: Path) -> tuple[Adapter, Targets]:
    file, targets = tiny_loras.save(tensors, folder / "it.safetensors"), Targets(pipe)
    return match.read(file, targets, name="it", sha256="0" * 64, size_bytes=0), targets


@pytest.mark.parametrize("prefix", ["lora_unet", "lycoris"])
@pytest.mark.parametrize("name", FORMS)
def test_a_merged_weight(pipelines: Callable[[str], Any], tmp_path: Path, name: str, prefix: str) -> None:
    torch.manual_seed(5)
    layer, made = FORMS[name]
    pipe = pipelines("sd")
    weight = pipe.unet.get_submodule(layer).weight.detach()
    tensors, change = made(weight)
    adapter, targets = read(pipe, named(layer, tensors, prefix), tmp_path)
    assert adapter.facts.matched == adapter.facts.total and adapter.facts.bucket is None
    assert change.abs().max() > 0.05
    for strength in (0.0, 0.5, 1.0, -0.7):
        merged = merge.merge([(adapter, Strength(strength))], merge.own_weights(targets)).weights["unet"]
        assert torch.allclose(merged[layer], weight + strength * change, atol=2e-5), strength


@pytest.mark.parametrize("name", ["LoHa", "LoKr", "LoKr, Tucker"])
@pytest.mark.parametrize("wrong", ["a part is missing", "a part is larger", "a part is of another form"])
def test_what_does_not_fit_is_counted(pipelines: Callable[[str], Any], tmp_path: Path, name: str, wrong: str) -> None:
    layer, made = FORMS[name]
    pipe = pipelines("sd")
    tensors, _change = made(pipe.unet.get_submodule(layer).weight.detach())
    part = min(tensors)
    if wrong == "a part is missing":
        del tensors[part]
    elif wrong == "a part is larger":
        tensors[part] = torch.zeros(tensors[part].shape[0] * 3, *tensors[part].shape[1:])
    else:
        tensors["hada_t2" if "lokr_w1" in tensors else "lokr_w1"] = numbers(FACTOR, FACTOR)
    adapter, _targets = read(pipe, named(layer, tensors), tmp_path)
    assert adapter.facts.matched == 0 and len(adapter.facts.unmatched) == len(tensors) + 1


def test_a_product_larger_than_the_layer_is_never_made() -> None:
    shapes = {"kron": (1 << 20, 1 << 20), "whole": (1 << 20, 1 << 20)}
    assert not lycoris.makes(shapes, (64, 64))
    tucker = {"kron": (1, 1), "mid": (10**7, 1, 3, 3), "up": (10**7, 64), "down": (1, 64)}
    assert not lycoris.makes(tucker, (64, 64, 3, 3))


def test_the_architecture_is_told_by_all_inputs_of_a_lokr() -> None:
    path = "lora_unet_mid_block_attentions_0_transformer_blocks_0_attn2_to_k"
    shapes = {f"{path}.lokr_w1": (8, 8), f"{path}.lokr_w2": (160, 96)}
    assert reading.read("it", shapes, {}).base == "sd1"


@pytest.mark.parametrize("name", ["LoHa", "LoHa, Tucker", "LoKr", "LoKr of a convolution"])
@pytest.mark.parametrize("by_output", [True, False])
def test_dora_of_a_product(pipelines: Callable[[str], Any], tmp_path: Path, name: str, *, by_output: bool) -> None:
    """LyCORIS' weight_decompose: the whole change, times strength * (magnitude / norm - 1) + 1."""
    torch.manual_seed(6)
    layer, made = FORMS[name]
    pipe = pipelines("sd")
    weight = pipe.unet.get_submodule(layer).weight.detach()
    tensors, change = made(weight)
    others = [dim for dim in range(weight.ndim) if dim != (0 if by_output else 1)]
    magnitude = torch.linalg.vector_norm(weight, dim=others, keepdim=True) * 1.3
    adapter, targets = read(pipe, named(layer, {**tensors, "dora_scale": magnitude}), tmp_path)
    assert adapter.facts.matched == adapter.facts.total and adapter.facts.bucket is None
    factor = magnitude / torch.linalg.vector_norm(weight + change, dim=others, keepdim=True)
    for strength in (0.5, 1.0, -0.7):
        merged = merge.merge([(adapter, Strength(strength))], merge.own_weights(targets)).weights["unet"]
        assert torch.allclose(merged[layer], (weight + change) * (strength * (factor - 1) + 1), atol=2e-5), strength


@pytest.mark.parametrize("form", ["LoHa", "LoKr", "LoKr, both products", "LoKr, whole"])
def test_several_layers_that_are_one_in_the_file(pipelines: Callable[[str], Any], tmp_path: Path, form: str) -> None:
    """FLUX' fused qkv: a first factor's rows lie across the borders of the layers."""
    torch.manual_seed(8)
    pipe = pipelines("flux")
    layers = [f"transformer_blocks.0.attn.{name}" for name in ("to_q", "to_k", "to_v")]
    weights = [pipe.transformer.get_submodule(layer).weight.detach().float() for layer in layers]
    tensors, change = FORMS[form][1](torch.cat(weights))
    adapter, targets = read(pipe, named("double_blocks.0.img_attn.qkv", tensors), tmp_path)
    assert adapter.facts.matched == adapter.facts.total, adapter.facts.unmatched
    merged = merge.merge([(adapter, Strength(0.5))], merge.own_weights(targets)).weights["transformer"]
    for layer, weight, part in zip(layers, weights, change.split([len(weight) for weight in weights]), strict=True):
        dtype = merged[layer].dtype
        assert torch.allclose(merged[layer], (weight + 0.5 * part).to(dtype), atol=2e-5 if dtype.itemsize > 2 else 0.02)


def test_pictures_in_a_mixed_batch(
    worker: WorkerProcess, sd: ModelManifest, files: Path, pipelines: Callable[[str], Any], tmp_path: Path
) -> None:
    torch.manual_seed(9)
    unet, jobs = pipelines("sd").unet, []
    for number, form in enumerate(MIXED):
        layer, made = FORMS[form]
        tensors, _change = made(unet.get_submodule(layer).weight.detach())
        stored = put_lora(tiny_loras.save(named(layer, tensors), tmp_path / f"mixed{number}.safetensors"), files)
        jobs.append(submit_with(sd, [(stored, 0.5)], f"job{number}"))
    jobs.append(submit_with(sd, [], "plain"))
    alone = [pixels(worker.draw(job)[0]) for job in jobs]
    together = [pixels(image) for image in worker.draw(*jobs)]
    for image, expected in zip(together, alone, strict=True):
        assert np.abs(image - expected).max() <= 1
    assert all(np.abs(image - alone[-1]).max() > 4 for image in alone[:-1])
