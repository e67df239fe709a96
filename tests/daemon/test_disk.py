"""Files that stay: after a power failure their folders' names are there too, also of the first."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest
from craftd.images.files import ImageFiles
from craftd.loras.files import LoraFiles
from craftd.store.contents import Contents
from craftd.training.files import TrainingFiles

DATA = b"some bytes"
SHA256 = hashlib.sha256(DATA).hexdigest()


def _image(folder: Path) -> Path:
    ImageFiles(folder).save("one.png", DATA)
    return folder / "one.png"


def _sample(folder: Path) -> Path:
    files = TrainingFiles(folder)
    files.save_sample("job", "one.png", DATA)
    return files.sample("job", "one.png")


def _checkpoint(folder: Path) -> Path:
    files = TrainingFiles(folder)
    files.incoming(SHA256).write_bytes(DATA)
    return files.keep(SHA256, len(DATA))


def _dataset(folder: Path) -> Path:
    files = Contents(folder, "datasets")
    tray = files.tray()
    tray.begin()
    tray.add(DATA)
    files.publish([tray.end()])
    return files.path(SHA256)


def _lora(folder: Path) -> Path:
    source = folder.parent / "source"
    source.write_bytes(DATA)
    files = LoraFiles(folder)
    return files.publish(files.copy_in(source, "one.safetensors"), SHA256)


@pytest.mark.parametrize("make", [_image, _sample, _checkpoint, _dataset, _lora])
def test_every_name_on_the_way_is_synced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make: Callable[[Path], Path]
) -> None:
    contents: set[int] = set()  # inodes
    names: dict[int, set[int]] = {}
    fsync = os.fsync

    def noted(descriptor: int) -> None:
        fsync(descriptor)
        status = os.fstat(descriptor)
        if stat.S_ISDIR(status.st_mode):
            names[status.st_ino] = {entry.inode() for entry in os.scandir(descriptor)}
        else:
            contents.add(status.st_ino)

    monkeypatch.setattr(os, "fsync", noted)
    path = make(tmp_path / "folder")
    assert path.read_bytes() == DATA
    assert path.stat().st_ino in contents
    while path != tmp_path:
        assert path.stat().st_ino in names.get(path.parent.stat().st_ino, set()), path.name
        path = path.parent
