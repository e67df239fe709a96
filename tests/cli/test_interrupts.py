"""Ctrl-C, closed pipes and dead daemons while a job is under way."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from typing import Any

import pytest
from PIL import Image

from tests.cli.test_images import GOOD, note
from tests.home import CRAFT, Home, until

HELD_RECORD = {
    "prompt": "x [held]",
    "steps": 4,
    "width": 64,
    "height": 64,
    "model": {"name": "flat"},
}


def running_job(home: Home) -> str:
    """The id of the one job that runs."""

    def find() -> Any:
        done = home.craft("jobs", "list", "--state", "running", "--json", env={"CRAFT_AUTOSTART": "0"})
        return json.loads(done.stdout) if done.returncode == 0 else None

    (job,) = until(find, "a job runs")
    return str(job["id"])


def state(home: Home, job: str) -> str:
    return str(home.json("jobs", "show", job)["state"])


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_cancels_and_says_so(home: Home, number: signal.Signals) -> None:
    process = home.start("generate", "x [held]")
    job = running_job(home)
    process.send_signal(number)
    out, err = home.finish(process)
    assert process.returncode == 130
    assert out == ""
    assert err == f"craft: stopped; job {job} was cancelled and runs no more\n"
    until(lambda: state(home, job) == "CANCELLED", "cancelled")
    assert list(home.work.iterdir()) == []


def test_a_signal_cancels_what_is_verified(home: Home) -> None:
    (home.work / "a.png").write_bytes(note("PNG", json.dumps(GOOD | HELD_RECORD)))
    process = home.start("images", "verify", "a.png")
    job = running_job(home)
    process.send_signal(signal.SIGINT)
    out, err = home.finish(process)
    assert (process.returncode, out) == (130, "")
    assert err == f"craft: stopped; job {job} was cancelled and runs no more\n"
    until(lambda: state(home, job) == "CANCELLED", "cancelled")


def test_a_reader_that_went_away_cancels_quietly(home: Home) -> None:
    home.craft("daemon", "start")
    reading, writing = os.pipe()
    process = home.start("generate", "x [held]", stdout=writing)
    os.close(writing)
    job = running_job(home)
    os.close(reading)
    _, err = home.finish(process)
    assert err == ""
    assert process.returncode == 130
    until(lambda: state(home, job) == "CANCELLED", "cancelled")


@pytest.mark.parametrize(
    "command",
    ["generate x --json", "generate x -o -", "models list --json", "config list", "--help", "jobs list", "--version"],
)
def test_head_of_nothing_is_quiet(shared_home: Home, command: str) -> None:
    home = shared_home
    home.craft("daemon", "start")
    done = home.run(["bash", "-c", f"{' '.join(CRAFT)} {command} | head -c0"])
    assert (done.returncode, done.stderr) == (0, b"")


def test_ctrl_c_ends_a_whole_batch(home: Home) -> None:
    process = home.start("generate", "--batch", "-", stdin=subprocess.PIPE)
    assert process.stdin
    process.stdin.write("one [held]\ntwo [held]\n")
    process.stdin.flush()
    until(lambda: len(home.json("jobs", "list", "--state", "running")) == 2, "both run")
    process.send_signal(signal.SIGINT)
    _, err = home.finish(process)
    assert process.returncode == 130
    assert err.count("was cancelled") == 2
    until(lambda: len(home.json("jobs", "list", "--state", "cancelled")) == 2, "both cancelled")


def test_a_second_ctrl_c_ends_at_once(home: Home) -> None:
    """The daemon hangs, so that the cancelling takes its time."""
    process = home.start("generate", "x [held]")
    running_job(home)
    daemon = home.daemon_pid()
    os.kill(daemon, signal.SIGSTOP)
    try:
        process.send_signal(signal.SIGINT)
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(1)
        process.send_signal(signal.SIGINT)
        _, err = home.finish(process)
        assert process.returncode == 130
        assert "may still run" not in err, "it waited for the daemon's answer"
    finally:
        os.kill(daemon, signal.SIGCONT)


def test_ctrl_c_while_watching_leaves_the_job_alone(home: Home) -> None:
    job = home.json("generate", "x [held]", "--detach")["job"]
    process = home.start("jobs", "watch", job, "--json")
    assert process.stdout
    assert json.loads(process.stdout.readline())["event"] == "snapshot"
    process.send_signal(signal.SIGINT)
    home.finish(process)
    assert process.returncode == 130
    assert state(home, job) in ("QUEUED", "RUNNING")


def test_the_daemon_dies_and_the_picture_comes(home: Home) -> None:
    process = home.start("generate", "x [held]", "-o", "a.png")
    job = running_job(home)
    first = home.daemon_pid()
    os.kill(first, signal.SIGKILL)
    home.release()
    out, err = home.finish(process)
    assert (process.returncode, out, err) == (0, "a.png\n", "")
    with Image.open(home.work / "a.png") as picture:
        assert picture.size == (64, 64)
    assert home.daemon_pid() != first
    assert [one["id"] for one in home.json("jobs", "list")] == [job]


def test_a_daemon_that_is_told_to_stop_stays_stopped(home: Home) -> None:
    process = home.start("generate", "x [held]", "-o", "a.png")
    job = running_job(home)
    assert home.craft("daemon", "stop", "--now").returncode == 0
    out, err = home.finish(process)
    assert (process.returncode, out) == (75, "")
    assert err == f"craft: the daemon was stopped; job {job} is kept\n  craft jobs wait {job}\n"
    assert home.craft("daemon", "status").returncode == 69


def test_what_begins_while_the_daemon_stops_is_drawn_by_the_next_one(home: Home) -> None:
    home.json("generate", "x [held]", "--detach")
    running_job(home)
    first = home.daemon_pid()
    stopping = home.start("daemon", "stop")
    until(lambda: home.json("daemon", "status")["draining"], "it stops")
    done = home.craft("generate", "y", "-o", "y.png")
    assert (done.returncode, done.stdout, done.stderr) == (0, "y.png\n", "")
    assert home.daemon_pid() != first
    home.finish(stopping)
    assert stopping.returncode == 0


def test_a_daemon_that_is_restarted_goes_on(home: Home) -> None:
    process = home.start("generate", "x [held]", "-o", "a.png")
    running_job(home)
    assert home.craft("daemon", "restart", "--now").returncode == 0
    home.release()
    out, err = home.finish(process)
    assert (process.returncode, out, err) == (0, "a.png\n", "")


def test_a_batch_survives_the_daemon(home: Home) -> None:
    process = home.start("generate", "--batch", "-", stdin=subprocess.PIPE)
    assert process.stdin
    process.stdin.write("x [held]\n" * 10)
    process.stdin.flush()
    until(lambda: home.json("jobs", "list", "--state", "running"), "some run")
    os.kill(home.daemon_pid(), signal.SIGKILL)
    home.release()
    out, err = home.finish(process)
    assert (process.returncode, err) == (0, "")
    assert len({json.loads(line)["path"] for line in out.splitlines()}) == 10
    assert len(home.json("jobs", "list")) == 10


def test_the_worker_dies_and_the_picture_comes(home: Home) -> None:
    done = home.craft("generate", "x [crash once]", "-o", "a.png")
    assert (done.returncode, done.stdout) == (0, "a.png\n"), done.stderr


def test_a_job_that_kills_its_worker_fails_with_its_reason(home: Home) -> None:
    done = home.craft("generate", "x [crash]", "--json")
    assert done.returncode == 1
    assert json.loads(done.stderr)["error"]["reason"] == "WORKER_DIED"
