"""ControlNets: their pictures are those of diffusers' pipelines, alone and in batches with everything else."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from craft_protos import jobs_pb2
from craft_protos.worker_pb2 import ToWorker
from craftd.worker.inputs.maps import made_of
from PIL import Image

from tests import tiny_controls
from tests.worker.client import WorkerProcess, submit
from tests.worker.controlled import SIDE, Models, Pipelines, Studio, map_picture
from tests.worker.families import assert_same
from tests.worker.loras import Make, with_loras
from tests.worker.starts import put, spotted, start_picture, submit_over
from tests.worker.test_start_batches import assert_each_is_as_alone
from tests.worker.upscalers import put as put_upscaler
from tests.worker.upscalers import with_upscaler

KINDS = ("sd", "sdxl")


@pytest.fixture(scope="module")
def networks(pipelines: Pipelines) -> dict[str, Any]:
    """Random ones, in full precision: two of each kind."""
    return {f"{kind}-{name}": tiny_controls.of(pipelines(kind).unet, seed) for kind in KINDS for name, seed in NAMED}


NAMED = (("a", 1), ("b", 2))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("spec", "share"),
    [
        ({}, {}),
        ({"guidance_scale": 1.0}, {"scale": 0.6}),
        ({"steps": 7}, {"start": 0.2, "end": 0.7}),
        ({"sampler": "Heun"}, {"end": 0.5, "scale": 1.4}),
        ({"sampler": "Euler a", "negative_prompt": "blue"}, {}),
    ],
)
def test_text_to_image(studio: Studio, kind: str, spec: dict[str, Any], share: dict[str, float]) -> None:
    picture = map_picture()
    (drawn,) = studio.draw(studio.controlled(submit(studio.models[kind], **spec), (f"{kind}-a", picture, share)))
    told = {"steps": "num_inference_steps"}
    call = {told.get(name, name): value for name, value in spec.items()}
    call |= {"controlnet_conditioning_scale": share.get("scale", 1.0)}
    call |= {"control_guidance_start": share.get("start", 0.0), "control_guidance_end": share.get("end", 1.0)}
    expected = studio.diffusers_draws(kind, f"{kind}-a", image=picture, **call)
    assert_same(drawn, expected)
    (without,) = studio.draw(submit(studio.models[kind], **spec))
    assert np.abs(without - expected).max() > 8, "a control that changes nothing proves nothing"


@pytest.mark.parametrize("kind", KINDS)
def test_several_add_up(studio: Studio, kind: str) -> None:
    one, other = map_picture(5), map_picture(6)
    job = studio.controlled(
        submit(studio.models[kind]),
        (f"{kind}-a", one, {"scale": 0.7}),
        (f"{kind}-b", other, {"scale": 0.4, "end": 0.5}),
        (f"{kind}-a", other, {"scale": 0.2}),
    )
    names = ("a", "b", "a")
    expected = studio.diffusers_draws(
        kind,
        [f"{kind}-{name}" for name in names],
        image=[one, other, other],
        controlnet_conditioning_scale=[0.7, 0.4, 0.2],
        control_guidance_start=[0.0, 0.0, 0.0],
        control_guidance_end=[1.0, 0.5, 1.0],
    )
    assert_same(studio.draw(job)[0], expected)


@pytest.mark.parametrize("kind", KINDS)
def test_image_to_image_and_inpainting(studio: Studio, kind: str) -> None:
    start, mask, picture = start_picture(), spotted(), map_picture()
    asked = (f"{kind}-a", picture, {"end": 0.6})
    call: dict[str, Any] = {"image": start, "control_image": picture, "control_guidance_end": 0.6, "strength": 0.7}
    call |= {"num_inference_steps": 6, "controlnet_conditioning_scale": 1.0}
    spec: dict[str, Any] = {"strength": 0.7, "steps": 6}
    over = studio.controlled(submit_over(studio.models[kind], put(studio.files, start), **spec), asked)
    within = studio.controlled(
        submit_over(studio.models[kind], put(studio.files, start), mask=put(studio.files, mask), **spec), asked
    )
    assert_same(studio.draw(over)[0], studio.diffusers_draws(kind, f"{kind}-a", "Img2Img", **call))
    theirs = studio.diffusers_draws(kind, f"{kind}-a", "Inpaint", mask_image=mask, **call)
    levels = np.asarray(mask)[..., None] / 255
    pasted = levels * theirs + (1 - levels) * np.asarray(start)
    assert np.abs(studio.draw(within)[0] - pasted).max() <= 1.5


@pytest.mark.parametrize("kind", KINDS)
def test_rows_with_and_without_share_a_call(studio: Studio, make: Make, kind: str) -> None:
    """Text, starts, masks, LoRAs and controls of two control models, each as alone."""
    a, model = make(kind, "control-a", seed=301), studio.models[kind]
    start, mask = put(studio.files, start_picture()), put(studio.files, spotted())
    one, other = map_picture(5), map_picture(6)
    by_a, by_b = f"{kind}-a", f"{kind}-b"
    studio.worker.draw(with_loras(studio.controlled(submit(model, "warm"), (by_a, one, {}), (by_b, one, {})), (a, 1.0)))
    drawn = assert_each_is_as_alone(
        studio.worker,
        [
            studio.controlled(submit(model, "a"), (by_a, one, {})),
            with_loras(studio.controlled(submit(model, "b"), (by_a, one, {})), (a, 0.8)),
            studio.controlled(submit(model, "c", guidance_scale=1.0), (by_b, other, {"scale": 0.5, "end": 0.5})),
            submit(model, "d"),
            studio.controlled(
                submit_over(model, start, "e", strength=0.9, steps=5), (by_a, other, {}), (by_b, one, {})
            ),
            studio.controlled(submit_over(model, start, "f", mask=mask, strength=0.9), (by_b, other, {"scale": 1.3})),
        ],
    )
    assert np.abs(drawn[0] - drawn[3]).max() > 8, "a control that changes nothing proves nothing"
    assert np.abs(drawn[0] - drawn[1]).max() > 4


def test_a_control_picture_is_cut_as_the_start_is(studio: Studio) -> None:
    """One that has the start's shape shows in each place what lies there after the cut."""
    start, wide = start_picture(128, SIDE), map_picture(9, (128, SIDE))
    cut = wide.crop((32, 0, 96, SIDE))
    over = put(studio.files, start)
    whole, middle = studio.draw(
        studio.controlled(submit_over(studio.models["sd"], over, "a"), ("sd-a", wide, {})),
        studio.controlled(submit_over(studio.models["sd"], over, "b"), ("sd-a", cut, {})),
    )
    assert np.abs(whole - middle).max() <= 1


