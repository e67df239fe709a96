"""A picture as the trainer takes it: its latents, and the mask of its loss where it has one, as large as they are."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from craft_protos.reasons import CraftError
from craft_protos.train import Picture, TrainSpec
from torch.nn import functional

from craftd.worker.families.base import Family
from craftd.worker.training import pictures
from craftd.worker.training.encoded import Tensors
from craftd.worker.training.pictures import PLAIN, Look


@dataclass(frozen=True)
class PictureEncoder:
    """`file`: where what has a sha256 lies."""

    family: Family
    recipe: TrainSpec
    precision: str
    file: Callable[[str], Path]

    def encode(self, picture: Picture, size: tuple[int, int], *, is_flipped: bool, look: Look = PLAIN) -> Tensors:
        """Raises BAD_DATASET."""
        path, name = self.file(picture.sha256), picture.file_name
        pixels = pictures.load(path, name, size, is_flipped=is_flipped, look=look)
        with torch.no_grad():
            latents = self.family.encode_image(pixels)
        _check_finite(latents, name, self.precision)
        if picture.mask_sha256:
            mask = pictures.load_mask(self.file(picture.mask_sha256), name, size, is_flipped=is_flipped, look=look)
        elif self.recipe.alpha_mask:
            mask = pictures.load_alpha(path, name, size, is_flipped=is_flipped, look=look)
        else:
            return {"latents": latents}
        return {"latents": latents, "mask": functional.interpolate(mask, size=latents.shape[-2:], mode="area")}


def _check_finite(latents: torch.Tensor, name: str, precision: str) -> None:
    if not torch.isfinite(latents).all():
        raise CraftError(
            "BAD_DATASET",
            f"picture {name}: the autoencoder gives numbers that are not finite",
            f"it was computed in {precision}; leave the picture out, or set worker.precision to fp32",
        )
