"""The composition root: builds the daemon's parts, wires them, runs them, stops them."""

from __future__ import annotations

import asyncio
import gc
import logging
import signal
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Protocol

from craft_protos.paths import Paths
from craft_protos.reasons import CraftError
from craft_protos.settings import Settings, WorkerSettings

import craftd
from craftd.bot_process import BotProcess
from craftd.control import Control, Stop, own_rss_bytes
from craftd.datasets.service import DatasetService
from craftd.descriptors import raise_descriptor_limit
from craftd.endpoint import Endpoint
from craftd.http.services import HttpServices
from craftd.hub.client import connect
from craftd.images.files import ImageFiles
from craftd.images.retention import Retention
from craftd.images.service import ImageService
from craftd.inputs.service import InputService
from craftd.jobs import store
from craftd.jobs.drawing import Drawing
from craftd.jobs.events import Hub
from craftd.jobs.fits.service import Fits
from craftd.jobs.generate_defaults import GenerateDefaults
from craftd.jobs.holdings import Holdings
from craftd.jobs.job import Kind
from craftd.jobs.service import JobService
from craftd.keys.caller import Caller
from craftd.keys.service import KeyService
from craftd.logs import Log, close_log, open_log
from craftd.loras.files import LoraFiles
from craftd.loras.owning import LoraQuota
from craftd.loras.service import LoraService
from craftd.memory import give_growth_back, give_large_blocks_back
from craftd.models.finding import PartFinder
from craftd.models.folders import FolderImporter
from craftd.models.fp16_choice import Fp16Choice
from craftd.models.hashes import FileHashes
from craftd.models.importing import Importer
from craftd.models.inspection_cache import InspectionCache
from craftd.models.registry import BUILT_IN, Registry
from craftd.models.service import ModelService
from craftd.rpc.jobs_json import as_json
from craftd.rpc.server import RpcServer, Services
from craftd.rpc.tcp import configured
from craftd.scheduler.active_jobs import ActiveJobs
from craftd.scheduler.job_writer import JobWriter
from craftd.scheduler.pauses import Pauses
from craftd.scheduler.scheduler import Scheduler
from craftd.store.contents import Contents
from craftd.store.database import Database
from craftd.store.room import Room
from craftd.tasks import serve_for_ever
from craftd.training.files import TrainingFiles
from craftd.training.lifecycle import TrainingLifecycle
from craftd.training.service import TrainingService
from craftd.upkeep.service import Upkeep
from craftd.webhooks import signing
from craftd.webhooks.sender import Webhooks
from craftd.webhooks.targets import Targets
from craftd.workers.devices import seats
from craftd.workers.fitting import ask_fits, ask_layouts
from craftd.workers.handle import WorkerHandle
from craftd.workers.inspector import identify, identify_all, inspect, inspect_lora
from craftd.workers.local import LocalConnection
from craftd.workers.pictures import compare_pictures, inspect_pictures
from craftd.workers.pool import WorkerPool
from craftd.workers.remote.fleet import Fleet

_log = logging.getLogger("craft.daemon")
_BACKUP_EVERY_S = 24 * 3600.0
_LAST_WORDS_S = 1.0  # for calls that still run when everything has stopped

Announce = Callable[[str], None]
Run = Callable[[], Awaitable[None]]


class Face(Protocol):
    """What serves callers."""

    async def start(self) -> None: ...

    async def stop(self, grace_s: float) -> None: ...


@dataclass(frozen=True)
class Setting:
    """Where and how the daemon runs. `announce` hears "ready" and "stopping"."""

    paths: Paths
    settings: Settings
    endpoint: Endpoint
    announce: Announce


async def serve(setting: Setting) -> None:
    """Until a signal or Shutdown; for the holder of the lock."""
    give_large_blocks_back()
    raise_descriptor_limit()
    log = open_log(setting.paths.log_file, setting.settings.daemon.log_level)
    try:
        database = Database(setting.paths.database)
        try:
            await _serve(setting, log, database)
            await database.backup_at_the_end()
        finally:
            await database.close()
    except CraftError as exc:
        _log.error("stopped by an error", extra={"reason": exc.reason, "why": exc.message})
        raise
    except Exception as exc:  # the process's outermost frame
        _log.exception("a bug")
        raise CraftError("INTERNAL", f"a bug in craft: {exc!r}", f"see {setting.paths.log_file}") from exc
    finally:
        close_log(log)


@dataclass(frozen=True)
class _Assembled:
    """What the daemon is made of, as far as its life is concerned: `running` are tasks until its end."""

    server: RpcServer
    faces: list[Face]
    scheduler: Scheduler
    stop: Stop
    hub: Hub
    keys: KeyService
    running: dict[str, Run]


