"""`make storms`: all long storms, one after another, each a process of its own, with the counts that are promised.

    python -m tests.storms [--seed N] [--share 0.1] [--only NAME]...

`--share` makes so much of each. docs/reliability.md says what they found.
"""

from __future__ import annotations

import argparse
import random
import subprocess
import sys
from pathlib import Path

# Each with the counts of its whole.
STORMS: dict[str, dict[str, float]] = {
    "kills": {"daemon": 1000, "worker": 1000},
    "writes": {"faults": 500},
    "cancels": {"races": 1000},
    "table": {"rounds": 3},
    "power": {"rounds": 3, "cuts": 400},
    "remote": {"rounds": 30},
    "soak": {"minutes": 60},
}
ROOT = Path(__file__).parents[2]


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tests.storms", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 30))
    parser.add_argument("--share", type=float, default=1.0)
    parser.add_argument("--only", action="append", choices=STORMS, metavar="NAME", help=", ".join(STORMS))
    asked = parser.parse_args()
    failed = [name for name in asked.only or STORMS if _run(name, asked.seed, asked.share)]
    print(f"seed {asked.seed}:", f"VIOLATED: {', '.join(failed)}" if failed else "no violation")
    return 1 if failed else 0


def _run(name: str, seed: int, share: float) -> int:
    options = [f"--{option}={_part(count, share)}" for option, count in STORMS[name].items()]
    command = [sys.executable, "-m", f"tests.storms.{name}", f"--seed={seed}", *options]
    print("$ python", *command[1:], flush=True)
    return subprocess.run(command, cwd=ROOT, check=False).returncode


def _part(count: float, share: float) -> float:
    """A whole number, and one at least; minutes may be parts of one."""
    return max(1, round(count * share)) if share < 1 else count


if __name__ == "__main__":
    sys.exit(main())
