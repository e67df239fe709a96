"""What models have for LoRAs to change, from their configurations alone: networks without weights, on no device.

The libraries that build them are imported first, then the process gives up what it needs no more: a configuration
that asks for a billion layers meets the limits of time and memory.
"""

from __future__ import annotations

import importlib
import json
import logging
import os
import warnings
from collections.abc import Iterable, Mapping
from typing import Any

from craft_protos.reasons import CraftError

from craftd.worker.process.options import ENVIRONMENT

DENOISERS = ("transformer", "unet")
TEXT_ENCODERS = ("text_encoder", "text_encoder_2", "text_encoder_3")
_LIBRARIES = ("diffusers", "transformers")
_INDEX = "model_index.json"

Parts = Mapping[str, str]  # "model_index.json", "unet/config.json", ... -> their text


def prepare() -> None:
    """Import what builds networks, before the process is confined."""
    os.environ.update(ENVIRONMENT)
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    for name in ("torch", "diffusers", "transformers"):
        importlib.import_module(name)


def of(parts: Parts) -> str:
    """One model's layout as JSON. Raises UNSUPPORTED_MODEL."""
    import torch

    from craftd.worker.lora.targets import layout_of

    index = _parsed(parts, _INDEX)
    pipeline = _pipeline(index.get("_class_name"))
    with torch.device("meta"):
        built = {name: _network(name, index, parts) for name in _present(index, parts)}
    if not built or next(iter(built)) not in DENOISERS:
        raise _unknown("it has no network that LoRAs change")
    return layout_of(pipeline, built).to_json()


def _present(index: Mapping[str, Any], parts: Parts) -> Iterable[str]:
    denoiser = next((name for name in DENOISERS if f"{name}/config.json" in parts), "")
    names = [name for name in (denoiser, *TEXT_ENCODERS) if f"{name}/config.json" in parts]
    return [name for name in names if isinstance(index.get(name), list) and None not in index[name]]


def _pipeline(kind: object) -> type:
    found = getattr(importlib.import_module("diffusers"), str(kind), None)
    if not isinstance(found, type) or not str(kind).endswith("Pipeline"):
        raise _unknown("its pipeline is none of diffusers'")
    return found


def _network(name: str, index: Mapping[str, Any], parts: Parts) -> Any:
    library, kind = (str(one) for one in index[name][:2])
    if library not in _LIBRARIES:
        raise _unknown(f"its {name} is from another library")
    found: Any = getattr(importlib.import_module(library), kind, None)
    config = _parsed(parts, f"{name}/config.json")
    try:
        if library == "diffusers":
            return found.from_config(config)
        return found(found.config_class.from_dict(config))
    except (ValueError, KeyError, TypeError, AttributeError, RuntimeError, ImportError) as exc:
        raise _unknown(f"its {name} cannot be built: {exc}"[:300]) from exc


def _parsed(parts: Parts, name: str) -> dict[str, Any]:
    try:
        found = json.loads(parts[name])
    except (KeyError, ValueError, RecursionError) as exc:
        raise _unknown(f"its {name} cannot be read") from exc
    if not isinstance(found, dict):
        raise _unknown(f"its {name} is no JSON object")
    return found


def _unknown(why: str) -> CraftError:
    return CraftError("UNSUPPORTED_MODEL", f"what it has for LoRAs is not known: {why}", "use another model")
