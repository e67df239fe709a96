"""Looking after it: config list and edit, jobs cancel --all and watch, completion, top."""

from __future__ import annotations

import json
import os
import pty
import re
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import get_type_hints

import pytest
from craft_cli import completing, confirming, editing, main, monitoring
from craft_cli.commands import jobs as jobs_command
from craft_cli.commands.config import names
from craft_cli.render import dashboard, knobs
from craft_protos import config, daemon_pb2, jobs_pb2
from craft_protos.reasons import CraftError
from craft_protos.settings import Settings, TierSettings, sections_of, variable_name

from tests.cli.test_terminal_process import at_terminal, plain
from tests.home import HANG_S, Home, until

Craft = Callable[..., int]


@pytest.fixture
def craft(shared_home: Home, monkeypatch: pytest.MonkeyPatch) -> Craft:
    """Runs a command line in this process; its exit code."""
    for name, value in shared_home.env.items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(shared_home.work)
    shared_home.craft("daemon", "start")  # by a process of its own, of which it is the child
    return lambda *args: main.run(list(args))


@pytest.mark.parametrize("schema", [*sections_of(Settings).values(), TierSettings])
def test_every_setting_says_what_it_means(schema: type) -> None:
    for one in fields(schema):
        means = one.metadata["means"]
        assert means[0].isupper() and not means.endswith("."), one.name
        is_quantity = get_type_hints(schema)[one.name] in (int, float) and one.name not in ("queue_share", "guidance")
        assert bool(one.metadata["unit"]) == is_quantity, one.name


def test_config_list_tells_all_of_a_setting(home: Home) -> None:
    home.paths.config_file.write_text("[images]\nmax_gib = 7\n[tiers.paying]\nqueue_share = 0.1\n")
    told = {one["name"]: one for one in home.json("config", "list")["settings"]}
    assert set(told) == {*names(), *(f"tiers.paying.{one.name}" for one in fields(TierSettings))}
    assert told["images.max_gib"] == {
        "name": "images.max_gib",
        "value": 7,
        "source": "config.toml",
        "unit": "GiB",
        "default": 50.0,
        "variable": "CRAFT_IMAGES_MAX_GIB",
        "description": "Beyond that the oldest are deleted; 0: no limit",
    }
    assert told["generate.model"]["source"] == "CRAFT_GENERATE_MODEL"
    assert told["tiers.paying.queue_share"]["variable"] == ""
    lines = home.craft("config", "list").stdout.splitlines()
    assert {len(line.split("\t")) for line in lines} == {7}
    code, seen = at_terminal(home, "config", "list", env={"COLUMNS": "80"})
    assert code == 0
    assert "  max_gib = 7 GiB  (from config.toml; default 50.0)\n" in seen
    assert max(map(len, seen.splitlines())) <= 80
    assert all(variable_name(*name.split(".")) in seen for name in names())


def test_a_new_configuration_file_lists_every_setting(tmp_path: Path) -> None:
    file = tmp_path / "config.toml"
    file.write_text(knobs.template())
    assert config.load(file, {}) == Settings()
    file.write_text(re.sub(r"(?m)^# (\w+ = )", r"\1", knobs.template()))
    assert config.load(file, {}) == Settings()
    assert all(f"# {name.partition('.')[2]} = " in knobs.template() for name in names())


@pytest.mark.parametrize("variable", ["EDITOR", "VISUAL"])
def test_config_edit_opens_the_file_in_the_users_editor(home: Home, variable: str) -> None:
    editor = home.root / "an editor"
    editor.write_text('#!/bin/sh\nprintf \'[generate]\\nformat = "webp"\\n\' > "$2"\n')
    editor.chmod(0o755)
    done = home.craft("config", "edit", env={variable: f"'{editor}' --wait"})
    assert (done.returncode, done.stderr) == (0, "craft: the configuration has changed\n")
    assert home.craft("config", "get", "generate.format").stdout == "webp\n"


def test_config_edit_names_every_bad_setting_with_its_line(home: Home) -> None:
    text = "[daemon]\nqueue = 1\ngrace_s = -3\n\n[limits]\nmax_side = 'x'\n[demon]\n"
    (home.root / "new").write_text(text)
    done = home.craft("config", "edit", env={"EDITOR": f"cp {home.root}/new"})
    assert done.returncode == 78
    assert re.findall(r"config\.toml:(\d+): (\S+ \S+)", done.stderr) == [
        ("2", "unknown key"),
        ("3", "daemon.grace_s must"),
        ("6", "limits.max_side must"),
        ("7", "unknown section"),
    ]
    assert home.paths.config_file.read_text() == text  # nothing that was written is lost


def test_config_edit_without_a_change_leaves_no_file(home: Home) -> None:
    done = home.craft("config", "edit", env={"EDITOR": "true"})
    assert (done.returncode, done.stderr) == (0, "")
    assert not home.paths.config_file.exists()


