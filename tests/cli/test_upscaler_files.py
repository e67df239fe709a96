"""Upscalers from strangers: recognised in a process of their own, registered as parts, or refused."""

from __future__ import annotations

import json

import torch
from safetensors.torch import save_file

from tests.home import Home
from tests.pictures import picture
from tests.worker.upscalers import compact


def test_one_is_added_used_and_forgotten(home: Home) -> None:
    save_file(compact(2), home.work / "2x-sharp.safetensors")
    (home.work / "a.png").write_bytes(picture(1, 48, 32))
    done = home.craft("models", "add", "2x-sharp.safetensors")
    assert done.returncode == 0, done.stderr
    shown = json.loads(home.craft("models", "show", "2x-sharp", "--json").stdout)
    assert shown["description"] == "an upscaler of 2 times: RealESRGAN Compact" and shown["size_bytes"]
    plan = json.loads(home.craft("upscale", "a.png", "--plan", "--json").stdout)
    assert (plan["model"], plan["result_width"]) == ("2x-sharp", 96), "the only one that was added is the usual one"
    drawn = home.craft("generate", "x", "-m", "2x-sharp")
    assert drawn.returncode == 65 and "enlarges pictures and draws none" in drawn.stderr
    assert home.craft("models", "rm", "2x-sharp").returncode == 0
    gone = home.craft("upscale", "a.png", "--upscaler", "2x-sharp")
    assert gone.returncode == 66 and "2x-sharp" in gone.stderr


def test_what_is_wrong_with_one_is_said(home: Home) -> None:
    broken = compact(2)
    broken["body.0.weight"][0, 0] = torch.nan
    save_file(broken, home.work / "nan.safetensors")
    torch.save(compact(2), home.work / "old.pth")
    save_file({"some.weight": torch.zeros(3, 3)}, home.work / "other.safetensors")
    for name, told in (
        ("nan.safetensors", "NaN or infinite"),
        ("old.pth", "craft convert"),
        ("other.safetensors", "no architecture that craft knows"),
    ):
        done = home.craft("models", "add", name)
        assert done.returncode == 65 and told in done.stderr, done.stderr
    assert home.craft("convert", "old.pth").returncode == 0
    assert home.craft("models", "add", "old.safetensors").returncode == 0


def test_a_folder_s_upscalers_are_found(home: Home) -> None:
    (home.work / "models" / "ESRGAN").mkdir(parents=True)
    save_file(compact(4), home.work / "models" / "ESRGAN" / "4x.safetensors")
    done = home.craft("models", "import-folder", "models", "--yes", "--json")
    assert done.returncode == 0 and "an upscaler of 4 times" in done.stdout, done.stderr
    assert "4x" in home.craft("models", "list", "--parts").stdout
