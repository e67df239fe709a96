"""The indices of weights in several files: libraries open whatever they name."""

from __future__ import annotations

from collections.abc import Mapping

from craftd import documents
from craftd.documents import File
from craftd.refusal import corrupt, shown, unsafe_path

_INDEX_BYTES = 32 << 20


def is_index(name: str) -> bool:
    return ".index." in name and name.endswith(".json")


def check(index: File, tensors: Mapping[str, frozenset[str]], *, is_alone: bool) -> None:
    """`tensors`: file name -> the tensors in it, for the files beside the index.

    An index none of whose files is there is another precision's, unless it `is_alone`.
    Raises UNSAFE_PATH, CORRUPT_FILE.
    """
    weight_map = documents.read(index, _INDEX_BYTES).get("weight_map")
    if not isinstance(weight_map, dict):
        raise corrupt(index.name, "a weight_map", "none")
    for shard in weight_map.values():
        _check_name(index, shard)
    shards = set(weight_map.values())
    if not any(shard.endswith(".safetensors") for shard in shards) or (not is_alone and not shards & set(tensors)):
        return
    for tensor, shard in weight_map.items():
        if shard not in tensors:
            raise corrupt(index.name, f"the file {shown(shard)} beside it", "none")
        if tensor not in tensors[shard]:
            raise corrupt(index.name, f"the tensor {shown(tensor)} in {shown(shard)}", "none")


def _check_name(index: File, shard: object) -> None:
    if not isinstance(shard, str):
        raise corrupt(index.name, "names of files in its weight_map", "something else")
    if shard in ("", ".", "..") or any(character in shard for character in "/\\:\0"):
        raise unsafe_path(index.name, f"names {shown(shard)}, which is no file beside it")
