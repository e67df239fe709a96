"""A layer whose weight is packed takes LoRAs as the same layer unpacked does, in slots and merged."""

from __future__ import annotations

import copy
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest
import torch
from craft_protos.dispatch import ModelFile, ModelManifest
from craft_protos.lora_strength import Strength
from craftd.worker.lora import match, merge
from craftd.worker.lora.adapter import Adapter
from craftd.worker.lora.layer import held_bytes
from craftd.worker.lora.slots import Limits, Slots
from craftd.worker.lora.targets import Targets, component_of
from craftd.worker.models import memory
from craftd.worker.quantized import packing
from safetensors.torch import save_file
from torch import nn
from torch.nn import functional

from tests.worker.loras import Make, Stored
from tests.worker.packed import unpacked
from tests.worker.trained import CPU

Pipelines = Callable[[str], Any]


class Int8Linear(nn.Module):
    """Eight bits a weight, two in each number of its table; a scale for each output."""

    table: torch.Tensor
    scales: torch.Tensor

    def __init__(self, own: nn.Linear) -> None:
        super().__init__()
        self.in_features, self.out_features, self.compute_dtype = own.in_features, own.out_features, own.weight.dtype
        self.bias = own.bias
        scales = own.weight.detach().abs().amax(dim=1, keepdim=True) / 127
        packed = (own.weight.detach() / scales).round().to(torch.int8).flatten().view(torch.int16)
        self.register_buffer("table", packed)
        self.register_buffer("scales", scales)

    @property
    def size_bytes(self) -> int:
        return int(self.table.nbytes + self.scales.nbytes + (0 if self.bias is None else self.bias.nbytes))

    def dense_weight(self) -> torch.Tensor:
        return self.table.view(torch.int8).view(self.out_features, -1).to(self.compute_dtype) * self.scales

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return functional.linear(x, self.dense_weight(), self.bias)


def _with_layers(pipe: Any, change: Callable[[nn.Linear], nn.Module]) -> Any:
    """The same pipeline with a UNet of its own, whose linear layers are changed."""
    other, unet = copy.copy(pipe), copy.deepcopy(pipe.unet)
    for path, module in list(unet.named_modules()):
        if isinstance(module, nn.Linear):
            parent, _, name = path.rpartition(".")
            setattr(unet.get_submodule(parent), name, change(module))
    other.__dict__["unet"] = unet
    return other


def _rounded(own: nn.Linear) -> nn.Linear:
    """To what eight bits keep of it."""
    dense = copy.deepcopy(own)
    dense.weight.data = Int8Linear(own).dense_weight()
    return dense


def _in_slots(targets: Targets, adapter: Adapter) -> AbstractContextManager[None]:
    slots = Slots(targets, CPU.place, Limits())
    assert slots.place(adapter, set())
    use = slots.pin(adapter.facts.sha256, Strength(0.8))
    return slots.applied("unet", [[use]])


def _merged(targets: Targets, adapter: Adapter) -> AbstractContextManager[None]:
    merged = merge.merge([(adapter, Strength(0.8))], merge.own_weights(targets))
    return merge.applied(merged, targets, ["unet"])


def _outputs(pipe: Any, lora: Stored, applied: Callable[[Targets, Adapter], AbstractContextManager[None]]) -> Any:
    """Of the UNet by itself, with the LoRA, and by itself again."""
    targets = Targets(pipe)
    adapter = match.read(lora.path, targets, name="it", sha256="it", size_bytes=0)
    assert adapter.facts.matched == adapter.facts.total
    generator = torch.Generator().manual_seed(1)
    sample = torch.randn(1, 4, 8, 8, generator=generator)
    text = torch.randn(1, 5, pipe.unet.config.cross_attention_dim, generator=generator)
    with torch.inference_mode():
        before = pipe.unet(sample, 500, text).sample
        with applied(targets, adapter):
            during = pipe.unet(sample, 500, text).sample
        return before, during, pipe.unet(sample, 500, text).sample


@pytest.mark.parametrize("applied", [_in_slots, _merged])
def test_a_lora_does_to_packed_weights_what_it_does_to_the_same_ones_unpacked(
    pipelines: Pipelines, make: Make, applied: Callable[[Targets, Adapter], AbstractContextManager[None]]
) -> None:
    lora = make("sd", "for-packed", seed=31, conv=True)
    packed, plain = _with_layers(pipelines("sd"), Int8Linear), _with_layers(pipelines("sd"), _rounded)
    before, during, after = _outputs(packed, lora, applied)
    expected = _outputs(plain, lora, applied)
    assert torch.equal(before, after)
    assert torch.allclose(before, expected[0], atol=1e-5)
    assert torch.allclose(during, expected[1], atol=1e-5)
    assert (during - before).abs().max() > 1e-2


