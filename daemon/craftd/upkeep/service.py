"""Bounded for ever: forgets what is done with, as [keep] and [images] say, and says how much of each there is."""

from __future__ import annotations

import asyncio
import logging
import shutil
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from craft_protos.paths import Paths
from craft_protos.reasons import CraftError, invalid
from craft_protos.settings import Settings

from craftd.images import retention
from craftd.images.retention import Retention
from craftd.inputs.service import InputService
from craftd.store.database import Database
from craftd.store.room import Room
from craftd.store.schema import backup_of
from craftd.training.service import TrainingService
from craftd.upkeep import folders, jobs
from craftd.upkeep.folders import Amount
from craftd.upkeep.jobs import Old

_log = logging.getLogger("craft.upkeep")
_EVERY_S = 3600.0
_YOUNG_S = 3600.0  # a job that has just ended is not forgotten, however many there are
_DAY_S = 86400.0
_AT_ONCE = 500  # jobs in one transaction
PICTURES, JOBS, DATA, INPUTS, CHECKPOINTS, ORPHANS = "pictures", "jobs", "data", "inputs", "checkpoints", "orphans"
KINDS = (PICTURES, JOBS, DATA, INPUTS, CHECKPOINTS, ORPHANS)


@dataclass(frozen=True)
class Held:
    """One kind of thing that is kept, and for how long."""

    what: str
    amount: Amount
    rule: str
    place: Path


@dataclass(frozen=True)
class Usage:
    held: tuple[Held, ...]
    free_bytes: int
    total_bytes: int


