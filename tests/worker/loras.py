"""Jobs with LoRAs, and diffusers' own picture of the same."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from craft_protos import jobs_pb2
from craft_protos.worker_pb2 import File, ModelManifest, ToWorker

from tests.worker.client import submit

Make = Callable[..., "Stored"]


@dataclass(frozen=True)
class Stored:
    """A LoRA in the store, and where it lies."""

    path: Path
    file: File


def put_lora(path: Path, files: Path) -> Stored:
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    link = files / sha256
    if not link.is_symlink():
        link.symlink_to(path)
    return Stored(path, File(name=path.stem, sha256=sha256, size_bytes=path.stat().st_size))


def submit_with(
    model: ModelManifest, loras: Sequence[tuple[Stored, float]], job_id: str = "job", *, skip: bool = False, **spec: Any
) -> ToWorker:
    """A job with LoRAs, each with its weight."""
    sent = with_loras(submit(model, job_id, **spec), *loras)
    if skip:
        sent.dispatch.generate.lora_missing = jobs_pb2.LORA_MISSING_SKIP
    return sent


def with_loras(sent: ToWorker, *loras: tuple[Stored, float]) -> ToWorker:
    """The same job, with LoRAs."""
    for stored, weight in loras:
        sent.dispatch.files.append(stored.file)
        named = {"lora": stored.file.sha256[:8], "name": stored.file.name, "sha256": stored.file.sha256}
        sent.dispatch.generate.loras.append(jobs_pb2.LoraUse(weight=weight, **named))
    return sent


def diffusers_draws(pipe: Any, loras: Sequence[tuple[Stored, float]], truth: Any, kind: str, **call: Any) -> np.ndarray:
    """What the pipeline draws after load_lora_weights and set_adapters."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            for i, (stored, _weight) in enumerate(loras):
                pipe.load_lora_weights(str(stored.path.parent), weight_name=stored.path.name, adapter_name=f"a{i}")
            pipe.set_adapters([f"a{i}" for i in range(len(loras))], [weight for _stored, weight in loras])
            drawn: np.ndarray = truth(kind, **call)
        finally:
            pipe.unload_lora_weights()
    return drawn
