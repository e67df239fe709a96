"""Pictures inside the terminal: kitty's graphics protocol, iTerm2's inline images, sixel, else half blocks in colours.

Which one a terminal speaks is told from the environment it sets; nothing is asked of
it, so nothing waits for an answer.
"""

from __future__ import annotations

import base64
import math
import os
import re
import shutil
import sys
from collections.abc import Mapping, Sequence
from io import BytesIO
from typing import TYPE_CHECKING

from craft_protos.formats import FORMATS
from craft_protos.pixels import eight_bits

from craft_cli.errors import is_terminal

if TYPE_CHECKING:
    from PIL import Image

_READABLE = [one.pillow for one in FORMATS.values()]
_KITTY_CHUNK = 4096
_SIXEL_COLOURS = 128
_SIXEL_SIDE = 512
MOST_ROWS = 24  # an inline picture leaves room for what came before
_KONSOLE_WITH_SIXEL = 220400
_CELL = 256  # pixels of a grid's picture, at most


def protocol(env: Mapping[str, str] | None = None, *, in_tmux: bool = False) -> str:
    """kitty, iterm2, sixel, blocks, or empty where no picture can be shown."""
    env = os.environ if env is None else env
    graphics = _graphics(env) if in_tmux or not is_multiplexed(env) else ""
    return graphics or ("blocks" if _has_colours(env) else "")


def _graphics(env: Mapping[str, str]) -> str:
    """What shows a picture's own pixels; "" where nothing is sure to. VS Code and Windows Terminal do not tell."""
    term, program = env.get("TERM", ""), env.get("TERM_PROGRAM", "")
    if term == "dumb":
        return ""
    if env.get("KITTY_WINDOW_ID") or term in ("xterm-kitty", "xterm-ghostty") or program in ("ghostty", "WezTerm"):
        return "kitty"
    if program in ("iTerm.app", "mintty") or env.get("LC_TERMINAL") == "iTerm2":
        return "iterm2"
    if int(f"0{env.get('KONSOLE_VERSION', '')}") >= _KONSOLE_WITH_SIXEL:
        return "sixel"
    if "sixel" in term or term.split("-")[0] in ("mlterm", "foot", "contour", "yaft"):
        return "sixel"
    return ""


def _has_colours(env: Mapping[str, str]) -> bool:
    """Whether a terminal has the colours that pictures need, and its user wants any."""
    if env.get("NO_COLOR") or env.get("TERM", "") in ("", "dumb"):
        return False
    return _is_true_colour(env) or "256color" in env["TERM"] or bool(env.get("WT_SESSION"))


def _is_true_colour(env: Mapping[str, str]) -> bool:
    return env.get("COLORTERM", "") in ("truecolor", "24bit") or bool(env.get("WT_SESSION"))


def is_multiplexed(env: Mapping[str, str]) -> bool:
    """Inside tmux or screen, which swallow what they do not know."""
    return bool(env.get("TMUX")) or env.get("TERM", "").split("-")[0] in ("screen", "tmux")


def show(data: bytes, *, even_in_tmux: bool) -> bool:
    """Draw a picture's file at the terminal on stdout; False where it cannot."""
    name = protocol(in_tmux=even_in_tmux)
    if not name or not is_terminal(sys.stdout):
        return False
    drawn = ENCODERS[name](data)
    if name != "blocks" and is_multiplexed(os.environ):
        drawn = _pass_through(drawn)
    sys.stdout.write(f"{drawn}\n")
    sys.stdout.flush()
    return True


def kitty(data: bytes, rows: int = MOST_ROWS, number: int = 0) -> str:
    """As chunks of at most 4096 bytes; `q=2`: the terminal answers nothing. `number`: takes the place of its last."""
    text = base64.standard_b64encode(_as_png(data)).decode()
    chunks = [text[start : start + _KITTY_CHUNK] for start in range(0, len(text), _KITTY_CHUNK)]
    own = f"i={number}," if number else ""
    parts = []
    for place, chunk in enumerate(chunks):
        first = f"a=T,f=100,q=2,{own}r={rows}," if place == 0 else ""
        parts.append(f"\x1b_G{first}m={int(place < len(chunks) - 1)};{chunk}\x1b\\")
    return "".join(parts)


def iterm2(data: bytes, rows: int = MOST_ROWS) -> str:
    text = base64.standard_b64encode(data).decode()
    return f"\x1b]1337;File=inline=1;size={len(data)};height={rows};preserveAspectRatio=1:{text}\x07"