@pytest.mark.parametrize("applied", [_in_slots, _merged])
@pytest.mark.parametrize("precision", ["fp8", "int8"])
def test_a_lora_of_convolutions_too_over_crafts_own_packed_layers(
    pipelines: Pipelines,
    make: Make,
    applied: Callable[[Targets, Adapter], AbstractContextManager[None]],
    precision: str,
) -> None:
    lora = make("sd", "for-own-packed", seed=32, conv=True)
    packed = copy.copy(pipelines("sd"))
    packed.__dict__["unet"] = copy.deepcopy(pipelines("sd").unet)
    packing.pack(packed.unet, precision)
    plain = copy.copy(packed)
    plain.__dict__["unet"] = unpacked(packed.unet)
    before, during, after = _outputs(packed, lora, applied)
    expected = _outputs(plain, lora, applied)
    assert torch.equal(before, after)
    assert torch.allclose(before, expected[0], atol=1e-5)
    assert torch.allclose(during, expected[1], atol=1e-5)
    assert (during - before).abs().max() > 1e-2


def test_it_says_its_own_shape_and_bytes(pipelines: Pipelines) -> None:
    pipe = pipelines("sd")
    packed = _with_layers(pipe, Int8Linear).unet
    assert component_of(packed) == component_of(pipe.unet)
    saved = sum(layer.weight.numel() * 3 for layer in pipe.unet.modules() if isinstance(layer, nn.Linear))
    scales = sum(layer.out_features * 4 for layer in pipe.unet.modules() if isinstance(layer, nn.Linear))
    assert held_bytes([pipe.unet]) - held_bytes([packed]) == saved - scales


def test_packed_weights_take_as_much_memory_as_file(tmp_path: Path) -> None:
    tensors = {"table": torch.zeros(10, dtype=torch.uint8), "scales": torch.zeros(3, dtype=torch.float16)}
    save_file(tensors, tmp_path / "it")
    manifest = ModelManifest(name="packed", files=(ModelFile("unet/it.safetensors", "it", 0),))
    assert memory.need_bytes(manifest, tmp_path, torch.float32) == 10 + 3 * 4


LAYERS: dict[str, Callable[[], nn.Module]] = {
    "linear": lambda: nn.Linear(24, 10),
    "linear without a bias": lambda: nn.Linear(24, 10, bias=False),
    "convolution": lambda: nn.Conv2d(6, 8, 3, stride=2, padding=1),
    "grouped convolution": lambda: nn.Conv2d(6, 8, 3, padding=2, dilation=2, groups=2, bias=False),
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("precision", ["fp8", "int8"])
@pytest.mark.parametrize("kind", LAYERS)
def test_a_packed_layer_computes_what_its_numbers_compute(kind: str, precision: str, dtype: torch.dtype) -> None:
    torch.manual_seed(5)
    own = LAYERS[kind]().to(dtype).eval()
    packed = nn.Sequential(copy.deepcopy(own))
    packing.pack(packed, precision)
    plain = unpacked(packed)
    x = torch.randn(3, 7, 24) if isinstance(own, nn.Linear) else torch.randn(3, 6, 9, 9)
    with torch.inference_mode():
        y, expected, whole = packed(x.to(dtype)), plain(x.to(dtype)), own(x.to(dtype))
    assert y.dtype == dtype and y.is_contiguous()
    scale = float(expected.abs().max())
    assert (y - expected).abs().max() <= {torch.float32: 1e-6, torch.bfloat16: 2e-2, torch.float16: 2e-3}[dtype] * scale
    assert 0 < (y - whole).abs().max() <= 0.1 * scale


def test_casting_a_network_changes_nothing_of_what_is_packed() -> None:
    torch.manual_seed(5)
    packed = nn.Sequential(nn.Linear(24, 10))
    packing.pack(packed, "fp8")
    before = packed[0].dense_weight()
    assert torch.equal(copy.deepcopy(packed).to(torch.float16)[0].dense_weight(), before)
    assert torch.equal(packed[0].weight, before)


def test_outputs_without_any_weight_stay_so() -> None:
    for precision in ("fp8", "int8"):
        packed = nn.Sequential(nn.Linear(4, 2))
        packed[0].weight.data.zero_()
        packing.pack(packed, precision)
        assert not packed[0].dense_weight().any()
