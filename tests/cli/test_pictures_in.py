"""Pictures to begin from, as a user gives them: files, stdin, craft's own; sent once, refused by their names."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from craftd.store.contents import Contents
from PIL import Image

from tests.home import Home
from tests.pictures import picture

COLOUR = (200, 100, 40)


def file(colour: tuple[int, int, int] = COLOUR, size: tuple[int, int] = (64, 48), kind: str = "PNG") -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", size, colour).save(stream, kind)
    return stream.getvalue()


@pytest.fixture(scope="module")
def place() -> Iterator[Home]:
    """A daemon for all, and pictures in the folder that `craft` is called in."""
    home = Home()
    for name, data in (
        ("it.png", file()),
        ("mask.png", file((255, 255, 255))),
        ("wide.png", file((255, 255, 255), (128, 24))),
        ("empty.png", b""),
        ("page.png", b"<html></html>"),
        ("moving.gif", file(kind="GIF")),
        ("large.png", file(size=(1000, 500))),
    ):
        (home.work / name).write_bytes(data)
    (home.work / "folder").mkdir()
    yield home
    home.remove()


def middle(path: Path) -> tuple[int, ...]:
    with Image.open(path) as opened:
        found = opened.convert("RGB").getpixel((opened.width // 2, opened.height // 2))
    assert isinstance(found, tuple)
    return found


def made_from(path: Path) -> str:
    with Image.open(path) as opened:
        told: str = json.loads(opened.text["craft"])["start"]["sha256"]  # type: ignore[attr-defined]
    return told


@pytest.mark.parametrize(
    ("args", "stdin"),
    [
        (["-i", "it.png"], None),
        (["--image", "./it.png"], None),
        (["--init-image=it.png"], None),
        (["--init-img", "it.png", "--denoising-strength", "0"], None),
        (["-i", "-"], file()),
        (["--image-path", "it.png", "--image-strength", "1.0"], None),  # mflux keeps all of it
    ],
)
def test_a_picture_is_drawn_from(place: Home, args: list[str], stdin: bytes | None) -> None:
    strength = [] if any("strength" in one for one in args) else ["--strength", "0"]
    done = place.craft("generate", "an apple", *args, *strength, "-o", "out.png", "-f", stdin=stdin)
    assert done.returncode == 0, done.stderr
    assert middle(place.work / "out.png") == COLOUR
    with Image.open(place.work / "out.png") as opened:
        assert opened.size == (64, 48)


def test_one_of_crafts_own_is_drawn_from_by_its_id(place: Home) -> None:
    (first,) = [json.loads(one) for one in place.craft("generate", "x", "--json").stdout.splitlines()]
    done = place.craft("generate", "y", "-i", first["image"][:12], "--strength", "0", "-o", "own.png")
    assert done.returncode == 0, done.stderr
    assert middle(place.work / "own.png") == middle(place.work / first["path"])


def test_a_plan_says_what_follows_from_the_picture(place: Home) -> None:
    known = place.json("generate", "x", "-i", "large.png", "-s", "20", "--strength", "0.3", "--plan")
    assert (known["steps"], known["steps_done"]) == (20, 6)
    assert 1.5 < known["width"] / known["height"] < 2.5  # as near as what the model can comes
    assert known["start"]["fit"] == "crop"
    said = place.craft("generate", "x", "-i", "large.png", "-s", "20", "--strength", "0.3", "--plan").stdout
    assert "0.3: 6 of 20 steps are done" in said


@pytest.mark.parametrize(
    ("args", "code", "told"),
    [
        (["-i", "no.png"], 66, "no.png cannot be read: No such file"),
        (["-i", "0123456789"], 66, "there is no file 0123456789, and no picture of craft's with that id"),
        (["-i", "folder"], 66, "folder is a folder"),
        (["-i", "https://example.org/a.png"], 66, "is an address, and craft fetches nothing"),
        (["-i", "empty.png"], 65, "empty.png is empty"),
        (["-i", "page.png"], 65, "page.png: is no JPEG, PNG or WebP picture"),
        (["-i", "moving.gif"], 65, "moving.gif: is no JPEG, PNG or WebP picture"),
        (["-i", "it.png", "--mask", "page.png"], 65, "page.png: is no"),
        (["--mask", "mask.png"], 2, "--mask does nothing without --image"),
        (["--strength", "0.5"], 2, "--strength does nothing without --image"),
        (["--fit", "fill"], 2, "--fit does nothing without --image"),
        (["-i", "it.png", "--mask-blur", "3"], 2, "--mask-blur does nothing without --mask"),
        (["-i", "it.png", "--mask-invert"], 2, "--mask-invert does nothing without --mask"),
        (["-i", "it.png", "--strength", "2"], 65, "--strength: must be from 0 to 1, not 2.0"),
        (["-i", "it.png", "--strength", "nan"], 65, "--strength: must be from 0 to 1"),
        (["-i", "it.png", "--strength", "0.1", "-s", "5"], 65, "--strength: 0.1 of 5 steps is less than one"),
        (["-i", "it.png", "--fit", "squeeze"], 65, "--fit: must be one of crop, fill, stretch"),
        (["-i", "it.png", "--mask", "mask.png", "--mask-blur", "-1"], 65, "--mask-blur: must be from 0"),
        (["-i", "it.png", "--mask", "mask.png", "--mask-padding", "-1"], 65, "--mask-padding: "),
        (["-i", "it.png", "-W", "33"], 65, "--width: must be a multiple of"),
        (["-i", "-", "--mask", "-"], 2, "--image - does not go with --mask -"),
        (["-i", "it.png", "--image-strength", "much"], 2, "--image-strength: 'much' is not a number"),
    ],
)
def test_what_is_wrong_is_told_by_its_name(place: Home, args: list[str], code: int, told: str) -> None:
    done = place.craft("generate", "x", *args)
    assert (done.returncode, done.stdout) == (code, "")
    assert told in done.stderr.splitlines()[0 if "--image-strength" not in args else -2]
    assert "Start(" not in done.stderr and "Traceback" not in done.stderr


@pytest.mark.parametrize("args", [["-i", "-"], ["-", "-i", "-"], ["--batch", "-", "-i", "-"]])
def test_stdin_is_read_once(place: Home, args: list[str]) -> None:
    done = place.craft("generate", *args, stdin=file())
    assert (done.returncode, done.stdout) == (2, "")
    assert "--image - takes stdin" in done.stderr


def test_what_the_daemon_has_is_not_sent_again(place: Home) -> None:
    (place.work / "once.png").write_bytes(picture(77))
    for _ in range(2):
        assert place.craft("generate", "x", "-i", "once.png", "--detach").returncode == 0
    kept = list(place.paths.inputs_dir.iterdir())
    before = {path: path.stat().st_mtime_ns for path in kept}
    assert place.craft("generate", "x", "-i", "once.png", "--detach").returncode == 0
    assert {path: path.stat().st_mtime_ns for path in place.paths.inputs_dir.iterdir()} == before


def test_what_is_left_of_another_upload_is_no_hindrance(place: Home) -> None:
    """Whatever the daemon has of it: it is gone on with, and where that is damaged sent anew."""
    for number, left in enumerate((picture(78)[:99], b"x" * 99)):
        data = picture(78) + bytes(number)  # what lies behind a PNG's end says nothing
        (place.work / "cut.png").write_bytes(data)
        sha256 = hashlib.sha256(data).hexdigest()
        receiving = Contents(place.paths.inputs_dir, "inputs").receive("local", sha256, 0)
        receiving.add(left)
        receiving.close()
        assert place.craft("generate", "x", "-i", "cut.png", "--detach").returncode == 0
        assert (place.paths.inputs_dir / sha256).read_bytes() == data


def test_lines_name_pictures_too(place: Home) -> None:
    lines = [
        {"prompt": "a", "image": "it.png"},
        {"prompt": "b", "image": "it.png", "strength": 0.5},
        {"prompt": "c", "image": "no.png"},
        {"prompt": "d", "mask": "mask.png"},
        {"prompt": "e", "image": "page.png"},
        {"prompt": "f", "image": "it.png", "strength": 2},
        {"prompt": "g"},
        {"prompt": "h", "image": 7},
    ]
    text = "".join(f"{json.dumps(line)}\n" for line in lines)
    done = place.craft("generate", "--batch", "-", "--json", "--strength", "0", "-o", "line-{n}.png", stdin=text)
    assert done.returncode == 65
    told = [json.loads(line) for line in done.stdout.splitlines()]
    assert middle(place.work / told[0]["path"]) == COLOUR
    assert (told[1]["width"], told[1]["height"]) == (64, 48)
    assert [one.get("error", {}).get("reason") for one in told] == [
        *(None, None, "NO_INPUT", "INVALID_FIELD", "BAD_INPUT", "INVALID_FIELD", None, "INVALID_FIELD")
    ]
    assert "page.png" in told[4]["error"]["message"]
    sha256 = made_from(place.work / told[0]["path"])
    start = {"sha256": sha256, "strength": 0.0}
    done = place.craft("generate", "--batch", "-", "-o", "s.png", stdin=json.dumps({"prompt": "x", "start": start}))
    assert done.returncode == 0, done.stdout
    assert middle(place.work / "s-1.png") == COLOUR


def test_every_line_may_begin_from_the_same_picture(place: Home) -> None:
    done = place.craft(
        "generate", "--batch", "-", "-i", "it.png", "--strength", "0", "-o", "all-{n}.png", stdin="a\nb\n"
    )
    assert done.returncode == 0, done.stdout
    assert [middle(place.work / f"all-{n}.png") for n in (1, 2)] == [COLOUR, COLOUR]


@pytest.fixture
def lost(home: Home) -> Home:
    """A picture that was made from one that the daemon has no longer."""
    (home.work / "it.png").write_bytes(file())
    (home.work / "other.png").write_bytes(file((1, 2, 3)))
    args = ["-i", "it.png", "--strength", "0.5", "--seed", "7"]
    assert home.craft("generate", "x", *args, "-o", "made.png").returncode == 0
    assert home.craft("images", "verify", "made.png").stdout == "identical\n"
    assert home.craft("images", "replay", "made.png", "-o", "again.png").returncode == 0
    assert home.craft("prune", "inputs", "--older-than", "0s", "--force").returncode == 0
    return home


def test_a_picture_made_again_asks_for_what_it_was_made_from(lost: Home) -> None:
    with_image = ["-i", "it.png"]
    for args, code, told in (
        ([], 66, "it was made from the picture"),
        (["-i", "other.png"], 65, "--image other.png: is not what it was made from"),
    ):
        done = lost.craft("images", "verify", "made.png", *args)
        assert (done.returncode, done.stdout) == (code, "")
        assert told in done.stderr
    done = lost.craft("images", "verify", "made.png", *with_image)
    assert (done.returncode, done.stdout) == (0, "identical\n"), done.stderr
    assert lost.craft("images", "replay", "made.png", "-o", "third.png").returncode == 0


def test_a_picture_of_words_alone_needs_none(place: Home) -> None:
    assert place.craft("generate", "x", "-o", "words.png").returncode == 0
    done = place.craft("images", "replay", "words.png", "-i", "it.png", "-o", "w.png")
    assert (done.returncode, done.stderr.splitlines()[0]) == (2, "craft: --image: it was made from none")


def test_a_configured_size_is_not_that_of_a_picture_that_is_begun_from(place: Home) -> None:
    env = {"CRAFT_GENERATE_SIZE": "32x32"}
    for args, size in ((["-i", "it.png"], (64, 48)), ([], (32, 32))):
        assert place.craft("generate", "x", *args, "-o", "sized.png", "-f", env=env).returncode == 0
        with Image.open(place.work / "sized.png") as opened:
            assert opened.size == size
    lines = '{"prompt": "x", "image": "it.png"}\nx\n'
    done = place.craft("generate", "--batch", "-", "-o", "sized-{n}.png", "-f", stdin=lines, env=env)
    assert [json.loads(line)["width"] for line in done.stdout.splitlines()] == [64, 32]
