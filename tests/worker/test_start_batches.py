"""Starts, masks and LoRAs in one batch, models that diffusers inpaints nothing with, and starts of one colour."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from craft_protos.worker_pb2 import ModelManifest, ToWorker
from PIL import Image

from tests.worker.client import WorkerProcess, pixels, provenance, submit
from tests.worker.loras import Make, with_loras
from tests.worker.starts import Alike, put, spotted, start_picture, submit_over

# diffusers inpaints with none of them, or with no tiny one; its pipeline for Chroma looks for what no Chroma has.
UNMATCHED = ("sd3", "flux2", "krea2", "chroma")
Models = dict[str, ModelManifest]


def assert_each_is_as_alone(worker: WorkerProcess, jobs: list[ToWorker]) -> list[np.ndarray]:
    """All of them in one batch; within 2/255 of each alone. The jobs are sorted by their ids."""
    alone = [pixels(worker.draw(job)[0]) for job in jobs]
    images = worker.draw(*jobs)
    assert [provenance(image)["batch"] for image in images] == [len(jobs)] * len(jobs)
    for image, expected in zip(images, alone, strict=True):
        assert np.abs(pixels(image) - expected).max() <= 2
    return alone


@pytest.mark.parametrize("kind", ["sd", "sdxl", "flux", "chroma", "z-image"])
def test_loras_with_starts_and_masks_share_a_call(
    worker: WorkerProcess, files: Path, models: Models, make: Make, kind: str
) -> None:
    """Text, starts and masks, each with a LoRA and without one, or with two."""
    a, b, model = make(kind, "start-a", seed=201), make(kind, "start-b", seed=202, rank=20), models[kind]
    start, mask = put(files, start_picture()), put(files, spotted())
    worker.draw(with_loras(submit_over(model, start, "warm", mask=mask), (a, 1.0), (b, 1.0)))
    drawn = assert_each_is_as_alone(
        worker,
        [
            with_loras(submit_over(model, start, "a", strength=0.9, steps=5), (a, 0.8)),
            with_loras(submit_over(model, start, "b", mask=mask, strength=0.9), (b, 1.0)),
            with_loras(submit_over(model, start, "c", mask=mask, strength=0.7, steps=5), (a, 0.5), (b, -0.6)),
            submit_over(model, start, "d", strength=0.9, steps=5),
            with_loras(submit(model, "e"), (b, 0.7)),
            submit(model, "f"),
        ],
    )
    assert np.abs(drawn[0] - drawn[3]).max() > 4, "a LoRA that changes nothing proves nothing"
    assert np.abs(drawn[4] - drawn[5]).max() > 4


@pytest.mark.parametrize("kind", UNMATCHED)
@pytest.mark.parametrize("strength", [0.6, 1.0])
def test_what_is_black_is_kept_to_the_bit(
    worker: WorkerProcess, files: Path, models: Models, kind: str, strength: float
) -> None:
    start, mask = start_picture(), spotted()
    (drawn,) = worker.draw(submit_over(models[kind], put(files, start), mask=put(files, mask), strength=strength))
    after, before, kept = pixels(drawn), np.asarray(start).astype(int), np.asarray(mask) == 0
    assert np.array_equal(after[kept], before[kept])
    assert np.abs(after - before)[~kept].max() > 20


@pytest.mark.parametrize("kind", UNMATCHED)
@pytest.mark.parametrize("strength", [0.6, 1.0])
def test_a_white_mask_is_image_to_image(
    worker: WorkerProcess, files: Path, models: Models, kind: str, strength: float
) -> None:
    start, white = put(files, start_picture()), put(files, Image.new("L", (64, 64), 255))
    model, asked = models[kind], {"strength": strength}
    masked, unmasked = worker.draw(
        submit_over(model, start, "a", mask=white, **asked), submit_over(model, start, "b", **asked)
    )
    assert np.abs(pixels(masked) - pixels(unmasked)).max() <= 1


@pytest.mark.parametrize("kind", UNMATCHED)
def test_masks_starts_and_text_share_a_call(worker: WorkerProcess, files: Path, models: Models, kind: str) -> None:
    model, start, mask = models[kind], put(files, start_picture()), put(files, spotted())
    worker.draw(submit_over(model, start, "warm", mask=mask))
    assert_each_is_as_alone(
        worker,
        [
            submit_over(model, start, "a", mask=mask, strength=0.9, steps=5),
            submit_over(model, start, "b", mask=mask, strength=0.7, seed=99, refined={"invert": True}),
            submit_over(model, start, "c", strength=0.8, steps=5),
            submit(model, "d"),
        ],
    )


@pytest.mark.parametrize("colour", ["black", "white", "#808080", "#f00000"])
def test_starts_of_one_colour_are_as_diffusers_has_them(alike: Alike, colour: str) -> None:
    alike("sd", Image.new("RGB", (64, 64), colour))


@pytest.mark.parametrize("kind", ["sdxl", "sd3", "flux", "z-image", "qwen-image"])
def test_every_family_takes_a_black_start(alike: Alike, kind: str) -> None:
    alike(kind, Image.new("RGB", (64, 64)))


@pytest.mark.parametrize("mode", ["L", "1", "P", "RGBA", "I;16"])
def test_modes_of_one_colour(worker: WorkerProcess, files: Path, sd: ModelManifest, mode: str) -> None:
    """The same white in all of them."""
    white = Image.new("RGB", (64, 64), "white")
    given = Image.new("I;16", (64, 64), 65535) if mode == "I;16" else white.convert(mode)
    drawn, expected = worker.draw(submit_over(sd, put(files, given), "a"), submit_over(sd, put(files, white), "b"))
    assert np.abs(pixels(drawn) - pixels(expected)).max() <= 1
