"""LoRAs written in the names of other programs: there and back they are the same, and each is read as the first was."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from craft_protos.lora_strength import Strength
from craft_protos.reasons import CraftError
from craftd.worker.lora import file, match, merge, writing
from craftd.worker.lora.fit import fit
from craftd.worker.lora.targets import Targets
from safetensors.torch import load, load_file

from tests import tiny_loras

KINDS = ("sd", "sdxl", "flux", "sd3", "z-image")


@pytest.fixture
def rewritten(
    tmp_path: Path, pipelines: Callable[[str], Any]
) -> Callable[..., tuple[tiny_loras.Tensors, dict[str, str]]]:
    def made(kind: str, tensors: tiny_loras.Tensors, form: str, metadata: dict[str, str] | None = None) -> Any:
        path, layout = (
            tiny_loras.save(tensors, tmp_path / "it.safetensors", metadata),
            Targets(pipelines(kind)).spellings,
        )
        with file.opened(path, "it") as opened:
            found = fit(opened.reading, layout)
            assert not found.unmatched
            told = writing.written(form, opened, found, layout.layout, metadata or {})
        return {name: tensor.clone() for name, tensor in told.tensors.items()}, dict(told.metadata)

    return made


def weights(pipe: Any, tensors: tiny_loras.Tensors, folder: Path) -> dict[tuple[str, str], torch.Tensor]:
    """What craft merges of a file."""
    targets, path = Targets(pipe), tiny_loras.save(tensors, folder / "read.safetensors")
    adapter = match.read(path, targets, name="it", sha256="0" * 64, size_bytes=0)
    assert not adapter.facts.unmatched
    merged = merge.merge([(adapter, Strength(0.7))], merge.own_weights(targets)).weights
    return {(name, layer): one for name, layers in merged.items() for layer, one in layers.items()}


@pytest.mark.parametrize("kind", KINDS)
def test_there_and_back(pipelines: Callable[[str], Any], rewritten: Any, tmp_path: Path, kind: str) -> None:
    """Every form from every other one; an alpha that is not the rank comes back from peft's form, too."""
    pipe = pipelines(kind)
    parts = [tiny_loras.denoiser(pipe), *(["text_encoder"] if kind in {"sd", "sdxl", "flux", "sd3"} else [])]
    adapter = tiny_loras.random(
        pipe, seed=21, components=parts, conv=kind in {"sd", "sdxl"}, alpha=2.0, wanted=lambda _: True
    )
    first, told = rewritten(kind, tiny_loras.peft(adapter), "kohya")
    expected = weights(pipe, first, tmp_path)
    for form in writing.FORMS:
        other, noted = rewritten(kind, first, form, told)
        found = weights(pipe, other, tmp_path)
        assert found.keys() == expected.keys()
        assert all(torch.allclose(found[key], expected[key], atol=1e-5) for key in expected)
        back, _ = rewritten(kind, other, "kohya", noted)
        assert back.keys() == first.keys()
        assert all(torch.equal(back[name].reshape(one.shape), one) for name, one in first.items()), form


def test_peft_form_is_diffusers_own(pipelines: Callable[[str], Any], rewritten: Any, tmp_path: Path) -> None:
    """diffusers reads it to the weights that craft merges."""
    from diffusers import DiffusionPipeline

    from tests import tiny_models

    adapter = tiny_loras.random(pipelines("sd"), seed=22, conv=True, alpha=2.0)
    tensors, _ = rewritten("sd", tiny_loras.kohya(adapter), "peft")
    expected = weights(pipelines("sd"), tensors, tmp_path)
    pipe = DiffusionPipeline.from_pretrained(
        tiny_models.cached("sd"), use_safetensors=True, **tiny_models.without("sd")
    )
    pipe.load_lora_weights(tensors)
    pipe.fuse_lora(lora_scale=0.7)
    for (_component, layer), weight in expected.items():
        own = pipe.unet.get_submodule(layer)
        assert torch.allclose(getattr(own, "base_layer", own).weight, weight, atol=1e-5), layer


def test_dora_and_other_kinds(pipelines: Callable[[str], Any], rewritten: Any, tmp_path: Path) -> None:
    """DoRA's magnitudes go along; a LoHa is renamed, and has no name in peft's form."""
    dora = tiny_loras.kohya(tiny_loras.random(pipelines("sd"), seed=23, dora=True, conv=True))
    there, told = rewritten("sd", dora, "peft")
    back, _ = rewritten("sd", there, "kohya", told)
    assert all(torch.equal(back[name].reshape(one.shape), one) for name, one in dora.items())
    layer = "lora_unet_mid_block_attentions_0_transformer_blocks_0_attn1_to_q"
    width = pipelines("sd").unet.mid_block.attentions[0].transformer_blocks[0].attn1.to_q.in_features
    loha = {
        f"{layer}.hada_w{n}_{part}": torch.randn(*(width, 2)[:: 1 if part == "a" else -1])
        for n in "12"
        for part in "ab"
    }
    renamed, _ = rewritten("sd", loha, "comfyui")
    assert all(name.startswith("diffusion_model.middle_block.1.") for name in renamed)
    assert weights(pipelines("sd"), renamed, tmp_path).keys() == weights(pipelines("sd"), loha, tmp_path).keys()
    with pytest.raises(CraftError, match="peft has no LoHa"):
        rewritten("sd", loha, "peft")


def test_a_file_by_the_layers_that_craft_carries(tmp_path: Path) -> None:
    """The inspecting process needs no model; a LoRA of an architecture without a row is refused."""
    name = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn2_to_k"
    tensors = {f"{name}.lora_down.weight": torch.randn(4, 768), f"{name}.lora_up.weight": torch.randn(320, 4)}
    path = tiny_loras.save(tensors, tmp_path / "it.safetensors", {"ss_network_dim": "4"})
    asked = [sys.executable, "-m", "craftd.worker", "--inspect", "--convert", "comfyui", str(path)]
    line, _, rest = subprocess.run(asked, stdout=subprocess.PIPE, check=True).stdout.partition(b"\n")
    assert b'"reason": ""' in line
    layer = "diffusion_model.input_blocks.1.1.transformer_blocks.0.attn2.to_k"
    assert set(load(rest)) == {f"{layer}.lora_down.weight", f"{layer}.lora_up.weight", f"{layer}.alpha"}
    assert torch.equal(load(rest)[f"{layer}.lora_up.weight"], load_file(path)[f"{name}.lora_up.weight"])
