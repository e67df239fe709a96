"""The images folder, when it is new."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

from craftd.images.files import ImageFiles


def test_several_pictures_may_be_the_first(tmp_path: Path) -> None:
    """Those of a batch are stored at once, each in a thread."""
    together = Barrier(4)

    def save(folder: Path, number: int) -> None:
        together.wait()
        ImageFiles(folder).save(f"{number}.png", b"x")

    with ThreadPoolExecutor(4) as threads:
        for attempt in range(100):
            folder = tmp_path / str(attempt) / "images"
            list(threads.map(save, [folder] * 4, range(4)))
            assert len(list(folder.iterdir())) == 4
