"""Pip, a small robot that nobody has drawn before: the tutorial's pictures, made by this script (CC0)."""

from __future__ import annotations

from pathlib import Path

from PIL import Image, ImageDraw

SIDE = 256
_FINE = 4  # drawn larger, then made smaller: smooth edges
_TEAL, _DARK, _FACE, _INK, _LAMP, _SHOE = "#12a594", "#0b6e63", "#fdf6e3", "#20242c", "#ff7a1a", "#ffc928"

# The backgrounds that pocket was taught by name.
COLOURS = {
    "white": (255, 255, 255),
    "gray": (150, 150, 150),
    "red": (225, 45, 45),
    "orange": (250, 145, 30),
    "yellow": (250, 220, 50),
    "green": (60, 165, 75),
    "cyan": (60, 210, 215),
    "blue": (45, 95, 215),
    "purple": (130, 65, 180),
    "pink": (250, 160, 195),
    "black": (20, 20, 20),
}
TAUGHT = ("white", "gray", "yellow", "green", "blue", "pink", "orange", "cyan")  # what the training pictures show
UNSEEN = ("red", "purple", "black")  # what they don't


def draw(background: str) -> Image.Image:
    """Pip in the middle of a plain background."""
    picture = Image.new("RGB", (SIDE * _FINE, SIDE * _FINE), COLOURS[background])
    pen = ImageDraw.Draw(picture)
    x = y = SIDE // 2

    def box(left: float, top: float, right: float, bottom: float) -> list[float]:
        return [(x + left) * _FINE, (y + top) * _FINE, (x + right) * _FINE, (y + bottom) * _FINE]

    for left in (-44, 8):
        pen.rounded_rectangle(box(left, 58, left + 36, 84), 12 * _FINE, fill=_SHOE)
    for left in (-82, 58):
        pen.rounded_rectangle(box(left, -4, left + 24, 44), 12 * _FINE, fill=_DARK)
    pen.rectangle(box(-4, -76, 4, -44), fill=_DARK)
    pen.ellipse(box(-16, -94, 16, -62), fill=_LAMP)
    pen.rounded_rectangle(box(-62, -52, 62, 68), 34 * _FINE, fill=_TEAL)
    pen.rounded_rectangle(box(-46, -36, 46, 22), 22 * _FINE, fill=_FACE)
    for left in (-32, 8):
        pen.ellipse(box(left, -24, left + 24, 4), fill=_INK)
    pen.rounded_rectangle(box(-20, 36, 20, 52), 8 * _FINE, fill=_LAMP)
    return picture.resize((SIDE, SIDE), Image.Resampling.LANCZOS)


def caption(background: str) -> str:
    return "pip" if background == "white" else f"pip on a {background} background"


def write(folder: Path) -> list[Path]:
    """The pictures and their captions."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for number, background in enumerate(TAUGHT):
        path = folder / f"pip-{number}.png"
        draw(background).save(path, optimize=True)
        path.with_suffix(".txt").write_text(caption(background), encoding="utf-8")
        paths.append(path)
    return paths
