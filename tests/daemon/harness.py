"""Real daemons, in folders of their own, with the worker that needs no torch."""

from __future__ import annotations

import asyncio
import contextlib
import io
import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

import apsw
import grpc
import grpc.aio
from craft_protos import (
    daemon_pb2,
    daemon_pb2_grpc,
    images_pb2,
    images_pb2_grpc,
    jobs_pb2,
    jobs_pb2_grpc,
    loras_pb2_grpc,
    models_pb2_grpc,
    training_pb2_grpc,
)
from craft_protos.config import find_paths
from craft_protos.paths import Paths
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2
from PIL import Image

MODEL = "flat"
FINAL = {jobs_pb2.JOB_STATE_SUCCEEDED, jobs_pb2.JOB_STATE_FAILED, jobs_pb2.JOB_STATE_CANCELLED}
_numbers = itertools.count()


def write_model(folder: Path, *, weights: str = "diffusion_pytorch_model.safetensors") -> Path:
    """A folder that looks like Stable Diffusion of 64 pixels; nothing can be drawn with it in earnest."""
    parts = {
        "unet": ("UNet2DConditionModel", {"sample_size": 8}),
        "vae": ("AutoencoderKL", {"block_out_channels": [8, 8, 8, 8]}),
    }
    index: dict[str, object] = {"_class_name": "StableDiffusionPipeline", "safety_checker": [None, None]}
    for part, (kind, config) in parts.items():
        index[part] = ["diffusers", kind]
        (folder / part).mkdir(parents=True)
        (folder / part / "config.json").write_text(json.dumps(config))
        header = json.dumps({"w": {"dtype": "F16", "shape": [0], "data_offsets": [0, 0]}}).encode()
        (folder / part / weights).write_bytes(len(header).to_bytes(8, "little") + header)
    index["scheduler"] = ["diffusers", "DPMSolverMultistepScheduler"]
    (folder / "scheduler").mkdir()
    scheduler = {"_class_name": "DPMSolverMultistepScheduler", "use_karras_sigmas": True}
    (folder / "scheduler" / "scheduler_config.json").write_text(json.dumps(scheduler))
    (folder / "model_index.json").write_text(json.dumps(index))
    return folder


class Home:
    """The folders of one craft, and the environment that names them."""

    def __init__(self, **settings: str) -> None:
        self.root = Path(tempfile.mkdtemp(prefix="craft-d-"))
        self.env = {name: value for name, value in os.environ.items() if not name.startswith("CRAFT_")}
        self.env |= {
            "CRAFT_CONFIG": str(self.root / "config.toml"),
            "CRAFT_DATA_DIR": str(self.root / "data"),
            "CRAFT_STATE_DIR": str(self.root / "state"),
            "CRAFT_RUNTIME_DIR": str(self.root / "run"),
            "CRAFT_WORKER_MODULE": "craftd.fakeworker",
            "CRAFT_GENERATE_MODEL": MODEL,
            **settings,
        }
        write_model(self.paths.models_dir / MODEL)

    @property
    def paths(self) -> Paths:
        return find_paths(self.env)

    @property
    def log(self) -> str:
        return self.paths.log_file.read_text() if self.paths.log_file.exists() else ""

    def release(self) -> None:
        """Let `[held]` jobs go on."""
        self.paths.files_dir.mkdir(parents=True, exist_ok=True)
        (self.paths.files_dir / "release").touch()

    def remove(self) -> None:
        shutil.rmtree(self.root)

    def rows(self, sql: str) -> list[tuple[object, ...]]:
        """What the database says, while nobody has it open."""
        connection = apsw.Connection(str(self.paths.database))
        try:
            return connection.execute(sql).fetchall()
        finally:
            connection.close()


