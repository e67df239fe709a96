"""A newcomer's first picture, and what it carries."""

from __future__ import annotations

import json

from PIL import Image

from tests.home import Home


def test_the_first_picture_from_the_built_in_model(pocket_home: Home) -> None:
    done = pocket_home.craft("generate", "a red apple", "--seed", "3")
    assert done.returncode == 0, done.stderr
    path = pocket_home.work / done.stdout.strip()
    assert path.name == "a-red-apple-3.png"
    with Image.open(path) as image:
        image.load()
        assert (image.format, image.size) == ("PNG", (256, 256))
        provenance = json.loads(image.info["craft"])
        assert "a red apple" in image.info["parameters"]
    assert provenance["model"]["name"] == "pocket"
    assert provenance["seed"] == 3


def test_two_prompts_in_a_batch_give_two_pictures(shared_home: Home) -> None:
    done = shared_home.craft("generate", "--batch", "-", "--json", stdin="a red apple\na rocket\n")
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(lines) == 2
    for line in lines:
        with Image.open(shared_home.work / line["path"]) as image:
            image.verify()


def test_bytes_in_a_pipe_are_a_png(shared_home: Home) -> None:
    done = shared_home.craft("generate", "a cat", "-o", "-")
    assert done.returncode == 0, done.stderr
    assert done.stdout.encode("utf-8", "surrogateescape").startswith(b"\x89PNG\r\n\x1a\n")
