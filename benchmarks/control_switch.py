"""The benchmark draws the next picture with another control model, or with another LoRA, both in memory already.

    python -m benchmarks.control_switch [MODEL_FOLDER | --sd15] [--device cpu] [--threads N] [--rounds N]

Two control models of the model lie in the worker's cache and take turns, as eight LoRAs of rank 16 take turns in its
slots. Either's time ends when all is at hand that the next model call will use. The control picture is of the model's
own size: the same for both, as it stays kept; or another one each time, which is read before, in a thread.
"""

from __future__ import annotations

import sys
import tempfile
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks import figures, lora_files, workers
from benchmarks.lora_switch import LORAS, Switching
from benchmarks.workers import seconds


def main() -> int:
    asked = lora_files.options(__doc__, rounds=40)
    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory() as made, tempfile.TemporaryDirectory() as files:
        paths = lora_files.make(asked.folder, LORAS, Path(made), conv=True)
        pipe = workers.pipeline(asked.folder, device=asked.device, threads=asked.threads)
        loras = Switching(pipe, Path(files), paths, asked.device)
        controls = ControlSwitching(pipe, asked.side, asked.device)
        rounds = [(loras.resident(i % LORAS), controls.kept(i), controls.new(i)) for i in range(asked.rounds)]
    against = "switch to a resident LoRA"
    ratios = [control / lora for lora, control, _ in rounds]
    others = [new / lora for lora, _, new in rounds]
    return figures.tell(
        [
            figures.of_rounds("switch to a resident ControlNet", against, ratios, at_most=1.0),
            figures.of_rounds("the same, with another control picture", against, others),
            figures.of_rounds("switch to a resident ControlNet", "", [r[1] * 1e3 for r in rounds], unit="ms"),
        ]
    )


class ControlSwitching:
    """A model cache with two control models, asked as the engine asks it."""

    def __init__(self, pipe: Any, side: int, device: str) -> None:
        import numpy as np
        import torch
        from craft_protos.dispatch import CONTROLNET, Dispatch, ModelManifest
        from craft_protos.generate import Control, GenerateSpec
        from craftd.worker.engine.sources import Sources
        from craftd.worker.inputs.controls import ControlPicture, ControlPictures
        from craftd.worker.models.control import ControlModel
        from craftd.worker.models.model_cache import LoadFinished, ModelCache
        from craftd.worker.training import trainable
        from diffusers import ControlNetModel

        from training.pocket import control

        is_pocket = pipe.unet.config["cross_attention_dim"] == 256
        make = control.build if is_pocket else ControlNetModel.from_unet
        nothing: Any = _Nothing()
        self._cache = ModelCache(nothing, nothing, sys.maxsize, nothing, nothing)
        self._sources = Sources(trainable.family_of(pipe, torch.device(device)))
        self._pixels = [np.full((side, side, 3), shade, np.uint8) for shade in range(8)]
        self._pictures = lambda number: ControlPictures((ControlPicture(number, self._pixels[number % 8]),))
        self._jobs = []
        for name in ("one", "other"):
            manifest = ModelManifest(name, CONTROLNET, sha256=name)
            network = make(pipe.unet).to(device=device, dtype=pipe.unet.dtype)
            self._cache.finish(LoadFinished(manifest, 0.0, ControlModel(network, "", network.device)))
            wanted = Control("0" * 64, "none", name, 1.0, 0.0, 1.0, "crop")
            spec = GenerateSpec("", "", "it", side, side, 1, 1.0, 0, 1, "", controls=(wanted,))
            self._jobs.append(Dispatch("job", 1, spec, manifest, (0,), controls=(manifest,)))
        self._newest = 1
        self.kept(0), self.kept(1)

    def kept(self, number: int) -> float:
        return seconds(lambda: self._switch(number, 0))

    def new(self, number: int) -> float:
        """To one whose picture has just been read."""
        self._newest += 1
        return seconds(lambda: self._switch(number, self._newest))

    def _switch(self, number: int, picture: int) -> None:
        job = self._jobs[number % 2]
        job = replace(job, epoch=number + 1)
        assert self._cache.lacks(job) is None
        self._cache.acquire_all(job)
        self._sources.controls(job, self._pictures(picture), self._cache.networks(job))
        self._cache.release_all(job)


class _Nothing:
    """The stand-in answers for what the cache asks of its surroundings, which is nothing here."""

    def __getattr__(self, name: str) -> Any:
        return lambda *_: None


if __name__ == "__main__":
    sys.exit(main())
