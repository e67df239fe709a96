"""Configurations: a library turns their keys into imports, downloads and paths, so those keys are refused here."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from craft_protos.reasons import CraftError

from craftd import documents, modular
from craftd.documents import File
from craftd.refusal import shown, unsafe_config, unsafe_path, unsupported

_CODE = {
    "adapter_kwargs",
    "attn_implementation",
    "auto_map",
    "base_model_name_or_path",
    "custom_pipeline",
    "custom_pipelines",
    "custom_revision",
    "experts_implementation",
    "gguf_file",
    "kernel_config",
    "peft_config",
    "pretrained_model_name_or_path",
    "trust_remote_code",
    "use_kernels",
}
_LATER = {"quantization_config", "compression_config", "quantization"}
_HARMLESS: tuple[object, ...] = ("", "eager", "sdpa", [], {})  # beside null and false
_UNREAD = {"special_tokens_map_file", "tokenizer_file"}  # paths on their makers' machines, which no library reads
_VOCABULARIES = {"tokenizer.json", "vocab.json", "added_tokens.json"}  # their keys are words
_ADAPTERS = {"adapter_config.json"}
_LIBRARIES = {
    *("diffusers", "transformers"),
    # Folders of diffusers' own that hold components.
    *("deepfloyd_if", "kandinsky", "kolors", "latent_diffusion", "paint_by_example", "shap_e"),
    *("stable_diffusion", "stable_diffusion_safe", "unidiffuser", "wuerstchen"),
}
_CLASS = re.compile(r"[A-Z][A-Za-z0-9_]{0,99}")
_PART = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,63}")


def check(file: File) -> None:
    """One configuration of a component. Raises UNSAFE_CONFIG, UNSAFE_PATH, UNSUPPORTED_MODEL, CORRUPT_FILE."""
    if file.base in _ADAPTERS:
        raise unsafe_config(file.name, "an adapter's configuration loads whatever model it names")
    if file.base in _VOCABULARIES:
        documents.read(file, documents.DATA_BYTES)
        return
    _check_keys(file.name, documents.read(file))


def check_index(file: File) -> tuple[str, list[str]]:
    """model_index.json, or a modular pipeline's: its class, and the components that it has. Raises as `check`."""
    index = documents.read(file)
    index = modular.plain(index) if file.base == modular.INDEX else index
    _check_keys(file.name, index)
    kind = index.get("_class_name")
    if not isinstance(kind, str) or not kind.endswith("Pipeline"):
        raise unsupported(file.name, f"{shown(str(kind))} is no pipeline of diffusers'")
    components = [(name, value) for name, value in index.items() if isinstance(value, list) and name[:1] != "_"]
    return kind, [name for name, value in components if _check_component(file, name, value)]


def _check_component(file: File, name: str, value: list[Any]) -> bool:
    """Whether it is one: lists of numbers are settings."""
    match value:
        case [None, None]:
            return False
        case [str(library), str(kind)]:
            pass
        case [bool() | int() | float() | None, *_] | []:
            return False
        case _:
            raise unsafe_config(file.name, f"{shown(str(value))} as {shown(name)} is no library and class")
    if not _PART.fullmatch(name):
        raise unsafe_path(file.name, f"names the part {shown(name)}, which is no folder beside it")
    if library not in _LIBRARIES:
        raise unsafe_config(file.name, f"its {name} is from {shown(library)}, neither diffusers nor transformers")
    if not _CLASS.fullmatch(kind):
        raise unsafe_config(file.name, f"its {name} is {shown(kind)}, which is no class's name")
    return True


def _check_keys(name: str, config: dict[str, Any]) -> None:
    for key, value in _items(config):
        refusal = _refusal(name, key.lstrip("_"), value)
        if refusal is not None:
            raise refusal


def _items(config: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """Every key and value, at any depth."""
    waiting: list[Any] = [config]
    while waiting:
        one = waiting.pop()
        if isinstance(one, dict):
            yield from one.items()
            waiting += one.values()
        elif isinstance(one, list):
            waiting += one


def _refusal(name: str, key: str, value: object) -> CraftError | None:
    is_harmless = value is None or value is False or value in _HARMLESS
    if key in _CODE and not is_harmless:
        return unsafe_config(name, f"the key {shown(key)} would have a library load code or models from elsewhere")
    if key in _LATER and value not in (None, {}):
        return unsupported(name, f"it has a {key}: craft does not draw with quantized models yet")
    if key == "class_name" and not (isinstance(value, str) and _CLASS.fullmatch(value)):
        return unsafe_config(name, f"{shown(str(value))} is no class's name")
    if key.endswith("_file") and key not in _UNREAD and isinstance(value, str) and re.search(r"[/\\]", value):
        return unsafe_path(name, f"names the file {shown(value)} as its {key}, outside its folder")
    return None
