"""A model of parts draws what the diffusers folder with the same weights does, to the bit."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from craft_protos.worker_pb2 import ModelManifest, ToWorker
from safetensors.torch import load_file, save_file

from tests import tiny_models, tried
from tests.matrix import covers
from tests.worker import as_parts, original_layout
from tests.worker.client import WorkerProcess, pixels, put_model, submit
from tests.worker.families import draw
from tests.worker.loras import Make, submit_with


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """A tiny model's, by kind."""

    def of(kind: str) -> Path:
        if kind in tiny_models.KINDS:
            return tiny_models.cached(kind)
        place = tmp_path_factory.mktemp("folders") / kind
        torch.manual_seed(20)
        tried.MAKERS[kind]().save_pretrained(place, safe_serialization=True)
        return place

    return of


@covers("draw", form="parts", kind="form")
@pytest.mark.parametrize(
    "form",
    [
        ("sd3", "original", ""),
        ("sd3", "original", as_parts.LDM),
        ("sd3", "diffusers", "transformer."),
        ("flux", "diffusers", "diffusion_model."),
        ("flux-schnell", "diffusers", ""),
        ("z-image", "original", as_parts.LDM),
        ("z-image", "original", ""),
        ("z-image", "diffusers", "diffusion_model."),
        ("sdxl", "original", as_parts.LDM),
        ("flux2", "original", ""),
        ("flux2-distilled", "diffusers", as_parts.LDM),
        ("qwen-image", "diffusers", ""),
        ("qwen-image", "original", as_parts.LDM),
        ("krea2", "diffusers", ""),
        ("krea2", "original", ""),
    ],
)
def test_the_picture_is_the_folders_to_the_bit(
    worker: WorkerProcess, files: Path, tmp_path: Path, folder: Callable[[str], Path], form: tuple[str, str, str]
) -> None:
    """`form`: the kind of model, the layout, and what is before the transformer's names."""
    kind, layout, prefix = form
    asked: dict[str, Any] = {} if kind in tiny_models.KINDS else {"sampler": "", "width": 64, "height": 64}
    expected = draw(worker, put_model(folder(kind), files, f"{kind}-folder"), **asked)
    place = as_parts.write(folder(kind), tmp_path / "parts", layout=layout, prefix=prefix)
    drawn = draw(worker, put_model(place, files, f"{kind}-{layout}-parts"), **asked)
    assert np.ptp(expected) > 20
    assert np.array_equal(drawn, expected)


@covers("LoRA", "batch", form="parts", kind="kind")
@pytest.mark.parametrize("kind", ["sdxl", "sd3", "flux", "z-image", "flux2", "qwen-image", "krea2"])
def test_rows_with_and_without_a_lora_in_one_batch(
    worker: WorkerProcess, files: Path, tmp_path: Path, make: Make, kind: str
) -> None:
    """Over parts as over the folder: alone to the bit, together within 1/255, at whatever step they met."""
    lora = make(kind, "over-parts", seed=31)
    place = as_parts.write(tiny_models.cached(kind), tmp_path / "parts")

    def with_and_without(model: ModelManifest) -> tuple[ToWorker, ToWorker]:
        call: dict[str, Any] = {"guidance_scale": 1.0, "sampler": ""}
        return (
            submit_with(model, [(lora, 0.8)], f"{kind} with", **call),
            submit_with(model, [], f"{kind} without", **call),
        )

    folder, parts = put_model(tiny_models.cached(kind), files, kind), put_model(place, files, f"{kind}-in-parts")
    expected = [pixels(*worker.draw(job)) for job in with_and_without(folder)]
    assert np.abs(expected[0] - expected[1]).max() > 1
    alone = [pixels(*worker.draw(job)) for job in with_and_without(parts)]
    together = [pixels(image) for image in worker.draw(*with_and_without(parts))]
    assert all(np.array_equal(*pair) for pair in zip(alone, expected, strict=True))
    assert max(np.abs(one - other).max() for one, other in zip(together, expected, strict=True)) <= 1


def test_a_checkpoint_with_another_vae(worker: WorkerProcess, files: Path, tmp_path: Path) -> None:
    """Its own is left where it is; what decodes is the file beside it."""
    source = tiny_models.cached("sd")
    place = tmp_path / "model"
    shutil.copytree(source, place, ignore=shutil.ignore_patterns("*.safetensors"))
    original_layout.write(source, place / "checkpoint.safetensors")
    plain = draw(worker, put_model(place, files, "own-vae"))
    vae = {name: one * 1.1 for name, one in load_file(source / "vae/diffusion_pytorch_model.safetensors").items()}
    other = tmp_path / "other"
    shutil.copytree(source, other)
    save_file(vae, other / "vae/diffusion_pytorch_model.safetensors")
    expected = draw(worker, put_model(other, files, "other-vae"))
    save_file(vae, place / "vae" / "component.safetensors")
    drawn = draw(worker, put_model(place, files, "given-vae"))
    assert np.abs(drawn - plain).max() > 1
    assert np.abs(drawn - expected).max() <= 1


def test_a_part_that_is_no_network_of_its_configuration(worker: WorkerProcess, files: Path, tmp_path: Path) -> None:
    place = as_parts.write(tiny_models.cached("flux"), tmp_path / "parts")
    wrong = tiny_models.cached("sd") / "vae" / "diffusion_pytorch_model.safetensors"
    (place / "text_encoder" / "component.safetensors").write_bytes(wrong.read_bytes())
    failed = worker.fail(submit(put_model(place, files, "wrong-part")))
    assert failed.error.reason in ("CORRUPT_FILE", "UNSUPPORTED_MODEL")
    assert "text_encoder" in failed.error.message
