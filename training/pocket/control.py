"""pocket's own ControlNet: outlines show where things are, the prompt still says what they are.

`python -m training.pocket.control --work FOLDER --minutes 40` trains it against the shipped weights and goes on from
what FOLDER has; with `--export` it is then written where craft finds it. The rate falls with the time that is left, so
that a machine that others use gives a finished model too.
"""

from __future__ import annotations

import argparse
import random
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from craftd.worker.inputs import outlines
from diffusers import AutoencoderTiny, ControlNetModel, UNet2DConditionModel
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from transformers import CLIPTextModel, CLIPTokenizer

from training.pocket import checkpoint
from training.pocket.concepts import HERE, PAIR_SHARE, caption, random_scene
from training.pocket.model import training_schedule
from training.pocket.muon import Muon, split_parameters
from training.pocket.precision import fast
from training.pocket.render import SIDE, Pixels, render, render_on_grid

SHIPPED = HERE.parents[1] / "daemon" / "craftd" / "pocket"
EXPORTED = HERE.parents[1] / "daemon" / "craftd" / "pocket_edges"
_CAPTIONS_A_VIEW = 3


@dataclass(frozen=True)
class ControlRecipe:
    """How long and how; one step sees `rows` views."""

    minutes: float = 40.0
    rows: int = 16
    views: int = 6_000
    learning_rate: float = 0.005
    empty_share: float = 0.2  # of the captions: the outline alone must say where things are
    average: float = 0.99
    noisier: float = 1.6
    seed: int = 11


@dataclass(frozen=True)
class Frozen:
    """The shipped parts, which stay as they are."""

    unet: UNet2DConditionModel
    vae: AutoencoderTiny
    text_encoder: CLIPTextModel
    tokenizer: CLIPTokenizer


@dataclass(frozen=True)
class OutlinedViews:
    """Scaled latents (n, 8, 16, 16), pictures' outlines (n, 256, 256) in uint8, and captions."""

    latents: Tensor
    outlines: NDArray[np.uint8]
    captions: list[list[str]]


def shipped(folder: Path = SHIPPED) -> Frozen:
    """Of an exported pocket, in full precision."""
    unet = UNet2DConditionModel.from_pretrained(folder / "unet", dtype=torch.float32)
    vae = AutoencoderTiny.from_pretrained(folder / "vae", dtype=torch.float32)
    text = CLIPTextModel.from_pretrained(folder / "text_encoder", dtype=torch.float32)
    for part in (unet, vae, text):
        part.requires_grad_(False).eval()
    unet.to(memory_format=torch.channels_last)
    return Frozen(unet, vae, text, CLIPTokenizer.from_pretrained(folder / "tokenizer"))


def build(unet: UNet2DConditionModel) -> ControlNetModel:
    """A copy of the denoiser's way down without its attention; the text reaches it pooled, as it does the denoiser.

    Its convolutions begin as the denoiser's. The picture is brought to the latents' 16x16 by four strides.
    """
    told = unet.config
    control = ControlNetModel(
        in_channels=told["in_channels"],
        block_out_channels=tuple(told["block_out_channels"]),
        down_block_types=("DownBlock2D",) * len(told["block_out_channels"]),
        mid_block_type="UNetMidBlock2D",
        layers_per_block=told["layers_per_block"],
        norm_num_groups=told["norm_num_groups"],
        cross_attention_dim=told["cross_attention_dim"],
        attention_head_dim=told["attention_head_dim"],
        addition_embed_type="text",
        addition_embed_type_num_heads=told["addition_embed_type_num_heads"],
        resnet_time_scale_shift="scale_shift",
        conditioning_embedding_out_channels=(8, 16, 32, 64, 96),
    )
    own, others = control.state_dict(), unet.state_dict()
    same = {name: others[name] for name in own if name in others and others[name].shape == own[name].shape}
    control.load_state_dict(same, strict=False)
    return control


def make_views(frozen: Frozen, count: int, seed: int) -> OutlinedViews:
    """Half of them on the grid that pocket learned, half placed freely."""
    rng = random.Random(seed)
    latents, found, captions = [], np.empty((count, SIDE, SIDE), np.uint8), []
    for first in range(0, count, 16):
        scenes = [random_scene(rng, pair_share=PAIR_SHARE) for _ in range(min(16, count - first))]
        pictures = [(render if rng.random() < 0.5 else render_on_grid)(scene, rng) for scene in scenes]
        for place, picture in enumerate(pictures, first):
            found[place] = outlines.edges(picture)
        latents.append(encode(frozen.vae, pictures))
        captions += [[caption(scene, rng) for _ in range(_CAPTIONS_A_VIEW)] for scene in scenes]
    return OutlinedViews(torch.cat(latents), found, captions)


