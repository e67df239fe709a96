"""What rows of several kinds are made of."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from craftd.architectures.architecture import Mark, Part, PartKind

# Nothing that the pictures need: the safety checker would black some out unasked.
UNUSED_PARTS = frozenset({"safety_checker", "feature_extractor", "image_encoder"})

PICTURES = frozenset({"start", "mask"})  # fields of a request: what the families can begin from

ATTENTION = ("to_q", "to_k", "to_v", "to_out.0")

OF_FLUX2 = "single_stream_modulation."


def vae_of(kind: PartKind) -> Part:
    return Part("the VAE", ("first_stage_model.", "vae."), "vae", kind)


def named(*told: Part) -> tuple[Part, ...]:
    """The same parts in diffusers' layout."""
    return tuple(Part(f"its {one.component}", (f"{one.component}.",), one.component, one.kind) for one in told)


def told_apart(beginning: str, *has: str, is_there: bool) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """What a mark has and lacks, where one beginning tells two architectures apart."""
    return ((*has, beginning), ()) if is_there else (has, (beginning,))


def marks(*beginnings: str, **more: Any) -> tuple[Mark, ...]:
    """One for each beginning, any of which is enough."""
    return tuple(Mark((beginning,), **more) for beginning in beginnings)


# Of a row that has another's id: what LoRAs and control models are called is the other row's.
ANOTHER_OF_ITS_KIND: Mapping[str, Any] = {
    "network": "",
    "kohya": "",
    "modelspec": "",
    "modelspec_predicts": {},
    "visioncraft": (),
    "lora_note": re.compile(r"(?!)"),
    "lora_layer": re.compile(r"(?!)"),
    "training": None,
}

# The same of one whose models draw nothing without a start and a mask.
INPAINTS: Mapping[str, Any] = {"needs": PICTURES, **ANOTHER_OF_ITS_KIND}
