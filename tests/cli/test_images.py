"""craft images: fetch, remove, make again."""

from __future__ import annotations

import json
import shutil
from io import BytesIO
from pathlib import Path

import pytest
from craft_cli.generate import provenance
from craft_protos.reasons import CraftError
from PIL import Image, PngImagePlugin

from tests.home import Home


def draw(home: Home, *args: str) -> dict[str, object]:
    answer: dict[str, object] = home.json("generate", "x", *args)
    return answer


def pixels(path: Path) -> bytes:
    with Image.open(path) as picture:
        return picture.convert("RGB").tobytes()


def test_list_show_get_rm(home: Home) -> None:
    image = str(draw(home, "--seed", "3")["image"])
    (listed,) = home.json("images", "list")
    shown = home.json("images", "show", image[:8])
    assert listed == shown
    details = dict(line.split("\t") for line in home.craft("images", "show", image).stdout.splitlines())
    assert (details["guidance scale"], details["deterministic"]) == ("7.5", "no") and "{" not in details["versions"]
    assert (shown["id"], shown["seed"], shown["prompt"], shown["media_type"]) == (image, 3, "x", "image/png")
    assert shown["provenance"]["model"]["name"] == "flat"
    assert home.craft("images", "get", image).returncode == 73  # x-3.png lies there
    assert home.craft("images", "get", image, "-o", "again.png").stdout == "again.png\n"
    assert (home.work / "again.png").read_bytes() == (home.work / "x-3.png").read_bytes()
    assert home.craft("images", "rm", image[:8]).stdout == f"{image}\n"
    assert home.craft("images", "show", image).returncode == 66
    assert (home.work / "x-3.png").exists()


def test_prune(home: Home) -> None:
    images = [str(draw(home)["image"]) for _ in range(3)]
    assert home.craft("images", "prune").returncode == 2
    assert home.craft("images", "prune", "--older-than", "soon").returncode == 2
    for number in ("3", "30", "0.5"):  # seconds, days?
        done = home.craft("images", "prune", "--older-than", number, "--force")
        assert done.returncode == 2 and f"{number} of what?" in done.stderr and f"{number}d" in done.stderr
    assert home.craft("images", "prune", "--older-than", "-3d", "--force").returncode == 2
    assert home.craft("images", "prune", "--keep", "1").returncode == 2  # nobody to ask
    assert home.craft("images", "prune", "--keep", "1", "--dry-run").stdout.split() == images[1::-1]
    assert home.craft("images", "prune", "--older-than", "1h", "--force").stdout == ""
    assert home.craft("images", "prune", "--keep", "1", "--force").stdout.split() == images[1::-1]
    assert [one["id"] for one in home.json("images", "list")] == images[2:]


def test_replay_works_with_an_empty_database(home: Home) -> None:
    home.craft("generate", "x", "--seed", "9", "-n", "3", "-o", "{index}.png", "--negative", "y", "-W", "128")
    home.craft("daemon", "stop")
    home.paths.database.unlink()
    shutil.rmtree(home.paths.images_dir)
    done = home.craft("images", "replay", "2.png", "-o", "again.png")
    assert done.returncode == 0, done.stderr
    assert pixels(home.work / "again.png") == pixels(home.work / "2.png")
    (job,) = home.json("jobs", "list")
    spec = job["generate"]
    assert (spec["seed"], spec["count"], spec["negative_prompt"], spec["width"]) == (11, 1, "y", 128)


def test_replay_from_stdin_into_another_format(shared_home: Home) -> None:
    draw(shared_home, "-o", "a.png")
    done = shared_home.craft("images", "replay", "-", "-o", "b.webp", stdin=(shared_home.work / "a.png").read_bytes())
    assert done.stdout == "b.webp\n", done.stderr
    with Image.open(shared_home.work / "b.webp") as picture:
        assert picture.format == "WEBP"


def test_verify_identical_and_leaves_nothing(home: Home) -> None:
    draw(home, "-o", "a.png")
    assert home.craft("images", "verify", "a.png").stdout == "identical\n"
    assert len(home.json("images", "list")) == 1
    pictures = [line.split("\t")[4] for line in home.craft("jobs", "list").stdout.splitlines()]
    assert pictures == ["1/1, 0 kept", "1/1"], "a job that succeeded has drawn all of them"


def edit(path: Path, by: int) -> None:
    """Change one pixel, keep the provenance."""
    with Image.open(path) as picture:
        picture.load()
        notes = PngImagePlugin.PngInfo()
        notes.add_text("craft", picture.info["craft"])
        red, green, blue = picture.getpixel((1, 1))  # type: ignore[misc]
        picture.putpixel((1, 1), (red + by if red < 128 else red - by, green, blue))
    picture.save(path, pnginfo=notes)


