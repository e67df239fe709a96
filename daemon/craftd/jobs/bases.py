"""Which architecture a model is, in the words that LoRAs are sorted by. Blocking."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path

import craftd
from craftd.models.model import Model
from craftd.models.registry import BUILT_IN

_FAMILIES = ("sdxl", "sd3", "flux")
_WIDTHS = {768: "sd1", 1024: "sd2"}  # of the text that a Stable Diffusion UNet attends to
_CONFIG = "unet/config.json"


def base_of(model: Model) -> str:
    """ "sd1", "sd2", "sdxl", "sd3", "flux", "pocket", or "" where that cannot be told."""
    if model.family in _FAMILIES:
        return model.family
    source = next((file.source for file in model.files if file.path == _CONFIG), None)
    if model.family != "sd" or source is None:
        return ""
    width = _width(source)
    return _WIDTHS.get(width) or (BUILT_IN if width and width == _pocket_width() else "")


def _width(config: Path) -> int:
    try:
        width = json.loads(config.read_bytes()).get("cross_attention_dim")
    except (OSError, ValueError, AttributeError):
        return 0
    return width if isinstance(width, int) else 0


@cache
def _pocket_width() -> int:
    """0 where craft came without its built-in model."""
    return _width(Path(craftd.__file__).parent / BUILT_IN / _CONFIG)
