"""Every figure that needs a GPU, in one run of at most eight minutes, as one Markdown table.

    python -m benchmarks.gpu [--only PART]... [--device cuda:0] [--tiny] [--seconds N]

Random weights in the published sizes, made on the device. Each picture is compared with that of diffusers' pipeline:
same weights, seed and precision. Each part is a process with its own limit; what fails or finds no time is named.
"""

from __future__ import annotations

import argparse
import io
import math
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from craft_protos import frames, jobs_pb2
from craft_protos.worker_pb2 import Dispatch, FromWorker, ModelManifest, ToWorker

from benchmarks import figures, random_models, workers
from benchmarks.figures import Figure
from benchmarks.workers import seconds

ROOT = Path(__file__).parent.parent
SECONDS = 480
ENOUGH_S = 20.0  # under which no part is begun
LEAST_PSNR = 25.0  # decibels; half precision, and another order of sums
PROMPT = "a red apple on a table"


@dataclass(frozen=True)
class Drawn:
    """One model and what is asked of it, as its tables have it."""

    architecture: str
    tiny: str
    side: int
    steps: int
    guidance: float
    precision: str
    limit_s: int
    at_once: int = 1


DRAWN = {
    "sd15": Drawn("sd1", "sd", 512, 30, 5.0, "fp16", 70, at_once=8),
    "sdxl": Drawn("sdxl", "sdxl", 1024, 30, 5.0, "fp16", 80),
    "z-image": Drawn("z-image-turbo", "z-image-turbo", 1024, 8, 1.0, "bf16", 80),
    "flux": Drawn("flux-dev", "flux", 1024, 28, 3.5, "bf16", 120),
}
OTHERS = {  # a benchmark of its own, over the weights of sd15: what it is asked, and its limit
    "load": ("model_load", ("--rounds", "2"), 40),
    "switch": ("lora_switch", ("--rounds", "5"), 40),
    "loras": ("lora_throughput", ("--steps", "10", "--rounds", "1"), 50),
}
PARTS = (*DRAWN, *OTHERS)


def main() -> int:
    asked = _parse()
    if asked.part:
        return figures.tell(list(_draw(DRAWN[asked.part], asked)))
    ends = time.monotonic() + asked.seconds
    found: dict[str, list[Figure]] = {}
    left_out: list[str] = []
    for part in asked.only or PARTS:
        left = ends - time.monotonic()
        read = _measure(part, asked, left) if left >= ENOUGH_S else f"no time left of {asked.seconds} s"
        if isinstance(read, str):
            left_out.append(f"{part}: {read}")
        else:
            found[f"gpu --only {part}"] = read
    print(figures.table(found))
    print("".join(f"\nNOT MEASURED: {one}" for one in left_out))
    return 1 if left_out else 0


def _measure(part: str, asked: argparse.Namespace, left_s: float) -> list[Figure] | str:
    """The figures of one part of the script, or why it has none."""
    limit_s = min(DRAWN[part].limit_s if part in DRAWN else OTHERS[part][2], left_s)
    print(f"{part}: at most {limit_s:.0f} s ...", file=sys.stderr, flush=True)
    command = [sys.executable, "-m", *_command(part, asked)]
    try:
        done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, timeout=limit_s, check=False)
    except subprocess.TimeoutExpired:
        return f"not done within {limit_s:.0f} s"
    finally:
        if part in DRAWN and part != "sd15" and not asked.tiny:  # all of them together may be more than the disk holds
            random_models.forget(DRAWN[part].architecture)
    print(done.stdout, file=sys.stderr, flush=True)
    return figures.read(done.stdout) or f"failed with status {done.returncode}"


def _command(part: str, asked: argparse.Namespace) -> list[str]:
    if part in DRAWN:
        return ["benchmarks.gpu", "--part", part, "--device", asked.device, *(["--tiny"] if asked.tiny else [])]
    name, options, _ = OTHERS[part]
    folder = _folder(DRAWN["sd15"], asked)
    return [f"benchmarks.{name}", str(folder), "--device", asked.device, *options]


def _folder(drawn: Drawn, asked: argparse.Namespace) -> Path:
    if not asked.tiny:
        return random_models.published(drawn.architecture, asked.device, drawn.precision)
    from tests import tiny_models

    return tiny_models.cached(drawn.tiny)


