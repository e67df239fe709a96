"""What the front lets be queued is what a model can draw: every architecture at the sizes that its folder allows."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from craft_protos.settings import LimitSettings
from craftd.architectures import detect
from craftd.http.sizes import SHAPES, side_lengths
from craftd.models import folder
from craftd.models.model import Model
from craftd.worker.families.latents import sizes_of

from tests import tiny_models, tried
from tests.worker import flows
from tests.worker.client import WorkerProcess, pixels, put_model, submit

OTHERS = (
    *("pixart-sigma", "auraflow", "cogview3", "lumina2", "sana", "hunyuan-dit", "deepfloyd-if", "sd-pag"),
    *("cogview4", "ovis-image", "ernie-image", "ideogram4"),
)
GRANULARITY = {"sd": 8, "sd-tiny-vae": 8, "sd-text-time": 8, "lcm": 8, "sdxl": 8, "sdxl-plain": 8, "sd-pag": 8} | {
    **dict.fromkeys(("pixart", "sd3", "sd3-no-t5", "flux", "flux-schnell", "pixart-sigma", "auraflow"), 16),
    **dict.fromkeys(("chroma", "cogview3", "lumina2", "hunyuan-dit"), 16),
    **dict.fromkeys(("cogview4", "ovis-image", "ernie-image", "ideogram4"), 16),
    **dict.fromkeys((kind for kind in tiny_models.KINDS if kind.startswith(flows.KINDS)), 16),
    **{"sana": 32, "deepfloyd-if": 8, "flux-kontext": 16},
}
EVERY = (*tiny_models.KINDS, *OTHERS)
# The others begin from pictures, whose sizes test_inpainting_models, test_references and test_refiner draw.
FROM_WORDS = tuple(
    kind
    for kind in EVERY
    if not kind.endswith(("-inpainting", "-fill", "-refiner")) and not kind.startswith("qwen-image-edit")
)
_LIMITS = LimitSettings()


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The folder of a tiny model of any kind."""
    made: dict[str, Path] = {}

    def get(kind: str) -> Path:
        if kind in tiny_models.KINDS:
            return tiny_models.cached(kind)
        if kind not in made:
            torch.manual_seed(20)
            place = tmp_path_factory.mktemp("tried") / kind
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                tried.MAKERS[kind]().save_pretrained(place, safe_serialization=True)
            made[kind] = place
        return made[kind]

    return get


@pytest.fixture
def read(places: Callable[[str], Path]) -> Callable[[str], Model]:
    """As the front reads it, with a default that is drawn in no time."""

    def get(kind: str) -> Model:
        model = folder.read(places(kind), name=kind)
        assert not model.refused, model.refused_why
        side = model.sizes.nearest_side(32 if kind == "deepfloyd-if" else 128)
        return replace(model, defaults=replace(model.defaults, width=side, height=side))

    return get


@pytest.mark.parametrize("kind", FROM_WORDS)
def test_every_size_that_is_offered_or_suggested_is_drawn(
    worker: WorkerProcess, files: Path, places: Callable[[str], Path], read: Callable[[str], Model], kind: str
) -> None:
    model = read(kind)
    unit = model.sizes.granularity
    assert unit == GRANULARITY[kind]
    wanted = {side_lengths(shape, model, _LIMITS) for shape in SHAPES}
    wanted |= {(unit * 3, unit * 5), model.sizes.nearest(unit * 6.4, unit * 4.6)}
    stored = put_model(places(kind), files, kind, family="generic" if kind in OTHERS else "")
    images = worker.draw(
        *(
            submit(stored, f"{kind}-{width}x{height}", sampler="", steps=2, width=width, height=height)
            for width, height in sorted(wanted)
        )
    )
    assert {image.job_id for image in images} == {f"{kind}-{image.width}x{image.height}" for image in images}
    assert {(image.width, image.height) for image in images} == wanted


@pytest.mark.parametrize(
    "kind", [kind for kind in FROM_WORDS if kind not in ("sdxl-plain", "flux-kontext", "flux2-dev")]
)
def test_an_odd_size_is_the_pipelines_own_picture(
    worker: WorkerProcess, files: Path, places: Callable[[str], Path], read: Callable[[str], Model], kind: str
) -> None:
    unit = read(kind).sizes.granularity
    size = {"width": unit * 7, "height": unit * 5}
    stored = put_model(places(kind), files, kind, family="generic" if kind in OTHERS else "")
    (image,) = worker.draw(submit(stored, kind, sampler="", steps=2, **size))
    assert np.abs(pixels(image) - _truth(places(kind), kind, size)).max() <= 1


@pytest.mark.parametrize("kind", ["sd3", "cogview3", "lumina2"])
def test_a_side_ends_where_the_table_of_places_does(
    worker: WorkerProcess, files: Path, places: Callable[[str], Path], read: Callable[[str], Model], kind: str
) -> None:
    sizes = read(kind).sizes
    unit, most = sizes.granularity, sizes.largest_side
    assert sizes.allows(most, unit) and not sizes.allows(most + unit, unit) and most < 2048
    stored = put_model(places(kind), files, kind, family="generic" if kind in OTHERS else "")
    (image,) = worker.draw(submit(stored, "most", sampler="", steps=1, width=most, height=unit))
    assert (image.width, image.height) == (most, unit)
    worker.fail(submit(stored, "more", sampler="", steps=1, width=most + unit, height=unit))


@pytest.mark.parametrize("kind", EVERY)
def test_the_worker_knows_the_sizes_that_the_front_knows(
    places: Callable[[str], Path], read: Callable[[str], Model], kind: str
) -> None:
    assert sizes_of(_pipeline(places(kind), kind)) == read(kind).sizes


def _pipeline(place: Path, kind: str) -> Any:
    import diffusers

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return diffusers.DiffusionPipeline.from_pretrained(
            place, use_safetensors=True, local_files_only=True, **tiny_models.without(kind)
        )


def _truth(place: Path, kind: str, size: dict[str, int]) -> np.ndarray:
    pipe = _pipeline(place, kind)
    pipe.set_progress_bar_config(disable=True)
    asked: dict[str, Any] = {"num_inference_steps": 2, "guidance_scale": 5.0, **size}
    asked = flows.arguments(pipe, asked | detect.of_pipeline(type(pipe).__name__, None).call)
    takes = inspect.signature(pipe.__call__).parameters
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        image = pipe(
            prompt="a red cat",
            generator=torch.Generator("cpu").manual_seed(7),
            **{key: value for key, value in asked.items() if key in takes},
        ).images[0]
    return np.asarray(image.convert("RGB")).astype(int)
