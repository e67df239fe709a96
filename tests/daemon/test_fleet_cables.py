"""A worker in a network namespace, as if on another machine, whose cable is cut in the midst of a job."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator

import pytest

from tests.home import CRAFT, HANG_S, Home

TIMEOUT_S = 5.0
_NUMBER = os.getpid()
SPACE, HERE, THERE = f"craft-{_NUMBER}", f"cf{_NUMBER % 10**6}a", f"cf{_NUMBER % 10**6}b"
NET = f"10.211.{_NUMBER % 250}"


def _ip(*args: str) -> bool:
    return subprocess.run(args, capture_output=True, check=False).returncode == 0


def _made() -> bool:
    """The namespace, and a cable to it."""
    return (
        _ip("ip", "netns", "add", SPACE)
        and _ip("ip", "link", "add", HERE, "type", "veth", "peer", "name", THERE, "netns", SPACE)
        and _ip("ip", "addr", "add", f"{NET}.1/30", "dev", HERE)
        and _ip("ip", "link", "set", HERE, "up")
        and _ip("ip", "-n", SPACE, "addr", "add", f"{NET}.2/30", "dev", THERE)
        and _ip("ip", "-n", SPACE, "link", "set", THERE, "up")
    )


pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(os.geteuid() != 0, reason="network namespaces need root"),
    pytest.mark.skipif(shutil.which("ip") is None, reason="ip is not installed"),
]


@pytest.fixture(scope="module")
def cable() -> Iterator[None]:
    try:
        if not _made():
            pytest.skip("this machine lets no network namespace be made")
        yield
    finally:
        _ip("ip", "link", "del", HERE)
        _ip("ip", "netns", "del", SPACE)


@pytest.fixture(scope="module")
def homes(cable: None) -> Iterator[tuple[Home, Home]]:
    """The daemon's, and the worker's, which is connected; the daemon's own worker draws nothing."""
    front = Home(
        CRAFT_WORKER_DEVICE="cpu", CRAFT_WORKER_LISTEN=f"{NET}.1:0", CRAFT_WORKER_LINE_TIMEOUT_S=str(TIMEOUT_S)
    )
    there = Home("")
    try:
        told = front.json("fleet", "invite", "box-2")
        command = [*CRAFT, "worker", "join", told["address"], "--ca", told["ca"]]
        joining = subprocess.Popen(
            ["ip", "netns", "exec", SPACE, *command],
            env=there.env | {"CRAFT_JOIN_TOKEN": told["token"]},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        there.started.append(joining)
        _until(front, "is connected", lambda: "worker connected" in front.log)
        assert front.craft("fleet", "drain", "cpu").returncode == 0
        yield front, there
    finally:
        there.remove()
        front.remove()


CUTS = {
    "1 s": (1.0, ["here"], False),
    "10 s": (10.0, ["here"], True),
    "10 s, from the worker alone": (10.0, ["from"], True),
    "10 s, to the worker alone": (10.0, ["to"], True),
}


@pytest.mark.parametrize("what", CUTS)
def test_every_job_is_drawn_once_whatever_the_cable_does(homes: tuple[Home, Home], what: str) -> None:
    front, there = homes
    seconds, ways, is_given_again = CUTS[what]
    (folder,) = there.paths.joined_dir.iterdir()
    (folder / "files" / "release").unlink(missing_ok=True)
    before = len(_dispatched(front))
    drawing = front.start("generate", f"[held] {what}", "-n", "2", "--json")
    _until(front, "is given", lambda: len(_dispatched(front)) == before + 1)
    for way in ways:
        assert _cut(way)
    try:
        time.sleep(seconds)  # the cable is cut for so long
    finally:
        for way in ways:
            assert _mend(way)
    if is_given_again:
        _until(front, "is given again", lambda: len(_dispatched(front)) == before + 2)
    (folder / "files" / "release").touch()
    out, err = front.finish(drawing)
    assert drawing.returncode == 0, err
    images = [json.loads(line) for line in out.splitlines()]
    assert len({image["seed"] for image in images}) == 2 == len(images)
    given = _dispatched(front)[before:]
    assert [one["epoch"] for one in given] == ([1, 2] if is_given_again else [1])
    assert {one["worker"] for one in given} == {"box-2"}


def _cut(way: str) -> bool:
    """Frames that go one way are sent to nobody's address there, without a word to who sends them."""
    nobody = ("lladdr", "02:00:00:00:00:01", "nud", "permanent")
    match way:
        case "here":
            return _ip("ip", "link", "set", HERE, "down")
        case "from":
            return _ip("ip", "-n", SPACE, "neigh", "replace", f"{NET}.1", "dev", THERE, *nobody)
        case _:
            return _ip("ip", "neigh", "replace", f"{NET}.2", "dev", HERE, *nobody)


def _mend(way: str) -> bool:
    match way:
        case "here":
            return _ip("ip", "link", "set", HERE, "up")
        case "from":
            return _ip("ip", "-n", SPACE, "neigh", "del", f"{NET}.1", "dev", THERE)
        case _:
            return _ip("ip", "neigh", "del", f"{NET}.2", "dev", HERE)


def _dispatched(front: Home) -> list[dict[str, object]]:
    records = [json.loads(line) for line in front.log.splitlines() if "job dispatched" in line]
    return [one for one in records if one["event"] == "job dispatched"]


def _until(front: Home, what: str, condition: Callable[[], bool]) -> None:
    until = time.monotonic() + HANG_S
    while not condition():
        assert time.monotonic() < until, f"no job {what}: {front.log[-3000:]}"
        time.sleep(0.05)
