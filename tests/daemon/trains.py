"""Datasets and train jobs at a real daemon."""

from __future__ import annotations

import asyncio
import itertools
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence

import grpc
from craft_protos import jobs_pb2, training_pb2, training_pb2_grpc

from tests.daemon.harness import Daemon, reason
from tests.pictures import pictures

_numbers = itertools.count()

Metadata = Sequence[tuple[str, str]]


class Refused(Exception):
    """An upload that the daemon did not take."""

    def __init__(self, error: grpc.RpcError) -> None:
        assert isinstance(error, grpc.Call)
        super().__init__(error.details())
        self.reason = reason(error)  # type: ignore[arg-type]


async def upload(
    daemon: Daemon,
    files: Mapping[str, bytes] | None = None,
    captions: Mapping[str, str] | None = None,
    *,
    skip_bad: bool = False,
    address: str = "",
    metadata: Metadata = (),
) -> training_pb2.Dataset:
    """Raises Refused."""
    files = pictures() if files is None else files
    parts = list(_parts(files, captions or {}, skip_bad))
    return await asyncio.to_thread(_send, address or daemon.address, parts, metadata)


async def send(daemon: Daemon, parts: Iterable[training_pb2.UploadDatasetRequest]) -> training_pb2.Dataset:
    """As `craft` does: its library hears why an upload is refused before it was sent. Raises Refused."""
    return await asyncio.to_thread(_send, daemon.address, list(parts), ())


def _send(address: str, parts: list[training_pb2.UploadDatasetRequest], metadata: Metadata) -> training_pb2.Dataset:
    with grpc.insecure_channel(address) as channel:
        try:
            for event in training_pb2_grpc.TrainingStub(channel).UploadDataset(iter(parts), metadata=metadata):
                if event.HasField("dataset"):
                    return event.dataset
        except grpc.RpcError as error:
            raise Refused(error) from error
    raise AssertionError("no dataset came")


def _parts(
    files: Mapping[str, bytes], captions: Mapping[str, str], skip_bad: bool
) -> Iterator[training_pb2.UploadDatasetRequest]:
    kinds = training_pb2.UploadDatasetRequest
    yield kinds(header=kinds.Header(skip_bad=skip_bad, pictures=len(files)))
    for name, data in files.items():
        yield kinds(picture=kinds.PictureHeader(file_name=name, size_bytes=len(data), caption=captions.get(name, "")))
        for start in range(0, len(data), 1000):
            yield kinds(chunk=data[start : start + 1000])


def request(
    dataset: str = "", *, trigger: str = "sks", request_id: str = "", **fields: object
) -> jobs_pb2.CreateJobRequest:
    """A short training with a checkpoint every 4 of 10 steps."""
    usual: dict[str, object] = {"name": f"it-{next(_numbers)}", "steps": 10, "checkpoint_every": 4, "seed": 7}
    spec = training_pb2.TrainSpec(dataset=dataset, trigger=trigger, **(usual | fields))  # type: ignore[arg-type]
    return jobs_pb2.CreateJobRequest(request_id=request_id or f"train-{os.getpid()}-{next(_numbers)}", train=spec)


async def train(daemon: Daemon, **fields: object) -> jobs_pb2.Job:
    """Uploads, and creates the job."""
    dataset = await upload(daemon)
    return await daemon.jobs.CreateJob(request(dataset.id, **fields))


async def log(daemon: Daemon, job_id: str, *, with_samples: bool = False) -> training_pb2.TrainingLog:
    asked = training_pb2.GetTrainingLogRequest(job_id=job_id, with_samples=with_samples)
    return await daemon.training.GetTrainingLog(asked)


async def reached(daemon: Daemon, job_id: str, step: int) -> None:
    """Waits for a step of it."""
    async for event in daemon.jobs.WatchJob(jobs_pb2.WatchJobRequest(id=job_id)):
        if event.HasField("training") and event.training.step >= step:
            return
        assert not event.HasField("finished"), event.finished.job.error
    raise AssertionError("the stream ended")
