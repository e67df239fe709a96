"""T2I-adapters: their pictures are those of diffusers' pipelines, alone and in batches with everything else."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from craft_protos.dispatch import CONTROLNET, ModelManifest
from craft_protos.reasons import CraftError
from craftd import safetensors
from craftd.architectures import controls as kinds
from craftd.architectures import detect
from craftd.worker.families.controls import RowControl
from craftd.worker.models import control
from safetensors.torch import save_file

from tests import tiny_controls, tiny_networks
from tests.worker import original_layout
from tests.worker.client import WorkerProcess, put_model, submit
from tests.worker.controlled import Models, Pipelines, Studio, map_picture
from tests.worker.families import assert_same
from tests.worker.loras import Make, with_loras
from tests.worker.starts import put, start_picture, submit_over
from tests.worker.test_start_batches import assert_each_is_as_alone
from tests.worker.trained import CPU

KINDS = ("sd1", "sdxl")
# Of Stable Diffusion 1's UNet: its first blocks attend, which is where an adapter's features go in before they shrink.
ATTENDS_FIRST = {
    "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
    "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
}


@pytest.fixture(scope="module")
def own(pipelines: Pipelines) -> dict[str, Any]:
    """diffusers' pipelines that are drawn with."""
    torch.manual_seed(11)
    parts = pipelines("sd").components | {"unet": tiny_networks.unet(**ATTENDS_FIRST).eval()}
    return {"sd1": type(pipelines("sd"))(**parts, requires_safety_checker=False), "sdxl": pipelines("sdxl")}


@pytest.fixture(scope="module")
def networks(own: dict[str, Any]) -> dict[str, Any]:
    made = {f"{kind}-{name}": tiny_controls.adapter(own[kind].unet, seed) for kind in KINDS for name, seed in NAMED}
    made["sd1-grey"] = tiny_controls.adapter(own["sd1"].unet, 3, channels=1)
    made["sd1-light"] = tiny_controls.adapter(own["sd1"].unet, 4, kind="light_adapter")
    return made | {"sd1-net": tiny_controls.of(own["sd1"].unet, 5)}


NAMED = (("a", 1), ("b", 2))


