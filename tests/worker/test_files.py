"""The files that come out: formats, what they say about themselves, previews."""

from __future__ import annotations

import io
import json

import numpy as np
import pytest
import torch
from craft_protos import jobs_pb2
from craft_protos.worker_pb2 import ModelManifest, Preview, ToWorker
from craftd.worker.families.autoencoders import Autoencoder
from craftd.worker.families.latents import LinearSketch
from craftd.worker.output import picture
from diffusers.configuration_utils import FrozenDict
from PIL import Image

from tests.worker.client import WorkerProcess, pixels, provenance, submit

PROMPT = 'a "red" cat, 雪\nand more'


def _comment(file: Image.Image) -> str:
    comment = file.getexif().get_ifd(0x8769)[0x9286]
    assert comment.startswith(b"ASCII\0\0\0")
    return str(comment[8:].decode("ascii"))


def test_png_carries_both_forms(worker: WorkerProcess, sd: ModelManifest) -> None:
    sent = submit(sd, prompt=PROMPT, negative_prompt="blurred", indices=(2,), provenance='{"craft": "0.1", "front": 1}')
    (image,) = worker.draw(sent)
    file = Image.open(io.BytesIO(image.data))
    assert (image.media_type, image.width, image.height, image.seed) == ("image/png", 64, 64, 9)
    assert file.text["craft"] == image.provenance
    told = json.loads(image.provenance)
    assert (
        told
        | {
            "prompt": PROMPT,
            "negative_prompt": "blurred",
            "model": {"name": "sd", "sha256": sd.sha256},
            "loras": [],
            "width": 64,
            "height": 64,
            "steps": 4,
            "guidance_scale": 5.0,
            "seed": 9,
            "index": 2,
            "sampler": "Euler",
            "scheduler": "EulerDiscreteScheduler",
            "format": "png",
            "deterministic": False,
            "device": "cpu",
            "precision": "fp32",
            "weights": "",
            "batch": 1,
            "vae_tiling": False,
            "front": 1,
        }
        == told
    )
    assert set(told["versions"]) == {"craft", "torch", "diffusers"}
    assert file.text["parameters"] == (
        f"{PROMPT}\nNegative prompt: blurred\nSteps: 4, Sampler: Euler, CFG scale: 5, Seed: 9, Size: 64x64, "
        f"Model hash: {sd.sha256[:10]}, Model: sd, Version: craft 0.1.0"
    )


@pytest.mark.parametrize(
    ("kind", "name", "media_type"),
    [(jobs_pb2.IMAGE_FORMAT_JPEG, "JPEG", "image/jpeg"), (jobs_pb2.IMAGE_FORMAT_WEBP, "WEBP", "image/webp")],
)
def test_jpeg_and_webp_carry_it_as_exif(
    worker: WorkerProcess, sd: ModelManifest, kind: jobs_pb2.ImageFormat, name: str, media_type: str
) -> None:
    png, image = worker.draw(submit(sd, "a"), submit(sd, "b", format=kind, prompt="a red cat"))
    file = Image.open(io.BytesIO(image.data))
    assert (file.format, image.media_type) == (name, media_type)
    assert _comment(file) == image.provenance
    difference = np.abs(pixels(image) - pixels(png))
    assert difference.max() == 0 if name == "WEBP" else difference.mean() < 8


def test_a_prompt_too_long_for_jpeg_metadata_says_so(worker: WorkerProcess, sd: ModelManifest) -> None:
    few_tokens = "snow" + "\u3000" * 11_000
    sent = submit(sd, prompt=few_tokens, format=jobs_pb2.IMAGE_FORMAT_JPEG, steps=1)
    failed = worker.fail(sent)
    assert failed.error.reason == "BAD_DATA"
    assert "webp" in failed.error.hint


@pytest.mark.parametrize("kind", ["png", "jpeg", "webp"])
def test_every_format_opens_again(kind: str) -> None:
    given = np.random.default_rng(1).integers(0, 255, (40, 24, 3), np.uint8)
    file = Image.open(io.BytesIO(picture.encode(given, kind, "{}", "p")))
    assert file.size == (24, 40)
    assert file.mode == "RGB"


