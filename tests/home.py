"""One user's craft: folders of its own, the environment that names them, and `craft` processes in it.

What waits for another process waits HANG_S at most; the failure then shows what hung: stacks, jobs, the daemon's log.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any, AnyStr, TypeVar

import apsw
from craft_cli.connection import autostart
from craft_protos.config import find_paths
from craft_protos.paths import Paths

from tests.raw_safetensors import safetensors, tensor

T = TypeVar("T")
HANG_S = 400.0  # only what hangs takes that long: at a load of 20, importing torch takes half of it
CRAFT = [sys.executable, "-P", "-m", "craft_cli.main"]
MODEL = "flat"
_VAE = ("AutoencoderKL", {"block_out_channels": [8, 8, 8, 8]})
_STABLE_DIFFUSION = {"unet": ("UNet2DConditionModel", {"sample_size": 8}), "vae": _VAE}
SD1: dict[str, Any] = {  # what write_model makes of it is drawn with by ControlNets
    "parts": {"unet": ("UNet2DConditionModel", {"sample_size": 8, "cross_attention_dim": 768}), "vae": _VAE},
}
KLEIN: dict[str, Any] = {  # what write_model makes of it is shown pictures
    "pipeline": "Flux2KleinPipeline",
    "parts": {"transformer": ("Flux2Transformer2DModel", {"patch_size": 1, "in_channels": 128}), "vae": _VAE},
}
_ABORT_S = 10.0  # for a process that is told to print its stacks and end
_LOG_LINES = 40
_open: list[Home] = []


class Home:
    """Folders that go with `remove`, and whatever still runs in them too.

    The worker needs no torch unless `settings`, environment variables, say otherwise. Without a `model` there is
    none but the built-in one.
    """

    def __init__(self, model: str = MODEL, **settings: str) -> None:
        # pytest's own folder makes a socket path that is too long
        self.root = Path(tempfile.mkdtemp(prefix="craft-test-"))
        self.work.mkdir()
        self.started: list[subprocess.Popen[str]] = []
        self.env = {name: value for name, value in os.environ.items() if not name.startswith("CRAFT_")}
        self.env |= {
            "HOME": str(self.root),
            "TERM": "xterm-256color",
            "PYTHONFAULTHANDLER": "1",  # SIGABRT prints every thread's stack
            "CRAFT_CONFIG": str(self.root / "config.toml"),
            "CRAFT_DATA_DIR": str(self.root / "data"),
            "CRAFT_STATE_DIR": str(self.root / "state"),
            "CRAFT_RUNTIME_DIR": str(self.root / "run"),
            "CRAFT_WORKER_MODULE": "craftd.fakeworker",
            "CRAFT_GENERATE_MODEL": model,
            **settings,
        }
        if model:
            write_model(self.paths.models_dir / model)
        _open.append(self)

    @property
    def work(self) -> Path:
        """The folder that `craft` is called in."""
        return self.root / "work"

    @property
    def paths(self) -> Paths:
        return find_paths(self.env)

    @property
    def log(self) -> str:
        return self.paths.log_file.read_text() if self.paths.log_file.exists() else ""

    def craft(
        self, *args: str, stdin: str | bytes | None = None, env: dict[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run `craft` to its end, its stdout a pipe."""
        data = stdin.encode() if isinstance(stdin, str) else stdin
        done = self.run([*CRAFT, *args], stdin=data, env=env)
        decoded = (done.stdout.decode("utf-8", "surrogateescape"), done.stderr.decode("utf-8", "replace"))
        return subprocess.CompletedProcess(done.args, done.returncode, *decoded)

    def run(
        self,
        command: Sequence[str | bytes],
        *,
        stdin: bytes | None = None,
        env: dict[str, str] | None = None,
        stdout: int | IO[bytes] = subprocess.PIPE,
        hang_s: float = HANG_S,
    ) -> subprocess.CompletedProcess[bytes]:
        """Run any command to its end in the work folder."""
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL if stdin is None else subprocess.PIPE,
            stdout=stdout,
            stderr=subprocess.PIPE,
            cwd=self.work,
            env=self.env | (env or {}),
            process_group=0,
        )
        output = self.finish(process, stdin, hang_s)
        return subprocess.CompletedProcess(command, process.returncode, *output)

    def start(self, *args: str, **settings: Any) -> subprocess.Popen[str]:
        """Begin `craft` and let it run."""
        given: dict[str, Any] = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        given |= {"cwd": self.work, "env": self.env, "text": True, "process_group": 0}
        self.started.append(subprocess.Popen([*CRAFT, *args], **(given | settings)))
        return self.started[-1]

    def finish(
        self, process: subprocess.Popen[AnyStr], data: AnyStr | None = None, hang_s: float = HANG_S
    ) -> tuple[AnyStr, AnyStr]:
        """What a process writes until its end."""
        try:
            return process.communicate(data, hang_s)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"{process.args} hangs\n{_abort(process)}\n{self._look_into_daemon()}") from None

    def json(self, *args: str) -> Any:
        """The JSON that a command prints; it must succeed."""
        done = self.craft(*args, "--json")
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    def lines(self, *args: str, stdin: str | None = None) -> list[Any]:
        """The JSON lines that a command prints; it must succeed."""
        done = self.craft(*args, stdin=stdin)
        assert done.returncode == 0, done.stderr
        return [json.loads(line) for line in done.stdout.splitlines()]

    def hurry(self) -> None:
        """`[slow]` jobs are slow no longer."""
        self._tell_worker("hurry")

    @contextlib.contextmanager
    def hurried(self) -> Iterator[None]:
        """`[slow]` jobs are slow again afterwards."""
        self.hurry()
        try:
            yield
        finally:
            (self.paths.files_dir / "hurry").unlink()

    def release(self) -> None:
        """Let `[held]` jobs go on."""
        self._tell_worker("release")

    def _tell_worker(self, what: str) -> None:
        self.paths.files_dir.mkdir(parents=True, exist_ok=True)
        (self.paths.files_dir / what).touch()

    def rows(self, sql: str) -> list[tuple[object, ...]]:
        """What the database says, while nobody has it open."""
        connection = apsw.Connection(str(self.paths.database))
        try:
            return connection.execute(sql).fetchall()
        finally:
            connection.close()

    def daemon_pid(self) -> int:
        found = autostart.find(self.paths)
        assert found is not None
        return found.pid

    def remove(self) -> None:
        """Its processes end first: what a failed test left running is not blamed on the next one."""
        for process in self.started:
            process.kill()
            with process:  # its pipes are closed, and it is waited for
                pass
        self.end_daemon()
        shutil.rmtree(self.root)
        _open.remove(self)

    def end_daemon(self, number: signal.Signals = signal.SIGKILL, hang_s: float = HANG_S) -> None:
        """Whatever holds the data folder, by the pid it wrote there."""
        record = autostart.read_lock(self.paths)
        if record is not None and autostart.is_held(self.paths):
            with contextlib.suppress(ProcessLookupError):
                os.kill(record.pid, number)
            assert autostart.await_end(self.paths, hang_s)

    def _look_into_daemon(self) -> str:
        """Its jobs, its log's last lines, and its stacks, which end it."""
        command, env = [*CRAFT, "jobs", "list", "--json"], self.env | {"CRAFT_AUTOSTART": "0"}
        try:
            listed = subprocess.run(command, env=env, capture_output=True, text=True, timeout=2 * _ABORT_S, check=False)
            jobs = listed.stdout + listed.stderr
        except subprocess.TimeoutExpired:
            jobs = "the daemon does not answer"
        with contextlib.suppress(AssertionError):
            self.end_daemon(signal.SIGABRT, _ABORT_S)
        return f"jobs: {jobs}\n{self.last_words()}"

    def last_words(self) -> str:
        """The ends of the daemon's log and of what it wrote to stderr."""
        files = (self.paths.log_file, self.paths.state_dir / "craftd-start.log")
        return "\n".join("".join(_lines(file)[-_LOG_LINES:]) for file in files)


