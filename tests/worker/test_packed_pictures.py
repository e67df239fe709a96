"""Pictures of models whose weights are kept packed: diffusers' own pipeline draws the same with the same weights."""

from __future__ import annotations

import copy
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from craft_protos.reasons import CraftError
from craft_protos.worker_pb2 import ModelManifest
from craftd.worker.families.base import Runner
from craftd.worker.models import loader, memory
from craftd.worker.models.single_file import CHECKPOINT
from craftd.worker.quantized import packing
from craftd.worker.quantized.layers import form_of
from safetensors.torch import load_file

from tests import packed_files, tiny_models, tried
from tests.matrix import covers
from tests.worker import flows, original_layout, packed
from tests.worker.client import WorkerProcess, pixels, provenance, put_model, submit
from tests.worker.families import Truth, assert_same
from tests.worker.loras import Make, Stored, diffusers_draws, submit_with

Load = Callable[[ModelManifest], Runner]
Case = tuple[str, str]  # kind of model, form of its file

ENCODERS = ("text_encoder", "text_encoder_2", "text_encoder_3")


def _denoiser(pipe: Any) -> str:
    return "transformer" if getattr(pipe, "transformer", None) is not None else "unet"


def _packed_by_hand(pipe: Any, precision: str) -> dict[str, Any]:
    """The pipeline's networks with the numbers that their packed weights stand for."""
    found = {}
    for name in (_denoiser(pipe), *ENCODERS):
        network = getattr(pipe, name, None)
        if isinstance(network, torch.nn.Module):
            own = copy.deepcopy(network)
            packing.pack(own, precision)
            found[name] = packed.unpacked(own)
    return found


@dataclass
class Reference:
    """diffusers' pipelines, whose networks can be exchanged for ones with packed weights' numbers."""

    pipelines: Callable[[str], Any]
    draw: Truth
    changed: list[tuple[Any, str, Any]] = field(default_factory=list)

    def pack(self, kind: str, precision: str) -> None:
        """Until the test's end."""
        pipe = self.pipelines(kind)
        for name, network in _packed_by_hand(pipe, precision).items():
            self.replace(pipe, name, network)

    def exchange(self, kind: str, tensors: dict[str, torch.Tensor]) -> None:
        """Have its denoiser hold other numbers, until the test's end."""
        pipe = self.pipelines(kind)
        other = copy.deepcopy(getattr(pipe, _denoiser(pipe)))
        other.load_state_dict(tensors)
        self.replace(pipe, _denoiser(pipe), other)

    def replace(self, pipe: Any, name: str, network: Any) -> None:
        self.changed.append((pipe, name, getattr(pipe, name)))
        setattr(pipe, name, network)

    def draw_with(self, lora: Stored, weight: float, kind: str) -> np.ndarray:
        return diffusers_draws(self.pipelines(kind), [(lora, weight)], self.draw, kind)


@pytest.fixture
def reference(pipelines: Callable[[str], Any], truth: Truth, flow_truth: Truth) -> Iterator[Reference]:
    def draw(kind: str, **call: Any) -> np.ndarray:
        return (flow_truth if kind in flows.KINDS else truth)(kind, **call)

    made = Reference(pipelines, draw)
    yield made
    for pipe, name, network in reversed(made.changed):
        setattr(pipe, name, network)


@pytest.fixture
def load(files: Path, tmp_path: Path) -> Iterator[Callable[[ModelManifest], Runner]]:
    """As a worker does, in this process; closed afterwards."""
    with ExitStack() as stack:

        def loaded(message: ModelManifest) -> Runner:
            runner = packed.load(message, files, tmp_path)
            stack.callback(runner.close)
            return runner

        yield loaded


def _kept_in(model: ModelManifest, precision: str) -> ModelManifest:
    made = ModelManifest()
    made.CopyFrom(model)
    made.precision, made.name = precision, f"{model.name}-{precision}"
    return made


@covers("draw", form="kept in fp8 or int8", kind="kind")
@pytest.mark.parametrize("precision", ["fp8", "int8"])
@pytest.mark.parametrize("kind", ["sd", "sdxl", "sd3", "flux", *flows.KINDS])
def test_the_picture_is_diffusers_own_with_the_same_weights(
    load: Load, models: dict[str, ModelManifest], reference: Reference, kind: str, precision: str
) -> None:
    runner = load(_kept_in(models[kind], precision))
    drawn = packed.draw(runner, submit(models[kind]))
    assert runner.weights == {"fp8": "fp8 e4m3", "int8": "int8"}[precision]
    whole = reference.draw(kind)
    reference.pack(kind, precision)
    assert_same(drawn, reference.draw(kind))
    assert np.abs(drawn - whole).max() > 0, "nothing was packed"


