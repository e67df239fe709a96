"""`craft generate` as real processes against a real daemon whose worker draws flat pictures."""

from __future__ import annotations

import json
from io import BytesIO
from pathlib import Path

import pytest
from PIL import Image

from tests.home import CRAFT, HANG_S, Home


def opened(path: Path) -> Image.Image:
    return Image.open(BytesIO(path.read_bytes()))


def test_the_first_picture_on_a_fresh_machine(home: Home) -> None:
    done = home.craft("generate", "a red apple", "--seed", "7")
    assert (done.returncode, done.stdout, done.stderr) == (0, "a-red-apple-7.png\n", "")
    assert opened(home.work / "a-red-apple-7.png").size == (64, 64)


def test_json_is_the_contract(shared_home: Home) -> None:
    done = shared_home.craft("generate", "x", "--seed", "5", "-n", "2", "-W", "128", "--json", "-o", "{index}.png")
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert [list(line) for line in lines] == [
        ["job", "image", "index", "path", "seed", "sha256", "model", "loras", "width", "height", "timings"]
    ] * 2
    assert [(line["index"], line["seed"], line["path"]) for line in lines] == [(0, 5, "0.png"), (1, 6, "1.png")]
    assert (lines[0]["model"], lines[0]["loras"], lines[0]["width"], lines[0]["height"]) == ("flat", [], 128, 64)
    assert list(lines[0]["timings"]) == ["queued_s", "load_s", "denoise_s", "total_s"]
    assert 0 < lines[0]["timings"]["total_s"] < HANG_S


def test_errors_are_one_line_and_a_hint_or_json(shared_home: Home) -> None:
    done = shared_home.craft("generate", "x", "-m", "flatt")
    assert (done.returncode, done.stdout) == (66, "")
    assert done.stderr.splitlines() == ["craft: model: no model is called 'flatt'", "  did you mean 'flat'?"]
    done = shared_home.craft("generate", "x", "-m", "flatt", "--json")
    assert json.loads(done.stderr) == {
        "error": {
            "reason": "UNKNOWN_MODEL",
            "message": "model: no model is called 'flatt'",
            "hint": "did you mean 'flat'?",
        }
    }


@pytest.mark.parametrize(
    ("args", "code", "told"),
    [
        (["x", "--guidence", "3"], 2, "--guidance"),
        (["x", "-n", "many"], 2, "no number"),
        (["a", "red", "apple", "--size", "12"], 2, "--size 768x512"),
        (["x", "--key", "secret"], 2, "--key"),
        (["x", "--api-key", "secret"], 2, "--api-key"),
        (["x", "-o", "a.gif"], 2, "png, jpeg or webp"),
        (["x", "--format", "gif"], 2, "png, jpeg or webp"),
        (["x", "-o", "-", "-n", "2"], 2, "one picture"),
        (["x", "-o", "{nonsense}.png"], 2, "{seed}"),
        (["x", "-n", "0"], 65, "count"),
        (["x", "-n", "1000000000"], 65, "count: must be from 1 to 256"),
        (["x", "-n", "1000000000", "--plan"], 65, "count: must be from 1 to 256"),
        (["x", "-W", "-64"], 65, "width"),
        (["x", "-s", "0"], 65, "steps"),
        (["x", "-g", "nan"], 65, "--guidance"),
        (["x", "-W", "65536", "-H", "65536"], 65, "4096"),
        (["x", "--sampler", "Eulr"], 65, "Euler"),
        ([""], 65, "prompt"),
        (["a\x1b[31mred"], 65, "prompt"),
        (["x", "-o", "/dev/null/folder/x.png"], 74, "/dev/null/folder"),
        (["x [fail]"], 1, "failed on request"),
    ],
)
def test_wrong_calls(shared_home: Home, args: list[str], code: int, told: str) -> None:
    home = shared_home
    done = home.craft("generate", *args)
    assert done.returncode == code, done.stderr
    assert done.stdout == ""
    assert told in done.stderr
    assert len(done.stderr.splitlines()) <= 2
    assert "Traceback" not in done.stderr
    assert list(home.work.iterdir()) == []


def test_bytes_that_are_no_text_in_argv(shared_home: Home) -> None:
    done = shared_home.run([*CRAFT, "generate", b"\xff\xfe"])
    assert done.returncode == 65
    assert b"prompt: not valid text" in done.stderr


@pytest.mark.parametrize("size", [1_000_000, 4_000_000])
def test_an_endless_prompt_is_refused_with_the_limit(shared_home: Home, size: int) -> None:
    done = shared_home.craft("generate", stdin="x" * size)
    assert done.returncode == 65
    assert "20000" in done.stderr.replace(",", "") or "3145728" in done.stderr


@pytest.mark.parametrize("args", [["generate"], ["generate", "-"]])
def test_a_prompt_from_stdin(shared_home: Home, args: list[str]) -> None:
    done = shared_home.craft(*args, "--seed", "1", stdin="a red apple\n")
    assert done.stdout == "a-red-apple-1.png\n"


