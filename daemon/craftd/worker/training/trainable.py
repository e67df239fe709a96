"""A loaded model as a trainer has it: networks of its own over the model's tensors, with an adapter of peft's.

What is not trained (the autoencoder, mostly the text encoders) is the loaded model's own.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import torch
from craft_protos.generate import TextSpec
from craft_protos.reasons import CraftError
from craft_protos.train import TrainSpec
from diffusers.training_utils import cast_training_params
from peft import inject_adapter_in_model
from torch import nn

from craftd.architectures import detect, registry
from craftd.architectures.architecture import Architecture, Training
from craftd.architectures.rows import flows, unets
from craftd.worker.engine.progress_hooks import ProgressHooks
from craftd.worker.families import FAMILIES
from craftd.worker.families.base import Conditioning, Family, ModelRow
from craftd.worker.quantized.layers import form_of
from craftd.worker.training import network as networks
from craftd.worker.training.beginning import Beginning

Module = TypeVar("Module", bound=nn.Module)

_ADAPTER = "default"

_TEXT = ("q_proj", "k_proj", "v_proj", "out_proj")
_FLUX_GUIDANCE = 1.0  # what a guidance-distilled model is told while it learns


@dataclass(frozen=True)
class Text:
    """What captions have become, each row's features by itself: 1, tokens, features. `pooled`: rows, features."""

    features: Sequence[torch.Tensor]
    pooled: torch.Tensor | None = None

    @classmethod
    def of(cls, features: torch.Tensor, pooled: torch.Tensor | None = None) -> Text:
        """Rows of one length: rows, tokens, features."""
        return cls(torch.split(features, 1), pooled)

    @classmethod
    def joined(cls, rows: Sequence[Mapping[str, torch.Tensor]]) -> Text:
        """Of what was kept of each caption."""
        pooled = torch.cat([row["pooled"] for row in rows]) if "pooled" in rows[0] else None
        return cls([row["features"] for row in rows], pooled)

    def as_tensors(self) -> dict[str, torch.Tensor]:
        """To keep of a single caption."""
        (features,) = self.features
        return {"features": features} | ({} if self.pooled is None else {"pooled": self.pooled})

    def to(self, place: torch.device | torch.dtype) -> Text:
        pooled = None if self.pooled is None else self.pooled.to(place)
        return Text([features.to(place) for features in self.features], pooled)


def architecture_of(pipe: Any) -> Architecture:
    unet = getattr(pipe, "unet", None)
    return detect.of_pipeline(type(pipe).__name__, unet and unet.config.cross_attention_dim)


def network_of(pipe: Any) -> str:
    """The component that is called at each step."""
    return "unet" if getattr(pipe, "unet", None) is not None else "transformer"


def check(pipe: Any, model: str) -> Training:
    """How it is trained. Raises UNTRAINABLE_MODEL."""
    training = architecture_of(pipe).training
    if training is None:
        names = ", ".join(row.name for row in registry.ROWS if row.training)
        raise _untrainable(model, f"is a {type(pipe).__name__}", f"LoRAs can be trained for {names}")
    network = getattr(pipe, network_of(pipe))
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
    is_like_pocket = network.config.get("addition_embed_type") == "text"
    if is_like_pocket and (form := form_of(network)):
        hint = "train for the same model in bf16 or fp16, or: craft models edit NAME --precision auto"
        raise _untrainable(model, f"has its convolutions packed ({form}), which are trained", hint)
    return replace(training, targets=unets.WHOLE) if is_like_pocket else training


class Trainable:
    """`parameters` are the adapter's, fp32, by component and layer."""

    def __init__(  # noqa: PLR0917
        self,
        pipe: Any,
        training: Training,
        recipe: TrainSpec,
        device: torch.device,
        hooks: ProgressHooks,
        beginning: Beginning | None = None,
    ) -> None:
        self.network = network = network_of(pipe)
        self._device = device
        self._dtype = getattr(pipe, network).dtype
        trained = [network, *(training.text_encoders if recipe.train_text_encoder else ())]
        targets = {name: training.targets if name == network else _TEXT for name in trained}
        self.modules: dict[str, nn.Module] = {name: share_weights(getattr(pipe, name)) for name in trained}
        self.pipe = over(pipe, self.modules)
        self.family = family_of(self.pipe, device)
        networks.check(recipe, self.modules[network])
        ranks = {network: networks.ranks_of(recipe, training.targets, self.modules[network])}
        if beginning is not None:
            ranks = {name: beginning.ranks(name) for name in trained}
        self._inject(recipe, targets, ranks)
        for module in self.modules.values():
            hooks.watch_backward(module)
        self.parameters = dict(self._named())
        if beginning is not None:
            beginning.put(recipe, self.parameters)

    @property
    def text_is_trained(self) -> bool:
        return len(self.modules) > 1

    def computing(self, *_rows: Any) -> AbstractContextManager[Any]:
        return computing(self._device, self._dtype)

    def encode_texts(self, captions: Sequence[str]) -> Text:
        return encode_texts(self.pipe, captions, self._device)

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
        given = text.to(self._dtype)
        pooled = [None] * len(given.features) if given.pooled is None else torch.split(given.pooled, 1)
        for features, whole in zip(given.features, pooled, strict=True):
            yield Conditioning(features, None, TextSpec("", guidance_scale=_FLUX_GUIDANCE), whole)

    def _inject(
        self, recipe: TrainSpec, targets: Mapping[str, Sequence[str]], ranks: Mapping[str, networks.Ranks | None]
    ) -> None:
        """Peft draws the first weights from torch's own generator, so that is seeded, and put back."""
        devices = [self._device] if self._device.type == "cuda" else []
        with torch.random.fork_rng(devices=devices):
            torch.manual_seed(recipe.seed)
            for name, module in self.modules.items():
                own = ranks.get(name)
                if own is None or own:
                    made = networks.configuration(recipe, targets[name], own)
                    inject_adapter_in_model(made, module, _ADAPTER)
                cast_training_params(module, dtype=torch.float32)
                module.train()
                if recipe.gradient_checkpointing:
                    _checkpoint_gradients(module)

    def _named(self) -> Iterator[tuple[str, nn.Parameter]]:
        for component, module in self.modules.items():
            for name, parameter in module.named_parameters():
                if parameter.requires_grad:
                    yield f"{component}.{name.replace(f'.{_ADAPTER}', '')}", parameter


