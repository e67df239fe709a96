"""A checkpoint of one file, as the model that it makes with the configurations carried inside craft."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from craft_protos.reasons import CraftError

import craftd
from craftd.models import architectures, folder, header
from craftd.models.architectures import Architecture
from craftd.models.choosing import INDEX
from craftd.models.header import Header
from craftd.models.model import Model, ModelFile

CHECKPOINT = "checkpoint.safetensors"  # its name among the model's files
_CARRIED = Path(craftd.__file__).parent / "architectures"
_PRECISIONS = {"F32": "fp32", "F16": "fp16", "BF16": "bf16", "F64": "fp64"}


def read(path: Path, *, name: str, carried: Path = _CARRIED) -> Model:
    """The model. One that is broken is a Model too, with `refused` saying why."""
    try:
        return _read(path, name, carried)
    except CraftError as exc:
        return folder.refused(path, exc, name=name)


def _read(path: Path, name: str, carried: Path) -> Model:
    found = header.read(path)
    architecture = architectures.recognise(found, path.name)
    architectures.check_whole(architecture, found, path.name)
    place = carried / architecture.key
    index: dict[str, Any] = json.loads((place / INDEX).read_text())
    pipeline, family = folder.pipeline_of(index)
    return Model(
        name=name,
        folder=path,
        family=family,
        pipeline=pipeline,
        granularity=folder.granularity(place, family),
        defaults=folder.defaults(place, family),
        files=(
            ModelFile(CHECKPOINT, path, path.stat().st_size),
            *_configurations(place, index, architecture.left_out(found), carried),
        ),
        precision=_precision(found, architecture),
    )


def _configurations(place: Path, index: dict[str, Any], left_out: list[str], carried: Path) -> list[ModelFile]:
    """What the checkpoint lacks: configurations and vocabularies, without those of parts that it hasn't."""
    found = [(INDEX, place / INDEX)]
    for part, value in sorted(index.items()):
        if not isinstance(value, list) or value[1] is None or _text_encoder_of(part) in left_out:
            continue
        found += [(f"{part}/{path.name}", path) for path in sorted((place / part).iterdir())]
        if part.startswith("tokenizer"):
            words = carried / "tokenizers" / ("t5" if value[1].startswith("T5") else "clip")
            found += [(f"{part}/{path.name}", path) for path in sorted(words.iterdir())]
    return [ModelFile(name, path, path.stat().st_size) for name, path in found]


def _text_encoder_of(part: str) -> str:
    return part.replace("tokenizer", "text_encoder")


def _precision(found: Header, architecture: Architecture) -> str:
    """Of the UNet's or the transformer's tensors."""
    own = architecture.parts[0].prefixes
    kinds = [found.dtypes[name] for name in found.shapes if name.startswith(own) and name.endswith(".weight")]
    return _PRECISIONS.get(max(set(kinds), key=kinds.count), "") if kinds else ""
