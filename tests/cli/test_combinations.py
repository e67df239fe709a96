"""What was asked for is done, refused, or said: no option is ignored without a word."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
from craft_cli.generate import flags
from craft_protos import config, synonyms
from craft_protos.settings import Settings, sections_of, variable_name
from PIL import Image

from tests.cli.test_named_options import COMMANDS
from tests.home import Home


def kind(path: Path) -> str | None:
    """What a picture's file really is."""
    with Image.open(path) as picture:
        return picture.format


@pytest.mark.parametrize(
    ("args", "told"),
    [
        (["--detach", "-o", "x.png"], "--detach does not go with -o"),
        (["--detach", "-o", "-"], "--detach does not go with -o"),
        (["--detach", "--show"], "--detach does not go with --show"),
        (["--json", "-o", "-"], "--json does not go with -o -"),
        *(
            (["--preview", *other], f"--preview does not go with {other[0]}")
            for other in (["--detach"], ["--plan"], ["-q"])
        ),
        (["--json", "--show"], "--json does not go with --show"),
        (["--show", "-o", "-"], "--show does not go with -o -"),
        (["--format", "webp", "-o", "y.png"], "--format webp does not go with -o y.png"),
        (["--format", "png", "-o", "y.jpeg"], "--format png does not go with -o y.jpeg"),
        (["--format", "png", "-o", "y.gif"], "--format png does not go with -o y.gif"),
    ],
)
def test_what_does_not_go_together_is_refused(shared_home: Home, args: list[str], told: str) -> None:
    done = shared_home.craft("generate", "x", *args)
    assert (done.returncode, done.stdout) == (2, "")
    assert told in done.stderr
    assert list(shared_home.work.iterdir()) == []


@pytest.mark.parametrize(
    ("args", "format_"),
    [
        (["--format", "jpeg", "-o", "y.jpg"], "JPEG"),
        (["-o", "y.jfif"], "JPEG"),
        (["-o", "y.JPE"], "JPEG"),
        (["--format", "webp", "-o", "picture"], "WEBP"),
        (["--format", "webp", "-o", "picture.bin"], "WEBP"),
    ],
)
def test_what_goes_together_is_what_it_is_called(shared_home: Home, args: list[str], format_: str) -> None:
    done = shared_home.craft("generate", "x", *args)
    assert done.returncode == 0, done.stderr
    assert kind(shared_home.work / args[-1]) == format_


def test_a_batchs_files_are_what_they_are_called(shared_home: Home) -> None:
    lines = 'x\n{"prompt": "y", "format": "png"}\n{"prompt": "z", "format": "webp"}\n'
    done = shared_home.craft("generate", "--batch", "-", "--json", "-o", "{n}.webp", stdin=lines)
    assert done.returncode == 65
    first, second, third = [json.loads(line) for line in done.stdout.splitlines()]
    assert second["error"]["message"].startswith("format: ")
    assert [kind(shared_home.work / one["path"]) for one in (first, third)] == ["WEBP", "WEBP"]


@pytest.mark.parametrize(("args"), [["--batch", "-", "--show"], ["--batch", "-", "--detach", "-o", "x.png"]])
def test_what_does_not_go_with_a_batch(shared_home: Home, args: list[str]) -> None:
    assert shared_home.craft("generate", *args, stdin="x\n").returncode == 2


@pytest.mark.parametrize(
    ("args", "told"),
    [
        (["--trigger-words"], "--trigger-words does nothing without a LoRA"),
        (["--lora-missing", "skip"], "--lora-missing does nothing without a LoRA"),
        (["--preview"], "--preview: stderr is no terminal that shows pictures"),
        (["--show"], "--show: stdout is no terminal that shows pictures"),
        (["--negative", "blue", "-g", "1"], "--negative does nothing at --guidance 1"),
    ],
)
def test_what_does_nothing_is_said(shared_home: Home, args: list[str], told: str) -> None:
    done = shared_home.craft("generate", "x", "-o", "x.png", *args)
    assert (done.returncode, done.stdout) == (0, "x.png\n")
    assert told in done.stderr


@pytest.mark.parametrize(
    "args",
    [
        ["images", "replay", "x.png", "--json", "-o", "-"],
        ["jobs", "show", "j", "--force"],
        ["jobs", "show", "j", "--plot", "--json", "-o", "x.png"],
        ["lora", "train", "it", "--resume", "--skip-bad"],
        ["lora", "train", "it", ".", "--prior-weight", "0.5"],
    ],
)
def test_the_other_commands(shared_home: Home, args: list[str]) -> None:
    assert shared_home.craft(*args).returncode == 2


def test_a_second_name_for_what_is_here_is_said(home: Home) -> None:
    first, second = home.root / "first", home.root / "second"
    for folder in (first, second):
        subprocess.run(["cp", "-r", str(home.paths.models_dir / "flat"), str(folder)], check=True)
    done = home.craft("models", "add", str(first), "--name", "one")
    assert (done.returncode, done.stdout, done.stderr) == (0, "one\n", "")
    again = home.craft("models", "add", str(first), "--name", "two")
    if again.returncode == 0:
        assert again.stdout == "one\n"
        assert "craft models alias two one" in again.stderr
    else:
        assert "one" in again.stderr


