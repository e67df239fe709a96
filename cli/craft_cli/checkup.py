"""Examines everything that craft needs to draw, for `craft doctor`; each check yields its findings."""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from craft_protos import config
from craft_protos.generate import GenerateRequest
from craft_protos.paths import Paths
from craft_protos.reasons import CraftError
from craft_protos.version import __version__

from craft_cli import errors
from craft_cli.connection import autostart
from craft_cli.connection.session import Session
from craft_cli.render import units

if TYPE_CHECKING:
    from craft_cli.connection.client import Client

FINE, DOUBTFUL, BROKEN = "ok", "warn", "fail"
_LITTLE_DISK_BYTES = 10 << 30
_LITTLE_MEMORY_BYTES = 4 << 30
_TORCH_TIMEOUT_S = 120.0  # a first import may read gigabytes
_INSTALL = "pip install 'craftengine[daemon]'"
# Runs in a process of its own: torch takes seconds to import, and a broken driver may end it.
_PROBE = """
import json, torch
device = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
print(json.dumps({
    "torch": torch.__version__,
    "device": device,
    "name": torch.cuda.get_device_name(0) if device == "cuda" else "",
    "memory_bytes": torch.cuda.mem_get_info(0)[1] if device == "cuda" else 0,
    "runtime": torch.version.cuda or torch.version.hip or "",
}))
"""


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at. `advice`: what to do, where it is not as it should be."""

    state: str
    what: str
    told: str
    advice: str = ""

    def as_dict(self) -> dict[str, str]:
        return asdict(self)


def examine(*, draws: bool) -> Iterator[Finding]:
    """Every check, in the order in which one would look."""
    yield Finding(FINE, "craft", f"{__version__}, Python {platform.python_version()}, {platform.platform()}")
    try:
        paths = config.find_paths()
        config.load(paths.config_file)
    except CraftError as error:
        yield _broken("configuration", error)
        return
    yield from _configuration(paths)
    yield from _folders(paths)
    yield _memory()
    if not config.client().host:
        yield from _torch()
    yield from _daemon(draws=draws)


def _configuration(paths: Paths) -> Iterator[Finding]:
    complaints = config.complaints()
    told = str(paths.config_file) if paths.config_file.exists() else f"{paths.config_file} (none: defaults)"
    state = DOUBTFUL if complaints else FINE
    yield Finding(
        state, "configuration", "; ".join([told, *complaints]), "see `craft config list`" if complaints else ""
    )


def _folders(paths: Paths) -> Iterator[Finding]:
    for what, folder in (("data", paths.data_dir), ("state", paths.state_dir), ("socket", paths.socket.parent)):
        place = _existing(folder)
        if not os.access(place, os.W_OK | os.X_OK):
            advice = f"make {place} yours: sudo chown -R $USER {place}; or set CRAFT_{_VARIABLES[what]}_DIR"
            yield Finding(BROKEN, f"{what} folder", f"{folder}: cannot be written", advice)
        elif place == folder and folder.stat().st_mode & 0o077 and what != "socket":
            advice = f"chmod 700 {folder}"
            yield Finding(DOUBTFUL, f"{what} folder", f"{folder}: others on this machine can look into it", advice)
        else:
            yield Finding(FINE, f"{what} folder", str(folder))
    free = shutil.disk_usage(_existing(paths.data_dir)).free
    state, advice = (FINE, "") if free >= _LITTLE_DISK_BYTES else (DOUBTFUL, "see `craft df`, and `craft prune`")
    yield Finding(state, "disk", f"{units.size(free)} free for {paths.data_dir}", advice)


_VARIABLES = {"data": "DATA", "state": "STATE", "socket": "RUNTIME"}


def _existing(folder: Path) -> Path:
    """The folder, or the nearest above it that exists."""
    return folder if folder.exists() else _existing(folder.parent)


def _memory() -> Finding:
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if total >= _LITTLE_MEMORY_BYTES:
        return Finding(FINE, "memory", units.size(total))
    return Finding(DOUBTFUL, "memory", units.size(total), "enough for the built-in model; others need 8 GB and more")


def _torch() -> Iterator[Finding]:
    try:
        autostart.require_daemon_package()
        known = _probed()
    except CraftError as error:
        yield Finding(BROKEN, "torch", errors.one_line(error.message), error.hint)
        return
    yield Finding(FINE, "torch", known["torch"] + (f", built for {known['runtime']}" if known["runtime"] else ""))
    yield _device(known)


def _probed() -> dict[str, Any]:
    """Raises DAEMON_MISSING where torch cannot be imported."""
    command = [sys.executable, "-P", "-c", _PROBE]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_TORCH_TIMEOUT_S, check=True)
        known: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    except (subprocess.SubprocessError, ValueError, IndexError) as error:
        said = (getattr(error, "stderr", "") or str(error)).strip().splitlines() or ["it said nothing"]
        raise CraftError("DAEMON_MISSING", f"torch cannot be used: {said[-1]}", _INSTALL) from error
    return known


def _device(known: dict[str, Any]) -> Finding:
    if known["device"] != "cpu":
        size = f", {units.size(known['memory_bytes'])}" if known["memory_bytes"] else ""
        return Finding(FINE, "device", f"{known['device']} {known['name']}".strip() + size)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    told = f"cpu, {cores} cores"
    if shutil.which("nvidia-smi") is None:
        return Finding(FINE, "device", told)
    advice = "torch sees no GPU though there is a driver: install a torch built for CUDA (pytorch.org says which)"
    return Finding(DOUBTFUL, "device", told, advice)


def _daemon(*, draws: bool) -> Iterator[Finding]:
    session = Session()
    try:
        status = session.client.status()
    except CraftError as error:
        yield _broken("daemon", error)
        return
    told = f"craftd {status.version}, pid {status.pid}, at {status.address or session.client.address}"
    if status.version == __version__:
        yield Finding(FINE, "daemon", told)
    else:
        yield Finding(DOUBTFUL, "daemon", told, "it is of another version: craft daemon restart")
    for warning in status.warnings:
        yield Finding(DOUBTFUL, "daemon", errors.one_line(warning), "see `craft logs`")
    yield from _models(session.client)
    if draws:
        yield _picture(session)


def _models(client: Client) -> Iterator[Finding]:
    for model in client.list_models():
        if model.refused:
            yield Finding(DOUBTFUL, f"model {model.name}", errors.one_line(model.refused), f"craft show {model.name}")
        else:
            yield Finding(FINE, f"model {model.name}", f"{model.architecture}, {units.size(model.size_bytes)}")


def _picture(session: Session) -> Finding:
    """Drawn, fetched and taken away again."""
    from craft_cli.generate import drawing
    from craft_cli.generate.spec import request

    began = time.monotonic()
    asked = GenerateRequest(prompt="a red apple", model="pocket", seed=1)
    try:
        job = drawing.submit(session, request(asked, lease=True))
        for event in drawing.follow(session, job.id):
            if event.HasField("finished"):
                drawing.require_success(event.finished.job)
        made = session.client.get_job(job.id).images
        data = [drawing.fetch(session, image) for image in made]
        for image in made:
            session.client.delete_image(image.id)
    except CraftError as error:
        return _broken("picture", error)
    return Finding(FINE, "picture", f"drawn in {time.monotonic() - began:.1f} s, {units.size(sum(map(len, data)))}")


def _broken(what: str, error: CraftError) -> Finding:
    return Finding(BROKEN, what, errors.one_line(error.message), error.hint)
