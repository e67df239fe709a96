"""What becomes of other trainings while a finished LoRA is looked at."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace

import apsw
import pytest
from craft_protos.train import TrainSpec
from craft_protos.worker_pb2 import FromWorker
from craftd.datasets.dataset import Dataset
from craftd.jobs import store as jobs
from craftd.jobs.events import Hub
from craftd.jobs.job import Job
from craftd.keys.caller import Caller, Role
from craftd.loras.lora import Wish
from craftd.scheduler.active_job import ActiveJob, Assignment
from craftd.store.database import Database
from craftd.training import store
from craftd.training.files import TrainingFiles
from craftd.training.lifecycle import TrainingLifecycle
from craftd.workers.dispatches import Dispatches

from tests.home import HANG_S

MADE = b"a LoRA"
SHA256 = hashlib.sha256(MADE).hexdigest()
SPEC = TrainSpec(
    name="it",
    model="flat",
    dataset="d",
    trigger="sks",
    rank=4,
    alpha=4.0,
    steps=10,
    epochs=1,
    learning_rate=1e-4,
    batch_size=1,
    gradient_accumulation=1,
    resolution=64,
    train_text_encoder=False,
    dora=False,
    sample_prompts=(),
    sample_every=0,
    seed=7,
    flip=False,
    min_snr_gamma=0.0,
    ema_decay=0.0,
    gradient_checkpointing=False,
    format="peft",
    when_idle=False,
    checkpoint_every=4,
    class_prompt="",
    class_pictures=0,
    prior_weight=1.0,
    learning_rate_schedule="constant",
    warmup_steps=0,
    caption_dropout=0.0,
)


class Loras:
    """Registers when it is let."""

    def __init__(self) -> None:
        self.is_looking = asyncio.Event()
        self.may_end = asyncio.Event()

    async def adopt(self, path: Path, wish: Wish, caller: Caller, *_: object) -> SimpleNamespace:
        assert (path.name, wish.name, caller.owner) == (SHA256, SPEC.name, "ann")
        self.is_looking.set()
        await self.may_end.wait()
        return SimpleNamespace(id="l1")


class Datasets:
    async def get(self, dataset_id: str, scope: str, owner: str) -> Dataset:
        return Dataset(dataset_id, owner, (), (), 0.0)


class Worker:
    dispatches = Dispatches()

    async def collect(self, sha256: str, destination: Path) -> None:
        assert sha256 == SHA256
        await asyncio.to_thread(destination.write_bytes, MADE)


class Scene:
    """Trainings, and what they work with."""

    def __init__(self, folder: Path) -> None:
        self.database = Database(folder / "craft.db")
        self.files = TrainingFiles(folder / "training")
        self.loras = Loras()
        self.trainings = TrainingLifecycle(
            self.database,
            Hub(),
            self.loras,  # type: ignore[arg-type]
            Datasets(),  # type: ignore[arg-type]
            self.files,
            caller_of=lambda owner: Caller(owner, Role.USER),
        )

    async def job(self, job_id: str) -> ActiveJob:
        made = Job(job_id, "ann", job_id, "", SPEC, 0.0)

        def work(connection: apsw.Connection) -> None:
            jobs.insert(connection, made)
            store.begin(connection, job_id)

        await self.database.run(work)
        active = ActiveJob(made, 0, parts={1: Worker()})  # type: ignore[arg-type]
        self.trainings.open(active)
        return active


@pytest.fixture
async def scene(tmp_path: Path) -> AsyncIterator[Scene]:
    made = Scene(tmp_path)
    yield made
    await made.database.close()


async def test_the_next_training_is_got_ready_while_a_lora_is_looked_at(scene: Scene) -> None:
    """The scheduler waits for `prepare`, and what is drawn waits for the scheduler."""
    done, following = await scene.job("j1"), await scene.job("j2")
    made = FromWorker.LoraMade(job_id="j1", epoch=1, sha256=SHA256, size_bytes=len(MADE))
    work = scene.trainings.receive(done, FromWorker(lora=made))
    assert work is not None
    registering = asyncio.ensure_future(work)
    await scene.loras.is_looking.wait()
    async with asyncio.timeout(HANG_S):
        assignment = await scene.trainings.prepare(following)
        await scene.trainings.sweep(1.0)
    assert isinstance(assignment, Assignment) and not assignment.files
    assert scene.files.path(SHA256).exists() and not done.job.lora  # the sweep leaves it: it is still needed
    scene.loras.may_end.set()
    await registering
    assert done.job.lora == "l1"
