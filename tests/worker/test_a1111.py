"""Prompts in AUTOMATIC1111's language, drawn: against a plain loop with diffusers' parts, by the rules as published."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from craft_protos.worker_pb2 import ModelManifest
from craftd.worker.families.text import T5Text
from diffusers.schedulers.scheduling_euler_discrete import EulerDiscreteScheduler

from tests.worker.client import WorkerProcess, pixels, provenance, submit
from tests.worker.families import assert_same, draw

Weighted = Sequence[tuple[str, float]]
_STEPS, _SCALE = 6, 5.0
_AT_3 = "a [red:blue:3] cat"


def _chunk(pipe: Any, *words: tuple[str, float]) -> torch.Tensor:
    """One chunk: features times weights, the mean as it was."""
    pieces = [(pipe.tokenizer(text, add_special_tokens=False).input_ids, weight) for text, weight in words]
    ids = [token for tokens, _ in pieces for token in tokens]
    weights = [1.0, *(weight for tokens, weight in pieces for _ in tokens)]
    ids = [pipe.tokenizer.bos_token_id, *ids, pipe.tokenizer.eos_token_id]
    ids += [pipe.tokenizer.pad_token_id] * (77 - len(ids))
    weights += [1.0] * (77 - len(weights))
    with torch.inference_mode():
        features = pipe.text_encoder(torch.tensor([ids]))[0]
        weighted = features * torch.tensor(weights)[None, :, None]
        if all(weight == 1 for weight in weights):
            return features
        return weighted * (features.mean() / weighted.mean())


def _loop(pipe: Any, prompts: Callable[[int], list[tuple[torch.Tensor, float]]], negative: torch.Tensor) -> np.ndarray:
    """Composable diffusion, a call for each prompt."""
    scheduler = EulerDiscreteScheduler.from_config(pipe.scheduler.config)
    scheduler.set_timesteps(_STEPS)
    generator = torch.Generator("cpu").manual_seed(7)
    side = 64 // pipe.vae_scale_factor
    latents = torch.randn(1, 4, side, side, generator=generator) * scheduler.init_noise_sigma
    with torch.inference_mode():
        for call, timestep in enumerate(scheduler.timesteps):
            sample = scheduler.scale_model_input(latents, timestep)
            without = pipe.unet(sample, timestep, encoder_hidden_states=negative)[0]
            added = 0
            for text, weight in prompts(call):
                added = added + weight * (pipe.unet(sample, timestep, encoder_hidden_states=text)[0] - without)
            latents = scheduler.step(without + _SCALE * added, timestep, latents, generator=generator)[0]
        decoded = pipe.vae.decode(latents / pipe.vae.config.scaling_factor)[0]
        array = pipe.image_processor.postprocess(decoded, output_type="np")[0]
    return (array * 255).round().astype(int)


@pytest.fixture
def pipe(pipelines: Callable[[str], Any]) -> Any:
    return pipelines("sd")


def _drawn(worker: WorkerProcess, sd: ModelManifest, prompt: str, **spec: Any) -> np.ndarray:
    return draw(worker, sd, prompt=prompt, prompt_syntax="a1111", steps=_STEPS, guidance_scale=_SCALE, **spec)


def test_emphasis_restores_the_mean(worker: WorkerProcess, sd: ModelManifest, pipe: Any) -> None:
    text = _chunk(pipe, ("a ", 1.0), ("red", 1.4), (" cat", 1.0))
    expected = _loop(pipe, lambda _: [(text, 1.0)], _chunk(pipe, ("dog", 1.1)))
    assert_same(_drawn(worker, sd, "a (red:1.4) cat", negative_prompt="(dog)"), expected)


@pytest.mark.parametrize(
    ("prompt", "words"),
    [
        (_AT_3, lambda call: "red" if call <= 3 else "blue"),
        ("a [red:blue:0.34] cat", lambda call: "red" if call <= 2 else "blue"),
        ("a [red|blue] cat", lambda call: ("red", "red", "blue", "red", "blue", "red")[call]),
    ],
)
def test_a_prompt_changes_on_the_way(
    worker: WorkerProcess, sd: ModelManifest, pipe: Any, prompt: str, words: Callable[[int], str]
) -> None:
    texts = {word: _chunk(pipe, (f"a {word} cat", 1.0)) for word in ("red", "blue")}
    expected = _loop(pipe, lambda call: [(texts[words(call)], 1.0)], _chunk(pipe))
    assert_same(_drawn(worker, sd, prompt), expected)


def test_and_adds_prompts_up(worker: WorkerProcess, sd: ModelManifest, pipe: Any) -> None:
    joined = [(_chunk(pipe, ("a red cat", 1.0)), 1.0), (_chunk(pipe, ("a dog", 1.0)), 0.5)]
    expected = _loop(pipe, lambda _: joined, _chunk(pipe))
    assert_same(_drawn(worker, sd, "a red cat AND a dog :0.5"), expected)


def test_break_begins_a_chunk(worker: WorkerProcess, sd: ModelManifest, pipe: Any) -> None:
    text = torch.cat([_chunk(pipe, ("a red", 1.0)), _chunk(pipe, ("cat", 1.0))], dim=1)
    negative = torch.cat([_chunk(pipe)] * 2, dim=1)
    assert_same(_drawn(worker, sd, "a red BREAK cat"), _loop(pipe, lambda _: [(text, 1.0)], negative))


def test_courses_of_their_own_share_a_batch(worker: WorkerProcess, sd: ModelManifest) -> None:
    asked = {
        "edited": {"prompt": _AT_3},
        "joined": {"prompt": "a red cat AND a [dog:fox:2] :0.5"},
        "plain": {"prompt": "a (red) cat"},
    }
    alone = {job: _drawn(worker, sd, **spec) for job, spec in asked.items()}
    shared = {"prompt_syntax": "a1111", "steps": _STEPS, "guidance_scale": _SCALE}
    images = worker.draw(*(submit(sd, job, **shared, **spec) for job, spec in asked.items()))
    assert {provenance(image)["batch"] for image in images} == {3}
    assert max(int(np.abs(pixels(image) - alone[image.job_id]).max()) for image in images) <= 1


def test_the_syntax_is_recorded_and_plain_brackets_are_words(
    worker: WorkerProcess, sd: ModelManifest, pipe: Any
) -> None:
    (image,) = worker.draw(submit(sd, prompt="a (red:1.4) [cat", prompt_syntax="plain", steps=_STEPS))
    assert provenance(image)["prompt_syntax"] == "plain"
    text = _chunk(pipe, ("a (red:1.4) [cat", 1.0))
    assert_same(pixels(image), _loop(pipe, lambda _: [(text, 1.0)], _chunk(pipe)))


@pytest.mark.parametrize(
    ("kind", "asked", "said"),
    [
        ("sd", {"prompt": "a AND b", "guidance_scale": 1.0}, "guidance scale above 1"),
        ("flux", {"prompt": "a AND b"}, "AND, which this model cannot draw"),
        ("z-image", {"prompt": "a (cat:1.3)"}, "reads words alone"),
    ],
)
def test_what_a_model_cannot_draw_is_refused(
    worker: WorkerProcess, models: dict[str, ModelManifest], kind: str, asked: dict[str, Any], said: str
) -> None:
    failed = worker.fail(submit(models[kind], prompt_syntax="a1111", **asked))
    assert (failed.error.reason, said in failed.error.message) == ("INVALID_FIELD", True)


def test_weights_reach_what_t5_reads(pipelines: Callable[[str], Any]) -> None:
    pipe = pipelines("flux")
    reader = T5Text(pipe.tokenizer_2, pipe.text_encoder_2, torch.device("cpu"), length=16)
    reader.syntax = "a1111"
    pieces = [
        (pipe.tokenizer_2(text, add_special_tokens=False).input_ids, one) for text, one in (("a ", 1), ("cat", 2))
    ]
    ids = [*(token for tokens, _ in pieces for token in tokens), pipe.tokenizer_2.eos_token_id]
    weights = [weight for tokens, weight in pieces for _ in tokens]
    with torch.inference_mode():
        features = pipe.text_encoder_2(torch.tensor([ids + [pipe.tokenizer_2.pad_token_id] * (16 - len(ids))]))[0]
        weighted = features * torch.tensor(weights + [1] * (16 - len(weights)))[None, :, None]
        expected = weighted * (features.mean() / weighted.mean())
        torch.testing.assert_close(reader.embed("a (cat:2)"), expected)
        assert not torch.allclose(reader.embed("a cat"), expected)