def share_weights(module: Module) -> Module:
    """The same layers over the same weights, none of which asks for a gradient.

    A tensor that was made under inference mode would break backward, so it is copied.
    """
    memo: dict[int, Any] = {}
    for parameter in module.parameters():
        memo[id(parameter)] = nn.Parameter(_usable(parameter.detach()), requires_grad=False)
    for buffer in module.buffers():
        memo[id(buffer)] = _usable(buffer)
    for part in module.modules():
        for hook in part._forward_hooks.values():
            owner = getattr(hook, "__self__", None)
            memo[id(owner)] = owner
    return copy.deepcopy(module, memo)


def _usable(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.clone() if tensor.is_inference() else tensor


def over(pipe: Any, modules: Mapping[str, nn.Module]) -> Any:
    """The same pipeline with other networks in it."""
    other = copy.copy(pipe)
    other.__dict__.update(modules)
    return other


def family_of(pipe: Any, device: torch.device) -> Family:
    """A family over a pipeline, with nothing kept yet."""
    return FAMILIES[architecture_of(pipe).family](pipe, device)


def computing(device: torch.device, dtype: torch.dtype, *_rows: Any) -> AbstractContextManager[Any]:
    """While it holds, an adapter's fp32 and a model of that precision go together."""
    return nullcontext() if dtype == torch.float32 else torch.autocast(device.type, torch.bfloat16)


def encode_texts(pipe: Any, captions: Sequence[str], device: torch.device) -> Text:
    """Captions as diffusers encodes prompts: plain words, as many tokens as the encoder takes."""
    texts = list(captions)
    match architecture_of(pipe).family:
        case unets.SD1.family:
            return Text.of(pipe.encode_prompt(texts, device, 1, False)[0])
        case unets.SDXL.family:
            features, _, pooled, _ = pipe.encode_prompt(texts, device=device, do_classifier_free_guidance=False)
            return _without_empty(texts, Text.of(features, pooled), pipe)
        case flows.SD3.family:
            features, _, pooled, _ = pipe.encode_prompt(
                texts, None, None, device=device, do_classifier_free_guidance=False
            )
            return Text.of(features, pooled)
        case flows.FLUX.family:
            features, pooled, _ = pipe.encode_prompt(texts, device=device)
            return Text.of(features, pooled)
        case _:
            family = family_of(pipe, device)
            made = [family.encode(TextSpec(text, guidance_scale=0.0)) for text in texts]
            beside = [one.pooled for one in made if one.pooled is not None]  # Chroma: which tokens are words
            return Text([one.positive for one in made], torch.cat(beside) if beside else None)


def _without_empty(texts: Sequence[str], text: Text, pipe: Any) -> Text:
    """SDXL's models may mean noughts by an empty prompt."""
    if not pipe.config.force_zeros_for_empty_prompt or all(texts):
        return text
    assert text.pooled is not None
    said = torch.tensor([float(bool(words)) for words in texts], device=text.pooled.device)
    features = [one * weight for one, weight in zip(text.features, said, strict=True)]
    return Text(features, text.pooled * said[:, None])


def _checkpoint_gradients(module: Any) -> None:
    """diffusers' networks and transformers' call it by different names."""
    enable = getattr(module, "enable_gradient_checkpointing", None) or module.activation_checkpointing_enable
    enable()


def _is_step_distilled(pipe: Any, network: Any) -> bool:
    """Latent consistency models and such, and those that their architecture's row tells by a configuration."""
    if type(pipe.scheduler).__name__ in ("LCMScheduler", "TCDScheduler"):
        return True
    if network.config.get("time_cond_proj_dim") is not None:
        return True
    row = architecture_of(pipe)
    if row.distilled is None or not row.distilled.tells(_configuration_of(pipe, row.distilled.part)):
        return False
    # Of a FLUX.1 that takes no guidance only schnell was distilled: its shift does not follow from the size.
    return row.id != flows.FLUX.id or not _shifts_by_size(pipe)


def _configuration_of(pipe: Any, part: str) -> Mapping[str, object]:
    configuration: Mapping[str, object] = getattr(pipe, part).config if part else pipe.config
    return configuration


def _shifts_by_size(pipe: Any) -> bool:
    return bool(pipe.scheduler.config.get("use_dynamic_shifting"))


def _untrainable(model: str, why: str, hint: str) -> CraftError:
    return CraftError("UNTRAINABLE_MODEL", f"model {model} {why}", hint)
