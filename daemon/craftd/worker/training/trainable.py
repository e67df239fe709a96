"""A loaded model as a trainer has it: networks of its own over the model's tensors, with an adapter of peft's.

What is not trained (the autoencoder, mostly the text encoders) is the loaded model's own.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from typing import Any

import torch
from craft_protos.reasons import CraftError
from diffusers.models.autoencoders.autoencoder_tiny import AutoencoderTiny
from diffusers.training_utils import cast_training_params
from peft import LoraConfig, inject_adapter_in_model
from torch import nn

from craftd.worker import samplers
from craftd.worker.families.base import Conditioning, Family, ModelRow
from craftd.worker.loader import FAMILIES
from craftd.worker.movement import Movement
from craftd.worker.training.recipe import Recipe
from craftd.worker.training.twin import twin

_ADAPTER = "default"

# As diffusers' training scripts choose them.
_ATTENTION = ("to_q", "to_k", "to_v", "to_out.0")
# A UNet that takes its words through the timestep's embedding too, as pocket does, is hardly steered by attention.
_WHOLE = (
    *_ATTENTION,
    *("ff.net.0.proj", "ff.net.2", "proj_in", "proj_out", "add_embedding.proj"),
    *("conv1", "conv2", "conv_shortcut", "time_emb_proj"),
)
_JOINT = tuple(f"attn.{name}" for name in (*_ATTENTION, "add_q_proj", "add_k_proj", "add_v_proj", "to_add_out"))
_FLUX = (*_JOINT, "ff.net.0.proj", "ff.net.2", "ff_context.net.0.proj", "ff_context.net.2")
_TEXT = ("q_proj", "k_proj", "v_proj", "out_proj")
_FLUX_GUIDANCE = 1.0  # what a guidance-distilled model is told while it learns


@dataclass(frozen=True)
class Kind:
    """What one kind of pipeline has to train."""

    architecture: str
    denoiser: str
    targets: tuple[str, ...]
    text_encoders: tuple[str, ...]


KINDS: Mapping[str, Kind] = {
    "StableDiffusionPipeline": Kind("sd", "unet", _ATTENTION, ("text_encoder",)),
    "StableDiffusionXLPipeline": Kind("sdxl", "unet", _ATTENTION, ("text_encoder", "text_encoder_2")),
    "StableDiffusion3Pipeline": Kind("sd3", "transformer", _JOINT, ("text_encoder", "text_encoder_2")),
    "FluxPipeline": Kind("flux", "transformer", _FLUX, ("text_encoder",)),
}


@dataclass(frozen=True)
class Text:
    """What captions have become. Tensors are rows, ..."""

    features: torch.Tensor
    pooled: torch.Tensor | None = None

    def as_tensors(self) -> dict[str, torch.Tensor]:
        return {"features": self.features} | ({} if self.pooled is None else {"pooled": self.pooled})


def check(pipe: Any, model: str) -> Kind:
    """What it has to train. Raises UNTRAINABLE_MODEL."""
    kind = KINDS.get(type(pipe).__name__)
    if kind is None:
        name = type(pipe).__name__
        raise _untrainable(
            model, f"is a {name}", "LoRAs can be trained for Stable Diffusion 1, 2, XL and 3, and FLUX.1"
        )
    network = getattr(pipe, kind.denoiser)
    if _is_step_distilled(pipe, network):
        raise _untrainable(
            model, "was distilled to draw in few steps", "train for the model it was made from; the LoRA fits this one"
        )
    if hasattr(network, "_hf_hook"):
        raise CraftError(
            "OUT_OF_MEMORY",
            f"model {model} is too big to stay on the device, so it cannot be trained there",
            "train for a smaller model, or on a device with more memory",
        )
    return replace(kind, targets=_WHOLE) if network.config.get("addition_embed_type") == "text" else kind


class Trainable:
    """`parameters` are the adapter's, fp32, by component and layer."""

    def __init__(self, pipe: Any, kind: Kind, recipe: Recipe, device: torch.device, movement: Movement) -> None:
        self.kind = kind
        self._device = device
        self._dtype = getattr(pipe, kind.denoiser).dtype
        trained = [kind.denoiser, *(kind.text_encoders if recipe.train_text_encoder else ())]
        self.modules: dict[str, nn.Module] = {name: twin(getattr(pipe, name)) for name in trained}
        self.pipe = over(pipe, self.modules)
        self.family = family_of(self.pipe, device)
        self._inject(recipe)
        for module in self.modules.values():
            movement.watch_backward(module)
        self.parameters = dict(self._named())

    @property
    def text_is_trained(self) -> bool:
        return len(self.modules) > 1

    def computing(self) -> AbstractContextManager[Any]:
        """While it holds, the adapter's fp32 and the model's half precision go together."""
        return computing(self._device, self._dtype)

    def encode_texts(self, captions: Sequence[str]) -> Text:
        return encode_texts(self.pipe, self.kind, captions, self._device)

    def predict(self, samples: torch.Tensor, timesteps: torch.Tensor, text: Text) -> torch.Tensor:
        """The model's output for noised latents, one row each."""
        rows = [
            ModelRow(sample, timestep, conditioning)
            for sample, timestep, conditioning in zip(
                torch.split(samples.to(self._dtype), 1), timesteps, self._conditionings(text), strict=True
            )
        ]
        return torch.cat(self.family.predict(rows))

    def _conditionings(self, text: Text) -> Iterator[Conditioning]:
        pooled = [None] * len(text.features) if text.pooled is None else torch.split(text.pooled.to(self._dtype), 1)
        for features, whole in zip(torch.split(text.features.to(self._dtype), 1), pooled, strict=True):
            yield Conditioning(features, None, _FLUX_GUIDANCE, whole)

    def _inject(self, recipe: Recipe) -> None:
        """Peft draws the first weights from torch's own generator, so that is seeded, and put back."""
        devices = [self._device] if self._device.type == "cuda" else []
        with torch.random.fork_rng(devices=devices):
            torch.manual_seed(recipe.seed)
            for name, module in self.modules.items():
                targets = self.kind.targets if name == self.kind.denoiser else _TEXT
                inject_adapter_in_model(_configuration(recipe, targets), module, _ADAPTER)
                cast_training_params(module, dtype=torch.float32)
                module.train()
                if recipe.gradient_checkpointing:
                    _checkpoint_gradients(module)

    def _named(self) -> Iterator[tuple[str, nn.Parameter]]:
        for component, module in self.modules.items():
            for name, parameter in module.named_parameters():
                if parameter.requires_grad:
                    yield f"{component}.{name.replace(f'.{_ADAPTER}', '')}", parameter


