"""Eight clients with sixteen LoRAs, one each: what the LoRAs cost, and what sharing model calls gains.

    python -m benchmarks.lora_throughput [MODEL_FOLDER | --sd15] [--side N] [--steps N] [--rounds N]

LoRAs of rank 16, of the attention alone and with the convolutions; all sixteen are drawn with in each round.
Against craft itself without LoRAs (the plain layers), and against diffusers that
draws one request after another, loading each one's LoRA before and unloading it after; also, as it goes,
against diffusers with all sixteen loaded, which only switches between them.
"""

from __future__ import annotations

import sys
import tempfile
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from craft_protos.worker_pb2 import File

from benchmarks import figures, lora_files, workers
from benchmarks.figures import Figure
from benchmarks.lora_files import Clients
from benchmarks.workers import seconds

CLIENTS, LORAS = 8, 16
SAMPLE = 4  # requests that diffusers is timed on, one after another


def main() -> int:
    asked = lora_files.options(__doc__, steps=6, rounds=3)
    warnings.simplefilter("ignore")
    found: list[Figure] = []
    with tempfile.TemporaryDirectory() as made, tempfile.TemporaryDirectory() as files:
        model = workers.manifest(asked.folder, Path(files))
        pipe = workers.pipeline(asked.folder, device=asked.device, threads=asked.threads)
        with workers.running(Path(files), device=asked.device, threads=asked.threads) as sock:
            clients = Clients(sock, model, asked.side, asked.steps)
            for conv, goal in ((False, 0.85), (True, 0.6)):
                paths = lora_files.make(asked.folder, LORAS, Path(made), conv=conv)
                stored = [lora_files.stored(path, Path(files)) for path in paths]
                loop = Loop(pipe, paths, asked.side, asked.steps)
                kind = "attention and convolutions" if conv else "attention"
                found += _measure(clients, stored, loop, asked.rounds, Claim(kind, goal))
    return figures.tell(found)


@dataclass(frozen=True)
class Claim:
    """What is promised of LoRAs that change these layers."""

    layers: str
    at_least: float


def _measure(clients: Clients, stored: list[File], loop: Loop, rounds: int, promised: Claim) -> Iterator[Figure]:
    nothing = [None] * LORAS
    for warm_up in (stored, nothing):
        clients.seconds(warm_up, CLIENTS)
    measured = [(clients.seconds(stored, CLIENTS), clients.seconds(nothing, CLIENTS)) for _ in range(rounds)]
    taken = [ours / LORAS for ours, _none in measured]
    claim = f"{CLIENTS} clients, {LORAS} LoRAs ({promised.layers}), pictures per second"
    ratios = [none / ours for ours, none in measured]
    yield figures.of_rounds(claim, "craft without LoRAs", ratios, at_least=promised.at_least)
    loaded = [loop.loading() / ours for ours in taken]
    yield figures.of_rounds(claim, "diffusers, load_lora_weights for each request", loaded, at_least=2.5)
    switched = [theirs / ours for theirs, ours in zip(loop.switching(rounds), taken, strict=True)]
    yield figures.of_rounds(claim, "diffusers, all LoRAs loaded, set_adapters for each request", switched)


class Loop:
    """diffusers, one request after another."""

    def __init__(self, pipe: Any, paths: list[Path], side: int, steps: int) -> None:
        self._pipe = pipe
        self._paths = paths
        self._call = {"width": side, "height": side, "num_inference_steps": steps}

    def loading(self) -> float:
        """Seconds for one request, its LoRA loaded before and unloaded after."""
        return seconds(lambda: [self._load_and_draw(i) for i in range(SAMPLE)]) / SAMPLE

    def switching(self, rounds: int) -> Iterator[float]:
        """Seconds for one request in each round, where all have been loaded before."""
        for i in range(len(self._paths)):
            self._load(i)
        try:
            for _ in range(rounds):
                yield seconds(lambda: [self._switch_and_draw(i) for i in range(SAMPLE)]) / SAMPLE
        finally:
            self._pipe.unload_lora_weights()

    def _load_and_draw(self, i: int) -> None:
        self._load(i)
        self._switch_and_draw(i)
        self._pipe.unload_lora_weights()

    def _load(self, i: int) -> None:
        path = self._paths[i]
        self._pipe.load_lora_weights(str(path.parent), weight_name=path.name, adapter_name=f"a{i}")

    def _switch_and_draw(self, i: int) -> None:
        import torch

        self._pipe.set_adapters([f"a{i}"], [0.8])
        generator = torch.Generator("cpu").manual_seed(i)
        self._pipe("a red apple", guidance_scale=lora_files.GUIDANCE, generator=generator, **self._call)


if __name__ == "__main__":
    sys.exit(main())
