"""An upscaler's file -> its network, by Spandrel, which tells their architectures by the tensors' names and shapes.

Only safetensors files are read. Inspecting processes call this, too, for strangers' files.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from craft_protos.reasons import CraftError
from safetensors import SafetensorError
from safetensors.torch import load_file

from craftd.worker import torchvision

with torchvision.stood_in():  # two of its architectures name it, and neither enlarges
    from spandrel import MAIN_REGISTRY, ImageModelDescriptor, UnsupportedModelError, canonicalize_state_dict

_PURPOSES = ("SR", "Restoration")
_CHANNELS = (1, 3)
_LARGEST_SCALE = 16


def read(path: Path, name: str) -> ImageModelDescriptor[Any]:
    """On the CPU, in the precision of the file. Raises UNSUPPORTED_MODEL, CORRUPT_FILE."""
    try:
        found = MAIN_REGISTRY.load(canonicalize_state_dict(load_file(path)))
    except UnsupportedModelError:
        raise _unsupported(name, "its tensors are those of no upscaler that Spandrel knows") from None
    except SafetensorError as exc:
        raise CraftError("CORRUPT_FILE", f"{name}: {exc}", "get the file again") from exc
    except (RuntimeError, ValueError, KeyError, TypeError, IndexError, AttributeError, AssertionError) as exc:
        why = (str(exc).splitlines() or [type(exc).__name__])[0][:200]
        raise _unsupported(name, f"its tensors fit no upscaler that Spandrel knows ({why})") from exc
    return _checked(found, name)


def is_finite(found: ImageModelDescriptor[Any]) -> bool:
    """Says whether none of its numbers is NaN or infinite."""
    numbers = (one for one in found.model.state_dict().values() if one.is_floating_point())
    return all(bool(torch.isfinite(one).all()) for one in numbers)


def _checked(found: Any, name: str) -> ImageModelDescriptor[Any]:
    kind = f"{found.architecture.name} network"
    if not isinstance(found, ImageModelDescriptor) or found.purpose not in _PURPOSES:
        raise _unsupported(name, f"it is a {kind} for {_told(found.purpose)}, which enlarges no pictures")
    if found.input_channels not in _CHANNELS or found.output_channels != found.input_channels:
        channels = f"of {found.input_channels} channels to {found.output_channels}"
        raise _unsupported(name, f"it is a {kind} {channels}; craft enlarges with those of colour, or of grey alone")
    if not 1 <= found.scale <= _LARGEST_SCALE:
        raise _unsupported(name, f"it is a {kind} that enlarges {found.scale} times; the limit is {_LARGEST_SCALE}")
    return found


def _told(purpose: str) -> str:
    return {"FaceSR": "faces", "Inpainting": "inpainting"}.get(purpose, purpose)


def _unsupported(name: str, why: str) -> CraftError:
    return CraftError("UNSUPPORTED_MODEL", f"{name}: {why}", "`craft models list` shows what can be used")
