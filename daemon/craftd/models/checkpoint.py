"""A checkpoint of one file, or a network alone with parts of other files, as the model that it makes.

What the files do not have, configurations and vocabularies, is carried inside craft.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from craft_protos.reasons import CraftError

import craftd
from craftd import gguf, safetensors
from craftd.architectures import detect, parts
from craftd.architectures.detect import Found
from craftd.models import folder, prediction
from craftd.models.choosing import INDEX
from craftd.models.model import Model, ModelFile
from craftd.models.part import COMPONENT, Given, composed, tokenizer_of

CHECKPOINT = "checkpoint.safetensors"  # its name among the model's files
_CARRIED = Path(craftd.__file__).parent / "architectures"


def read(path: Path, *, name: str, said: str = "", given: Sequence[Given] = (), carried: Path = _CARRIED) -> Model:
    """The model; `said`: what its user says that it predicts; `given`: parts that come from files of their own.

    One that is broken is a Model too, with `refused` saying why.
    """
    try:
        return _read(path, name, said, given, carried)
    except CraftError as exc:
        return folder.refused(path, exc, name=name)


def _read(path: Path, name: str, said: str, given: Sequence[Given], carried: Path) -> Model:
    header = gguf.header(path)
    told = detect.of_checkpoint(header, path.name, [one.component for one in given])
    predicts = prediction.of_checkpoint(header, path.name, said=said, architecture=told.architecture)
    place = carried / told.checkpoint.configurations_for(predicts.kind, path.name)
    index: dict[str, Any] = json.loads((place / INDEX).read_text())
    left_out = set(told.left_out(header)) - {one.component for one in given}
    _check_vocabularies(given, path.name)
    ending = "gguf" if gguf.is_gguf(path) else "safetensors"
    own = ModelFile(_place_of(told, header, index, ending), path, path.stat().st_size)
    files = composed((own, *_configurations(place, index, left_out, carried)), given)
    return Model(
        name=name,
        folder=path,
        architecture=told.architecture,
        pipeline=folder.pipeline_of(index),
        sizes=folder.sizes(place),
        defaults=folder.defaults(place, told.architecture),
        files=files,
        precision=header.precision(*told.network),
        weights=folder.weights_of(files),
        prediction=predicts,
        parts=tuple((one.component, one.part.name) for one in given),
    )


def _place_of(told: Found, header: safetensors.Header, index: dict[str, Any], ending: str) -> str:
    """A network alone is one component among others; a checkpoint has several."""
    if not told.is_alone(header):
        return CHECKPOINT
    return f"{'transformer' if 'transformer' in index else 'unet'}/{COMPONENT}.{ending}"


def _check_vocabularies(given: Sequence[Given], file_name: str) -> None:
    """Raises UNSUPPORTED_MODEL where a text encoder's vocabulary is neither carried nor brought along."""
    for part in (one.part for one in given if one.component.startswith("text_encoder")):
        kind = parts.by_id(part.kind)
        if kind is not None and not kind.vocabulary and part.tokenizer is None:
            where = f"put the folder tokenizer of {kind.vocabulary_repository} beside {part.path.name}"
            raise CraftError(
                "UNSUPPORTED_MODEL",
                f"{file_name}: {kind.name} ({part.name}) has no tokenizer beside it, and none comes with craft",
                f"{where} and add it again, or pull one that brings it: craft models pull {kind.published}",
            )


def _configurations(place: Path, index: dict[str, Any], left_out: set[str], carried: Path) -> list[ModelFile]:
    """What the checkpoint lacks: configurations and vocabularies, without those of parts that it hasn't."""
    found = [(INDEX, place / INDEX)]
    for part, value in sorted(index.items()):
        if not isinstance(value, list) or value[1] is None or not (place / part).is_dir():
            continue
        if any(part in (encoder, tokenizer_of(encoder)) for encoder in left_out):
            continue
        found += [(f"{part}/{path.name}", path) for path in sorted((place / part).iterdir())]
        if part.startswith("tokenizer"):
            words = carried / "tokenizers" / ("t5" if value[1].startswith("T5") else "clip")
            found += [(f"{part}/{path.name}", path) for path in sorted(words.iterdir())]
    return [ModelFile(name, path, path.stat().st_size) for name, path in found]
