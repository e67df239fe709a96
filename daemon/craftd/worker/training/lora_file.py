"""The finished LoRA's tensors, in the layouts that others load: diffusers' and peft's, or kohya's.

The strength is in the numbers of the first (B times alpha / rank), because programs that read that layout look for
alpha in different places; the second has a tensor for it. For SDXL, SD3, FLUX and Krea 2 kohya uses the original
program's layers, of which one may be several of diffusers': their changes stand side by side in it, block by block.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from craftd.architectures import detect
from craftd.architectures.rows.unets import SDXL
from craftd.worker.lora import originals
from craftd.worker.lora.layer import Layer
from craftd.worker.lora.originals import Part
from craftd.worker.lora.targets import component_of, own_layers

Tensors = dict[str, torch.Tensor]
_ROLES = {"lora_A.weight": "down", "lora_B.weight": "up", "lora_magnitude_vector.weight": "magnitude"}


@dataclass(frozen=True)
class Change:
    """Of one layer: weight + alpha / rank * up @ down, with a magnitude where it is DoRA."""

    down: torch.Tensor
    up: torch.Tensor
    alpha: float
    magnitude: torch.Tensor | None = None

    @property
    def rank(self) -> int:
        return int(self.down.shape[0])


Changes = Mapping[str, Mapping[str, Change]]  # component -> layer


def changes(weights: Mapping[str, torch.Tensor], ratio: float) -> Changes:
    """The adapter's parameters as they are now, sorted by component and layer. `ratio`: alpha / rank."""
    parts: dict[tuple[str, str], Tensors] = defaultdict(dict)
    for name, tensor in weights.items():
        ending = next(ending for ending in _ROLES if name.endswith(f".{ending}"))
        component, _, layer = name.removesuffix(f".{ending}").partition(".")
        parts[component, layer][_ROLES[ending]] = tensor.detach().float().cpu().clone()
    found: dict[str, dict[str, Change]] = defaultdict(dict)
    for (component, layer), tensors in parts.items():
        alpha = ratio * len(tensors["down"])
        found[component][layer] = Change(tensors["down"], tensors["up"], alpha, tensors.get("magnitude"))
    return found


def peft(found: Changes) -> Tensors:
    tensors: Tensors = {}
    for component, layers in found.items():
        for layer, change in layers.items():
            name = f"{component}.{_text_name(component, layer)}"
            tensors[f"{name}.lora_A.weight"] = change.down
            tensors[f"{name}.lora_B.weight"] = change.up * (change.alpha / change.rank)
            if change.magnitude is not None:
                tensors[f"{name}.lora_magnitude_vector"] = change.magnitude
    return tensors


def kohya(found: Changes, pipe: Any) -> Tensors:
    tensors: Tensors = {}
    for component, layers in found.items():
        prefix = _prefix(component, pipe)
        for name, change in _kohya_layers(component, layers, pipe):
            path = f"{prefix}_{name.replace('.', '_')}"
            tensors[f"{path}.lora_down.weight"] = change.down
            tensors[f"{path}.lora_up.weight"] = change.up
            tensors[f"{path}.alpha"] = torch.tensor(change.alpha)
            if change.magnitude is not None:
                tensors[f"{path}.dora_scale"] = change.magnitude.reshape(-1, *[1] * (change.down.ndim - 1))
    return tensors


def flat_name(component: str, layer: str, pipe: Any) -> str:
    """A layer's in kohya's files, of those that are one there too; of transformers as LyCORIS has diffusers' names."""
    if component == "transformer":
        return f"lycoris_{layer.replace('.', '_')}"
    name = _sdxl_names(pipe).get(layer, layer) if component == "unet" else _text_name(component, layer)
    return f"{_prefix(component, pipe)}_{name.replace('.', '_')}"


def _kohya_layers(component: str, layers: Mapping[str, Change], pipe: Any) -> Iterator[tuple[str, Change]]:
    if component != "transformer":
        known = _sdxl_names(pipe) if component == "unet" else {}
        for layer, change in layers.items():
            yield known.get(layer, _text_name(component, layer)), change
        return
    network = getattr(pipe, component)
    own, named = own_layers(network), originals.in_kohya_files(component_of(network))
    for original, parts in named.items():
        if any(part.layer in layers for part in parts):
            yield original, _joined(parts, layers, own)
    renamed = {part.layer for parts in named.values() for part in parts}
    yield from ((layer, change) for layer, change in layers.items() if layer not in renamed)


def _sdxl_names(pipe: Any) -> dict[str, str]:
    """Of its UNet's layers in the original; SD 1's and 2's have diffusers' names in kohya's layout too."""
    if detect.of_pipeline(type(pipe).__name__, None).id != SDXL.id:
        return {}
    named = originals.names(component_of(pipe.unet))
    return {part.layer: original for original, parts in named.items() for part in parts}


def _joined(parts: Sequence[Part], layers: Mapping[str, Change], own: Mapping[str, Layer]) -> Change:
    """Several layers' changes as one; a part that has none stays as it is."""
    trained = [(part, layers[part.layer]) for part in parts if part.layer in layers]
    if len(parts) == 1:
        return trained[0][1]
    outputs = sum(own[part.layer].outputs for part in parts)
    ranks = sum(change.rank for _, change in trained)
    up = torch.zeros(outputs, ranks)
    place = 0
    for part, change in trained:
        up[part.outputs, place : place + change.rank] = change.up
        place += change.rank
    down = torch.cat([change.down for _, change in trained])
    alpha = trained[0][1].alpha * ranks / trained[0][1].rank
    return Change(down, up, alpha, _joined_magnitude(parts, layers, own))


def _joined_magnitude(
    parts: Sequence[Part], layers: Mapping[str, Change], own: Mapping[str, Layer]
) -> torch.Tensor | None:
    """A part that is not trained keeps the norms that its weights have."""
    if all(layers[part.layer].magnitude is None for part in parts if part.layer in layers):
        return None
    magnitudes = []
    for part in parts:
        magnitude = layers[part.layer].magnitude if part.layer in layers else None
        norms = own[part.layer].weight()().float().cpu().flatten(1).norm(dim=1)
        magnitudes.append(norms if magnitude is None else magnitude.reshape(-1))
    return torch.cat(magnitudes)


def _prefix(component: str, pipe: Any) -> str:
    if component in ("unet", "transformer"):
        return "lora_unet"
    if component == "text_encoder":
        return "lora_te1" if getattr(pipe, "text_encoder_2", None) is not None else "lora_te"
    return "lora_te2"


def _text_name(component: str, layer: str) -> str:
    """CLIP's layers as most programs know them."""
    if not component.startswith("text_encoder") or layer.startswith(("text_model.", "text_projection")):
        return layer
    return f"text_model.{layer}"
