"""How well pocket draws what it is asked for, and what a picture costs.

Prints the table that the model card quotes. A small classifier (training/pocket/
classifier.py), trained on renders with other seeds, judges; it is trained first
where it is missing (some minutes). Everything is drawn by the plain diffusers
pipeline from the shipped folder.
"""

from __future__ import annotations

import argparse
import random
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from craft_protos.samplers import SAMPLERS
from craftd.worker.families import samplers
from diffusers import StableDiffusionPipeline
from PIL import Image
from torch import Tensor

from benchmarks.pocket_measures import as_tensor, edge_sharpness, features, frechet_distance
from training.pocket.classifier import Classifier, real_accuracy, shrink, trained
from training.pocket.concepts import COLORS, Concept, Scene, caption, concepts, is_held_out
from training.pocket.export import DEFAULTS
from training.pocket.phrases import plural, synonyms, written
from training.pocket.render import render_on_grid

ROOT = Path(__file__).parents[1]
SHIPPED = ROOT / "daemon" / "craftd" / "pocket"
BATCH = 16
SHEET_PROMPTS = 40


@dataclass(frozen=True)
class Ask:
    """One picture to draw: its words, seed and the scene it should show."""

    prompt: str
    seed: int
    scene: Scene


def main() -> None:
    options = _parse()
    torch.set_num_threads(options.threads)
    judge = trained(options.judge)
    print(f"judge: {real_accuracy(judge):.1%} of real renders named (needs 98 %)", flush=True)
    pipe = _load(options.model)
    _report_concepts(pipe, judge, options.concepts, options.seeds)
    _report_reconstructions(pipe, options.scenes)
    _report_backgrounds(pipe, judge, options.scenes)
    _report_pairs(pipe, judge, options.scenes)
    _report_phrases(pipe, judge, options.scenes)
    _report_guidance(pipe, judge, options.scenes)
    if options.samplers:
        _report_samplers(pipe, judge, options.samplers)
    _report_cost(options.model)
    contact_sheet(pipe).save(options.sheet)
    print(f"contact sheet: {options.sheet}")


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.pocket_quality", description=__doc__)
    parser.add_argument("--model", type=Path, default=SHIPPED)
    parser.add_argument("--judge", type=Path, default=ROOT / "training" / "pocket" / "work" / "classifier.pt")
    parser.add_argument("--concepts", type=int, default=len(concepts()), help="how many of them, evenly chosen")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--scenes", type=int, default=120, help="scenes for each composition figure")
    parser.add_argument("--samplers", type=int, default=60, help="concepts a sampler draws; 0: leave samplers out")
    parser.add_argument("--sheet", type=Path, default=Path("pocket.png"))
    parser.add_argument("--threads", type=int, default=2)
    return parser.parse_args()


def _load(folder: Path) -> StableDiffusionPipeline:
    pipe = StableDiffusionPipeline.from_pretrained(folder, dtype=torch.float32, safety_checker=None)
    pipe.set_progress_bar_config(disable=True)
    return pipe


@torch.inference_mode()
def draw(
    pipe: StableDiffusionPipeline, asks: Sequence[Ask], *, steps: int = 0, guidance: float = 0.0, negative: str = ""
) -> Tensor:
    """Pictures (n, 3, 256, 256) in [-1, 1]."""
    drawn = []
    for part in _parts(asks):
        result = pipe(
            [ask.prompt for ask in part],
            negative_prompt=[negative] * len(part),
            width=DEFAULTS["width"],
            height=DEFAULTS["height"],
            num_inference_steps=steps or DEFAULTS["steps"],
            guidance_scale=guidance or DEFAULTS["guidance_scale"],
            generator=[torch.Generator().manual_seed(ask.seed) for ask in part],
            output_type="pt",
        )
        drawn.append(result.images * 2 - 1)
    return torch.cat(drawn)


def _parts(asks: Sequence[Ask]) -> Iterator[Sequence[Ask]]:
    for start in range(0, len(asks), BATCH):
        yield asks[start : start + BATCH]


