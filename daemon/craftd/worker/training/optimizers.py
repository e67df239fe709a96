"""The optimizers, each by its own library, and what a checkpoint keeps of one."""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from craft_protos.reasons import CraftError, invalid
from craft_protos.train import TrainSpec
from craft_protos.train_options import ADAMW, SCHEDULE_FREE
from torch import nn

# As checkpoints of AdamW have called them from the beginning.
_STORED_AS = {"exp_avg": "mean", "exp_avg_sq": "square"}
_STATE = "state."
_Number = bool | int | float


@dataclass(frozen=True)
class _Kind:
    """Where an optimizer comes from, and its arguments where they are not the library's own."""

    module: str
    name: str
    distribution: str
    usual: Mapping[str, Any] = field(default_factory=dict)
    needs_cuda: bool = False


_KINDS = {
    ADAMW: _Kind("torch.optim", "AdamW", "torch", {"weight_decay": 1e-2, "fused": True}),
    "adamw8bit": _Kind("bitsandbytes.optim", "AdamW8bit", "bitsandbytes", {"weight_decay": 1e-2}, needs_cuda=True),
    "prodigy": _Kind("prodigyopt", "Prodigy", "prodigyopt"),
    "adafactor": _Kind(
        "transformers.optimization",
        "Adafactor",
        "transformers",
        {"scale_parameter": False, "relative_step": False, "warmup_init": False},  # the rate is the schedule's
    ),
    "lion": _Kind("lion_pytorch", "Lion", "lion-pytorch"),
    SCHEDULE_FREE: _Kind("schedulefree", "AdamWScheduleFree", "schedulefree", {"foreach": False}),
    "came": _Kind("came_pytorch", "CAME", "came-pytorch"),
}


def class_name(name: str) -> str:
    """As kohya's scripts write it into a file's metadata."""
    kind = _KINDS[name]
    return "torch.optim.adamw.AdamW" if name == ADAMW else f"{kind.module}.{kind.name}"


class Optimizer:
    """One over an adapter's parameters, each of which has a name. Its rates are set before every step."""

    def __init__(self, parameters: Mapping[str, nn.Parameter], recipe: TrainSpec, network: str) -> None:
        self._parameters = parameters
        self._is_plain = recipe.optimizer == ADAMW
        self._shares, groups = _groups(parameters, recipe, network)
        kind = _KINDS[recipe.optimizer]
        made = _class(kind, next(iter(parameters.values())).device)
        try:
            self.own: Any = made(groups, lr=recipe.learning_rate, **{**kind.usual, **recipe.arguments})
        except (TypeError, ValueError) as exc:
            raise invalid("optimizer_args", f"{recipe.optimizer} refuses them: {exc}", "leave them out") from exc
        self._averages = recipe.optimizer == SCHEDULE_FREE
        if self._averages:
            self.own.train()

    def step(self, rate: float) -> None:
        for group, share in zip(self.own.param_groups, self._shares, strict=True):
            group["lr"] = rate * share
        self.own.step()
        self.own.zero_grad()

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """While it holds, the parameters are what an optimizer that averages them would have drawn with.

        They are put back as they were: its own way back rounds, and a step would follow from who had looked.
        """
        if not self._averages:
            yield
            return
        held = [parameter.detach().clone() for parameter in self._parameters.values()]
        self.own.eval()
        try:
            yield
        finally:
            self.own.train()
            with torch.no_grad():
                for parameter, value in zip(self._parameters.values(), held, strict=True):
                    parameter.copy_(value)

    def tensors(self) -> dict[str, torch.Tensor]:
        """What it keeps of each parameter, by KIND/NAME."""
        found = {}
        for name, parameter in self._parameters.items():
            for key, value in self.own.state.get(parameter, {}).items():
                if isinstance(value, torch.Tensor) and not (self._is_plain and key == "step"):
                    found[f"{_STORED_AS.get(key, _STATE + key)}/{name}"] = value
        return found

    def numbers(self) -> dict[str, Any]:
        """What it keeps besides, for JSON; nothing of AdamW, whose only number is the step."""
        if self._is_plain:
            return {}
        groups = [_numbers(group) for group in self.own.param_groups]
        state = {
            name: kept
            for name, parameter in self._parameters.items()
            if (kept := _numbers(self.own.state.get(parameter, {})))
        }
        return {"groups": groups, "state": state}

    def load(self, tensors: Mapping[str, torch.Tensor], numbers: Mapping[str, Any], step: int) -> None:
        """Raises KeyError and ValueError for what is not its own."""
        if step and not self._is_plain:
            for group, kept in zip(self.own.param_groups, numbers["groups"], strict=True):
                group.update({key: value for key, value in kept.items() if key in group})
        by_name = _by_name(tensors)
        for name, parameter in self._parameters.items() if step else ():
            state = {key: value.to(parameter.device) for key, value in by_name[name].items()}
            if self._is_plain:
                state["step"] = torch.tensor(float(step), device=parameter.device)
                state = {key: state[key] for key in ("step", *_STORED_AS)}
            self.own.state[parameter] = state | dict(numbers.get("state", {}).get(name, {}))


def _groups(
    parameters: Mapping[str, nn.Parameter], recipe: TrainSpec, network: str
) -> tuple[list[float], list[dict[str, Any]]]:
    """Shares of the learning rate, and the parameters that have them: the text encoders may learn at their own."""
    if not recipe.text_encoder_rate:
        return [1.0], [{"params": list(parameters.values())}]
    own = [one for name, one in parameters.items() if name.partition(".")[0] == network]
    texts = [one for name, one in parameters.items() if name.partition(".")[0] != network]
    return [1.0, recipe.text_encoder_rate / recipe.learning_rate], [{"params": own}, {"params": texts}]


def _class(kind: _Kind, device: torch.device) -> Any:
    if kind.needs_cuda and device.type != "cuda":
        hint = "take adamw, or adafactor, which keeps less too"
        raise invalid("optimizer", f"{kind.name} needs a CUDA device, and this is {device.type}", hint)
    try:
        return getattr(importlib.import_module(kind.module), kind.name)
    except ModuleNotFoundError as exc:
        message = f"the optimizer {kind.name} is not installed beside craftd: {exc.name}"
        raise CraftError("EXTRA_MISSING", message, f"pip install {kind.distribution}") from exc


def _numbers(kept: Mapping[str, Any]) -> dict[str, _Number]:
    return {key: value for key, value in kept.items() if isinstance(value, _Number)}


def _by_name(tensors: Mapping[str, torch.Tensor]) -> dict[str, dict[str, torch.Tensor]]:
    own = {stored: key for key, stored in _STORED_AS.items()}
    found: dict[str, dict[str, torch.Tensor]] = {
        full.partition("/")[2]: {} for full in tensors if full.startswith("weight/")
    }
    for full, tensor in tensors.items():
        kind, _, name = full.partition("/")
        key = own.get(kind) or (kind.removeprefix(_STATE) if kind.startswith(_STATE) else "")
        if key and name in found:
            found[name][key] = tensor
    return found
