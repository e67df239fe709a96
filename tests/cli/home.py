"""A user's craft in folders of its own, and real `craft` processes in it."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from craft_cli import autostart
from craft_protos import config
from craft_protos.paths import Paths

T = TypeVar("T")
TIMEOUT_S = 90
CRAFT = [sys.executable, "-P", "-m", "craft_cli.main"]


@dataclass
class Home:
    """One user's craft: folders, environment, and a folder to work in."""

    root: Path
    env: dict[str, str]
    started: list[subprocess.Popen[str]] = field(default_factory=list)

    @property
    def work(self) -> Path:
        return self.root / "work"

    @property
    def paths(self) -> Paths:
        return config.find_paths(self.env)

    def craft(
        self, *args: str, stdin: str | bytes | None = None, env: dict[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run `craft` to its end, its stdout a pipe."""
        data = stdin.encode() if isinstance(stdin, str) else stdin
        done = subprocess.run(
            [*CRAFT, *args],
            input=data,
            stdin=subprocess.DEVNULL if data is None else None,
            capture_output=True,
            cwd=self.work,
            env=self.env | (env or {}),
            timeout=TIMEOUT_S,
            check=False,
        )
        decoded = (done.stdout.decode("utf-8", "surrogateescape"), done.stderr.decode("utf-8", "replace"))
        return subprocess.CompletedProcess(done.args, done.returncode, *decoded)

    def start(self, *args: str, **settings: Any) -> subprocess.Popen[str]:
        """Begin `craft` and let it run."""
        given: dict[str, Any] = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        process = subprocess.Popen([*CRAFT, *args], cwd=self.work, env=self.env, text=True, **(given | settings))
        self.started.append(process)
        return process

    def hurry(self) -> None:
        """`[slow]` jobs are slow no longer."""
        self.paths.files_dir.mkdir(parents=True, exist_ok=True)
        (self.paths.files_dir / "hurry").touch()

    def json(self, *args: str) -> Any:
        """The JSON that a command prints; it must succeed."""
        done = self.craft(*args, "--json")
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    def daemon_pid(self) -> int:
        found = autostart.find(self.paths)
        assert found is not None
        return found.pid

    def end_started(self) -> None:
        """What a failed test left running ends with it, and is not blamed on the next one."""
        for process in self.started:
            process.kill()
            with process:  # its pipes are closed, and it is waited for
                pass

    def end_daemon(self) -> None:
        """Whatever holds the data folder ends, by the pid it wrote there."""
        record = autostart.read_lock(self.paths)
        if record is not None and autostart.is_held(self.paths):
            with contextlib.suppress(ProcessLookupError):
                os.kill(record.pid, signal.SIGKILL)
            assert autostart.await_end(self.paths, 10)


def put_model(models_dir: Path, name: str = "flat") -> None:
    """A model's folder without weights: all that a worker without torch asks for."""
    folder = models_dir / name
    (folder / "unet").mkdir(parents=True)
    (folder / "model_index.json").write_text(
        json.dumps({"_class_name": "StableDiffusionPipeline", "unet": ["diffusers", "UNet2DConditionModel"]})
    )
    (folder / "unet" / "config.json").write_text(json.dumps({"sample_size": 8}))
    (folder / "craft.json").write_text(json.dumps({"steps": 4, "sampler": "Euler"}))


def until(condition: Callable[[], T], what: str, timeout_s: float = 30.0) -> T:
    """Ask until the answer is true: for what another process does and cannot tell."""
    deadline = time.monotonic() + timeout_s
    pause = threading.Event()
    while not (answer := condition()):
        assert time.monotonic() < deadline, f"not in time: {what}"
        pause.wait(0.02)
    return answer
