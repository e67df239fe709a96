"""A LoRA's file fitted to a loaded model: its tensors, as changes of the model's layers.

Which tensor belongs to which layer is the fit's to say; here are the numbers.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import torch
from craft_protos.reasons import CraftError

from craftd.worker.lora import blocks, convert, file, lycoris, weightforms
from craftd.worker.lora.adapter import RANK_BUCKETS, Adapter, Delta, Facts, part_of
from craftd.worker.lora.embedding import Vectors
from craftd.worker.lora.file import LoraFile
from craftd.worker.lora.fit import Change, Fit, fit, is_by_input, may_be_converted
from craftd.worker.lora.ofweight import OfWeight
from craftd.worker.lora.spellings import Place, Spellings
from craftd.worker.lora.targets import Targets

Deltas = dict[str, dict[str, Delta]]


def read(path: Path, targets: Targets, *, name: str, sha256: str, size_bytes: int) -> Adapter:
    """The LoRA in the file, for this model. Raises CORRUPT_FILE, UNSUPPORTED_LORA, NOT_FINITE."""
    with file.opened(path, name, size_bytes) as opened, torch.inference_mode():
        found, used = fitted(opened, targets.spellings, lambda: targets.pipeline)
        filling = _Filling(targets, used)
        deltas, vectors = filling.fill(found), filling.vectors(used.reading.vectors) if found.is_whole else {}
        bundled = {word: filling.vectors(used.reading.bundled[word]) for word in found.bundled}
        facts = Facts(
            name=name,
            sha256=sha256,
            matched=found.matched,
            total=found.total,
            unmatched=found.unmatched,
            bucket=_bucket(deltas, targets),
            adapts_text=bool(vectors or bundled) or any(component.startswith("text_encoder") for component in deltas),
            vectors=vectors,
            bundled=bundled,
        )
        return Adapter(facts, deltas)


def fitted(opened: LoraFile, spellings: Spellings, pipeline: Callable[[], type]) -> tuple[Fit, LoraFile]:
    """Fits the file to the model; returns it too, converted by diffusers where craft does not know its form."""
    found = fit(opened.reading, spellings)
    if may_be_converted(opened.reading, found, spellings.layout):
        converted = convert.converted(opened, pipeline())
        if converted is not None:
            again = fit(converted.file.reading, spellings)
            unmatched = converted.unmatched(again)
            if len(unmatched) < len(found.unmatched):
                return Fit(found.total, unmatched, again.changes), converted.file
    return found, opened


def _bucket(deltas: Deltas, targets: Targets) -> int | None:
    places = [(targets.layers[name][path], delta) for name, layers in deltas.items() for path, delta in layers.items()]
    if any(not delta.is_low_rank or not layer.fits_slots for layer, delta in places):
        return None
    largest = max((delta.rank for _layer, delta in places), default=1)
    return next((bucket for bucket in RANK_BUCKETS if largest <= bucket), None)


class _Filling:
    """Turns what fits of one file into tensors."""

    def __init__(self, targets: Targets, opened: LoraFile) -> None:
        self._targets = targets
        self._file = opened

    def fill(self, found: Fit) -> Deltas:
        deltas: Deltas = defaultdict(dict)
        for change in found.changes:
            if form := weightforms.of(change.parts):
                self._fill_of_weight(form, change, deltas)
            elif lycoris.is_one(change.parts):
                self._fill_lycoris(change, deltas)
            else:
                self._fill_product(change, deltas)
            if "diff_b" in change.parts:
                self._fill_bias(change, deltas)
        components = self._targets.spellings.layout.components
        return {
            name: {path: replace(delta, block=blocks.of(name, components[name], path)) for path, delta in some.items()}
            for name, some in deltas.items()
        }

    def _fill_product(self, change: Change, deltas: Deltas) -> None:
        down, up = self._product(change)
        scale = self._scale(change)
        for place in change.places:
            layer = self._targets.layer(place)
            deltas[place.component][place.layer] = Delta(
                down.reshape(change.rank, *layer.inputs).to(layer.dtype),
                part_of(up, place).to(layer.dtype),
                scale,
                self._magnitude(change.parts, place),
                is_lycoris="dora_scale" in change.parts,
            )

    def _fill_of_weight(self, form: str, change: Change, deltas: Deltas) -> None:
        parts = {part: self._tensor(key) for part, key in change.parts.items() if part not in ("alpha", "diff_b")}
        on_input = "on_input" in parts and bool(parts.pop("on_input"))
        for place in change.places:
            layer = self._targets.layer(place)
            own = dict(parts)
            for part in ("diff", "b1", *(() if on_input else ("ia3",))):  # those that have the outputs' numbers
                if part in own:
                    own[part] = part_of(own[part].flatten() if part == "ia3" else own[part], place)
            if "ia3" in own and own["ia3"].numel() != (layer.inputs[0] if on_input else layer.outputs):
                raise self._unfit(place, "scales its outputs or its inputs, and has another count of numbers")
            if on_input:
                own["on_input"] = torch.ones(())
            made = OfWeight(
                form,
                own,
                scale=self._scale(change),
                constraint=self._constraint(change, layer.outputs) if form == weightforms.OFT else 0.0,
            )
            is_weight = form != weightforms.BIAS
            deltas[place.component][place.layer] = Delta(
                torch.zeros(0, *layer.inputs), torch.zeros(layer.outputs, 0), 1.0, of_weight=made if is_weight else None
            )

    def _constraint(self, change: Change, outputs: int) -> float:
        """Alpha times the outputs, as kohya's scripts and LyCORIS count it."""
        return max(float(self._tensor(change.parts["alpha"])), 0.0) * outputs if "alpha" in change.parts else 0.0

    def _fill_bias(self, change: Change, deltas: Deltas) -> None:
        bias = self._tensor(change.parts["diff_b"])
        for place in change.places:
            if self._targets.layer(place).module.bias is None:
                raise self._unfit(place, "has no bias in this model, and the file changes that")
            delta = deltas[place.component][place.layer]
            deltas[place.component][place.layer] = replace(delta, bias=part_of(bias, place))

    def _unfit(self, place: Place, why: str) -> CraftError:
        what = f"LoRA {self._file.name}: the layer {place.layer} {why}"
        return CraftError("UNSUPPORTED_LORA", what, "use a LoRA made for this model")

    def _fill_lycoris(self, change: Change, deltas: Deltas) -> None:
        """Two products stay apart, so that no more than the file's numbers are held until a layer is merged."""
        is_kronecker = lycoris.is_kronecker(change.parts)
        kron = self._kron(change.parts) if is_kronecker else None
        for place in change.places:
            layer = self._targets.layer(place)
            inputs = layer.inputs if kron is None else (layer.inputs[0] // kron.shape[1], *layer.inputs[1:])
            down, up = self._pair(change.parts, "", inputs)
            second = None if is_kronecker else self._pair(change.parts, "_2", inputs)
            deltas[place.component][place.layer] = Delta(
                down,
                up if is_kronecker else part_of(up, place),
                self._scale(change),
                self._magnitude(change.parts, place),
                is_lycoris="dora_scale" in change.parts,
                second=None if second is None else (second[0], part_of(second[1], place)),
                kron=kron,
                outputs=place.outputs if is_kronecker else None,
                is_swapped=place.is_swapped and is_kronecker,
            )

    def _pair(self, parts: Mapping[str, str], which: str, inputs: tuple[int, ...]) -> tuple[torch.Tensor, torch.Tensor]:
        """Down and up; of a factor that is whole, the factor and nothing but ones on a diagonal."""
        if "whole" in parts:
            whole = self._tensor(parts["whole"])
            rows, columns = len(whole), math.prod(inputs)
            if rows <= columns:
                return whole.reshape(rows, *inputs), torch.eye(rows)
            return torch.eye(columns).reshape(columns, *inputs), whole.reshape(rows, columns)
        down, up = self._tensor(parts[f"down{which}"]), self._tensor(parts[f"up{which}"])
        if f"mid{which}" not in parts:
            return down.reshape(len(down), *inputs), up
        mid = self._tensor(parts[f"mid{which}"])
        return torch.einsum("mnkl,ni->mikl", mid.float(), down.float()), up.T

    def _kron(self, parts: Mapping[str, str]) -> torch.Tensor:
        if "kron" in parts:
            return self._tensor(parts["kron"])
        return self._tensor(parts["kron_a"]).float() @ self._tensor(parts["kron_b"]).float()

    def vectors(self, named: Vectors) -> dict[str, torch.Tensor]:
        """Of an embedding, for each text encoder: count, width."""
        return {
            component: (tensor := self._tensor(name).float()).reshape(-1, tensor.shape[-1])
            for component, name in named.items()
        }

    def _product(self, change: Change) -> tuple[torch.Tensor, torch.Tensor]:
        """The two matrices whose product is the change, as the file has them."""
        down, up = self._tensor(change.parts["down"]), self._tensor(change.parts["up"])
        if "mid" in change.parts:  # LoCon in Tucker form: the kernel is in the middle
            mid = self._tensor(change.parts["mid"])
            down = torch.einsum("mnkl,ni->mikl", mid.float(), down.flatten(1).float())
        return down, up.reshape(-1, change.rank)

    def _magnitude(self, parts: Mapping[str, str], place: Place) -> torch.Tensor | None:
        """outputs, 1 as peft has it; or 1, inputs as LyCORIS had it once."""
        if "magnitude" not in parts and "dora_scale" not in parts:
            return None
        shape = self._targets.layer(place).shape
        magnitude = self._tensor(parts["magnitude" if "magnitude" in parts else "dora_scale"])
        if "magnitude" not in parts and is_by_input(tuple(magnitude.shape), shape):
            return magnitude.reshape(1, -1)
        return part_of(magnitude.reshape(-1), place).reshape(-1, 1)

    def _scale(self, change: Change) -> float:
        if change.scale is not None:
            return change.scale
        return float(self._tensor(change.parts["alpha"])) / change.rank

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
