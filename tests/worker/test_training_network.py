"""What is learned beside a model's layers is written so that craft reads peft's own changes from it, layer by layer."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from craft_protos.dispatch import File
from craft_protos.reasons import CraftError
from craft_protos.train import TrainSpec
from craftd.worker.engine.progress_hooks import ProgressHooks
from craftd.worker.lora import match
from craftd.worker.lora.targets import Targets
from craftd.worker.quantized import packing
from craftd.worker.training import beginning, run, stored
from craftd.worker.training.network import check
from craftd.worker.training.trainable import Trainable
from craftd.worker.training.trainable import check as how_to_train

from tests.worker.trained import CPU, PLAIN, Desk, ask, refusal

pytestmark = pytest.mark.usefixtures("quick_samples")

Pipelines = Callable[[str], Any]
Deltas = dict[str, torch.Tensor]


def _trainable(pipe: Any, recipe: TrainSpec, first: beginning.Beginning | None = None) -> Trainable:
    return Trainable(pipe, how_to_train(pipe, "it"), recipe, CPU.place, ProgressHooks(), first)


def _saved(folder: Path, tensors: Mapping[str, torch.Tensor]) -> tuple[Path, File]:
    made = stored.put(folder, stored.safetensors(tensors, {}))
    return folder / made.sha256, File("mine", made.sha256, made.size_bytes)


def _read(path: Path, file: File, pipe: Any) -> Deltas:
    """As craft draws with it, by component and layer."""
    found = match.read(path, Targets(pipe), name=file.name, sha256=file.sha256, size_bytes=file.size_bytes)
    assert not found.facts.unmatched
    return {
        f"{component}.{layer}": one.product(CPU.place) * one.scale
        for component, layers in found.deltas.items()
        for layer, one in layers.items()
    }


def _of_peft(model: Trainable) -> Deltas:
    return {
        f"{component}.{name}": layer.get_delta_weight("default").detach()
        for component, module in model.modules.items()
        for name, layer in module.named_modules()
        if hasattr(layer, "get_delta_weight")
    }


def _same(ours: Deltas, theirs: Deltas) -> bool:
    """A layer that shares another's tensors in a file, and was not trained, is changed by nought."""
    changed = {name: one for name, one in ours.items() if one.any()}
    return changed.keys() == theirs.keys() and all(
        torch.allclose(one, theirs[name].view(one.shape), rtol=1e-4, atol=1e-5) for name, one in changed.items()
    )