def test_an_existing_file_is_kept_and_nothing_is_drawn(home: Home) -> None:
    (home.work / "a.png").write_bytes(b"mine")
    done = home.craft("generate", "x", "-o", "a.png")
    assert done.returncode == 73
    assert "--force" in done.stderr
    assert (home.work / "a.png").read_bytes() == b"mine"
    assert not home.paths.data_dir.joinpath("craft.db").exists()  # no daemon was asked
    assert home.craft("generate", "x", "-o", "a.png", "--force").returncode == 0
    assert opened(home.work / "a.png").format == "PNG"


def test_a_repeated_seed_meets_its_own_file_and_a_random_one_never_does(shared_home: Home) -> None:
    assert shared_home.craft("generate", "x", "--seed", "1").returncode == 0
    assert shared_home.craft("generate", "x", "--seed", "1").returncode == 73
    assert shared_home.craft("generate", "x").returncode == 0


@pytest.mark.parametrize(("name", "kind"), [("a.jpg", "JPEG"), ("a.webp", "WEBP"), ("a.png", "PNG"), ("a", "PNG")])
def test_the_format_is_what_the_file_is_called(shared_home: Home, name: str, kind: str) -> None:
    assert shared_home.craft("generate", "x", "-o", name).returncode == 0
    assert opened(shared_home.work / name).format == kind


def test_bytes_on_stdout(shared_home: Home) -> None:
    with (shared_home.work / "out").open("wb") as out:
        assert shared_home.run([*CRAFT, "generate", "x", "-o", "-"], stdout=out).returncode == 0
    assert Image.open(BytesIO((shared_home.work / "out").read_bytes())).format == "PNG"


def test_a_full_disk_at_the_end_of_the_pipe(shared_home: Home) -> None:
    with Path("/dev/full").open("wb") as full:
        done = shared_home.run([*CRAFT, "generate", "x"], stdout=full)
    assert done.returncode == 74
    assert b"Traceback" not in done.stderr


def test_plan_draws_nothing(home: Home) -> None:
    plan = home.json("generate", "x", "--plan", "--seed", "3", "-n", "2")
    assert (plan["model"], plan["steps"], plan["width"], plan["count"]) == ("flat", 4, 64, 2)
    assert plan["outputs"] == ["x-3.png", "x-4.png"]
    assert home.json("jobs", "list") == []
    assert list(home.work.iterdir()) == []


def test_detach_prints_the_job_alone(shared_home: Home) -> None:
    assert list(shared_home.json("generate", "x", "--detach")) == ["job"]
    job = shared_home.craft("generate", "x", "--detach").stdout.strip()
    assert shared_home.craft("jobs", "wait", job).stdout == f"{job}\tsucceeded\n"
    shown = shared_home.json("jobs", "show", job)
    assert list(shown)[:5] == ["id", "state", "attempts", "images", "error"]
    assert (shown["id"], shown["state"], shown["attempts"], shown["error"]) == (job, "SUCCEEDED", 0, None)
    assert list(shown["images"][0]) == ["id", "index", "seed", "sha256"]
    assert list(shared_home.work.iterdir()) == []


def test_a_failed_job_and_its_json(shared_home: Home) -> None:
    job = shared_home.json("generate", "x [fail]", "--detach")["job"]
    assert shared_home.craft("jobs", "wait", job).returncode == 1
    shown = shared_home.json("jobs", "show", job)
    assert (shown["state"], shown["error"]["reason"]) == ("FAILED", "JOB_FAILED")


def test_an_unwritable_folder_found_late_keeps_the_picture(shared_home: Home) -> None:
    """The name holds the image's id, so it cannot be known before."""
    done = shared_home.craft("generate", "x", "-o", "/dev/null/{id}.png")
    assert done.returncode == 74
    assert "craft images get " in done.stderr
    image = done.stderr.split("craft images get ")[1].split()[0]
    assert shared_home.craft("images", "get", image, "-o", "kept.png").stdout == "kept.png\n"


def test_settings_are_defaults(home: Home) -> None:
    home.craft("config", "set", "generate.format", "webp")
    done = home.craft("generate", "x", "--seed", "1")
    assert done.stdout == "x-1.webp\n"


def test_a_wrong_configuration_is_named_by_line(home: Home) -> None:
    home.paths.config_file.write_text("[generate]\nmodle = 'x'\n")
    done = home.craft("generate", "x")
    assert done.returncode == 78
    assert "config.toml:2" in done.stderr


def test_no_color_and_no_escape_in_a_pipe(shared_home: Home) -> None:
    for env in ({}, {"NO_COLOR": "1"}, {"FORCE_COLOR": "1"}):
        done = shared_home.craft("generate", "x", env=env)
        assert "\x1b" not in done.stdout + done.stderr


def test_what_a_pipe_costs_is_not_imported(shared_home: Home) -> None:
    """rich, pydantic and Pillow would double the time of a short command; the others are a tenth of it."""
    dear = ("rich", "pydantic", "PIL", "torch", "craftd", "grpc.aio", "typing_extensions", "secrets")
    code = (
        "import sys\n"
        "from craft_cli import lean\n"
        "lean.begin()\n"
        "from craft_cli.main import run\n"
        "assert run(['generate', 'x', '--json']) == 0\n"
        f"print([name for name in {dear} if type(sys.modules.get(name)).__name__ == 'module'])"
    )
    done = shared_home.run([CRAFT[0], "-c", code])
    assert done.stdout.splitlines()[-1] == b"[]"
    assert list(shared_home.work.iterdir()) != []
