"""A LoRA trained by the real worker: used at once, and the same after kill -9."""

from __future__ import annotations

import json
import os
import signal
import struct
from pathlib import Path

import pytest
from PIL import Image, ImageChops

from docs.tutorial.character import write
from tests.home import Home, until

pytestmark = pytest.mark.slow


def tensors(path: Path) -> bytes:
    """A safetensors file without its header, which tells of times and jobs."""
    data = path.read_bytes()
    return data[8 + struct.unpack("<Q", data[:8])[0] :]


def draw(home: Home, name: str, *args: str) -> Image.Image:
    done = home.craft("generate", "pip on a red background", "-s", "4", "--seed", "3", "-o", name, *args)
    assert done.returncode == 0, done.stderr
    with Image.open(home.work / name) as picture:
        picture.load()
        return picture


def test_pocket_learns_and_draws_with_what_it_learned(pocket_home: Home) -> None:
    """A few steps, with a sample picture; kohya's layout is read as well as peft's."""
    home = pocket_home
    write(home.work / "pip")
    for layout in ("peft", "kohya"):
        done = home.craft(
            *("lora", "train", layout, "pip", "--trigger", "pip", "--steps", "3", "--batch", "1", "--lr", "0.02"),
            *("--sample", "pip", "--rank", "4", "--seed", "7", "--format", layout, "--warmup", "0", "-q"),
        )
        assert (done.returncode, done.stdout) == (0, f"{layout}\n"), done.stderr
    loras = {one["name"]: one for one in home.json("lora", "list")}
    assert [(loras[name]["base"], loras[name]["rank"], loras[name]["trigger"]) for name in ("peft", "kohya")] == [
        ("pocket", 4, "pip")
    ] * 2
    plain, learned = draw(home, "plain.png"), draw(home, "learned.png", "-l", "peft")
    told = json.loads(learned.info["craft"])["loras"][0]
    assert told["matched"] == told["total"] > 0
    assert ImageChops.difference(plain.convert("RGB"), learned.convert("RGB")).getbbox() is not None
    other = draw(home, "other.png", "-l", "kohya")
    highest = max(high for _, high in ImageChops.difference(other, learned).getextrema())  # type: ignore[misc]
    assert highest <= 1  # the same weights, in another layout
    job = home.json("jobs", "list")[-1]["id"]
    assert len(home.craft("jobs", "show", job, "--samples", "seen").stdout.split()) == 1
    shown = home.json("lora", "show", "peft")
    assert shown["metadata"]["modelspec.trigger_phrase"] == "pip"
    assert any(key.startswith("ss_") for key in shown["metadata"])


def test_pocket_learns_from_pictures_of_its_own(pocket_home: Home) -> None:
    home = pocket_home
    args = ("-n", "3", "-s", "2", "-W", "64", "-H", "64", "--json", "-o", "own-{index}.png")
    made = [json.loads(line)["image"] for line in home.craft("generate", "a red apple", *args).stdout.splitlines()]
    how = ("--steps", "2", "--batch", "1", "--rank", "4", "--resolution", "64", "--warmup", "0", "-q")
    done = home.craft("lora", "train", "own", "--images", ",".join(made), *how)
    assert (done.returncode, done.stdout) == (0, "own\n"), done.stderr
    (lora,) = [one for one in home.json("lora", "list") if one["name"] == "own"]
    assert lora["base"] == "pocket"


def test_killed_and_resumed_it_is_the_same_lora(home: Home) -> None:
    """kill -9 of the worker after a checkpoint, then of the daemon; the weights are those of an undisturbed run."""
    write(home.work / "pip")
    usual = ("--trigger", "pip", "--steps", "12", "--batch", "1", "--resolution", "64", "--checkpoint-every", "3")
    usual = (*usual, "--rank", "4", "--seed", "7", "--ema", "0.9")
    calm = home.craft("lora", "train", "calm", "pip", *usual, "-q")
    assert calm.returncode == 0, calm.stderr
    job = home.craft("lora", "train", "hurt", "pip", *usual, "--detach").stdout.strip()
    until(lambda: kept(home, job) >= 1, "the first checkpoint")
    (worker,) = home.json("daemon", "status")["workers"]
    os.kill(worker["pid"], signal.SIGKILL)
    until(lambda: kept(home, job) >= 2, "a later checkpoint")
    os.kill(home.daemon_pid(), signal.SIGKILL)
    ended = home.craft("jobs", "wait", job)
    assert ended.returncode == 0, ended.stderr
    assert [one["step"] for one in home.json("jobs", "show", job, "--plot")] == list(range(1, 13))
    loras = {one["name"]: one for one in home.json("lora", "list")}
    weights = {name: tensors(home.paths.loras_dir / f"{loras[name]['sha256']}.safetensors") for name in loras}
    assert weights["calm"] == weights["hurt"]


def kept(home: Home, job: str) -> int:
    """How many checkpoints of the job were kept."""
    lines = home.paths.log_file.read_text().splitlines()
    return sum("checkpoint kept" in line and job in line for line in lines)


def test_the_tutorials_pictures_are_always_the_same(tmp_path: Path) -> None:
    first, second = write(tmp_path / "a"), write(tmp_path / "b")
    assert [path.read_bytes() for path in first] == [path.read_bytes() for path in second]
    assert len({path.read_bytes() for path in first}) == len(first) == 8
