"""Models of real sizes with random weights: what a step costs does not depend on what the weights say."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

_ARCHITECTURES = Path(__file__).parent.parent / "daemon" / "craftd" / "architectures"


def stable_diffusion() -> Path:
    """A folder in the sizes of Stable Diffusion 1.5, 4.3 GB; kept for the next time."""
    folder = Path(tempfile.gettempdir()) / f"craft-benchmark-sd1-{os.getuid()}"
    if (folder / "model_index.json").exists():
        return folder
    import torch
    from diffusers import AutoencoderKL, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel

    place = _ARCHITECTURES / "sd1"
    shutil.copytree(place, folder, ignore=shutil.ignore_patterns("model_index.json"), dirs_exist_ok=True)
    shutil.copytree(_ARCHITECTURES / "tokenizers" / "clip", folder / "tokenizer", dirs_exist_ok=True)
    torch.manual_seed(1)
    unet: Any = UNet2DConditionModel.from_config(UNet2DConditionModel.load_config(place / "unet"))
    unet.save_pretrained(folder / "unet")
    del unet
    vae: Any = AutoencoderKL.from_config(AutoencoderKL.load_config(place / "vae"))
    vae.save_pretrained(folder / "vae")
    CLIPTextModel(CLIPTextConfig.from_pretrained(place / "text_encoder")).save_pretrained(folder / "text_encoder")
    shutil.copy(place / "model_index.json", folder)
    return folder
