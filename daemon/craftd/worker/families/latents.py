"""Latents of a loaded pipeline: the first noise, and what its autoencoder makes of the last ones."""

from __future__ import annotations

from typing import Any

import torch
from craft_protos.reasons import CraftError, invalid
from diffusers.models.autoencoders.autoencoder_tiny import AutoencoderTiny
from diffusers.utils.torch_utils import randn_tensor

from craftd.worker.families.sketch import LinearSketch
from craftd.worker.picture import Pixels

_SKETCH_SIDE = 32  # of the latents


class Latents:
    """Sides are multiples of the autoencoder's factor times `patch`, the model's own."""

    def __init__(self, pipe: Any, device: torch.device, *, patch: int = 1) -> None:
        self._pipe = pipe
        self._vae = pipe.vae
        self._device = device
        self._factor = int(pipe.vae_scale_factor)
        self._granularity = self._factor * patch
        self._sketch: LinearSketch | None = None
        if self._vae.dtype == torch.float16 and self._vae.config.get("force_upcast"):
            self._vae.to(torch.float32)  # it overflows
        # On a CPU its layers hold little and make much: with channels last, and one image at a time, twice as fast.
        self._at_once = 1 if device.type == "cpu" else None
        self._wants_channels_last = device.type == "cpu"

    def noise(self, width: int, height: int, generator: torch.Generator) -> torch.Tensor:
        """1, channels, height, width, of unit deviation. Raises INVALID_FIELD for a size it cannot draw."""
        unit = self._granularity
        for field, side in (("width", width), ("height", height)):
            if side < unit or side % unit:
                raise invalid(field, f"{side} is not a multiple of {unit}", f"use {max(side // unit, 1) * unit}")
        shape = (1, self._vae.config.latent_channels, height // self._factor, width // self._factor)
        dtype = self._pipe.text_encoder.dtype
        noise: torch.Tensor = randn_tensor(shape, generator=generator, device=self._device, dtype=dtype)
        return noise

    def decode(self, latents: torch.Tensor) -> list[Pixels]:
        if self._wants_channels_last:  # not before, so that the first step comes sooner
            self._vae.decoder.to(memory_format=torch.channels_last)
            self._wants_channels_last = False
        portions = torch.split(latents, self._at_once or len(latents))
        return [pixels for portion in portions for pixels in self._decode(portion)]

    def _decode(self, latents: torch.Tensor) -> list[Pixels]:
        image = self._vae.decode(self._scaled(latents.to(self._vae.dtype)), return_dict=False)[0]
        if not torch.isfinite(image).all():
            raise CraftError(
                "JOB_FAILED", "the autoencoder gave numbers that are not finite", "try --precision fp32 or bf16"
            )
        array = self._pipe.image_processor.postprocess(image, output_type="np")
        return list((array * 255).round().astype("uint8"))

    def sketch(self, latents: torch.Tensor) -> Pixels:
        """About what one row's latents will be."""
        shrink = max(1, max(latents.shape[-2:]) // _SKETCH_SIDE)
        small = torch.nn.functional.avg_pool2d(latents.float(), shrink).to(latents.dtype)
        with torch.inference_mode():
            if isinstance(self._vae, AutoencoderTiny):
                return self.decode(small)[0]
            if self._sketch is None:
                self._sketch = LinearSketch.fit(self._vae, self._scaled)
            return self._sketch.draw(latents)

    def tile(self) -> bool:
        """Decode piecewise from now on."""
        self._vae.enable_tiling()
        return True

    def _scaled(self, latents: torch.Tensor) -> torch.Tensor:
        """The model's latents -> the autoencoder's."""
        config = self._vae.config
        scaled: torch.Tensor = latents / config.scaling_factor
        mean, deviation = config.get("latents_mean"), config.get("latents_std")
        if mean is not None and deviation is not None:
            return scaled * _by_channel(deviation, latents) + _by_channel(mean, latents)
        shift = config.get("shift_factor")
        return scaled if shift is None else scaled + float(shift)


def _by_channel(values: Any, like: torch.Tensor) -> torch.Tensor:
    return torch.tensor(values, device=like.device, dtype=like.dtype).view(1, -1, 1, 1)
