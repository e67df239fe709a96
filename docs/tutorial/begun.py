"""`python -m docs.tutorial.begun`: README's pictures that begin from pictures, made by README's own lines."""

from __future__ import annotations

import re
import tempfile
from pathlib import Path

from PIL import Image

from docs.tutorial.commands import HERE, TILE, Craft, row

MASK = "right.png"
ROWS = {"start": ("apple.png", "orange.png"), "mask": ("pets.png", MASK, "flight.png")}
_README = HERE.parents[1] / "README.md"


def lines() -> str:
    """The first block of README's section."""
    found = re.search(r"^## Begin from a picture\n.*?^```sh\n(.*?)^```", _README.read_text("utf-8"), re.M | re.S)
    assert found, "README has no section `Begin from a picture` with lines for a shell"
    return found[1]


def write_mask(folder: Path) -> None:
    """White on its right half."""
    mask = Image.new("L", (256, 256))
    mask.paste(255, (128, 0, 256, 256))
    mask.save(folder / MASK)


def shown(name: str) -> Path:
    """The row as README shows it."""
    return HERE / f"{name}.webp"


def drawn(name: str, folder: Path) -> Image.Image:
    """The row of that name, a line between its pictures: two of them are white at their edges."""
    made = row([folder / file for file in ROWS[name]])
    for place in range(1, len(ROWS[name])):
        made.paste("grey", (place * TILE - 1, 0, place * TILE, TILE))
    return made


def make(craft: Craft, root: Path) -> None:
    folder = root / "begun"
    folder.mkdir()
    write_mask(folder)
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
