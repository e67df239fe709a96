"""A training that is put aside, or killed and resumed, ends with the very same file; and what it cannot do is said."""

from __future__ import annotations

import contextlib
import copy
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
from craft_protos.dispatch import Dispatch
from craft_protos.reasons import CraftError
from craftd.architectures import buckets
from craftd.worker.engine import denoise
from craftd.worker.engine.denoise import Denoising
from craftd.worker.families.base import Family
from craftd.worker.models import memory
from craftd.worker.training import pictures, stored
from craftd.worker.training.encoded import Encoded
from craftd.worker.training.state import State
from craftd.worker.training.trainer import Trainer
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file

from tests.pictures import deep
from tests.worker.trained import SIDE, Desk, ask, from_checkpoint, photo, put, refusal, turns

pytestmark = pytest.mark.usefixtures("quick_samples")

Pipelines = Callable[[str], Any]

# Everything that has a state of its own, at once.
EVERYTHING = {
    "steps": 4,
    "sizes": ((64, 64), (100, 60), (64, 64), (50, 90)),
    "ema_decay": 0.9,
    "flip": True,
    "caption_dropout": 0.3,
    "gradient_accumulation": 2,
    "batch_size": 3,
    "class_prompt": "a dog",
    "class_pictures": 2,
    "checkpoint_every": 2,
    "learning_rate_schedule": "cosine",
    "warmup_steps": 2,
}


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path, tmp_path)


SHORT = {"steps": 4, "checkpoint_every": 2}
CAPTIONS = {"shuffle_tags": True, "keep_tags": 1, "tag_dropout": 0.3, "noise_offset": 0.1, "multires_noise": 3}
LIBRARIES = {"schedule-free": "schedulefree", "prodigy": "prodigyopt", "lion": "lion_pytorch", "came": "came_pytorch"}
HOWS = {
    "plain": SHORT,
    "everything": EVERYTHING,
    "schedule-free, sampling": SHORT
    | {"optimizer": "schedule-free", "sample_prompts": ("a cat",), "sample_every": 1}
    | CAPTIONS,
    "pictures that vary": SHORT
    | {"crop": "random", "color_jitter": 0.2, "flip": True, "sizes": ((64, 64), (100, 60)) * 2},
    **{name: SHORT | {"optimizer": name} for name in ("prodigy", "adafactor", "lion", "came")},
}


@pytest.mark.parametrize("how", HOWS.values(), ids=HOWS)
def test_resumed_from_a_checkpoint_or_put_aside_it_gives_the_same_bytes(
    desk: Desk, pipelines: Pipelines, how: dict[str, Any]
) -> None:
    pytest.importorskip(LIBRARIES.get(how.get("optimizer", ""), "torch"))
    train, pipe = ask(desk.files, **how), pipelines("sd")
    undisturbed = desk.train(train, pipe)
    whole = desk.losses
    last = desk.of("checkpoint")[-1]
    assert last.step == how["steps"] - 2
    desk.frames.clear()
    resumed = desk.train(from_checkpoint(train, last), pipe)
    assert [step.step.step for step in desk.of("training")] == [how["steps"] - 1, how["steps"]]
    assert desk.losses == whole[-2:]
    assert resumed.sha256 == undisturbed.sha256
    desk.frames.clear()
    assert _put_aside_often(desk, train, pipe, after=11) == undisturbed.sha256
    assert desk.losses == whole


def test_put_aside_while_it_samples_it_keeps_its_checkpoints(desk: Desk, pipelines: Pipelines) -> None:
    prompts = {"sample_prompts": ("a red cat",), "sample_every": 2}
    train, pipe = ask(desk.files, steps=3, checkpoint_every=2, **prompts), pipelines("sd")
    undisturbed = desk.train(train, pipe)
    expected = [(frame.step, frame.sha256) for frame in desk.of("checkpoint")]
    assert [step for step, _ in expected] == [2]
    desk.frames.clear()
    assert _put_aside_often(desk, train, pipe, after=2) == undisturbed.sha256
    assert [(frame.step, frame.sha256) for frame in desk.of("checkpoint")] == expected
    assert [frame.sample.step for frame in desk.of("sample")] == [2, 3]