def test_verify_of_what_is_no_picture(shared_home: Home) -> None:
    (shared_home.work / "a.png").write_bytes(b"hello")
    done = shared_home.craft("images", "verify", "a.png")
    assert (done.returncode, done.stderr) == (65, "craft: a.png is no picture\n  give a PNG, JPEG or WebP\n")


def test_verify_within_and_different(shared_home: Home) -> None:
    draw(shared_home, "--seed", "1", "-o", "a.png")  # a red of 127 would be moved to one side first, then to the other
    edit(shared_home.work / "a.png", 1)
    assert shared_home.craft("images", "verify", "a.png").stdout == "within 1/255\n"
    assert shared_home.craft("images", "verify", "a.png", "--tolerance", "0").returncode == 1
    edit(shared_home.work / "a.png", 40)
    done = shared_home.craft("images", "verify", "a.png")
    assert done.returncode == 1
    assert "different, by up to 4" in done.stderr
    told = shared_home.craft("images", "verify", "a.png", "--json")
    assert json.loads(told.stdout)["result"] == "different"
    assert json.loads(told.stderr)["error"]["reason"] == "DIFFERENT"


def test_another_model_under_the_same_name_is_no_replay(home: Home) -> None:
    draw(home, "-o", "a.png")
    config = home.paths.models_dir / "flat" / "unet" / "config.json"
    config.write_text(json.dumps({"sample_size": 16}))
    home.craft("daemon", "restart")
    done = home.craft("images", "replay", "a.png", "-o", "b.png")
    assert done.returncode == 66
    assert "flat here is" in done.stderr
    assert home.craft("images", "replay", "a.png", "-o", "b.png", "-m", "flat").returncode == 0


def test_a_renamed_model_is_found_by_its_sha256(home: Home) -> None:
    draw(home, "-o", "a.png")
    (home.paths.models_dir / "flat").rename(home.paths.models_dir / "flatter")
    home.craft("daemon", "restart")
    assert home.craft("images", "verify", "a.png").stdout == "identical\n"


def test_files_that_say_nothing(shared_home: Home) -> None:
    Image.new("RGB", (8, 8)).save(shared_home.work / "bare.png")
    (shared_home.work / "text.png").write_text("hello")
    (shared_home.work / "empty.png").write_bytes(b"")
    cases = {"bare.png": "NO_PROVENANCE", "text.png": "BAD_DATA", "empty.png": "BAD_DATA", "none.png": "NO_INPUT"}
    for name, reason in cases.items():
        done = shared_home.craft("images", "replay", name, "--json")
        assert json.loads(done.stderr)["error"]["reason"] == reason


def note(kind: str, text: str) -> bytes:
    """A picture's file whose provenance is `text`."""
    out, picture = BytesIO(), Image.new("RGB", (8, 8))
    notes, exif = PngImagePlugin.PngInfo(), Image.Exif()
    notes.add_text("craft", text)
    exif.get_ifd(0x8769)[0x9286] = b"ASCII\0\0\0" + text.encode()
    picture.save(out, kind, pnginfo=notes, exif=exif)
    return out.getvalue()


GOOD = {
    "prompt": "x",
    "model": {"name": "m", "sha256": "s"},
    "width": 8,
    "height": 8,
    "steps": 2,
    "guidance_scale": 1,
    "seed": 5,
    "sampler": "Euler",
}


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
def test_provenance_is_read_from_every_format(kind: str) -> None:
    found = provenance.read(provenance.open_picture(note(kind, json.dumps(GOOD)), "f"), "f")
    assert (found.spec.prompt, found.spec.seed, found.spec.count, found.model_sha256) == ("x", 5, 1, "s")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "no json",
        "[]",
        "{}",
        "[" * 50_000,
        json.dumps(GOOD | {"model": "m"}),
        json.dumps(GOOD | {"seed": "5"}),
        json.dumps(GOOD | {"width": None}),
        json.dumps(GOOD | {"format": "gif"}),
        json.dumps(GOOD | {"versions": 3}),
        json.dumps(GOOD | {"guidance_scale": 10**400}),
        json.dumps(GOOD | {"loras": [{"sha256": "s", "weight": 10**400}]}),
    ],
)
def test_hostile_provenance_is_an_error_like_any_other(text: str) -> None:
    with pytest.raises(CraftError) as caught:
        provenance.read(provenance.open_picture(note("PNG", text), "f"), "f")
    assert caught.value.reason == "NO_PROVENANCE"


def test_a_bomb_is_not_decoded() -> None:
    out = BytesIO()
    Image.new("1", (20_000, 20_000)).save(out, "PNG")
    with pytest.raises(CraftError) as caught:
        provenance.open_picture(out.getvalue(), "bomb.png")
    assert caught.value.reason == "BAD_DATA"
