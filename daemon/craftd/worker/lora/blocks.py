"""In which block of its model a layer lies, as block weights count them: `craft_protos.lora_strength` has the lists."""

from __future__ import annotations

from collections.abc import Callable

from craft_protos.lora_strength import (
    BASE,
    FLUX_DOUBLE,
    FLUX_IN,
    FLUX_OUT,
    FLUX_SINGLE,
    FLUX_T5,
    UNET_BLOCKS,
    UNET_IN,
    UNET_MID,
    UNET_OUT,
)

from craftd.architectures.blocks import FLUX_TRANSFORMER, UNET
from craftd.worker.lora.layout import Component

_FLUX = {
    "x_embedder": FLUX_IN,
    "context_embedder": FLUX_IN,
    "time_text_embed": FLUX_IN,
    "norm_out": FLUX_OUT,
    "proj_out": FLUX_OUT,
}


def of(name: str, component: Component, path: str) -> int | None:
    """The block's place in the list; None for a layer that belongs to none, and of a model without known blocks."""
    if is_text(name):
        return FLUX_T5 if component.is_t5 else BASE
    place = _PLACES.get(component.kind)
    return place(path.split("."), component.depth) if place is not None else None


def is_text(component: str) -> bool:
    return component.startswith("text_encoder")


def _of_unet(path: list[str], depth: int) -> int | None:
    """The original counts resnets and what changes the size, block after block; its first one is conv_in."""
    match path:
        case ["down_blocks", block, kind, index, *_]:
            return _within(UNET_IN + 1 + _place(block, kind, index, depth), UNET_IN, UNET_MID)
        case ["up_blocks", block, kind, index, *_]:
            return _within(UNET_OUT + _place(block, kind, index, depth), UNET_OUT, UNET_BLOCKS)
        case [first, *_]:
            return {"conv_in": UNET_IN, "mid_block": UNET_MID}.get(first)
    return None


def _place(block: str, kind: str, index: str, depth: int) -> int:
    return int(block) * (depth + 1) + (depth if kind.endswith("samplers") else int(index))


def _of_flux(path: list[str], _depth: int) -> int | None:
    match path:
        case ["transformer_blocks", block, *_]:
            return _within(FLUX_DOUBLE + int(block), FLUX_DOUBLE, FLUX_SINGLE)
        case ["single_transformer_blocks", block, *_]:
            return _within(FLUX_SINGLE + int(block), FLUX_SINGLE, FLUX_OUT)
        case [first, *_]:
            return _FLUX.get(first)
    return None


def _within(block: int, first: int, end: int) -> int | None:
    return block if first <= block < end else None


_PLACES: dict[str, Callable[[list[str], int], int | None]] = {
    UNET: _of_unet,
    FLUX_TRANSFORMER: _of_flux,
}
