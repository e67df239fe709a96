"""What comes of a training loads in plain diffusers and in craft, and both draw the same with it."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from craft_protos.worker_pb2 import ModelManifest
from craftd.worker.inspection import lora
from craftd.worker.training import lora_file
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion import StableDiffusionPipeline
from diffusers.pipelines.stable_diffusion_xl.pipeline_stable_diffusion_xl import StableDiffusionXLPipeline
from PIL import Image
from safetensors import safe_open
from torch import nn

from tests.worker.client import WorkerProcess, pixels
from tests.worker.families import Truth
from tests.worker.loras import Stored, diffusers_draws, put_lora, submit_with
from tests.worker.trained import Desk, ask

pytestmark = pytest.mark.usefixtures("quick_samples")

STRONG = {"steps": 3, "learning_rate": 0.1}  # so that it can be seen after so few steps
Trained = Callable[..., Stored]
Drawn = Callable[[str, Stored], np.ndarray]


@pytest.fixture
def trained(tmp_path: Path, files: Path, pipelines: Callable[[str], Any]) -> Trained:
    """The LoRA that a short training gives, in the store."""
    desk = Desk(tmp_path, tmp_path)

    def train(kind: str, **how: Any) -> Stored:
        made = desk.train(ask(tmp_path, kind, **(STRONG | how)), pipelines(kind))
        assert (tmp_path / made.sha256).stat().st_size == made.size_bytes
        named = tmp_path / f"{made.sha256[:8]}.safetensors"
        (tmp_path / made.sha256).rename(named)
        stored = put_lora(named, files)
        assert stored.file.sha256 == made.sha256
        return stored

    return train


@pytest.fixture
def drawn(worker: WorkerProcess, models: dict[str, ModelManifest]) -> Drawn:
    """craft's picture with a LoRA."""
    return lambda kind, made: pixels(worker.draw(submit_with(models[kind], [(made, 1.0)]))[0])


