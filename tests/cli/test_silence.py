"""A daemon that lives and answers nothing: every command says so, and none waits for ever."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator

import pytest
from craft_cli import main
from craft_cli.connection import autostart, client, ending, pulse
from craft_cli.connection.autostart import Found
from craft_protos import channels
from craft_protos.reasons import CraftError
from craft_protos.version import __version__

from tests.cli.test_interrupts import running_job
from tests.home import Home

COMMANDS = [
    "generate x",
    "generate x --detach",
    "generate x --plan",
    "models list",
    "models show flat",
    "models load flat",
    "models unload flat",
    "models rm flat",
    "models alias a flat",
    "models pull org/name",
    "lora list",
    "lora show it",
    "lora edit it --weight 1",
    "lora rm it",
    "jobs list",
    "jobs show j",
    "jobs watch j",
    "jobs wait j",
    "jobs cancel j",
    "images list",
    "images show i",
    "images get i",
    "images rm i",
    "images prune --keep 3",
    "keys create --owner alice",
    "keys list",
    "keys suspend alice",
    "daemon status",
    "daemon logs",
    "list-models",
]


@pytest.fixture
def silence(home: Home, monkeypatch: pytest.MonkeyPatch) -> Iterator[Home]:
    """A socket at which connections are taken, as a stopped process's kernel takes them, and nothing is said."""
    for name, value in home.env.items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(home.work)
    monkeypatch.setattr(client, "CALL_TIMEOUT_S", 0.3)
    monkeypatch.setattr(pulse, "QUIET_S", 0.05)
    monkeypatch.setattr(pulse, "ANSWER_S", 0.2)
    for folder in (home.paths.data_dir, home.paths.socket.parent):
        folder.mkdir(parents=True, exist_ok=True)
    with socket.socket(socket.AF_UNIX) as listening, home.paths.lock_file.open("w") as lock:
        listening.bind(str(home.paths.socket))
        listening.listen(50)
        fcntl.flock(lock, fcntl.LOCK_EX)
        record = {"pid": os.getpid(), "address": f"unix:{home.paths.socket}", "version": __version__}
        lock.write(json.dumps(record))
        lock.flush()
        yield home
        lock.truncate(0)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_says_that_the_daemon_does_not_answer(
    silence: Home, command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main.run(command.split()) == 69
    told = capsys.readouterr().err
    assert f"the daemon at unix:{silence.paths.socket} did not answer in time" in told
    assert "craft daemon restart" in told


def test_a_batch_says_it_once(silence: Home, capsys: pytest.CaptureFixture[str]) -> None:
    (silence.work / "lines").write_text("x\n" * 30)
    assert main.run(["generate", "--batch", "lines"]) == 69
    assert capsys.readouterr().err.count("did not answer in time") == 1


def test_what_its_lock_file_names_is_not_killed_unless_it_is_a_craftd(silence: Home) -> None:
    """Here it names the process that runs this test."""
    assert not ending._is_craftd(os.getpid())
    assert main.run(["daemon", "stop", "--now"]) == 69
    assert autostart.is_held(silence.paths)


@pytest.mark.parametrize("command", ["stop", "restart"])
def test_a_stopped_daemon_is_ended_and_its_jobs_are_kept(home: Home, command: str) -> None:
    job = home.json("generate", "x [held]", "--detach")["job"]
    running_job(home)
    first = home.daemon_pid()
    assert ending._is_craftd(first)
    os.kill(first, signal.SIGSTOP)
    done = home.craft("daemon", command)
    assert done.returncode == 0, done.stderr
    assert f"SIGKILL to pid {first}" in done.stderr
    home.release()
    assert home.craft("jobs", "wait", job).returncode == 0
    assert home.daemon_pid() != first


def test_a_picture_that_is_waited_for(home: Home) -> None:
    """The daemon is stopped while its job is watched: the connection stays, so that only asking tells."""
    process = home.start("generate", "x [held]")
    job = running_job(home)
    daemon = home.daemon_pid()
    os.kill(daemon, signal.SIGSTOP)
    _, err = home.finish(process)
    assert process.returncode == 69
    assert "did not answer in time" in err and "craft daemon restart" in err
    os.kill(daemon, signal.SIGCONT)
    assert home.craft("jobs", "cancel", job).returncode == 0


def test_whoever_holds_the_start_lock_and_stands_still(silence: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(autostart, "START_TIMEOUT_S", 0.05)
    with (
        autostart.start_lock(silence.paths),
        pytest.raises(CraftError, match="does not get on with it"),
        autostart.start_lock(silence.paths),
    ):
        pass


@pytest.mark.skipif(sys.platform != "linux", reason="/proc")
def test_a_daemons_command_is_known_with_and_without_proc(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    home.craft("daemon", "start")
    pid = home.daemon_pid()
    assert ending._is_craftd(pid)
    monkeypatch.setattr(ending, "_command_of", ending._command_by_ps)
    assert ending._is_craftd(pid)
    with subprocess.Popen(["sleep", "60"]) as other:
        assert not ending._is_craftd(other.pid)
        other.kill()


def test_a_record_without_a_pid_is_no_reason_to_kill(silence: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("_NOW_S", "_MARGIN_S"):
        monkeypatch.setattr(ending, name, 0.1)
    assert Found(os.getpid(), f"unix:{silence.paths.socket}", __version__) == autostart.find(silence.paths)
    silence.paths.lock_file.write_text("{}")
    assert main.run(["daemon", "stop", "--now"]) == 69


def test_a_calls_deadline_comes_before_that_of_its_connection() -> None:
    """Else gRPC says that the daemon cannot be reached, and the command asks again, for minutes."""
    assert dict(channels.options("unix:/x"))["grpc.min_reconnect_backoff_ms"] > 2000 * client.CALL_TIMEOUT_S