@pytest.mark.parametrize("precision", ["fp8", "int8"])
def test_a_pipeline_of_the_generic_family(load: Load, files: Path, tmp_path: Path, precision: str) -> None:
    torch.manual_seed(20)
    pipe = tried.MAKERS["auraflow"]()
    pipe.save_pretrained(tmp_path / "it", safe_serialization=True)
    model = put_model(tmp_path / "it", files, f"auraflow-{precision}")
    asked = submit(model, sampler="", steps=tried.STEPS, seed=tried.SEED, width=tried.SIDE, height=tried.SIDE)
    drawn = packed.draw(load(_kept_in(model, precision)), asked)
    for name, network in _packed_by_hand(pipe, precision).items():
        setattr(pipe, name, network)
    assert_same(drawn, tried.truth(pipe))


def test_a_worker_says_what_it_drew_with(worker: WorkerProcess, models: dict[str, ModelManifest]) -> None:
    (image,) = worker.draw(submit(_kept_in(models["flux"], "fp8")))
    told = provenance(image)
    assert (told["precision"], told["weights"]) == ("fp32", "fp8 e4m3")
    (image,) = worker.draw(submit(_kept_in(models["flux"], "bf16")))
    told = provenance(image)
    assert (told["precision"], told["weights"]) == ("bf16", "")


def test_what_it_will_take_is_what_it_takes(load: Load, files: Path, models: dict[str, ModelManifest]) -> None:
    """But for small layers, whose number is large in tiny models."""
    for kind in ("sdxl", "sd3", "flux"):
        for precision in ("", "bf16", "fp8", "int8"):
            manifest = packed.manifest_of(_kept_in(models[kind], precision))
            told = memory.need_bytes(manifest, files, torch.float32)
            held = load(_kept_in(models[kind], precision)).resident_bytes
            assert 0.75 < told / held < 1.25, (kind, precision)


LORA = {"sdxl": {"seed": 41}, "sd3": {"seed": 42}, "flux": {"seed": 43}, "z-image": {"seed": 46}}


@covers("LoRA", form="kept in fp8 or int8", kind="kind")
@pytest.mark.parametrize("kind", LORA)
def test_a_lora_over_fp8_is_a_lora_over_the_same_numbers(
    worker: WorkerProcess, models: dict[str, ModelManifest], make: Make, reference: Reference, kind: str
) -> None:
    lora, model = make(kind, "over-fp8", **LORA[kind]), _kept_in(models[kind], "fp8")
    (bare,) = worker.draw(submit(model, "bare"))
    (changed,) = worker.draw(submit_with(model, [(lora, 0.8)], "with"))
    (again,) = worker.draw(submit(model, "again"))
    assert np.array_equal(pixels(bare), pixels(again)), "unloading gives the model back to the bit"
    reference.pack(kind, "fp8")
    assert_same(pixels(changed), reference.draw_with(lora, 0.8, kind))
    assert np.abs(pixels(changed) - pixels(bare)).max() > 3


@covers("batch", form="kept in fp8 or int8", kind="kind")
@pytest.mark.parametrize("kind", ["sdxl", "flux", "z-image"])
def test_rows_of_different_loras_share_a_call_over_packed_weights(
    worker: WorkerProcess, models: dict[str, ModelManifest], make: Make, kind: str
) -> None:
    first, second = make(kind, "row-one", seed=51), make(kind, "row-two", seed=52, rank=20)
    model = _kept_in(models[kind], "int8")
    jobs = {"one": [(first, 0.7)], "two": [(second, 1.0)], "none": [], "both": [(first, 0.5), (second, 0.5)]}
    asked = [submit_with(model, loras, job) for job, loras in jobs.items()]
    alone = {sent.dispatch.job_id: pixels(worker.draw(sent)[0]) for sent in asked}
    together = worker.draw(*asked)
    assert {provenance(image)["batch"] for image in together} == {len(jobs)}
    for image in together:
        assert np.abs(pixels(image) - alone[image.job_id]).max() <= 1, image.job_id


def test_a_dora_over_fp8_is_merged_into_copies_and_says_so(
    worker: WorkerProcess, models: dict[str, ModelManifest], make: Make, reference: Reference
) -> None:
    lora, model = make("flux", "dora-over-fp8", seed=44, dora=True), _kept_in(models["flux"], "fp8")
    (bare,) = worker.draw(submit(model, "bare"))
    worker.seen.clear()
    (changed,) = worker.draw(submit_with(model, [(lora, 1.0)], "with"))
    said = "".join(frame.started.notice for frame in worker.seen if frame.HasField("started"))
    assert "merged into unpacked copies" in said
    (again,) = worker.draw(submit(model, "again"))
    assert np.array_equal(pixels(bare), pixels(again))
    reference.pack("flux", "fp8")
    assert_same(pixels(changed), reference.draw_with(lora, 1.0, "flux"))


def test_what_would_overflow_is_computed_in_another_precision_and_says_so(
    load: Load, models: dict[str, ModelManifest], monkeypatch: pytest.MonkeyPatch
) -> None:
    message = _kept_in(models["flux"], "fp16")
    monkeypatch.setattr(loader, "_in_range", lambda device: replace(device, precision="bf16"))
    runner = load(message)
    assert runner.precision == "bf16" and "would overflow in fp16" in runner.notice


