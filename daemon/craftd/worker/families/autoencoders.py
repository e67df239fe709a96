"""What a family asks of its autoencoder: pixels to the model's latents, and back.

The model's latents are rows, channels, height, width in the scale that it is trained in. The autoencoder's *own*
latents are the same in its scale: what sketches of a picture are made of.
"""

from __future__ import annotations

from typing import Any

import torch
from craft_protos.reasons import CraftError
from diffusers.models.autoencoders.autoencoder_kl_flux2 import AutoencoderKLFlux2
from diffusers.models.autoencoders.autoencoder_kl_qwenimage import AutoencoderKLQwenImage
from diffusers.models.autoencoders.autoencoder_tiny import AutoencoderTiny
from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution

_NEXT = "set worker.precision to fp32; where that is so, its file is broken: pull the model again"


def of(vae: Any) -> Autoencoder:
    """For a loaded autoencoder of diffusers', by its class."""
    if isinstance(vae, AutoencoderKLQwenImage):
        return OfVideos(vae)
    return InPatches(vae) if isinstance(vae, AutoencoderKLFlux2) else Autoencoder(vae)


def decode_in_fp32(vae: Any, latents: torch.Tensor) -> torch.Tensor:
    """What overflows in fp16, decoded by a copy that is dropped again, so that no later picture depends on it.

    Raises JOB_FAILED where the numbers are not finite in fp32 either, and for a type that has fp32's range.
    """
    if vae.dtype == torch.float16:
        image = of(_in_fp32(vae, latents.device)).decode(latents)
        if torch.isfinite(image).all():
            return image
    raise CraftError("JOB_FAILED", "the autoencoder gave numbers that are not finite", _NEXT)


def _in_fp32(vae: Any, device: torch.device) -> Any:
    """A copy without hooks: weights of an offloaded one are wherever they are, and go back there on their own."""
    with torch.device("meta"):
        whole = type(vae).from_config(vae.config)
    weights = {name: one.to(device, torch.float32) for name, one in vae.state_dict().items()}
    whole.load_state_dict(weights, assign=True)
    whole.eval()
    if getattr(vae, "use_tiling", False):
        whole.enable_tiling()
    return whole


class Autoencoder:
    """One whose own latents are pictures: scaled and shifted by single numbers, or channel by channel."""

    patch = 1  # own latents along the side of one of the model's
    is_random = True  # whether its pipelines draw a picture's latents from what it gives
    memory_format: torch.memory_format | None = torch.channels_last  # in which a CPU decodes faster

    def __init__(self, vae: Any) -> None:
        self._vae = vae

    @property
    def channels(self) -> int:
        """Of the model's latents."""
        return int(self._vae.config.latent_channels)

    @property
    def own_channels(self) -> int:
        return self.channels // self.patch**2

    def encode(self, pixels: torch.Tensor, generator: torch.Generator | None) -> torch.Tensor:
        """rows, 3, height, width in -1 to 1 -> the model's latents, in fp32: drawn by a generator, else the middle."""
        return self.drawn(self.encoded(pixels), generator)

    def encoded(self, pixels: torch.Tensor) -> torch.Tensor:
        """What latents can be drawn from any number of times: a distribution's parameters, or what is their like."""
        encoded = self._vae.encode(self._given(pixels.to(self._vae.dtype)))
        of_tiny = isinstance(self._vae, AutoencoderTiny)
        made: torch.Tensor = encoded.latents if of_tiny else encoded.latent_dist.parameters
        return made

    def drawn(self, encoded: torch.Tensor, generator: torch.Generator | None) -> torch.Tensor:
        """The model's latents, in fp32."""
        if isinstance(self._vae, AutoencoderTiny):
            return self.scaled(encoded.float())
        distribution = DiagonalGaussianDistribution(encoded)
        is_middle = generator is None or not self.is_random
        own: torch.Tensor = distribution.mode() if is_middle else distribution.sample(generator)
        return self.scaled(self._taken(own).float())

    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        """The model's latents -> rows, 3, height, width in about -1 to 1."""
        return self.decode_own(self.own(latents.to(self._vae.dtype)))

    def decode_own(self, own: torch.Tensor) -> torch.Tensor:
        pixels: torch.Tensor = self._vae.decode(self._given(own), return_dict=False)[0]
        return self._taken(pixels)

    def own(self, latents: torch.Tensor) -> torch.Tensor:
        """The model's latents in the autoencoder's scale."""
        config = self._vae.config
        scaled: torch.Tensor = latents / config.scaling_factor
        mean, deviation = config.get("latents_mean"), config.get("latents_std")
        if mean is not None and deviation is not None:
            return scaled * _by_channel(deviation, latents) + _by_channel(mean, latents)
        shift = config.get("shift_factor")
        return scaled if shift is None else scaled + float(shift)

    def scaled(self, own: torch.Tensor) -> torch.Tensor:
        """The other way round."""
        config = self._vae.config
        mean, deviation = config.get("latents_mean"), config.get("latents_std")
        if mean is not None and deviation is not None:
            return (own - _by_channel(mean, own)) / _by_channel(deviation, own) * float(config.scaling_factor)
        return (own - float(config.get("shift_factor") or 0.0)) * float(config.scaling_factor)

    def _given(self, pictures: torch.Tensor) -> torch.Tensor:
        """As the network wants its inputs."""
        return pictures

    def _taken(self, pictures: torch.Tensor) -> torch.Tensor:
        return pictures


