"""Textual-inversion embeddings: vectors that stand for a word in front of a text encoder (Gal et al. 2022).

A file holds one: `emb_params` as AUTOMATIC1111 saves it, `clip_l` and `clip_g` of SDXL, or one tensor under the word as
diffusers saves it. It needs no more than names and shapes to be known, so this runs without torch.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from craftd.architectures import detect
from craftd.architectures.rows.unets import SD1, SD2, SDXL
from craftd.worker.lora.layout import Layout, Shape

FORM = "embedding"
_FIRST, _SECOND = "text_encoder", "text_encoder_2"
_MOST_VECTORS = 256
_PLACEHOLDER = re.compile(r"<[^<>]{1,100}>")
_BASES = {row.text_width: row.id for row in (SD1, SD2)}  # by the width of its vectors
_WIDTH_LAYER = ".q_proj"  # a text encoder's, whose input is as wide as its words

_BUNDLED = re.compile(r"^bundle_emb\.(?P<word>[^.]{1,100})\.(?P<which>.{1,50})$")
_ENCODERS = {"string_to_param.*": _FIRST, "emb_params": _FIRST, "clip_l": _FIRST, "clip_g": _SECOND}
_MOST_BUNDLED = 100

Vectors = Mapping[str, str]  # text encoder -> the tensor's name


def of(shapes: Mapping[str, Shape]) -> Vectors:
    """What a file holds for each text encoder; nothing where it is no embedding."""
    if not all(_are_vectors(shape) for shape in shapes.values()):
        return {}
    if set(shapes) == {"clip_l", "clip_g"}:
        return {_FIRST: "clip_l", _SECOND: "clip_g"}
    if len(shapes) != 1:
        return {}
    ((name, shape),) = shapes.items()
    is_one = name == "emb_params" or _PLACEHOLDER.fullmatch(name) or (shape[-1] in _BASES and "." not in name)
    return {_FIRST: name} if is_one else {}


def bundled(shapes: Mapping[str, Shape]) -> dict[str, Vectors]:
    """Those that a LoRA's file holds beside its layers, by their words, as OneTrainer and AUTOMATIC1111 name them."""
    found: dict[str, dict[str, str]] = {}
    for name, shape in shapes.items():
        told = _BUNDLED.match(name)
        component = _ENCODERS.get(told["which"]) if told else None
        if told and component and _are_vectors(shape) and len(found) <= _MOST_BUNDLED:
            found.setdefault(told["word"], {})[component] = name
    return dict(found)


def base_of(vectors: Vectors, shapes: Mapping[str, Shape]) -> str:
    """The architecture that it was made for; "" where that cannot be told."""
    return SDXL.id if _SECOND in vectors else _BASES.get(shapes[vectors[_FIRST]][-1], "")


def misfit(vectors: Vectors, shapes: Mapping[str, Shape], layout: Layout) -> str:
    """Why it does not fit a model; "" where it does."""
    if "embeddings" not in detect.of_pipeline(layout.pipeline, None).takes:
        return f"{layout.pipeline} takes no embeddings"
    encoders = {name: one for name, one in layout.components.items() if name.startswith(_FIRST)}
    if set(encoders) != set(vectors):
        return f"it is for {len(vectors)} text encoders, and the model has {len(encoders)}"
    for component, tensor in vectors.items():
        width = next((s[1] for path, s in encoders[component].layers.items() if path.endswith(_WIDTH_LAYER)), 0)
        if shapes[tensor][-1] != width:
            return f"its vectors have {shapes[tensor][-1]} numbers where the model's words have {width}"
    return ""


def _are_vectors(shape: Shape) -> bool:
    return len(shape) in (1, 2) and 0 < shape[-1] <= 8192 and (len(shape) == 1 or 0 < shape[0] <= _MOST_VECTORS)