async def _serve(setting: Setting, log: Log, database: Database) -> None:
    made = await _assembled(setting, log, database)
    setting.endpoint.publish(made.server.bind)
    try:
        for face in made.faces:
            await face.start()
        gc.freeze()  # what was loaded stays: looking through it again held the loop for 0.15 s at times
        setting.announce("ready")
        _log.info("ready", extra={"address": setting.endpoint.address, "queued": made.scheduler.jobs.queued})
        async with asyncio.TaskGroup() as tasks:
            running = [tasks.create_task(serve_for_ever(name, run), name=name) for name, run in made.running.items()]
            await made.stop.wanted.wait()
            setting.announce("stopping")
            await made.server.say_not_serving()
            await _drain(made.scheduler, made.stop)
            for task in running:
                task.cancel()
    finally:
        made.hub.close()
        log.end_watches()
        setting.endpoint.withdraw()
        await asyncio.gather(*(face.stop(_LAST_WORDS_S) for face in made.faces))
        await made.keys.flush()
        _log.info("stopped")


async def _assembled(setting: Setting, log: Log, database: Database) -> _Assembled:
    """Everything put together and read from the store; nothing runs or listens yet, but for what is bound."""
    paths, settings = setting.paths, setting.settings
    pool = _pool(settings, paths.files_dir)
    models = await _models(setting, database, pool)
    image_files = ImageFiles(paths.images_dir)
    room, hub = Room(paths.room_file), Hub()
    images, retention = await _images(database, image_files, settings, room)
    loras = LoraService(database, LoraFiles(paths.loras_dir), inspect_lora, quota=LoraQuota(settings))
    await loras.open()
    inputs = InputService(database, Contents(paths.inputs_dir, "inputs"), inspect_pictures, settings.limits)
    await inputs.open()
    keys, tcp = KeyService(database, settings), configured(settings.daemon)
    await keys.open()
    generating = GenerateDefaults(paths.config_file, settings.generate)
    trainings = await _trainings(
        setting, models, loras, database=database, hub=hub, generating=generating, caller_of=keys.caller_of
    )
    scheduler = _scheduler(
        settings, models, trainings.lifecycle, loras, images, inputs=inputs, database=database, pool=pool, hub=hub
    )
    await _resume(database, scheduler.jobs)
    stop, bot = _obeying(Stop(settings.daemon.grace_s)), _bot(setting, keys)
    fleet = await Fleet.open(settings, paths.fleet_dir, database, pool)
    control = Control(setting.endpoint.address, pool, scheduler, stop, bot=bot, fleet=fleet)
    upkeep = Upkeep(
        database=database,
        retention=retention,
        trainings=trainings,
        inputs=inputs,
        room=room,
        is_idle=scheduler.is_idle,
        paths=paths,
        settings=settings,
    )
    webhooks = _webhooks(setting, database)
    jobs = JobService(
        database=database,
        models=models,
        loras=loras,
        hub=hub,
        pool=pool,
        active=scheduler.jobs,
        trainings=trainings,
        inputs=inputs,
        holdings=Holdings(database, images, trainings, inputs, loras),
        settings=settings,
        generating=generating,
        fits=await _fits(settings.worker, database),
        webhooks=webhooks,
    )
    server = RpcServer(
        Services(jobs, images, models, loras, trainings.datasets, trainings, keys, control, log, upkeep, inputs)
    )
    if tcp is not None:
        control.note_listening(server.listen(tcp))
    http = HttpServices(jobs, images, models, loras, keys, control, pool, settings, inputs)
    faces: list[Face] = [server, fleet, *_http_face(http)]
    if tcp is not None or settings.http.enabled:
        keys.expect_callers()
    running: dict[str, Run] = {
        "scheduler": scheduler.run,
        "sweep": lambda: _sweep(images, control),
        "workers": pool.run,
        "fleet": fleet.run,
        "backup": lambda: _back_up(database),
        "keys": keys.run,
        "retention": retention.run,
        "upkeep": upkeep.run,
        "trainings": trainings.run,
        "bot": bot.run,
        "fits": jobs.fits.run,
        "webhooks": webhooks.run,
        "memory": lambda: give_growth_back(own_rss_bytes),
    }
    return _Assembled(server, faces, scheduler, stop, hub, keys, running)


def _pool(settings: Settings, files_dir: Path) -> WorkerPool:
    """Each worker has a folder of its own: two may make the same file."""
    workers = []
    for number, seat in enumerate(seats(settings.worker)):
        folder = files_dir / f"worker{number + 1}" if number else files_dir
        connect = partial(LocalConnection.start, seat.settings, folder, seat.sharing)
        workers.append(WorkerHandle(connect, seat.settings, settings.daemon.keep_alive_s, name=seat.name))
    return WorkerPool(workers)


