"""A network's layers packed as it is loaded: which ones, and to what.

Those are left alone that diffusers' layerwise casting leaves: what the network's class names, what it keeps in fp32,
embeddings and the first and last layers. But layers that modulate norms are packed: they are a quarter of FLUX.1, and
files of fp8 and GGUF have them packed too. Of text encoders, CLIP's stay whole: small, and all follows from them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import nn

from craftd.worker.quantized.layers import can_be_packed, packed_layer, put
from craftd.worker.quantized.weight import PackedWeight, fp8, int8

PACKERS: dict[str, Callable[[torch.Tensor], PackedWeight]] = {"fp8": fp8, "int8": int8}
_KEPT = ("pos_embed", "patch_embed", "^norm_out", "^proj_in$", "^proj_out$", "lm_head", "embed_tokens", "^visual")
_NORMS = "norm"  # what classes say of norms, which are no layers that can be packed
_WHOLE = ("CLIP", "Autoencoder")  # classes' names begin so


def pack(network: nn.Module, precision: str) -> None:
    """Layer by layer, so that no more than one is there twice. Does nothing for a precision that packs nothing."""
    if precision in PACKERS:
        for path, layer in list(packable(network)):
            weight = PACKERS[precision](layer.weight)
            put(network, path, packed_layer(layer, weight, layer.bias, layer.weight.dtype))


def packable(network: nn.Module) -> Iterator[tuple[str, Any]]:
    """The layers that are packed, by their paths."""
    if type(network).__name__.startswith(_WHOLE):
        return
    kept = [re.compile(pattern) for pattern in (*_KEPT, *_own_patterns(network))]
    for path, module in network.named_modules():
        if can_be_packed(module) and not any(pattern.search(path) for pattern in kept):
            yield path, module


def kept_in_fp32(network: nn.Module, dtype: torch.dtype) -> tuple[str, ...]:
    """Parts of paths whose tensors diffusers loads in fp32, which it does for fp16."""
    own = getattr(network, "_keep_in_fp32_modules", None) or ()
    return tuple([own] if isinstance(own, str) else own) if dtype == torch.float16 else ()


def _own_patterns(network: nn.Module) -> list[str]:
    """What the class says of itself: of layerwise casting, and, as parts of names, of fp32."""
    casting = [one for one in getattr(network, "_skip_layerwise_casting_patterns", None) or [] if one != _NORMS]
    whole = getattr(network, "_keep_in_fp32_modules", None) or []
    strict = getattr(network, "_keep_in_fp32_modules_strict", None) or []
    names = [*([whole] if isinstance(whole, str) else whole), *strict]
    return casting + [rf"(^|\.){re.escape(name)}(\.|$)" for name in names]
