"""A thousand LoRAs and sixteen slots: what a LoRA that is not in a slot costs.

    python -m benchmarks.lora_misses [MODEL_FOLDER | --sd15] [--side N] [--steps N] [--rounds N] [--jobs N]

Eight clients; the thousand are names of sixteen files, which stay in the page cache. Three mixes of requests,
in turns: all of sixteen LoRAs; nine in ten of those sixteen and one of the others; any of the thousand.
"""

from __future__ import annotations

import hashlib
import random
import sys
import tempfile
import warnings
from pathlib import Path

from benchmarks import figures, lora_files, workers
from benchmarks.lora_files import Clients

CLIENTS, SLOTS, REGISTERED = 8, 16, 1000


def main() -> int:
    asked = lora_files.options(__doc__, steps=6, rounds=3, jobs=32)
    warnings.simplefilter("ignore")
    chance = random.Random(7)
    with tempfile.TemporaryDirectory() as made, tempfile.TemporaryDirectory() as files:
        paths = lora_files.make(asked.folder, SLOTS, Path(made), conv=True)
        loras = [
            lora_files.stored(paths[i % SLOTS], Path(files), hashlib.sha256(f"{i}".encode()).hexdigest())
            for i in range(REGISTERED)
        ]
        model, slots = workers.manifest(asked.folder, Path(files)), ("--lora-slots", str(SLOTS))
        with workers.running(Path(files), device=asked.device, threads=asked.threads, more=slots) as sock:
            clients = Clients(sock, model, asked.side, asked.steps)
            clients.seconds(loras[:SLOTS], CLIENTS)
            rounds = []
            for _ in range(asked.rounds):
                few = [chance.choice(loras[:SLOTS]) for _ in range(asked.jobs)]
                mostly = [chance.choice(loras[:SLOTS] if chance.random() < 0.9 else loras) for _ in few]
                rounds.append(
                    (
                        clients.seconds(few, CLIENTS),
                        clients.seconds(mostly, CLIENTS),
                        clients.seconds([chance.choice(loras) for _ in few], CLIENTS),
                    )
                )
    hits = 1 - SLOTS / REGISTERED
    claim = f"{REGISTERED} LoRAs, {SLOTS} slots, time of a request"
    misses = [(any_of / few - 1) / hits * few / asked.jobs * 1e3 for few, _, any_of in rounds]
    return figures.tell(
        [
            figures.of_rounds(f"{claim}, 90 % of them for {SLOTS}", f"{SLOTS} LoRAs", _over(rounds, 1), at_most=1.05),
            figures.of_rounds(f"{claim}, drawn uniformly", f"{SLOTS} LoRAs", _over(rounds, 2)),
            figures.of_rounds("what a miss adds to a request", f"{SLOTS} LoRAs", misses, unit="ms"),
        ]
    )


def _over(rounds: list[tuple[float, float, float]], which: int) -> list[float]:
    return [one[which] / one[0] for one in rounds]


if __name__ == "__main__":
    sys.exit(main())