@pytest.mark.parametrize(
    ("kind", "how"),
    [
        ("sd", {"alpha": 2.0}),
        ("sd", {"format": "kohya", "alpha": 2.0}),
        ("sd", {"dora": True}),
        ("sd", {"train_text_encoder": True, "format": "kohya"}),
        ("sd-text-time", {"format": "kohya"}),
        ("sd-text-time", {}),
        ("sdxl", {"train_text_encoder": True}),
        ("sdxl", {"train_text_encoder": True, "format": "kohya"}),
        ("sd3", {"train_text_encoder": True}),
        ("flux", {}),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else value,
)
def test_diffusers_and_craft_draw_the_same_with_it(  # noqa: PLR0917
    drawn: Drawn, pipelines: Callable[[str], Any], truth: Truth, trained: Trained, kind: str, how: dict[str, Any]
) -> None:
    made = trained(kind, **how)
    expected = diffusers_draws(pipelines(kind), [(made, 1.0)], truth, kind)
    assert np.abs(drawn(kind, made) - expected).max() <= 2
    assert np.abs(expected - truth(kind)).max() > 4, "a LoRA that changes nothing proves nothing"


@pytest.mark.parametrize(("kind", "dora"), [("sd3", False), ("flux", True)])
def test_kohyas_layout_of_the_transformers_draws_what_the_other_does(
    drawn: Drawn, truth: Truth, trained: Trained, kind: str, *, dora: bool
) -> None:
    """It names the original program's layers, several of diffusers' in one."""
    layouts = [trained(kind, format=layout, dora=dora) for layout in ("peft", "kohya")]
    ours, theirs = (drawn(kind, made) for made in layouts)
    assert np.abs(ours - theirs).max() <= 1
    assert np.abs(ours - truth(kind)).max() > 4
    with safe_open(layouts[1].path, "pt") as file:
        names = list(file.keys())
    assert all(name.startswith(("lora_unet_joint_", "lora_unet_double_", "lora_unet_single_")) for name in names)


SDXL_BLOCKS = [
    *(f"input_blocks_{number}_1" for number in (4, 5, 7, 8)),
    "middle_block_1",
    *(f"output_blocks_{number}_1" for number in range(6)),
]


def test_kohyas_layout_of_sdxl_has_the_names_that_his_scripts_give() -> None:
    """Of a UNet with SDXL's blocks, though narrow; diffusers knows the layers again."""
    depths: Any = (1, 2, 10)  # diffusers' annotation has a tuple of one
    unet = UNet2DConditionModel(
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        block_out_channels=(8, 8, 8),
        layers_per_block=2,
        transformer_layers_per_block=depths,
        attention_head_dim=2,
        norm_num_groups=4,
        cross_attention_dim=8,
    )
    pipe = object.__new__(StableDiffusionXLPipeline)
    pipe.__dict__["unet"] = unet
    ends = (".to_q", ".to_k", ".to_v", ".to_out.0")
    layers = [path for path, layer in unet.named_modules() if isinstance(layer, nn.Linear) and path.endswith(ends)]
    change = lora_file.Change(torch.ones(1, 8), torch.ones(8, 1), 1.0)
    found = {"unet": dict.fromkeys(layers, change)}
    named = lora_file.kohya(found, pipe)
    names = {key.partition(".")[0].removeprefix("lora_unet_") for key in named}
    assert len(names) == 70 * 2 * 4
    assert {name.partition("_transformer_blocks_")[0] for name in names} == set(SDXL_BLOCKS)
    assert "input_blocks_4_1_transformer_blocks_0_attn1_to_q" in names
    assert "output_blocks_2_1_transformer_blocks_9_attn2_to_out_0" in names
    plain = object.__new__(StableDiffusionPipeline)
    plain.__dict__["unet"] = unet
    by_layer = lora_file.kohya(found, plain)
    assert {f"lora_unet_{layer.replace('.', '_')}.alpha" for layer in layers} < set(by_layer)
    known, expected = (
        StableDiffusionXLPipeline.lora_state_dict(tensors, unet_config=unet.config)[0] for tensors in (named, by_layer)
    )
    assert set(known) == set(expected)


def test_kohyas_layout_of_sdxl_draws_what_the_other_does(drawn: Drawn, truth: Truth, trained: Trained) -> None:
    layouts = [trained("sdxl", format=layout, train_text_encoder=True, alpha=2.0) for layout in ("peft", "kohya")]
    ours, theirs = (drawn("sdxl", made) for made in layouts)
    assert np.abs(ours - theirs).max() <= 1
    assert np.abs(ours - truth("sdxl")).max() > 4
    with safe_open(layouts[1].path, "pt") as file:
        names = list(file.keys())
    assert any(name.startswith("lora_unet_input_blocks_3_1_transformer_blocks_0_attn1_to_q.") for name in names)
    assert not any("down_blocks" in name or "up_blocks" in name or "mid_block" in name for name in names)


def test_the_sample_is_what_craft_draws_with_the_file(
    tmp_path: Path, files: Path, worker: WorkerProcess, sd: ModelManifest, pipelines: Callable[[str], Any]
) -> None:
    desk = Desk(tmp_path, tmp_path)
    asked = ask(tmp_path, "sd", sample_prompts=("a red cat", "a dog"), ema_decay=0.5, **STRONG)
    made = desk.train(asked, pipelines("sd"))
    samples = [frame.sample for frame in desk.of("sample")]
    assert [(one.step, one.prompt, one.seed) for one in samples] == [(3, "a red cat", 5), (3, "a dog", 5)]
    assert samples[0].data == made.preview
    shown = np.asarray(Image.open(io.BytesIO(samples[0].data))).astype(int)
    (tmp_path / made.sha256).rename(tmp_path / "mine.safetensors")
    stored = put_lora(tmp_path / "mine.safetensors", files)
    (image,) = worker.draw(submit_with(sd, [(stored, 1.0)], seed=5, steps=3, sampler="", guidance_scale=5.0))
    assert np.abs(pixels(image) - shown).max() <= 2


def test_the_file_says_what_it_is(trained: Trained) -> None:
    made = trained("sd", min_snr_gamma=5.0)
    with safe_open(made.path, "pt") as file:
        told = file.metadata()
    data = made.path.read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    assert told["sshs_model_hash"] == hashlib.sha256(data[8 + length :]).hexdigest()
    assert told["modelspec.hash_sha256"] == f"0x{told['sshs_model_hash']}"
    expected = {
        "ss_network_dim": "4",
        "ss_network_alpha": "4.0",
        "ss_base_model_version": "sd_v1",
        "ss_num_train_images": "3",
        "ss_steps": "3",
        "ss_learning_rate": "0.1",
        "ss_output_name": "mine",
        "ss_seed": "5",
        "ss_resolution": "(64, 64)",
        "ss_min_snr_gamma": "5.0",
        "modelspec.sai_model_spec": "1.0.0",
        "modelspec.architecture": "stable-diffusion-v1/lora",
        "modelspec.title": "mine",
        "modelspec.trigger_phrase": "a red cat",
        "modelspec.prediction_type": "epsilon",
    }
    assert {name: told[name] for name in expected} == expected
    assert json.loads(told["ss_tag_frequency"]) == {"dataset": {"a dog": 1, "a red cat": 2}}
    thumbnail = told["modelspec.thumbnail"].removeprefix("data:image/jpeg;base64,")
    assert Image.open(io.BytesIO(base64.b64decode(thumbnail))).size == (64, 64)
    assert not [name for name in told if "date" in name]


@pytest.mark.parametrize("kind", ["sd", "flux"])
@pytest.mark.parametrize("layout", ["peft", "kohya"])
def test_the_inspection_of_strangers_files_lets_it_through(trained: Trained, kind: str, layout: str) -> None:
    made = trained(kind, format=layout, steps=1)
    found = lora.check(made.path)
    with safe_open(made.path, "pt") as file:
        told = file.metadata()
    assert (found.trigger, found.sha256, found.ss_hash) == ("a red cat", made.file.sha256, told["sshs_model_hash"])
    assert found.metadata["ss_network_dim"] == "4"
