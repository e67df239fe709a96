"""One file that holds one network: a transformer, a UNet, a text encoder or an autoencoder, in whatever form.

safetensors or GGUF; diffusers' names or the original ones; numbers, fp8 or ggml's blocks. What is packed stays so.
"""

from __future__ import annotations

import importlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from craft_protos.reasons import CraftError
from torch import nn

from craftd.refusal import corrupt, shown
from craftd.worker.quantized import conversion, packing, stored
from craftd.worker.quantized.layers import can_be_packed, packed_layer, put
from craftd.worker.quantized.stored import Stored
from craftd.worker.quantized.weight import PackedWeight

Where = tuple[str, str]  # library, class

_MOST_NAMED = 3  # tensors, in an error
_CLIP_L = 768
# What text encoders' files have beside them: heads, other towers, and tensors that are computed.
_BESIDE_TEXT = re.compile(
    r"position_ids$|logit_scale$|inv_freq$|lm_head\.|(^|\.)(text_projection|vision_model|visual_projection)\b"
)
_UNUSED = ("position_ids", "logit_scale", "ztsnr", "v_pred", "text_projection", "edm_mean", "edm_std")


def load_component(
    path: Path, config_folder: Path, library_class: Where, dtype: torch.dtype, precision: str = "", *, name: str = ""
) -> nn.Module:
    """The network of `library_class` whose config.json lies in `config_folder`, with the tensors of the file `path`.

    `precision`: "fp8" or "int8" packs what the file has as numbers; others leave it in `dtype`. `name`: the file's, in
    errors. Raises CORRUPT_FILE, UNSUPPORTED_MODEL, NOT_FINITE, and what the libraries raise.
    """
    name = name or path.name
    found = conversion.without_prefix(stored.read(path, name))
    return Component(config_folder, library_class, dtype, precision, name).of(found)


@dataclass(frozen=True)
class Component:
    """A network to be made of tensors: its class, where its config.json lies, how it is to compute and be kept."""

    config_folder: Path
    where: Where
    dtype: torch.dtype
    precision: str
    name: str  # of the file, in errors

    def of(self, tensors: Mapping[str, Stored]) -> nn.Module:
        """Raises as `load_component`."""
        made = self._of_transformers(tensors) if self.where[0] == "transformers" else self._of_diffusers(tensors)
        return made.eval()

    def _of_diffusers(self, tensors: Mapping[str, Stored]) -> nn.Module:
        kind = class_of(self.where)
        config = json.loads((self.config_folder / "config.json").read_text(encoding="utf-8"))
        network = _empty(kind, config)
        wanted = network.state_dict()
        made = conversion.converted(kind, config, wanted.keys(), tensors, self.name)
        _check(network, made, wanted, self.name)
        _fill(network, made, self.dtype, self.precision)
        return network

    def _of_transformers(self, tensors: Mapping[str, Stored]) -> nn.Module:
        """transformers makes names its own and ties what is shared, with numbers alone; then layers are packed."""
        kind, tensors = class_of(self.where), _named_apart(tensors, self.where[1])
        config = kind.config_class.from_pretrained(self.config_folder, local_files_only=True)
        numbers = {key: one.dense(self.dtype) if isinstance(one, PackedWeight) else one for key, one in tensors.items()}
        numbers = _with_projection(numbers, config, self.where[1], self.dtype)
        how: dict[str, Any] = {"state_dict": numbers, "dtype": self.dtype, "output_loading_info": True}
        network: nn.Module
        network, told = kind.from_pretrained(None, config=config, **how)
        _check_told(told, self.where[1], self.name)
        _keep_packed(network, {key: one for key, one in tensors.items() if isinstance(one, PackedWeight)})
        packing.pack(network, self.precision)
        return network


def _named_apart(tensors: Mapping[str, Stored], kind: str) -> Mapping[str, Stored]:
    """Of a language model that sees, as transformers has them: the layers of words may have no name of their own."""
    if "VL" not in kind:
        return tensors
    root = "" if kind.endswith("Model") else "model."

    def apart(key: str) -> str:
        bare = key.removeprefix("model.").removeprefix("language_model.")
        if key.startswith("lm_head.") or "." not in key:
            return key
        return root + (bare if bare.startswith("visual.") else f"language_model.{bare}")

    return {apart(key): one for key, one in tensors.items()}


def _with_projection(numbers: dict[str, torch.Tensor], config: Any, kind: str, dtype: torch.dtype) -> Any:
    """CLIP-L is published without the projection that Stable Diffusion 3 asks of it: diffusers takes the identity."""
    name, width = "text_projection.weight", getattr(config, "projection_dim", 0)
    if not kind.endswith("WithProjection") or name in numbers or (width, config.hidden_size) != (_CLIP_L, _CLIP_L):
        return numbers
    return {**numbers, name: torch.eye(width, dtype=dtype)}


def _check_told(told: Mapping[str, Any], kind: str, name: str) -> None:
    """transformers makes up what a file lacks, and leaves out what it has too much. Raises as `_check`."""
    missing = sorted(map(str, told["missing_keys"]))
    if missing:
        raise corrupt(name, f"all tensors of a {kind}", f"a file without {_named(missing)}")
    others = [key for key in sorted(map(str, told["unexpected_keys"])) if not _BESIDE_TEXT.search(key)]
    if others:
        raise _unsupported(name, f"a {kind} of this configuration has no {_named(others)}")


