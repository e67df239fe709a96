"""A finished LoHa's or LoKr's tensors by LyCORIS' names, as kohya's scripts and ComfyUI read them.

A LoKr's strength is in its numbers: where both of its factors are whole, programs read no alpha.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from typing import Any

import torch

from craftd.worker.training import lora_file
from craftd.worker.training.lora_file import Tensors

_FIRST_FACTOR = ("lokr_w1", "lokr_w1_b")
_RANKED = ("hada_w1_b", "lokr_w2_b", "lokr_w1_b")


def tensors(weights: Mapping[str, torch.Tensor], ratio: float, pipe: Any) -> Tensors:
    """`ratio`: alpha / rank."""
    layers: dict[tuple[str, str], Tensors] = defaultdict(dict)
    for name, tensor in weights.items():
        path, _, part = name.rpartition(".")
        component, _, layer = path.partition(".")
        layers[component, layer][part] = tensor.detach().float().cpu().clone()
    made: Tensors = {}
    for (component, layer), parts in layers.items():
        path = lora_file.flat_name(component, layer, pipe)
        rank = next((parts[part].shape[0] for part in _RANKED if part in parts), 1)
        is_kronecker = any(part in parts for part in _FIRST_FACTOR)
        for part, tensor in parts.items():
            made[f"{path}.{part}"] = tensor * ratio if part in _FIRST_FACTOR else tensor
        made[f"{path}.alpha"] = torch.tensor(float(rank if is_kronecker else rank * ratio))
    return made