class OfVideos(Autoencoder):
    """Qwen-Image's: a picture is a video of one frame."""

    memory_format = None

    @property
    def channels(self) -> int:
        return int(self._vae.config.z_dim)

    def own(self, latents: torch.Tensor) -> torch.Tensor:
        config = self._vae.config
        return latents * _by_channel(config.latents_std, latents) + _by_channel(config.latents_mean, latents)

    def scaled(self, own: torch.Tensor) -> torch.Tensor:
        config = self._vae.config
        return (own - _by_channel(config.latents_mean, own)) / _by_channel(config.latents_std, own)

    def _given(self, pictures: torch.Tensor) -> torch.Tensor:
        return pictures[:, :, None]

    def _taken(self, pictures: torch.Tensor) -> torch.Tensor:
        return pictures[:, :, 0]


class InPatches(Autoencoder):
    """FLUX.2's: two by two own latents are one of the model's, normalised by what training has seen of each channel."""

    patch = 2
    is_random = False

    @property
    def channels(self) -> int:
        return int(self._vae.config.latent_channels) * self.patch**2

    def own(self, latents: torch.Tensor) -> torch.Tensor:
        mean, deviation = self._statistics(latents)
        rows, channels, height, width = latents.shape
        patches = (latents * deviation + mean).reshape(rows, channels // 4, 2, 2, height, width)
        return patches.permute(0, 1, 4, 2, 5, 3).reshape(rows, channels // 4, height * 2, width * 2)

    def scaled(self, own: torch.Tensor) -> torch.Tensor:
        rows, channels, height, width = own.shape
        patches = own.view(rows, channels, height // 2, 2, width // 2, 2).permute(0, 1, 3, 5, 2, 4)
        latents = patches.reshape(rows, channels * 4, height // 2, width // 2)
        mean, deviation = self._statistics(latents)
        return (latents - mean) / deviation

    def _statistics(self, like: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        norm = self._vae.bn
        variance = norm.running_var + self._vae.config.batch_norm_eps
        mean, deviation = (one.view(1, -1, 1, 1).to(like) for one in (norm.running_mean, torch.sqrt(variance)))
        return mean, deviation


def _by_channel(values: Any, like: torch.Tensor) -> torch.Tensor:
    return torch.tensor(values, device=like.device, dtype=like.dtype).view(1, -1, 1, 1)