def test_a_control_picture_follows_the_part_around_a_mask(studio: Studio) -> None:
    start, mask = put(studio.files, start_picture(128, 128)), put(studio.files, spotted((128, 128), (40, 40, 88, 88)))
    lines = map_picture(9, (128, 128))
    elsewhere = lines.copy()
    elsewhere.paste((255, 0, 0), (0, 0, 20, 128))  # which the part does not show
    inside = lines.copy()
    inside.paste((255, 0, 0), (50, 50, 80, 80))

    def job(name: str, picture: Image.Image) -> ToWorker:
        masked = submit_over(studio.models["sd"], start, name, mask=mask, refined={"padding": 8, "blur": 0.0})
        return studio.controlled(masked, ("sd-a", picture, {}))

    drawn = studio.draw(job("a", lines), job("b", elsewhere), job("c", inside))
    assert np.abs(drawn[0] - drawn[1]).max() <= 1
    assert np.abs(drawn[0] - drawn[2]).max() > 8


@pytest.mark.parametrize("kind", ["canny", "edges", "scribble", "tile", "invert"])
def test_what_is_made_of_a_picture_is_what_the_map_shows(studio: Studio, kind: str) -> None:
    picture = start_picture()
    ready = Image.fromarray(made_of(kind, np.asarray(picture)))
    made, mapped = studio.draw(
        studio.controlled(submit(studio.models["sd"], "a"), ("sd-a", picture, {"kind": kind})),
        studio.controlled(submit(studio.models["sd"], "b"), ("sd-a", ready, {})),
    )
    assert np.abs(made - mapped).max() <= 1


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_drawn_again_larger_is_controlled_both_times(studio: Studio, kind: str) -> None:
    """The second drawing is diffusers' image-to-image under the same control, whose picture grew with it."""
    picture, model, large = map_picture(size=(128, 128)), studio.models[kind], (96, 96)
    asked = (f"{kind}-a", picture, {"scale": 0.8})
    (first,) = studio.draw(studio.controlled(submit(model), asked))
    hires = jobs_pb2.Hires(scale=1.5, width=large[0], height=large[1], strength=0.5, steps=6)
    job = with_upscaler(studio.controlled(submit(model), asked), put_upscaler(studio.files), hires=hires)
    enlarged = Image.fromarray(first.astype(np.uint8)).resize(large, Image.Resampling.LANCZOS)
    call = {"image": enlarged, "control_image": picture.resize(large, Image.Resampling.LANCZOS)}
    call |= {"strength": 0.5, "num_inference_steps": 6, "controlnet_conditioning_scale": 0.8}
    expected = studio.diffusers_draws(kind, f"{kind}-a", "Img2Img", **call)
    assert np.abs(studio.draw(job)[0] - expected).max() <= 2
    plain = studio.draw(with_upscaler(submit(model), put_upscaler(studio.files), hires=hires))[0]
    assert np.abs(plain - expected).max() > 8, "a control that changes nothing proves nothing"


def test_a_control_model_draws_nothing_alone(worker: WorkerProcess, controls: Models) -> None:
    failed = worker.fail(submit(controls["sd-a"]))
    assert failed.error.reason == "UNSUPPORTED_MODEL"
    assert "control model" in failed.error.message
