"""kill -9 of the worker or the daemon loses nothing that was accepted."""

from __future__ import annotations

import os
import signal
from typing import Any

import pytest
from PIL import Image

from tests.home import Home, until


def _workers(home: Home) -> list[dict[str, Any]]:
    status: dict[str, Any] = home.json("daemon", "status")
    return list(status["workers"])


@pytest.mark.parametrize("victim", ["worker", "daemon"])
def test_a_waiting_command_gets_its_picture(home: Home, victim: str) -> None:
    assert home.craft("generate", "warm", "-s", "2").returncode == 0
    waiting = home.start("generate", "a cat", "-s", "400", "-W", "128", "-H", "128", "-o", "cat.png")
    until(lambda: any(job["state"] == "RUNNING" for job in home.json("jobs", "list")), "the job runs")
    pid = home.daemon_pid() if victim == "daemon" else _workers(home)[0]["pid"]
    os.kill(pid, signal.SIGKILL)
    _, errors = home.finish(waiting)
    assert waiting.returncode == 0, errors
    with Image.open(home.work / "cat.png") as image:
        image.load()


def test_unload_ends_the_worker_and_gives_its_memory_back(home: Home) -> None:
    assert home.craft("generate", "a cat", "-s", "2").returncode == 0
    pid = _workers(home)[0]["pid"]
    assert home.craft("models", "unload", "tiny").returncode == 0
    until(lambda: not _is_alive(pid), "the worker is gone")


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True
