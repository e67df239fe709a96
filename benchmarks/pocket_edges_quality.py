"""How well pocket's ControlNet keeps to the outlines that it is given: the figures that its model card quotes.

    python -m benchmarks.pocket_edges_quality [FOLDER] [--scenes N] [--sheet FILE]

Each scene is rendered, placed as it comes; its outline is what `edges` makes of the render. What is drawn for the same
caption and seed, with the outline and without it, is compared by its own outline: the area that both have in common, of
the area that either has, where lines are made five pixels wide (so that two pixels beside counts as there). A rough
outline is one as somebody might draw it (`training.pocket.control.roughened`). All by plain diffusers.
"""

from __future__ import annotations

import argparse
import random
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from craftd.worker.inputs import outlines
from diffusers import ControlNetModel, StableDiffusionControlNetPipeline, StableDiffusionPipeline
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from benchmarks import figures
from training.pocket.concepts import caption, random_scene
from training.pocket.control import EXPORTED, SHIPPED, roughened
from training.pocket.render import Pixels, render

_WIDTH = 5  # pixels of a line that is compared
_DRAWN = {"with": "it", "with rough": "a rough one", "without": "none"}
_LINE = 128  # from here on an outline is one


def main() -> int:
    asked = _parse()
    drawn = draw(asked.folder, asked.scenes)
    if asked.sheet:
        _sheet(drawn[:12]).save(asked.sheet)
    found = {name: [overlap(one["real"], one[name]) for one in drawn] for name in _DRAWN}
    told = [
        figures.of_rounds(f"overlap with the given outline, drawn with {_DRAWN[name]}", "", found[name])
        for name in found
    ]
    better = [statistics.fmean(found[name]) / statistics.fmean(found["without"]) for name in ("with", "with rough")]
    for name, times in zip(("its outline", "a rough outline"), better, strict=True):
        told.append(figures.of_rounds(f"mean overlap with {name}, times that without", "", [times], at_least=2.0))
    return figures.tell(told)


def draw(folder: Path, count: int) -> list[dict[str, Pixels]]:
    """For each scene what was given, and what was drawn of it."""
    pipe: Any = StableDiffusionPipeline.from_pretrained(SHIPPED, dtype=torch.float32)
    network = ControlNetModel.from_pretrained(folder, dtype=torch.float32)
    shared = {name: part for name, part in pipe.components.items() if name != "image_encoder"}
    controlled: Any = StableDiffusionControlNetPipeline(**shared, controlnet=network, requires_safety_checker=False)
    for one in (pipe, controlled):
        one.set_progress_bar_config(disable=True)
    rng, rough, made = random.Random(23), np.random.default_rng(23), []
    for number in range(count):
        scene = random_scene(rng, pair_share=0.25)
        real, text = render(scene, rng), caption(scene, rng)
        given = outlines.edges(real)
        sketched = (roughened(given, rough) * 255).astype(np.uint8)
        made.append(
            {
                "real": real,
                "given": _grey(given),
                "with": _drawn(controlled, text, number, image=Image.fromarray(_grey(given))),
                "rough": _grey(sketched),
                "with rough": _drawn(controlled, text, number, image=Image.fromarray(_grey(sketched))),
                "without": _drawn(pipe, text, number),
            }
        )
    return made


def overlap(one: Pixels, other: Pixels) -> float:
    """The overlap of two pictures' outlines: 1 where all lines are in one place, 0 where none is."""
    lines = [_lines(outlines.edges(picture)) for picture in (one, other)]
    either = (lines[0] | lines[1]).sum()
    return float((lines[0] & lines[1]).sum() / max(1, either))


def _lines(outline: NDArray[np.uint8]) -> NDArray[np.bool_]:
    return np.asarray(ndimage.binary_dilation(outline >= _LINE, np.ones((3, 3)), iterations=_WIDTH // 4))


def _drawn(pipe: Any, text: str, seed: int, **more: Any) -> Pixels:
    generator = torch.Generator().manual_seed(seed)
    made = pipe(text, width=256, height=256, num_inference_steps=12, guidance_scale=2.0, generator=generator, **more)
    return np.asarray(made.images[0])


def _grey(levels: NDArray[np.uint8]) -> Pixels:
    return np.repeat(levels[..., None], 3, axis=2)


def _sheet(drawn: Sequence[dict[str, Pixels]]) -> Image.Image:
    """A row for each scene."""
    return Image.fromarray(np.concatenate([np.concatenate(list(one.values()), axis=1) for one in drawn]))


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", nargs="?", type=Path, default=EXPORTED, help="the ControlNet's")
    parser.add_argument("--scenes", type=int, default=48)
    parser.add_argument("--sheet", type=Path, help="where a picture of the first twelve goes")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