@torch.inference_mode()
def encode(vae: AutoencoderTiny, pictures: list[Pixels]) -> Tensor:
    """Scaled latents (n, 8, 16, 16)."""
    batch = torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2).float() / 127.5 - 1
    return vae.encoder(batch.contiguous(memory_format=torch.channels_last)) * vae.config["scaling_factor"]


def roughened(outline: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.float32]:
    """As somebody might draw it: shaken, thicker or thinner, in ink or pencil, with gaps and with dirt. 0 to 1."""
    lines = outline.astype(np.float32) / 255
    if rng.random() < 0.5:
        lines = _shaken(lines, rng)
    thickness = rng.integers(0, 5)
    if thickness > 1:
        lines = ndimage.grey_dilation(lines, size=(thickness, thickness))
    if rng.random() < 0.4:
        lines = (lines > rng.uniform(0.2, 0.6)).astype(np.float32)
    if rng.random() < 0.3:
        lines = lines * rng.uniform(0.5, 1)
    for _ in range(rng.integers(0, 6) if rng.random() < 0.4 else 0):
        top, left = rng.integers(0, SIDE, 2)
        lines[top : top + rng.integers(4, 28), left : left + rng.integers(4, 28)] = 0
    if rng.random() < 0.2:
        lines = np.maximum(lines, rng.random(lines.shape, np.float32) > rng.uniform(0.99, 1))
    return lines.astype(np.float32)


def _shaken(lines: NDArray[np.float32], rng: np.random.Generator) -> NDArray[np.float32]:
    """Moved by a smooth field of a few pixels."""
    coarse = rng.normal(0, rng.uniform(0.5, 3), (2, 8, 8)).astype(np.float32)
    field = np.stack([ndimage.zoom(one, SIDE / 8, order=1) for one in coarse])
    places = np.indices(lines.shape, np.float32) + field
    return np.asarray(ndimage.map_coordinates(lines, places, order=1, mode="nearest"))


def train(frozen: Frozen, recipe: ControlRecipe, work: Path) -> ControlNetModel:
    """Train (or go on) until the recipe's minutes are over, keep `work`/control.pt; the averaged network comes back."""
    torch.manual_seed(recipe.seed)
    control = build(frozen.unet).to(memory_format=torch.channels_last)
    average = AveragedModel(control, multi_avg_fn=get_ema_multi_avg_fn(recipe.average))
    optimizer = Muon(*split_parameters(control), lr=recipe.learning_rate, weight_decay=0.01)
    path = work / "control.pt"
    state = checkpoint.resume(path, control=control, average=average, optimizer=optimizer)
    torch.manual_seed(recipe.seed + state.step)
    rng = np.random.default_rng(recipe.seed + state.step)
    views = _views(frozen, recipe, work)
    autosave, started, before, recent = checkpoint.Autosave(180.0), time.monotonic(), state.seconds, 0.0
    while state.seconds < recipe.minutes * 60:
        _set_rate(optimizer, recipe, state)
        loss = _loss(control, frozen, views, recipe, rng)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(control.parameters(), 1.0)
        optimizer.step()
        average.update_parameters(control)
        state.step += 1
        state.seconds = before + time.monotonic() - started
        recent = loss.item() if not recent else 0.98 * recent + 0.02 * loss.item()
        if state.step % 25 == 0:
            print(f"control step {state.step}  {state.seconds:.0f} s  loss {recent:.4f}", flush=True)
        if autosave.is_due():
            checkpoint.save(path, state, control=control, average=average, optimizer=optimizer)
    checkpoint.save(path, state, control=control, average=average, optimizer=optimizer)
    return _module(average)


def trained(work: Path, unet: UNet2DConditionModel) -> ControlNetModel:
    """The averaged network that `work`/control.pt holds."""
    average = AveragedModel(build(unet), multi_avg_fn=get_ema_multi_avg_fn(ControlRecipe.average))
    checkpoint.resume(work / "control.pt", average=average)
    return _module(average)


