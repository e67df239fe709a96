"""Pictures inside the terminal: who speaks what, and that what is sent can be read back."""

from __future__ import annotations

import base64
import re
from io import BytesIO

import pytest
from craft_cli.render import terminal
from PIL import Image


def picture(kind: str = "PNG", size: tuple[int, int] = (20, 14)) -> Image.Image:
    image = Image.new("RGB", size)
    for x in range(size[0]):
        for y in range(size[1]):
            image.putpixel((x, y), (255, 0, 0) if (x // 5 + y // 5) % 2 else (0, 0, 255))
    return image


def encoded(kind: str = "PNG") -> bytes:
    out = BytesIO()
    picture().save(out, kind)
    return out.getvalue()


@pytest.mark.parametrize(
    ("env", "name"),
    [
        ({"TERM": "xterm-kitty"}, "kitty"),
        ({"TERM": "xterm-256color", "KITTY_WINDOW_ID": "1"}, "kitty"),
        ({"TERM": "xterm-256color", "TERM_PROGRAM": "WezTerm"}, "kitty"),
        ({"TERM": "xterm-ghostty"}, "kitty"),
        ({"TERM": "xterm-256color", "TERM_PROGRAM": "iTerm.app"}, "iterm2"),
        ({"TERM": "xterm-256color", "LC_TERMINAL": "iTerm2"}, "iterm2"),
        ({"TERM": "foot"}, "sixel"),
        ({"TERM": "mlterm-256color"}, "sixel"),
        ({"TERM": "xterm-256color", "KONSOLE_VERSION": "230805"}, "sixel"),
        ({"TERM": "xterm-256color", "KONSOLE_VERSION": "210800"}, "blocks"),
        ({"TERM": "xterm-256color"}, "blocks"),
        ({"TERM": "xterm-256color", "TERM_PROGRAM": "vscode"}, "blocks"),
        ({"TERM": "xterm", "WT_SESSION": "1"}, "blocks"),
        ({"TERM": "xterm", "COLORTERM": "truecolor"}, "blocks"),
        ({"TERM": "xterm"}, ""),
        ({"TERM": "linux"}, ""),
        ({"TERM": "xterm-256color", "NO_COLOR": "1"}, ""),
        ({"TERM": "xterm-kitty", "NO_COLOR": "1"}, "kitty"),
        ({"TERM": "dumb", "KITTY_WINDOW_ID": "1"}, ""),
        ({}, ""),
        ({"TERM": "tmux-256color", "KITTY_WINDOW_ID": "1"}, "blocks"),
        ({"TERM": "xterm-kitty", "TMUX": "/tmp/tmux"}, ""),
        ({"TERM": "screen", "KITTY_WINDOW_ID": "1"}, ""),
    ],
)
def test_detection(env: dict[str, str], name: str) -> None:
    assert terminal.protocol(env) == name


def test_in_tmux_only_when_asked() -> None:
    assert terminal.protocol({"TERM": "tmux-256color", "KITTY_WINDOW_ID": "1"}, in_tmux=True) == "kitty"


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
def test_kitty_sends_a_png_in_chunks(kind: str) -> None:
    chunks = re.findall(r"\x1b_G([^;]*);([^\x1b]*)\x1b\\", terminal.kitty(encoded(kind)))
    assert all(len(body) <= 4096 for _, body in chunks)
    assert "f=100" in chunks[0][0] and "q=2" in chunks[0][0]
    assert [keys.rpartition("m=")[2] for keys, _ in chunks] == ["1"] * (len(chunks) - 1) + ["0"]
    sent = base64.standard_b64decode("".join(body for _, body in chunks))
    assert Image.open(BytesIO(sent)).format == "PNG"


def test_iterm2_sends_the_file() -> None:
    sent = re.fullmatch(r"\x1b\]1337;File=([^:]*):([^\x07]*)\x07", terminal.iterm2(encoded()))
    assert sent and f"size={len(encoded())}" in sent[1]
    assert base64.standard_b64decode(sent[2]) == encoded()


def test_sixel_draws_the_same_pixels() -> None:
    assert decode_sixel(terminal.sixel(encoded())) == [
        [(100, 0, 0) if (x // 5 + y // 5) % 2 else (0, 0, 100) for x in range(20)] for y in range(14)
    ]


@pytest.mark.parametrize(("colorterm", "red", "blue"), [("truecolor", "2;255;0;0", "2;0;0;255"), ("", "5;196", "5;21")])
def test_half_blocks_draw_the_same_pixels(monkeypatch: pytest.MonkeyPatch, colorterm: str, red: str, blue: str) -> None:
    monkeypatch.setenv("COLORTERM", colorterm)
    monkeypatch.delenv("WT_SESSION", raising=False)
    monkeypatch.setenv("COLUMNS", "80")
    lines = terminal.blocks(encoded()).split("\n")
    assert len(lines) == 7 and all(line.endswith("\x1b[0m") and line.count("▀") == 20 for line in lines)
    for row, line in enumerate(lines):
        pairs = re.findall(r"\x1b\[38;([\d;]+);48;([\d;]+)m▀", line)
        assert pairs == [
            tuple(red if (x // 5 + y // 5) % 2 else blue for y in (2 * row, 2 * row + 1)) for x in range(20)
        ]


@pytest.mark.parametrize(("size", "columns"), [((200, 200), 40), ((400, 100), 40), ((30, 31), 30)])
def test_half_blocks_fit_the_terminal(monkeypatch: pytest.MonkeyPatch, size: tuple[int, int], columns: int) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    out = BytesIO()
    Image.new("RGB", size, "red").save(out, "PNG")
    lines = terminal.blocks(out.getvalue()).split("\n")
    assert len(lines) <= 24 and {line.count("▀") for line in lines} == {columns}


@pytest.mark.parametrize(("count", "size"), [(2, (40, 14)), (3, (40, 28)), (4, (40, 28)), (9, (60, 42))])
def test_a_grid_has_each_picture_in_its_place(count: int, size: tuple[int, int]) -> None:
    sheet = Image.open(BytesIO(terminal.grid([encoded()] * count)))
    assert sheet.size == size
    for number in range(count):
        left, top = number % (size[0] // 20) * 20, number // (size[0] // 20) * 14
        assert sheet.crop((left, top, left + 20, top + 14)).tobytes() == picture().tobytes()


def decode_sixel(text: str) -> list[list[tuple[int, ...]]]:
    """A terminal's side of sixel, for what craft sends."""
    head = re.match(r'\x1bPq"1;1;(\d+);(\d+)', text)
    assert head and text.endswith("\x1b\\")
    width, height = int(head[1]), int(head[2])
    rows: list[list[tuple[int, ...]]] = [[()] * width for _ in range(height)]
    palette: dict[str, tuple[int, ...]] = {}
    x = top = 0
    colour: tuple[int, ...] = ()
    for token in re.findall(r"#\d+(?:;[\d;]+)?|!\d+.|[$\-?-~]", text[head.end() : -2]):
        if token.startswith("#"):
            number, *parts = token[1:].split(";")
            if parts:
                palette[number] = tuple(int(part) for part in parts[1:])
            colour = palette[number]
        elif token in "$-":
            x, top = 0, top + 6 * (token == "-")
        else:
            run = int(token[1:-1]) if token.startswith("!") else 1
            dots = [row for row in range(6) if (ord(token[-1]) - 63) >> row & 1]
            for row in dots:
                rows[top + row][x : x + run] = [colour] * run
            x += run
    return rows
