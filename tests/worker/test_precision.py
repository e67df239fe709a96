"""Half precision: not the same picture to the last bit, but the same picture."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import craftd
import numpy as np
import pytest
import torch
from craft_protos.reasons import CraftError
from craft_protos.worker_pb2 import ModelManifest
from craftd.worker.families import FAMILIES
from craftd.worker.process.device import choose
from diffusers import StableDiffusionPipeline

from tests import tiny_models
from tests.worker import client
from tests.worker.client import pixels, provenance, submit

LEAST_PSNR = 25.0  # decibels, against fp32; of a model with random weights
GOOD_PSNR = 35.0  # of a trained one


def _psnr(drawn: np.ndarray, expected: np.ndarray) -> float:
    return float(10 * np.log10(255**2 / max(((drawn - expected) ** 2).mean(), 1e-9)))


def test_bf16_on_the_cpu(files: Path, sd: ModelManifest, truth: Callable[..., np.ndarray]) -> None:
    with client.worker(files, "--precision", "bf16") as started:
        assert started.seen[0].hello.precision == "bf16"
        (image,) = started.draw(submit(sd))
        assert provenance(image)["precision"] == "bf16"
        assert _psnr(pixels(image), truth()) > LEAST_PSNR


@pytest.mark.parametrize(
    ("has", "isa", "wanted"),
    [
        ({}, "", "fp32"),
        ({"avx512_f": True}, "", "fp32"),
        ({"avx512_bf16": True}, "", "bf16"),
        ({"amx_bf16": True}, "DEFAULT", "bf16"),
        ({"amx_bf16": True}, "avx512_core_amx", "bf16"),
        ({"amx_bf16": True}, "avx512_core", "fp32"),
    ],
)
def test_a_processor_with_bf16_units_computes_in_it(
    monkeypatch: pytest.MonkeyPatch, has: dict[str, bool], isa: str, wanted: str
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: has)
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", isa)
    assert choose("cpu", "auto").precision == wanted
    assert choose("cpu", "fp32").precision == "fp32"


def test_bf16_of_the_built_in_model_is_the_same_picture(files: Path) -> None:
    """What a processor with bf16 units draws by itself."""
    pocket = client.put_model(Path(craftd.__file__).parent / "pocket", files, "pocket", family="sd")
    drawn = {}
    for precision in ("fp32", "bf16"):
        with client.worker(files, "--precision", precision) as started:
            images = started.draw(
                *(
                    submit(pocket, f"job{seed}", prompt="a red apple", seed=seed, width=256, height=256)
                    for seed in (1, 2)
                )
            )
            drawn[precision] = [pixels(image) for image in images]
    assert all(_psnr(half, full) > GOOD_PSNR for half, full in zip(drawn["bf16"], drawn["fp32"], strict=True))


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("kind", ["sd", "sd-text-time", "pixart"])
def test_a_cuda_device_draws_the_same_picture(
    files: Path, models: dict[str, ModelManifest], truth: Callable[..., np.ndarray], kind: str
) -> None:
    sampler = "" if kind == "pixart" else "Euler a"
    with client.worker(files, "--device", "cuda:0") as started:
        assert started.seen[0].hello.device == "cuda:0"
        first, *others = started.draw(*(submit(models[kind], f"job{i}", sampler=sampler) for i in range(4)))
        expected = truth(kind, sampler=sampler)
        for image in (first, *others):
            assert _psnr(pixels(image), expected) > LEAST_PSNR


def _half(gain: float) -> StableDiffusionPipeline:
    """Its autoencoder carries numbers so many times greater, which its norms make small again."""
    pipe = StableDiffusionPipeline.from_pretrained(tiny_models.cached("sd"), dtype=torch.float16, safety_checker=None)
    for weight in pipe.vae.decoder.conv_in.parameters():
        weight.data *= gain
    return pipe


@torch.inference_mode()
@pytest.mark.parametrize("is_tiled", [False, True])
def test_what_overflows_in_fp16_is_decoded_in_fp32_as_if_it_were_alone(is_tiled: bool) -> None:
    pipe = _half(3e4)
    family = FAMILIES["sd"](pipe, torch.device("cpu"))
    if is_tiled:
        assert family.tile()
    usual = torch.randn((1, 4, 8, 8), generator=torch.Generator().manual_seed(1)).half()
    still, great = usual * 1e-3, usual * 3
    finite = [bool(pipe.vae.decode(one / pipe.vae.config.scaling_factor)[0].isfinite().all()) for one in (still, great)]
    assert finite == [True, False]
    quiet, loud = family.decode(torch.cat([still, great]))
    assert pipe.vae.dtype == torch.float16  # the next picture is none of this one's
    assert np.array_equal(quiet, family.decode(still)[0])
    whole = pipe.vae.float().decode(great.float() / pipe.vae.config.scaling_factor)[0]
    expected = pipe.image_processor.postprocess(whole, output_type="np")[0] * 255
    assert np.ptp(expected) > 20
    assert np.abs(loud - expected).max() <= 1


@torch.inference_mode()
def test_an_autoencoder_that_is_finite_nowhere_fails_the_job() -> None:
    family = FAMILIES["sd"](_half(float("nan")), torch.device("cpu"))
    with pytest.raises(CraftError, match="not finite"):
        family.decode(torch.zeros((1, 4, 8, 8), dtype=torch.float16))
