"""Stage 3: the text encoder learns what things look like, before anything is drawn.

Each thing's picture, encoded, is written as a code: its scores on the principal
components of all things' latents. The text encoder learns to have that code, linearly
readable, in the hidden state where a name ends, with whether it is the first thing's or the
second's, so that attention can send each to its half. In every state after the caption it learns
to have the sum of the things' codes, along with the background, size, place and how many things
there are. The denoiser then decodes codes, which all things share, instead of learning five
hundred words one by one; and since the sum is in the same numbers as one thing's code, what it
learns from one thing serves both of two (docs/decisions/0013).
"""

from __future__ import annotations

import random
import time
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from diffusers import AutoencoderTiny
from torch import Tensor, nn
from transformers import CLIPTextModel, CLIPTokenizer

from training.pocket import checkpoint
from training.pocket.concepts import COLORS, PAIR_SHARE, PLACES, SIZES, Concept, Scene, caption, concepts, random_scene
from training.pocket.model import TEXT_WIDTH, build_text_encoder
from training.pocket.muon import Muon, split_parameters
from training.pocket.render import render_on_grid

CODE_SIZE = 256
_BACKGROUNDS, _SIZES, _PLACES = list(COLORS), [None, *SIZES], [None, *PLACES]
_LAYOUT_CHOICES = (len(_BACKGROUNDS), len(_SIZES), len(_PLACES), 2)  # 2: one thing or two
_MOST_TOKENS = 24  # a caption's, nearly always; a causal encoder gives them the same states with or without the rest


@dataclass(frozen=True)
class WordsRecipe:
    """How long and how."""

    steps: int = 2500
    captions: int = 64
    whole_every: int = 5  # one step of so many sees all 77 positions
    learning_rate: float = 0.01
    unknown_word_share: float = 0.05
    seed: int = 7


class Reader(nn.Module):
    """The text encoder and what reads its states: linear, as everything in the denoiser that meets them."""

    def __init__(self, tokenizer: CLIPTokenizer) -> None:
        super().__init__()
        self.text_encoder: CLIPTextModel = build_text_encoder(tokenizer)
        self.name_end = nn.Linear(TEXT_WIDTH, CODE_SIZE)
        self.codes = nn.Linear(TEXT_WIDTH, CODE_SIZE)  # of what is drawn: one thing's, or the sum of both
        self.order = nn.Linear(TEXT_WIDTH, 2)  # whose name ends here: the first thing's, or the second's
        self.layout = nn.Linear(TEXT_WIDTH, sum(_LAYOUT_CHOICES))


@dataclass(frozen=True)
class Lesson:
    """Captions, and what their states shall tell. Lengths are in tokens."""

    tokens: Tensor  # captions, length
    name_rows: Tensor  # captions' numbers, one a name
    name_ends: Tensor  # the name's last position
    name_things: Tensor
    name_orders: Tensor  # 0: the caption's first thing, 1: its second
    ends: Tensor  # each caption's end, and a later position
    things: Tensor  # captions, 2; the second is -1 where there is one only
    layout: Tensor  # captions, 4: background, size, place, count of things


def codes(vae: AutoencoderTiny, device: torch.device) -> Tensor:
    """(things, 256): scores on the principal components, the strong ones damped, of unit deviation."""
    views = [render_on_grid(Scene((c,), place="center"), random.Random(0)) for c in concepts()]
    pixels = torch.stack([torch.from_numpy(view).permute(2, 0, 1) for view in views])
    with torch.inference_mode():
        batches = pixels.split(16)
        latents = torch.cat([vae.encoder(part.to(device, torch.float32) / 127.5 - 1).flatten(1) for part in batches])
    centred = (latents - latents.mean(0)).double().cpu()
    scores, strengths, _ = torch.linalg.svd(centred, full_matrices=False)
    kept = scores[:, :CODE_SIZE] * strengths[:CODE_SIZE].sqrt()
    return F.pad(kept / kept.std(), (0, CODE_SIZE - kept.shape[1])).float()


def train(
    folder: Path, tokenizer: CLIPTokenizer, vae: AutoencoderTiny, recipe: WordsRecipe, device: torch.device
) -> CLIPTextModel:
    """Train (or go on), keep `folder`/words.pt; the text encoder comes back."""
    torch.manual_seed(recipe.seed)
    reader = Reader(tokenizer).to(device)
    optimizer = Muon(*split_parameters(reader), lr=recipe.learning_rate, others_ratio=0.3)
    path = folder / "words.pt"
    state = checkpoint.resume(path, reader=reader, optimizer=optimizer)
    if state.step >= recipe.steps:
        return reader.text_encoder
    truth = codes(vae, device).to(device)
    teacher = _Teacher(tokenizer, recipe, random.Random(recipe.seed + state.step))
    autosave = checkpoint.Autosave()
    started, before = time.monotonic(), state.seconds
    while state.step < recipe.steps:
        for group in optimizer.param_groups:
            group["lr"] = recipe.learning_rate * min(1.0, 2 * (1 - state.step / recipe.steps))
        is_whole = state.step % recipe.whole_every == 0
        lesson = teacher.lesson(tokenizer.model_max_length if is_whole else _MOST_TOKENS)
        code_error, layout_error = _errors(reader, lesson, truth)
        optimizer.zero_grad(set_to_none=True)
        (code_error + 0.2 * layout_error).backward()
        optimizer.step()
        state.step += 1
        state.seconds = before + time.monotonic() - started
        if state.step % 100 == 0:
            print(
                f"words step {state.step}/{recipe.steps}  {state.seconds:.0f} s  codes {code_error.item():.3f}"
                f"  layout {layout_error.item():.3f}",
                flush=True,
            )
        if autosave.is_due():
            checkpoint.save(path, state, reader=reader, optimizer=optimizer)
    checkpoint.save(path, state, reader=reader, optimizer=optimizer)
    return reader.text_encoder


