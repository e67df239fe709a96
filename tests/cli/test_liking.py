"""Other programs' pictures, and craft's own, drawn after: `craft images replay`, `craft generate --like`."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path

import craftd
import pytest

from tests.home import Home
from tests.lora_files import kohya
from tests.recipe_files import COMFY, png, with_comment

POCKET = Path(craftd.__file__).parent / "pocket" / "unet" / "diffusion_pytorch_model.safetensors"


@pytest.fixture(scope="module")
def studio() -> Iterator[Home]:
    """With the built-in model and a LoRA of it."""
    home = Home(model="", CRAFT_GENERATE_MODEL="pocket")
    kohya(home.work / "it.safetensors")
    done = home.craft("lora", "add", "it.safetensors", "--name", "mine")
    assert done.returncode == 0, done.stderr
    yield home
    home.remove()


@pytest.fixture(scope="module")
def infotext(studio: Home) -> str:
    digits = hashlib.sha256(POCKET.read_bytes()).hexdigest()[:10]
    lora = studio.json("lora", "show", "mine")
    return (
        "a red apple <lora:theirs:0.5>\nNegative prompt: worm\nSteps: 5, Sampler: Euler, Schedule type: Karras, "
        f"CFG scale: 4, Seed: 77, Size: 64x96, Model hash: {digits}, Model: renamed, ENSD: 31337, "
        f'Lora hashes: "theirs: {lora["ss_hash"][:12]}", Version: v1.10.1'
    )


def newest(home: Home) -> dict[str, object]:
    job: dict[str, object] = home.json("jobs", "list", "-n", "1")[0]["generate"]
    return job


def test_replay_finds_by_hashes_and_names_what_is_lost(studio: Home, infotext: str) -> None:
    (studio.work / "other.jpg").write_bytes(with_comment(infotext, "JPEG"))
    done = studio.craft("images", "replay", "other.jpg", "-o", "again.png", "--json")
    assert done.returncode == 0, done.stderr
    spec = newest(studio)
    assert (spec["prompt"], spec["negative_prompt"], spec["model"]) == ("a red apple", "worm", "pocket")
    assert (spec["steps"], spec["guidance_scale"], spec["seed"], spec["sampler"]) == (5, 4, 77, "Euler Karras")
    assert (spec["width"], spec["height"]) == (64, 96)
    assert [(one["name"], one["weight"]) for one in spec["loras"]] == [("mine", 0.5)]  # type: ignore[union-attr, attr-defined]
    assert "AUTOMATIC1111" in done.stderr and "alike, not the same" in done.stderr
    assert "craft: not honoured: ENSD: 31337" in done.stderr


def test_like_is_for_what_is_not_given(studio: Home, infotext: str) -> None:
    data = png({"parameters": infotext})
    done = studio.craft(
        *("generate", "a pear", "--like", "-", "-s", "3", "-l", "mine:0.2", "-W", "128", "-o", "pear.png"), stdin=data
    )
    assert done.returncode == 0, done.stderr
    spec = newest(studio)
    assert (spec["prompt"], spec["negative_prompt"], spec["steps"], spec["seed"]) == ("a pear", "worm", 3, 77)
    assert spec["prompt_syntax"] == "a1111"
    assert spec["width"] == 128 and spec["height"] != 96
    assert [one["weight"] for one in spec["loras"]] == [0.2]  # type: ignore[attr-defined]
    done = studio.craft("generate", "--like", "pear.png", "-g", "2", "-o", "own.webp", "-q")  # craft's own, prompt too
    assert done.returncode == 0 and done.stderr == ""
    spec = newest(studio)
    assert (spec["prompt"], spec["steps"], spec["guidance_scale"], spec["seed"]) == ("a pear", 3, 2, 77)
    assert studio.craft("images", "verify", "own.webp").stdout == "identical\n"


def test_like_in_batches_and_sweeps_and_with_any_seed(studio: Home, infotext: str) -> None:
    (studio.work / "other.png").write_bytes(png({"parameters": infotext}))
    lines = '{"prompt": "a plum", "steps": 2}\na fig\n'
    done = studio.craft("generate", "--like", "other.png", "--batch", "-", "-o", "{n}.png", "--seed", "-1", stdin=lines)
    assert done.returncode == 0, done.stderr
    specs = [one["generate"] for one in studio.json("jobs", "list", "-n", "2")]
    assert {(one["prompt"], one["steps"]) for one in specs} == {("a plum", 2), ("a fig", 5)}
    assert 77 not in {one["seed"] for one in specs} and {one["sampler"] for one in specs} == {"Euler Karras"}
    done = studio.craft("generate", "--like", "other.png", "--sweep", "steps=2,3", "-o", "s{steps}.png")
    assert done.returncode == 0 and {"s2.png", "s3.png"} <= {path.name for path in studio.work.iterdir()}
    assert newest(studio)["prompt"] == "a red apple"


def test_what_is_not_here_is_named_with_what_to_do(studio: Home) -> None:
    gone = (
        "x <lora:far:1>\nSteps: 2, Seed: 1, Size: 64x64, Model hash: 0123456789, Model: nowhere, "
        'Civitai resources: [{"type":"lora","modelVersionId":345}]'
    )
    (studio.work / "gone.png").write_bytes(png({"parameters": gone}))
    done = studio.craft("images", "replay", "gone.png", "-o", "no.png")
    assert done.returncode == 66 and not (studio.work / "no.png").exists()
    for part in (
        *("the model nowhere [0123456789]", "the LoRA far", "by-hash/0123456789", "-m NAME"),
        "craft lora add https://civitai.com/api/download/models/345",
    ):
        assert part in done.stderr
    done = studio.craft("generate", "--like", "gone.png", "-m", "pocket", "--lora-missing", "skip", "-o", "yes.png")
    assert done.returncode == 0 and "not honoured: LoRA far, which is not here" in done.stderr
    assert "does nothing" not in done.stderr


def test_show_says_what_it_found(studio: Home, infotext: str) -> None:
    (studio.work / "graph.png").write_bytes(png({"prompt": json.dumps(COMFY)}))
    shown = studio.json("images", "show", "graph.png")
    assert shown["provenance"] is None and shown["recipe"]["program"] == "ComfyUI"
    assert shown["recipe"]["loras"][0] == {"name": "a", "hash": "", "version": "", "weight": 0.8}
    rows = dict(line.split("\t") for line in studio.craft("images", "show", "graph.png").stdout.splitlines())
    assert (
        rows["size"] == "896x1152"
        and rows["model"] == "sd_xl_base_1.0"
        and rows["loras"] == "a:0.8, b:0.3"
        and "FreeU" in rows["not understood"]
    )


@pytest.mark.parametrize(
    ("args", "code", "part"),
    [
        (("generate", "-", "--like", "-"), 2, "stdin is read once"),
        (("generate", "--like", "none.png"), 66, "none.png"),
        (("generate", "--like", "plain.png"), 65, "does not say how it was made"),
        (("images", "replay", "plain.png"), 65, "does not say how it was made"),
    ],
)
def test_refusals(studio: Home, args: tuple[str, ...], code: int, part: str) -> None:
    (studio.work / "plain.png").write_bytes(png({}))
    done = studio.craft(*args, stdin=b"")
    assert done.returncode == code and part in done.stderr
