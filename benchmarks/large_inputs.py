"""A photograph of 12 megapixels to begin from: what it adds before the first step, and to the front's memory.

    python -m benchmarks.large_inputs [--rounds N]

A real craftd with the built-in model. In each round a small picture and a large one that craft has not seen are sent,
checked and drawn over, one after the other: the time goes from the first byte sent to the first step. What the large
one adds is compared with Pillow's own decoding and resizing of the same file, and 0.15 s.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import psutil
from craft_cli.connection.client import Client
from craft_protos import inputs_pb2, jobs_pb2
from PIL import Image

from benchmarks import daemon, figures
from benchmarks.daemon import Daemon
from benchmarks.workers import seconds

LARGE, SMALL, DRAWN = (4000, 3000), (320, 240), (320, 240)
CHUNK = 1 << 20
FIXED_S = 0.15
MOST_GROWTH_MB = 30.0


@dataclass(frozen=True)
class Round:
    """Seconds to the first step over each picture, Pillow's, and what the front's memory rose by at most."""

    small: float
    large: float
    pillow: float
    front_mb: float

    @property
    def ratio(self) -> float:
        """The time that the large picture adds ÷ the time that it may add."""
        return (self.large - self.small) / (1.2 * self.pillow + FIXED_S)


def main() -> int:
    asked = _parse()
    with daemon.running() as craftd, closing(craftd.client()) as client:
        for number in range(2):  # the model is loaded, the shapes are known
            _seconds_to_first_step(client, photograph(SMALL, 1000 + number))
        rounds = [_round(craftd, client, number) for number in range(asked.rounds)]
    for one in rounds:
        print(f"small {one.small:.3f} s, large {one.large:.3f} s, Pillow {one.pillow:.3f} s, {one.front_mb:.1f} MB")
    allowed = f"1.2 times Pillow's decoding and resizing and {FIXED_S} s"
    return figures.tell(
        [
            figures.of_rounds("12 megapixels before the first step", allowed, [r.ratio for r in rounds], at_most=1.0),
            figures.of_rounds(
                "the front's memory for it, at most", "none", [r.front_mb for r in rounds],
                unit="MB", at_most=MOST_GROWTH_MB,
            ),
        ]
    )  # fmt: skip


def photograph(size: tuple[int, int], number: int) -> bytes:
    """A JPEG file with as much in it as a camera's: smooth shapes and grain."""
    chance = np.random.default_rng(number)
    coarse = Image.fromarray(chance.integers(0, 255, (12, 16, 3), dtype=np.uint8))
    smooth = np.asarray(coarse.resize(size, Image.Resampling.BICUBIC), dtype=np.int16)
    grain = chance.integers(-12, 13, smooth.shape, dtype=np.int16)
    stream = io.BytesIO()
    Image.fromarray((smooth + grain).clip(0, 255).astype(np.uint8)).save(stream, "JPEG", quality=90)
    return stream.getvalue()


def _round(craftd: Daemon, client: Client, number: int) -> Round:
    small, large = photograph(SMALL, 2 * number), photograph(LARGE, 2 * number + 1)
    little = _seconds_to_first_step(client, small)
    before = psutil.Process(craftd.pid).memory_info().rss
    Path(f"/proc/{craftd.pid}/clear_refs").write_text("5")  # its peak starts anew
    much = _seconds_to_first_step(client, large)
    return Round(little, much, seconds(lambda: _decoded(large)), (_peak(craftd.pid) - before) / 2**20)


def _seconds_to_first_step(client: Client, data: bytes) -> float:
    sha256 = hashlib.sha256(data).hexdigest()
    started = time.perf_counter()
    client.put_input(_parts(sha256, data))
    asked = daemon.request("a red apple", steps=2, width=DRAWN[0], height=DRAWN[1])
    asked.generate.start.CopyFrom(jobs_pb2.Start(sha256=sha256, strength=1.0, fit=jobs_pb2.FIT_CROP))
    found = 0.0
    for event in client.watch_job(client.create_job(asked).id):
        if event.WhichOneof("event") == "step" and not found:
            found = time.perf_counter() - started
        if event.WhichOneof("event") == "finished":
            assert event.finished.job.state == jobs_pb2.JOB_STATE_SUCCEEDED, event.finished.job.error
    return found


def _parts(sha256: str, data: bytes) -> Iterator[inputs_pb2.PutInputRequest]:
    yield inputs_pb2.PutInputRequest(header=inputs_pb2.PutInputRequest.Header(sha256=sha256, size_bytes=len(data)))
    for at in range(0, len(data), CHUNK):
        yield inputs_pb2.PutInputRequest(chunk=data[at : at + CHUNK])


def _decoded(data: bytes) -> None:
    """Pillow reads the picture as diffusers has it do for image-to-image."""
    with Image.open(io.BytesIO(data)) as opened:
        opened.convert("RGB").resize(DRAWN, Image.Resampling.LANCZOS)


def _peak(pid: int) -> int:
    """The most resident bytes since its peak was started anew."""
    status = Path(f"/proc/{pid}/status").read_text(encoding="ascii")
    return int(next(line.split()[1] for line in status.splitlines() if line.startswith("VmHWM"))) * 1024


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
