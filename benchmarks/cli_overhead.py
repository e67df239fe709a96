"""What the command itself costs: `craft --version`, and a whole `craft generate` beyond its job.

    python -m benchmarks.cli_overhead [--real]

The job is drawn by the worker without torch, so that nothing but the command's and
the daemon's own time is left; `--real` takes the configured model instead. Times are
of whole processes, the best of RUNS; the spread goes up to the median.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks import figures
from benchmarks.daemon import environment

RUNS = 15
VERSION_LIMIT_S, JOB_LIMIT_S = 0.10, 0.17
CRAFT = str(Path(sys.executable).with_name("craft"))


def main() -> int:
    parser = argparse.ArgumentParser(description="What the command itself costs.")
    parser.add_argument("--real", action="store_true", help="draw with the configured model")
    is_real = parser.parse_args().real
    with tempfile.TemporaryDirectory(prefix="craft-bench-") as folder:
        env = _environment(Path(folder), is_real)
        version = [_timed([CRAFT, "--version"], folder, env)[0] for _ in range(RUNS)]
        try:
            _timed([CRAFT, "generate", "a red apple"], folder, env)  # starts the daemon, loads the model
            beyond = [_beyond_job(folder, env) for _ in range(RUNS)]
        finally:
            subprocess.run([CRAFT, "daemon", "stop", "--now"], env=env, capture_output=True, check=False)
    return figures.tell(
        [
            figures.best_of("craft --version", "a budget", version, unit="s", at_most=VERSION_LIMIT_S),
            figures.best_of("craft generate, whole process", "its job alone", beyond, unit="s", at_most=JOB_LIMIT_S),
        ]
    )


def _beyond_job(folder: str, env: dict[str, str]) -> float:
    seconds, out = _timed([CRAFT, "generate", "a red apple", "--json"], folder, env)
    return seconds - float(json.loads(out)["timings"]["total_s"])


def _timed(command: list[str], folder: str, env: dict[str, str]) -> tuple[float, str]:
    begin = time.perf_counter()
    done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, check=True)
    return time.perf_counter() - begin, done.stdout


def _environment(folder: Path, is_real: bool) -> dict[str, str]:
    if is_real:
        return environment(folder, {})
    _put_model(folder / "data" / "models" / "flat")
    return environment(folder, {"WORKER_MODULE": "craftd.fakeworker", "GENERATE_MODEL": "flat"})


def _put_model(folder: Path) -> None:
    """A model's folder without weights: all that the worker without torch asks for."""
    (folder / "unet").mkdir(parents=True)
    index = {"_class_name": "StableDiffusionPipeline", "unet": ["diffusers", "UNet2DConditionModel"]}
    files: dict[str, dict[str, object]] = {
        "model_index.json": dict(index),
        "unet/config.json": {"sample_size": 8},
        "craft.json": {"steps": 4},
    }
    for name, content in files.items():
        (folder / name).write_text(json.dumps(content))


if __name__ == "__main__":
    sys.exit(main())
