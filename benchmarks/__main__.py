"""`python -m benchmarks`: every speed claim, measured one after another, as one Markdown table.

    python -m benchmarks [--only NAME]...

Each benchmark is a process of its own; one that fails is named, and the others go on. How well
the built-in model draws is another question: `python -m benchmarks.pocket_quality`.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

from benchmarks import figures
from benchmarks.figures import Figure

NAMES = (
    "daemon_ready",
    "cli_overhead",
    "clients",
    "engine_throughput",
    "image_to_image",
    "large_inputs",
    "families",
    "upscaling",
    "cancel",
    "memory",
    "queue",
    "finished_jobs",
    "fleet",
    "fleet_simulation",
    "http",
    "gallery",
    "loop_lag",
    "model_load",
    "quantized",
    "parts",
    "offload",
    "lora_switch",
    "control_switch",
    "lora_throughput",
    "lora_misses",
    "training",
)
ROOT = Path(__file__).parent.parent
LIMIT_S = 1200


def main() -> int:
    found: dict[str, list[Figure]] = {}
    failed: list[str] = []
    for name in _parse().only or NAMES:
        print(f"python -m benchmarks.{name} ...", file=sys.stderr, flush=True)
        read = _measure(name)
        if read is None:
            failed.append(name)
        else:
            found[name] = read
    print(figures.table(found))
    for name in failed:
        print(f"\nFAILED, not measured: python -m benchmarks.{name}")
    return 1 if failed else 0


def _measure(name: str) -> list[Figure] | None:
    """What it found; None where it failed. Its own words go to stderr as it ends."""
    command = [sys.executable, "-m", f"benchmarks.{name}"]
    try:
        done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, timeout=LIMIT_S, check=False)
    except subprocess.TimeoutExpired:
        print(f"{name}: not done within {LIMIT_S} s", file=sys.stderr)
        return None
    print(done.stdout, file=sys.stderr, flush=True)
    return figures.read(done.stdout)


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", action="append", choices=NAMES, metavar="NAME", help=", ".join(NAMES))
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