def sixel(data: bytes, _rows: int = MOST_ROWS) -> str:
    """Bands of six rows of dots; in each, every colour that occurs draws its own. It is as high as its dots are."""
    from PIL import Image

    picture = eight_bits(Image.open(BytesIO(data), formats=_READABLE)).convert("RGB")
    picture.thumbnail((_SIXEL_SIDE, _SIXEL_SIDE))
    indexed = picture.quantize(_SIXEL_COLOURS)
    width, height = indexed.size
    pixels = indexed.tobytes()
    parts = [f'\x1bPq"1;1;{width};{height}', *_sixel_palette(indexed)]
    for top in range(0, height, 6):
        rows = [pixels[y * width : (y + 1) * width] for y in range(top, min(top + 6, height))]
        colours = sorted(set(b"".join(rows)))
        parts.append("$".join(f"#{colour}{_sixel_band(rows, colour)}" for colour in colours) + "-")
    return "".join(parts) + "\x1b\\"


def blocks(data: bytes, rows: int = MOST_ROWS) -> str:
    """Two pixels a character: the upper half block, its colour over another."""
    from PIL import Image

    picture = eight_bits(Image.open(BytesIO(data), formats=_READABLE)).convert("RGB")
    columns = min(shutil.get_terminal_size().columns, 4 * rows)
    picture.thumbnail((columns, 2 * rows), Image.Resampling.LANCZOS)
    width, height = picture.size
    colour = _true_colour if _is_true_colour(os.environ) else _of_256
    data = picture.tobytes()
    pixels = [colour(*data[place : place + 3]) for place in range(0, len(data), 3)]
    lines = [pixels[y * width : (y + 1) * width] for y in range(height)]
    lines += [[""] * width] * (height % 2)
    pairs = zip(lines[::2], lines[1::2], strict=True)
    return "\n".join(f"{''.join(map(_block, upper, lower))}\x1b[0m" for upper, lower in pairs)


def _block(upper: str, lower: str) -> str:
    return f"\x1b[38;{upper};48;{lower}m▀" if lower else f"\x1b[0;38;{upper}m▀"


def _true_colour(red: int, green: int, blue: int) -> str:
    return f"2;{red};{green};{blue}"


def _of_256(red: int, green: int, blue: int) -> str:
    """The nearest of xterm's cube of six to each side."""
    red, green, blue = (0 if part < 48 else 1 if part < 115 else (part - 35) // 40 for part in (red, green, blue))
    return f"5;{16 + 36 * red + 6 * green + blue}"


def grid(pictures: Sequence[bytes], cell: int = _CELL) -> bytes:
    """Pictures' files as one, in rows: a PNG. `cell`: the most pixels of each one's sides."""
    from PIL import Image

    opened = [eight_bits(Image.open(BytesIO(one), formats=_READABLE)).convert("RGB") for one in pictures]
    for one in opened:
        one.thumbnail((cell, cell), Image.Resampling.LANCZOS)
    width, height = (max(one.size[axis] for one in opened) for axis in (0, 1))
    columns = math.ceil(math.sqrt(len(opened) * height / width))
    sheet = Image.new("RGB", (columns * width, math.ceil(len(opened) / columns) * height))
    for number, one in enumerate(opened):
        sheet.paste(one, (number % columns * width, number // columns * height))
    out = BytesIO()
    sheet.save(out, "PNG")
    return out.getvalue()


def _sixel_palette(indexed: Image.Image) -> list[str]:
    """Colours in percent."""
    values = indexed.getpalette() or []
    triples = [values[start : start + 3] for start in range(0, len(values) - 2, 3)]
    return [
        f"#{number};2;{';'.join(str(round(part * 100 / 255)) for part in triple)}"
        for number, triple in enumerate(triples)
    ]


def _sixel_band(rows: list[bytes], colour: int) -> str:
    """One colour's dots: bit r of each character is row r; runs are shortened."""
    bits = 0
    for row, line in enumerate(rows):
        table = bytearray(256)
        table[colour] = 1 << row
        bits |= int.from_bytes(line.translate(bytes(table)), "big")
    codes = bits.to_bytes(len(rows[0]), "big").translate(_SIXEL_CODES).decode("ascii")
    return re.sub(r"(.)\1{3,}", lambda run: f"!{len(run[0])}{run[1]}", codes.rstrip("?"))


_SIXEL_CODES = bytes(min(value + 63, 255) for value in range(256))

ENCODERS = {"kitty": kitty, "iterm2": iterm2, "sixel": sixel, "blocks": blocks}


def _as_png(data: bytes) -> bytes:
    if data.startswith(b"\x89PNG"):
        return data
    from PIL import Image

    out = BytesIO()
    eight_bits(Image.open(BytesIO(data), formats=_READABLE)).convert("RGB").save(out, "PNG")
    return out.getvalue()


def _pass_through(drawn: str) -> str:
    """tmux hands this on to the terminal around it (with `allow-passthrough on`)."""
    return f"\x1bPtmux;{drawn.replace(chr(27), chr(27) * 2)}\x1b\\"
