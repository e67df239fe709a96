"""craft config, models, jobs; help, completion and what is misspelt."""

from __future__ import annotations

import json
import os
from typing import get_type_hints

import pytest
import typer
from craft_cli import app, errors
from craft_cli.commands.config import names
from craft_cli.parsing import CONTEXT
from craft_protos.settings import Settings, sections_of

from tests.home import CRAFT, Home, until

GROUPS = {
    "models": ["list", "show", "load", "unload"],
    "lora": ["add", "list", "show", "edit", "rm"],
    "jobs": ["list", "show", "watch", "wait", "cancel"],
    "images": ["list", "show", "get", "rm", "prune", "replay", "verify"],
    "daemon": ["start", "stop", "restart", "status", "wait", "logs", "install"],
    "config": ["get", "set", "unset", "list", "edit", "path"],
    "presets": ["save", "list", "show", "rm"],
}


@pytest.mark.parametrize("args", [[], ["generate"], ["list-models"], *([group] for group in GROUPS)])
def test_help_has_examples_and_fits(shared_home: Home, args: list[str]) -> None:
    done = shared_home.craft(*args, "--help")
    assert done.returncode == 0
    assert "Usage: craft" in done.stdout
    assert "Examples:" in done.stdout
    assert all(command in done.stdout for command in GROUPS.get(args[0] if args else "", []))
    assert max(map(len, done.stdout.splitlines())) <= 100


def test_every_commands_help_ends_with_examples_of_it() -> None:
    commands = every_command(app.command())
    assert len(commands) > 35
    for path, command in commands.items():
        with typer.Context(command, info_name=path, **CONTEXT) as context:
            text = command.get_help(context)
        examples = text.partition(" Examples:\n")[2].splitlines()
        assert examples and any(path in line for line in examples), path
        assert max(map(len, text.splitlines())) <= 100, path


@pytest.mark.parametrize(
    ("args", "hint"),
    [
        (["generat", "x"], "did you mean 'generate'?"),
        (["confg", "list"], "did you mean 'config'?"),
        (["jobs", "cancle", "x"], "did you mean 'cancel'?"),
        (["jobs", "list", "--sate", "x"], "did you mean --state?"),
        (["--verison"], "did you mean --version?"),
        (["jobs", "show"], "see `craft jobs show --help`"),
    ],
)
def test_the_nearest_match(shared_home: Home, args: list[str], hint: str) -> None:
    done = shared_home.craft(*args)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.splitlines()[1] == f"  {hint}"
    told = json.loads(shared_home.craft(*args, "--json").stderr)["error"]
    assert told["reason"] == "USAGE"


@pytest.mark.parametrize("args", [[], ["config"], ["lora"]])
def test_a_group_alone_shows_its_help(shared_home: Home, args: list[str]) -> None:
    done = shared_home.craft(*args)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == shared_home.craft(*args, "--help").stdout


@pytest.mark.parametrize("args", [["models", "list"], ["generate", "x", "-o", "-"]], ids=["lines", "a picture"])
def test_stdout_closed_from_the_start_is_told(shared_home: Home, args: list[str]) -> None:
    done = shared_home.run(["sh", "-c", 'exec "$@" >&-', "sh", *CRAFT, *args])
    assert (done.returncode, done.stderr) == (74, b"craft: stdout is closed\n  send it to a file: > FILE\n")


def test_no_option_takes_a_key() -> None:
    """Row 6: what stands in argv is read by every user of the machine."""
    words = [
        option
        for command in every_command(app.command()).values()
        for param in command.params
        for option in param.opts
        if option[0] == "-"
    ]
    assert "--model" in words
    assert [word for word in words if any(part in word for part in ("key", "token", "secret", "password"))] == []


