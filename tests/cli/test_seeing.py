"""Pictures are seen: at the terminal, and in the system's viewer."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.test_terminal_process import at_terminal
from tests.home import Home


@pytest.fixture
def viewer(tmp_path: Path) -> dict[str, str]:
    """A system whose viewer copies what it is given to look at."""
    program = tmp_path / "xdg-open"
    program.write_text(f'#!/bin/sh\ncp "$1" {tmp_path}/seen\n')
    program.chmod(0o755)
    return {"PATH": f"{tmp_path}:/usr/bin:/bin"}


@pytest.mark.parametrize("is_stored", [True, False])
def test_a_picture_is_opened(shared_home: Home, viewer: dict[str, str], tmp_path: Path, is_stored: bool) -> None:
    image = shared_home.json("generate", "x", "-o", "o.png", "-f")["image"]
    done = shared_home.craft("images", "open", image[:12] if is_stored else "o.png", env=shared_home.env | viewer)
    assert done.returncode == 0, done.stderr
    assert Path(shared_home.work / done.stdout.strip()).exists() and done.stdout.endswith(".png\n")
    assert (tmp_path / "seen").read_bytes() == (shared_home.work / "o.png").read_bytes()


@pytest.mark.parametrize(("picture", "code"), [("-", 2), ("./nowhere.png", 66), ("nosuchid", 66)])
def test_what_cannot_be_opened(shared_home: Home, viewer: dict[str, str], picture: str, code: int) -> None:
    done = shared_home.craft("images", "open", picture, env=shared_home.env | viewer)
    assert (done.returncode, done.stdout) == (code, "")


@pytest.mark.parametrize("is_stored", [True, False])
def test_a_picture_stands_above_what_is_known_of_it(shared_home: Home, is_stored: bool) -> None:
    image = shared_home.json("generate", "x", "-o", "s.png", "-f")["image"]
    name = image if is_stored else "s.png"
    code, seen = at_terminal(shared_home, "images", "show", name, env={"TERM": "xterm-kitty"})
    assert code == 0 and seen.startswith("\x1b_Ga=T") and "prompt" in seen