def over(pipe: Any, modules: Mapping[str, nn.Module]) -> Any:
    """The same pipeline with other networks in it."""
    other = copy.copy(pipe)
    other.__dict__.update(modules)
    return other


def family_of(pipe: Any, device: torch.device) -> Family:
    """A family over a pipeline, with nothing kept yet."""
    return FAMILIES[type(pipe).__name__](pipe, device)


def computing(device: torch.device, dtype: torch.dtype) -> AbstractContextManager[Any]:
    if dtype == torch.float32:
        return nullcontext()
    return torch.autocast(device.type, torch.bfloat16)


def encode_texts(pipe: Any, kind: Kind, captions: Sequence[str], device: torch.device) -> Text:
    """Captions as diffusers encodes prompts: plain words, as many tokens as the encoder takes."""
    texts = list(captions)
    match kind.architecture:
        case "sd":
            return Text(pipe.encode_prompt(texts, device, 1, False)[0])
        case "sdxl":
            features, _, pooled, _ = pipe.encode_prompt(texts, device=device, do_classifier_free_guidance=False)
            return _without_empty(texts, Text(features, pooled), pipe)
        case "sd3":
            features, _, pooled, _ = pipe.encode_prompt(
                texts, None, None, device=device, do_classifier_free_guidance=False
            )
            return Text(features, pooled)
        case _:
            features, pooled, _ = pipe.encode_prompt(texts, device=device)
            return Text(features, pooled)


def encode_pixels(pipe: Any, pixels: torch.Tensor, device: torch.device) -> torch.Tensor:
    """1, 3, height, width in -1 to 1 -> the model's latents, in fp32: the middle of what the autoencoder gives."""
    vae = pipe.vae
    given = vae.encode(pixels.to(device=device, dtype=vae.dtype))
    latents = given.latents if isinstance(vae, AutoencoderTiny) else given.latent_dist.mode()
    return _scaled(latents.float(), vae.config)


def _scaled(latents: torch.Tensor, config: Any) -> torch.Tensor:
    """The autoencoder's latents -> the model's: what the families' decoding undoes."""
    mean, deviation = config.get("latents_mean"), config.get("latents_std")
    if mean is not None and deviation is not None:
        return (latents - _by_channel(mean, latents)) / _by_channel(deviation, latents) * float(config.scaling_factor)
    return (latents - float(config.get("shift_factor") or 0.0)) * float(config.scaling_factor)


def _by_channel(values: Any, like: torch.Tensor) -> torch.Tensor:
    return torch.tensor(values, device=like.device, dtype=like.dtype).view(1, -1, 1, 1)


def _without_empty(texts: Sequence[str], text: Text, pipe: Any) -> Text:
    """SDXL's models may mean noughts by an empty prompt."""
    if not pipe.config.force_zeros_for_empty_prompt or all(texts):
        return text
    assert text.pooled is not None
    said = torch.tensor([float(bool(words)) for words in texts], device=text.features.device)
    return Text(text.features * said[:, None, None], text.pooled * said[:, None])


def _configuration(recipe: Recipe, targets: Sequence[str]) -> LoraConfig:
    alpha: Any = recipe.alpha  # peft divides it, though it says int
    return LoraConfig(
        r=recipe.rank,
        lora_alpha=alpha,
        target_modules=list(targets),
        init_lora_weights="gaussian",
        use_dora=recipe.dora,
    )


def _checkpoint_gradients(module: Any) -> None:
    """diffusers' networks and transformers' call it by different names."""
    enable = getattr(module, "enable_gradient_checkpointing", None) or module.activation_checkpointing_enable
    enable()


def _is_step_distilled(pipe: Any, network: Any) -> bool:
    """Latent consistency models and such; FLUX.1-schnell is the FLUX that has neither guidance nor a shift by size."""
    if type(pipe.scheduler).__name__ in ("LCMScheduler", "TCDScheduler"):
        return True
    if network.config.get("time_cond_proj_dim") is not None:
        return True
    has_guidance = network.config.get("guidance_embeds", True)
    return not has_guidance and samplers.is_flow_matching(pipe.scheduler) and not _shifts_by_size(pipe)


def _shifts_by_size(pipe: Any) -> bool:
    return bool(pipe.scheduler.config.get("use_dynamic_shifting"))


def _untrainable(model: str, why: str, hint: str) -> CraftError:
    return CraftError("UNTRAINABLE_MODEL", f"model {model} {why}", hint)
