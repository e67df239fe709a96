"""Embeddings of textual inversion: what diffusers draws after load_textual_inversion, in each form of file."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from craft_protos.worker_pb2 import ModelManifest
from safetensors.torch import save_file

from tests.worker.client import WorkerProcess, pixels, provenance
from tests.worker.families import Truth, assert_same, draw
from tests.worker.loras import Make, Stored, put_lora, submit_with

Embedding = Callable[..., Stored]
Drawing = tuple[WorkerProcess, ModelManifest, Callable[[str], Any], Truth]
_NAME = "easynegative"
_PROMPT, _NEGATIVE = f"a red cat, {_NAME}", f"blurred, {_NAME}"


@pytest.fixture(scope="module")
def embedding(tmp_path_factory: pytest.TempPathFactory, files: Path) -> Embedding:
    folder = tmp_path_factory.mktemp("embeddings")

    def made(form: str, **tensors: torch.Tensor) -> Stored:
        (folder / form).mkdir(exist_ok=True)
        path = folder / form / f"{_NAME}.safetensors"
        save_file({key.replace("_placeholder", "<cat-toy>"): tensor for key, tensor in tensors.items()}, path)
        return put_lora(path, files)

    return made


@pytest.fixture
def drawing(worker: WorkerProcess, sd: ModelManifest, pipelines: Callable[[str], Any], truth: Truth) -> Drawing:
    """craft's worker and model; diffusers' pipelines and pictures."""
    return worker, sd, pipelines, truth


def _vectors(encoder: Any, count: int, seed: int = 3) -> torch.Tensor:
    """Of the size that the encoder's words have."""
    words = encoder.get_input_embeddings().weight
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, words.shape[1], generator=generator) * words.std() * 4


@contextmanager
def _known_to_diffusers(pipe: Any, *encoders: str, vectors: dict[str, torch.Tensor]) -> Iterator[None]:
    """In copies: diffusers cannot take a word of several vectors back."""
    parts = [*encoders, *(name.replace("text_encoder", "tokenizer") for name in encoders)]
    own = {name: getattr(pipe, name) for name in parts}
    try:
        for name, part in own.items():
            setattr(pipe, name, copy.deepcopy(part))
        for name in encoders:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                where = {"text_encoder": getattr(pipe, name)}
                where["tokenizer"] = getattr(pipe, name.replace("text_encoder", "tokenizer"))
                pipe.load_textual_inversion({_NAME: vectors[name]}, token=_NAME, **where)
        yield
    finally:
        for name, part in own.items():
            setattr(pipe, name, part)


@pytest.mark.parametrize(
    ("form", "count"), [("emb_params", 1), ("emb_params", 3), ("_placeholder", 1), ("_placeholder", 3)]
)
@pytest.mark.parametrize(
    "texts", [{"prompt": _PROMPT}, {"prompt": "a red cat", "negative_prompt": _NEGATIVE}, {"prompt": _NAME}]
)
def test_sd(drawing: Drawing, embedding: Embedding, form: str, count: int, texts: dict[str, str]) -> None:
    worker, sd, pipelines, truth = drawing
    pipe = pipelines("sd")
    vectors = _vectors(pipe.text_encoder, count)
    with _known_to_diffusers(pipe, "text_encoder", vectors={"text_encoder": vectors}):
        expected = truth("sd", **texts)
    stored = embedding(f"{form}-{count}", **{form: vectors if count > 1 or form == "emb_params" else vectors[0]})
    (image,) = worker.draw(submit_with(sd, [(stored, 1.0)], **texts))
    assert_same(pixels(image), expected)
    assert np.abs(expected - truth("sd", **texts)).max() > 1, "an embedding that changes nothing proves nothing"
    (told,) = provenance(image)["loras"]
    assert (told["matched"], told["total"]) == (1, 1)
    assert_same(draw(worker, sd, **texts), truth("sd", **texts))


