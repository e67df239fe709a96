"""The composition root: builds the daemon's parts, wires them, runs them, stops them."""

from __future__ import annotations

import asyncio
import gc
import logging
import signal
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Protocol

from craft_protos.config import Settings
from craft_protos.paths import Paths
from craft_protos.reasons import CraftError

import craftd
from craftd.control import Control, Stop
from craftd.datasets.files import DatasetFiles
from craftd.datasets.service import DatasetService
from craftd.endpoint import Endpoint
from craftd.http.services import HttpServices
from craftd.hub.client import connect
from craftd.images.files import ImageFiles
from craftd.images.retention import Retention
from craftd.images.service import ImageService
from craftd.jobs import table
from craftd.jobs.dispatcher import Dispatcher
from craftd.jobs.events import Hub
from craftd.jobs.generating import Generating
from craftd.jobs.parts import Parts
from craftd.jobs.service import JobService
from craftd.jobs.training.desk import Desk, Tools
from craftd.jobs.training.files import TrainingFiles
from craftd.jobs.training.service import TrainingService
from craftd.keys.service import KeyService
from craftd.logs import Log, close_log, open_log
from craftd.loras.files import LoraFiles
from craftd.loras.service import LoraService
from craftd.models.halves import Halves
from craftd.models.hashes import FileHashes
from craftd.models.importing import Importer
from craftd.models.registry import BUILT_IN, Registry
from craftd.models.residency import Residency
from craftd.models.service import ModelService
from craftd.models.verdicts import Verdicts
from craftd.rpc.server import RpcServer, Services
from craftd.rpc.tcp import configured
from craftd.store.database import Database
from craftd.supervisor.inspector import inspect, inspect_lora
from craftd.supervisor.local import LocalWorker
from craftd.supervisor.pictures import inspect_pictures
from craftd.supervisor.supervisor import Supervisor

_log = logging.getLogger("craft.daemon")
_BACKUP_EVERY_S = 24 * 3600.0
_LAST_WORDS_S = 1.0  # for calls that still run when everything has stopped

Announce = Callable[[str], None]


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
    log = open_log(setting.paths.log_file, setting.settings.daemon.log_level)
    try:
        database = Database(setting.paths.database)
        try:
            await _serve(setting, log, database)
            await database.backup()
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


async def _serve(setting: Setting, log: Log, database: Database) -> None:
    paths, settings, endpoint = setting.paths, setting.settings, setting.endpoint
    supervisor = Supervisor(partial(LocalWorker.start, settings.worker, paths.files_dir), settings.worker)
    residency = Residency(supervisor, settings.daemon.keep_alive_s)
    supervisor.listen(residency)
    models = await _models(setting, database, residency)
    image_files = ImageFiles(paths.images_dir)
    images, hub = ImageService(database, image_files), Hub()
    retention = Retention(database, image_files, settings.images)
    loras = LoraService(database, LoraFiles(paths.loras_dir), inspect_lora)
    await loras.open()
    keys, tcp = KeyService(database, settings), configured(settings.daemon)
    await keys.open()
    generating = Generating(paths.config_file, settings.generate)
    trainings = await _trainings(
        setting, models, loras, database=database, supervisor=supervisor, hub=hub, generating=generating
    )
    parts = Parts(database, images, models, loras, supervisor, hub, trainings.desk, settings.daemon)
    dispatcher = Dispatcher(parts)
    for view in await database.run(table.resume):
        dispatcher.accept(view.job, view.images)
    stop = Stop(settings.daemon.grace_s)
    _obey_signals(stop)
    control = Control(endpoint.address, supervisor, residency, dispatcher, stop)
    jobs = JobService(parts, dispatcher, trainings, settings, generating)
    server = RpcServer(Services(jobs, images, models, loras, trainings.datasets, trainings, keys, control, log))
    if tcp is not None:
        control.note_listening(server.listen(tcp))
    http = HttpServices(jobs, images, models, loras, keys, control, supervisor, settings)
    faces: list[Face] = [server, *_http_face(http)]
    if tcp is not None or settings.http.enabled:
        keys.expect_callers()
    endpoint.publish(server.bind)
    try:
        for face in faces:
            await face.start()
        gc.freeze()  # what was loaded stays: looking through it again held the loop for 0.15 s at times
        setting.announce("ready")
        _log.info("ready", extra={"address": endpoint.address, "queued": dispatcher.queued})
        async with asyncio.TaskGroup() as tasks:
            running = [
                tasks.create_task(_dispatch(images, dispatcher, control), name="dispatcher"),
                tasks.create_task(supervisor.run(), name="supervisor"),
                tasks.create_task(_back_up(database), name="backup"),
                tasks.create_task(keys.run(), name="keys"),
                tasks.create_task(retention.run(), name="retention"),
                tasks.create_task(trainings.run(), name="trainings"),
            ]
            await stop.wanted.wait()
            setting.announce("stopping")
            await server.say_not_serving()
            await _drain(dispatcher, stop)
            for task in running:
                task.cancel()
    finally:
        hub.close()
        log.end_watches()
        endpoint.withdraw()
        await asyncio.gather(*(face.stop(_LAST_WORDS_S) for face in faces))
        await keys.flush()
        _log.info("stopped")


