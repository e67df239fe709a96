"""Stage 0: a CLIP tokenizer whose merges make each word of the captions one token.

Any other text still has tokens: the 256 bytes and their end-of-word forms.
"""

from __future__ import annotations

import json
import random
from collections import Counter
from pathlib import Path

from tokenizers import Regex, Tokenizer, normalizers, pre_tokenizers
from tokenizers.models import BPE
from tokenizers.trainers import BpeTrainer
from transformers import CLIPTokenizer

from training.pocket.concepts import COLOR_ALIASES, COLORS, caption, concepts, random_scene

START, END = "<|startoftext|>", "<|endoftext|>"
WORD_END = "</w>"
MAX_LENGTH = 77
_PATTERN = r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"


def write(folder: Path, seed: int = 7) -> CLIPTokenizer:
    """Learn the merges, write a CLIPTokenizer folder, and return it loaded."""
    folder.mkdir(parents=True, exist_ok=True)
    merges = _learn_merges(seed)
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokens = [*alphabet, *(letter + WORD_END for letter in alphabet), *("".join(pair) for pair in merges)]
    vocabulary = {token: index for index, token in enumerate(dict.fromkeys([*tokens, START, END]))}
    (folder / "vocab.json").write_text(json.dumps(vocabulary, ensure_ascii=False), encoding="utf-8")
    lines = ["#version: 0.2", *(" ".join(pair) for pair in merges)]
    (folder / "merges.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    tokenizer = CLIPTokenizer(
        vocab=str(folder / "vocab.json"), merges=str(folder / "merges.txt"), model_max_length=MAX_LENGTH
    )
    tokenizer.save_pretrained(folder)
    return tokenizer


def _learn_merges(seed: int) -> list[tuple[str, str]]:
    tokenizer = Tokenizer(BPE(end_of_word_suffix=WORD_END, continuing_subword_prefix=""))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_PATTERN), "removed", invert=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    trainer = BpeTrainer(vocab_size=20_000, min_frequency=1, show_progress=False, end_of_word_suffix=WORD_END)
    tokenizer.train_from_iterator(_corpus(seed), trainer)
    return [tuple(pair) for pair in json.loads(tokenizer.to_str())["model"]["merges"]]


def _corpus(seed: int) -> list[str]:
    rng = random.Random(seed)
    texts = [caption(random_scene(rng), rng) for _ in range(5000)]
    names = [name for concept in concepts() for name in (concept.name, *concept.aliases)]
    words = Counter(word for name in names for word in name.split())
    return texts + names + [*words, *COLORS, *COLOR_ALIASES] * 20
