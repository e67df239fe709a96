"""A LoRA's file fitted to a model: every tensor of it counted, whatever becomes of it.

Used, alpha, or unmatched: there is no fourth. A layer whose tensors are incomplete or of another shape is
unmatched in all of them.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path

import torch
from craft_protos.reasons import CraftError

from craftd.worker.lora import convert, file
from craftd.worker.lora.adapter import RANK_BUCKETS, Adapter, Delta, Facts, Layer
from craftd.worker.lora.file import LoraFile
from craftd.worker.lora.layers import is_adaptable
from craftd.worker.lora.targets import Place, Targets

Deltas = dict[str, dict[str, Delta]]


class Misfit(Exception):
    """A layer's tensors do not make a change of that layer."""


def read(path: Path, targets: Targets, *, name: str, sha256: str, size_bytes: int) -> Adapter:
    """The LoRA in the file, for this model. Raises CORRUPT_FILE, UNSUPPORTED_LORA, NOT_FINITE."""
    with file.opened(path, name, size_bytes) as opened, torch.inference_mode():
        fitted = _Fitting(targets, opened)
        fitted.fit()
        if fitted.unmatched and (converted := convert.converted(opened, targets.pipeline)) is not None:
            again = _Fitting(targets, converted.file)
            again.fit()
            unmatched = converted.unmatched(again.unmatched)
            if len(unmatched) < len(fitted.unmatched):
                return again.adapter(opened, sha256, unmatched)
        return fitted.adapter(opened, sha256, fitted.unmatched)


def _bucket(deltas: Deltas, targets: Targets) -> int | None:
    places = [(targets.layers[name][path], delta) for name, layers in deltas.items() for path, delta in layers.items()]
    if any(delta.magnitude is not None or not is_adaptable(layer) for layer, delta in places):
        return None
    largest = max((delta.rank for _layer, delta in places), default=1)
    return next((bucket for bucket in RANK_BUCKETS if largest <= bucket), None)


class _Fitting:
    """One file on its way to one model."""

    def __init__(self, targets: Targets, opened: LoraFile) -> None:
        self._targets = targets
        self._file = opened
        self.deltas: Deltas = defaultdict(dict)
        self.unmatched: list[str] = list(opened.unknown)

    def fit(self) -> None:
        for path, roles in self._file.paths.items():
            try:
                self._fit(path, roles)
            except Misfit:
                self.unmatched += roles.values()
        self.unmatched.sort()

    def adapter(self, opened: LoraFile, sha256: str, unmatched: list[str]) -> Adapter:
        """What has been fitted, with the tensors of the file as it was opened counted."""
        total = len(opened.tensors)
        facts = Facts(
            name=opened.name,
            sha256=sha256,
            matched=total - len(unmatched),
            total=total,
            unmatched=tuple(unmatched),
            bucket=_bucket(self.deltas, self._targets),
            adapts_text=any(component.startswith("text_encoder") for component in self.deltas),
        )
        return Adapter(facts, self.deltas)

    def _fit(self, path: str, roles: Mapping[str, str]) -> None:
        places = self._targets.find(path)
        if not places or "down" not in roles or "up" not in roles:
            raise Misfit
        if any(place.layer in self.deltas[place.component] for place in places):
            raise Misfit  # the same layer by another name
        down, up = self._whole(roles, places)
        scale = self._scale(roles, places[0].component, down.shape[0])
        for place in places:
            layer = self._targets.layer(place)
            self.deltas[place.component][place.layer] = Delta(
                _like(down, layer), _outputs(up, place).to(layer.weight.dtype), scale, self._magnitude(roles, place)
            )

    def _whole(self, roles: Mapping[str, str], places: tuple[Place, ...]) -> tuple[torch.Tensor, torch.Tensor]:
        """The change as the file has it, checked against all layers that share it."""
        down, up = self._tensor(roles["down"]), self._tensor(roles["up"])
        if "mid" in roles:  # LoCon in Tucker form: the kernel is in the middle
            mid = self._tensor(roles["mid"])
            if mid.ndim != 4 or mid.shape[1] != down.shape[0]:
                raise Misfit
            down = torch.einsum("mnkl,ni->mikl", mid.float(), down.flatten(1).float())
        layers = [self._targets.layer(place) for place in places]
        outputs = sum(layer.weight.shape[0] for layer in layers)
        rank = down.shape[0] if down.ndim else 0
        if not rank or up.shape[:1] != (outputs,) or up.numel() != outputs * rank:
            raise Misfit
        if any(down.numel() != rank * layer.weight[0].numel() for layer in layers) or not _has_shape(down, layers[0]):
            raise Misfit
        return down, up.reshape(outputs, rank)

    def _magnitude(self, roles: Mapping[str, str], place: Place) -> torch.Tensor | None:
        """outputs, 1 as peft has it; or 1, inputs as LyCORIS had it once."""
        layer = self._targets.layer(place)
        outputs, inputs = layer.weight.shape[:2]
        if "dora_scale" in roles:
            scale = self._tensor(roles["dora_scale"])
            if scale.ndim > 1 and scale.shape[0] == 1 and scale.numel() == inputs:
                return scale.reshape(1, inputs)
        elif "magnitude" in roles:
            scale = self._tensor(roles["magnitude"])
        else:
            return None
        part = _outputs(scale.reshape(-1), place)
        if part.numel() != outputs:
            raise Misfit
        return part.reshape(outputs, 1)

    def _scale(self, roles: Mapping[str, str], component: str, rank: int) -> float:
        if "alpha" in roles:
            alpha = self._tensor(roles["alpha"])
            if alpha.numel() != 1:
                raise Misfit
            return float(alpha) / rank
        scaling = self._file.scalings.get(component)
        return 1.0 if scaling is None else scaling.scale(rank)

    def _tensor(self, key: str) -> torch.Tensor:
        tensor = self._file.tensors[key]
        if tensor.is_floating_point() and tensor.element_size() == 1:
            tensor = tensor.float()
        if not torch.isfinite(tensor).all():
            raise CraftError(
                "NOT_FINITE",
                f"LoRA {self._file.name}: the tensor {key} holds numbers that are not finite",
                "the file is damaged or its training diverged; use another",
            )
        return tensor


def _has_shape(down: torch.Tensor, layer: Layer) -> bool:
    """As the layer's inputs, kernel included; a kernel of one may be written or left out."""
    wanted, found = list(layer.weight.shape[1:]), list(down.shape[1:])
    return [side for side in wanted if side != 1] == [side for side in found if side != 1]


def _like(down: torch.Tensor, layer: Layer) -> torch.Tensor:
    return down.reshape(down.shape[0], *layer.weight.shape[1:]).to(layer.weight.dtype)


def _outputs(up: torch.Tensor, place: Place) -> torch.Tensor:
    part = up if place.outputs is None else up[place.outputs]
    return torch.cat(part.chunk(2)[::-1]) if place.is_swapped else part
