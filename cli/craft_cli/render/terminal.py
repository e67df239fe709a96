"""Pictures inside the terminal: kitty's graphics protocol, iTerm2's inline images, or sixel.

Which one a terminal speaks is told from the environment it sets; nothing is asked of
it, so nothing waits for an answer.
"""

from __future__ import annotations

import base64
import os
import re
import sys
from collections.abc import Mapping
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
_MOST_ROWS = 24  # an inline picture leaves room for what came before


def protocol(env: Mapping[str, str] | None = None, *, in_tmux: bool = False) -> str:
    """kitty, iterm2, sixel, or empty where no picture can be shown."""
    env = os.environ if env is None else env
    if not in_tmux and is_multiplexed(env):
        return ""
    term, program = env.get("TERM", ""), env.get("TERM_PROGRAM", "")
    if term == "dumb":
        return ""
    if env.get("KITTY_WINDOW_ID") or term in ("xterm-kitty", "xterm-ghostty") or program in ("ghostty", "WezTerm"):
        return "kitty"
    if program in ("iTerm.app", "mintty") or env.get("LC_TERMINAL") == "iTerm2":
        return "iterm2"
    if "sixel" in term or term.split("-")[0] in ("mlterm", "foot", "contour", "yaft"):
        return "sixel"
    return ""


def is_multiplexed(env: Mapping[str, str]) -> bool:
    """Inside tmux or screen, which swallow what they do not know."""
    return bool(env.get("TMUX")) or env.get("TERM", "").split("-")[0] in ("screen", "tmux")


def show(data: bytes, *, even_in_tmux: bool) -> bool:
    """Draw a picture's file at the terminal on stdout; False where it cannot."""
    name = protocol(in_tmux=even_in_tmux)
    if not name or not is_terminal(sys.stdout):
        return False
    drawn = ENCODERS[name](data)
    if is_multiplexed(os.environ):
        drawn = _pass_through(drawn)
    sys.stdout.write(f"{drawn}\n")
    sys.stdout.flush()
    return True


def kitty(data: bytes) -> str:
    """As chunks of at most 4096 bytes; `q=2`: the terminal answers nothing."""
    text = base64.standard_b64encode(_as_png(data)).decode()
    chunks = [text[start : start + _KITTY_CHUNK] for start in range(0, len(text), _KITTY_CHUNK)]
    parts = []
    for number, chunk in enumerate(chunks):
        first = f"a=T,f=100,q=2,r={_MOST_ROWS}," if number == 0 else ""
        parts.append(f"\x1b_G{first}m={int(number < len(chunks) - 1)};{chunk}\x1b\\")
    return "".join(parts)


def iterm2(data: bytes) -> str:
    text = base64.standard_b64encode(data).decode()
    return f"\x1b]1337;File=inline=1;size={len(data)};height={_MOST_ROWS};preserveAspectRatio=1:{text}\x07"


def sixel(data: bytes) -> str:
    """Bands of six rows; in each, every colour that occurs draws its own dots."""
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

ENCODERS = {"kitty": kitty, "iterm2": iterm2, "sixel": sixel}


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
