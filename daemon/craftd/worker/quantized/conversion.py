"""A file's names turned into diffusers', also those of packed weights, by diffusers' own converters.

A converter takes weights apart and puts them together by outputs. So each packed weight goes through it as a column of
numbers, one for each of its outputs; what comes back says which outputs of which weight are where.
"""

from __future__ import annotations

import importlib
import itertools
from collections.abc import Callable, Mapping, Sequence, Set
from typing import Any

import torch
from craft_protos.reasons import CraftError

from craftd.architectures.architecture import LDM
from craftd.architectures.rows.unets import SD1
from craftd.refusal import corrupt, shown
from craftd.worker.quantized.stored import Stored
from craftd.worker.quantized.weight import PackedWeight, joined

_UNET = SD1.network  # whose converter wants the names to begin as in whole checkpoints
_VAE_IN_PATCHES = "AutoencoderKLFlux2"  # for which diffusers has no converter in its package
_VAE_OF_VIDEOS = "AutoencoderKLQwenImage"  # whose tensors diffusers' converter knows as another class's
_PREFIXES = (LDM, "diffusion_model.", "transformer.", "unet.", "first_stage_model.", "vae.")
_ROW_BITS = 32  # of a number; above them is the weight's own, from 1


def without_prefix(stored: Mapping[str, Stored]) -> dict[str, Stored]:
    """The network's tensors, where all or, in a file with other parts, some have a known beginning."""
    for prefix in _PREFIXES:
        inside = {key.removeprefix(prefix): one for key, one in stored.items() if key.startswith(prefix)}
        if inside:
            return inside
    return dict(stored)


def converted(
    kind: Any, config: Mapping[str, Any], wanted: Set[str], stored: Mapping[str, Stored], name: str
) -> dict[str, Stored]:
    """By the names of a network of that class of diffusers'. Raises CORRUPT_FILE, UNSUPPORTED_MODEL."""
    convert = None if wanted <= stored.keys() else _converter(kind)
    if convert is None:
        return dict(stored)  # whoever fills the network says what is missing
    sources = [one for one in stored.values() if isinstance(one, PackedWeight)]
    numbers = itertools.count(1)
    given = {key: _column(next(numbers), one) if isinstance(one, PackedWeight) else one for key, one in stored.items()}
    if kind.__name__ == _UNET:
        given = {f"{LDM}{key}": one for key, one in given.items()}
    try:
        made: dict[str, torch.Tensor] = convert(config=dict(config), checkpoint=given)
    except (KeyError, IndexError) as exc:
        raise corrupt(name, f"the tensors of a {kind.__name__}", f"a file without {shown(str(exc))}") from exc
    _check_leftovers(kind, given, len(stored), name)
    return {key: _restored(key, one, sources, name) for key, one in made.items()}


def _check_leftovers(kind: Any, given: Mapping[str, object], before: int, name: str) -> None:
    """Converters take out what they know, most of them; what is left would be left out. Raises UNSUPPORTED_MODEL."""
    left = [key for key in given if key.endswith((".weight", ".bias"))]
    if left and len(given) < before / 2:
        what = f"{len(left)} tensors that no {kind.__name__} has, {shown(left[0])} among them"
        raise CraftError("UNSUPPORTED_MODEL", f"{shown(name)}: it has {what}", "it is another model's, or a variant's")


def _converter(kind: Any) -> Callable[..., Any] | None:
    """diffusers' own for files in the original layout."""
    if kind.__name__ == _VAE_IN_PATCHES:
        return _vae_in_patches
    if kind.__name__ == _VAE_OF_VIDEOS:
        utils: Any = importlib.import_module("diffusers.loaders.single_file_utils")
        of_videos: Callable[..., Any] = utils.convert_wan_vae_to_diffusers
        return of_videos
    single: Any = importlib.import_module("diffusers.loaders.single_file_model")
    name = single._get_single_file_loadable_mapping_class(kind)
    found: Callable[..., Any] | None = None
    if name is not None:
        found = single.SINGLE_FILE_LOADABLE_CLASSES[name]["checkpoint_mapping_fn"]
    return found


def _vae_in_patches(config: Mapping[str, Any], checkpoint: Mapping[str, Any]) -> dict[str, Any]:
    """FLUX.2's, as its makers name it: an autoencoder's usual names, two of them elsewhere, and statistics."""
    utils: Any = importlib.import_module("diffusers.loaders.single_file_utils")
    own = {key: one for key, one in checkpoint.items() if key.startswith("bn.")}
    others = {key.replace("encoder.quant_conv", "quant_conv"): one for key, one in checkpoint.items() if key not in own}
    others = {key.replace("decoder.post_quant_conv", "post_quant_conv"): one for key, one in others.items()}
    made: dict[str, Any] = utils.convert_ldm_vae_checkpoint(others, config)
    return {**made, "bn.num_batches_tracked": torch.tensor(0), **own}


def _column(number: int, weight: PackedWeight) -> torch.Tensor:
    """outputs, 1, ...: as many dimensions as the weight has."""
    rows = torch.arange(weight.shape[0], dtype=torch.int64) + (number << _ROW_BITS)
    return rows.view(-1, *[1] * (len(weight.shape) - 1))


def _restored(key: str, made: torch.Tensor, sources: Sequence[PackedWeight], name: str) -> Stored:
    """What stands for outputs of packed weights becomes those outputs."""
    if made.dtype != torch.int64 or not made.numel() or int(made.flatten()[0]) >> _ROW_BITS == 0:
        return made
    if made.ndim < 2 or made.numel() != made.shape[0]:
        raise CraftError(
            "UNSUPPORTED_MODEL",
            f"{shown(name)}: the layout of {shown(key)} does not go with packed weights",
            "use its bf16 or fp16 file",
        )
    return _gathered(made.flatten(), sources)


def _gathered(rows: torch.Tensor, sources: Sequence[PackedWeight]) -> Stored:
    """In runs of one weight's outputs, which mostly are all."""
    owners, places = rows >> _ROW_BITS, rows & ((1 << _ROW_BITS) - 1)
    ends = [*(torch.nonzero(owners[1:] != owners[:-1]).flatten() + 1).tolist(), len(rows)]
    pieces, start = [], 0
    for end in ends:
        pieces.append(_piece(sources[int(owners[start]) - 1], places[start:end]))
        start = end
    whole = pieces[0] if len(pieces) == 1 else joined(pieces)
    return torch.cat([one.dense(torch.float32) for one in pieces]) if whole is None else whole


def _piece(source: PackedWeight, places: torch.Tensor) -> PackedWeight:
    """Outputs that follow one another stay where they lie."""
    first, last = int(places[0]), int(places[-1])
    follow = last - first + 1 == len(places) and bool((places[1:] > places[:-1]).all())
    return source.taken(slice(first, last + 1) if follow else places)
