"""Pictures that vary are cut and coloured as was drawn, and nothing is drawn where nothing varies."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from craftd.worker.training import pictures
from craftd.worker.training.pictures import Look
from PIL import Image, ImageEnhance

from tests.worker.trained import PLAIN, photo, put


def _pixels(image: Image.Image) -> torch.Tensor:
    return torch.from_numpy(np.asarray(image, np.float32) / 127.5 - 1).permute(2, 0, 1)[None]


def test_a_picture_is_cut_where_it_was_drawn_with_its_mask(tmp_path: Path) -> None:
    wide = photo(1, 128, 64)
    kept, mask = put(tmp_path, wide), put(tmp_path, photo(2, 128, 64))
    for across, left in ((0.0, 0), (0.5, 32), (1.0, 64)):
        look, box = Look((across, 0.5)), (left, 0, left + 64, 64)
        found = pictures.load(tmp_path / kept.sha256, "wide", (64, 64), look=look)
        assert torch.equal(found, _pixels(wide.crop(box)))
        weights = pictures.load_mask(tmp_path / mask.sha256, "wide", (64, 64), look=look, is_flipped=True)
        grey = np.asarray(photo(2, 128, 64).convert("L").crop(box), np.float32) / 255
        assert torch.equal(weights[0, 0], torch.from_numpy(grey).flip(1))


def test_colours_are_pillows(tmp_path: Path) -> None:
    kept = put(tmp_path, photo(1))
    found = pictures.load(
        tmp_path / kept.sha256, "it", (64, 64), look=Look(brightness=1.2, contrast=0.7, saturation=0.5)
    )
    shown = ImageEnhance.Brightness(photo(1)).enhance(1.2)
    shown = ImageEnhance.Color(ImageEnhance.Contrast(shown).enhance(0.7)).enhance(0.5)
    assert torch.equal(found, _pixels(shown))


def test_looks_are_drawn_within_what_was_asked() -> None:
    generator = torch.Generator().manual_seed(1)
    before = generator.get_state()
    assert pictures.drawn(PLAIN, generator) == Look()
    assert torch.equal(generator.get_state(), before)
    recipe = replace(PLAIN, crop="random", color_jitter=0.1)
    found = [pictures.drawn(recipe, generator) for _ in range(100)]
    assert all(0 <= place <= 1 for one in found for place in one.centering)
    factors = [factor for one in found for factor in (one.brightness, one.contrast, one.saturation)]
    assert min(factors) >= 0.9 and max(factors) <= 1.1 and max(factors) - min(factors) > 0.18
