"""Random LoRA files for the tiny models, or for any model's folder, in the forms that are found in the wild.

    python -m tests.tiny_loras KIND|FOLDER FILE [peft|kohya|sgm]

An Adapter holds one random change for each layer; the writers put the same adapter into files of many forms.
"""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from craftd.worker.process.options import ENVIRONMENT
from safetensors.torch import save_file
from torch import nn

from tests import tiny_models

ATTENTION = (".to_q", ".to_k", ".to_v", ".to_out.0", "_proj", ".to_add_out")
Tensors = dict[str, torch.Tensor]


@dataclass(frozen=True)
class Change:
    """Of one layer: alpha / rank * up @ down, and a magnitude where it is DoRA."""

    down: torch.Tensor
    up: torch.Tensor
    alpha: float
    magnitude: torch.Tensor | None = None

    @property
    def rank(self) -> int:
        return int(self.down.shape[0])


Adapter = Mapping[tuple[str, str], Change]  # by component and layer


def pipeline(kind: str) -> Any:
    """Of a tiny model, or of the folder that `kind` names."""
    import diffusers

    folder = Path(kind) if Path(kind).is_dir() else tiny_models.cached(kind)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return diffusers.DiffusionPipeline.from_pretrained(
            folder, use_safetensors=True, local_files_only=True, **tiny_models.without(kind)
        )


def denoiser(pipe: Any) -> str:
    return "transformer" if getattr(pipe, "transformer", None) is not None else "unet"


def random(
    pipe: Any,
    *,
    seed: int,
    rank: int = 4,
    alpha: float | None = None,
    components: Sequence[str] = (),
    conv: bool = False,
    wanted: Callable[[str], bool] | None = None,
    dora: bool = False,
    strength: float = 0.5,
) -> Adapter:
    """One of the pipeline's denoiser (its linear layers in attention), or of `components`."""
    generator = torch.Generator().manual_seed(seed)
    changes = {}
    for component in components or [denoiser(pipe)]:
        for path, layer in _layers(getattr(pipe, component), conv, wanted or _is_attention):
            down, up = _random(layer.weight, generator, rank, strength)
            magnitude = _magnitude(layer.weight.detach(), generator) if dora else None
            changes[component, path] = Change(down, up, alpha or rank, magnitude)
    return changes


def peft(adapter: Adapter) -> Tensors:
    """diffusers' own form of today: lora_A and lora_B. It has no alpha, so that is in the numbers."""
    tensors = {}
    for (component, path), change in adapter.items():
        name = f"{component}.{path}"
        tensors[f"{name}.lora_A.weight"] = change.down
        tensors[f"{name}.lora_B.weight"] = _as_conv(change.up, change.down) * (change.alpha / change.rank)
        if change.magnitude is not None:
            tensors[f"{name}.lora_magnitude_vector"] = change.magnitude
    return tensors


def text_model_peft(adapter: Adapter) -> Tensors:
    """The same, with the name that CLIP's layers had when most files were written."""
    named = {key.replace("text_model.", ""): value for key, value in peft(adapter).items()}
    return {
        key.replace(".encoder.layers", ".text_model.encoder.layers") if key.startswith("text_encoder") else key: value
        for key, value in named.items()
    }


def kohya(adapter: Adapter, renamed: Callable[[str], str] = lambda path: path) -> Tensors:
    """As sd-scripts and LyCORIS write them."""
    tensors = {}
    prefixes = {"text_encoder": "lora_te1", "text_encoder_2": "lora_te2", "unet": "lora_unet"}
    if not any(component == "text_encoder_2" for component, _ in adapter):
        prefixes["text_encoder"] = "lora_te"
    for (component, path), change in adapter.items():
        full = path if component in ("unet", "transformer") else f"text_model.{path.removeprefix('text_model.')}"
        if full.startswith("text_model.text_projection"):
            full = full.removeprefix("text_model.")
        name = f"{prefixes.get(component, 'lora_unet')}_{renamed(full).replace('.', '_')}"
        tensors[f"{name}.lora_down.weight"] = change.down
        tensors[f"{name}.lora_up.weight"] = _as_conv(change.up, change.down)
        tensors[f"{name}.alpha"] = torch.tensor(float(change.alpha))
        if change.magnitude is not None:
            tensors[f"{name}.dora_scale"] = change.magnitude.reshape(-1, *[1] * (change.down.ndim - 1))
    return tensors


def old_attention(adapter: Adapter) -> Tensors:
    """As diffusers 0.16 wrote attention processors."""
    tensors = {}
    for (component, path), change in adapter.items():
        parent, _, last = path.removesuffix(".0").rpartition(".")
        name = f"{component}.{parent}.processor.{last}_lora"
        tensors[f"{name}.down.weight"] = change.down
        tensors[f"{name}.up.weight"] = change.up * (change.alpha / change.rank)
    return tensors


