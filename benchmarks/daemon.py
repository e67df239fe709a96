"""A real craftd in folders of its own, and jobs for it."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from craft_cli.connection.client import Client
from craft_protos import jobs_pb2

_numbers = itertools.count()


@dataclass(frozen=True)
class Daemon:
    """One that has said it is ready."""

    pid: int
    address: str

    def client(self) -> Client:
        return Client(self.address)


@contextmanager
def running(config: str = "", **settings: str | int) -> Iterator[Daemon]:
    """`config`: its file; `settings`: CRAFT_ variables without the prefix; the folders go when it ends."""
    with tempfile.TemporaryDirectory(prefix="craft-b-") as folder:
        Path(folder, "config.toml").write_text(config)
        with running_in(Path(folder), **settings) as craftd:
            yield craftd


@contextmanager
def running_in(folder: Path, **settings: str | int) -> Iterator[Daemon]:
    """Starts a daemon whose folders lie below `folder` and outlive it."""
    reading, writing = os.pipe()
    process = subprocess.Popen(
        [sys.executable, "-m", "craftd", "--ready-fd", str(writing)],
        env=environment(folder, settings),
        pass_fds=[writing],
    )
    os.close(writing)
    try:
        yield Daemon(process.pid, _address(reading))
    finally:
        process.terminate()
        process.wait(60)


def environment(folder: Path, settings: dict[str, str | int]) -> dict[str, str]:
    """This process's, with craft's folders below `folder` and nothing of the user's own craft."""
    env = {name: value for name, value in os.environ.items() if not name.startswith("CRAFT_")}
    env.pop("PYTHONDONTWRITEBYTECODE", None)  # else each start compiles what has changed since the last test run
    env |= {f"CRAFT_{name}_DIR": str(folder / name.lower()) for name in ("DATA", "STATE", "RUNTIME")}
    env["CRAFT_CONFIG"] = str(folder / "config.toml")
    return env | {f"CRAFT_{name}": str(value) for name, value in settings.items()}


def request(prompt: str, **spec: int | float) -> jobs_pb2.CreateJobRequest:
    """A job with a request_id of its own."""
    generate = jobs_pb2.GenerateSpec(prompt=prompt, **spec)  # type: ignore[arg-type]
    return jobs_pb2.CreateJobRequest(request_id=f"bench-{os.getpid()}-{next(_numbers)}", generate=generate)


def finish(client: Client, asked: jobs_pb2.CreateJobRequest) -> jobs_pb2.Job:
    """CreateJob, then its events until it has succeeded."""
    made = client.create_job(asked)
    for event in client.watch_job(made.id):
        if event.WhichOneof("event") == "finished":
            job = event.finished.job
            assert job.state == jobs_pb2.JOB_STATE_SUCCEEDED, job.error
            return job
    raise AssertionError(f"job {made.id} did not end")


def _address(reading: int) -> str:
    with os.fdopen(reading) as pipe:
        said = json.loads(pipe.readline() or "{}")
    if not said.get("ready"):
        raise RuntimeError(f"craftd did not start: {said}")
    return str(said["address"])
