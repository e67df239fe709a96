"""Finding, starting and awaiting the daemon; `craft daemon`."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import os
import signal
import socket
import sys
from pathlib import Path

import pytest
from craft_cli.connection import autostart
from craft_protos.reasons import CraftError
from craft_protos.version import __version__

from tests.cli.fakes import FakeDaemon, serving
from tests.home import HANG_S, Home, until

OFF = {"CRAFT_AUTOSTART": "0"}


@pytest.mark.parametrize("args", [["generate", "x"], ["jobs", "list"], ["daemon", "status"], ["daemon", "logs", "-f"]])
def test_no_daemon_and_no_autostart(home: Home, args: list[str]) -> None:
    done = home.craft(*args, env=OFF)
    assert done.returncode == 69
    assert done.stderr == "craft: no daemon runs\n  start it: craft daemon start\n"


def test_status_starts_nothing_and_wait_starts_nothing(home: Home) -> None:
    done = home.craft("daemon", "status", "--json")
    assert done.returncode == 69
    assert json.loads(done.stderr)["error"]["reason"] == "DAEMON_UNREACHABLE"
    assert home.craft("daemon", "wait", "--timeout", "0.2").returncode == 69
    assert autostart.find(home.paths) is None


def test_start_status_wait_restart_stop(home: Home) -> None:
    assert home.craft("daemon", "start", env=OFF).returncode == 0
    status = home.json("daemon", "status")
    assert list(status)[:6] == ["pid", "version", "address", "http", "workers", "queue"]
    assert status["queue"] == {"queued": 0, "running": 0}
    assert home.craft("daemon", "wait").returncode == 0
    assert "runs already" in home.craft("daemon", "start").stderr
    assert home.craft("daemon", "restart").returncode == 0
    assert home.json("daemon", "status")["pid"] != status["pid"]
    assert home.craft("generate", "x", "--seed", "1").returncode == 0
    (worker,) = home.json("daemon", "status")["workers"]
    assert list(worker)[:4] == ["pid", "device", "state", "models"]
    assert worker["models"] == ["flat"]
    assert home.craft("daemon", "stop").returncode == 0
    assert home.craft("daemon", "status").returncode == 69
    assert home.craft("daemon", "stop").stderr == "craft: no daemon runs\n"


def test_a_restart_with_a_wrong_configuration_leaves_the_daemon_running(home: Home) -> None:
    home.craft("daemon", "start")
    pid = home.daemon_pid()
    assert home.craft("daemon", "restart", env={"CRAFT_DAEMON_QUEUE_LIMIT": "x"}).returncode == 78
    home.paths.config_file.parent.mkdir(parents=True, exist_ok=True)
    home.paths.config_file.write_text("[daemon\n")
    done = home.craft("daemon", "restart", "--http")
    assert done.returncode == 78 and "not valid TOML" in done.stderr
    home.paths.config_file.unlink()
    pems = {f"CRAFT_DAEMON_TLS_{name}": "/none.pem" for name in ("CERT", "KEY")}
    pems["CRAFT_DAEMON_LISTEN"] = "127.0.0.1:0"
    for settings in (pems, {"CRAFT_DAEMON_LISTEN": "0.0.0.0:7812"}, {"CRAFT_KEYS_ADMIN_KEY_FILE": str(home.work)}):
        done = home.craft("daemon", "restart", env=settings)
        assert done.returncode == 78, done.stderr
    assert home.json("daemon", "status")["pid"] == pid
    assert home.craft("daemon", "restart").returncode == 0
    assert home.json("daemon", "status")["pid"] != pid


def test_a_stopped_daemon_resumes_what_was_queued(home: Home) -> None:
    job = home.json("generate", "x [held]", "--detach")["job"]
    until(lambda: home.json("daemon", "status")["queue"]["running"] == 1, "it runs")
    assert home.craft("daemon", "stop", "--now").returncode == 0
    home.release()
    assert home.craft("daemon", "status").returncode == 69
    assert home.craft("jobs", "wait", job).returncode == 0  # started for it


def test_a_command_in_a_service_does_not_speak_for_it(home: Home) -> None:
    """The daemon that it starts is not the service whose manager waits for READY=1."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(home.root / "notify"))
        manager.setblocking(False)
        done = home.craft("daemon", "start", env={"NOTIFY_SOCKET": str(home.root / "notify")})
        assert done.returncode == 0, done.stderr
        with pytest.raises(BlockingIOError):
            manager.recv(100)


def test_a_daemon_that_hangs_is_ended_by_stop_now(home: Home) -> None:
    home.craft("daemon", "start")
    os.kill(home.daemon_pid(), signal.SIGSTOP)
    done = home.craft("daemon", "stop", "--now")
    assert done.returncode == 0, done.stderr
    assert not autostart.is_held(home.paths)