def export(control: ControlNetModel, folder: Path) -> None:
    """Write configuration and weights in half precision; the model card stays."""
    control.to(torch.float16).save_pretrained(folder, safe_serialization=True)
    for weights in folder.glob("*.safetensors"):
        weights.chmod(0o644)  # safetensors keeps them from other users, who may run craft too


def _views(frozen: Frozen, recipe: ControlRecipe, work: Path) -> OutlinedViews:
    """Made once, and kept beside the checkpoint."""
    path = work / "views.pt"
    if not path.exists():
        work.mkdir(parents=True, exist_ok=True)
        made = make_views(frozen, recipe.views, recipe.seed)
        torch.save(
            {"latents": made.latents.half(), "outlines": torch.from_numpy(made.outlines), "captions": made.captions},
            path,
        )
    kept = torch.load(path, weights_only=True)
    return OutlinedViews(kept["latents"].float(), kept["outlines"].numpy(), kept["captions"])


def _set_rate(optimizer: torch.optim.Optimizer, recipe: ControlRecipe, state: checkpoint.Progress) -> None:
    warm = min(1.0, (state.step + 1) / 50)
    cooled = max(0.01, min(1.0, (1 - state.seconds / (recipe.minutes * 60)) / 0.4))
    for group in optimizer.param_groups:
        group["lr"] = recipe.learning_rate * warm * cooled


def _loss(
    control: ControlNetModel, frozen: Frozen, views: OutlinedViews, recipe: ControlRecipe, rng: np.random.Generator
) -> Tensor:
    """Mean squared error of the velocity that the denoiser gives with the ControlNet's help."""
    schedule, chosen = training_schedule(), rng.integers(0, len(views.captions), recipe.rows)
    rough = np.stack([roughened(views.outlines[place], rng) for place in chosen])
    shown = torch.from_numpy(rough)[:, None].expand(-1, 3, -1, -1)
    texts = [_text(views.captions[place], recipe, rng) for place in chosen]
    tokens = frozen.tokenizer(texts, padding="max_length", truncation=True, return_tensors="pt").input_ids
    latents = views.latents[torch.from_numpy(chosen)]
    spread = (torch.randperm(recipe.rows) + torch.rand(recipe.rows)) / recipe.rows
    spread = 1 - (1 - spread) ** recipe.noisier
    count = schedule.config.num_train_timesteps
    timesteps = (spread * count).long().clamp(max=count - 1)
    noise = torch.randn_like(latents)
    noisy = schedule.add_noise(latents, noise, timesteps).contiguous(memory_format=torch.channels_last)
    with fast(latents.device):
        with torch.no_grad():
            text = frozen.text_encoder(tokens).last_hidden_state
        picture = shown.contiguous(memory_format=torch.channels_last)
        down, middle = control(noisy, timesteps, text, picture, return_dict=False)
        predicted = frozen.unet(
            noisy, timesteps, text, down_block_additional_residuals=down, mid_block_additional_residual=middle
        ).sample
    return F.mse_loss(predicted.float(), schedule.get_velocity(latents, noise, timesteps))


def _text(captions: list[str], recipe: ControlRecipe, rng: np.random.Generator) -> str:
    return "" if rng.random() < recipe.empty_share else captions[rng.integers(len(captions))]


def _module(average: AveragedModel) -> ControlNetModel:
    control = average.module
    assert isinstance(control, ControlNetModel)
    return control.eval()


def main() -> None:
    """See the module's docstring."""
    parser = argparse.ArgumentParser(prog="python -m training.pocket.control", description=__doc__)
    parser.add_argument("--work", type=Path, default=HERE / "work", help="where the checkpoint lies")
    parser.add_argument("--minutes", type=float, default=ControlRecipe.minutes, help="of training, all runs together")
    parser.add_argument("--threads", type=int, default=0, help="CPU threads; 0: torch's choice")
    parser.add_argument("--export", action="store_true", help="write what the checkpoint holds, without training")
    parser.add_argument("--out", type=Path, default=EXPORTED, help="the exported folder")
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    frozen = shipped()
    if options.export:
        export(trained(options.work, frozen.unet), options.out)
    else:
        train(frozen, ControlRecipe(minutes=options.minutes), options.work)


if __name__ == "__main__":
    main()