def _draw(drawn: Drawn, asked: argparse.Namespace) -> Iterator[Figure]:
    """Truth first; then one picture, and several at once, each beside the pipeline's."""
    folder = _folder(drawn, asked)
    precision = "fp32" if asked.device == "cpu" else drawn.precision
    side, steps = (64, 2) if asked.tiny else (drawn.side, drawn.steps)
    what = f"{drawn.architecture}, {side}x{side}, {steps} steps, {precision}"
    with tempfile.TemporaryDirectory() as files:
        model = workers.manifest(folder, Path(files), is_hashed=False)
        more, threads = ("--precision", precision), int(asked.device == "cpu")
        with workers.running(Path(files), device=asked.device, threads=threads, more=more) as sock:
            pipe = workers.pipeline(folder, device=asked.device, threads=threads, precision=precision)
            sides = Sides(sock, model, pipe, drawn, {"width": side, "height": side}, steps)
            psnr = _psnr(sides.ours(1), sides.theirs(1))
            yield Figure(
                f"{what}: likeness to the pipeline's", "diffusers", psnr, psnr, psnr, "dB", at_least=LEAST_PSNR
            )
            for count in sorted({1, drawn.at_once}):
                yield from sides.figures(f"{what}, {count} at once", count)


class Sides:
    """craft's worker and diffusers' pipeline, asked for the same."""

    def __init__(  # noqa: PLR0917
        self, sock: Any, model: ModelManifest, pipe: Any, drawn: Drawn, size: dict[str, int], steps: int
    ) -> None:
        self._sock, self._model, self._pipe = sock, model, pipe
        self._drawn, self._size, self._steps = drawn, size, steps

    def figures(self, what: str, count: int) -> Iterator[Figure]:
        self.ours(count), self.theirs(count)  # the first of each is not counted
        rounds = [(seconds(lambda: self.ours(count)), seconds(lambda: self.theirs(count))) for _ in range(2)]
        yield figures.of_rounds(f"{what}: a picture", "", [ours / count for ours, _ in rounds], unit="s")
        yield figures.of_rounds(what, "the pipeline, one batch", [a / b for a, b in rounds], at_most=1.03)

    def ours(self, count: int) -> Any:
        """The first picture's pixels."""
        spec = jobs_pb2.GenerateSpec(
            prompt=PROMPT, steps=self._steps, guidance_scale=self._drawn.guidance, seed=1, **self._size
        )
        job = Dispatch(job_id="job", generate=spec, indices=range(count), model=self._model, provenance="{}")
        self._sock.sendall(frames.encode(ToWorker(dispatch=job)))
        pictures = {}
        while True:
            frame = frames.receive(self._sock, FromWorker)
            assert frame is not None, "the worker ended"
            assert not frame.HasField("failed") and not frame.HasField("load_failed"), frame
            if frame.HasField("image"):
                pictures[frame.image.index] = frame.image.data
            if frame.HasField("done"):
                return _pixels(pictures[0])

    def theirs(self, count: int) -> Any:
        import numpy as np
        import torch

        generators = [torch.Generator("cpu").manual_seed(1 + i) for i in range(count)]
        drawn = self._pipe(
            prompt=[PROMPT] * count,
            num_inference_steps=self._steps,
            guidance_scale=self._drawn.guidance,
            generator=generators,
            **self._size,
        )
        return np.asarray(drawn.images[0].convert("RGB")).astype(int)


def _pixels(data: bytes) -> Any:
    import numpy as np
    from PIL import Image

    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB")).astype(int)


def _psnr(drawn: Any, expected: Any) -> float:
    return 10 * math.log10(255**2 / max(float(((drawn - expected) ** 2).mean()), 1e-3))


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", action="append", choices=PARTS, metavar="PART", help=", ".join(PARTS))
    parser.add_argument("--part", choices=DRAWN, help=argparse.SUPPRESS)
    parser.add_argument("--device", default="cuda:0")
    parser.add_argument("--tiny", action="store_true", help="tiny models, which show that it runs")
    parser.add_argument("--seconds", type=int, default=SECONDS, help="for all parts together")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