@pytest.mark.parametrize(
    ("env", "told"),
    [
        ({"EDITOR": "", "VISUAL": ""}, "VISUAL and EDITOR are not set"),
        ({"EDITOR": "no-such-editor", "VISUAL": ""}, "cannot be run"),
        ({"EDITOR": "sh -c 'exit 3'", "VISUAL": ""}, "ended with 3"),
        ({"EDITOR": "", "VISUAL": "true", "TERM": "dumb"}, "are not set"),
    ],
)
def test_config_edit_without_an_editor(home: Home, env: dict[str, str], told: str) -> None:
    done = home.craft("config", "edit", env=env)
    assert done.returncode == 2
    assert told in done.stderr


def test_at_a_terminal_a_wrong_file_is_edited_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file, rounds = tmp_path / "config.toml", iter(["[nonsense]\n", "[generate]\nformat = 'webp'\n"])
    monkeypatch.setenv("EDITOR", "ours")
    monkeypatch.setattr(editing, "_open", lambda command, path: path.write_text(next(rounds)))
    monkeypatch.setattr(editing, "_is_anyone_here", lambda: True)
    answers = iter(["\n"])
    monkeypatch.setattr(editing.sys, "stdin", type("Typed", (), {"readline": lambda self: next(answers)})())
    editing.edit(file)
    assert config.load(file, {}).generate.format == "webp"
    rounds, answers = iter(["[nonsense]\n"]), iter(["n\n"])
    with pytest.raises(CraftError, match="left as it is"):
        editing.edit(file)


