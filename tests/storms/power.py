"""Power cuts: what a real daemon did to its folders is replayed up to a moment, and what was not synced is lost.

    python -m tests.storms.power [--cuts N] [--rounds N] [--seed N]

The preloaded library notes every write, sync, rename and the like, in order (SHIM_TRACE). Replayed onto
a `Disk`, a byte counts as safe once its file was synced, a name once its folder was; of the rest, a cut keeps
nothing, or what chance keeps: any of a file's writes, the first few of a folder's changes. What callers
had been told by then must be in the folders that come out, and a daemon that starts there goes on.
"""

from __future__ import annotations

import argparse
import asyncio
import bisect
import enum
import random
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from tests.home import Home
from tests.storms import checker, program
from tests.storms.callers import Caller
from tests.storms.journal import Journal, Violation
from tests.storms.keeper import Keeper
from tests.storms.load import Load
from tests.storms.program import Outcome, progress
from tests.storms.scene import Scene, scene

_HEAD = re.compile(rb"([a-z]) (\d+) (\d+) (\d+)\n")
_NOT_KEPT = ("-shm", ".lock")  # made anew at each start


class Luck(enum.Enum):
    """Of what was not synced, a cut leaves:"""

    NOTHING = "nothing"
    SOME = "some"
    ALL = "all"


@dataclass(frozen=True)
class Record:
    """One line of the trace: `end` is the length of the trace with it."""

    operation: str
    path: str
    at: int
    data: bytes
    end: int


@dataclass
class File:
    """An inode. `unsynced`: (offset, data) of writes, (size, None) of truncations."""

    live: bytearray = field(default_factory=bytearray)
    synced: bytes = b""
    unsynced: list[tuple[int, bytes | None]] = field(default_factory=list)

    def change(self, at: int, data: bytes | None) -> None:
        _change(self.live, at, data)
        self.unsynced.append((at, data))

    def sync(self) -> None:
        self.synced = bytes(self.live)
        self.unsynced.clear()

    def left(self, luck: Luck, chance: random.Random) -> bytes:
        if luck is Luck.ALL:
            return bytes(self.live)
        found = bytearray(self.synced)
        for at, data in self.unsynced if luck is Luck.SOME else ():
            if chance.random() < 0.5:
                _change(found, at, data)
        return bytes(found)


@dataclass
class Folder:
    """Its names, and how they changed since it was synced: (name, inode), or (name, None) where it went."""

    live: dict[str, File | Folder] = field(default_factory=dict)
    synced: dict[str, File | Folder] = field(default_factory=dict)
    unsynced: list[tuple[tuple[str, File | Folder | None], ...]] = field(default_factory=list)

    def change(self, *names: tuple[str, File | Folder | None]) -> None:
        """In one step: a rename is two names."""
        _rename(self.live, names)
        self.unsynced.append(names)

    def sync(self) -> None:
        self.synced = dict(self.live)
        self.unsynced.clear()

    def left(self, luck: Luck, chance: random.Random) -> dict[str, File | Folder]:
        if luck is Luck.ALL:
            return self.live
        found = dict(self.synced)
        for names in self.unsynced[: chance.randint(0, len(self.unsynced))] if luck is Luck.SOME else ():
            _rename(found, names)
        return found


@dataclass
class Disk:
    """The data folder."""

    root: Path
    top: Folder = field(default_factory=Folder)

    def replay(self, record: Record) -> None:
        *parts, name = Path(record.path).relative_to(self.root).parts or ("",)
        folder = self._folder(parts)
        if folder is None:
            return
        there = folder.live.get(name) if name else self.top
        match record.operation, there:
            case "f", (File() | Folder()):
                there.sync()
            case "m", None:
                folder.change((name, Folder()))
            case "u", File():
                folder.change((name, None))
            case "w", File():
                there.change(record.at, record.data)
            case "t", File():
                there.change(record.at, None)
            case "c", None:
                folder.change((name, File()))
            case "c", File() if record.at:  # truncated
                there.change(0, None)
            case "r", _:
                self._rename(folder, name, Path(record.data.decode()))

    def write_to(self, place: Path, luck: Luck, chance: random.Random) -> None:
        """What a start finds after the power has come back."""
        _write(self.top, place, luck, chance)

    def _rename(self, folder: Folder, name: str, source: Path) -> None:
        *parts, old = source.relative_to(self.root).parts
        before = self._folder(parts)
        moved = before.live.get(old) if before is not None else None
        if before is None or moved is None:
            return
        if before is folder:
            folder.change((name, moved), (old, None))
        else:
            folder.change((name, moved))
            before.change((old, None))

    def _folder(self, parts: list[str]) -> Folder | None:
        found: File | Folder | None = self.top
        for part in parts:
            found = found.live.get(part) if isinstance(found, Folder) else None
        return found if isinstance(found, Folder) else None


def _change(content: bytearray, at: int, data: bytes | None) -> None:
    if data is None:
        del content[at:]
        content.extend(b"\0" * (at - len(content)))
        return
    content.extend(b"\0" * (at - len(content)))
    content[at : at + len(data)] = data


def _rename(names: dict[str, File | Folder], changes: tuple[tuple[str, File | Folder | None], ...]) -> None:
    for name, inode in changes:
        if inode is None:
            names.pop(name, None)
        else:
            names[name] = inode


