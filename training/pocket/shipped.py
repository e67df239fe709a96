"""Going on from an exported folder, where the checkpoints themselves are gone.

Where the exported networks are smaller than the recipe's, they are grown: blocks are added that change
nothing yet, and channels are repeated (Chen et al., 2016, Net2Net).
"""

from __future__ import annotations

import shutil
from itertools import product
from pathlib import Path

import torch
from diffusers import AutoencoderTiny, UNet2DConditionModel
from diffusers.models.autoencoders.vae import AutoencoderTinyBlock
from torch import Tensor, nn
from transformers import CLIPTextModel, CLIPTokenizer

from training.pocket import autoencoder, checkpoint, diffusion, words
from training.pocket.autoencoder import AutoencoderRecipe
from training.pocket.model import build_unet

_NOISE = 0.05  # of a weight's own deviation: what makes repeated channels become different ones


def to_checkpoints(folder: Path, work: Path) -> None:
    """Write the exported parts into `work` as if the stages had made them.

    The autoencoder and the text encoder count as finished; the denoiser starts
    again at step 0, with fresh optimizer state and a fresh learning-rate schedule.
    """
    shutil.copytree(folder / "tokenizer", work / "tokenizer", dirs_exist_ok=True)
    vae = deepened(AutoencoderTiny.from_pretrained(folder / "vae", dtype=torch.float32))
    checkpoint.save(work / "autoencoder.pt", checkpoint.Progress(step=AutoencoderRecipe.steps), vae=vae)
    networks = diffusion.Networks(CLIPTokenizer.from_pretrained(work / "tokenizer"))
    unet = UNet2DConditionModel.from_pretrained(folder / "unet", dtype=torch.float32)
    text_encoder = CLIPTextModel.from_pretrained(folder / "text_encoder", dtype=torch.float32)
    networks.unet = widened(unet)
    networks.text_encoder.load_state_dict(text_encoder.state_dict())
    reader = words.Reader(CLIPTokenizer.from_pretrained(work / "tokenizer"))
    reader.text_encoder.load_state_dict(text_encoder.state_dict())
    checkpoint.save(work / "words.pt", checkpoint.Progress(step=words.WordsRecipe.steps), reader=reader)
    average = diffusion.averaged(networks)
    checkpoint.save(work / "diffusion.pt", checkpoint.Progress(), networks=networks, average=average)


def deepened(vae: AutoencoderTiny) -> AutoencoderTiny:
    """The same function, with as many decoder blocks as the recipe has."""
    grown = autoencoder.build()
    grown.encoder.load_state_dict(vae.encoder.state_dict())
    rest = iter(vae.decoder.layers)
    had = next(rest)
    for layer in grown.decoder.layers:
        if isinstance(layer, AutoencoderTinyBlock) and not isinstance(had, AutoencoderTinyBlock):
            nn.init.zeros_(layer.conv[-1].weight)
            nn.init.zeros_(layer.conv[-1].bias)
            continue
        layer.load_state_dict(had.state_dict())
        had = next(rest, had)
    return grown


def widened(unet: UNet2DConditionModel) -> UNet2DConditionModel:
    """Nearly the same function, with as many channels as the recipe has: group norms over a skip group them anew."""
    torch.manual_seed(0)
    grown = build_unet()
    weights, levels = unet.state_dict(), _levels(unet, grown)
    grown.load_state_dict(
        {name: _grown(name, weights[name], shape.shape, levels) for name, shape in grown.state_dict().items()}
    )
    return grown


def _levels(unet: UNet2DConditionModel, grown: UNet2DConditionModel) -> list[tuple[int, int]]:
    """Each level's channels before and after."""
    before, after = (list(net.config["block_out_channels"]) for net in (unet, grown))
    return list(zip(before, after, strict=True))


def _grown(name: str, weight: Tensor, shape: torch.Size, levels: list[tuple[int, int]]) -> Tensor:
    """The weight with its rows repeated, its columns repeated and shared out, and a little noise where it grew."""
    if weight.shape == shape:
        return weight
    if name == "time_embedding.linear_1.weight":
        return _among_more_frequencies(weight, shape)
    rows = _origins(len(weight), shape[0], levels)
    wide = weight[rows]
    if wide.ndim > 1:
        columns = _origins(weight.shape[1], shape[1], levels)
        shares = columns.bincount()[columns].reshape(-1, *[1] * (wide.ndim - 2))
        wide = wide[:, columns] / shares
        wide = wide + _NOISE * wide.std() * torch.randn_like(wide)
    if name.endswith("to_q.weight"):  # a head's products are over more channels, its scale follows their root
        wide = wide * (len(weight) / len(wide)) ** 0.5
    return wide


def _among_more_frequencies(weight: Tensor, shape: torch.Size) -> Tensor:
    """The timestep's old frequencies stand evenly among the new ones."""
    wide = torch.zeros(shape)
    wide[:, :: shape[1] // weight.shape[1]] = weight
    return wide


def _origins(few: int, many: int, levels: list[tuple[int, int]]) -> Tensor:
    """Which old channel each new one repeats; where two levels meet at a skip, each is repeated by itself."""
    if many % few == 0:
        return torch.arange(few).repeat_interleave(many // few)
    for (below, more_below), (skip, more_skip) in product(reversed(levels), levels):  # the deeper one comes first
        if (below + skip, more_below + more_skip) == (few, many):
            first = torch.arange(below).repeat_interleave(more_below // below)
            return torch.cat([first, below + torch.arange(skip).repeat_interleave(more_skip // skip)])
    raise ValueError(f"{few} channels cannot be widened to {many}")
