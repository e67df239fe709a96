"""What the desk does while a finished LoRA is looked at."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace

import apsw
import pytest
from craft_protos.worker_pb2 import FromWorker
from craftd.datasets.dataset import Dataset
from craftd.jobs import table as jobs
from craftd.jobs.entry import Entry
from craftd.jobs.events import Hub
from craftd.jobs.job import Job
from craftd.jobs.training import table
from craftd.jobs.training.desk import Desk, Tools
from craftd.jobs.training.files import TrainingFiles
from craftd.jobs.training.spec import TrainSpec
from craftd.store.database import Database

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

    async def adopt(self, path: Path, *_: object) -> SimpleNamespace:
        assert path.name == SHA256
        self.is_looking.set()
        await self.may_end.wait()
        return SimpleNamespace(id="l1")


class Datasets:
    async def get(self, dataset_id: str, scope: str, owner: str) -> Dataset:
        return Dataset(dataset_id, owner, (), (), 0.0)


class Worker:
    def take_file(self, sha256: str, destination: Path) -> None:
        assert sha256 == SHA256
        destination.write_bytes(MADE)


class Office:
    """A desk and what it works with."""

    def __init__(self, folder: Path) -> None:
        self.database = Database(folder / "craft.db")
        self.files = TrainingFiles(folder / "training")
        self.loras = Loras()
        tools = Tools(self.database, Worker(), Hub(), self.loras, Datasets(), self.files)  # type: ignore[arg-type]
        self.desk = Desk(tools)

    async def job(self, job_id: str) -> Job:
        made = Job(job_id, "ann", job_id, "", SPEC, 0.0)

        def work(connection: apsw.Connection) -> None:
            jobs.insert(connection, made)
            table.begin(connection, job_id)

        await self.database.run(work)
        self.desk.open(job_id)
        return made


@pytest.fixture
async def office(tmp_path: Path) -> AsyncIterator[Office]:
    made = Office(tmp_path)
    yield made
    await made.database.close()


async def test_the_next_training_is_got_ready_while_a_lora_is_looked_at(office: Office) -> None:
    """The dispatcher waits for `order`, and what is drawn waits for the dispatcher."""
    done, following = Entry(await office.job("j1"), 0), await office.job("j2")
    made = FromWorker.LoraMade(job_id="j1", epoch=1, sha256=SHA256, size_bytes=len(MADE))
    work = office.desk.see(done, FromWorker(lora=made))
    assert work is not None
    registering = asyncio.ensure_future(work)
    await office.loras.is_looking.wait()
    async with asyncio.timeout(10):
        record, dataset = await office.desk.order(following)
        await office.desk.sweep(1.0)
    assert (record.checkpoint.step, dataset.owner) == (0, "ann")
    assert office.files.path(SHA256).exists() and not done.job.lora  # the sweep leaves it: it is still needed
    office.loras.may_end.set()
    await registering
    assert done.job.lora == "l1"