def class_of(where: Where) -> Any:
    library, kind = where
    return getattr(importlib.import_module(library), kind)


def _empty(kind: Any, config: Mapping[str, Any]) -> nn.Module:
    """Without weights, on no device; what it computes for itself is there."""
    from accelerate.big_modeling import init_empty_weights

    with init_empty_weights():
        made: nn.Module = kind.from_config(dict(config))
    return made


def _check(network: nn.Module, made: Mapping[str, Stored], wanted: Mapping[str, torch.Tensor], name: str) -> None:
    """Every tensor of the network is there in its shape, and no other. Raises CORRUPT_FILE, UNSUPPORTED_MODEL."""
    what = type(network).__name__
    missing = [key for key in wanted if key not in made]
    if missing:
        raise corrupt(name, f"all {len(wanted)} tensors of a {what}", f"a file without {_named(missing)}")
    others = [key for key in made if key not in wanted and not _is_unused(network, key)]
    if others:
        raise _unsupported(name, f"a {what} of this configuration has no {_named(others)}")
    wrong = [key for key, own in wanted.items() if not _fits(made[key], own.shape)]
    if wrong:
        sides = "x".join(map(str, wanted[wrong[0]].shape))
        raise _unsupported(name, f"{shown(wrong[0])} is {'x'.join(map(str, made[wrong[0]].shape))}, not {sides}")


def _fits(one: Stored, shape: Sequence[int]) -> bool:
    """A kernel of one may be written or left out."""
    return list(one.shape) == list(shape) or _sides(one.shape) == _sides(shape)


def _sides(shape: Sequence[int]) -> list[int]:
    return [side for side in shape if side != 1]


def _is_unused(network: nn.Module, key: str) -> bool:
    patterns = getattr(network, "_keys_to_ignore_on_load_unexpected", None) or []
    return key.rpartition(".")[2] in _UNUSED or any(re.search(pattern, key) for pattern in patterns)


def _fill(network: nn.Module, made: Mapping[str, Stored], dtype: torch.dtype, precision: str) -> None:
    """Layers whose weights are packed, or are to be, give way to layers that hold them so."""
    packs = dict(packing.packable(network)) if precision in packing.PACKERS else {}
    whole = packing.kept_in_fp32(network, dtype)
    layers = {f"{path}.weight": path for path, module in network.named_modules() if can_be_packed(module)}
    for key in list(network.state_dict()):
        own = torch.float32 if any(part in key.split(".") for part in whole) else dtype
        path, one = layers.get(key, ""), made[key]
        stays = isinstance(one, PackedWeight) and not _is_whole(network) and own == dtype
        if path and (stays or path in packs):
            _put_packed(network, path, one, dtype, precision)
        else:
            _put_numbers(network, key, one, own)


def _is_whole(network: nn.Module) -> bool:
    """An autoencoder computes with numbers alone: it is small, and every pixel comes out of it."""
    return type(network).__name__.startswith("Autoencoder")


def _put_packed(network: nn.Module, path: str, one: Stored, dtype: torch.dtype, precision: str) -> None:
    module: Any = network.get_submodule(path)
    weight = one if isinstance(one, PackedWeight) else packing.PACKERS[precision](one)
    layer = packed_layer(module, weight.shaped(tuple(module.weight.shape)), None, dtype)
    layer.register_parameter("bias", module.bias)  # filled by its own name
    put(network, path, layer)


def _put_numbers(network: nn.Module, key: str, one: Stored, dtype: torch.dtype) -> None:
    path, _, name = key.rpartition(".")
    module, numbers = network.get_submodule(path), one.dense(dtype) if isinstance(one, PackedWeight) else one
    own = getattr(module, name)
    numbers = numbers.to(dtype) if own.is_floating_point() else numbers
    numbers = numbers.reshape(own.shape).contiguous()
    if name in module._parameters:
        module.register_parameter(name, nn.Parameter(numbers, requires_grad=False))
    else:
        module.register_buffer(name, numbers)


def _keep_packed(network: nn.Module, weights: Mapping[str, PackedWeight]) -> None:
    """The layers of these weights, found by the ends of their names, hold them as the file does."""
    for path, layer in list(packing.packable(network)):
        found = next((one for key, one in weights.items() if _is_of(key, f"{path}.weight")), None)
        if found is not None and found.shape == tuple(layer.weight.shape):
            put(network, path, packed_layer(layer, found, layer.bias, layer.weight.dtype))


def _is_of(key: str, own: str) -> bool:
    return key == own or key.endswith(f".{own}") or own.endswith(f".{key}")


def _named(keys: Sequence[str]) -> str:
    more = f" and {len(keys) - _MOST_NAMED} more" if len(keys) > _MOST_NAMED else ""
    return ", ".join(map(shown, keys[:_MOST_NAMED])) + more


def _unsupported(name: str, why: str) -> CraftError:
    return CraftError("UNSUPPORTED_MODEL", f"{shown(name)}: {why}", "it is made for another size of this network")
