"""Presets, and the steps, size and guidance that the configuration says."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from craft_cli.generate import spec as specs
from craft_protos.generate import GenerateRequest
from craft_protos.settings import GenerateSettings

from tests.cli.test_terminal_process import at_terminal
from tests.home import Home


def plan(home: Home, *args: str) -> dict[str, object]:
    """What would be drawn."""
    told: dict[str, object] = home.json("generate", "x", "--plan", "--seed", "1", *args)
    return told


def file_of(home: Home, name: str) -> Path:
    return home.paths.config_file.parent / "presets" / f"{name}.toml"


def test_a_presets_options_hold_where_no_others_are_given(home: Home) -> None:
    options = ["--size", "64x128", "-s", "7", "--cfg-scale", "3", "--negative", "blue -x", "--sampler", "Euler a"]
    done = home.craft("presets", "save", "small", *options)
    assert (done.returncode, done.stdout) == (0, f"{file_of(home, 'small')}\n"), done.stderr
    whole = {"width": 64, "height": 128, "steps": 7, "guidance_scale": 3.0, "negative_prompt": "blue -x"}
    assert plan(home, "--preset", "small").items() >= (whole | {"sampler": "Euler a"}).items()
    assert plan(home, "--preset=small", "-s", "9", "--negative=").items() >= {"steps": 9, "negative_prompt": ""}.items()
    told = home.craft(
        "generate", "--batch", "-", "--preset", "small", "-o", "{n}.png", stdin='{"prompt": "x", "steps": 2}'
    )
    assert (json.loads(told.stdout)["width"], told.returncode) == (64, 0)
    _, seen = at_terminal(home, "generate", "x", "--preset", "small", "--plan")
    assert "craft: preset small: --width=64 --height=128 --steps=7" in seen


def test_presets_are_kept_listed_shown_and_forgotten(home: Home) -> None:
    assert home.craft("presets", "list").stdout == ""
    assert "no presets yet" in at_terminal(home, "presets", "list")[1]
    home.craft("preset", "save", "a.b", "-l", "one:0.5", "-l", "two", "--deterministic")
    home.craft("preset", "save", "c", "--preset", "a.b", "-s", "3")
    both = {"lora": ["one:0.5", "two"], "deterministic": True}
    assert home.json("presets", "list") == [
        {"name": "a.b", "options": both},
        {"name": "c", "options": {**both, "steps": 3}},
    ]
    assert "a.b\t--lora=one:0.5 --lora=two --deterministic\n" in home.craft("presets", "list").stdout
    assert home.json("presets", "show", "c")["options"]["steps"] == 3
    again = home.craft("presets", "save", "c", "-s", "4")
    assert (again.returncode, "--force" in again.stderr) == (73, True)
    for args in (["c", "-s", "4", "--force"], ["-f", "c", "-s", "4"]):
        assert home.craft("presets", "save", *args).returncode == 0
    assert file_of(home, "c").read_text() == "steps = 4\n"
    assert home.craft("presets", "rm", "c").stdout == "c\n"
    gone = home.craft("presets", "show", "a")
    assert (gone.returncode, "did you mean 'a.b'?" in gone.stderr) == (66, True)


def test_loras_beside_a_preset_are_instead_of_its_own(home: Home) -> None:
    file_of(home, "it").parent.mkdir()
    file_of(home, "it").write_text('lora = ["nowhere:0.5"]\n')
    done = home.craft("generate", "x", "--preset", "it", "-l", "elsewhere", "--plan")
    assert "elsewhere" in done.stderr and "nowhere" not in done.stderr


@pytest.mark.parametrize(
    ("args", "told"),
    [
        (["a", "-o", "x.png"], "--output says nothing of what is drawn"),
        (["a", "--json", "-s", "3"], "--json says nothing of what is drawn"),
        (["a", "a cat", "-s", "3"], "a preset has no prompt: 'a cat'"),
        (["a"], "a preset of no options"),
        (["../a", "-s", "3"], "is no preset's name"),
        (["a", "-s", "many"], "is not a whole number"),
        (["a", "--stesp", "3"], "No such option"),
    ],
)
def test_what_is_no_preset_is_not_kept(home: Home, args: list[str], told: str) -> None:
    done = home.craft("presets", "save", *args)
    assert (done.returncode, done.stdout) == (2, "")
    assert told in done.stderr
    assert not file_of(home, "a").exists()


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("\nstesp = 3\n", "it.toml:2: no such option: 'stesp'; did you mean steps?"),
        ('lora = ["a"]\nsteps = "many"\n', "it.toml:2: steps: 'many' is not a whole number"),
        ("steps = [1]\n", "it.toml:1: steps must be a text, a number"),
        ("[steps]\na = 1\n", "it.toml:1: steps must be"),
        ("output = 'x.png'\n", "it.toml:1: no such option: 'output'"),
        ("steps =\n", "not valid TOML"),
    ],
)
def test_a_file_is_checked_when_it_is_read(home: Home, text: str, told: str) -> None:
    file_of(home, "it").parent.mkdir()
    file_of(home, "it").write_text(text)
    for args in (["generate", "x", "--preset", "it"], ["presets", "show", "it"]):
        done = home.craft(*args)
        assert done.returncode == 78
        assert told in done.stderr and "craft presets rm it" in done.stderr


def test_the_configurations_steps_size_and_guidance_hold_where_nothing_else_is_said(home: Home) -> None:
    own = plan(home)
    for name, value in (("steps", "20"), ("size", "128x64"), ("guidance", "0")):
        assert home.craft("config", "set", f"generate.{name}", value).returncode == 0
    told = plan(home)
    assert (told["steps"], told["width"], told["height"], told["guidance_scale"]) == (20, 128, 64, 0.0)
    assert plan(home, "-s", "3", "-g", "2").items() >= {"steps": 3, "guidance_scale": 2.0, "width": 128}.items()
    home.craft("presets", "save", "p", "-s", "5")
    assert plan(home, "--preset", "p")["steps"] == 5
    for name in ("steps", "size", "guidance"):
        home.craft("config", "unset", f"generate.{name}")
    assert plan(home) == own
    assert home.craft("config", "set", "generate.size", "128").returncode == 78


@pytest.mark.parametrize(
    ("asked", "width", "height"),
    [({}, 128, 64), ({"width": 256}, 256, None), ({"height": 256}, None, 256), ({"width": 1, "height": 2}, 1, 2)],
)
def test_a_side_that_is_given_is_not_joined_to_one_that_is_configured(
    asked: dict[str, int], width: int | None, height: int | None
) -> None:
    made = specs.with_sides(GenerateRequest(**asked), GenerateSettings(size="128x64").sides)
    assert (made.width, made.height) == (width, height)