def every_command(group: typer.core.TyperGroup, path: str = "craft") -> dict[str, typer.core.TyperCommand]:
    """All commands below a group, by what they are called with."""
    found: dict[str, typer.core.TyperCommand] = {}
    with typer.Context(group) as context:
        for name in group.list_commands(context):
            member, below = group.get_command(context, name), f"{path} {name}"
            found |= every_command(member, below) if isinstance(member, typer.core.TyperGroup) else {below: member}  # type: ignore[dict-item]
    return found


@pytest.mark.parametrize(
    ("args", "told"),
    [
        (["jobs", "list", "-n", "-1"], "-n must be 0 or more, not -1"),
        (["images", "list", "-n", "-1"], "-n must be 0 or more"),
        (["images", "prune", "--keep", "-1"], "--keep must be 0 or more"),
        (["images", "verify", "x.png", "--tolerance", "-1"], "--tolerance must be from 0 to 255"),
        (["daemon", "logs", "-n", "-5"], "-n must be 0 or more"),
        (["daemon", "logs", "-n", "99999999999"], "-n must be from 0 to 2147483647"),
        (["daemon", "wait", "--timeout", "nan"], "--timeout must be"),
        (["daemon", "wait", "--timeout", "-1"], "--timeout must be 0 or more"),
        (["models", "load", "flat", "--keep-alive", "9" * 400], "--keep-alive"),
        (["generate", "x", "-o", "{slug:{foo}}.png"], "no form"),
        (["generate", "x", "-o", "{id:d}.png"], "{index:03}"),
        (["generate", "x", "-o", "{n:99999999999}.png"], "no form"),
    ],
)
def test_numbers_out_of_range_are_wrong_calls(shared_home: Home, args: list[str], told: str) -> None:
    done = shared_home.craft(*args, env={"CRAFT_AUTOSTART": "0"})
    assert (done.returncode, done.stdout) == (2, ""), done.stderr
    assert told in done.stderr


def test_config_set_get_unset(home: Home) -> None:
    assert home.craft("config", "get", "daemon.queue_limit").stdout == "512\n"
    done = home.craft("config", "set", "daemon.queue_limit", "7")
    assert (done.returncode, done.stdout) == (0, "")
    assert "craft daemon restart" in done.stderr
    assert home.craft("config", "get", "daemon.queue_limit").stdout == "7\n"
    assert home.json("config", "list")["daemon"]["queue_limit"] == 7
    assert "daemon.queue_limit\t7\tconfig.toml" in home.craft("config", "list").stdout
    done = home.craft("config", "get", "daemon.queue_limit", env={"CRAFT_DAEMON_QUEUE_LIMIT": "9"})
    assert done.stdout == "9\n"
    home.craft("config", "unset", "daemon.queue_limit")
    assert home.craft("config", "get", "daemon.queue_limit").stdout == "512\n"


@pytest.mark.parametrize(
    ("args", "told"),
    [
        (["get", "daemon.queue_limt"], "did you mean daemon.queue_limit"),
        (["set", "daemon.queue_limit", "many"], "whole number"),
        (["set", "nonsense", "1"], "craft config list"),
        (["set", "daemon.queue_limit", "0"], "daemon.queue_limit: must be from 1 to"),
        (["set", "generate.format", "gif"], "one of png, jpeg, webp"),
        (["set", "generate.sampler", "Euler b"], "did you mean 'Euler'?"),
    ],
)
def test_wrong_settings_are_exit_78(home: Home, args: list[str], told: str) -> None:
    done = home.craft("config", *args)
    assert done.returncode == 78
    assert told in done.stderr
    assert not home.paths.config_file.exists()


@pytest.mark.parametrize(
    ("text", "line"), [("[daemon]\nqueue = 1\n", 2), ("[demon]\n", 1), ("a = \n", 1), ("[limits]\n\nmax_side='x'\n", 3)]
)
def test_a_broken_file_is_named_by_line_and_left_alone(home: Home, text: str, line: int) -> None:
    home.paths.config_file.write_text(text)
    for args in (["list"], ["set", "generate.model", "x"]):
        done = home.craft("config", *args)
        assert done.returncode == 78
        assert f"config.toml:{line}" in done.stderr
    assert home.paths.config_file.read_text() == text


