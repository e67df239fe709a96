"""What peft saves in two files: adapter_model.safetensors, and adapter_config.json, which says how strong it is.

craft keeps a LoRA as one file, whose hash is all that a picture depends on, so the second becomes part of a copy of
the first: as the metadata in which diffusers' networks save the same. What it means is the reading's to say.
"""

from __future__ import annotations

import json
from pathlib import Path, PurePosixPath

from craft_protos.reasons import CraftError

from craftd import safetensors
from craftd.documents import File

WEIGHTS, CONFIG = "adapter_model.safetensors", "adapter_config.json"
_KEY = "lora_adapter_metadata"
_LARGEST_BYTES = 1 << 20


def config_beside(path: Path) -> bytes:
    """Of peft's file; b"" where there is none. Raises CORRUPT_FILE."""
    beside = path.with_name(CONFIG)
    if path.name != WEIGHTS or not beside.is_file():
        return b""
    try:
        with beside.open("rb") as stream:
            return checked(stream.read(_LARGEST_BYTES + 1))
    except OSError as exc:
        raise _corrupt(f"cannot be read: {exc.strerror}") from exc


def name_beside(name: str, names: list[str]) -> list[str]:
    """The same among a repository's files: its name, or nothing."""
    beside = str(PurePosixPath(name).with_name(CONFIG))
    return [beside] if PurePosixPath(name).name == WEIGHTS and beside in names else []


def checked(config: bytes) -> bytes:
    """Raises CORRUPT_FILE for what is no configuration."""
    if len(config) > _LARGEST_BYTES:
        raise _corrupt(f"has more than {_LARGEST_BYTES} bytes")
    try:
        is_object = isinstance(json.loads(config), dict)
    except (ValueError, RecursionError):
        is_object = False
    if not is_object:
        raise _corrupt("holds no JSON object")
    return config


def header_with(path: Path, config: bytes) -> tuple[bytes, int] | None:
    """The beginning that a file which has been checked gets, and the length of its own; None: it says all itself.

    Raises CORRUPT_FILE.
    """
    header, length = safetensors.document(File(str(path), path.resolve()))
    metadata = header.pop("__metadata__", None) or {}
    if _KEY in metadata:
        return None
    said = json.dumps(json.loads(config), sort_keys=True)
    return safetensors.packed({"__metadata__": {**metadata, _KEY: said}, **header}), length


def _corrupt(why: str) -> CraftError:
    return CraftError("CORRUPT_FILE", f"the {CONFIG} beside {WEIGHTS} {why}", "save the adapter again")