class Upkeep:
    """`is_idle`: whether nothing waits and nothing runs. `now`: seconds since 1970."""

    def __init__(
        self,
        *,
        database: Database,
        retention: Retention,
        trainings: TrainingService,
        inputs: InputService,
        room: Room,
        is_idle: Callable[[], bool],
        paths: Paths,
        settings: Settings,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._database = database
        self._retention = retention
        self._trainings = trainings
        self._inputs = inputs
        self._room = room
        self._is_idle = is_idle
        self._paths = paths
        self._images, self._keep = settings.images, settings.keep
        self._now = now

    async def run(self) -> None:
        """For ever."""
        while True:
            try:
                await self.sweep()
            except CraftError as exc:  # a full disk, say: the next sweep may do better
                _log.error("what is old could not be swept", extra={"why": exc.message})
            await asyncio.sleep(_EVERY_S)

    async def sweep(self) -> None:
        """Forget what is older than [keep] says; give the disk back what the database does not use, when idle."""
        await asyncio.to_thread(self._room.keep)
        keep, now = self._keep, self._now()
        gone = 0
        if keep.jobs_days:
            gone += (await self._forget_jobs(now - keep.jobs_days * _DAY_S)).count
        if keep.jobs_most:
            there = await self._database.look(jobs.count)
            gone += (await self._forget_jobs(now - _YOUNG_S, most=there - keep.jobs_most)).count
        if keep.orphans_days:
            await self._remove_orphans(now - keep.orphans_days * _DAY_S)
        await self._inputs.sweep()
        if gone:
            _log.info("forgot old jobs", extra={"jobs": gone})
        if self._is_idle():
            await self._database.vacuum()

    async def usage(self) -> Usage:
        """What there is of each kind."""
        database, paths = self._database, self._paths
        counts = await database.look(jobs.count)
        pictures = await database.look(retention.total)
        held = await asyncio.to_thread(partial(self._held, counts, pictures))
        space = await asyncio.to_thread(shutil.disk_usage, paths.data_dir)
        return Usage(held, space.free, space.total)

    async def prune(self, kinds: tuple[str, ...], older_than_s: float, *, dry_run: bool) -> dict[str, Amount]:
        """Remove what is that old; with `dry_run` only say how much it is. Raises INVALID_FIELD."""
        unknown = [kind for kind in kinds if kind not in KINDS]
        if unknown:
            raise invalid("what", f"{unknown[0][:32]!r} is nothing that is kept", f"known: {', '.join(KINDS)}")
        before = self._now() - older_than_s
        gone = {kind: await self._prune(kind, before, older_than_s, dry_run) for kind in dict.fromkeys(kinds)}
        if not dry_run and self._is_idle():
            await self._database.vacuum()
        return gone

    async def _prune(self, kind: str, before: float, older_than_s: float, dry_run: bool) -> Amount:
        if kind == PICTURES:
            return Amount(*await self._retention.prune(older_than_s, dry_run=dry_run))
        if kind == JOBS:
            return await self._forget_jobs(before, dry_run=dry_run)
        if kind == ORPHANS:
            return await self._remove_orphans(before, dry_run=dry_run)
        folder = self._folders[kind]
        then = await asyncio.to_thread(folders.measure, folder)
        if dry_run and kind == INPUTS:
            return Amount(*await self._inputs.forgettable(older_than_s))
        if dry_run:
            return Amount(*await self._trainings.prunable(is_data=kind == DATA, older_than_s=older_than_s))
        if kind == INPUTS:
            await self._inputs.sweep(older_than_s)
        else:
            await self._trainings.prune(is_data=kind == DATA, older_than_s=older_than_s)
        now = await asyncio.to_thread(folders.measure, folder)
        return Amount(then.count - now.count, then.bytes - now.bytes)

    async def _forget_jobs(self, before: float, *, most: int | None = None, dry_run: bool = False) -> Amount:
        """`most`: no more than so many, the oldest first."""
        gone = 0
        async with aclosing(self._old_jobs(before)) as portions:
            async for old in portions:
                some = old if most is None else old[: max(0, most - gone)]
                if not some:
                    break
                if not dry_run:
                    await self._forget(some)
                gone += len(some)
        return Amount(gone)

    async def _old_jobs(self, before: float) -> AsyncGenerator[tuple[Old, ...], None]:
        last = 0
        while True:
            found = await self._database.look(partial(jobs.portion, after=last, before=before))
            for start in range(0, len(found.old), _AT_ONCE):
                yield found.old[start : start + _AT_ONCE]
            if not found.last:
                return
            last = found.last

    async def _forget(self, some: tuple[Old, ...]) -> None:
        """A training's samples go first: without rows they would be kept for ever."""
        files = self._trainings.files
        for one in some:
            if one.is_training:
                await asyncio.to_thread(files.remove_all_samples, one.id)
        await self._database.run(partial(jobs.forget, jobs=some))

    async def _remove_orphans(self, before: float, *, dry_run: bool = False) -> Amount:
        """Pictures and LoRAs that the database does not know, moved aside so long ago."""

        def work() -> Amount:
            old = [one for folder in self._orphaned for one in folders.older(folder, before)]
            return Amount(len(old), sum(size for _, size in old)) if dry_run else folders.remove(old)

        return await asyncio.to_thread(work)

    @property
    def _folders(self) -> dict[str, Path]:
        """Of those kinds whose files are theirs alone."""
        paths = self._paths
        return {DATA: paths.datasets_dir, INPUTS: paths.inputs_dir, CHECKPOINTS: paths.training_dir}

    @property
    def _orphaned(self) -> tuple[Path, ...]:
        return tuple(folder / "orphaned" for folder in (self._paths.images_dir, self._paths.loras_dir))

    def _held(self, count_jobs: int, pictures: tuple[int, int]) -> tuple[Held, ...]:
        paths, keep = self._paths, self._keep
        store = folders.measure(paths.database, Path(f"{paths.database}-wal"), backup_of(paths.database))
        orphans = folders.measure(*self._orphaned)
        aside = folders.measure(paths.loras_dir / "orphaned")
        loras = folders.measure(paths.loras_dir)
        own = Amount(loras.count - aside.count, loras.bytes - aside.bytes)
        jobs_rule = _either(_days(keep.jobs_days), f"{keep.jobs_most:,} at most" if keep.jobs_most else "")
        if jobs_rule != _FOR_EVER:
            jobs_rule = f"{jobs_rule}; those with pictures as long as these"
        images_rule = _either(_days(self._images.keep_days), f"up to {self._images.max_gib:g} GiB")
        if not self._images.max_gib:
            images_rule = _either(_days(self._images.keep_days), "")
        return (
            Held(PICTURES, Amount(*pictures), images_rule, paths.images_dir),
            Held(JOBS, Amount(count_jobs, store.bytes), jobs_rule, paths.database),
            Held(DATA, folders.measure(paths.datasets_dir), "a day, and while a training needs it", paths.datasets_dir),
            Held(INPUTS, folders.measure(paths.inputs_dir), "a day, and while a job needs it", paths.inputs_dir),
            Held(CHECKPOINTS, folders.measure(paths.training_dir), "7 days after a failure", paths.training_dir),
            Held(ORPHANS, orphans, _either(_days(keep.orphans_days), ""), paths.images_dir / "orphaned"),
            Held("loras", own, "until they are removed", paths.loras_dir),
            Held("logs", folders.measure(paths.state_dir), "32 MiB at most", paths.state_dir),
        )


_FOR_EVER = "for ever"


def _days(days: float) -> str:
    return f"{days:g} days" if days else ""


def _either(*rules: str) -> str:
    return ", ".join(filter(None, rules)) or _FOR_EVER
