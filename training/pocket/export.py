"""Stage 7: the trained parts as a diffusers folder, in half precision."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import torch
from diffusers import AutoencoderTiny, StableDiffusionPipeline
from torch import Tensor
from transformers import CLIPTokenizer

from training.pocket.diffusion import Networks
from training.pocket.model import default_sampler

# What craft uses where a request says nothing; other programs ignore the file.
DEFAULTS = {"width": 256, "height": 256, "steps": 12, "guidance_scale": 2.0, "sampler": "DPM++ 2M"}


def latent_scale(latents: Tensor) -> float:
    """The factor that gives latents unit standard deviation."""
    return float(1.0 / latents.float().std())


def with_scale(vae: AutoencoderTiny, scale: float) -> AutoencoderTiny:
    """The autoencoder, naming the factor in its configuration."""
    vae.register_to_config(scaling_factor=scale)
    return vae


def assemble(vae: AutoencoderTiny, networks: Networks, tokenizer: CLIPTokenizer) -> StableDiffusionPipeline:
    """The pipeline that diffusers would load from the exported folder."""
    return StableDiffusionPipeline(
        vae=vae,
        text_encoder=networks.text_encoder,
        tokenizer=tokenizer,
        unet=networks.unet,
        scheduler=default_sampler(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def export(pipeline: StableDiffusionPipeline, tokenizer: Path, folder: Path) -> None:
    """Write the folder: fp16 safetensors, configurations, craft.json; the model card stays.

    `tokenizer` is where vocab.json and merges.txt lie: other programs read those, diffusers tokenizer.json.
    """
    pipeline.to(torch.float16).save_pretrained(folder, safe_serialization=True)
    for name in ("vocab.json", "merges.txt"):
        shutil.copyfile(tokenizer / name, folder / "tokenizer" / name)
    _forget_derived(folder / "vae" / "config.json")
    for weights in folder.rglob("*.safetensors"):
        weights.chmod(0o644)  # safetensors keeps them from other users, who may run craft too
    (folder / "craft.json").write_text(json.dumps(DEFAULTS, indent=2) + "\n", encoding="utf-8")


def _forget_derived(config: Path) -> None:
    """AutoencoderTiny saves a key that it derives itself and then warns of at each load."""
    kept = {key: value for key, value in json.loads(config.read_text()).items() if key != "block_out_channels"}
    config.write_text(json.dumps(kept, indent=2) + "\n", encoding="utf-8")