@pytest.mark.parametrize("kind", [torch.OutOfMemoryError, RuntimeError], ids=["cuda", "cpu"])
def test_out_of_memory_on_the_way_back_loses_nothing(
    desk: Desk, pipelines: Pipelines, monkeypatch: pytest.MonkeyPatch, kind: type[RuntimeError]
) -> None:
    """The adapter's weights are there again, the generator is not yet."""
    train, pipe = ask(desk.files, steps=4), pipelines("sd")
    undisturbed = desk.train(train, pipe)
    run = desk.begin(train, pipe)
    while run.step < 2:
        run.turn()
    run.put_aside()
    run.attach(pipe)
    with monkeypatch.context() as patched:
        patched.setattr(Trainer, "_load", _stopping_half_way(kind("DefaultCPUAllocator: no room")))
        with pytest.raises(memory.OUT_OF_MEMORY):
            run.turn()
    run.put_aside()
    assert run.step == 2
    run.attach(pipe)
    while not run.turn():
        pass
    run.close()
    assert desk.of("lora")[-1].sha256 == undisturbed.sha256


def _stopping_half_way(error: Exception) -> Callable[[Trainer, State], None]:
    whole = Trainer._load

    def load(trainer: Trainer, state: State) -> None:
        tensors = {name: tensor for name, tensor in state.tensors.items() if name != "generator"}
        with contextlib.suppress(KeyError):
            whole(trainer, replace(state, tensors=tensors))
        raise error

    return load


def _put_aside_often(desk: Desk, train: Dispatch, pipe: Any, *, after: int) -> str:
    """After so many pieces of work, in the middle of steps too."""
    run = desk.begin(train, pipe)
    for count in turns(run):
        if count % after == 0:
            run.put_aside()
            run.attach(pipe)
    run.close()
    return str(desk.of("lora")[-1].sha256)


def test_the_seed_matters_and_the_global_generator_does_not(desk: Desk, pipelines: Pipelines) -> None:
    train, pipe = ask(desk.files, steps=2), pipelines("sd")
    torch.manual_seed(1)
    first = desk.train(train, pipe)
    torch.manual_seed(2)
    before = torch.get_rng_state()
    assert desk.train(train, pipe).sha256 == first.sha256
    assert torch.equal(torch.get_rng_state(), before)
    other = replace(train, spec=replace(train.training, seed=6))
    assert desk.train(other, pipe).sha256 != first.sha256


@pytest.mark.parametrize(
    "kind", ["lcm", "pixart", "flux-schnell", "z-image-turbo", "flux2-distilled", "krea2-distilled"]
)
def test_a_model_that_cannot_be_trained_is_named(desk: Desk, pipelines: Pipelines, kind: str) -> None:
    error = refusal(desk, ask(desk.files, kind), pipelines(kind))
    assert error.reason == "UNTRAINABLE_MODEL"
    assert kind in error.message
    assert error.hint


@pytest.mark.parametrize("name", ["EDMEulerScheduler", "EDMDPMSolverMultistepScheduler"])
def test_a_model_that_is_noised_without_betas_is_refused_at_once(desk: Desk, pipelines: Pipelines, name: str) -> None:
    pipe = copy.copy(pipelines("sd"))
    pipe.__dict__["scheduler"] = getattr(diffusers, name)()
    error = refusal(desk, ask(desk.files), pipe)
    assert error.reason == "UNTRAINABLE_MODEL"
    assert name in error.message
    assert not desk.of("preparing")


def test_a_model_too_big_for_the_device_is_named(desk: Desk, pipelines: Pipelines) -> None:
    pipe = copy.copy(pipelines("sd"))
    pipe.__dict__["unet"] = copy.copy(pipe.unet)
    pipe.unet._hf_hook = "as accelerate offloads"
    error = refusal(desk, ask(desk.files), pipe)
    assert error.reason == "OUT_OF_MEMORY"
    assert "sd" in error.message


