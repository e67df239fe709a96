"""Which files of a diffusers folder are the model's: of one on this disk, and of one on the hub."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any

from craft_protos.reasons import CraftError

from craftd import modular
from craftd.architectures.architecture import Architecture

INDEX = "model_index.json"
_TEXTS = (".json", ".txt", ".model")
_TEMPLATE = "chat_template.jinja"  # how a tokenizer makes one text of a conversation
_PICKLES = (".bin", ".ckpt", ".pt", ".pth", ".pkl")
_OTHER_FRAMEWORKS = ("flax_", "tf_", "openvino_")
_VARIANT = re.compile(r"\.(fp16|bf16|fp32|non_ema)\b")
_HALVES = (".fp16", ".bf16")


def parts(index: dict[str, Any], architecture: Architecture) -> list[str]:
    """The folders of its components, by name. Raises UNSAFE_PATH."""
    found = []
    for part, value in sorted(index.items()):
        if (
            isinstance(value, list)
            and len(value) == 2
            and isinstance(value[1], str)
            and part not in architecture.unused_parts
        ):
            if re.search(r"[/\\]|^\.", part):
                raise CraftError("UNSAFE_PATH", f"{INDEX}: {part[:100]!r} is not the name of a part")
            found.append(part)
    return found


def of_repository(
    names: Iterable[str], index: dict[str, Any], architecture: Architecture, *, prefers_half: bool
) -> list[str]:
    """Those of a repository's files that are to be fetched, beside its index.

    Raises UNSAFE_FORMAT, UNSAFE_PATH, CORRUPT_FILE, and UNSUPPORTED_MODEL for a modular one whose parts lie elsewhere.
    """
    known: list[str] = list(names)
    chosen: list[str] = []
    is_modular = INDEX not in known
    for part in parts(modular.plain(index) if is_modular else index, architecture):
        inside = [name.removeprefix(f"{part}/") for name in known if name.startswith(f"{part}/")]
        direct = sorted(name for name in inside if "/" not in name)
        if not direct and is_modular:
            raise modular.absent(part, index)
        if not direct:
            raise CraftError("CORRUPT_FILE", f"{INDEX}: names the part {part}, of which the repository has no files")
        chosen += [f"{part}/{name}" for name in of_part(direct, part, prefers_half=prefers_half)]
    return chosen


def of_part(names: Sequence[str], place: str, *, prefers_half: bool = False) -> list[str]:
    """Texts, and weights of one precision: full, where nothing else is preferred. Raises UNSAFE_FORMAT."""
    weights = [name for name in names if name.endswith(".safetensors") and not name.startswith(_OTHER_FRAMEWORKS)]
    if not weights and any(name.endswith(_PICKLES) for name in names):
        raise CraftError(
            "UNSAFE_FORMAT",
            f"{place}: only pickle files, which could run code, hold the weights",
            "use a model or a revision that has .safetensors files",
        )
    indexes = [name for name in names if ".safetensors.index." in name]
    texts = [name for name in names if name.endswith(_TEXTS) and ".index." not in name and not _is_foreign(name)]
    texts += [name for name in names if name == _TEMPLATE]
    return texts + _one_precision(weights, indexes, prefers_half)


def plain_name(name: str) -> str:
    """A single file of a variant goes by the plain name; shards keep theirs, which their index lists."""
    return name if re.search(r"-\d+-of-\d+", name) else _VARIANT.sub("", name)


def plain_path(path: str) -> str:
    folder, slash, name = path.rpartition("/")
    return f"{folder}{slash}{plain_name(name)}"


def _one_precision(weights: list[str], indexes: list[str], prefers_half: bool) -> list[str]:
    plain = [name for name in weights if not _VARIANT.search(name)]
    half = next(([name for name in weights if kind in name] for kind in _HALVES if any(kind in w for w in weights)), [])
    chosen = half if half and (prefers_half or not plain) else plain or weights
    return chosen + [name for name in indexes if _fits(name, chosen)]


def _fits(index: str, weights: list[str]) -> bool:
    """An index belongs to shards of its own variant."""
    kind = _VARIANT.search(index)
    if not any(re.search(r"-\d+-of-\d+", name) for name in weights):
        return False
    return all((_VARIANT.search(name) or [""])[0] == (kind or [""])[0] for name in weights)


def _is_foreign(name: str) -> bool:
    return name.startswith(_OTHER_FRAMEWORKS)
