"""The shipped model, through plain diffusers: it loads, and the simplest promises hold."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionPipeline
from numpy.typing import NDArray

from training.pocket.concepts import COLORS
from training.pocket.export import DEFAULTS

POCKET = Path(__file__).parents[2] / "daemon" / "craftd" / "pocket"


@pytest.fixture(scope="module")
def pipe() -> Iterator[StableDiffusionPipeline]:
    loaded = StableDiffusionPipeline.from_pretrained(POCKET, dtype=torch.float32)
    loaded.set_progress_bar_config(disable=True)
    yield loaded


def _draw(pipe: StableDiffusionPipeline, prompt: str, seed: int = 0) -> NDArray[np.float32]:
    image = pipe(
        prompt,
        width=DEFAULTS["width"],
        height=DEFAULTS["height"],
        num_inference_steps=DEFAULTS["steps"],
        guidance_scale=DEFAULTS["guidance_scale"],
        generator=torch.Generator().manual_seed(seed),
    ).images[0]
    return np.asarray(image, np.float32)


def _border(picture: NDArray[np.float32]) -> str:
    edge = np.concatenate([picture[:6].reshape(-1, 3), picture[-6:].reshape(-1, 3)]).mean(axis=0)
    return min(COLORS, key=lambda name: float(np.square(edge - COLORS[name]).sum()))


def test_the_folder_is_at_most_40_megabytes_of_safetensors() -> None:
    files = [path for path in POCKET.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) <= 40_000_000
    assert {path.suffix for path in files} <= {".safetensors", ".json", ".txt", ".md"}
    assert (POCKET / "README.md").is_file()


@pytest.mark.parametrize("color", ["white", "black", "blue", "green", "pink"])
def test_the_background_is_the_asked_colour(pipe: StableDiffusionPipeline, color: str) -> None:
    assert _border(_draw(pipe, f"a red apple on a {color} background")) == color


def test_another_seed_gives_another_picture(pipe: StableDiffusionPipeline) -> None:
    assert np.abs(_draw(pipe, "a panda", 1) - _draw(pipe, "a panda", 2)).mean() > 2


def test_unknown_words_do_not_break_it(pipe: StableDiffusionPipeline) -> None:
    assert _border(_draw(pipe, "flibberti gibbet zyxq, blue background")) == "blue"
