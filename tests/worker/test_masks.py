"""Inpainting: what is drawn anew is diffusers', what is not is the start's own pixels."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from craft_protos import jobs_pb2
from craft_protos.worker_pb2 import FromWorker, ModelManifest
from craftd.worker.inputs.masks import region
from PIL import Image, ImageFilter

from tests.worker.client import WorkerProcess, pixels, provenance, submit
from tests.worker.starts import diffusers_draws, put, spotted, start_picture, submit_over

KINDS = ("sd", "sd-tiny-vae", "sdxl", "flux", "z-image", "qwen-image")  # diffusers inpaints with no tiny SD3
FORMATS = {"png": jobs_pb2.IMAGE_FORMAT_PNG, "webp": jobs_pb2.IMAGE_FORMAT_WEBP}
Models = dict[str, ModelManifest]
Pipelines = Callable[[str], Any]


def opened(image: FromWorker.ImageDone) -> np.ndarray:
    """With its transparency."""
    return np.asarray(Image.open(io.BytesIO(image.data)))


def assert_pasted(drawn: np.ndarray, expected: np.ndarray, start: Image.Image, mask: Image.Image) -> None:
    """As diffusers draws it where the mask is white, as the start is where it is black."""
    levels, before = np.asarray(mask)[..., None].astype(float) / 255, np.asarray(start)
    assert np.array_equal(np.where(levels == 0, drawn, 0), np.where(levels == 0, before, 0))
    mixed = levels * expected + (1 - levels) * before
    assert np.abs(drawn - mixed).max() <= 1.5
    assert np.abs(drawn - before).max() > 20, "a picture that nothing was drawn in proves nothing"


@pytest.fixture
def pasted(worker: WorkerProcess, files: Path, models: Models, pipelines: Pipelines) -> Callable[..., None]:
    """Asserts that what is drawn in a mask is what diffusers draws."""

    def check(kind: str, **asked: Any) -> None:
        start, mask = start_picture(), spotted()
        (drawn,) = worker.draw(submit_over(models[kind], put(files, start), mask=put(files, mask), **asked))
        assert_pasted(pixels(drawn), diffusers_draws(pipelines(kind), start, mask, **asked), start, mask)

    return check


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("steps", "strength"), [(5, 0.6), (3, 1.0)])
def test_every_family(pasted: Callable[..., None], kind: str, steps: int, strength: float) -> None:
    pasted(kind, steps=steps, strength=strength)


@pytest.mark.parametrize("sampler", ["", "Euler a", "Heun", "DDIM", "DPM++ 2M Karras", "DPM++ SDE", "PNDM", "LCM"])
@pytest.mark.parametrize("strength", [0.5, 1.0])
def test_samplers(pasted: Callable[..., None], sampler: str, strength: float) -> None:
    pasted("sd", sampler=sampler, strength=strength, steps=5)


def test_soft_masks_are_pasted_softly(
    worker: WorkerProcess, files: Path, sd: ModelManifest, pipelines: Pipelines
) -> None:
    """Latents know white and black alone: diffusers is shown every latent that is touched."""
    start, mask = start_picture(), spotted(box=(20, 20, 40, 44)).filter(ImageFilter.GaussianBlur(3))
    (drawn,) = worker.draw(submit_over(sd, put(files, start), mask=put(files, mask)))
    white = np.asarray(mask).reshape(8, 8, 8, 8).max(axis=(1, 3)) >= 128
    touched = Image.fromarray((white.repeat(8, 0).repeat(8, 1) * 255).astype(np.uint8))
    expected = diffusers_draws(pipelines("sd"), start, touched, strength=0.6)
    assert_pasted(pixels(drawn), expected, start, mask)


@pytest.mark.parametrize("case", [("sd", (67, 93), "png"), ("sd", (100, 41), "webp"), ("flux", (67, 93), "png")])
def test_odd_sizes_keep_what_is_black_to_the_bit(
    worker: WorkerProcess, files: Path, models: Models, case: tuple[str, tuple[int, int], str]
) -> None:
    kind, size, form = case
    start, mask = start_picture(*size), spotted(size, (10, 10, 30, 30))
    asked = {"width": size[0], "height": size[1], "format": FORMATS[form]}
    (drawn,) = worker.draw(submit_over(models[kind], put(files, start), mask=put(files, mask), **asked))
    assert (drawn.width, drawn.height) == size
    after, before, kept = pixels(drawn), np.asarray(start), np.asarray(mask) == 0
    assert np.array_equal(after[kept], before[kept])
    assert not np.array_equal(after[~kept], before[~kept])


@pytest.mark.parametrize("padding", [0, 8, 500])
@pytest.mark.parametrize("box", [(40, 50, 90, 70), (0, 0, 9, 9), (110, 80, 130, 100), (3, 60, 120, 62)], ids=str)
@pytest.mark.parametrize("size", [(64, 64), (96, 40)], ids=str)
def test_the_region_is_the_one_that_diffusers_cuts(
    pipelines: Pipelines, padding: int, box: tuple[int, int, int, int], size: tuple[int, int]
) -> None:
    mask = spotted((130, 100), box)
    theirs = pipelines("sd").image_processor.get_crop_region(mask, *size, pad=padding)
    assert region(mask, padding, size) == theirs


@pytest.mark.parametrize("padding", [0, 8])
def test_only_masked(worker: WorkerProcess, files: Path, sd: ModelManifest, padding: int) -> None:
    """The picture keeps its size, and all but the white to the bit."""
    start, mask = start_picture(130, 100), spotted((130, 100), (40, 50, 90, 70))
    sent = submit_over(sd, put(files, start), mask=put(files, mask), refined={"padding": padding})
    (drawn,) = worker.draw(sent)
    assert (drawn.width, drawn.height) == start.size
    after, before, kept = pixels(drawn), np.asarray(start), np.asarray(mask) == 0
    assert np.array_equal(after[kept], before[kept])
    assert not np.array_equal(after[~kept], before[~kept])


@pytest.mark.parametrize("padding", [None, 8])
def test_a_black_mask_gives_the_start_back(
    worker: WorkerProcess, files: Path, sd: ModelManifest, padding: int | None
) -> None:
    start, refined = start_picture(), {} if padding is None else {"padding": padding}
    calls = worker.predict_calls()
    (drawn,) = worker.draw(
        submit_over(sd, put(files, start), mask=put(files, Image.new("L", (64, 64))), refined=refined)
    )
    assert np.array_equal(pixels(drawn), np.asarray(start))
    assert worker.predict_calls() == calls


def test_a_white_mask_is_image_to_image(worker: WorkerProcess, files: Path, sd: ModelManifest) -> None:
    start, white = put(files, start_picture()), put(files, Image.new("L", (64, 64), 255))
    masked, alone = worker.draw(submit_over(sd, start, "a", mask=white), submit_over(sd, start, "b"))
    assert np.abs(pixels(masked) - pixels(alone)).max() <= 1


def test_inverted_masks_draw_the_black(worker: WorkerProcess, files: Path, sd: ModelManifest) -> None:
    start, mask = start_picture(), spotted()
    (drawn,) = worker.draw(submit_over(sd, put(files, start), mask=put(files, mask), refined={"invert": True}))
    kept, after, before = np.asarray(mask) == 255, pixels(drawn), np.asarray(start)
    assert np.array_equal(after[kept], before[kept])
    assert not np.array_equal(after[~kept], before[~kept])


def test_transparency_stays_where_nothing_is_drawn(worker: WorkerProcess, files: Path, sd: ModelManifest) -> None:
    start = start_picture().convert("RGBA")
    start.putalpha(Image.linear_gradient("L").resize((64, 64)))
    mask = spotted()
    for form in ("png", "webp"):
        (drawn,) = worker.draw(submit_over(sd, put(files, start), mask=put(files, mask), format=FORMATS[form]))
        after, before, kept = opened(drawn), np.asarray(start), np.asarray(mask) == 0
        assert np.array_equal(after[kept], before[kept])
        assert (after[~kept][:, 3] == 255).all()


def test_transparency_makes_no_mask_of_a_start(worker: WorkerProcess, files: Path, sd: ModelManifest) -> None:
    """It is seen over white, and the picture is drawn as a whole."""
    clear = start_picture().convert("RGBA")
    clear.putalpha(Image.linear_gradient("L").resize((64, 64)))
    flat = Image.alpha_composite(Image.new("RGBA", clear.size, "white"), clear).convert("RGB")
    given, expected = worker.draw(submit_over(sd, put(files, clear), "a"), submit_over(sd, put(files, flat), "b"))
    assert opened(given).shape == (64, 64, 3)
    assert np.abs(pixels(given) - pixels(expected)).max() <= 1


def test_rows_with_masks_and_without_share_a_call(
    worker: WorkerProcess, files: Path, sd: ModelManifest, pipelines: Pipelines, truth: Callable[..., np.ndarray]
) -> None:
    start, mask = start_picture(), spotted()
    stored, stored_mask = put(files, start), put(files, mask)
    worker.draw(submit(sd, "warm"), submit_over(sd, stored, "warm start", mask=stored_mask))
    masked = {"a": {"steps": 5, "strength": 0.9}, "b": {"steps": 9, "strength": 0.5, "sampler": "Euler a", "seed": 3}}
    jobs = [submit_over(sd, stored, job, mask=stored_mask, **asked) for job, asked in masked.items()]
    images = worker.draw(*jobs, submit_over(sd, stored, "c", strength=0.7, steps=6), submit(sd, "text", steps=5))
    assert [provenance(image)["batch"] for image in images] == [4, 4, 4, 4]
    for made in images[:2]:
        expected = diffusers_draws(pipelines("sd"), start, mask, **masked[made.job_id])
        white = np.asarray(mask) > 0
        assert np.abs(pixels(made) - expected)[white].max() <= 2
    assert np.abs(pixels(images[2]) - diffusers_draws(pipelines("sd"), start, strength=0.7, steps=6)).max() <= 2
    assert np.abs(pixels(images[3]) - truth(steps=5)).max() <= 2