def test_a_picture_that_cannot_be_read_is_named(desk: Desk, pipelines: Pipelines) -> None:
    train = ask(desk.files)
    broken = train.pictures[1]
    (desk.files / broken.sha256).write_bytes((desk.files / broken.sha256).read_bytes()[:100])
    error = refusal(desk, train, pipelines("sd"))
    assert error.reason == "BAD_DATASET"
    assert broken.file_name in error.message
    assert str(desk.files) not in error.message


@pytest.mark.parametrize(
    "error", [torch.OutOfMemoryError("no room"), RuntimeError("DefaultCPUAllocator: no room"), ValueError("no such")]
)
def test_samples_that_cannot_be_drawn_are_left_out(
    desk: Desk, pipelines: Pipelines, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    prompts = {"sample_prompts": ("a red cat", "a dog"), "sample_every": 2, "ema_decay": 0.5}
    train, pipe = ask(desk.files, steps=3, **prompts), pipelines("sd")
    undisturbed = desk.train(train, pipe)
    assert len(desk.of("sample")) == 4
    expected = load_file(desk.files / undisturbed.sha256)
    desk.frames.clear()
    whole = denoise.advance

    def advance(family: Family, rows: Sequence[Denoising], *how: Any, **options: Any) -> list[Exception | None]:
        if rows[0].calls == 1:  # half drawn
            raise error
        return whole(family, rows, *how, **options)

    monkeypatch.setattr(denoise, "advance", advance)
    made = desk.train(train, pipe)
    assert not desk.of("sample")
    assert not made.preview
    with safe_open(desk.files / made.sha256, "pt") as file:
        assert "modelspec.thumbnail" not in file.metadata()
    found = load_file(desk.files / made.sha256)
    assert list(found) == list(expected)
    assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())


def test_a_training_that_diverges_names_the_learning_rate(desk: Desk, pipelines: Pipelines) -> None:
    error = refusal(desk, ask(desk.files, steps=50, learning_rate=1e30), pipelines("sd"))
    assert error.reason == "JOB_FAILED"
    assert "--lr 2.5e+29" in error.hint


def test_the_model_itself_is_as_it_was(desk: Desk, pipelines: Pipelines) -> None:
    pipe = pipelines("sd")
    before = {name: tensor.clone() for name, tensor in pipe.unet.state_dict().items()}
    asks = [parameter.requires_grad for parameter in pipe.unet.parameters()]
    desk.train(ask(desk.files, train_text_encoder=True, dora=True), pipe)
    after = pipe.unet.state_dict()
    assert list(after) == list(before)
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items())
    assert [parameter.requires_grad for parameter in pipe.unet.parameters()] == asks


def test_weights_made_under_inference_mode_can_be_trained_on(desk: Desk, pipelines: Pipelines) -> None:
    pipe = copy.copy(pipelines("sd"))
    with torch.inference_mode():
        pipe.__dict__["unet"] = copy.deepcopy(pipe.unet)
    assert next(pipe.unet.parameters()).is_inference()
    train = ask(desk.files, steps=2)
    assert desk.train(train, pipe).sha256 == desk.train(train, pipelines("sd")).sha256


def test_gradient_checkpointing_changes_nothing(desk: Desk, pipelines: Pipelines) -> None:
    how: dict[str, Any] = {"steps": 3, "train_text_encoder": True}
    plain = desk.train(ask(desk.files, **how), pipelines("sd"))
    frugal = desk.train(ask(desk.files, **how, gradient_checkpointing=True), pipelines("sd"))
    ours, theirs = (load_file(desk.files / made.sha256) for made in (plain, frugal))
    assert max(float((ours[name] - theirs[name]).abs().max()) for name in ours) < 1e-5


