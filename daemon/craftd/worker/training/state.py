"""A training between two steps, as tensors and a few numbers: what a checkpoint holds, and nothing but that."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from craft_protos.reasons import CraftError
from safetensors import SafetensorError, safe_open

from craftd.worker.training import stored

_KEY = "craft_training"
_VERSION = 1


@dataclass(frozen=True)
class State:
    """`tensors` by what they are and whose: weight/NAME, mean/NAME, square/NAME, average/NAME; and `generator`.

    Optimizers other than AdamW keep state.KIND/NAME too, and `numbers`.
    """

    step: int
    tensors: Mapping[str, torch.Tensor]
    left: tuple[tuple[int, ...], ...]  # batches of the epoch
    class_left: tuple[tuple[int, ...], ...] = ()
    numbers: Mapping[str, Any] = field(default_factory=dict)  # of the optimizer


def to_bytes(state: State, recipe: str) -> bytes:
    """A safetensors file. `recipe` tells one training from another."""
    told = {
        "version": _VERSION,
        "step": state.step,
        "left": state.left,
        "class_left": state.class_left,
        "recipe": recipe,
    } | ({"optimizer": state.numbers} if state.numbers else {})
    return stored.safetensors(state.tensors, {_KEY: json.dumps(told)})


def read(path: Path, recipe: str) -> State:
    """Raises CORRUPT_FILE, and BAD_DATA for another training's."""
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            told = json.loads((file.metadata() or {})[_KEY])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        if told["version"] != _VERSION or told["recipe"] != recipe:
            raise CraftError("BAD_DATA", "the checkpoint is of another training", "start the training anew")
        return State(
            int(told["step"]), tensors, _batches(told["left"]), _batches(told["class_left"]), told.get("optimizer", {})
        )
    except (SafetensorError, OSError, ValueError, KeyError, TypeError) as exc:
        raise CraftError("CORRUPT_FILE", f"the checkpoint cannot be read: {exc}", "start the training anew") from exc


def _batches(told: list[list[int]]) -> tuple[tuple[int, ...], ...]:
    return tuple(tuple(int(place) for place in batch) for batch in told)
