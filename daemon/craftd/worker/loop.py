"""A worker's life: hello, then take mail, tick, and say how it goes, until the socket ends."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from typing import Any

import diffusers
import psutil
import torch
import transformers
from craft_protos.worker_pb2 import FromWorker

from craftd.worker import memory, workplaces
from craftd.worker.channel import Channel
from craftd.worker.device import Device, choose
from craftd.worker.engine import Engine
from craftd.worker.finisher import Finisher
from craftd.worker.inbox import Inbox
from craftd.worker.loader import Loader
from craftd.worker.lora.reader import Reader
from craftd.worker.lora.residents import Housing
from craftd.worker.lora.slots import Limits
from craftd.worker.movement import Movement
from craftd.worker.options import WorkerOptions
from craftd.worker.reporter import Reporter, Stats
from craftd.worker.shelf import Shelf, Sources
from craftd.worker.training import stored
from craftd.worker.training.session import Workshop
from craftd.worker.training.trainings import Trainings

_STATS_EVERY_S = 1.0
_GATHER_S = 0.02
_REST_S = 5.0  # idle for so long, the worker gives memory back, which the next job then has to ask for again
_LORAS_SHARE = 4  # of what models may hold, this part is for LoRAs' slots
_GATHERED_SHARE = 16  # and this one for what a batch of many LoRAs gathers from them


def run(options: WorkerOptions, channel: Channel, inbox: Inbox) -> None:
    """Serve until the process ends."""
    device = _set_up(options)
    movement = Movement()
    engine, reporter = _build(options, device, channel, inbox, movement)
    pulse = Pulse(engine, device, reporter, movement)
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
        pulse.beat()
        engine.tick()
        pulse.beat()
        if engine.doing != "idle":
            has_rested = False
        elif was_idle and not has_rested:
            has_rested = True
            memory.trim()
            pulse.say()


def _waits_s(engine: Engine, has_rested: bool) -> float | None:
    if engine.doing == "idle":
        return None if has_rested else _REST_S
    return _GATHER_S if engine.is_gathering else _STATS_EVERY_S


class Pulse:
    """Sends Stats at each change of what the engine does, and every second while it does anything.

    While one model call lasts, its blocks make it beat.
    """

    def __init__(
        self,
        engine: Engine,
        device: Device,
        reporter: Reporter,
        movement: Movement,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._engine = engine
        self._device = device
        self._reporter = reporter
        self._movement = movement
        movement.listener = self.beat
        self._clock = clock
        self._process = psutil.Process()
        self._said = ""
        self._said_at = 0.0

    def beat(self) -> None:
        doing, now = self._engine.doing, self._clock()
        if doing != self._said or (doing != "idle" and now - self._said_at >= _STATS_EVERY_S):
            self.say()

    def say(self) -> None:
        """Send Stats now."""
        doing = self._said = self._engine.doing
        self._said_at = self._clock()
        self._reporter.stats(
            Stats(
                predict_calls=self._engine.predict_calls,
                rss_bytes=self._process.memory_info().rss,
                device_bytes=self._device.used_bytes(),
                rows=self._engine.rows,
                progress=self._engine.progress + self._movement.blocks,
                doing=doing,
            )
        )


def _set_up(options: WorkerOptions) -> Device:
    for library in (diffusers, transformers):
        logs: Any = library.utils.logging
        logs.disable_progress_bar()
    if options.threads:
        torch.set_num_threads(options.threads)
    return choose(options.device, options.precision)


def _build(
    options: WorkerOptions, device: Device, channel: Channel, inbox: Inbox, movement: Movement
) -> tuple[Engine, Reporter]:
    workplace = workplaces.make()
    stored.sweep(options.files)
    channel.at_end(lambda: workplaces.remove(workplace))
    signal.signal(signal.SIGTERM, lambda _number, _frame: channel.end(0))
    reporter = Reporter(channel, device.warnings)
    reader = Reader(options.files, inbox.post)
    budget = memory.budget_bytes(device.total_bytes)
    limits = Limits(options.lora_slots, budget // _LORAS_SHARE, budget // _GATHERED_SHARE)
    loader = Loader(options.files, workplace, device, Housing(reader, device.place, limits), movement)
    sources = Sources(
        load=loader.load, need_bytes=lambda manifest: memory.need_bytes(manifest, options.files, device.dtype)
    )
    shelf = Shelf(sources, budget, reporter, inbox.post)
    finisher = Finisher(device, inbox.post)
    shop = Workshop(options.files, workplace, device, movement, reporter, time.monotonic)
    trainings = Trainings(shop, shelf)
    engine = Engine(shelf, finisher, reporter, trainings, max_rows=options.max_rows, clock=time.monotonic)
    return engine, reporter


def _hello(options: WorkerOptions, device: Device) -> FromWorker.Hello:
    return FromWorker.Hello(
        pid=os.getpid(),
        device=str(device.place),
        device_name=device.name,
        device_bytes=device.total_bytes,
        torch_version=torch.__version__,
        precision=device.precision,
        capacity_rows=options.max_rows,
        warnings=device.warnings,
    )
