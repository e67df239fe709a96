"""A model's files, named by sha256 in the store -> a diffusers folder of links, for as long as loading takes."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

from craft_protos.dispatch import ModelManifest
from craft_protos.reasons import CraftError

_WEIGHT_SUFFIXES = (".bin", ".ckpt", ".pt", ".pth", ".pickle", ".pkl")


@contextmanager
def materialised(manifest: ModelManifest, files: Path, inside: Path) -> Iterator[Path]:
    """The folder, made in `inside` and gone afterwards. Raises UNSAFE_PATH, CORRUPT_FILE, UNSUPPORTED_MODEL."""
    _check_paths(manifest)
    with tempfile.TemporaryDirectory(dir=inside) as folder:
        for file in manifest.files:
            _link(Path(folder) / file.path, files / file.sha256, file.size_bytes, manifest.name)
        _check_indices(Path(folder), manifest)
        yield Path(folder)


def read_json(path: Path, model: str) -> dict[str, object]:
    """A JSON object. Raises CORRUPT_FILE."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as exc:
        raise _corrupt(model, path.name, f"cannot be read as JSON ({exc})") from exc
    if not isinstance(found, dict):
        raise _corrupt(model, path.name, "is no JSON object")
    return found


def is_sha256(text: str) -> bool:
    """Whether it can name a file of the store."""
    return len(text) == 64 and all(character in "0123456789abcdef" for character in text)


def _check_paths(manifest: ModelManifest) -> None:
    """Refuse a manifest that leads out of its folder. Raises UNSAFE_PATH."""
    for file in manifest.files:
        path = PurePosixPath(file.path)
        bad_name = path.is_absolute() or not path.parts or ".." in path.parts or "\\" in file.path or "\0" in file.path
        if bad_name or not is_sha256(file.sha256):
            raise CraftError(
                "UNSAFE_PATH",
                f"model {manifest.name}: the file {file.path!r} leads out of the model's folder",
                "use a model whose files lie inside its own folder",
            )


def _link(link: Path, target: Path, size_bytes: int, model: str) -> None:
    if link.suffix.lower() in _WEIGHT_SUFFIXES:
        return  # pickle: never opened; where safetensors are missing, loading says so
    if not target.is_file():
        raise _corrupt(model, link.name, "is not in the store")
    found = target.stat().st_size
    if size_bytes and found != size_bytes:
        raise _corrupt(model, link.name, f"has {found} bytes where {size_bytes} were expected")
    link.parent.mkdir(parents=True, exist_ok=True)
    link.symlink_to(target.resolve())


def _check_indices(folder: Path, manifest: ModelManifest) -> None:
    """transformers opens whatever a shard index names, `../` included."""
    for index in folder.rglob("*.index.json"):
        shards = read_json(index, manifest.name).get("weight_map")
        names = set(shards.values()) if isinstance(shards, dict) else {""}
        for name in names:
            if not isinstance(name, str) or PurePosixPath(name).name != name or name in ("", ".."):
                raise CraftError(
                    "UNSAFE_PATH",
                    f"model {manifest.name}: {index.name} names the shard {name!r} outside its folder",
                    "use a model whose files lie inside its own folder",
                )


def _corrupt(model: str, name: str, why: str) -> CraftError:
    return CraftError("CORRUPT_FILE", f"model {model}: {name} {why}", f"add the model {model} again")
