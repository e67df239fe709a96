"""FLUX.1's ControlNets: their pictures are those of diffusers' pipelines, alone and in batches with everything else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from craft_protos.dispatch import CONTROLNET, ModelManifest
from craftd import safetensors
from craftd.architectures import controls as kinds
from craftd.architectures import detect
from craftd.worker.models import control
from safetensors.torch import save_file

from tests import tiny_controls
from tests.worker.client import WorkerProcess, put_model, submit
from tests.worker.controlled import Models, Pipelines, Studio, map_picture
from tests.worker.families import assert_same
from tests.worker.loras import Make, with_loras
from tests.worker.starts import put, spotted, start_picture, submit_over
from tests.worker.test_start_batches import assert_each_is_as_alone
from tests.worker.trained import CPU


@pytest.fixture(scope="module")
def deep(pipelines: Pipelines) -> Any:
    """A FLUX.1 of more blocks than its control models have."""
    from diffusers import FluxTransformer2DModel

    torch.manual_seed(12)
    config = dict(pipelines("flux").transformer.config) | {"num_layers": 3, "num_single_layers": 5}
    made = FluxTransformer2DModel.from_config(config).eval()
    return type(pipelines("flux"))(**pipelines("flux").components | {"transformer": made})


@pytest.fixture(scope="module")
def networks(deep: Any) -> dict[str, Any]:
    from diffusers import FluxControlNetModel

    def made(seed: int, **config: Any) -> Any:
        return tiny_controls.of_transformer(FluxControlNetModel, deep.transformer, seed, **config)

    return {
        "a": made(1, num_layers=2, num_single_layers=2),
        "b": made(2, num_layers=2, num_single_layers=2),
        "unguided": made(3, num_layers=1, num_single_layers=0, guidance_embeds=False),
        "union": made(4, num_layers=1, num_single_layers=1, num_mode=7),
        "pixels": made(5, num_layers=2, num_single_layers=0, conditioning_embedding_channels=4, patch_size=2),
    }


@pytest.fixture(scope="module")
def model(deep: Any, files: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("deep")
    deep.save_pretrained(folder)
    return put_model(folder, files, "deep")


@pytest.fixture
def studio(  # noqa: PLR0917 - fixtures
    worker: WorkerProcess, files: Path, model: Any, controls: Models, networks: dict[str, Any], deep: Any
) -> Studio:
    return Studio(worker, files, {"flux": model}, controls, networks, {"flux": deep}.__getitem__)


@pytest.mark.parametrize(
    ("name", "share", "more", "spec"),
    [
        ("a", {}, {}, {}),
        ("a", {"start": 0.2, "end": 0.7, "scale": 0.6}, {}, {"steps": 7}),
        ("unguided", {"scale": 1.4}, {}, {"sampler": "DPM++ 2M"}),
        ("union", {"kind": "depth-map"}, {"control_mode": 2}, {}),
        ("union", {"kind": "pose-map", "scale": 0.7}, {"control_mode": 4}, {}),
        ("pixels", {}, {}, {}),
    ],
)
def test_text_to_image(
    studio: Studio, name: str, share: dict[str, Any], more: dict[str, Any], spec: dict[str, Any]
) -> None:
    picture = map_picture()
    (drawn,) = studio.draw(studio.controlled(submit(studio.models["flux"], **spec), (name, picture, share)))
    told = {"steps": "num_inference_steps"}
    call = {told.get(key, key): value for key, value in spec.items()} | more
    call |= {"controlnet_conditioning_scale": share.get("scale", 1.0)}
    call |= {"control_guidance_start": share.get("start", 0.0), "control_guidance_end": share.get("end", 1.0)}
    expected = studio.diffusers_draws("flux", name, control_image=picture, **call)
    assert_same(drawn, expected)
    (without,) = studio.draw(submit(studio.models["flux"], **spec))
    assert np.abs(without - expected).max() > 8, "a control that changes nothing proves nothing"


def test_several_add_up(studio: Studio) -> None:
    one, other = map_picture(5), map_picture(6)
    job = studio.controlled(submit(studio.models["flux"]), ("a", one, {"scale": 0.7}), ("b", other, {"scale": 0.4}))
    scales = [0.7, 0.4]
    images = [one, other]
    theirs = studio.diffusers_draws(
        "flux", ["a", "b"], control_image=images, controlnet_conditioning_scale=scales, control_mode=[None, None]
    )
    assert_same(studio.draw(job)[0], theirs)


def test_image_to_image(studio: Studio) -> None:
    start, picture = start_picture(), map_picture()
    over = submit_over(studio.models["flux"], put(studio.files, start), strength=0.7, steps=6)
    call: dict[str, Any] = {"image": start, "control_image": picture, "strength": 0.7, "num_inference_steps": 6}
    theirs = studio.diffusers_draws("flux", "a", "Img2Img", **call, controlnet_conditioning_scale=1.0)
    assert_same(studio.draw(studio.controlled(over, ("a", picture, {})))[0], theirs)


def test_rows_with_and_without_share_a_call(studio: Studio, make: Make) -> None:
    """Text, starts, masks, LoRAs and controls of several forms, each as alone."""
    a, model = make("flux", "control-a", seed=301), studio.models["flux"]
    start, mask = put(studio.files, start_picture()), put(studio.files, spotted())
    one, other = map_picture(5), map_picture(6)
    jobs = [
        studio.controlled(submit(model, "a"), ("a", one, {})),
        with_loras(studio.controlled(submit(model, "b"), ("a", one, {})), (a, 2.0)),
        studio.controlled(submit(model, "c", guidance_scale=1.0), ("union", other, {"kind": "canny", "end": 0.5})),
        submit(model, "d"),
        studio.controlled(submit_over(model, start, "e", strength=0.9, steps=5), ("a", other, {}), ("a", one, {})),
        studio.controlled(submit_over(model, start, "f", mask=mask, strength=0.9), ("unguided", other, {})),
    ]
    studio.worker.draw(*jobs)
    drawn = assert_each_is_as_alone(studio.worker, jobs)
    assert np.abs(drawn[0] - drawn[3]).max() > 8, "a control that changes nothing proves nothing"
    assert np.abs(drawn[0] - drawn[1]).max() > 4


FILES: dict[str, dict[str, Any]] = {
    "control-flux": {"num_single_layers": 1},
    "control-flux:union": {"num_mode": 7, "guidance_embeds": True},
}


def _network(**config: Any) -> Any:
    from diffusers import FluxControlNetModel

    torch.manual_seed(3)
    sides: dict[str, Any] = {"num_attention_heads": 1, "joint_attention_dim": 32, "pooled_projection_dim": 32}
    return FluxControlNetModel(**{"num_layers": 2, "num_single_layers": 0, **sides, **config}).eval()


@pytest.mark.parametrize("prefix", ["", "controlnet."])
@pytest.mark.parametrize("kind", sorted(FILES))
def test_a_file_alone_says_what_its_folder_says(tmp_path: Path, kind: str, prefix: str) -> None:
    network = _network(**FILES[kind])
    (tmp_path / CONTROLNET).mkdir()
    path = tmp_path / CONTROLNET / "component.safetensors"
    save_file({prefix + name: one.contiguous() for name, one in network.state_dict().items()}, path)
    found = detect.of_part(safetensors.read(path))
    assert found is not None and found.kind.id == kind
    made = control.load(ModelManifest("it", pipeline=kinds.network_of(kind)), tmp_path, CPU).network
    ours, told = ({key: one for key, one in each.config.items() if key[0] != "_"} for each in (made, network))
    assert ours == told
    theirs = network.state_dict()
    assert all(torch.equal(one, theirs[name]) for name, one in made.state_dict().items())


def test_one_that_sees_pixels_is_read_alone(tmp_path: Path) -> None:
    network = _network(conditioning_embedding_channels=16, patch_size=2)
    (tmp_path / CONTROLNET).mkdir()
    save_file(network.state_dict(), tmp_path / CONTROLNET / "component.safetensors")
    made = control.load(ModelManifest("it", pipeline=kinds.OF_FLUX), tmp_path, CPU).network
    assert (made.config.patch_size, made.config.conditioning_embedding_channels) == (2, 16)
