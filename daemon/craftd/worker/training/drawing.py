"""Pictures that the model draws while it learns: samples, and those of its class before."""

from __future__ import annotations

from collections.abc import Generator, Hashable
from typing import Any

import torch
from craft_protos.generate import TextSpec
from craft_protos.train import TrainSpec
from craft_protos.train_samples import SamplePrompt

from craftd.architectures import buckets
from craftd.worker.engine import denoise
from craftd.worker.engine.denoise import Around, Denoising
from craftd.worker.families.base import Family
from craftd.worker.families.latents import sizes_of
from craftd.worker.training import trainable


class Drawing:
    """Draws as the engine does; a picture that is half done is kept while the training is put aside."""

    def __init__(self, recipe: TrainSpec, place: torch.device) -> None:
        self._recipe = recipe
        self._place = place
        self._half: tuple[Hashable, Denoising] | None = None

    def forget(self) -> None:
        """What is half done."""
        self._half = None

    def side(self, pipe: Any) -> int:
        """Of a picture for which no size is asked."""
        return buckets.sizes(self._recipe.resolution, sizes_of(pipe).granularity)[0][0]

    def denoise(
        self, key: Hashable, pipe: Any, computing: Around, sample: SamplePrompt
    ) -> Generator[None, None, tuple[Family, Denoising]]:
        """A finished row, a step at a time."""
        family = trainable.family_of(pipe, self._place)
        if self._half is None or self._half[0] != key:
            with computing(()):
                self._half = (key, self._begin(pipe, family, sample))
        row = self._half[1]
        while not row.is_done:
            (error,) = denoise.advance(family, [row], computing, with_preview=[False])
            if error is not None:
                raise error
            yield
        self._half = None
        return family, row

    def _begin(self, pipe: Any, family: Family, sample: SamplePrompt) -> Denoising:
        usual = trainable.architecture_of(pipe).training
        assert usual is not None
        unit, side = sizes_of(pipe).granularity, self.side(pipe)
        width, height = (max(one // unit, 1) * unit if one else side for one in (sample.width, sample.height))
        steps = sample.steps or usual.sample_steps
        scale = usual.guidance_scale if sample.guidance_scale is None else sample.guidance_scale
        with torch.inference_mode():
            conditioning = family.encode(TextSpec(sample.prompt, sample.negative_prompt, guidance_scale=scale))
            scheduler = family.schedule("", steps, width, height)
        seed = self._recipe.seed if sample.seed is None else sample.seed
        return denoise.begin(family, conditioning, scheduler, size=(width, height), steps=steps, seed=seed)
