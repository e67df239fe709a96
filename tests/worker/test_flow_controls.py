"""ControlNets of Stable Diffusion 3, Qwen-Image and Z-Image: their pictures are those of diffusers' pipelines."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
from craft_protos.dispatch import CONTROLNET, ModelManifest
from craftd import safetensors
from craftd.architectures import controls as kinds
from craftd.architectures import detect
from craftd.worker.models import control
from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution
from safetensors.torch import save_file

from tests import tiny_controls
from tests.worker.client import submit
from tests.worker.controlled import Pipelines, Studio, map_picture
from tests.worker.families import assert_same
from tests.worker.loras import Make, with_loras
from tests.worker.starts import put, start_picture, submit_over
from tests.worker.test_start_batches import assert_each_is_as_alone
from tests.worker.trained import CPU

NETWORKS: dict[str, tuple[str, dict[str, Any]]] = {
    "sd3": ("SD3ControlNetModel", {"num_layers": 1}),
    "sd3-told": ("SD3ControlNetModel", {"num_layers": 1, "force_zeros_for_pooled_projection": False}),
    "qwen-image": ("QwenImageControlNetModel", {"num_layers": 1}),
    "z-image": ("ZImageControlNetModel", {"control_layers_places": [0, 1], "control_in_dim": 4}),
    "z-image-masked": (
        "ZImageControlNetModel",
        {
            "control_layers_places": [0],
            "control_refiner_layers_places": [0],
            "control_in_dim": 9,
            "add_control_noise_refiner": "control_noise_refiner",
        },
    ),
}
KINDS = ("sd3", "qwen-image", "z-image")


def _kind(name: str) -> str:
    return name.removesuffix("-told").removesuffix("-masked")


@pytest.fixture(scope="module")
def networks(pipelines: Pipelines) -> dict[str, Any]:
    return {
        name: tiny_controls.of_transformer(getattr(diffusers, kind), pipelines(_kind(name)).transformer, seed, **config)
        for seed, (name, (kind, config)) in enumerate(NETWORKS.items())
    }


@pytest.mark.parametrize(("name", "scale"), [(name, 1.0) for name in NETWORKS] + [(name, 0.6) for name in KINDS])
def test_text_to_image(studio: Studio, name: str, scale: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stable Diffusion 3's pipeline draws a control picture's latents by no seed: here it takes their middle, too."""
    if name.startswith("sd3"):
        monkeypatch.setattr(DiagonalGaussianDistribution, "sample", lambda self, generator=None: self.mode())
    picture, kind = map_picture(), _kind(name)
    (drawn,) = studio.draw(studio.controlled(submit(studio.models[kind]), (name, picture, {"scale": scale})))
    expected = studio.diffusers_draws(kind, name, control_image=picture, controlnet_conditioning_scale=scale)
    assert_same(drawn, expected)
    (without,) = studio.draw(submit(studio.models[kind]))
    assert np.abs(without - expected).max() > 8, "a control that changes nothing proves nothing"


@pytest.mark.parametrize("kind", KINDS)
def test_rows_with_and_without_share_a_call(studio: Studio, make: Make, kind: str) -> None:
    """Text of other lengths, starts, LoRAs and controls, each as alone."""
    a, model = make(kind, "control-a", seed=301), studio.models[kind]
    start, one, other = put(studio.files, start_picture()), map_picture(5), map_picture(6)
    jobs = [
        studio.controlled(submit(model, "a"), (kind, one, {})),
        with_loras(studio.controlled(submit(model, "b"), (kind, one, {})), (a, 0.8)),
        studio.controlled(submit(model, "c", guidance_scale=0.0), (kind, other, {"scale": 0.5, "end": 0.5})),
        with_loras(submit(model, "d", prompt="a red cat, a dog and a red red cat"), (a, -0.5)),
        studio.controlled(submit_over(model, start, "e", strength=0.9, steps=5), (kind, other, {}), (kind, one, {})),
    ]
    studio.worker.draw(*jobs)
    drawn = assert_each_is_as_alone(studio.worker, jobs)
    assert np.abs(drawn[0] - drawn[1]).max() > 4


def _sd3(**config: Any) -> Any:
    sides = {"num_attention_heads": 1, "joint_attention_dim": 32, "caption_projection_dim": 64}
    told = {"num_layers": 1, "pooled_projection_dim": 32, "sample_size": 128}
    return diffusers.SD3ControlNetModel(**told | sides | config)


def _qwen() -> Any:
    return diffusers.QwenImageControlNetModel(num_layers=1, num_attention_heads=1, joint_attention_dim=32)


def _z_image(layers: int, **config: Any) -> Any:
    places = [layer * (30 // layers) for layer in range(layers)]
    sides = {"dim": 64, "n_heads": 1, "n_kv_heads": 1, "n_refiner_layers": 2}
    return diffusers.ZImageControlNetModel(places, **{"control_refiner_layers_places": []} | sides | config)


REFINED = {"control_in_dim": 33, "control_refiner_layers_places": [0, 1]}
FILES = {
    "sd3": _sd3,
    "sd3, normalised": lambda: _sd3(qk_norm="rms_norm", dual_attention_layers=(0,)),
    "qwen-image": _qwen,
    "z-image": lambda: _z_image(6, control_in_dim=16),
    "z-image, 2.0": lambda: _z_image(15, add_control_noise_refiner="control_layers", **REFINED),
    "z-image, 2.1": lambda: _z_image(15, add_control_noise_refiner="control_noise_refiner", **REFINED),
}


@pytest.mark.parametrize("name", sorted(FILES))
def test_a_file_alone_says_what_its_folder_says(tmp_path: Path, name: str) -> None:
    network = tiny_controls.speaking(FILES[name](), 3)
    theirs = {key: one.contiguous() for key, one in network.state_dict().items()}
    more = {"control_noise_refiner.0.before_proj.weight": torch.zeros(64, 64)} if name.endswith("2.0") else {}
    (tmp_path / CONTROLNET).mkdir()
    path = tmp_path / CONTROLNET / "component.safetensors"
    save_file(theirs | more, path)
    found = detect.of_part(safetensors.read(path))
    assert found is not None and found.kind.id == f"control-{name.partition(',')[0]}"
    made = control.load(ModelManifest("it", pipeline=kinds.network_of(found.kind.id)), tmp_path, CPU).network
    ours = made.state_dict()
    assert ours.keys() == theirs.keys() and all(torch.equal(ours[key], one) for key, one in theirs.items())
    own, told = ({key: _listed(one) for key, one in one.config.items() if key in SAID} for one in (made, network))
    assert own == told


SAID = {
    *(
        "control_layers_places",
        "control_refiner_layers_places",
        "add_control_noise_refiner",
        "control_in_dim",
        "qk_norm",
    ),
    *("num_layers", "patch_size", "in_channels", "num_attention_heads", "dual_attention_layers", "use_pos_embed"),
    *("joint_attention_dim", "force_zeros_for_pooled_projection", "pos_embed_max_size", "n_heads", "dim"),
}


def _listed(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value