@pytest.mark.parametrize(
    ("kind", "how"),
    [
        ("sd", {"network": "loha", "alpha": 2.0, "conv_rank": 2, "format": "kohya"}),
        ("sd", {"network": "lokr", "alpha": 2.0, "conv_rank": 3, "format": "kohya"}),
        ("sdxl", {"network": "lokr", "lokr_factor": 4, "rank": 1, "train_text_encoder": True, "format": "kohya"}),
        ("flux", {"network": "lokr", "rank": 2, "format": "kohya"}),
        ("sd", {"conv_rank": 2, "alpha": 2.0, "block_ranks": ("mid_block=6", "down_blocks.0=0", "down_blocks.1.=1")}),
        ("sdxl", {"conv_rank": 2, "alpha": 2.0, "format": "kohya"}),
        ("flux", {"block_ranks": ("transformer_blocks.0=2",), "format": "kohya"}),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else value,
)
def test_the_file_says_what_pefts_network_does(
    tmp_path: Path, pipelines: Pipelines, kind: str, how: dict[str, Any]
) -> None:
    pipe, recipe = pipelines(kind), replace(PLAIN, **how)
    model = _trainable(pipe, recipe)
    with torch.no_grad():
        for parameter in model.parameters.values():
            parameter.normal_(generator=torch.Generator().manual_seed(parameter.numel()))
    expected = _of_peft(model)
    assert len(expected) > 10
    assert _same(_read(*_saved(tmp_path, run._tensors(recipe, model, pipe)), pipe), expected)


def test_layers_have_the_ranks_of_their_blocks(pipelines: Pipelines) -> None:
    blocks = ("mid_block=6", "down_blocks.0=0", "down_blocks.0.resnets.0.conv1=5", "up_blocks.0.attentions=1")
    model = _trainable(pipelines("sd"), replace(PLAIN, conv_rank=2, block_ranks=blocks))
    ranks = {
        name.removeprefix("unet.").removesuffix(".lora_A.weight"): len(one)
        for name, one in model.parameters.items()
        if name.endswith("lora_A.weight")
    }
    assert {rank for name, rank in ranks.items() if name.startswith("mid_block.")} == {6}
    assert [name for name in ranks if name.startswith("down_blocks.0.")] == ["down_blocks.0.resnets.0.conv1"]
    assert ranks["down_blocks.0.resnets.0.conv1"] == 5
    assert {rank for name, rank in ranks.items() if name.startswith("up_blocks.0.resnets.0.conv1")} <= {2}
    assert {rank for name, rank in ranks.items() if name.startswith("down_blocks.1.attentions")} <= {4}


@pytest.mark.parametrize("layout", ["peft", "kohya"])
def test_a_training_begins_with_a_lora(tmp_path: Path, pipelines: Pipelines, layout: str) -> None:
    """Whatever its alpha, as strong as it was; its layers and no others are learned."""
    pipe = pipelines("flux")
    recipe = replace(PLAIN, alpha=2.0, format=layout, block_ranks=("transformer_blocks.0=0",))
    first = _trainable(pipe, recipe)
    with torch.no_grad():
        for parameter in first.parameters.values():
            parameter.normal_(std=0.1)
    path, file = _saved(tmp_path, run._tensors(recipe, first, pipe))
    again = replace(PLAIN, alpha=1.0, base_lora="mine", base_lora_sha256=file.sha256)
    found = beginning.read(path, file, pipe, again, "flux")
    model = _trainable(pipe, again, found)
    assert _same(_of_peft(model), _of_peft(first))


def test_a_training_from_a_lora_goes_on_from_its_own_checkpoint(tmp_path: Path, pipelines: Pipelines) -> None:
    desk, pipe = Desk(tmp_path, tmp_path), pipelines("sd")
    made = desk.train(ask(tmp_path, steps=2), pipe)
    plain = ask(tmp_path, steps=4, checkpoint_every=2, base_lora="it", base_lora_sha256=made.sha256)
    lora = File("checkpoint", made.sha256, made.size_bytes)
    whole = desk.train(replace(plain, files=(lora,)), pipe)
    (checkpoint,) = desk.of("checkpoint")
    kept = File("checkpoint", checkpoint.sha256, checkpoint.size_bytes)
    assert desk.train(replace(plain, files=(kept, lora)), pipe).sha256 == whole.sha256
    other = desk.train(ask(tmp_path, steps=4, checkpoint_every=2), pipe)
    assert other.sha256 != whole.sha256


@pytest.mark.parametrize("network", ["loha", "lokr"])
def test_lycoris_networks_are_learned_and_resumed(tmp_path: Path, pipelines: Pipelines, network: str) -> None:
    desk, pipe = Desk(tmp_path, tmp_path), pipelines("sd")
    train = ask(tmp_path, steps=4, checkpoint_every=2, network=network, format="kohya", learning_rate=0.01)
    made = desk.train(train, pipe)
    (checkpoint,) = desk.of("checkpoint")
    kept = File("checkpoint", checkpoint.sha256, checkpoint.size_bytes)
    assert desk.train(replace(train, files=(kept,)), pipe).sha256 == made.sha256
    file = File("mine", made.sha256, made.size_bytes)
    learned = _read(tmp_path / made.sha256, file, pipe)
    assert all(one.abs().max() > 0 for one in learned.values())
    assert hashlib.sha256((tmp_path / made.sha256).read_bytes()).hexdigest() == made.sha256
    with pytest.raises(CraftError, match="not of down and up projections alone"):
        beginning.read(tmp_path / made.sha256, file, pipe, PLAIN, "sd")


def test_what_cannot_be_learned_is_named(tmp_path: Path, pipelines: Pipelines) -> None:
    desk = Desk(tmp_path, tmp_path)
    error = refusal(desk, ask(tmp_path, block_ranks=("nowhere=4",)), pipelines("sd"))
    assert (error.reason, error.field) == ("INVALID_FIELD", "block_ranks")
    unet = type(pipelines("sd").unet).from_config(pipelines("sd").unet.config)
    packing.pack(unet, "int8")
    with pytest.raises(CraftError) as raised:
        check(replace(PLAIN, network="loha"), unet)
    assert raised.value.field == "network"
