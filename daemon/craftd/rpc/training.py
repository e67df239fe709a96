"""The Training service."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing
from pathlib import Path

from craft_protos import training_pb2 as pb
from craft_protos.reasons import invalid

from craftd.datasets.dataset import Dataset, Incoming, Upload
from craftd.datasets.service import DatasetService
from craftd.jobs.service import JobService
from craftd.keys.caller import Caller
from craftd.rpc.mapping import timestamp
from craftd.training import wire
from craftd.training.progress import Sample
from craftd.training.service import TrainingService

_MOST_BYTES = 48 << 20  # of a log; clients take messages of 64 MiB


class Training:
    def __init__(self, datasets: DatasetService, trainings: TrainingService, jobs: JobService) -> None:
        self._datasets = datasets
        self._trainings = trainings
        self._jobs = jobs

    async def UploadDataset(
        self, requests: AsyncIterator[pb.UploadDatasetRequest], caller: Caller
    ) -> AsyncIterator[pb.UploadDatasetEvent]:
        header = await _header(requests)
        upload = Upload(caller.owner, header.skip_bad, header.pictures, _parts(requests), header.masks)
        async with aclosing(self._datasets.receive(upload)) as events:
            async for event in events:
                if isinstance(event, Dataset):
                    yield pb.UploadDatasetEvent(dataset=_dataset(event))
                else:
                    progress = pb.UploadDatasetEvent.Progress(
                        pictures_done=event.pictures_done, pictures_total=event.pictures_total
                    )
                    yield pb.UploadDatasetEvent(progress=progress)

    async def GetDataset(self, request: pb.GetDatasetRequest, caller: Caller) -> pb.Dataset:
        return _dataset(await self._datasets.get(request.id, caller.scope, caller.owner))

    async def GetTrainingLog(self, request: pb.GetTrainingLogRequest, caller: Caller) -> pb.TrainingLog:
        view = await self._jobs.get(caller, request.job_id)
        if not view.job.is_training:
            raise invalid("job_id", f"job {view.job.id} is no training", "see `craft jobs list`")
        log = await self._trainings.log(view)
        told = pb.TrainingLog(
            steps=[wire.step_message(one) for one in log.steps],
            checkpoint_step=log.record.checkpoint.step,
            lora=view.job.lora,
        )
        if request.with_samples:
            await self._add_samples(told, log.samples[request.first_sample :])
        return told

    async def _add_samples(self, told: pb.TrainingLog, samples: Sequence[tuple[Sample, Path]]) -> None:
        """As many as fit beside the steps; one at least."""
        left = _MOST_BYTES - told.ByteSize()
        for one, path in samples:
            data = await self._trainings.sample(path)
            left -= len(data)
            if told.samples and left < 0:
                break
            told.samples.append(wire.sample_message(one, data))
        told.samples_left = len(samples) - len(told.samples)


async def _header(requests: AsyncIterator[pb.UploadDatasetRequest]) -> pb.UploadDatasetRequest.Header:
    first = await anext(requests, None)
    if first is None or first.WhichOneof("part") != "header":
        raise invalid("header", "must come first", "say how many pictures will come, then send them")
    return first.header


async def _parts(requests: AsyncIterator[pb.UploadDatasetRequest]) -> AsyncIterator[Incoming | bytes]:
    async for request in requests:
        match request.WhichOneof("part"):
            case "picture":
                told = request.picture
                yield Incoming(told.file_name, told.size_bytes, told.caption, told.repeats or 1, told.mask_of)
            case "chunk":
                yield request.chunk
            case _:
                raise invalid("chunk", "is missing", "after the header come the pictures")


def _dataset(one: Dataset) -> pb.Dataset:
    return pb.Dataset(
        id=one.id,
        pictures=[wire.picture_message(picture) for picture in one.pictures],
        left_out=[pb.BadPicture(file_name=bad.file_name, why=bad.why) for bad in one.left_out],
        create_time=timestamp(one.create_time),
    )
