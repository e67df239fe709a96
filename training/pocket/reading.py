"""Stage 4: the text encoder learns to read what people write as it reads the captions it was taught.

A frozen copy of it is the teacher: shown the plain caption of a scene, it tells which states the text encoder
shall have, shown the same scene in other words, where a name ends and in every place after both texts. The
denoiser is trained behind it: one that knew the teacher only draws worse with what differs still.
"""

from __future__ import annotations

import copy
import random
import time
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import CLIPTextModel, CLIPTokenizer

from training.pocket import checkpoint
from training.pocket.concepts import PAIR_SHARE, random_scene
from training.pocket.muon import Muon, split_parameters
from training.pocket.phrases import Phrase, plain, written
from training.pocket.precision import fast

_MOST_TOKENS = 32


@dataclass(frozen=True)
class ReadingRecipe:
    """How long and how."""

    steps: int = 1500
    phrases: int = 64
    plain_share: float = 0.25  # of the phrases: the taught captions themselves, whose states shall stay
    whole_every: int = 6  # one step of so many sees all 77 positions
    learning_rate: float = 3e-3
    seed: int = 17


@dataclass(frozen=True)
class Pair:
    """One scene in other words and in the taught ones: tokens (phrases, length), and which places shall agree."""

    written: Tensor
    plain: Tensor
    name_rows: Tensor
    written_ends: Tensor
    plain_ends: Tensor
    is_after: Tensor  # phrases, length


def train(
    folder: Path, text_encoder: CLIPTextModel, tokenizer: CLIPTokenizer, recipe: ReadingRecipe, device: torch.device
) -> CLIPTextModel:
    """Train (or go on training) `text_encoder` and keep it in `folder`/reading.pt."""
    torch.manual_seed(recipe.seed)
    teacher = copy.deepcopy(text_encoder).to(device).requires_grad_(False).eval()
    text_encoder.to(device).train().requires_grad_(True)
    optimizer = Muon(*split_parameters(text_encoder), lr=recipe.learning_rate, others_ratio=0.3)
    parts: dict[str, checkpoint.Stateful] = {"text_encoder": text_encoder, "optimizer": optimizer}
    path = folder / "reading.pt"
    state = checkpoint.resume(path, **parts)
    rng = random.Random(recipe.seed + state.step)
    autosave = checkpoint.Autosave()
    started, before = time.monotonic(), state.seconds
    while state.step < recipe.steps:
        for group in optimizer.param_groups:
            group["lr"] = recipe.learning_rate * min(1.0, 2 * (1 - state.step / recipe.steps))
        length = tokenizer.model_max_length if state.step % recipe.whole_every == 0 else _MOST_TOKENS
        names, after = _errors(text_encoder, teacher, _pair(tokenizer, recipe, length, rng), device)
        optimizer.zero_grad(set_to_none=True)
        (names + after).backward()
        optimizer.step()
        state.step += 1
        state.seconds = before + time.monotonic() - started
        if state.step % 50 == 0:
            print(
                f"reading step {state.step}/{recipe.steps}  {state.seconds:.0f} s  names {names.item():.4f}"
                f"  after {after.item():.4f}",
                flush=True,
            )
        if autosave.is_due():
            checkpoint.save(path, state, **parts)
    checkpoint.save(path, state, **parts)
    return text_encoder.eval().requires_grad_(False)


def trained(folder: Path, text_encoder: CLIPTextModel) -> CLIPTextModel:
    """The text encoder that `folder`/reading.pt holds; the given one where there is none."""
    checkpoint.resume(folder / "reading.pt", text_encoder=text_encoder)
    return text_encoder


def _errors(student: CLIPTextModel, teacher: CLIPTextModel, pair: Pair, device: torch.device) -> tuple[Tensor, Tensor]:
    """Mean squared differences where names end, and after both texts, as shares of the states' variance."""
    with fast(device):
        with torch.no_grad():
            wanted = teacher(pair.plain.to(device)).last_hidden_state.float()
        states = student(pair.written.to(device)).last_hidden_state.float()
    variance = wanted.var()
    named = states[pair.name_rows, pair.written_ends]
    names = F.mse_loss(named, wanted[pair.name_rows, pair.plain_ends]) / variance
    after = F.mse_loss(states[pair.is_after], wanted[pair.is_after]) / variance
    return names, after


def _pair(tokenizer: CLIPTokenizer, recipe: ReadingRecipe, length: int, rng: random.Random) -> Pair:
    scenes = [random_scene(rng, pair_share=PAIR_SHARE) for _ in range(recipe.phrases)]
    taught = [plain(scene) for scene in scenes]
    others = [
        one if rng.random() < recipe.plain_share else written(scene, rng)
        for one, scene in zip(taught, scenes, strict=True)
    ]
    wide = _tokens(tokenizer, others, length)
    narrow = _tokens(tokenizer, taught, length)
    ends = torch.maximum(*((t == tokenizer.eos_token_id).int().argmax(1) for t in (wide, narrow)))
    is_after = torch.arange(length)[None] >= ends[:, None]
    rows = [row for row, scene in enumerate(scenes) for _ in scene.concepts]
    places = [torch.tensor([end for one in some for end in _name_ends(tokenizer, one)]) for some in (others, taught)]
    fit = torch.maximum(*places) < length - 1
    return Pair(wide, narrow, torch.tensor(rows)[fit], places[0][fit], places[1][fit], is_after)


def _tokens(tokenizer: CLIPTokenizer, phrases: list[Phrase], length: int) -> Tensor:
    texts = [phrase.text for phrase in phrases]
    ids: Tensor = tokenizer(
        texts, padding="max_length", truncation=True, max_length=length, return_tensors="pt"
    ).input_ids
    return ids


def _name_ends(tokenizer: CLIPTokenizer, phrase: Phrase) -> list[int]:
    """The place of each name's last token; the start token is place 0."""
    return [len(tokenizer(phrase.text[:end], add_special_tokens=False).input_ids) for end in phrase.name_ends]