def test_resume_names_the_options_that_it_cannot_take(shared_home: Home) -> None:
    done = shared_home.craft("lora", "train", "it", "--resume", "--lr", "1", "--te")
    assert done.returncode == 2
    assert "leave out --lr, --te" in done.stderr


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["generate", "x", "-W", "-64"], "--width: "),
        (["generate", "x", "-g", "nan"], "--guidance: "),
        (["generate", "x", "-n", "0"], "--count: "),
        (["generate", "x", "-n", "1000000"], "--count: "),
        (["generate", "x", "--sampler", "Eulr"], "--sampler: "),
        (["generate", "x", "--seed", "99999999999999999999"], "--seed: "),
        (["generate", "x", "-m", "flatt"], "model: "),
        (["generate", "x", "-W", "-64", "--plan"], "--width: "),
    ],
)
def test_complaints_name_options(shared_home: Home, args: list[str], said: str) -> None:
    done = shared_home.craft(*args)
    assert done.returncode in (65, 66)
    assert done.stderr.startswith(f"craft: {said}")
    assert done.stderr.splitlines()[1].startswith("  ")  # what to do


def test_variables_that_do_not_exist_are_said(shared_home: Home) -> None:
    done = shared_home.craft("config", "get", "generate.model", env={"CRAFT_GENERTE_MODEL": "x", "CRAFT_NONSENSE": "1"})
    assert done.returncode == 0
    assert done.stderr.splitlines() == [
        "craft: CRAFT_GENERTE_MODEL is no variable of craft's; did you mean CRAFT_GENERATE_MODEL?",
        "craft: CRAFT_NONSENSE is no variable of craft's: see `craft config list`",
    ]


def test_every_variable_that_exists_is_known() -> None:
    sections = sections_of(Settings)
    known = {variable_name(section, name): "" for section, kind in sections.items() for name in kind.__annotations__}
    assert config.complaints(known | dict.fromkeys(config._OWN_VARIABLES, "")) == []


@pytest.mark.parametrize(
    ("shell", "mark"), [("bash", "complete -o default -F"), ("zsh", "#compdef craft"), ("fish", "complete --command")]
)
@pytest.mark.parametrize("form", ["{} {}", "{}={}"])
def test_completion_is_that_of_the_shell_that_is_named(shared_home: Home, shell: str, mark: str, form: str) -> None:
    done = shared_home.craft(*form.format("--show-completion", shell).split())
    assert done.returncode == 0
    assert mark in done.stdout and "_CRAFT_COMPLETE" in done.stdout


def test_completion_of_no_shell(shared_home: Home) -> None:
    done = shared_home.craft("--show-completion", "tcsh")
    assert done.returncode == 2 and "bash, zsh, fish" in done.stderr


def test_completion_is_installed_for_the_shell_that_is_named(home: Home) -> None:
    done = home.craft("--install-completion", "fish")
    assert done.returncode == 0, done.stderr
    assert "_CRAFT_COMPLETE" in (home.root / ".config" / "fish" / "completions" / "craft.fish").read_text()


@pytest.mark.parametrize(
    ("args", "hint"),
    [
        (["generate", "x", "--batch-size", "2"], "--count"),
        (["generate", "x", "--unconditional-guidance-scale", "7"], "--guidance"),
        (["generate", "x", "--inference-steps", "7"], "--steps"),
        (["generate", "x", "--checkpoint", "2"], "--model"),
        (["generate", "x", "--outdir", "2"], "--output"),
        (["generate", "x", "--overwrite"], "--force"),
        (["lora", "train", "x", "--learning-rate", "1"], "--lr"),
        (["lora", "train", "x", "--network-dim", "1"], "--rank"),
        (["lora", "train", "x", "--max-train-steps", "1"], "--steps"),
        (["lora", "train", "x", "--batch-size", "1"], "--batch"),
        (["lora", "remove", "x"], "'rm'"),
        (["lora", "delete", "x"], "'rm'"),
        (["models", "download", "x"], "'pull'"),
        (["models", "info", "x"], "'show'"),
        (["jobs", "kill", "x"], "'cancel'"),
        (["draw", "x"], "'generate'"),
        (["txt2img", "x"], "'generate'"),
        (["adapters", "list"], "'lora'"),
    ],
)
def test_did_you_mean_knows_what_others_call_it(shared_home: Home, args: list[str], hint: str) -> None:
    done = shared_home.craft(*args)
    assert done.returncode == 2
    assert done.stderr.splitlines()[1] == f"  did you mean {hint}?"


def test_nothing_alike_is_suggested_for_what_is_another_word(shared_home: Home) -> None:
    done = shared_home.craft("generate", "x", "--wolf", "1")
    assert done.stderr.splitlines()[1] == "  see `craft generate --help`"


@pytest.mark.parametrize(
    ("field", "meant"),
    [("cfg_scale", "guidance_scale"), ("sampler_name", "sampler"), ("n", "count"), ("num_inference_steps", "steps")],
)
def test_a_batchs_fields_by_other_names(shared_home: Home, field: str, meant: str) -> None:
    done = shared_home.craft("generate", "--batch", "-", "--json", stdin=f'{{"prompt": "x", "{field}": 1}}\n')
    assert json.loads(done.stdout)["error"]["hint"] == f"did you mean {meant!r}?"


def test_every_synonym_is_for_something() -> None:
    options = {name.strip("-").replace("-", "_") for known in COMMANDS.values() for name in known}
    fields = set(flags.GENERATE) | set(flags.TRAIN) | {"prompt", "request_id", "expire_time", "refs"}
    assert not {name.replace("-", "_") for name in synonyms.FIELDS} - options - fields
    words = {word for command in COMMANDS for word in command.split()}
    assert not set(synonyms.COMMANDS) - words
