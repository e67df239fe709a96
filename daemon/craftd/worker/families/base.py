"""What a family of models must be able to do, and what the engine asks of a loaded model.

A **family** knows one architecture: encode texts and images, prepare latents, predict, decode.
`denoiser.Denoiser` draws with any of them, row by row of a batch. A **runner** is what the engine sees of a model:
a denoiser over a family, or a pipeline that brings its own loop (`generic.py`).
A family knows nothing of LoRAs but the order of its model rows: the denoiser applies them around its calls.
"""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any, Protocol

import torch
from craft_protos.dispatch import Dispatch
from craft_protos.generate import TextSpec
from craft_protos.reasons import CraftError, invalid
from diffusers.models.autoencoders.autoencoder_tiny import AutoencoderTiny

from craftd.worker.engine.row import Drawing
from craftd.worker.engine.stages import Before, HalfDone
from craftd.worker.families import autoencoders, noise, samplers
from craftd.worker.families.controls import RowControl
from craftd.worker.families.latents import (
    NO_MASK,
    Beginning,
    Covered,
    Kept,
    LinearSketch,
    Source,
    first_call,
    noised,
    sizes_of,
)
from craftd.worker.families.lru_cache import tensor_bytes
from craftd.worker.families.prompts import EncoderWord
from craftd.worker.families.samplers import Scheduler
from craftd.worker.inputs.fitting import Size
from craftd.worker.inputs.references import Layout, Shown
from craftd.worker.lora import adapter_manager
from craftd.worker.lora.adapter_manager import Applied
from craftd.worker.models import sharing
from craftd.worker.output.picture import Pixels
from craftd.worker.process.device import uploaded

_SKETCH_SIDE = 32  # of the latents
_KEPT_NUMBERS = 64  # small tensors: what batches are told beside their latents


@dataclass(frozen=True)
class Conditioning:
    """What a prompt has become. Tensors have a leading dimension of 1."""

    positive: torch.Tensor  # tokens, features
    negative: torch.Tensor | None  # None: no classifier-free guidance
    text: TextSpec  # that it was made of
    pooled: torch.Tensor | None = None  # features of the prompt as a whole, where the architecture takes them
    negative_pooled: torch.Tensor | None = None
    mixes_lengths: bool = False  # rows with texts of other lengths may share its calls

    @property
    def guidance_scale(self) -> float:
        return self.text.guidance_scale

    @property
    def cfg_scale(self) -> float:
        """How far the output goes away from the negative prompt's: FLUX.1 has a scale for it beside the model's own."""
        return self.text.true_cfg_scale if self.text.true_cfg_scale > 1 else self.guidance_scale

    @property
    def group(self) -> Hashable:
        """Rows of equal ones may share a call."""
        return None if self.mixes_lengths else int(self.positive.shape[1])

    @property
    def model_rows(self) -> int:
        return 1 if self.negative is None else 2

    @property
    def size_bytes(self) -> int:
        return sum(map(tensor_bytes, (self.positive, self.negative, self.pooled, self.negative_pooled)))


@dataclass(frozen=True)
class ModelRow:
    """One request row's input to one model call."""

    sample: torch.Tensor  # 1, channels, height, width; scaled for the model
    timestep: torch.Tensor  # a scalar
    conditioning: Conditioning
    loras: Applied = adapter_manager.NONE
    references: Sequence[torch.Tensor] = ()  # latents of the pictures that the model is shown; of any size
    controls: Sequence[RowControl] = ()  # those that count at this call
    beside: torch.Tensor | None = None  # 1, channels, height, width: what a model for inpainting is given with it
    unguided: list[torch.Tensor] | None = None  # where `predict` puts the output without the prompt, if it is wanted


class TextEncoder(Protocol):
    """A text encoder that remembers what texts became."""

    variant: Hashable  # what is applied to it now; texts of another variant are other texts
    words: Sequence[EncoderWord]  # embeddings, whose names are words to it now
    syntax: str  # how the texts are written that it is given now


