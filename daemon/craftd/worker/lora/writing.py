"""A LoRA's changes, written in the names that another program reads: peft's (diffusers), kohya's or ComfyUI's.

Numbers stay as they are, with two exceptions. Files of peft's form have no alpha, so that is in the numbers of B, and
noted beside them for the way back. Layers that are one in the original program share their down projections where they
were one before, and stand block by block where they were not.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from craft_protos.reasons import CraftError

from craftd.architectures.blocks import UNET
from craftd.architectures.rows.unets import SD2, SDXL
from craftd.worker.lora import lycoris, originals, roles, weightforms
from craftd.worker.lora.adapter import part_of
from craftd.worker.lora.file import LoraFile
from craftd.worker.lora.fit import Change, Fit, is_by_input
from craftd.worker.lora.layout import Component, Layout
from craftd.worker.lora.originals import Part

PEFT, KOHYA, COMFYUI = FORMS = ("peft", "kohya", "comfyui")
ALPHAS = "craft_alphas"  # in the metadata of a file of peft's form: by the layer's name, where it is not the rank

Tensors = dict[str, torch.Tensor]
Key = tuple[tuple[str, str], ...]  # component and layer of each
_PRODUCT = {"down", "up", "mid", "alpha", "magnitude", "dora_scale"}
_COMFY_ENCODERS = {"text_encoder": "clip_l", "text_encoder_2": "clip_g"}


@dataclass(frozen=True)
class Product:
    """One change in low rank, by diffusers' order of outputs."""

    down: torch.Tensor
    up: torch.Tensor
    alpha: float
    mid: torch.Tensor | None = None
    magnitude: torch.Tensor | None = None  # of each output

    @property
    def rank(self) -> int:
        return int((self.down if self.mid is None else self.mid).shape[0])


@dataclass(frozen=True)
class Written:
    """A file to be: its tensors, and what is noted beside them."""

    tensors: Tensors
    metadata: Mapping[str, str]


@dataclass(frozen=True)
class _Target:
    """What a layer, or several that are one, are called in the form."""

    path: str
    component: str
    parts: tuple[Part, ...]

    @property
    def key(self) -> Key:
        return tuple((self.component, part.layer) for part in self.parts)


def written(form: str, opened: LoraFile, found: Fit, layout: Layout, metadata: Mapping[str, str]) -> Written:
    """Raises UNSUPPORTED_LORA for what the form has no names for."""
    alphas: dict[str, float] = json.loads(metadata.get(ALPHAS, "{}"))
    products: dict[Key, Product] = {}
    others: dict[Key, Change] = {}
    for change in found.changes:
        key = tuple((place.component, place.layer) for place in change.places)
        if set(change.parts) <= _PRODUCT and "down" in change.parts:
            products |= _split(change, key, _product(opened, change, layout, alphas))
        else:
            others[key] = change
    writer = _Writer(form, opened, layout, products)
    tensors = writer.products() | writer.others(others) | writer.bundled()
    kept = {name: text for name, text in metadata.items() if name not in (ALPHAS, "lora_adapter_metadata")}
    return Written(tensors, kept | ({ALPHAS: json.dumps(writer.alphas)} if writer.alphas else {}))


def _product(opened: LoraFile, change: Change, layout: Layout, alphas: Mapping[str, float]) -> Product:
    parts = {part: opened.tensors[name] for part, name in change.parts.items()}
    rank, up, place = change.rank, parts["up"], change.places[0]
    told = roles.of(change.parts["down"])
    alpha = float(parts["alpha"]) if "alpha" in parts else (change.scale or 1.0) * rank
    if told is not None and (own := alphas.get(told.path)) and "alpha" not in parts:
        alpha, up = own, (up.float() * (rank / own)).to(up.dtype)
    magnitude = parts.get("magnitude", parts.get("dora_scale"))
    if "dora_scale" in parts and magnitude is not None:
        shape = layout.components[place.component].layers[place.layer]
        if is_by_input(tuple(magnitude.shape), shape):
            raise _unwritable(opened.name, "its DoRA has magnitudes of inputs", "its own form is read as it is")
    return Product(parts["down"], up, alpha, parts.get("mid"), None if magnitude is None else magnitude.flatten())


