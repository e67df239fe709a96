"""Steps' pictures at a terminal, while a job is drawn."""

from __future__ import annotations

import os
import re
from io import BytesIO, StringIO

import pytest
from craft_cli.render import previews
from craft_cli.render.previews import Previews
from craft_protos import config
from PIL import Image

from tests.cli.test_terminal_process import at_terminal, plain
from tests.home import Home

_COLOURS = {"TERM": "xterm-256color", "COLORTERM": "truecolor"}
_RED = "38;2;254;0;0"


def _jpeg(colour: str) -> bytes:
    out = BytesIO()
    Image.new("RGB", (64, 64), colour).save(out, "JPEG")
    return out.getvalue()


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> StringIO:
    """A terminal of 30 lines that has colours alone."""
    for name in ("TERM_PROGRAM", "KITTY_WINDOW_ID", "LC_TERMINAL", "KONSOLE_VERSION", "NO_COLOR", "TMUX"):
        monkeypatch.delenv(name, raising=False)
    for name, value in {**_COLOURS, "LINES": "30", "COLUMNS": "80"}.items():
        monkeypatch.setenv(name, value)
    return StringIO()


def test_each_stands_in_the_place_of_the_one_before_and_is_gone_at_the_end(terminal: StringIO) -> None:
    shown = Previews(terminal, now=iter([1.0, 1.1, 1.3, 1.3]).__next__)
    assert shown.take(0, _jpeg("red"))
    shown.draw()
    assert terminal.getvalue().startswith("\n" * 24 + "\x1b[24A") and _RED in terminal.getvalue()
    assert not shown.take(0, _jpeg("lime"))  # a tenth of a second later
    terminal.truncate(terminal.seek(0))
    assert shown.take(0, _jpeg("blue"))
    shown.draw()
    assert terminal.getvalue().startswith("\x1b[24A") and _RED not in terminal.getvalue()
    assert re.findall(r"\x1b\[(\d+[AB])", terminal.getvalue()) == ["24A", "24B"]
    terminal.truncate(terminal.seek(0))
    shown.close()
    assert terminal.getvalue() == "\x1b[24A\r\x1b[J"


def test_several_pictures_stand_side_by_side(terminal: StringIO) -> None:
    shown = Previews(terminal, now=lambda: 1.0)
    for index, colour in enumerate(("red", "blue")):
        shown.take(index, _jpeg(colour))
    shown.draw()
    line = next(line for line in terminal.getvalue().splitlines() if _RED in line)
    assert "38;2;0;0;254" in line
    assert terminal.getvalue().count("\n") == 24 + 19  # of 80 columns: twice as wide as high


def test_of_kitty_only_its_own_picture_is_replaced_and_deleted(
    terminal: StringIO, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TERM", "xterm-kitty")
    monkeypatch.setenv("LINES", "10")
    shown = Previews(terminal)
    shown.take(0, _jpeg("red"))
    shown.draw()
    shown.close()
    assert f"\x1b_Ga=T,f=100,q=2,i={os.getpid()},r=8," in terminal.getvalue()
    assert f"\x1b_Ga=d,d=I,i={os.getpid()},q=2\x1b\\" in terminal.getvalue()


def test_where_no_picture_can_be_shown_there_is_no_room(terminal: StringIO, monkeypatch: pytest.MonkeyPatch) -> None:
    assert previews.rows() == 24
    monkeypatch.setenv("TERM", "dumb")
    assert previews.rows() == 0
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("LINES", "1")
    assert previews.rows() == 0


def test_steps_are_seen_only_where_asked_for(shared_home: Home) -> None:
    """By the option or by the configuration, and never with -q or in a pipe."""
    line = ("generate", "x [slow]", "--no-show", "-s", "900", "--force", "--seed", "1")
    code, seen = at_terminal(shared_home, *line, "--preview", env=_COLOURS, until="\x1b8")
    assert code == 0 and "▀" in seen
    assert plain(seen).strip().splitlines()[-1] == "x-slow-1.png"
    wanted = _COLOURS | {"CRAFT_GENERATE_PREVIEW": "true"}
    assert "▀" in at_terminal(shared_home, *line, env=wanted, until="\x1b8")[1]
    for quiet in (["-q"], ["--no-preview"]):
        assert "▀" not in at_terminal(shared_home, *line, *quiet, env=wanted, until="of 900")[1]
    assert "\x1b" not in shared_home.craft(*line, env=wanted).stderr
    assert not config.load(shared_home.paths.config_file, {}).generate.preview
