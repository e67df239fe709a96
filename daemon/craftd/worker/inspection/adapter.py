"""Which kind of LoRA a file holds, for which architecture: read from its tensors' names and shapes."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from craft_protos.reasons import CraftError

from craftd.worker.inspection.refusal import corrupt, shown
from craftd.worker.inspection.weights import Tensor

_POCKET = Path(__file__).parents[2] / "pocket" / "text_encoder" / "config.json"
_OTHERS = (
    ("LoKr", re.compile(r"\.lokr_(w[12](_[ab])?|t2)$")),
    ("LoHa", re.compile(r"\.hada_(w[12]_[ab]|t[12])$")),
    ("BOFT", re.compile(r"\.(boft_\w+|oft_blocks\.boft)$")),
    ("OFT", re.compile(r"\.oft_(blocks|diag|[rR])(\.weight)?$")),
    ("IA3", re.compile(r"\.(ia3_l|on_input)$")),
    ("GLoRA", re.compile(r"\.[ab][12]\.weight$")),
    ("VeRA", re.compile(r"\.vera_lambda_[bd]$")),
    ("LoCon with a Tucker decomposition (lora_mid)", re.compile(r"\.lora_mid\.weight$")),
)
_DOWN = (
    ("kohya", re.compile(r"^(?P<layer>.+)\.lora_down\.weight$")),
    ("peft", re.compile(r"^(?P<layer>.+)\.lora_A(\.\w+)?\.weight$")),
    ("xlabs", re.compile(r"^(?P<layer>.+)_lora\d\.down\.weight$")),
    ("diffusers", re.compile(r"^(?P<layer>.+?)([._]lora|\.lora_linear_layer)\.down\.weight$")),
)
_DORA = re.compile(r"\.(dora_scale|lora_magnitude_vector(\.\w+)*)$")
_TEXT = re.compile(r"^(lora_te\d?_|te\d?[._]|text_encoder|base_model\.model\.text_model)|[._]text_model[._]")
_UNET = re.compile(r"(^|[._])(down_blocks|up_blocks|mid_block|input_blocks|output_blocks|middle_block)[._]")
_CROSS = re.compile(r"attn2[._](processor\.)?to_[kv](_lora)?$")
_FLUX = re.compile(r"(^|[._])(single_transformer_blocks|single_blocks|double_blocks)[._]")
_SD3 = re.compile(r"(^|[._])joint_blocks[._]")
_SECOND_TEXT = re.compile(r"^(lora_te2_|te2[._]|text_encoder_2)")
_MOST_TENSORS, _LONGEST_NAME = 20_000, 500  # the largest LoRAs have some 5,000
_WIDTHS = {768: "sd1", 1024: "sd2", 2048: "sdxl"}
_ARCHITECTURES = (
    (re.compile(r"^stable-diffusion-v1|^sd_v1|^sd1"), "sd1"),
    (re.compile(r"^stable-diffusion-v2|^sd_v2|^sd2"), "sd2"),
    (re.compile(r"^stable-diffusion-xl|^sdxl"), "sdxl"),
    (re.compile(r"^stable-diffusion-3|^stable-diffusion-v3|^sd3"), "sd3"),
    (re.compile(r"^flux[-_.]?1(\b|[-_])"), "flux"),
    (re.compile(r"^(craft-)?pocket(\b|[-_])"), "pocket"),
)


@dataclass(frozen=True)
class Adapter:
    """A LoRA, as far as its header tells."""

    format: str  # "kohya", "peft", "diffusers", "xlabs"; several joined by "+"
    base: str  # architecture, "" where unknown
    rank: int  # the largest
    layers: int
    adapts_text_encoder: bool
    has_conv: bool
    is_dora: bool


@dataclass(frozen=True)
class _Layer:
    """An adapted layer: its name, and the shape of its down projection."""

    name: str
    format: str
    shape: tuple[int, ...]

    @property
    def rank(self) -> int:
        return self.shape[0] if len(self.shape) > 1 else 0

    @property
    def width(self) -> int:
        """Of what goes in."""
        return self.shape[1] if len(self.shape) > 1 else 0

    @property
    def is_conv(self) -> bool:
        """Beyond a pointwise one, which is as good as linear."""
        return len(self.shape) > 2 and any(side > 1 for side in self.shape[2:])


def read(name: str, tensors: Iterable[Tensor], metadata: Mapping[str, str]) -> Adapter:
    """Raises UNSUPPORTED_LORA, naming what it is instead; CORRUPT_FILE."""
    tensors = list(tensors)
    if len(tensors) > _MOST_TENSORS or any(len(tensor.name) > _LONGEST_NAME for tensor in tensors):
        raise corrupt(name, f"at most {_MOST_TENSORS} tensors with names of {_LONGEST_NAME} characters", "more")
    for tensor in tensors:
        _refuse_others(name, tensor.name)
    layers = [layer for tensor in tensors if (layer := _layer(tensor)) is not None]
    if not layers:
        raise _no_lora(name, tensors)
    return Adapter(
        format="+".join(sorted({layer.format for layer in layers})),
        base=_base_by_tensors(layers) or _base_by_metadata(metadata),
        rank=max(layer.rank for layer in layers),
        layers=len({layer.name for layer in layers}),
        adapts_text_encoder=any(_TEXT.search(layer.name) for layer in layers),
        has_conv=any(layer.is_conv for layer in layers),
        is_dora=any(_DORA.search(tensor.name) for tensor in tensors),
    )


def _refuse_others(name: str, tensor: str) -> None:
    for kind, pattern in _OTHERS:
        if pattern.search(tensor):
            raise CraftError(
                "UNSUPPORTED_LORA",
                f"{shown(name)} is a {kind}, by its tensor {shown(tensor)}; craft does not apply those",
                "use a LoRA, LoCon or DoRA",
            )


def _layer(tensor: Tensor) -> _Layer | None:
    for kind, pattern in _DOWN:
        found = pattern.match(tensor.name)
        if found:
            return _Layer(found["layer"], kind, tensor.shape)
    return None


def _no_lora(name: str, tensors: list[Tensor]) -> CraftError:
    names = [tensor.name for tensor in tensors]
    if any(one.endswith((".diff", ".diff_b")) for one in names):
        what, hint = "holds differences of whole weights", "use a LoRA that was extracted from them"
    elif any(one.startswith(("model.diffusion_model.", "conv_in.", "first_stage_model.")) for one in names):
        what, hint = "holds a whole model, not a LoRA", "craft models add takes models"
    else:
        what, hint = f"holds no LoRA layers among its {len(names)} tensors", "see that it is a LoRA's file"
    return CraftError("UNSUPPORTED_LORA", f"{shown(name)} {what}", hint)


def _base_by_tensors(layers: list[_Layer]) -> str:
    if any(_FLUX.search(layer.name) for layer in layers):
        return "flux"
    if any(_SD3.search(layer.name) for layer in layers):
        return "sd3"
    for layer in layers:
        if _UNET.search(layer.name) and _CROSS.search(layer.name):
            return _WIDTHS.get(layer.width) or ("pocket" if layer.width == _pocket_width() else "")
    is_unet = any(_UNET.search(layer.name) and not _TEXT.search(layer.name) for layer in layers)
    return "sdxl" if is_unet and any(_SECOND_TEXT.search(layer.name) for layer in layers) else ""


def _base_by_metadata(metadata: Mapping[str, str]) -> str:
    """What its maker says, where the tensors do not tell."""
    for key in ("modelspec.architecture", "ss_base_model_version"):
        said = metadata.get(key, "")[:100].lower()
        for pattern, base in _ARCHITECTURES:
            if pattern.search(said):
                return base
    return ""


@cache
def _pocket_width() -> int:
    """0 where craft came without its built-in model."""
    if not _POCKET.is_file():
        return 0
    return int(json.loads(_POCKET.read_text(encoding="utf-8"))["hidden_size"])
