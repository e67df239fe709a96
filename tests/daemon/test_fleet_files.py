"""The daemon's files on a worker's machine: fetched from where they were left off, checked, kept within a budget."""

from __future__ import annotations

import asyncio
import hashlib
import os
from pathlib import Path

import pytest
from craft_protos.reasons import CraftError
from craftd.joining.file_store import FileStore, Needed
from craftd.workers.remote.line import PIECE_BYTES
from craftd.workers.remote.pulling import Pulls, read_piece

CONTENTS = [bytes([number]) * (PIECE_BYTES + 10) for number in range(4)]
FILES = [Needed(hashlib.sha256(data).hexdigest(), len(data)) for data in CONTENTS]


class Other:
    """The end that has the files, `sent` of which may be others than they should be."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self.asked: list[tuple[str, int]] = []
        self.pulls = Pulls(self._ask)
        self.folder = folder
        self._tasks: list[asyncio.Task[None]] = []
        for file, data in zip(FILES, CONTENTS, strict=True):
            (folder / file.sha256).write_bytes(data)

    def _ask(self, sha256: str, offset: int) -> None:
        self.asked.append((sha256, offset))
        self._tasks.append(asyncio.create_task(self._answer(sha256, offset)))

    async def _answer(self, sha256: str, offset: int) -> None:
        path = self.folder / sha256
        self.pulls.receive(await read_piece(sha256, path if path.exists() else None, offset))


@pytest.fixture
async def other(tmp_path: Path) -> Other:
    return Other(tmp_path / "other")


def _store(tmp_path: Path, budget: int = 1 << 30, pinned: tuple[Needed, ...] = ()) -> FileStore:
    return FileStore(tmp_path / "own", budget, lambda: {file.sha256 for file in pinned})


async def test_a_file_is_fetched_from_where_it_was_left_off(tmp_path: Path, other: Other) -> None:
    store, told = _store(tmp_path), list[tuple[int, int]]()
    (tmp_path / "own" / "halves" / FILES[0].sha256).write_bytes(CONTENTS[0][:PIECE_BYTES])
    await store.fetch(store.lacking(FILES[:2]), other.pulls, lambda done, of: told.append((done, of)))
    assert [(tmp_path / "own" / "files" / file.sha256).read_bytes() for file in FILES[:2]] == CONTENTS[:2]
    wanted = [(FILES[0].sha256, PIECE_BYTES), (FILES[1].sha256, 0), (FILES[1].sha256, PIECE_BYTES)]
    assert other.asked == wanted and told[-1] == (2 * len(CONTENTS[0]),) * 2
    assert store.lacking(FILES[:2]) == []


WRONG = {"another beginning": "another file", "another file": "another file", "gone": "not to be had", "long": "most"}


@pytest.mark.parametrize("what", WRONG)
async def test_what_is_another_file_never_gets_its_name(tmp_path: Path, other: Other, what: str) -> None:
    store, file = _store(tmp_path), FILES[0]
    half, sent = tmp_path / "own" / "halves" / file.sha256, other.folder / file.sha256
    match what:
        case "another beginning":
            half.write_bytes(b"x")
        case "another file":
            sent.write_bytes(CONTENTS[1])
        case "gone":
            sent.unlink()
        case "long":
            sent.write_bytes(CONTENTS[0] * 2)
    with pytest.raises(CraftError, match=WRONG[what]) as refused:
        await store.fetch([file], other.pulls, lambda _done, _of: None)
    assert refused.value.reason == "CORRUPT_FILE" and store.lacking([file]) == [file]
    assert not half.exists()


async def test_what_was_not_used_for_longest_goes_and_what_is_in_use_stays(tmp_path: Path, other: Other) -> None:
    size = FILES[0].size_bytes
    store = _store(tmp_path, 3 * size, pinned=(FILES[0],))
    for number, file in enumerate(FILES[:3]):
        await store.fetch([file], other.pulls, lambda _done, _of: None)
        os.utime(tmp_path / "own" / "files" / file.sha256, (number, number))
    await store.fetch([FILES[3]], other.pulls, lambda _done, _of: None)
    assert store.lacking(FILES) == [FILES[1]]
    with pytest.raises(CraftError, match="do not fit") as refused:
        await store.fetch([Needed("ab" * 32, 3 * size)], other.pulls, lambda _done, _of: None)
    assert refused.value.reason == "DISK_FULL"


async def test_a_name_that_is_a_path_is_none(tmp_path: Path) -> None:
    with pytest.raises(CraftError, match="no sha256"):
        _store(tmp_path).lacking([Needed("../../key.pem", 1)])