def open_homes() -> list[Home]:
    """Those that were not removed yet."""
    return list(_open)


def _abort(process: subprocess.Popen[AnyStr]) -> str:
    """End a process that hangs, and what it started; all that they have written, at last their stacks."""
    for number in (signal.SIGABRT, signal.SIGKILL):
        with contextlib.suppress(subprocess.TimeoutExpired, ProcessLookupError):
            os.killpg(process.pid, number)
            said = process.communicate(timeout=_ABORT_S)
            return "\n".join(part.decode(errors="replace") if isinstance(part, bytes) else str(part) for part in said)
    return "and cannot be ended"


def _lines(file: Path) -> list[str]:
    return file.read_text(errors="replace").splitlines(keepends=True) if file.exists() else []


def write_model(
    folder: Path,
    *,
    weights: str = "diffusion_pytorch_model.safetensors",
    pipeline: str = "StableDiffusionPipeline",
    parts: Mapping[str, tuple[str, dict[str, Any]]] = _STABLE_DIFFUSION,
) -> Path:
    """A folder that looks like Stable Diffusion of 64 pixels, or another; nothing can be drawn with it in earnest."""
    index: dict[str, object] = {"_class_name": pipeline, "safety_checker": [None, None]}
    for part, (kind, config) in parts.items():
        index[part] = ["diffusers", kind]
        (folder / part).mkdir(parents=True)
        (folder / part / "config.json").write_text(json.dumps(config))
        (folder / part / weights).write_bytes(safetensors({"w.weight": tensor([0], 0, 0, "F16")}))
    index["scheduler"] = ["diffusers", "DPMSolverMultistepScheduler"]
    (folder / "scheduler").mkdir()
    scheduler = {"_class_name": "DPMSolverMultistepScheduler", "use_karras_sigmas": True}
    (folder / "scheduler" / "scheduler_config.json").write_text(json.dumps(scheduler))
    (folder / "model_index.json").write_text(json.dumps(index))
    return folder


def until(condition: Callable[[], T], what: str) -> T:
    """Ask until the answer is true: for what another process does and cannot tell."""
    deadline = time.monotonic() + HANG_S
    pause = threading.Event()
    while not (answer := condition()):
        assert time.monotonic() < deadline, f"not in time: {what}"
        pause.wait(0.02)
    return answer
