"""A LoRA that a training begins with: read as it is drawn with, and put into the network that learns."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from craft_protos.dispatch import File
from craft_protos.reasons import CraftError
from craft_protos.train import TrainSpec

from craftd.worker.lora import fit, match
from craftd.worker.lora.adapter import Delta
from craftd.worker.lora.targets import Targets

_TRAIN_ANEW = "only a plain LoRA that fits in full can be begun with: train anew"


@dataclass(frozen=True)
class Beginning:
    """Changes by component and layer."""

    name: str
    changes: Mapping[str, Mapping[str, Delta]]

    def ranks(self, component: str) -> dict[str, int]:
        return {layer: change.rank for layer, change in self.changes.get(component, {}).items()}

    def put(self, recipe: TrainSpec, parameters: Mapping[str, torch.nn.Parameter]) -> None:
        """As strong as the LoRA is at weight 1, whatever the recipe's alpha."""
        ratio = recipe.alpha / recipe.rank
        with torch.no_grad():
            for component, layers in self.changes.items():
                for layer, change in layers.items():
                    down = parameters[f"{component}.{layer}.lora_A.weight"]
                    up = parameters[f"{component}.{layer}.lora_B.weight"]
                    down.copy_(change.down.view(down.shape))
                    up.copy_((change.up.float() * (change.scale / ratio)).view(up.shape))


def read(path: Path, lora: File, pipe: Any, recipe: TrainSpec, model: str) -> Beginning:
    """Raises LORA_MISMATCH, UNSUPPORTED_LORA, CORRUPT_FILE, NOT_FINITE."""
    found = match.read(path, Targets(pipe), name=lora.name, sha256=lora.sha256, size_bytes=lora.size_bytes)
    facts, changes = found.facts, {name: layers for name, layers in found.deltas.items() if layers}
    if facts.unmatched:
        raise fit.mismatch(lora.name, model, facts.matched, facts.total, facts.unmatched)
    if any(not one.is_low_rank for layers in changes.values() for one in layers.values()):
        raise CraftError("UNSUPPORTED_LORA", f"LoRA {lora.name} is not of down and up projections alone", _TRAIN_ANEW)
    if not recipe.train_text_encoder and any(name.startswith("text_encoder") for name in changes):
        raise CraftError("UNSUPPORTED_LORA", f"LoRA {lora.name} changes the text encoder too", "give --te")
    return Beginning(lora.name, changes)
