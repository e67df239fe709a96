"""What a tensor of a LoRA's file is to its layer, by its name: the forms that craft knows, and those it refuses."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from craft_protos.reasons import CraftError

# (form, pattern): the layer's path, and its part. Adapters that peft names ("default_0") are in the middle of theirs.
_FORMS = (
    ("peft", re.compile(r"^(?P<path>.+)\.lora_(?P<part>[AB])(?:\.(?P<adapter>[^.]+))?\.weight$")),
    ("peft", re.compile(r"^(?P<path>.+)\.lora_(?P<part>magnitude)_vector(?:\.[^.]+){0,2}$")),
    ("kohya", re.compile(r"^(?P<path>.+)\.lora_(?P<part>down|up|mid)\.weight$")),
    ("diffusers", re.compile(r"^(?P<path>.+)\.lora\.(?P<part>down|up)\.weight$")),
    ("diffusers", re.compile(r"^(?P<path>.+)\.lora_linear_layer\.(?P<part>down|up)\.weight$")),
    ("diffusers", re.compile(r"^(?P<path>.+[._](?:to_\w+|\w+_proj)_lora)\.(?P<part>down|up)\.weight$")),
    ("xlabs", re.compile(r"^(?P<path>.+_lora\d?)\.(?P<part>down|up)\.weight$")),
    ("loha", re.compile(r"^(?P<path>.+)\.(?P<part>hada_(?:w[12]_[ab]|t[12]))$")),
    ("lokr", re.compile(r"^(?P<path>.+)\.(?P<part>lokr_(?:w[12](?:_[ab])?|t2))$")),
    ("full", re.compile(r"^(?P<path>.+)\.(?P<part>diff|diff_b|w_norm|b_norm)$")),
    ("ia3", re.compile(r"^(?P<path>.+)\.(?P<part>on_input)$")),
    ("oft", re.compile(r"^(?P<path>.+)\.(?P<part>oft_blocks|rescale)$")),
    ("glora", re.compile(r"^(?P<path>.+)\.(?P<part>[ab][12])\.weight$")),
    ("", re.compile(r"^(?P<path>.+)\.(?P<part>alpha|dora_scale)$")),
)
_PARTS = {
    "A": "down",
    "B": "up",
    "w_norm": "diff",
    "b_norm": "diff_b",
    **{"hada_w1_a": "up", "hada_w1_b": "down", "hada_t1": "mid"},
    **{"hada_w2_a": "up_2", "hada_w2_b": "down_2", "hada_t2": "mid_2"},
    **{"lokr_w1": "kron", "lokr_w1_a": "kron_a", "lokr_w1_b": "kron_b"},
    **{"lokr_w2": "whole", "lokr_w2_a": "up", "lokr_w2_b": "down", "lokr_t2": "mid"},
}

_REFUSED = (
    ("peft BOFT", re.compile(r"\.boft_\w+")),
    ("peft OFT", re.compile(r"\.oft_(?!blocks$)|(^|[._])oft_diag\b")),
    ("peft IA3", re.compile(r"\.ia3_\w+$")),
    ("GLoRA in Tucker form", re.compile(r"\.bm\.weight$")),
    ("VeRA", re.compile(r"\.vera_lambda_[bd]\b")),
    ("AdaLoRA", re.compile(r"\.lora_E\b")),
    ("Control-LoRA", re.compile(r"^lora_controlnet$")),
)

_EMBEDDING = re.compile(r"^bundle_emb\.(?P<name>[^.]+)\.")
_BIAS = re.compile(r"\.lora_B(\.[^.]+)?\.bias$")
_EMBEDDED = re.compile(r"\.lora_embedding_[AB](\.[^.]+)?$")


@dataclass(frozen=True)
class Role:
    """One tensor: of which layer, as the file calls it, and which part of its change."""

    path: str
    part: str  # "down", "up", "mid", "alpha", "magnitude" (peft's DoRA), "dora_scale"; those of the other forms
    form: str  # "kohya", "peft", "diffusers", "xlabs", "loha", "lokr", "oft", ...; "" for what several have
    adapter: str = ""  # as peft names it, where a file has that


def of(key: str) -> Role | None:
    """None where the name says nothing that craft knows."""
    for form, pattern in _FORMS:
        found = pattern.match(key)
        if found is not None:
            adapter = found.groupdict().get("adapter") or ""
            return Role(found["path"], _PARTS.get(found["part"], found["part"]), form, adapter)
    return None


def scaled_by(key: str) -> tuple[str, Role] | None:
    """The tensor that an (IA)3's `on_input` tells of: its name alone is any weight's."""
    path = key.removesuffix(".on_input")
    return None if path == key else (f"{path}.weight", Role(path, "ia3", "ia3"))


def refuse_others(name: str, shapes: Mapping[str, tuple[int, ...]]) -> None:
    """Raises UNSUPPORTED_LORA for a kind of adapter that craft does not apply."""
    for key in shapes:
        for kind, pattern in _REFUSED:
            if pattern.search(key):
                raise CraftError(
                    "UNSUPPORTED_LORA",
                    f"LoRA {name} is a {kind}, by its tensor {shown(key)}; craft does not apply those",
                    "use a LoRA, LoCon, DoRA, LoHa or LoKr",
                )


def what_else(key: str) -> str:
    """What a tensor is that belongs to no low-rank change, if that can be told."""
    embedding = _EMBEDDING.match(key)
    if embedding is not None:
        return f"the bundled embedding {shown(embedding['name'])}, which craft does not apply"
    if _BIAS.search(key):
        return "a bias of the adapter, which craft does not apply"
    return "a change of an embedding, which craft does not apply" if _EMBEDDED.search(key) else ""


def shown(text: str) -> str:
    """A stranger's text, fit for a terminal."""
    cut = text if len(text) <= 120 else f"{text[:117]}..."
    return repr(cut) if cut.isprintable() else ascii(cut)
