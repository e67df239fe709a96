"""What the tutorial's pictures are made with: the command in folders of its own, and rows of pictures."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from PIL import Image

HERE = Path(__file__).parent
TILE = 128


class Craft:
    """The command, in folders of its own."""

    def __init__(self, root: Path) -> None:
        self._env = {name: value for name, value in os.environ.items() if name != "CRAFT_HOST"}
        folders = {"CRAFT_DATA_DIR": "data", "CRAFT_STATE_DIR": "state", "CRAFT_RUNTIME_DIR": "run"}
        self._env |= {name: str(root / folder) for name, folder in folders.items()}
        self._env["CRAFT_CONFIG"] = str(root / "config.toml")
        self._env["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"

    def run(self, *args: object) -> str:
        command = [sys.executable, "-m", "craft_cli.main", *map(str, args)]
        return subprocess.run(command, env=self._env, check=True, stdout=subprocess.PIPE, text=True).stdout

    def paste(self, lines: str, folder: Path) -> None:
        """Into a shell in the folder."""
        subprocess.run(["bash", "-euo", "pipefail", "-c", lines], env=self._env, cwd=folder, check=True)


def row(paths: Sequence[Path]) -> Image.Image:
    made = Image.new("RGB", (TILE * len(paths), TILE))
    for place, path in enumerate(paths):
        with Image.open(path) as picture:
            made.paste(picture.convert("RGB").resize((TILE, TILE), Image.Resampling.LANCZOS), (place * TILE, 0))
    return made
