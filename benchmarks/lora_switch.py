"""What it costs to draw the next picture with another LoRA: craft's slots against diffusers' load_lora_weights.

    python -m benchmarks.lora_switch [MODEL_FOLDER | --sd15] [--device cpu] [--threads N] [--rounds N]

Both in one process, over the same loaded model, with LoRAs of rank 16 that change attention and convolutions.
Craft's time ends when every changed layer has the matrices that the model call will use; diffusers' when
set_adapters returns. Unloading the LoRA before is outside diffusers' time; in craft's the one that leaves its slot
is part of it: of a LoRA on disk, the model has four slots, and eight LoRAs take turns. Files are in the page cache.
"""

from __future__ import annotations

import queue
import sys
import tempfile
import warnings
from pathlib import Path
from typing import Any

from benchmarks import figures, lora_files, workers
from benchmarks.workers import seconds

LORAS = 8


def main() -> int:
    asked = lora_files.options(__doc__, rounds=15)
    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory() as made, tempfile.TemporaryDirectory() as files:
        paths = lora_files.make(asked.folder, LORAS, Path(made), conv=True)
        pipe = workers.pipeline(asked.folder, device=asked.device, threads=asked.threads)
        craft = Switching(pipe, Path(files), paths, asked.device)
        craft.resident(0), _diffusers(pipe, paths[0])  # the first of each is not counted
        rounds = [
            (_diffusers(pipe, paths[i % LORAS]), craft.from_disk(i % LORAS), craft.resident((i + 1) % LORAS))
            for i in range(asked.rounds)
        ]
    against = "diffusers, load_lora_weights and set_adapters"
    disk = [theirs / ours for theirs, ours, _ in rounds]
    resident = [theirs / ours for theirs, _, ours in rounds]
    return figures.tell(
        [
            figures.of_rounds("switch to a resident LoRA, times faster", against, resident, at_least=50.0),
            figures.of_rounds("switch to a LoRA on disk, times faster", against, disk, at_least=3.0),
            figures.of_rounds("switch to a resident LoRA", "", [r[2] * 1e3 for r in rounds], unit="ms"),
        ]
    )


class Switching:
    """A model's adapters, driven as the engine drives them."""

    def __init__(self, pipe: Any, files: Path, paths: list[Path], device: str) -> None:
        import torch
        from craftd.worker.lora.adapter_manager import AdapterManager
        from craftd.worker.lora.reader import Reader
        from craftd.worker.lora.slots import Limits
        from craftd.worker.lora.targets import Targets

        self._notes: queue.SimpleQueue[object] = queue.SimpleQueue()
        reader = Reader(files, self._notes.put)
        self._stored = [lora_files.stored(path, files) for path in paths]
        where, few = torch.device(device), Limits(slots=len(paths) // 2)
        self._adapters = AdapterManager(Targets(pipe), reader, where)
        self._crowded = AdapterManager(Targets(pipe), reader, where, few)
        for adapters in (self._adapters, self._crowded):
            for i in range(len(paths)):
                self._apply(adapters, i)

    def resident(self, i: int) -> float:
        return seconds(lambda: self._apply(self._adapters, i))

    def from_disk(self, i: int) -> float:
        """Of a LoRA that was pushed out of its slot by others."""
        return seconds(lambda: self._apply(self._crowded, i))

    def _apply(self, adapters: Any, i: int) -> None:
        job = self._job(i)
        while not adapters.is_ready(job):
            assert not adapters.want([job])
            if not adapters.is_ready(job):
                self._notes.get()
        applied = adapters.acquire(job)
        with adapters.denoising([applied, applied]):
            pass
        adapters.release(applied)

    def _job(self, i: int) -> Any:
        from craft_protos.dispatch import Dispatch, File, ModelManifest
        from craft_protos.generate import GenerateSpec
        from craft_protos.lora import LoraRef

        file = self._stored[i]
        ref = LoraRef(file.name, 0.8, file.name, file.sha256)
        spec = GenerateSpec("", "", "it", 8, 8, 1, 1.0, 0, 1, "", loras=(ref,))
        files = (File(file.name, file.sha256, file.size_bytes),)
        return Dispatch("job", 1, spec, ModelManifest("it"), (0,), files)


def _diffusers(pipe: Any, path: Path) -> float:
    def switch() -> None:
        pipe.load_lora_weights(str(path.parent), weight_name=path.name, adapter_name="it")
        pipe.set_adapters(["it"], [0.8])

    try:
        return seconds(switch)
    finally:
        pipe.unload_lora_weights()


if __name__ == "__main__":
    sys.exit(main())