def diffusers_names(adapter: Adapter) -> Tensors:
    """lora.down and lora.up, and lora_linear_layer in text encoders."""
    tensors = {}
    for (component, path), change in adapter.items():
        middle = "lora" if component in ("unet", "transformer") else "lora_linear_layer"
        tensors[f"{component}.{path}.{middle}.down.weight"] = change.down
        tensors[f"{component}.{path}.{middle}.up.weight"] = change.up * (change.alpha / change.rank)
    return tensors


def sgm(adapter: Adapter) -> Tensors:
    """kohya's form with the names of SDXL's original blocks (of the tiny model: two blocks of one layer)."""
    table = {
        "down_blocks.0.resnets.0.": "input_blocks.1.0.",
        "down_blocks.0.downsamplers.0.conv": "input_blocks.2.0.op",
        "down_blocks.1.resnets.0.": "input_blocks.3.0.",
        "down_blocks.1.attentions.0.": "input_blocks.3.1.",
        "mid_block.resnets.0.": "middle_block.0.",
        "mid_block.attentions.0.": "middle_block.1.",
        "mid_block.resnets.1.": "middle_block.2.",
        "up_blocks.0.resnets.0.": "output_blocks.0.0.",
        "up_blocks.0.attentions.0.": "output_blocks.0.1.",
        "up_blocks.0.resnets.1.": "output_blocks.1.0.",
        "up_blocks.0.attentions.1.": "output_blocks.1.1.",
        "up_blocks.0.upsamplers.0.conv": "output_blocks.1.2.conv",
        "up_blocks.1.resnets.0.": "output_blocks.2.0.",
        "up_blocks.1.resnets.1.": "output_blocks.3.0.",
    }
    inner = {"conv1": "in_layers.2", "conv2": "out_layers.3", "time_emb_proj": "emb_layers.1"}

    def renamed(path: str) -> str:
        for ours, original in table.items():
            if path.startswith(ours):
                rest = path.removeprefix(ours)
                return original + inner.get(rest, rest).replace("conv_shortcut", "skip_connection")
        return path

    return kohya(adapter, renamed)


def save(tensors: Mapping[str, torch.Tensor], file: Path, metadata: dict[str, str] | None = None) -> Path:
    save_file({name: tensor.contiguous().clone() for name, tensor in tensors.items()}, file, metadata)
    return file


def scaled(adapter: Adapter, factor: float) -> Adapter:
    return {key: replace(change, up=change.up * factor) for key, change in adapter.items()}


def _as_conv(up: torch.Tensor, down: torch.Tensor) -> torch.Tensor:
    """A convolution with a kernel of one, where `down` is one."""
    return up.reshape(*up.shape, *[1] * (down.ndim - 2))


def _is_attention(path: str) -> bool:
    return path.endswith(ATTENTION)


def is_attention_head(path: str) -> bool:
    """Of the kind that old attention processors had."""
    return path.endswith(ATTENTION[:4])


def _layers(module: nn.Module, conv: bool, wanted: Callable[[str], bool]) -> Iterator[tuple[str, Any]]:
    for path, layer in module.named_modules():
        if (isinstance(layer, nn.Linear) and wanted(path)) or (conv and isinstance(layer, nn.Conv2d)):
            yield path, layer


def _random(
    weight: torch.Tensor, generator: torch.Generator, rank: int, strength: float
) -> tuple[torch.Tensor, torch.Tensor]:
    down = torch.randn(rank, *weight.shape[1:], generator=generator) / weight[0].numel() ** 0.5
    return down, torch.randn(weight.shape[0], rank, generator=generator) * strength / rank**0.5


def _magnitude(weight: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    outputs = weight.shape[0]
    magnitude = weight.flatten(1).norm(dim=1) * (1 + 0.3 * torch.rand(outputs, generator=generator))
    return magnitude if weight.ndim == 2 else magnitude.reshape(1, outputs, 1, 1)


def main() -> None:
    os.environ.update(ENVIRONMENT)  # before the libraries are imported: the file is made without a word
    from diffusers.utils import logging

    logging.disable_progress_bar()
    forms = {"peft": peft, "kohya": kohya, "sgm": sgm}
    made = random(pipeline(sys.argv[1]), seed=1, alpha=2.0)
    save(forms[sys.argv[3] if len(sys.argv) > 3 else "kohya"](made), Path(sys.argv[2]))


if __name__ == "__main__":
    main()
