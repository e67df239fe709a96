"""`python -m docs.tutorial.begun`: README's pictures that begin from pictures, made by README's own lines."""

from __future__ import annotations

import re
import tempfile
from pathlib import Path

import resvg_py
from PIL import Image, ImageDraw

from docs.tutorial.commands import HERE, TILE, Craft, row

MASK, SKETCH, ICON = "right.png", "sketch.png", "monkey.png"
_DRAWING = HERE.parents[1] / "training" / "pocket" / "icons" / "1f412.svg"  # which pocket-x4 was not taught
ROWS = {
    "start": ("apple.png", "orange.png"),
    "mask": ("pets.png", MASK, "flight.png"),
    "sketch": (SKETCH, "fish.png"),
    "large": (ICON, "large.png"),
}
_PART = (0.17, 0.17, 0.33, 0.33)  # of a picture that is shown enlarged: shares of its sides
_README = HERE.parents[1] / "README.md"


def lines() -> str:
    """The first block of README's section."""
    found = re.search(r"^## Begin from a picture\n.*?^```sh\n(.*?)^```", _README.read_text("utf-8"), re.M | re.S)
    assert found, "README has no section `Begin from a picture` with lines for a shell"
    return found[1]


def write_given(folder: Path) -> None:
    """What is not drawn by craft: a mask, white on its right half, the sketch of a fish, and an icon."""
    mask = Image.new("L", (256, 256))
    mask.paste(255, (128, 0, 256, 256))
    mask.save(folder / MASK)
    sketch = Image.new("RGB", (256, 256), "white")
    pen = ImageDraw.Draw(sketch)
    pen.ellipse((50, 90, 180, 170), outline="black", width=5)
    pen.polygon([(175, 130), (220, 95), (220, 165)], outline="black", width=5)
    pen.ellipse((75, 115, 87, 127), outline="black", width=4)
    sketch.save(folder / SKETCH)
    svg = _DRAWING.read_text(encoding="utf-8")
    png = resvg_py.svg_to_bytes(svg_string=svg, width=256, height=256, background="white")
    (folder / ICON).write_bytes(bytes(png))


def shown(name: str) -> Path:
    """The row as README shows it."""
    return HERE / f"{name}.webp"


def drawn(name: str, folder: Path) -> Image.Image:
    """The row of that name, a line between its pictures: two of them are white at their edges."""
    files = [folder / file for file in ROWS[name]]
    made = row([_part_of(file) for file in files] if name == "large" else files)
    for place in range(1, len(ROWS[name])):
        made.paste("grey", (place * TILE - 1, 0, place * TILE, TILE))
    return made


def _part_of(file: Path) -> Path:
    """A file beside it with the part that shows how fine it is."""
    with Image.open(file) as whole:
        width, height = whole.size
        left, top, right, bottom = _PART
        box = (round(left * width), round(top * height), round(right * width), round(bottom * height))
        whole.crop(box).save(part := file.with_name(f"part-{file.name}"))
    return part


def make(craft: Craft, root: Path) -> None:
    folder = root / "begun"
    folder.mkdir()
    write_given(folder)
    craft.paste(lines(), folder)
    for name in ROWS:
        drawn(name, folder).save(shown(name), "WEBP", quality=80, method=6)


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="craft-tutorial-") as folder:
        craft = Craft(Path(folder))
        try:
            make(craft, Path(folder))
        finally:
            craft.run("daemon", "stop", "--now")


if __name__ == "__main__":
    main()
