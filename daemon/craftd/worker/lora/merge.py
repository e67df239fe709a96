"""The way for what slots do not hold: weights with the LoRAs in them, put in place for a call and taken out again.

The model's own weights are never written to: a merged set lies beside them, and taking it out puts the very
same tensors back.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch

from craftd.worker.lora.adapter import Adapter, Delta, Layer
from craftd.worker.lora.targets import Targets

Weights = Mapping[str, Mapping[str, torch.Tensor]]  # component -> layer -> weight


@dataclass(frozen=True)
class Merged:
    """The weights of the layers that a set of LoRAs changes, by component and layer."""

    weights: Weights

    @property
    def size_bytes(self) -> int:
        return sum(int(weight.nbytes) for layers in self.weights.values() for weight in layers.values())


def own_weights(targets: Targets) -> Weights:
    """The model's weights as they are now: taken where nothing is applied, they may be read in any thread."""
    return {
        component: {path: layer.weight.data for path, layer in layers.items()}
        for component, layers in targets.layers.items()
    }


def merge(adapters: Sequence[tuple[Adapter, float]], own: Weights) -> Merged:
    """The set's weights, one LoRA after another; computed in fp32 and rounded once."""
    merged: dict[str, dict[str, torch.Tensor]] = {}
    with torch.no_grad():
        for component, weights in own.items():
            changes = [(adapter.deltas.get(component, {}), strength) for adapter, strength in adapters]
            paths = {path for deltas, _ in changes for path in deltas}
            merged[component] = {
                path: _merged(weights[path], [(deltas[path], w) for deltas, w in changes if path in deltas])
                for path in paths
            }
    return Merged({component: layers for component, layers in merged.items() if layers})


@contextmanager
def applied(merged: Merged, targets: Targets, components: Sequence[str]) -> Iterator[None]:
    """While it holds, the components compute with the merged weights."""
    own: list[tuple[Layer, torch.Tensor]] = []
    try:
        for component in components:
            for path, weight in merged.weights.get(component, {}).items():
                layer = targets.layers[component][path]
                own.append((layer, layer.weight.data))
                layer.weight.data = weight.to(layer.weight.device)
        yield
    finally:
        for layer, weight in reversed(own):
            layer.weight.data = weight


def _merged(own: torch.Tensor, deltas: Sequence[tuple[Delta, float]]) -> torch.Tensor:
    pristine = own.float()
    weight = pristine
    for delta, strength in deltas:
        product = delta.up.to(own.device).float() @ delta.down.to(own.device).float().flatten(1)
        change = strength * delta.scale * product.view(own.shape)
        weight = weight + change
        if delta.magnitude is not None:
            weight = weight * _renormed(pristine + change, delta.magnitude.to(own.device).float())
    return weight.to(own.dtype)


def _renormed(changed: torch.Tensor, magnitude: torch.Tensor) -> torch.Tensor:
    """What brings each output (or input) to its own magnitude: Liu et al. 2024, equation 5."""
    axis = 0 if magnitude.shape[1] == 1 else 1
    others = [dim for dim in range(changed.ndim) if dim != axis]
    norm: torch.Tensor = torch.linalg.vector_norm(changed, dim=others)
    return (magnitude.reshape(-1) / norm).view([-1 if dim == axis else 1 for dim in range(changed.ndim)])