def _some(count: int) -> list[Concept]:
    every = max(1, len(concepts()) // count)
    return list(concepts())[::every][:count]


@torch.inference_mode()
def _found(judge: Classifier, pictures: Tensor, wanted: Sequence[Concept], top: int) -> float:
    best = judge(shrink(pictures)).topk(top, 1).indices
    return statistics.fmean(c.index in row for c, row in zip(wanted, best.tolist(), strict=True))


def _report_concepts(pipe: StableDiffusionPipeline, judge: Classifier, count: int, seeds: int) -> None:
    chosen = _some(count)
    scenes = [Scene((c,)) for c in chosen]
    shares, edges, drawn, real = [], [], [], []
    for seed in range(seeds):
        pictures = draw(pipe, [Ask(f"a {c.name}", 1000 + seed, Scene((c,))) for c in chosen])
        shares.append((_found(judge, pictures, chosen, 1), _found(judge, pictures, chosen, 5)))
        edges.append(edge_sharpness(list(pictures), scenes))
        drawn.append(features(judge, pictures))
        real += [features(judge, _renders(scenes, 2 * seed + i)) for i in range(2)]
    first, five = zip(*shares, strict=True)
    print(
        f"{len(chosen)} concepts, {seeds} seeds: top-1 {statistics.fmean(first):.1%}"
        f" ({min(first):.1%} to {max(first):.1%}), top-5 {statistics.fmean(five):.1%}",
        flush=True,
    )
    sharpness, apart = zip(*edges, strict=True)
    print(
        f"edge sharpness, the same: {statistics.fmean(sharpness):.3f} of real renders'"
        f" ({min(sharpness):.3f} to {max(sharpness):.3f}); mean absolute difference from the nearest view"
        f" {statistics.fmean(apart):.4f}",
        flush=True,
    )
    some, others = torch.cat(real[::2]), torch.cat(real[1::2])
    print(
        f"Frechet distance in the judge's features, the same: {frechet_distance(torch.cat(drawn), some):.3f}"
        f" (between two sets of real renders: {frechet_distance(others, some):.3f})",
        flush=True,
    )


def _renders(scenes: Sequence[Scene], seed: int) -> Tensor:
    """A real view of each scene, as the pictures that pocket learned from."""
    rng = random.Random(6000 + seed)
    return torch.stack([as_tensor(render_on_grid(scene, rng)) for scene in scenes])


def _report_reconstructions(pipe: StableDiffusionPipeline, count: int) -> None:
    """The autoencoder alone encodes and decodes real views: what it loses, no denoiser can give back."""
    scenes = [Scene((c,)) for c in _some(count)]
    with torch.inference_mode():
        drawn = [_reconstructed(pipe, part) for part in _renders(scenes, 99).split(BATCH)]
    sharpness, apart = edge_sharpness(list(torch.cat(drawn)), scenes)
    print(
        f"{count} real renders through the autoencoder: edge sharpness {sharpness:.3f}, mean absolute difference"
        f" {apart:.4f}",
        flush=True,
    )


def _reconstructed(pipe: StableDiffusionPipeline, pictures: Tensor) -> Tensor:
    decoded: Tensor = pipe.vae.decode(pipe.vae.encode(pictures).latents).sample
    return decoded


def _report_backgrounds(pipe: StableDiffusionPipeline, judge: Classifier, count: int) -> None:
    for held_out in (False, True):
        asks = _single_asks(count, held_out)
        pictures = draw(pipe, asks)
        obeyed = statistics.fmean(_border_color(p) == a.scene.background for p, a in zip(pictures, asks, strict=True))
        top1 = _found(judge, pictures, [a.scene.concepts[0] for a in asks], 1)
        kind = "never seen together" if held_out else "seen"
        print(f"{count} concepts on a colour ({kind}): background obeyed {obeyed:.1%}, top-1 {top1:.1%}", flush=True)


def _single_asks(count: int, held_out: bool) -> list[Ask]:
    rng = random.Random(5)
    asks: list[Ask] = []
    while len(asks) < count:
        scene = Scene((rng.choice(concepts()),), rng.choice([c for c in COLORS if c != "white"]))
        if is_held_out(scene) == held_out:
            asks.append(Ask(caption(scene, rng), 2000 + len(asks), scene))
    return asks


def _border_color(picture: Tensor) -> str:
    edges = [
        picture[:, :6].flatten(1),
        picture[:, -6:].flatten(1),
        picture[..., :6].flatten(1),
        picture[..., -6:].flatten(1),
    ]
    mean = (torch.cat(edges, 1).mean(1) + 1) * 127.5
    return min(COLORS, key=lambda name: float((mean - torch.tensor(COLORS[name])).square().sum()))


def _report_pairs(pipe: StableDiffusionPipeline, judge: Classifier, count: int) -> None:
    for held_out in (False, True):
        asks = _pair_asks(count, held_out)
        pictures = draw(pipe, asks)
        both = statistics.fmean(_both_found(judge, p, a.scene) for p, a in zip(pictures, asks, strict=True))
        kind = "never seen together" if held_out else "of the kind seen"
        print(f"{count} two-thing prompts ({kind}): both found {both:.1%}", flush=True)


def _pair_asks(count: int, held_out: bool) -> list[Ask]:
    rng = random.Random(6)
    asks: list[Ask] = []
    while len(asks) < count:
        scene = Scene(tuple(rng.sample(concepts(), 2)))
        if is_held_out(scene) == held_out:
            asks.append(Ask(" and ".join(f"a {c.name}" for c in scene.concepts), 3000 + len(asks), scene))
    return asks


@torch.inference_mode()
def _both_found(judge: Classifier, picture: Tensor, scene: Scene) -> bool:
    halves = []
    for half in (picture[..., :128], picture[..., 128:]):
        canvas = half[:, :8].mean((1, 2))[:, None, None].expand(3, 256, 256).clone()
        canvas[..., 64:192] = half
        halves.append(canvas)
    named = judge(shrink(torch.stack(halves))).argmax(1).tolist()
    return sorted(named) == sorted(c.index for c in scene.concepts)


def _report_phrases(pipe: StableDiffusionPipeline, judge: Classifier, count: int) -> None:
    """Single things on white, asked for as people write: plurals, other words for them, words around them."""
    rng = random.Random(8)
    chosen = _some(count)
    for kind, texts in {
        "plurals": [plural(c.name) for c in chosen],
        "other words": [rng.choice(synonyms()[c.name]) for c in _with_synonyms(count)],
        "whole phrases": [written(Scene((c,)), rng).text for c in chosen],
    }.items():
        things = _with_synonyms(count) if kind == "other words" else chosen
        asks = [Ask(text, 7000 + i, Scene((c,))) for i, (text, c) in enumerate(zip(texts, things, strict=True))]
        print(f"{len(asks)} {kind}: top-1 {_found(judge, draw(pipe, asks), things, 1):.1%}", flush=True)


def _with_synonyms(count: int) -> list[Concept]:
    known = [c for c in concepts() if c.name in synonyms()]
    return known[:: max(1, len(known) // count)][:count]


def _report_guidance(pipe: StableDiffusionPipeline, judge: Classifier, count: int) -> None:
    chosen = _some(count)
    asks = [Ask(f"a {c.name}", 4000 + i, Scene((c,))) for i, c in enumerate(chosen)]
    for guidance in (1.0, DEFAULTS["guidance_scale"], 7.5):
        print(
            f"guidance {guidance}: top-1 {_found(judge, draw(pipe, asks, guidance=guidance), chosen, 1):.1%}",
            flush=True,
        )
    for negative in ("", "small", "large"):
        inked = statistics.fmean(_inked(picture) for picture in draw(pipe, asks[:30], negative=negative))
        print(f"negative prompt {negative!r}: {inked:.1%} of the picture inked", flush=True)


def _inked(picture: Tensor) -> float:
    """The share of pixels that are not the white background."""
    return float((picture.mean(0) < 0.85).float().mean())


def _report_samplers(pipe: StableDiffusionPipeline, judge: Classifier, count: int) -> None:
    chosen = _some(count)
    asks = [Ask(f"a {c.name}", 5000 + i, Scene((c,))) for i, c in enumerate(chosen)]
    shipped = pipe.scheduler
    for name in SAMPLERS:
        pipe.scheduler = samplers.build(name, shipped)
        started = time.monotonic()
        top1 = _found(judge, draw(pipe, asks, steps=20), chosen, 1)
        print(f"{name}, 20 steps: top-1 {top1:.1%} of {count}  ({time.monotonic() - started:.0f} s)", flush=True)
    pipe.scheduler = shipped


def _report_cost(folder: Path) -> None:
    """Time and memory of a process that does nothing else."""
    subprocess.run([sys.executable, "-m", "benchmarks.pocket_quality", "cost", str(folder)], check=True, cwd=ROOT)


def _cost(folder: Path) -> None:
    torch.set_num_threads(2)
    pipe = _load(folder)
    ask = [Ask("a red apple", 0, Scene(()))]
    draw(pipe, ask)
    times = []
    for _ in range(9):
        started = time.perf_counter()
        draw(pipe, ask)
        times.append(time.perf_counter() - started)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(
        f"one picture, 2 threads: {statistics.median(times):.2f} s median of 9"
        f" ({min(times):.2f} to {max(times):.2f}), peak memory {peak:.2f} GiB",
        flush=True,
    )


def contact_sheet(pipe: StableDiffusionPipeline) -> Image.Image:
    """40 prompts, eight a row."""
    lines = (ROOT / "training" / "pocket" / "sheet.txt").read_text(encoding="utf-8").splitlines()
    asks = [Ask(line, 7, Scene(())) for line in lines[:SHEET_PROMPTS]]
    sheet = Image.new("RGB", (8 * 256, SHEET_PROMPTS // 8 * 256), "gray")
    for i, picture in enumerate(draw(pipe, asks)):
        pixels = ((picture.clamp(-1, 1) + 1) * 127.5).round().byte().permute(1, 2, 0).numpy()
        sheet.paste(Image.fromarray(pixels), (i % 8 * 256, i // 8 * 256))
    return sheet


if __name__ == "__main__":
    if sys.argv[1:2] == ["cost"]:
        _cost(Path(sys.argv[2]))
    else:
        main()