def test_small_encoders_and_autoencoders_stay_whole(pipelines: Callable[[str], Any]) -> None:
    pipe = pipelines("flux")
    for name, expected in (("text_encoder", ""), ("vae", ""), ("text_encoder_2", "int8"), ("transformer", "int8")):
        network = copy.deepcopy(getattr(pipe, name))
        packing.pack(network, "int8")
        assert form_of(network) == expected, name


@dataclass(frozen=True)
class OfParts:
    """A tiny model whose denoiser lies in one packed file, and the pipeline with what that stands for."""

    model: ModelManifest
    meant: dict[str, torch.Tensor]


@pytest.fixture(scope="module")
def of_parts(tmp_path_factory: pytest.TempPathFactory, files: Path) -> Callable[[str, str], OfParts]:
    """By kind of model and of blocks; "scaled" for fp8 with scales."""

    @cache
    def made(kind: str, form: str) -> OfParts:
        folder = tmp_path_factory.mktemp("parts") / kind
        shutil.copytree(tiny_models.cached(kind), folder)
        network = "unet" if (folder / "unet").is_dir() else "transformer"
        (own,) = (folder / network).glob("*.safetensors")
        tensors = load_file(own)
        own.unlink()
        if form == "scaled":
            given = packed_files.scaled(tensors, "weight_scale")
            packed_files.save(given, folder / network / "component.safetensors")
            meant = packed_files.dense(given)
        else:
            meant = packed_files.write_gguf(tensors, folder / network / "component.gguf", form)
        return OfParts(put_model(folder, files, f"{kind}-{form}"), meant)

    return made


_WITH_LORAS = ("sd3", *flows.KINDS)
FORMS = ["Q8_0", "Q4_0", "scaled"]


@covers("draw", form="fp8 or GGUF file", kind="kind")
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("kind", ["sd", "sdxl", "sd3", "flux", *flows.KINDS])
def test_a_packed_denoisers_file_draws_what_it_stands_for(
    load: Load, of_parts: Callable[[str, str], OfParts], reference: Reference, kind: str, form: str
) -> None:
    scene = of_parts(kind, form)
    runner = load(scene.model)
    assert runner.weights == {"scaled": "fp8 e4m3"}.get(form, form)
    reference.exchange(kind, scene.meant)
    assert_same(packed.draw(runner, submit(scene.model)), reference.draw(kind))


@covers("LoRA", form="fp8 or GGUF file", kind="case")
@pytest.mark.parametrize(
    "case", [*(("flux", form) for form in FORMS), ("sdxl", "scaled"), *((kind, "Q8_0") for kind in _WITH_LORAS)]
)
def test_a_lora_over_a_packed_file_is_a_lora_over_what_it_stands_for(
    worker: WorkerProcess, of_parts: Callable[[str, str], OfParts], make: Make, reference: Reference, case: Case
) -> None:
    kind, scene, lora = case[0], of_parts(*case), make(case[0], "over-file", seed=45)
    (bare,) = worker.draw(submit(scene.model, "bare"))
    (changed,) = worker.draw(submit_with(scene.model, [(lora, 0.8)], "with"))
    (again,) = worker.draw(submit(scene.model, "again"))
    assert np.array_equal(pixels(bare), pixels(again))
    reference.exchange(kind, scene.meant)
    assert_same(pixels(changed), reference.draw_with(lora, 0.8, kind))
    assert np.abs(pixels(changed) - pixels(bare)).max() > 3


def _checkpoint(folder: Path, tensors: dict[str, torch.Tensor]) -> Path:
    """A folder as the front hands a tiny SDXL's checkpoint over."""
    shutil.copytree(tiny_models.cached("sdxl-single"), folder, ignore=shutil.ignore_patterns("*.safetensors"))
    packed_files.save(tensors, folder / CHECKPOINT)
    return folder


@covers("draw", form="fp8 or GGUF file", kind="sdxl")
def test_a_whole_checkpoint_in_fp8_stays_fp8(load: Load, tmp_path: Path, files: Path) -> None:
    """Its UNet does. The same numbers in a usual checkpoint, which test_single_file.py holds to diffusers, draw it."""
    whole = original_layout.write(tiny_models.cached("sdxl-single"), tmp_path / "whole.safetensors")
    cast = packed_files.cast(load_file(whole))
    eight = put_model(_checkpoint(tmp_path / "eight", cast), files, "sdxl-cast")
    usual = put_model(_checkpoint(tmp_path / "usual", packed_files.dense(cast)), files, "sdxl-usual")
    runner = load(eight)
    assert runner.weights == "fp8 e4m3"
    assert_same(packed.draw(runner, submit(eight)), packed.draw(load(usual), submit(usual)))


def test_scales_of_parts_that_are_read_as_numbers_are_refused(load: Load, tmp_path: Path, files: Path) -> None:
    whole = original_layout.write(tiny_models.cached("sdxl-single"), tmp_path / "whole.safetensors")
    folder = _checkpoint(tmp_path / "model", packed_files.scaled(load_file(whole)))
    with pytest.raises(CraftError) as refused:
        load(put_model(folder, files, "sdxl-scaled"))
    assert refused.value.reason == "UNSUPPORTED_MODEL" and "scales a part" in refused.value.message
