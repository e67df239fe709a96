"""Trainings as messages have them: to the worker, and to clients."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable

from craft_protos import training_pb2
from craft_protos.version import __version__
from craft_protos.worker_pb2 import FromWorker, ModelManifest, ToWorker, Train

from craftd.datasets.dataset import Picture, in_order
from craftd.jobs.job import Job
from craftd.jobs.training.course import Checkpoint, Sample, Step
from craftd.jobs.training.spec import TrainSpec, TrainWish


def train(
    job: Job, epoch: int, manifest: ModelManifest, pictures: Iterable[Picture], checkpoint: Checkpoint
) -> ToWorker:
    frame = Train(
        job_id=job.id,
        epoch=epoch,
        spec=spec_message(job.training),
        model=manifest,
        pictures=[picture_message(one) for one in in_order(pictures)],
        checkpoint_sha256=checkpoint.sha256,
        checkpoint_size_bytes=checkpoint.size_bytes,
        owner=job.owner,
        provenance=json.dumps({"craft": __version__, "job": job.id}),
    )
    return ToWorker(train=frame)


def spec_message(spec: TrainSpec) -> training_pb2.TrainSpec:
    return training_pb2.TrainSpec(**dataclasses.asdict(spec))


def wish(message: training_pb2.TrainSpec) -> TrainWish:
    """A field that is not there, and may be not there, is None."""
    told: dict[str, object] = {}
    for field in message.DESCRIPTOR.fields:
        if field.has_presence and not message.HasField(field.name):  # type: ignore[arg-type]
            continue
        value = getattr(message, field.name)
        told[field.name] = tuple(value) if field.is_repeated else value
    return TrainWish(**told)  # type: ignore[arg-type]


def picture_message(one: Picture) -> training_pb2.DatasetPicture:
    return training_pb2.DatasetPicture(**dataclasses.asdict(one))


def step(message: training_pb2.TrainingStep) -> Step:
    return Step(message.step, message.of, message.loss, message.learning_rate, message.seconds_left)


def step_message(one: Step) -> training_pb2.TrainingStep:
    return training_pb2.TrainingStep(**dataclasses.asdict(one))


def sample_message(one: Sample, data: bytes) -> training_pb2.TrainingSample:
    return training_pb2.TrainingSample(
        step=one.step, prompt=one.prompt, seed=one.seed, media_type=one.media_type, data=data
    )


def checkpoint(frame: FromWorker.Checkpoint) -> Checkpoint:
    return Checkpoint(frame.step, frame.sha256, frame.size_bytes)
