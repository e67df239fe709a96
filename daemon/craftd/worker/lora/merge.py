"""Merged LoRAs, for those that do not fit into slots: weights that contain them replace the model's for a call.

The model's own weights are never written to: a merged set lies beside them, and taking it out puts the very
same tensors back.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from craft_protos.lora_strength import Strength

from craftd.worker.lora import blocks
from craftd.worker.lora.adapter import Adapter, Delta
from craftd.worker.lora.layer import Weight
from craftd.worker.lora.targets import Targets

_LEAST_NORM = 1e-12  # an output without any weight stays so
Weights = Mapping[str, Mapping[str, Weight]]  # component -> layer -> what reads its weight


@dataclass(frozen=True)
class Merged:
    """The weights of the layers that a set of LoRAs changes, by component and layer."""

    weights: Mapping[str, Mapping[str, torch.Tensor]]
    biases: Mapping[str, Mapping[str, torch.Tensor]] = field(default_factory=dict)  # what is added to the layer's

    @property
    def size_bytes(self) -> int:
        parts = (*self.weights.values(), *self.biases.values())
        return sum(int(tensor.nbytes) for layers in parts for tensor in layers.values())


def own_weights(targets: Targets) -> Weights:
    """The model's weights as they are now: taken where nothing is applied, they may be read in any thread."""
    return {
        component: {path: layer.weight() for path, layer in layers.items()}
        for component, layers in targets.layers.items()
    }


def merge(adapters: Sequence[tuple[Adapter, Strength]], own: Weights) -> Merged:
    """The set's weights, one LoRA after another; computed in fp32 and rounded once."""
    merged: dict[str, dict[str, torch.Tensor]] = {}
    with torch.no_grad():
        for component, weights in own.items():
            changes = _by_layer(component, adapters)
            merged[component] = {path: _merged(weights[path](), some) for path, some in changes.items()}
        biases = {component: _biases(component, adapters) for component in own}
    return Merged(_held(merged), _held(biases))


@contextmanager
def applied(merged: Merged, targets: Targets, components: Iterable[str]) -> Iterator[None]:
    """While it holds, the components compute with the merged weights."""
    undo: list[Callable[[], None]] = []
    try:
        for component in components:
            for path, weight in merged.weights.get(component, {}).items():
                undo.append(targets.layers[component][path].replace(weight))
            for path, bias in merged.biases.get(component, {}).items():
                undo.append(targets.layers[component][path].add_to_bias(bias))
        yield
    finally:
        for put_back in reversed(undo):
            put_back()


def _by_layer(component: str, adapters: Sequence[tuple[Adapter, Strength]]) -> dict[str, list[tuple[Delta, float]]]:
    """What changes each layer of a component, and how strongly."""
    found = defaultdict[str, list[tuple[Delta, float]]](list)
    for adapter, strength in adapters:
        for path, delta in adapter.deltas.get(component, {}).items():
            found[path].append((delta, strength.at(delta.block, is_text=blocks.is_text(component))))
    return found


def _biases(component: str, adapters: Sequence[tuple[Adapter, Strength]]) -> dict[str, torch.Tensor]:
    added: dict[str, torch.Tensor] = {}
    for path, changes in _by_layer(component, adapters).items():
        for delta, weight in changes:
            if delta.bias is not None:
                more = weight * delta.bias.float()
                added[path] = added[path] + more if path in added else more
    return added


def _held(found: Mapping[str, Mapping[str, torch.Tensor]]) -> Mapping[str, Mapping[str, torch.Tensor]]:
    return {component: layers for component, layers in found.items() if layers}


def _merged(own: torch.Tensor, deltas: Sequence[tuple[Delta, float]]) -> torch.Tensor:
    pristine = own.float()
    weight = pristine
    for delta, strength in deltas:
        weight = weight + _change(pristine, delta, strength)
    return weight.to(own.dtype)


def _change(pristine: torch.Tensor, delta: Delta, strength: float) -> torch.Tensor:
    """What one LoRA adds to the weight, whatever others add."""
    device = pristine.device
    if delta.of_weight is not None:
        return delta.of_weight.change(pristine, strength)
    change = delta.scale * delta.product(device).view(pristine.shape)
    if delta.magnitude is None:
        return strength * change
    if not strength:
        return torch.zeros_like(pristine)
    magnitude = delta.magnitude.to(device).float()
    if delta.is_lycoris:  # the whole change, its rescaling by degrees
        changed = pristine + change
        return changed * (1 + strength * (_rescaling(changed, magnitude) - 1)) - pristine
    changed = pristine + strength * change  # peft: rescaled wholly, after a change by degrees
    return changed * _rescaling(changed, magnitude) - pristine


def _rescaling(changed: torch.Tensor, magnitude: torch.Tensor) -> torch.Tensor:
    """The factor that gives each output (or input) its own magnitude: Liu et al. 2024, equation 5."""
    axis = 0 if magnitude.shape[1] == 1 else 1
    others = [dim for dim in range(changed.ndim) if dim != axis]
    norm: torch.Tensor = torch.linalg.vector_norm(changed, dim=others)
    return (magnitude.reshape(-1) / norm.clamp_min(_LEAST_NORM)).view(
        [-1 if dim == axis else 1 for dim in range(changed.ndim)]
    )
