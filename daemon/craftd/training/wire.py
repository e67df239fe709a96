"""Trainings as messages have them: to the worker, and to clients."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable

from craft_protos import training_pb2
from craft_protos.codec import to_message
from craft_protos.dispatch import Dispatch, File, ModelManifest
from craft_protos.train import Picture, TrainSpec
from craft_protos.version import __version__
from craft_protos.worker_pb2 import FromWorker

from craftd.datasets.dataset import in_order
from craftd.jobs.job import Job
from craftd.training.progress import Checkpoint, Sample, Step


def training(
    job: Job, epoch: int, model: ModelManifest, pictures: Iterable[Picture], checkpoint: Checkpoint
) -> Dispatch:
    return Dispatch(
        job_id=job.id,
        epoch=epoch,
        spec=job.training,
        model=model,
        files=(File("checkpoint", checkpoint.sha256, checkpoint.size_bytes),) if checkpoint.step else (),
        pictures=tuple(in_order(pictures)),
        owner=job.owner,
        provenance=json.dumps({"craft": __version__, "job": job.id}),
    )


def spec_message(spec: TrainSpec) -> training_pb2.TrainSpec:
    return to_message(spec, training_pb2.TrainSpec())


def picture_message(one: Picture) -> training_pb2.DatasetPicture:
    return to_message(one, training_pb2.DatasetPicture())


def step(message: training_pb2.TrainingStep) -> Step:
    validation = message.validation_loss if message.HasField("validation_loss") else None
    return Step(message.step, message.of, message.loss, message.learning_rate, message.seconds_left, validation)


def step_message(one: Step) -> training_pb2.TrainingStep:
    return training_pb2.TrainingStep(**dataclasses.asdict(one))


def sample_message(one: Sample, data: bytes) -> training_pb2.TrainingSample:
    return training_pb2.TrainingSample(
        step=one.step, prompt=one.prompt, seed=one.seed, media_type=one.media_type, data=data
    )


def checkpoint(frame: FromWorker.Checkpoint) -> Checkpoint:
    return Checkpoint(frame.step, frame.sha256, frame.size_bytes)