class Family(ABC):
    """One loaded model of a known architecture, whose autoencoder's latents are denoised. `pipe` is diffusers'."""

    composes = False  # whether prompts may be joined by AND: what each adds to the negative prompt's output is summed
    _upcasts = False  # whether its pipeline heeds the autoencoder's `force_upcast`, which is true where nothing is said

    def __init__(self, pipe: Any, device: torch.device) -> None:
        self._pipe = pipe
        self._vae = pipe.vae
        self._device = device
        self._autoencoder = autoencoders.of(pipe.vae)
        self._factor = int(pipe.vae_scale_factor) * self._autoencoder.patch  # pixels along the side of a latent
        self._sizes = sizes_of(pipe)
        self._sketch: LinearSketch | None = None
        self._on_device = lru_cache(_KEPT_NUMBERS)(partial(_on_device, device))  # so that no step copies them anew
        self._coding = threading.Lock()  # a picture is encoded in the engine's thread while another may be decoded
        if self._upcasts and self._vae.dtype == torch.float16 and self._vae.config.get("force_upcast"):
            self._vae.to(torch.float32)  # it overflows
        # On a CPU its layers hold little and make much: with channels last, and one image at a time, twice as fast.
        self._at_once = 1 if device.type == "cpu" else None
        is_quicker = device.type == "cpu" or (device.type == "cuda" and self._vae.dtype != torch.float32)
        self._wants_channels_last = is_quicker and self._autoencoder.memory_format is not None

    @property
    def inpaints(self) -> bool:
        """Whether its model was made for inpainting, and draws nothing without a mask."""
        return False

    @property
    def granularity(self) -> int:
        """Sides of what it draws are multiples of it, in pixels."""
        return self._sizes.granularity

    @property
    def latent_side(self) -> int:
        """Pixels along the side of a latent."""
        return self._factor

    @property
    @abstractmethod
    def texts(self) -> Sequence[TextEncoder]:
        """Its text encoders."""

    @abstractmethod
    def encode(self, text: TextSpec) -> Conditioning: ...

    def encode_shown(self, text: TextSpec, _shown: Shown) -> Conditioning:
        """The same by a text encoder that sees the pictures that the model is shown, where it does."""
        return self.encode(text)

    def lay(self, _own: Size) -> Layout:
        """How the model is shown a picture of that size. Raises INVALID_FIELD where it cannot be shown any."""
        raise invalid("references", "mean nothing to this model", "leave the pictures out")

    def remarks(self, text: TextSpec) -> Sequence[str]:
        """What of it does nothing with this model: its user should know."""
        return ()

    @abstractmethod
    def schedule(self, sampler: str, steps: int, width: int, height: int) -> Scheduler:
        """A scheduler of its own for one row, with its timesteps; "" is the model's own kind.

        Raises INVALID_FIELD for a sampler or a number of steps that does not fit the model.
        """

    @abstractmethod
    def order(self, rows: Sequence[ModelRow]) -> Sequence[ModelRow]:
        """The model rows that `predict` makes of `rows`: one for each, and one for each negative prompt."""

    @abstractmethod
    def predict(self, rows: Sequence[ModelRow]) -> list[torch.Tensor]:
        """The guided model output of each row, in one model call."""

    def encode_image(self, pixels: torch.Tensor, generator: torch.Generator | None = None) -> torch.Tensor:
        """1, 3, height, width in -1 to 1 -> the model's latents, in fp32.

        The autoencoder gives a distribution: a generator draws from it, and without one its middle is taken.
        """
        with self._coding:
            return self._autoencoder.encode(pixels.to(self._device), generator)

    def pixels_of(self, latents: Sequence[torch.Tensor]) -> int:
        """How many pixels the pictures have whose latents these are."""
        return sum(int(one.shape[-1] * one.shape[-2]) for one in latents) * self._factor**2

    def encode_start(self, pixels: torch.Tensor) -> torch.Tensor:
        """The same pixels -> what each row's latents are drawn from, by its own generator."""
        with self._coding:
            return self._autoencoder.encoded(pixels.to(self._device))

    def encode_control(self, network: Any, picture: torch.Tensor) -> torch.Tensor:
        """1, 3, height, width in 0 to 1 -> what a control model can be shown of it any number of times."""
        return picture.to(device=network.device, dtype=network.dtype)

    def draw_control(self, network: Any, encoded: torch.Tensor, _generator: torch.Generator) -> torch.Tensor:
        """What a row's control model is shown; random numbers are drawn before those of `prepare`."""
        return encoded

    def prepare(
        self, size: tuple[int, int], generator: torch.Generator, scheduler: Scheduler, source: Source | None = None
    ) -> Beginning:
        """The latents of a row's first model call: noise as strong as the scheduler wants, or over a picture's.

        The scheduler is then set to begin where the strength says. Random numbers are drawn in the order of diffusers'
        pipelines. Raises INVALID_FIELD for a size that the model cannot draw, and a strength that leaves no step.
        """
        if source is None and self.inpaints:
            raise invalid("mask", *NO_MASK)
        if source is None:
            return Beginning(self._noise(*size, generator) * samplers.noise_deviation(scheduler))
        first = first_call(scheduler, source.strength)
        if first >= samplers.laid_out(scheduler):  # the front knows this, too
            why = f"with a strength of {source.strength:g}, none of the steps is left"
            raise invalid("start.strength", why, "take more steps, or a greater strength")
        return self._prepare_from(source, size, generator, scheduler, first)

    def _prepare_from(
        self, source: Source, size: tuple[int, int], generator: torch.Generator, scheduler: Scheduler, first: int
    ) -> Beginning:
        if source.covered is not None:
            return self._prepare_inpainting(source, source.covered, size, generator, scheduler, first)
        start = self._autoencoder.drawn(source.encoded, generator)
        noise = self._noise(*size, generator)
        start = start.to(noise.dtype)
        latents = noised(scheduler, start, noise, first)
        if source.mask is None:
            return Beginning(latents, first)
        self._autoencoder.drawn(source.encoded, generator)  # as the pipelines encode here what the mask leaves
        if source.strength == 1 and not samplers.is_flow_matching(scheduler):
            latents = noise * samplers.noise_deviation(scheduler)
        return Beginning(latents, first, Kept(start, noise, source.mask.to(noise)))

    def _prepare_inpainting(  # noqa: PLR0917
        self,
        source: Source,
        covered: Covered,
        size: tuple[int, int],
        generator: torch.Generator,
        scheduler: Scheduler,
        first: int,
    ) -> Beginning:
        """Nothing is put back between steps: the model sees what is there."""
        is_noise = source.strength == 1 and not samplers.is_flow_matching(scheduler)
        start = None if is_noise else self._autoencoder.drawn(source.encoded, generator)
        noise = self._noise(*size, generator)
        latents = noised(scheduler, noise if start is None else start.to(noise.dtype), noise, first)
        if is_noise:
            latents = noise * samplers.noise_deviation(scheduler)
        seen = self._autoencoder.drawn(covered.encoded, generator)
        return Beginning(latents, first, beside=self._beside(source, covered, seen).to(noise))

    def _beside(self, source: Source, covered: Covered, seen: torch.Tensor) -> torch.Tensor:
        """What the model is given at each call; `seen`: the latents of the covered picture."""
        assert source.mask is not None
        return torch.cat([source.mask.to(seen), seen], dim=1)

    def _noise(self, width: int, height: int, generator: torch.Generator) -> torch.Tensor:
        if not self._sizes.allows(width, height):  # the front knows: this is for whoever speaks to a worker alone
            near = "x".join(map(str, self._sizes.nearest(width, height)))
            field = "height" if self._sizes.allows(width, self._sizes.nearest(width, height)[1]) else "width"
            raise invalid(field, f"the model cannot draw {width}x{height}", f"take {near}")
        shape = (1, self._autoencoder.channels, height // self._factor, width // self._factor)
        return noise.drawn(shape, generator, self._device, self._noise_dtype)

    @property
    def _noise_dtype(self) -> torch.dtype:
        """Of the latents, between steps."""
        dtype: torch.dtype = self._pipe.text_encoder.dtype
        return dtype

    def decode(self, latents: torch.Tensor) -> list[Pixels]:
        if self._wants_channels_last:  # not before, so that the first step comes sooner
            sharing.change(self._vae, self._laid_out)
            self._wants_channels_last = False
        portions = torch.split(latents, self._at_once or len(latents))
        with self._coding:
            return [pixels for portion in portions for pixels in self._decode(portion)]

    def _laid_out(self, vae: torch.nn.Module) -> None:
        decoder: Any = vae.decoder
        decoder.to(memory_format=self._autoencoder.memory_format)

    def _decode(self, latents: torch.Tensor) -> list[Pixels]:
        image = self._autoencoder.decode(latents)
        if not torch.isfinite(image).all():
            if len(latents) > 1:  # one row's failure must not take the others along
                return [pixels for row in torch.split(latents, 1) for pixels in self._decode(row)]
            image = autoencoders.decode_in_fp32(self._vae, latents)
        array = self._pipe.image_processor.postprocess(image, output_type="np")
        return list((array * 255).round().astype("uint8"))

    def sketch(self, latents: torch.Tensor) -> Pixels:
        """About what one row's latents (without noise) will be, small and cheap."""
        shrink = max(1, max(latents.shape[-2:]) // _SKETCH_SIDE)
        small = torch.nn.functional.avg_pool2d(latents.float(), shrink).to(latents.dtype)
        with torch.inference_mode():
            if isinstance(self._vae, AutoencoderTiny):
                return self.decode(small)[0]
            if self._sketch is None:
                self._sketch = LinearSketch.fit(self._autoencoder, like=latents.to(self._vae.dtype))
            return self._sketch.draw(self._autoencoder.own(latents))

    def tile(self) -> bool:
        """Decode piecewise from now on; False where that cannot be."""
        self._vae.enable_tiling()
        return True


def _on_device(device: torch.device, numbers: tuple[Any, ...], dtype: torch.dtype) -> torch.Tensor:
    return uploaded(torch.tensor(numbers, dtype=dtype), device)


class Runner(Protocol):
    """A loaded model, as the engine sees it. One thread at a time may call `advance`."""

    @property
    def pipe(self) -> Any:
        """The loaded pipeline, whose weights a trainer may share; None where it cannot."""
        ...

    @property
    def resident_bytes(self) -> int: ...

    @property
    def precision(self) -> str: ...

    @property
    def weights(self) -> str:
        """How the weights of what is called at each step are packed; "" where they are numbers to compute with."""
        ...

    @property
    def notice(self) -> str:
        """What a user should know, said when one of its jobs starts."""
        ...

    def remarks(self, job: Dispatch) -> Sequence[str]:
        """What of the job does nothing with this model, said when it starts."""
        ...

    @property
    def is_tiled(self) -> bool:
        """Whether it decodes piecewise, which changes pixels."""
        ...

    @property
    def is_reading(self) -> bool:
        """Whether LoRAs that jobs wait for are being read."""
        ...

    def want(self, jobs: Sequence[Dispatch]) -> Mapping[str, CraftError]:
        """Have the jobs' LoRAs ready, the first job's first; by job, why it can never be drawn."""
        ...

    def is_ready(self, job: Dispatch) -> bool:
        """Whether its LoRAs are there."""
        ...

    def begin(self, job: Dispatch, seed: int, networks: Mapping[str, Any], made: Before | None = None) -> Drawing:
        """`networks`: of the control models that the job names, by their names.

        `made`: what an earlier stage made, where the row begins from that.
        """
        ...

    def that_fit(self, drawings: Sequence[Drawing]) -> int:
        """How many of the first there is memory for in one call, as to their LoRAs; one at least."""
        ...

    def advance(self, drawings: Sequence[Drawing], *, with_preview: Sequence[bool]) -> list[Exception | None]:
        """One model call, then each drawing's own step; gives what went wrong with each.

        Raises where the shared call failed; then all of them are as they were.
        """
        ...

    def render(self, drawings: Sequence[Drawing]) -> Sequence[Pixels | HalfDone]:
        """What each has become: pixels, or latents where it ends before its schedule."""
        ...

    def offload(self) -> bool:
        """Keep more of its weights off the device while they are not used; False where that is no help."""
        ...

    def tile(self) -> bool: ...

    def close(self) -> None: ...