def test_buckets_have_the_pictures_shape_and_the_resolutions_area() -> None:
    assert buckets.bucket(1000, 1000, 512, 8) == (512, 512)
    assert buckets.bucket(1600, 900, 512, 8) == (640, 384)
    assert buckets.bucket(900, 1600, 512, 8) == (384, 640)
    assert buckets.bucket(5000, 100, 1024, 16) == (1408, 704)
    assert buckets.bucket(300, 200, 256, 8) == (320, 192)
    for resolution, unit in ((64, 8), (256, 8), (512, 16), (1024, 64)):
        for width, height in buckets.sizes(resolution, unit):
            assert width % unit == height % unit == 0
            assert width * height <= resolution * resolution
            assert max(width, height) <= 2 * min(width, height)


def test_pictures_stand_upright_cover_their_bucket_and_lose_transparency(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned right by a quarter
    upright = Image.new("RGB", (40, 80), "red")
    upright.paste("blue", (0, 0, 40, 40))
    lying = upright.transpose(Image.Transpose.ROTATE_90)
    turned = put(tmp_path, lying, format="PNG", exif=exif)
    pixels = pictures.load(tmp_path / turned.sha256, "turned", (40, 80))[0]
    assert pixels.shape == (3, 80, 40)
    assert pixels[:, 10, 20].tolist() == [-1, -1, 1]
    assert pixels[:, 70, 20].tolist() == [1, -1, -1]
    glass = put(tmp_path, Image.new("RGBA", (50, 50), (0, 0, 0, 0)))
    assert pictures.load(tmp_path / glass.sha256, "glass", (32, 32)).min() == 1
    wide = put(tmp_path, photo(1, 200, 100))
    plain = pictures.load(tmp_path / wide.sha256, "wide", (SIDE, SIDE))
    assert plain.shape == (1, 3, SIDE, SIDE)
    flipped = pictures.load(tmp_path / wide.sha256, "wide", (SIDE, SIDE), is_flipped=True)
    assert np.array_equal(flipped.numpy()[..., ::-1], plain.numpy())


def test_what_is_encoded_lies_in_files_beyond_its_share_of_memory(tmp_path: Path) -> None:
    tensors = [{"latents": torch.full((1, 4, 8, 8), float(i))} for i in range(3)]
    encoded = Encoded(tmp_path / "here", most_bytes=1500)  # one and a half
    assert not list(tmp_path.iterdir())
    for i, one in enumerate(tensors):
        encoded.put(i, one)
    assert len(list((tmp_path / "here").iterdir())) == 2
    assert all(i in encoded and torch.equal(encoded.get(i)["latents"], one["latents"]) for i, one in enumerate(tensors))
    assert 3 not in encoded
    blocked = Encoded(tmp_path / "gone" / "here", most_bytes=0)
    with pytest.raises(CraftError, match="could not be written"):
        blocked.put(0, tensors[0])


def test_what_killed_workers_left_half_written_is_removed(tmp_path: Path) -> None:
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    left = [tmp_path / f".made-{pid}-x" for pid in (dead.pid, os.getpid())]
    for path in (*left, tmp_path / "kept"):
        path.touch()
    stored.sweep(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {left[1].name, "kept"}


def test_a_constant_rate_is_warmed_up_too(desk: Desk, pipelines: Pipelines) -> None:
    desk.train(ask(desk.files, steps=4, warmup_steps=2, learning_rate=0.5), pipelines("sd"))
    assert [frame.step.learning_rate for frame in desk.of("training")] == [0.0, 0.25, 0.5, 0.5]


def test_sixteen_bits_of_grey_are_scaled_and_not_cut(tmp_path: Path) -> None:
    (tmp_path / "deep").write_bytes(deep())
    pixels = pictures.load(tmp_path / "deep", "deep", (96, 96))[0]
    expected = torch.arange(96) / 127.5 - 1
    assert torch.allclose(pixels, expected.expand(3, 96, 96), atol=1e-6)
