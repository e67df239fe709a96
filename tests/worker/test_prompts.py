"""Prompts: the syntax, the cutting into chunks, and embeddings that are diffusers' own where nothing is weighted."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from craft_protos.reasons import CraftError
from craftd.worker.families import prompts
from craftd.worker.families.lru_cache import LruCache, tensor_bytes
from craftd.worker.families.text import ClipText, ClipTokenizer

BEGIN, END, PAD = 90, 91, 0


class Letters:
    """One token a letter, five a chunk."""

    capacity = 5
    marks = (1, 1)
    comma = ord(",") - ord("a") + 1

    def pieces(self, text: str) -> list[tuple[list[int], float]]:
        return [([ord(letter) - ord("a") + 1 for letter in text if letter != " "], 1.0)]

    def padded(self, ids: Sequence[int]) -> list[int]:
        marked = [BEGIN, *ids, END]
        return marked + [PAD] * (7 - len(marked))


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [
        ("", []),
        ("plain words, and: a colon", [("plain words, and: a colon", 1.0)]),
        ("a (word:1.3) b", [("a ", 1.0), ("word", 1.3), (" b", 1.0)]),
        ("(word)", [("word", 1.1)]),
        ("[word]", [("word", 1 / 1.1)]),
        ("((word))", [("word", 1.1 * 1.1)]),
        ("(a (b:2) c:0.5)", [("a ", 0.5), ("b", 1.0), (" c", 0.5)]),
        ("(a: 1.5 )", [("a", 1.5)]),
        (r"a \(real\) one", [("a (real) one", 1.0)]),
        (r"\[x\] \\", [(r"[x] " + "\\", 1.0)]),
        ("(open to the end", [("open to the end", 1.1)]),
        ("[also", [("also", 1 / 1.1)]),
        ("closed) too (", [("closed) too ", 1.0), ("", 1.0)]),
        ("mixed (up] brackets)", [("mixed ", 1.0), ("up] brackets", 1.1)]),
        ("time 10:30) here", [("time 10:30) here", 1.0)]),
        ("(none:-0.5)", [("none", -0.5)]),
        ("(weight:1.2.3)", [("weight:1.2.3", 1.1)]),
        ("[square:1.5]", [("square:1.5", 1 / 1.1)]),
        ("雪 (猫:1.2)", [("雪 ", 1.0), ("猫", 1.2)]),
    ],
)
def test_syntax(prompt: str, expected: list[tuple[str, float]]) -> None:
    found = [(fragment.text, pytest.approx(fragment.weight)) for fragment in prompts.parse(prompt)]
    assert found == [item for item in expected if item[0]]


def test_a_text_that_is_too_long_is_cut_into_chunks_with_marks_of_their_own() -> None:
    first, second = prompts.chunks("abcde fg", Letters())
    assert first.ids == (BEGIN, 1, 2, 3, 4, 5, END)
    assert second.ids == (BEGIN, 6, 7, END, PAD, PAD, PAD)
    assert second.mask == (1, 1, 1, 1, 0, 0, 0)


def test_exactly_full_is_one_chunk_and_nothing_is_one_too() -> None:
    assert len(prompts.chunks("abcde", Letters())) == 1
    assert prompts.chunks("", Letters()) == [prompts.empty(Letters())]


def test_weights_follow_their_tokens_over_a_cut() -> None:
    first, second = prompts.chunks("abcd(ef:2)", Letters())
    assert first.weights == (1, 1, 1, 1, 1, 2, 1)
    assert second.weights == (1, 2, 1, 1, 1, 1, 1)
    assert not first.is_plain
    assert prompts.chunks("(a:1)", Letters())[0].is_plain


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [
        ("abcdefg", ["abcde", "fg"]),
        ("ab,cdefg", ["ab,", "cdefg"]),
        ("abcde,f", ["abcde", ",f"]),
        ("ab,cd", ["ab,cd"]),
        ("ab,cdefghi", ["ab,", "cdefg", "hi"]),
        ("ab BREAK c", ["ab", "c"]),
        ("BREAK", [""]),
        ("a BREAK BREAK (b)", ["a", "", "b"]),
    ],
)
def test_a1111_cuts_behind_a_comma_and_at_break(prompt: str, expected: list[str]) -> None:
    read = [one.ids[1 : one.length - 1] for one in prompts.chunks(prompt, Letters(), "a1111")]
    assert ["".join(chr(token + ord("a") - 1) for token in chunk) for chunk in read] == expected
    assert prompts.chunks("(a:2)", Letters(), "a1111")[0].weights[1] == 2


@pytest.fixture(scope="module")
def text(pipelines: Callable[[str], Any]) -> ClipText:
    pipe = pipelines("sd")
    return ClipText(pipe.tokenizer, pipe.text_encoder, torch.device("cpu"))


def _embed(text: ClipText, prompt: str, count: int = 1) -> torch.Tensor:
    with torch.inference_mode():
        return text.embed(text.encode(prompt), count)


def _diffusers(pipe: Any, prompt: str) -> torch.Tensor:
    with torch.inference_mode():
        embedding: torch.Tensor = pipe.encode_prompt(prompt, torch.device("cpu"), 1, False)[0]
        return embedding


@pytest.mark.parametrize("prompt", ["", "a red cat", "a dog " * 15, "(a red:1.0) cat", r"red \(cat\)", "UPPER, 3 d."])
def test_unweighted_embeddings_are_exactly_diffusers(
    text: ClipText, pipelines: Callable[[str], Any], prompt: str
) -> None:
    plain = prompt.replace("(a red:1.0)", "a red").replace("\\", "")
    assert torch.equal(_embed(text, prompt), _diffusers(pipelines("sd"), plain))


def test_the_tokenizer_pads_as_its_own_does(pipelines: Callable[[str], Any]) -> None:
    own = pipelines("sd").tokenizer
    ours = ClipTokenizer(own)
    expected = own("a red cat", padding="max_length", max_length=77, truncation=True).input_ids
    assert ours.padded(ours.pieces("a red cat")[0][0]) == expected


def test_long_prompts_are_chunk_after_chunk(text: ClipText, pipelines: Callable[[str], Any]) -> None:
    first, second = "cat " * 75, "red dog"
    pipe = pipelines("sd")
    embedding = _embed(text, f"{first} {second}", 2)
    assert embedding.shape == (1, 154, 32)
    assert torch.equal(embedding[:, :77], _diffusers(pipe, first.strip()))
    assert torch.equal(embedding[:, 77:], _diffusers(pipe, second))


def test_the_shorter_is_filled_up_with_empty_chunks(text: ClipText, pipelines: Callable[[str], Any]) -> None:
    embedding = _embed(text, "a cat", 3)
    assert torch.equal(embedding[:, 154:], _diffusers(pipelines("sd"), ""))


def test_a_weight_moves_its_own_token_away_from_the_empty_prompt(text: ClipText) -> None:
    plain, heavy, empty = _embed(text, "red cat"), _embed(text, "red (cat:1.5)"), _embed(text, "")
    torch.testing.assert_close(heavy[:, 2], empty[:, 2] + 1.5 * (plain[:, 2] - empty[:, 2]))
    assert torch.equal(heavy[:, :2], plain[:, :2])
    torch.testing.assert_close(_embed(text, "red (cat:0)")[:, 2], empty[:, 2])


@pytest.mark.parametrize(
    "prompt",
    [":" + "1" * 20_000, ":" + " " * 20_000, "(a" * 10_000, "(" * 20_000, "[a" * 9_000 + "]" * 2_000, "(a:" * 6_600],
)
def test_a_hostile_prompt_is_parsed_in_time_that_grows_with_its_length(prompt: str) -> None:
    short = prompt[: len(prompt) // 8]
    assert _seconds(prompt) < 8 * 5 * max(_seconds(short), 0.002)  # quadratic: 64 times


def _seconds(prompt: str) -> float:
    def once() -> float:
        began = time.process_time()
        prompts.parse(prompt)
        return time.process_time() - began

    return min(once() for _ in range(3))


def test_a_prompt_of_too_many_tokens_is_refused_with_the_limit() -> None:
    assert len(prompts.chunks("a" * 32 * 5, Letters())) == 32
    with pytest.raises(CraftError, match="161 tokens are more than 160"):
        prompts.chunks("a" * 161, Letters())


def test_what_is_kept_is_bounded_by_bytes() -> None:
    kept = LruCache[torch.Tensor](100, tensor_bytes)
    made: list[str] = []

    def make(name: str, size: int) -> Callable[[], torch.Tensor]:
        def build() -> torch.Tensor:
            made.append(name)
            return torch.zeros(size, dtype=torch.uint8)

        return build

    for name, size in (("a", 40), ("b", 40), ("a", 40), ("c", 40), ("a", 40), ("b", 40)):
        kept.get(name, make(name, size))
    assert made == ["a", "b", "c", "b"]  # b was the one not used lately
    kept.get("big", make("big", 500))
    assert (len(kept), kept.used_bytes) == (1, 500)