@pytest.mark.parametrize("model", ["sd", "sd-tiny-vae"])
def test_previews_come_when_asked_for_and_look_like_the_end(
    worker: WorkerProcess, models: dict[str, ModelManifest], model: str
) -> None:
    (image,) = worker.draw(submit(models[model], preview_every=3, steps=10))
    previews = {frame.step.step: frame.step.preview for frame in worker.seen if frame.step.preview}
    assert sorted(previews) == [3, 6, 9]
    shown = Image.open(io.BytesIO(previews[9]))
    assert shown.format == "JPEG"
    assert max(shown.size) <= 256
    if model == "sd-tiny-vae":  # shown by the autoencoder itself
        final = Image.fromarray(pixels(image).astype(np.uint8)).resize(shown.size, Image.Resampling.BOX)
        assert np.abs(np.asarray(shown).astype(int) - np.asarray(final)).mean() < 60


def test_a_sketch_is_exact_where_the_autoencoder_is_linear() -> None:
    colours = torch.tensor([[0.2, 0.1, -0.1], [0.0, 0.3, 0.1], [-0.2, 0.0, 0.1], [0.1, -0.1, 0.2]])

    class Linear:
        config = FrozenDict(latent_channels=4, scaling_factor=0.5)

        def decode(self, latents: torch.Tensor, **_options: bool) -> list[torch.Tensor]:
            image = torch.einsum("bchw,cr->brhw", latents, colours) + 0.1
            return [image.repeat_interleave(8, 2).repeat_interleave(8, 3)]

    latents = torch.randn(1, 4, 6, 5, generator=torch.Generator().manual_seed(3)) * 0.5
    expected = torch.einsum("chw,cr->hwr", latents[0] / 0.5, colours) + 0.1
    autoencoder = Autoencoder(Linear())
    shown = LinearSketch.fit(autoencoder, like=latents).draw(autoencoder.own(latents))
    assert shown.shape == (6, 5, 3)
    assert np.abs(shown - ((expected / 2 + 0.5).clamp(0, 1) * 255).numpy()).max() <= 1


def test_previews_can_be_turned_on_and_off_on_the_way(worker: WorkerProcess, sd: ModelManifest) -> None:
    worker.send(submit(sd, steps=200))
    worker.until_kind("step")
    worker.send(ToWorker(preview=Preview(job_id="job", every=1)))
    shown = worker.until(lambda frame: bool(frame.step.preview)).step.step
    worker.send(ToWorker(preview=Preview(job_id="job", every=0)))
    worker.until_ended("job")
    assert any(frame.HasField("step") and frame.step.step > shown and not frame.step.preview for frame in worker.seen)


def test_weights_change_the_picture_and_weight_one_does_not(worker: WorkerProcess, sd: ModelManifest) -> None:
    plain, one, heavy = worker.draw(
        submit(sd, "a", deterministic=True),
        submit(sd, "b", prompt="a red (cat:1.0)", deterministic=True),
        submit(sd, "c", prompt="a red (cat:1.6)", deterministic=True),
    )
    assert (pixels(plain) == pixels(one)).all()
    assert np.abs(pixels(plain) - pixels(heavy)).max() > 1
    assert provenance(heavy)["prompt"] == "a red (cat:1.6)"


def test_a_prompt_of_two_chunks_draws_with_and_without_guidance(worker: WorkerProcess, sd: ModelManifest) -> None:
    long = "a red cat and a dog, " * 12
    guided, short, alone = worker.draw(
        submit(sd, "a", prompt=long), submit(sd, "b"), submit(sd, "c", prompt=long, guidance_scale=1.0)
    )
    assert provenance(short)["batch"] == 1
    assert np.abs(pixels(guided) - pixels(short)).max() > 1
    assert np.abs(pixels(guided) - pixels(alone)).max() > 1
