"""A second terminal: `craft fleet invite` here, `craft worker join` there, and both draw."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator

import pytest

from tests.home import HANG_S, Home


@pytest.fixture(scope="module")
def front() -> Iterator[Home]:
    home = Home(CRAFT_WORKER_LISTEN="127.0.0.1:0", CRAFT_WORKER_MAX_ROWS="1")
    yield home
    home.remove()


@pytest.fixture(scope="module")
def there() -> Iterator[Home]:
    """The other machine's craft, which has no model."""
    home = Home("", CRAFT_WORKER_MAX_ROWS="1")
    yield home
    home.remove()


def test_one_joins_from_a_second_terminal_draws_and_is_removed(front: Home, there: Home) -> None:
    invited = front.json("fleet", "invite", "box-2")
    command = ["worker", "join", invited["address"], "--ca", invited["ca"]]
    joining = there.start(*command, stdin=subprocess.PIPE)
    assert joining.stdin is not None and invited["token"] not in str(joining.args)
    joining.stdin.write(f"{invited['token']}\n")
    joining.stdin.close()
    joining.stdin = None  # so that `finish` does not write there
    _until(front, "off")
    drawing = front.start("generate", "[slow] apples", "-n", "8", "--json")
    _until(front, "busy", "loading", "idle")
    front.hurry()
    (folder,) = (there.paths.joined_dir).iterdir()
    (folder / "files" / "hurry").touch()
    front.finish(drawing)
    assert drawing.returncode == 0
    shown = front.craft("fleet", "show", "box-2").stdout
    assert "127.0.0.1" in shown and "flat" in shown and "pid" in shown
    assert front.craft("fleet", "rm", "box-2").returncode == 0
    _, said = there.finish(joining)
    assert joining.returncode == 77 and "it was removed from the fleet" in said
    again = there.craft(*command[:3])
    assert again.returncode == 77 and "removed" in again.stderr
    assert [one["name"] for one in front.json("fleet", "list")] == ["cpu"]


def test_what_cannot_be_is_said_with_the_next_step(front: Home, there: Home) -> None:
    assert "worker.listen is not set" in there.craft("fleet", "invite", "box-3").stderr
    taken = front.craft("fleet", "invite", "cuda:0")
    assert taken.returncode == 65 and "as workers of this machine are" in taken.stderr
    assert front.craft("fleet", "show", "box-9").returncode == 66
    other = ["worker", "join", "127.0.0.1:9", "--folder", str(there.root / "other")]
    assert "--ca is missing" in there.craft(*other).stderr
    tokenless = there.craft(*other, "--ca", f"sha256:{'0' * 64}", stdin="")
    assert tokenless.returncode == 2 and "CRAFT_JOIN_TOKEN" in tokenless.stderr
    nobody = there.craft(*other, "--ca", f"sha256:{'0' * 64}", env={"CRAFT_JOIN_TOKEN": "0" * 32})
    assert nobody.returncode == 69 and "worker.listen" in nobody.stderr


def _until(front: Home, *states: str) -> None:
    """The worker of the other machine is in one of these."""
    until = time.monotonic() + HANG_S
    while time.monotonic() < until:
        if any(one["name"] == "box-2" and one["state"] in states for one in front.json("fleet", "list")):
            return
    raise AssertionError(front.json("fleet", "list"))
