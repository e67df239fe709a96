"""A whole model: what craft would open of it, and nothing that could do harm among it."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

from craft_protos.reasons import CraftError

from craftd.worker.inspection import configs, shards, weights
from craftd.worker.inspection.refusal import corrupt, shown
from craftd.worker.inspection.tree import File, Tree, single

_INDEX = "model_index.json"
_OVERRIDES = "craft.json"
_PICKLES = (".bin", ".ckpt", ".pt", ".pth", ".pkl", ".pickle")
# Parts that are handed to no worker where craft has a family of its own.
_LEFT_OUT = {"safety_checker", "feature_extractor", "image_encoder"}
_LEAVE_OUT = {"StableDiffusionPipeline", "StableDiffusionXLPipeline", "StableDiffusion3Pipeline", "FluxPipeline"}


def check(path: Path) -> None:
    """A diffusers folder or a single file. Raises UNSAFE_PATH, UNSAFE_FORMAT, UNSAFE_CONFIG, CORRUPT_FILE, ..."""
    if path.is_dir():
        _check_folder(path)
    else:
        _check_single(path)


def _check_folder(path: Path) -> None:
    tree = Tree(path)
    root = {file.name: file for file in tree.part("") or []}
    if _INDEX not in root:
        raise CraftError(
            "CORRUPT_FILE",
            f"{_INDEX}: expected a diffusers model's index, found none",
            f"give the folder that {_INDEX} lies in, or a checkpoint: one .safetensors file",
        )
    kind, parts = configs.check_index(root[_INDEX])
    if _OVERRIDES in root:
        configs.check(root[_OVERRIDES])
    unused = _LEFT_OUT if kind in _LEAVE_OUT else set()
    for part in parts:
        if part not in unused:
            _check_part(part, tree.part(part), path)


def _check_part(part: str, files: list[File] | None, path: Path) -> None:
    if files is None:
        raise corrupt(_INDEX, f"the folder {shown(part)} beside it", "none")
    tensors = {file.base: weights.check(file) for file in files if _is_weights(file, path)}
    pickles = [file for file in files if file.name.lower().endswith(_PICKLES)]
    if pickles and not tensors:
        raise _pickle(pickles[0].name, path)
    for file in files:
        if shards.is_index(file.name):
            shards.check(file, tensors, is_alone=not tensors)
        elif file.name.endswith(".json"):
            configs.check(file)


def _check_single(path: Path) -> None:
    file = single(path)
    if path.name.lower().endswith(_PICKLES):
        raise _pickle(file.name, path)
    _is_weights(file, path)
    weights.check(file)


def _is_weights(file: File, path: Path) -> bool:
    """A safetensors file, by its name. Raises UNSAFE_FORMAT for a pickle that has borrowed it."""
    if not file.name.lower().endswith(".safetensors"):
        return False
    if "pickle" in weights.sniff(file.read(0, 16)):
        raise _pickle(file.name, path)
    return True


def _pickle(name: str, path: Path) -> CraftError:
    return CraftError(
        "UNSAFE_FORMAT",
        f"{shown(name)} is a pickle file, which could run code; craft opens safetensors files only",
        f"convert it, if you trust who made it: {_command(path)}",
    )


def _command(path: Path) -> str:
    name = re.sub(r"\.[A-Za-z]+$", "", path.name)
    target = str(path.with_name(f"{name}-safetensors"))
    load = "from_pretrained" if path.is_dir() else "from_single_file"
    kind = "DiffusionPipeline" if path.is_dir() else "StableDiffusionPipeline"
    code = (
        f"from diffusers import {kind} as P; P.{load}({str(path)!r}, use_safetensors=False).save_pretrained({target!r})"
    )
    return f"python -c {shlex.quote(code)}"
