"""FLUX.2 dev is what diffusers' own pipeline draws: the guidance scale goes into it, and a Mistral reads the words."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from craft_protos.worker_pb2 import ModelManifest
from diffusers.pipelines.flux2.pipeline_flux2 import format_input
from transformers import AutoTokenizer
from transformers.processing_utils import ProcessorMixin

from tests import tiny_models
from tests.matrix import covers
from tests.worker.client import WorkerProcess, pixels, submit
from tests.worker.families import (
    Truth,
    assert_mixed_batch_is_close,
    assert_same,
    assert_third_of_four_is_the_same_alone,
    draw,
)
from tests.worker.loras import Make, diffusers_draws, submit_with
from tests.worker.starts import put
from tests.worker.test_references import shown_to
from tests.worker.trained import photo

KIND = "flux2-dev"


class AsProcessor(ProcessorMixin):
    """What PixtralProcessor is without pictures; transformers lets nobody have that without torchvision."""

    def __init__(self, tokenizer: Any) -> None:
        super().__init__(tokenizer, chat_template=tokenizer.chat_template)


@pytest.fixture
def model(models: dict[str, ModelManifest]) -> ModelManifest:
    return models[KIND]


@covers("draw", form="folder", kind=KIND)
@pytest.mark.parametrize("sampler", ["", "Euler", "Heun", "DPM++ 2M", "UniPC"])
def test_samplers(worker: WorkerProcess, model: ModelManifest, flow_truth: Truth, sampler: str) -> None:
    assert_same(draw(worker, model, sampler=sampler), flow_truth(KIND, sampler))


@pytest.mark.parametrize("call", [{"guidance_scale": 0.0}, {"guidance_scale": 9.0}, {"width": 96, "steps": 7}], ids=str)
def test_guidance_and_sizes(
    worker: WorkerProcess, model: ModelManifest, flow_truth: Truth, call: dict[str, Any]
) -> None:
    assert_same(draw(worker, model, **call), flow_truth(KIND, **call))


def test_the_guidance_scale_is_heard(worker: WorkerProcess, model: ModelManifest) -> None:
    drawn = [draw(worker, model, guidance_scale=scale) for scale in (0.0, 9.0)]
    assert np.abs(drawn[0] - drawn[1]).max() > 2


def test_long_prompts(worker: WorkerProcess, model: ModelManifest, flow_truth: Truth) -> None:
    """Longer than is read of them, too, which is said."""
    prompt = "a (red:1.4) cat and a dog " * 60
    assert_same(draw(worker, model, prompt=prompt), flow_truth(KIND, prompt=prompt))
    notice = next(frame.started.notice for frame in worker.seen if frame.HasField("started"))
    assert "the prompt's weights are words" in notice
    assert "tokens, which leaves out" in notice


@covers("batch", form="folder", kind=KIND)
def test_mixed_batch_is_close(worker: WorkerProcess, model: ModelManifest, flow_truth: Truth) -> None:
    asked: dict[str, dict[str, Any]] = {
        "a": {"sampler": "Euler", "steps": 5},
        "b": {"sampler": "DPM++ 2M", "steps": 7, "guidance_scale": 1.0},
        "c": {"sampler": "UniPC", "steps": 6, "guidance_scale": 9.0, "seed": 99, "prompt": "a dog " * 9},
    }
    assert_mixed_batch_is_close(worker, model, flow_truth, KIND, asked)


def test_third_image_of_four_alone_is_the_same(worker: WorkerProcess, model: ModelManifest) -> None:
    assert_third_of_four_is_the_same_alone(worker, model)


@covers("LoRA", form="folder", kind=KIND)
def test_loras(
    worker: WorkerProcess, model: ModelManifest, make: Make, pipelines: Callable[[str], Any], flow_truth: Truth
) -> None:
    loras = [(make(KIND, "plain", seed=1, rank=4), 0.8)]
    expected = diffusers_draws(pipelines(KIND), loras, flow_truth, KIND)
    (image,) = worker.draw(submit_with(model, loras))
    assert np.abs(pixels(image) - expected).max() <= 2
    assert np.abs(expected - flow_truth(KIND)).max() > 4


@covers("references", form="folder", kind=KIND)
def test_it_is_shown_pictures(worker: WorkerProcess, files: Path, model: ModelManifest, flow_truth: Truth) -> None:
    pictures = [photo(0, 96, 80), photo(1, 67, 131)]
    (drawn,) = worker.draw(shown_to(model, [put(files, one) for one in pictures]))
    assert_same(pixels(drawn), flow_truth(KIND, image=pictures))


def test_a_negative_prompt_is_refused(worker: WorkerProcess, model: ModelManifest) -> None:
    failed = worker.fail(submit(model, negative_prompt="a dog"))
    assert (failed.error.reason, failed.error.message) == (
        "INVALID_FIELD",
        "negative_prompt: FLUX.2 dev does not take any",
    )


@pytest.mark.parametrize("text", ["a red cat", "a cat, " * 400], ids=len)
def test_its_tokenizer_reads_as_its_processor_does(text: str) -> None:
    tokenizer = AutoTokenizer.from_pretrained(tiny_models.cached(KIND) / "tokenizer")
    how = {"tokenize": True, "return_dict": True, "return_tensors": "pt"}
    how |= {"padding": "max_length", "truncation": True, "max_length": 512}
    one, other = (part.apply_chat_template(format_input([text]), **how) for part in (tokenizer, AsProcessor(tokenizer)))
    assert all((one[key] == other[key]).all() for key in ("input_ids", "attention_mask"))