def _http_face(services: HttpServices) -> list[Face]:
    """Listening, not serving yet; none where it is off. FastAPI is dear: nobody else pays for it."""
    if not services.settings.http.enabled:
        return []
    from craftd.http.server import HttpServer

    server = HttpServer(services)
    services.control.note_http(server.bind())
    return [server]


async def _models(setting: Setting, database: Database, residency: Residency) -> ModelService:
    registry = Registry(setting.paths.models_dir, Path(craftd.__file__).parent / BUILT_IN, database)
    halves = Halves(setting.settings.worker, residency)
    importer = Importer(registry, Verdicts(database, inspect), database, connect, halves)
    models = ModelService(registry, importer, FileHashes(database), residency)
    await models.open()
    return models


async def _trainings(
    setting: Setting,
    models: ModelService,
    loras: LoraService,
    *,
    database: Database,
    supervisor: Supervisor,
    hub: Hub,
    generating: Generating,
) -> TrainingService:
    paths, limits = setting.paths, setting.settings.limits
    datasets = DatasetService(database, DatasetFiles(paths.datasets_dir), inspect_pictures, limits)
    files = TrainingFiles(paths.training_dir)
    desk = Desk(Tools(database, supervisor, hub, loras, datasets, files))
    keep_samples_s = setting.settings.images.keep_days * 86400.0
    trainings = TrainingService(database, models, loras, datasets, files, desk, limits, generating, keep_samples_s)
    await trainings.open()
    return trainings


async def _dispatch(images: ImageService, dispatcher: Dispatcher, control: Control) -> None:
    """Nothing is drawn before what a crash left behind is cleared up."""
    control.warn(await images.sweep())
    await dispatcher.run()


async def _back_up(database: Database) -> None:
    while True:
        await asyncio.sleep(_BACKUP_EVERY_S)
        await database.backup()


def _obey_signals(stop: Stop) -> None:
    """Before anyone hears that the daemon is ready."""
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.on_signal)


async def _drain(dispatcher: Dispatcher, stop: Stop) -> None:
    """Give what runs its grace, until somebody is in a hurry."""
    _log.info("draining", extra={"grace_s": stop.grace_s, "running": dispatcher.running})
    draining = asyncio.create_task(dispatcher.drain(stop.grace_s))
    hurry = asyncio.create_task(stop.now.wait())
    await asyncio.wait([draining, hurry], return_when=asyncio.FIRST_COMPLETED)
    if not draining.done():
        draining.cancel()
        await dispatcher.drain(0)
    hurry.cancel()