async def _images(
    database: Database, files: ImageFiles, settings: Settings, room: Room
) -> tuple[ImageService, Retention]:
    await asyncio.to_thread(room.keep)
    return ImageService(database, files, room), Retention(database, files, settings.images, room=room)


def _scheduler(
    settings: Settings,
    models: ModelService,
    lifecycle: TrainingLifecycle,
    loras: LoraService,
    images: ImageService,
    *,
    inputs: InputService,
    database: Database,
    pool: WorkerPool,
    hub: Hub,
) -> Scheduler:
    pauses = Pauses()
    writer = JobWriter(database, images, pauses)
    return Scheduler(
        database=database,
        models=models,
        pool=pool,
        hub=hub,
        writer=writer,
        pauses=pauses,
        works={Kind.GENERATE: Drawing(models, loras, inputs, writer, hub), Kind.TRAIN: lifecycle},
        lease_s=settings.daemon.lease_s,
    )


async def _resume(database: Database, jobs: ActiveJobs) -> None:
    """What an earlier daemon left unfinished waits again."""
    for view in await database.run(store.resume):
        jobs.accept(view.job, view.images, view.removed)


def _http_face(services: HttpServices) -> list[Face]:
    """Listening, not serving yet; none where it is off. FastAPI is dear: nobody else pays for it."""
    if not services.settings.http.enabled:
        return []
    from craftd.http.server import HttpServer

    server = HttpServer(services)
    services.control.note_http(server.bind())
    return [server]


def _webhooks(setting: Setting, database: Database) -> Webhooks:
    """Raises CONFIG_INVALID."""
    targets = Targets(setting.settings.webhooks.hosts)
    secret = signing.load(signing.file_of(setting.settings.webhooks, setting.paths)) if targets.is_on else b""
    return Webhooks(database, targets, secret, as_json, setting.settings.webhooks.retry_s)


def _bot(setting: Setting, keys: KeyService) -> BotProcess:
    return BotProcess(setting.endpoint.address, keys.note_bot, is_enabled=setting.settings.telegram.enabled)


async def _models(setting: Setting, database: Database, pool: WorkerPool) -> ModelService:
    registry = Registry(setting.paths.models_dir, Path(craftd.__file__).parent / BUILT_IN, database)
    fp16_choice = Fp16Choice(setting.settings.worker, pool)
    inspections = InspectionCache(database, inspect)
    hashes = FileHashes(database)
    importer = Importer(
        registry,
        inspections,
        database,
        connect,
        fp16_choice,
        finder=PartFinder(registry, identify, hashes),
        identify=identify_all,
        schedulers_dir=setting.paths.schedulers_dir,
    )
    models = ModelService(registry, importer, FolderImporter(registry, importer, identify_all), hashes, pool)
    await models.open()
    return models


async def _fits(settings: WorkerSettings, database: Database) -> Fits:
    fits = Fits(database, partial(ask_layouts, module=settings.module), ask_fits)
    await fits.open()
    return fits


async def _trainings(
    setting: Setting,
    models: ModelService,
    loras: LoraService,
    *,
    database: Database,
    hub: Hub,
    generating: GenerateDefaults,
    caller_of: Callable[[str], Caller],
) -> TrainingService:
    paths, limits = setting.paths, setting.settings.limits
    datasets = DatasetService(database, Contents(paths.datasets_dir, "datasets"), compare_pictures, limits)
    files = TrainingFiles(paths.training_dir)
    lifecycle = TrainingLifecycle(database, hub, loras, datasets, files, caller_of=caller_of)
    keep_samples_s = setting.settings.images.keep_days * 86400.0
    trainings = TrainingService(database, models, loras, datasets, files, lifecycle, limits, generating, keep_samples_s)
    await trainings.open()
    return trainings


async def _sweep(images: ImageService, control: Control) -> None:
    """Once, beside all else: what a crash left behind is cleared up."""
    control.warn(await images.sweep())


async def _back_up(database: Database) -> None:
    while True:
        await asyncio.sleep(_BACKUP_EVERY_S)
        await database.backup()


def _obeying(stop: Stop) -> Stop:
    """To signals, before anyone hears that the daemon is ready."""
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.on_signal)
    return stop


async def _drain(scheduler: Scheduler, stop: Stop) -> None:
    """Give what runs its grace, until somebody is in a hurry."""
    _log.info("draining", extra={"grace_s": stop.grace_s, "running": scheduler.jobs.running})
    draining = asyncio.create_task(scheduler.drain(stop.grace_s))
    hurry = asyncio.create_task(stop.now.wait())
    await asyncio.wait([draining, hurry], return_when=asyncio.FIRST_COMPLETED)
    if not draining.done():
        draining.cancel()
        await scheduler.drain(0)
    hurry.cancel()