def _split(change: Change, key: Key, product: Product) -> dict[Key, Product]:
    """The change as it is, and those of its layers."""
    found: dict[Key, Product] = {key: product} if len(key) > 1 else {}
    for one, place in zip(key, change.places, strict=True):
        magnitude = None if product.magnitude is None else part_of(product.magnitude, place)
        up = part_of(product.up.reshape(product.up.shape[0], -1), place)
        own = replace(product, up=up.reshape(-1, *product.up.shape[1:]), magnitude=magnitude)
        alone: Key = (one,)
        found[alone] = own if len(key) == 1 or product.mid is not None else _without_others(own)
    return found


def _without_others(one: Product) -> Product:
    """Without the ranks that stand for other layers of those that were one: its outputs have nothing there."""
    used = one.up.flatten(1).any(dim=0).nonzero().flatten()
    if not 0 < len(used) < one.rank:
        return one
    return replace(one, down=one.down[used], up=one.up[:, used], alpha=one.alpha * len(used) / one.rank)


class _Writer:
    def __init__(self, form: str, opened: LoraFile, layout: Layout, products: Mapping[Key, Product]) -> None:
        self._form = form
        self._file = opened
        self._products = products
        self._layout = layout
        self._targets = [
            target for name, one in layout.components.items() for target in _targets(form, name, one, layout)
        ]
        self.alphas: dict[str, float] = {}

    def products(self) -> Tensors:
        tensors: Tensors = {}
        left = {key for key in self._products if len(key) == 1}
        for target in self._targets:
            keys = {(one,) for one in target.key} & left
            if keys:
                left -= keys
                tensors |= self._tensors(target, self._of(target))
        for key in left:
            raise _unwritable(
                self._file.name, f"{self._form} has no name for the layer {key[0][1]}", "take another form"
            )
        return tensors

    def others(self, changes: Mapping[Key, Change]) -> Tensors:
        """Changes of other kinds are called otherwise, and nothing more."""
        known = {target.key: target for target in self._targets if not any(part.is_swapped for part in target.parts)}
        tensors: Tensors = {}
        for key, change in changes.items():
            if self._form == PEFT or key not in known:
                kind = "LoHa or LoKr" if lycoris.is_one(change.parts) else weightforms.of(change.parts) or "other"
                raise _unwritable(
                    self._file.name, f"{self._form} has no {kind} change of {key[0][1]}", "take another form"
                )
            for name in change.parts.values():
                tensors[f"{known[key].path}.{_ending(name)}"] = self._file.tensors[name]
        return tensors

    def bundled(self) -> Tensors:
        names = [name for vectors in self._file.reading.bundled.values() for name in vectors.values()]
        if names and self._form == PEFT:
            raise _unwritable(self._file.name, "peft has no bundled embeddings", "take another form")
        return {name: self._file.tensors[name] for name in names}

    def _of(self, target: _Target) -> Product:
        if (whole := self._products.get(target.key)) is not None and len(target.key) > 1:
            return whole
        if len(target.key) == 1:
            one = self._products[target.key]
            if not target.parts[0].is_swapped:
                return one
            magnitude = None if one.magnitude is None else _swapped(one.magnitude)
            return replace(one, up=_swapped(one.up), magnitude=magnitude)
        return self._joined(target)

    def _joined(self, target: _Target) -> Product:
        """Several layers' changes side by side; those that the file lacks stay as they are."""
        present = [
            (part, self._products[key,])
            for part, key in zip(target.parts, target.key, strict=True)
            if (key,) in self._products
        ]
        if any(one.magnitude is not None or one.mid is not None for _part, one in present):
            raise _unwritable(
                self._file.name, f"its DoRA or kernel has parts that are one layer in {self._form}", "take peft"
            )
        first = present[0][1]
        outputs = sum(self._outputs(target.component, part) for part in target.parts)
        if len(present) == len(target.parts) and all(torch.equal(one.down, first.down) for _part, one in present):
            return replace(first, up=torch.cat([one.up for _part, one in present]))
        ratios = [one.alpha / one.rank for _part, one in present]
        is_even = len(set(ratios)) == 1
        up = torch.zeros(outputs, sum(one.rank for _part, one in present), dtype=first.up.dtype)
        place = 0
        for (part, one), ratio in zip(present, ratios, strict=True):
            own = one.up.reshape(len(one.up), -1)
            up[part.outputs, place : place + one.rank] = own if is_even else (own.float() * ratio).to(up.dtype)
            place += one.rank
        ranks = float(up.shape[1])
        return Product(torch.cat([one.down for _part, one in present]), up, ranks * ratios[0] if is_even else ranks)

    def _outputs(self, component: str, part: Part) -> int:
        return self._layout.components[component].layers[part.layer][0]

    def _tensors(self, target: _Target, one: Product) -> Tensors:
        path, is_kernel = target.path, one.down.ndim > 2
        if self._form == PEFT:
            if one.mid is not None:
                raise _unwritable(self._file.name, "peft has no LoCon in Tucker form", "take another form")
            scale = one.alpha / one.rank
            if scale != 1:
                self.alphas[path] = one.alpha
            made = {
                f"{path}.lora_A.weight": one.down,
                f"{path}.lora_B.weight": (one.up.float() * scale).to(one.up.dtype),
            }
            if one.magnitude is not None:
                shaped = one.magnitude.view(1, -1, 1, 1) if is_kernel else one.magnitude
                made[f"{path}.lora_magnitude_vector"] = shaped
            return made
        made = {
            f"{path}.lora_down.weight": one.down,
            f"{path}.lora_up.weight": one.up,
            f"{path}.alpha": torch.tensor(one.alpha),
        }
        if one.mid is not None:
            made[f"{path}.lora_mid.weight"] = one.mid
        if one.magnitude is not None:
            made[f"{path}.dora_scale"] = one.magnitude.view(-1, *[1] * (3 if is_kernel else 1))
        return made