def test_every_setting_has_a_name() -> None:
    sections = sections_of(Settings)
    assert len(names()) == sum(len(get_type_hints(schema)) for schema in sections.values())


def test_config_path(home: Home) -> None:
    assert home.json("config", "path")["data"] == str(home.paths.data_dir)


def test_models(shared_home: Home) -> None:
    assert shared_home.json("models", "list")[-1]["name"] == "flat"
    assert shared_home.json("list-models") == shared_home.json("models", "list")
    shown = shared_home.json("models", "show", "flat")
    assert (shown["pipeline"], shown["defaults"]["steps"]) == ("StableDiffusionPipeline", 4)
    assert shared_home.craft("models", "load", "flat", "--keep-alive", "1h").returncode == 0
    assert shared_home.json("models", "show", "flat")["loaded_on"] == ["cpu"]
    assert shared_home.craft("models", "unload", "flat").stdout == "flat\n"
    assert shared_home.json("models", "show", "flat")["loaded_on"] == []
    done = shared_home.craft("models", "show", "flatt")
    assert (done.returncode, "did you mean 'flat'?" in done.stderr) == (66, True)


def test_jobs(home: Home) -> None:
    done = home.json("generate", "x", "--detach")["job"]
    home.craft("jobs", "wait", done)
    slow = home.json("generate", "y [held]", "--detach")["job"]
    assert [job["id"] for job in home.json("jobs", "list")] == [slow, done]
    assert [job["id"] for job in home.json("jobs", "list", "-n", "1")] == [slow]
    assert [job["id"] for job in home.json("jobs", "list", "--state", "succeeded")] == [done]
    assert home.craft("jobs", "list", "--state", "nice").returncode == 2
    assert home.craft("jobs", "cancel", slow).returncode == 0
    assert home.craft("jobs", "wait", slow).returncode == 1
    cancelled = home.craft("jobs", "cancel", done)  # row 14: finished already, its picture stays
    assert (cancelled.returncode, "finished" in cancelled.stderr) == (65, True)
    assert len(home.json("images", "list", "--job", done)) == 1
    assert home.craft("jobs", "show", "nonsense").returncode == 66
    events = [json.loads(line)["event"] for line in home.craft("jobs", "watch", done, "--json").stdout.splitlines()]
    assert events == ["finished"]


def test_completion_asks_a_running_daemon_and_starts_none(home: Home) -> None:
    words = {"_CRAFT_COMPLETE": "complete_bash", "COMP_WORDS": "craft generate -m ", "COMP_CWORD": "3"}
    assert home.craft(env=words).stdout.strip() == ""
    assert not home.paths.data_dir.joinpath("craft.db").exists()
    home.craft("models", "list")  # a model that is new is looked at first, for longer than a completion waits
    until(lambda: "flat" in home.craft(env=words).stdout.split(), "the names, which are waited for a second")
    words |= {"COMP_WORDS": "craft generate --sampler eul", "COMP_CWORD": "3"}
    assert "euler-a" in home.craft(env=words).stdout.splitlines()
    words |= {"COMP_WORDS": "craft jo", "COMP_CWORD": "1"}
    assert home.craft(env=words).stdout.strip() == "jobs"


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_scripts(shared_home: Home, shell: str) -> None:
    done = shared_home.craft("--show-completion", shell, env={"_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION": "1"})
    assert done.returncode == 0, done.stderr
    assert "_CRAFT_COMPLETE" in done.stdout


def test_a_bug_is_one_line_and_a_file(
    home: Home, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("CRAFT_STATE_DIR", str(home.paths.state_dir))
    assert errors.report_crash(ZeroDivisionError("a\nb"), as_json=False) == 70
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "craft: a bug in craft: ZeroDivisionError: a b"
    (crash,) = home.paths.state_dir.glob("craft-crash-*.txt")
    assert str(crash) in lines[1] and str(os.getpid()) in crash.name