def _write(folder: Folder, place: Path, luck: Luck, chance: random.Random) -> None:
    place.mkdir(parents=True, exist_ok=True)
    for name, inode in folder.left(luck, chance).items():
        if isinstance(inode, Folder):
            _write(inode, place / name, luck, chance)
        else:
            (place / name).write_bytes(inode.left(luck, chance))


def read_trace(path: Path, data_dir: Path) -> Iterator[Record]:
    """Of what lies in the data folder."""
    trace, at = path.read_bytes(), 0
    while (head := _HEAD.match(trace, at)) is not None:
        operation, length, offset, size = head[1].decode(), int(head[2]), int(head[3]), int(head[4])
        name = trace[head.end() : head.end() + length].decode(errors="replace")
        at = head.end() + length + size
        if at > len(trace):
            return
        inside = name == str(data_dir) or name.startswith(f"{data_dir}/")
        if inside and not name.endswith((*_NOT_KEPT, " (deleted)")):
            yield Record(operation, name, offset, trace[head.end() + length : at], at)


@dataclass
class Recorded:
    """A run of a daemon: its trace, and what callers had been told when the trace was so long."""

    data_dir: Path
    trace: Path
    told: list[tuple[int, Journal]] = field(default_factory=list)

    def journal(self, at: int) -> Journal:
        """What had been told by then at the latest."""
        place = bisect.bisect_right([end for end, _ in self.told], at)
        return self.told[place - 1][1].copy() if place else Journal()

    async def listen(self, journal: Journal) -> None:
        """For ever: note what is told."""
        while True:
            known = journal.copy()
            self.told.append((self.trace.stat().st_size if self.trace.exists() else 0, known))
            await journal.hear(1)


async def record(one: Scene, jobs: int) -> Recorded:
    """Load on a daemon whose calls on files are traced, until so many jobs have ended; then it ends."""
    recorded = Recorded(one.home.paths.data_dir, one.trace)
    listening = asyncio.create_task(recorded.listen(one.journal))
    load = Load(one, callers=4, pauses=False)
    load.start()
    while sum(load.done.values()) < jobs:
        await one.journal.hear(1)
    await load.stop()
    await one.settle()
    listening.cancel()
    await one.caller.close()
    await one.keeper.end()
    return recorded


async def cut(recorded: Recorded, count: int, chance: random.Random, *, starts: int) -> Outcome:
    """So many power cuts, at moments spread over the trace; after `starts` of them a daemon starts there."""
    outcome = Outcome({"power cuts": count, "starts after one": 0})
    records = list(read_trace(recorded.trace, recorded.data_dir))
    moments = sorted(chance.sample(range(len(records)), min(count, len(records))))
    disk, done = Disk(recorded.data_dir), 0
    for number, moment in enumerate(moments):
        for one in records[done : moment + 1]:
            disk.replay(one)
        done = moment + 1
        luck = chance.choice(list(Luck))
        is_started = number % max(1, count // max(1, starts)) == 0 and outcome.counts["starts after one"] < starts
        outcome.counts["starts after one"] += is_started
        found = await _look(recorded, disk, records[moment].end, luck, chance, is_started=is_started)
        where = f"cut after {moment + 1} of {len(records)} calls, {luck.value} of the unsynced kept"
        outcome.violations += [Violation(one_.kind, f"{where}: {one_.what}") for one_ in found]
    return outcome


async def _look(
    recorded: Recorded, disk: Disk, at: int, luck: Luck, chance: random.Random, *, is_started: bool
) -> list[Violation]:
    home, journal = Home(), recorded.journal(at)
    try:
        disk.write_to(home.paths.data_dir, luck, chance)
        if not home.paths.database.exists():
            return [Violation("lost", "the database is gone")] if journal.acknowledged else []
        found = checker.stopped(home.paths, journal, is_ended=False)
        return [*found, *(await _go_on(home, journal) if is_started else ())]
    finally:
        home.remove()


async def _go_on(home: Home, journal: Journal) -> list[Violation]:
    """A daemon that starts there ends every job that was acknowledged."""
    keeper = Keeper(home)
    caller = Caller(keeper, journal)
    try:
        await keeper.start()
        acknowledged = journal.acknowledged.values()
        ends = await asyncio.gather(*(caller.finish(job_id) for job_id in acknowledged), return_exceptions=True)
        found = [Violation("caller", repr(end)) for end in ends if isinstance(end, BaseException)]
        await checker.told_again(caller)
    finally:
        await caller.close()
        await keeper.close()
    return [*found, *checker.stopped(home.paths, journal, is_ended=False), *journal.faults, *checker.deaths(keeper)]


async def storm(asked: argparse.Namespace) -> Outcome:
    whole = Outcome()
    for number in range(asked.rounds):
        async with scene(asked.seed + number, is_traced=True) as one:
            recorded = await record(one, 40)
            part = await cut(recorded, asked.cuts, one.chance, starts=asked.cuts // 20)
        whole.add(part)
        progress(f"round {number + 1} of {asked.rounds}: {part.told}")
    return whole


if __name__ == "__main__":
    sys.exit(program.main("power", __doc__, storm, cuts=400, rounds=3))
