"""One module for each architecture; all of them look the same from outside (base.py)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from craftd.worker.families.base import Family
from craftd.worker.families.chroma import Chroma
from craftd.worker.families.flux import Flux, FluxFill, FluxKontext
from craftd.worker.families.flux2 import Flux2Dev, Flux2Klein
from craftd.worker.families.krea2 import Krea2
from craftd.worker.families.qwen import QwenImage, QwenImageEdit, QwenImageEditPlus
from craftd.worker.families.sd import StableDiffusion
from craftd.worker.families.sd3 import StableDiffusion3
from craftd.worker.families.sdxl import StableDiffusionXL, StableDiffusionXLRefiner
from craftd.worker.families.z_image import ZImage

# As the registry's rows name them; of the pipelines that have none, the own loop is called (generic.py).
FAMILIES: dict[str, Callable[[Any, torch.device], Family]] = {
    "sd": StableDiffusion,
    "sdxl": StableDiffusionXL,
    "sdxl-refiner": StableDiffusionXLRefiner,
    "sd3": StableDiffusion3,
    "flux": Flux,
    "flux-kontext": FluxKontext,
    "flux-fill": FluxFill,
    "chroma": Chroma,
    "flux2": Flux2Klein,
    "flux2-dev": Flux2Dev,
    "z-image": ZImage,
    "qwen-image": QwenImage,
    "qwen-image-edit": QwenImageEdit,
    "qwen-image-edit-plus": QwenImageEditPlus,
    "krea2": Krea2,
}
