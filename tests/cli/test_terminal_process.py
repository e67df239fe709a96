"""`craft` at a terminal: a pseudo-terminal of our own."""

from __future__ import annotations

import json
import os
import pty
import re
import threading

import pytest

from tests.home import Home


def at_terminal(
    home: Home, *args: str, env: dict[str, str] | None = None, until: str = "\0", typed: str = ""
) -> tuple[int, str]:
    """Run craft with a terminal for stdin, stdout and stderr; its exit code and all that it wrote there.

    `typed`: what waits to be read there. `[slow]` jobs are slow until these words stand there.
    """
    ours, theirs = pty.openpty()
    process = home.start(*args, stdin=theirs, stdout=theirs, stderr=theirs, env=home.env | (env or {}))
    os.close(theirs)
    os.write(ours, typed.encode())
    seen = bytearray()

    def read() -> None:
        while part := _read(ours):
            seen.extend(part)
            if until.encode() in seen:
                home.hurry()

    reader = threading.Thread(target=read)
    reader.start()
    try:
        home.finish(process)
    finally:
        reader.join()
        os.close(ours)
        print(written := seen.decode().replace("\r\n", "\n"))
    return process.returncode, written


def _read(terminal: int) -> bytes:
    try:
        return os.read(terminal, 65536)
    except OSError:  # Linux's way to say that the other end is closed
        return b""


def plain(text: str) -> str:
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text)


def test_progress_then_the_path(shared_home: Home) -> None:
    code, seen = at_terminal(shared_home, "generate", "x [slow]", "--seed", "1", "-s", "900", until="of 900")
    assert code == 0
    assert re.search(r"step \d+ of 900", plain(seen))
    assert plain(seen).strip().splitlines()[-1] == "x-slow-1.png"


_LATE_WORKER = """
import pathlib, time
while not pathlib.Path({hurry!r}).exists():
    time.sleep(0.02)
from craftd.fakeworker import main
main()
"""


def test_the_first_picture_says_what_it_waits_for(home: Home) -> None:
    """Of a worker that takes until then to start."""
    (home.root / "lateworker.py").write_text(_LATE_WORKER.format(hurry=str(home.paths.files_dir / "hurry")))
    home.env |= {"PYTHONPATH": str(home.root), "CRAFT_WORKER_MODULE": "lateworker"}
    code, seen = at_terminal(home, "generate", "x", "--no-show", until="starting the worker")
    assert code == 0
    assert "starting the worker" in plain(seen)


def test_a_batch_says_how_far_it_is_and_leaves_only_its_lines(shared_home: Home) -> None:
    (shared_home.work / "prompts.txt").write_text("one\ntwo\n\nthree\n")
    code, seen = at_terminal(shared_home, "generate", "--batch", "prompts.txt", "-o", "{n}.png")
    assert code == 0
    assert re.search(r"[0-3] of 3 done", seen)  # several may be done at once, the last with the bar's end
    lines = [line.rpartition("\r")[2] for line in plain(seen).split("\n")]
    assert [json.loads(line)["path"] for line in lines if line.strip()] == ["1.png", "2.png", "3.png"]
    _, seen = at_terminal(shared_home, "generate", "--batch", "prompts.txt", "-o", "q{n}.png", "-q")
    assert "done" not in seen and "\x1b" not in seen


def test_what_takes_its_time_is_named(home: Home) -> None:
    assert "craft: loading flat\n" in at_terminal(home, "models", "load", "flat")[1]
    assert "craft: waiting for the daemon's end; its jobs have 30 s\n" in at_terminal(home, "daemon", "stop")[1]


def test_quiet_is_only_the_path(shared_home: Home) -> None:
    assert at_terminal(shared_home, "generate", "x [slow]", "--seed", "1", "-q") == (0, "x-slow-1.png\n")


def test_no_color(shared_home: Home) -> None:
    _, seen = at_terminal(shared_home, "generate", "x [slow]", "-s", "900", env={"NO_COLOR": "1"}, until="of 900")
    assert "step" in plain(seen)
    assert not re.search(r"\x1b\[[0-9;]*3[0-9]", seen)


@pytest.mark.parametrize(
    ("env", "begins"),
    [
        ({"TERM": "xterm-kitty"}, "\x1b_Ga=T"),
        ({"LC_TERMINAL": "iTerm2"}, "\x1b]1337;File="),
        ({"TERM": "foot"}, "\x1bPq"),
        ({"TERM": "xterm-256color"}, "\x1b[38;5;"),
        ({"TERM": "tmux-256color", "COLORTERM": "truecolor"}, "\x1b[38;2;"),
    ],
)
def test_the_picture_comes_before_its_path(shared_home: Home, env: dict[str, str], begins: str) -> None:
    code, seen = at_terminal(shared_home, "generate", "x", "-o", "a.png", "-f", env=env)
    assert code == 0
    assert begins in seen
    assert seen.rindex("a.png") > seen.index(begins)
    assert at_terminal(shared_home, "generate", "x", "-o", "b.png", "--no-show", "-q", "-f", env=env)[1] == "b.png\n"


def test_several_pictures_stand_in_one_grid(shared_home: Home) -> None:
    _, seen = at_terminal(shared_home, "generate", "x", "-n", "4", "-o", "g-{n}.png", env={"TERM": "xterm-kitty"})
    assert seen.count("\x1b_Ga=T") == 1
    assert seen.split()[-4:] == [f"g-{n}.png" for n in (1, 2, 3, 4)]


def test_a_terminal_that_shows_no_pictures_gets_none(shared_home: Home) -> None:
    _, seen = at_terminal(shared_home, "generate", "x", "-o", "n.png", env={"TERM": "xterm", "COLORTERM": ""})
    assert "▀" not in seen and seen.endswith("n.png\n")


def test_image_bytes_are_not_poured_into_a_terminal(shared_home: Home) -> None:
    code, seen = at_terminal(shared_home, "generate", "x", "-o", "-")
    assert code == 2
    assert "PNG" not in seen


def test_without_a_prompt_at_a_terminal(shared_home: Home) -> None:
    code, seen = at_terminal(shared_home, "generate")
    assert code == 2
    assert "craft generate 'a red apple'" in seen


def test_tables_have_headers_at_a_terminal(shared_home: Home) -> None:
    code, seen = at_terminal(shared_home, "models", "list")
    assert code == 0
    assert plain(seen).split()[:2] == ["name", "architecture"]


def test_in_a_narrow_terminal_ids_and_details_stay_whole(home: Home) -> None:
    job = home.json("generate", "a red apple on a blue background", "--seed", "1")["job"]
    _, seen = at_terminal(home, "jobs", "list", env={"COLUMNS": "50"})
    _, row = plain(seen).strip().splitlines()
    assert row.startswith(f"{job}  ") and "…" in row and len(row) <= 50
    _, seen = at_terminal(home, "config", "path", env={"COLUMNS": "50"})
    assert str(home.paths.config_file) in re.sub(r"\s+", "", plain(seen))
