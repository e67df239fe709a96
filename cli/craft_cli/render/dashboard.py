"""`craft top`: a moment of the daemon as lines, once or over and over."""

from __future__ import annotations

import os
import select
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from craft_protos.reasons import CraftError

from craft_cli import errors
from craft_cli.monitoring import Moment, Monitor
from craft_cli.render import units

if TYPE_CHECKING:
    from craft_protos import jobs_pb2

_EVERY_S = 1.0
_ENDINGS = (b"q", b"Q", b"\x03", b"\x1b", b"")
_BAR = 10
_LINES_AROUND = 2  # a blank one, and how to leave


def lines(moment: Moment) -> list[str]:
    """The daemon, its workers, then its jobs in turn."""
    status = moment.status
    head = f"craftd {status.version}, up {units.age_of(status.start_time.seconds)}: "
    head += f"{status.running} running, {status.queued} queued" + (", stopping" if status.draining else "")
    told = [head, *(f"warning: {errors.one_line(one)}" for one in status.warnings), *_workers(moment)]
    jobs = [_job(job, moment) for job in moment.jobs] or ["no job waits or runs"]
    return [*told, "", *jobs]


def run(monitor: Monitor) -> None:
    """Shows moments until q or Ctrl-C. A daemon that ends is waited for."""
    from rich.console import Console
    from rich.live import Live
    from rich.text import Text

    console = Console(highlight=False)
    with _keys() as is_over, Live(console=console, screen=True, auto_refresh=False) as live:
        while True:
            shown = _fitting(_now(monitor), console.height)
            text = Text("\n".join(shown), no_wrap=True, overflow="ellipsis")
            live.update(text, refresh=True)
            if is_over(_EVERY_S):
                return


def _now(monitor: Monitor) -> list[str]:
    try:
        return lines(monitor.look())
    except CraftError as error:
        return [f"craft: {errors.one_line(error.message)}", f"  {errors.one_line(error.hint)}"]


def _fitting(told: list[str], height: int) -> list[str]:
    """As many lines as there is room for, then how to leave."""
    room = max(1, height - _LINES_AROUND)
    if len(told) > room:
        told = [*told[: room - 1], f"... {len(told) - room + 1} more: craft jobs list"]
    return [*told, "", "q: leave"]


def _workers(moment: Moment) -> Iterator[str]:
    from craft_cli.render import daemon_shapes

    for one in moment.status.workers:
        worker = daemon_shapes.worker(one)
        memory = f"{units.size(one.rss_bytes)} of memory"
        if one.device_bytes:
            memory += f", {units.size(one.device_bytes)} of the device's"
        rate = moment.rates.get(one.pid)
        speed = f", {rate:.1f} steps/s" if rate is not None else ""
        models = errors.one_line(", ".join(one.models)) or "no model"
        yield f"{one.name or one.device or '?'}: {worker['state']}, {models}, {memory}{speed}"
    if not moment.status.workers:
        yield "no worker: it starts with the first job"


def _job(job: jobs_pb2.Job, moment: Moment) -> str:
    from craft_protos import jobs_pb2

    is_training = job.HasField("train")
    model, what = (
        (job.train.model, f"LoRA {job.train.name}") if is_training else (job.generate.model, job.generate.prompt)
    )
    is_running = job.state == jobs_pb2.JOB_STATE_RUNNING
    how = _progress(job, moment) if is_running else job.why_waiting or f"queued, {job.position} ahead"
    since = job.start_time.seconds if is_running else job.create_time.seconds
    return errors.one_line(f"{job.id}  {how}  {units.age_of(since)}  {model}  {what}")


def _progress(job: jobs_pb2.Job, moment: Moment) -> str:
    counted, found = moment.counted(job), moment.progress.get(job.id)
    if counted is None:
        doing = found.doing if found else ""
        return doing or "running"
    done, of = counted
    full = round(_BAR * done / of) if of else 0
    return f"[{'#' * full}{'.' * (_BAR - full)}] {done}/{of}"


@contextmanager
def _keys() -> Iterator[Callable[[float], bool]]:
    """A question that waits so long for the wish to leave: a key, or a signal."""
    ours, theirs = os.pipe()
    before = {number: signal.signal(number, lambda *_: os.write(theirs, b"q")) for number in _SIGNALS}
    has_keys = errors.is_terminal(sys.stdin)
    restore = _without_lines(sys.stdin.fileno()) if has_keys else None

    def is_over(timeout_s: float) -> bool:
        sources = [ours, *([sys.stdin.fileno()] if has_keys else [])]
        ready = select.select(sources, [], [], timeout_s)[0]
        return ours in ready or any(os.read(one, 1) in _ENDINGS for one in ready)

    try:
        yield is_over
    finally:
        if restore:
            restore()
        for number, handler in before.items():
            signal.signal(number, handler)
        os.close(ours)
        os.close(theirs)


_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def _without_lines(terminal: int) -> Callable[[], None]:
    """Keys come one by one and are not shown; what is returned makes the terminal what it was."""
    import termios
    import tty

    saved = termios.tcgetattr(terminal)
    tty.setcbreak(terminal)
    return lambda: termios.tcsetattr(terminal, termios.TCSADRAIN, saved)
