"""The VAE of Qwen-Image in its makers' names, which are those of an autoencoder of videos."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from craftd.architectures import detect, parts
from craftd.models import checkpoint
from craftd.safetensors import Header, Tensor
from craftd.worker.quantized import conversion
from diffusers import AutoencoderKLQwenImage
from diffusers.loaders.single_file_utils import convert_wan_vae_to_diffusers

_RESIDUAL = ("0.gamma", "2.weight", "2.bias", "3.gamma", "6.weight", "6.bias")
_SAMPLED = (*(f"residual.{end}" for end in _RESIDUAL), "shortcut", "resample.1", "time_conv")
_ATTENTION = ("norm.gamma", "to_qkv", "proj")


def test_all_its_tensors_are_found_by_them() -> None:
    """Of the real widths, without any weights."""
    config = json.loads((checkpoint._CARRIED / "qwen-image" / "vae" / "config.json").read_text())
    with torch.device("meta"):
        ours = AutoencoderKLQwenImage.from_config(config).state_dict()
    theirs = {_inverse()[name]: one for name, one in ours.items()}
    made = conversion.converted(AutoencoderKLQwenImage, config, ours.keys(), theirs, "vae.safetensors")
    assert _shapes(made) == _shapes(ours)
    for layout in (theirs, ours):
        found = detect.of_part(_header(layout))
        assert found is not None and found.kind.id == parts.QWEN_IMAGE_VAE.id


def _inverse() -> dict[str, str]:
    """diffusers' names -> the makers', as diffusers' own converter has them."""
    return {str(next(iter(convert_wan_vae_to_diffusers({name: None})))): name for name in _names()}


def _names() -> Iterator[str]:
    places = [f"{half}.{place}" for half in ("encoder", "decoder") for place in ("conv1", "head.0", "head.2")]
    for half, sampling in (("encoder", "downsamples"), ("decoder", "upsamples")):
        places += [f"{half}.{sampling}.{number}.{end}" for number in range(16) for end in _SAMPLED]
        places += [f"{half}.middle.{number}.residual.{end}" for number in (0, 2) for end in _RESIDUAL]
        places += [f"{half}.middle.1.{end}" for end in _ATTENTION]
    for place in (*places, "conv1", "conv2"):
        yield place
        yield from (f"{place}.{end}" for end in ("weight", "bias", "gamma"))


def _shapes(tensors: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    return {name: tuple(one.shape) for name, one in tensors.items()}


def _header(tensors: Mapping[str, Any]) -> Header:
    return Header(tuple(Tensor(name, "BF16", shape, 0, 0) for name, shape in sorted(_shapes(tensors).items())), 0, {})