@pytest.fixture(scope="module")
def attending(own: dict[str, Any], files: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("sd1")
    own["sd1"].save_pretrained(folder)
    return put_model(folder, files, "attending")


@pytest.fixture
def studio(  # noqa: PLR0917 - fixtures
    worker: WorkerProcess,
    files: Path,
    models: Models,
    controls: Models,
    networks: dict[str, Any],
    own: dict[str, Any],
    attending: Any,
) -> Studio:
    return Studio(worker, files, {**models, "sd1": attending}, controls, networks, own.__getitem__)


@pytest.mark.parametrize(
    ("name", "spec", "scale"),
    [
        ("sd1-a", {}, 1.0),
        ("sd1-a", {"guidance_scale": 1.0, "sampler": "Heun"}, 0.6),
        ("sd1-grey", {}, 1.4),
        ("sd1-light", {"negative_prompt": "blue"}, 1.0),
        ("sdxl-a", {}, 1.0),
        ("sdxl-a", {"guidance_scale": 1.0, "sampler": "Euler a"}, 0.6),
    ],
)
def test_text_to_image(studio: Studio, name: str, spec: dict[str, Any], scale: float) -> None:
    picture, kind = map_picture(), name.partition("-")[0]
    (drawn,) = studio.draw(studio.controlled(submit(studio.models[kind], **spec), (name, picture, {"scale": scale})))
    shown = picture.convert("L") if name == "sd1-grey" else picture
    expected = studio.diffusers_adapts(kind, name, image=shown, adapter_conditioning_scale=scale, **spec)
    assert_same(drawn, expected)
    (without,) = studio.draw(submit(studio.models[kind], **spec))
    assert np.abs(without - expected).max() > 8, "a control that changes nothing proves nothing"


def test_the_share_of_the_steps(studio: Studio) -> None:
    picture = map_picture()
    job = studio.controlled(submit(studio.models["sdxl"], steps=7), ("sdxl-a", picture, {"end": 0.5}))
    asked: dict[str, Any] = {"adapter_conditioning_factor": 0.5, "num_inference_steps": 7}
    assert_same(studio.draw(job)[0], studio.diffusers_adapts("sdxl", "sdxl-a", image=picture, **asked))


@pytest.mark.parametrize("kind", KINDS)
def test_several_add_up(studio: Studio, kind: str) -> None:
    one, other = map_picture(5), map_picture(6)
    asked = (f"{kind}-a", one, {"scale": 0.7}), (f"{kind}-b", other, {"scale": 0.4})
    names, scales = [f"{kind}-a", f"{kind}-b"], [0.7, 0.4]
    theirs = studio.diffusers_adapts(kind, names, image=[one, other], adapter_conditioning_scale=scales)
    assert_same(studio.draw(studio.controlled(submit(studio.models[kind]), *asked))[0], theirs)


@pytest.mark.parametrize("kind", KINDS)
def test_rows_with_and_without_share_a_call(studio: Studio, make: Make, kind: str) -> None:
    """Text, a start, LoRAs, adapters and a ControlNet, each as alone."""
    model, start = studio.models[kind], put(studio.files, start_picture())
    one, other = map_picture(5), map_picture(6)
    by_a, by_b = f"{kind}-a", f"{kind}-b"
    jobs = [
        studio.controlled(submit(model, "a"), (by_a, one, {})),
        studio.controlled(submit(model, "b", guidance_scale=1.0), (by_b, other, {"scale": 0.5, "end": 0.5})),
        submit(model, "c"),
        studio.controlled(submit_over(model, start, "d", strength=0.9, steps=5), (by_a, other, {}), (by_b, one, {})),
    ]
    if kind == "sd1":
        jobs.append(studio.controlled(submit(model, "e"), (by_a, one, {}), ("sd1-net", other, {"scale": 0.7})))
    else:
        a = make(kind, "adapter-a", seed=301)
        jobs.append(with_loras(studio.controlled(submit(model, "e"), (by_a, one, {})), (a, 0.8)))
    studio.worker.draw(*jobs)
    drawn = assert_each_is_as_alone(studio.worker, jobs)
    assert np.abs(drawn[0] - drawn[2]).max() > 8, "a control that changes nothing proves nothing"
    assert np.abs(drawn[0] - drawn[4]).max() > 4


@pytest.mark.parametrize("side", [1000, 1024])
def test_sides_that_it_cannot_halve_are_continued(side: int) -> None:
    """A model draws multiples of eight; what Stable Diffusion XL's adapters read is a multiple of sixteen."""
    network = tiny_controls.adapter(_Unet, kind="full_adapter_xl")
    features = RowControl(network, torch.rand(1, 3, side, 64), 1.0, 0.0, 1.0).features
    assert [one.shape[-2] for one in features] == [(side // 8 + 1) // 2] * 2


class _Unet:
    class config:
        addition_embed_type = "text_time"
        block_out_channels = (16, 32)


FILES = {
    "sd1": {"channels": 3, "downscale_factor": 8, "adapter_type": "full_adapter"},
    "sd1, of grey": {"channels": 1, "downscale_factor": 8, "adapter_type": "full_adapter"},
    "sd1, light": {"channels": 3, "downscale_factor": 8, "adapter_type": "light_adapter"},
    "sdxl": {"channels": 3, "downscale_factor": 16, "adapter_type": "full_adapter_xl"},
    "sdxl, of grey": {"channels": 1, "downscale_factor": 16, "adapter_type": "full_adapter_xl"},
}


def _network(name: str) -> Any:
    from diffusers import T2IAdapter

    told: dict[str, Any] = dict(FILES[name])
    is_light = told["adapter_type"] == "light_adapter"
    torch.manual_seed(3)
    widths = [16, 32, 32] if is_light else [16, 32, 32, 32]
    made = T2IAdapter(told.pop("channels"), widths, 4 if is_light else 2, **told)
    return made.eval()


@pytest.mark.parametrize("layout", ["diffusers", "original", "behind a prefix"])
@pytest.mark.parametrize("name", sorted(FILES))
def test_a_file_alone_says_what_its_folder_says(tmp_path: Path, name: str, layout: str) -> None:
    network = _network(name)
    tensors = network.state_dict() if layout == "diffusers" else original_layout.adapter(network)
    before = "adapter." if layout == "behind a prefix" else ""
    (tmp_path / CONTROLNET).mkdir()
    path = tmp_path / CONTROLNET / "component.safetensors"
    save_file({before + key: one.contiguous() for key, one in tensors.items()}, path)
    found = detect.of_part(safetensors.read(path))
    assert found is not None and found.kind.id == f"control-{name.partition(',')[0]}:t2i-adapter"
    made = control.load(ModelManifest("it", pipeline=kinds.network_of(found.kind.id)), tmp_path, CPU).network
    picture = torch.rand(1, network.config.in_channels, 64, 64)
    for ours, theirs in zip(made(picture), network(picture), strict=True):
        assert torch.allclose(ours, theirs, atol=1e-5)


def test_one_that_shrinks_by_convolutions_is_refused(tmp_path: Path) -> None:
    """diffusers has no network of that kind: nothing of it is left out in silence."""
    (tmp_path / CONTROLNET).mkdir()
    tensors = original_layout.adapter(_network("sd1")) | {"body.2.down_opt.op.weight": torch.zeros(16, 16, 3, 3)}
    save_file(tensors, tmp_path / CONTROLNET / "component.safetensors")
    manifest = replace(ModelManifest("it"), pipeline=kinds.T2I_ADAPTER)
    with pytest.raises(CraftError, match="down_opt") as refused:
        control.load(manifest, tmp_path, CPU)
    assert refused.value.reason == "UNSUPPORTED_MODEL"
