"""Prompts that are made anew for each picture: what is chosen follows from its seed, and is bounded."""

from __future__ import annotations

import time
from collections import Counter
from pathlib import Path

import pytest
from craft_protos.dispatch import Dispatch, ModelManifest
from craft_protos.generate import GenerateRequest, GenerateSpec
from craft_protos.provenance import record, request
from craft_protos.reasons import CraftError
from craft_protos.settings import LimitSettings
from craftd.jobs import expanding
from craftd.prompting.wildcards import Expansion, Wildcards

SPEC = GenerateSpec("", "", "flat", 64, 64, 4, 3.5, 7, 3, "Euler")
CIRCUMSTANCES = {"scheduler": "x", "versions": {"craft": "1"}}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "wildcards"
    (folder / "animals").mkdir(parents=True)
    (folder / "animals" / "tame.txt").write_text("# none\n\ncat\n{small|big} dog\n", encoding="utf-8-sig")
    (folder / "colour.txt").write_text("red\n")
    (folder / "loop.txt").write_text("__loop__\n")
    (tmp_path / "secret.txt").write_text("secret\n")
    (folder / "out.txt").symlink_to(tmp_path / "secret.txt")
    return folder


def _made(template: str, folder: Path | None = None, count: int = 400) -> Counter[str]:
    return Counter(Expansion(seed, Wildcards(folder), 1000).of(template) for seed in range(count))


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        ("a {red|{big|small} green} apple", {"a red apple", "a big green apple", "a small green apple"}),
        ("{2$$a|b|c}", {"a, b", "b, a", "a, c", "c, a", "b, c", "c, b"}),
        ("{1-2$$ and $$a|b}", {"a", "b", "a and b", "b and a"}),
        ("{0::a|b}", {"b"}),
        ("x{|y}", {"x", "xy"}),
        (r"\{a|b\} [c|d] a_b__c", {"{a|b} [c|d] a_b__c"}),
        ("a __colour__ __animals/tame__", {"a red cat", "a red small dog", "a red big dog"}),
    ],
)
def test_all_that_can_be_chosen_is(template: str, expected: set[str], folder: Path) -> None:
    found = _made(template, folder)
    assert set(found) == expected and found == _made(template, folder)


def test_weights_are_shares() -> None:
    assert 0.7 < _made("{3::a|1::b}")["a"] / 400 < 0.8


@pytest.mark.parametrize(
    ("template", "said"),
    [
        ("{a|b", "without its }"),
        ("a}", "without its {"),
        ("{3$$a|b}", "of 2"),
        ("{" * 30, "braces in each other"),
        ("__nothing__", "no such file"),
        ("__out__", "no such file"),  # a link that leads out of the folder
        ("__loop__", "within each other"),
        ("{a|b}" * 1001, "1000 places"),
        ("a" * 1001, "1000 characters"),
    ],
)
def test_what_cannot_be_chosen_is_said(template: str, said: str, folder: Path) -> None:
    with pytest.raises(CraftError, match=said):
        Expansion(1, Wildcards(folder), 1000).of(template)


@pytest.mark.parametrize("name", ["../secret", "/etc/passwd", "..", "a/../../secret"])
def test_a_path_is_no_wildcard(name: str, folder: Path) -> None:
    assert set(_made(f"__{name}__", folder, 3)) == {f"__{name}__"}


@pytest.mark.parametrize("unit", ["{a|", "_", "__a_", "\\", "{1$$", "a "])
def test_a_hostile_template_is_read_in_time_that_grows_with_its_length(unit: str) -> None:
    began = time.process_time()
    try:
        Expansion(1, Wildcards(None), 100_000).of(unit * (20_000 // len(unit)))
    except CraftError as error:
        assert error.reason == "INVALID_FIELD"
    assert time.process_time() - began < 2


def test_each_picture_has_its_own_prompt_and_says_so() -> None:
    template = "a {red|green|blue|white|black|grey|pink} {cat|dog|fox|owl|hen|cow|pig}"
    wanted = expanding.seeded(GenerateRequest(template, "{x|y}", seed=7, count=3, wildcards=True))
    spec = expanding.completed(SPEC, expanding.expand(wanted, template, "", LimitSettings()), LimitSettings())
    expected = [Expansion(seed, Wildcards(None), 99).of(template) for seed in (7, 8, 9)]
    assert [one.prompt for one in spec.expanded] == expected
    job = Dispatch("j", 1, spec, ModelManifest("flat"), indices=(0, 1, 2))
    told = record(job, 2, (), CIRCUMSTANCES)
    assert (told["prompt"], told["negative_prompt"]) == (spec.expanded[2].prompt, spec.expanded[2].negative_prompt)
    assert "prompt_template" in told and "expanded" not in told
    again = request(told, ())
    assert (again.prompt, again.seed, again.wildcards) == (spec.expanded[2].prompt, 9, False)


def test_a_picture_of_many_is_the_same_alone() -> None:
    asked = GenerateRequest("a {red|green|blue} {cat|dog|fox}", seed=7, count=4, wildcards=True)
    many = expanding.expand(asked, asked.prompt, "", LimitSettings())
    alone = GenerateRequest(asked.prompt, seed=7, count=4, wildcards=True, indices=(2,))
    assert expanding.expand(alone, asked.prompt, "", LimitSettings()) == (many[2],)


@pytest.mark.parametrize("prompt", ["a {<lora:it:1>|cat}", "{a|{b| <LORA:it>}}"])
def test_a_lora_is_not_chosen(prompt: str) -> None:
    with pytest.raises(CraftError, match="all pictures of a job have the same LoRAs"):
        expanding.seeded(GenerateRequest(prompt, wildcards=True))
    assert expanding.seeded(GenerateRequest("{a|b} <lora:it:1>", wildcards=True)).seed is not None
