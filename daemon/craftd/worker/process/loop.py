"""A worker's life: hello, then take mail, tick, and say how it goes, until the socket ends."""

from __future__ import annotations

import os
import signal
import time
from functools import partial
from typing import Any

import diffusers
import torch
import transformers
from craft_protos import rungs
from craft_protos.version import __version__
from craft_protos.worker_pb2 import FromWorker

from craftd import eviction
from craftd.worker.engine.engine import Engine
from craftd.worker.engine.progress_hooks import ProgressHooks
from craftd.worker.lora.reader import Reader
from craftd.worker.lora.slots import Limits
from craftd.worker.models import memory
from craftd.worker.models.loader import Loader
from craftd.worker.models.model_cache import ModelCache
from craftd.worker.output.finisher import Finisher
from craftd.worker.process import work_folder
from craftd.worker.process.channel import Channel
from craftd.worker.process.device import Device, choose
from craftd.worker.process.heartbeat import STATS_EVERY_S, Heartbeat
from craftd.worker.process.inbox import Inbox
from craftd.worker.process.options import WorkerOptions
from craftd.worker.process.reporter import Reporter
from craftd.worker.training import stored
from craftd.worker.training.run import TrainingContext
from craftd.worker.training.trainings import Trainings

_GATHER_S = 0.02
_REST_S = 5.0  # idle for so long, the worker gives memory back, which the next job then has to ask for again
_LORAS_SHARE = 4  # of what models may hold, this part is for LoRAs' slots
_GATHERED_SHARE = 16  # and this one for what a batch of many LoRAs gathers from them


def run(options: WorkerOptions, channel: Channel, inbox: Inbox) -> None:
    """Serve until the process ends."""
    device = _set_up(options)
    hooks = ProgressHooks()
    engine, reporter = _build(options, device, channel, inbox, hooks)
    heartbeat = Heartbeat(engine, device, reporter, hooks)
    has_rested = True
    reporter.hello(_hello(options, device))
    while True:
        was_idle = engine.doing == "idle"
        for mail in inbox.waiting() if engine.can_step else inbox.wait(_waits_s(engine, has_rested)):
            engine.handle(mail)
        for _ in range(options.max_rows):
            if not engine.admit():
                break
            for mail in inbox.following():  # who comes while prompts are encoded shares the first model call
                engine.handle(mail)
        heartbeat.beat()
        engine.tick()
        heartbeat.beat()
        if engine.doing != "idle":
            has_rested = False
        elif was_idle and not has_rested:
            has_rested = True
            memory.trim()
            heartbeat.say()


def _waits_s(engine: Engine, has_rested: bool) -> float | None:
    if engine.doing == "idle":
        return None if has_rested else _REST_S
    return _GATHER_S if engine.is_gathering else STATS_EVERY_S


def _set_up(options: WorkerOptions) -> Device:
    for library in (diffusers, transformers):
        logs: Any = library.utils.logging
        logs.disable_progress_bar()
    if options.threads:
        torch.set_num_threads(options.threads)
    return choose(options.device, options.precision, options.sharing)


def _build(
    options: WorkerOptions, device: Device, channel: Channel, inbox: Inbox, hooks: ProgressHooks
) -> tuple[Engine, Reporter]:
    folder = work_folder.make()
    stored.sweep(options.files)
    channel.at_end(lambda: work_folder.remove(folder))
    signal.signal(signal.SIGTERM, lambda _number, _frame: channel.end(0))
    reporter = Reporter(channel, [*device.warnings, *_idle(options, device)])
    reader = Reader(options.files, inbox.post)
    budget = eviction.budget_bytes(device.total_bytes)
    limits = Limits(options.lora_slots, budget // _LORAS_SHARE, budget // _GATHERED_SHARE)
    loader = Loader(options.files, folder, device, reader, limits, hooks, offload=options.offload)
    need = partial(memory.need, files=options.files, dtype=device.dtype)
    cache = ModelCache(loader.load, need, budget, reporter, inbox.post)
    finisher = Finisher(device, inbox.post)
    context = TrainingContext(options.files, folder, device, hooks, reporter, time.monotonic)
    trainings = Trainings(context, cache)
    engine = Engine(cache, finisher, reporter, trainings, max_rows=options.max_rows, clock=time.monotonic)
    return engine, reporter


def _idle(options: WorkerOptions, device: Device) -> list[str]:
    """What was configured and does nothing on this device."""
    if options.offload in (rungs.AUTO, rungs.NONE) or device.place.type == "cuda":
        return []
    return [f"worker.offload = {options.offload} does nothing on {device.place.type}: its memory is the machine's own"]


def _hello(options: WorkerOptions, device: Device) -> FromWorker.Hello:
    return FromWorker.Hello(
        pid=os.getpid(),
        device=str(device.place),
        device_name=device.name,
        device_bytes=device.total_bytes,
        torch_version=torch.__version__,
        precision=device.precision,
        capacity_rows=options.max_rows,
        warnings=[*device.warnings, *_idle(options, device)],
        version=__version__,
    )
