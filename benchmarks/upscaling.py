"""Enlarging: how long the built-in upscaler takes for 256 -> 1024, beside Spandrel's own call; and how well it does it.

Quality is measured on scenes with icons that it has not seen, rendered at 1024 and reduced to 256 ("small"), and those
after pocket's own autoencoder ("soft"). Sharpness: the slopes along the truth's contours, as a share of the truth's.
"""

from __future__ import annotations

import argparse
import random
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import craftd
import numpy as np
import torch
from craftd.models.part import POCKET_X4
from craftd.worker.process.device import Device
from craftd.worker.upscaling import reading
from craftd.worker.upscaling.enlarging import Enlarging
from craftd.worker.upscaling.network import Network
from numpy.typing import NDArray
from PIL import Image

from benchmarks import figures
from benchmarks.figures import Figure
from training.pocket.upscaler import SCALE, is_held_out, pairs

BUILT_IN = Path(craftd.__file__).parent / "pocket" / "upscaler" / f"{POCKET_X4}.safetensors"
GOAL_S = 1.0
_RUNS = 7
_FLAT = 8.0  # grey levels from a pixel to the next: less is no contour
Pixels = NDArray[np.uint8]


class Means:
    """The worker's own upscaler, on a CPU."""

    side = 256

    def __init__(self, file: Path) -> None:
        device = Device(torch.device("cpu"), "cpu", 0, "fp32")
        self.network = Network(reading.read(file, file.name), device)

    def __call__(self, pixels: Pixels) -> Pixels:
        one = Enlarging(self, pixels, (SCALE * pixels.shape[1], SCALE * pixels.shape[0]))
        while not one.is_done:
            one.advance()
        return one.pixels


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.upscaling", description=__doc__)
    parser.add_argument("--file", type=Path, default=BUILT_IN)
    parser.add_argument("--pictures", type=int, default=24, help="that it has not seen")
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    means = Means(options.file)
    _tell_quality(means, options.pictures)
    return figures.tell(_speed(means, options.file))


def _speed(means: Means, file: Path) -> list[Figure]:
    picture = np.random.default_rng(1).integers(0, 256, (256, 256, 3), dtype=np.uint8)
    call = reading.read(file, file.name).eval()
    given = torch.from_numpy(picture / np.float32(255)).permute(2, 0, 1)[None]

    def theirs() -> None:
        with torch.inference_mode():
            call(given)

    pairs_s = _by_turns(lambda: means(picture), theirs)
    ratios = [ours / other for ours, other in pairs_s]
    return [
        figures.best_of("256 to 1024 by pocket-x4", "nothing", [one for one, _ in pairs_s], unit="s", at_most=GOAL_S),
        figures.of_rounds("the same, as a share", "Spandrel's own call", ratios, at_most=1.1),
    ]


def _by_turns(one: Callable[[], object], other: Callable[[], object]) -> list[tuple[float, float]]:
    """Seconds of runs that alternate, the first of each left out."""
    found = [(_seconds(one), _seconds(other)) for _ in range(_RUNS + 1)]
    return found[1:]


def _seconds(call: Callable[[], object]) -> float:
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


def _tell_quality(means: Means, count: int) -> None:
    shown = pairs(count, random.Random(1234), is_held_out)
    ways: dict[str, Callable[[Pixels], Pixels]] = {
        "bicubic": lambda pixels: _resized(pixels, Image.Resampling.BICUBIC),
        "Lanczos": lambda pixels: _resized(pixels, Image.Resampling.LANCZOS),
        POCKET_X4: means,
    }
    for what in ("small", "soft"):
        for name, way in ways.items():
            found = [(_pixels(pair.target), way(_pixels(getattr(pair, what)))) for pair in shown]
            psnr = statistics.mean(_psnr(*one) for one in found)
            sharpness = statistics.mean(_sharpness(*one) for one in found)
            print(f"{what:6} {name:10} PSNR {psnr:.2f} dB, sharpness {sharpness:.2f}")


def _pixels(tensor: torch.Tensor) -> Pixels:
    return tensor.permute(1, 2, 0).contiguous().numpy()


def _resized(pixels: Pixels, how: Image.Resampling) -> Pixels:
    return np.asarray(Image.fromarray(pixels).resize((SCALE * pixels.shape[1], SCALE * pixels.shape[0]), how))


def _psnr(truth: Pixels, made: Pixels) -> float:
    error = np.square(truth.astype(np.float32) - made).mean()
    return float(10 * np.log10(255**2 / max(error, 1e-3)))


def _sharpness(truth: Pixels, made: Pixels) -> float:
    slopes, own = _slopes(truth), _slopes(made)
    contours = slopes >= np.median(slopes[slopes > _FLAT])
    return float(own[contours].mean() / slopes[contours].mean())


def _slopes(pixels: Pixels) -> NDArray[np.float32]:
    grey = pixels.astype(np.float32).mean(axis=2)
    return np.hypot(np.diff(grey, axis=0)[:, :-1], np.diff(grey, axis=1)[:-1])


if __name__ == "__main__":
    sys.exit(main())