def test_all_jobs_are_cancelled_once_somebody_says_yes(
    craft: Craft, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    made = [detached(craft, capsys, f"{name} [held]") for name in "xy"]
    assert craft("jobs", "cancel") == 2
    assert craft("jobs", "cancel", "--all") == 2
    assert "cancel 2 jobs: nobody is here to confirm" in capsys.readouterr().err
    assert craft("jobs", "cancel", made[0], "--yes") == 2
    answers = iter(["n\n", "y\n"])
    terminal = type("Typed", (), {"isatty": lambda self: True, "readline": lambda self: next(answers)})
    monkeypatch.setattr(confirming.sys, "stdin", terminal())
    assert craft("jobs", "cancel", "--all") == 1
    assert "nothing was cancelled" in capsys.readouterr().err
    assert craft("jobs", "cancel", "--all") == 0
    assert capsys.readouterr().out == "".join(f"{one}\tcancelled\n" for one in made[::-1])
    assert craft("jobs", "cancel", "--all", "--yes") == 0
    assert "nothing to cancel" in capsys.readouterr().err


def test_the_job_that_runs_is_watched(craft: Craft, shared_home: Home, capsys: pytest.CaptureFixture[str]) -> None:
    assert craft("jobs", "watch") == 66
    assert "no job waits or runs" in capsys.readouterr().err
    first = detached(craft, capsys, "x [held]")
    running(shared_home, first)
    assert watched(shared_home) == (first, "")
    second = detached(craft, capsys, "y [held]")
    running(shared_home, second)
    job, said = watched(shared_home)
    assert (job, said) == (second, f"craft: watching {second} (y [held]); 1 other job too: craft ps\n")
    assert craft("jobs", "cancel", "--all", "--yes") == 0


def test_of_jobs_that_all_wait_the_next_one_is_watched(monkeypatch: pytest.MonkeyPatch) -> None:
    waiting = [jobs_pb2.Job(id=f"j{place}", position=place, state=jobs_pb2.JOB_STATE_QUEUED) for place in (2, 0, 1)]
    monkeypatch.setattr(jobs_command, "_unfinished", lambda session: waiting)
    assert jobs_command._running(None) == "j0"  # type: ignore[arg-type]


def test_ids_and_names_complete(craft: Craft, shared_home: Home, capsys: pytest.CaptureFixture[str]) -> None:
    job = detached(craft, capsys, "a [held] [/b]")
    running(shared_home, job)
    image = shared_home.json("generate", "x", "-o", "x.png")["image"]
    for words, expected in [
        ("craft jobs show ", job),
        ("craft jobs cancel ", job),
        ("craft jobs watch ", job),
        ("craft images show ", image),
        ("craft images get ", image),
        ("craft models show ", "flat"),
        ("craft generate --sampler ", "euler-a"),
        ("craft completion ", "zsh"),
        ("craft config get ", "generate.model"),
    ]:
        env = {"_CRAFT_COMPLETE": "complete_bash", "COMP_WORDS": words, "COMP_CWORD": str(len(words.split()))}
        assert expected in shared_home.craft(env=env).stdout.lower().splitlines(), words
    env = {"_CRAFT_COMPLETE": "complete_zsh", "_TYPER_COMPLETE_ARGS": "craft jobs cancel "}
    assert ": a [held] [/b]" in shared_home.craft(env=env).stdout
    assert craft("jobs", "cancel", job) == 0
    assert [one for one, _ in completing.jobs(job[:5])] == [job]
    assert completing.unfinished_jobs("") == []


def test_nothing_is_started_or_waited_for_to_complete(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in home.env.items():
        monkeypatch.setenv(name, value)
    kinds = (completing.models, completing.parts, completing.loras, completing.jobs, completing.images, completing.keys)
    assert [kind("") for kind in kinds] == [[] for _ in kinds]
    assert not home.paths.database.exists()


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_prints_the_script_of_a_shell(shared_home: Home, shell: str) -> None:
    done = shared_home.craft("completion", shell)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == shared_home.craft("--show-completion", shell).stdout
    assert shared_home.craft("completion", "tcsh").returncode == 2


def test_top_in_a_pipe_is_one_moment(craft: Craft, shared_home: Home, capsys: pytest.CaptureFixture[str]) -> None:
    job = detached(craft, capsys, "x [held]")
    running(shared_home, job)
    told = shared_home.json("top")
    (shown,) = told["jobs"]
    assert (shown["id"], shown["state"], told["queue"]) == (job, "RUNNING", {"queued": 0, "running": 1})
    assert told["workers"][0]["device"] == "cpu" and "calls_per_s" in told["workers"][0]
    for env in ({}, {"TERM": "dumb"}):
        done = shared_home.craft("top", env=env)
        assert done.returncode == 0
        assert f"{job} " in done.stdout and "1 running, 0 queued" in done.stdout and "\x1b" not in done.stdout
    code, seen = at_terminal(shared_home, "top", env={"TERM": "dumb"})
    assert code == 0 and job in seen and "\x1b" not in seen
    assert craft("jobs", "cancel", job) == 0


def test_top_starts_no_daemon(home: Home) -> None:
    done = home.craft("top")
    assert done.returncode == 69
    assert not home.paths.database.exists()


def test_a_moment_says_how_far_each_job_is() -> None:
    running_job = jobs_pb2.Job(id="j1", state=jobs_pb2.JOB_STATE_RUNNING)
    running_job.generate.prompt, running_job.generate.model, running_job.generate.count = "a\nbird", "flat", 2
    waiting = jobs_pb2.Job(id="j2", state=jobs_pb2.JOB_STATE_QUEUED, position=1)
    waiting.train.name = "it"
    status = daemon_pb2.DaemonStatus(version="9", running=1, queued=1)
    status.workers.add(pid=7, device="cuda:0", models=["flat"], rss_bytes=10**9, device_bytes=2 * 10**9)
    progress = monitoring.Progress()
    for index, step in ((0, 10), (1, 5)):
        progress.see(jobs_pb2.JobEvent(step=jobs_pb2.JobEvent.Step(index=index, step=step, of=10)))
    moment = monitoring.Moment(status, monitoring.in_turn([waiting, running_job]), {"j1": progress}, {7: 3.25})
    told = dashboard.lines(moment)
    assert told[0].endswith(": 1 running, 1 queued")
    assert told[1].endswith("flat, 1.0 GB of memory, 2.0 GB of the device's, 3.2 steps/s")
    assert told[3].startswith("j1 [########..] 15/20") and told[3].endswith("flat a bird")
    assert told[4].startswith("j2 queued, 1 ahead") and told[4].endswith("LoRA it")
    shape = monitoring.shape(moment)
    assert [one["progress"] for one in shape["jobs"]] == [{"done": 15, "of": 20}, None]
    assert dashboard._fitting([str(n) for n in range(30)], 10) == [
        *map(str, range(7)),
        "... 23 more: craft jobs list",
        "",
        "q: leave",
    ]


def test_top_is_left_with_a_key(shared_home: Home) -> None:
    shared_home.craft("daemon", "start")
    ours, theirs = pty.openpty()
    process = shared_home.start("top", stdin=theirs, stdout=theirs, stderr=theirs)
    os.close(theirs)
    seen = b""
    while b"q: leave" not in seen:
        seen += os.read(ours, 65536)
    os.write(ours, b"q")
    while _more(ours):
        pass
    process.wait(HANG_S)
    os.close(ours)
    assert process.returncode == 0
    assert "craftd " in plain(seen.decode())


def _more(terminal: int) -> bytes:
    try:
        return os.read(terminal, 65536)
    except OSError:
        return b""


def detached(craft: Craft, capsys: pytest.CaptureFixture[str], prompt: str) -> str:
    """The id of a new job."""
    assert craft("generate", prompt, "--detach") == 0
    return capsys.readouterr().out.strip()


def running(home: Home, job: str) -> None:
    until(lambda: home.json("jobs", "show", job)["state"] == "RUNNING", f"{job} runs")


def watched(home: Home) -> tuple[str, str]:
    """Which job `jobs watch` chooses, and what it says of that."""
    process = home.start("jobs", "watch", "--json")
    assert process.stdout is not None
    job = json.loads(process.stdout.readline())["job"]["id"]
    process.terminate()
    _, said = process.communicate(timeout=HANG_S)
    return job, said
