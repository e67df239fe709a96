"""A whole model: what craft would open of it, and nothing that could do harm among it."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

from craft_protos.reasons import CraftError

from craftd import documents, gguf, modular, safetensors
from craftd.architectures import detect
from craftd.documents import File
from craftd.refusal import corrupt, shown
from craftd.worker.inspection import chat, configs, scaled, shards
from craftd.worker.inspection.tree import Tree, single

_INDEX = "model_index.json"
_OVERRIDES = "craft.json"
_OF_COMPONENTS = {"config.json", "tokenizer_config.json"}  # a component's folder has one of these, a model's has none
_WITH_TEMPLATES = ("tokenizer_config.json", "processor_config.json", "chat_template.json")
_PICKLES = (".bin", ".ckpt", ".pt", ".pth", ".pkl", ".pickle")


def check(path: Path) -> None:
    """A diffusers folder, or one safetensors or GGUF file.

    Raises UNSAFE_PATH, UNSAFE_FORMAT, UNSAFE_CONFIG, CORRUPT_FILE, UNSUPPORTED_MODEL, NOT_FINITE.
    """
    if path.is_dir():
        _check_folder(path)
    else:
        _check_single(path)


def _check_folder(path: Path) -> None:
    _require_index(path)
    tree = Tree(path)
    root = {file.name: file for file in tree.part("") or []}
    is_modular = _INDEX not in root and modular.INDEX in root
    if _INDEX not in root and not is_modular and _OF_COMPONENTS & set(root):
        _check_files(tree.part("") or [], path)
        return
    kind, parts = configs.check_index(root[modular.INDEX if is_modular else _INDEX])
    if is_modular:
        _check_modular(root, tree, [part for part in parts if part not in detect.of_pipeline(kind, None).unused_parts])
    if _OVERRIDES in root:
        configs.check(root[_OVERRIDES])
    unused = detect.of_pipeline(kind, None).unused_parts
    for part in parts:
        if part not in unused:
            _check_part(part, tree.part(part), path)


def _check_modular(root: dict[str, File], tree: Tree, parts: list[str]) -> None:
    """That it is drawn without code of its own, and has what its index names."""
    for name in modular.CONFIGURATIONS:
        if name in root:
            configs.check(root[name])
    absent = next((part for part in parts if tree.part(part) is None), None)
    if absent is not None:
        raise modular.absent(absent, documents.read(root[modular.INDEX]))


def _require_index(path: Path) -> None:
    """Before anything else in it is looked at: a folder that is no model is told as one, whatever it holds."""
    if not {_INDEX, modular.INDEX, *_OF_COMPONENTS} & {entry.name for entry in path.iterdir()}:
        raise CraftError(
            "CORRUPT_FILE",
            f"{_INDEX}: expected a diffusers model's index, found none",
            f"give the folder that {_INDEX} lies in, or a checkpoint: one .safetensors file",
        )


def _check_part(part: str, files: list[File] | None, path: Path) -> None:
    if files is None:
        raise corrupt(_INDEX, f"the folder {shown(part)} beside it", "none")
    _check_files(files, path)


def _check_files(files: list[File], path: Path) -> None:
    """A component's."""
    tensors = {file.base: frozenset(safetensors.read(file).shapes) for file in files if _is_weights(file, path)}
    pickles = [file for file in files if file.name.lower().endswith(_PICKLES)]
    if pickles and not tensors:
        raise _pickle(pickles[0].name, path)
    for file in files:
        if shards.is_index(file.name):
            shards.check(file, tensors, is_alone=not tensors)
        elif file.name.endswith(".json"):
            configs.check(file)
        elif chat.is_one(file):
            chat.check(file)
    for file in files:
        if file.base in _WITH_TEMPLATES:
            chat.check_configuration(file)


def _check_single(path: Path) -> None:
    file = single(path)
    if path.name.lower().endswith(_PICKLES):
        raise _pickle(file.name, path)
    if path.name.lower().endswith(".gguf") or file.read(0, 4) == gguf.MAGIC:
        gguf.read(file)
        return
    _is_weights(file, path)
    scaled.check(file, safetensors.read(file))


def _is_weights(file: File, path: Path) -> bool:
    """A safetensors file, by its name. Raises UNSAFE_FORMAT for a pickle that has borrowed it."""
    if not file.name.lower().endswith(".safetensors"):
        return False
    if "pickle" in safetensors.sniff(file.read(0, 16)):
        raise _pickle(file.name, path)
    return True


def _pickle(name: str, path: Path) -> CraftError:
    return CraftError(
        "UNSAFE_FORMAT",
        f"{shown(name)} is a pickle file, which could run code; craft opens safetensors files only",
        f"convert it: {_command(path)}",
    )


def _command(path: Path) -> str:
    if not path.is_dir():
        return f"craft convert {shlex.quote(str(path))}"
    name = re.sub(r"\.[A-Za-z]+$", "", path.name)
    target = str(path.with_name(f"{name}-safetensors"))
    load = f"P.from_pretrained({str(path)!r}, use_safetensors=False)"
    code = f"from diffusers import DiffusionPipeline as P; {load}.save_pretrained({target!r})"
    return f"python -c {shlex.quote(code)}"
