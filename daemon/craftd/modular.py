"""The index of diffusers' modular pipelines, read as the one that other pipelines have.

Nothing here imports torch: the front, the inspecting process and the worker read it alike.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from craft_protos.reasons import CraftError

from craftd.refusal import shown, unsupported

INDEX = "modular_model_index.json"
CONFIGURATIONS = ("modular_config.json", "config.json")  # beside it: they name code of the repository's own


def plain(index: Mapping[str, Any]) -> dict[str, Any]:
    """Each component as its library and class, in the folder of its name. Raises UNSUPPORTED_MODEL for another."""
    return {key: _component(key, value) if _is_component(value) else value for key, value in index.items()}


def settings(index: Mapping[str, Any]) -> dict[str, Any]:
    """What it says beside its components."""
    return {key: value for key, value in index.items() if not _is_component(value)}


def absent(part: str, index: Mapping[str, Any]) -> CraftError:
    """UNSUPPORTED_MODEL: a component that is not in the folder, with the repository that its index names."""
    told = index.get(part)
    source = told[2].get("pretrained_model_name_or_path") if told is not None and _is_component(told) else None
    where = f" in {shown(source)}, says {INDEX}" if isinstance(source, str) else ""
    why = f"its {part} lies elsewhere:{where}" if where else f"its {part} is missing"
    hint = f"put the files of its {part} into a folder {part} beside {INDEX}, and add the folder"
    return CraftError("UNSUPPORTED_MODEL", why, hint)


def _is_component(value: object) -> bool:
    return isinstance(value, list) and len(value) == 3 and isinstance(value[2], dict)


def _component(name: str, value: list[Any]) -> list[Any]:
    """[None, None]: the pipeline is without it."""
    spec = value[2]
    if spec.get("pretrained_model_name_or_path") is None:
        return [None, None]
    folder = spec.get("subfolder")
    if folder not in (None, "", name):
        raise unsupported(INDEX, f"its {shown(name)} lies in {shown(str(folder))}, not in the folder of its name")
    kind = spec.get("type_hint")
    return list(kind) if isinstance(kind, list) else value[:2]
