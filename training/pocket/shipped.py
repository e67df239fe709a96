"""Going on from an exported folder, where the checkpoints themselves are gone."""

from __future__ import annotations

import shutil
from pathlib import Path

import torch
from diffusers import AutoencoderTiny, UNet2DConditionModel
from transformers import CLIPTextModel, CLIPTokenizer

from training.pocket import checkpoint, diffusion, words
from training.pocket.autoencoder import AutoencoderRecipe


def to_checkpoints(folder: Path, work: Path) -> None:
    """Write the exported parts into `work` as if the stages had made them.

    The autoencoder and the text encoder count as finished; the denoiser starts
    again at step 0, with fresh optimizer state and a fresh learning-rate schedule.
    """
    shutil.copytree(folder / "tokenizer", work / "tokenizer", dirs_exist_ok=True)
    vae = AutoencoderTiny.from_pretrained(folder / "vae", dtype=torch.float32)
    checkpoint.save(work / "autoencoder.pt", checkpoint.Progress(step=AutoencoderRecipe.steps), vae=vae)
    networks = diffusion.Networks(CLIPTokenizer.from_pretrained(work / "tokenizer"))
    unet = UNet2DConditionModel.from_pretrained(folder / "unet", dtype=torch.float32)
    text_encoder = CLIPTextModel.from_pretrained(folder / "text_encoder", dtype=torch.float32)
    networks.unet.load_state_dict(unet.state_dict())
    networks.text_encoder.load_state_dict(text_encoder.state_dict())
    reader = words.Reader(CLIPTokenizer.from_pretrained(work / "tokenizer"))
    reader.text_encoder.load_state_dict(text_encoder.state_dict())
    checkpoint.save(work / "words.pt", checkpoint.Progress(step=words.WordsRecipe.steps), reader=reader)
    average = diffusion.averaged(networks)
    checkpoint.save(work / "diffusion.pt", checkpoint.Progress(), networks=networks, average=average)
