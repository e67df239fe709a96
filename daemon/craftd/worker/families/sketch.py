"""A linear map from latents to colours, fitted to an autoencoder: previews for next to nothing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from craftd.worker.picture import Pixels

_SIDE = 16  # of the latents it is fitted to


@dataclass(frozen=True)
class LinearSketch:
    """One pixel for each latent pixel. `weights` is channels + 1 by 3; the last row is the bias."""

    weights: torch.Tensor

    @classmethod
    def fit(cls, vae: Any, scaled: Callable[[torch.Tensor], torch.Tensor]) -> LinearSketch:
        """Least squares over what `vae` makes of smooth random latents; takes one small decode.

        `scaled` makes the model's latents the autoencoder's.
        """
        generator = torch.Generator("cpu").manual_seed(0)
        coarse = torch.randn(1, vae.config.latent_channels, _SIDE // 4, _SIDE // 4, generator=generator)
        latents = torch.nn.functional.interpolate(coarse, scale_factor=4, mode="bilinear")
        given = scaled(latents.to(device=vae.device, dtype=vae.dtype))
        image = vae.decode(given, return_dict=False)[0].float().cpu()
        colours = torch.nn.functional.adaptive_avg_pool2d(image, (_SIDE, _SIDE))
        return cls(torch.linalg.lstsq(_flat(latents), colours.flatten(2)[0].T).solution)

    def draw(self, latents: torch.Tensor) -> Pixels:
        """The colours of one row's latents."""
        flat = _flat(latents.float().cpu()) @ self.weights
        image = flat.T.reshape(3, *latents.shape[-2:])
        pixels: Pixels = ((image / 2 + 0.5).clamp(0, 1) * 255).round().byte().permute(1, 2, 0).numpy()
        return pixels


def _flat(latents: torch.Tensor) -> torch.Tensor:
    values = latents.flatten(2)[0].T
    return torch.cat([values, torch.ones(len(values), 1)], dim=1)
