"""What readers met who tried craft for the first time: each once, with what must happen instead."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from tests.cli.test_terminal_process import at_terminal, plain
from tests.home import Home
from tests.pictures import picture


@pytest.mark.parametrize(
    ("line", "code", "said"),
    [
        ("generate x --upscale 2 --upscaler pocketx4", 66, "--upscaler: no upscaler is called 'pocketx4'"),
        ("generate x --upscale 2 --upscaler pocketx4", 66, "upscalers: lanczos, pocket-x4"),
        ("upscale a.png --scale 99", 65, "--scale: must be from"),  # though a-upscaled.png is there
        ("upscale a.png --scale 99", 65, "--help says what --scale takes"),
        ("generate x --sweep guidance=1,1", 2, "--sweep guidance=1,1: 1 is there twice"),
        ("generate x --sweep guidance=1,1.0", 2, "1.0 is there twice"),
        ("generate x --hires -i a.png", 2, "--hires does not go with --image"),
        ("generate x --hires --ref a.png", 2, "--hires does not go with --ref"),
        ("convert note.txt", 65, "'note.txt' is no pickled file"),
        ("convert note.txt -o -", 2, "name it, or a folder: -o DIR/"),
        ("lora train it --images 3f9a 7c2b --trigger x", 66, "several ids have commas between: --images 3f9a,7c2b"),
    ],
)
def test_what_is_wrong_is_said_in_the_users_words(shared_home: Home, line: str, code: int, said: str) -> None:
    (shared_home.work / "note.txt").write_text("a cat")
    (shared_home.work / "a.png").write_bytes(picture(1))
    (shared_home.work / "a-upscaled.png").write_bytes(b"kept")
    done = shared_home.craft(*line.split())
    assert (done.returncode, said in done.stderr) == (code, True), done.stderr


def test_a_converted_file_goes_into_a_folder_that_is_made(shared_home: Home) -> None:
    torch = pytest.importorskip("torch")
    torch.save({"weight": torch.zeros(2)}, shared_home.work / "old.pth")
    done = shared_home.craft("convert", "old.pth", "-o", "made/")
    assert (done.stdout, done.stderr) == ("made/old.safetensors\n", "")
    assert (shared_home.work / "made" / "old.safetensors").stat().st_size > 0


def test_a_picture_that_no_viewer_shows_leaves_nothing_behind(
    shared_home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """xdg-open says so by its exit code, and not at once."""
    (viewer := tmp_path / "xdg-open").write_text("#!/bin/sh\nexit 3\n")
    viewer.chmod(0o755)
    kept = tmp_path / "kept"
    kept.mkdir()
    image = json.loads(shared_home.craft("generate", "x", "--json").stdout)["image"]
    done = shared_home.craft("images", "open", image, env={"PATH": f"{tmp_path}:/usr/bin:/bin", "TMPDIR": str(kept)})
    assert done.returncode == 74, done.stderr
    assert "nothing here opens .png files" in done.stderr and f"craft images get {image}" in done.stderr
    assert list(kept.iterdir()) == []
    viewer.write_text("#!/bin/sh\nexit 0\n")
    done = shared_home.craft("images", "open", image, env={"PATH": f"{tmp_path}:/usr/bin:/bin", "TMPDIR": str(kept)})
    assert (done.returncode, Path(done.stdout.strip()).is_file()) == (0, True)


def test_a_picture_in_a_pipe_is_enlarged_without_a_dash(shared_home: Home) -> None:
    done = shared_home.craft("upscale", "--upscaler", "lanczos", "--scale", "2", stdin=picture(1))
    assert (done.returncode, done.stdout) == (0, "stdin-upscaled.png\n"), done.stderr


def test_files_of_a_sweep_keep_words_apart(shared_home: Home) -> None:
    line = ("generate", "x", "--seed", "1", "--sweep", "sampler=DDIM,Euler", "--sweep", "steps=2", "--plan")
    plans = [json.loads(line) for line in shared_home.craft(*line).stdout.splitlines()]
    assert [plan["outputs"] for plan in plans] == [["x-1-sampler-DDIM-steps2.png"], ["x-1-sampler-Euler-steps2.png"]]


def test_several_plans_are_a_table_at_a_terminal_alone(shared_home: Home) -> None:
    line = ("generate", "x", "--seed", "1", "--sweep", "steps=2,3", "--plan")
    code, seen = at_terminal(shared_home, *line, env={"COLUMNS": "160"})
    rows = [row.rpartition("\r")[2].split() for row in plain(seen).split("\n")]
    head = next(place for place, row in enumerate(rows) if row[:3] == ["sweep", "model", "size"])
    assert code == 0 and rows[head][-1] == "files"
    assert [(row[:2], row[-1]) for row in rows[head + 1 : head + 3]] == [
        (["steps", "2"], "x-1-steps2.png"),
        (["steps", "3"], "x-1-steps3.png"),
    ]
    _, seen = at_terminal(shared_home, *line, "--json", env={"COLUMNS": "160"})
    assert [json.loads(row)["steps"] for row in re.findall(r"\{.*\}", plain(seen))] == [2, 3]
