"""A kohya file made by a script, through `craft lora add`, to a picture that says what it was drawn with."""

from __future__ import annotations

import json
import struct
from pathlib import Path

from PIL import Image, ImageChops

from tests import lora_files, tiny_models
from tests.home import Home

TO_K = "lora_unet_down_blocks_1_attentions_0_transformer_blocks_0_attn2_to_k"


def write_lora(path: Path, *, strength: float = 1.0, more: lora_files.Tensors | None = None) -> Path:
    """For the attention of the tiny model, as kohya's scripts write it."""
    widths = tiny_widths()
    tensors: dict[str, tuple[str, tuple[int, ...], bytes]] = {}
    for name in ("to_k", "to_v"):
        tensors |= lora_files.layer(
            TO_K.replace("to_k", name), width=widths[0], out=widths[1], rank=4, seed=len(tensors)
        )
    tensors = {name: (kind, shape, _scaled(data, strength)) for name, (kind, shape, data) in tensors.items()}
    return lora_files.write(path, {**tensors, **(more or {})}, {"ss_base_model_version": "sd_v1"})


def tiny_widths() -> tuple[int, int]:
    """(of the text, of the attention) in the tiny model."""
    data = (tiny_models.cached("sd") / "unet" / "diffusion_pytorch_model.safetensors").read_bytes()
    header = json.loads(data[8 : 8 + struct.unpack("<Q", data[:8])[0]])
    out, width = header["down_blocks.1.attentions.0.transformer_blocks.0.attn2.to_k.weight"]["shape"]
    return width, out


def _scaled(data: bytes, by: float) -> bytes:
    numbers = struct.unpack(f"<{len(data) // 4}f", data)
    return struct.pack(f"<{len(numbers)}f", *(number * by for number in numbers))


def differ(home: Home, first: str, second: str) -> int:
    with Image.open(home.work / first) as one, Image.open(home.work / second) as two:
        return max(int(high) for _, high in ImageChops.difference(one.convert("RGB"), two.convert("RGB")).getextrema())  # type: ignore[misc]


def draw(home: Home, name: str, *args: str) -> dict[str, object]:
    done = home.craft("generate", "a cat", "--seed", "5", "-s", "3", "-o", name, "--json", *args)
    assert done.returncode == 0, done.stderr
    answer: dict[str, object] = json.loads(done.stdout)
    return answer


def test_a_kohya_file_changes_the_picture_and_the_picture_says_so(shared_home: Home) -> None:
    write_lora(shared_home.work / "it.safetensors", strength=20)
    added = shared_home.craft("lora", "add", "it.safetensors")
    assert (added.returncode, added.stdout) == (0, "it\n"), added.stderr
    (lora,) = [one for one in shared_home.json("lora", "list") if one["name"] == "it"]
    draw(shared_home, "plain.png")
    answer = draw(shared_home, "with.png", "-l", "it:0.8")
    used = {"id": lora["id"], "name": "it", "sha256": lora["sha256"], "weight": 0.8, "matched": 6, "total": 6}
    assert answer["loras"] == [used]
    assert differ(shared_home, "plain.png", "with.png") > 2
    draw(shared_home, "none.png", "-l", "it:0")
    assert differ(shared_home, "plain.png", "none.png") == 0
    with Image.open(shared_home.work / "with.png") as picture:
        (told,) = json.loads(picture.info["craft"])["loras"]
        assert "<lora:it:0.8>" in picture.info["parameters"]
    assert (told["name"], told["sha256"], told["weight"]) == ("it", lora["sha256"], 0.8)
    assert told["matched"] == told["total"] == 6
    verified = shared_home.craft("images", "verify", "with.png")
    assert (verified.returncode, verified.stdout) == (0, "identical\n"), verified.stderr
    shared_home.craft("lora", "rm", "it")
    verified = shared_home.craft("images", "verify", "with.png")
    assert verified.returncode == 66
    assert lora["sha256"] in verified.stderr and "it.safetensors" in verified.stderr


def test_what_does_not_fit_in_full_is_an_error(shared_home: Home) -> None:
    """Row 28: matched/total and both names; skip allows part."""
    write_lora(shared_home.work / "part.safetensors", more=lora_files.layer("lora_unet_no_such_layer", width=8))
    lora_files.kohya(shared_home.work / "wide.safetensors", width=999)
    for name, matched in (("part", "6 of 9"), ("wide", "0 of 3")):
        assert shared_home.craft("lora", "add", f"{name}.safetensors").returncode == 0
        failed = shared_home.craft("generate", "a cat", "-l", name, "-s", "2", "--json", "-o", "x.png")
        error = json.loads(failed.stderr.splitlines()[-1])["error"]
        assert (failed.returncode, error["reason"]) == (65, "LORA_MISMATCH")
        assert name in error["message"] and "tiny" in error["message"] and matched in error["message"]
    draw(shared_home, "part.png", "-l", "part", "--lora-missing", "skip")
    with Image.open(shared_home.work / "part.png") as picture:
        (told,) = json.loads(picture.info["craft"])["loras"]
    assert (told["matched"], told["total"]) == (6, 9)
    assert shared_home.craft("images", "verify", "part.png").returncode == 0