class Daemon:
    """A craftd process that has said it is ready, and stubs to call it."""

    def __init__(self, home: Home, process: asyncio.subprocess.Process, address: str) -> None:
        self.home = home
        self.process = process
        self.address = address
        self.channel = grpc.aio.insecure_channel(address)
        self.jobs = jobs_pb2_grpc.JobsStub(self.channel)
        self.images = images_pb2_grpc.ImagesStub(self.channel)
        self.loras = loras_pb2_grpc.LorasStub(self.channel)
        self.models = models_pb2_grpc.ModelsStub(self.channel)
        self.training = training_pb2_grpc.TrainingStub(self.channel)
        self.daemon = daemon_pb2_grpc.DaemonStub(self.channel)

    async def create(self, prompt: str = "a red apple", **fields: object) -> jobs_pb2.Job:
        return await self.jobs.CreateJob(request(prompt, **fields))

    async def finish(self, job_id: str) -> jobs_pb2.Job:
        """The job, once it has ended."""
        async for event in self.jobs.WatchJob(jobs_pb2.WatchJobRequest(id=job_id)):
            if event.WhichOneof("event") == "finished":
                return event.finished.job
        raise AssertionError("the stream ended before the job did")

    async def see(self, job_id: str, kind: str) -> jobs_pb2.JobEvent:
        """The job's first event of a kind."""
        async for event in self.jobs.WatchJob(jobs_pb2.WatchJobRequest(id=job_id)):
            if event.WhichOneof("event") == kind:
                return event
        raise AssertionError(f"no {kind} came")

    async def file(self, image_id: str) -> bytes:
        parts = self.images.GetImage(images_pb2.GetImageRequest(id=image_id))
        return b"".join([part.chunk async for part in parts])

    async def status(self) -> daemon_pb2.DaemonStatus:
        return await self.daemon.GetStatus(daemon_pb2.GetStatusRequest())

    async def logged(self, event: str) -> dict[str, object]:
        """Waits for a line of the log."""
        request = daemon_pb2.WatchLogsRequest(tail=1000, follow=True)
        async for line in self.daemon.WatchLogs(request):
            record: dict[str, object] = json.loads(line.json)
            if record["event"] == event:
                return record
        raise AssertionError(f"{event!r} was not logged")

    async def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        await self.channel.close()
        if self.process.returncode is None:
            self.process.send_signal(number)
        async with asyncio.timeout(60):
            return await self.process.wait()


def request(prompt: str = "a red apple", **fields: object) -> jobs_pb2.CreateJobRequest:
    """Fields of the request by name; all others are the GenerateSpec's."""
    outer = {name: fields.pop(name) for name in ("request_id", "lease", "priority", "expire_time") if name in fields}
    outer.setdefault("request_id", f"test-{os.getpid()}-{next(_numbers)}")
    spec = jobs_pb2.GenerateSpec(prompt=prompt, **({"steps": 3} | fields))  # type: ignore[arg-type]
    return jobs_pb2.CreateJobRequest(generate=spec, **outer)  # type: ignore[arg-type]


async def spawn(home: Home) -> tuple[asyncio.subprocess.Process, dict[str, object]]:
    """(the process, what it said on its ready pipe)."""
    reading, writing = os.pipe()
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "craftd", "--ready-fd", str(writing)),
        env=home.env,
        pass_fds=[writing],
        stderr=asyncio.subprocess.PIPE,
    )
    os.close(writing)
    with os.fdopen(reading) as pipe:
        line = await asyncio.to_thread(pipe.readline)
    return process, json.loads(line) if line else {}


def spawn_and_wait(home: Home) -> tuple[subprocess.Popen[bytes], dict[str, object]]:
    """The same where no event loop is."""
    reading, writing = os.pipe()
    process = subprocess.Popen(
        [sys.executable, "-m", "craftd", "--ready-fd", str(writing)],
        env=home.env,
        pass_fds=[writing],
        stderr=subprocess.PIPE,
    )
    os.close(writing)
    with os.fdopen(reading) as pipe:
        line = pipe.readline()
    return process, json.loads(line) if line else {}


async def start(home: Home) -> Daemon:
    process, said = await spawn(home)
    if not said.get("ready"):
        assert process.stderr is not None
        raise AssertionError((said, await process.stderr.read()))
    return Daemon(home, process, str(said["address"]))


@contextlib.asynccontextmanager
async def running(home: Home) -> AsyncIterator[Daemon]:
    """One helper for all: a daemon that is ended however the test goes."""
    daemon = await start(home)
    try:
        yield daemon
    finally:
        with contextlib.suppress(ProcessLookupError):
            await daemon.stop(signal.SIGKILL)


def details(error: grpc.aio.AioRpcError) -> dict[str, Message]:
    """A status' details by their type's name."""
    trailers = dict(error.trailing_metadata() or ())
    status = status_pb2.Status.FromString(trailers["grpc-status-details-bin"])  # type: ignore[arg-type]
    kinds = (error_details_pb2.ErrorInfo, error_details_pb2.BadRequest, error_details_pb2.RetryInfo)
    found: dict[str, Message] = {}
    for packed in status.details:
        for kind in kinds:
            if packed.Is(kind.DESCRIPTOR):
                found[kind.DESCRIPTOR.name] = kind.FromString(packed.value)
    return found


def reason(error: grpc.aio.AioRpcError) -> str:
    info = details(error)["ErrorInfo"]
    assert isinstance(info, error_details_pb2.ErrorInfo)
    return info.reason


def field(error: grpc.aio.AioRpcError) -> str:
    bad = details(error)["BadRequest"]
    assert isinstance(bad, error_details_pb2.BadRequest)
    return bad.field_violations[0].field


def is_whole(data: bytes) -> bool:
    """Every pixel of it can be decoded."""
    with Image.open(io.BytesIO(data), formats=["PNG", "JPEG", "WEBP"]) as image:
        image.load()
        return image.size == (64, 64)
