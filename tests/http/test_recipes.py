"""POST /recipes: what pictures say, as what a job would be."""

from __future__ import annotations

import pytest

from tests.http.shim import LORA, Keys, Shim, told
from tests.recipe_files import png, with_comment

_SETTINGS = "Steps: 5, Sampler: Euler, Schedule type: Karras, CFG scale: 4, Seed: 77, Size: 64x96, ENSD: 31337"


def test_a_picture_of_another_program(shim: Shim, keys: Keys) -> None:
    text = f"a fox <lora:{LORA}:0.5> <lora:far:1>\nNegative prompt: dog\n{_SETTINGS}, Model: Flat, Version: v1.10"
    found = shim.call("POST", "/recipes", keys.user, data=with_comment(text, "JPEG")).json()
    wish = found["wish"]
    assert (found["program"], wish["prompt"], wish["negative_prompt"]) == ("AUTOMATIC1111", "a fox", "dog")
    assert (wish["model"], wish["steps"], wish["seed"], wish["width"]) == ("flat", 5, 77, 64)
    assert (wish["sampler"], wish["clip_skip"], wish["hires"]) == ("Euler Karras", None, None)
    assert [(one["name"], one["weight"]) for one in wish["loras"]] == [(LORA, 0.5)]
    assert [one["what"] for one in found["missing"]] == ["the LoRA far"] and found["not_honoured"] == ["ENSD: 31337"]


def test_a_picture_of_craft_s_own(shim: Shim, keys: Keys) -> None:
    made = shim.post("/jobs", keys.user, prompt="a red apple", model="flat", steps=3, seed=9, width=64, height=64)
    job = shim.finish(made.json()["id"])
    data = shim.call("GET", f"/images/{job.images[0].id}", keys.user).content
    found = shim.call("POST", "/recipes", keys.user, data=data).json()
    assert (found["program"], found["missing"], found["not_honoured"]) == ("craft", [], [])
    assert (found["wish"]["prompt"], found["wish"]["model"], found["wish"]["seed"]) == ("a red apple", "flat", 9)


@pytest.mark.parametrize(
    "data", [b"", b"no picture", png({}), png({"prompt": "[" * 100_000})], ids=["empty", "none", "mute", "deep"]
)
def test_what_says_nothing(shim: Shim, keys: Keys, data: bytes) -> None:
    assert told(shim.call("POST", "/recipes", keys.user, data=data))[:2] == (422, "NO_PROVENANCE")
