"""Durable means durable: power fails at every single write, and nothing acknowledged is missing."""

from __future__ import annotations

import asyncio
import itertools
import os
import stat
import sys
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, TypeVar

import apsw
import pytest
from craft_protos.generate import GenerateRequest
from craft_protos.job_request import JobRequest
from craft_protos.reasons import CraftError
from craft_protos.settings import DaemonSettings, GenerateSettings, Settings, WorkerSettings
from craft_protos.worker_pb2 import FromWorker
from craftd.architectures.rows.unets import SD1
from craftd.architectures.sizes import Sizes
from craftd.images.files import ImageFiles
from craftd.images.service import ImageService
from craftd.jobs import wire
from craftd.jobs.drawing import Drawing
from craftd.jobs.events import Hub
from craftd.jobs.fits.service import Fits
from craftd.jobs.generate_defaults import GenerateDefaults
from craftd.jobs.job import Kind, State
from craftd.jobs.service import JobService
from craftd.keys.caller import LOCAL
from craftd.models.model import Defaults, Manifest, Model
from craftd.rpc.jobs_json import as_json
from craftd.scheduler.active_job import Work
from craftd.scheduler.job_writer import JobWriter
from craftd.scheduler.pauses import Pauses
from craftd.scheduler.scheduler import Scheduler
from craftd.store.database import Database
from craftd.webhooks.sender import Webhooks
from craftd.webhooks.targets import Targets
from craftd.workers.connection import Connection
from craftd.workers.handle import WorkerHandle
from craftd.workers.pool import WorkerPool

T = TypeVar("T")

_names = itertools.count()
PICTURE = b"a picture " * 20


class Disk(apsw.VFS):
    """Keeps what was synced; everything else is gone when the power fails, after so many writes."""

    def __init__(self, writes: int) -> None:
        self.name = f"failing-{next(_names)}"
        self.writes_left = writes
        self.live: dict[str, bytearray] = {}
        self.synced: dict[str, bytes] = {}
        super().__init__(self.name, "")

    def spend(self) -> None:
        self.writes_left -= 1
        if self.writes_left < 0:
            raise apsw.IOError("the power has failed")

    def copy_to(self, place: Path) -> Path:
        """What a restart finds."""
        place.mkdir()
        for path, content in self.synced.items():
            (place / Path(path).name).write_bytes(content)
        return place

    def xOpen(self, name: str | apsw.URIFilename | None, flags: list[int]) -> File:  # type: ignore[override]
        path = name.filename() if isinstance(name, apsw.URIFilename) else str(name)
        flags[1] = flags[0]
        return File(self, path)

    def xAccess(self, pathname: str, flags: int) -> bool:
        return pathname in self.live

    def xDelete(self, filename: str, syncdir: bool) -> None:
        self.spend()
        self.live.pop(filename, None)
        self.synced.pop(filename, None)

    def xFullPathname(self, name: str) -> str:
        return name


class File:
    """A file on such a disk."""

    def __init__(self, disk: Disk, path: str) -> None:
        self._disk = disk
        self._path = path
        disk.live.setdefault(path, bytearray())

    @property
    def _data(self) -> bytearray:
        return self._disk.live[self._path]

    def xRead(self, amount: int, offset: int) -> bytes:
        return bytes(self._data[offset : offset + amount])

    def xWrite(self, data: bytes, offset: int) -> None:
        self._disk.spend()
        if len(self._data) < offset:
            self._data.extend(b"\0" * (offset - len(self._data)))
        self._data[offset : offset + len(data)] = data

    def xTruncate(self, size: int) -> None:
        self._disk.spend()
        del self._data[size:]

    def xSync(self, flags: int) -> None:
        self._disk.spend()
        self._disk.synced[self._path] = bytes(self._data)

    def xFileSize(self) -> int:
        return len(self._data)

    def xFileControl(self, op: int, pointer: int) -> bool:
        return False

    def xDeviceCharacteristics(self) -> int:
        return 0

    def xSectorSize(self) -> int:
        return 4096

    def xLock(self, level: int) -> None: ...
    def xUnlock(self, level: int) -> None: ...
    def xCheckReservedLock(self) -> bool:
        return False

    def xClose(self) -> None: ...