def _targets(form: str, name: str, component: Component, layout: Layout) -> Iterator[_Target]:
    """The names of a component's layers, those that are several in one first."""
    if name != layout.denoiser:
        for layer in component.layers:
            if path := _text(form, name, layer, component, layout):
                yield _Target(path, name, (Part(layer),))
        return
    named: Mapping[str, Sequence[Part]] = {}
    if form == COMFYUI or (form == KOHYA and layout.architecture.id == SDXL.id):
        named = originals.names(component)
    elif form == KOHYA and component.kind != UNET:
        named = originals.in_kohya_files(component)
    taken = {part.layer for parts in named.values() for part in parts}
    rest = {layer: (Part(layer),) for layer in component.layers if layer not in taken}
    prefix, joint = {PEFT: (name, "."), KOHYA: ("lora_unet", "_"), COMFYUI: ("diffusion_model", ".")}[form]
    for path, parts in {**named, **rest}.items():
        yield _Target(f"{prefix}{joint}{path.replace('.', joint)}", name, tuple(parts))


def _text(form: str, name: str, layer: str, component: Component, layout: Layout) -> str:
    bare = layer.removeprefix("text_model.")
    full = bare if bare.startswith(("text_projection", "encoder.block")) or component.is_t5 else f"text_model.{bare}"
    if form == PEFT:
        return f"{name}.{full}"
    if form == COMFYUI:
        encoder = "t5xxl" if component.is_t5 else _COMFY_ENCODERS.get(name, "")
        return f"text_encoders.{encoder}.transformer.{full}" if encoder and layout.architecture.id != SD2.id else ""
    number = "te3" if component.is_t5 else "te2" if name == "text_encoder_2" else "te1"
    is_alone = not any(one.startswith("text_encoder_") for one in layout.components)
    return f"lora_{'te' if is_alone and number == 'te1' else number}_{full.replace('.', '_')}"


def _ending(name: str) -> str:
    role = roles.of(name) or (roles.scaled_by(name) or ("", None))[1]
    return name[len(role.path) + 1 :] if role is not None else name.rpartition(".")[2]


def _swapped(tensor: torch.Tensor) -> torch.Tensor:
    return torch.cat(tensor.chunk(2)[::-1])


def _unwritable(name: str, why: str, hint: str) -> CraftError:
    return CraftError("UNSUPPORTED_LORA", f"LoRA {name}: {why}", hint)
