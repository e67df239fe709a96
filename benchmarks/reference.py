"""diffusers itself, in a process of its own: the other side of the comparisons.

Reads one JSON line after another, {"prompts", "seeds", "one_by_one"}, and answers each with the
seconds that the pipeline took; drawn as craft draws by default: same scheduler, numbers and precision.

    python -m benchmarks.reference THREADS STEPS
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

POCKET = Path(__file__).parent.parent / "daemon" / "craftd" / "pocket"
DEFAULTS = json.loads((POCKET / "craft.json").read_text())


class Reference:
    """The process, seen from outside."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def seconds(self, prompts: Sequence[str], seeds: Sequence[int], *, one_by_one: bool = False) -> float:
        """How long the pipeline took, measured inside its process."""
        assert self._process.stdin is not None and self._process.stdout is not None
        asked = {"prompts": list(prompts), "seeds": list(seeds), "one_by_one": one_by_one}
        print(json.dumps(asked), file=self._process.stdin, flush=True)
        return float(self._process.stdout.readline())


@contextmanager
def running(threads: int, steps: int) -> Iterator[Reference]:
    process = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.reference", str(threads), str(steps)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"HF_HUB_OFFLINE": "1"},
    )
    try:
        yield Reference(process)
    finally:
        process.terminate()
        process.wait(60)


def main() -> None:
    threads, steps = map(int, sys.argv[1:])
    import torch
    from craftd.worker.families import samplers
    from diffusers import StableDiffusionPipeline

    torch.set_num_threads(threads)
    pipe = StableDiffusionPipeline.from_pretrained(
        POCKET, dtype=torch.float32, use_safetensors=True, safety_checker=None
    )
    pipe.scheduler = samplers.build(DEFAULTS["sampler"], pipe.scheduler)
    pipe.set_progress_bar_config(disable=True)

    def draw(prompts: list[str], seeds: list[int]) -> None:
        pipe(
            prompts,
            width=DEFAULTS["width"],
            height=DEFAULTS["height"],
            guidance_scale=DEFAULTS["guidance_scale"],
            num_inference_steps=steps,
            generator=[torch.Generator("cpu").manual_seed(seed) for seed in seeds],
        )

    for line in sys.stdin:
        asked = json.loads(line)
        prompts, seeds = asked["prompts"], asked["seeds"]
        parts = [([p], [s]) for p, s in zip(prompts, seeds, strict=True)] if asked["one_by_one"] else [(prompts, seeds)]
        began = time.perf_counter()
        for part in parts:
            draw(*part)
        print(time.perf_counter() - began, flush=True)


if __name__ == "__main__":
    main()