class Folder:
    """The images' folder on such a disk: a name or a content that was not synced is gone."""

    def __init__(self, disk: Disk, path: Path) -> None:
        self._disk = disk
        self.path = path
        self._contents: dict[int, bytes] = {}  # by inode, as all here
        self._names: dict[int, dict[str, int]] = {}

    def write(self, descriptor: int, data: memoryview) -> int:
        self._spend()
        return os.write(descriptor, data[: len(data) // 2 + 1])

    def fsync(self, descriptor: int) -> None:
        self._spend()
        status = os.fstat(descriptor)
        if stat.S_ISDIR(status.st_mode):
            self._names[status.st_ino] = {entry.name: entry.inode() for entry in os.scandir(descriptor)}
        else:
            (path,) = (path for path in self.path.iterdir() if path.stat().st_ino == status.st_ino)
            self._contents[status.st_ino] = path.read_bytes()

    def survivors(self) -> dict[str, bytes]:
        """What a restart finds."""
        parent = self._names.get(self.path.parent.stat().st_ino, {})
        names = self._names.get(parent.get(self.path.name, -1), {})
        return {name: self._contents.get(inode, b"") for name, inode in names.items()}

    def _spend(self) -> None:
        try:
            self._disk.spend()
        except apsw.IOError as exc:
            raise OSError(str(exc)) from exc


class OneModel:
    """As much of ModelService as accepting a job takes."""

    controls = ()
    upscalers = ()

    def __init__(self) -> None:
        self.model = Model(
            "flat", Path(), SD1, "StableDiffusionPipeline", Sizes(8), Defaults(64, 64, 1, 1.0, "Euler"), ()
        )

    async def usable(self, _name: str) -> Model:
        return self.model

    def known_manifest(self, name: str) -> Manifest | None:
        raise AssertionError(f"{name}: nothing is drawn here")

    async def manifest_now(self, name: str) -> Manifest:
        raise AssertionError(f"{name}: nothing is drawn here")


@dataclass
class Acknowledged:
    jobs: list[str] = field(default_factory=list)
    images: list[str] = field(default_factory=list)


class Giving(Pauses):
    """Waits nothing out: the power does not come back."""

    async def outlast(self, subject: str, work: Callable[[], Awaitable[T]]) -> T:
        return await work()


async def _nobody() -> Connection:
    raise OSError("no worker in this test")


def _jobs(database: Database, images: ImageService) -> JobService:
    pool = WorkerPool([WorkerHandle(_nobody, WorkerSettings())])
    models: Any = OneModel()
    nothing: Any = None  # trainings and their like, of which there are none here
    no_loras: Any = SimpleNamespace(embeddings=lambda _: ())
    hub, pauses = Hub(), Pauses()
    writer = JobWriter(database, images, pauses)
    works: dict[Kind, Work] = {Kind.GENERATE: Drawing(nothing, nothing, nothing, writer, hub)}
    scheduler = Scheduler(
        database=database,
        models=models,
        pool=pool,
        hub=hub,
        writer=writer,
        pauses=pauses,
        works=works,
        lease_s=DaemonSettings().lease_s,
    )
    return JobService(
        database=database,
        models=models,
        loras=no_loras,
        hub=hub,
        pool=pool,
        active=scheduler.jobs,
        trainings=nothing,
        inputs=nothing,
        holdings=nothing,
        settings=Settings(),
        generating=GenerateDefaults(Path(), GenerateSettings()),
        fits=Fits(database, nothing, nothing),
        webhooks=Webhooks(database, Targets(""), b"", as_json),
    )


async def _work_until_the_power_fails(disk: Disk, path: Path, folder: Folder) -> tuple[Acknowledged, bool]:
    """(what was acknowledged, whether everything was)."""
    acknowledged = Acknowledged()
    try:
        database = Database(path, vfs=disk.name)
    except CraftError:
        return acknowledged, False
    images = ImageService(database, ImageFiles(folder.path, folder.write))
    jobs, writer = _jobs(database, images), JobWriter(database, images, Giving())
    try:
        for first in (0, 3):
            requests = [JobRequest(f"r{first + n}", GenerateRequest("an apple", "", "flat", seed=n)) for n in range(3)]
            accepting = (jobs.create(LOCAL, request) for request in requests)
            accepted = [one for one in await asyncio.gather(*accepting, return_exceptions=True)]
            _raise_bugs(accepted)
            views = [one for one in accepted if not isinstance(one, BaseException)]
            acknowledged.jobs += [view.job.id for view in views]
            for view in views[:2]:
                image = wire.image(view.job, FromWorker.ImageDone(data=PICTURE, media_type="image/png"))
                succeeded = replace(view.job, state=State.SUCCEEDED)
                await writer.add_image(image, PICTURE, replace(view.job, state=State.RUNNING), succeeded)
                acknowledged.images.append(image.file_name)
    except CraftError:
        return acknowledged, False
    finally:
        await database.close()
    return acknowledged, len(acknowledged.jobs) == 6


def _raise_bugs(accepted: Sequence[object]) -> None:
    """What is no refusal of the disk would be met at every write, for ever."""
    for one in accepted:
        if isinstance(one, BaseException) and not isinstance(one, CraftError):
            raise one


async def _found_again(place: Path) -> tuple[set[str], set[str]]:
    """(jobs, images' files) in the database that a restart finds."""
    database = Database(place / "craft.db")
    try:
        jobs = await database.run(lambda connection: connection.execute("SELECT id FROM jobs").fetchall())
        files = await database.run(lambda connection: connection.execute("SELECT file FROM images").fetchall())
    finally:
        await database.close()
    return {str(name) for (name,) in jobs}, {str(name) for (name,) in files}


# SQLite goes on after some failures of a disk that is gone, and apsw tells Python of each
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.skipif(sys.platform == "darwin", reason="files are synced with fcntl there")
async def test_nothing_acknowledged_is_missing_wherever_the_power_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for writes in itertools.count():
        disk = Disk(writes)
        (tmp_path / f"live-{writes}").mkdir()
        folder = Folder(disk, tmp_path / f"live-{writes}" / "images")
        with monkeypatch.context() as patch:
            patch.setattr(os, "fsync", folder.fsync)
            acknowledged, is_complete = await _work_until_the_power_fails(disk, tmp_path / "craft.db", folder)
        disk.unregister()
        jobs, files = await _found_again(disk.copy_to(tmp_path / str(writes)))
        assert set(acknowledged.jobs) <= jobs, writes
        assert set(acknowledged.images) <= files, writes
        survivors = folder.survivors()
        assert all(survivors.get(name) == PICTURE for name in files), writes  # a row tells of a whole file
        torn = [name for name, content in survivors.items() if content != PICTURE]
        assert all(name.startswith(".tmp-") for name in torn), writes
        if is_complete:
            assert writes > 60 and len(acknowledged.images) == 4
            return
