"""What a training's network may be: by its model, and by the LoRA that it begins with."""

from __future__ import annotations

from collections.abc import Iterator

from craft_protos.reasons import invalid
from craft_protos.train import PEFT, TrainRequest
from craft_protos.train_options import LORA

from craftd.architectures.blocks import UNET
from craftd.loras.lora import Lora
from craftd.models.model import Model

_PLAIN = "only a plain LoRA can be begun with: train anew"


def check(asked: TrainRequest, model: Model, base: Lora | None) -> None:
    """Raises INVALID_FIELD."""
    for name, why, hint in (*_of_itself(asked, model), *(() if base is None else _of_base(asked, model, base))):
        raise invalid(name, why, hint)


def _of_itself(asked: TrainRequest, model: Model) -> Iterator[tuple[str, str, str]]:
    if asked.conv_rank and model.architecture.network != UNET:
        yield "conv_rank", f"a {model.architecture.name} has no convolutions that are trained", "leave it out"
    if asked.network == LORA:
        return
    if asked.dora:
        yield "dora", f"does not go with {asked.network}", "give --network lora, or leave --dora out"
    if asked.format == PEFT:
        yield "format", f"a {asked.network} has no layout of peft's that others read", "leave it out: LyCORIS' own"


def _of_base(asked: TrainRequest, model: Model, base: Lora) -> Iterator[tuple[str, str, str]]:
    found, name = base.findings, base.name
    if base.is_embedding or not found.rank:
        yield "base_lora", f"{name} is no LoRA of a rank but {found.format}", _PLAIN
    if found.is_dora:
        yield "base_lora", f"{name} is a DoRA", _PLAIN
    if found.base and model.architecture.id and found.base != model.architecture.id:
        yield "base_lora", f"{name} was made for {found.base}, the model is {model.architecture.id}", "take another"
    if found.adapts_text_encoder and not asked.train_text_encoder:
        yield "base_lora", f"{name} changes the text encoder too", "give --te, so that it is trained on"
    if asked.rank is not None and asked.rank != found.rank:
        yield "rank", f"must be {found.rank}, which {name} has, not {asked.rank}", "leave it out"
    for field, is_there in (
        ("network", asked.network != LORA),
        ("dora", asked.dora),
        ("conv_rank", bool(asked.conv_rank)),
        ("block_ranks", bool(asked.block_ranks)),
    ):
        if is_there:
            yield field, f"does not go with a beginning: layers and ranks are those of {name}", "leave it out"
