"""`python -m docs.tutorial`: makes the tutorial's pictures, as its reader would, and measures what it claims.

Pictures of a character are drawn, a LoRA is trained on them with `craft lora train`, and pictures are drawn
with and without it, on backgrounds that the training pictures do not have. README's pictures that begin from
pictures are made last, by its own lines.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, pstdev

import psutil
from PIL import Image

from docs.tutorial import begun
from docs.tutorial.character import UNSEEN, caption, write
from docs.tutorial.commands import HERE, Craft, row
from docs.tutorial.measure import distance

OPTIONS = (
    "--trigger",
    "pip",
    "--batch",
    "2",
    "--seed",
    "7",
    "--class-prompt",
    "a robot",
    "--class-pictures",
    "8",
    "--prior-weight",
    "0.5",
)
SEEDS = (1, 2)  # of the pictures that are measured, for each background
LIMIT_S = 180.0


@dataclass(frozen=True)
class Case:
    """One way to ask for Pip, or not."""

    name: str
    title: str
    words: str  # instead of the trigger; "" for the trigger itself
    lora: bool


CASES = (
    Case("before", "the trigger, without the LoRA", "", False),
    Case("after", "the trigger, with the LoRA", "", True),
    Case("other", "another word, with the LoRA", "a robot", True),
)


@dataclass(frozen=True)
class Took:
    """The training, from the command to the LoRA."""

    wall_s: float
    cpu_s: float  # of the worker
    load: float  # of the machine meanwhile: what wanted to run at once

    def __str__(self) -> str:
        verdict = "met" if self.wall_s <= LIMIT_S else "missed"
        cores = os.cpu_count()
        return (
            f"From the command to the LoRA: {self.wall_s:.0f} s, {self.cpu_s:.0f} s of CPU time, on {cores} cores at a"
            f" load of {self.load:.1f} (goal: {LIMIT_S:.0f} s, {verdict}).\n"
        )


def main() -> int:
    with tempfile.TemporaryDirectory(prefix="craft-tutorial-") as folder:
        root = Path(folder)
        craft = Craft(root)
        try:
            return _run(craft, root)
        finally:
            craft.run("daemon", "stop", "--now")


def _run(craft: Craft, root: Path) -> int:
    taught = write(root / "pip")
    since = time.monotonic()
    craft.run("lora", "train", "pip", root / "pip", *OPTIONS)
    took = Took(time.monotonic() - since, _cpu_s(craft), os.getloadavg()[1])
    drawn = {case.name: _draw(craft, root, case) for case in CASES}
    _save(row(taught), "pictures.png")
    for case in CASES:
        _save(row([path for paths in drawn[case.name].values() for path in paths]), f"{case.name}.png")
    (job,) = [one["id"] for one in json.loads(craft.run("jobs", "list", "-n", 0, "--json")) if one["kind"] == "train"]
    craft.run("jobs", "show", job, "--plot", "-o", HERE / "loss.png", "--force")
    report, is_good = _report(drawn, took)
    begun.make(craft, root)
    (HERE / "measured.md").write_text(report, encoding="utf-8")
    print(report)
    return 0 if is_good else 1


def _draw(craft: Craft, root: Path, case: Case) -> dict[str, list[Path]]:
    """By background, one for each seed."""
    drawn: dict[str, list[Path]] = {}
    for background in UNSEEN:
        prompt = caption(background).replace("pip", case.words) if case.words else caption(background)
        pattern = root / f"{case.name}-{background}-{{seed}}.png"
        lora = ["-l", "pip"] if case.lora else []
        out = craft.run("generate", prompt, "-n", len(SEEDS), "--seed", SEEDS[0], "-o", pattern, *lora)
        drawn[background] = [Path(line) for line in out.splitlines()]
    return drawn


def _report(drawn: dict[str, dict[str, list[Path]]], took: Took) -> tuple[str, bool]:
    means, lines = {}, []
    for case in CASES:
        found = [distance(path, background) for background, paths in drawn[case.name].items() for path in paths]
        means[case.name] = fmean(found)
        lines.append(f"| {case.title} | {fmean(found):.3f} | {pstdev(found):.3f} |")
    is_good = means["after"] < min(means["before"], means["other"])
    told = f"Distance from Pip, {len(UNSEEN)} backgrounds it was not taught on, {len(SEEDS)} seeds each:\n"
    table = ["| asked for with | mean | spread |", "|---|---|---|", *lines]
    return "\n".join([str(took), told, *table, ""]), is_good


def _cpu_s(craft: Craft) -> float:
    """Of the worker, which has done nothing but train."""
    (worker,) = json.loads(craft.run("daemon", "status", "--json"))["workers"]
    times = psutil.Process(worker["pid"]).cpu_times()
    return float(times.user + times.system)


def _save(picture: Image.Image, name: str) -> None:
    picture.quantize(256).save(HERE / name, "PNG", optimize=True)


if __name__ == "__main__":
    sys.exit(main())
