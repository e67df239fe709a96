"""What diffusers' own pipelines draw, of the families that a language model reads for: in the terms of a job."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from tests.worker.families import Truth

KINDS = ("z-image", "flux2", "qwen-image", "krea2")
NEVER_GUIDED = {"z-image": 0.0, "flux2": 1.0, "qwen-image": 1.0, "krea2": 0.0}  # the largest scale that guides nothing


@pytest.fixture(scope="session")
def flow_truth(truth: Truth, pipelines: Callable[[str], Any]) -> Truth:
    """The pixels that diffusers' pipeline gives; a sampler other than its own is spread over flows as ours are."""

    def draw(kind: str, sampler: str = "Euler", **call: Any) -> np.ndarray:
        asked = arguments(pipelines(kind), {"guidance_scale": 5.0} | call)
        return truth(kind, "", scheduled=partial(scheduled, sampler), **asked)

    return draw


def arguments(pipe: Any, call: dict[str, Any]) -> dict[str, Any]:
    """What a pipeline is called with; one of another family as it is."""
    negative = call.pop("negative_prompt", "")
    match type(pipe).__name__:
        case "QwenImagePipeline" | "QwenImageEditPipeline" | "QwenImageEditPlusPipeline":
            given = {"true_cfg_scale": call["guidance_scale"], "negative_prompt": negative or " "}
            return call | given | {"guidance_scale": None}
        case "Flux2KleinPipeline":
            return call | {"negative_prompt_embeds": pipe.encode_prompt(negative)[0]}
        case "ZImagePipeline" | "Krea2Pipeline" | "ChromaPipeline":
            return call | {"negative_prompt": negative}
        case _:
            return call


def processor(folder: Path, tokenizer: Any) -> Any:
    """transformers' own of Qwen2-VL, made without what wants torchvision."""
    from transformers import Qwen2VLProcessor
    from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

    made: Any = object.__new__(Qwen2VLProcessor)
    made.image_processor = Qwen2VLImageProcessorPil.from_pretrained(folder)
    made.tokenizer, made.video_processor, made.chat_template = tokenizer, SimpleNamespace(merge_size=2), None
    made.image_token, made.video_token, made.video_token_id = "<|image_pad|>", "<|video_pad|>", -1
    made.image_token_id = tokenizer.convert_tokens_to_ids(made.image_token)
    return made


def scheduled(sampler: str, own: Any) -> Any:
    """The pipelines pass noise levels, and a shift where it follows from the size: not all schedulers take both."""
    import diffusers
    from craftd.worker.families.samplers import FLOW_RECIPES

    if sampler in ("", "Euler"):
        return type(own).from_config(own.config)
    name, overrides = FLOW_RECIPES[sampler]
    kind: Any = getattr(diffusers, name)
    is_shifted = bool(own.config.use_dynamic_shifting)

    class Alone(kind):  # type: ignore[misc]
        def set_timesteps(
            self, num_inference_steps: Any = None, device: Any = None, sigmas: Any = None, mu: Any = None
        ) -> None:
            steps = num_inference_steps if sigmas is None else len(sigmas)
            if "Heun" in name and is_shifted:
                other = kind.from_config(own.config, shift=math.exp(mu))
                other.set_timesteps(steps, device=device)
                self.__dict__.update(other.__dict__)
            else:
                super().set_timesteps(steps, device=device, **({"mu": mu} if is_shifted else {}))

    return Alone.from_config(own.config, **{**overrides, "flow_shift": own.config.shift})