def trained(folder: Path, tokenizer: CLIPTokenizer) -> CLIPTextModel:
    """The text encoder that `folder`/words.pt holds."""
    reader = Reader(tokenizer)
    checkpoint.resume(folder / "words.pt", reader=reader)
    return reader.text_encoder


def with_unknown_word(caption: str, share: float, rng: random.Random) -> str:
    """Some captions gain a word that means nothing, so that such words change nothing."""
    if rng.random() >= share:
        return caption
    word = "".join(rng.choices("abcdefghijklmnopqrstuvwxyz", k=rng.randint(3, 9)))
    return rng.choice([f"{word} {caption}", f"{caption}, {word}"])


def sums(truth: Tensor, things: Tensor) -> Tensor:
    """(captions, 256): one thing's code, or the sum of two over the square root of two, which deviates as much."""
    is_there = things >= 0
    return (truth[things.clamp(min=0)] * is_there[..., None]).sum(1) / is_there.sum(1, keepdim=True).sqrt()


def _errors(reader: Reader, lesson: Lesson, truth: Tensor) -> tuple[Tensor, Tensor]:
    """(mean squared error of the codes, cross entropy of the layout and of the names' order)."""
    device = truth.device
    states = reader.text_encoder(lesson.tokens.to(device)).last_hidden_state
    name_states = states[lesson.name_rows, lesson.name_ends]
    named = reader.name_end(name_states)
    rows = torch.arange(len(lesson.tokens))[:, None]
    last = states[rows, lesson.ends]  # captions, 2, width
    read = reader.codes(last)
    wanted = sums(truth, lesson.things.to(device))
    code_error = F.mse_loss(named, truth[lesson.name_things.to(device)]) + F.mse_loss(
        read, wanted[:, None].expand_as(read)
    )
    told = reader.layout(last).split(_LAYOUT_CHOICES, dim=-1)
    layout = lesson.layout.to(device)
    layout_error = sum(
        (
            F.cross_entropy(one.flatten(0, 1), layout[:, i].repeat_interleave(last.shape[1]))
            for i, one in enumerate(told)
        ),
        start=F.cross_entropy(reader.order(name_states), lesson.name_orders.to(device)),
    )
    return code_error, layout_error


@dataclass
class _Teacher:
    tokenizer: CLIPTokenizer
    recipe: WordsRecipe
    rng: random.Random

    def lesson(self, length: int) -> Lesson:
        scenes = [random_scene(self.rng, pair_share=PAIR_SHARE) for _ in range(self.recipe.captions)]
        texts = [
            with_unknown_word(caption(scene, self.rng), self.recipe.unknown_word_share, self.rng) for scene in scenes
        ]
        tokens = self.tokenizer(
            texts, padding="max_length", truncation=True, max_length=length, return_tensors="pt"
        ).input_ids
        names = [
            (row, end, concept.index, scene.concepts.index(concept))
            for row, scene in enumerate(scenes)
            for concept, end in self._name_ends(scene, tokens[row].tolist())
        ]
        ends = (tokens == self.tokenizer.eos_token_id).int().argmax(1)
        later = torch.tensor([self.rng.randint(int(end), length - 1) for end in ends])
        name_columns = torch.tensor(names, dtype=torch.long).reshape(-1, 4).unbind(1)
        things = torch.tensor([[scene.concepts[0].index, _second(scene)] for scene in scenes])
        return Lesson(tokens, *name_columns, torch.stack([ends, later], 1), things, _layout(scenes))

    def _name_ends(self, scene: Scene, tokens: list[int]) -> list[tuple[Concept, int]]:
        """Where each thing's name ends, for the names that are found in the tokens."""
        found, begin = [], 0
        for concept in scene.concepts:
            spans = [self._find(name, tokens, begin) for name in (concept.name, *concept.aliases)]
            ends = [end for end in spans if end is not None]
            if ends:
                begin = max(ends) + 1
                found.append((concept, max(ends)))
        return found

    def _find(self, name: str, tokens: list[int], begin: int) -> int | None:
        wanted = self.tokenizer(name, add_special_tokens=False).input_ids
        for start in range(begin, len(tokens) - len(wanted) + 1):
            if tokens[start : start + len(wanted)] == wanted:
                return start + len(wanted) - 1
        return None


def _second(scene: Scene) -> int:
    return scene.concepts[1].index if len(scene.concepts) == 2 else -1


def _layout(scenes: list[Scene]) -> Tensor:
    return torch.tensor(
        [
            [_BACKGROUNDS.index(s.background), _SIZES.index(s.size), _PLACES.index(s.place), len(s.concepts) - 1]
            for s in scenes
        ]
    )
