"""Over packed weights a training is that over the numbers which they stand for, and holds far fewer bytes."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from craftd.worker.quantized import packing
from craftd.worker.quantized.layers import packed_layer, put
from craftd.worker.quantized.weight import BlockForm, PackedWeight
from craftd.worker.training.trainable import Text, Trainable, check
from torch import nn

from tests.worker.packed import packed_layers, unpacked
from tests.worker.trained import CPU, PLAIN, Desk, ask, refusal

pytestmark = pytest.mark.usefixtures("quick_samples")

Pipelines = Callable[[str], Any]


def _packed(pipe: Any, precision: str, name: str) -> Any:
    made = copy.copy(pipe)
    made.__dict__[name] = copy.deepcopy(getattr(pipe, name))
    if precision in packing.PACKERS:
        packing.pack(made.__dict__[name], precision)
    else:
        _pack_in_blocks(made.__dict__[name], precision)
    return made


def _pack_in_blocks(network: nn.Module, kind: str) -> None:
    """As a GGUF file has them: quantized by the gguf package; what does not fill its blocks stays as it is."""
    from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType
    from gguf.quants import quantize

    block = GGMLQuantizationType[kind]
    for path, layer in list(packing.packable(network)):
        if isinstance(layer, nn.Linear) and layer.in_features % GGML_QUANT_SIZES[block][0] == 0:
            rows = torch.from_numpy(quantize(layer.weight.detach().float().numpy(), block))
            weight = PackedWeight(BlockForm(kind), rows, tuple(layer.weight.shape))
            put(network, path, packed_layer(layer, weight, layer.bias, layer.weight.dtype))


@pytest.mark.parametrize(
    ("kind", "precision", "how"),
    [
        ("sd", "int8", {}),
        ("sd", "fp8", {"gradient_checkpointing": True}),
        ("flux", "fp8", {}),
        ("flux", "Q8_0", {}),
        ("flux", "Q4_0", {"gradient_checkpointing": True}),
        ("z-image", "int8", {"gradient_checkpointing": True}),
    ],
)
def test_its_steps_are_those_over_the_numbers_that_are_packed(
    tmp_path: Path, pipelines: Pipelines, kind: str, precision: str, how: dict[str, Any]
) -> None:
    name = "unet" if kind == "sd" else "transformer"
    pipe = _packed(pipelines(kind), precision, name)
    assert len(packed_layers(getattr(pipe, name))) > 5
    before = {path: layer.rows.clone() for path, layer in packed_layers(getattr(pipe, name)).items()}
    plain = copy.copy(pipe)
    plain.__dict__[name] = unpacked(getattr(pipe, name))
    train, desks = ask(tmp_path, kind, **({"steps": 5} | how)), [Desk(tmp_path, tmp_path) for _ in range(2)]
    for desk, one in zip(desks, (pipe, plain), strict=True):
        desk.train(train, one)
    assert desks[0].losses == pytest.approx(desks[1].losses, rel=1e-4)
    assert len(set(desks[0].losses)) == 5
    after = packed_layers(getattr(pipe, name))
    assert before and all(torch.equal(rows, after[path].rows) for path, rows in before.items())


def test_what_packed_weights_cannot_do_is_named(tmp_path: Path, pipelines: Pipelines) -> None:
    error = refusal(Desk(tmp_path, tmp_path), ask(tmp_path, dora=True), _packed(pipelines("sd"), "fp8", "unet"))
    assert (error.reason, error.field) == ("INVALID_FIELD", "dora")
    pipe = _packed(pipelines("sd-text-time"), "fp8", "unet")
    assert refusal(Desk(tmp_path, tmp_path), ask(tmp_path), pipe).reason == "UNTRAINABLE_MODEL"


@contextmanager
def _saved() -> Iterator[dict[int, int]]:
    """Bytes of what backward keeps, by their storages."""
    kept: dict[int, int] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        yield kept


def _held_bytes(pipe: Any) -> int:
    """Weights, what a step's backward keeps besides, and the adapter four times: gradient and two moments."""
    recipe = PLAIN
    model = Trainable(pipe, check(pipe, "it"), recipe, CPU.place, Desk(Path(), Path())._context.hooks)
    network = model.modules["transformer"]
    weights = {one.untyped_storage().data_ptr(): one.untyped_storage().nbytes() for one in _tensors(network)}
    config = network.config
    text = Text.of(torch.randn(1, 16, config.joint_attention_dim), torch.randn(1, config.pooled_projection_dim))
    with _saved() as kept, model.computing():
        model.predict(torch.randn(1, config.in_channels // 4, 8, 8), torch.tensor([500.0]), text).sum().backward()
    learned = 3 * sum(one.nbytes for one in model.parameters.values())
    return sum((kept | weights).values()) + learned


def _tensors(network: nn.Module) -> list[torch.Tensor]:
    return [*network.parameters(), *network.buffers()]


@pytest.mark.parametrize("precision", ["int8", "fp8"])
def test_it_holds_six_tenths_of_what_bf16_does_at_most(pipelines: Pipelines, precision: str) -> None:
    pipe = copy.copy(pipelines("flux"))
    own = pipe.transformer
    size = {"num_attention_heads": 16, "attention_head_dim": 32, "axes_dims_rope": (4, 12, 16)}
    wide = type(own).from_config({**own.config, **size, "num_layers": 2, "num_single_layers": 4}).to(torch.bfloat16)
    pipe.__dict__["transformer"] = wide
    assert _held_bytes(_packed(pipe, precision, "transformer")) <= 0.6 * _held_bytes(pipe)
