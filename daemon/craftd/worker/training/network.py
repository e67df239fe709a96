"""What is learned beside a model's layers: peft's networks, and the ranks of their layers."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from craft_protos.reasons import invalid
from craft_protos.train import TrainSpec
from craft_protos.train_options import LOHA, LOKR
from peft import LoHaConfig, LoKrConfig, LoraConfig
from peft.tuners.lora import layer as peft_layers
from torch import nn

from craftd.worker.quantized.layers import PackedLinear, form_of

# Of a UNet: those of its residual blocks, as kohya's scripts train them where a rank of convolutions is given.
_CONVOLUTIONS = ("conv1", "conv2", "conv_shortcut", "time_emb_proj", "downsamplers.0.conv", "upsamplers.0.conv")

Ranks = Mapping[str, int]  # by layer


class _OverPacked(peft_layers.Linear):
    """peft's adapter beside a packed layer, whose sides peft takes from no class that it does not know."""

    def _get_in_out_features(self, module: nn.Module) -> tuple[int, int]:
        assert isinstance(module, PackedLinear)
        return module.in_features, module.out_features


def configuration(recipe: TrainSpec, targets: Sequence[str], ranks: Ranks | None) -> Any:
    """peft's. `targets`: the ends of layers' names; `ranks`: instead of them, where layers differ."""
    ratio = recipe.alpha / recipe.rank
    patterns = {} if ranks is None else _patterns({name: rank for name, rank in ranks.items() if rank != recipe.rank})
    shared: dict[str, Any] = {
        "r": recipe.rank,
        "target_modules": list(targets if ranks is None else ranks),
        "rank_pattern": patterns,
        "alpha_pattern": {pattern: rank * ratio for pattern, rank in patterns.items()},
    }
    if recipe.network == LOHA:
        return LoHaConfig(alpha=recipe.alpha, **shared)  # type: ignore[arg-type]
    if recipe.network == LOKR:
        return LoKrConfig(alpha=recipe.alpha, decompose_factor=recipe.lokr_factor or -1, **shared)  # type: ignore[arg-type]
    made = LoraConfig(
        lora_alpha=recipe.alpha,  # type: ignore[arg-type]
        init_lora_weights="gaussian",
        use_dora=recipe.dora,
        **shared,
    )
    made._register_custom_module({PackedLinear: _OverPacked})
    return made


def check(recipe: TrainSpec, network: nn.Module) -> None:
    """What packed weights cannot do. Raises INVALID_FIELD."""
    if not form_of(network):
        return
    if recipe.dora:
        raise invalid("dora", "needs the weights' own directions, and the model's are packed", "leave --dora out")
    if recipe.network in (LOHA, LOKR):
        raise invalid("network", f"{recipe.network} is learned over unpacked weights alone", "take lora")


def ranks_of(recipe: TrainSpec, targets: Sequence[str], network: nn.Module) -> Ranks | None:
    """Of the layers of what denoises; None where all targets have the recipe's. Raises INVALID_FIELD."""
    blocks = recipe.ranks_of_blocks
    if not blocks and not recipe.conv_rank:
        return None
    chosen = [*targets, *(_CONVOLUTIONS if recipe.conv_rank else ())]
    layers = {name: layer for name, layer in _layers(network) if _is_one(name, chosen)}
    for block in blocks:
        if not any(_is_inside(name, block) for name in layers):
            hint = "layers are called as diffusers has them: down_blocks.0, transformer_blocks.3"
            raise invalid("block_ranks", f"no layer that is trained lies in {block!r}", hint)
    found = {name: _rank(recipe, blocks, name, layer) for name, layer in layers.items()}
    return {name: rank for name, rank in found.items() if rank}


def _rank(recipe: TrainSpec, blocks: Mapping[str, int], name: str, layer: nn.Module) -> int:
    """Of the longest beginning that is told."""
    fitting = [block for block in blocks if _is_inside(name, block)]
    if fitting:
        return blocks[max(fitting, key=len)]
    is_wide = isinstance(layer, nn.Conv2d) and layer.kernel_size != (1, 1)
    return recipe.conv_rank if recipe.conv_rank and is_wide else recipe.rank


def _layers(network: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    return (
        (name, one) for name, one in network.named_modules() if isinstance(one, nn.Linear | nn.Conv2d | PackedLinear)
    )


def _is_one(name: str, ends: Sequence[str]) -> bool:
    return any(name == end or name.endswith(f".{end}") for end in ends)


def _is_inside(name: str, block: str) -> bool:
    return name == block or name.startswith(f"{block}.")


def _patterns(ranks: Ranks) -> dict[str, int]:
    """A pattern a rank: peft goes through all of them for each layer."""
    named: dict[int, list[str]] = defaultdict(list)
    for name, rank in ranks.items():
        named[rank].append(re.escape(name))
    return {"|".join(names): rank for rank, names in named.items()}
