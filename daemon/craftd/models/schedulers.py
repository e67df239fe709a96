"""Scheduler configurations that a model's own files do not have: what it predicts was told by other evidence.

They lie in the data folder under their hashes; a model takes one in the place of its own, so that its manifest,
its pictures' provenance and its trainings all say which it is.
"""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import replace
from pathlib import Path

from craft_protos.reasons import CraftError, invalid

from craftd.architectures.architecture import FLOW
from craftd.models import prediction
from craftd.models.model import Model, ModelFile

_CONFIGURATION = "scheduler/scheduler_config.json"


def configured(model: Model, said: str, folder: Path) -> Model:
    """With a scheduler for what it predicts: as the user said, else as the evidence says. Blocking.

    Raises INVALID_FIELD where the user said something of a model that cannot have it.
    """
    own = next((file for file in model.files if file.path == _CONFIGURATION), None)
    wanted = prediction.of_user(said) if said else model.prediction
    if said and (own is None or model.prediction is None or model.prediction.kind == FLOW):
        raise unsayable(model.name)
    if own is None or wanted is None or wanted.kind == FLOW:
        return model
    config = json.loads(own.source.read_bytes())
    changed = prediction.configured(config, wanted)
    told = replace(model, prediction=wanted)
    if changed == config:
        return told
    path = _written(json.dumps(changed, indent=2, sort_keys=True).encode(), folder)
    files = tuple(ModelFile(_CONFIGURATION, path, path.stat().st_size) if file is own else file for file in model.files)
    defaults = model.defaults
    if wanted.has_zero_snr and defaults.sampler == "PNDM":  # which knows nothing of it
        defaults = replace(defaults, sampler="Euler")
    return replace(told, files=files, defaults=defaults)


def unsayable(name: str) -> CraftError:
    return invalid(
        "prediction",
        f"the model {name} matches flows or has no scheduler: there is nothing to say of it",
        "leave it out",
    )


def _written(content: bytes, folder: Path) -> Path:
    path = folder / f"{hashlib.sha256(content).hexdigest()}.json"
    if not path.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        beside = path.with_suffix(f".{os.getpid()}.part")
        beside.write_bytes(content)
        beside.replace(path)
    return path
