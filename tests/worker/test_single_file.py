"""A checkpoint of one file draws what the diffusers folder with the same weights does."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from craft_protos.worker_pb2 import ModelManifest
from safetensors.torch import load_file, save_file

from tests import tiny_models
from tests.matrix import covers
from tests.worker import original_layout
from tests.worker.client import WorkerProcess, put_model, submit
from tests.worker.families import Truth, assert_same, draw

CHECKPOINT = "checkpoint.safetensors"


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return tmp_path / "model"


def _write(kind: str, place: Path, *, layout: str = "original") -> Path:
    """The folder as the front hands it over: configurations, vocabularies, one file of weights."""
    source = tiny_models.cached(kind)
    shutil.copytree(source, place, ignore=shutil.ignore_patterns("*.safetensors"))
    return original_layout.write(source, place / CHECKPOINT, layout=layout)


@dataclass(frozen=True)
class Store:
    """Hands checkpoints to the worker."""

    place: Path
    files: Path

    def put(self, kind: str, *, layout: str = "original") -> ModelManifest:
        _write(kind, self.place, layout=layout)
        return put_model(self.place, self.files, f"{kind}-{layout}")


@pytest.fixture
def store(place: Path, files: Path) -> Store:
    return Store(place, files)


@covers("draw", form="one file", kind="kind")
@pytest.mark.parametrize("layout", ["original", "diffusers"])
@pytest.mark.parametrize("kind", ["sd", "sd2", "sdxl-single", "sd3-single"])
def test_the_picture_is_the_folders(worker: WorkerProcess, store: Store, truth: Truth, kind: str, layout: str) -> None:
    assert_same(draw(worker, store.put(kind, layout=layout)), truth(kind))


@covers("draw", form="one file", kind="flux")
def test_flux_in_diffusers_layout(worker: WorkerProcess, store: Store, truth: Truth) -> None:
    """The original one: test_single_file_flux.py."""
    assert_same(draw(worker, store.put("flux", layout="diffusers")), truth("flux"))


def test_stable_diffusion_3_without_t5(worker: WorkerProcess, files: Path, place: Path, truth: Truth) -> None:
    """Its configurations name the part; the front leaves its folder out."""
    _write("sd3-single", place)
    tensors = load_file(place / CHECKPOINT)
    save_file({name: one for name, one in tensors.items() if "t5xxl" not in name}, place / CHECKPOINT)
    for part in ("text_encoder_3", "tokenizer_3"):
        shutil.rmtree(place / part)
    drawn = draw(worker, put_model(place, files, "sd3-without-t5"))
    assert np.ptp(drawn) > 20
    assert np.abs(drawn - truth("sd3-single")).max() > 1


@pytest.mark.parametrize(
    ("missing", "said"),
    [("first_stage_model.decoder.conv_in.weight", "vae"), ("out.2.weight", "unet"), ("layers.1.mlp.fc1.bias", "text")],
)
def test_a_checkpoint_that_lacks_a_tensor(
    worker: WorkerProcess, files: Path, place: Path, missing: str, said: str
) -> None:
    _write("sd", place)
    tensors = load_file(place / CHECKPOINT)
    kept = {name: one for name, one in tensors.items() if not name.endswith(missing)}
    assert len(kept) == len(tensors) - 1
    save_file(kept, place / CHECKPOINT)
    failed = worker.fail(submit(put_model(place, files, f"lacks-{said}")))
    assert failed.error.reason == "CORRUPT_FILE"
    assert said in failed.error.message