def test_sdxl_has_vectors_for_both_encoders(
    worker: WorkerProcess,
    models: dict[str, ModelManifest],
    pipelines: Callable[[str], Any],
    truth: Truth,
    embedding: Embedding,
) -> None:
    pipe, names = pipelines("sdxl"), ("text_encoder", "text_encoder_2")
    vectors = {name: _vectors(getattr(pipe, name), 2, seed) for seed, name in enumerate(names)}
    with _known_to_diffusers(pipe, *names, vectors=vectors):
        expected = truth("sdxl", prompt=_PROMPT, negative_prompt=_NEGATIVE)
    stored = embedding("sdxl", clip_l=vectors["text_encoder"], clip_g=vectors["text_encoder_2"])
    texts = {"prompt": _PROMPT, "negative_prompt": _NEGATIVE}
    (image,) = worker.draw(submit_with(models["sdxl"], [(stored, 1.0)], **texts))
    assert_same(pixels(image), expected)
    failed = worker.fail(submit_with(models["sd"], [(stored, 1.0)], prompt=_PROMPT))
    assert failed.error.reason == "LORA_MISMATCH" and "2 text encoders" in failed.error.message


def test_every_spelling_of_its_name_and_no_other(
    worker: WorkerProcess, sd: ModelManifest, pipelines: Callable[[str], Any], embedding: Embedding
) -> None:
    stored = embedding("spelt", emb_params=_vectors(pipelines("sd").text_encoder, 2))

    def drawn(prompt: str) -> np.ndarray:
        (image,) = worker.draw(submit_with(sd, [(stored, 1.0)], prompt=prompt))
        return pixels(image)

    expected = drawn(f"a cat, {_NAME}")
    for prompt in (f"a cat, embedding:{_NAME}", "a cat, EasyNegative", f"a cat, ({_NAME}:1.0)"):
        assert np.array_equal(drawn(prompt), expected)
    assert not np.array_equal(drawn(f"a cat, ({_NAME}:1.4)"), expected)
    assert np.array_equal(drawn("a cat, easynegatives"), draw(worker, sd, prompt="a cat, easynegatives"))


def test_beside_loras_and_in_a_batch_with_others(drawing: Drawing, make: Make, embedding: Embedding) -> None:
    worker, sd, pipelines, _truth = drawing
    stored = embedding("mixed", emb_params=_vectors(pipelines("sd").text_encoder, 2))
    loras = [make("sd", f"beside{seed}", seed=seed, rank=4) for seed in range(4)]
    jobs = {
        "embedding": [(stored, 1.0)],
        "both": [(stored, 1.0), *((lora, 0.3) for lora in loras)],
        "lora": [(loras[0], 0.8)],
        "plain": [],
    }
    alone = {}
    for name, used in jobs.items():
        (image,) = worker.draw(submit_with(sd, used, name, prompt=_PROMPT))
        alone[name] = pixels(image)
    together = worker.draw(*(submit_with(sd, used, name, prompt=_PROMPT) for name, used in jobs.items()))
    assert {provenance(image)["batch"] for image in together} == {len(jobs)}
    for image in together:
        assert np.abs(pixels(image) - alone[image.job_id]).max() <= 2
    different = {array.tobytes() for array in alone.values()}
    assert len(different) == len(jobs)


@pytest.mark.parametrize("kind", ["sd3", "flux"])
def test_models_that_take_none_say_so(
    worker: WorkerProcess, models: dict[str, ModelManifest], embedding: Embedding, kind: str
) -> None:
    stored = embedding("foreign", emb_params=torch.randn(1, 768))
    failed = worker.fail(submit_with(models[kind], [(stored, 1.0)], prompt=_NAME))
    assert failed.error.reason == "LORA_MISMATCH" and "takes no embeddings" in failed.error.message


def test_a_width_that_is_not_the_models(worker: WorkerProcess, sd: ModelManifest, embedding: Embedding) -> None:
    failed = worker.fail(submit_with(sd, [(embedding("wide", emb_params=torch.randn(1, 777)), 1.0)], prompt=_NAME))
    assert failed.error.reason == "LORA_MISMATCH" and "777 numbers" in failed.error.message