def test_a_daemon_that_said_it_is_ready_is_not_waited_for(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    found = autostart.Found(1, "unix:x", "1")
    answers = iter([None, found, found])
    monkeypatch.setattr(autostart, "find", lambda paths: next(answers))
    monkeypatch.setattr(autostart, "_launch", lambda paths, settings, deadline: None)
    monkeypatch.setattr("time.sleep", lambda seconds: pytest.fail("it slept"))
    assert autostart.start(home.paths) == found


def test_the_end_of_one_daemon_is_not_missed_where_the_next_one_is_up(home: Home) -> None:
    """Of two clients that wait, one may start the next before the other looks."""
    with serving(FakeDaemon(__version__), home.paths):
        now = autostart.read_lock(home.paths)
        assert now is not None
        assert autostart.await_end(home.paths, 0.0, dataclasses.replace(now, pid=now.pid + 1))
        assert not autostart.await_end(home.paths, 0.0, now)
        assert not autostart.await_end(home.paths, 0.0)


def test_a_stale_lock_and_socket_are_no_obstacle(home: Home) -> None:
    home.craft("daemon", "start")
    os.kill(home.daemon_pid(), signal.SIGKILL)
    assert autostart.await_end(home.paths, HANG_S)
    assert autostart.read_lock(home.paths) is not None
    assert home.craft("generate", "x").returncode == 0


def test_the_daemons_own_error_is_told(home: Home) -> None:
    home.paths.data_dir.mkdir(exist_ok=True)
    home.paths.database.write_bytes(b"this is no database" * 500)
    done = home.craft("generate", "x")
    assert done.returncode == 78
    assert str(home.paths.database) in done.stderr
    assert home.paths.database.read_bytes().startswith(b"this is no database")


def test_a_daemon_that_cannot_even_begin(home: Home, tmp_path: Path) -> None:
    """Its last words are passed on: here the interpreter finds another `craftd` first."""
    (tmp_path / "craftd").mkdir()
    (tmp_path / "craftd" / "__init__.py").write_text("")
    (tmp_path / "craftd" / "__main__.py").write_text("raise RuntimeError('no luck')")
    done = home.craft("generate", "x", env={"PYTHONPATH": str(tmp_path)})
    assert done.returncode == 69
    assert "craftd ended before it was ready: RuntimeError: no luck" in done.stderr


def test_the_client_alone_says_what_to_install(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "apsw" else found(name))
    with pytest.raises(CraftError, match="only craft's client") as caught:
        autostart.start(home.paths)
    assert caught.value.exit_code == 69
    assert "pip install 'craftengine[daemon]'" in caught.value.hint


@pytest.mark.slow
def test_fifty_at_once_share_one_daemon(home: Home) -> None:
    processes = [home.start("generate", f"picture {n}", "-o", f"{n}.png") for n in range(50)]
    done = [(home.finish(process), process.returncode) for process in processes]
    assert [code for _, code in done] == [0] * 50, [err for (_, err), code in done if code]
    assert len(list(home.work.glob("*.png"))) == 50
    starts = [line for line in home.paths.log_file.read_text().splitlines() if json.loads(line).get("event") == "ready"]
    assert len(starts) == 1


def test_logs_with_and_without_a_daemon(home: Home) -> None:
    home.craft("generate", "x")
    running = home.craft("daemon", "logs", "-n", "5", "--json").stdout.splitlines()
    assert running and all(isinstance(json.loads(line), dict) for line in running)
    home.craft("daemon", "stop")
    assert "ready" in home.craft("daemon", "logs").stdout
    assert home.craft("daemon", "logs", "-n", "1").stdout.count("\n") == 1


def test_logs_follow(home: Home) -> None:
    home.craft("daemon", "start")
    process = home.start("daemon", "logs", "-f", "-n", "1", "--json")
    assert process.stdout
    assert json.loads(process.stdout.readline())["event"] != "worker ended"  # it is there, and follows
    home.craft("generate", "x [crash once]")  # a worker's death is logged
    while json.loads(process.stdout.readline())["event"] != "worker ended":
        continue
    process.send_signal(signal.SIGINT)
    home.finish(process)
    assert process.returncode == 130


@pytest.mark.skipif(sys.platform != "linux", reason="systemd's unit")
def test_install_and_uninstall(home: Home) -> None:
    env = {"PATH": "/nowhere"}  # no systemctl to call
    done = home.craft("daemon", "install", env=env)
    unit = home.root / ".config" / "systemd" / "user" / "craftd.service"
    assert done.stdout == f"{unit}\n"
    assert "systemctl --user enable --now craftd.service" in done.stderr
    text = unit.read_text()
    assert "Type=notify" in text and f'Environment="CRAFT_DATA_DIR={home.paths.data_dir}"' in text
    assert home.craft("generate", "x", env=env).returncode == 0  # a unit that cannot be started is no obstacle
    assert home.craft("daemon", "install", "--uninstall", env=env).returncode == 0
    assert not unit.exists()


@pytest.mark.skipif(sys.platform != "linux", reason="systemd's unit")
def test_an_installed_unit_is_what_is_started(home: Home) -> None:
    """A systemctl that starts craftd as systemd would, and leaves a note."""
    home.craft("daemon", "install", env={"PATH": "/nowhere"})
    systemctl = home.root / "bin" / "systemctl"
    systemctl.parent.mkdir()
    systemctl.write_text(
        f'#!/bin/sh\necho "$@" >> {home.root}/asked\n'
        f"setsid {sys.executable} -P -m craftd >/dev/null 2>&1 </dev/null &\n"
    )
    systemctl.chmod(0o755)
    done = home.craft("generate", "x", env={"PATH": f"{systemctl.parent}:{os.environ['PATH']}"})
    assert done.returncode == 0, done.stderr
    assert (home.root / "asked").read_text().splitlines()[0] == "--user start craftd.service"
